"""OMOP CDM 5.3 and 5.4: admissions and intensive care as declared, 64-bit ids, bills known at the end."""

import csv
import zipfile
from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest

from sites.check import check
from sites.dataset import Dataset
from sites.errors import InputError
from sites.exports.omop_meaning import moment
from sites.ingest import ingest
from sites.spec import SiteSpec

BIG = -9066461348710750663
"""A person id that a float cannot hold."""

PERSON = {"person_id": BIG, "gender_concept_id": 8507, "year_of_birth": 1950, "month_of_birth": "", "day_of_birth": ""}
VISIT = {
    "visit_occurrence_id": 1,
    "person_id": BIG,
    "visit_concept_id": 9201,
    "visit_start_date": "2014-03-10",
    "visit_start_datetime": "2014-03-10 08:00:00",
    "visit_end_date": "2014-03-15",
    "visit_end_datetime": "2014-03-15 12:00:00",
}
Rows = list[dict[str, object]]


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _write(folder: Path, table: str, rows: Rows) -> None:
    folder.mkdir(exist_ok=True)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with (folder / f"{table}.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def _visit(number: int, concept: int, start: str, end: str, **more: object) -> dict[str, object]:
    row = {"visit_occurrence_id": number, "visit_concept_id": concept}
    for what, text in (("start", start), ("end", end)):
        row |= {f"visit_{what}_date": text[:10], f"visit_{what}_datetime": text if len(text) > 10 else ""}
    return VISIT | row | more


def _detail(number: int, start: str, end: str, **more: object) -> dict[str, object]:
    row = {"visit_detail_id": number, "person_id": BIG, "visit_occurrence_id": 1, "visit_detail_concept_id": 0}
    for what, text in (("start", start), ("end", end)):
        row |= {f"visit_detail_{what}_date": text[:10], f"visit_detail_{what}_datetime": text}
    return row | more


def _row(name: str, start: str, concept: int, time: str, kind: int = 32817, **more: object) -> dict[str, object]:
    row = {"person_id": BIG, f"{name}_concept_id": concept, f"{name}_type_concept_id": kind}
    row |= {f"{start}_date": time[:10], f"{start}_datetime": time if len(time) > 10 else "", "visit_occurrence_id": 1}
    return row | {f"{name}_source_value": ""} | more


def _export(folder: Path, **tables: Rows) -> Path:
    for table, rows in ({"person": [PERSON], "visit_occurrence": [VISIT]} | tables).items():
        _write(folder, table, rows)
    return folder


def _ingest(folder: Path, **options: str) -> Dataset:
    return ingest(SiteSpec("test", "omop", folder, options), folder.parent / "home")


def _events(folder: Path, _options: dict[str, str] | None = None, **tables: Rows) -> pl.DataFrame:
    return _ingest(_export(folder, **tables), **(_options or {})).scan().collect()


def _times(events: pl.DataFrame, prefix: str) -> list[datetime]:
    return events.filter(pl.col("code").str.starts_with(prefix))["time"].to_list()


DEATH_NEVER_COMES = {"person_id": 7, "death_date": "2050-01-01", "death_datetime": ""}
"""Somebody else's death: the export does keep deaths."""


# --- ids, times and names ----------------------------------------------------------------------------------------


def test_ids_beyond_2_to_the_53_and_below_zero_pass_unchanged(tmp_path: Path) -> None:
    near = PERSON | {"person_id": BIG + 1}
    dataset = _ingest(_export(tmp_path / "e", person=[PERSON, near]))
    assert dataset.subjects["subject_id"].to_list() == [BIG, BIG + 1]
    assert dataset.subjects["patient_id"].to_list() == [BIG, BIG + 1]
    assert dataset.scan().filter(pl.col("code") == "GENDER//M").collect()["subject_id"].to_list() == [BIG, BIG + 1]


def test_a_concept_of_zero_gives_way_to_what_the_hospital_wrote(tmp_path: Path) -> None:
    drug = ("drug", "drug_exposure_start")
    drugs = [
        _row(*drug, 40166274, "2014-03-11 09:00:00"),
        _row(*drug, 0, "2014-03-11 09:00:00", drug_source_value="Heparin bag"),
        _row(*drug, 0, "2014-03-11 09:00:00", drug_source_value="0"),
        _row(*drug, 0, "2014-03-11 09:00:00"),
    ]
    events = _events(tmp_path / "e", drug_exposure=drugs)
    found = sorted(events.filter(pl.col("code").str.starts_with("DRUG"))["code"])
    assert found == ["DRUG//OMOP//40166274", "DRUG//SOURCE//Heparin bag"]


@pytest.mark.parametrize(
    ("month", "day", "stamp", "birth"),
    [
        ("", "", "", "1950-07-01"),
        ("3", "", "", "1950-03-15"),
        ("3", "11", "", "1950-03-11"),
        ("3", "11", "1950-03-11 04:30:00", "1950-03-11 04:30:00"),
    ],
)
def test_a_birth_without_month_or_day_is_in_the_middle(
    tmp_path: Path, month: str, day: str, stamp: str, birth: str
) -> None:
    person = PERSON | {"month_of_birth": month, "day_of_birth": day, "birth_datetime": stamp}
    events = _events(tmp_path / "e", person=[person])
    assert _times(events, "MEDS_BIRTH") == [_at(birth)]
    # on 10 March 2014: 63 years old until the birthday
    assert events.filter(pl.col("code") == "AGE")["numeric_value"].to_list() == [63.0]


def test_a_date_without_time_counts_as_the_end_of_that_day() -> None:
    rows = pl.DataFrame(
        {
            "date": [date(2014, 3, 10)] * 3,
            "time": [None, _at("2014-03-10 00:00:00"), _at("2014-03-10 08:00:00")],
        },
        schema_overrides={"time": pl.Datetime("us")},
    )
    end, eight = _at("2014-03-10 23:59:59"), _at("2014-03-10 08:00:00")
    for believed, midnight in ((False, end), (True, _at("2014-03-10 00:00:00"))):
        found = rows.select(moment(pl.col("date"), pl.col("time"), believed)).to_series().to_list()
        assert found == [end, midnight, eight]


def test_an_export_without_times_of_day_knows_everything_at_the_end_of_the_day(tmp_path: Path) -> None:
    visit = _visit(1, 9201, "2014-03-10 00:00:00", "2014-03-15 00:00:00")
    measured = _row("measurement", "measurement", 3027018, "2014-03-11 00:00:00", value_as_number=80)
    events = _events(tmp_path / "e", visit_occurrence=[visit], measurement=[measured])
    assert _times(events, "HOSPITAL_ADMISSION") == [_at("2014-03-10 23:59:59")]
    assert _times(events, "MEASUREMENT") == [_at("2014-03-11 23:59:59")]
    assert _times(events, "HOSPITAL_DISCHARGE") == [_at("2014-03-15 23:59:59")]


# --- what was known when -----------------------------------------------------------------------------------------


def test_bills_are_known_at_the_end_of_the_stay(tmp_path: Path) -> None:
    visits = [VISIT, _visit(2, 262, "2014-03-15 10:00:00", "2014-03-18 09:00:00")]
    condition = ("condition", "condition_start")
    rows = [
        _row(*condition, 1, "2014-03-10 08:00:00", 32821),
        _row(*condition, 2, "2014-03-11 08:00:00", 32817),
        _row(*condition, 3, "2010-01-01 08:00:00", 32840),
        _row(*condition, 4, "2014-03-10 08:00:00", 38000200),
        _row(*condition, 5, "2014-03-10 08:00:00", 32821, visit_occurrence_id=""),
    ]
    billed = _row("procedure", "procedure", 6, "2014-03-11 08:00:00", 32821)
    done = _row("procedure", "procedure", 7, "2014-03-11 00:00:00", 32817)
    events = _events(
        tmp_path / "e", visit_occurrence=visits, condition_occurrence=rows, procedure_occurrence=[billed, done]
    )
    known = events.filter(pl.col("code").str.contains("^(CONDITION|PROCEDURE)"))
    left = _at("2014-03-18 09:00:00")  # both visits are one stay
    assert dict(known.select("code", "time").rows()) == {
        "CONDITION//OMOP//1": left,
        "CONDITION//OMOP//2": _at("2014-03-11 08:00:00"),
        "CONDITION//OMOP//3": _at("2014-03-10 08:00:00"),  # an old onset, learnt in this visit
        "CONDITION//OMOP//4": left,
        "PROCEDURE//OMOP//6": left,
        "PROCEDURE//OMOP//7": _at("2014-03-11 23:59:59"),
    }


def test_a_laboratory_result_is_known_two_hours_after_the_draw(tmp_path: Path) -> None:
    rows = [
        _row(
            "measurement", "measurement", concept, "2014-03-11 08:00:00", kind, value_as_number=4, unit_concept_id=unit
        )
        | {"unit_source_value": "mEq/L"}
        for concept, kind, unit in ((3023103, 32856, 8753), (3027018, 32817, 0))
    ]
    events = _events(tmp_path / "e", measurement=rows)
    known = dict(events.filter(pl.col("code").str.starts_with("MEASUREMENT")).select("code", "time").rows())
    assert known == {
        "MEASUREMENT//OMOP//3023103//8753": _at("2014-03-11 10:00:00"),
        "MEASUREMENT//OMOP//3027018//mEq/L": _at("2014-03-11 08:00:00"),
    }


def test_what_happens_later_changes_nothing_that_was_known_before(tmp_path: Path) -> None:
    """Flip every outcome and drop every row after noon of 11 March: what was known then stays as it was."""
    limit = _at("2014-03-11 12:00:00")
    conditions = [_row("condition", "condition_start", 1, "2014-03-10 08:00:00", 32821)]
    labs = [
        _row("measurement", "measurement", i, f"2014-03-11 {hour:02}:00:00", 32856, value_as_number=hour)
        for i, hour in enumerate((8, 9, 10, 11, 13), start=1)
    ]
    icu = [_detail(1, "2014-03-10 09:00:00", "2014-03-13 09:00:00", visit_detail_concept_id=32037)]
    then = _events(
        tmp_path / "then",
        visit_occurrence=[VISIT | {"discharge_to_source_value": "HOME"}],
        visit_detail=icu,
        condition_occurrence=conditions,
        measurement=labs,
        death=[DEATH_NEVER_COMES],
    )
    now = _events(
        tmp_path / "now",
        visit_occurrence=[
            _visit(1, 9201, "2014-03-10 08:00:00", "2014-03-12 01:00:00", discharge_to_source_value="DIED")
        ],
        visit_detail=[
            icu[0] | {"visit_detail_end_date": "2014-03-12", "visit_detail_end_datetime": "2014-03-12 01:00:00"}
        ],
        measurement=labs[:2],
        death=[{"person_id": BIG, "death_date": "2014-03-12", "death_datetime": "2014-03-12 01:00:00"}],
    )
    known = [events.filter(pl.col("time").is_null() | (pl.col("time") < limit)) for events in (then, now)]
    assert known[0].rows() == known[1].rows()
    assert known[0].filter(pl.col("code").str.starts_with("MEASUREMENT")).height == 2
    assert not known[0]["code"].str.contains("DEATH|DISCHARGE|OUTCOME").any()


# --- admissions and intensive care -------------------------------------------------------------------------------


def test_nested_and_overlapping_admissions_are_one_stay(tmp_path: Path) -> None:
    visits = [
        VISIT,
        _visit(2, 9201, "2014-03-11 08:00:00", "2014-03-11 18:00:00"),
        _visit(3, 262, "2014-03-15 11:00:00", "2014-03-20 09:00:00"),
        _visit(4, 9201, "2014-03-20 09:00:00", "2014-03-21 09:00:00"),  # readmitted at the minute of discharge
    ]
    events = _events(tmp_path / "e", visit_occurrence=visits)
    assert _times(events, "HOSPITAL_ADMISSION") == [_at("2014-03-10 08:00:00"), _at("2014-03-20 09:00:00")]
    assert _times(events, "HOSPITAL_DISCHARGE") == [_at("2014-03-20 09:00:00"), _at("2014-03-21 09:00:00")]


def test_which_visits_are_admissions_is_declared_and_reported(tmp_path: Path) -> None:
    visits = [
        _visit(1, 9201, "2014-01-01 08:00:00", "2014-01-02 08:00:00"),
        _visit(2, 9202, "2014-02-01 08:00:00", "2014-02-01 09:00:00", admitting_source_value="HOME"),
        _visit(3, 9203, "2014-03-01 08:00:00", "2014-03-01 12:00:00", admitting_source_value="HOME"),
        _visit(4, 8870, "2014-04-01 08:00:00", "2014-04-03 08:00:00", admitting_source_value="HOME"),
        _visit(5, 8870, "2014-05-01 08:00:00", "2014-05-01 12:00:00"),
        _visit(6, 9203, "2014-06-01 08:00:00", "2014-06-03 08:00:00"),  # but holds intensive care
    ]
    icu = _detail(1, "2014-06-01 10:00:00", "2014-06-02 10:00:00", visit_detail_concept_id=32037, visit_occurrence_id=6)
    folder = _export(tmp_path / "e", visit_occurrence=visits, visit_detail=[icu])
    events = _ingest(folder).scan().collect()
    assert [time.month for time in _times(events, "HOSPITAL_ADMISSION")] == [1, 4, 6]
    assert sorted(events.filter(pl.col("code").str.starts_with("VISIT"))["code"]) == [
        "VISIT//OMOP//8870",
        "VISIT//OMOP//9202",
        "VISIT//OMOP//9203",
    ]
    declared = {(what, value): n for what, value, n in check(SiteSpec("test", "omop", folder)).declared}
    assert declared["admission", "9201 Inpatient Visit"] == 1
    assert declared["visit, no admission", "8870 Emergency Room - Hospital"] == 1
    assert declared["intensive care", "32037 (32037)"] == 1


def test_admissions_and_intensive_care_can_be_named_by_options(tmp_path: Path) -> None:
    visits = [
        _visit(1, 9201, "2014-01-01 08:00:00", "2014-01-09 08:00:00"),
        _visit(2, 777, "2014-02-01 08:00:00", "2014-02-09 08:00:00"),
        _visit(3, 262, "2014-03-01 08:00:00", "2014-03-09 08:00:00"),
    ]
    sites: Rows = [
        {"care_site_id": 5, "care_site_name": "Burn Unit (A)"},
        {"care_site_id": 6, "care_site_name": "MICU"},
    ]
    details = [
        _detail(1, "2014-01-02 08:00:00", "2014-01-03 08:00:00", care_site_id=5),
        _detail(2, "2014-02-02 08:00:00", "2014-02-03 08:00:00", visit_occurrence_id=2, visit_detail_concept_id=888),
        _detail(3, "2014-03-02 08:00:00", "2014-03-03 08:00:00", visit_occurrence_id=3, care_site_id=6),
    ]
    options = {"admissions": "9201+777", "icu": "888+burn unit (a)"}
    tables: dict[str, Rows] = {"visit_occurrence": visits, "visit_detail": details, "care_site": sites}
    events = _events(tmp_path / "e", options, **tables)
    assert [time.month for time in _times(events, "HOSPITAL_ADMISSION")] == [1, 2]
    assert [time.month for time in _times(events, "ICU_ADMISSION")] == [1, 2]
    with pytest.raises(InputError, match="found 'inpatient', expected visit concept ids"):
        _events(tmp_path / "e", {"admissions": "9201+inpatient"}, **tables)


@pytest.mark.parametrize(
    "name", ["Medical Intensive Care Unit", "Trauma SICU (TSICU)", "CCU", "icu 3", "Critical Care"]
)
def test_intensive_care_is_known_by_the_name_of_its_care_site(tmp_path: Path, name: str) -> None:
    sites: Rows = [{"care_site_id": 5, "care_site_name": name}, {"care_site_id": 6, "care_site_name": "Difficult Ward"}]
    details = [
        _detail(1, "2014-03-11 08:00:00", "2014-03-12 08:00:00", care_site_id=5),
        _detail(2, "2014-03-13 08:00:00", "2014-03-14 08:00:00", care_site_id=6),
    ]
    events = _events(tmp_path / "e", visit_detail=details, care_site=sites)
    assert events.filter(pl.col("code").str.starts_with("ICU_"))["code"].to_list() == [
        f"ICU_ADMISSION//{name}",
        f"ICU_DISCHARGE//{name}",
    ]


def test_touching_segments_of_intensive_care_are_one_stay(tmp_path: Path) -> None:
    times = ["2014-03-11 08:00:00", "2014-03-12 08:00:00", "2014-03-13 08:00:00", "2014-03-13 08:01:00"]
    details = [
        _detail(1, times[0], times[1], visit_detail_concept_id=32037),
        _detail(2, times[1], times[2], visit_detail_concept_id=581379),
        _detail(3, times[3], "2014-03-14 08:00:00", visit_detail_concept_id=32037),
        _detail(4, times[1], times[1], visit_detail_concept_id=32037),  # no length
    ]
    events = _events(tmp_path / "e", visit_detail=details)
    assert _times(events, "ICU_ADMISSION") == [_at(times[0]), _at(times[3])]
    assert _times(events, "ICU_DISCHARGE") == [_at(times[2]), _at("2014-03-14 08:00:00")]


def test_a_stay_through_emergency_is_admitted_when_the_patient_leaves_it(tmp_path: Path) -> None:
    details = [
        _detail(1, "2014-03-10 08:00:00", "2014-03-10 14:00:00", visit_detail_concept_id=8870),
        _detail(2, "2014-03-10 14:00:00", "2014-03-15 12:00:00"),
    ]
    events = _events(tmp_path / "e", visit_detail=details)
    assert _times(events, "ED_REGISTRATION") == [_at("2014-03-10 08:00:00")]
    assert _times(events, "ED_OUT") == _times(events, "HOSPITAL_ADMISSION") == [_at("2014-03-10 14:00:00")]


@pytest.mark.parametrize(
    ("came", "went"),
    [
        (
            ("admitting_source_value", "admitting_source_concept_id"),
            ("discharge_to_source_value", "discharge_to_concept_id"),
        ),
        (
            ("admitted_from_source_value", "admitted_from_concept_id"),
            ("discharged_to_source_value", "discharged_to_concept_id"),
        ),
    ],
    ids=["CDM 5.3", "CDM 5.4"],
)
def test_both_versions_say_where_a_patient_came_from_and_went_to(
    tmp_path: Path, came: tuple[str, str], went: tuple[str, str]
) -> None:
    visits = [
        VISIT | {came[0]: "CLINIC", came[1]: 8761, went[0]: "REHAB", went[1]: 8920},
        _visit(2, 9201, "2014-04-10 08:00:00", "2014-04-12 08:00:00")
        | {came[0]: "", came[1]: 8761, went[0]: "", went[1]: 0},
    ]
    events = _events(tmp_path / "e", visit_occurrence=visits, death=[DEATH_NEVER_COMES])
    stays = events.filter(pl.col("code").str.starts_with("HOSPITAL_"))["code"].to_list()
    assert stays == [
        "HOSPITAL_ADMISSION//9201//CLINIC",
        "HOSPITAL_DISCHARGE//REHAB",
        "HOSPITAL_ADMISSION//9201//8761",
        "HOSPITAL_DISCHARGE//UNK",
    ]


# --- deaths ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("day", "time", "went", "death", "left"),
    [
        ("2014-03-14", "2014-03-14 05:00:00", "", "2014-03-14 05:00:00", "2014-03-15 12:00:00"),
        ("2014-03-14", "", "", "2014-03-14 23:59:59", "2014-03-15 12:00:00"),
        # a date alone, or midnight, on the day of discharge: in hospital, which the patient left dead
        ("2014-03-15", "", "", "2014-03-15 23:59:59", "2014-03-15 23:59:59"),
        ("2014-03-15", "2014-03-15 00:00:00", "DIED", "2014-03-15 23:59:59", "2014-03-15 23:59:59"),
        # discharged a day before the death that is written as the end of the stay
        ("2014-03-16", "2014-03-16 02:00:00", "DIED", "2014-03-16 02:00:00", "2014-03-16 02:00:00"),
        # at home, the same day and later
        ("2014-03-15", "", "HOME", "2014-03-15 23:59:59", "2014-03-15 12:00:00"),
        ("2014-04-01", "2014-04-01 05:00:00", "", "2014-04-01 05:00:00", "2014-03-15 12:00:00"),
    ],
)
def test_a_death_belongs_to_the_stay_in_which_it_falls(
    tmp_path: Path, day: str, time: str, went: str, death: str, left: str
) -> None:
    events = _events(
        tmp_path / "e",
        visit_occurrence=[VISIT | {"discharge_to_source_value": went}],
        death=[{"person_id": BIG, "death_date": day, "death_datetime": time}],
    )
    assert _times(events, "MEDS_DEATH") == [_at(death)]
    assert _times(events, "HOSPITAL_DISCHARGE") == [_at(left)]
    assert _times(events, "OUTCOME_UNKNOWN") == []


