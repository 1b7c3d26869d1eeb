"""Mutations of bytes and of lines."""

import csv
import gzip

from .damage import EVERY, LINES, TEXT_KINDS, Effect, NotApplicable, Target, mutation


@mutation(Effect.ANY, *EVERY)
def truncated(t: Target) -> None:
    t.edit(lambda data: data[: t.rng.randrange(len(data))])


@mutation(Effect.ANY, *EVERY)
def bytes_changed(t: Target) -> None:
    data = bytearray(t.path.read_bytes())
    for _ in range(t.rng.choice((1, 1, 3, 8))):
        data[t.rng.randrange(len(data))] = t.rng.choice((*b'0129-:."\n\r, ;', 0, 0xFF, t.rng.randrange(256)))
    t.path.write_bytes(data)


@mutation(Effect.ANY, *EVERY)
def bytes_cut_out(t: Target) -> None:
    start = t.rng.randrange(t.path.stat().st_size)
    t.edit(lambda data: data[:start] + data[start + t.rng.choice((1, 2, 7, 64)) :])


@mutation(Effect.ANY, *LINES)
def a_stray_byte(t: Target) -> None:
    at = t.rng.randrange(t.path.stat().st_size)
    stray = t.rng.choice((b"\0", b"\xe9", b'"', b"\r", b"\n", b",", b"'", b"\x1f\x8b", "\u2028".encode(), b"\\"))
    t.edit(lambda data: data[:at] + stray + data[at:])


@mutation(Effect.REFUSED)
def a_zero_byte_in_a_row(t: Target) -> None:
    lines = t.lines()
    row = t.row([[]] * len(lines))
    lines[row] = b"\0" + lines[row]
    t.path.write_bytes(b"".join(lines))


@mutation(Effect.REFUSED)
def truncated_gzip(t: Target) -> None:
    whole = gzip.compress(t.path.read_bytes())
    t.rename(t.path.name + ".gz").write_bytes(whole[: t.rng.randrange(1, len(whole))])


@mutation(Effect.ANY)
def damaged_gzip(t: Target) -> None:
    whole = bytearray(gzip.compress(t.path.read_bytes()))
    whole[t.rng.randrange(len(whole))] ^= 1 << t.rng.randrange(8)
    t.rename(t.path.name + ".gz").write_bytes(whole)


@mutation(Effect.REFUSED)
def not_compressed_but_named_so(t: Target) -> None:
    t.rename(t.path.name + ".gz")


@mutation(Effect.FEWER_ROWS, *LINES)
def lines_gone(t: Target) -> None:
    lines = t.lines()
    for _ in range(t.rng.choice((1, 1, 3))):
        if len(lines) < 3:
            raise NotApplicable
        del lines[t.rng.randrange(1, len(lines))]
    t.path.write_bytes(b"".join(lines))


@mutation(Effect.ANY, *LINES)
def lines_swapped(t: Target) -> None:
    lines = t.lines()
    a, b = t.rng.randrange(len(lines)), t.rng.randrange(len(lines))
    lines[a], lines[b] = lines[b], lines[a]
    t.path.write_bytes(b"".join(lines))


@mutation(Effect.REFUSED)
def a_ragged_row(t: Target) -> None:
    lines = t.lines()
    row = t.row([[]] * len(lines))
    lines[row] = t.rng.choice((lines[row].rstrip(b"\n") + b",\n", b"1\n", b"\n" + lines[row]))
    if len(t.records()[0]) < 2:
        raise NotApplicable
    t.path.write_bytes(b"".join(lines))


@mutation(Effect.REFUSED)
def a_quote_left_open(t: Target) -> None:
    records = t.records()
    if len(records) < 2 or any('"' in field for record in records for field in record):
        raise NotApplicable
    row = t.row(records)
    records[row][0] = "\x1e"
    t.write(records)
    t.edit(lambda data: data.replace(b"\x1e", b'"'))


@mutation(Effect.REFUSED)
def another_delimiter(t: Target) -> None:
    records = t.records()
    if len(records[0]) < 2:
        raise NotApplicable
    with t.path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, delimiter=t.rng.choice(";\t|^ :"), lineterminator="\n").writerows(records)


@mutation(Effect.REFUSED, *EVERY)
def nothing_in_it(t: Target) -> None:
    t.path.write_bytes(b"")


@mutation(Effect.FEWER_ROWS, *TEXT_KINDS)
def header_only(t: Target) -> None:
    t.path.write_bytes(t.lines()[0])
