"""Cohorts: ACES' answer equals a plain reading of the definition, whatever the shards, and every exclusion counts."""

import datetime as dt
import logging

import polars as pl
import pytest
from aces.predicates import get_predicates_df
from aces.query import query
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig

from fedcore import cohort as cohort_module
from fedcore.cohort import CannotServe, NoSamples, build_cohort, load_task, tasks
from fedcore.samples import SAMPLE_SCHEMA
from fedcore.task import extractor

ORIGIN = dt.datetime(2150, 1, 1)  # noqa: DTZ001 MEDS times have no zone
IN, OUT = "HOSPITAL_ADMISSION//URGENT//ED", "HOSPITAL_DISCHARGE//HOME"
ICU, LEFT = "ICU_ADMISSION//MICU", "ICU_DISCHARGE//MICU"
DEATH = "MEDS_DEATH"
FIRST_24H = "mortality/in_hospital/first_24h"


def stay(subject, admitted, icu, left, out, died=None):
    rows = [(subject, admitted, IN), (subject, icu, ICU), (subject, left, LEFT), (subject, out, OUT)]
    return rows if died is None else [*rows, (subject, died, DEATH)]


def found(site, name):
    """(subject, hours of the prediction time, label) of each sample."""
    samples = build_cohort(site, load_task(name)).samples
    hours = (samples["prediction_time"] - ORIGIN).dt.total_seconds() / 3600
    return list(zip(samples["subject_id"], hours, samples["label"], strict=True))


# A plain reading of the definitions, over the distinct times of one subject's events: {hour: set of codes}.


def in_hospital(record, hours, trigger_code, leaves):
    for t in sorted(record):
        if trigger_code not in record[t]:
            continue
        if any(t < u <= t + hours and record[u] & leaves for u in record):
            continue
        ends = [u for u in sorted(record) if u > t + hours and record[u] & {OUT, DEATH}]
        if not ends or any(t + hours < u < ends[0] and IN in record[u] for u in record):
            continue
        yield t + hours, DEATH in record[ends[0]]


def in_icu(record):
    for t in sorted(record):
        if ICU not in record[t] or any(t < u <= t + 48 and record[u] & {ICU, LEFT, DEATH} for u in record):
            continue
        ends = [u for u in sorted(record) if u > t + 48 and record[u] & {LEFT, DEATH}]
        if ends:
            yield t + 24, DEATH in record[ends[0]]


READINGS = {
    FIRST_24H: lambda r: in_hospital(r, 24, ICU, {LEFT, OUT, DEATH}),
    "mortality/in_hospital/first_48h": lambda r: in_hospital(r, 48, ICU, {LEFT, OUT, DEATH}),
    "mortality/in_hospital/admission_24h": lambda r: in_hospital(r, 24, IN, {OUT, DEATH}),
    "mortality/in_icu/first_24h": in_icu,
}

# Half a day is the step, so that events fall exactly on the borders of windows, and several on one time.
events = st.lists(
    st.tuples(
        st.integers(1, 3), st.integers(0, 14).map(lambda k: 12.0 * k), st.sampled_from([IN, OUT, ICU, LEFT, DEATH])
    ),
    max_size=24,
)


@pytest.mark.parametrize("name", sorted(READINGS))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=events, shards=st.integers(1, 3))
def test_a_cohort_is_what_a_plain_reading_of_the_definition_finds(meds_site, name, data, shards):
    # A fourth subject has every event, so that the site can serve each task.
    data = [*data, *stay(4, 0, 0, 120, 132)]
    site = meds_site(data, shards=shards)
    expected = []
    for subject in range(1, 5):
        record: dict[float, set[str]] = {}
        for _, hour, code in (e for e in data if e[0] == subject):
            record.setdefault(hour, set()).add(code)
        expected += [(subject, hour, label) for hour, label in READINGS[name](record)]
    assert found(site, name) == sorted(expected)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=events, shards=st.integers(1, 3))
def test_attrition_never_grows_and_ends_at_the_cohort(meds_site, data, shards):
    site = meds_site([*data, *stay(4, 0, 0, 120, 132)], shards=shards)
    for name in (name for name in tasks() if name.startswith("mortality/")):
        cohort = build_cohort(site, load_task(name))
        counts = [(a.samples, a.patients) for a in cohort.attrition]
        assert counts == sorted(counts, reverse=True)
        last = cohort.attrition[-1]
        assert (last.samples, last.positives) == (cohort.samples.height, cohort.samples["label"].sum())
        assert last.patients == cohort.samples["patient_id"].n_unique()
        assert cohort.attrition[0].samples == len({e[:2] for e in (*data, *stay(4, 0, 0, 120, 132)) if e[2] == (
            IN if "admission" in name else ICU)})  # fmt: skip


