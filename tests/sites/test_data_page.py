"""docs/data.md says what the real exports hold: each of its tables is made anew here, and must be what stands there."""

from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

from fedcore.cohort import CannotServe, build_cohort, load_task
from sites.site import Site

PAGE = Path(__file__).parents[2] / "docs" / "data.md"

EXPORTS = {
    "mimic3": "m3=mimic3:mimiciii_demo_1.4",
    "mimic3,carevue": "cv=mimic3,carevue:mimiciii_demo_1.4",
    "mimic4": "m4=mimic4:mimiciv_demo_2.2",
    "eicu": "e=eicu:eicu_demo_2.0.1",
    "omop, MIMIC-IV": "o=omop:mimiciv_demo_omop_0.9/1_omop_data_csv",
    "omop, Synthea": "s=omop:omop_synthea27nj/Synthea27Nj_5.4.zip",
    "physionet2012": "p=physionet2012:physionet2012",
    "uci_heart": "h=uci_heart:uci_heart_disease",
}
DIVIDED = {
    "eicu,by=region": "e=eicu,by=region:eicu_demo_2.0.1",
    "physionet2012,by=icu_type": "p=physionet2012,by=icu_type:physionet2012",
}
TASKS = (
    "mortality/in_icu/first_24h",
    "mortality/in_hospital/first_24h",
    "mortality/in_hospital/first_48h",
    "mortality/in_hospital/admission_24h",
)
Row = tuple[str, ...]
Open = Callable[[str], list[Site]]


def _page_tables() -> dict[Row, list[Row]]:
    """Every table of the page: its header to its rows, without marks of emphasis."""
    found: dict[Row, list[Row]] = {}
    rows: list[Row] = []
    for line in [*PAGE.read_text(encoding="utf-8").splitlines(), ""]:
        if line.startswith("|"):
            rows.append(tuple(cell.strip().strip("`") for cell in line.strip("|").split("|")))
        elif rows:
            found[rows[0]] = rows[2:]
            rows = []
    return found


def _count(number: int) -> str:
    return f"{number:,}"


def _holdings(real_sites: Open) -> Iterator[Row]:
    yield "export", "patients", "hospital stays", "ICU stays", "deaths in hospital", "unknown outcomes"
    for name, text in EXPORTS.items():
        (site,) = real_sites(text)
        events = site.scan().select("subject_id", "time", "code").collect()
        ends = events.filter(pl.col("code").str.starts_with("HOSPITAL_DISCHARGE//")).group_by("subject_id")
        dead = events.filter(pl.col("code") == "MEDS_DEATH").join(ends.agg(left=pl.col("time").max()), on="subject_id")
        numbers = (
            site.subjects["patient_id"].n_unique(),
            events["code"].str.starts_with("HOSPITAL_ADMISSION//").sum(),
            events["code"].str.starts_with("ICU_ADMISSION//").sum(),
            dead.filter(pl.col("time") <= pl.col("left")).height,
            (events["code"] == "OUTCOME_UNKNOWN").sum(),
        )
        yield name, *map(_count, numbers)


def _cohorts(real_sites: Open) -> Iterator[Row]:
    yield "site", *TASKS
    for name, text in (EXPORTS | DIVIDED).items():
        sites = real_sites(text)
        for site in sites:
            cells = []
            for task in TASKS:
                try:
                    samples = build_cohort(site, load_task(task)).samples
                except CannotServe:
                    cells.append("-")
                    continue
                numbers = samples.height, samples["patient_id"].n_unique(), int(samples["label"].sum())
                cells.append(" / ".join(map(_count, numbers)))
            group = site.name.removeprefix(f"{site.spec.name}-")
            yield f"{name}: {group}" if len(sites) > 1 else name, *cells


def _attrition(real_sites: Open) -> Iterator[Row]:
    task = load_task("mortality/in_hospital/first_24h")
    served = [name for name in EXPORTS if name not in ("omop, Synthea", "physionet2012", "uci_heart")]
    cohorts = {name: build_cohort(real_sites(EXPORTS[name])[0], task) for name in served}
    yield "step", *cohorts
    for steps in zip(*(cohort.attrition for cohort in cohorts.values()), strict=True):
        yield steps[0].step, *(_count(step.samples) for step in steps)


def _sources(real_sites: Open) -> Iterator[Row]:
    yield "export", "patient source", "part", "kind of data", "by="
    for name, text in EXPORTS.items():
        manifest = real_sites(text)[0].dataset.manifest
        yield name, manifest.source, manifest.part or "-", manifest.data_kind, ", ".join(manifest.groups) or "-"


def _remarks(real_sites: Open) -> Iterator[Row]:
    """What was decided of patients and stays; how many rows are duplicates depends on which columns are read."""
    yield "export", "what the ingest says"
    for name, text in EXPORTS.items():
        for warning in real_sites(text)[0].dataset.manifest.warnings:
            if "events were left out" not in warning:
                yield name, warning


@pytest.mark.real
@pytest.mark.parametrize("made", [_holdings, _cohorts, _attrition, _sources, _remarks], ids=lambda m: m.__name__[1:])
def test_the_tables_of_the_page_are_what_the_exports_hold(made: Callable[[Open], Iterator[Row]], real_sites: Open):
    header, *rows = made(real_sites)
    written = _page_tables().get(header, [])
    lines = [header, tuple("---" for _ in header), *rows]
    right = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    assert written == rows, f"{PAGE} is stale; write there:\n{right}"
