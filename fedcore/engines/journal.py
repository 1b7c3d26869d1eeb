"""A federation's checkpoint: what each site answered, in the order in which it was asked.

A federation that was killed goes on by being run again: the server's code is the same, so it asks the same, and what
stands in the journal is answered from there. A strategy's state is thereby rebuilt as it came to be, and nothing of it
is ever stored.

One file, only appended to: a first line that says of which federation it is, then entries of
`length u64 | crc32 u32 | payload`, the payload being `header length u64 | JSON header | arrays`. An entry that is cut
off (the process was killed while it was written) ends the journal.
"""

import json
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedcore.errors import CheckpointError, StorageError

_HEAD = struct.Struct("<QI")
_SIZE = struct.Struct("<Q")
_KINDS: Mapping[str, type[MetricRecord] | type[ConfigRecord]] = {"numbers": MetricRecord, "texts": ConfigRecord}


@dataclass(frozen=True)
class Answer:
    """What one site answered: a content or the reason why there is none."""

    site: str
    content: RecordDict | None
    error: str | None = None


class Journal:
    """The answers of one federation, read up to where they end and appended to from there.

    Args:
        path: the file; made if it is not there.
        federation: what names the federation: the hash of all that it depends on.

    Raises:
        CheckpointError: the file is of another federation, or is no journal.
        StorageError: it cannot be written.
    """

    def __init__(self, path: Path, federation: str) -> None:
        self._path = path
        head = f"fedward.journal/1 {federation}\n".encode()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            there = path.exists() and path.stat().st_size > 0
            self._file: BinaryIO = path.open("r+b" if there else "w+b")
        except OSError as error:
            raise StorageError(f"{path}: cannot be opened ({error.strerror}); mend that and run again") from error
        if there:
            found = self._file.readline()
            if not head.startswith(found):
                self._file.close()
                raise CheckpointError(
                    f"{path}: the checkpoint is of another federation; expected one of {federation[:12]}; "
                    "delete it, or name another folder"
                )
            if found != head:  # killed in the first line
                self._start(head)
        else:
            self._start(head)
        self._replaying = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # what could not be written has been told of
            self._file.close()

    def next(self, action: str, sites: Sequence[str]) -> list[Answer] | None:
        """The answers to the next request, or None if it has not been put before.

        Args:
            action: the request's.
            sites: who is asked, in order.

        Raises:
            CheckpointError: the journal tells of another request at this place.
        """
        if not self._replaying:
            return None
        payload = self._entry()
        if payload is None:
            self._replaying = False
            return None
        header, answers = _unpacked(payload)
        if header["action"] != action or [answer["site"] for answer in header["answers"]] != list(sites):
            raise CheckpointError(
                f"{self._path}: the checkpoint tells of '{header['action']}' where '{action}' is asked now; the code "
                "or the sites have changed; delete it to start anew"
            )
        return list(answers)

    def append(self, action: str, answers: Sequence[Answer]) -> None:
        """Write down what was answered.

        Raises:
            StorageError: it cannot be written.
        """
        payload = _packed(action, answers)
        self._write(_HEAD.pack(sum(map(len, payload)), _crc(payload)), *payload)

    def _start(self, head: bytes) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._write(head)

    def _write(self, *parts: bytes) -> None:
        try:
            for part in parts:
                self._file.write(part)
            self._file.flush()
        except OSError as error:
            raise StorageError(
                f"{self._path}: cannot be written ({error.strerror}); mend that and run again"
            ) from error

    def _entry(self) -> bytes | None:
        """The next entry's payload; None at the end, where what is cut off is cut away."""
        at = self._file.tell()
        head = self._file.read(_HEAD.size)
        if len(head) == _HEAD.size:
            length, crc = _HEAD.unpack(head)
            left = self._path.stat().st_size - self._file.tell()
            payload = self._file.read(length) if length <= left else b""
            if len(payload) == length and zlib.crc32(payload) == crc:
                return payload
        self._file.seek(at)
        self._file.truncate()
        return None


def _crc(parts: Sequence[bytes]) -> int:
    crc = 0
    for part in parts:
        crc = zlib.crc32(part, crc)
    return crc


def _packed(action: str, answers: Sequence[Answer]) -> list[bytes]:
    blobs: list[bytes] = []
    header = {"action": action, "answers": [_described(answer, blobs) for answer in answers]}
    text = json.dumps(header).encode()
    return [_SIZE.pack(len(text)), text, *blobs]


def _described(answer: Answer, blobs: list[bytes]) -> dict[str, Any]:
    records: list[dict[str, Any]] = []
    for key, entry in (answer.content or {}).items():
        if isinstance(entry, ArrayRecord):
            arrays = []
            for name, value in entry.items():
                blobs.append(value.data)
                arrays.append([name, value.dtype, list(value.shape), value.stype, len(value.data)])
            records.append({"key": key, "kind": "arrays", "entries": arrays})
        else:
            kind = "numbers" if isinstance(entry, MetricRecord) else "texts"
            records.append({"key": key, "kind": kind, "entries": dict(entry)})
    return {"site": answer.site, "error": answer.error, "records": None if answer.content is None else records}


def _unpacked(payload: bytes) -> tuple[dict[str, Any], Iterator[Answer]]:
    (length,) = _SIZE.unpack_from(payload)
    start = _SIZE.size + length
    header: dict[str, Any] = json.loads(payload[_SIZE.size : start])
    return header, _answers(header, payload, start)


def _answers(header: dict[str, Any], payload: bytes, at: int) -> Iterator[Answer]:
    for described in header["answers"]:
        if described["records"] is None:
            yield Answer(described["site"], None, described["error"])
            continue
        content = RecordDict()
        for one in described["records"]:
            if one["kind"] == "arrays":
                arrays = {}
                for name, dtype, shape, stype, size in one["entries"]:
                    arrays[name] = Array(dtype, tuple(shape), stype, payload[at : at + size])
                    at += size
                content[one["key"]] = ArrayRecord(arrays)
            else:
                content[one["key"]] = _KINDS[one["kind"]](one["entries"])
        yield Answer(described["site"], content, described["error"])
