"""Arrays on their way: the bytes are Flower's own, and no copy is made that nobody needs."""

import io

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, RecordDict
from hypothesis import given
from hypothesis.extra import numpy as arrays_of

from fedcore.engines.parcels import Widened, packed, parcel, plain, record, unpacked

ANY = arrays_of.arrays(
    dtype=arrays_of.boolean_dtypes() | arrays_of.integer_dtypes() | arrays_of.floating_dtypes(),
    shape=arrays_of.array_shapes(min_dims=0, min_side=0),
)


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@given(ANY)
def test_a_packed_array_is_flowers_own_byte_for_byte(value):
    ours, flowers = packed(value), Array(np.asarray(value, order="C"))
    assert (ours.dtype, ours.shape, ours.stype, ours.data) == (
        flowers.dtype, flowers.shape, flowers.stype, flowers.data,
    )  # fmt: skip
    assert same(unpacked(ours), value)
    assert same(ours.numpy(), value)


def test_a_view_of_a_message_cannot_be_written_to():
    view = plain(record({"w": np.ones(3)}))["w"]
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 2


def test_an_array_in_fortran_order_arrives_as_it_is():
    buffer = io.BytesIO()
    value = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    np.save(buffer, value)
    sent = Array(dtype="float64", shape=(2, 3), stype="numpy.ndarray", data=buffer.getvalue())
    assert same(unpacked(sent), np.ascontiguousarray(value))


def test_an_array_that_is_cut_off_is_refused():
    whole = packed(np.arange(100.0))
    cut = Array(dtype=whole.dtype, shape=whole.shape, stype=whole.stype, data=whole.data[:-8])
    with pytest.raises(ValueError):
        unpacked(cut)


def test_objects_are_never_sent_nor_unpickled():
    with pytest.raises(TypeError, match="object"):
        packed(np.array([{}]))
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}]), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        unpacked(Array(dtype="object", shape=(1,), stype="numpy.ndarray", data=buffer.getvalue()))


def test_a_widened_array_has_the_values_bytes_and_type_of_the_wider_one():
    value = np.linspace(0, 1, 7, dtype=np.float32)
    wide = Widened(packed(value), np.dtype(np.float64))
    plainly = Array(value.astype(np.float64))
    assert (wide.dtype, wide.shape, wide.data) == (plainly.dtype, plainly.shape, plainly.data)
    assert same(unpacked(wide), value.astype(np.float64))
    wide.numpy()[0] = 9  # the caller's own
    assert wide.numpy()[0] == 0
    copied = ArrayRecord({"w": wide})["w"]
    assert same(copied.numpy(), value.astype(np.float64))


def test_a_name_in_two_records_is_told_apart():
    content = RecordDict({"arrays": record({"w": np.zeros(1)}), "control": record({"w": np.ones(1)})})
    assert {name: float(value[0]) for name, value in parcel(content).arrays.items()} == {"w": 0, "control/w": 1}
