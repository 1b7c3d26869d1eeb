"""Harmonised variables: units by item, each trap of the real files, and the same medians from every system."""

from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sites.catalogue import catalogue, parse
from sites.concepts import concepts, coverage, harmonise, mapping
from sites.dataset import Dataset, Manifest
from sites.errors import InputError

NOON = datetime(2150, 1, 1, 12)  # noqa: DTZ001

Row = tuple[str, float | None] | tuple[str, float | None, str | None]


def events(*rows: Row, subject: int = 1, time: datetime = NOON) -> pl.LazyFrame:
    """Events of one patient at one time."""
    full = [(subject, time, row[0], row[1], row[2] if len(row) > 2 else None) for row in rows]
    schema = {
        "subject_id": pl.Int64,
        "time": pl.Datetime("us"),
        "code": pl.String,
        "numeric_value": pl.Float32,
        "text_value": pl.String,
    }
    return pl.LazyFrame(full, schema=schema, orient="row")


def values(key: str, *rows: Row) -> dict[str, float]:
    """What events of one patient at one time become: concept -> value."""
    found = harmonise(events(*rows), key, [row[0] for row in rows]).collect()
    assert found["concept"].is_unique().all()
    return dict(found.select("concept", "value").iter_rows())


# --- what is covered ---------------------------------------------------------------------------------------------

YAIB_NAMES = """
    albumin alkaline_phosphatase alanine_aminotransferase aspartate_aminotransferase base_excess bicarbonate
    bilirubin_total bilirubin_direct bands blood_urea_nitrogen calcium ionized_calcium creatine_kinase
    creatine_kinase_mb chloride creatinine c_reactive_protein diastolic_pressure fibrinogen fio2 glucose hemoglobin
    heart_rate inr potassium lactate lymphocytes mean_pressure mch mchc mcv methemoglobin magnesium sodium
    neutrophils oxygen_saturation pco2 ph phosphate platelets po2 ptt respiratory_rate systolic_pressure temperature
    troponin_t urine white_blood_cells age sex height weight
"""
YAIB = frozenset(YAIB_NAMES.split())


def test_the_48_variables_of_yaib_and_its_4_descriptors_are_covered_for_mimic_eicu_and_omop() -> None:
    assert len(YAIB) == 48 + 4
    by_name = {concept.name: concept for concept in concepts()}
    for name in YAIB - {"age", "sex"}:
        assert {"mimic", "eicu", "omop"} <= set(by_name[name].ids) | set(by_name[name].ids.get("common", ())), name


def test_every_concept_says_how_it_is_found_and_has_a_range_wider_than_a_point() -> None:
    for concept in catalogue().concepts.values():
        assert concept.ids, concept.name
        assert concept.low < concept.high, concept.name
        assert concept.unit, concept.name


def test_an_id_means_one_thing_per_concept_and_export() -> None:
    for concept in catalogue().concepts.values():
        for by_conversion in concept.ids.values():
            ids = [one for group in by_conversion.values() for one in group]
            assert len(ids) == len(set(ids)), concept.name


# --- the traps ---------------------------------------------------------------------------------------------------


def test_fio2_of_one_half_in_carevue_is_fifty_in_metavision() -> None:
    assert values("mimic", ("LAB//190//torr", 0.5)) == {"fio2": 50.0}
    assert values("mimic", ("LAB//223835//UNK", 50.0)) == {"fio2": 50.0}
    assert values("eicu", ("LAB//FiO2//%", 0.4)) == {"fio2": 40.0}
    assert values("physionet2012", ("LAB//FiO2//UNK", 1.0)) == {"fio2": 100.0}


@pytest.mark.parametrize(("celsius", "fahrenheit"), [("676//Deg. C", "679//Deg. F"), ("677//Deg. C", "678//Deg. F")])
def test_a_temperature_charted_in_both_units_is_one_reading(celsius: str, fahrenheit: str) -> None:
    found = values("mimic", (f"LAB//{celsius}", 36.8888888), (f"LAB//{fahrenheit}", 98.4))
    assert found == {"temperature": pytest.approx(36.8889, abs=1e-4)}


def test_the_unit_of_a_temperature_is_that_of_the_item_whatever_the_text_says() -> None:
    for text in ("?F", "°F", "UNK", "?C", "°C"):
        assert values("mimic", (f"LAB//223761//{text}", 98.6)) == {"temperature": pytest.approx(37.0)}
        assert values("mimic", (f"LAB//223762//{text}", 37.0)) == {"temperature": pytest.approx(37.0)}


