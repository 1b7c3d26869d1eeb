"""UCI heart disease: every row a patient, every finding an event, the diagnosis known later."""

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from sites.dataset import Dataset
from sites.errors import InputError
from sites.ingest import ingest
from sites.site import open_sites
from sites.spec import SiteSpec

ROW = "63.0,1.0,1.0,145.0,233.0,1.0,2.0,150.0,0.0,2.3,3.0,0.0,6.0,2"
ROWS = {"cleveland": 303, "hungarian": 294, "switzerland": 123, "va": 200}


def write(folder: Path, **hospitals: str) -> Path:
    folder.mkdir(exist_ok=True)
    for hospital, text in hospitals.items():
        (folder / f"processed.{hospital}.data").write_text(text)
    return folder


def read(folder: Path, home: Path) -> Dataset:
    home.mkdir(exist_ok=True)
    return ingest(SiteSpec.parse(f"uci_heart:{folder}", named=False), home)


@pytest.fixture(scope="module")
def raw(real_data: Path) -> Path:
    return real_data / "uci_heart_disease"


@pytest.fixture(scope="module")
def hearts(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return read(raw, tmp_path_factory.mktemp("home"))


@pytest.mark.real
def test_the_four_hospitals_have_920_patients(hearts: Dataset) -> None:
    assert dict(hearts.subjects["hospital"].value_counts().rows()) == ROWS
    assert hearts.manifest.n_patients == 920


@pytest.mark.real
def test_every_finding_is_an_event_and_every_diagnosis(hearts: Dataset, raw: Path) -> None:
    fields = [
        line.split(",") for hospital in ROWS for line in (raw / f"processed.{hospital}.data").read_text().splitlines()
    ]
    events = hearts.scan().collect()
    findings = events.filter(pl.col("code").str.starts_with("LAB//"))
    assert len(findings) == sum(value != "?" for row in fields for value in row[:-1])
    total = sum(float(value) for row in fields for value in row[:-1] if value != "?")
    assert findings["numeric_value"].cast(pl.Float64).sum() == pytest.approx(total, rel=1e-6)
    found = events.filter(pl.col("code") == "DIAGNOSIS//UCI//HEART_DISEASE")["numeric_value"]
    assert found.value_counts().sort("numeric_value").rows() == [
        (float(num), sum(row[-1] == str(num) for row in fields)) for num in range(5)
    ]


def test_the_diagnosis_is_known_a_day_after_all_findings(tmp_path: Path, home: Path) -> None:
    events = read(write(tmp_path / "uci", cleveland=f"{ROW}\n"), home).scan().collect()
    [admission] = events.filter(pl.col("code") == "HOSPITAL_ADMISSION//UNK//UNK")["time"].to_list()
    later = events.filter(pl.col("time") > admission).select("time", "code", "numeric_value").rows()
    day = admission + timedelta(days=1)
    assert later == [(day, "DIAGNOSIS//UCI//HEART_DISEASE", 2.0), (day, "HOSPITAL_DISCHARGE//UNK", None)]
    findings = events.filter(pl.col("code").str.starts_with("LAB//"))
    assert len(findings) == 13
    assert set(findings["time"]) == {admission}
    assert {"GENDER//M", "AGE", "MEDS_BIRTH", "LAB//chol//UNK"} <= set(events["code"])


def test_a_question_mark_is_missing_and_an_unknown_diagnosis_an_unknown_outcome(tmp_path: Path, home: Path) -> None:
    row = "?,?,1.0,145.0,?,1.0,2.0,150.0,0.0,2.3,3.0,0.0,6.0,?"
    dataset = read(write(tmp_path / "uci", va=f"{row}\n"), home)
    codes = set(dataset.codes["code"])
    assert "OUTCOME_UNKNOWN" in codes
    assert "GENDER//UNK" in codes
    assert not codes & {"AGE", "MEDS_BIRTH", "LAB//age//UNK", "LAB//chol//UNK", "DIAGNOSIS//UCI//HEART_DISEASE"}
    assert dataset.manifest.warnings[0].startswith("1 patients have no diagnosis")


def test_adding_a_hospital_changes_no_subject_id(tmp_path: Path, home: Path) -> None:
    alone = read(write(tmp_path / "one", va=f"{ROW}\n{ROW}\n"), home).subjects
    both = read(write(tmp_path / "two", va=f"{ROW}\n{ROW}\n", cleveland=f"{ROW}\n"), home).subjects
    assert alone.rows() == both.filter(pl.col("hospital") == "va").rows()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ROW.replace("145.0", "high"), "line 2, column trestbps: found 'high', expected a number"),
        (ROW.replace("145.0", "nan"), "line 2, column trestbps: found 'nan', expected a number"),
        (ROW.replace("145.0", "1_45"), "line 2, column trestbps: found '1_45', expected a number"),
        (ROW.replace("63.0", "-3"), "line 2, column age: found '-3', expected an age"),
        (ROW.rpartition(",")[0], "line 2: found"),
        (ROW[:-1] + "7", "line 2, column num: found '7', expected 0, 1, 2, 3 or 4"),
    ],
)
def test_a_malformed_line_is_named(row: str, message: str, tmp_path: Path, home: Path) -> None:
    folder = write(tmp_path / "uci", hungarian=f"{ROW}\n{row}\n")
    with pytest.raises(InputError) as error:
        read(folder, home)
    assert f"processed.hungarian.data, {message}" in str(error.value)


def test_an_empty_file_and_an_empty_folder_are_refused(tmp_path: Path, home: Path) -> None:
    with pytest.raises(InputError, match="holds no rows"):
        read(write(tmp_path / "uci", va="\n"), home)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"processed\.cleveland\.data"):
        read(tmp_path / "empty", home)


@pytest.mark.real
def test_hospitals_stand_side_by_side_as_sites_of_their_own_files(raw: Path, tmp_path: Path) -> None:
    texts = [f"{hospital}=uci_heart:{raw}/processed.{hospital}.data" for hospital in ROWS]
    sites = open_sites([SiteSpec.parse(text) for text in texts], home=tmp_path)
    assert {site.name: len(site.subjects) for site in sites} == ROWS
    with pytest.raises(InputError, match="same data"):
        open_sites([SiteSpec.parse(texts[0]), SiteSpec.parse(texts[0].replace("cleveland=", "again="))], home=tmp_path)
    with pytest.raises(InputError, match="one patient source"):
        open_sites([SiteSpec.parse(texts[0]), SiteSpec.parse(f"all=uci_heart:{raw}")], home=tmp_path)
