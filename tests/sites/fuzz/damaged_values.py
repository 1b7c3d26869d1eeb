"""Mutations of columns and of single values."""

import polars as pl

from .damage import Effect, NotApplicable, Target, mutation


@mutation(Effect.ANY)
def a_column_gone(t: Target) -> None:
    records = t.records()
    column = t.column(records)
    t.write([[field for i, field in enumerate(record) if i != column] for record in records])


@mutation(Effect.ANY)
def a_column_renamed(t: Target) -> None:
    records = t.records()
    column = t.column(records)
    records[0][column] = t.rng.choice((records[0][column][:-1], "", "value", records[0][column] + "_id"))
    t.write(records)


@mutation(Effect.REFUSED)
def a_column_twice(t: Target) -> None:
    records = t.records()
    column = t.column(records)
    t.write([[*record, record[column]] for record in records])


BAD_NUMBERS = ("heavy", "1e400", "-1e999", "nan", "inf", "1,5", "0x10", "1_0", "--5", "NULL", "12 3", "\u0663")
BAD_WHOLE = ("9223372036854775808", "123456789012345678901234567890", "1.5", "1e3", "-9223372036854775809")
BAD_TIMES = (
    *("2150-02-30", "2150-13-01", "2150-01-01 25:61:00", "01/02/2150", "soon", "0", "2150-01-01 24:00:00"),
    *("2150-01-01 10:00:00+02:00", "2150-01-01 10:00:00Z", "0000-00-00", "21500101", "2150-01-01 10:60:00", "NaT"),
    *("99999-01-01", "-001-01-01"),
)


def _replace(t: Target, value: str, *types: object) -> None:
    records = t.records()
    row, column = t.row(records), t.column(records, *types)
    records[row][column] = value
    t.write(records)


@mutation(Effect.REFUSED)
def text_in_a_number_column(t: Target) -> None:
    _replace(t, t.rng.choice(BAD_NUMBERS), pl.Float64, pl.Int64)


@mutation(Effect.REFUSED)
def too_much_for_a_whole_number(t: Target) -> None:
    _replace(t, t.rng.choice(BAD_WHOLE), pl.Int64)


@mutation(Effect.REFUSED)
def an_impossible_time(t: Target) -> None:
    _replace(t, t.rng.choice(BAD_TIMES), pl.Date, pl.Datetime("us"))


@mutation(Effect.ANY)
def an_unlikely_value(t: Target) -> None:
    times = ("0001-01-01", "9999-12-31", "1677-09-21", "2262-04-12", "1970-01-01", "2150-01-01")
    numbers = ("-1", "0", "-0", "1e38", "-1e300", "9223372036854775807", "-9223372036854775808", "1e-320", "300", "4e4")
    try:
        _replace(t, t.rng.choice(times), pl.Date, pl.Datetime("us"))
    except NotApplicable:
        _replace(t, t.rng.choice(numbers), pl.Float64, pl.Int64)


@mutation(Effect.ANY)
def an_odd_number(t: Target) -> None:
    whole = ("-1", "0", "9223372036854775807", "-9223372036854775808", "2147483648", "99999")
    _replace(t, t.rng.choice((*whole, "1e38", "-1e300", "1e-320")), t.rng.choice((pl.Float64, pl.Int64)))


@mutation(Effect.ANY)
def odd_text(t: Target) -> None:
    odd = ("", " ", "NULL", "NA", "//", "a//b", "\u00e9" * 300, 'say "hi"', "a\nb", "-", "0", "\u202e", "[red]x[/red]")
    _replace(t, t.rng.choice(odd), pl.String)


@mutation(Effect.ANY)
def an_empty_field(t: Target) -> None:
    _replace(t, "")


IDS = frozenset(
    ("subject_id", "hadm_id", "patientunitstayid", "patienthealthsystemstayid", "person_id", "visit_occurrence_id")
)


@mutation(Effect.COUNTED)
def an_id_of_nobody(t: Target) -> None:
    records = t.records()
    ids = [i for i, name in enumerate(records[0]) if name.lower() in IDS & t.columns.keys()]
    if not ids:
        raise NotApplicable
    column = t.rng.choice(ids)
    for _ in range(2):
        records[t.row(records)][column] = t.rng.choice((str(t.rng.randrange(2**62, 2**63)), ""))
    t.write(records)


@mutation(Effect.COUNTED)
def times_missing(t: Target) -> None:
    if t.keys or t.path.stem in ("death", "cdm_source"):
        raise NotApplicable  # who has no time of death lives
    records = t.records()
    row = t.row(records)
    for i, name in enumerate(records[0]):
        if t.columns.get(name.lower()) in (pl.Date, pl.Datetime("us")) or name.lower().endswith("offset"):
            records[row][i] = ""
    t.write(records)


@mutation(Effect.REFUSED)
def a_stay_twice(t: Target) -> None:
    records = t.records()
    if not t.keys:
        raise NotApplicable
    again = list(records[t.row(records)])
    other = t.column(records, pl.String)
    again[other] = "other"
    t.write([*records, again])
