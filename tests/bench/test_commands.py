"""Commands that look, and the documents that --json prints."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydantic import TypeAdapter

BENCH = str(Path(sys.executable).parent / "bench")


def test_help_loads_neither_torch_nor_polars() -> None:
    code = (
        "import sys; from bench import cli; assert cli.run(['--help']) == 0;"
        "heavy = {'torch', 'polars', 'flwr', 'ray', 'numpy', 'aces'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("what", ["suites", "tasks", "models", "strategies", "attacks", "sites"])
def test_what_can_be_named_is_listed(bench, what: str) -> None:
    listed = bench("list", what, "--json").json
    assert listed["what"] == what and all(item["about"] for item in listed["items"])
    shown = bench("list", what)
    assert shown.code == 0 and all(item["name"] in shown.out for item in listed["items"])


def test_every_document_has_a_schema_that_it_meets(bench, asked, hospitals, tmp_path: Path) -> None:
    names = bench("schema").out.split()
    assert {"Run", "Plan", "Cohorts", "SiteCheck", "Ingested", "Simulation", "Status", "Doctor", "Listing"} <= set(
        names
    )
    from bench import output

    reports = {model.__name__: TypeAdapter(model) for model in output.Report.__subclasses__()}
    site = hospitals[0].partition("=")[2]
    for name, command in {
        "Run": ("run", *asked, "--jobs", "1", "--only", "strategy=fedavg"),
        "Plan": ("plan", *asked),
        "Cohorts": ("cohort", "mortality/in_hospital/first_24h", "--site", hospitals[0]),
        "SiteCheck": ("site", "check", site),
        "Ingested": ("site", "ingest", hospitals[0]),
        "Simulation": ("site", "simulate", "--out", tmp_path / "more", "--hospitals", "1", "--patients", "50"),
        "Status": ("status", "--out", tmp_path / "records"),
        "Doctor": ("doctor",),
        "Listing": ("list", "models"),
    }.items():
        ended = bench(*command, "--json")
        assert ended.code == 0, (name, ended.err)
        reports[name].validate_json(ended.out)
        assert json.loads(bench("schema", name).out)["title"] == name


def test_a_record_is_shown_by_the_first_characters_of_its_cell(bench, asked, tmp_path: Path) -> None:
    run = bench("run", *asked, "--jobs", "1", "--only", "strategy=pooled", "--json").json
    cell = run["cells"][0]
    out = ("--out", tmp_path / "records")
    shown = bench("show", cell["cell_id"][:12], *out)
    assert shown.code == 0 and cell["cell_id"] in shown.out and cell["result_sha256"] in shown.out
    assert bench("show", cell["cell_id"], *out, "--json").json["cell_id"] == cell["cell_id"]
    unknown = bench("show", "ffff0000", *out)
    assert unknown.code == 2 and "starts with 'ffff0000'" in unknown.err
    several = bench("show", "", *out)
    assert several.code == 2 and "give more characters" in several.err


def test_a_remembered_site_runs_by_its_name_until_it_is_forgotten(
    bench, suite: Path, hospitals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    monkeypatch.setenv("FEDWARD_HOME", str(own))
    assert bench("site", "ingest", hospitals[0]).code == 0
    bench("cohort", "mortality/in_hospital/first_24h", "--site", hospitals[0])
    assert list((own / "cohorts").iterdir())
    name = hospitals[0].partition("=")[0]
    asked = ("plan", "--suite", suite, "--out", tmp_path, "--site")
    assert bench(*asked, name).code == 0
    forgotten = bench("site", "forget", name)
    assert forgotten.code == 0 and "deleted" in forgotten.out
    assert not list((own / "datasets").glob("[!.]*")) and not (own / "cohorts").exists()
    again = bench(*asked, name)
    assert again.code == 2 and name in again.err
    assert bench("site", "forget", name).code == 2


def test_a_place_that_cannot_be_used_is_a_sentence_not_a_fault(
    bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FEDWARD_HOME", str(tmp_path / "file"))
    ended = bench("status")
    assert ended.code == 2 and ended.err.startswith(f"bench: {tmp_path / 'file'}: ") and "fault" not in ended.err
    doctor = bench("doctor", "--json")
    (place,) = (check for check in doctor.json["checks"] if check["name"] == "FEDWARD_HOME")
    assert doctor.code == 2 and not place["ok"] and place["remedy"]


def test_every_strategy_that_a_suite_may_name_is_listed(bench) -> None:
    from fedcore.strategies import strategy

    assert [item["name"] for item in bench("list", "strategies", "--json").json["items"]] == strategy.names()


def test_text_of_users_is_not_markup(bench, tmp_path: Path) -> None:
    ended = bench("run", "--suite", "[red]x[/red]")
    assert ended.code == 2 and "[red]x[/red]" in ended.err + ended.out


@pytest.mark.slow
def test_a_run_whose_cells_all_have_records_starts_no_ray_and_loads_no_torch(asked, bench) -> None:
    bench("run", *asked, "--jobs", "1", "--only", "strategy=pooled")
    code = (
        "import sys; from bench import cli; assert cli.run(sys.argv[1:]) == 0;"
        "heavy = {'torch', 'flwr', 'ray'} & set(sys.modules); assert not heavy, heavy"
    )
    command = [sys.executable, "-c", code, "run", *asked, "--only", "strategy=pooled"]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert time.perf_counter() - started < 60


@pytest.mark.parametrize("command", ["run", "cohort", "show", "list", "site check", "site forget"])
def test_help_explains_every_argument_in_plain_text(bench, command: str) -> None:
    shown = bench(*command.split(), "--help").out
    assert "\\" not in shown
    after = shown.partition("Arguments:\n")[2].splitlines()
    assert not after or len(after[0].split()) > 3, after[0]


def test_a_reader_that_has_seen_enough_is_no_failure() -> None:
    for command in (["--help"], ["list", "tasks"], ["schema", "Record"]):
        with subprocess.Popen([BENCH, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
            running.stdout.close()
            assert running.wait(60) == 0 and running.stderr.read() == b"", command


def test_the_version_is_that_of_the_package(bench) -> None:
    from importlib.metadata import version

    assert bench("--version").out.split() == ["fedward", version("fedward")]


def test_a_remembered_site_is_checked_by_its_name_and_an_unknown_one_is_said_to_be_unknown(
    bench, hospitals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDWARD_HOME", str(tmp_path / "own"))
    name, _, what = hospitals[0].partition("=")
    assert bench("site", "ingest", hospitals[0]).code == 0
    assert bench("site", "check", name, "--quick").out == bench("site", "check", what, "--quick").out
    for command in (("site", "check", "nowhere"), ("cohort", "mortality/in_hospital/first_24h", "--site", "nowhere")):
        ended = bench(*command)
        assert ended.code == 2 and "no site 'nowhere' is remembered" in ended.err


def test_external_sites_alone_are_refused_before_anything_is_read(bench, suite: Path) -> None:
    ended = bench("run", "--suite", suite, "--external", "far=mimic4:/nowhere")
    assert ended.code == 2 and "--site" in ended.err
