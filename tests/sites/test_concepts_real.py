"""Harmonised variables against MIMIC's dictionaries, the published concept maps and the values of real exports."""

import tarfile
from pathlib import Path

import polars as pl
import pytest

from sites.catalogue import catalogue
from sites.concepts import harmonise, mapping


def dictionary(real_data: Path) -> dict[int, str]:
    """MIMIC's items: id -> label, of D_ITEMS and of both laboratories' lists."""
    files = (
        "mimiciii_demo_1.4/D_ITEMS.csv",
        "mimiciii_demo_1.4/D_LABITEMS.csv",
        "mimiciv_demo_2.2/hosp/d_labitems.csv",
    )
    frames = [pl.read_csv(real_data / name, infer_schema_length=None) for name in files]
    return {item: label or "" for frame in frames for item, label in frame.select("itemid", "label").iter_rows()}


def mapped_items(*, of: str = "") -> dict[int, str]:
    """MIMIC's mapped item ids -> concept."""
    return {
        int(one): concept.name
        for concept in catalogue().concepts.values()
        for ids in concept.ids.get("mimic", {}).values()
        for full in ids
        if (one := full.removeprefix("procedure//start//").removeprefix("procedure//end//").split("//")[0]).isdigit()
        and (not of or concept.name == of)
    }


@pytest.mark.real
def test_no_alarm_limit_is_mapped_and_every_mapped_item_is_in_a_dictionary(real_data: Path) -> None:
    labels = dictionary(real_data)
    items = mapped_items()
    assert len(items) > 250
    assert set(items) <= set(labels), sorted(set(items) - set(labels))
    wrong = {i: labels[i] for i in items if any(word in labels[i].lower() for word in ("alarm", "limit", "apache"))}
    assert wrong == {}


@pytest.mark.real
@pytest.mark.parametrize(
    ("concept", "words"),
    [
        ("heart_rate", ["heart rate"]),
        ("respiratory_rate", ["resp"]),
        ("temperature", ["temp"]),
        ("sodium", ["sodium"]),
        ("potassium", ["potassium"]),
        ("chloride", ["chloride"]),
        ("creatinine", ["creatinine"]),
        ("blood_urea_nitrogen", ["bun", "urea nitrogen"]),
        ("glucose", ["glucose"]),
        ("hemoglobin", ["hemoglobin"]),
        ("hematocrit", ["hematocrit"]),
        ("platelets", ["platelet"]),
        ("white_blood_cells", ["wbc", "white blood"]),
        ("lactate", ["lact"]),
        ("albumin", ["albumin"]),
        ("bilirubin_total", ["total bili", "bilirubin, total"]),
        ("bilirubin_direct", ["direct bili", "bilirubin, direct"]),
        ("magnesium", ["magnesium"]),
        ("phosphate", ["phos"]),
        ("ph", ["ph"]),
        ("ionized_calcium", ["ionized", "free calcium"]),
        ("troponin_t", ["troponin-t", "troponin t"]),
        ("fio2", ["fio2", "inspired o2", "oxygen"]),
        ("systolic_pressure", ["systolic"]),
        ("diastolic_pressure", ["diastolic"]),
        ("mean_pressure", ["mean"]),
        ("height", ["height", "ht", "length"]),
        ("weight", ["weight", "wt"]),
    ],
)
def test_the_label_of_each_mapped_item_says_what_it_is(real_data: Path, concept: str, words: list[str]) -> None:
    labels = dictionary(real_data)
    wrong = {i: labels[i] for i in mapped_items(of=concept) if not any(word in labels[i].lower() for word in words)}
    assert wrong == {}


@pytest.mark.real
def test_items_and_omop_concepts_agree_with_the_published_concept_maps(real_data: Path) -> None:
    folder = real_data / "code_maps" / "mimiciv_concept_map"
    known = pl.concat(
        pl.read_csv(folder / name, infer_schema=False).select(
            pl.first().alias("item"), "omop_concept_id", "omop_concept_code"
        )
        for name in ("meas_chartevents_main.csv", "d_labitems_to_loinc.csv", "outputevents_to_loinc.csv")
    ).drop_nulls()
    disagreeing, agreeing = [], 0
    for item, concept_id, loinc in known.iter_rows():
        ours = set(mapping("mimic", [f"LAB//{item}//x"])["concept"])
        theirs = set(mapping("omop", [f"MEASUREMENT//OMOP//{concept_id}//0"])["concept"])
        by_loinc = set(mapping("meds", [f"LOINC//{loinc}"])["concept"])
        if ours and theirs:
            agreeing += bool(ours & theirs)
            if not ours & theirs or (by_loinc and not by_loinc & theirs):
                disagreeing.append((item, ours, theirs, by_loinc))
    assert disagreeing == []
    assert agreeing > 100