def test_who_was_discharged_dead_died_even_without_a_row_in_death(tmp_path: Path) -> None:
    visit = VISIT | {"discharge_to_concept_id": 4216643}
    events = _events(tmp_path / "e", visit_occurrence=[visit], death=[DEATH_NEVER_COMES])
    assert _times(events, "MEDS_DEATH") == _times(events, "HOSPITAL_DISCHARGE") == [_at("2014-03-15 12:00:00")]


def test_a_stay_after_death_and_a_discharge_of_the_dead_who_lived_on_have_unknown_outcomes(tmp_path: Path) -> None:
    donor = _visit(2, 9201, "2014-03-16 08:00:00", "2014-03-16 20:00:00")
    events = _events(
        tmp_path / "donor",
        visit_occurrence=[VISIT, donor],
        death=[{"person_id": BIG, "death_date": "2014-03-15", "death_datetime": "2014-03-15 11:00:00"}],
    )
    assert _times(events, "MEDS_DEATH") == [_at("2014-03-15 11:00:00")]
    assert _times(events, "OUTCOME_UNKNOWN") == [_at("2014-03-16 20:00:00")]
    events = _events(
        tmp_path / "alive",
        visit_occurrence=[VISIT | {"discharge_to_source_value": "DIED"}, donor],
        death=[DEATH_NEVER_COMES],
    )
    assert _times(events, "MEDS_DEATH") == []
    assert _times(events, "OUTCOME_UNKNOWN") == [_at("2014-03-15 12:00:00")]


