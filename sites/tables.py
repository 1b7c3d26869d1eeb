"""The tables of one hospital's export: where they are, and their rows, typed as declared.

Files are found in any letter case, as .csv, .csv.gz or .parquet, in the folder that the export declares (`hosp`, `icu`)
or flat in the root; a copy of a table in any other folder is never read. Large tables come in batches of bounded size.
"""

import csv
import difflib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from sites import typed
from sites.blocks import BLOCK_BYTES, Block, blocks
from sites.errors import InputError
from sites.exports.export import Export, Table
from sites.exports.registry import kinds, load

_ENDINGS = (".csv", ".csv.gz", ".parquet")
_PARQUET_ROWS = 1 << 19


@dataclass(frozen=True)
class Batch:
    """Some rows of a table, in the order of the file, and the share of the file that is read with them."""

    rows: pl.DataFrame
    consumed: float


class Reader:
    """Reads the tables of an export.

    Attributes:
        path: The export's root.
        export: What its tables mean.
        warnings: What was found odd so far, one sentence each.
    """

    def __init__(self, path: Path, export: Export, options: Mapping[str, str] | None = None) -> None:
        self.path = path
        self.export = export
        self.warnings: list[str] = []
        self._options = dict(options or {})
        self._tables = {table.name: table for table in export.tables}
        self._listings: dict[str, dict[str, list[Path]]] = {}
        if not path.exists():
            raise InputError(f"{path}: there is no such file or folder; expected an export of kind {export.kind}")
        if export.batches is None and not path.is_dir():
            raise InputError(f"{path}: found a file, expected the folder of an export of kind {export.kind}")

    @property
    def options(self) -> Mapping[str, str]:
        """The options of the site that are not of general use."""
        return self._options

    def warn(self, sentence: str) -> None:
        """Add a warning to the report."""
        if sentence not in self.warnings:
            self.warnings.append(sentence)

    def find(self, name: str) -> Path | None:
        """The file of a table, or None.

        Raises:
            InputError: One folder holds the table twice.
        """
        table = self._tables[name]
        for folder in dict.fromkeys((table.folder.lower(), "")):
            found = self._listing(folder).get(name, [])
            if len(found) > 1:
                names = " and ".join(path.name for path in found)
                raise InputError(
                    f"{found[0].parent}: found the table {name} more than once ({names}), expected one file; "
                    "move the others out of the folder"
                )
            if found:
                return _file(found[0])
        return None

    def _listing(self, folder: str) -> dict[str, list[Path]]:
        """Table name to files, for the root ("") or one declared folder of it, in any letter case."""
        if folder not in self._listings:
            roots = [self.path]
            if folder:
                roots = [p for p in sorted(self.path.iterdir()) if p.is_dir() and p.name.lower() == folder]
            listing: dict[str, list[Path]] = {}
            for file in (file for root in roots for file in sorted(root.iterdir())):
                lower = file.name.lower()
                ending = next((e for e in _ENDINGS if lower.endswith(e)), None)
                if ending:
                    listing.setdefault(lower.removesuffix(ending), []).append(file)
            self._listings[folder] = listing
        return self._listings[folder]

    def files(self) -> dict[str, Path]:
        """Every file that is read, by table; for exports with their own reading, by path below the root."""
        if self.export.batches is None:
            found = ((name, self.find(name)) for name in self._tables)
            return {name: path for name, path in found if path is not None}
        if self.export.files is not None:
            try:
                paths = list(self.export.files(self.path, self._options))
            except InputError as error:
                raise InputError(f"{error}{self._other_kind()}") from None
        elif self.path.is_file():
            paths = [self.path]
        else:
            paths = [p for p in self.path.iterdir() if p.is_file()]
        root = self.path if self.path.is_dir() else self.path.parent
        files = [_file(path) for path in sorted(paths)]
        return {p.relative_to(root).as_posix() if p.is_relative_to(root) else p.name: p for p in files}

    def absent(self) -> tuple[Table, ...]:
        """The tables that are not required and not there."""
        if self.export.batches is not None:
            return ()
        return tuple(table for table in self.export.tables if not table.required and self.find(table.name) is None)

    def require(self) -> None:
        """Raise an InputError unless every required table is there, with its columns."""
        if self.export.recognises is not None and not self.export.recognises(self.path):
            raise InputError(f"{self.path}: expected {self.export.title} ({self.export.kind}){self._other_kind()}")
        if self.export.batches is not None:
            return
        for table in (table for table in self.export.tables if table.required):
            path = self.find(table.name)
            if path is None:
                name = f"{table.folder}/{table.name}" if table.folder else table.name
                raise InputError(
                    f"{self.path}: found no file {name}.csv, .csv.gz or .parquet, which {self.export.title} needs"
                    f"{self._other_kind() or self._deeper(table)}"
                )
            try:
                self._layout(table, path)
            except InputError as error:
                raise InputError(f"{error}{self._other_kind()}") from None

    def _deeper(self, table: Table) -> str:
        """Where the export may lie instead: in a folder of this one or around it, or in one that holds the table."""
        inside = sorted(path for path in self.path.iterdir() if path.is_dir())
        for folder in (*inside, self.path.absolute().parent):
            if _holds(folder, self.export):
                return f"; is {folder} meant?"
        for folder in inside:
            names = {file.name.lower() for file in folder.iterdir()}
            if names & {f"{table.name}{ending}" for ending in _ENDINGS}:
                return f"; is {folder} meant?"
        return "; give the folder that holds it, or add it"

    def _other_kind(self) -> str:
        looks = [kind for kind in kinds() if kind != self.export.kind and looks_like(self.path, kind)]
        return f"; the folder looks like {' or '.join(looks)}: name that kind instead" if looks else ""

    def read(self, name: str) -> pl.DataFrame:
        """The whole of a small table; an empty one with the declared columns if it is absent.

        Raises:
            InputError: A required table has no rows, or two rows share `Table.keys`.
        """
        table = self._tables[name]
        batches = [batch.rows for batch in self._rows(table)]
        frame = pl.concat(batches) if batches else pl.DataFrame(schema=dict(table.columns))
        if table.required and frame.is_empty():
            raise InputError(f"{self.find(name) or self.path}: the table {name} holds no rows; expected at least one")
        if table.keys:
            self._check_keys(table, frame)
        return frame

    def batches(self, name: str) -> Iterator[pl.DataFrame]:
        """The rows of a table in the order of its file, in batches of bounded size; none if it is absent."""
        return (batch.rows for batch in self.progress_batches(name))

    def progress_batches(self, name: str) -> Iterator[Batch]:
        """As `batches`, with how far each reaches."""
        table = self._tables[name]
        if table.keys and self.export.batches is None:
            yield Batch(self.read(name), 1.0)
        else:
            yield from self._rows(table)

    def _check_keys(self, table: Table, frame: pl.DataFrame) -> None:
        for key in table.keys:
            if frame[key].null_count():
                raise InputError(
                    f"{self.find(table.name) or self.path}, data row {(frame[key].is_null().arg_max() or 0) + 1}, "
                    f"column {key}: found an empty field, expected a value; correct or remove the row"
                )
        if not frame.select(table.keys).is_duplicated().any():
            return
        keys = frame.select(table.keys).with_row_index("row")
        twice = keys.filter(pl.struct(table.keys).is_duplicated())
        values = twice.row(0, named=True)
        rows = twice.filter(pl.all_horizontal(pl.col(k).eq_missing(pl.lit(values[k])) for k in table.keys))["row"]
        what = ", ".join(f"{key} {values[key]}" for key in table.keys)
        raise InputError(
            f"{self.find(table.name) or self.path}, data rows {rows[0] + 1} and {rows[1] + 1}: found {what} twice, "
            f"expected one row for each {', '.join(table.keys)}; remove the duplicate"
        )

    def _rows(self, table: Table) -> Iterator[Batch]:
        if self.export.batches is not None:
            for rows in self.export.batches(self.path, table.name, self._options):
                yield Batch(rows, 0.0)
            return
        path = self.find(table.name)
        if path is None:
            return
        if path.name.lower().endswith(".parquet"):
            yield from _parquet(table, path)
        else:
            yield from _csv(table, path)

    def _layout(self, table: Table, path: Path) -> None:
        """Raise unless the file's header holds the declared columns."""
        if path.name.lower().endswith(".parquet"):
            _parquet_layout(table, path)
        else:
            next(_csv_blocks(table, path, block_bytes=1 << 16))


