"""What a plan reads of a record, without reading it: the same as the record itself says."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaderboard.canonical import canonical_json
from leaderboard.record import RecordError, head, parse, result_sha256
from leaderboard.store import Store

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_the_canonical_spelling_is_what_pythons_own_encoder_spells(value):
    try:
        text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=1) + "\n"
        expected = text.encode()
    except UnicodeEncodeError:
        with pytest.raises(RecordError):
            canonical_json({"value": value})
        return
    assert canonical_json(value) == expected


def test_the_head_says_what_the_record_says(make_record):
    record = make_record()
    found = head(canonical_json(record))
    assert found is not None
    assert (found.cell_id, found.code_fingerprint, found.status, found.result_sha256) == (
        record.cell_id, record.code_fingerprint, record.status, result_sha256(record),
    )  # fmt: skip


def test_a_record_changed_in_any_line_has_no_head_and_is_refused(make_record):
    data = canonical_json(make_record())
    lines = data.splitlines(keepends=True)
    for number in range(1, len(lines) - 1, max(1, len(lines) // 40)):
        changed = b"".join([*lines[:number], b' "surplus": 1,\n', *lines[number:]])
        assert head(changed) is None
        with pytest.raises(RecordError):
            parse(changed, "it")


def test_a_record_that_is_intact_but_spelled_otherwise_is_read_the_slow_way(make_record, tmp_path):
    record = make_record()
    other = json.dumps(json.loads(canonical_json(record))).encode()
    assert head(other) is None
    path = tmp_path / "record.json"
    path.write_bytes(other)
    found = Store(tmp_path).head(path)
    assert (found.cell_id, found.status, found.result_sha256) == (
        record.cell_id, record.status, result_sha256(record),
    )  # fmt: skip
