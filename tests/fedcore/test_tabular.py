"""Tabular features: what they are, and that they know nothing of what comes after prediction time."""

import datetime as dt

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedcore.features.representation import load, names
from fedcore.features.tabular import columns
from fedcore.samples import SiteSamples
from privacy.releases.sketches import merge
from sites.errors import InputError

ORIGIN = dt.datetime(2150, 1, 1)  # noqa: DTZ001 MEDS times have no zone
HEART_RATE, LACTATE, UNMAPPED = "LAB//220045//bpm", "LAB//50813//mmol/L", "LAB//999999//UNK"
HYPERTENSION, DIABETES = "DIAGNOSIS//ICD//9//4019", "DIAGNOSIS//ICD//10//E119"
TABULAR = load("tabular")


def at(*predictions):
    """Samples (subject, hours)."""
    rows = [(s, ORIGIN + dt.timedelta(hours=h)) for s, h in predictions]
    schema = {"subject_id": pl.Int64, "prediction_time": pl.Datetime("us")}
    return pl.DataFrame(rows, schema=schema, orient="row")


def as_samples(raw, predictions, site="boston", split="train"):
    n = predictions.height
    return SiteSamples(
        site=site,
        external=False,
        subject_id=predictions["subject_id"].to_numpy(),
        patient_id=predictions["subject_id"].to_numpy(),
        prediction_time=predictions["prediction_time"].to_numpy(),
        label=np.zeros(n, bool),
        split=np.full(n, split),
        raw=raw.arrays,
        names=raw.names,
    )


def shown(raw, row=0):
    """The features of a sample that are not missing and not zero, and its codes with their counts."""
    x = raw.arrays["x"][row]
    start, end = raw.arrays["codes.offsets"][row : row + 2]
    index, count = raw.arrays["codes.index"][start:end], raw.arrays["codes.count"][start:end]
    return {name: float(v) for name, v in zip(raw.names["x"], x, strict=True) if not np.isnan(v) and v != 0} | {
        raw.names["codes"][i]: float(c) for i, c in zip(index, count, strict=True)
    }


def test_the_features_of_a_small_record_by_hand(meds_site):
    site = meds_site(
        [(1, None, "GENDER//F"), (1, 0, "HOSPITAL_ADMISSION//URGENT//ED"), (1, 0, "AGE", 71.0), (1, -500, HYPERTENSION),
         (1, -400, HYPERTENSION), (1, 2, HEART_RATE, 80.0), (1, 4, HEART_RATE, 100.0), (1, 22, HEART_RATE, 90.0),
         (1, 5, LACTATE, 2.5), (1, 6, UNMAPPED, 5.0)]
    )  # fmt: skip
    t, v = np.array([2.0, 4, 22]), np.array([80.0, 100, 90])
    assert shown(TABULAR.extract(site.dataset, at((1, 24)), 24)) == pytest.approx(
        {
            "heart_rate.count": 3, "heart_rate.first": 80, "heart_rate.last": 90, "heart_rate.mean": 90,
            "heart_rate.min": 80, "heart_rate.max": 100, "heart_rate.slope": np.polyfit(t, v, 1)[0],
            "heart_rate.late_count": 1, "heart_rate.late_mean": 90, "heart_rate.late_min": 90,
            "heart_rate.late_max": 90, "lactate.count": 1, "lactate.first": 2.5, "lactate.last": 2.5,
            "lactate.mean": 2.5, "lactate.min": 2.5, "lactate.max": 2.5, "age": 71,
            "CCS_DX//98": 2, "HOSPITAL_ADMISSION//URGENT//ED": 1,
        },
        rel=1e-5,
    )  # fmt: skip


