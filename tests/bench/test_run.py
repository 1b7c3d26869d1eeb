"""The main job, on small simulated hospitals: run, run again, be interrupted, fail in part."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from leaderboard.store import Store


def hashes(report: dict) -> dict[str, str]:
    return {cell["cell_id"]: cell["result_sha256"] for cell in report["cells"]}


def test_a_run_ends_with_a_record_for_each_cell_and_a_second_run_only_prints(bench, asked, tmp_path: Path) -> None:
    first = bench("run", *asked, "--jobs", "1", "--json")
    assert first.code == 0, first.err
    cells = first.json["cells"]
    assert [(c["model"], c["strategy"], c["status"], c["cached"]) for c in cells] == [
        ("logistic", "local", "ok", False),
        ("logistic", "pooled", "ok", False),
        ("logistic", "fedavg", "ok", False),
        ("oracle", "truth", "ok", False),
    ]
    assert first.json["data_kind"] == "simulated"
    assert not list(Store(tmp_path / "records").verify())
    second = bench("run", *asked, "--jobs", "1", "--json")
    assert all(cell["cached"] for cell in second.json["cells"])
    assert hashes(second.json) == hashes(first.json)
    assert second.json["summary"] == first.json["summary"]


def test_a_run_computed_anew_finds_the_same_results(bench, asked) -> None:
    first = bench("run", *asked, "--jobs", "1", "--json").json
    second = bench("run", *asked, "--jobs", "1", "--json", "--cache", "ignore").json
    assert not any(cell["cached"] for cell in second["cells"])
    assert hashes(first) == hashes(second)


def test_the_order_of_the_sites_changes_no_result(bench, asked, tmp_path: Path) -> None:
    suite, sites = asked[:2], [asked[i : i + 2] for i in range(2, len(asked), 2) if asked[i] == "--site"]
    rest = [one for i in range(2, len(asked), 2) if asked[i] != "--site" for one in asked[i : i + 2]]
    given, turned = (
        bench("run", *suite, *(one for site in order for one in site), *rest, "--jobs", "1", "--json", *out).json
        for order, out in ((sites, []), (sites[::-1], ["--cache", "ignore"]))
    )
    assert len(sites) > 1
    assert hashes(given) == hashes(turned)


@pytest.mark.slow
def test_ray_workers_find_what_one_process_finds(bench, asked, tmp_path: Path) -> None:
    one = bench("run", *asked, "--jobs", "1", "--json").json
    others = bench("run", *asked, "--jobs", "2", "--json", "--out", str(tmp_path / "ray"), "--cache", "ignore")
    assert others.code == 0, others.err
    assert hashes(others.json) == hashes(one)


def test_a_record_holds_what_was_asked_what_left_the_sites_and_what_it_cost(bench, asked, tmp_path: Path) -> None:
    bench("run", *asked, "--jobs", "1", "--only", "strategy=fedavg")
    (record,) = [r for r in Store(tmp_path / "records").records() if r.spec.strategy.name == "fedavg"]
    assert record.data is not None and record.data.data_kind == "simulated"
    assert {site.role for site in record.data.sites} == {"train"}
    assert all(site.attrition[-1].samples == site.n_samples for site in record.data.sites)
    assert record.cost.bytes_up and record.cost.bytes_down and record.cost.rounds
    assert {release.where for release in record.releases} == {site.name for site in record.data.sites}
    assert {metric.scope.kind for metric in record.metrics} == {"pooled", "site", "site-macro", "worst-site"}


def test_an_external_site_is_scored_and_never_trained_on(bench, suite: Path, hospitals, tmp_path: Path) -> None:
    mimic, omop, _ = hospitals
    out = tmp_path / "records"
    ended = bench(
        "run", "--suite", suite, "--site", mimic, "--external", omop, "--only", "strategy=pooled", "--out", out
    )
    assert ended.code == 0, ended.err
    (record,) = [r for r in Store(out).records() if r.spec.strategy.name == "pooled"]
    roles = {site.name: site.role for site in record.spec.sites}
    external = {metric.scope.id for metric in record.metrics if metric.scope.kind == "external"}
    assert external == {name for name, role in roles.items() if role == "external"} != set()
    assert external.isdisjoint({release.where for release in record.releases})


def test_the_oracle_is_not_beaten_beyond_its_interval(bench, asked) -> None:
    rows = {
        (row["model"], row["strategy"]): row["metrics"]["auroc"]
        for row in bench("run", *asked, "--jobs", "1", "--json").json["summary"]
        if row["scope"] == "pooled"
    }
    oracle = rows.pop(("oracle", "truth"))
    assert oracle["value"] > 0.75
    assert all(auroc["value"] <= oracle["high"] for auroc in rows.values())


def test_nobody_can_serve_the_task_is_unusable_input(bench, asked, tmp_path: Path) -> None:
    task = tmp_path / "never.yaml"
    task.write_text(
        "predicates: {never: {code: NEVER}, death: {code: MEDS_DEATH}}\ntrigger: never\nwindows:\n"
        "  input: {start: null, end: trigger + 24h, start_inclusive: True, end_inclusive: True, index_timestamp: end}\n"
        "  target: {start: input.end, end: start -> death, start_inclusive: False, end_inclusive: True, label: death}\n"
    )
    ended = bench("run", *asked, "--jobs", "1", "--task", str(task), "--only", "strategy=fedavg")
    assert ended.code == 2
    assert "no site can train" in ended.out


def test_a_cell_that_fails_is_recorded_does_not_stop_the_others_and_runs_again_when_asked(
    bench, asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    import bench.training as training

    whole = training.run_federation

    def broken(samples, request, **rest):
        if request.strategy == "pooled":
            raise RuntimeError("out of luck")
        return whole(samples, request, **rest)

    with monkeypatch.context() as patch:
        patch.setattr(training, "run_federation", broken)
        ended = bench("run", *asked, "--jobs", "1", "--json")
    assert ended.code == 1
    states = {cell["strategy"]: (cell["status"], cell["error"]) for cell in ended.json["cells"]}
    assert states["pooled"] == ("failed", "out of luck")
    assert states["fedavg"] == ("ok", None)
    assert bench("run", *asked, "--jobs", "1").code == 1
    again = bench("run", *asked, "--jobs", "1", "--rerun", "failed", "--json")
    assert again.code == 0
    assert {cell["strategy"] for cell in again.json["cells"] if not cell["cached"]} == {"pooled"}


def test_a_plan_names_each_cell_and_what_is_pending(bench, asked) -> None:
    before = bench("plan", *asked, "--json").json
    assert before["pending"] == len(before["cells"]) == 4
    bench("run", *asked, "--jobs", "1", "--only", "strategy=pooled")
    after = bench("plan", *asked, "--json").json
    assert {cell["strategy"]: cell["state"] for cell in after["cells"]} == {
        "local": "pending",
        "pooled": "cached",
        "fedavg": "pending",
        "truth": "cached",
    }


def script(*arguments: str) -> list[str]:
    return [str(Path(sys.executable).parent / "bench"), *arguments]


@pytest.mark.slow
def test_after_kill_9_the_same_command_completes_with_the_same_results(bench, asked, tmp_path: Path) -> None:
    whole = bench("run", *asked, "--jobs", "1", "--json").json
    out = tmp_path / "killed"
    command = script("run", *asked, "--jobs", "1", "--out", str(out), "--cache", "ignore")
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not Store(out).paths() and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert 0 < len(Store(out).paths()) < 4
    again = bench("run", *asked, "--jobs", "1", "--json", "--out", str(out)).json
    assert hashes(again) == hashes(whole)


@pytest.mark.slow
def test_ctrl_c_ends_with_130_and_one_sentence(asked, tmp_path: Path) -> None:
    out = tmp_path / "interrupted"
    running = subprocess.Popen(
        script("run", *asked, "--jobs", "1", "--out", str(out)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not Store(out).paths() and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "goes on where it stopped" in err and "Traceback" not in err


@pytest.mark.slow
def test_nothing_calls_out(asked, tmp_path: Path) -> None:
    (tmp_path / "guard").mkdir()
    log = tmp_path / "calls.txt"
    (tmp_path / "guard" / "sitecustomize.py").write_text(
        "import socket\n"
        "whole = socket.socket.connect\n"
        "def connect(self, address):\n"
        "    host = address[0] if isinstance(address, tuple) else 'local'\n"
        "    own = {i[4][0] for i in socket.getaddrinfo(socket.gethostname(), None)}\n"
        "    if host not in {'local', 'localhost', '127.0.0.1', '::1', *own}:\n"
        f"        open({str(log)!r}, 'a').write(f'{{address}}\\n')\n"
        "        raise OSError('refused by the test')\n"
        "    return whole(self, address)\n"
        "socket.socket.connect = connect\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "guard")}
    command = script("run", *asked, "--jobs", "2", "--only", "strategy=fedavg")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not log.exists(), log.read_text()


def test_a_folder_for_records_that_cannot_be_is_refused_before_the_first_cell(bench, asked, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = bench("run", *asked, "--jobs", "1", "--out", tmp_path / "file" / "records")
    assert ended.code == 2 and str(tmp_path / "file") in ended.err and "AUROC" not in ended.err


def test_a_narrow_terminal_breaks_no_interval(bench, asked, monkeypatch: pytest.MonkeyPatch) -> None:
    import re

    from bench import output

    for width in (80, 160):
        monkeypatch.setattr(output.out, "_width", width)
        shown = bench("run", *asked, "--jobs", "1", "--only", "strategy=pooled").out
        assert re.findall(r"\[-?\d\.\d{3}, -?\d+\.\d{3}\]", shown)
        assert shown.count("[") - 1 == shown.count("]") - 1 == len(re.findall(r"\[-?\d+\.\d+, -?\d+\.\d+\]", shown))


def test_cache_only_without_a_record_says_so(bench, asked) -> None:
    ended = bench("run", *asked, "--cache", "only")
    assert ended.code == 2 and "has a record" in ended.err and ended.out == ""
