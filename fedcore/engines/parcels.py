"""Flower's records as plain values, and back."""

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict

from privacy.releases.messages import Parcel


def parcel(content: RecordDict) -> Parcel:
    """What a message holds. A name that stands in two records becomes `record/name`, which no schema knows.

    The arrays are views of the message's bytes (`unpacked`).
    """
    arrays: dict[str, np.ndarray] = {}
    numbers: dict[str, Any] = {}
    texts: dict[str, Any] = {}
    for key, entry in content.items():
        if isinstance(entry, ArrayRecord):
            _join(arrays, key, plain(entry))
        else:
            _join(numbers if isinstance(entry, MetricRecord) else texts, key, entry)
    return Parcel(arrays, numbers, texts)


def record(arrays: Mapping[str, np.ndarray]) -> ArrayRecord:
    """Named arrays as Flower carries them; names and types are kept."""
    out = ArrayRecord()  # made of a dictionary, it would copy each Array
    for name, value in arrays.items():
        out[name] = packed(value)
    return out


def plain(entry: Mapping[str, Array]) -> dict[str, np.ndarray]:
    """A record as named arrays, which are views of its bytes and cannot be written to."""
    return {name: unpacked(value) for name, value in entry.items()}


def packed(value: np.ndarray) -> Array:
    """What `Array(value)` is, byte for byte, its values copied once rather than three times."""
    value = np.asarray(value, order="C")
    if value.dtype.hasobject:
        raise TypeError(f"an array of {value.dtype} cannot be sent; expected one of numbers")
    data = b"".join((_header(value.dtype.str, value.shape), value.reshape(-1).view(np.uint8).data))
    return Array(dtype=str(value.dtype), shape=value.shape, stype=STYPE, data=data)


def unpacked(value: Array) -> np.ndarray:
    """What `value.numpy()` is, as a view of the bytes; a header is parsed once, and not each time it is met."""
    if type(value) is not Array or value.stype != STYPE:
        return value.numpy()
    data = value.data
    if data[:8] == NPY_1:
        start = 10 + int.from_bytes(data[8:10], "little")
        shape, dtype = _layout(data[:start])
        if dtype is not None and 0 < dtype.itemsize * math.prod(shape) == len(data) - start:
            return np.frombuffer(data, dtype, offset=start).reshape(shape)
    return value.numpy()


STYPE = "numpy.ndarray"
NPY_1 = b"\x93NUMPY\x01\x00"


@lru_cache(maxsize=4096)
def _header(dtype: str, shape: tuple[int, ...]) -> bytes:
    buffer = BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


@lru_cache(maxsize=4096)
def _layout(header: bytes) -> tuple[tuple[int, ...], np.dtype[Any] | None]:
    """Shape and type as a .npy header states them; no type for what a view cannot show."""
    buffer = BytesIO(header)
    np.lib.format.read_magic(buffer)
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(buffer)
    return shape, None if fortran or dtype.hasobject else dtype


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


class Widened(Array):
    """An Array as one of a wider type, which is made when it is asked for and not kept: K sites' are never there at
    the same time."""

    _value: Array

    def __init__(self, value: Array, dtype: np.dtype[np.generic]) -> None:
        self.__dict__.update(dtype=dtype.name, shape=value.shape, stype=value.stype, _value=value)

    @property
    def data(self) -> bytes:  # type: ignore[override]
        """The bytes of the wider array."""
        return packed(self.numpy()).data

    def numpy(self) -> np.ndarray:
        """The wider array, the caller's own."""
        return unpacked(self._value).astype(self.dtype)


def narrowed(value: Array, dtype: np.dtype[np.generic]) -> Array:
    """An Array as one of this type."""
    return packed(as_type(unpacked(value), dtype))


def converted(
    content: RecordDict,
    types: Mapping[str, np.dtype[np.generic]],
    make: Callable[[Array, np.dtype[np.generic]], Array],
) -> RecordDict:
    """The content with the arrays named in `types` of those types; untouched records are the same objects."""
    out = RecordDict()
    for key, entry in content.items():
        if isinstance(entry, ArrayRecord):
            arrays = ArrayRecord()
            for name, value in entry.items():
                dtype = types.get(name)
                arrays[name] = value if dtype is None or value.dtype == dtype.name else make(value, dtype)
            out[key] = arrays
        else:
            out[key] = entry
    return out


def as_type(value: np.ndarray, dtype: np.dtype[np.generic]) -> np.ndarray:
    """Values of this type; of an integer type: the nearest ones."""
    return np.asarray(np.rint(value) if dtype.kind in "iu" else value).astype(dtype, copy=False)


def payload_bytes(content: RecordDict) -> int:
    """Bytes of a message's content.

    Serialised arrays with their headers, 8 bytes a number, 1 a truth value, the characters of texts, and the keys;
    what the transport adds is not in it.
    """
    return sum(entry.count_bytes() for entry in content.values())


def _join(out: dict[str, Any], key: str, entries: Mapping[str, Any]) -> None:
    for name, value in entries.items():
        out[f"{key}/{name}" if name in out else name] = value
