"""What is done to patients and what is wrong with them: ventilation, infusions, drugs, diagnoses, with their codes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl

from sites.simulate.hospital import REASONS
from sites.simulate.observations import Hours
from sites.simulate.population import DISEASES, Population
from sites.simulate.severity import SEVERITY
from sites.simulate.variables import STRIKES


@dataclass(frozen=True)
class Drug:
    """A drug by its names: MIMIC text and NDC, eICU text, RxNorm ingredient as an OMOP concept."""

    mimic: str
    ndc: str
    route: str
    eicu: str
    omop: int
    everyone: float = 0.0
    reasons: Mapping[str, float] = field(default_factory=dict)
    diseases: Mapping[str, float] = field(default_factory=dict)


DRUGS = (
    Drug("Heparin", "63323026201", "SC", "HEPARIN 5000 UNITS/ML", 1367571, 0.45),
    Drug("Pantoprazole", "00008084181", "PO", "PANTOPRAZOLE", 948078, 0.3, {"gastrointestinal": 0.6}),
    Drug("Acetaminophen", "51079000220", "PO", "ACETAMINOPHEN 325 MG PO TABS", 1125315, 0.5),
    Drug("Potassium Chloride", "00245004101", "PO", "potassium chloride", 19049105, 0.35),
    Drug("Vancomycin", "00338355248", "IV", "VANCOMYCIN", 1707687, 0.1, {"sepsis": 0.65, "respiratory": 0.2}),
    Drug("Piperacillin-Tazobactam", "0", "IV", "PIPERACILLIN/TAZOBACTAM", 1746114, 0.04, {"sepsis": 0.5}),
    Drug("CeftriaXONE", "0", "IV", "CEFTRIAXONE", 1777806, 0.05, {"respiratory": 0.45, "sepsis": 0.2}),
    Drug("Furosemide", "00409610204", "IV", "FUROSEMIDE", 956874, 0.1, {"cardiac": 0.3}, {"heart_failure": 0.6}),
    Drug(
        "Metoprolol Tartrate", "51079025520", "PO", "METOPROLOL", 1307046, 0.08, {"cardiac": 0.4}, {"hypertension": 0.3}
    ),
    Drug("Aspirin", "0", "PO", "ASPIRIN", 1112807, 0.1, {"cardiac": 0.7, "neurologic": 0.3}),
    Drug("Insulin", "00002821501", "SC", "INSULIN REGULAR", 1550023, 0.15, {}, {"diabetes": 0.8}),
    Drug("Albuterol 0.083% Neb Soln", "0", "IH", "ALBUTEROL", 1154343, 0.05, {"respiratory": 0.5}, {"copd": 0.6}),
    Drug("MethylPREDNISolone Sodium Succ", "0", "IV", "METHYLPREDNISOLONE", 1506270, 0.02, {}, {"copd": 0.4}),
    Drug("Lactulose", "0", "PO", "LACTULOSE", 987245, 0.01, {}, {"cirrhosis": 0.7}),
)


@dataclass(frozen=True)
class Diagnosis:
    """A diagnosis in ICD-9-CM and ICD-10-CM (without points), as an OMOP condition concept and as an eICU path."""

    icd9: str
    icd10: str
    omop: int
    eicu: str


DIAGNOSES: dict[str, Diagnosis] = {
    "hypertension": Diagnosis("4019", "I10", 320128, "cardiovascular|vascular disorders|hypertension"),
    "diabetes": Diagnosis("25000", "E119", 201826, "endocrine|glucose metabolism|diabetes mellitus"),
    "heart_failure": Diagnosis("4280", "I509", 316139, "cardiovascular|ventricular disorders|congestive heart failure"),
    "atrial_fibrillation": Diagnosis("42731", "I4891", 313217, "cardiovascular|arrhythmias|atrial fibrillation"),
    "copd": Diagnosis("496", "J449", 255573, "pulmonary|disorders of the airways|COPD"),
    "kidney_disease": Diagnosis("5859", "N189", 46271022, "renal|disorder of kidney|chronic renal insufficiency"),
    "cirrhosis": Diagnosis(
        "5715", "K7460", 4064161, "gastrointestinal|hepatic disease|hepatic dysfunction|with cirrhosis"
    ),
    "cancer": Diagnosis("1629", "C3490", 443388, "oncology|chest tumors|primary lung cancer"),
    "dementia": Diagnosis("29420", "F0390", 4182210, "neurologic|altered mental status / pain|dementia"),
    "sepsis": Diagnosis("0389", "A419", 132797, "cardiovascular|shock / hypotension|sepsis"),
    "respiratory": Diagnosis("486", "J189", 255848, "pulmonary|pulmonary infections|pneumonia"),
    "cardiac": Diagnosis(
        "41071",
        "I214",
        444406,
        "cardiovascular|chest pain / ASHD|acute coronary syndrome|acute myocardial infarction (no ST elevation)",
    ),
    "neurologic": Diagnosis("43491", "I639", 443454, "neurologic|disorders of vasculature|stroke|ischemic stroke"),
    "surgical": Diagnosis("41401", "I2510", 317576, "cardiovascular|chest pain / ASHD|coronary artery disease"),
    "gastrointestinal": Diagnosis("5789", "K922", 192671, "gastrointestinal|GI bleeding / PUD|GI bleeding"),
    "trauma": Diagnosis("80700", "S2239XA", 4142905, "trauma - other injuries|thoracic trauma|rib fractures"),
    "renal": Diagnosis("5849", "N179", 197320, "renal|disorder of kidney|acute renal failure"),
    "respiratory_failure": Diagnosis(
        "51881", "J9600", 319049, "pulmonary|respiratory failure|acute respiratory failure"
    ),
    "shock": Diagnosis("78552", "R6521", 196236, "cardiovascular|shock / hypotension|septic shock"),
}


def _spells(on: npt.NDArray[np.bool_], hours: Hours) -> pl.DataFrame:
    """Runs of consecutive hours of one ICU stay: admission, stay, start and end (minutes), rows first and last."""
    stay = np.where(on, hours.stay, -1)
    begins = on & (np.append(-1, stay[:-1]) != stay)
    ends = on & (np.append(stay[1:], -1) != stay)
    first, last = np.flatnonzero(begins), np.flatnonzero(ends)
    return pl.DataFrame(
        {
            "admission": hours.admission[first].astype(np.int32),
            "stay": hours.stay[first].astype(np.int32),
            "start": (hours.tick[first] * 60 + np.minimum(5, hours.minutes[first] - 1)).astype(np.int32),
            "end": (hours.tick[last] * 60 + hours.minutes[last]).astype(np.int32),
            "z": (hours.z[first] + hours.z[last]) / 2,
        }
    )


def ventilations(hours: Hours) -> pl.DataFrame:
    """Spells of invasive ventilation: admission, stay, start, end (minutes from hospital admission)."""
    return _spells(hours.ventilated, hours).drop("z")


def vasopressors(population: Population, hours: Hours) -> pl.DataFrame:
    """Spells of norepinephrine: admission, stay, start, end (minutes), rate (mcg/kg/min)."""
    rng = population.stream("vasopressors")
    threshold = rng.normal(2.3, 0.5, len(population.admissions))[hours.admission]
    strike = np.array([STRIKES[r]["circulation"] for r in REASONS])[hours.reason]
    spells = _spells((hours.z * strike > threshold) & (hours.stay >= 0), hours)
    rate = 0.08 * np.exp(0.45 * (spells["z"].to_numpy() - 2) + rng.normal(0, 0.25, len(spells)))
    return spells.drop("z").with_columns(rate=pl.Series(np.round(rate, 4)))


def prescriptions(population: Population) -> pl.DataFrame:
    """Drugs given on the hospital's orders: admission, drug (index of `DRUGS`), start, end (minutes)."""
    admissions = population.admissions
    people = population.patients[admissions["patient"].to_numpy().astype(np.int64)]
    reason, length = admissions["reason"].to_numpy(), admissions["minutes"].to_numpy().astype(np.int64)
    parts = []
    for index, drug in enumerate(DRUGS):
        rng = population.stream("drug", drug.mimic)
        chance = drug.everyone + np.array([drug.reasons.get(r, 0.0) for r in REASONS])[reason]
        for disease, more in drug.diseases.items():
            chance = chance + more * people[disease].cast(pl.Float64).to_numpy()
        start = rng.integers(30, 1200, len(admissions))
        given = np.flatnonzero((rng.random(len(admissions)) < np.minimum(chance, 0.95)) & (start < length))
        end = np.minimum(start + rng.integers(720, 7200, len(admissions)), length)
        parts.append(
            pl.DataFrame(
                {
                    "admission": given.astype(np.int32),
                    "drug": np.full(len(given), index, np.int8),
                    "start": start[given].astype(np.int32),
                    "end": end[given].astype(np.int32),
                }
            )
        )
    return pl.concat(parts).sort("admission", "start", "drug", maintain_order=True)