def chart(real_data: Path, *, system: str) -> pl.DataFrame:
    """Chart, laboratory and output events of a MIMIC export as MEDS events, by plain polars."""
    third = system != "mimic4"
    root = real_data / ("mimiciii_demo_1.4" if third else "mimiciv_demo_2.2")
    names = (
        ("CHARTEVENTS.csv.gz", "LABEVENTS.csv.gz", "OUTPUTEVENTS.csv")
        if third
        else ("icu/chartevents.csv.gz", "hosp/labevents.csv.gz", "icu/outputevents.csv")
    )
    frames = []
    for name in names:
        frame = pl.read_csv(root / name, infer_schema_length=None)
        frame = frame.rename({column: column.lower() for column in frame.columns})
        output = "output" in name.lower()
        frames.append(
            frame.select(
                "subject_id",
                pl.col("charttime").str.to_datetime(time_unit="us").alias("time"),
                pl.concat_str(
                    pl.lit("SUBJECT_FLUID_OUTPUT" if output else "LAB"),
                    "itemid",
                    pl.col("valueuom").fill_null("UNK"),
                    separator="//",
                ).alias("code"),
                pl.col("value" if output else "valuenum").cast(pl.Float32).alias("numeric_value"),
                (pl.col("value").cast(pl.String) if "value" in frame.columns else pl.lit(None, pl.String)).alias(
                    "text_value"
                ),
                pl.col("itemid"),
            )
        )
    rows = pl.concat(frames)
    if system == "carevue":
        rows = rows.filter(pl.col("itemid") < 50_000)
    if system == "metavision":
        rows = rows.filter(pl.col("itemid") > 200_000)
    return rows.drop("itemid")


@pytest.fixture(scope="module")
def medians(real_data: Path) -> pl.DataFrame:
    """concept x system: median and number of harmonised readings."""
    found = []
    for system in ("carevue", "metavision", "mimic4"):
        rows = chart(real_data, system=system)
        readings = harmonise(rows.lazy(), "mimic", rows["code"].unique().to_list())
        found.append(
            readings.group_by("concept")
            .agg(pl.col("value").median().alias(system), pl.len().alias(f"n_{system}"))
            .collect()
        )
    return found[0].join(found[1], on="concept", how="full", coalesce=True).join(found[2], on="concept", how="left")


NARROW_NAMES = """
    heart_rate respiratory_rate temperature oxygen_saturation systolic_pressure diastolic_pressure mean_pressure
    arterial_oxygen_saturation pco2 po2 ph albumin bicarbonate calcium ionized_calcium chloride glucose magnesium
    phosphate potassium sodium hematocrit hemoglobin inr ptt platelets white_blood_cells fio2 weight gcs_eye gcs_motor
    gcs_total
"""
NARROW = frozenset(NARROW_NAMES.split())


@pytest.mark.real
def test_carevue_metavision_and_mimic4_agree_on_the_middle_of_each_variable(medians: pl.DataFrame) -> None:
    table = {row["concept"]: row for row in medians.iter_rows(named=True)}
    for name in NARROW:
        row = table[name]
        middle = [row[system] for system in ("carevue", "metavision", "mimic4")]
        assert min(row[f"n_{system}"] for system in ("carevue", "metavision", "mimic4")) >= 20, name
        assert max(middle) <= 1.6 * min(middle), (name, middle)
    assert abs(table["temperature"]["carevue"] - table["temperature"]["mimic4"]) < 0.3
    assert abs(table["ph"]["carevue"] - table["ph"]["mimic4"]) < 0.05


LIVER = {"alanine_aminotransferase", "aspartate_aminotransferase", "bilirubin_total", "bilirubin_direct"}
"""The CareVue half of the demo has few patients with liver values, most of them in liver failure."""


