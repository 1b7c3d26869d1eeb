"""Harmonised variables: from an export's own codes and units to one name and one unit.

A rule is a line (`value = number * scale + offset`), for a few ids a broken line, a constant or a reading of the
text; `concepts.yaml` declares which id follows which. The whole of `harmonise` is one join with a table of the
dataset's codes and one arithmetic expression, lazily: no Python runs per event.

What becomes of several values of one patient at one time:

- One reading charted twice (Celsius and Fahrenheit, items 811 and 1529) becomes one.
- Readings that differ become their mean (two bedside glucose meters, an arterial line and a cuff).
- Volumes add up: two catheters drain at one time, and several hours' volumes are often entered at one time. (That a
  duplicate row counts once is the business of ingest, which still sees rows.)
- Evidence for a ventilator prevails over evidence against it.

MEDS stores numbers in single precision: values are rounded to six significant digits, which is all there is. Means and
sums are taken in whole millionths, so that no engine and no number of threads can change their last digit.
"""

from collections.abc import Iterable, Sequence

import polars as pl

from sites.catalogue import Catalogue, Concept, Conversion, catalogue, index
from sites.dataset import Dataset

__all__ = ["Concept", "concepts", "coverage", "harmonise", "mapping"]

_EVENT = frozenset({"subject_id", "time", "code", "numeric_value", "text_value"})
_NUMBER = r"^\s*(?:[<>]=?|(?i:less than|greater than))?\s*(-?\d+(?:\.\d*)?|-?\.\d+)\s*%?\s*$"
"""A number that a laboratory wrote as text: `<0.01` is its limit of detection."""


def concepts() -> tuple[Concept, ...]:
    """The harmonised variables, in the order of the file."""
    return tuple(concept for concept in catalogue().concepts.values() if not concept.hidden)


def mapping(key: str, codes: Iterable[str]) -> pl.DataFrame:
    """What codes mean.

    Args:
        key: The export's key in concepts.yaml (`Manifest.concepts`): mimic, eicu, omop, physionet2012, uci_heart, meds.
        codes: MEDS codes; those that no concept knows are left out.

    Returns:
        code, concept and rule (the name of the conversion), all String. A code may stand for two concepts.

    Raises:
        InputError: The key is unknown.

    >>> mapping("mimic", ["LAB//678//Deg. F", "LAB//5813//mmHg"]).rows()
    [('LAB//678//Deg. F', 'temperature', 'fahrenheit')]
    """
    rows = [(row["code"], row["concept"], row["rule"]) for row in _rows(key, codes)]
    hidden = [name for name, concept in catalogue().concepts.items() if concept.hidden]
    table = pl.DataFrame(rows, schema=dict.fromkeys(("code", "concept", "rule"), pl.String), orient="row")
    return table.filter(~pl.col("concept").is_in(hidden))


def harmonise(events: pl.LazyFrame, key: str, codes: Sequence[str]) -> pl.LazyFrame:
    """Events to harmonised readings.

    Args:
        events: subject_id, time, code, numeric_value and, where there is one, text_value, of one shard; other columns
            are kept, and rows that differ in them are never merged.
        key: The export's key in concepts.yaml (`Manifest.concepts`).
        codes: Every code that can occur (`Dataset.codes["code"]`); others are ignored.

    Returns:
        subject_id, time, concept (String), value (Float64, in the concept's unit, plausible) and the other columns; one
        row for each subject, time and concept (and other columns), sorted by these.

    Raises:
        InputError: The key is unknown.

    >>> events = pl.LazyFrame({"subject_id": [1, 1], "time": [0, 0], "code": ["LAB//676//Deg. C", "LAB//679//Deg. F"],
    ...                        "numeric_value": [37.0, 98.6]})
    >>> harmonise(events, "mimic", ["LAB//676//Deg. C", "LAB//679//Deg. F"]).collect().rows()
    [(1, 0, 'temperature', 37.0)]
    """
    return _collapse(_readings(events, _table(key, codes)).filter(pl.col("plausible")), _table(key, codes))


def coverage(dataset: Dataset) -> pl.DataFrame:
    """How well a dataset covers the variables.

    Returns:
        One row for each variable, in the order of the file: concept, unit, n_events (harmonised readings), n_subjects,
        n_implausible (events outside the plausible range, which were dropped).
    """
    table = _table(dataset.manifest.concepts, dataset.codes["code"])
    found = []
    for shard in dataset.shards:
        readings = _readings(pl.scan_parquet(shard), table)
        kept = _collapse(readings.filter(pl.col("plausible")), table)
        found += pl.collect_all(
            [
                kept.group_by("concept").agg(n_events=pl.len(), n_subjects=pl.col("subject_id").n_unique()),
                readings.filter(~pl.col("plausible")).group_by(pl.col("concept").cast(pl.String))
                .agg(n_implausible=pl.len()),
            ]
        )  # fmt: skip
    listed = concepts()
    columns = ("n_events", "n_subjects", "n_implausible")
    frame = pl.DataFrame({"concept": [c.name for c in listed], "unit": [c.unit for c in listed]})
    counts = pl.concat(found, how="diagonal") if found else pl.DataFrame(schema={"concept": pl.String})
    counts = counts.with_columns(pl.lit(None, pl.UInt32).alias(c) for c in columns if c not in counts.columns)
    counts = counts.group_by("concept").agg(pl.col(columns).sum().cast(pl.Int64))
    return frame.join(counts, on="concept", how="left", maintain_order="left").with_columns(
        pl.col(columns).fill_null(0)
    )


# --- the table of codes ------------------------------------------------------------------------------------------


