"""Hospital stays, ICU stays and deaths of an OMOP CDM export: everything that is decided once for each stay.

Rules, each counted in a warning or in the frame `declared`:

- Which visits are admissions and which places are intensive care is declared in `omop_visits.yaml`.
- Admissions of one person that overlap or lie inside each other are one hospital stay.
- A stay that starts in the emergency department (MIMIC's visits start at emergency registration) is admitted where the
  patient leaves for another unit; before that it is `ED_REGISTRATION` .. `ED_OUT`.
- Segments of intensive care that touch or overlap are one ICU stay; segments of no length are none.
- A date without time counts as the end of that day. Midnight is a date without time in a death, in a procedure, and
  everywhere in an export none of whose visits has a time of day.
- A death belongs to the stay in which it falls. A date alone that is the day of discharge belongs to the stay unless
  the patient was discharged elsewhere. A patient who was discharged dead but has no row in `death` died at discharge.
- The outcome is unknown where a stay begins after the patient's death (organ donors), where the patient was discharged
  dead but lived on, where a visit has no end, and, without any row in `death`, where no destination is given.
"""

from datetime import time

import polars as pl

from sites.exports.export import Tables
from sites.exports.omop_meaning import declared, matches, moment


def _known_place(concept: str, value: str) -> pl.Expr:
    """A place's name: the source's own, else its concept id; null where neither says anything."""
    named = pl.when(pl.col(value).str.len_chars() > 0).then(pl.col(value))
    return pl.coalesce(named, pl.when(pl.col(concept) != 0).then(pl.col(concept).cast(pl.String)))


def visits(tables: Tables) -> pl.DataFrame:
    """Every visit with `start`, `end` (null: none), `admitted_from`, `destination`, `died` and `timed`, by person.

    `timed` is whether the export keeps times of day at all: whether any visit has one.
    """
    table = tables.read("visit_occurrence").drop_nulls(["visit_occurrence_id", "person_id"])
    clock = pl.concat([table["visit_start_datetime"], table["visit_end_datetime"].alias("visit_start_datetime")])
    timed = bool((clock.drop_nulls().dt.time() != time(0)).any())
    lists = declared()
    went = pl.coalesce(
        _known_place("discharged_to_concept_id", "discharged_to_source_value"),
        _known_place("discharge_to_concept_id", "discharge_to_source_value"),
    )
    went_concept = pl.max_horizontal("discharged_to_concept_id", "discharge_to_concept_id")
    return (
        table.with_columns(
            start=moment(pl.col("visit_start_date"), pl.col("visit_start_datetime"), timed),
            end=moment(pl.col("visit_end_date"), pl.col("visit_end_datetime"), timed),
            admitted_from=pl.coalesce(
                _known_place("admitted_from_concept_id", "admitted_from_source_value"),
                _known_place("admitting_source_concept_id", "admitting_source_value"),
            ),
            destination=went,
            died=went_concept.is_in(list(lists["died"])).fill_null(False) | matches(went, lists["died_names"]),
            timed=pl.lit(timed),
        )
        .filter(pl.col("start").is_not_null())
        .sort("person_id", "start", "visit_occurrence_id")
    )


def places(tables: Tables, timed: bool) -> pl.DataFrame:
    """Every visit_detail of positive length with its place: `start`, `end`, `concept`, `name`."""
    sites = tables.read("care_site").select("care_site_id", name="care_site_name").unique("care_site_id", keep="first")
    return (
        tables.read("visit_detail")
        .join(sites, on="care_site_id", how="left")
        .select(
            "person_id",
            "visit_occurrence_id",
            "name",
            concept="visit_detail_concept_id",
            start=moment(pl.col("visit_detail_start_date"), pl.col("visit_detail_start_datetime"), timed),
            end=moment(pl.col("visit_detail_end_date"), pl.col("visit_detail_end_datetime"), timed),
        )
        .sort("person_id", "start", "end", "concept", "name", nulls_last=True)
    )


def _chains(frame: pl.DataFrame, *, touching: bool) -> pl.DataFrame:
    """Number the chains of overlapping (or touching) intervals of each person, as `chain`."""
    frame = frame.sort("person_id", "start", "end", maintain_order=True)
    until = pl.col("end").cum_max().shift(1).over("person_id")
    new = pl.col("start") > until if touching else pl.col("start") >= until
    return frame.with_columns(chain=new.fill_null(True).cum_sum())


def icu_stays(segments: pl.DataFrame) -> pl.DataFrame:
    """Join touching segments of intensive care.

    Args:
        segments: person_id, visit_occurrence_id, start, end, name, concept.

    Returns:
        One row for each ICU stay: person_id, visit_occurrence_id (of its first segment), icu_admission, icu_discharge,
        first_unit, last_unit, segments.
    """
    unit = pl.coalesce(pl.col("name"), pl.col("concept").cast(pl.String))
    return (
        _chains(segments.filter(pl.col("end") > pl.col("start")).with_columns(unit=unit), touching=True)
        .group_by("person_id", "chain", maintain_order=True)
        .agg(
            pl.col("visit_occurrence_id").first(),
            icu_admission=pl.col("start").first(),
            icu_discharge=pl.col("end").max(),
            first_unit=pl.col("unit").first(),
            last_unit=pl.col("unit").sort_by("end").last(),
            segments=pl.len(),
        )
        .drop("chain")
    )


