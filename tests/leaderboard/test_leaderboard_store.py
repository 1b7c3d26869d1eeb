"""Records on disk are whole, never changed, found again, and checked."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from leaderboard.record import RecordError, canonical_json, new_run_id
from leaderboard.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


def test_a_record_lies_where_its_identity_says_and_reads_back_equal(store, make_record):
    record = make_record()
    path = store.write(record)
    cell = record.cell_id
    assert path == store.root / "mortality" / cell[:2] / cell / f"{record.run_id}.json"
    assert path.read_bytes() == canonical_json(record)
    assert store.read(path) == record
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_a_run_is_never_overwritten(store, make_record):
    path = store.write(make_record())
    with pytest.raises(RecordError, match="records are never changed"):
        store.write(make_record(value=0.75))
    assert store.read(path) == make_record()
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_a_run_is_never_overwritten_where_there_are_no_hard_links(store, make_record, monkeypatch):
    def no_links(self, target):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("pathlib.Path.hardlink_to", no_links)
    path = store.write(make_record())
    with pytest.raises(RecordError, match="records are never changed"):
        store.write(make_record(value=0.75))
    assert store.read(path) == make_record()
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_an_empty_or_absent_folder_holds_nothing(store):
    assert store.latest("a" * 64) is None
    assert list(store.records()) == []
    assert store.verify() == []


def test_of_each_cell_that_starts_so_the_newest_run_is_found(store, make_record, make_spec):
    runs = [new_run_id(1_000 + i) for i in range(3)]
    first, other = make_record(run_id=runs[0]), make_record(run_id=runs[1], spec=make_spec(seed=1))
    newer = make_record(run_id=runs[2], status="failed")
    for record in (newer, first, other):
        store.write(record)
    assert store.starting_with("") == {first.cell_id: newer, other.cell_id: other}
    assert store.starting_with(first.cell_id[:8]) == {first.cell_id: newer}
    assert store.starting_with(first.cell_id, status="ok") == {first.cell_id: first}
    assert store.starting_with("", suite="heart") == store.starting_with("x") == {}
    assert store.starting_with("", suite="mortality").keys() == {first.cell_id, other.cell_id}


def test_the_latest_is_the_newest_run_that_fits(store, make_record):
    runs = [new_run_id(1_000 + i) for i in range(4)]
    for run_id, status, code in zip(runs, ("ok", "ok", "ok", "failed"), ("old", "new", "old", "old"), strict=True):
        store.write(make_record(run_id=run_id, status=status, code_fingerprint=code))
    cell = make_record().cell_id
    assert store.latest(cell).run_id == runs[2]
    assert store.latest(cell, code_fingerprint="new").run_id == runs[1]
    assert store.latest(cell, status=None).run_id == runs[3]
    assert store.latest(cell, code_fingerprint="new", status="failed") is None
    assert store.latest("0" * 64) is None


def test_records_come_by_suite_and_can_be_asked_for_one(store, make_record, make_spec):
    store.write(make_record())
    store.write(make_record(spec=make_spec(suite="heart")))
    assert [record.spec.suite.name for record in store.records()] == ["heart", "mortality"]
    assert [record.spec.suite.name for record in store.records("heart")] == ["heart"]


def test_verify_finds_each_kind_of_damage_and_nothing_else(store, make_record, make_spec):
    paths = [store.write(make_record(spec=make_spec(seed=i))) for i in range(6)]
    good, cut, forged, moved, pretty, emptied = paths
    cut.write_bytes(cut.read_bytes()[:-100])
    body = json.loads(forged.read_bytes())
    body["metrics"][0]["value"] = 0.84
    forged.write_bytes(json.dumps(body).encode())
    elsewhere = moved.with_name(f"{new_run_id()}.json")
    moved.rename(elsewhere)
    pretty.write_text(json.dumps(json.loads(pretty.read_bytes()), indent=4))
    emptied.write_bytes(b"")
    found = {broken.path: broken.reason for broken in store.verify()}
    assert set(found) == {cut, forged, elsewhere, pretty, emptied}
    assert "not readable as JSON" in found[cut]
    assert "changed after it was written" in found[forged]
    assert "belongs at" in found[elsewhere]
    assert "not spelled canonically" in found[pretty]
    assert all(str(path) in reason for path, reason in found.items())
    assert good not in found


def test_a_broken_record_that_had_to_be_read_is_named(store, make_record):
    path = store.write(make_record())
    path.write_bytes(b"{")
    with pytest.raises(RecordError) as error:
        store.latest(make_record().cell_id)
    assert str(path) in str(error.value)


def test_where_no_record_can_be_written_the_folder_is_named(tmp_path, make_record):
    (tmp_path / "results").write_text("a file where the folder should be")
    with pytest.raises(RecordError) as error:
        Store(tmp_path / "results").write(make_record())
    assert str(tmp_path / "results") in str(error.value)


def test_a_full_disk_leaves_nothing_and_until_the_end_nothing_has_the_records_name(store, make_record, monkeypatch):
    path = store.path(make_record())

    def full(descriptor):
        assert not path.exists()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("leaderboard.store.os.fsync", full)
    with pytest.raises(RecordError, match="could not be written \\(No space left on device\\)"):
        store.write(make_record())
    assert list(path.parent.iterdir()) == []


WRITE_FOR_EVER = """
import sys
from pathlib import Path
from leaderboard.record import parse, seal, new_run_id
from leaderboard.store import Store
example = parse(Path(sys.argv[2]).read_bytes(), "example")
parts = {name: getattr(example, name) for name in type(example).model_fields}
for name in ("schema_", "cell_id", "run_id", "record_sha256"):
    parts.pop(name)
print("ready", flush=True)
while True:
    Store(Path(sys.argv[1])).write(seal(**parts))
"""


def test_a_killed_writer_leaves_whole_records_only(store, make_record, tmp_path):
    example = tmp_path / "example.json"
    example.write_bytes(canonical_json(make_record()))
    command = [sys.executable, "-c", WRITE_FOR_EVER, str(store.root), str(example)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "ready\n"
        deadline = time.monotonic() + 20
        while len(store.paths()) < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(writer.pid, signal.SIGKILL)
    assert len(store.paths()) >= 5
    assert store.verify() == []


def test_reading_a_thousand_records_takes_seconds_at_most(store, make_record, make_spec):
    record = make_record()
    cell = record.cell_id
    for i in range(300):
        path = store.path(record).with_name(f"{new_run_id(i)}.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(canonical_json(make_record(run_id=path.stem)))
    start = time.process_time()
    assert store.latest(cell).run_id == max(path.stem for path in store.paths())
    assert time.process_time() - start < 0.3
    start = time.process_time()
    assert len(list(store.records())) == 300
    assert time.process_time() - start < 3
