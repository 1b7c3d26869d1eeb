"""A grid that is killed or stopped at any moment ends, by the same command, with the results of one that was not."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import polars as pl
import pytest

from bench.claim import claimed
from leaderboard.store import Store

SUITE = """
name: tiny
version: 1.0.0
description: Cells that take a second
tasks: [mortality/in_hospital/first_24h]
entries:
  - {model: logistic, strategies: [local, pooled, fedavg]}
seeds: [0, 1, 2]
rounds: 2
tune: {settings: 1}
evaluation: {replicates: 100}
"""
CELLS = 12  # with the oracle's
PATIENCE_SECONDS = 300.0

linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")


class Started:
    """A `bench run` in a session of its own, as a terminal's."""

    def __init__(self, folder: Path, arguments: list[str], environment: dict[str, str]) -> None:
        folder.mkdir()
        self._out, self._err = folder / "out", folder / "err"
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(
                [str(Path(sys.executable).parent / "bench"), "run", *arguments],
                stdout=out,
                stderr=err,
                env={**os.environ, **environment},
                start_new_session=True,
            )

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def running(self) -> list[int]:
        """The processes of the session, Ray's with them."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                state, _parent, _group, session = stat.read_text().rpartition(")")[2].split()[:4]
                if int(session) == self.process.pid and state != "Z":
                    found.append(int(stat.parent.name))
        return found

    def option(self, name: str) -> str | None:
        """The value of an option with which one of its processes was started."""
        for process in self.running():
            with suppress(OSError):
                for word in Path(f"/proc/{process}/cmdline").read_text().split("\0"):
                    if word.startswith(f"{name}="):
                        return word.partition("=")[2]
        return None

    def kill(self) -> None:
        for process in self.running():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.process.wait()

    def kill_driver(self) -> None:
        """The driver alone; what Ray started ends by itself, while the next run begins."""
        self.process.kill()
        self.process.wait()


Start = Callable[..., Started]


@pytest.fixture
def killed_home(tmp_path: Path) -> Path:
    """Nothing is ingested there, so that a kill may fall into that too."""
    return tmp_path / "killed_home"


@pytest.fixture
def start(tmp_path: Path, killed_home: Path) -> Iterator[Start]:
    """Starts `bench run`; nothing of it is left after the test."""
    ray = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # the paths of Unix sockets are short
    started: list[Started] = []

    def begin(*arguments: object) -> Started:
        environment = {"FEDWARD_HOME": str(killed_home), "RAY_TMPDIR": str(ray)}
        started.append(Started(tmp_path / f"run{len(started)}", [str(a) for a in arguments], environment))
        return started[-1]

    yield begin
    for one in started:
        one.kill()
    shutil.rmtree(ray, ignore_errors=True)


@pytest.fixture
def tiny(tmp_path: Path, hospitals: list[str]) -> list[str]:
    """The options of a grid of twelve small cells, without --out."""
    path = tmp_path / "tiny.yaml"
    path.write_text(SUITE)
    return ["--suite", str(path), *(text for site in hospitals for text in ("--site", site))]


def hashes(report: dict) -> dict[str, str]:
    return {cell["cell_id"]: cell["result_sha256"] for cell in report["cells"]}


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@linux
@pytest.mark.slow
def test_a_grid_killed_again_and_again_ends_with_the_results_of_one_that_was_not(
    bench, tiny, start: Start, tmp_path: Path
) -> None:
    began = time.monotonic()
    whole = bench("run", *tiny, "--out", tmp_path / "whole", "--jobs", "1", "--json")
    assert whole.code == 0, whole.err
    span = time.monotonic() - began

    store = Store(tmp_path / "killed")
    command = [*tiny, "--out", store.root, "--jobs", "2", "--json"]
    moments = random.Random(2026)
    kept = []
    for early, kill in ((True, Started.kill), (False, Started.kill), (False, Started.kill_driver)):
        before = len(store.paths())
        run = start(*command)
        if not early:
            until(lambda run=run, before=before: len(store.paths()) > before or run.process.poll() is not None)
        time.sleep(moments.uniform(0, span if early else 2 * span / CELLS))
        kill(run)
        assert store.verify() == []
        kept.append(len(store.paths()))

    run = start(*command)
    assert run.process.wait(PATIENCE_SECONDS) == 0, run.err
    assert hashes(json.loads(run.out)) == hashes(whole.json)
    assert any(0 < count < CELLS for count in kept), kept
    assert len(store.paths()) == CELLS, "a cell that had ended was run again"


@linux
@pytest.mark.slow
def test_ctrl_c_stops_a_grid_with_one_sentence_and_leaves_neither_processes_nor_half_files(
    tiny, start: Start, killed_home: Path, tmp_path: Path
) -> None:
    store = Store(tmp_path / "stopped")
    run = start(*tiny, "--out", store.root, "--jobs", "2")
    until(lambda: store.paths() or run.process.poll() is not None)
    os.killpg(run.process.pid, signal.SIGINT)
    assert run.process.wait(PATIENCE_SECONDS) == 130
    *cells, last = run.err.splitlines()
    assert last == "bench: interrupted; the same command goes on where it stopped"
    assert all("cells to run" in line or "AUROC" in line for line in cells), run.err
    assert run.out == ""
    until(lambda: run.running() == [])
    assert store.verify() == [] and 0 < len(store.paths()) < CELLS
    temporary = [path for path in killed_home.rglob("*") if path.name.startswith(("tmp", ".making-"))]
    assert temporary == [] and list(store.root.rglob("*.partial")) == []


@linux
@pytest.mark.slow
def test_nobody_else_can_give_work_to_the_workers(tiny, start: Start, tmp_path: Path) -> None:
    import grpc
    from ray.core.generated.gcs_service_pb2 import GetAllNodeInfoRequest
    from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub

    run = start(*tiny, "--out", tmp_path / "guarded", "--jobs", "2")
    until(lambda: run.option("--gcs-address") or run.process.poll() is not None)
    head = run.option("--gcs-address") or ""
    assert head.startswith("127.0.0.1:")
    with grpc.insecure_channel(head) as channel, pytest.raises(grpc.RpcError) as refused:
        NodeInfoGcsServiceStub(channel).GetAllNodeInfo(GetAllNodeInfoRequest(), timeout=30, wait_for_ready=True)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


@linux
@pytest.mark.slow
def test_two_commands_at_once_find_the_same_results(bench, tiny, start: Start, tmp_path: Path) -> None:
    options = [*tiny, "--seeds", "1", "--rounds", "20", "--jobs", "1", "--json"]
    runs = [start(*options, "--out", tmp_path / name) for name in ("one", "other")]
    for run in runs:
        assert run.process.wait(PATIENCE_SECONDS) == 0, run.err
    one, other = (hashes(json.loads(run.out)) for run in runs)
    assert one == other == hashes(bench("run", *options, "--out", tmp_path / "alone").json)


def test_a_full_disk_under_the_records_is_a_sentence_and_the_same_command_goes_on(
    bench, tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "records")
    command = ["run", *tiny, "--seeds", "1", "--out", store.root, "--jobs", "1", "--json"]
    flush, written = os.fsync, []

    def fill_up(file: int) -> None:
        written.append(file)
        if len(written) > 2:  # a record is two: the file and its folder
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(file)

    with monkeypatch.context() as patch:
        patch.setattr("leaderboard.store.os.fsync", fill_up)
        ended = bench(*command)
    assert ended.code == 2 and ended.out == ""
    assert ended.err.count("\n") == 1 and "could not be written (No space left on device)" in ended.err
    assert len(store.paths()) == 1 and store.verify() == [] and list(store.root.rglob("*.partial")) == []
    again = bench(*command)
    assert again.code == 0 and [cell["cached"] for cell in again.json["cells"]] == [True, False, False, False]


def test_a_full_disk_under_a_cell_is_its_record_and_the_others_go_on(
    bench, tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["run", *tiny, "--seeds", "1", "--out", tmp_path / "records", "--jobs", "1", "--json"]
    write, written = pl.DataFrame.write_parquet, []

    def fill_up(frame: pl.DataFrame, file: object, **options: object) -> None:
        written.append(file)
        if len(written) == 2:  # as polars says it
            raise pl.exceptions.ComputeError("underlying IO error: No space left on device (os error 28)")
        write(frame, file, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(pl.DataFrame, "write_parquet", fill_up)
        ended = bench(*command)
    assert ended.code == 1
    failed = [cell for cell in ended.json["cells"] if cell["status"] == "failed"]
    assert len(failed) == 1 and "No space left on device" in failed[0]["error"]
    assert "make room" in failed[0]["error"]
    again = bench(*command, "--rerun", "failed")
    assert again.code == 0 and [cell["cached"] for cell in again.json["cells"]].count(False) == 1


def test_a_folder_is_claimed_by_one_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there"
    with claimed(folder) as first, claimed(folder) as second:
        assert first and not second
    with claimed(folder) as third:
        assert third
    assert list(folder.parent.iterdir()) == []
