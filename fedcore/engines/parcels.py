"""Flower's records as plain values, and back."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict

from privacy.releases.messages import Parcel


def parcel(content: RecordDict) -> Parcel:
    """What a message holds. A name that stands in two records becomes `record/name`, which no schema knows."""
    return Parcel(
        arrays={name: value.numpy() for name, value in _joined(content.array_records.items()).items()},
        numbers=_joined(content.metric_records.items()),
        texts=_joined(content.config_records.items()),
    )


def record(arrays: Mapping[str, np.ndarray]) -> ArrayRecord:
    """Named arrays as Flower carries them; names and types are kept."""
    return ArrayRecord({name: Array(np.asarray(value, order="C")) for name, value in arrays.items()})


def with_arrays(content: RecordDict, arrays: Mapping[str, np.ndarray]) -> RecordDict:
    """The content with these arrays in place of its own; they bear the names of its parcel."""
    out, met = RecordDict(), set[str]()
    for key, entry in content.items():
        if isinstance(entry, ArrayRecord):
            names = {name: f"{key}/{name}" if name in met else name for name in entry}
            met.update(names.values())
            out[key] = record({name: arrays[joined] for name, joined in names.items()})
        else:
            out[key] = entry
    return out


def payload_bytes(content: RecordDict) -> int:
    """Bytes of a message's content.

    Serialised arrays with their headers, 8 bytes a number, 1 a truth value, the characters of texts, and the keys;
    what the transport adds is not in it.
    """
    return sum(entry.count_bytes() for entry in content.values())


def _joined(records: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, entries in records:
        for name, value in entries.items():
            out[f"{key}/{name}" if name in out else name] = value
    return out
