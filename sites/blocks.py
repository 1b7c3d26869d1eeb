"""A text file, plain or gzip, as blocks of whole CSV records: bounded memory whatever the file's size.

A record ends at a newline that stands outside quotation marks (RFC 4180): at a newline with an even number of
quotation marks before it. A gzip file is decompressed by a second thread while the caller works on the block before.
"""

import queue
import threading
import zlib
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sites.errors import InputError

BLOCK_BYTES = 32 << 20
_READ_BYTES = 1 << 20
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class Block:
    """Whole records.

    Attributes:
        data: The text of the records, as bytes.
        first_line: The line of the file (the first is 1) at which `data` begins.
        consumed: The share of the file (as stored) that was read up to here, in [0, 1].
    """

    data: bytes
    first_line: int
    consumed: float


def record_end(data: bytes | bytearray) -> int:
    r"""The index behind the last record that ends in `data`, which begins with a record; 0 if none ends.

    >>> record_end(b'a,b\n1,"x\ny"\n2,"x\n')
    12
    """
    end = data.rfind(b"\n")
    quotes = data.count(b'"', 0, max(end, 0))
    while end >= 0 and quotes % 2:
        before = data.rfind(b"\n", 0, end)
        quotes -= data.count(b'"', max(before, 0), end)
        end = before
    return end + 1


def blocks(path: Path, block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
    """Yield the file's records in blocks of about `block_bytes` bytes.

    Raises:
        InputError: The gzip stream is truncated or damaged, or a quotation mark is never closed.
    """
    size = max(path.stat().st_size, 1)
    waiting = bytearray()
    line = 1
    consumed = 0.0
    with closing(_ahead(_pieces(path))) as pieces:
        for piece, read in pieces:
            waiting += piece
            consumed = min(read / size, 1.0)
            if len(waiting) < block_bytes:
                continue
            end = record_end(waiting)
            if end == 0:
                if len(waiting) > 2 * block_bytes:
                    raise _unclosed(path, line)
                continue
            data = bytes(memoryview(waiting)[:end])
            del waiting[:end]
            yield Block(data, line, consumed)
            line += data.count(b"\n")
    waiting = bytearray(waiting.rstrip(b"\r\n"))  # empty lines at the end of a file are no records
    if waiting:
        if waiting.count(b'"') % 2:
            raise _unclosed(path, line + waiting.count(b"\n", 0, record_end(waiting)))
        yield Block(bytes(waiting) + b"\n", line, 1.0)


def _unclosed(path: Path, line: int) -> InputError:
    return InputError(
        f"{path}, line {line}: a quotation mark is opened in the record that begins here and is never closed; "
        "expected fields quoted as CSV says; write the export anew"
    )


def _pieces(path: Path) -> Iterator[tuple[bytes, int]]:
    """Yield the file's text in pieces, each with the number of stored bytes read so far."""
    read = 0
    with path.open("rb") as stream:
        head = stream.read(2)
        stream.seek(0)
        if head != _GZIP_MAGIC:
            if path.suffix == ".gz" and head:
                raise InputError(
                    f"{path}: the name ends in .gz but the file is not gzip (begins with {head!r}); "
                    "rename it or compress it with gzip"
                )
            while piece := stream.read(4 * _READ_BYTES):
                read += len(piece)
                yield piece, read
            return
        inflate = zlib.decompressobj(wbits=31)
        fresh = False
        while piece := stream.read(_READ_BYTES):
            read += len(piece)
            while piece:
                if fresh and not piece.strip(b"\0"):  # gzip allows zero padding behind its last member
                    break
                try:
                    yield inflate.decompress(piece), read
                except zlib.error as error:
                    raise InputError(
                        f"{path}: the gzip stream is damaged near byte {read} ({error}); "
                        "copy or download the file again"
                    ) from None
                piece, fresh = inflate.unused_data, inflate.eof
                if fresh:
                    inflate = zlib.decompressobj(wbits=31)
        if not fresh:
            raise InputError(
                f"{path}: the gzip stream is truncated: it ends after {read} bytes without its end mark; "
                "copy or download the file again"
            )


def _ahead(source: Iterator[tuple[bytes, int]]) -> Generator[tuple[bytes, int]]:
    """Run `source` in a thread, some pieces ahead of the consumer (zlib and file reads release the interpreter)."""
    pieces: queue.Queue[tuple[bytes, int] | BaseException | None] = queue.Queue(maxsize=16)
    stop = threading.Event()

    def put(item: tuple[bytes, int] | BaseException | None) -> bool:
        while not stop.is_set():
            try:
                pieces.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for piece in source:
                if not put(piece):
                    return
            put(None)
        except BaseException as error:  # handed to the consumer, which raises it
            put(error)

    thread = threading.Thread(target=work, name="fedward-read", daemon=True)
    thread.start()
    try:
        while (item := pieces.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()
