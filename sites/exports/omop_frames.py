"""The small tables of an OMOP export, and what was decided on the way to them."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from sites.exports.export import BIDMC, Tables
from sites.exports.omop_meaning import Meaning, declared, matches
from sites.exports.omop_visits import deaths, hospital_stays, icu_stays, places, visits
from sites.exports.plausible import demand


def check(person: pl.DataFrame, visit: pl.DataFrame) -> None:
    """Raise an InputError for the first person or visit that cannot be placed in time or given to a person."""
    demand("person", person, "person_id", pl.col("person_id").is_not_null(), "an id; add it or remove the row")
    month, day = pl.col("month_of_birth"), pl.col("day_of_birth")
    year_holds = pl.col("year_of_birth").is_between(1800, 2300)
    demand("person", person, "year_of_birth", year_holds, "a year; correct it, or leave it empty if it is unknown")
    demand("person", person, "month_of_birth", month.is_between(1, 12), "a month; correct it or leave it empty")
    written = pl.format(
        "{}-{}-{}", "year_of_birth", month.cast(pl.String).str.zfill(2), day.cast(pl.String).str.zfill(2)
    )
    exists = written.is_null() | written.str.to_date("%Y-%m-%d", strict=False).is_not_null()
    demand("person", person, "day_of_birth", exists, "a day of that month; correct it or leave it empty")
    for column in ("visit_occurrence_id", "person_id"):
        demand("visit_occurrence", visit, column, pl.col(column).is_not_null(), "an id; add it or remove the row")
    start = pl.coalesce("visit_start_date", pl.col("visit_start_datetime").cast(pl.Date))
    demand("visit_occurrence", visit, "visit_start_date", start.is_not_null(), "a date; add it or remove the row")


def frames(tables: Tables) -> dict[str, pl.DataFrame]:
    """The small tables that events are made from, and what was decided on the way."""
    meaning, lists = Meaning.of(tables.options), declared()
    persons = tables.read("person")
    check(persons, tables.read("visit_occurrence"))
    every = visits(tables)
    strangers = every.join(persons, on="person_id", how="anti").height
    if strangers:
        tables.warn(f"visit_occurrence: {strangers} visits of persons who are not in person were left out.")
    every = every.join(persons, on="person_id", how="semi")
    timed = bool(every["timed"].first())
    details = places(tables, timed)
    unplaced = details.filter(
        pl.any_horizontal(pl.col("person_id", "start", "end").is_null())
        | ~pl.col("visit_occurrence_id").is_in(every["visit_occurrence_id"].implode()).fill_null(False)
        | ~pl.col("person_id").is_in(every["person_id"].implode()).fill_null(False)
    ).height
    if unplaced:
        tables.warn(
            f"visit_detail: {unplaced} rows are left out of the moves between units: they have no start or end, or "
            "belong to no visit or person of the export."
        )
    intensive = pl.col("concept").is_in(list(meaning.icu)) | matches(pl.col("name"), meaning.icu_names)
    own = every.select("person_id", "visit_occurrence_id", "start", "end", concept="visit_concept_id")
    segments = pl.concat(
        [
            details.filter(intensive.fill_null(False)),
            own.filter(pl.col("concept").is_in(list(meaning.icu))).with_columns(name=pl.lit(None, pl.String)),
        ],
        how="diagonal",
    ).drop_nulls(["start", "end"])
    icu = icu_stays(segments)
    concept = pl.col("visit_concept_id")
    every = every.with_columns(
        admission=(
            concept.is_in(list(meaning.admissions))
            | (concept.is_in(list(meaning.if_admitted_from)) & pl.col("admitted_from").is_not_null())
            | pl.col("visit_occurrence_id").is_in(icu["visit_occurrence_id"].implode())
        ).fill_null(False)
    )
    stays = hospital_stays(every.filter("admission"), details)
    stays, dead = deaths(tables.read("death"), stays)
    for sentence in _decisions(every, stays, segments, icu):
        tables.warn(sentence)
    ends = stays.select("visits", stay_end="discharge").explode("visits")
    return {
        "subjects": _subjects(persons, stays, icu, tables.read("care_site")),
        "stays": stays.rename({"person_id": "subject_id"}).drop("visits"),
        "icu": icu.rename({"person_id": "subject_id"}),
        "deaths": dead.rename({"person_id": "subject_id"}),
        "transfers": details.filter(pl.col("end") > pl.col("start"))
        .join(ends, left_on="visit_occurrence_id", right_on="visits", how="semi")
        .select("concept", "name", "start", subject_id="person_id"),
        "other_visits": every.filter(~pl.col("admission")).select("start", "visit_concept_id", subject_id="person_id"),
        "visit_ends": every.join(ends, left_on="visit_occurrence_id", right_on="visits", how="left").select(
            "visit_occurrence_id", visit_start="start", visit_end=pl.coalesce("stay_end", "end")
        ),
        "clock": pl.DataFrame({"timed": [timed]}),
        "source": _source(tables.read("cdm_source")),
        "declared": _found(every, segments, lists),
    }


def _subjects(person: pl.DataFrame, stays: pl.DataFrame, icu: pl.DataFrame, care_site: pl.DataFrame) -> pl.DataFrame:
    """Every person, with the care site of the first hospital stay and the unit of the first ICU stay."""
    names = care_site.unique("care_site_id", keep="first")
    care = stays.join(names, on="care_site_id", how="left").select(
        "person_id", "start", care_site=pl.coalesce("care_site_name", pl.col("care_site_id").cast(pl.String))
    )
    return (
        person.select("person_id")
        .join(care.sort("start").group_by("person_id").agg(pl.col("care_site").first()), on="person_id", how="left")
        .join(
            icu.sort("icu_admission").group_by("person_id").agg(unit=pl.col("first_unit").first()),
            on="person_id",
            how="left",
        )
        .select("care_site", "unit", subject_id="person_id", patient_id="person_id")
        .sort("subject_id")
    )


def _source(cdm_source: pl.DataFrame) -> pl.DataFrame:
    """One row: the patient source. MIMIC is one hospital in whatever format; else the name the data gives itself.

    Patients whom a known generator made (Synthea, SynPUF) are `simulated`, which nobody may take for real.
    """
    name = next(iter(cdm_source["cdm_source_name"].drop_nulls()), "")
    said = [text for column in cdm_source.columns for text in cdm_source[column].cast(pl.String).drop_nulls()]
    text = " ".join(said).lower()
    kind = "simulated" if any(word in text for word in ("synthea", "synpuf", "synthetic patient")) else None
    if any(word in text for word in ("mimic", "beth israel deaconess")):
        return pl.DataFrame({"source": [BIDMC], "data_kind": [kind]})
    slug = "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())
    return pl.DataFrame({"source": [f"omop:{slug}" if slug else ""], "data_kind": [kind]})


def _found(every: pl.DataFrame, segments: pl.DataFrame, lists: Mapping[str, Any]) -> pl.DataFrame:
    """What was taken for an admission or for intensive care, with counts: what, value, n."""
    names: dict[int, str] = {
        concept: name
        for part in ("admissions", "admissions_if_admitted_from", "icu", "emergency")
        for concept, name in lists[part].items()
    }
    rows = []
    for (concept, admission), group in sorted(every.group_by("visit_concept_id", "admission"), key=lambda g: str(g[0])):
        what = "admission" if admission else "visit, no admission"
        rows.append((what, f"{concept} {names.get(int(str(concept or 0)), '')}".strip(), group.height))
    units = segments.with_columns(unit=pl.coalesce("name", pl.col("concept").cast(pl.String)))
    for (unit, concept), group in sorted(units.group_by("unit", "concept"), key=lambda g: str(g[0])):
        rows.append(("intensive care", f"{unit} ({concept})", group.height))
    return pl.DataFrame(rows, schema={"what": pl.String, "value": pl.String, "n": pl.Int64}, orient="row")


def _decisions(every: pl.DataFrame, stays: pl.DataFrame, segments: pl.DataFrame, icu: pl.DataFrame) -> list[str]:
    admitted = every["admission"].sum()
    merged, through = admitted - stays.height, stays["ed_out"].count()
    joined, empty = icu["segments"].sum() - icu.height, segments.filter(pl.col("end") <= pl.col("start")).height
    backwards = every.filter(pl.col("end") < pl.col("start")).height
    reasons = {
        "begin after the patient's death": stays.filter("after").height,
        "are discharged dead but the patient lived on": stays.filter("lived_on").height,
        "have a visit without end": stays.filter("unended").height,
        "have no destination, while death has no row": stays.filter("nothing_known").height,
    }
    why = ", ".join(f"{count} {reason}" for reason, count in reasons.items() if count)
    said = {
        "visit_occurrence: no visit is an admission; name the concepts that are: admissions=9201+262.": not admitted,
        "visit_detail: no place is intensive care; name concepts or care sites that are: icu=32037+burn unit.": (
            icu.is_empty()
        ),
        "visit_occurrence: no visit has a time of day: every date counts as the end of its day.": not every[
            "timed"
        ].any(),
        f"visit_occurrence: {merged} of {admitted} admissions lie inside or overlap another one and were joined to it: "
        f"{stays.height} hospital stays.": merged,
        f"visit_occurrence: {through} hospital stays start in the emergency department; they are admitted when the "
        "patient leaves it.": through,
        f"visit_occurrence: {backwards} visits end before they start; they count as ended at once.": backwards,
        f"visit_detail: {joined} segments of intensive care touch the one before and were joined to it: {icu.height} "
        "ICU stays.": joined,
        f"visit_detail: {empty} segments of intensive care have no length and were left out.": empty,
        f"visit_occurrence: the outcome of {stays['outcome_unknown'].sum()} hospital stays is unknown: {why}.": why,
        f"death: {stays['unrecorded'].sum()} patients were discharged dead without a row in death; they died at "
        "discharge.": stays["unrecorded"].sum(),
    }
    return [sentence for sentence, holds in said.items() if holds]
