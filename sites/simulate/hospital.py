"""What makes one simulated hospital differ from the next: its knobs, and the six that the embedded suite uses."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

Kind = Literal["mimic4", "eicu", "omop"]

REASONS = ("sepsis", "respiratory", "cardiac", "neurologic", "surgical", "gastrointestinal", "trauma", "renal")
"""Why a patient is admitted; a hospital's case mix is a weight for each."""

_GENERAL = {
    "sepsis": 0.2,
    "respiratory": 0.16,
    "cardiac": 0.22,
    "neurologic": 0.1,
    "surgical": 0.14,
    "gastrointestinal": 0.09,
    "trauma": 0.05,
    "renal": 0.04,
}


@dataclass(frozen=True)
class Traps:
    """How often a genuine export's oddities occur; each is a probability for one stay, patient or row.

    Attributes:
        duplicate_rows: An observation is written twice.
        implausible: An observation is a slip of the keyboard or a loose sensor (heart rate 0, temperature 9.9).
        exactly_24h: A stay that ends in the 24th hour ends at 24:00 to the minute.
        discharged_before_death: In-hospital dead are given a discharge some hours before their death (MIMIC).
        organ_donor: In-hospital dead are admitted once more, as a donor, after their death (MIMIC).
        dead_on_arrival: A patient whose only admission begins after the death (MIMIC).
        after_death: A result is charted after the patient's death.
        outcome_unknown: The discharge status is missing (eICU).
        two_hospitals: A patient's second hospital stay is in another hospital of the export (eICU).
    """

    duplicate_rows: float = 0.002
    implausible: float = 0.001
    exactly_24h: float = 0.05
    discharged_before_death: float = 0.1
    organ_donor: float = 0.03
    dead_on_arrival: float = 0.003
    after_death: float = 0.05
    outcome_unknown: float = 0.004
    two_hospitals: float = 0.02


@dataclass(frozen=True)
class Hospital:
    """One simulated hospital.

    Attributes:
        name: Its name in the federation; for eICU exports `hospital_id` stands in the data.
        kind: The export format it writes.
        patients: Number of patients; about one ICU stay each.
        case_mix: Weight of each of `REASONS`.
        age: Mean age in years.
        comorbidity: Odds ratio of every chronic disease against the general population of patients.
        severity: Shift of the severity on arrival; 1 is one standard deviation of severity.
        mortality: Shift of the log hazard of death at given severity: quality of care.
        icu_share: Part of the admissions that are meant for the ICU from the start.
        later_admissions: Mean number of further admissions of a patient who survives.
        vitals_every_hours: Hours between two charted vital signs in the ICU, in the first two days (then 4 times it).
        labs_every_hours: Mean hours between two draws of the common laboratory panels in the ICU.
        habits: Factor on how often a panel (`sites.simulate.variables.Panel.name`) is drawn.
        never: Variables that the hospital does not document.
        missing: Probability that a variable is undocumented for a whole stay.
        icd10: Part of the admissions coded in ICD-10 rather than ICD-9.
        si_units: Variables documented in their other unit (creatinine in umol/L, temperature in Fahrenheit).
        result_delay_minutes: Mean time from drawing to storing a result.
        charting_delay_minutes: Mean time from reading a vital sign to storing it.
        first_year: Year of the first admissions; genuine exports shift dates, so any will do.
        year_group: MIMIC-IV's `anchor_year_group`; `2020 - 2022` exists from v3.0.
        hospital_id: eICU `hospitalid`.
        region: eICU region, or None as for 31 of the demo's hospitals.
        beds: eICU `numbedscategory`.
        teaching: eICU `teachingstatus`.
        traps: Rates of the oddities.
    """

    name: str
    kind: Kind = "mimic4"
    patients: int = 1000
    case_mix: Mapping[str, float] = field(default_factory=lambda: dict(_GENERAL))
    age: float = 64.0
    comorbidity: float = 1.0
    severity: float = 0.0
    mortality: float = 0.0
    icu_share: float = 0.7
    later_admissions: float = 0.25
    vitals_every_hours: int = 2
    labs_every_hours: float = 10.0
    habits: Mapping[str, float] = field(default_factory=dict)
    never: frozenset[str] = frozenset()
    missing: float = 0.02
    icd10: float = 0.5
    si_units: frozenset[str] = frozenset()
    result_delay_minutes: float = 45.0
    charting_delay_minutes: float = 0.0
    first_year: int = 2150
    year_group: str = "2014 - 2016"
    hospital_id: int = 1
    region: str | None = "Midwest"
    beds: str = "250 - 499"
    teaching: bool = False
    traps: Traps = Traps()

    def __post_init__(self) -> None:
        """Refuse what no population can be drawn from."""
        unknown = sorted(set(self.case_mix) - set(REASONS))
        if unknown:
            raise ValueError(
                f"case_mix of hospital {self.name!r} names {unknown[0]!r}; it may name {', '.join(REASONS)}"
            )
        if self.patients < 1:
            raise ValueError(f"hospital {self.name!r} has patients={self.patients}; it needs at least 1")