@pytest.mark.real
def test_the_wider_variables_agree_within_a_factor_of_five(medians: pl.DataFrame) -> None:
    often = pl.min_horizontal("n_carevue", "n_metavision", "n_mimic4") >= 20
    table = medians.drop_nulls().filter(often)
    assert table.height > 40
    for row in table.iter_rows(named=True):
        if row["concept"] in LIVER | {"ventilation", "base_excess", "bands"}:  # the latter have zero in the middle
            continue
        middle = [row[system] for system in ("carevue", "metavision", "mimic4")]
        assert max(middle) <= 5 * min(middle), (row["concept"], middle)


@pytest.mark.real
def test_twice_charted_temperatures_of_carevue_are_halved_and_nothing_more(real_data: Path) -> None:
    rows = chart(real_data, system="carevue").filter(pl.col("code").str.contains(r"^LAB//67[6789]//"))
    rows = rows.drop_nulls("numeric_value")
    found = harmonise(rows.lazy(), "mimic", rows["code"].unique().to_list()).collect()
    at_once = rows.select("subject_id", "time").unique().height
    assert at_once * 1.9 < len(rows) <= at_once * 2.1
    assert at_once * 0.99 < len(found) <= at_once


@pytest.mark.real
def test_most_intubated_patients_of_carevue_lose_their_verbal_score_and_only_they(real_data: Path) -> None:
    rows = chart(real_data, system="carevue").filter(pl.col("code").str.starts_with("LAB//723//"))
    found = harmonise(rows.lazy(), "mimic", rows["code"].unique().to_list()).collect()
    tubes = rows.filter(pl.col("text_value") == "1.0 ET/Trach").height
    assert tubes > 1000
    assert found.filter(pl.col("concept") == "ventilation").height == tubes
    spoken = rows.filter(pl.col("text_value") != "1.0 ET/Trach").height
    assert found.filter(pl.col("concept") == "gcs_verbal").height == spoken


@pytest.mark.real
def test_most_laboratory_results_of_eicu_are_known_and_have_usual_medians(real_data: Path) -> None:
    rows = pl.read_csv(real_data / "eicu_demo_2.0.1" / "subset_pyhealth" / "lab.csv", infer_schema_length=None)
    frame = rows.select(
        subject_id="patientunitstayid",
        time=pl.datetime(2000, 1, 1) + pl.duration(minutes="labresultoffset"),
        code=pl.format("LAB//{}//{}", "labname", pl.col("labmeasurenamesystem").fill_null("UNK")),
        numeric_value="labresult",
    )
    codes = frame["code"].unique().to_list()
    known = mapping("eicu", codes)["code"].unique()
    assert frame["code"].is_in(known).mean() > 0.75  # the rest: RDW, MPV, anion gap, total protein, urine
    found = harmonise(frame.lazy(), "eicu", codes).group_by("concept").agg(pl.col("value").median()).collect()
    middle = dict(found.iter_rows())
    usual = {
        "potassium": (3.5, 4.5), "sodium": (134, 142), "glucose": (100, 180), "hemoglobin": (8, 13), "fio2": (30, 100),
        "white_blood_cells": (6, 14), "platelets": (150, 300), "ionized_calcium": (0.9, 1.3), "ph": (7.3, 7.45),
        "albumin": (2, 4), "inr": (1, 2), "temperature": (36, 38), "c_reactive_protein": (5, 300),
        "neutrophils": (60, 90),
    }  # fmt: skip
    for name, (low, high) in usual.items():
        assert low <= middle[name] <= high, (name, middle[name])


@pytest.mark.real
def test_every_parameter_of_physionet_2012_has_a_concept(real_data: Path) -> None:
    found: set[str] = set()
    with tarfile.open(real_data / "physionet2012" / "set-a.tar.gz") as archive:
        for member, _ in zip((m for m in archive if m.name.endswith(".txt")), range(400), strict=False):
            content = archive.extractfile(member)
            assert content is not None
            found |= {line.split(",")[1] for line in content.read().decode().splitlines()[1:]}
    found -= {"RecordID", "Gender", ""}  # the id is no measurement; GENDER//F and GENDER//M say the other
    assert len(found) >= 40
    codes = {f"LAB//{parameter}//UNK" for parameter in found}
    assert set(mapping("physionet2012", codes)["code"]) == codes
    assert mapping("physionet2012", ["GENDER//M"])["concept"].to_list() == ["sex"]