readings = st.lists(
    st.tuples(st.integers(1, 3), st.integers(-20, 200).map(lambda k: k / 4), st.integers(40, 160).map(float)),
    max_size=30,
    unique_by=lambda r: r[:2],
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=readings, when=st.lists(st.tuples(st.integers(1, 3), st.integers(0, 50)), min_size=1, max_size=5))
def test_features_are_what_a_plain_reading_of_each_window_finds(meds_site, data, when):
    site = meds_site([*((s, h, HEART_RATE, v) for s, h, v in data), *((s, 0, LACTATE, 1.0) for s in (1, 2, 3))])
    raw = TABULAR.extract(site.dataset, at(*when), 24)
    for row, (subject, hour) in enumerate(when):
        window = sorted((h, v) for s, h, v in data if s == subject and hour - 24 <= h <= hour)
        late = [v for h, v in window if h > hour - 6]
        found = dict(zip(raw.names["x"], raw.arrays["x"][row].astype(float), strict=True))
        values = [v for _, v in window]
        expected = {"count": len(window), "late_count": len(late)}
        if window:
            expected |= {"first": values[0], "last": values[-1], "mean": np.mean(values)}
            expected |= {"min": min(values), "max": max(values)}
        if late:
            expected |= {"late_mean": np.mean(late), "late_min": min(late), "late_max": max(late)}
        if len(window) > 1:
            expected["slope"] = np.polyfit(*np.array(window).T, 1)[0]
        hr = {name.split(".")[1]: v for name, v in found.items() if name.startswith("heart_rate.") and not np.isnan(v)}
        assert hr == pytest.approx(expected, rel=1e-4, abs=1e-4)


BEFORE = [
    (1, None, "GENDER//M"), (1, 0, "AGE", 71.0), (1, 0, "HOSPITAL_ADMISSION//URGENT//ED"), (1, 3, HEART_RATE, 80.0),
    (1, 24, HEART_RATE, 95.0), (1, 10, "MEDICATION//START//Heparin"), (1, -90, DIABETES), (1, 9, LACTATE, 2.0),
    (2, 1, HEART_RATE, 60.0), (2, 30, HEART_RATE, 61.0), (2, 35, HYPERTENSION),
]  # fmt: skip
LATER = [
    (1, 24 + 1e-5, HEART_RATE, 200.0), (1, 25, LACTATE, 20.0), (1, 24.5, DIABETES), (1, 60, "MEDS_DEATH"),
    (1, 60, "HOSPITAL_DISCHARGE//DIED"), (1, 60, HYPERTENSION), (1, 26, "AGE", 99.0), (1, 30, "BODY//WEIGHT", 80.0),
    (1, 61, "ICU_ADMISSION//MICU"), (2, 50, HEART_RATE, 10.0), (2, 50, "MEDICATION//START//Heparin"),
]  # fmt: skip


@pytest.mark.parametrize("name", names())
def test_no_event_after_prediction_time_reaches_a_feature(meds_site, name):
    # Subject 3 has every code once, so that both datasets know the same codes; it is nobody's sample.
    every = [(3, 0, *event[2:]) for event in LATER]
    predictions = at((1, 24), (2, 40))
    one = load(name).extract(meds_site([*BEFORE, *every]).dataset, predictions, 24)
    two = load(name).extract(meds_site([*BEFORE, *LATER, *every]).dataset, predictions, 24)
    assert one.names == two.names
    for key, array in one.arrays.items():
        np.testing.assert_array_equal(array, two.arrays[key])
    # ... and the test would notice: by a later prediction time the same events count.
    later = load(name).extract(meds_site([*BEFORE, *LATER, *every]).dataset, at((1, 62), (2, 62)), 62)
    assert any(not np.array_equal(later.arrays[k], a, equal_nan=True) for k, a in one.arrays.items())


@pytest.mark.parametrize("name", names())
def test_how_subjects_lie_in_shards_changes_no_feature(meds_site, name):
    predictions = at((2, 40), (1, 24), (2, 30))
    one = load(name).extract(meds_site(BEFORE).dataset, predictions, 24)
    two = load(name).extract(meds_site(BEFORE, shards=2).dataset, predictions, 24)
    for key, array in one.arrays.items():
        np.testing.assert_array_equal(array, two.arrays[key])


def test_both_ends_of_the_window_belong_to_it(meds_site):
    site = meds_site([(1, h, HEART_RATE, 80.0) for h in (9.99, 10, 34, 34.01)])
    assert shown(TABULAR.extract(site.dataset, at((1, 34)), 24))["heart_rate.count"] == 2


def test_a_discharge_diagnosis_counts_from_the_next_stay_on(meds_site):
    site = meds_site([(1, 0, "HOSPITAL_ADMISSION//URGENT//ED"), (1, 90, DIABETES), (1, 500, HEART_RATE, 80.0)])
    raw = TABULAR.extract(site.dataset, at((1, 24), (1, 524)), 24)
    assert "CCS_DX//49" not in shown(raw, 0)
    assert shown(raw, 1)["CCS_DX//49"] == 1


