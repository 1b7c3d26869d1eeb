"""A federation that was killed goes on where it was, and comes to what it would have come to."""

import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedcore.checkpoint import federation_key
from fedcore.engines.inline import InlineGrid
from fedcore.engines.journal import Answer, Journal
from fedcore.faults.plan import FaultPlan
from fedcore.federation import CheckpointError, FederationRequest, StorageError, run_federation
from fedcore.samples import SiteSamples
from fedcore.strategies import strategy
from privacy.terms import Terms

OWN_START = """
from flwr.serverapp.strategy import FedAvg

class OwnStart(FedAvg):
    def start(self, grid, initial_arrays, num_rounds=3, timeout=3600, **more):
        return super().start(grid, initial_arrays, num_rounds, timeout, **more)
"""

FAULTS = FaultPlan.model_validate(
    {
        "timeout_s": 60,
        "faults": [
            {"kind": "leave", "sites": 1, "rate": 0.4},
            {"kind": "nan", "sites": ["bern"], "rounds": [2]},
            {"kind": "stale", "sites": ["cairo"], "rounds": {"from": 2}, "age": 2},
        ],
    }
)

KILLED: dict[str, dict[str, Any]] = {
    "nothing is remembered": {"model": "logistic", "strategy": "fedavg"},
    "half of the sites are asked": {"model": "logistic", "strategy": "fedavg", "fraction": 0.5},
    "under faults": {"model": "logistic", "strategy": "fedavg", "faults": FAULTS},
    "an optimiser of one body of data": {"model": "gru", "strategy": "pooled"},
    "optimisers of sites alone": {"model": "mlp", "strategy": "local"},
    "noise and what it has cost": {
        "model": "logistic",
        "strategy": "scaffold",
        "settings": None,
        "privacy": Terms(epsilon=30, noise="seeded"),
    },
    "masks that have to be the same again": {"model": "logistic", "strategy": "fedavg", "secure_aggregation": True},
    "a start of its own": {"model": "logistic", "strategy": "mylab_start:OwnStart"},
    **{
        what: {"model": "logistic", "strategy": name}
        for name, what in {
            "fedadam": "the server's moments",
            "scaffold": "control variates on both sides",
            "feddyn": "the sites' slopes",
            "ditto": "models of the sites' own",
            "cyclic": "whose turn it is",
        }.items()
        if name in strategy.federated()
    },
}


def _request(asked: dict[str, Any]) -> FederationRequest:
    return FederationRequest(**{"rounds": 4, "seed": 1, "settings": ({}, {"step_size": 0.01}), **asked})


def _moments(name: str) -> tuple[int | float, ...]:
    """Some deaths between two replies, the first soon, and one whenever it is: the same in each run of this test."""
    rng = np.random.default_rng([5, *name.encode()])
    return (int(rng.integers(3, 12)), *(int(n) for n in rng.integers(4, 30, 2)), float(rng.uniform(0.05, 0.6)))


