"""FLamby's Fed-Heart-Disease: its patients, features, splits and scaling, trained as anything else is.

Ogier du Terrail et al., FLamby: Datasets and Benchmarks for Cross-Silo Federated Learning in Realistic Healthcare
Settings, 2022. Of the UCI heart disease files it takes:

- patients: those of whom the first ten findings are all known, 740 of 920, in the order of the files;
- split: scikit-learn's `train_test_split` with 66 % to train, seed 43, stratified by label where each class has more
  than two patients; the same for every seed of a benchmark;
- features: eight findings as they are, chest pain type and resting ECG as flags without their first level: 13;
- scaling: (x - mean) / (standard deviation + 1e-9) with each hospital's own training patients, never shared; those who
  are held back to tune among them, since FLamby trains on them. A hospital left out of training is scaled by its own.

Switzerland's 30 training patients are all ill, and its serum cholesterol is 0 throughout: unknown, not low.

A fifth of each hospital's training patients, by class, is held back as the tuning split, which FLamby has not; who
stays depends on the split seed. `fedcore.protocols.flamby` holds back none.
"""

from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from fedcore.cohort import CannotServe, Hospital, Task
from fedcore.features.representation import Arrays, FeatureSpace, Raw
from fedcore.prepare import Prepared, hashed, prepared_cohort
from fedcore.protocols.protocol import Protocol
from fedcore.samples import Attrition, Cohort, SiteSamples
from privacy.releases.sketches import DEFAULT_MINIMUM, Sketch, Sketches
from sites.dataset import Dataset
from sites.errors import InputError
from sites.splits import uniform

PAPER: Final = (
    "Ogier du Terrail et al., FLamby: Datasets and Benchmarks for Cross-Silo Federated Learning in Realistic "
    "Healthcare Settings, 2022"
)

TRAINED: Final = {"cleveland": 199, "hungarian": 172, "switzerland": 30, "va": 85}
"""FLamby's centres in the order of their numbers, and how many patients each trains on; no two as many."""

FINDINGS: Final = ("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak")
LEVELS: Final = {"cp": (2, 3, 4), "restecg": (1, 2)}
"""The flags of categorical findings; a flag of their first level (1 and 0) would say nothing more."""

FEATURES: Final = (
    *(name for name in FINDINGS if name not in LEVELS),
    *(f"{name}={level}" for name, levels in LEVELS.items() for level in levels),
)

TRAIN_FRACTION: Final = 0.66
SPLIT_SEED: Final = 43
TUNING: Final = 0.2

Floats = npt.NDArray[np.floating[Any]]


class HeartFeatures:
    """FLamby's features, scaled at the site; there is nothing for the sites to agree on."""

    name = "fedcore.protocols.flamby_data:REPRESENTATION"

    def extract(self, dataset: Dataset, samples: pl.DataFrame, window_hours: float) -> Raw:
        """`unscaled` float32 [n, 13] at the prediction times; NaN where a finding is missing."""
        values = (
            dataset.scan()
            .join(samples.lazy().select("subject_id", "prediction_time"), on="subject_id")
            .filter(pl.col("time") <= pl.col("prediction_time"))
            .group_by("subject_id")
            .agg(pl.col("numeric_value").filter(pl.col("code") == f"LAB//{f}//UNK").last().alias(f) for f in FINDINGS)
            .collect()
        )
        found = samples.select("subject_id").join(values, on="subject_id", how="left", maintain_order="left")
        flags = [(pl.col(name) == level).alias(f"{name}={level}") for name in LEVELS for level in LEVELS[name]]
        columns = found.with_columns(flags).select(pl.col(FEATURES).cast(pl.Float32))
        return Raw({"unscaled": columns.fill_null(float("nan")).to_numpy()}, {})

    def sketch(self, samples: SiteSamples, minimum: int = DEFAULT_MINIMUM) -> dict[str, Sketch]:
        """Nothing leaves."""
        return {}

    def agree(self, sketches: Sketches) -> FeatureSpace:
        """The 13 features."""
        return FeatureSpace(self.name, columns=FEATURES, sizes={"x": len(FEATURES)})

    def encode(self, samples: SiteSamples, space: FeatureSpace) -> Arrays:
        """`x` float32 [n, 13]."""
        return {"x": np.asarray(samples.raw["x"])}


REPRESENTATION = HeartFeatures()


