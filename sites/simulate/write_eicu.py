"""Simulated hospitals as one eICU-CRD export: the genuine tables and columns, offsets in minutes from unit admission.

The export holds hospital stays with at least one ICU stay and nothing of the others, as the genuine one does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from sites.simulate.folder import columns_of, draw_ids, write_table
from sites.simulate.hospital import REASONS
from sites.simulate.observations import Hours, arrays, readings
from sites.simulate.population import DISEASES, Population, stream
from sites.simulate.treatments import DIAGNOSES, DRUGS, diagnoses, prescriptions, vasopressors, ventilations
from sites.simulate.variables import INDEX, PANEL_OF, VARIABLES

_PATIENT = (
    *("patientunitstayid", "patienthealthsystemstayid", "gender", "age", "ethnicity", "hospitalid", "wardid"),
    *("apacheadmissiondx", "admissionheight", "hospitaladmittime24", "hospitaladmitoffset", "hospitaladmitsource"),
    *("hospitaldischargeyear", "hospitaldischargetime24", "hospitaldischargeoffset", "hospitaldischargelocation"),
    *("hospitaldischargestatus", "unittype", "unitadmittime24", "unitadmitsource", "unitvisitnumber", "unitstaytype"),
    *("admissionweight", "dischargeweight", "unitdischargetime24", "unitdischargeoffset", "unitdischargelocation"),
    *("unitdischargestatus", "uniquepid"),
)
_PERIODIC = (
    *("vitalperiodicid", "patientunitstayid", "observationoffset", "temperature", "sao2", "heartrate", "respiration"),
    *("cvp", "etco2", "systemicsystolic", "systemicdiastolic", "systemicmean", "pasystolic", "padiastolic", "pamean"),
    *("st1", "st2", "st3", "icp"),
)
_APERIODIC = (
    *("vitalaperiodicid", "patientunitstayid", "observationoffset", "noninvasivesystolic", "noninvasivediastolic"),
    *("noninvasivemean", "paop", "cardiacoutput", "cardiacinput", "svr", "svri", "pvr", "pvri"),
)
_LAB = (
    *("labid", "patientunitstayid", "labresultoffset", "labtypeid", "labname", "labresult", "labresulttext"),
    *("labmeasurenamesystem", "labmeasurenameinterface", "labresultrevisedoffset"),
)
_NURSE = (
    *("nursingchartid", "patientunitstayid", "nursingchartoffset", "nursingchartentryoffset"),
    *("nursingchartcelltypecat", "nursingchartcelltypevallabel", "nursingchartcelltypevalname", "nursingchartvalue"),
)
_APS = (
    *(
        "apacheapsvarid",
        "patientunitstayid",
        "intubated",
        "vent",
        "dialysis",
        "eyes",
        "motor",
        "verbal",
        "meds",
        "urine",
    ),
    *("wbc", "temperature", "respiratoryrate", "sodium", "heartrate", "meanbp", "ph", "hematocrit", "creatinine"),
    *("albumin", "pao2", "pco2", "bun", "glucose", "bilirubin", "fio2"),
)
_APACHE_WORST = {
    # column: (variable, worst is the highest)
    **{
        "wbc": ("white_cells", True),
        "temperature": ("temperature", True),
        "respiratoryrate": ("respiratory_rate", True),
    },
    **{"sodium": ("sodium", True), "heartrate": ("heart_rate", True), "meanbp": ("mean_pressure", False)},
    **{"ph": ("ph", False), "hematocrit": ("hematocrit", False), "creatinine": ("creatinine", True)},
    **{"albumin": ("albumin", False), "pao2": ("po2", False), "pco2": ("pco2", True), "bun": ("urea_nitrogen", True)},
    **{"glucose": ("glucose", True), "bilirubin": ("bilirubin", True), "fio2": ("fio2", True)},
    **{"eyes": ("gcs_eye", False), "motor": ("gcs_motor", False), "verbal": ("gcs_verbal", False)},
}
_RESULT = (
    *("apachepatientresultsid", "patientunitstayid", "physicianspeciality", "physicianinterventioncategory"),
    *("acutephysiologyscore", "apachescore", "apacheversion", "predictedicumortality", "actualicumortality"),
    *("predictediculos", "actualiculos", "predictedhospitalmortality", "actualhospitalmortality"),
    *("predictedhospitallos", "actualhospitallos", "preopmi", "preopcardiaccath", "ptcawithin24h", "unabridgedunitlos"),
    *("unabridgedhosplos", "actualventdays", "predventdays", "unabridgedactualventdays"),
)
_MEDICATION = (
    *("medicationid", "patientunitstayid", "drugorderoffset", "drugstartoffset", "drugivadmixture"),
    *("drugordercancelled", "drugname", "drughiclseqno", "dosage", "routeadmin", "frequency", "loadingdose", "prn"),
    *("drugstopoffset", "gtc"),
)
_INTAKE = (
    *("intakeoutputid", "patientunitstayid", "intakeoutputoffset", "intaketotal", "outputtotal", "dialysistotal"),
    *("nettotal", "intakeoutputentryoffset", "cellpath", "celllabel", "cellvaluenumeric", "cellvaluetext"),
)
_RESPIRATORY = (
    *("respcareid", "patientunitstayid", "respcarestatusoffset", "currenthistoryseqnum", "airwaytype", "airwaysize"),
    *(
        "airwayposition",
        "cuffpressure",
        "ventstartoffset",
        "ventendoffset",
        "priorventstartoffset",
        "priorventendoffset",
    ),
)
_INFUSION = (
    *("infusiondrugid", "patientunitstayid", "infusionoffset", "drugname", "drugrate", "infusionrate", "drugamount"),
    *("volumeoffluid", "patientweight"),
)
_DX = {
    "sepsis": "Sepsis, pulmonary",
    "respiratory": "Pneumonia, bacterial",
    "cardiac": "Infarction, acute myocardial (MI)",
    "neurologic": "CVA, cerebrovascular accident/stroke",
    "surgical": "CABG alone, coronary artery bypass grafting",
    "gastrointestinal": "Bleeding, upper GI",
    "trauma": "Thorax/multiple trauma",
    "renal": "Renal failure, acute",
}
_HISTORY = {
    "hypertension": "Cardiovascular (R)/Hypertension Requiring Treatment/hypertension requiring treatment",
    "diabetes": "Endocrine (R)/Non-Insulin Dependent Diabetes/medication dependent",
    "heart_failure": "Cardiovascular (R)/Congestive Heart Failure/CHF",
    "atrial_fibrillation": "Cardiovascular (R)/Arrhythmias/atrial fibrillation - chronic",
    "copd": "Pulmonary/COPD/COPD  - moderate",
    "kidney_disease": "Renal  (R)/Renal Insufficiency/renal insufficiency - baseline creatinine unknown",
    "dementia": "Neurologic/Dementia/dementia",
}
_ETHNICITY = {
    "WHITE": "Caucasian",
    "BLACK": "African American",
    "HISPANIC": "Hispanic",
    "ASIAN": "Asian",
    "OTHER": "Other/Unknown",
}


@dataclass(frozen=True)
class _Ids:
    """The ids of one hospital's rows in the export.

    Attributes:
        unit: patientunitstayid of each ICU stay.
        system: patienthealthsystemstayid of each admission (also of those that are not exported).
        person: uniquepid of each patient.
        unknown: Whether an admission's outcome is missing, bool [admissions].
    """

    unit: npt.NDArray[np.int64]
    system: npt.NDArray[np.int64]
    person: npt.NDArray[np.str_]
    unknown: npt.NDArray[np.bool_]


def write_eicu(populations: Sequence[Population], folder: Path) -> list[npt.NDArray[np.int64]]:
    """Write one export of several hospitals.

    Args:
        populations: One for each hospital.
        folder: An empty folder.

    Returns:
        For each hospital the MEDS subject of each admission (`patienthealthsystemstayid`), int64 [admissions]; -1 where
        the export does not tell the outcome.
    """
    found = _ids(populations)
    tables: dict[str, list[pl.DataFrame]] = {}
    for population, ids in zip(populations, found, strict=True):
        for name, frame in _tables(population, ids).items():
            tables.setdefault(name, []).append(frame)
    for name, frames in tables.items():
        frame = pl.concat(frames, how="vertical_relaxed")
        key = frame.columns[0]
        if frame[key].null_count() == len(frame) and name not in ("patient", "hospital"):
            frame = frame.with_columns(pl.int_range(1, pl.len() + 1).alias(key))
        write_table(frame, folder / f"{name}.csv.gz")
    return [np.where(i.unknown, -1, i.system) for i in found]


def _ids(populations: Sequence[Population]) -> list[_Ids]:
    names = [p.hospital.name for p in populations]
    rng = stream(populations[0].seed, "eicu ids", *names)
    unit = draw_ids(rng, 141_000, 3_400_000, sum(len(p.stays) for p in populations))
    system = draw_ids(rng, 128_000, 2_800_000, sum(len(p.admissions) for p in populations))
    person = np.array(
        [f"{2 + i % 30:03d}-{i}" for i in draw_ids(rng, 1000, 400_000, sum(len(p.patients) for p in populations))]
    )
    found: list[_Ids] = []
    at = np.zeros(3, int)
    for i, p in enumerate(populations):
        end = at + np.array([len(p.stays), len(p.admissions), len(p.patients)])
        own = person[at[2] : end[2]].copy()
        if i:
            # Persons who were in another hospital of the export before: same sex, two medical records there.
            before, sex = populations[i - 1].patients["female"].to_numpy(), p.patients["female"].to_numpy()
            for here in np.flatnonzero(rng.random(len(own)) < p.hospital.traps.two_hospitals):
                alike = np.flatnonzero(before == sex[here])
                if len(alike):
                    own[here] = found[i - 1].person[rng.choice(alike)]
        unknown = rng.random(len(p.admissions)) < p.hospital.traps.outcome_unknown
        found.append(_Ids(unit[at[0] : end[0]], system[at[1] : end[1]], own, unknown))
        at = end
    return found


def _tables(p: Population, ids: _Ids) -> dict[str, pl.DataFrame]:
    """Every table of one hospital; an empty first column is numbered when the hospitals stand together."""
    hours = arrays(p)
    h = p.hospital
    hospital = pl.DataFrame(
        {
            "hospitalid": [h.hospital_id],
            "numbedscategory": [h.beds],
            "teachingstatus": ["t" if h.teaching else "f"],
            "region": pl.Series([h.region], dtype=pl.String),
        }
    )
    found = _in_units(p, ids, readings(p, hours), "minute").with_columns(
        stored=pl.col("stored") - pl.col("minute") + pl.col("offset")
    )
    return {
        "hospital": hospital,
        "patient": _patient(p, ids),
        **_monitor(p, found),
        "lab": _lab(found),
        "nurseCharting": _nurse(found),
        **_flowsheet(found),
        **_apache(p, ids, found),
        **_treated(p, ids, hours),
        **_problems(p, ids, hours),
    }


def _in_units(p: Population, ids: _Ids, frame: pl.DataFrame, minute: str) -> pl.DataFrame:
    """Rows with patientunitstayid and `offset`: of the unit stay under way, else the last before, else the first."""
    stays = p.stays.select("admission", "stay", "in_minute").with_columns(unit=pl.Series(ids.unit)).sort("in_minute")
    frame = frame.drop("stay", strict=False).with_columns(pl.col(minute).cast(pl.Int32).alias("at")).sort("at")
    columns = ["admission", "unit", "in_minute"]
    before = frame.join_asof(
        stays.select(columns),
        left_on="at",
        right_on="in_minute",
        by="admission",
        check_sortedness=False,
        coalesce=False,
    )
    first = stays.group_by("admission").agg(first_unit=pl.col("unit").first(), first_in=pl.col("in_minute").first())
    joined = before.join(first, on="admission", how="inner", maintain_order="left")
    return (
        joined.with_columns(
            patientunitstayid=pl.coalesce("unit", "first_unit"),
            offset=pl.col("at") - pl.coalesce("in_minute", "first_in"),
        )
        .drop("unit", "first_unit", "in_minute", "first_in", "at")
        .sort("admission", minute, maintain_order=True)
    )


def _clock(p: Population, frame: pl.DataFrame, minute: str) -> pl.Series:
    admitted = p.admissions["admitted"].to_numpy()[frame["admission"].to_numpy()]
    return pl.Series(admitted + frame[minute].to_numpy().astype("timedelta64[m]")).dt.strftime("%H:%M:%S")


def _patient(p: Population, ids: _Ids) -> pl.DataFrame:
    rng = p.stream("eicu patient")
    admissions = p.admissions.select(
        "admission", "patient", "minutes", "reason", "age", "admitted", pl.col("died").alias("dead")
    )
    stays = p.stays.with_columns(patientunitstayid=pl.Series(ids.unit)).join(
        admissions, on="admission", maintain_order="left"
    )
    stays = stays.join(p.patients.drop("age"), on="patient", maintain_order="left").with_columns(zero=pl.lit(0))
    unknown = pl.Series(ids.unknown[stays["admission"].to_numpy()])
    n = len(stays)
    homes = pl.Series(
        rng.choice(np.array(["Home", "Skilled Nursing Facility", "Rehabilitation"]), n, p=[0.7, 0.2, 0.1])
    )
    status = pl.when(unknown).then(None).when("dead").then(pl.lit("Expired")).otherwise(pl.lit("Alive"))
    unit_status = (
        pl.when(unknown & pl.col("died")).then(None).when("died").then(pl.lit("Expired")).otherwise(pl.lit("Alive"))
    )
    return stays.select(
        "patientunitstayid",
        patienthealthsystemstayid=pl.Series(ids.system[stays["admission"].to_numpy()]),
        gender=pl.when("female").then(pl.lit("Female")).otherwise(pl.lit("Male")),
        age=pl.when(pl.col("age") > 89).then(pl.lit("> 89")).otherwise(pl.col("age").cast(pl.String)),
        ethnicity=pl.col("race").replace_strict(_ETHNICITY),
        hospitalid=pl.lit(p.hospital.hospital_id),
        wardid=pl.lit(p.hospital.hospital_id + 100),
        apacheadmissiondx=pl.Series([_DX[r] for r in REASONS])[stays["reason"].to_numpy().astype(np.int64)],
        admissionheight="height_cm",
        hospitaladmittime24=_clock(p, stays, "zero"),
        hospitaladmitoffset=-pl.col("in_minute"),
        hospitaladmitsource=pl.when(pl.col("tick") <= 6)
        .then(pl.lit("Emergency Department"))
        .otherwise(pl.lit("Floor")),
        hospitaldischargeyear=pl.lit(2014),
        hospitaldischargetime24=_clock(p, stays, "minutes"),
        hospitaldischargeoffset=pl.col("minutes") - pl.col("in_minute"),
        hospitaldischargelocation=pl.when(unknown).then(None).when("dead").then(pl.lit("Death")).otherwise(homes),
        hospitaldischargestatus=status,
        unittype=pl.lit("Med-Surg ICU"),
        unitadmittime24=_clock(p, stays, "in_minute"),
        unitadmitsource=pl.when(pl.col("tick") <= 6).then(pl.lit("Emergency Department")).otherwise(pl.lit("Floor")),
        unitvisitnumber="ordinal",
        unitstaytype=pl.when(pl.col("ordinal") == 1).then(pl.lit("admit")).otherwise(pl.lit("readmit")),
        admissionweight="weight_kg",
        dischargeweight=pl.lit(None, pl.Float64),
        unitdischargetime24=_clock(p, stays, "out_minute"),
        unitdischargeoffset=pl.col("out_minute") - pl.col("in_minute"),
        unitdischargelocation=pl.when("died").then(pl.lit("Death")).otherwise(pl.lit("Floor")),
        unitdischargestatus=unit_status,
        uniquepid=pl.Series(ids.person[stays["patient"].to_numpy()]),
    ).select(_PATIENT)


def _pick(found: pl.DataFrame, *names: str) -> pl.DataFrame:
    return found.filter(pl.col("variable").is_in([INDEX[n] for n in names]))


def _monitor(p: Population, found: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Readings that share a minute stand in one row; some rows come twice."""
    result = {}
    rng = p.stream("monitor twice")
    for table, columns, names in (
        ("vitalPeriodic", _PERIODIC, ("temperature", "oxygen_saturation", "heart_rate", "respiratory_rate")),
        ("vitalAperiodic", _APERIODIC, ("systolic_pressure", "diastolic_pressure", "mean_pressure")),
    ):
        wide = (
            _pick(found, *names)
            .group_by("patientunitstayid", observationoffset="offset", maintain_order=True)
            .agg(
                pl.col("value").filter(pl.col("variable") == INDEX[n]).first().alias(VARIABLES[INDEX[n]].eicu[0])
                for n in names
            )
        )
        twice = wide.filter(pl.Series(rng.random(len(wide)) < p.hospital.traps.duplicate_rows))
        result[table] = columns_of(pl.concat([wide, twice]), *columns)
    return result