def test_killed_federations_come_to_what_they_would_have_come_to(
    clinics: list[SiteSamples], told: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is killed with SIGKILL four times, then left alone, and held against one that nobody killed."""
    sites = [*clinics[:3], clinics[-1]]
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mylab_start.py").write_text(OWN_START)
    jobs = [
        (sites, _request(asked), tmp_path / f"folder {n}", _moments(name), tmp_path / f"{n}.pickle")
        for n, (name, asked) in enumerate(KILLED.items())
    ]
    (tmp_path / "jobs.pickle").write_bytes(pickle.dumps(jobs))
    command = [sys.executable, Path(__file__).with_name("killed.py"), tmp_path / "jobs.pickle"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    for (name, asked), attempts, job in zip(KILLED.items(), json.loads(done.stdout), jobs, strict=True):
        assert "failed" not in attempts, (name, done.stderr)
        assert attempts[0] == "killed", name
        assert attempts[-1] == "ended", name
        resumed = pickle.loads(job[-1].read_bytes())
        assert told(resumed) == told(run_federation(sites, _request(asked))), name
        assert resumed.own_start is (name == "a start of its own")


# --- in this process, over the toy representations


@pytest.fixture
def toys(make_hospital: Any) -> list[SiteSamples]:
    return [make_hospital("alpha", n=300), make_hospital("beta", n=250), make_hospital("out", n=60, external=True)]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What sites were asked, once each."""
    put: list[tuple[str, str]] = []
    inner = InlineGrid._delivered

    def delivered(self: InlineGrid, message: Any) -> Any:
        put.append((message.metadata.message_type, str(message.metadata.dst_node_id)))
        return inner(self, message)

    monkeypatch.setattr(InlineGrid, "_delivered", delivered)
    return put


def _small(rounds: int = 2, **more: Any) -> FederationRequest:
    return FederationRequest(
        **{"model": "logistic", "strategy": "fedavg", "rounds": rounds, "settings": ({},), "seed": 2, **more}
    )


def test_what_was_answered_is_not_asked_again(
    toys: list[SiteSamples], asked: list[tuple[str, str]], told: Any, tmp_path: Path
) -> None:
    first = run_federation(toys, _small(), folder=tmp_path)
    assert len(asked) == 2 * (3 + 2 * 2)
    asked.clear()
    assert told(run_federation(toys, _small(), folder=tmp_path)) == told(first)
    assert asked == [("query.site", "1"), ("query.site", "2")]


def _truncated(whole: Path, length: int, folder: Path) -> Path:
    """The checkpoint with the journal cut off there, in a folder of its own."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    os.truncate(folder / "journal", length)
    return folder


def _ends(path: Path) -> list[int]:
    """Where the journal's first line and its entries end."""
    content = path.read_bytes()
    ends = [content.index(b"\n") + 1]
    while ends[-1] < len(content):
        ends.append(ends[-1] + 12 + int.from_bytes(content[ends[-1] : ends[-1] + 8], "little"))
    assert ends[-1] == len(content)
    return ends


def test_a_journal_cut_off_anywhere_comes_to_the_same(toys: list[SiteSamples], told: Any, tmp_path: Path) -> None:
    """At and beside each boundary, and at thirty seeded places; sites remember all rounds of so short a trial."""
    expected = told(run_federation(toys, _small(), folder=tmp_path / "whole"))
    journal = tmp_path / "whole" / "journal"
    ends, size = _ends(journal), journal.stat().st_size
    assert len(ends) == 1 + 2 + 2 * 2
    near = {end + shift for end in (0, *ends) for shift in (-1, 0, 1, 13)}
    anywhere = np.random.default_rng(0).integers(0, size, 30).tolist()
    for length in sorted({place for place in (*near, *anywhere) if 0 <= place <= size}):
        folder = _truncated(tmp_path / "whole", length, tmp_path / "cut")
        assert told(run_federation(toys, _small(), folder=folder)) == expected, length
        assert (folder / "journal").read_bytes() == journal.read_bytes(), length


def test_a_journal_that_lost_more_than_sites_remember_is_a_sentence_and_never_another_result(
    toys: list[SiteSamples], told: Any, tmp_path: Path
) -> None:
    request = _small(rounds=6, config={"step_size": 0.01})
    expected = told(run_federation(toys, request, folder=tmp_path / "whole"))
    outcomes = []
    for length in _ends(tmp_path / "whole" / "journal"):
        folder = _truncated(tmp_path / "whole", length, tmp_path / "cut")
        try:
            assert told(run_federation(toys, request, folder=folder)) == expected
            outcomes.append("same")
        except CheckpointError as error:
            assert "what the site remembered of round" in str(error)
            outcomes.append("lost")
    # nothing yet, or answers up to before round 1 is over: nothing to remember; then too little; the end is complete
    assert outcomes[:3] == ["same"] * 3
    assert outcomes[-4:] == ["same"] * 4
    assert "lost" in outcomes


def test_a_damaged_entry_ends_the_journal(toys: list[SiteSamples], told: Any, tmp_path: Path) -> None:
    expected = told(run_federation(toys, _small(), folder=tmp_path / "whole"))
    whole = tmp_path / "whole" / "journal"
    first, size = _ends(whole)[0], whole.stat().st_size
    for place in np.random.default_rng(1).integers(first, size, 15).tolist():
        folder = _truncated(tmp_path / "whole", size, tmp_path / "damaged")
        content = bytearray(whole.read_bytes())
        content[place] ^= 0x10
        (folder / "journal").write_bytes(content)
        assert told(run_federation(toys, _small(), folder=folder)) == expected, place
        assert (folder / "journal").read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 3},
        {"rounds": 3},
        {"settings": ({}, {"step_size": 0.1})},
        {"strategy": "pooled"},
        {"min_sites": 2},
        {"fraction": 0.5},
        {"faults": FaultPlan.model_validate({"faults": [{"kind": "leave", "rate": 0.1}]})},
    ],
)
def test_a_checkpoint_of_another_request_is_refused(
    change: dict[str, Any], toys: list[SiteSamples], tmp_path: Path
) -> None:
    run_federation(toys, _small(), folder=tmp_path)
    before = (tmp_path / "journal").read_bytes()
    with pytest.raises(CheckpointError, match=r"journal: the checkpoint is of another federation; expected one of"):
        run_federation(toys, _small(**change), folder=tmp_path)
    assert (tmp_path / "journal").read_bytes() == before


