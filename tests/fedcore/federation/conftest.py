"""Hospitals small enough to reason about: numeric features, a known risk, a representation that standardises."""

from collections.abc import Callable

import numpy as np
import pytest

from fedcore.features import representation
from fedcore.features.representation import FeatureSpace
from fedcore.samples import SiteSamples
from privacy.releases.sketches import Moments, Sketch, Sketches

MakeHospital = Callable[..., SiteSamples]


class Standardised:
    """Columns of `raw["x"]`, centred and scaled by the sites' merged moments."""

    name = "tabular"

    def sketch(self, samples: SiteSamples, minimum: int = 10) -> dict[str, Sketch]:
        n, d = samples.raw["x"].shape
        columns, patients = np.tile(np.arange(d), n), np.repeat(samples.patient_id, d)
        return {"x": Moments.release(samples.names["x"], columns, samples.raw["x"].ravel(), patients, minimum)}

    def agree(self, sketches: Sketches) -> FeatureSpace:
        moments = sketches["x"]
        assert isinstance(moments, Moments)
        return FeatureSpace(
            "tabular",
            columns=moments.names,
            center=tuple(moments.mean().tolist()),
            scale=tuple(moments.deviation().tolist()),
            sizes={"x": len(moments.names)},
        )

    def encode(self, samples: SiteSamples, space: FeatureSpace) -> dict[str, np.ndarray]:
        x = samples.raw["x"][:, [samples.names["x"].index(name) for name in space.columns]]
        return {"x": ((x - np.array(space.center)) / np.array(space.scale)).astype(np.float32)}


class Hourly(Standardised):
    """The same columns, measured in each of six hours, every second one missing."""

    name = "series"

    def agree(self, sketches: Sketches) -> FeatureSpace:
        space = super().agree(sketches)
        return FeatureSpace("series", space.columns, space.center, space.scale, sizes={"x": len(space.columns)})

    def encode(self, samples: SiteSamples, space: FeatureSpace) -> dict[str, np.ndarray]:
        x = super().encode(samples, space)["x"]
        mask = np.zeros((len(x), 6, x.shape[1]), np.float32)
        mask[:, ::2] = 1
        delta = np.zeros_like(mask)
        delta[:, 1::2] = 1
        return {"x": x[:, None, :] * mask, "mask": mask, "delta": delta}


@pytest.fixture
def toy_representations(monkeypatch: pytest.MonkeyPatch) -> None:
    """`tabular` and `series` are the two above."""
    shown = {"tabular": Standardised(), "series": Hourly()}
    monkeypatch.setattr(representation, "load", shown.__getitem__)


@pytest.fixture
def make_hospital(toy_representations: None) -> MakeHospital:
    """Makes one hospital of `n` patients with `d` features of known effect on the risk."""

    def make(
        name: str, n: int = 400, d: int = 8, *, external: bool = False, shift: float = 0.0, seed: int = 0
    ) -> SiteSamples:
        rng = np.random.default_rng([seed, *name.encode()])
        x = rng.normal(size=(n, d)) * 3 + 10 + shift
        risk = 1 / (1 + np.exp(-((x - 10) / 3 @ np.linspace(-1, 1, d) - 0.5)))
        parts, shares = ["train", "tuning", "recalibration", "conformal", "held_out"], [0.6, 0.1, 0.075, 0.075, 0.15]
        return SiteSamples(
            site=name,
            external=external,
            subject_id=np.arange(n) + 1_000_000,
            patient_id=np.arange(n) + 5_000_000,
            prediction_time=np.datetime64("2150-01-01", "us") + np.arange(n).astype("timedelta64[h]"),
            label=rng.random(n) < risk,
            split=np.full(n, "held_out") if external else rng.choice(parts, n, p=shares),
            raw={"x": x},
            names={"x": tuple(f"v{i:03d}" for i in range(d))},
        )

    return make
