"""Text to declared types, fast; and, where it does not fit, the one sentence that says where and why.

The fast path gives a block of records to polars with the declared types. Whatever it cannot vouch for (a parse error,
a field too many or too few, a date that is none) sends the same block through the slow path, which reads it as text and
either finds the first offending field or accepts it. So no row is ever dropped, shortened or nulled in silence.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from sites.errors import InputError
from sites.exports.export import DTypes

_INTEGERS = frozenset({pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64})
_TIME_FORMATS = (
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%d",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M",
)
_CALENDAR_SECONDS = (-62_135_596_800, 253_402_300_799)
"""From the first second of the year 1 to the last of 9999, since 1970: what ISO text can say."""
_PER_SECOND = {"ms": 1_000, "us": 1_000_000}
csv.field_size_limit(1 << 30)  # only used to say what is wrong; the default would call a long text field an error

_EXPECTED = "expected %s; correct the value, or leave the field empty if it is unknown"


@dataclass(frozen=True)
class Layout:
    """How the records of one file are laid out.

    Attributes:
        path: The file, for error sentences.
        header: The names of all its columns in lower case, in order.
        wanted: The declared columns that the file has, with their types.
    """

    path: Path
    header: tuple[str, ...]
    wanted: DTypes


def is_integer(dtype: object) -> bool:
    """Whether a declared type is an integer."""
    return dtype in _INTEGERS


def is_float(dtype: object) -> bool:
    """Whether a declared type is a floating-point number."""
    return dtype in (pl.Float64, pl.Float32)


def is_time(dtype: object) -> bool:
    """Whether a declared type is a date or a date with time."""
    return dtype == pl.Date or dtype == pl.Datetime  # noqa: PLR1714 - Datetime("us") equals, but hashes otherwise


def parse_records(data: bytes, layout: Layout, first_line: int) -> pl.DataFrame:
    """Whole CSV records (no header) to the declared columns.

    Raises:
        InputError: A record has too many or too few fields, a field is not what is declared, or the bytes are no text.
    """
    frame = _fast(data, layout)
    return _slow(data, layout, first_line) if frame is None else frame


def _schema(layout: Layout, text: bool) -> dict[str, pl.DataType | type[pl.DataType]]:
    def dtype(name: str) -> pl.DataType | type[pl.DataType]:
        declared = layout.wanted.get(name, pl.String)
        return declared if not text and (is_integer(declared) or is_float(declared)) else pl.String

    return {f"{i}": dtype(name) for i, name in enumerate(layout.header)}


def _read(data: bytes, layout: Layout, text: bool) -> pl.DataFrame | None:
    if not well_formed(data):
        return None
    try:
        # all columns, wanted or not: where some are left out, polars does not see that a record has a field too many
        frame = pl.read_csv(data, has_header=False, schema=_schema(layout, text), raise_if_empty=False)
    except (pl.exceptions.PolarsError, ValueError):
        return None
    # polars fills the missing fields of a short record with nulls: only the count of separators shows them
    if separators(data) != frame.height * (len(layout.header) - 1):
        return None
    return frame.select(pl.col(f"{i}").alias(name) for i, name in enumerate(layout.header) if name in layout.wanted)


def well_formed(data: bytes) -> bool:
    r"""Whether quotation marks enclose whole fields and are doubled inside them, and no bare \r ends a record.

    Readers disagree about anything else, so it is refused.

    >>> well_formed(b'1,"a ""b"", c"\n'), well_formed(b'1,5" tube\n'), well_formed(b'1,"a"b\n')
    (True, False, False)
    """
    bare = data.count(b"\r") - data.count(b"\r\n")
    if b'"' not in data:
        return bare == 0
    text = np.frombuffer(b"\n" + data + b"\n", dtype=np.uint8)
    quotes = np.flatnonzero(text == ord('"'))
    if quotes.size % 2:
        return False
    opening, closing = text[quotes[0::2] - 1], text[quotes[1::2] + 1]
    if not (_OPENS[opening].all() and _CLOSES[closing].all()):
        return False
    if bare:
        returns = np.flatnonzero(text[:-1] == ord("\r"))
        alone = returns[text[returns + 1] != ord("\n")]
        return bool((np.searchsorted(quotes, alone) % 2 == 1).all())
    return True


def _bytes(members: bytes) -> npt.NDArray[np.bool_]:
    table = np.zeros(256, dtype=np.bool_)
    table[list(members)] = True
    return table


_OPENS = _bytes(b',\n"')
_CLOSES = _bytes(b',\r\n"')


def separators(data: bytes) -> int:
    r"""The number of commas outside quotation marks.

    >>> separators(b'a,"b,c",d\n')
    2
    """
    commas = data.count(b",")
    if b'"' not in data:
        return commas
    text = np.frombuffer(data, dtype=np.uint8)
    quotes = np.flatnonzero(text == ord('"'))
    between = np.add.reduceat((text == ord(",")).view(np.uint8), quotes, dtype=np.int64)
    return commas - int(between[0::2].sum())


def _fast(data: bytes, layout: Layout) -> pl.DataFrame | None:
    if b"\0" in data:
        return None
    frame = _read(data, layout, text=False)
    if frame is None:
        return None
    columns: list[pl.Series] = []
    for name, dtype in layout.wanted.items():
        column = frame[name]
        if is_time(dtype):
            column, bad = _times(column, dtype)
            if bad is not None:
                return None
        elif is_float(dtype):
            if column.dtype.is_float() and not bool(column.is_finite().all()):
                return None
        elif dtype == pl.String:
            if b'""' in data:
                column = _no_empty(column)
        elif not is_integer(dtype):
            return None
        columns.append(column)
    return pl.DataFrame(columns)


def _no_empty(column: pl.Series) -> pl.Series:
    return column.to_frame().select(pl.col(column.name).replace("", None)).to_series()


def _slow(data: bytes, layout: Layout, first_line: int) -> pl.DataFrame:
    frame = _read(data, layout, text=True) if b"\0" not in data else None
    if frame is None:
        raise _malformed(data, layout, first_line)
    try:
        return conform(frame, layout.wanted)
    except FieldError as error:
        line = _line_of(data, error.row, first_line)
        raise InputError(f"{layout.path}, line {line}, column {error.column}: {error}") from None


def _line_of(data: bytes, row: int, first_line: int) -> int:
    """The line at which a record of well-formed text begins."""
    text = np.frombuffer(data, dtype=np.uint8)
    breaks = np.flatnonzero(text == ord("\n"))
    quotes = np.flatnonzero(text == ord('"'))
    ends = np.flatnonzero(np.searchsorted(quotes, breaks) % 2 == 0)
    return first_line + (int(ends[row - 1]) + 1 if row else 0)


def _malformed(data: bytes, layout: Layout, first_line: int) -> InputError:
    """Why polars could not read the records as text."""
    zero = data.find(b"\0")
    if zero >= 0:
        line = first_line + data.count(b"\n", 0, zero)
        return InputError(
            f"{layout.path}, line {line}: found a zero byte, expected text; "
            "the file is binary or damaged: copy or export it again"
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = first_line + data.count(b"\n", 0, error.start)
        return InputError(
            f"{layout.path}, line {line}: found the byte 0x{data[error.start]:02x}, expected UTF-8 text; "
            "convert the file to UTF-8 (iconv -f latin1 -t utf-8)"
        )
    expected = len(layout.header)
    before = 0
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        for record in reader:
            if len(record) != expected:
                found = f"{len(record)} fields" if record else "an empty line"
                return InputError(
                    f"{layout.path}, line {first_line + before}: found {found}, expected {expected} as in the header; "
                    "quote fields that hold commas, and see whether the file is complete"
                )
            before = reader.line_num
    except csv.Error as error:
        return InputError(
            f"{layout.path}, line {first_line + before}: found a record that is no CSV ({error}), expected quotation "
            "marks only around whole fields and doubled inside them; write the export anew"
        )
    stray = next((i for i, line in enumerate(text.split("\n")) if line.count('"') % 2), 0)
    return InputError(
        f"{layout.path}, line {first_line + stray}: found a quotation mark inside an unquoted field, expected fields "
        "with quotation marks to be quoted and the marks doubled; write the export anew"
    )


_BOOLEANS = {"true": True, "t": True, "1": True, "yes": True, "false": False, "f": False, "0": False, "no": False}


class FieldError(ValueError):
    """A value that is not what was declared; `str` gives found, expected and remedy."""

    def __init__(self, row: int, column: str, found: object, expected: str) -> None:
        shown = repr(found) if len(repr(found)) <= 60 else repr(found)[:57] + "..."
        super().__init__(f"found {shown}, {_EXPECTED % expected}")
        self.row = row
        self.column = column


def conform(frame: pl.DataFrame, wanted: DTypes) -> pl.DataFrame:
    """Columns of any type (text, or what a Parquet file holds) to the declared types.

    Raises:
        FieldError: The first row that does not fit.
    """
    columns: list[pl.Series] = []
    errors: list[FieldError] = []
    for name, dtype in wanted.items():
        column, error = _conform(frame[name], dtype)
        columns.append(column)
        if error is not None:
            errors.append(error)
    if errors:
        raise min(errors, key=lambda error: error.row)
    return pl.DataFrame(columns)


def _conform(column: pl.Series, dtype: pl.DataType | type[pl.DataType]) -> tuple[pl.Series, FieldError | None]:
    if column.dtype in (pl.Categorical, pl.Enum):
        column = column.cast(pl.String)
    if column.dtype == pl.String:
        column = _no_empty(column)
        if dtype == pl.String:
            return column, None
    if not _may_hold(column.dtype, dtype):
        row = None if column.null_count() == len(column) else int(column.is_not_null().arg_max() or 0)
        empty = pl.Series(column.name, [None] * len(column), dtype=dtype)
        return empty, None if row is None else FieldError(
            row, column.name, str(column.dtype), f"values of type {dtype}"
        )
    if is_time(dtype):
        parsed, bad = _times(column, dtype)
        return parsed, _error(column, bad, "a date as YYYY-MM-DD or YYYY-MM-DD HH:MM:SS, without a time zone")
    if is_integer(dtype):
        return _integers(column, dtype)
    if is_float(dtype):
        return _floats(column, dtype)
    if dtype == pl.Boolean and column.dtype == pl.String:
        lowered_text = column.str.strip_chars().str.to_lowercase()
        parsed = lowered_text.replace_strict(_BOOLEANS, default=None, return_dtype=pl.Boolean)
        return parsed, _error(column, _lost(column, parsed), "true or false")
    if is_time(column.dtype):
        column = _in_calendar(column)
    parsed = column.cast(dtype, strict=False)
    return parsed, _error(column, _lost(column, parsed), f"a value of type {dtype}")


def _may_hold(stored: pl.DataType, dtype: pl.DataType | type[pl.DataType]) -> bool:
    """Whether a Parquet column of one type may be meant as another: a time is no number, a list is no text."""
    if stored == pl.String or stored == pl.Null or stored == dtype:  # noqa: PLR1714 - types compare, but hash otherwise
        return True
    number = stored.is_numeric() or stored == pl.Boolean
    if is_time(dtype):
        return is_time(stored)
    if is_integer(dtype) or is_float(dtype):
        return number
    return number or is_time(stored)


def _lost(before: pl.Series, after: pl.Series) -> int | None:
    """The first row that was a value and is none any more."""
    if before.null_count() == after.null_count():
        return None
    lost = before.is_not_null() & after.is_null()
    return int(lost.arg_max() or 0) if lost.any() else None


def _error(column: pl.Series, row: int | None, expected: str) -> FieldError | None:
    if row is None:
        return None
    if column.dtype in (pl.Date, pl.Datetime) and _in_calendar(column.slice(row, 1)).null_count():
        column = column.to_physical()  # Python has no such date either
    return FieldError(row, column.name, column[row], expected)


def _times(column: pl.Series, dtype: pl.DataType | type[pl.DataType]) -> tuple[pl.Series, int | None]:
    """ISO text, dates or times to the declared one, and the first row that is none of them."""
    if column.dtype == pl.String:
        parsed: pl.Series | None = None
        for form in _TIME_FORMATS:
            again = column.str.to_datetime(form, time_unit="us", strict=False)
            parsed = again if parsed is None else parsed.zip_with(parsed.is_not_null(), again)
            if parsed.null_count() == column.null_count():
                break
        assert parsed is not None
        parsed = _in_calendar(parsed)
    elif column.dtype == pl.Date or (column.dtype == pl.Datetime and column.dtype.time_zone is None):  # type: ignore[attr-defined]
        parsed = _in_calendar(column).cast(pl.Datetime("us"), strict=False)
    elif column.null_count() == len(column):
        parsed = pl.Series(column.name, [None] * len(column), dtype=pl.Datetime("us"))
    else:
        return column, int(column.is_not_null().arg_max() or 0)
    if dtype == pl.Date:
        day = parsed.dt.truncate("1d")
        parsed = parsed.set(day != parsed, None).cast(pl.Date)  # a clock time in a date column is not a date
    return parsed, _lost(column, parsed)


def _in_calendar(column: pl.Series) -> pl.Series:
    """Dates or times; null where they lie outside the years 1 to 9999, with which no library can calculate."""
    first, last = _CALENDAR_SECONDS
    if column.dtype == pl.Date:
        first, last = first // 86_400, last // 86_400
    else:
        unit = column.dtype.time_unit  # type: ignore[attr-defined]
        if unit == "ns":  # these cannot lie outside
            return column
        first, last = first * _PER_SECOND[unit], (last + 1) * _PER_SECOND[unit] - 1
    inside = column.to_physical().is_between(first, last)
    return column if inside.all() else column.set(~inside, None)


def _integers(column: pl.Series, dtype: pl.DataType | type[pl.DataType]) -> tuple[pl.Series, FieldError | None]:
    parsed = column
    if column.dtype == pl.String:
        text = column.str.strip_chars()
        text = text.str.replace(r"^([+-]?\d+)\.0*$", "$1")  # "123.0" is a whole number; "1e3" and "1.5" are not
        parsed = text.cast(dtype, strict=False)
    elif column.dtype.is_float():
        exact = (column == column.round(0)) & (column.abs() < 2.0**53)
        parsed = column.set(~exact.fill_null(value=False), None).cast(dtype, strict=False)
        column = column.fill_nan(None)
    else:
        parsed = column.cast(dtype, strict=False)
    return parsed, _error(column, _lost(column, parsed), "a whole number")


def _floats(column: pl.Series, dtype: pl.DataType | type[pl.DataType]) -> tuple[pl.Series, FieldError | None]:
    text = column.str.strip_chars() if column.dtype == pl.String else column
    parsed = text.cast(dtype, strict=False)
    if column.dtype.is_float():
        column = column.fill_nan(None)  # Parquet files written by pandas hold NaN for what is missing
        parsed = parsed.fill_nan(None)
    parsed = parsed.set(~parsed.is_finite(), None)
    return parsed, _error(column, _lost(column, parsed), "a number")


def lowered(names: Sequence[str]) -> tuple[str, ...]:
    """Column names as this project compares them."""
    return tuple(name.strip().lower() for name in names)
