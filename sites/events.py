"""The declared rules of an export, applied to some rows of one of its tables."""

from collections import Counter
from collections.abc import Sequence

import polars as pl

from sites.errors import InputError
from sites.exports.export import Events, Frames
from sites.shards import Piece

_ROW = "__row__"


def events_of(
    rows: pl.DataFrame,
    rules: Sequence[tuple[int, Events]],
    frames: Frames,
    position: pl.DataFrame,
) -> Piece:
    """The events that some rows of one table give; rows of unknown subjects or without time are counted.

    Args:
        rows: A batch of one table.
        rules: The rules of this table, each with its number among all.
        frames: The export's small tables.
        position: subject_id and position, of every known subject.

    Raises:
        InputError: The values make no sense to the export's module.
    """
    try:
        made = _apply(rows, rules, frames, position)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OverflowError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise InputError(f"the rows of {rules[0][1].table} cannot be made into events ({first_line})") from error
    kept = []
    unknown_subject: Counter[str] = Counter()
    null_time: Counter[str] = Counter()
    for (_, rule), events in zip(rules, made, strict=True):
        what = rule.name or rule.table
        good = events.filter(pl.col("position").is_not_null() & (pl.col("time").is_not_null() | pl.lit(rule.static)))
        if good.height < events.height:
            unknown = events["position"].null_count()
            unknown_subject[what] += unknown
            null_time[what] += events.height - good.height - unknown
        kept.append(good)
    events = pl.concat(kept)
    codes = events["code"].unique().sort()
    code = events["code"].cast(pl.Enum(codes)).to_physical().cast(pl.UInt32)
    columns = ["position", "time", "rule", "code", "numeric_value", "text_value", "row"]
    return Piece(events.with_columns(code=code).select(columns), codes.to_list(), +unknown_subject, +null_time)


def _apply(
    rows: pl.DataFrame, rules: Sequence[tuple[int, Events]], frames: Frames, position: pl.DataFrame
) -> list[pl.DataFrame]:
    """The events of each rule, with the `position` of the subject (null: unknown)."""
    rows = rows.with_columns(rows.hash_rows().alias(_ROW))
    plans = []
    for number, rule in rules:
        lazy = rows.lazy() if rule.prepare is None else rule.prepare(rows.lazy(), frames)
        null = pl.lit(None)
        row = pl.col(_ROW) if not rule.once and _ROW in lazy.collect_schema() else pl.lit(0, dtype=pl.UInt64)
        plans.append(
            lazy.select(
                pl.col("subject_id").cast(pl.Int64),
                (null if rule.static else rule.time).cast(pl.Datetime("us")).alias("time"),
                pl.lit(number, dtype=pl.UInt16).alias("rule"),
                rule.code.cast(pl.String).alias("code"),
                (null if rule.numeric is None else rule.numeric).cast(pl.Float32).alias("numeric_value"),
                (null if rule.text is None else rule.text).cast(pl.String).alias("text_value"),
                row.alias("row"),
            )
            .filter(pl.col("code").is_not_null())
            .with_columns(pl.when(pl.col("numeric_value").is_finite()).then("numeric_value"))
            .join(position.lazy(), on="subject_id", how="left")
        )
    return pl.collect_all(plans)
