"""What a site remembers: what is kept for how long, and what is said when it is gone."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcore.errors import CheckpointError
from fedcore.learner import Arrays
from fedcore.memory import SiteMemory

Make = Callable[[], SiteMemory]


@pytest.fixture(params=["in process", "on disk"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """The memory of one site; made again, what is on disk is there again."""
    if request.param == "on disk":
        return lambda: SiteMemory(tmp_path / "sites", "st. mary/2")
    memory = SiteMemory(None, "st. mary/2")
    return lambda: memory


def _parts(number: int) -> dict[str, Arrays]:
    return {
        "own": {"hidden/weight": np.full((2, 3), number, np.float32), "n": np.array(number)},
        "moments": {"w": np.arange(number, dtype=np.float64)},
    }


def _same(found: object, expected: dict[str, Arrays]) -> bool:
    assert isinstance(found, dict)
    return {
        part: {n: (v.dtype, v.shape, v.tobytes()) for n, v in arrays.items()} for part, arrays in found.items()
    } == {part: {n: (v.dtype, v.shape, v.tobytes()) for n, v in arrays.items()} for part, arrays in expected.items()}


def _kept(memory: SiteMemory, trial: int = 0, until: int = 30) -> set[int]:
    found = set()
    for number in range(1, until):
        try:
            memory.read(trial, number)
        except CheckpointError:
            continue
        found.add(number)
    return found


def test_what_was_remembered_is_found_again_bit_by_bit(make: Make) -> None:
    make().write(0, 3, _parts(3), last=0, best=0)
    assert _same(make().read(0, 3), _parts(3))


def test_before_the_first_round_there_is_nothing_to_remember(make: Make) -> None:
    assert make().read(0, 0) == {}
    make().write(0, 1, _parts(1), last=0, best=0)
    assert make().read(0, 0) == {}


def test_remembering_nothing_is_no_forgetting(make: Make) -> None:
    make().write(0, 1, {}, last=0, best=0)
    assert make().read(0, 1) == {}


def test_what_a_strategy_does_to_what_it_was_given_changes_nothing_remembered(make: Make) -> None:
    make().write(0, 1, _parts(1), last=0, best=0)
    make().read(0, 1)["own"] = {}
    assert _same(make().read(0, 1), _parts(1))


def test_the_last_round_and_the_best_are_kept_and_the_others_forgotten(make: Make) -> None:
    for number in range(1, 11):
        make().write(0, number, _parts(number), last=number - 1, best=min(number - 1, 4))
    assert _kept(make()) == {4, 9, 10}


def test_a_round_that_is_done_again_finds_what_there_was_before_it(make: Make) -> None:
    for number in range(1, 6):
        make().write(0, number, _parts(number), last=number - 1, best=1)
    assert _same(make().read(0, 4), _parts(4))
    make().write(0, 5, _parts(50), last=4, best=1)
    assert _same(make().read(0, 5), _parts(50))
    assert _same(make().read(0, 4), _parts(4))


def test_rounds_that_did_not_count_crowd_out_none_that_did(make: Make) -> None:
    """Round 3 is the last that counted: what the site sent in 4, 5 and 6 was refused, and 5 was the others' best."""
    for number in (1, 2, 3):
        make().write(0, number, _parts(number), last=number - 1, best=1)
    for number, best in ((4, 1), (5, 1), (6, 5)):
        make().write(0, number, _parts(number), last=3, best=best)
        assert _same(make().read(0, 3), _parts(3))
    make().write(0, 7, _parts(7), last=3, best=5)
    make().write(0, 8, _parts(8), last=7, best=5)
    assert _kept(make()) == {3, 7, 8}