def test_copied_items_count_once() -> None:
    assert values("mimic", ("LAB//811//UNK", 126), ("LAB//1529//UNK", 126)) == {"glucose": 126.0}
    assert values("mimic", ("LAB//780//UNK", 7.39), ("LAB//1126//UNK", 7.39)) == {"ph": 7.39}


def test_values_that_differ_at_one_time_become_their_mean() -> None:
    assert values("mimic", ("LAB//220621//mg/dL", 100), ("LAB//225664//UNK", 140)) == {"glucose": 120.0}


@pytest.mark.parametrize("said", ["1.0 ET/Trach", "No Response-ETT"])
def test_a_verbal_score_of_an_intubated_patient_is_a_ventilator_and_no_verbal_score(said: str) -> None:
    item = "223900" if "ETT" in said else "723"
    assert values("mimic", (f"LAB//{item}//UNK", 1.0, said)) == {"ventilation": 1.0}


def test_a_verbal_score_of_1_that_is_no_response_stays_one() -> None:
    assert values("mimic", ("LAB//723//UNK", 1.0, "1 No Response")) == {"gcs_verbal": 1.0}
    assert values("mimic", ("LAB//223900//UNK", 1.0, "No Response")) == {"gcs_verbal": 1.0}
    assert values("mimic", ("LAB//223900//UNK", 5.0, "Oriented")) == {"gcs_verbal": 5.0}


def test_the_coma_total_is_the_sum_of_parts_at_one_time_and_counts_1_for_a_tube() -> None:
    parts = [("LAB//220739//UNK", 3.0), ("LAB//223901//UNK", 5.0)]
    assert values("mimic", *parts, ("LAB//223900//UNK", 4.0, "Confused"))["gcs_total"] == 12.0
    intubated = values("mimic", *parts, ("LAB//223900//UNK", 1.0, "No Response-ETT"))
    assert intubated["gcs_total"] == 9.0
    assert "gcs_verbal" not in intubated
    assert "gcs_total" not in values("mimic", *parts)


def test_a_charted_coma_total_prevails_over_the_sum() -> None:
    parts = [("LAB//184//UNK", 3.0), ("LAB//454//UNK", 5.0), ("LAB//723//UNK", 4.0, "4 Confused")]
    assert values("mimic", *parts, ("LAB//198//points", 11.0))["gcs_total"] == 11.0


def test_irrigant_subtracts_from_urine_and_two_catheters_add_up() -> None:
    out, irrigant = "SUBJECT_FLUID_OUTPUT//227489//mL", "SUBJECT_FLUID_OUTPUT//227488//mL"
    assert values("mimic", (out, 3150), (irrigant, 3000)) == {"urine": 150.0}
    foley, condom = "SUBJECT_FLUID_OUTPUT//226559//mL", "SUBJECT_FLUID_OUTPUT//226561//mL"
    assert values("mimic", (foley, 100), (condom, 50)) == {"urine": 150.0}
    assert values("mimic", (foley, 100), (foley, 100)) == {"urine": 200.0}  # two hours, entered at one time


def test_an_implausible_irrigant_is_dropped_whatever_its_sign() -> None:
    assert values("mimic", ("SUBJECT_FLUID_OUTPUT//227488//mL", 30_000)) == {}


@pytest.mark.parametrize(
    ("key", "code", "value"),
    [
        ("physionet2012", "LAB//HR//UNK", 0),
        ("physionet2012", "LAB//Height//UNK", -1),
        ("physionet2012", "LAB//Weight//UNK", -1),
        ("physionet2012", "LAB//Temp//UNK", -17.8),
        ("eicu", "BODY//HEIGHT//cm", 0.3),
        ("eicu", "BODY//HEIGHT//cm", 600),
        ("uci_heart", "LAB//chol//UNK", 0),
        ("mimic", "LAB//220045//bpm", float("nan")),
        ("mimic", "LAB//220045//bpm", float("inf")),
    ],
)
def test_an_implausible_value_is_dropped(key: str, code: str, value: float) -> None:
    assert values(key, (code, value)) == {}


def test_a_ph_written_without_its_point_is_read() -> None:
    assert values("physionet2012", ("LAB//pH//UNK", 735)) == {"ph": 7.35}
    assert values("physionet2012", ("LAB//pH//UNK", 73.5)) == {"ph": 7.35}
    assert values("physionet2012", ("LAB//pH//UNK", 1)) == {}