@pytest.mark.parametrize("what", ["label", "split", "prediction_time", "subject_id", "fewer", "name"])
def test_a_checkpoint_of_other_samples_is_refused(what: str, toys: list[SiteSamples], tmp_path: Path) -> None:
    run_federation(toys, _small(), folder=tmp_path)
    site = toys[0]
    others = {
        "label": lambda: replace(site, label=~site.label),
        "split": lambda: replace(site, split=site.split[::-1].copy()),
        "prediction_time": lambda: replace(site, prediction_time=site.prediction_time + np.timedelta64(1, "h")),
        "subject_id": lambda: replace(site, subject_id=site.subject_id + 1),
        "fewer": lambda: site.take(np.arange(len(site) - 1)),
        "name": lambda: replace(site, site="aleph"),
    }
    with pytest.raises(CheckpointError, match="the checkpoint is of another federation"):
        run_federation([others[what](), *toys[1:]], _small(), folder=tmp_path)


def test_the_engine_and_external_sites_are_no_part_of_a_federations_name(
    toys: list[SiteSamples], asked: list[tuple[str, str]], tmp_path: Path
) -> None:
    run_federation(toys, _small(), folder=tmp_path)
    asked.clear()
    run_federation(toys[:2], _small(), folder=tmp_path)
    assert {action for action, _ in asked} == {"query.site"}
    key = federation_key(_small(), toys[:2])
    assert key == federation_key(_small(engine="simulation"), toys[:2])


@pytest.mark.parametrize(
    "content", [b"no journal at all\n", b"no journal, and no end of line", b"fedward.journal/1 0\n"]
)
def test_a_file_that_is_no_journal_is_refused_and_left_alone(
    content: bytes, toys: list[SiteSamples], tmp_path: Path
) -> None:
    (tmp_path / "journal").write_bytes(content)
    with pytest.raises(CheckpointError, match="another federation"):
        run_federation(toys, _small(), folder=tmp_path)
    assert (tmp_path / "journal").read_bytes() == content


def test_a_journal_of_other_code_is_a_sentence(toys: list[SiteSamples], tmp_path: Path) -> None:
    """The request is the same, what the server asks is not."""
    path = tmp_path / "journal"
    with Journal(path, federation_key(_small(), toys[:2])) as journal:
        journal.append("train", [Answer("alpha", None, "no"), Answer("beta", None, "no")])
    with pytest.raises(
        CheckpointError, match=r"tells of 'train' where 'query\.statistics' is asked now; the code or the"
    ):
        run_federation(toys, _small(), folder=tmp_path)


@pytest.mark.parametrize("lost", ["all sites", "one site", "one round", "what was agreed"])
@pytest.mark.parametrize("strategy", ["fedavg", "pooled"])
def test_a_deleted_memory_is_a_sentence_however_often_it_is_met(
    lost: str, strategy: str, toys: list[SiteSamples], tmp_path: Path
) -> None:
    request = _small(rounds=3, strategy=strategy, model="gru" if strategy == "pooled" else "logistic")
    run_federation(toys, request, folder=tmp_path)
    site = sorted((tmp_path / "sites").iterdir())[-1]
    os.truncate(tmp_path / "journal", _ends(tmp_path / "journal")[-2])  # killed in the last evaluation
    for path in {
        "all sites": [tmp_path / "sites"],
        "one site": [site],
        "one round": [site / "0-3.npz"],
        "what was agreed": [site / "agreed.json"],
    }[lost]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"site \w+: what .* is lost; delete the federation's checkpoint"):
            run_federation(toys, request, folder=tmp_path)


def test_a_finished_federation_whose_sites_forgot_is_a_sentence(toys: list[SiteSamples], tmp_path: Path) -> None:
    run_federation(toys, _small(), folder=tmp_path)
    shutil.rmtree(tmp_path / "sites")
    with pytest.raises(CheckpointError, match="site alpha: what the site remembered of round 2 is lost"):
        run_federation(toys, _small(), folder=tmp_path)


@contextmanager
def _files_of_at_most(size: int) -> Iterator[None]:
    """A disk that is full, as far as a test can have one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("strategy", ["fedavg", "pooled"])
@pytest.mark.parametrize("size", [20, 1000, 2500, 4500])
def test_a_full_disk_is_a_sentence_and_loses_nothing(
    size: int, strategy: str, toys: list[SiteSamples], told: Any, tmp_path: Path
) -> None:
    """The journal of logistic regression fills it, or what the optimiser of a lone GRU remembers."""
    request = _small(rounds=3, strategy=strategy, model="gru" if strategy == "pooled" else "logistic")
    expected = told(run_federation(toys, request))
    with _files_of_at_most(size), pytest.raises(StorageError, match=r"cannot be written \(File too large\); mend that"):
        run_federation(toys, request, folder=tmp_path)
    assert told(run_federation(toys, request, folder=tmp_path)) == expected
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]


def test_each_site_alone_has_a_checkpoint_of_its_own(
    toys: list[SiteSamples], asked: list[tuple[str, str]], told: Any, tmp_path: Path
) -> None:
    first = run_federation(toys, _small(strategy="local", settings=None), folder=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alpha", "beta"]
    asked.clear()
    assert told(run_federation(toys, _small(strategy="local", settings=None), folder=tmp_path)) == told(first)
    assert {action for action, _ in asked} == {"query.site"}