def test_each_exclusion_is_counted_at_its_step(meds_site):
    site = meds_site(
        [
            *stay(1, 0, 1, 100, 120),  # a survivor
            *stay(2, 0, 1, 100, 100, died=100),  # death and discharge at one time
            *stay(3, 0, 1, 20, 120),  # leaves the ICU before 24 h
            *stay(4, 0, 1, 25, 120),  # leaves it exactly at 24 h
            *stay(5, 0, 1, 30, 20),  # leaves the hospital first
            *stay(6, 0, 1, 100, 120, died=10),
            *stay(7, 0, 1, 100, 120)[:3],  # the end of the stay is missing
            *[*stay(8, 0, 1, 100, 120)[:3], (8, 200, IN), (8, 220, DEATH)],  # missing, and death in the next stay
            *[*stay(9, 0, 1, 100, 120), (9, 120, "OUTCOME_UNKNOWN")],
            (10, 5, ICU), *stay(10, 0, 5, 100, 120),  # the same admission twice
        ],
        shards=3,
    )  # fmt: skip
    cohort = build_cohort(site, load_task(FIRST_24H))
    assert [(a.step, a.samples, a.positives) for a in cohort.attrition] == [
        ("icu_admission events, one for each patient and time", 10, None),
        ("still in the ICU at 24 h", 8, None),
        ("still in the hospital at 24 h", 7, None),
        ("alive at 24 h", 6, None),
        ("end of the hospital stay is recorded", 5, None),
        ("no other hospital admission before this stay ends", 4, None),
        ("the outcome of the hospital stay is known", 3, 1),
    ]
    assert found(site, FIRST_24H) == [(1, 25, False), (2, 25, True), (10, 29, False)]
    assert dict(cohort.samples.schema) == dict(SAMPLE_SCHEMA)


def test_a_transfer_that_admits_as_the_stay_ends_is_no_exclusion(meds_site):
    site = meds_site([*stay(1, 0, 1, 100, 120), *stay(1, 120, 121, 170, 180, died=180)])
    assert found(site, FIRST_24H) == [(1, 25, False), (1, 145, True)]


def test_patients_of_several_subjects_count_once(meds_site):
    site = meds_site([*stay(1, 0, 1, 100, 120), *stay(2, 0, 1, 100, 120)], patients={1: 7, 2: 7})
    cohort = build_cohort(site, load_task(FIRST_24H))
    assert [a.patients for a in cohort.attrition] == [1] * len(cohort.attrition)
    assert cohort.samples["patient_id"].to_list() == [7, 7]


def test_the_same_shard_twice_gives_the_same_samples(meds_site):
    rows = [row for s in range(1, 40) for row in stay(s, 0, 1, 20 + s, 60 + s, died=60 + s if s % 3 == 0 else None)]
    site = meds_site(rows)
    task = load_task(FIRST_24H)
    first = build_cohort(site, task)
    for _ in range(4):
        assert build_cohort(site, task).samples.equals(first.samples)
    assert first.samples.height == 34


def test_only_the_sites_own_subjects_count(meds_site):
    site = meds_site([*stay(1, 0, 1, 100, 120), *stay(2, 0, 1, 100, 120)])
    site.subjects = site.subjects.filter(pl.col("subject_id") == 2)
    assert [s for s, *_ in found(site, FIRST_24H)] == [2]


EVERY_KIND_OF_PREDICATE = """
predicates:
  admission: {code: {regex: "^HOSPITAL_ADMISSION//"}}
  discharge: {code: {regex: "^HOSPITAL_DISCHARGE//"}}
  lactate: {code: LAB//50813//mmol/L}
  high: {code: LAB//50813//mmol/L, value_min: 4, value_min_inclusive: False}
  either: {expr: "or(discharge, high)"}
patient_demographics:
  male: {code: GENDER//M}
trigger: admission
windows:
  input:
    start: NULL
    end: trigger + 24h
    start_inclusive: True
    end_inclusive: True
    index_timestamp: end
    has: {_ANY_EVENT: "(3, None)", lactate: "(1, None)"}
  target:
    start: input.end
    end: start + 48h
    start_inclusive: False
    end_inclusive: True
    label: high
  seen_later:
    start: target.end
    end: NULL
    start_inclusive: False
    end_inclusive: True
    has: {_ANY_EVENT: "(1, None)"}
"""
lab = st.tuples(st.integers(1, 4), st.integers(0, 12).map(lambda k: 12.0 * k), st.just("LAB//50813//mmol/L"),
                st.sampled_from([1.0, 4.0, 6.0]))  # fmt: skip