@pytest.mark.parametrize("text", ["<0.01", " < 0.01 ", "LESS THAN 0.01", "0.01"])
def test_a_result_below_the_limit_of_detection_counts_as_the_limit(text: str) -> None:
    assert values("mimic", ("LAB//51003//ng/mL", None, text)) == {"troponin_t": 0.01}


@pytest.mark.parametrize("text", ["ERROR", "HEMOLYZED", "", "1-2", "SEE 51002"])
def test_a_text_that_is_no_number_is_no_value(text: str) -> None:
    assert values("mimic", ("LAB//51003//ng/mL", None, text)) == {}


def test_a_ventilator_prevails_over_signs_of_none_and_an_extubation_is_a_zero() -> None:
    assert values("mimic", ("LAB//220339//cmH2O", 5), ("LAB//226732//UNK", None, "None"))["ventilation"] == 1.0
    assert values("mimic", ("LAB//226732//UNK", None, "Nasal cannula")) == {"ventilation": 0.0}
    assert values("mimic", ("LAB//226732//UNK", None, "Endotracheal tube")) == {"ventilation": 1.0}
    assert values("mimic", ("LAB//50812//UNK", None, "NOT INTUBATED")) == {"ventilation": 0.0}
    assert values("mimic", ("LAB//50812//UNK", None, "INTUBATED")) == {"ventilation": 1.0}
    assert values("mimic", ("LAB//220339//cmH2O", 0)) == {}
    assert values("mimic", ("PROCEDURE//START//225792", None)) == {"ventilation": 1.0}
    assert values("mimic", ("PROCEDURE//START//227194", None)) == {"ventilation": 0.0}
    assert values("physionet2012", ("LAB//MechVent//UNK", 1)) == {"ventilation": 1.0}
    assert values("omop", ("PROCEDURE//OMOP//44790095", None)) == {"ventilation": 1.0}
    assert values("omop", ("PROCEDURE//OMOP//4150627", None)) == {"ventilation": 0.0}
    assert values("eicu", ("PROCEDURE//START//VENTILATION", None)) == {"ventilation": 1.0}
    assert values("eicu", ("LAB//RT Vent On/Off//UNK", None, "Off")) == {"ventilation": 0.0}


def test_units_stand_in_the_code_where_a_result_really_has_its_own() -> None:
    assert values("mimic", ("LAB//50889//mg/dL", 8.92)) == {"c_reactive_protein": pytest.approx(89.2)}
    assert values("mimic", ("LAB//50889//mg/L", 235.7)) == {"c_reactive_protein": pytest.approx(235.7)}
    assert values("eicu", ("LAB//ionized calcium//mg/dL", 4.4)) == {"ionized_calcium": pytest.approx(1.098, abs=1e-3)}
    assert values("eicu", ("LAB//ionized calcium//mg/dL", 1.1)) == {"ionized_calcium": pytest.approx(1.1)}


@pytest.mark.parametrize(
    ("code", "number", "concept", "expected"),
    [
        ("MEASUREMENT//OMOP//3004501//8753", 5.5, "glucose", 99.086),
        ("MEASUREMENT//OMOP//3004501//8840", 99.0, "glucose", 99.0),
        ("MEASUREMENT//OMOP//3020891//9289", 98.6, "temperature", 37.0),
        ("MEASUREMENT//OMOP//3020891//8653", 37.0, "temperature", 37.0),
        ("MEASUREMENT//OMOP//3036277//9330", 70.0, "height", 177.8),
        ("MEASUREMENT//OMOP//3036277//8582", 178.0, "height", 178.0),
        ("MEASUREMENT//OMOP//3025315//8739", 154.3236, "weight", 70.0),
        ("MEASUREMENT//OMOP//3025315//9529", 70.0, "weight", 70.0),
        ("MEASUREMENT//OMOP//3016723//8749", 88.42, "creatinine", 1.0),
        ("MEASUREMENT//OMOP//3024929//8647", 250_000, "platelets", 250.0),
        ("MEASUREMENT//OMOP//3016502//720868", 0.97, "arterial_oxygen_saturation", 97.0),
        ("MEASUREMENT//SOURCE//8867-4//8541", 80, "heart_rate", 80.0),
    ],
)
def test_omop_units_are_told_by_the_unit_concept(code: str, number: float, concept: str, expected: float) -> None:
    assert values("omop", (code, number)) == {concept: pytest.approx(expected, rel=1e-4)}


