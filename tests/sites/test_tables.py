"""Reading hospital tables: found wherever the layout allows, typed exactly, and refused in one sentence."""

import csv
import gzip
import io
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sites import blocks as blocks_module
from sites import tables as tables_module
from sites.blocks import blocks, record_end
from sites.errors import InputError
from sites.exports.export import Export, Table
from sites.tables import Reader, looks_like
from sites.typed import separators, well_formed

STAYS = Table(
    "stays",
    {"stay_id": pl.Int64, "intime": pl.Datetime("us"), "day": pl.Date, "weight": pl.Float64, "unit": pl.String},
    optional=frozenset({"day"}),
    folder="hosp",
    required=True,
    keys=("stay_id",),
)
CHART = Table("chart", {"stay_id": pl.Int64, "value": pl.Float64, "note": pl.String}, loses="vital signs")
EXPORT = Export(kind="toy", title="Toy", tables=(STAYS, CHART), frames=lambda _tables: {}, events=())
HEADER = "stay_id,intime,day,weight,unit\n"
GOOD = HEADER + "1,2150-01-01 10:00:00,2150-01-01,70.5,MICU\n2,2150-01-02 11:00:00,,,\n"


def read(root: Path, text: str | bytes, name: str = "stays.csv") -> pl.DataFrame:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return Reader(root, EXPORT).read("stays")


def refused(root: Path, text: str | bytes, name: str = "stays.csv") -> str:
    with pytest.raises(InputError) as caught:
        read(root, text, name)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert name.rpartition("/")[2].rpartition("\\")[2] in sentence
    return sentence


def test_values_are_typed_as_declared(tmp_path: Path) -> None:
    frame = read(tmp_path, GOOD)
    assert dict(frame.schema) == STAYS.columns
    assert frame["stay_id"].to_list() == [1, 2]
    assert frame["weight"].to_list() == [70.5, None]
    assert frame["unit"].to_list() == ["MICU", None]
    assert str(frame["intime"][0]) == "2150-01-01 10:00:00"


@pytest.mark.parametrize(
    ("name", "encode"),
    [
        ("STAYS.CSV", str.encode),
        ("hosp/stays.csv.gz", lambda text: gzip.compress(text.encode())),
        ("HOSP/Stays.csv", str.encode),
        ("stays.CSV.GZ", lambda text: gzip.compress(text.encode())),
    ],
)
def test_tables_are_found_in_any_case_nested_or_flat(tmp_path: Path, name: str, encode: Callable[[str], bytes]) -> None:
    assert read(tmp_path, encode(GOOD.replace("stay_id", "STAY_ID")), name).height == 2


def test_two_gzip_members_are_one_file(tmp_path: Path) -> None:
    first, second = GOOD[:60].encode(), GOOD[60:].encode()
    assert read(tmp_path, gzip.compress(first) + gzip.compress(second) + b"\0" * 512, "stays.csv.gz").height == 2


def test_a_stray_copy_in_another_folder_is_never_read(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "chart.csv").write_text("stay_id,value,note\n1,2,x\n")
    read(tmp_path, GOOD)
    reader = Reader(tmp_path, EXPORT)
    assert reader.find("chart") is None
    assert [table.name for table in reader.absent()] == ["chart"]
    assert reader.read("chart").is_empty()


def test_the_declared_folder_comes_before_a_copy_in_the_root(tmp_path: Path) -> None:
    read(tmp_path, GOOD, "stays.csv")
    assert read(tmp_path, HEADER + "9,,,,\n", "hosp/stays.csv")["stay_id"].to_list() == [9]


def test_a_table_that_stands_twice_in_one_folder_is_refused(tmp_path: Path) -> None:
    read(tmp_path, GOOD)
    assert "more than once" in refused(tmp_path, gzip.compress(GOOD.encode()), "stays.csv.gz")


def test_an_absent_required_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no file hosp/stays\.csv"):
        Reader(tmp_path, EXPORT).require()
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "stays.csv").write_text(GOOD)
    with pytest.raises(InputError, match="inner meant"):
        Reader(tmp_path, EXPORT).require()
    (tmp_path / "inner" / "stays.csv").write_text("of,another,kind\n")
    (tmp_path / "whole" / "hosp").mkdir(parents=True)
    (tmp_path / "whole" / "hosp" / "stays.csv").write_text(GOOD)
    with pytest.raises(InputError, match="whole meant"):
        Reader(tmp_path, EXPORT).require()


