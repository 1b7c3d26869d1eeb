"""Where an attack takes place: what a federation released, the patients, and how to make another federation like it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from bench.code import representation_of
from bench.game import candidates, play
from bench.training import Predicted, prepared_sites, request_of
from bench.transcript import Transcript
from fedcore.features import representation as representations
from fedcore.federation import FederationRequest, FederationResult, Passed, run_federation
from fedcore.learner import Encoded, Learner, log_loss
from fedcore.plan import plan_of
from fedcore.samples import SiteSamples
from fedcore.streams import draw_seed
from fedcore.task import Task
from leaderboard.record import Spec
from leaderboard.spec import AttackPlan
from privacy.attacks import lira, passive
from sites.site import Site

POPULATION = ("recalibration", "conformal")
"""Splits that nobody trains on, from which an attacker may know people."""


@dataclass(frozen=True)
class Scene:
    """What an attack is put to.

    Attributes:
        spec: the cell.
        plan: what it is attacked with.
        sites: the training sites' samples, in the order of names, with the splits that are theirs.
        played: the same with the splits that the federation had.
        request: what it was asked for.
        target: what it released.
        predictions: by site, what its final model says of each of its samples, float64 [n].
    """

    spec: Spec
    plan: AttackPlan
    sites: Sequence[SiteSamples]
    played: Sequence[SiteSamples]
    request: FederationRequest
    target: Transcript
    predictions: dict[str, np.ndarray]

    def play(self, *names: str | int, turned: bool = False) -> list[SiteSamples]:
        """The sites' samples with the splits of another game, of the same candidates."""
        return play(self.sites, self.spec.seed, *names, turned=turned, patients=self.plan.patients)

    def candidates(self) -> list[np.ndarray]:
        """By site, the places of the rows of those of whom the game's coin decided."""
        asked = self.spec.seed, self.plan.patients
        return [np.flatnonzero(np.isin(site.patient_id, candidates(site, *asked))) for site in self.sites]

    def learner(self, released: Transcript) -> Learner:
        """What trains and predicts with the model that was released."""
        plan = plan_of(self.request)
        return plan.model.recipe(plan.recipe).learner(released.space.sizes, released.setting)

    def federation(
        self, sites: Sequence[SiteSamples], *names: str | int, rounds: int | None = None
    ) -> tuple[FederationResult, Transcript]:
        """Another federation like the cell's, over other samples, with a seed of its own; and what it released.

        Args:
            sites: the samples.
            names: of its seed.
            rounds: how many; None: as many as the cell's.
        """
        passed: list[Passed] = []
        changes: dict[str, int] = {"seed": draw_seed(self.spec.seed, "attack", *names) % 2**31}
        request = self.request.model_copy(update=changes if rounds is None else {**changes, "rounds": rounds})
        result = run_federation(sites, request, watch=passed.append)
        return result, Transcript.of(result, passed)

    def over_rounds(self, site: SiteSamples, rows: np.ndarray, released: Transcript) -> tuple[np.ndarray, np.ndarray]:
        """What a site's updates say of some of its rows.

        Returns:
            Float64 [rows] each: how far the updates descend on a row's loss, summed over rounds; and the confidence in
            its outcome of the models that the site sent, which are its own before they are averaged, their mean.
        """
        chosen = site.take(rows)
        encoded = encoded_for(chosen, released)
        learner = self.learner(released)

        def loss(model: passive.Model) -> np.ndarray:
            return log_loss(chosen.label, learner.predict(model, encoded))

        passed = released.of_site(site.site)
        along, own = np.zeros(len(rows)), np.zeros(len(rows))
        for one in passed:
            along += passive.alignment(loss, one.sent, one.arrived)
            own += lira.confidence(learner.predict(one.arrived, encoded), chosen.label) / len(passed)
        return along, own


def encoded_for(samples: SiteSamples, released: Transcript) -> Encoded:
    """The samples as the model that was released takes them."""
    return representations.load(released.space.representation).encode(samples, released.space)


def scene_of(spec: Spec, plan: AttackPlan, task: Task, sites: Sequence[Site], predicted: Predicted) -> Scene:
    """The scene of a cell that has been trained."""
    representation = representation_of(spec.model.name, spec.federation.protocol)
    served, _ = prepared_sites(spec, task, sites, representation)
    frame = pl.read_parquet(predicted.predictions, columns=["site_id", "predicted_boolean_probability"])
    predictions = {
        str(site): rows["predicted_boolean_probability"].to_numpy()
        for (site,), rows in frame.group_by("site_id", maintain_order=True)
    }
    own = [one.samples for one in served if not one.samples.external and one.samples.site in predictions]
    return Scene(
        spec=spec,
        plan=plan,
        sites=own,
        played=play(own, spec.seed, patients=plan.patients),
        request=request_of(spec, sites),
        target=Transcript.read(predicted.predictions.parent),
        predictions=predictions,
    )
