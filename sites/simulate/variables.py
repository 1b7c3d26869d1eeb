"""What is measured at the bedside and in the laboratory, how it follows severity, and what each export calls it.

A reading is, on the scale of `Variable.logarithmic` (identity or natural logarithm),

    base + severity * w * (z + organ effect) + frailty * (c - 3.5) + reason + patient effect + noise

with z the severity at that hour, c the frailty type, w how much the reason for admission strikes the variable's organ
(`STRIKES`), an effect of each stay on each organ and of each patient on each variable. Ids, names and units are the
genuine ones of MIMIC-IV, eICU-CRD and the OMOP vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Organ = Literal["circulation", "lung", "brain", "kidney", "liver", "blood"]
ORGANS: tuple[Organ, ...] = ("circulation", "lung", "brain", "kidney", "liver", "blood")


@dataclass(frozen=True)
class OtherUnit:
    """A second unit that hospitals document a variable in: other = value * scale + offset."""

    scale: float
    offset: float = 0.0
    decimals: int = 0
    mimic: tuple[int, str] | None = None
    omop_unit: tuple[int, str] | None = None


@dataclass(frozen=True)
class Variable:
    """One thing that is measured.

    Attributes:
        name: Ours, and in `Hospital.never`, `Hospital.si_units`.
        organ: Whose failure it shows.
        base: Value at severity 0 (before exponentiation if logarithmic).
        severity: Change for each unit of severity.
        frailty: Change for each step of frailty.
        patient_sd: Standard deviation of the patient's own level.
        noise_sd: Of one reading.
        logarithmic: The three above are on the natural logarithm's scale.
        low: Smallest value that is written.
        high: Largest.
        decimals: That are written.
        mimic: Item id and unit text of MIMIC-IV, in chartevents or labevents.
        eicu: Lab name and unit, or column of vitalPeriodic / vitalAperiodic / label of nurseCharting and the like.
        omop: Measurement concept and unit concept.
        omop_source: What the hospital itself calls it and its unit, for the source value columns.
        other: Its second unit.
        reasons: Shift for a reason for admission.
        diseases: Shift for a chronic disease.
    """

    name: str
    organ: Organ
    base: float
    severity: float
    frailty: float
    patient_sd: float
    noise_sd: float
    mimic: tuple[int, str | None]
    eicu: tuple[str, str | None]
    omop: tuple[int, int]
    omop_source: tuple[str, str]
    low: float = 0.0
    high: float = 1e6
    decimals: int = 0
    logarithmic: bool = False
    other: OtherUnit | None = None
    reasons: Mapping[str, float] = field(default_factory=dict)
    diseases: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Panel:
    """What is measured together, at the same minute.

    Attributes:
        name: In `Hospital.habits`.
        kind: vitals are charted in the ICU at regular hours; labs are drawn everywhere, at irregular ones.
        every: Interval as a multiple of `vitals_every_hours` or `labs_every_hours`.
        variables: Its members.
        eager: How much more often a sicker patient is measured, for each unit of severity.
        ventilated: Only for those on a ventilator.
    """

    name: str
    kind: Literal["vitals", "labs"]
    every: float
    variables: tuple[Variable, ...]
    eager: float = 0.0
    ventilated: bool = False


STRIKES: dict[str, dict[Organ, float]] = {
    "sepsis": {"circulation": 1.2, "lung": 1.0, "brain": 0.8, "kidney": 1.2, "liver": 1.1, "blood": 1.2},
    "respiratory": {"circulation": 0.8, "lung": 1.5, "brain": 0.8, "kidney": 0.8, "liver": 0.7, "blood": 1.0},
    "cardiac": {"circulation": 1.4, "lung": 1.0, "brain": 0.7, "kidney": 1.0, "liver": 0.9, "blood": 0.8},
    "neurologic": {"circulation": 0.7, "lung": 0.9, "brain": 1.8, "kidney": 0.7, "liver": 0.7, "blood": 0.8},
    "surgical": {"circulation": 1.1, "lung": 1.0, "brain": 0.8, "kidney": 0.9, "liver": 1.0, "blood": 1.2},
    "gastrointestinal": {"circulation": 1.1, "lung": 0.7, "brain": 0.8, "kidney": 1.0, "liver": 1.6, "blood": 1.4},
    "trauma": {"circulation": 1.2, "lung": 1.0, "brain": 1.3, "kidney": 0.7, "liver": 0.8, "blood": 1.3},
    "renal": {"circulation": 0.9, "lung": 0.8, "brain": 0.8, "kidney": 1.8, "liver": 0.8, "blood": 1.0},
}

_V = Variable
_CELSIUS = OtherUnit(1.8, 32.0, 1, mimic=(223761, "°F"), omop_unit=(9289, "[degF]"))

# fmt: off
PANELS: tuple[Panel, ...] = (
    Panel(
        "monitor",
        "vitals",
        1,
        (
            _V("heart_rate", "circulation", 82, 7.0, 1.2, 4.5, 5.1, (220045, "bpm"), ("heartrate", None),
               (3027018, 8541),
               ("Heart Rate", "bpm"), 20, 220),
            _V("respiratory_rate", "lung", 17, 2.3, 0.3, 1.1, 2.2, (220210, "insp/min"), ("respiration", None),
               (3024171, 8541), ("Respiratory Rate", "insp/min"), 4, 60),
            _V("oxygen_saturation", "lung", 97.4, -1.0, -0.15, 0.56, 1, (220277, "%"), ("sao2", None),
               (40762499, 8554),
               ("O2 saturation pulseoxymetry", "%"), 60, 100),
        ),
    ),
    Panel(
        "pressure",
        "vitals",
        1,
        (
            _V("systolic_pressure", "circulation", 125, -8.0, 0, 6.2, 6.8, (220179, "mmHg"),
               ("noninvasivesystolic", None),
               (3004249, 8876), ("Non Invasive Blood Pressure systolic", "mmHg"), 40, 240,
               diseases={"hypertension": 8}),
            _V("diastolic_pressure", "circulation", 65, -4.0, 0, 3.9, 5.1, (220180, "mmHg"),
               ("noninvasivediastolic", None),
               (3012888, 8876), ("Non Invasive Blood Pressure diastolic", "mmHg"), 20, 140),
            _V("mean_pressure", "circulation", 82, -5.0, 0, 3.9, 5.1, (220181, "mmHg"), ("noninvasivemean", None),
               (3027598, 8876), ("Non Invasive Blood Pressure mean", "mmHg"), 25, 180),
        ),
    ),
    Panel(
        "temperature",
        "vitals",
        2,
        (
            _V("temperature", "blood", 36.9, 0.12, 0, 0.11, 0.34, (223762, "°C"), ("temperature", None),
               (3020891, 586323),
               ("Temperature Celsius", "Cel"), 32, 42, 1, other=_CELSIUS, reasons={"sepsis": 0.5, "trauma": 0.1}),
        ),
    ),
    Panel(
        "glasgow",
        "vitals",
        2,
        (
            _V("gcs_eye", "brain", 4.1, -0.5, 0, 0.17, 0.34, (220739, None), ("Eyes", None), (3016335, 0),
               ("GCS - Eye Opening", ""), 1, 4),
            _V("gcs_verbal", "brain", 5.0, -0.8, 0, 0.22, 0.42, (223900, None), ("Verbal", None), (3009094, 0),
               ("GCS - Verbal Response", ""), 1, 5, diseases={"dementia": -0.8}),
            _V("gcs_motor", "brain", 6.4, -0.55, 0, 0.17, 0.34, (223901, None), ("Motor", None), (3008223, 0),
               ("GCS - Motor Response", ""), 1, 6),
        ),
    ),
    Panel(
        "ventilator",
        "vitals",
        2,
        (
            _V("fio2", "lung", 36, 6.5, 0, 3.4, 4.2, (223835, None), ("FiO2", None), (3020716, 8554),
               ("Inspired O2 Fraction", "%"), 21, 100),
        ),
        ventilated=True,
    ),
    Panel(
        "urine",
        "vitals",
        2,
        (
            _V("urine", "kidney", 4.4, -0.34, -0.06, 0.17, 0.38, (226559, "ml"), ("Urine", None), (3014315, 8587),
               ("Foley", "ml"), 0, 1500, logarithmic=True, diseases={"kidney_disease": -0.3}),
        ),
    ),
    Panel(
        "chemistry",
        "labs",
        1,
        (
            _V("creatinine", "kidney", -0.08, 0.2, 0.075, 0.12, 0.085, (50912, "mg/dL"), ("creatinine", "mg/dL"),
               (3016723, 8840), ("Creatinine", "mg/dL"), 0.2, 20, 2, True,
               OtherUnit(88.42, 0, 0, omop_unit=(8749, "umol/L")), {"renal": 0.7}, {"kidney_disease": 0.6}),
            _V("urea_nitrogen", "kidney", 2.8, 0.2, 0.1, 0.14, 0.085, (51006, "mg/dL"), ("BUN", "mg/dL"),
               (3013682, 8840),
               ("Urea Nitrogen", "mg/dL"), 2, 200, 0, True, None, {"renal": 0.5}, {"kidney_disease": 0.4}),
            _V("sodium", "kidney", 138.5, -0.3, -0.15, 1.4, 1.7, (50983, "mEq/L"), ("sodium", "mmol/L"),
               (3019550, 9557),
               ("Sodium", "mEq/L"), 105, 175, 0, diseases={"cirrhosis": -4}),
            _V("potassium", "kidney", 4.0, 0.12, 0.03, 0.14, 0.3, (50971, "mEq/L"), ("potassium", "mmol/L"),
               (3023103, 9557), ("Potassium", "mEq/L"), 1.8, 9, 1),
            _V("chloride", "kidney", 103, -0.2, 0, 1.7, 1.9, (50902, "mEq/L"), ("chloride", "mmol/L"), (3014576, 9557),
               ("Chloride", "mEq/L"), 70, 140),
            _V("bicarbonate", "kidney", 25, -1.4, -0.15, 0.9, 1.4, (50882, "mEq/L"), ("bicarbonate", "mmol/L"),
               (3016293, 9557), ("Bicarbonate", "mEq/L"), 4, 50, diseases={"copd": 3}),
            _V("anion_gap", "circulation", 12, 1.2, 0.15, 0.67, 1.4, (50868, "mEq/L"), ("anion gap", None),
               (3045716, 9557),
               ("Anion Gap", "mEq/L"), 2, 45),
            _V("glucose", "liver", 4.82, 0.06, 0, 0.084, 0.17, (50931, "mg/dL"), ("glucose", "mg/dL"), (3004501, 8840),
               ("Glucose", "mg/dL"), 20, 900, 0, True, OtherUnit(0.0555, 0, 1, omop_unit=(8753, "mmol/L")), {},
               {"diabetes": 0.3}),
            _V("calcium", "blood", 8.6, -0.12, -0.06, 0.22, 0.26, (50893, "mg/dL"), ("calcium", "mg/dL"),
               (3006906, 8840),
               ("Calcium, Total", "mg/dL"), 4, 15, 1),
            _V("magnesium", "kidney", 2.0, 0.04, 0, 0.084, 0.17, (50960, "mg/dL"), ("magnesium", "mg/dL"),
               (3001420, 8840),
               ("Magnesium", "mg/dL"), 0.8, 6, 1),
            _V("phosphate", "kidney", 3.3, 0.3, 0.075, 0.28, 0.42, (50970, "mg/dL"), ("phosphate", "mg/dL"),
               (3011904, 8840),
               ("Phosphate", "mg/dL"), 0.6, 15, 1),
        ),
        eager=0.15,
    ),
    Panel(
        "count",
        "labs",
        1,
        (
            _V("hemoglobin", "blood", 11.2, -0.3, -0.38, 0.73, 0.42, (51222, "g/dL"), ("Hgb", "g/dL"), (3000963, 8713),
               ("Hemoglobin", "g/dL"), 4, 20, 1, other=OtherUnit(10, 0, 0, omop_unit=(8636, "g/L")),
               reasons={"gastrointestinal": -1.2}),
            _V("hematocrit", "blood", 33.5, -0.9, -1.1, 2.1, 1.4, (51221, "%"), ("Hct", "%"), (3023314, 8554),
               ("Hematocrit", "%"), 12, 60, 1, reasons={"gastrointestinal": -3.5}),
            _V("white_cells", "blood", 2.25, 0.12, 0, 0.14, 0.13, (51301, "K/uL"), ("WBC x 1000", "K/mcL"),
               (3000905, 8848), ("White Blood Cells", "K/uL"), 0.1, 90, 1, True, None, {"sepsis": 0.3},
               {"cancer": -0.1}),
            _V("platelets", "blood", 5.35, -0.11, -0.06, 0.17, 0.1, (51265, "K/uL"), ("platelets x 1000", "K/mcL"),
               (3024929, 8848), ("Platelet Count", "K/uL"), 5, 1200, 0, True, None, {},
               {"cirrhosis": -0.5, "cancer": -0.2}),
        ),
        eager=0.15,
    ),
    Panel(
        "liver",
        "labs",
        2.5,
        (
            _V("bilirubin", "liver", -0.45, 0.22, 0.09, 0.22, 0.13, (50885, "mg/dL"), ("total bilirubin", "mg/dL"),
               (3024128, 8840), ("Bilirubin, Total", "mg/dL"), 0.1, 50, 1, True,
               OtherUnit(17.1, 0, 0, omop_unit=(8749, "umol/L")), {}, {"cirrhosis": 1.2}),
            _V("alanine", "liver", 3.3, 0.2, 0, 0.28, 0.17, (50861, "IU/L"), ("ALT (SGPT)", "Units/L"), (3006923, 8645),
               ("Alanine Aminotransferase (ALT)", "IU/L"), 4, 12000, 0, True),
            _V("aspartate", "liver", 3.5, 0.26, 0, 0.28, 0.17, (50878, "IU/L"), ("AST (SGOT)", "Units/L"),
               (3013721, 8645),
               ("Asparate Aminotransferase (AST)", "IU/L"), 4, 15000, 0, True),
            _V("alkaline_phosphatase", "liver", 4.45, 0.06, 0.03, 0.2, 0.085, (50863, "IU/L"),
               ("alkaline phos.", "Units/L"), (3035995, 8645), ("Alkaline Phosphatase", "IU/L"), 15, 2500, 0, True),
            _V("albumin", "liver", 3.4, -0.14, -0.2, 0.2, 0.13, (50862, "g/dL"), ("albumin", "g/dL"),
               (3024561, 8713),
               ("Albumin", "g/dL"), 0.9, 5.6, 1),
        ),
        eager=0.2,
    ),
    Panel(
        "coagulation",
        "labs",
        2,
        (
            _V("inr", "liver", 0.18, 0.08, 0.015, 0.067, 0.051, (51237, None), ("PT - INR", "ratio"), (3022217, 8523),
               ("INR(PT)", ""), 0.8, 12, 1, True, None, {}, {"cirrhosis": 0.3, "atrial_fibrillation": 0.2}),
            _V("prothrombin", "liver", 2.6, 0.08, 0.015, 0.056, 0.043, (51274, "sec"), ("PT", "sec"), (3034426, 8555),
               ("PT", "sec"), 8, 120, 1, True, None, {}, {"cirrhosis": 0.3, "atrial_fibrillation": 0.2}),
            _V("thromboplastin", "liver", 3.42, 0.08, 0.015, 0.084, 0.13, (51275, "sec"), ("PTT", "sec"),
               (3018677, 8555),
               ("PTT", "sec"), 18, 150, 1, True),
        ),
        eager=0.15,
    ),
    Panel(
        "gas",
        "labs",
        2.2,
        (
            _V("ph", "circulation", 7.4, -0.03, 0, 0.011, 0.03, (50820, "units"), ("pH", None), (3019977, 8482),
               ("pH", "units"), 6.7, 7.7, 2),
            _V("po2", "lung", 4.75, -0.09, 0, 0.084, 0.26, (50821, "mm Hg"), ("paO2", "mm Hg"), (3027801, 8876),
               ("pO2", "mm Hg"), 25, 550, 0, True),
            _V("pco2", "lung", 3.68, 0.02, 0, 0.056, 0.12, (50818, "mm Hg"), ("paCO2", "mm Hg"), (3027946, 8876),
               ("pCO2", "mm Hg"), 12, 140, 0, True, None, {}, {"copd": 0.2}),
            _V("lactate", "circulation", 0.25, 0.27, 0.03, 0.11, 0.17, (50813, "mmol/L"), ("lactate", "mmol/L"),
               (3047181, 8753), ("Lactate", "mmol/L"), 0.3, 25, 1, True),
        ),
        eager=0.6,
    ),
    Panel(
        "heart",
        "labs",
        4,
        (
            _V("troponin", "circulation", -3.6, 0.35, 0.15, 0.45, 0.26, (51003, "ng/mL"), ("troponin - T", "ng/mL"),
               (3019800, 8842), ("Troponin T", "ng/mL"), 0.01, 60, 2, True, None, {"cardiac": 1.6}),
        ),
    ),
)
# fmt: on

VARIABLES: tuple[Variable, ...] = tuple(v for p in PANELS for v in p.variables)
INDEX: dict[str, int] = {v.name: i for i, v in enumerate(VARIABLES)}
PANEL_OF: dict[str, Panel] = {v.name: p for p in PANELS for v in p.variables}
