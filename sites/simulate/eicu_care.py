"""The eICU tables of a simulated hospital that hold what was done and found: drugs, ventilation, diagnoses."""

import numpy as np
import polars as pl

from sites.simulate import eicu_tables as tables
from sites.simulate.eicu_units import Ids, in_units
from sites.simulate.folder import columns_of
from sites.simulate.observations import Hours
from sites.simulate.population import DISEASES, Population
from sites.simulate.treatments import DIAGNOSES, DRUGS, diagnoses, prescriptions, vasopressors, ventilations

_HISTORY = {
    "hypertension": "Cardiovascular (R)/Hypertension Requiring Treatment/hypertension requiring treatment",
    "diabetes": "Endocrine (R)/Non-Insulin Dependent Diabetes/medication dependent",
    "heart_failure": "Cardiovascular (R)/Congestive Heart Failure/CHF",
    "atrial_fibrillation": "Cardiovascular (R)/Arrhythmias/atrial fibrillation - chronic",
    "copd": "Pulmonary/COPD/COPD  - moderate",
    "kidney_disease": "Renal  (R)/Renal Insufficiency/renal insufficiency - baseline creatinine unknown",
    "dementia": "Neurologic/Dementia/dementia",
}


def treated(p: Population, ids: Ids, hours: Hours) -> dict[str, pl.DataFrame]:
    """Drug orders, ventilation as a status and as a treatment, and norepinephrine as charted every 4 hours."""
    given = in_units(p, ids, prescriptions(p), "start")
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
    breath = in_units(p, ids, ventilations(hours), "start")
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
    pressor = in_units(p, ids, pressor, "charted")
    pressor = pressor.with_columns(
        infusionoffset="offset", drugname=pl.lit("Norepinephrine (mcg/kg/min)"), drugrate=pl.col("rate").cast(pl.String)
    )
    names = ("treatmentid", "patientunitstayid", "treatmentoffset", "treatmentstring", "activeupondischarge")
    return {
        "medication": columns_of(given, *tables.MEDICATION),
        "respiratoryCare": columns_of(breath, *tables.RESPIRATORY),
        "treatment": columns_of(breath, *names),
        "infusionDrug": columns_of(pressor, *tables.INFUSION),
    }


def _dotted(icd: str) -> str:
    return icd if len(icd) <= 3 else f"{icd[:3]}.{icd[3:]}"


def problems(p: Population, ids: Ids, hours: Hours) -> dict[str, pl.DataFrame]:
    """Diagnoses and past history; what only the whole course tells is dated at hospital discharge."""
    rng = p.stream("problems")
    found = diagnoses(p, hours).join(p.admissions.select("admission", "minutes"), on="admission", maintain_order="left")
    first = p.stays.filter(pl.col("ordinal") == 1).select("admission", begins="in_minute")
    found = found.join(first, on="admission", maintain_order="left").filter(pl.col("begins").is_not_null())
    early = pl.col("begins") + pl.Series(rng.integers(30, 600, len(found)))
    found = found.with_columns(
        noted=pl.when("late").then("minutes").otherwise(pl.min_horizontal(early, "minutes")).cast(pl.Int32)
    )
    found = in_units(p, ids, found, "noted")
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