other = st.tuples(
    st.integers(1, 4), st.integers(0, 14).map(lambda k: 12.0 * k), st.sampled_from([IN, OUT, "LAB//1//UNK"])
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.lists(st.one_of(lab, other), max_size=40), men=st.sets(st.integers(1, 5)))
def test_aces_finds_the_same_in_what_it_is_handed_as_in_all_events(meds_site, tmp_path, data, men):
    data = [*data, (5, 0, IN), *[(5, 12.0 * k, "LAB//50813//mmol/L", 5.0) for k in range(1, 12)]]
    site = meds_site([*data, *((s, None, "GENDER//M") for s in men), (9, None, "GENDER//M"), (9, 0, "LAB//1//UNK")])
    (path := tmp_path / "any.yaml").write_text(EVERY_KIND_OF_PREDICATE)
    task = load_task(path)
    where = DictConfig({"path": str(site.dataset.shards[0]), "standard": "MEDS", "ts_format": None})
    logging.getLogger("aces").setLevel(logging.ERROR)
    everything = get_predicates_df(extractor(task.filled("mimic4")), where)
    expected = query(extractor(task.filled("mimic4")), everything)
    if expected.is_empty():
        with pytest.raises(CannotServe):
            build_cohort(site, task)
        return
    samples = build_cohort(site, task).samples
    assert samples.select("subject_id", "prediction_time", "label").rows() == sorted(
        (s, t, n > 0) for s, t, n in expected.select("subject_id", "index_timestamp", "label").rows()
    )


def test_no_more_than_the_batch_is_handed_to_aces_at_once(meds_site, monkeypatch):
    rows = [
        row for s in range(1, 40) for row in [*stay(s, 0, 1, 100, 120), *((s, h, "LAB//1//UNK") for h in range(90))]
    ]
    site = meds_site(rows, shards=4)
    handed = []
    run = cohort_module._run
    monkeypatch.setattr(cohort_module, "BATCH", 100)
    monkeypatch.setattr(cohort_module, "_run", lambda batch, steps: handed.append(batch.height) or run(batch, steps))
    assert build_cohort(site, load_task(FIRST_24H)).samples.height == 39
    assert len(handed) == 4
    assert max(handed) == 60  # of 10 subjects 4 events each, and the first and last time


def test_a_site_without_the_events_is_skipped_with_a_sentence(meds_site):
    ward = meds_site([(1, 0, IN), (1, 100, OUT)], name="ward", kind="omop")
    with pytest.raises(CannotServe, match=r"Site ward cannot serve .*first_24h: the task starts from 'icu_admission'"):
        build_cohort(ward, load_task(FIRST_24H))
    assert found(ward, "mortality/in_hospital/admission_24h") == [(1, 24, False)]
    # Without discharges all that ever ends a stay is death: every label would be positive.
    deaths = meds_site([(1, 0, ICU), (1, 100, DEATH)])
    for name in (FIRST_24H, "mortality/in_icu/first_24h"):
        with pytest.raises(CannotServe, match=r"waits for '(hospital|icu)_discharge'"):
            build_cohort(deaths, load_task(name))


def test_a_site_whose_triggers_are_all_excluded_says_where_they_went(meds_site):
    with pytest.raises(NoSamples, match=r"of 1 triggers none .* 'still in the ICU at 24 h'") as error:
        build_cohort(meds_site(stay(1, 0, 1, 20, 120)), load_task(FIRST_24H))
    assert [a.samples for a in error.value.attrition] == [1, 0, 0, 0, 0, 0]
    site = meds_site([*stay(1, 0, 1, 100, 120), (2, 0, IN), (2, 30, OUT)])
    site.subjects = site.subjects.filter(pl.col("subject_id") == 2)
    with pytest.raises(CannotServe, match="none of its 1 subjects has an event 'icu_admission'"):
        build_cohort(site, load_task(FIRST_24H))


def test_a_ward_where_nobody_died_is_served(meds_site):
    assert build_cohort(meds_site(stay(1, 0, 1, 100, 120)), load_task(FIRST_24H)).attrition[-1].positives == 0


def test_physionet_2012_serves_its_flag_at_48_hours(meds_site):
    late = 48 + 1 / 60
    site = meds_site(
        [(1, 0, IN), (1, 0, ICU), (1, 48, "LAB//HR//UNK", 80.0), (1, late, "HOSPITAL_DISCHARGE//UNK"), (1, late, DEATH),
         (2, 0, IN), (2, 0, ICU), (2, late, "HOSPITAL_DISCHARGE//UNK")],
        kind="physionet2012",
    )  # fmt: skip
    assert found(site, "mortality/in_hospital/first_48h") == [(1, 48, True), (2, 48, False)]
    with pytest.raises(CannotServe, match="outcome has no time"):
        build_cohort(site, load_task(FIRST_24H))