def test_what_all_exports_share_is_found_under_every_key() -> None:
    for key in ("", "meds", *catalogue().exports):
        found = values(key, ("AGE", 67), ("GENDER//M", None), ("BODY//WEIGHT//kg", 80), ("BODY//HEIGHT//inch", 70))
        assert found == {"age": 67.0, "sex": 1.0, "weight": 80.0, "height": pytest.approx(177.8)}, key
    assert values("mimic", ("GENDER//F", None), ("GENDER//UNK", None)) == {"sex": 0.0}


def test_loinc_codes_of_a_meds_dataset_are_known_with_their_units() -> None:
    assert values("meds", ("LOINC//2345-7//mmol/L", 5.5)) == {"glucose": pytest.approx(99.0858)}
    assert values("meds", ("LOINC//8867-4", 80), ("LAB//220179//mmHg", 120))["heart_rate"] == 80.0


def test_names_are_compared_without_regard_to_case_and_blanks() -> None:
    for name in ("WBC x 1000", "wbc X 1000", " WBC x 1000 "):
        assert values("eicu", (f"LAB//{name}//K/mcL", 9.7)) == {"white_blood_cells": pytest.approx(9.7)}
    label = "Output (mL)-Urethral Catheter Non-latex 16 Fr."
    assert values("eicu", (f"SUBJECT_FLUID_OUTPUT//{label}//ml", 350)) == {"urine": 350.0}


# --- laws --------------------------------------------------------------------------------------------------------


@given(celsius=st.floats(27, 43))
def test_celsius_survives_the_way_through_fahrenheit(celsius: float) -> None:
    found = values("mimic", ("LAB//223761//UNK", celsius * 9 / 5 + 32))
    assert found["temperature"] == pytest.approx(celsius, abs=2e-4)


@given(kg=st.floats(21, 399))
def test_kilograms_survive_the_way_through_pounds(kg: float) -> None:
    assert values("mimic", ("LAB//226531//UNK", kg / 0.45359237))["weight"] == pytest.approx(kg, rel=1e-5)


@given(cm=st.floats(101, 249))
def test_centimetres_survive_the_way_through_inches(cm: float) -> None:
    assert values("mimic", ("LAB//226707//Inch", cm / 2.54))["height"] == pytest.approx(cm, rel=1e-5)


@given(percent=st.floats(21, 100))
def test_a_fraction_of_oxygen_equals_its_percentage(percent: float) -> None:
    fraction = values("mimic", ("LAB//190//torr", percent / 100))["fio2"]
    assert fraction == pytest.approx(values("mimic", ("LAB//190//torr", percent))["fio2"], rel=1e-5)


@given(numbers=st.lists(st.floats(15, 250, width=32), min_size=1, max_size=6), order=st.randoms(use_true_random=False))
def test_the_order_of_events_changes_nothing(numbers: list[float], order) -> None:  # type: ignore[no-untyped-def]
    rows: list[Row] = [("LAB//220045//bpm", number) for number in numbers]
    shuffled = list(rows)
    order.shuffle(shuffled)
    assert values("mimic", *rows) == values("mimic", *shuffled)


@given(value=st.floats(-1e6, 1e6, width=32))
def test_what_comes_out_is_plausible(value: float) -> None:
    by_name = {concept.name: concept for concept in concepts()}
    for code in ("LAB//220045//bpm", "LAB//223761//UNK", "LAB//190//torr", "LAB//226531//UNK"):
        for name, out in values("mimic", (code, value)).items():
            assert by_name[name].low <= out <= by_name[name].high


# --- the frame ---------------------------------------------------------------------------------------------------


def test_other_columns_are_kept_and_keep_rows_apart() -> None:
    frame = pl.concat([events(("LAB//211//BPM", 80)).with_columns(sample=pl.lit(n)) for n in (1, 2)])
    found = harmonise(frame, "mimic", ["LAB//211//BPM"]).collect()
    assert found.columns == ["subject_id", "time", "concept", "value", "sample"]
    assert found["sample"].to_list() == [1, 2]


