"""The jobs as FedWard takes them: sites with samples, and a model that trains one setting for all its rounds."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from networks import network
from shared_job import Tensors, Training

from fedcore.features import representation
from fedcore.features.tabular import columns
from fedcore.learner import Learner, Setting
from fedcore.models.model import ModelSpec, Recipe, Sizes
from fedcore.samples import SiteSamples
from privacy.releases.sketches import merge


@dataclass(frozen=True)
class Job:
    """The sites, in the order of their names, and how to train on them."""

    sites: Sequence[SiteSamples]
    training: Training = field(default_factory=Training)

    @property
    def setting(self) -> dict[str, int | float]:
        """The model's one setting."""
        t = self.training
        return {
            "step_size": t.step_size, "epochs": t.epochs, "batch_size": t.batch_size, "l2": 0.0, "hidden": t.hidden,
        }  # fmt: skip

    def tensors(self) -> list[Tensors]:
        """The sites' samples in the feature space that they agree on."""
        shown = representation.load("tabular")
        space = shown.agree(merge([shown.sketch(site.in_split("train")) for site in self.sites]))

        def encoded(site: SiteSamples, split: str) -> tuple[np.ndarray, np.ndarray]:
            chosen = site.in_split(split)
            return shown.encode(chosen, space)["x"], chosen.label.astype(np.float32)

        return [Tensors(site.site, *encoded(site, "train"), *encoded(site, "tuning")) for site in self.sites]


def made_up(sites: int, *, train: int, tuning: int, features: int = 13, training: Training | None = None) -> Job:
    """A job of so many made-up sites, each with exactly so many training and tuning samples."""
    return Job(
        [hospital(f"site{i:03d}", train=train, tuning=tuning, features=features) for i in range(sites)],
        training or Training(),
    )


def heart() -> Job:
    """The size of FLamby's Fed-Heart-Disease: 4 sites, 13 features, 15 rounds of 100 steps of 4 samples."""
    return made_up(4, train=400, tuning=80)


def embedded(hidden: int) -> Job:
    """The embedded simulated hospitals: mortality after the first day, tabular features, 10 rounds of 4 epochs."""
    from fedcore.prepare import prepare
    from fedcore.task import load_task
    from sites.home import home
    from sites.simulate.federation import simulate
    from sites.site import open_sites

    task = load_task("mortality/in_hospital/first_24h")
    sites = open_sites([hospital.spec for hospital in simulate(home() / "simulated")])
    samples = [prepare(site, task, "tabular", 0).samples for site in sites]
    training = Training(hidden=hidden, rounds=10, epochs=4, batch_size=64, step_size=0.03)
    return Job(sorted(samples, key=lambda site: site.site), training)


def hospital(name: str, *, train: int, tuning: int, features: int) -> SiteSamples:
    """A made-up site; its numbers follow from its name. Its features are shown as codes with counts."""
    rng = np.random.default_rng([*name.encode()])
    n = train + tuning
    x = rng.normal(size=(n, features)) + rng.normal(scale=0.2, size=features)
    risk = 1 / (1 + np.exp(-x @ np.linspace(-1, 1, features)))
    return SiteSamples(
        site=name,
        external=False,
        subject_id=np.arange(n),
        patient_id=np.arange(n),
        prediction_time=np.datetime64("2150-01-01", "us") + np.arange(n).astype("timedelta64[h]"),
        label=rng.random(n) < risk,
        split=np.array(["train"] * train + ["tuning"] * tuning),
        raw={
            "x": np.full((n, len(columns())), np.nan, np.float32),
            "codes.offsets": np.arange(n + 1) * features,
            "codes.index": np.tile(np.arange(features, dtype=np.int32), n),
            "codes.count": np.exp(0.3 * x).ravel().astype(np.float32),
        },
        names={"x": tuple(c.name for c in columns()), "codes": tuple(f"CODE//{i:04d}" for i in range(features))},
    )


def _learner(sizes: Sizes, setting: Setting) -> Learner:
    from fedcore.learners.minibatch import MinibatchLearner
    from fedcore.learners.optimizers import SGD

    return MinibatchLearner(lambda: network(sizes["x"], int(setting["hidden"])), setting, optimizer=SGD)


_RECIPE = Recipe(
    learner=_learner,
    settings=(Job(()).setting,),
    rounds=15,
    patience=None,
    untuned=Job(()).setting,
    untuned_rounds=1_000_000,  # as many as are asked for
)

MODEL = ModelSpec(name="job", representation="tabular", federated=_RECIPE, alone=_RECIPE)
