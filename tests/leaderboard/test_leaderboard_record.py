"""A record is evidence: closed, finite, hashed, and wrong ones are refused with a sentence."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from leaderboard.canonical import sha256_of
from leaderboard.measured import Release, Training
from leaderboard.metric import Interval, Metric, Scope
from leaderboard.record import (
    RecordError,
    Spec,
    canonical_json,
    cell_id,
    json_schema,
    new_run_id,
    parse,
    record_sha256,
    result_sha256,
    training_id,
)
from leaderboard.spec import PrivacyPlan

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def spoil(changed: dict[str, Any], path: str, value: Any) -> bytes:
    """The record's JSON with one field changed; `path` as data.sites.0.n_pos."""
    *parents, last = path.split(".")
    at: Any = changed
    for part in parents:
        at = at[int(part)] if isinstance(at, list) else at[part]
    at[int(last) if isinstance(at, list) else last] = value
    return json.dumps(changed).encode()


@settings(deadline=None)
@given(json_values)
def test_canonical_json_reads_back_as_it_was_and_spells_it_the_same_again(value):
    spelled = canonical_json(value)
    assert spelled.endswith(b"\n")
    again = json.loads(spelled)
    assert again == value
    assert canonical_json(again) == spelled


@settings(deadline=None)
@given(st.dictionaries(st.text(), json_values, max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_keys_changes_no_byte(value, random):
    items = list(value.items())
    random.shuffle(items)
    assert canonical_json(dict(items)) == canonical_json(value)


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"a": [0.0, math.nan]}, "a[1] is nan"),
        ({"a": {"b": math.inf}}, "a.b is inf"),
        ({"a": {1: 2}}, "a has the key 1"),
        ({"a": {1, 2}}, "a is a builtins.set"),
        ({"a": "\ud800"}, "a is '\\ud800'"),
    ],
)
def test_what_json_cannot_hold_is_named_by_its_path(value, where):
    with pytest.raises(RecordError) as error:
        canonical_json(value)
    assert where in str(error.value)


def test_nan_in_a_models_configuration_is_named_by_its_path(make_spec):
    config = {"lr": [0.1, math.nan]}
    spec = make_spec()
    broken = spec.model_copy(update={"model": spec.model.model_copy(update={"config": config})})
    with pytest.raises(RecordError, match=r"model\.config\.lr\[1\] is nan"):
        cell_id(broken)


def test_a_record_reads_back_byte_for_byte(make_record):
    record = make_record()
    data = canonical_json(record)
    assert parse(data, "r.json") == record
    assert canonical_json(parse(data, "r.json")) == data


def test_record_hash_is_the_sha256_of_the_canonical_body_without_it(make_record, make_body):
    record = make_record()
    rest = {key: value for key, value in make_body().items() if key != "record_sha256"}
    text = json.dumps(rest, sort_keys=True, ensure_ascii=False, indent=1) + "\n"
    assert record.record_sha256 == record_sha256(record) == hashlib.sha256(text.encode()).hexdigest()


def test_another_day_machine_and_run_is_the_same_result(make_record):
    one = make_record()
    other = make_record(run_id=new_run_id(), cpu="another cpu", wall_s=99.0)
    assert one.record_sha256 != other.record_sha256
    assert result_sha256(one) == result_sha256(other)


@pytest.mark.parametrize(
    "change",
    [
        {"value": 0.81},
        {"code_fingerprint": "other"},
        {"seed": 9},
        {"training": Training(selection="declared defaults: 3 patients")},
        {"releases": [Release(what="code counts", where="boston", public="no patient has a count of their own")]},
        {"status": "failed"},
    ],
)
def test_whatever_was_found_or_asked_changes_the_result_hash(change, make_record, make_spec):
    if "seed" in change:
        change = {"spec": make_spec(**change)}
    assert result_sha256(make_record(**change)) != result_sha256(make_record())


def test_cell_id_is_of_what_was_asked_and_not_of_the_order_of_sites(make_record, make_spec):
    spec = make_spec()
    turned = Spec.model_validate({**dict(spec), "sites": tuple(reversed(spec.sites))})
    assert cell_id(turned) == cell_id(spec) == make_record().cell_id
    assert cell_id(make_spec(seed=1)) != cell_id(spec)
    assert cell_id(make_spec(content="e" * 64)) != cell_id(spec)


def test_another_evaluation_is_another_cell_of_the_same_training(make_spec):
    one, other = make_spec(), make_spec(metrics=("auroc", "ici"))
    assert cell_id(one) != cell_id(other)
    assert training_id(one) == training_id(other)
    assert training_id(make_spec(seed=1)) != training_id(one)