def prepare(site: Hospital, task: Task, split_seed: int) -> Prepared:
    """FLamby's patients of a hospital, with a tuning split.

    Raises:
        CannotServe: the site is not one of the four hospitals.
        InputError: its patients are not those of FLamby.
    """
    whole = prepare_whole(site, task)
    samples = whole.samples
    split = samples.split.copy()
    rank = uniform(samples.patient_id, split_seed, "flamby tuning")
    for label in (True, False):
        of_class = np.flatnonzero((split == "train") & (samples.label == label))
        first = of_class[np.argsort(rank[of_class], kind="stable")]
        split[first[: round(TUNING * len(first))]] = "tuning"
    return _sealed(scaled(replace(samples, split=split)), whole.cohort)


def prepare_whole(site: Hospital, task: Task) -> Prepared:
    """FLamby's patients of a hospital, all of its training split in ours.

    Raises:
        CannotServe: the site is not one of the four hospitals.
        InputError: its patients are not those of FLamby.
    """
    hospital = _hospital(site)
    cohort = prepared_cohort(site, task)
    unscaled = REPRESENTATION.extract(site.dataset, cohort.samples, task.window_hours).arrays["unscaled"]
    complete = ~np.isnan(unscaled).any(axis=1)
    kept = cohort.samples.filter(pl.Series(complete))
    label = kept["label"].to_numpy()
    split = np.where(_in_training(label), "train", "held_out").astype("<U13")
    if np.sum(split == "train") != TRAINED[hospital]:
        raise InputError(
            f"site {site.name}: found {np.sum(split == 'train')} training patients, but FLamby has "
            f"{TRAINED[hospital]} of {hospital}; take the file processed.{hospital}.data of the UCI repository"
        )
    step = Attrition("FLamby's ten findings are known", len(kept), len(kept), int(label.sum()))
    samples = SiteSamples(
        site=site.name,
        external=site.external,
        subject_id=kept["subject_id"].to_numpy(),
        patient_id=kept["patient_id"].to_numpy(),
        prediction_time=kept["prediction_time"].to_numpy(),
        label=label,
        split=split,
        raw={"unscaled": unscaled[complete]},
        window_hours=task.window_hours,
    )
    return _sealed(scaled(samples), Cohort(site.name, task.name, kept, (*cohort.attrition, step)))


def scaled(samples: SiteSamples) -> SiteSamples:
    """The samples with `x`, scaled by the training patients among them."""
    trained = np.asarray(samples.raw["unscaled"][samples.split != "held_out"], np.float64)
    center, scale = trained.mean(axis=0), trained.std(axis=0, ddof=1)
    x = ((samples.raw["unscaled"] - center) / (scale + 1e-9)).astype(np.float32)
    return replace(samples, raw={**samples.raw, "x": x})


def _hospital(site: Hospital) -> str:
    """Which of FLamby's centres this is."""
    kind = site.dataset.manifest.kind
    if kind != "uci_heart":
        raise CannotServe(
            f"Site {site.name} cannot serve FLamby's heart disease: found {kind}, expected a uci_heart export."
        )
    named = site.dataset.subjects.join(site.subjects, on="subject_id", how="semi")["hospital"].unique().sort().to_list()
    if len(named) != 1:
        raise CannotServe(
            f"Site {site.name} cannot serve FLamby's heart disease: found patients of {', '.join(named)} in one site, "
            "expected one hospital a site; write uci_heart,by=hospital."
        )
    return str(named[0])


def _in_training(label: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    from sklearn.model_selection import train_test_split

    counts = np.bincount(label, minlength=2)
    train, _ = train_test_split(
        np.arange(len(label)),
        test_size=1 - TRAIN_FRACTION,
        train_size=TRAIN_FRACTION,
        random_state=SPLIT_SEED,
        stratify=label if counts.min() > 2 else None,
    )
    return np.isin(np.arange(len(label)), train)


def _sealed(samples: SiteSamples, cohort: Cohort) -> Prepared:
    """With the hashes of who is predicted for and of who is in which split."""
    columns = {c: cohort.samples[c].to_numpy() for c in cohort.samples.columns}
    split = {"patient_id": samples.patient_id, "split": samples.split.astype("S13")}
    return Prepared(samples, cohort, hashed(columns), hashed(split))


PROTOCOL = Protocol(
    title="FLamby's heart disease data", paper=PAPER, representation=HeartFeatures.name, prepare=prepare
)
