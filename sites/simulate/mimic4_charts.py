"""The MIMIC-IV tables of a simulated hospital that hold what was measured, done and coded."""

import numpy as np
import polars as pl

from sites.simulate import mimic4_tables as tables
from sites.simulate.folder import at, columns_of
from sites.simulate.mimic4_ids import Writer
from sites.simulate.observations import Hours
from sites.simulate.treatments import DIAGNOSES, DRUGS, diagnoses, prescriptions, vasopressors, ventilations
from sites.simulate.variables import PANEL_OF, VARIABLES


def measurements(w: Writer, found: pl.DataFrame) -> None:
    """Labs go to labevents, bedside readings to chartevents, urine to outputevents."""
    si = w.population.hospital.si_units
    item, unit, scale, offset, decimals = [], [], [], [], []
    for v in VARIABLES:
        other = v.other if v.name in si and v.other is not None and v.other.mimic is not None else None
        item.append(other.mimic[0] if other and other.mimic else v.mimic[0])
        unit.append(other.mimic[1] if other and other.mimic else v.mimic[1])
        scale.append(other.scale if other else 1.0)
        offset.append(other.offset if other else 0.0)
        decimals.append(other.decimals if other else v.decimals)
    index = found["variable"].to_numpy().astype(np.int64)
    value = found["value"].to_numpy() * np.array(scale)[index] + np.array(offset)[index]
    ten = 10.0 ** np.array(decimals)[index]
    frame = found.select("variable", "ventilated").with_columns(
        **w.ids(found),
        charttime=at(w.population, found, "minute"),
        storetime=at(w.population, found, "stored"),
        itemid=pl.Series(np.array(item)[index]),
        valueuom=pl.Series(unit, dtype=pl.String)[index],
        valuenum=pl.Series(np.rint(value * ten) / ten),
    )
    frame = frame.with_columns(value=pl.col("valuenum").cast(pl.String))
    kind = pl.Series(["urine" if v.name == "urine" else PANEL_OF[v.name].kind for v in VARIABLES])[index]
    labs = frame.filter(kind == "labs").with_columns(
        labevent_id=pl.int_range(1, pl.len() + 1), specimen_id=pl.int_range(50_000_000, 50_000_000 + pl.len())
    )
    w.write("hosp/labevents", columns_of(labs, *tables.LABEVENTS))
    names = {v.mimic[0]: v for v in VARIABLES if PANEL_OF[v.name].kind == "labs"}
    items = pl.DataFrame(
        {
            "itemid": list(names),
            "label": [v.omop_source[0] for v in names.values()],
            "fluid": ["Blood"] * len(names),
            "category": ["Blood Gas" if PANEL_OF[v.name].name == "gas" else "Chemistry" for v in names.values()],
        }
    )
    w.write("hosp/d_labitems", items)
    chart = frame.filter(kind == "vitals")
    tube = (pl.col("itemid") == 223900) & pl.col("ventilated")
    chart = chart.with_columns(
        value=pl.when(tube).then(pl.lit("No Response-ETT")).otherwise("value"),
        warning=pl.lit(0),
        caregiver_id=pl.lit(41),
    )
    w.write("icu/chartevents", columns_of(pl.concat([chart, _body(w, chart)], how="diagonal"), *tables.CHARTEVENTS))
    urine = frame.filter(kind == "urine").with_columns(value="valuenum")
    names_out = (
        "subject_id",
        "hadm_id",
        "stay_id",
        "caregiver_id",
        "charttime",
        "storetime",
        "itemid",
        "value",
        "valueuom",
    )
    w.write("icu/outputevents", columns_of(urine, *names_out))


