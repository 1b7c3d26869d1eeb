"""A hospital's policy, from the command line to the record."""

from pathlib import Path
from typing import Any

import pytest

from bench.policies import total_of
from leaderboard.store import Store

OPEN = "privacy: {required: true, noise: any}\n"


def _policy(tmp_path: Path, text: str, name: str = "mercy.yaml") -> str:
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


def _words(text: str) -> str:
    return " ".join(text.split())


def test_who_refuses_is_named_before_and_left_out_and_the_record_tells_it(
    bench, asked, hospitals: list[str], tmp_path: Path
) -> None:
    site = hospitals[1].partition("=")[0]
    file = _policy(tmp_path, "strategies: [pooled, local]\n" + OPEN)
    only = ("--rounds", "1", "--json", "--only", "strategy=fedavg,strategy=local,strategy=pooled")
    ended = bench("run", *asked, *only, "--jobs", "1", "--policy", f"{site}={file}")
    assert ended.code == 0, ended.err
    pooled = f"site {site} will take no part in 1 of 4 cells: mercy.yaml, privacy.required: this analysis asks for none"
    assert pooled in _words(ended.err)
    listed = "mercy.yaml, strategies: found strategy 'fedavg', allowed are pooled, local"
    assert f"site {site} will take no part in 1 of 4 cells: {listed}" in _words(ended.err)
    records = {r.spec.strategy.name: r for r in Store(tmp_path / "records").records()}
    assert records["truth"].checks == ()
    for strategy, kept in (("fedavg", False), ("pooled", False), ("local", True)):
        record = records[strategy]
        assert record.data is not None
        (check,) = record.checks
        assert (check.name, check.passed) == (f"policy of {site}", kept)
        assert (site in {one.name for one in record.data.sites}) == kept
        assert (site in {one.name for one in record.data.skipped}) == (not kept)
        assert (site in {m.scope.id for m in record.metrics}) == kept, "who takes no part is not scored"
        assert {one.where for one in record.releases} <= {one.name for one in record.data.sites}
        assert str(tmp_path) not in record.model_dump_json(exclude={"provenance"})
    states = [
        {cell["state"] for cell in bench("plan", *asked, *only, *more).json["cells"]}
        for more in ((), ("--policy", f"{site}={file}"))
    ]
    assert states == [{"pending"}, {"cached"}], "what ran under a policy is another cell than what ran under none"


def test_a_total_over_all_cells_is_begun_kept_and_shown(bench, asked, hospitals: list[str], tmp_path: Path) -> None:
    site = hospitals[0].partition("=")[0]
    limit = "privacy:\n  required: true\n  noise: any\n  per_analysis: {epsilon: 30, delta: 1.0e-5}\n"
    others = _policy(tmp_path, limit, "others.yaml")
    file = _policy(tmp_path, limit + "  total: {epsilon: 40, delta: 1.0e-4}\n")
    policies = ("--policy", others, "--policy", f"{site}={file}")
    untold = bench("plan", *asked, "--only", "strategy=fedavg", "--epsilon", "30", *policies)
    assert f"mercy.yaml, privacy.total: {site}.ledger: what all analyses" in _words(untold.err)
    begun = bench("privacy", "begin", site, "--json")
    assert begun.json["reserved"] == []
    command = ("privacy", "plan", *asked[:-2], "--only", "strategy=fedavg", "--epsilon", "30", "--json")
    planned = bench(*command, *policies)
    assert {(spend["delta"], spend["epsilon"]) for spend in planned.json["spends"]} == {(1e-5, 30.0)}
    assert "has begun already" in _words(bench("privacy", "begin", site).err)
    only = ("--only", "strategy=fedavg", "--epsilon", "30", "--seeds", "2")
    ended = bench("run", *asked, *only, *policies, "--jobs", "1", "--json")
    assert ended.code == 0, ended.err
    records = {r.spec.seed: r for r in Store(tmp_path / "records").records() if r.spec.privacy is not None}
    assert records[0].data is not None
    assert records[0].data.skipped == ()
    assert {one.delta for one in records[0].privacy} == {1e-5}
    assert all(check.passed for check in records[0].checks)
    assert records[1].data is not None
    said = "mercy.yaml, privacy.total: epsilon of all analyses is at most 40, 30 is reserved, and this one asks for 30"
    assert {one.name: one.reason for one in records[1].data.skipped} == {site: f"{said} more"}
    assert site not in {one.name for one in records[1].data.sites}
    assert {check.name: check.passed for check in records[1].checks}[f"policy of {site}"] is False
    shown = bench("privacy", "total", site, "--json").json
    assert (shown["epsilon"], shown["delta"], len(shown["reserved"])) == (30.0, 1e-5, 1)
    assert "together epsilon 30" in bench("privacy", "total", site).out
    total_of(site).path.write_bytes(b"")
    assert "line 1 of the site's total is damaged; restore the file" in _words(bench("privacy", "total", site).err)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["nobody={}"], "--policy: found the site 'nobody', expected one of"),
        (["{}", "{}"], "--policy: found a second file for all sites"),
        (["no/such.yaml"], "no/such.yaml: found no file that can be read"),
        (["{}.wrong"], "mercy.yaml.wrong: privcy: found this key, expected one of valid_until, tasks,"),
    ],
)
def test_what_is_no_policy_is_a_sentence(bench, asked, tmp_path: Path, given: list[str], said: str) -> None:
    file = _policy(tmp_path, OPEN)
    _policy(tmp_path, "privcy: {}\n", "mercy.yaml.wrong")
    options: list[Any] = [part for text in given for part in ("--policy", text.format(file))]
    ended = bench("plan", *asked, *options)
    assert ended.code == 2
    assert said in _words(ended.err)
