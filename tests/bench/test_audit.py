"""`bench audit`: what an attack finds of a private cell, beside what it claims."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fedcore.protection import TRAINING, Protection
from leaderboard.store import Store
from privacy.dpsgd import DPSGD

BUDGET = 4.0


@pytest.fixture
def ran(bench, asked: list[str], tmp_path: Path) -> dict[str, str]:
    """Two cells: strategy -> cell_id; fedavg has a budget, and pooled none."""
    ended = bench(
        "run", *asked, "--only", "strategy=fedavg,strategy=pooled", "--rounds", "2", "--epsilon", "4", "--jobs", "1"
    )
    assert ended.code == 0, ended.err
    return {one.spec.strategy.name: one.cell_id for one in Store(tmp_path / "records").records()}


def test_a_cells_training_is_audited_site_by_site_and_found_out_where_it_is_broken(
    bench, asked: list[str], ran: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("audit", ran["fedavg"][:12], *asked[2:-2], "--out", str(tmp_path / "records"), "--canaries", "400")
    honest = bench(*command, "--json")
    assert honest.code == 0, honest.err
    (record,) = [one for one in Store(tmp_path / "records").records() if one.privacy]
    found = honest.json["audits"]
    assert [(one["site"], one["audit"]) for one in found] == [
        (site.name, audit)
        for site in sorted(record.spec.sites, key=lambda site: site.name)
        for audit in ("one run", "white box, parametric")
    ]
    claims = {one.site: one for one in record.privacy}
    for one in found:
        assert (one["claim"], one["delta"]) == (claims[one["site"]].epsilon, claims[one["site"]].delta)
        assert 0 <= one["bound"] <= one["training"] < one["claim"]
    assert max(one["bound"] for one in found) > 0.5

    def silent(_: DPSGD, like: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(like)

    monkeypatch.setattr(DPSGD, "_normal", silent)
    broken = bench(*command)
    assert broken.code == 1
    assert "exceeds the claim" in broken.out


def _changed_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = Protection.planned

    def planned(self: Protection, setting: Any, rounds: int) -> Any:
        found = inner(self, setting, rounds)
        return {**found, TRAINING: replace(found[TRAINING], noise_multiplier=9.0)}

    monkeypatch.setattr(Protection, "planned", planned)


def test_what_cannot_be_audited_is_a_sentence(
    bench, asked: list[str], ran: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = ("--out", str(tmp_path / "records"))

    def said(*arguments: Any) -> str:
        ended = bench("audit", *arguments, *out)
        assert ended.code == 2
        assert len(ended.err.replace("auditing eicu-167\n", "").strip().splitlines()) == 1
        return ended.err

    assert "was trained without a budget of epsilon" in said(ran["pooled"])
    assert "no cell with a result in" in said("f" * 20)
    assert "is not at hand as it was" in said(ran["fedavg"], *asked[2:4])
    _changed_claim(monkeypatch)
    sentence = said(ran["fedavg"], *asked[2:-2], "--canaries", "100")
    assert "trains otherwise now than when the cell was run" in sentence