def _body(w: Writer, chart: pl.DataFrame) -> pl.DataFrame:
    """Weight and height on admission to the ICU."""
    stays, people = w.population.stays, w.population.patients
    patient = w.patient[stays["admission"].to_numpy().astype(np.int64)]
    time = at(w.population, stays, "in_minute")
    parts = []
    for itemid, unit, column in ((226512, "kg", "weight_kg"), (226730, "cm", "height_cm")):
        value = people[column].to_numpy()[patient]
        parts.append(
            stays.select("stay").with_columns(
                **w.ids(stays),
                charttime=time,
                storetime=time,
                itemid=pl.lit(itemid, pl.Int64),
                valuenum=pl.Series(value),
                value=pl.Series(value).cast(pl.String),
                valueuom=pl.lit(unit),
                warning=pl.lit(0),
            )
        )
    return pl.concat(parts).drop("stay").cast({"warning": chart.schema["warning"]})


def treatments(w: Writer, hours: Hours) -> None:
    """Ventilation in procedureevents, norepinephrine in inputevents, drugs in prescriptions."""
    breath = ventilations(hours)
    breath = breath.with_columns(
        **w.ids(breath),
        starttime=at(w.population, breath, "start"),
        endtime=at(w.population, breath, "end"),
        storetime=at(w.population, breath, "end"),
        itemid=pl.lit(225792),
        value=pl.col("end") - pl.col("start"),
        valueuom=pl.lit("min"),
        orderid=pl.int_range(1, pl.len() + 1),
        ordercategoryname=pl.lit("Ventilation"),
        ordercategorydescription=pl.lit("ContinuousProcess"),
        statusdescription=pl.lit("FinishedRunning"),
    )
    w.write("icu/procedureevents", columns_of(breath, *tables.PROCEDUREEVENTS))
    pressor = vasopressors(w.population, hours)
    weight = w.population.patients["weight_kg"].to_numpy()[w.patient[pressor["admission"].to_numpy().astype(np.int64)]]
    pressor = pressor.with_columns(
        **w.ids(pressor),
        starttime=at(w.population, pressor, "start"),
        endtime=at(w.population, pressor, "end"),
        storetime=at(w.population, pressor, "start"),
        itemid=pl.lit(221906),
        patientweight=pl.Series(weight),
        amountuom=pl.lit("mg"),
        rateuom=pl.lit("mcg/kg/min"),
        orderid=pl.int_range(1_000_000, 1_000_000 + pl.len()),
        ordercategoryname=pl.lit("01-Drips"),
        statusdescription=pl.lit("FinishedRunning"),
    ).with_columns(
        amount=(pl.col("rate") * pl.col("patientweight") * (pl.col("end") - pl.col("start")) / 1000).round(3)
    )
    w.write("icu/inputevents", columns_of(pressor, *tables.INPUTEVENTS))
    given = prescriptions(w.population)
    drug = given["drug"].to_numpy().astype(np.int64)
    given = given.with_columns(
        **w.ids(given),
        starttime=at(w.population, given, "start").dt.truncate("1h"),
        stoptime=at(w.population, given, "end").dt.truncate("1h"),
        drug_type=pl.lit("MAIN"),
        drug=pl.Series([d.mimic for d in DRUGS])[drug],
        ndc=pl.Series([d.ndc for d in DRUGS])[drug],
        route=pl.Series([d.route for d in DRUGS])[drug],
    )
    w.write("hosp/prescriptions", columns_of(given, *tables.PRESCRIPTIONS))


def codes(w: Writer, hours: Hours) -> None:
    """Write diagnoses_icd, each admission in one of the two coding systems."""
    found = diagnoses(w.population, hours)
    ten = w.population.stream("coding").random(len(w.hadm)) < w.population.hospital.icd10
    version = np.where(ten[found["admission"].to_numpy().astype(np.int64)], 10, 9)
    frame = found.with_columns(
        **w.ids(found),
        seq_num=pl.col("sequence"),
        icd_version=pl.Series(version),
        icd_code=pl.when(pl.Series(version == 10))
        .then(pl.col("diagnosis").replace_strict({k: d.icd10 for k, d in DIAGNOSES.items()}))
        .otherwise(pl.col("diagnosis").replace_strict({k: d.icd9 for k, d in DIAGNOSES.items()})),
    )
    w.write("hosp/diagnoses_icd", frame.select("subject_id", "hadm_id", "seq_num", "icd_code", "icd_version"))
