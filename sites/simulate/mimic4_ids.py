"""The ids of a simulated hospital in a MIMIC-IV export."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from sites.simulate.folder import draw_ids, write_table
from sites.simulate.hospital import REASONS
from sites.simulate.population import Population

_UNITS = {
    "sepsis": "Medical Intensive Care Unit (MICU)",
    "respiratory": "Medical Intensive Care Unit (MICU)",
    "cardiac": "Coronary Care Unit (CCU)",
    "neurologic": "Neuro Surgical Intensive Care Unit (Neuro SICU)",
    "surgical": "Cardiac Vascular Intensive Care Unit (CVICU)",
    "gastrointestinal": "Medical/Surgical Intensive Care Unit (MICU/SICU)",
    "trauma": "Trauma SICU (TSICU)",
    "renal": "Medical Intensive Care Unit (MICU)",
}


class Writer:
    """The ids of one population, and the tables written with them."""

    def __init__(self, population: Population, folder: Path) -> None:
        self.population, self.folder = population, folder
        rng = population.stream("mimic ids")
        self.subject = draw_ids(rng, 10_000_000, 19_900_000, len(population.patients))
        self.hadm = draw_ids(rng, 20_000_000, 29_900_000, len(population.admissions))
        self.stay = draw_ids(rng, 30_000_000, 39_900_000, len(population.stays))
        self.patient = population.admissions["patient"].to_numpy().astype(np.int64)
        self.reason = population.admissions["reason"].to_numpy().astype(np.int64)

    def ids(self, frame: pl.DataFrame) -> dict[str, pl.Series]:
        """subject_id, hadm_id and, where `frame` has a stay, stay_id of each row."""
        admission = frame["admission"].to_numpy().astype(np.int64)
        found = {
            "subject_id": pl.Series(self.subject[self.patient[admission]]),
            "hadm_id": pl.Series(self.hadm[admission]),
        }
        if "stay" in frame.columns:
            known = frame["stay"].is_not_null()
            stay = np.append(self.stay, 0)[frame["stay"].fill_null(-1).to_numpy().astype(np.int64)]
            found["stay_id"] = pl.Series(stay).set(~known, None)
        return found

    def units(self, admission: npt.NDArray[np.integer]) -> pl.Series:
        """The care unit of the patients of a reason."""
        names = np.array([_UNITS[r] for r in REASONS])
        return pl.Series(names[self.reason[admission.astype(np.int64)]])

    def write(self, name: str, frame: pl.DataFrame) -> None:
        """Write one table, e.g. `hosp/admissions`."""
        write_table(frame, self.folder / f"{name}.csv.gz")
