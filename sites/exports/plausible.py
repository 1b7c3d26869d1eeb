"""What no type can say of a small table: a year that is none, an id that is missing."""

import polars as pl

from sites.errors import InputError


def demand(table: str, frame: pl.DataFrame, column: str, holds: pl.Expr, expected: str) -> None:
    """Raise an InputError for the first row for which something does not hold.

    Args:
        table: Its name, for the sentence.
        frame: The whole of it, in the order of the file.
        column: The column to blame.
        holds: Boolean, for each row; null counts as true.
        expected: What was expected instead, and what to do: "a year; correct it".

    >>> demand("person", pl.DataFrame({"year": [1950, 99]}), "year", pl.col("year") > 1800, "a year; correct it")
    Traceback (most recent call last):
    sites.errors.InputError: person, data row 2, column year: found 99, expected a year; correct it
    """
    rows = frame.with_row_index("data row").filter(~holds.fill_null(value=True))
    if not rows.is_empty():
        value = rows[column][0]
        found = "no value" if value is None else repr(value) if isinstance(value, str) else value
        raise InputError(
            f"{table}, data row {rows['data row'][0] + 1}, column {column}: found {found}, expected {expected}"
        )
