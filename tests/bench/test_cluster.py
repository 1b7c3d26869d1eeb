"""A grid on a Ray cluster: two nodes on this machine, each a `ray start` of its own, one of which is lost."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from bench import grid
from leaderboard.store import Store
from sites.errors import InputError

BIN = Path(sys.executable).parent
PATIENCE_SECONDS = 300.0
SUITE = """
name: shared
version: 1.0.0
description: Cells that take a second
tasks: [mortality/in_hospital/first_24h]
entries:
  - {model: logistic, strategies: [local, pooled, fedavg]}
seeds: [0, 1, 2, 3, 4]
rounds: 2
tune: {settings: 1}
evaluation: {replicates: 100}
"""


def free_port() -> int:
    with closing(socket.socket()) as found:
        found.bind(("", 0))
        return int(found.getsockname()[1])


def answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


class Cluster:
    """Ray nodes on this machine, one processor each; the first is the head."""

    def __init__(self, folder: Path, home: Path) -> None:
        self._port = free_port()
        self.address = f"127.0.0.1:{self._port}"
        self.environment = {
            **os.environ,
            "FEDWARD_HOME": str(home),
            "RAY_TMPDIR": str(folder),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self._folder = folder
        self.nodes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        self._start(
            "--head",
            f"--port={self._port}",
            f"--ray-client-server-port={free_port()}",
            "--include-dashboard=false",
            f"--temp-dir={self._folder}",
        )
        until(lambda: answers(self._port))
        self._start(f"--address={self.address}")

    def _start(self, *options: str) -> None:
        common = ["--block", "--num-cpus=1", "--disable-usage-stats", "--object-store-memory=100000000"]
        ports = [f"--dashboard-agent-listen-port={free_port()}", "--min-worker-port=0", "--max-worker-port=0"]
        with (self._folder / f"node{len(self.nodes)}").open("w") as log:
            self.nodes.append(
                subprocess.Popen(
                    [str(BIN / "ray"), "start", *common, *ports, *options],
                    env=self.environment,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )

    def works(self, node: int) -> bool:
        """Whether a worker of the node is at a piece."""
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                mine = os.getsid(int(process.name)) == self.nodes[node].pid
                if mine and (process / "cmdline").read_text().startswith("ray::_in_worker"):
                    return True
        return False

    def kill(self, node: int) -> None:
        """All processes of a node at once, as a power cut does."""
        with suppress(ProcessLookupError):
            os.killpg(self.nodes[node].pid, signal.SIGKILL)
        self.nodes[node].wait()


@pytest.fixture
def cluster(home: Path) -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # the paths of Unix sockets are short
    nodes = Cluster(folder, home)
    try:
        nodes.start()
        yield nodes
    finally:
        for node in range(len(nodes.nodes)):
            nodes.kill(node)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks for processes in /proc")
def test_two_nodes_share_a_grid_and_killing_one_loses_no_finished_cell(
    bench, hospitals: list[str], cluster: Cluster, tmp_path: Path
) -> None:
    suite = tmp_path / "shared.yaml"
    suite.write_text(SUITE)
    asked = ["run", "--suite", str(suite), *(text for site in hospitals for text in ("--site", site)), "--json"]
    store = Store(tmp_path / "records")
    here = [*asked, "--out", str(store.root), "--ray-address", cluster.address]
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        run = subprocess.Popen(
            [str(BIN / "bench"), *here], env=cluster.environment, stdout=out, stderr=err, start_new_session=True
        )
    try:
        until(lambda: run.poll() is not None or (len(store.paths()) >= 2 and cluster.works(0) and cluster.works(1)))
        finished = store.paths()
        cluster.kill(1)
        assert run.wait(PATIENCE_SECONDS) == 0, (tmp_path / "err").read_text()
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
    report = json.loads((tmp_path / "out").read_text())
    assert 2 <= len(finished) < len(report["cells"])
    assert set(finished) <= set(store.paths()) and store.verify() == []
    whole = bench(*asked, "--out", tmp_path / "whole", "--jobs", "1", "--cache", "ignore").json
    assert [c["result_sha256"] for c in report["cells"]] == [c["result_sha256"] for c in whole["cells"]]


class Ray:
    """A cluster as the watchdog sees it."""

    def __init__(self, head: str, processors: int) -> None:
        self.gcs_address, self._processors = head, processors

    def get_runtime_context(self) -> "Ray":
        return self

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": self._processors} if self._processors else {}


def test_a_cluster_without_head_or_processor_is_waited_for_and_then_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "LOOK_SECONDS", 0.0)
    with closing(socket.create_server(("127.0.0.1", 0))) as head:
        there = f"127.0.0.1:{head.getsockname()[1]}"
        busy, empty = grid._Watchdog(Ray(there, 2)), grid._Watchdog(Ray(there, 0))
        busy.look()
        empty.look()
        monkeypatch.setattr(grid, "IDLE_SECONDS", 0.0)
        busy.look()
        with pytest.raises(InputError, match="no processor; add a node"):
            empty.look()
    busy.look()
    monkeypatch.setattr(grid, "HEADLESS_SECONDS", 0.0)
    with pytest.raises(InputError, match=f"head at {there} went away; start it, and the same command goes on"):
        busy.look()
