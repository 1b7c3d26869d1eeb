"""Mutations of whole files, and of Parquet files."""

import gzip
import os

import pyarrow as pa

from .damage import EVERY, PARQUET, Effect, NotApplicable, Target, mutation


@mutation(Effect.ANY, *EVERY)
def a_file_gone(t: Target) -> None:
    t.path.unlink()


@mutation(Effect.ANY, *EVERY)
def a_folder_in_its_place(t: Target) -> None:
    t.path.unlink()
    t.path.mkdir()


@mutation(Effect.REFUSED, *EVERY)
def a_link_to_nothing(t: Target) -> None:
    t.path.unlink()
    t.path.symlink_to(t.path.with_name("nowhere"))


@mutation(Effect.REFUSED)
def a_table_twice(t: Target) -> None:
    t.path.with_name(t.path.name + ".gz").write_bytes(gzip.compress(t.path.read_bytes()))


@mutation(Effect.REFUSED, *EVERY)
def no_permission(t: Target) -> None:
    if os.geteuid() == 0:
        raise NotApplicable
    t.path.chmod(0)


@mutation(Effect.ANY, *PARQUET)
def parquet_of_another_type(t: Target) -> None:
    table = t.arrow()
    if table is None:
        raise NotApplicable
    n = table.num_rows
    odd: tuple[pa.Array, ...] = (
        pa.array([True] * n),
        pa.array([[1]] * n),
        pa.array([b"x"] * n),
        pa.array([5] * n, pa.duration("us")),
        pa.array([2**63] * n, pa.uint64()),
        pa.array([1.5] * n),
        pa.array([{"a": 1}] * n),
        pa.nulls(n),
        pa.array([0] * n, pa.timestamp("us", "UTC")),
        pa.array([2**52] * n, pa.timestamp("s")),
        pa.array([2**62] * n, pa.timestamp("ms")),
        pa.array(["x"] * n).dictionary_encode(),
        pa.array([1] * n, pa.decimal128(9, 2)),
        pa.array([1] * n, pa.time64("us")),
        pa.array([7] * n, pa.int8()),
        pa.array([float("nan")] * n),
    )
    column = t.rng.randrange(table.num_columns)
    t.to_parquet(table.set_column(column, table.column_names[column], t.rng.choice(odd)))


@mutation(Effect.ANY, *PARQUET)
def parquet_without_a_column(t: Target) -> None:
    table = t.arrow()
    if table is None:
        raise NotApplicable
    t.to_parquet(table.drop_columns([t.rng.choice(table.column_names)]))


@mutation(Effect.ANY, *PARQUET)
def parquet_damaged(t: Target) -> None:
    t.to_parquet(t.arrow())
    path = t.path.with_suffix(".parquet")
    data = bytearray(path.read_bytes())
    start = t.rng.choice((0, len(data) // 2, len(data) - 40))
    for _ in range(t.rng.choice((1, 4, 16))):
        data[t.rng.randrange(start, len(data))] = t.rng.randrange(256)
    path.write_bytes(data)


@mutation(Effect.REFUSED, *PARQUET)
def parquet_truncated(t: Target) -> None:
    t.to_parquet(t.arrow())
    path = t.path.with_suffix(".parquet")
    path.write_bytes(path.read_bytes()[: t.rng.randrange(path.stat().st_size)])


@mutation(Effect.ANY, "meds")
def rows_gone_from_a_shard_or_moved(t: Target) -> None:
    table = t.arrow()
    order = list(range(table.num_rows))
    a, b = t.rng.randrange(len(order)), t.rng.randrange(len(order))
    order[a], order[b] = order[b], order[a]
    t.to_parquet(table.take(order[: t.rng.choice((len(order), len(order) - 3))]))