def _lab(found: pl.DataFrame) -> pl.DataFrame:
    labs = [i for i, v in enumerate(VARIABLES) if PANEL_OF[v.name].kind == "labs"]
    rows = found.filter(pl.col("variable").is_in(labs))
    index = rows["variable"].to_numpy().astype(np.int64)
    kind = [
        7 if PANEL_OF[v.name].name == "gas" and v.name != "lactate" else 3 if v.organ == "blood" else 1
        for v in VARIABLES
    ]
    units = pl.Series([v.eicu[1] for v in VARIABLES], dtype=pl.String)
    rows = rows.with_columns(
        labresultoffset="offset",
        labtypeid=pl.Series(np.array(kind)[index]),
        labname=pl.Series([v.eicu[0] for v in VARIABLES])[index],
        labresult="value",
        labresulttext=pl.col("value").cast(pl.String),
        labmeasurenamesystem=units[index],
        labmeasurenameinterface=units[index],
        labresultrevisedoffset="stored",
    )
    return columns_of(rows, *_LAB)


def _nurse(found: pl.DataFrame) -> pl.DataFrame:
    rows = _pick(found, "gcs_eye", "gcs_verbal", "gcs_motor")
    rows = rows.with_columns(
        nursingchartoffset="offset",
        nursingchartentryoffset="stored",
        nursingchartcelltypecat=pl.lit("Scores"),
        nursingchartcelltypevallabel=pl.lit("Glasgow coma score"),
        nursingchartcelltypevalname=pl.Series([v.eicu[0] for v in VARIABLES])[
            rows["variable"].to_numpy().astype(np.int64)
        ],
        nursingchartvalue=pl.col("value").cast(pl.Int64),
    )
    return columns_of(rows, *_NURSE)


