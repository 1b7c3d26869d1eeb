"""Examples of a record and its parts, small and whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from leaderboard import record as records
from leaderboard.measured import (
    AttritionStep,
    Code,
    Cost,
    Data,
    Hardware,
    Predictions,
    Provenance,
    Release,
    Round,
    SiteData,
    Training,
    Trial,
)
from leaderboard.record import Failure, Interval, Metric, Record, Scope, Spec
from leaderboard.spec import Configured, EvaluationPlan, FederationPlan, SiteRef, Suite, TaskRef

HASH = "a" * 64


def spec(seed: int = 0, content: str = HASH, metrics: tuple[str, ...] = ("auroc",), suite: str = "mortality") -> Spec:
    return Spec(
        suite=Suite(name=suite, version="1"),
        task=TaskRef(name="mortality/in_hospital/first_24h", sha256=HASH),
        sites=(
            SiteRef(name="boston", kind="mimic4", options={"by": "unit"}, role="train", content_sha256=content),
            SiteRef(name="usa", kind="eicu", role="external", content_sha256=HASH),
        ),
        model=Configured(name="logistic", config={"l2": 0.01}),
        strategy=Configured(name="fedavg"),
        federation=FederationPlan(rounds=20),
        evaluation=EvaluationPlan(b=1000, level=0.95, metrics=metrics),
        seed=seed,
        split_seed=0,
    )


def metric(value: float) -> Metric:
    ci = Interval(
        level=0.95,
        low=0.7,
        high=0.85,
        method="patient-bootstrap-percentile",
        b=1000,
        b_defined=1000,
        cluster="patient",
        strata="site",
        seed=0,
    )
    return Metric(
        name="auroc",
        direction="max",
        ideal=1.0,
        unit="1",
        scope=Scope(kind="pooled"),
        value=value,
        n=200,
        n_pos=30,
        n_patients=180,
        ci=ci,
        se=0.04,
        estimator="exact",
    )


def record(
    *,
    spec: Spec | None = None,
    status: str = "ok",
    value: float = 0.8,
    run_id: str = "01J00000000000000000000000",
    code_fingerprint: str = "f" * 16,
    cpu: str = "some cpu",
    wall_s: float = 1.5,
    **parts: Any,
) -> Record:
    site = {"data_kind": "demo", "cohort_sha256": HASH, "splits_sha256": HASH}
    step = AttritionStep(step="ICU admissions", samples=240, patients=190)
    sites = (
        SiteData(
            name="boston",
            role="train",
            n_subjects=180,
            n_patients=180,
            n_samples=200,
            n_pos=30,
            **site,
            attrition=(step,),
        ),
        SiteData(name="usa", role="external", n_subjects=90, n_patients=80, n_samples=90, n_pos=12, **site),
    )
    found: dict[str, Any] = {
        "data": Data(data_kind="demo", sites=sites, partition_sha256=HASH),
        "training": Training(
            chosen={"lr": 0.1},
            selection="tuning log loss",
            trials=(
                Trial(settings={"lr": 0.1}, tuning_loss=0.4),
                Trial(settings={"lr": 9}, tuning_loss=None, note="diverged"),
            ),
            rounds=(Round(round=1, train_loss=0.5, tuning_loss=0.45, answered=2),),
        ),
        "metrics": (metric(value),),
        "predictions": Predictions(sha256=HASH, rows=200),
        "releases": (Release(what="model update", where="boston", epsilon=3.0),),
    }
    if status != "ok":
        found = {"error": Failure(kind="InputError", message="no site can serve the task")}
    return records.seal(
        spec=spec or make_default(),
        status=status,  # type: ignore[arg-type]
        code_fingerprint=code_fingerprint,
        run_id=run_id,
        provenance=Provenance(
            code=Code(commit="c" * 40, dirty=False, package_version="0.1.0"),
            python="3.11.9",
            packages={"numpy": "2.4.6"},
            hardware=Hardware(cpu=cpu, cores=2, ram_gb=16.0, os="Linux"),
            started_at="2026-11-20T15:24:05Z",
            finished_at="2026-11-20T15:24:07.5Z",
        ),
        cost=Cost(wall_s=wall_s, bytes_up=10, bytes_down=20, rounds=20),
        **{**found, **parts},
    )


make_default = spec


@pytest.fixture(scope="session")
def make_spec() -> Callable[..., Spec]:
    return spec


@pytest.fixture(scope="session")
def make_record() -> Callable[..., Record]:
    return record


@pytest.fixture(scope="session")
def make_body() -> Callable[..., dict[str, Any]]:
    """A record as plain JSON."""
    return lambda **change: json.loads(records.canonical_json(record(**change)))
