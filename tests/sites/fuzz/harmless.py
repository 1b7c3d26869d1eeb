"""Mutations that change nothing: the data read must be equal to the byte."""

import csv
import gzip

from .damage import LINES, Effect, NotApplicable, Target, mutation


@mutation(Effect.NONE)
def carriage_returns(t: Target) -> None:
    t.edit(lambda data: data.replace(b"\n", b"\r\n"))


@mutation(Effect.NONE)
def byte_order_mark(t: Target) -> None:
    t.edit(lambda data: b"\xef\xbb\xbf" + data)


@mutation(Effect.NONE)
def no_newline_at_the_end(t: Target) -> None:
    t.edit(lambda data: data.rstrip(b"\n"))


@mutation(Effect.NONE)
def empty_lines_at_the_end(t: Target) -> None:
    t.edit(lambda data: data + b"\n\r\n")


@mutation(Effect.NONE)
def columns_in_another_order(t: Target) -> None:
    records = t.records()
    order = list(range(len(records[0])))
    t.rng.shuffle(order)
    t.write([[record[i] for i in order] for record in records])


@mutation(Effect.NONE)
def another_column(t: Target) -> None:
    t.write([[*record, "note" if i == 0 else f"x, {i}"] for i, record in enumerate(t.records())])


@mutation(Effect.NONE)
def header_in_another_case(t: Target) -> None:
    head, *rest = t.records()
    t.write([[name.swapcase() for name in head], *rest])


@mutation(Effect.NONE)
def name_in_another_case(t: Target) -> None:
    t.rename(t.path.name.swapcase())


@mutation(Effect.NONE)
def everything_quoted(t: Target) -> None:
    records = t.records()
    with t.path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(records)


@mutation(Effect.NONE)
def compressed(t: Target) -> None:
    whole, cut = t.path.read_bytes(), t.rng.randrange(t.path.stat().st_size)
    t.rename(t.path.name + ".gz").write_bytes(gzip.compress(whole[:cut]) + gzip.compress(whole[cut:]))


@mutation(Effect.NONE)
def parquet_of_text(t: Target) -> None:
    t.to_parquet(t.arrow())


@mutation(Effect.NONE)
def rows_in_another_order(t: Target) -> None:
    head, *rest = t.records()
    t.rng.shuffle(rest)
    t.write([head, *rest])


@mutation(Effect.NONE_OR_REFUSED, *LINES)
def lines_twice(t: Target) -> None:
    if t.path.suffix == ".data":
        raise NotApplicable  # two patients may be alike
    lines = t.lines()
    if len(lines) < 2:
        raise NotApplicable
    for line in t.rng.sample(lines[1:], min(2, len(lines) - 1)):
        lines.insert(t.rng.randrange(1, len(lines)), line)
    t.path.write_bytes(b"".join(lines))
