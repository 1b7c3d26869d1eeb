"""A simulated hospital as an OMOP CDM 5.4 export: flat tables, standard concepts, identifiers beyond 2^53."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from sites.simulate import omop_tables as tables
from sites.simulate.folder import at, columns_of, write_table
from sites.simulate.observations import Hours, arrays, readings
from sites.simulate.population import Population
from sites.simulate.severity import EMERGENCY, ICU
from sites.simulate.treatments import DIAGNOSES, DRUGS, diagnoses, prescriptions, vasopressors, ventilations
from sites.simulate.variables import VARIABLES

_EHR, _BILLING = 32817, 32821
_NOREPINEPHRINE = 1321341
_VENTILATION = 44790095  # invasive ventilation
_SITES = {EMERGENCY: "Emergency Department", ICU: "Medical Intensive Care Unit (MICU)", 1: "Medicine"}
_DETAIL = {EMERGENCY: 9203, ICU: 32037, 1: 9201}
_RACES = {"WHITE": 8527, "BLACK": 8516, "HISPANIC": 0, "ASIAN": 8515, "OTHER": 0}


class _Writer:
    """The ids of one population, and the tables written with them."""

    def __init__(self, population: Population, folder: Path) -> None:
        self.population, self.folder = population, folder
        self.person = self.new("person", len(population.patients))
        self.visit = self.new("visit", len(population.admissions))
        self.site = self.new("site", 3)
        self.patient = population.admissions["patient"].to_numpy().astype(np.int64)

    def new(self, what: str, count: int) -> npt.NDArray[np.int64]:
        """Identifiers as hashes are: any 64-bit integer, most of them beyond what a float can hold."""
        return self.population.stream("omop ids", what).integers(-(2**63) + 1, 2**63 - 1, count)

    def ids(self, frame: pl.DataFrame) -> dict[str, pl.Series]:
        """person_id and visit_occurrence_id of each row."""
        admission = frame["admission"].to_numpy().astype(np.int64)
        return {
            "person_id": pl.Series(self.person[self.patient[admission]]),
            "visit_occurrence_id": pl.Series(self.visit[admission]),
        }

    def span(self, frame: pl.DataFrame, prefix: str, start: str, end: str) -> dict[str, pl.Series]:
        """The four columns `{prefix}_start_date`, `..._start_datetime`, `..._end_date`, `..._end_datetime`."""
        first, last = at(self.population, frame, start), at(self.population, frame, end)
        return {
            f"{prefix}_start_date": first.dt.date(),
            f"{prefix}_start_datetime": first,
            f"{prefix}_end_date": last.dt.date(),
            f"{prefix}_end_datetime": last,
        }

    def write(self, name: str, frame: pl.DataFrame, columns: tuple[str, ...]) -> None:
        """Write one table; rows get fresh identifiers in its first column if they have none."""
        if columns[0] not in frame.columns:
            frame = frame.with_columns(pl.Series(columns[0], self.new(name, len(frame))))
        write_table(columns_of(frame, *columns), self.folder / f"{name}.csv.gz")


def write_omop(population: Population, folder: Path) -> npt.NDArray[np.int64]:
    """Write the export.

    Args:
        population: Whose.
        folder: An empty folder.

    Returns:
        The MEDS subject of each patient (`person_id`), int64 [patients].
    """
    writer, hours = _Writer(population, folder), arrays(population)
    _sources(writer)
    _persons(writer)
    _visits(writer)
    details = _details(writer)
    _measurements(writer, readings(population, hours), details)
    _treatments(writer, hours)
    _conditions(writer, hours)
    return writer.person


def _sources(w: _Writer) -> None:
    name = w.population.hospital.name
    source = {
        "cdm_source_name": f"Simulated hospital {name}",
        "cdm_source_abbreviation": name,
        "cdm_holder": "FedWard",
        "source_description": "Simulated: no patient of this export exists.",
        "cdm_version": "5.4",
        "cdm_version_concept_id": "756265",
        "vocabulary_version": "v5.0 30-AUG-24",
    }
    write_table(
        columns_of(pl.DataFrame({k: [v] for k, v in source.items()}), *tables.SOURCE), w.folder / "cdm_source.csv.gz"
    )
    sites = pl.DataFrame({"care_site_id": w.site, "care_site_name": list(_SITES.values())})
    w.write("care_site", sites.with_columns(care_site_source_value="care_site_name"), tables.CARE_SITE)


def _persons(w: _Writer) -> None:
    people = w.population.patients
    born = people["born"].dt
    # Half of the birth days and a tenth of the months are not known.
    rng = w.population.stream("omop births")
    day, month = rng.random(len(people)) < 0.5, rng.random(len(people)) < 0.9
    persons = people.with_columns(
        person_id=pl.Series(w.person),
        gender_concept_id=pl.when("female").then(8532).otherwise(8507),
        year_of_birth=born.year(),
        month_of_birth=born.month().set(pl.Series(~month), None),
        day_of_birth=born.day().set(pl.Series(~(month & day)), None),
        race_concept_id=pl.col("race").replace_strict(_RACES),
        ethnicity_concept_id=pl.when(pl.col("race") == "HISPANIC").then(38003563).otherwise(38003564),
        person_source_value=pl.col("patient"),
        gender_source_value=pl.when("female").then(pl.lit("F")).otherwise(pl.lit("M")),
        race_source_value=pl.col("race"),
    )
    w.write("person", persons, tables.PERSON)
    last = w.population.admissions.group_by("patient", maintain_order=True).agg(pl.col("died", "discharged").last())
    later = pl.Series(people["died_later"])
    dead = persons.select("person_id", "died_later").with_columns(
        death_datetime=pl.when(last["died"]).then(last["discharged"])
    )
    dead = dead.filter(last["died"] | later.is_not_null()).with_columns(
        death_date=pl.coalesce(pl.col("death_datetime").dt.date(), "died_later"),
        death_type_concept_id=pl.lit(_EHR),
        cause_concept_id=pl.lit(0),
        cause_source_concept_id=pl.lit(0),
    )
    w.write("death", dead, tables.DEATH)
    span = w.population.admissions.group_by("patient", maintain_order=True).agg(
        pl.col("admitted").first().dt.date(), pl.col("discharged").last().dt.date()
    )
    period = pl.DataFrame(
        {
            "person_id": w.person,
            "observation_period_start_date": span["admitted"],
            "observation_period_end_date": span["discharged"],
            "period_type_concept_id": np.full(len(people), _EHR),
        }
    )
    w.write("observation_period", period, ("observation_period_id", *period.columns))


def _visits(w: _Writer) -> None:
    admissions = w.population.admissions
    emergency = pl.col("lead_hours") > 0
    visits = admissions.with_columns(
        **w.ids(admissions),
        **w.span(admissions.with_columns(zero=pl.lit(0)), "visit", "zero", "minutes"),
        visit_concept_id=pl.when(emergency).then(262).otherwise(9201),
        visit_type_concept_id=pl.lit(_EHR),
        visit_source_value=pl.when(emergency).then(pl.lit("EW EMER.")).otherwise(pl.lit("URGENT")),
        visit_source_concept_id=pl.lit(0),
        admitted_from_concept_id=pl.when(emergency).then(8870).otherwise(8717),
        discharged_to_concept_id=pl.when("died").then(4216643).otherwise(581476),
        discharged_to_source_value=pl.when("died").then(pl.lit("DIED")).otherwise(pl.lit("HOME")),
    )
    w.write("visit_occurrence", visits, tables.VISIT)


def _details(w: _Writer) -> pl.DataFrame:
    """One visit_detail for each place in turn; returns stay and its visit_detail_id."""
    hours = w.population.hours
    new = (pl.col("place") != pl.col("place").shift(1)) | (pl.col("admission") != pl.col("admission").shift(1))
    spans = (
        hours.with_columns(span=new.fill_null(True).cast(pl.Int32).cum_sum())
        .group_by("span", maintain_order=True)
        .agg(
            pl.col("admission", "place", "stay").first(),
            start=pl.col("tick").first() * 60,
            end=pl.col("tick").last() * 60 + pl.col("minutes").last(),
        )
    )
    # Who leaves the ICU in the middle of an hour is on the ward from that minute.
    within = pl.col("admission") == pl.col("admission").shift(1)
    spans = spans.with_columns(start=pl.when(within).then(pl.col("end").shift(1)).otherwise("start"))
    place = spans["place"].to_numpy()
    site = np.array([w.site[list(_SITES).index(i)] for i in (ICU, 1, EMERGENCY)])[place]
    details = spans.with_columns(
        **w.ids(spans),
        **w.span(spans, "visit_detail", "start", "end"),
        visit_detail_id=pl.Series(w.new("visit_detail", len(spans))),
        visit_detail_concept_id=pl.Series(np.array([_DETAIL[i] for i in (ICU, 1, EMERGENCY)])[place]),
        visit_detail_type_concept_id=pl.lit(_EHR),
        visit_detail_source_concept_id=pl.lit(0),
        care_site_id=pl.Series(site),
    )
    w.write("visit_detail", details, tables.VISIT_DETAIL)
    return details.filter(pl.col("stay").is_not_null()).select("stay", "visit_detail_id")


def _measurements(w: _Writer, found: pl.DataFrame, details: pl.DataFrame) -> None:
    si = w.population.hospital.si_units
    index = found["variable"].to_numpy().astype(np.int64)
    concept = np.array([v.omop[0] for v in VARIABLES])
    unit, text, scale, offset, decimals = [], [], [], [], []
    for v in VARIABLES:
        other = v.other if v.name in si and v.other is not None and v.other.omop_unit is not None else None
        unit.append(other.omop_unit[0] if other and other.omop_unit else v.omop[1])
        text.append(other.omop_unit[1] if other and other.omop_unit else v.omop_source[1])
        scale.append(other.scale if other else 1.0)
        offset.append(other.offset if other else 0.0)
        decimals.append(other.decimals if other else v.decimals)
    ten = 10.0 ** np.array(decimals)[index]
    value = np.rint((found["value"].to_numpy() * np.array(scale)[index] + np.array(offset)[index]) * ten) / ten
    time = at(w.population, found, "stored")
    frame = found.select("stay").with_columns(
        **w.ids(found),
        measurement_concept_id=pl.Series(concept[index]),
        measurement_date=time.dt.date(),
        measurement_datetime=time,
        measurement_type_concept_id=pl.lit(_EHR),
        operator_concept_id=pl.lit(0),
        value_as_number=pl.Series(value),
        value_as_concept_id=pl.lit(0),
        unit_concept_id=pl.Series(np.array(unit)[index]),
        measurement_source_value=pl.Series([v.omop_source[0] for v in VARIABLES])[index],
        measurement_source_concept_id=pl.lit(0),
        unit_source_value=pl.Series(text)[index],
    )
    frame = pl.concat([frame, _body(w)], how="diagonal_relaxed")
    frame = frame.join(details, on="stay", how="left", maintain_order="left")
    w.write("measurement", frame, tables.MEASUREMENT)


def _body(w: _Writer) -> pl.DataFrame:
    """Weight and height on admission to the ICU."""
    stays, people = w.population.stays, w.population.patients
    patient = w.patient[stays["admission"].to_numpy().astype(np.int64)]
    time = at(w.population, stays, "in_minute")
    parts = []
    for concept, unit, text, column in ((3025315, 9529, "kg", "weight_kg"), (3036277, 8582, "cm", "height_cm")):
        row = stays.select("stay").with_columns(
            **w.ids(stays),
            measurement_concept_id=pl.lit(concept, pl.Int64),
            measurement_date=time.dt.date(),
            measurement_datetime=time,
            measurement_type_concept_id=pl.lit(_EHR),
            operator_concept_id=pl.lit(0),
            value_as_number=pl.Series(people[column].to_numpy()[patient]),
            value_as_concept_id=pl.lit(0),
            unit_concept_id=pl.lit(unit, pl.Int64),
            measurement_source_value=pl.lit("Admission Weight (Kg)" if text == "kg" else "Height (cm)"),
            measurement_source_concept_id=pl.lit(0),
            unit_source_value=pl.lit(text),
        )
        parts.append(row)
    return pl.concat(parts)


def _treatments(w: _Writer, hours: Hours) -> None:
    given = prescriptions(w.population)
    drug = given["drug"].to_numpy().astype(np.int64)
    given = given.with_columns(
        drug_concept_id=pl.Series([d.omop for d in DRUGS])[drug],
        drug_source_value=pl.Series([d.mimic for d in DRUGS])[drug],
        route_source_value=pl.Series([d.route for d in DRUGS])[drug],
        quantity=pl.lit(1.0),
        dose_unit_source_value=pl.lit(None, pl.String),
    )
    pressor = vasopressors(w.population, hours).with_columns(
        drug_concept_id=pl.lit(_NOREPINEPHRINE, pl.Int64),
        drug_source_value=pl.lit("Norepinephrine"),
        route_source_value=pl.lit("IV"),
        quantity="rate",
        dose_unit_source_value=pl.lit("mcg/kg/min"),
    )
    names = ["admission", "start", "end", "drug_concept_id", "drug_source_value", "route_source_value", "quantity"]
    names.append("dose_unit_source_value")
    drugs = pl.concat([given.select(names), pressor.select(names)]).sort("admission", "start", maintain_order=True)
    drugs = drugs.with_columns(
        **w.ids(drugs),
        **w.span(drugs, "drug_exposure", "start", "end"),
        drug_type_concept_id=pl.lit(32838),
        route_concept_id=pl.lit(0),
        drug_source_concept_id=pl.lit(0),
    )
    w.write("drug_exposure", drugs, tables.DRUG)
    breath = ventilations(hours)
    first, last = at(w.population, breath, "start"), at(w.population, breath, "end")
    breath = breath.with_columns(
        **w.ids(breath),
        procedure_concept_id=pl.lit(_VENTILATION),
        procedure_date=first.dt.date(),
        procedure_datetime=first,
        procedure_end_date=last.dt.date(),
        procedure_end_datetime=last,
        procedure_type_concept_id=pl.lit(_EHR),
        procedure_source_value=pl.lit("Invasive Ventilation"),
        procedure_source_concept_id=pl.lit(0),
    )
    w.write("procedure_occurrence", breath, tables.PROCEDURE)


def _conditions(w: _Writer, hours: Hours) -> None:
    """Billing conditions carry the dates of the visit; they are known at its end."""
    found = diagnoses(w.population, hours).join(
        w.population.admissions.select("admission", "minutes"), on="admission", maintain_order="left"
    )
    found = found.with_columns(zero=pl.lit(0))
    # One condition in fifty was never mapped: concept 0, only the source value tells.
    mapped = pl.Series(w.population.stream("mapping").random(len(found)) >= 0.02)
    frame = found.with_columns(
        **w.ids(found),
        **w.span(found, "condition", "zero", "minutes"),
        condition_concept_id=pl.when(mapped)
        .then(pl.col("diagnosis").replace_strict({k: d.omop for k, d in DIAGNOSES.items()}))
        .otherwise(0),
        condition_type_concept_id=pl.lit(_BILLING),
        condition_source_value=pl.col("diagnosis").replace_strict({k: d.icd10 for k, d in DIAGNOSES.items()}),
        condition_source_concept_id=pl.lit(0),
    )
    w.write("condition_occurrence", frame, tables.CONDITION)