def test_rows_come_sorted_by_subject_time_and_concept_in_both_engines() -> None:
    rows = [events(("LAB//211//BPM", 80 + s), ("LAB//618//BPM", 20), subject=s) for s in (3, 1, 2)]
    rows.append(events(("LAB//211//BPM", 70), subject=2, time=NOON - timedelta(hours=1)))
    frame = harmonise(pl.concat(rows), "mimic", ["LAB//211//BPM", "LAB//618//BPM"])
    found = frame.collect()
    assert found.select("subject_id", "time").rows() == sorted(found.select("subject_id", "time").rows())
    assert found["value"].to_list() == [81, 20, 70, 82, 20, 83, 20]
    assert frame.collect(engine="streaming").equals(found)


def test_events_without_text_or_of_unknown_codes_are_read() -> None:
    frame = events(("LAB//220045//bpm", 80), ("LAB//999999//UNK", 1)).drop("text_value")
    assert harmonise(frame, "mimic", ["LAB//220045//bpm", "LAB//999999//UNK"]).collect()["value"].to_list() == [80.0]
    assert harmonise(frame, "mimic", []).collect().is_empty()


def test_an_unknown_export_key_gets_a_sentence() -> None:
    with pytest.raises(InputError, match=r"no ids for the export key 'mimic5'; expected one of mimic, eicu, omop"):
        mapping("mimic5", ["LAB//1//x"])


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ("{kind: vital, unti: bpm, range: [1, 2], ids: {mimic: [1]}}", "unti: Extra inputs are not permitted"),
        ("{kind: vitals, unit: bpm, range: [1, 2], ids: {mimic: [1]}}", "kind: Input should be 'vital'"),
        ("{kind: vital, unit: bpm, range: [2, 1], ids: {mimic: [1]}}", "expected the lower limit first"),
        ("{kind: vital, unit: bpm, range: [1, 2], ids: {epic: [1]}}", "unknown export key 'epic'"),
        ("{kind: vital, unit: bpm, range: [1, 2], ids: {mimic: {kelvin: [1]}}}", "'kelvin' is not declared"),
        ("{kind: vital, unit: bpm, range: [1, 2], sum_of: [other]}", "sum_of names 'other', which is no concept"),
    ],
)
def test_a_mistake_in_the_file_gets_a_sentence_that_names_it(entry: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        parse(f"exports: [mimic]\nconversions: {{}}\nconcepts:\n  pulse: {entry}\n")


def test_coverage_counts_readings_subjects_and_what_was_dropped(tmp_path: Path) -> None:
    codes = ["LAB//220045//bpm", "LAB//223900//UNK"]
    for n, subject in enumerate((1, 2)):
        shard = tmp_path / "data" / f"{n}.parquet"
        shard.parent.mkdir(exist_ok=True)
        rows: list[Row] = [(codes[0], 80), (codes[0], 80), (codes[1], 1, "No Response-ETT")]
        late: list[Row] = [(codes[0], 0), (codes[0], 90)] if subject == 1 else []
        frame = pl.concat([events(*rows, subject=subject), events(*late, subject=1, time=NOON + timedelta(hours=1))])
        frame.collect().write_parquet(shard)
    (tmp_path / "metadata").mkdir()
    pl.DataFrame({"code": codes}).write_parquet(tmp_path / "metadata" / "codes.parquet")
    known = {name: "" for name in ("kind", "title", "source", "part", "source_sha256", "content_sha256")}
    manifest = Manifest.model_validate(
        {**known, "options": {}, "data_kind": "demo", "groups": [], "concepts": "mimic"}
        | {"n_subjects": 2, "n_patients": 2, "n_events": 8, "warnings": []}
    )
    (tmp_path / "metadata" / "fedward.json").write_text(manifest.model_dump_json())
    table = coverage(Dataset(tmp_path))
    assert table["concept"].to_list() == [concept.name for concept in concepts()]
    found = {row[0]: row[1:] for row in table.iter_rows()}
    assert found["heart_rate"] == ("bpm", 3, 2, 1)
    assert found["ventilation"] == ("1", 2, 2, 0)
    assert found["glucose"] == ("mg/dL", 0, 0, 0)
    assert "gcs_verbal_charted" not in found


def test_an_export_brings_its_own_ids_by_its_key_in_the_file_alone() -> None:
    entry = "{kind: vital, unit: bpm, range: [1, 2], ids: {wardlog: [pulse]}}"
    known = parse(f"exports: [mimic, wardlog]\nconversions: {{}}\nconcepts:\n  pulse: {entry}\n")
    assert known.concepts["pulse"].ids["wardlog"] == {"as_is": ("pulse",)}
