"""An ingest that is killed, interrupted, or run twice at once: one whole dataset or none, and nothing beside it."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

MakeExport = Callable[..., Path]
N_ROWS = 500_000
"""So many that there is time to interfere."""


@pytest.fixture
def export(mimic4_export: MakeExport) -> Path:
    path = mimic4_export()
    row = pl.int_range(N_ROWS, eager=True).alias("row")
    pl.DataFrame(row).select(
        subject_id=1 + pl.col("row") % 3,
        hadm_id=pl.lit(None, pl.String),
        stay_id=pl.lit(None, pl.String),
        charttime=pl.format("2150-01-{} 10:00:00", (1 + pl.col("row") % 28).cast(pl.String).str.zfill(2)),
        storetime=pl.lit(None, pl.String),
        itemid=220000 + pl.col("row") % 97,
        value=pl.format("a, {}", pl.col("row") % 1013),
        valuenum=pl.col("row") % 1013,
        valueuom=pl.lit("bpm"),
    ).write_csv(path / "icu" / "chartevents.csv")
    return path


def start(export: Path, home: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", "from bench.cli import main; main()", "site", "ingest", f"mimic4:{export}", "--json"],
        env=os.environ | {"FEDWARD_HOME": str(home), "POLARS_MAX_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> Path:
    """The dataset of an ingest that ends well."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return Path(json.loads(out)["dataset"])


def wait_for(process: "subprocess.Popen[str]", home: Path, pattern: str) -> None:
    """Return as soon as the ingest has made such a file or folder among the datasets."""
    end = time.monotonic() + 60
    while not any((home / "datasets").glob(pattern)):
        assert process.poll() is None, "the ingest ended before it could be stopped"
        assert time.monotonic() < end
        time.sleep(0.002)


def content(dataset: Path) -> dict[str, str]:
    return {
        path.relative_to(dataset).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in dataset.rglob("*")
        if path.is_file()
    }


def beside(home: Path) -> list[str]:
    """What lies among the datasets but for the locks (empty files that say who is at work)."""
    return sorted(path.name for path in (home / "datasets").iterdir() if path.suffix != ".lock")


MOMENTS = {"reading": ".*.partial/spill/chartevents", "writing": ".*.partial/dataset/data"}


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_ingest_is_made_good_by_running_it_again(export: Path, home: Path, moment: str) -> None:
    whole = content(finish(start(export, home / "whole")))
    process = start(export, home)
    wait_for(process, home, MOMENTS[moment])
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not [name for name in beside(home) if not name.startswith(".")]
    dataset = finish(start(export, home))
    assert content(dataset) == whole
    assert beside(home) == [dataset.name]


@pytest.mark.slow
def test_two_ingests_at_once_give_one_dataset(export: Path, home: Path) -> None:
    both = [start(export, home), start(export, home)]
    assert len({finish(process) for process in both}) == 1
    assert len(beside(home)) == 1


@pytest.mark.slow
def test_ctrl_c_ends_in_one_sentence(export: Path, home: Path) -> None:
    process = start(export, home)
    wait_for(process, home, MOMENTS["reading"])
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert err == "bench: interrupted; the same command goes on where it stopped\n"
    assert not [name for name in beside(home) if not name.startswith(".")]


@pytest.mark.slow
def test_forgetting_deletes_what_an_interrupted_ingest_left(export: Path, home: Path) -> None:
    process = start(export, home)
    wait_for(process, home, MOMENTS["reading"])
    process.kill()
    process.communicate()
    assert beside(home)
    forget = [sys.executable, "-c", "from bench.cli import main; main()", "site", "forget", f"mimic4:{export}"]
    subprocess.run(forget, check=True, capture_output=True)
    assert beside(home) == []


@pytest.mark.slow
def test_what_was_begun_of_an_export_that_changed_since_is_deleted(export: Path, home: Path) -> None:
    process = start(export, home)
    wait_for(process, home, MOMENTS["reading"])
    process.kill()
    process.communicate()
    (export / "icu" / "chartevents.csv").unlink()
    left = beside(home)
    dataset = finish(start(export, home))
    assert len(left) == 1
    assert beside(home) == [dataset.name]