def hospital_stays(admitted: pl.DataFrame, details: pl.DataFrame) -> pl.DataFrame:
    """Join overlapping and nested admissions to hospital stays.

    Args:
        admitted: The rows of `visits` that are admissions.
        details: What `places` returns.

    Returns:
        One row for each stay: person_id, visit_occurrence_id (its first visit), visits (their ids), start, end,
        admission, ed_out (null: not through emergency), open (a visit without end), admitted_from, destination, died,
        concept, care_site_id.
    """
    lists = declared()
    last = details.group_by("visit_occurrence_id").agg(last_detail=pl.col("end").max())
    bounded = admitted.join(last, on="visit_occurrence_id", how="left").with_columns(
        open=pl.col("end").is_null(),
        end=pl.max_horizontal("start", pl.coalesce("end", "last_detail")),
    )
    stays = (
        _chains(bounded, touching=False)
        .group_by("person_id", "chain", maintain_order=True)
        .agg(
            pl.col("visit_occurrence_id", "start", "admitted_from", "care_site_id").first(),
            concept=pl.col("visit_concept_id").first(),
            visits=pl.col("visit_occurrence_id"),
            end=pl.col("end").max(),
            open=pl.col("open").any(),
            destination=pl.col("destination").sort_by("end").last(),
            died=pl.col("died").any(),
        )
        .drop("chain")
    )
    emergency = pl.col("concept").is_in(list(lists["emergency"])) | matches(pl.col("name"), lists["emergency_names"])
    ids = stays.select("visits", stay="visit_occurrence_id").explode("visits")
    within = (
        details.filter(pl.col("end") > pl.col("start"))
        .join(ids, left_on="visit_occurrence_id", right_on="visits", how="inner")
        .with_columns(emergency=emergency.fill_null(False))
        .group_by("stay")
        .agg(
            through=pl.col("emergency").sort_by("start").first(),
            elsewhere=pl.col("start").filter(~pl.col("emergency")).min(),
        )
        .filter(pl.col("through") & pl.col("elsewhere").is_not_null())
        .select("elsewhere", visit_occurrence_id="stay")
    )
    ed_out = pl.when((pl.col("elsewhere") > pl.col("start")) & (pl.col("elsewhere") <= pl.col("end")))
    return (
        stays.join(within, on="visit_occurrence_id", how="left")
        .with_columns(ed_out=ed_out.then("elsewhere"))
        .with_columns(admission=pl.coalesce("ed_out", "start"))
        .drop("elsewhere")
        .sort("person_id", "start")
    )


def deaths(death: pl.DataFrame, stays: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Decide in which stay each patient died, and which outcomes are unknown.

    Args:
        death: The table `death`; of several rows of a person the earliest counts.
        stays: What `hospital_stays` returns.

    Returns:
        The stays with `discharge` and `outcome_unknown`, and person_id, death: Datetime("us"), one row for each dead.
    """
    timed = (pl.col("death_datetime").dt.time() != pl.time(0, 0)).fill_null(False)
    first = (
        death.drop_nulls(["person_id", "death_date"])
        .with_columns(timed=timed, when=moment(pl.col("death_date"), pl.col("death_datetime"), False))
        .sort("person_id", "when")
        .unique("person_id", keep="first", maintain_order=True)
        .select("person_id", "timed", "when")
    )
    day, gone = pl.col("when").cast(pl.Date), pl.col("end").cast(pl.Date)
    elsewhere = pl.col("destination").is_not_null() & ~pl.col("died")
    same_day = ~pl.col("timed") & (day == gone) & ~elsewhere
    dead_on_leaving = pl.col("died") & (day <= gone.dt.offset_by("1d"))
    inside = (pl.col("start").cast(pl.Date) <= day) & ((pl.col("when") <= pl.col("end")) | same_day | dead_on_leaving)
    inside = inside & ((pl.col("start") <= pl.col("when")) | ~pl.col("timed"))
    last_stay = pl.col("start") == pl.col("start").max().over("person_id")
    joined = stays.join(first, on="person_id", how="left").with_columns(inside=inside.fill_null(False))
    joined = joined.with_columns(
        # Of several stays of that day the last one.
        inside=pl.col("inside") & (pl.col("start") == pl.col("start").filter(pl.col("inside")).max().over("person_id"))
    ).with_columns(
        unrecorded=pl.col("died") & pl.col("when").is_null() & last_stay,
        after=(pl.col("start") > pl.col("when")).fill_null(False) & ~pl.col("inside"),
    )
    nothing_known = pl.lit(first.is_empty()) & pl.col("destination").is_null()
    lived_on = pl.col("died") & ~pl.col("inside") & ~pl.col("unrecorded")
    joined = joined.with_columns(
        lived_on=lived_on, nothing_known=nothing_known, unended=pl.col("open") & ~pl.col("inside")
    ).with_columns(
        outcome_unknown=pl.any_horizontal("after", "lived_on", "nothing_known", "unended"),
        discharge=pl.when("inside").then(pl.max_horizontal("end", "when")).otherwise("end"),
    )
    before = joined.filter(~pl.col("inside") & ~pl.col("after")).group_by("person_id").agg(left=pl.col("end").max())
    dead = joined.filter("inside").select("person_id", here=True)
    recorded = (
        first.join(dead, on="person_id", how="left")
        .join(before, on="person_id", how="left")
        .with_columns(
            death=pl.when(pl.col("here").is_null())
            .then(
                # A death after a stay comes after its end, even if both are dates without time.
                pl.max_horizontal("when", pl.col("left") + pl.duration(minutes=1))
            )
            .otherwise("when")
        )
        .select("person_id", "death")
    )
    unrecorded = joined.filter("unrecorded").select("person_id", death="discharge")
    return joined.drop("timed", "when"), pl.concat([recorded, unrecorded]).sort("person_id")
