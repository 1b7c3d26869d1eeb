import os

import pytest

from bench.grid import Grid, Outcome
from sites.errors import InputError


def square(piece: int, report) -> int:
    report(f"squaring {piece}")
    if piece == 3:
        raise ValueError("three is not allowed")
    if piece == 99:
        os._exit(1)
    return piece * piece


def run(pieces: list[int], jobs: int) -> tuple[list[Outcome[int]], list[tuple[int, object]]]:
    heard: list[tuple[int, object]] = []
    with Grid(jobs) as grid:
        outcomes = list(grid.run(square, pieces, lambda index, report: heard.append((index, report))))
    return sorted(outcomes, key=lambda outcome: outcome.index), heard


def test_a_piece_that_fails_does_not_stop_the_others() -> None:
    outcomes, heard = run([2, 3, 4], jobs=1)
    assert [o.result for o in outcomes] == [4, None, 16]
    assert outcomes[1].error == "three is not allowed" and "ValueError" in (outcomes[1].trace or "")
    assert heard == [(0, None), (0, "squaring 2"), (1, None), (1, "squaring 3"), (2, None), (2, "squaring 4")]


def test_an_address_that_is_none_is_a_sentence() -> None:
    with pytest.raises(InputError, match="found no Ray cluster at 'nowhere'"), Grid(2, "nowhere"):
        pass


def test_a_cluster_that_is_not_there_is_a_sentence_at_once() -> None:
    with pytest.raises(InputError, match=r"no Ray cluster at '127.0.0.1:9'"), Grid(2, "127.0.0.1:9"):
        pass


@pytest.mark.slow
def test_ray_workers_give_what_one_process_gives_and_a_worker_that_dies_is_an_outcome() -> None:
    outcomes, heard = run([2, 3, 4, 99], jobs=2)
    assert [o.result for o in outcomes] == [4, None, 16, None]
    assert outcomes[1].error == "three is not allowed"
    assert "died" in (outcomes[3].error or "")
    assert (2, "squaring 4") in heard
    assert "http_proxy" not in os.environ
