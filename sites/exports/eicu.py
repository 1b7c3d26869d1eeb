"""eICU Collaborative Research Database v2.0 (Pollard et al. 2018, doi:10.1038/sdata.2018.178) as MEDS.

A subject is a hospital stay; its person, the unit of splits and privacy, is `uniquepid` (see `eicu_stays`).

When a row was known: the later of when it happened and when it was entered (`...enteredoffset`, `...entryoffset`,
`labresultrevisedoffset`). Where eICU keeps no second time, a stated rule:

- APACHE variables and the APACHE admission diagnosis: 24 hours after the unit admission, whatever the length of stay.
- Cultures: 72 hours after they were taken.
- A drug order is known when it was given, but not before it started; cancelled orders are no events. Its stop is an
  event only if it lies after its start (0 stands for missing).
- Start and end of ventilation: not before the status that reports them was entered (0 stands for missing).
- Height and weight on admission: at the unit admission; weight at discharge: at the unit discharge.

Missing is written in several ways: APACHE -1, an empty field. Heights from 0.3 to 600 cm pass as they are: plausible
ranges belong to the concepts.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import polars as pl
import yaml

from sites.exports.eicu_patient import APACHE_MINUTES, NONE, STAY_EVENTS
from sites.exports.eicu_rows import clean, columns, later, number, unit_rows, words
from sites.exports.eicu_stays import GROUPS, frames
from sites.exports.eicu_tables import APACHE_APS, APACHE_PRED, TABLES, VITAL_APERIODIC, VITAL_PERIODIC
from sites.exports.export import Events, Export, code

CULTURE_HOURS = 72


@cache
def _lab_spelling() -> dict[str, str]:
    names = yaml.safe_load(Path(__file__).with_name("eicu_labs.yaml").read_text(encoding="utf-8"))["lab_names"]
    return {name.lower(): name for name in names}


def lab_name(column: str) -> pl.Expr:
    """A lab's name in eICU's own spelling, whatever the letter case and blanks (`eicu_labs.yaml`).

    >>> pl.DataFrame({"n": ["WBC  X 1000", "my lab "]}).select(lab_name("n"))["n"].to_list()
    ['WBC x 1000', 'my lab']
    """
    name = clean(column)
    return name.str.to_lowercase().replace_strict(_lab_spelling(), default=name, return_dtype=pl.String).alias(column)


_ICD9 = r"^(\d{3}(\.\d{1,2})?|V\d{2}(\.\d{1,2})?|E\d{3}(\.\d)?)$"
_ICD10 = r"^[A-Z]\d[0-9A-Z](\.[0-9A-Z]{1,4})?$"


def _icd(lazy: pl.LazyFrame) -> pl.LazyFrame:
    """One row for each code of `icd9code`: `401.9, I10` holds an ICD-9 and an ICD-10 code, told apart by their shape.

    `V` with two digits and `E` with three are ICD-9 (ICD-10 has no E with three digits before the dot, and its V codes,
    transport accidents, do not occur). A code of neither shape (`31.1`) has version UNK.
    """
    codes = lazy.with_columns(icd=pl.col("icd9code").str.to_uppercase().str.split(",")).explode("icd")
    codes = codes.with_columns(pl.col("icd").str.replace_all(r"\s", "")).filter(pl.col("icd").str.len_chars() > 0)
    version = (
        pl.when(pl.col("icd").str.contains(_ICD9))
        .then(pl.lit("9"))
        .when(pl.col("icd").str.contains(_ICD10))
        .then(pl.lit("10"))
    )
    return codes.with_columns(version=version).with_columns(pl.col("icd").str.replace_all(".", "", literal=True))


def _charted(lazy: pl.LazyFrame) -> pl.LazyFrame:
    """`nurseCharting` names a value in two columns; a name that says nothing (`Value`) gives way to the label."""
    name = pl.col("nursingchartcelltypevalname")
    return lazy.with_columns(
        item=pl.when(name == "Value").then(None).otherwise(name).fill_null(pl.col("nursingchartcelltypevallabel"))
    )


_SCORE = r"/GCS(?:/(\w+ Score))?/\d+$"


def _examined(lazy: pl.LazyFrame) -> pl.LazyFrame:
    """A coma score stands at the end of the path (`.../GCS/Motor Score/6`, `.../GCS/15`): it is a chart item."""
    path = pl.col("physicalexampath")
    scored = path.str.contains(_SCORE)
    score = path.str.extract(_SCORE).fill_null("GCS Total")
    return lazy.with_columns(
        item=pl.when(scored).then(code("LAB", score, NONE)).otherwise(code("PHYSICAL_EXAM", path)),
        value=pl.when(scored).then(path.str.extract(r"/(\d+)$").cast(pl.Float64)).otherwise(number("physicalexamtext")),
    )


def _drug_name(column: str) -> pl.Expr:
    """The name of a drug; without one, its code in the HICL list (0: none)."""
    hicl = pl.when(pl.col("drughiclseqno") > 0).then(pl.format("HICL {}", "drughiclseqno"))
    return pl.coalesce(clean(column), hicl)


def _ordered(lazy: pl.LazyFrame) -> pl.LazyFrame:
    cancelled = pl.col("drugordercancelled").str.to_lowercase().is_in(["yes", "true", "1"]).fill_null(False)
    return lazy.filter(~cancelled).with_columns(drug=_drug_name("drugname")).filter(pl.col("drug").is_not_null())


def _stopped(lazy: pl.LazyFrame) -> pl.LazyFrame:
    stop = pl.col("drugstopoffset")
    return _ordered(lazy).filter((stop > pl.col("drugstartoffset").fill_null(stop - 1)) & (stop != 0))


def _infused(lazy: pl.LazyFrame) -> pl.LazyFrame:
    return lazy.with_columns(rate=number("drugrate")).filter(pl.col("rate").is_not_null())


def _in_path(part: str) -> Callable[[pl.LazyFrame], pl.LazyFrame]:
    return lambda lazy: lazy.filter(pl.col("cellpath").str.contains(part, literal=True))


def _ventilation(event: str, offset: str) -> Events:
    """Start or end of ventilation, as a status reports it: not before it was entered; 0 stands for missing."""
    return unit_rows(
        "respiratorycare",
        pl.lit(event),
        later(offset, "respcarestatusoffset"),
        rows=lambda lazy: lazy.filter(pl.col(offset) != 0),
        name=offset,
    )


_FLUID_PARTS = {
    "Intake (ml)": "SUBJECT_FLUID_INTAKE",
    "Output (ml)": "SUBJECT_FLUID_OUTPUT",
    "Dialysis (ml)": "DIALYSIS",
}

FLUIDS = tuple(
    unit_rows(
        "intakeoutput",
        code(prefix, clean("celllabel"), pl.lit("ml")),
        later("intakeoutputoffset", "intakeoutputentryoffset"),
        numeric=pl.col("cellvaluenumeric"),
        rows=_in_path(f"|I&O|{part}"),
        name=f"intakeoutput: {part}",
    )
    for part, prefix in _FLUID_PARTS.items()
)

MEASUREMENTS = (
    columns("vitalperiodic", "LAB", VITAL_PERIODIC, pl.col("observationoffset")),
    columns("vitalaperiodic", "LAB", VITAL_APERIODIC, pl.col("observationoffset")),
    unit_rows(
        "lab",
        code("LAB", lab_name("labname"), clean("labmeasurenamesystem")),
        later("labresultoffset", "labresultrevisedoffset"),
        numeric=pl.coalesce(pl.col("labresult"), number("labresulttext")),
        text=words("labresulttext"),
        having="labname",
    ),
    unit_rows(
        "customlab",
        code("LAB", lab_name("labothername"), NONE),
        pl.col("labotheroffset"),
        numeric=pl.coalesce(pl.col("labotherresult"), number("labothervaluetext")),
        text=words("labothervaluetext"),
        having="labothername",
    ),
    unit_rows(
        "nursecharting",
        code("LAB", clean("item"), NONE),
        later("nursingchartoffset", "nursingchartentryoffset"),
        numeric=number("nursingchartvalue"),
        text=words("nursingchartvalue"),
        rows=_charted,
    ),
    unit_rows(
        "respiratorycharting",
        code("LAB", clean("respchartvaluelabel"), NONE),
        later("respchartoffset", "respchartentryoffset"),
        numeric=number("respchartvalue"),
        text=words("respchartvalue"),
        having="respchartvaluelabel",
    ),
    unit_rows(
        "intakeoutput",
        code("LAB", clean("celllabel"), NONE),
        later("intakeoutputoffset", "intakeoutputentryoffset"),
        numeric=pl.col("cellvaluenumeric"),
        rows=_in_path("|I&O|Weight"),
        name="intakeoutput: weight",
    ),
    columns("apacheapsvar", "APACHE", dict.fromkeys(APACHE_APS), APACHE_MINUTES, missing=-1),
    columns("apachepredvar", "APACHE", dict.fromkeys(APACHE_PRED), APACHE_MINUTES, missing=-1),
    unit_rows(
        "physicalexam",
        pl.col("item"),
        pl.col("physicalexamoffset"),
        numeric=pl.col("value"),
        text=words("physicalexamtext"),
        having="physicalexampath",
        rows=_examined,
    ),
    unit_rows(
        "nurseassessment",
        code("NURSE_ASSESSMENT", "celllabel", "cellattribute"),
        later("nurseassessoffset", "nurseassessentryoffset"),
        numeric=number("cellattributevalue"),
        text=words("cellattributevalue"),
    ),
    unit_rows(
        "microlab",
        code("MICROBIOLOGY", "culturesite", "organism"),
        pl.col("culturetakenoffset") + CULTURE_HOURS * 60,
        text=pl.concat_str(["antibiotic", "sensitivitylevel"], separator=": "),
    ),
)

DOINGS = (
    unit_rows(
        "medication",
        code("MEDICATION", pl.lit("START"), "drug"),
        later("drugstartoffset", "drugorderoffset"),
        text=pl.col("dosage"),
        rows=_ordered,
        name="medication start",
    ),
    unit_rows(
        "medication",
        code("MEDICATION", pl.lit("STOP"), "drug"),
        later("drugstopoffset", "drugorderoffset"),
        rows=_stopped,
        name="medication stop",
    ),
    unit_rows(
        "infusiondrug",
        code("INFUSION_START", clean("drugname")),
        pl.col("infusionoffset"),
        numeric=pl.col("rate"),
        having="drugname",
        rows=lambda lazy: _infused(lazy).filter(pl.col("rate") != 0),
        name="infusion running",
    ),
    unit_rows(
        "infusiondrug",
        code("INFUSION_END", clean("drugname")),
        pl.col("infusionoffset"),
        having="drugname",
        rows=lambda lazy: _infused(lazy).filter(pl.col("rate") == 0),
        name="infusion off",
    ),
    unit_rows("treatment", code("TREATMENT", "treatmentstring"), pl.col("treatmentoffset"), having="treatmentstring"),
    unit_rows(
        "nursecare",
        code("NURSE_CARE", "celllabel", "cellattribute"),
        later("nursecareoffset", "nursecareentryoffset"),
        text=pl.col("cellattributevalue"),
    ),
    unit_rows(
        "respiratorycare",
        code("AIRWAY", "airwaytype"),
        pl.col("respcarestatusoffset"),
        having="airwaytype",
        name="airway",
    ),
    _ventilation("PROCEDURE//START//VENTILATION", "ventstartoffset"),
    _ventilation("PROCEDURE//END//VENTILATION", "ventendoffset"),
    _ventilation("PROCEDURE//START//VENTILATION", "priorventstartoffset"),
    _ventilation("PROCEDURE//END//VENTILATION", "priorventendoffset"),
    unit_rows(
        "careplancareprovider",
        code("CARE_PROVIDER", "specialty"),
        pl.col("careprovidersaveoffset"),
        having="specialty",
    ),
    unit_rows("careplaneol", pl.lit("CARE_PLAN//END_OF_LIFE"), later("cpleolsaveoffset", "cpleoldiscussionoffset")),
    unit_rows("careplangeneral", code("CARE_PLAN", "cplgroup", "cplitemvalue"), pl.col("cplitemoffset")),
    unit_rows(
        "careplangoal", code("CARE_PLAN", pl.lit("GOAL"), "cplgoalcategory", "cplgoalvalue"), pl.col("cplgoaloffset")
    ),
)

FINDINGS = (
    unit_rows(
        "diagnosis",
        code("DIAGNOSIS", pl.lit("ICD"), "version", "icd"),
        pl.col("diagnosisoffset"),
        text=pl.col("diagnosispriority"),
        having="icd9code",
        rows=_icd,
        name="diagnosis codes",
    ),
    unit_rows(
        "diagnosis",
        code("DIAGNOSIS", pl.lit("STRING"), "diagnosisstring"),
        pl.col("diagnosisoffset"),
        text=pl.col("diagnosispriority"),
        having="diagnosisstring",
        name="diagnosis texts",
    ),
    unit_rows("admissiondx", code("ADMISSION_DX", "admitdxpath"), pl.col("admitdxenteredoffset"), having="admitdxpath"),
    unit_rows(
        "admissiondrug",
        code("ADMISSION_DRUG", clean("drugname")),
        later("drugoffset", "drugenteredoffset"),
        having="drugname",
    ),
    unit_rows(
        "allergy",
        code("ALLERGY", clean("allergyname")),
        later("allergyoffset", "allergyenteredoffset"),
        having="allergyname",
    ),
    unit_rows(
        "pasthistory",
        code("PAST_HISTORY", "pasthistorypath"),
        later("pasthistoryoffset", "pasthistoryenteredoffset"),
        text=pl.col("pasthistoryvalue"),
        having="pasthistorypath",
    ),
    unit_rows("note", code("NOTE", "notepath"), later("noteoffset", "noteenteredoffset"), having="notepath"),
    unit_rows(
        "careplaninfectiousdisease",
        code("INFECTION", "infectdiseasesite", "infectdiseaseassessment"),
        pl.col("cplinfectdiseaseoffset"),
    ),
)

EXPORT = Export(
    kind="eicu",
    title="eICU-CRD v2.0",
    tables=TABLES,
    frames=frames,
    events=(*STAY_EVENTS, *MEASUREMENTS, *FLUIDS, *DOINGS, *FINDINGS),
    groups=GROUPS,
    source=lambda _options: "eicu",
    concepts="eicu",
)
