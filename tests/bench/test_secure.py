"""Secure aggregation from the command line to the record."""

from pathlib import Path

import pytest

from leaderboard.store import Store

SECURE = "--secure-aggregation"


def test_sums_are_asked_for_and_told_of_and_the_cell_is_another(bench, asked, tmp_path: Path) -> None:
    only = ("--only", "strategy=fedavg,strategy=pooled")
    plain, secure = (bench("plan", *asked, *only, "--rounds", "2", *more, "--json") for more in ((), (SECURE,)))
    ids = [{cell["strategy"]: cell["cell_id"] for cell in planned.json["cells"]} for planned in (plain, secure)]
    assert {name for name in ids[0] if ids[0][name] != ids[1][name]} == {"fedavg"}
    ended = bench("run", *asked, "--only", "strategy=fedavg", "--rounds", "2", "--jobs", "1", SECURE, "--json")
    assert ended.code == 0, ended.err
    told = {(cell["strategy"], cell["secure_aggregation"], cell["status"]) for cell in ended.json["cells"]}
    assert told == {("fedavg", True, "ok"), ("truth", False, "ok")}
    (record,) = [r for r in Store(tmp_path / "records").records() if r.spec.privacy is not None]
    (check,) = record.checks
    assert check.passed
    assert check.detail is not None
    assert "with a threshold of 3 or more; no single model update left its site unmasked" in check.detail
    left = {release.what for release in record.releases}
    assert "model updates under masks: none was seen by itself, their sums over sites were learnt" in left
    assert not any("model updates with" in what for what in left)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("strategy=krum",), "strategy 'krum' needs single sites' answers, of which secure aggregation shows the sum"),
        (("strategy=pooled",), "anchors are no federations and sum nothing"),
    ],
)
def test_what_cannot_be_summed_is_a_sentence(bench, asked, arguments: tuple[str, ...], said: str) -> None:
    ended = bench("plan", *asked, "--strategy", "krum", "--only", *arguments, SECURE)
    assert ended.code == 2
    assert said in " ".join(ended.err.split())
