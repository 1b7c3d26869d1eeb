import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from bench.estimate import longest_first
from bench.grid import Grid, Outcome
from leaderboard.record import Spec
from leaderboard.spec import AttackPlan, Configured, FederationPlan, PrivacyPlan
from sites.errors import InputError


def square(piece: int | Path, report) -> int:
    if isinstance(piece, Path):
        with piece.open("a") as file:
            file.write("died ")
        os._exit(1)
    report(f"squaring {piece}")
    if piece == 3:
        raise ValueError("three is not allowed")
    if piece == -1:
        time.sleep(60)
    return piece * piece


def run(pieces: list[int | Path], jobs: int) -> tuple[list[Outcome[int]], list[tuple[int, object]]]:
    heard: list[tuple[int, object]] = []
    with Grid(jobs) as grid:
        if jobs > 1:
            assert ray.get_runtime_context().gcs_address.startswith("127.0.0.1:"), "others can reach it"
        outcomes = list(grid.run(square, pieces, lambda index, report: heard.append((index, report))))
    return sorted(outcomes, key=lambda outcome: outcome.index), heard


def test_a_piece_that_fails_does_not_stop_the_others() -> None:
    outcomes, heard = run([2, 3, 4], jobs=1)
    assert [o.result for o in outcomes] == [4, None, 16]
    assert outcomes[1].error == "three is not allowed" and "ValueError" in (outcomes[1].trace or "")
    assert heard == [(0, None), (0, "squaring 2"), (1, None), (1, "squaring 3"), (2, None), (2, "squaring 4")]


def test_an_address_that_is_none_is_a_sentence() -> None:
    with pytest.raises(InputError, match="found no Ray cluster to join at 'nowhere'"), Grid(2, "nowhere"):
        pass


def test_a_cluster_that_is_not_there_is_a_sentence_at_once() -> None:
    with pytest.raises(InputError, match=r"no Ray cluster to join at '127.0.0.1:9'"), Grid(2, "127.0.0.1:9"):
        pass


def test_a_cluster_that_was_there_once_is_a_sentence_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(InputError, match=r"no Ray cluster to join at 'auto' \(.*refused"), Grid(2, "auto"):
        pass


def test_a_web_server_is_no_cluster() -> None:
    with ThreadingHTTPServer(("", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_port}"
        try:
            with pytest.raises(InputError, match="what answers there is not the head of a Ray"), Grid(2, address):
                pass
        finally:
            server.shutdown()


def cell(name: str, model: str, took: float = 0.0, **more: Any) -> Any:
    any_ = Configured(name="any")
    spec = Spec.model_construct(
        task=any_, strategy=any_, model=Configured(name=model), federation=FederationPlan(), **more
    )
    return SimpleNamespace(cell_id=name, spec=spec, status="ok", cost=SimpleNamespace(wall_s=took))


def test_the_longest_cells_begin_first() -> None:
    cells = [cell("a", "logistic"), cell("b", "gru"), cell("c", "logistic")]
    assert [one.cell_id for one in longest_first(cells, [])] == ["b", "a", "c"]
    assert [one.cell_id for one in longest_first(cells, [cell("e", "logistic", 999.0)])] == ["a", "c", "b"]


def test_cells_with_attackers_that_train_or_with_noise_are_like_their_own_kind() -> None:
    shadows, backdoor = AttackPlan(kinds=("membership",), shadows=32), AttackPlan(kinds=("backdoor",))
    private = PrivacyPlan(mechanism="DP-SGD", unit="patient", epsilon=3.0)
    cells = [cell("a", "gru"), cell("b", "logistic", attack=shadows), cell("c", "gru", privacy=private)]
    assert [one.cell_id for one in longest_first(cells, [])] == ["b", "a", "c"], "it trains 33 federations"
    known = [cell("d", "logistic", 1.0, attack=backdoor), cell("e", "gru", 1.0), cell("f", "gru", 9e9, privacy=private)]
    assert [one.cell_id for one in longest_first(cells, known)] == ["c", "b", "a"]


@pytest.mark.slow
def test_ray_workers_give_what_one_process_gives_and_a_worker_that_dies_is_an_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")  # a Ray of our own is wanted, whatever else there is
    outcomes, heard = run([2, 3, 4, tmp_path / "deaths"], jobs=2)
    assert [o.result for o in outcomes] == [4, None, 16, None]
    assert outcomes[1].error == "three is not allowed"
    assert "died, twice" in (outcomes[3].error or "")
    assert (tmp_path / "deaths").read_text() == "died died ", "it is tried once more, and no more"
    assert (2, "squaring 4") in heard
    assert "http_proxy" not in os.environ and os.environ["RAY_ADDRESS"] == "127.0.0.1:9"
    assert capfd.readouterr().out == "", "standard output is for what a command prints"


@pytest.mark.slow
def test_a_worker_killed_for_memory_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.001")  # as if the machine's memory were all in use
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "50")
    outcomes, _ = run([-1], jobs=2)
    assert "killed because memory ran out" in (outcomes[0].error or "")
