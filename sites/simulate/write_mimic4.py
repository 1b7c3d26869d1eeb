"""A simulated hospital as a MIMIC-IV export: nested `hosp` and `icu`, the genuine columns, item ids and units."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from sites.simulate.folder import after, at, columns_of, draw_ids, write_table
from sites.simulate.hospital import REASONS
from sites.simulate.observations import Hours, arrays, readings
from sites.simulate.population import Population
from sites.simulate.severity import ICU
from sites.simulate.treatments import DIAGNOSES, DRUGS, diagnoses, prescriptions, vasopressors, ventilations
from sites.simulate.variables import PANEL_OF, VARIABLES

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
_RACES = {
    "WHITE": "WHITE",
    "BLACK": "BLACK/AFRICAN AMERICAN",
    "HISPANIC": "HISPANIC/LATINO - PUERTO RICAN",
    "ASIAN": "ASIAN",
    "OTHER": "OTHER",
}
_ADMISSIONS = (
    *("subject_id", "hadm_id", "admittime", "dischtime", "deathtime", "admission_type", "admit_provider_id"),
    *("admission_location", "discharge_location", "insurance", "language", "marital_status", "race", "edregtime"),
    *("edouttime", "hospital_expire_flag"),
)
_LABEVENTS = (
    *("labevent_id", "subject_id", "hadm_id", "specimen_id", "itemid", "order_provider_id", "charttime", "storetime"),
    *("value", "valuenum", "valueuom", "ref_range_lower", "ref_range_upper", "flag", "priority", "comments"),
)
_CHARTEVENTS = (
    *("subject_id", "hadm_id", "stay_id", "caregiver_id", "charttime", "storetime", "itemid", "value", "valuenum"),
    *("valueuom", "warning"),
)
_INPUTEVENTS = (
    *("subject_id", "hadm_id", "stay_id", "caregiver_id", "starttime", "endtime", "storetime", "itemid", "amount"),
    *("amountuom", "rate", "rateuom", "orderid", "linkorderid", "ordercategoryname", "secondaryordercategoryname"),
    *("ordercomponenttypedescription", "ordercategorydescription", "patientweight", "totalamount", "totalamountuom"),
    *("isopenbag", "continueinnextdept", "statusdescription", "originalamount", "originalrate"),
)
_PROCEDUREEVENTS = (
    *("subject_id", "hadm_id", "stay_id", "caregiver_id", "starttime", "endtime", "storetime", "itemid", "value"),
    *("valueuom", "location", "locationcategory", "orderid", "linkorderid", "ordercategoryname"),
    *("ordercategorydescription", "patientweight", "isopenbag", "continueinnextdept", "statusdescription"),
    *("originalamount", "originalrate"),
)
_PRESCRIPTIONS = (
    *("subject_id", "hadm_id", "pharmacy_id", "poe_id", "poe_seq", "order_provider_id", "starttime", "stoptime"),
    *("drug_type", "drug", "formulary_drug_cd", "gsn", "ndc", "prod_strength", "form_rx", "dose_val_rx"),
    *("dose_unit_rx", "form_val_disp", "form_unit_disp", "doses_per_24_hrs", "route"),
)


class _Writer:
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


def write_mimic4(population: Population, folder: Path) -> npt.NDArray[np.int64]:
    """Write the export.

    Args:
        population: Whose.
        folder: An empty folder.

    Returns:
        The MEDS subject of each patient (`subject_id`), int64 [patients].
    """
    writer, hours = _Writer(population, folder), arrays(population)
    _patients(writer)
    _admissions(writer)
    _stays(writer)
    _measurements(writer, readings(population, hours))
    _treatments(writer, hours)
    _codes(writer, hours)
    return writer.subject


def _patients(w: _Writer) -> None:
    people, hospital = w.population.patients, w.population.hospital
    first = w.population.admissions.group_by("patient", maintain_order=True).agg(
        year=pl.col("admitted").first().dt.year(), last_end=pl.col("discharged").last(), died=pl.col("died").last()
    )
    in_hospital = pl.Series(np.where(first["died"], first["last_end"].dt.date().to_numpy(), np.datetime64("NaT", "D")))
    frame = pl.DataFrame(
        {
            "subject_id": w.subject,
            "gender": np.where(people["female"], "F", "M"),
            "anchor_age": np.where(people["age"].to_numpy() > 89, 91, people["age"].to_numpy()),
            "anchor_year": first["year"],
            "anchor_year_group": np.full(len(people), hospital.year_group),
            "dod": pl.select(pl.coalesce(in_hospital.cast(pl.Date), people["died_later"])).to_series(),
        }
    )
    extra = _dead_on_arrival(w)
    gone = extra.select(
        "subject_id",
        gender=pl.lit("M"),
        anchor_age=pl.lit(60),
        anchor_year=pl.col("admittime").dt.year(),
        anchor_year_group=pl.lit(hospital.year_group),
        dod=pl.col("deathtime").dt.date(),
    )
    write = pl.concat([frame, gone.cast(frame.schema)]) if len(gone) else frame
    w.write("hosp/patients", write.sort("subject_id"))


def _dead_on_arrival(w: _Writer) -> pl.DataFrame:
    """Patients whose only admission begins after their death: no stay, shorter than a day."""
    rng = w.population.stream("dead on arrival")
    n = int(rng.binomial(len(w.subject), w.population.hospital.traps.dead_on_arrival))
    admitted = rng.choice(w.population.admissions["admitted"].to_numpy(), n)
    return pl.DataFrame(
        {
            "subject_id": np.arange(19_900_000, 19_900_000 + n),
            "hadm_id": np.arange(29_900_000, 29_900_000 + n),
            "admittime": after(admitted, np.zeros(n, np.int64)),
            "deathtime": after(admitted, -rng.integers(1, 120, n)),
            "dischtime": after(admitted, rng.integers(10, 600, n)),
        }
    )


def _donors(w: _Writer) -> pl.DataFrame:
    """Admissions after the patient's death, for organ donation: no stay, shorter than a day."""
    rng = w.population.stream("donors")
    dead = w.population.admissions.filter("died")
    dead = dead.filter(pl.Series(rng.random(len(dead)) < w.population.hospital.traps.organ_donor))
    end = dead["discharged"].to_numpy()
    begin = rng.integers(1, 240, len(dead))
    return pl.DataFrame(
        {
            "subject_id": w.subject[dead["patient"].to_numpy().astype(np.int64)],
            "hadm_id": np.arange(29_950_000, 29_950_000 + len(dead)),
            "admittime": after(end, begin),
            "deathtime": after(end, np.zeros(len(dead), np.int64)),
            "dischtime": after(end, begin + rng.integers(30, 900, len(dead))),
        }
    )


