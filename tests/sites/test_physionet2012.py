"""The PhysioNet Challenge 2012: counts against reading set A line by line, and each trap on a few records."""

import io
import tarfile
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from sites.dataset import Dataset
from sites.errors import InputError
from sites.exports.physionet2012 import EXPORT
from sites.exports.physionet2012_files import ORIGIN, find_sets
from sites.ingest import ingest
from sites.spec import SiteSpec

HEADER = "Time,Parameter,Value"
OUTCOMES = "RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death"


def record(record_id: int, *lines: str, age: str = "54", gender: str = "0", icu_type: str = "3") -> str:
    start = [f"00:00,RecordID,{record_id}", f"00:00,Age,{age}", f"00:00,Gender,{gender}", "00:00,Height,-1"]
    return "\n".join([HEADER, *start, f"00:00,ICUType,{icu_type}", "00:00,Weight,-1", *lines]) + "\n"


def write(
    folder: Path, records: Mapping[int, str], died: Mapping[int, str], letter: str = "a", *, archive: bool = True
) -> Path:
    """A set of these records, packed or not, and its outcomes."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [f"{record_id},6,1,5,-1,{flag}" for record_id, flag in died.items()]
    (folder / f"Outcomes-{letter}.txt").write_text("\n".join([OUTCOMES, *rows]) + "\n")
    if archive:
        with tarfile.open(folder / f"set-{letter}.tar.gz", "w:gz") as tar:
            for record_id, text in records.items():
                entry = tarfile.TarInfo(f"set-{letter}/{record_id}.txt")
                entry.size = len(text.encode())
                tar.addfile(entry, io.BytesIO(text.encode()))
    else:
        (folder / f"set-{letter}").mkdir()
        for record_id, text in records.items():
            (folder / f"set-{letter}" / f"{record_id}.txt").write_bytes(text.encode())
    return folder


def read(folder: Path, home: Path, option: str = "") -> Dataset:
    home.mkdir(exist_ok=True)
    return ingest(SiteSpec.parse(f"physionet2012{option}:{folder}", named=False), home)


def one(tmp_path: Path, home: Path, *lines: str) -> pl.DataFrame:
    """The events of one record with these lines."""
    return read(write(tmp_path / "p12", {132539: record(132539, *lines)}, {132539: "0"}), home).scan().collect()


def values(events: pl.DataFrame, parameter: str) -> list[tuple[datetime, float]]:
    return events.filter(pl.col("code") == f"LAB//{parameter}//UNK").select("time", "numeric_value").rows()


def at(hours: int, minutes: int = 0) -> datetime:
    return ORIGIN + timedelta(hours=hours, minutes=minutes)


@pytest.fixture(scope="module")
def raw(real_data: Path) -> Path:
    return real_data / "physionet2012"


@pytest.fixture(scope="module")
def set_a(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return read(raw, tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def lines(raw: Path) -> list[tuple[int, str, str, float]]:
    """Every line of set A, split by hand: record, time, parameter, value."""
    found = []
    with tarfile.open(raw / "set-a.tar.gz") as tar:
        for entry in tar:
            content = tar.extractfile(entry)
            for line in content.read().decode().split("\n")[1:] if content else []:
                if line:
                    clock, parameter, value = line.split(",")
                    found.append((int(Path(entry.name).stem), clock, parameter, float(value)))
    return found


@pytest.mark.real
def test_set_a_has_4000_stays_554_deaths_and_its_icu_types(set_a: Dataset, raw: Path) -> None:
    events = set_a.scan().select("code").collect()["code"]
    count = Counter(code for code in events.to_list() if not code.startswith("LAB"))
    with (raw / "Outcomes-a.txt").open() as outcomes:
        died = sum(line.strip().endswith(",1") for line in outcomes)
    assert set_a.manifest.n_subjects == set_a.manifest.n_patients == count["HOSPITAL_DISCHARGE//UNK"] == 4000
    assert count["MEDS_DEATH"] == died == 554
    assert {code.removeprefix("ICU_ADMISSION//"): n for code, n in count.items() if code.startswith("ICU_")} == {
        "Coronary Care Unit": 577,
        "Cardiac Surgery Recovery Unit": 874,
        "Medical ICU": 1481,
        "Surgical ICU": 1068,
    }
    assert set_a.subjects["icu_type"].value_counts().sort("count")["count"].to_list() == [577, 874, 1068, 1481]
    assert (set_a.manifest.source, set_a.manifest.part) == ("bidmc", "set-a")


@pytest.mark.real
def test_every_value_of_set_a_that_is_not_missing_is_an_event(
    set_a: Dataset, lines: list[tuple[int, str, str, float]]
) -> None:
    expected = Counter(name for _, _, name, value in lines if name != "RecordID" and value != -1)
    found = set_a.scan().filter(pl.col("code").str.starts_with("LAB")).collect()
    assert dict(found["code"].value_counts().rows()) == {f"LAB//{name}//UNK": n for name, n in expected.items()}
    total = sum(value for _, _, name, value in lines if name != "RecordID" and value != -1)
    assert found["numeric_value"].cast(pl.Float64).sum() == pytest.approx(total, rel=1e-6)
    at_the_end = sum(clock == "48:00" for _, clock, _, _ in lines)
    assert len(found.filter(pl.col("time") == at(48))) == at_the_end == 41


@pytest.mark.real
def test_set_a_tells_no_outcome_before_48_01(set_a: Dataset) -> None:
    late = set_a.scan().filter(pl.col("time") > at(48)).collect()
    assert set(late["code"]) == {"HOSPITAL_DISCHARGE//UNK", "MEDS_DEATH"}
    assert set(late["time"]) == {at(48, 1)}
    names = " ".join(set_a.codes["code"])
    assert not any(outcome in names for outcome in ("SAPS", "SOFA", "Survival", "Length_of_stay", "RecordID"))


def test_the_clock_is_elapsed_time_and_48_00_belongs_to_the_48_hours(tmp_path: Path, home: Path) -> None:
    events = one(tmp_path, home, "00:07,HR,73", "27:30,HR,80", "48:00,HR,90")
    assert values(events, "HR") == [(at(0, 7), 73.0), (at(27, 30), 80.0), (at(48), 90.0)]
    ends = events.filter(pl.col("code") == "HOSPITAL_DISCHARGE//UNK")["time"].to_list()
    assert ends == [at(48, 1)]


def test_minus_one_is_missing_and_the_implausible_stays_for_the_concepts(tmp_path: Path, home: Path) -> None:
    events = one(tmp_path, home, "01:00,HR,0", "01:00,pH,735", "02:00,Weight,-1", "03:00,Weight,80", "04:00,Temp,-17.8")
    assert values(events, "HR") == [(at(1), 0.0)]
    assert values(events, "pH") == [(at(1), 735.0)]
    assert values(events, "Weight") == [(at(3), 80.0)]
    assert values(events, "Height") == []
    assert [round(value, 1) for _, value in values(events, "Temp")] == [-17.8]


def test_two_values_at_one_time_are_both_kept(tmp_path: Path, home: Path) -> None:
    events = one(tmp_path, home, "01:00,MAP,70", "01:00,MAP,88")
    assert values(events, "MAP") == [(at(1), 70.0), (at(1), 88.0)]


def test_descriptors_are_events_at_the_admission(tmp_path: Path, home: Path) -> None:
    events = one(tmp_path, home)
    at_start = dict(events.filter(pl.col("time") == ORIGIN).select("code", "numeric_value").rows())
    assert at_start == {
        "HOSPITAL_ADMISSION//UNK//UNK": None,
        "ICU_ADMISSION//Medical ICU": None,
        "AGE": 54.0,
        "LAB//Age//UNK": 54.0,
        "LAB//Gender//UNK": 0.0,
        "LAB//ICUType//UNK": 3.0,
    }
    assert events.filter(pl.col("time").is_null())["code"].to_list() == ["GENDER//F"]
    births = events.filter(pl.col("code") == "MEDS_BIRTH")["time"].to_list()
    assert births == [datetime.fromisoformat("1958-01-01")]


@pytest.mark.parametrize("age", ["-1", "-5", "999"])
def test_an_unknown_sex_age_or_icu_type_is_null(age: str, tmp_path: Path, home: Path) -> None:
    text = record(132539, age=age, gender="-1", icu_type="-1")
    dataset = read(write(tmp_path / "p12", {132539: text}, {132539: "1"}), home)
    codes = set(dataset.codes["code"]) - {"LAB//Age//UNK"}
    assert codes == {
        "GENDER//UNK",
        "HOSPITAL_ADMISSION//UNK//UNK",
        "ICU_ADMISSION//UNK",
        "HOSPITAL_DISCHARGE//UNK",
        "MEDS_DEATH",
    }
    assert dataset.subjects["icu_type"].to_list() == [None]


def test_a_record_without_an_outcome_is_unknown_and_an_outcome_without_a_record_is_counted(
    tmp_path: Path, home: Path
) -> None:
    records = {record_id: record(record_id) for record_id in (1, 2, 3)}
    dataset = read(write(tmp_path / "p12", records, {1: "0", 2: "-1", 9: "1"}), home)
    unknown = dataset.scan().filter(pl.col("code") == "OUTCOME_UNKNOWN").collect()
    assert unknown.select("subject_id", "time").rows() == [(2, at(48, 1)), (3, at(48, 1))]
    assert [warning[:9] for warning in dataset.manifest.warnings] == ["2 records", "1 records"]


def test_a_folder_of_records_reads_as_its_archive(tmp_path: Path, home: Path) -> None:
    records = {record_id: record(record_id, "01:00,HR,70") for record_id in (7, 5)}
    packed = write(tmp_path / "packed", records, {5: "0", 7: "1"})
    loose = write(tmp_path / "loose", records, {5: "0", 7: "1"}, archive=False)
    (loose / "set-a" / "._5.txt").write_bytes(b"\x00\x05")  # what macOS leaves behind
    by_name = [packed, loose, packed / "set-a.tar.gz", loose / "set-a"]
    assert len({read(path, home).manifest.content_sha256 for path in by_name}) == 1


def test_carriage_returns_and_a_missing_last_newline_change_nothing(tmp_path: Path, home: Path) -> None:
    text = record(5, "01:00,HR,70")
    plain = write(tmp_path / "plain", {5: text}, {5: "0"})
    returns = write(tmp_path / "returns", {5: text.replace("\n", "\r\n")}, {5: "0"})
    cut = write(tmp_path / "cut", {5: text.rstrip("\n")}, {5: "0"})
    assert len({read(path, home).manifest.content_sha256 for path in (plain, returns, cut)}) == 1


def test_several_sets_need_the_option_set_and_are_parts_of_one_source(tmp_path: Path, home: Path) -> None:
    folder = write(tmp_path / "p12", {5: record(5)}, {5: "0"}, "a")
    write(folder, {6: record(6)}, {6: "1"}, "b")
    with pytest.raises(InputError, match="found the sets a, b, expected one"):
        read(folder, home)
    with pytest.raises(InputError, match="expected set 'c'"):
        read(folder, home, ",set=c")
    b = read(folder, home, ",set=b")
    assert (b.manifest.source, b.manifest.part, b.subjects["subject_id"].to_list()) == ("bidmc", "set-b", [6])
    assert [found.letter for found in find_sets(folder)] == ["a", "b"]


def test_a_set_without_outcomes_is_refused(tmp_path: Path, home: Path) -> None:
    folder = write(tmp_path / "p12", {5: record(5)}, {5: "0"})
    (folder / "Outcomes-a.txt").unlink()
    with pytest.raises(InputError, match=r"found set-a.tar.gz without Outcomes-a.txt"):
        read(folder, home)


def test_a_folder_without_a_set_is_refused(tmp_path: Path, home: Path) -> None:
    with pytest.raises(InputError, match="expected"):
        read(tmp_path, home)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("01:00,HR,seventy", "line 8, column Value: found 'seventy', expected a number"),
        ("01:00,HR,nan", "line 8, column Value: found 'nan', expected a number"),
        ("01:00,HR,1e999", "line 8, column Value: found '1e999', expected a number"),
        ("01:00,HR,", "line 8, column Value: found '', expected a number"),
        ("1:00,HR,70", "line 8, column Time: found '1:00', expected the time elapsed, from 00:00 to 48:00"),
        ("48:01,HR,70", "line 8, column Time: found '48:01'"),
        ("01:75,HR,70", "line 8, column Time: found '01:75'"),
        ("01:00,HeartRate,70", "line 8, column Parameter: found 'HeartRate', expected a parameter"),
        ("01:00,HR", "line 8: found '01:00,HR', expected three fields"),
        ("01:00,HR,70,80", "line 8: found '01:00,HR,70,80', expected three fields"),
        ("01:00,RecordID,6", "line 8, column Value: found '6', expected the RecordID of the file's name, 5"),
    ],
)
def test_a_malformed_line_is_named(line: str, message: str, tmp_path: Path, home: Path) -> None:
    folder = write(tmp_path / "p12", {4: record(4), 5: record(5, line)}, {4: "0", 5: "0"})
    with pytest.raises(InputError) as error:
        read(folder, home)
    assert f"set-a.tar.gz/5.txt, {message}" in str(error.value)
    assert not list(home.rglob("*.parquet"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Zeit,Parameter,Value\n00:00,RecordID,5\n", "line 1: found 'Zeit,Parameter,Value', expected the header"),
        ("", "line 1: found ''"),
        (f"{HEADER}\n00:00,Age,54\n", "found 'no line RecordID'"),
    ],
)
def test_a_malformed_record_is_named(text: str, message: str, tmp_path: Path, home: Path) -> None:
    folder = write(tmp_path / "p12", {5: text}, {5: "0"})
    with pytest.raises(InputError, match=r"5\.txt") as error:
        read(folder, home)
    assert message in str(error.value)


def test_a_line_without_a_parameter_says_nothing(tmp_path: Path, home: Path) -> None:
    assert values(one(tmp_path, home, "01:00,,", "", "02:00,HR,70"), "HR") == [(at(2), 70.0)]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("5,6,1,5,-1,0", "5,6,1,5,-1,2", "line 2, column In-hospital_death: found '2', expected 0 or 1"),
        ("5,6,1,5,-1,0", "x,6,1,5,-1,0", "line 2, column RecordID: found 'x', expected a whole number"),
        (
            "5,6,1,5,-1,0",
            "5,6,1,5,-1,0\n5,6,1,5,-1,1",
            "line 3, column RecordID: found '5', expected every record once",
        ),
        ("5,6,1,5,-1,0", "5,6", "line 2: found '5,6', expected 6 fields"),
        ("In-hospital_death", "Death", "line 1, column In-hospital_death"),
    ],
)
def test_a_malformed_outcome_is_named(old: str, new: str, message: str, tmp_path: Path, home: Path) -> None:
    folder = write(tmp_path / "p12", {5: record(5)}, {5: "0"})
    outcomes = folder / "Outcomes-a.txt"
    outcomes.write_text(outcomes.read_text().replace(old, new))
    with pytest.raises(InputError) as error:
        read(folder, home)
    assert f"Outcomes-a.txt, {message}" in str(error.value)


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.99])
def test_a_truncated_archive_is_refused(kept: float, tmp_path: Path, home: Path) -> None:
    records = {n: record(n, *(f"{h:02}:{n % 60:02},HR,{70 + h + n % 7}" for h in range(40))) for n in range(1, 60)}
    folder = write(tmp_path / "p12", records, dict.fromkeys(records, "0"))
    archive = folder / "set-a.tar.gz"
    archive.write_bytes(archive.read_bytes()[: int(kept * archive.stat().st_size)])
    with pytest.raises(InputError, match="truncated or damaged"):
        read(folder, home)


def test_an_unknown_option_names_the_known_ones(tmp_path: Path, home: Path) -> None:
    folder = write(tmp_path / "p12", {5: record(5)}, {5: "0"})
    with pytest.raises(InputError, match="set"):
        read(folder, home, ",carevue")
    assert list(EXPORT.options) == ["set"]