def test_ids_beyond_2_to_53_stay_exact(tmp_path: Path) -> None:
    big = 2**53 + 1
    assert read(tmp_path, HEADER + f"{big},,,,\n{big}.0,,,,\n".replace(f"{big}.0", f"{big + 2}.0"))[
        "stay_id"
    ].to_list() == [big, big + 2]


@pytest.mark.parametrize(
    ("row", "column", "value"),
    [
        ("7.0,,,,", "stay_id", 7),
        (" 7 ,,,,", "stay_id", 7),
        ('"7",,,"70.5",', "weight", 70.5),
        ("7,2150-01-01T10:00:00,,,", "intime", "2150-01-01 10:00:00"),
        ("7,2150-01-01,,,", "intime", "2150-01-01 00:00:00"),
        ("7,2150-01-01 10:00:00.250,,,", "intime", "2150-01-01 10:00:00.250000"),
        ("7,,2150-01-01 00:00:00,,", "day", "2150-01-01"),
        ('7,,,,"a, ""b""\nc"', "unit", 'a, "b"\nc'),
        ('7,,,,""', "unit", None),
        ('7,,,"",', "weight", None),
        ("7,,,1e3,", "weight", 1000.0),
    ],
)
def test_what_means_the_same_is_read_the_same(tmp_path: Path, row: str, column: str, value: object) -> None:
    for text in (HEADER + row + "\n", HEADER + row, HEADER.replace("\n", "\r\n") + row + "\r\n\r\n"):
        found = read(tmp_path, text)
        assert found.height == 1
        cell = found[column][0]
        assert (str(cell) if isinstance(value, str) and column != "unit" else cell) == value


def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path: Path) -> None:
    assert read(tmp_path, b"\xef\xbb\xbf" + GOOD.encode()).height == 2


def test_an_optional_column_that_is_absent_reads_as_null(tmp_path: Path) -> None:
    frame = read(tmp_path, "stay_id,intime,weight,unit\n1,2150-01-01 10:00:00,1,x\n")
    assert frame["day"].to_list() == [None]


