"""Prepared samples: made once, whole or not at all, and made anew when anything they depend on changes."""

import dataclasses
import time

import numpy as np
import polars as pl
import pytest

from fedcore import prepare as prepare_module
from fedcore.cohort import CannotServe, NoSamples, load_task
from fedcore.features import tabular
from fedcore.prepare import prepare, prepared_cohort
from sites.splits import assign

TASK = "mortality/in_hospital/first_24h"


def rows(n=30, out=100):
    for s in range(n):
        yield from [
            (s, 0, "HOSPITAL_ADMISSION//URGENT//ED"), (s, 1, "ICU_ADMISSION//MICU"),
            (s, out - 1, "ICU_DISCHARGE//MICU"), (s, out, "HOSPITAL_DISCHARGE//HOME"),
            (s, 5, "LAB//220045//bpm", 60.0 + s), (s, 0, "AGE", 40.0 + s),
        ]  # fmt: skip
        if s % 5 == 0:
            yield (s, out, "MEDS_DEATH")


@pytest.fixture
def extractions(monkeypatch):
    """How often features were extracted."""
    calls = []
    extract = tabular.REPRESENTATION.extract
    monkeypatch.setattr(tabular.REPRESENTATION, "extract", lambda *a: calls.append(1) or extract(*a), raising=True)
    return calls


@pytest.mark.parametrize("name", ["tabular", "series", "sequence"])
def test_what_is_found_on_disk_is_what_was_made(meds_site, name):
    site = meds_site(rows())
    first = prepare(site, load_task(TASK), name, 0)
    again = prepare(site, load_task(TASK), name, 0)
    assert again.cohort.samples.equals(first.cohort.samples)
    assert again.cohort.attrition == first.cohort.attrition
    assert (again.cohort_sha256, again.splits_sha256) == (first.cohort_sha256, first.splits_sha256)
    assert len(first.samples) == 30
    assert first.samples.label.sum() == 6
    for key, array in first.samples.raw.items():
        np.testing.assert_array_equal(array, again.samples.raw[key])
    assert first.samples.names == again.samples.names


def test_a_second_call_extracts_nothing_and_takes_milliseconds(meds_site, extractions):
    site, task = meds_site(rows()), load_task(TASK)
    prepare(site, task, "tabular", 0)
    start = time.perf_counter()
    prepare(site, task, "tabular", 1)
    assert time.perf_counter() - start < 0.25
    assert len(extractions) == 1


def test_the_split_is_by_patient_and_seed_and_no_part_of_what_is_kept(meds_site, extractions):
    site, task = meds_site(rows(), patients={1: 0}), load_task(TASK)
    one, two = (prepare(site, task, "tabular", seed) for seed in (0, 1))
    assert one.samples.split.tolist() == assign(one.samples.patient_id, 0).tolist()
    assert one.samples.split[0] == one.samples.split[1]
    assert one.splits_sha256 != two.splits_sha256
    assert one.cohort_sha256 == two.cohort_sha256
    assert len(extractions) == 1


def test_an_external_site_is_all_held_out(meds_site):
    site = meds_site(rows())
    site.external = True
    assert set(prepare(site, load_task(TASK), "tabular", 0).samples.split) == {"held_out"}


def test_other_data_subjects_tasks_or_code_are_made_anew(meds_site, extractions, monkeypatch, tmp_path):
    site, task = meds_site(rows()), load_task(TASK)
    first = prepare(site, task, "tabular", 0)
    prepare(meds_site(rows(), content="1" * 64), task, "tabular", 0)
    assert len(extractions) == 2
    half = dataclasses.replace(site, subjects=site.subjects.filter(pl.col("subject_id") < 15))
    assert len(prepare(half, task, "tabular", 0).samples) == 15
    assert len(extractions) == 3
    path = tmp_path / "own.yaml"
    path.write_text(task.path.read_text().replace("trigger + 24h", "trigger + 12h"))
    assert prepare(site, load_task(path), "tabular", 0).cohort_sha256 != first.cohort_sha256
    assert len(extractions) == 4
    monkeypatch.setattr(prepare_module, "fingerprint", lambda module: f"changed {module}")
    prepare(site, task, "tabular", 0)
    assert len(extractions) == 5


def test_an_interrupted_extraction_leaves_nothing_and_can_be_repeated(meds_site, home, monkeypatch):
    site, task = meds_site(rows()), load_task(TASK)
    with monkeypatch.context() as patch:
        patch.setattr(np, "save", lambda *_a, **_k: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prepare(site, task, "tabular", 0)
    assert list((home / "features").iterdir()) == []
    assert len(prepare(site, task, "tabular", 0).samples) == 30


def test_a_refusal_is_kept_as_well_and_names_the_site_that_asks(meds_site, monkeypatch):
    ward = meds_site([(1, 0, "HOSPITAL_ADMISSION//URGENT//ED")], name="ward")
    short = meds_site(rows(out=20), name="short")
    for site, kind, words in (
        (ward, CannotServe, "starts from 'icu_admission'"),
        (short, NoSamples, "of 30 triggers none"),
    ):
        with pytest.raises(kind, match=words) as first:
            prepared_cohort(site, load_task(TASK))
        with monkeypatch.context() as patch:
            patch.setattr(prepare_module, "build_cohort", None)
            with pytest.raises(kind) as again:
                prepared_cohort(dataclasses.replace(site, name="other"), load_task(TASK))
        assert str(again.value) == str(first.value).replace(f"Site {site.name}", "Site other")
        if kind is NoSamples:
            assert again.value.attrition == first.value.attrition


def test_patient_data_lies_only_under_home(meds_site, home, tmp_path):
    before = {p for p in tmp_path.rglob("*") if not p.is_relative_to(home)}
    site = meds_site(rows())
    made = {p for p in tmp_path.rglob("*") if not p.is_relative_to(home)} - before
    prepare(site, load_task(TASK), "tabular", 0)
    assert {p for p in tmp_path.rglob("*") if not p.is_relative_to(home)} - before == made
    assert (home / "features").stat().st_mode & 0o077 == 0