def _file(path: Path) -> Path:
    """A path that must be a file: what stands in its place is not passed over in silence."""
    if path.is_file():
        return path
    found = "a folder" if path.is_dir() else "a link to nothing" if path.is_symlink() else "something that is no file"
    raise InputError(f"{path}: found {found}, expected a file; put the file in its place or remove it")


def looks_like(path: Path, kind: str) -> bool:
    """Whether a path holds what an export of a kind requires."""
    return _holds(path, load(kind))


def _holds(path: Path, export: Export) -> bool:
    try:
        if export.recognises is not None:
            return export.recognises(path)
        if export.batches is not None or not any(table.required for table in export.tables):
            return False
        reader = Reader(path, export)
        for table in (table for table in export.tables if table.required):
            file = reader.find(table.name)
            if file is None:
                return False
            reader._layout(table, file)
    except (InputError, OSError):
        return False
    return True


def _csv(table: Table, path: Path) -> Iterator[Batch]:
    found = _csv_blocks(table, path)
    layout, _ = next(found)
    absent = [name for name in table.columns if name not in layout.wanted]
    for _, block in found:
        assert block is not None
        frame = typed.parse_records(block.data, layout, block.first_line)
        yield Batch(_complete(frame, table, absent), block.consumed)


def _complete(frame: pl.DataFrame, table: Table, absent: list[str]) -> pl.DataFrame:
    if absent:
        frame = frame.with_columns(pl.lit(None, dtype=table.columns[name]).alias(name) for name in absent)
    return frame.select(list(table.columns))


