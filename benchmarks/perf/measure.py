"""One measurement, in a process of its own: `python measure.py WHAT ARGUMENTS...` prints seconds and peak memory.

Imports are done before the clock starts.
"""

import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from sites.home import home
from sites.spec import SiteSpec


def _peer(site: str) -> Callable[[], None]:
    from peer import read_sort_write

    out = home() / "peer"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    return lambda: read_sort_write(SiteSpec.parse(site), out)


def _ingest_and_cohort(site: str, task: str) -> Callable[[], None]:
    from fedcore.cohort import build_cohort, load_task
    from sites.site import open_sites

    shutil.rmtree(home() / "datasets", ignore_errors=True)

    def work() -> None:
        (opened,) = open_sites([SiteSpec.parse(site)])
        build_cohort(opened, load_task(task))

    return work


def _features(site: str, task: str, representation: str) -> Callable[[], None]:
    from fedcore.cohort import build_cohort, load_task
    from fedcore.features.representation import load
    from sites.site import open_sites

    (opened,) = open_sites([SiteSpec.parse(site)])
    loaded = load_task(task)
    cohort = build_cohort(opened, loaded)
    return lambda: _say(load(representation).extract(opened.dataset, cohort.samples, loaded.window_hours).arrays)


def _write_charts(path: str, n_rows: str) -> Callable[[], None]:
    from sites.simulate.charts import write_chart_rows

    return lambda: _done(write_chart_rows(Path(path), int(n_rows), 0))


def _write_hospital(path: str, patients: str) -> Callable[[], None]:
    from sites.simulate.federation import write_federation
    from sites.simulate.hospital import default_hospitals

    return lambda: _done(write_federation(Path(path), default_hospitals(1, int(patients)), 0))


def _done(_written: object) -> None:
    return


def _say(arrays: dict[str, object]) -> None:
    shapes = {name: list(getattr(array, "shape", ())) for name, array in arrays.items()}
    print(json.dumps({"shapes": shapes}), file=sys.stderr)


MEASUREMENTS: dict[str, Callable[..., Callable[[], None]]] = {
    "peer": _peer,
    "ingest-and-cohort": _ingest_and_cohort,
    "features": _features,
    "write-charts": _write_charts,
    "write-hospital": _write_hospital,
}


def main() -> None:
    """Measure what the command line names."""
    what, *arguments = sys.argv[1:]
    work = MEASUREMENTS[what](*arguments)
    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": round(seconds, 3), "peak_rss_mb": round(peak, 1), "cores": os.cpu_count()}))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
