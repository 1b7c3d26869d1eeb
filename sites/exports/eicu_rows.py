"""How rows that belong to an eICU unit stay become events in absolute time."""

from collections.abc import Callable, Mapping

import polars as pl

from sites.exports.eicu_tables import UNIT
from sites.exports.export import Events, Frames, code

Rows = Callable[[pl.LazyFrame], pl.LazyFrame]

LONGEST = 100 * 366 * 24 * 60
"""Minutes: an offset beyond a century is no time."""


def number(column: str) -> pl.Expr:
    """The number that a text consists of; null for any other text (`<0.02`, `ERROR`, `nan`).

    >>> pl.DataFrame({"t": [" 1.5", "<0.02", "nan"]}).select(number("t"))["t"].to_list()
    [1.5, None, None]
    """
    parsed = pl.col(column).str.strip_chars().cast(pl.Float64, strict=False)
    return pl.when(parsed.is_finite()).then(parsed).alias(column)


def words(column: str) -> pl.Expr:
    """The text of a field that is not a number.

    >>> pl.DataFrame({"t": [" 1.5", "<0.02"]}).select(words("t"))["t"].to_list()
    [None, '<0.02']
    """
    return pl.when(number(column).is_null()).then(pl.col(column))


def clean(column: str) -> pl.Expr:
    """A name without leading, trailing or double blanks."""
    return pl.col(column).str.strip_chars().str.replace_all(r"\s+", " ")


def later(*offsets: str) -> pl.Expr:
    """The latest of the offsets that are present, in minutes."""
    return pl.max_horizontal(*offsets)


def unit_rows(
    table: str,
    event: pl.Expr,
    minutes: pl.Expr,
    *,
    numeric: pl.Expr | None = None,
    text: pl.Expr | None = None,
    having: str | None = None,
    rows: Rows | None = None,
    name: str = "",
) -> Events:
    """Events of a table whose rows belong to a unit stay.

    Args:
        table: Its name.
        event: The MEDS code.
        minutes: When the row was known, in minutes from the unit admission; rows without are counted and left out.
        numeric: As in `Events`.
        text: As in `Events`.
        having: A column without which a row makes no event.
        rows: Rows to rows, after `subject_id` and `known` were added.
        name: As in `Events`.
    """

    def prepare(lazy: pl.LazyFrame, frames: Frames) -> pl.LazyFrame:
        joined = lazy.filter(pl.col(having).is_not_null()) if having else lazy
        # rows of no known unit stay and rows without a time go on, to be counted among those left out
        joined = joined.join(frames["units"].lazy(), on=UNIT, how="left")
        sane = pl.when(minutes.is_between(-LONGEST, LONGEST)).then(minutes)
        joined = joined.with_columns(known=pl.col("unit_admission") + pl.duration(minutes=sane))
        return rows(joined) if rows else joined

    return Events(table, event, pl.col("known"), numeric, text, prepare, name=name or table)


def columns(
    table: str, prefix: str, units: Mapping[str, str | None], minutes: pl.Expr, missing: float | None = None
) -> Events:
    """Events of a wide table: one for each column that has a value.

    Args:
        table: Its name.
        prefix: Codes are `prefix//column//unit`, or `prefix//column` where no column has a unit.
        units: The columns and their units.
        minutes: As in `unit_rows`.
        missing: The number that stands for no value.
    """

    def longer(lazy: pl.LazyFrame) -> pl.LazyFrame:
        values = lazy.unpivot(on=list(units), index=["subject_id", "known"], variable_name="column")
        values = values.filter(pl.col("value").is_not_null())
        if missing is not None:
            values = values.filter(pl.col("value") != missing)
        return values.with_columns(unit=pl.col("column").replace_strict(units, return_dtype=pl.String))

    parts = ("column", "unit") if any(units.values()) else ("column",)
    return unit_rows(table, code(prefix, *parts), minutes, numeric=pl.col("value"), rows=longer)