def test_a_visit_without_end_has_an_unknown_outcome(tmp_path: Path) -> None:
    visit = _visit(1, 9201, "2014-03-10 08:00:00", "")
    icu = _detail(1, "2014-03-10 09:00:00", "2014-03-12 09:00:00", visit_detail_concept_id=32037)
    events = _events(tmp_path / "e", visit_occurrence=[visit], visit_detail=[icu], death=[DEATH_NEVER_COMES])
    assert _times(events, "OUTCOME_UNKNOWN") == _times(events, "HOSPITAL_DISCHARGE") == [_at("2014-03-12 09:00:00")]


def test_without_any_word_on_deaths_nobody_counts_as_a_survivor(tmp_path: Path) -> None:
    home = _visit(2, 9201, "2014-04-10 08:00:00", "2014-04-12 08:00:00", discharge_to_source_value="HOME")
    folder = _export(tmp_path / "e", visit_occurrence=[VISIT, home])
    dataset = _ingest(folder)
    assert _times(dataset.scan().collect(), "OUTCOME_UNKNOWN") == [_at("2014-03-15 12:00:00")]
    assert any("1 have no destination, while death has no row" in warning for warning in dataset.manifest.warnings)


# --- the patient source ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "description", "options", "source"),
    [
        ("MIMIC IV", "", {}, "bidmc"),
        ("Our data", "of the Beth Israel Deaconess Medical Center", {}, "bidmc"),
        ("Charité CDM", "", {}, "omop:charité-cdm"),
        ("Our data", "", {"source": "bidmc"}, "bidmc"),
    ],
)
def test_the_patient_source_is_what_the_data_says_of_itself(
    tmp_path: Path, name: str, description: str, options: dict[str, str], source: str
) -> None:
    said: Rows = [{"cdm_source_name": name, "source_description": description}]
    assert _ingest(_export(tmp_path / "e", cdm_source=said), **options).manifest.source == source