def _rows(key: str, codes: Iterable[str]) -> list[dict[str, str]]:
    known = index(key)
    found = ((code, known.meanings(code)) for code in dict.fromkeys(codes) if code)
    return [
        {"code": code, "concept": meaning.concept, "rule": meaning.conversion}
        for code, meanings in found
        for meaning in meanings
    ]


def _table(key: str, codes: Iterable[str]) -> pl.DataFrame:
    """One row for each code and concept, with all that the arithmetic needs."""
    content = catalogue()
    names = pl.Enum(list(content.concepts))
    rules = pl.Enum(list(content.conversions))
    rows = []
    for row in _rows(key, codes):
        concept, rule = content.concepts[row["concept"]], content.conversions[row["rule"]]
        rows.append((*row.values(), rule.scale, rule.offset, concept.low, concept.high, concept.at_once))
    schema: dict[str, pl.DataType | type[pl.DataType]] = {
        "code": pl.String,
        "concept": names,
        "rule": rules,
        "scale": pl.Float64,
        "offset": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
        "at_once": pl.Enum(["mean", "sum", "max"]),
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


# --- the arithmetic ----------------------------------------------------------------------------------------------


def _readings(events: pl.LazyFrame, table: pl.DataFrame) -> pl.LazyFrame:
    """Every event that means something, with its value; plausible or not, one row a reading."""
    columns = events.collect_schema().names()
    text = pl.col("text_value") if "text_value" in columns else pl.lit(None, pl.String)
    number = pl.coalesce(
        pl.col("numeric_value").cast(pl.Float64),
        pl.when(pl.col("numeric_value").is_null()).then(text).str.extract(_NUMBER).cast(pl.Float64, strict=False),
    )
    size = pl.when(pl.col("at_once") == "sum").then(pl.col("value").abs()).otherwise(pl.col("value"))
    return (
        events.join(table.lazy(), on="code", how="inner")
        .with_columns(number=number, text=text)
        .with_columns(value=_value(catalogue(), table))
        .filter(pl.col("value").is_not_null())
        .select(
            "subject_id",
            "time",
            *(c for c in columns if c not in _EVENT),
            "concept",
            "at_once",
            millionths=(pl.col("value") * 1e6).round().cast(pl.Int64, strict=False),
            plausible=size.is_between(pl.col("low"), pl.col("high")) & size.is_finite(),
        )
    )


def _value(content: Catalogue, table: pl.DataFrame) -> pl.Expr:
    """Number and text to value: the line of the code, and the rules that are more than a line."""
    value = pl.col("number") * pl.col("scale") + pl.col("offset")
    for name in table["rule"].unique().cast(pl.String).sort():
        if not content.conversions[name].is_line:
            value = pl.when(pl.col("rule") == name).then(_bent(content.conversions[name])).otherwise(value)
    return value


def _bent(rule: Conversion) -> pl.Expr:
    number = pl.col("number")
    value = number * rule.scale + rule.offset
    for piece in reversed(rule.where):
        applies = number <= piece.at_most if piece.at_most is not None else number >= piece.at_least
        value = pl.when(applies).then(number * piece.scale + piece.offset).otherwise(value)
    if rule.constant is not None:
        here = pl.lit(True) if rule.above is None else number > rule.above
        value = pl.when(here).then(pl.lit(rule.constant))
    if rule.text_only:
        value = pl.lit(None, pl.Float64)
    for words in reversed(rule.text):
        said = pl.col("text").str.contains(f"(?i){words.matches}")
        value = pl.when(said).then(pl.lit(words.value, pl.Float64)).otherwise(value)
    return value


def _collapse(readings: pl.LazyFrame, table: pl.DataFrame) -> pl.LazyFrame:
    """One row for each subject, time and concept."""
    extra = [c for c in readings.collect_schema().names() if c not in {*_ROW, "subject_id", "time"}]
    keys = ["subject_id", "time", "concept", *extra]
    at_once, total = pl.col("at_once").first(), pl.col("millionths").sum()
    single = readings.group_by(keys).agg(
        value=pl.when(at_once == "sum")
        .then(total)
        .when(at_once == "max")
        .then(pl.col("millionths").max())
        .otherwise(total / pl.len())
    )
    parts = [single]
    mapped = set(table["concept"].cast(pl.String))
    for concept in catalogue().concepts.values():
        if concept.sum_of and mapped.issuperset(concept.sum_of):
            parts.append(_sum_of(concept, single, keys))
    hidden = [name for name, concept in catalogue().concepts.items() if concept.hidden]
    return (
        pl.concat(parts)
        .filter(~pl.col("concept").is_in(hidden))
        .with_columns((pl.col("value") / 1e6).round_sig_figs(6))
        .sort(keys)
        .with_columns(pl.col("concept").cast(pl.String))
        .select("subject_id", "time", "concept", "value", *extra)
    )


_ROW = frozenset({"concept", "at_once", "millionths", "plausible"})


def _sum_of(concept: Concept, single: pl.LazyFrame, keys: list[str]) -> pl.LazyFrame:
    """The concept at the times when all its parts were charted and it was not."""
    group = [key for key in keys if key != "concept"]
    part = pl.col("concept").is_in(list(concept.sum_of))
    return (
        single.filter(part | (pl.col("concept") == concept.name))
        .group_by(group)
        .agg(value=pl.col("value").filter(part).sum(), n=part.sum(), own=(~part).any())
        .filter((pl.col("n") == len(concept.sum_of)) & ~pl.col("own"))
        .with_columns(concept=pl.lit(concept.name, pl.Enum(list(catalogue().concepts))))
        .select([*keys, "value"])
    )
