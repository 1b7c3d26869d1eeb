"""Who is predicted for, when, and with which label: a site's events and a task become a cohort.

ACES (`es-aces`) decides. Around it this module does four things:

- It hands ACES no more than it needs: events whose code some predicate of the task names, and, only if the task asks
  for them, the times at which anything happened (`_ANY_EVENT`) and each record's first and last time (`_RECORD_START`,
  `_RECORD_END`, open-ended windows). ACES keeps some 435 bytes an event; it is fed at most `BATCH` rows at once.
- It counts. The task is run as far as its first constraint, then its second, and so on to the whole; what each step
  leaves is the attrition table, and the last step is the cohort itself.
- It leaves out stays whose outcome the export does not know (`OUTCOME_UNKNOWN` at hospital discharge), where the label
  is a death, and counts them too.
- It refuses sites that cannot serve the task, with a sentence, instead of returning no samples or wrong labels.
"""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import polars as pl
from aces.predicates import get_predicates_df
from aces.query import query
from aces.types import ANY_EVENT_COLUMN
from meds.schema import LabelSchema, death_code
from omegaconf import DictConfig

from fedcore.samples import SAMPLE_SCHEMA, Attrition, Cohort
from fedcore.task import SPECIAL, CannotServe, Definition, Step, Task, extractor, load_task, tasks
from sites.dataset import Dataset
from sites.home import home

__all__ = ["CannotServe", "Hospital", "NoSamples", "Task", "build_cohort", "load_task", "tasks"]

BATCH = 500_000
"""Rows handed to ACES at once."""

OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"
HOSPITAL_DISCHARGE = "HOSPITAL_DISCHARGE//"

EXTRACTED = {
    "subject_id": pl.Int64(),
    "trigger": pl.Datetime("us"),
    "index_timestamp": pl.Datetime("us"),
    "label": pl.Int64(),
}


class Hospital(Protocol):
    """What a cohort needs of a `sites.site.Site`: not how its export is read."""

    @property
    def name(self) -> str:
        """What records call it."""
        ...

    @property
    def dataset(self) -> Dataset:
        """Its MEDS dataset, perhaps shared with other sites."""
        ...

    @property
    def subjects(self) -> pl.DataFrame:
        """subject_id and patient_id: who of the dataset belongs to this site."""
        ...

    @property
    def external(self) -> bool:
        """It is only scored."""
        ...


class NoSamples(CannotServe):
    """The definition leaves no sample at this site; `attrition` says where they went."""

    def __init__(self, sentence: str, attrition: tuple[Attrition, ...]) -> None:
        super().__init__(sentence)
        self.attrition = attrition


def build_cohort(site: Hospital, task: Task) -> Cohort:
    """Find a site's samples of a task.

    Args:
        site: Whose subjects count; of a shared dataset only `site.subjects` do.
        task: From `load_task`.

    Returns:
        The samples, sorted by subject and prediction time, checked against MEDS' label schema, and the attrition from
        all triggers to them.

    Raises:
        CannotServe: The site lacks the events that the task rests on, or no sample is left.
    """
    kind = site.dataset.manifest.kind
    steps = list(task.steps(kind))
    whole = steps[-1].definition
    matching = _codes(site, whole)
    _check_served(site, task, matching)
    subjects = site.subjects.select("subject_id", "patient_id")
    parts = [_run(batch, steps) for batch in _batches(site, whole, matching, subjects)]
    attrition = []
    extracted = pl.DataFrame(schema=EXTRACTED)
    for number, step in enumerate(steps):
        extracted = pl.concat([pl.DataFrame(schema=EXTRACTED), *(part[number] for part in parts)])
        extracted = extracted.join(subjects, on="subject_id", how="left")
        attrition.append(_counted(step.sentence, extracted))
    if attrition[0].samples == 0:
        raise CannotServe(
            f"Site {site.name} cannot serve {task.name}: none of its {subjects.height} subjects has an event "
            f"'{whole['trigger']}'."
        )
    if any(death_code in matching.get(p, []) for p in task.inputs(task.label)):
        extracted = _with_known_outcome(site, extracted)
        attrition.append(_counted("the outcome of the hospital stay is known", extracted))
    samples = (
        extracted.select("subject_id", "patient_id", prediction_time="index_timestamp", label=pl.col("label") > 0)
        .cast(dict(SAMPLE_SCHEMA))  # type: ignore[arg-type]
        .sort("subject_id", "prediction_time", "label")
    )
    last = attrition[-1]
    attrition[-1] = Attrition(last.step, last.samples, last.patients, int(samples["label"].sum()))
    if samples.is_empty():
        raise NoSamples(
            f"Site {site.name} cannot serve {task.name}: of {attrition[0].samples} triggers none meets the task's "
            f"definition (none is left after '{next(a.step for a in attrition if a.samples == 0)}').",
            tuple(attrition),
        )
    LabelSchema.validate(
        samples.select("subject_id", "prediction_time", boolean_value="label").to_arrow(
            compat_level=pl.CompatLevel.oldest()
        )
    )
    return Cohort(site.name, task.name, samples, tuple(attrition))


def _counted(step: str, extracted: pl.DataFrame) -> Attrition:
    return Attrition(step, extracted.height, extracted["patient_id"].n_unique())