def _admissions(w: _Writer) -> None:
    admissions, traps = w.population.admissions, w.population.hospital.traps
    rng = w.population.stream("admissions")
    n, died = len(admissions), admissions["died"].to_numpy()
    early = np.where(died & (rng.random(n) < traps.discharged_before_death), rng.integers(30, 1440, n), 0)
    length = admissions["minutes"].to_numpy()
    discharge = at(w.population, admissions.with_columns(shown=pl.Series(np.maximum(length - early, 1))), "shown")
    emergency = admissions["lead_hours"].to_numpy() > 0
    admitted = admissions["admitted"].to_numpy()
    registered = after(admitted, -rng.integers(20, 400, n)).set(pl.Series(~emergency), None)
    left = after(admitted, admissions["lead_hours"].to_numpy() * 60).set(pl.Series(~emergency), None)
    homes = rng.choice(
        np.array(["HOME", "HOME HEALTH CARE", "SKILLED NURSING FACILITY", "REHAB"]), n, p=[0.4, 0.3, 0.22, 0.08]
    )
    marital = np.array(["MARRIED", "SINGLE", "WIDOWED", "DIVORCED"])
    race = w.population.patients["race"].replace_strict(_RACES).to_numpy()[w.patient]
    frame = pl.DataFrame(
        {
            "subject_id": w.subject[w.patient],
            "hadm_id": w.hadm,
            "admittime": admissions["admitted"],
            "dischtime": discharge,
            "deathtime": admissions["discharged"].set(pl.Series(~died), None),
            "admission_type": np.where(emergency, "EW EMER.", rng.choice(np.array(["URGENT", "OBSERVATION ADMIT"]), n)),
            "admission_location": np.where(emergency, "EMERGENCY ROOM", "TRANSFER FROM HOSPITAL"),
            "discharge_location": np.where(died, "DIED", homes),
            "insurance": np.where(admissions["age"].to_numpy() >= 65, "Medicare", "Other"),
            "language": np.full(n, "ENGLISH"),
            "marital_status": rng.choice(marital, len(w.subject))[w.patient],
            "race": race,
            "edregtime": registered,
            "edouttime": left,
            "hospital_expire_flag": died.astype(np.int64),
        }
    )
    extra = pl.concat([_dead_on_arrival(w), _donors(w)]).with_columns(
        admission_type=pl.lit("URGENT"),
        admission_location=pl.lit("PHYSICIAN REFERRAL"),
        discharge_location=pl.lit("DIED"),
        insurance=pl.lit("Other"),
        race=pl.lit("UNKNOWN"),
        hospital_expire_flag=pl.lit(1, pl.Int64),
    )
    w.write(
        "hosp/admissions",
        columns_of(pl.concat([frame, extra], how="diagonal").sort("subject_id", "admittime"), *_ADMISSIONS),
    )


