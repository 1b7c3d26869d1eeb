"""Series: the hourly grid by hand."""

import datetime as dt

import numpy as np
import polars as pl
import pytest

from fedcore.features.representation import load
from fedcore.samples import SiteSamples

ORIGIN = dt.datetime(2150, 1, 1)  # noqa: DTZ001 MEDS times have no zone
HEART_RATE, LACTATE = "LAB//220045//bpm", "LAB//50813//mmol/L"
SERIES = load("series")


def samples(site, n, hours=24):
    schema = {"subject_id": pl.Int64, "prediction_time": pl.Datetime("us")}
    when = pl.DataFrame([(s, ORIGIN + dt.timedelta(hours=hours)) for s in range(n)], schema=schema, orient="row")
    raw = SERIES.extract(site.dataset, when, hours)
    ids = when["subject_id"].to_numpy()
    return SiteSamples(
        "boston", False, ids, ids, when["prediction_time"].to_numpy(), np.zeros(n, bool), np.full(n, "train"),
        raw.arrays, raw.names, hours,
    )  # fmt: skip


@pytest.fixture
def encoded(meds_site):
    rows = [(0, 2.2, HEART_RATE, 80.0), (0, 2.9, HEART_RATE, 90.0), (0, 5, HEART_RATE, 100.0),
            (0, 24, HEART_RATE, 70.0), (0, 0, "AGE", 50.0)]  # fmt: skip
    rows += [(s, 0, HEART_RATE, 60.0 + s) for s in range(1, 12)] + [(s, 1, "AGE", 40.0 + s) for s in range(1, 12)]
    rows += [(s, 1, LACTATE, float(s)) for s in range(1, 5)]  # too few patients to agree on
    one = samples(meds_site(rows), 12)
    space = SERIES.agree(SERIES.sketch(one))
    return space, SERIES.encode(one, space)


def test_each_hour_holds_its_last_reading_and_carries_it_forward(encoded):
    space, arrays = encoded
    assert space.columns == ("heart_rate", "age")
    assert space.sizes == {"x": 2}
    x, mask, delta = (arrays[k][0, :, 0] for k in ("x", "mask", "delta"))
    assert arrays["x"].shape == (12, 24, 2)
    beats = x * space.scale[0] + space.center[0]
    # The prediction time itself belongs to the last hour; before the first reading stands the mean.
    np.testing.assert_allclose(beats, [space.center[0]] * 2 + [90] * 3 + [100] * 18 + [70], rtol=1e-5)
    assert np.flatnonzero(mask).tolist() == [2, 5, 23]
    assert delta.tolist() == [1, 2, 0, 1, 2, 0, *range(1, 18), 0]


def test_what_describes_the_patient_stands_in_every_hour(encoded):
    space, arrays = encoded
    age = arrays["x"][0, :, 1] * space.scale[1] + space.center[1]
    np.testing.assert_allclose(age, [50] * 24, rtol=1e-5)
    assert arrays["mask"][0, :, 1].tolist() == [1] * 24
    assert arrays["delta"][0, :, 1].tolist() == [0] * 24


def test_a_window_of_48_hours_has_48_steps(meds_site):
    rows = [(s, h, HEART_RATE, 60.0 + s) for s in range(12) for h in (0, 47.5)]
    one = samples(meds_site(rows), 12, hours=48)
    arrays = SERIES.encode(one, SERIES.agree(SERIES.sketch(one)))
    assert arrays["x"].shape == (12, 48, 1)
    assert np.flatnonzero(arrays["mask"][0, :, 0]).tolist() == [0, 47]


def test_skewed_laboratory_values_are_standardised_as_logarithms(meds_site):
    rows = [(s, 1, LACTATE, float(np.exp(s / 5))) for s in range(20)]
    one = samples(meds_site(rows), 20)
    lactate = SERIES.encode(one, SERIES.agree(SERIES.sketch(one)))["x"][:, 1, 0]
    steps = np.diff(lactate)
    assert steps.max() / steps.min() < 1.1  # even steps, as the logarithms have


def test_that_a_few_are_men_stays_at_the_site(meds_site):
    rows = [(s, 0, "GENDER//M" if s < 4 else "GENDER//F") for s in range(40)]
    rows += [(s, 3, HEART_RATE, 70.0 + s) for s in range(40)]
    one = samples(meds_site(rows), 40)
    assert SERIES.sketch(one)["concepts"].names == ("heart_rate",)
    assert "sex" in SERIES.sketch(one, minimum=4)["concepts"].names