BAD = {
    "text in a number column": (GOOD + "3,,,heavy,\n", ["line 4", "column weight", "'heavy'", "a number"]),
    "not a number": (GOOD + "3,,,NaN,\n", ["line 4", "column weight", "'NaN'"]),
    "a fraction in a whole number": (GOOD + "3.5,,,,\n", ["line 4", "column stay_id", "'3.5'", "whole number"]),
    "an id beyond 64 bits": (GOOD + "9223372036854775808,,,,\n", ["line 4", "column stay_id"]),
    "an impossible date": (GOOD + "3,,2150-02-31,,\n", ["line 4", "column day", "2150-02-31"]),
    "an impossible time": (GOOD + "3,2150-02-28 25:00:00,,,\n", ["line 4", "column intime"]),
    "a day-first date": (GOOD + "3,01/02/2150,,,\n", ["line 4", "column intime", "YYYY-MM-DD"]),
    "a time in a date column": (GOOD + "3,,2150-01-01 10:00:00,,\n", ["line 4", "column day"]),
    "a field too few": (GOOD + "3,,,\n", ["line 4", "found 4 fields", "expected 5"]),
    "a field too many": (GOOD + "3,,,,x,y\n", ["line 4", "found 6 fields", "expected 5"]),
    "too few and too many that add up": (GOOD + "3,,,\n4,,,,,\n", ["line 4", "found 4 fields"]),
    "an empty line": (GOOD + "\n3,,,,\n", ["line 4", "an empty line"]),
    "a stray quotation mark": (GOOD + '3,,,,5" tube\n4,,,,6" tube\n', ["line 4", "quotation mark"]),
    "a quotation mark never closed": (GOOD + '3,,,,"open\n4,,,,x\n', ["line 4", "never closed"]),
    "invalid UTF-8": (GOOD.encode() + b"3,,,,caf\xe9\n", ["line 4", "0xe9", "UTF-8"]),
    "zero bytes": (GOOD.encode() + b"3,,,,a\0b\n", ["line 4", "zero byte"]),
    "a missing column": (GOOD.replace("weight", "wieght"), ["line 1", "no column weight", "is wieght meant?"]),
    "a column twice": (GOOD.replace("day", "unit"), ["line 1", "the column unit twice"]),
    "semicolons": (GOOD.replace(",", ";"), ["line 1", "semicolons", "commas"]),
    "tabs": (GOOD.replace(",", "\t"), ["line 1", "tabs"]),
    "nothing": ("", ["the file is empty"]),
    "no rows": (HEADER, ["no rows"]),
    "junk": (bytes(range(128, 256)) * 9, ["line 1"]),
    "UTF-16": (GOOD.encode("utf-16"), ["line 1"]),
    "a duplicated stay": (GOOD + "1,,,,\n", ["data rows 1 and 3", "stay_id 1 twice"]),
    "a stay without id": (GOOD + ",,,,\n", ["data row 3", "column stay_id", "empty"]),
    "a number behind a very long text": (
        HEADER + f'1,,,,"{"long " * 50_000}"\n2,,,x,\n',
        ["line 3", "column weight"],
    ),
    "a line number behind a quoted line break": (
        HEADER + '1,,,,"a\nb"\n2,,,x,\n',
        ["line 4", "column weight"],
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_gets_one_sentence(tmp_path: Path, what: str) -> None:
    text, said = BAD[what]
    sentence = refused(tmp_path, text)
    assert all(word in sentence for word in said), sentence


def test_a_truncated_gzip_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress((HEADER + "".join(f"{i},,,{i}.5,\n" for i in range(5000))).encode())
    assert "truncated" in refused(tmp_path, whole[: len(whole) // 2], "stays.csv.gz")
    assert "damaged" in refused(tmp_path, whole[:900] + b"\xff" * 300 + whole[1200:], "stays.csv.gz")
    assert "not gzip" in refused(tmp_path, GOOD, "stays.csv.gz")


def test_flags_are_read_and_refused_like_numbers(tmp_path: Path) -> None:
    export = Export(
        kind="toy",
        title="Toy",
        tables=(Table("flags", {"on": pl.Boolean}),),
        frames=lambda _tables: {},
        events=(),
    )
    (tmp_path / "flags.csv").write_text("on\nTrue\n0\n")
    assert Reader(tmp_path, export).read("flags")["on"].to_list() == [True, False]
    (tmp_path / "flags.csv").write_text("on\nmaybe\n")
    with pytest.raises(InputError, match="line 2, column on: found 'maybe', expected true or false"):
        Reader(tmp_path, export).read("flags")


def test_errors_in_a_later_block_name_the_right_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables_module, "BLOCK_BYTES", 100)
    rows = "".join(f'{i},2150-01-01 10:00:00,,{i}.5,"x\ny"\n' for i in range(500))
    assert read(tmp_path, HEADER + rows)["weight"].to_list() == [i + 0.5 for i in range(500)]
    assert "line 1002, column weight" in refused(tmp_path, HEADER + rows + "500,,,x,\n" + rows)


def test_parquet_reads_as_csv_does(tmp_path: Path) -> None:
    frame = read(tmp_path, GOOD)
    (tmp_path / "stays.csv").unlink()
    frame.rename({"stay_id": "STAY_ID"}).write_parquet(tmp_path / "STAYS.parquet")
    assert Reader(tmp_path, EXPORT).read("stays").equals(frame)
    as_text = frame.with_columns(pl.all().cast(pl.String))
    as_text.write_parquet(tmp_path / "STAYS.parquet")
    assert Reader(tmp_path, EXPORT).read("stays").equals(frame)
    as_float = frame.with_columns(pl.col("stay_id").cast(pl.Float64), weight=pl.col("weight").fill_null(float("nan")))
    as_float.write_parquet(tmp_path / "STAYS.parquet")
    assert Reader(tmp_path, EXPORT).read("stays").equals(frame)


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("stay_id", [1.0, 2.5], "row 2, column stay_id: found 2.5"),
        ("stay_id", [1.0, 2.0**53 + 2], "row 2, column stay_id"),
        ("weight", ["70", "heavy"], "row 2, column weight: found 'heavy'"),
        ("intime", ["2150-01-01", "soon"], "row 2, column intime: found 'soon'"),
    ],
)
def test_parquet_of_the_wrong_type_is_refused(tmp_path: Path, column: str, values: list[object], said: str) -> None:
    frame = read(tmp_path, GOOD)
    (tmp_path / "stays.csv").unlink()
    frame.with_columns(pl.Series(column, values)).write_parquet(tmp_path / "stays.parquet")
    with pytest.raises(InputError, match=said):
        Reader(tmp_path, EXPORT).read("stays")


def test_a_damaged_parquet_is_refused(tmp_path: Path) -> None:
    read(tmp_path, GOOD).write_parquet(tmp_path / "hosp.parquet")
    whole = (tmp_path / "hosp.parquet").read_bytes()
    (tmp_path / "stays.csv").unlink()
    (tmp_path / "stays.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="no readable Parquet"):
        Reader(tmp_path, EXPORT).read("stays")


def test_a_folder_of_another_kind_is_recognised(real_data: Path) -> None:
    assert looks_like(real_data / "mimiciv_demo_2.2", "mimic4")
    assert not looks_like(real_data / "mimiciv_demo_2.2", "mimic3")
    assert not looks_like(real_data / "mimiciii_demo_1.4", "mimic4")


FIELD = st.text(st.sampled_from('ab ,"\n\r'), max_size=6)


@given(records=st.lists(st.lists(FIELD, min_size=3, max_size=3), min_size=1, max_size=12), size=st.integers(1, 60))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_blocks_hold_whole_records_whatever_their_size(tmp_path: Path, records: list[list[str]], size: int) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(records)
    path = tmp_path / "x.csv"
    path.write_bytes(text.getvalue().encode())
    found: list[list[str]] = []
    line = 1
    for block in blocks(path, max(size, len(text.getvalue()) // 2)):
        assert block.first_line == line
        line += block.data.count(b"\n")
        found += csv.reader(io.StringIO(block.data.decode(), newline=""))
    assert found == records


def test_a_record_that_ends_nowhere_has_no_end() -> None:
    assert record_end(b'1,"a\nb') == 0
    assert record_end(b"") == 0


def test_a_consumer_that_stops_leaves_no_thread_behind(tmp_path: Path) -> None:
    import threading

    path = tmp_path / "x.csv"
    path.write_bytes(b"1,2,3\n" * 5_000_000)
    stream = blocks(path, 1 << 20)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name == "fedward-read"]


CHART_CSV = b'stay_id,value,note\n1,36.5,ok\n2,,"a, b"\n3,1e2,"two\nlines"\n44,-7,\n5,0.25,"say ""hi"""\n'


@given(data=st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_mutated_file_is_refused_or_read_whole(tmp_path: Path, data: st.DataObject) -> None:
    text = bytearray(CHART_CSV)
    for _ in range(data.draw(st.integers(1, 3))):
        if not text:
            break
        at = data.draw(st.integers(0, len(text) - 1))
        how = data.draw(st.sampled_from(["change", "delete", "insert", "cut"]))
        byte = data.draw(st.sampled_from(list(b'0,"\n\r;.x- \0\xff')))
        if how == "change":
            text[at] = byte
        elif how == "delete":
            del text[at]
        elif how == "insert":
            text.insert(at, byte)
        else:
            del text[max(at, 1) :]
    (tmp_path / "chart.csv").write_bytes(text)
    try:
        frame = Reader(tmp_path, EXPORT).read("chart")
    except InputError as error:
        assert "\n" not in str(error)
        return
    records = list(csv.reader(io.StringIO(text.decode().rstrip("\r\n"), newline=""), strict=True))
    assert frame.height == len(records) - 1
    header = [name.strip().lower() for name in records[0]]
    for row, record in zip(frame.iter_rows(named=True), records[1:], strict=True):
        found = dict(zip(header, record, strict=True))
        assert (row["note"] or "") == found["note"]
        for name in ("stay_id", "value"):
            assert row[name] == (float(found[name]) if found[name].strip() else None)


@given(
    st.lists(st.lists(st.text(st.sampled_from('ab ,"\n'), max_size=6), min_size=2, max_size=4), min_size=1, max_size=6)
)
def test_separators_are_those_between_fields(records: list[list[str]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(records)
    data = text.getvalue().encode()
    assert separators(data) == sum(len(record) - 1 for record in records)
    assert well_formed(data)


def test_blocks_module_states_its_size() -> None:
    assert 16 << 20 <= blocks_module.BLOCK_BYTES <= 64 << 20