def _mix(**weights: float) -> dict[str, float]:
    """The general case mix with some weights replaced."""
    return {**_GENERAL, **weights}


_PROFILES = (
    Hospital(
        name="riverside",
        kind="mimic4",
        case_mix=_mix(sepsis=0.28, surgical=0.2),
        age=65,
        comorbidity=1.2,
        severity=0.2,
        icd10=0.35,
        vitals_every_hours=2,
        labs_every_hours=12,
        first_year=2130,
        traps=Traps(),
    ),
    Hospital(
        name="prairie",
        kind="eicu",
        age=66,
        comorbidity=1.1,
        icd10=0.0,
        labs_every_hours=12,
        habits={"gas": 0.5, "coagulation": 0.6},
        result_delay_minutes=35,
        hospital_id=73,
        region="Midwest",
        beds=">= 500",
        teaching=True,
    ),
    Hospital(
        name="harbour",
        kind="omop",
        case_mix=_mix(cardiac=0.32, sepsis=0.15),
        age=69,
        comorbidity=1.0,
        severity=-0.1,
        mortality=-0.1,
        vitals_every_hours=3,
        labs_every_hours=12,
        never=frozenset({"troponin"}),
        icd10=1.0,
        si_units=frozenset({"creatinine", "glucose", "bilirubin", "hemoglobin"}),
        first_year=2014,
    ),
    Hospital(
        name="northgate",
        kind="mimic4",
        case_mix=_mix(trauma=0.2, neurologic=0.2),
        age=57,
        comorbidity=0.7,
        severity=0.3,
        mortality=0.2,
        vitals_every_hours=2,
        labs_every_hours=12,
        habits={"liver": 0.5},
        icd10=1.0,
        si_units=frozenset({"temperature"}),
        result_delay_minutes=70,
        charting_delay_minutes=20,
        first_year=2160,
        year_group="2020 - 2022",
    ),
    Hospital(
        name="lakeview",
        kind="eicu",
        case_mix=_mix(respiratory=0.28),
        age=68,
        comorbidity=1.3,
        severity=0.15,
        mortality=0.1,
        vitals_every_hours=2,
        labs_every_hours=14,
        habits={"liver": 0.6, "gas": 0.6},
        never=frozenset({"magnesium", "phosphate"}),
        missing=0.05,
        icd10=0.0,
        hospital_id=167,
        region="South",
        beds="100 - 249",
    ),
    Hospital(
        name="summit",
        kind="eicu",
        case_mix=_mix(cardiac=0.3, surgical=0.22),
        age=62,
        comorbidity=0.9,
        severity=0.1,
        mortality=0.1,
        vitals_every_hours=3,
        labs_every_hours=12,
        missing=0.04,
        icd10=0.5,
        hospital_id=264,
        region=None,
        beds="250 - 499",
    ),
)


def default_hospitals(count: int, patients: int) -> tuple[Hospital, ...]:
    """The first `count` hospitals of the embedded federation.

    Six differ by design (two write MIMIC-IV, three stand in one eICU export, one writes OMOP); further ones repeat
    them with another name, other patients and slightly other knobs.

    Args:
        count: How many, at least 1.
        patients: Patients of each.
    """
    if count < 1:
        raise ValueError(f"hospitals={count}; a federation needs at least 1")
    found = []
    for i in range(count):
        profile, cycle = _PROFILES[i % len(_PROFILES)], i // len(_PROFILES)
        found.append(
            replace(
                profile,
                name=profile.name if cycle == 0 else f"{profile.name}{cycle + 1}",
                patients=patients,
                age=profile.age + (cycle % 5 - 2 if cycle else 0),
                severity=profile.severity + (0.1 * (cycle % 3 - 1) if cycle else 0.0),
                hospital_id=profile.hospital_id + cycle,
            )
        )
    return tuple(found)
