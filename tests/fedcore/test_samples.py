"""Samples: taking some and bringing sites together keeps every entry with its sample."""

import numpy as np
import pytest

from fedcore.samples import SiteSamples

SPLIT = np.array(["train", "tuning", "held_out"])


def site(name, codes, columns, ids=(1, 1, 2)):
    """Three samples; sample i has i entries in the ragged group, whose values are 100 * i + j."""
    index = np.array([0, 0, 1], np.int32)
    return SiteSamples(
        site=name,
        external=False,
        subject_id=np.array([10, 10, 20]),
        patient_id=np.array(ids),
        prediction_time=np.array(["2020-01-01", "2020-02-01", "2020-03-01"], "datetime64[us]"),
        label=np.array([True, False, True]),
        split=SPLIT,
        raw={
            "x": np.arange(3 * len(columns), dtype=np.float32).reshape(3, -1),
            "codes.offsets": np.array([0, 0, 1, 3]),
            "codes.index": index,
            "codes.value": np.array([100.0, 200.0, 201.0], np.float32),
        },
        names={"x": columns, "codes": codes},
    )


def entries(samples, i):
    start, end = samples.raw["codes.offsets"][i : i + 2]
    names = [samples.names["codes"][k] for k in samples.raw["codes.index"][start:end]]
    return list(zip(names, samples.raw["codes.value"][start:end].tolist(), strict=True))


def test_taking_samples_takes_their_ragged_entries_along():
    samples = site("a", ("I10", "E11"), ("age", "hr"))
    taken = samples.take([2, 0])
    assert len(taken) == 2
    assert entries(taken, 0) == entries(samples, 2) == [("I10", 200.0), ("E11", 201.0)]
    assert entries(taken, 1) == []
    assert taken.raw["x"].tolist() == samples.raw["x"][[2, 0]].tolist()
    assert samples.in_split("tuning", "held_out").label.tolist() == [False, True]
    assert len(samples.take(np.zeros(3, bool))) == 0


def test_sites_brought_together_unite_their_names():
    a, b = site("a", ("I10", "E11"), ("age", "hr")), site("b", ("Z99", "I10"), ("hr", "lactate"))
    both = SiteSamples.concatenate([a, b])
    assert both.names == {"x": ("age", "hr", "lactate"), "codes": ("I10", "E11", "Z99")}
    assert [entries(both, i) for i in range(6)] == [entries(s, i) for s in (a, b) for i in range(3)]
    np.testing.assert_array_equal(both.raw["x"][0], [0, 1, np.nan])
    np.testing.assert_array_equal(both.raw["x"][3], [np.nan, 0, 1])


def test_equal_ids_of_two_sites_are_two_people():
    both = SiteSamples.concatenate([site("a", ("I10", "E11"), ("age",)), site("b", ("I10", "E11"), ("age",))])
    assert both.patient_id.tolist() == [0, 0, 1, 2, 2, 3]


def test_samples_that_do_not_fit_together_are_refused():
    good = site("a", ("I10", "E11"), ("age",))
    with pytest.raises(ValueError, match="unknown split 'test'"):
        SiteSamples(**{**good.__dict__, "split": np.array(["test"] * 3)})
    with pytest.raises(ValueError, match=r"codes.value.*2 entries, expected 3"):
        SiteSamples(**{**good.__dict__, "raw": {**good.raw, "codes.value": np.zeros(2)}})
    with pytest.raises(ValueError, match="label: 2 entries for 3"):
        SiteSamples(**{**good.__dict__, "label": np.array([True, False])})