def test_a_run_id_is_a_ulid_that_sorts_by_time():
    early, late = new_run_id(1_000_000_000_000), new_run_id(1_000_000_000_001)
    assert early < late
    assert len(early) == 26
    assert len({new_run_id(5) for _ in range(50)}) == 50
    assert new_run_id(0)[:10] == "0" * 10
    assert new_run_id(2**48 - 1).startswith("7ZZZZZZZZZ")


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("status", "done", "`status`"),
        ("status", "failed", "`error` must say why"),
        ("error", {"kind": "X", "message": "y"}, "`error` must be null"),
        ("metrics", [], "`metrics` must be there"),
        ("data", None, "`data` must be there"),
        ("colour", "red", "`colour`"),
        ("run_id", "../../etc/passwd", "`run_id`"),
        ("cell_id", "0" * 64, "the hash of `spec`"),
        ("metrics.0.value", "0.8", "`metrics[0].value`"),
        ("metrics.0.value", None, "`value` is null if and only if"),
        ("metrics.0.value", 0.99, "lies outside its interval"),
        ("metrics.0.flags", ["value-outside-interval"], "must not stand in `flags`"),
        ("metrics.0.suppressed", "too few", "`value` is null if and only if"),
        ("metrics.0.ci", None, "`ci` is null if and only if"),
        ("metrics.0.ci.low", 0.9, "is above `high`"),
        ("metrics.0.n_pos", 1_000, "`n_pos` 1000 is above `n` 200"),
        ("metrics.0.n", 1.5, "`metrics[0].n`"),
        ("metrics.0.direction", "up", "`metrics[0].direction`"),
        ("metrics.0.scope.kind", "n-weighted", "`metrics[0].scope.kind`"),
        ("metrics.0.scope.id", "boston", "has no `id`"),
        ("data.data_kind", "real", "its least real site is 'demo'"),
        ("data.sites.0.n_pos", 10_000, "`n_pos` 10000 is above `n_samples`"),
        ("predictions.released", True, "`predictions.released`"),
        ("spec.suite.name", "../up", "`spec.suite.name`"),
        ("spec.sites.1.name", "boston", "'boston' stands twice"),
        ("provenance.started_at", "yesterday", "`provenance.started_at`"),
        ("releases.0.public", "also public", "either an `epsilon` or a `public`"),
    ],
)
def test_a_wrong_record_is_refused_with_the_file_and_the_field(path, value, said, make_body):
    with pytest.raises(RecordError) as error:
        parse(spoil(make_body(), path, value), "results/x.json")
    assert str(error.value).startswith("results/x.json: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_metric_cannot_stand_twice(make_body):
    metrics = make_body()["metrics"]
    with pytest.raises(RecordError, match="auroc of scope pooled stands twice"):
        parse(spoil(make_body(), "metrics", [*metrics, metrics[0]]), "x")


def test_a_record_of_before_a_field_was_added_is_still_intact(make_body):
    body = make_body()
    del body["training"]["skipped"]
    body["record_sha256"] = sha256_of({key: value for key, value in body.items() if key != "record_sha256"})
    assert parse(canonical_json(body), "older.json").training.skipped == ()


def test_a_changed_value_no_longer_fits_the_record_hash(make_body):
    data = spoil(make_body(), "metrics.0.value", 0.8000001)
    with pytest.raises(RecordError, match="changed after it was written"):
        parse(data, "x.json")
    assert parse(data, "x.json", intact=False).metrics[0].value == 0.8000001


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not readable as JSON"),
        (b'{"schema": "fedward.result/3", "a": NaN}', "NaN is not JSON"),
        (b'{"schema": "fedward.result/3", "schema": "x"}', "the key 'schema' stands twice"),
        (b"[1]", "expected an object"),
        (b"\xff\xfe", "not readable as JSON"),
        (b"[" * 100_000, "not readable as JSON"),
        (b'{"schema": "fedward.result/7"}', "'fedward.result/7'"),
        (b'{"schema": ["fedward.result/3"]}', "this version reads"),
    ],
)
def test_what_is_no_record_is_said_to_be_none(data, said):
    with pytest.raises(RecordError) as error:
        parse(data, "x.json")
    assert said in str(error.value)


def test_a_failed_cell_says_why_and_has_no_numbers(make_record):
    record = make_record(status="failed")
    assert record.error is not None
    assert record.error.message
    assert record.metrics == ()
    assert parse(canonical_json(record), "x") == record


def test_the_worst_site_is_the_same_metric_whichever_site_it_is():
    common = {"name": "auroc", "direction": "max", "unit": "1", "n": 9, "n_pos": 2, "n_patients": 9}
    quiet = {"value": None, "suppressed": "9 patients", "estimator": "exact"}
    a, b = (Metric(**common, **quiet, scope=Scope(kind="worst-site", id=site)) for site in ("a", "b"))
    assert a.key == b.key
    c, d = (Metric(**common, **quiet, scope=Scope(kind="site", id=site)) for site in ("a", "b"))
    assert c.key != d.key


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_no_part_of_a_record_can_be_made_of_nan_or_infinity(make_record, wrong):
    metric = dict(make_record().metrics[0])
    for model, fields in (
        (Metric, {**metric, "value": wrong}),
        (Metric, {**metric, "se": wrong}),
        (Interval, {**dict(metric["ci"]), "high": wrong}),
    ):
        with pytest.raises(ValidationError, match="finite number"):
            model(**fields)


def test_nothing_in_a_record_changes_after_it_is_made(make_record):
    with pytest.raises(ValidationError):
        make_record().metrics[0].value = 0.9


def test_the_published_schema_names_every_field_and_closes_every_object(make_body):
    schema = json_schema()
    assert schema["$id"] == "fedward.result/3"
    assert set(make_body()) == set(schema["properties"])
    objects = [schema, *(one for one in schema["$defs"].values() if one.get("type") == "object")]
    assert len(objects) > 15
    assert all(one["additionalProperties"] is False for one in objects)
    json.dumps(schema, allow_nan=False)


def test_an_interval_says_how_it_was_made():
    assert {"level", "method", "b", "b_defined", "cluster", "strata", "seed"} <= set(Interval.model_fields)


def test_what_is_asked_of_privacy_is_told_and_written_once(make_spec):
    plain = make_spec()
    both = plain.model_copy(
        update={"privacy": PrivacyPlan(mechanism="DP-SGD", unit="patient", epsilon=3.0, secure_aggregation=True)}
    )
    sums = plain.model_copy(
        update={"privacy": PrivacyPlan(mechanism="secure aggregation", unit="site", secure_aggregation=True)}
    )
    assert [one.epsilon for one in (plain, both, sums)] == [None, 3.0, None]
    assert [one.summed_securely for one in (plain, both, sums)] == [False, True, True]
    assert not {"epsilon", "summed_securely"} & both.model_dump().keys()
