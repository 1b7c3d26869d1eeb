"""Hospitals small enough to reason about: numeric features, a known risk, a representation that standardises.

And clinics, whose samples show the genuine representations, for what runs in other processes.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from fedcore.features import representation, series, tabular
from fedcore.features.events import describing_concepts, series_concepts
from fedcore.features.representation import FeatureSpace
from fedcore.federation import FederationResult
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


MEASURED = 3
"""The concepts that a clinic measures: heart rate, respiratory rate, temperature."""

READ_AT = (2, 9, 20)
"""The hours at which it does."""


def _clinic(name: str, n: int, shift: float) -> SiteSamples:
    """A hospital whose raw arrays serve `tabular`, `series` and `sequence` at once."""
    rng = np.random.default_rng([7, *name.encode()])
    z = rng.normal(size=(n, MEASURED)) + shift
    risk = 1 / (1 + np.exp(-(z @ [1.5, -1.0, 0.7] - 0.2)))
    concepts = series_concepts()[:MEASURED]
    middle, spread = np.array([(c.low + c.high) / 2 for c in concepts]), [(c.high - c.low) / 20 for c in concepts]
    readings = (z[:, None] + rng.normal(scale=0.5, size=(n, len(READ_AT), MEASURED))) * spread + middle
    age = rng.integers(20, 90, n).astype(np.float32)
    return SiteSamples(
        site=name,
        external=False,
        subject_id=np.arange(n) + 1_000_000,
        patient_id=np.arange(n) + 5_000_000,
        prediction_time=np.datetime64("2150-01-01", "us") + np.arange(n).astype("timedelta64[h]"),
        label=rng.random(n) < risk,
        split=rng.choice(["train", "tuning", "recalibration", "conformal", "held_out"], n, p=[0.5, 0.2, 0.1, 0.1, 0.1]),
        raw={**_summaries(readings, age), **_cells(readings, age), **_events(readings, rng)},
        names={
            "x": tuple(column.name for column in tabular.columns()),
            "codes": ("ICD10//E11", "ICD10//I10"),
            "cells": tuple(column.name for column in series.columns()),
            "events": (*(concept.name for concept in series_concepts()), "ICD10//E11", "ICD10//I10"),
        },
    )


def _offsets(each: int, n: int) -> np.ndarray:
    return np.arange(n + 1, dtype=np.int64) * each


def _summaries(readings: np.ndarray, age: np.ndarray) -> dict[str, np.ndarray]:
    n, place = len(readings), {column.name: i for i, column in enumerate(tabular.columns())}
    x = np.full((n, len(place)), np.nan, np.float32)
    x[:, [i for name, i in place.items() if name.endswith("count")]] = 0
    for i, concept in enumerate(series_concepts()[:MEASURED]):
        seen = readings[:, :, i]
        for name, value in (
            ("count", np.full(n, len(READ_AT))),
            ("first", seen[:, 0]),
            ("last", seen[:, -1]),
            ("mean", seen.mean(1)),
            ("min", seen.min(1)),
            ("max", seen.max(1)),
        ):
            x[:, place[f"{concept.name}.{name}"]] = value
    x[:, place["age"]] = age
    codes = {"index": np.arange(n, dtype=np.int32) % 2, "count": np.ones(n, np.float32)}
    return {"x": x, "codes.offsets": _offsets(1, n)} | {f"codes.{name}": value for name, value in codes.items()}


def _cells(readings: np.ndarray, age: np.ndarray) -> dict[str, np.ndarray]:
    n, times = len(readings), len(READ_AT)
    where = len(series_concepts()) + [concept.name for concept in describing_concepts()].index("age")
    each = times * MEASURED + 1
    return {
        "cells.offsets": _offsets(each, n),
        "cells.index": np.tile(np.append(np.tile(np.arange(MEASURED), times), where), n).astype(np.int32),
        "cells.hour": np.tile(np.append(np.repeat(READ_AT, MEASURED), -1), n).astype(np.int16),
        "cells.value": np.column_stack([readings.reshape(n, -1), age]).astype(np.float32).ravel(),
    }


def _events(readings: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A code at the beginning, then the readings."""
    n, times = len(readings), len(READ_AT)
    code = len(series_concepts()) + rng.integers(2, size=n)
    index = np.column_stack([code, np.tile(np.arange(MEASURED), (n, times))])
    hours = np.concatenate([[-30.0], np.repeat(READ_AT, MEASURED) - 24.0])
    return {
        "events.offsets": _offsets(index.shape[1], n),
        "events.index": index.astype(np.int32).ravel(),
        "events.hours": np.tile(hours, n).astype(np.float32),
        "events.value": np.column_stack([np.full(n, np.nan), readings.reshape(n, -1)]).astype(np.float32).ravel(),
    }


@pytest.fixture(scope="session")
def clinics() -> list[SiteSamples]:
    """Seven that train, and one that is only scored."""
    sizes = {"amman": 140, "bern": 90, "cairo": 120, "delhi": 100, "essen": 80, "fes": 110, "graz": 100}
    training = [
        _clinic(name, n, shift) for (name, n), shift in zip(sizes.items(), (0, 0.3, -0.3, 0, 0.1, -0.1, 0), strict=True)
    ]
    outside = _clinic("outside", 50, 0.2)
    return [*training, replace(outside, external=True, split=np.full(50, "held_out"))]


def _bits(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {name: (value.dtype.name, value.shape, value.tobytes()) for name, value in arrays.items()}


@pytest.fixture(scope="session")
def told() -> Callable[[FederationResult], dict[str, Any]]:
    """All that a result says but its engine and wall time, in a form that is equal only if every bit is."""

    def tell(result: FederationResult) -> dict[str, Any]:
        return {
            **{name: value for name, value in vars(result).items() if name not in ("space", "by_site", "engine")},
            "ledgers": {site: (ledger.budget, ledger.entries) for site, ledger in result.ledgers.items()},
            "arrays": _bits(result.arrays),
            "predictions": _bits(result.predictions),
            "rounds": [{**asdict(report), "seconds": 0.0} for report in result.rounds],
            "space": result.space.to_json() if result.space else None,
            "by_site": {site: tell(own) for site, own in result.by_site.items()},
        }

    return tell
