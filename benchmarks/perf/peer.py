"""The peer that ingest is measured against: polars reads the same columns typed, sorts by patient and time, writes.

What any engineer would write first: one table at a time, whole, in memory; no codes, no clean-up, no checks.
"""

from pathlib import Path

import polars as pl

from sites.exports.export import Table
from sites.exports.registry import load
from sites.spec import SiteSpec
from sites.tables import Reader

PATIENT = ("subject_id", "patientunitstayid", "person_id")


def read_sort_write(spec: SiteSpec, out: Path) -> None:
    """Do so for every table of the export whose rows become events."""
    export = load(spec.kind)
    reader = Reader(spec.path, export, spec.reading_options())
    files = reader.files()
    wanted = {rule.table for rule in export.events}
    for table in export.tables:
        if table.name in wanted and table.name in files:
            _table(table, files[table.name], out / f"{table.name}.parquet")


def _table(table: Table, file: Path, out: Path) -> None:
    header = pl.read_csv(file, n_rows=0, infer_schema=False).columns
    types = {column: table.columns[column.lower()] for column in header if column.lower() in table.columns}
    dates = [column for column, dtype in types.items() if dtype == pl.Date]  # MIMIC-IV writes some with a time
    rows = pl.read_csv(file, columns=list(types), schema_overrides=types | dict.fromkeys(dates, pl.String))
    rows = rows.with_columns(pl.col(dates).str.head(10).str.to_date())
    keys = [c for c in rows.columns if c.lower() in PATIENT][:1]
    keys += [c for c, dtype in types.items() if isinstance(dtype, pl.Datetime)][:1]
    rows.sort(keys).write_parquet(out)