def _stays(w: _Writer) -> None:
    stays = w.population.stays
    unit = w.units(stays["admission"].to_numpy())
    frame = stays.select("admission", "stay", "in_minute", "out_minute").with_columns(
        **w.ids(stays), intime=at(w.population, stays, "in_minute"), outtime=at(w.population, stays, "out_minute")
    )
    frame = frame.with_columns(
        first_careunit=unit, last_careunit=unit, los=(pl.col("out_minute") - pl.col("in_minute")) / 1440
    )
    names = ("subject_id", "hadm_id", "stay_id", "first_careunit", "last_careunit", "intime", "outtime", "los")
    w.write("icu/icustays", frame.select(names).sort("subject_id", "intime"))
    _transfers(w)


def _transfers(w: _Writer) -> None:
    """One row for each place a patient was in: a change of place begins a new one."""
    hours = w.population.hours.select("admission", "tick", "place", "minutes")
    new = (
        (pl.col("place") != pl.col("place").shift(1)) | (pl.col("admission") != pl.col("admission").shift(1))
    ).fill_null(True)
    spans = (
        hours.with_columns(span=new.cast(pl.Int32).cum_sum())
        .group_by("span", maintain_order=True)
        .agg(
            pl.col("admission", "place").first(),
            start=pl.col("tick").first() * 60,
            end=pl.col("tick").last() * 60 + pl.col("minutes").last(),
        )
    )
    spans = spans.with_columns(order=pl.int_range(pl.len()).over("admission"))
    # Who leaves the ICU in the middle of an hour is on the ward from that minute.
    start = pl.when(pl.col("order") > 0).then(pl.col("end").shift(1)).otherwise(pl.col("start"))
    spans = spans.with_columns(start=start)
    icu = pl.Series(w.units(spans["admission"].to_numpy()))
    ward = pl.when(pl.col("place") == ICU).then(icu).when(pl.col("place") == 2).then(pl.lit("Emergency Department"))
    kind = pl.when(pl.col("place") == 2).then(pl.lit("ED")).when(pl.col("order") == 0).then(pl.lit("admit"))
    rows = spans.with_columns(
        **w.ids(spans),
        eventtype=kind.otherwise(pl.lit("transfer")),
        careunit=ward.otherwise(pl.lit("Medicine")),
        intime=at(w.population, spans, "start"),
        outtime=at(w.population, spans, "end"),
    )
    leaving = w.population.admissions.select("admission", "minutes")
    leaving = leaving.with_columns(
        **w.ids(leaving),
        eventtype=pl.lit("discharge"),
        careunit=pl.lit(None, pl.String),
        intime=at(w.population, leaving, "minutes"),
        outtime=pl.lit(None, pl.Datetime("us")),
    )
    names = ["subject_id", "hadm_id", "eventtype", "careunit", "intime", "outtime"]
    frame = pl.concat([rows.select(names), leaving.select(names)]).sort(
        "subject_id", "intime", "outtime", nulls_last=True
    )
    frame = frame.with_columns(transfer_id=pl.int_range(30_000_000, 30_000_000 + pl.len()))
    w.write("hosp/transfers", frame.select("subject_id", "hadm_id", "transfer_id", *names[2:]))


def _measurements(w: _Writer, found: pl.DataFrame) -> None:
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
    w.write("hosp/labevents", columns_of(labs, *_LABEVENTS))
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
    w.write("icu/chartevents", columns_of(pl.concat([chart, _body(w, chart)], how="diagonal"), *_CHARTEVENTS))
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


def _body(w: _Writer, chart: pl.DataFrame) -> pl.DataFrame:
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


def _treatments(w: _Writer, hours: Hours) -> None:
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
    w.write("icu/procedureevents", columns_of(breath, *_PROCEDUREEVENTS))
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
    w.write("icu/inputevents", columns_of(pressor, *_INPUTEVENTS))
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
    w.write("hosp/prescriptions", columns_of(given, *_PRESCRIPTIONS))


def _codes(w: _Writer, hours: Hours) -> None:
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