def _csv_blocks(
    table: Table, path: Path, block_bytes: int | None = None
) -> Iterator[tuple[typed.Layout, Block | None]]:
    """Yield the layout (with no block), then each block of records behind the header."""
    layout: typed.Layout | None = None
    for block in blocks(path, block_bytes or BLOCK_BYTES):
        if layout is not None:
            yield layout, block
            continue
        data = block.data.removeprefix(b"\xef\xbb\xbf")
        end = data.find(b"\n") + 1 or len(data)
        layout = _header(table, path, data[:end])
        yield layout, None
        if end < len(data):
            yield layout, Block(data[end:], 2, block.consumed)
    if layout is None:
        raise InputError(f"{path}: the file is empty; expected a header and rows; export the table again")


def _header(table: Table, path: Path, data: bytes) -> typed.Layout:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(
            f"{path}, line 1: found bytes that are not UTF-8 text, expected a CSV header; "
            "the file is binary, damaged or in another encoding: export it again as UTF-8"
        ) from None
    if not text.replace("\r", "").replace("\n", "").replace("\t", "").isprintable():
        raise InputError(f"{path}, line 1: found binary data, expected a CSV header; export the table again")
    if not typed.well_formed(data):
        raise InputError(
            f"{path}, line 1: found quotation marks or line ends inside a name, expected a CSV header; "
            "export the table again"
        )
    try:
        header = typed.lowered(next(csv.reader(io.StringIO(text, newline=""))))
    except csv.Error as error:
        raise InputError(f"{path}, line 1: found no CSV header ({error}); export the table again") from None
    for delimiter, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")):
        split = typed.lowered(text.split(delimiter))
        if len(split) > len(header) and set(split) & set(table.columns):
            raise InputError(
                f"{path}, line 1: found fields separated by {name}, expected commas; write the file anew with commas"
            )
    return typed.Layout(path, header, _wanted(table, path, header))


def _wanted(table: Table, path: Path, header: tuple[str, ...]) -> dict[str, pl.DataType | type[pl.DataType]]:
    for name in table.columns:
        if header.count(name) > 1:
            raise InputError(f"{path}, line 1: found the column {name} twice, expected it once; remove one")
        if name not in header and name not in table.optional:
            near = difflib.get_close_matches(name, [other for other in header if other not in table.columns], 1)
            hint = f" (is {near[0]} meant?)" if near else ""
            shown = ", ".join(header[:12]) + (", ..." if len(header) > 12 else "")
            raise InputError(
                f"{path}, line 1: found no column {name}{hint}, expected it beside {shown}; "
                "add the column or export the table again"
            )
    return {name: dtype for name, dtype in table.columns.items() if name in header}


def _parquet_layout(table: Table, path: Path) -> tuple[dict[str, str], list[str]]:
    """The stored name of each declared column that is there, and the declared columns that are not."""
    import pyarrow.parquet as pq

    try:
        stored = pq.read_schema(path).names
    except Exception as error:
        raise InputError(f"{path}: this is no readable Parquet file ({error}); write it anew") from None
    header = typed.lowered(stored)
    wanted = _wanted(table, path, header)
    names = {name: stored[header.index(name)] for name in wanted}
    return names, [name for name in table.columns if name not in wanted]


def _parquet(table: Table, path: Path) -> Iterator[Batch]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names, absent = _parquet_layout(table, path)
    wanted = {name: table.columns[name] for name in names}
    with pq.ParquetFile(path) as file:
        total = max(file.metadata.num_rows, 1)
        done = 0
        try:
            for piece in file.iter_batches(batch_size=_PARQUET_ROWS, columns=list(names.values())):
                frame = pl.from_arrow(piece)
                assert isinstance(frame, pl.DataFrame)
                rows = frame.rename({stored: name for name, stored in names.items()})
                rows = typed.conform(rows, wanted)
                yield Batch(_complete(rows, table, absent), (done + len(rows)) / total)
                done += len(rows)
        except typed.FieldError as error:
            raise InputError(f"{path}, row {done + error.row + 1}, column {error.column}: {error}") from None
        except (OSError, pa.ArrowException, pl.exceptions.PolarsError) as error:
            raise InputError(f"{path}: the file is damaged ({error}); copy or write it again") from None