def test_unnamed_data_is_a_source_of_its_own(tmp_path: Path) -> None:
    first = _ingest(_export(tmp_path / "a")).manifest.source
    second = _ingest(_export(tmp_path / "b", person=[PERSON | {"year_of_birth": 1960}])).manifest.source
    assert first and second and first != second


# --- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("person", "visit", "sentence"),
    [
        ({"year_of_birth": 99}, {}, "person, data row 1, column year_of_birth: found 99, expected a year"),
        ({"month_of_birth": 13}, {}, "person, data row 1, column month_of_birth: found 13, expected a month"),
        ({"month_of_birth": 2, "day_of_birth": 31}, {}, "column day_of_birth: found 31, expected a day of that month"),
        ({}, {"person_id": ""}, "visit_occurrence, data row 1, column person_id: found no value, expected an id"),
    ],
)
def test_what_cannot_be_placed_gets_a_sentence(
    tmp_path: Path, person: dict[str, object], visit: dict[str, object], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        _events(tmp_path / "e", person=[PERSON | person], visit_occurrence=[VISIT | visit])


def test_visits_of_unknown_persons_are_counted(tmp_path: Path) -> None:
    stranger = _visit(2, 9201, "2014-03-10 08:00:00", "2014-03-12 08:00:00", person_id=5)
    dataset = _ingest(_export(tmp_path / "e", visit_occurrence=[VISIT, stranger]))
    assert any("1 visits of persons who are not in person" in warning for warning in dataset.manifest.warnings)
    assert len(_times(dataset.scan().collect(), "HOSPITAL_ADMISSION")) == 1


def test_visits_that_end_before_they_start_are_counted(tmp_path: Path) -> None:
    visit = _visit(1, 9201, "2014-03-10 08:00:00", "2014-03-01 08:00:00")
    dataset = _ingest(_export(tmp_path / "e", visit_occurrence=[visit]))
    assert any("1 visits end before they start" in warning for warning in dataset.manifest.warnings)


# --- real exports ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mimic(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    path = real_data / "mimiciv_demo_omop_0.9" / "1_omop_data_csv"
    return ingest(SiteSpec("omop", "omop", path), tmp_path_factory.mktemp("home")).scan().collect()


def _raw(real_data: Path, pattern: str) -> pl.DataFrame:
    return pl.read_csv(next(real_data.glob(pattern)), infer_schema_length=None, try_parse_dates=True)


@pytest.mark.real
def test_mimic_has_the_admissions_of_mimic_iv_but_one_that_lies_inside_another(
    mimic: pl.DataFrame, real_data: Path
) -> None:
    admissions = _raw(real_data, "mimiciv_demo_2.2/**/admissions.csv*")
    left = set(_times(mimic, "HOSPITAL_DISCHARGE"))
    assert len(_times(mimic, "HOSPITAL_DISCHARGE")) == admissions.height - 1 == 274
    alive = admissions.filter(pl.col("hospital_expire_flag") == 0)
    # 22380825 lies inside 23688993
    assert alive.filter(~pl.col("dischtime").is_in(list(left)))["hadm_id"].to_list() == [22380825]


@pytest.mark.real
def test_mimic_has_the_icu_stays_of_mimic_iv_but_two_in_intermediate_care(mimic: pl.DataFrame, real_data: Path) -> None:
    stays = _raw(real_data, "mimiciv_demo_2.2/**/icustays.csv*")
    found = set(_times(mimic, "ICU_ADMISSION"))
    assert len(_times(mimic, "ICU_ADMISSION")) == stays.height == 140
    other = stays.filter(~pl.col("intime").is_in(list(found))).sort("stay_id")
    # OMOP's 8 minutes elsewhere split 23786647's stay, and it finds a 53-minute stay that icustays leaves out
    assert sorted(other["first_careunit"]) == ["Neuro Intermediate", "Neuro Stepdown"]


@pytest.mark.real
def test_mimic_has_the_deaths_of_mimic_iv_inside_their_stays(mimic: pl.DataFrame, real_data: Path) -> None:
    admissions = _raw(real_data, "mimiciv_demo_2.2/**/admissions.csv*")
    died = admissions.filter(pl.col("hospital_expire_flag") == 1)
    deaths = mimic.filter(pl.col("code") == "MEDS_DEATH").sort("subject_id")
    assert deaths.height == died.height == 15
    assert sorted(deaths["time"].dt.date()) == sorted(died["deathtime"].dt.date())
    ends = (
        mimic.filter(pl.col("code").str.starts_with("HOSPITAL_DISCHARGE"))
        .group_by("subject_id")
        .agg(left=pl.col("time").max())
    )
    checked = deaths.join(ends, on="subject_id")
    assert checked.filter(pl.col("time") > pl.col("left")).is_empty()
    assert mimic.filter(pl.col("code") == "HOSPITAL_DISCHARGE//DIED").height == 15
    assert mimic.filter(pl.col("code") == "OUTCOME_UNKNOWN").is_empty()


@pytest.mark.real
def test_mimic_bills_stand_at_the_end_of_a_stay_and_rows_are_those_of_the_raw_tables(
    mimic: pl.DataFrame, real_data: Path
) -> None:
    conditions = _raw(real_data, "mimiciv_demo_omop_0.9/**/condition_occurrence.csv")
    billed = conditions.filter(pl.col("condition_type_concept_id") == 32821)
    left = mimic.filter(pl.col("code").str.starts_with("HOSPITAL_DISCHARGE")).select("subject_id", "time")
    found = mimic.filter(pl.col("code").str.starts_with("CONDITION")).join(left, on=["subject_id", "time"], how="semi")
    assert found.height >= billed.select("person_id", "condition_concept_id", "visit_occurrence_id").unique().height
    early = mimic.join(billed.select(subject_id="person_id").unique(), on="subject_id", how="semi")
    only_billed = set(billed["condition_concept_id"]) - set(
        conditions.filter(pl.col("condition_type_concept_id") != 32821)["condition_concept_id"]
    )
    codes = [f"CONDITION//OMOP//{concept}" for concept in only_billed]
    early = early.filter(pl.col("code").is_in(codes)).join(left, on=["subject_id", "time"], how="anti")
    assert early.is_empty()
    drugs = _raw(real_data, "mimiciv_demo_omop_0.9/**/drug_exposure.csv")
    same = ["person_id", "drug_concept_id", "drug_exposure_start_datetime"]
    starts = mimic.filter(pl.col("code").str.contains("^DRUG//OMOP//[1-9]"))
    assert starts.select("subject_id", "code", "time").unique().height == (
        drugs.filter(pl.col("drug_concept_id") != 0).select(same).unique().height
    )


@pytest.mark.real
def test_synthea_in_cdm_5_4_has_its_persons_admissions_and_deaths(real_data: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(next(real_data.glob("omop_synthea27nj/*.zip"))) as archive:
        archive.extractall(tmp_path / "cdm")
    dataset = _ingest(tmp_path / "cdm")
    events = dataset.scan().collect()
    visits = _raw(tmp_path, "cdm/VISIT_OCCURRENCE.csv")
    measured = _raw(tmp_path, "cdm/MEASUREMENT.csv")
    assert dataset.subjects.height == 28
    assert len(_times(events, "HOSPITAL_ADMISSION")) == visits.filter(pl.col("visit_concept_id") == 9201).height == 13
    assert len(_times(events, "MEDS_DEATH")) == 3
    assert len(_times(events, "VISIT//OMOP//9203")) == 56
    same = ["person_id", "measurement_concept_id", "measurement_date", "value_as_number", "unit_concept_id"]
    numbers = events.filter(pl.col("code").str.starts_with("MEASUREMENT") & pl.col("numeric_value").is_not_null())
    assert numbers.height >= measured.drop_nulls("value_as_number").unique(same).height
    assert dataset.manifest.source == "omop:nj"
    assert set(events.filter(pl.col("code").str.starts_with("MEAS"))["time"].dt.time().unique()) == {
        _at("2000-01-01 23:59:59").time()
    }
