"""What may leave a site: the schemas hold, and say why they refuse."""

import numpy as np
import pytest

from privacy.releases.messages import SCHEMAS, Parcel, check, released
from privacy.releases.sketches import Counts, ReleaseError, pack

MODEL = {"weight": np.zeros((1, 3), np.float32), "bias": np.zeros(1, np.float32)}
TRAINED = {"num-examples": 40, "loss-weight": 40, "loss-sum": 12.5, "steps": 4}


def test_a_trained_model_of_the_shape_that_was_sent_may_leave() -> None:
    check("train", Parcel(arrays=MODEL, numbers=TRAINED), MODEL)


@pytest.mark.parametrize(
    ("arrays", "what"),
    [
        ({**MODEL, "predictions": np.zeros(40, np.float32)}, "the array 'predictions', which may not leave"),
        ({"weight": MODEL["weight"]}, "no array 'bias'"),
        ({**MODEL, "weight": np.zeros((40, 3), np.float32)}, r"'weight' as float32 \(40, 3\)"),
        ({**MODEL, "weight": np.zeros((1, 3), np.float64)}, "'weight' as float64"),
        ({**MODEL, "weight": np.full((1, 3), np.nan, np.float32)}, "'weight' with NaN or infinity"),
        ({**MODEL, "bias": np.full(1, -np.inf, np.float32)}, "'bias' with NaN or infinity"),
    ],
)
def test_nothing_but_the_model_that_was_sent_leaves_as_a_model(arrays: dict[str, np.ndarray], what: str) -> None:
    with pytest.raises(ReleaseError, match=what):
        check("train", Parcel(arrays=arrays, numbers=TRAINED), MODEL)


def test_a_boosted_tree_model_may_grow_and_no_other_array_may() -> None:
    check("train", Parcel({"booster": np.zeros(900, np.uint8)}, TRAINED), {"booster": np.zeros(0, np.uint8)})
    with pytest.raises(ReleaseError):
        check("train", Parcel({"booster": np.zeros(900, np.float32)}, TRAINED), {"booster": np.zeros(0, np.float32)})


@pytest.mark.parametrize(
    "numbers",
    [
        {**TRAINED, "losses": 1.0},
        {**TRAINED, "patients": 40},
        {"num-examples": 40, "loss-weight": 40, "steps": 4},
        {"num-examples": 40, "loss-weight": 40, "loss-sum": 12.5},
        {**TRAINED, "loss-sum": [0.1, 0.2]},
        {**TRAINED, "loss-sum": float("nan")},
        {**TRAINED, "num-examples": -1},
        {**TRAINED, "num-examples": 9},
        {**TRAINED, "num-examples": 4.5},
        {**TRAINED, "loss-weight": 9},
        {**TRAINED, "steps": float("inf")},
        {**TRAINED, "num-examples": True},
    ],
)
def test_numbers_are_the_named_ones_single_finite_and_of_ten_patients(numbers: dict[str, object]) -> None:
    with pytest.raises(ReleaseError):
        check("train", Parcel(MODEL, numbers), MODEL)


def test_a_refusal_names_fields_and_never_values() -> None:
    with pytest.raises(ReleaseError) as refusal:
        check("query.site", Parcel(numbers={"train": 31415}, texts={"site": "a", "born": "1931-02-03"}), {})
    assert "31415" not in str(refusal.value)
    assert "1931" not in str(refusal.value)


@pytest.mark.parametrize("text", ["", "two\nlines", "x" * 201, b"bytes", 5])
def test_texts_are_short_names(text: object) -> None:
    numbers = {"train": 0, "tuning": 0, "tuning-events": 0, "tuning-non-events": 0}
    check("query.site", Parcel(numbers=numbers, texts={"site": "boston"}), {})
    with pytest.raises(ReleaseError):
        check("query.site", Parcel(numbers=numbers, texts={"site": text}), {})


def test_sketches_leave_only_as_sketches_of_enough_patients() -> None:
    names, index, patients = ("E11",), [0] * 12, list(range(12))
    check("query.statistics", Parcel(arrays=pack({"codes": Counts.release(names, index, patients)})), {})
    with pytest.raises(ReleaseError, match="counts of 2 patients"):
        check("query.statistics", Parcel(arrays=pack({"codes": Counts.release(names, index, patients, 2)})), {})
    with pytest.raises(ReleaseError):
        check("query.statistics", Parcel(arrays={"rows": np.zeros((12, 3))}), {})


def test_an_action_without_a_schema_sends_nothing() -> None:
    with pytest.raises(ReleaseError, match=r"'train\.raw' has no schema"):
        check("train.raw", Parcel(), {})


def test_every_schema_refuses_an_array_it_does_not_name() -> None:
    for action, schema in SCHEMAS.items():
        numbers = {name: 10 for name in (*schema.released_counts, *schema.sums)}
        texts = dict.fromkeys(schema.texts, "x")
        with pytest.raises(ReleaseError):
            check(action, Parcel({"rows": np.zeros(7)}, numbers, texts), {})


def test_counts_below_the_minimum_are_told_as_none() -> None:
    assert [released(count) for count in (0, 1, 9, 10, 11)] == [0, 0, 0, 10, 11]


MASKED = {"masked": np.zeros(4 + 3, np.uint64)}


@pytest.mark.parametrize(
    ("action", "arrays"),
    [
        ("query.advertise", {"keys": np.zeros(64, np.uint8)}),
        ("query.share", {"sealed": np.zeros((5, 82), np.uint8)}),
        ("train.masked", MASKED),
        ("query.unmask", {"shares": np.zeros((6, 33), np.uint8)}),
    ],
)
def test_secure_aggregation_sends_one_array_of_a_fixed_kind(action: str, arrays: dict[str, np.ndarray]) -> None:
    check(action, Parcel(arrays=arrays), MODEL)
    ((name, array),) = arrays.items()
    longer = np.zeros((*array.shape[:-1], array.shape[-1] + 1), array.dtype)
    for wrong in (
        {},
        {name: array.astype(np.float64)},
        {name: array[None]},
        {name: longer},
        {**arrays, "weight": MODEL["weight"]},
    ):
        with pytest.raises(ReleaseError):
            check(action, Parcel(arrays=wrong), MODEL)
    for told in ({"numbers": {"num-examples": 40}}, {"texts": {"site": "a"}}):
        with pytest.raises(ReleaseError):
            check(action, Parcel(arrays=arrays, **told), MODEL)
