"""Noise that sites share, from the command line to the record."""

from pathlib import Path

import pytest

from leaderboard.store import Store

ASKED = ("--only", "strategy=fedavg", "--epsilon", "2", "--secure-aggregation", "--noise", "distributed")


def test_shared_noise_is_asked_for_planned_and_told_of(bench, asked, tmp_path: Path) -> None:
    planned = bench("privacy", "plan", *asked[:-2], *ASKED, "--json")
    assert planned.code == 0, planned.err
    training = [s for s in planned.json["spends"] if s["phase"] == "training"]
    assert len({s["noise_multiplier"] for s in training}) == 1
    assert {s["releases"] for s in training} == {2}
    local, shared = (bench("plan", *asked, *more, "--json") for more in (ASKED[:-2], ASKED))
    ids = [{c["cell_id"] for c in one.json["cells"] if c["strategy"] == "fedavg"} for one in (local, shared)]
    assert ids[0] and ids[1] and not ids[0] & ids[1]
    ended = bench("run", *asked, *ASKED, "--jobs", "1", "--json")
    assert ended.code == 0, ended.err
    (record,) = [r for r in Store(tmp_path / "records").records() if r.spec.privacy is not None]
    assert record.spec.privacy is not None and record.spec.privacy.mechanism == "distributed DP-SGD"
    assert {(s.phase, s.count) for one in record.privacy for s in one.spends} == {("statistics", 1), ("training", 2)}
    assert all(0 < one.epsilon <= 2 for one in record.privacy)
    (check,) = record.checks
    assert check.detail is not None
    assert "noise placed: distributed, private against the coordinator and one site" in check.detail
    noised = {release.what for release in record.releases if release.epsilon is not None}
    assert noised == {"feature statistics", "sums of model updates, with noise that the sites shared"}
    told = bench("privacy", "ledger", "small", "--out", str(tmp_path / "records"))
    assert "noise placed: distributed, in" in " ".join(told.out.split())
    refused = bench("audit", record.cell_id, "--out", str(tmp_path / "records"))
    assert refused.code == 2
    assert "was trained with noise that the sites shared" in " ".join(refused.err.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--epsilon", "8", "--noise", "distributed"), "found distributed without secure aggregation"),
        (("--secure-aggregation", "--noise", "distributed"), "found distributed without a budget (--epsilon)"),
        ((*ASKED[2:], "--strategy", "feddyn"), "strategy 'feddyn' cannot be trained with distributed noise"),
    ],
)
def test_what_cannot_be_shared_is_a_sentence(bench, asked, arguments: tuple[str, ...], said: str) -> None:
    only = "strategy=feddyn" if "feddyn" in arguments else "strategy=fedavg"
    ended = bench("plan", *asked, "--only", only, *arguments)
    assert ended.code == 2
    assert said in " ".join(ended.err.split())
