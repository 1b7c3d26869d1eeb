"""The eICU tables of a simulated hospital that hold what was measured: monitor, laboratory, flowsheets, APACHE."""

import numpy as np
import polars as pl

from sites.simulate import eicu_tables as tables
from sites.simulate.eicu_units import Ids
from sites.simulate.folder import columns_of
from sites.simulate.population import Population
from sites.simulate.variables import INDEX, PANEL_OF, VARIABLES

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


def _pick(found: pl.DataFrame, *names: str) -> pl.DataFrame:
    return found.filter(pl.col("variable").is_in([INDEX[n] for n in names]))


def monitor(p: Population, found: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Readings that share a minute stand in one row; some rows come twice."""
    result = {}
    rng = p.stream("monitor twice")
    for table, columns, names in (
        ("vitalPeriodic", tables.PERIODIC, ("temperature", "oxygen_saturation", "heart_rate", "respiratory_rate")),
        ("vitalAperiodic", tables.APERIODIC, ("systolic_pressure", "diastolic_pressure", "mean_pressure")),
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


def lab(found: pl.DataFrame) -> pl.DataFrame:
    """The rows of `lab`: the result is revised, that is stored, some time after it was drawn."""
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
    return columns_of(rows, *tables.LAB)


def nurse(found: pl.DataFrame) -> pl.DataFrame:
    """The rows of `nurseCharting`: the parts of the Glasgow coma score."""
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
    return columns_of(rows, *tables.NURSE)


def flowsheet(found: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Urine in `intakeOutput` and inspired oxygen in `respiratoryCharting`."""
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
        "intakeOutput": columns_of(urine, *tables.INTAKE),
        "respiratoryCharting": columns_of(oxygen, *names, "respchartvaluelabel", "respchartvalue"),
    }


def apache(p: Population, ids: Ids, found: pl.DataFrame) -> dict[str, pl.DataFrame]:
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
    return {"apacheApsVar": columns_of(aps, *tables.APS), "apachePatientResult": columns_of(result, *tables.RESULT)}