@given(
    counts=st.lists(st.booleans(), min_size=1, max_size=12),
    moved=st.lists(st.booleans(), min_size=12, max_size=12),
)
def test_whatever_counts_what_can_be_asked_for_is_there(counts: list[bool], moved: list[bool]) -> None:
    """The law: the last round that counted, and the last that counted when the best round was met, can be read."""
    memory, last, best, predicts = SiteMemory(None, "a"), 0, 0, 0
    for number, (counted, better) in enumerate(zip(counts, moved, strict=False), start=1):
        assert memory.read(0, last) is not None
        memory.write(0, number, {"n": {"n": np.array(number)}}, last=last, best=best)
        last = number if counted else last
        if better:
            best, predicts = number, last
        for asked in {last, predicts} - {0}:
            assert memory.read(0, asked)["n"]["n"] == asked


def test_trials_do_not_meet(make: Make) -> None:
    make().write(1, 2, _parts(2), last=0, best=0)
    make().write(11, 2, _parts(7), last=0, best=0)
    make().write(1, 3, _parts(3), last=2, best=2)
    assert _kept(make(), 1) == {2, 3}
    assert _same(make().read(11, 2), _parts(7))
    assert _kept(make(), 0) == set()


def test_a_forgotten_round_is_a_sentence(make: Make) -> None:
    make().write(0, 2, _parts(2), last=0, best=0)
    with pytest.raises(CheckpointError, match="what the site remembered of round 1 is lost; delete the federation's"):
        make().read(0, 1)


def test_what_was_agreed_is_remembered_and_missed(make: Make) -> None:
    assert make().agreed == {}
    with pytest.raises(CheckpointError, match="what the sites agreed on is lost"):
        make().term("space")
    make().agree({"space": "{}", "model": "gru"})
    assert make().agreed == {"space": "{}", "model": "gru"}
    assert make().term("model") == "gru"


def test_sites_whose_names_are_paths_stay_in_their_folder(tmp_path: Path) -> None:
    for number, name in enumerate(("..", "a/../../b", "a", "A b")):
        SiteMemory(tmp_path / "deep" / "sites", name).write(0, 1, _parts(number), last=0, best=0)
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["sites"]
    assert len(list((tmp_path / "deep" / "sites").iterdir())) == 4
    assert _same(SiteMemory(tmp_path / "deep" / "sites", "a/../../b").read(0, 1), _parts(1))


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no archive", None])
def test_a_damaged_file_is_a_lost_round(damage: bytes | None, tmp_path: Path) -> None:
    memory = SiteMemory(tmp_path, "a")
    memory.write(0, 1, _parts(1), last=0, best=0)
    (file,) = tmp_path.rglob("*.npz")
    file.write_bytes(file.read_bytes()[:-100] if damage is None else damage)
    with pytest.raises(CheckpointError, match="of round 1 is lost"):
        memory.read(0, 1)


def test_a_half_written_round_is_none(tmp_path: Path) -> None:
    memory = SiteMemory(tmp_path, "a")
    memory.write(0, 1, _parts(1), last=0, best=0)
    (file,) = tmp_path.rglob("*.npz")
    file.with_name(".0-2.npz").write_bytes(b"cut off")
    assert _kept(memory) == {1}
    memory.write(0, 2, _parts(2), last=1, best=1)
    assert _same(memory.read(0, 2), _parts(2))


def test_a_detached_memory_outlives_its_folder(tmp_path: Path) -> None:
    memory = SiteMemory(tmp_path / "sites", "a")
    memory.agree({"space": "{}"})
    memory.write(0, 1, _parts(1), last=0, best=0)
    memory.write(3, 2, _parts(2), last=0, best=0)
    detached = memory.detached()
    for path in sorted((tmp_path / "sites").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert detached.agreed == {"space": "{}"}
    assert _same(detached.read(0, 1), _parts(1))
    assert _same(detached.read(3, 2), _parts(2))


def test_what_was_agreed_and_is_damaged_is_a_sentence(tmp_path: Path) -> None:
    memory = SiteMemory(tmp_path, "alpha")
    memory.agree({"space": "{}"})
    (tmp_path / "alpha" / "agreed.json").write_bytes(b"")
    with pytest.raises(CheckpointError, match="what the sites agreed on is lost; delete the federation's checkpoint"):
        SiteMemory(tmp_path, "alpha").term("space")
