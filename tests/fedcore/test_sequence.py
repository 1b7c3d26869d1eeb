"""Sequence: tokens in order of time, the last ones if there are too many."""

import datetime as dt

import numpy as np
import polars as pl

from fedcore.features.representation import load
from fedcore.features.sequence import FIRST, LENGTH, PADDING, UNKNOWN
from fedcore.samples import SiteSamples

ORIGIN = dt.datetime(2150, 1, 1)  # noqa: DTZ001 MEDS times have no zone
HEART_RATE, LACTATE, HYPERTENSION = "LAB//220045//bpm", "LAB//50813//mmol/L", "DIAGNOSIS//ICD//9//4019"
SEQUENCE = load("sequence")


def encode(site, n):
    schema = {"subject_id": pl.Int64, "prediction_time": pl.Datetime("us")}
    when = pl.DataFrame([(s, ORIGIN + dt.timedelta(hours=24)) for s in range(n)], schema=schema, orient="row")
    raw = SEQUENCE.extract(site.dataset, when, 24)
    ids = when["subject_id"].to_numpy()
    samples = SiteSamples(
        "boston", False, ids, ids, when["prediction_time"].to_numpy(), np.zeros(n, bool), np.full(n, "train"),
        raw.arrays, raw.names,
    )  # fmt: skip
    space = SEQUENCE.agree(SEQUENCE.sketch(samples))
    return space, SEQUENCE.encode(samples, space)


def words(space, codes):
    spelled = {PADDING: "", UNKNOWN: "?"} | {i + FIRST: w for i, w in enumerate(space.vocabulary)}
    return [spelled[c] for c in codes]


def test_events_stand_in_order_of_time_with_the_hours_between_them(meds_site):
    rows = [(s, -10, HYPERTENSION) for s in range(12)] + [(s, 2, HEART_RATE, 60.0 + s) for s in range(12)]
    rows += [(0, 5.5, HEART_RATE, 90.0), (0, 3, LACTATE, 2.0), (0, 4, "LAB//999999//UNK", 1.0)]
    space, arrays = encode(meds_site(rows), 12)
    assert space.vocabulary == ("CCS_DX//98", "heart_rate")
    assert space.sizes == {"vocabulary": 4, "length": LENGTH}
    assert words(space, arrays["code"][0, :5]) == ["CCS_DX//98", "heart_rate", "?", "heart_rate", ""]
    assert arrays["gap_hours"][0, :5].tolist() == [0, 12, 1, 2.5, 0]
    assert arrays["length"].tolist() == [4] + [2] * 11
    beats = arrays["value"][0, :5] * space.scale[0] + space.center[0]
    np.testing.assert_allclose(beats[[1, 3]], [60, 90], rtol=1e-5)
    assert arrays["value"][0, [0, 2, 4]].tolist() == [0, 0, 0]
    assert {k: v.dtype for k, v in arrays.items()} == {
        "code": np.int32, "gap_hours": np.float32, "value": np.float32, "length": np.int32,
    }  # fmt: skip


def test_of_too_many_events_the_last_ones_stay(meds_site):
    rows = [(s, 0, HEART_RATE, 60.0) for s in range(1, 12)] + [(0, -20, HYPERTENSION)]
    rows += [(0, k / 20, HEART_RATE, 50.0 + k / 10) for k in range(400)]
    space, arrays = encode(meds_site(rows), 12)
    assert arrays["length"][0] == LENGTH
    assert set(words(space, arrays["code"][0])) == {"heart_rate"}
    assert arrays["value"][0, -1] == arrays["value"][0].max()