def _flowsheet(found: pl.DataFrame) -> dict[str, pl.DataFrame]:
    urine = _pick(found, "urine").with_columns(
        intakeoutputoffset="offset",
        intaketotal=pl.lit(0),
        outputtotal="value",
        dialysistotal=pl.lit(0),
        nettotal=-pl.col("value"),
        intakeoutputentryoffset="stored",
        cellpath=pl.lit("flowsheet|Flowsheet Cell Labels|I&O|Output (ml)|Urine"),
        celllabel=pl.lit("Urine"),
        cellvaluenumeric="value",
        cellvaluetext=pl.col("value").cast(pl.Int64),
    )
    oxygen = _pick(found, "fio2").with_columns(
        respchartoffset="offset",
        respchartentryoffset="stored",
        respcharttypecat=pl.lit("respFlowSettings"),
        respchartvaluelabel=pl.lit("FiO2"),
        respchartvalue=pl.col("value").cast(pl.Int64),
    )
    names = ("respchartid", "patientunitstayid", "respchartoffset", "respchartentryoffset", "respcharttypecat")
    return {
        "intakeOutput": columns_of(urine, *_INTAKE),
        "respiratoryCharting": columns_of(oxygen, *names, "respchartvaluelabel", "respchartvalue"),
    }


def _apache(p: Population, ids: _Ids, found: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """The worst readings of the first day, -1 for missing, and the result: an outcome that no feature may touch."""
    first = p.stays.filter(pl.col("ordinal") == 1)
    unit = pl.DataFrame({"patientunitstayid": ids.unit[first["stay"].to_numpy()], "admission": first["admission"]})
    day = found.filter((pl.col("offset") >= 0) & (pl.col("offset") <= 1440) & (pl.col("stored") <= 1440))
    worst = day.group_by("patientunitstayid").agg(
        *(
            (pl.col("value").filter(pl.col("variable") == INDEX[name]).max() if high else
             pl.col("value").filter(pl.col("variable") == INDEX[name]).min()).alias(column)
            for column, (name, high) in _APACHE_WORST.items()
        ),
        vent=pl.col("ventilated").any().cast(pl.Int64),
    )  # fmt: skip
    aps = unit.join(worst, on="patientunitstayid", how="left", maintain_order="left")
    aps = aps.with_columns(intubated="vent", dialysis=pl.lit(0), meds=pl.lit(0), urine=pl.lit(-1)).fill_null(-1)
    ends = unit.join(p.admissions.select("admission", "died"), on="admission", maintain_order="left")
    died = pl.when("died").then(pl.lit("EXPIRED")).otherwise(pl.lit("ALIVE"))
    known = ends.filter(~pl.Series(ids.unknown[ends["admission"].to_numpy()]))
    result = known.with_columns(
        apacheversion=pl.lit("IVa"),
        acutephysiologyscore=pl.lit(-1),
        apachescore=pl.lit(-1),
        actualhospitalmortality=died,
    )
    return {"apacheApsVar": columns_of(aps, *_APS), "apachePatientResult": columns_of(result, *_RESULT)}


def _treated(p: Population, ids: _Ids, hours: Hours) -> dict[str, pl.DataFrame]:
    given = _in_units(p, ids, prescriptions(p), "start")
    drug = given["drug"].to_numpy().astype(np.int64)
    given = given.with_columns(
        drugorderoffset="offset",
        drugstartoffset="offset",
        drugivadmixture=pl.lit("No"),
        drugordercancelled=pl.lit("No"),
        drugname=pl.Series([d.eicu for d in DRUGS])[drug],
        routeadmin=pl.Series([d.route for d in DRUGS])[drug],
        prn=pl.lit("No"),
        drugstopoffset=pl.col("offset") + pl.col("end") - pl.col("start"),
        gtc=pl.lit(0),
    )
    breath = _in_units(p, ids, ventilations(hours), "start")
    breath = breath.with_columns(
        respcarestatusoffset=pl.col("offset") + pl.col("end") - pl.col("start"),
        currenthistoryseqnum=pl.lit(1),
        airwaytype=pl.lit("Oral ETT"),
        ventstartoffset="offset",
        ventendoffset=pl.col("offset") + pl.col("end") - pl.col("start"),
        priorventstartoffset=pl.lit(0),
        priorventendoffset=pl.lit(0),
        treatmentoffset="offset",
        treatmentstring=pl.lit("pulmonary|ventilation and oxygenation|mechanical ventilation"),
        activeupondischarge=pl.lit("False"),
    )
    pressor = vasopressors(p, hours)
    # A row whenever the rate is charted: at the start and every 4 hours.
    charted = pl.int_ranges("start", "end", 240).alias("charted")
    pressor = pressor.with_columns(charted).explode("charted").drop("start", "end")
    pressor = _in_units(p, ids, pressor, "charted")
    pressor = pressor.with_columns(
        infusionoffset="offset", drugname=pl.lit("Norepinephrine (mcg/kg/min)"), drugrate=pl.col("rate").cast(pl.String)
    )
    names = ("treatmentid", "patientunitstayid", "treatmentoffset", "treatmentstring", "activeupondischarge")
    return {
        "medication": columns_of(given, *_MEDICATION),
        "respiratoryCare": columns_of(breath, *_RESPIRATORY),
        "treatment": columns_of(breath, *names),
        "infusionDrug": columns_of(pressor, *_INFUSION),
    }


def _dotted(icd: str) -> str:
    return icd if len(icd) <= 3 else f"{icd[:3]}.{icd[3:]}"


def _problems(p: Population, ids: _Ids, hours: Hours) -> dict[str, pl.DataFrame]:
    rng = p.stream("problems")
    found = diagnoses(p, hours).join(p.admissions.select("admission", "minutes"), on="admission", maintain_order="left")
    first = p.stays.filter(pl.col("ordinal") == 1).select("admission", "in_minute")
    found = found.join(first, on="admission", maintain_order="left").filter(pl.col("in_minute").is_not_null())
    early = pl.col("in_minute") + pl.Series(rng.integers(30, 600, len(found)))
    found = found.with_columns(
        noted=pl.when("late").then("minutes").otherwise(pl.min_horizontal(early, "minutes")).cast(pl.Int32)
    )
    found = _in_units(p, ids, found, "noted")
    codes = {k: f"{_dotted(d.icd9)}, {_dotted(d.icd10)}" for k, d in DIAGNOSES.items()}
    found = found.with_columns(
        activeupondischarge=pl.lit("True"),
        diagnosisoffset="offset",
        diagnosisstring=pl.col("diagnosis").replace_strict({k: d.eicu for k, d in DIAGNOSES.items()}),
        icd9code=pl.col("diagnosis").replace_strict(codes),
        diagnosispriority=pl.when(pl.col("sequence") == 1).then(pl.lit("Primary")).otherwise(pl.lit("Other")),
    )
    stays = p.stays.filter(pl.col("ordinal") == 1).join(
        p.admissions.select("admission", "patient"), on="admission", maintain_order="left"
    )
    stays = stays.join(p.patients, on="patient", maintain_order="left").with_columns(
        patientunitstayid=pl.Series(ids.unit[stays["stay"].to_numpy()])
    )
    root = "notes/Progress Notes/Past History/Organ Systems/"
    history = pl.concat(
        stays.filter(pl.col(d)).select(
            "patientunitstayid",
            pasthistoryid=pl.lit(None, pl.Int64),
            pasthistoryoffset=pl.lit(30),
            pasthistoryenteredoffset=pl.lit(45),
            pasthistorynotetype=pl.lit("Admission"),
            pasthistorypath=pl.lit(root + _HISTORY[d]),
            pasthistoryvalue=pl.lit(_HISTORY[d].rsplit("/", 1)[-1]),
            pasthistoryvaluetext=pl.lit(_HISTORY[d].rsplit("/", 1)[-1]),
        )
        for d in DISEASES
        if d in _HISTORY
    )
    names = (
        "diagnosisid",
        "patientunitstayid",
        "activeupondischarge",
        "diagnosisoffset",
        "diagnosisstring",
        "icd9code",
    )
    order = (
        "pasthistoryid",
        "patientunitstayid",
        "pasthistoryoffset",
        "pasthistoryenteredoffset",
        "pasthistorynotetype",
    )
    return {
        "diagnosis": columns_of(found, *names, "diagnosispriority"),
        "pastHistory": history.select(*order, "pasthistorypath", "pasthistoryvalue", "pasthistoryvaluetext"),
    }