def _codes(site: Hospital, definition: Definition) -> dict[str, list[str]]:
    """For each plain predicate the codes of the dataset that can match it, whatever their values."""
    codes = site.dataset.codes.select(
        "code", numeric_value=pl.lit(None, pl.Float32), text_value=pl.lit(None, pl.String)
    )
    config = extractor(definition)
    out = {}
    for name, predicate in config.plain_predicates.items():
        predicate.value_min = predicate.value_max = None
        predicate.other_cols = {}
        out[name] = codes.filter(predicate.MEDS_eval_expr())["code"].to_list()
    return out


def _check_served(site: Hospital, task: Task, matching: dict[str, list[str]]) -> None:
    """Trigger and ends must be on record; of the label a site may have none (a ward where nobody died)."""
    needed = {name: "starts from" for name in task.inputs(str(task.definition["trigger"]))}
    needed |= {name: "waits for" for end in sorted(task.ends) for name in task.inputs(end) - task.inputs(task.label)}
    for name, use in needed.items():
        if name not in SPECIAL and not matching.get(name):
            raise CannotServe(
                f"Site {site.name} cannot serve {task.name}: the task {use} '{name}', and no code of this "
                f"{site.dataset.manifest.kind} dataset is one."
            )


def _batches(
    site: Hospital, definition: Definition, matching: dict[str, list[str]], subjects: pl.DataFrame
) -> Iterator[pl.DataFrame]:
    """The site's events that ACES needs, whole subjects together, at most about `BATCH` rows at once."""
    codes = sorted({code for found in matching.values() for code in found})
    windows = definition["windows"].values()
    asked = {str(definition["trigger"]), *(p for w in windows for p in w.get("has") or {})}
    every_time = ANY_EVENT_COLUMN in asked or "*" in asked or any(ANY_EVENT_COLUMN in str(w) for w in windows)
    edges = bool(asked & SPECIAL) or any(w.get("start") is None or w.get("end") is None for w in windows)
    columns = ["subject_id", "time", "code", "numeric_value", "text_value"]
    own = subjects.lazy().select("subject_id")
    held: list[pl.DataFrame] = []
    for shard in site.dataset.shards:
        events = pl.scan_parquet(shard).select(columns).join(own, on="subject_id", how="semi")
        wanted = [events.filter(pl.col("code").is_in(codes))]
        times = events.filter(pl.col("time").is_not_null()).select("subject_id", "time")
        if every_time:
            wanted.append(times.unique())
        elif edges:
            by_subject = times.group_by("subject_id")
            wanted += [by_subject.agg(pl.col("time").min()), by_subject.agg(pl.col("time").max())]
        found = pl.concat(pl.collect_all(wanted), how="diagonal").sort("subject_id", "time", "code")
        if held and sum(f.height for f in held) + found.height > BATCH:
            yield pl.concat(held)
            held = []
        held.append(found)
    if held:
        yield pl.concat(held)


def _run(events: pl.DataFrame, steps: Sequence[Step]) -> list[pl.DataFrame]:
    """What each step extracts from these events."""
    none = pl.DataFrame(schema=EXTRACTED)
    if events.is_empty():
        return [none for _ in steps]
    out = []
    with tempfile.TemporaryDirectory(dir=home()) as folder, _quiet():
        # Patient data lies nowhere but at home, and ACES reads a file.
        path = Path(folder) / "events.parquet"
        events.write_parquet(path)
        where = DictConfig({"path": str(path), "standard": "MEDS", "ts_format": None})
        predicates = get_predicates_df(extractor(steps[-1].definition), where)
        for step in steps:
            found = query(extractor(step.definition), predicates)
            if found.is_empty():
                out.append(none)
                continue
            missing = [pl.lit(None).alias(c) for c in EXTRACTED if c not in found.columns]
            out.append(found.with_columns(missing).select(list(EXTRACTED)).cast(EXTRACTED))
    return out


def _with_known_outcome(site: Hospital, extracted: pl.DataFrame) -> pl.DataFrame:
    """Leave out samples whose hospital stay, which ends at the first discharge after the trigger, has no outcome."""
    events = site.dataset.scan().filter(
        (pl.col("code") == OUTCOME_UNKNOWN) | pl.col("code").str.starts_with(HOSPITAL_DISCHARGE)
    )
    if OUTCOME_UNKNOWN not in site.dataset.codes["code"]:
        return extracted
    found = events.select("subject_id", "time", "code").drop_nulls("time").collect().sort("time")
    unknown = found.filter(pl.col("code") == OUTCOME_UNKNOWN).select("subject_id", stay_end="time").unique()
    ends = found.filter(pl.col("code") != OUTCOME_UNKNOWN).select("subject_id", "time", stay_end="time").unique()
    return (
        extracted.sort("trigger")
        .join_asof(
            ends.sort("time"),
            left_on="trigger",
            right_on="time",
            by="subject_id",
            strategy="forward",
            allow_exact_matches=False,
            check_sortedness=False,
        )
        .join(unknown, on=["subject_id", "stay_end"], how="anti")
        .select(extracted.columns)
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """ACES remarks on every window; what matters of it is in the attrition."""
    logger = logging.getLogger("aces")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