def diagnoses(population: Population, hours: Hours) -> pl.DataFrame:
    """What the coders found: admission, sequence (1 first), diagnosis (key of `DIAGNOSES`), late.

    All are known at discharge; those that are `late` come from the whole course and must not be dated earlier, the
    others (the reason for admission, chronic diseases) are known on arrival.
    """
    admissions = population.admissions
    people = population.patients[admissions["patient"].to_numpy().astype(np.int64)]
    rng = population.stream("diagnoses")
    n = len(admissions)
    worst = np.full(n, SEVERITY[0])
    np.maximum.at(worst, hours.admission, hours.z)
    reason = admissions["reason"].to_numpy()
    found: list[tuple[str, npt.NDArray[np.bool_]]] = [(r, reason == i) for i, r in enumerate(REASONS)]
    found += [(d, people[d].to_numpy() & (rng.random(n) < 0.92)) for d in DISEASES]
    lung = np.array([STRIKES[r]["lung"] for r in REASONS])[reason]
    found.append(("respiratory_failure", worst * lung + rng.normal(0, 0.5, n) > 2.2))
    found.append(("shock", (worst + rng.normal(0, 0.5, n) > 2.6) & (reason == REASONS.index("sepsis"))))
    found.append(("renal", (worst + rng.normal(0, 0.7, n) > 2.6) & (reason != REASONS.index("renal"))))
    parts = [
        pl.DataFrame({"admission": np.flatnonzero(mask).astype(np.int32)}).with_columns(
            diagnosis=pl.lit(name), order=pl.lit(order, pl.Int8), late=pl.lit(order >= len(REASONS) + len(DISEASES))
        )
        for order, (name, mask) in enumerate(found)
    ]
    frame = pl.concat(parts).sort("admission", "order", maintain_order=True)
    return frame.with_columns(sequence=pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over("admission")).drop("order")
