"""The result record `fedward.result/3`: one file a cell, canonical JSON, evidence that can be traced and compared.

Four hashes, each of another thing: `cell_id` of what was asked (`spec`); `run_id` names one execution (a ULID);
`record_sha256` of the whole body, for integrity; `result_sha256` of all but `run_id`, `provenance`, `cost` and
`record_sha256`: "the same result" always means that this one is equal. Identity and provenance are disjoint blocks, so
another machine makes another run, not another cell.

Field order, meaning or a field more: change `SCHEMA`, and write the migration with its test.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, cast

from pydantic import Field, JsonValue, TypeAdapter, ValidationError, model_validator

from leaderboard.block import Block, Many, Name, Sha256, Text
from leaderboard.canonical import RecordError, canonical_json, sha256_of
from leaderboard.measured import Check, Cost, Data, Predictions, Provenance, Release, SitePrivacy, Training
from leaderboard.metric import Interval, Metric, Scope
from leaderboard.spec import Spec, cell_id, training_id

__all__ = [
    "SCHEMA",
    "Failure",
    "Head",
    "Interval",
    "Metric",
    "Record",
    "RecordError",
    "Scope",
    "Spec",
    "canonical_json",
    "cell_id",
    "head",
    "json_schema",
    "new_run_id",
    "parse",
    "record_sha256",
    "result_sha256",
    "seal",
    "training_id",
]

SCHEMA = "fedward.result/3"

OLDER = frozenset({"fedward.result/1", "fedward.result/2"})
"""Schemas whose cells this version would ask otherwise, so that no migration gives them a `cell_id` of today."""

NOT_THE_RESULT = frozenset({"run_id", "provenance", "cost", "record_sha256"})
"""Fields that differ between two runs of which the result is the same."""

Status = Literal["ok", "failed", "skipped"]

_ULID_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class OlderRecordError(RecordError):
    """A record of a schema that is not read any more."""


class Failure(Block):
    """Why there is no result. The traceback stands in `provenance`: it names paths and differs between machines."""

    kind: Name
    message: Text


class Record(Block):
    """One execution of one cell.

    `status` and `error` exclude each other: an `ok` record has data, predictions and metrics and no error; a `failed`
    or `skipped` one has an error and no metrics.
    """

    schema_: Literal["fedward.result/3"] = Field(alias="schema")
    cell_id: Sha256
    run_id: str = Field(pattern=r"^[0-7][0-9A-HJKMNP-TV-Z]{25}$")
    record_sha256: Sha256
    code_fingerprint: Name
    status: Status
    error: Failure | None = None
    spec: Spec
    data: Data | None = None
    training: Training | None = None
    metrics: Many[Metric] = ()
    checks: Many[Check] = ()
    releases: Many[Release] = ()
    privacy: Many[SitePrivacy] = ()
    predictions: Predictions | None = None
    provenance: Provenance
    cost: Cost

    @model_validator(mode="after")
    def _status_xor_error(self) -> Self:
        if self.status != "ok":
            if self.error is None:
                raise ValueError(f"`status` is {self.status!r}, so `error` must say why")
            if self.metrics:
                raise ValueError(f"`status` is {self.status!r}, so there can be no `metrics`")
            return self
        if self.error is not None:
            raise ValueError("`status` is 'ok', so `error` must be null")
        missing = [name for name in ("data", "predictions", "metrics") if not getattr(self, name)]
        if missing:
            raise ValueError(f"`status` is 'ok', so `{missing[0]}` must be there")
        return self

    @model_validator(mode="after")
    def _each_metric_stands_once(self) -> Self:
        seen = set()
        for metric in self.metrics:
            if metric.key in seen:
                raise ValueError(f"the metric {metric.name} of scope {metric.scope.kind} stands twice in `metrics`")
            seen.add(metric.key)
        return self

    @model_validator(mode="after")
    def _cell_id_is_of_the_spec(self) -> Self:
        expected = cell_id(self.spec)
        if self.cell_id != expected:
            raise ValueError(f"`cell_id` is {self.cell_id}, but the hash of `spec` is {expected}")
        return self


def seal(
    *,
    spec: Spec,
    status: Status,
    code_fingerprint: str,
    provenance: Provenance,
    cost: Cost,
    run_id: str | None = None,
    error: Failure | None = None,
    data: Data | None = None,
    training: Training | None = None,
    metrics: tuple[Metric, ...] | list[Metric] = (),
    checks: tuple[Check, ...] | list[Check] = (),
    releases: tuple[Release, ...] | list[Release] = (),
    privacy: tuple[SitePrivacy, ...] = (),
    predictions: Predictions | None = None,
) -> Record:
    """Make a record of its parts: the hashes and, if none is given, the run id are filled in.

    Raises:
        RecordError: the parts contradict each other; the sentence names the field.
    """
    body = {
        "schema": SCHEMA,
        "cell_id": cell_id(spec),
        "run_id": run_id or new_run_id(),
        "code_fingerprint": code_fingerprint,
        "status": status,
        "error": error,
        "spec": spec,
        "data": data,
        "training": training,
        "metrics": metrics,
        "checks": checks,
        "releases": releases,
        "privacy": privacy,
        "predictions": predictions,
        "provenance": provenance,
        "cost": cost,
    }
    return parse(canonical_json({**body, "record_sha256": sha256_of(body)}), "the record")


def parse(data: bytes, name: str | Path, *, intact: bool = True) -> Record:
    """Read a record from its JSON.

    Args:
        data: the file's bytes.
        name: what to call it in an error, as a rule its path.
        intact: also recompute `record_sha256`.

    Raises:
        RecordError: not JSON, another schema, a field that is wrong, or a hash that does not fit.
    """
    if intact and _as_written(data):
        return _checked(data, name)
    body = _json(data, name)
    if not isinstance(body, dict):
        raise RecordError(f"{name}: found a JSON {type(body).__name__}, expected an object; this is no result record.")
    if body.get("schema") in tuple(OLDER):
        raise OlderRecordError(f"{name}: `schema` is {body['schema']!r}, of an older version; run the cell again.")
    if body.get("schema") != SCHEMA:
        raise RecordError(
            f"{name}: `schema` is {body.get('schema')!r}, this version reads {SCHEMA!r}; "
            "install the version of FedWard that wrote it, or run the cell again."
        )
    record = _checked(data, name)
    # The body as it was read: a field that a later version adds does not make an older record look changed.
    found = sha256_of({key: value for key, value in body.items() if key != "record_sha256"})
    if intact and record.record_sha256 != found:
        raise RecordError(
            f"{name}: `record_sha256` is {record.record_sha256}, but the body's hash is {found}; "
            "the file was changed after it was written, so take it from where it came again or run the cell again."
        )
    return record


def _checked(data: bytes, name: str | Path) -> Record:
    try:
        return Record.model_validate_json(data)
    except ValidationError as error:
        raise RecordError(f"{name}: {sentence(error)}") from None


_OWN_HASH = b'\n "record_sha256": "'
_SCHEMA_LINE = f'\n "schema": {json.dumps(SCHEMA)},\n'.encode()


def _as_written(data: bytes) -> bool:
    """Whether these are the very bytes that were written: the text without the line of its own hash has that hash.

    A record that is spelled canonically has one line for each field of its outermost level, indented by one space, and
    no text holds a newline, so a line that begins so is the field. What is not the very bytes may still be intact.
    """
    start = data.find(_OWN_HASH)
    end = data.find(b"\n", start + 1)
    if start < 0 or end < 0 or _SCHEMA_LINE not in data:
        return False
    return hashlib.sha256(data[:start] + data[end:]).hexdigest().encode() == data[start + len(_OWN_HASH) : end - 2]


class Head(NamedTuple):
    """What a plan wants to know of a record."""

    cell_id: str
    code_fingerprint: str
    status: Status
    result_sha256: str


def head(data: bytes) -> Head | None:
    """The head of a record that is as it was written; None where only `parse` can tell.

    It is read from the lines of the outermost level, a hundred times faster than the whole: a finished grid is planned
    anew without reading what was measured.
    """
    if not _as_written(data):
        return None
    cell, code, status = (_line(data, name) for name in ("cell_id", "code_fingerprint", "status"))
    rest = data
    for name in NOT_THE_RESULT:  # none of them is the last field, so what is left is canonical
        start = rest.index(b'\n "%s": ' % name.encode())
        rest = rest[:start] + rest[rest.index(b'\n "', start + 1) :]
    return Head(cell, code, cast("Status", status), hashlib.sha256(rest).hexdigest())


def _line(data: bytes, name: str) -> str:
    start = data.index(b'\n "%s": "' % name.encode())
    value: str = json.loads(data[data.index(b": ", start) + 2 : data.index(b",\n", start)])
    return value


def record_sha256(record: Record) -> str:
    """The hash of the whole record but this very field."""
    return _hash_without(record, frozenset({"record_sha256"}))


def result_sha256(record: Record) -> str:
    """The hash of the result alone: equal for two runs if and only if they found the same."""
    return _hash_without(record, NOT_THE_RESULT)


def new_run_id(now_ms: int | None = None) -> str:
    """A ULID: 48 bits of milliseconds, then 80 random bits, in Crockford's base 32; later ones sort after earlier."""
    moment = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    number = (moment << 80) | int.from_bytes(os.urandom(10))
    return "".join(_ULID_ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5))


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a record, for those who read or write records without this package."""
    schema = TypeAdapter(Record).json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA, **schema}


def sentence(error: ValidationError) -> str:
    """Say the first thing that is wrong with a record, and how many more there are."""
    first, *others = error.errors(include_url=False)
    path = ""
    for part in first["loc"]:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    problem = first["msg"].removeprefix("Value error, ")
    found = first.get("input")
    shown = f" (found {found!r})" if isinstance(found, str | int | float | bool | None) and "ctx" not in first else ""
    more = f"; and {len(others)} more" if others else ""
    return f"{f'`{path}`: ' if path else ''}{problem[:1].lower()}{problem[1:]}{shown}{more}."


def _hash_without(record: Record, fields: frozenset[str]) -> str:
    names = {name: field.alias or name for name, field in type(record).model_fields.items()}
    return sha256_of({key: getattr(record, name) for name, key in names.items() if key not in fields})


def _json(data: bytes, name: str | Path) -> JsonValue:
    """JSON as the standard has it: no NaN, no key twice."""

    def no_constant(token: str) -> None:
        raise ValueError(f"{token} is not JSON")

    def no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = dict(pairs)
        if len(keys) < len(pairs):
            raise ValueError(
                f"the key {next(k for k, _ in pairs if [p[0] for p in pairs].count(k) > 1)!r} stands twice"
            )
        return keys

    try:
        value: JsonValue = json.loads(data.decode(), parse_constant=no_constant, object_pairs_hook=no_key_twice)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{name}: not readable as JSON ({error}); the file is cut off or is no record.") from None
    return value