def test_age_is_that_of_the_stay_and_else_the_time_since_birth_and_at_most_90(meds_site):
    year = 365.25 * 24
    site = meds_site(
        [(1, 0, "AGE", 50.0), (1, 8760, "AGE", 51.0), (2, -60 * year, "MEDS_BIRTH"), (3, -300 * year, "MEDS_BIRTH"),
         (4, -70 * year, "MEDS_BIRTH"), (4, 0, "AGE", 90.0), (5, 0, HEART_RATE, 80.0)]
    )  # fmt: skip
    raw = TABULAR.extract(site.dataset, at((1, 24), (1, 9000), (2, 24), (3, 24), (4, 24), (5, 24)), 24)
    age = raw.arrays["x"][:, raw.names["x"].index("age")]
    np.testing.assert_allclose(age, [50, 51, 60, 90, 90, np.nan], atol=0.01)


def test_readings_minutes_apart_make_no_slope(meds_site):
    site = meds_site([(1, 5, HEART_RATE, 80.0), (1, 5.05, HEART_RATE, 90.0)])
    assert "heart_rate.slope" not in shown(TABULAR.extract(site.dataset, at((1, 24)), 24))


# What the sites agree on.


def hospital(meds_site, name, seed, n=40, codes=(HYPERTENSION,)):
    rng = np.random.default_rng(seed)
    rows = [(s, 0, "AGE", float(rng.integers(20, 80))) for s in range(n)]
    rows += [(s, float(h), HEART_RATE, float(rng.normal(80, 10))) for s in range(n) for h in range(0, 24, 6)]
    rows += [(s, 4, LACTATE, float(rng.lognormal())) for s in range(0, n, 2)]
    rows += [(s, -5, code) for s in range(0, n, 2) for code in codes]
    rows += [(1, -5, "DIAGNOSIS//ICD//9//27700")]  # cystic fibrosis: one patient
    site = meds_site(rows, name=name, shards=2)
    predictions = at(*((s, 24) for s in range(n)))
    return as_samples(TABULAR.extract(site.dataset, predictions, 24), predictions, name)


@pytest.mark.parametrize("name", names())
def test_the_merge_of_sites_sketches_is_the_sketch_of_their_samples_brought_together(meds_site, name):
    sites = []
    for k, codes in enumerate([(HYPERTENSION,), (DIABETES, HYPERTENSION), (DIABETES,)]):
        rows = [(s, 4 + s % 3, HEART_RATE, 70.0 + s + k) for s in range(12)] + [
            (s, -5, c) for s in range(12) for c in codes
        ]
        rows += [(s, 7, LACTATE, 1.0 + s) for s in range(0, 12, 2)]
        predictions = at(*((s, 24) for s in range(12)))
        sites.append(as_samples(load(name).extract(meds_site(rows).dataset, predictions, 24), predictions, f"h{k}"))
    merged = merge([load(name).sketch(site, minimum=1) for site in sites])
    pooled = merge([load(name).sketch(SiteSamples.concatenate(sites), minimum=1)])
    assert set(merged) == set(pooled)
    for key, sketch in merged.items():
        for field, array in sketch.to_arrays().items():
            np.testing.assert_allclose(array, pooled[key].to_arrays()[field], rtol=1e-9, err_msg=f"{key}.{field}")
    one, two = load(name).agree(merged), load(name).agree(pooled)
    assert (one.columns, one.vocabulary, one.sizes) == (two.columns, two.vocabulary, two.sizes)
    # Encoding each site and encoding all together is the same.
    together = load(name).encode(SiteSamples.concatenate(sites), two)
    for key, array in together.items():
        apart = np.concatenate([load(name).encode(site, one)[key] for site in sites])
        np.testing.assert_allclose(apart, array, atol=1e-5, err_msg=key)


def test_a_code_of_fewer_patients_than_the_minimum_never_leaves(meds_site):
    sketches = TABULAR.sketch(hospital(meds_site, "a", 0))
    assert sketches["codes"].names == ("CCS_DX//98",)
    assert min(sketches["codes"].counts) >= 10
    assert "sex" not in sketches["columns"].names  # nobody's is known


