"""A federation of simulated hospitals on disk: their exports, and beside them the truth that only evaluators may read.

OUT/simulation.json         what it was made from; equal and complete: nothing is done
OUT/riverside/              one export (MIMIC-IV or OMOP: one hospital; eICU: several)
OUT/riverside/SIMULATED.json
OUT/truth/riverside.parquet subject_id, hospital, task, prediction_time, offset_minutes, true_risk, label
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from sites.errors import InputError
from sites.simulate.hospital import Hospital, default_hospitals
from sites.simulate.population import Population, populate
from sites.simulate.truth import samples
from sites.simulate.write_eicu import write_eicu
from sites.simulate.write_mimic4 import write_mimic4
from sites.simulate.write_omop import write_omop
from sites.spec import SiteSpec

PATIENTS = 1200
"""Patients of each hospital of the embedded federation: about as many ICU stays."""

_MARK = "simulation.json"


@dataclass(frozen=True)
class SimulatedSite:
    """One export of a simulated federation.

    Attributes:
        name: Of the site; the hospital's, or `eicu` for an export of several.
        kind: Of the export.
        path: Its folder.
        options: What makes one client site of each hospital: `by=hospital` for eICU.
        truth: The parquet file of true risks.
        hospitals: The names of the hospitals in it.
    """

    name: str
    kind: str
    path: Path
    truth: Path
    hospitals: tuple[str, ...]
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def spec(self) -> SiteSpec:
        """As a user would name the site."""
        return SiteSpec(self.name, self.kind, self.path, dict(self.options))


def simulate(
    out: Path, hospitals: int = 6, patients_per_hospital: int | None = None, seed: int = 0
) -> list[SimulatedSite]:
    """Write the default federation of so many hospitals, unless it stands there already.

    Args:
        out: The folder; made if need be. It must be empty, absent or an earlier simulation, which is replaced.
        hospitals: How many, at least 1; six are two MIMIC-IV exports, one of OMOP, and three in one eICU export.
        patients_per_hospital: Default: `PATIENTS`.
        seed: Fixes every draw.

    Raises:
        InputError: `out` holds something else.
    """
    patients = PATIENTS if patients_per_hospital is None else patients_per_hospital
    return write_federation(out, default_hospitals(hospitals, patients), seed)


def write_federation(out: Path, hospitals: Sequence[Hospital], seed: int) -> list[SimulatedSite]:
    """Write the exports of these hospitals, unless they stand there already; all or nothing.

    Raises:
        InputError: `out` holds something else.
    """
    names = [h.name for h in hospitals]
    if len(set(names)) < len(names):
        raise InputError(f"found two hospitals named {max(names, key=names.count)!r}, expected different names")
    exports = _exports(hospitals)
    wanted = {"seed": seed, "hospitals": [_knobs(h) for h in hospitals], "code": _code_version()}
    found = [_site(out, name, members) for name, members in exports.items()]
    if _stands(out, wanted):
        return found
    if out.exists() and not (out / _MARK).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(
            f"{out}: found something that is no simulation, expected an empty or new folder; choose another"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        for name, members in exports.items():
            _write(work / "new", name, members, seed)
        (work / "new" / _MARK).write_text(json.dumps(wanted, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        if out.exists():
            out.rename(work / "old")
        try:
            (work / "new").rename(out)
        except OSError:
            if not _stands(out, wanted):  # another process was faster, or something is wrong
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return found


def _exports(hospitals: Sequence[Hospital]) -> dict[str, list[Hospital]]:
    """Which hospitals stand in which export: all of eICU in one, every other by itself."""
    exports: dict[str, list[Hospital]] = {}
    for hospital in hospitals:
        exports.setdefault("eicu" if hospital.kind == "eicu" else hospital.name, []).append(hospital)
    return exports


def _site(out: Path, name: str, members: Sequence[Hospital]) -> SimulatedSite:
    return SimulatedSite(
        name=name,
        kind=members[0].kind,
        path=out / name,
        truth=out / "truth" / f"{name}.parquet",
        hospitals=tuple(h.name for h in members),
        options={"by": "hospital"} if members[0].kind == "eicu" else {},
    )


def _write(root: Path, name: str, members: Sequence[Hospital], seed: int) -> None:
    folder, populations = root / name, [populate(h, seed) for h in members]
    folder.mkdir(parents=True)
    if members[0].kind == "eicu":
        rows = [
            _known(p, subject, timed=False)
            for p, subject in zip(populations, write_eicu(populations, folder), strict=True)
        ]
    else:
        write = write_mimic4 if members[0].kind == "mimic4" else write_omop
        population = populations[0]
        patient = population.admissions["patient"].to_numpy().astype(np.int64)
        rows = [_known(population, write(population, folder)[patient], timed=True)]
    (root / "truth").mkdir(exist_ok=True)
    pl.concat(rows).sort("task", "subject_id", "offset_minutes", "prediction_time").write_parquet(
        root / "truth" / f"{name}.parquet"
    )
    told = {
        "hospital": name,
        "hospitals": [h.name for h in members],
        "seed": seed,
        "source": f"simulated-{name}-{seed}",
        "truth": f"../truth/{name}.parquet",
    }
    (folder / "SIMULATED.json").write_text(json.dumps(told, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _known(population: Population, subject: npt.NDArray[np.int64], *, timed: bool) -> pl.DataFrame:
    """The truth of one hospital under the export's subject ids.

    Args:
        population: The hospital.
        subject: The MEDS subject of each admission; -1: not exported, or without a known outcome.
        timed: The export has dates, so the prediction time is known here; else only its offset.
    """
    known = samples(population)
    admission = known["admission"].to_numpy().astype(np.int64)
    admitted = population.admissions["admitted"].to_numpy().astype("datetime64[us]")[admission]
    time = pl.Series(admitted + known["offset_minutes"].to_numpy().astype("timedelta64[m]"), dtype=pl.Datetime("us"))
    return known.select(
        subject_id=pl.Series(subject[admission], dtype=pl.Int64),
        hospital=pl.lit(population.hospital.name),
        task="task",
        prediction_time=time if timed else pl.lit(None, pl.Datetime("us")),
        offset_minutes="offset_minutes",
        true_risk="true_risk",
        label="label",
    ).filter(pl.Series(subject[admission] != -1))


def _knobs(hospital: Hospital) -> str:
    """The knobs as text, sets in order."""
    values = {k: sorted(v) if isinstance(v, frozenset) else v for k, v in vars(hospital).items()}
    return repr(sorted(values.items()))


def _code_version() -> str:
    """Of everything that decides the bytes: this room's code and the libraries' versions."""
    digest = hashlib.sha256(f"polars {pl.__version__} numpy {np.__version__}".encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def _stands(out: Path, wanted: Mapping[str, object]) -> bool:
    try:
        return bool(json.loads((out / _MARK).read_text(encoding="utf-8")) == wanted)
    except (OSError, ValueError):
        return False
