"""The tables of the OMOP CDM 5.3 and 5.4 that are read, and their columns; what only one version has is optional."""

from collections.abc import Sequence

import polars as pl

from sites.exports.export import DTypes, Table

_TYPES: DTypes = {"_id": pl.Int64(), "_date": pl.Date(), "_datetime": pl.Datetime("us"), "_value": pl.String()}


def _table(
    name: str,
    columns: Sequence[str],
    optional: Sequence[str] = (),
    *,
    required: bool = False,
    loses: str = "",
    keys: tuple[str, ...] = (),
) -> Table:
    """A table whose columns have the types that their names' endings say; all others are text."""
    types = {
        column: next((dtype for ending, dtype in _TYPES.items() if column.endswith(ending)), pl.String())
        for column in (*columns, *optional)
    }
    numbers = {"value_as_number": pl.Float64(), "quantity": pl.Float64()}
    birth = {f"{part}_of_birth": pl.Int64() for part in ("year", "month", "day")}
    typed = {column: (numbers | birth).get(column, dtype) for column, dtype in types.items()}
    return Table(name, typed, optional=frozenset(optional), required=required, loses=loses, keys=keys)


VISIT_VARIANTS = (
    *("admitting_source_concept_id", "admitting_source_value", "discharge_to_concept_id", "discharge_to_source_value"),
    *("admitted_from_concept_id", "admitted_from_source_value", "discharged_to_concept_id"),
    "discharged_to_source_value",
)
"""Where a patient came from and went to: the columns of CDM 5.3, then those of 5.4."""

DOMAINS = {
    # Domain: table, prefix of its columns, prefix of its first time, whether it has an end.
    "CONDITION": ("condition_occurrence", "condition", "condition_start", "condition_end"),
    "DRUG": ("drug_exposure", "drug", "drug_exposure_start", "drug_exposure_end"),
    "PROCEDURE": ("procedure_occurrence", "procedure", "procedure", ""),
    "MEASUREMENT": ("measurement", "measurement", "measurement", ""),
    "OBSERVATION": ("observation", "observation", "observation", ""),
    "DEVICE": ("device_exposure", "device", "device_exposure_start", "device_exposure_end"),
}
"""Domain -> its table, the prefix of its concept columns, of its start columns and of its end columns."""

_MORE = {
    "DRUG": ("quantity", "route_source_value"),
    "MEASUREMENT": (
        *("value_as_number", "value_as_concept_id", "unit_concept_id", "unit_source_value", "value_source_value"),
        "operator_concept_id",
    ),
    "OBSERVATION": (
        "value_as_number",
        "value_as_string",
        "value_as_concept_id",
        "unit_concept_id",
        "unit_source_value",
    ),
}
_LOSES = {
    "CONDITION": "diagnoses",
    "DRUG": "drugs",
    "PROCEDURE": "procedures",
    "MEASUREMENT": "laboratory results and vital signs",
    "OBSERVATION": "observations",
    "DEVICE": "devices",
}


def _domain(domain: str) -> Table:
    table, name, start, end = DOMAINS[domain]
    ends = (f"{end}_date", f"{end}_datetime") if end else ()
    return _table(
        table,
        ("person_id", f"{name}_concept_id", f"{start}_date", f"{name}_type_concept_id"),
        (f"{start}_datetime", *ends, "visit_occurrence_id", f"{name}_source_value", *_MORE.get(domain, ())),
        loses=_LOSES[domain],
    )


TABLES = (
    _table(
        "person",
        ("person_id", "gender_concept_id", "year_of_birth"),
        (
            *("month_of_birth", "day_of_birth", "birth_datetime", "race_concept_id", "race_source_value"),
            *("ethnicity_concept_id", "ethnicity_source_value"),
        ),
        required=True,
        keys=("person_id",),
    ),
    _table(
        "visit_occurrence",
        ("visit_occurrence_id", "person_id", "visit_concept_id", "visit_start_date", "visit_end_date"),
        ("visit_start_datetime", "visit_end_datetime", "care_site_id", *VISIT_VARIANTS),
        required=True,
        keys=("visit_occurrence_id",),
    ),
    _table(
        "visit_detail",
        (
            *("visit_detail_id", "person_id", "visit_detail_concept_id", "visit_occurrence_id"),
            *("visit_detail_start_date", "visit_detail_end_date"),
        ),
        ("visit_detail_start_datetime", "visit_detail_end_datetime", "care_site_id"),
        loses="transfers and intensive-care stays",
    ),
    _table("care_site", ("care_site_id", "care_site_name"), loses="the names of units, by which ICUs are found"),
    _table("death", ("person_id", "death_date"), ("death_datetime",), loses="deaths"),
    _table("cdm_source", ("cdm_source_name",), ("source_description",), loses="the name of the data"),
    *(_domain(domain) for domain in DOMAINS),
)
"""Every table that is read. `concept` is not: it has millions of rows, and codes hold the concept ids."""