def test_the_sum_of_a_flag_never_counts_fewer_patients_than_the_minimum(meds_site):
    rows = [(s, 0, "GENDER//M" if s < 4 else "GENDER//F") for s in range(40)]
    rows += [(s, 3, LACTATE, 1.0 + s) for s in range(35)] + [(s, 3, HEART_RATE, 70.0 + s) for s in range(20)]
    predictions = at(*((s, 24) for s in range(40)))
    samples = as_samples(TABULAR.extract(meds_site(rows).dataset, predictions, 24), predictions)
    released = set(TABULAR.sketch(samples)["columns"].names)
    assert released.isdisjoint({"sex", "lactate.missing"})  # 4 men; 5 without lactate
    assert {"heart_rate.missing", "lactate.mean"} <= released
    assert {"sex", "lactate.missing"} <= set(TABULAR.sketch(samples, minimum=4)["columns"].names)


def test_how_often_one_patient_was_measured_stays_at_the_site(meds_site):
    rows = [(s, 3, HEART_RATE, 70.0 + s) for s in range(40)] + [(0, h, LACTATE, 2.0) for h in (2, 3, 4)]
    predictions = at(*((s, 24) for s in range(40)))
    samples = as_samples(TABULAR.extract(meds_site(rows).dataset, predictions, 24), predictions)
    released = set(TABULAR.sketch(samples)["columns"].names)
    assert "heart_rate.mean" in released
    assert released.isdisjoint({"lactate.count", "lactate.missing", "lactate.mean"})


def test_encoded_columns_are_standardised_over_the_training_samples(meds_site):
    sites = [hospital(meds_site, "a", 0), hospital(meds_site, "b", 1, codes=(DIABETES,))]
    space = TABULAR.agree(merge([TABULAR.sketch(site) for site in sites]))
    assert space == space.from_json(space.to_json())
    x = np.concatenate([TABULAR.encode(site, space)["x"] for site in sites])
    assert x.dtype == np.float32
    assert x.shape == (80, space.sizes["x"])
    assert np.all(np.isfinite(x))
    age = x[:, space.columns.index("age")]
    assert age.mean() == pytest.approx(0, abs=0.05)
    assert age.std() == pytest.approx(1, abs=0.05)
    lactate, missing = (x[:, space.columns.index(c)] for c in ("lactate.last", "lactate.missing"))
    assert np.all(lactate[missing > 0] == 0)
    assert (missing > 0).sum() == 40
    codes = x[:, len(space.columns) :]
    assert space.vocabulary == ("CCS_DX//49", "CCS_DX//98")
    np.testing.assert_allclose(codes.sum(0), [20 * np.log(2)] * 2, rtol=1e-5)


def test_only_a_site_of_many_patients_tells_of_its_tails(meds_site):
    small, large = hospital(meds_site, "a", 0), hospital(meds_site, "b", 0, n=420)
    assert TABULAR.sketch(small)["grid"].names == ()
    assert {"age", "heart_rate.mean"} <= set(TABULAR.sketch(large)["grid"].names)
    assert "lactate.mean" not in TABULAR.sketch(large)["grid"].names  # half of them have it
    space = TABULAR.agree(merge([TABULAR.sketch(small), TABULAR.sketch(large)]))
    limits = dict(zip(space.columns, zip(space.low, space.high, strict=True), strict=True))
    assert 50 < limits["heart_rate.mean"][0] < limits["heart_rate.mean"][1] < 110
    assert limits["lactate.mean"][0] < 0


def test_a_site_that_charts_nothing_has_its_codes(meds_site):
    rows = [(s, -5, code) for s in range(30) for code in (HYPERTENSION, DIABETES) if (s % 2) or code == DIABETES]
    predictions = at(*((s, 24) for s in range(30)))
    samples = as_samples(TABULAR.extract(meds_site(rows, concepts="omop").dataset, predictions, 24), predictions)
    space = TABULAR.agree(TABULAR.sketch(samples))
    assert space.columns == ()
    assert TABULAR.encode(samples, space)["x"].shape == (30, 2)


def test_sites_too_small_for_any_agreement_get_a_sentence(meds_site):
    with pytest.raises(InputError, match="no site has enough training patients"):
        TABULAR.agree(TABULAR.sketch(hospital(meds_site, "a", 0, n=4)))


def test_an_unknown_representation_gets_the_names_there_are():
    assert names() == ["sequence", "series", "tabular"]
    with pytest.raises(InputError, match="expected one of sequence, series, tabular"):
        load("images")


def test_no_two_columns_have_one_name():
    assert len({c.name for c in columns()}) == len(columns())
