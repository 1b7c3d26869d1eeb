"""concepts.yaml as Python: the harmonised variables, and which ids of which export mean them.

The file says what its fields mean; this module only reads it, refuses what it does not know, and turns a MEDS code into
the ids under which the file may list it.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Annotated, Literal, NamedTuple

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from sites.errors import InputError

Kind = Literal["vital", "lab", "output", "ventilation", "neuro", "body", "cardiac"]
AtOnce = Literal["mean", "sum", "max"]
AS_IS = "as_is"
"""The name of the conversion that changes nothing."""

Id = Annotated[str, BeforeValidator(lambda value: str(value).strip().casefold())]
"""Ids are compared without regard to case or surrounding blanks; a number is its digits."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Piece(_Model):
    """Another line for the numbers on one side of a limit: where 0.5 and 50 mean the same."""

    at_most: float | None = None
    at_least: float | None = None
    scale: float = 1.0
    offset: float = 0.0

    @model_validator(mode="after")
    def _one_side(self) -> "Piece":
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError("expected at_most or at_least, one of the two")
        return self


class TextRule(_Model):
    """What a text says: the first rule whose pattern (no regard to case) is found gives the value, null for missing."""

    matches: str
    value: float | None

    @model_validator(mode="after")
    def _is_a_pattern(self) -> "TextRule":
        re.compile(self.matches)
        return self


class Conversion(_Model):
    """From the number and the text of an event to a value: text rules, else constant, else `number * scale + offset`.

    Attributes:
        scale: Factor.
        offset: Added after the factor.
        where: Other lines for part of the numbers; the first that applies.
        constant: The event is the evidence: this value, whatever its number says.
        above: With `constant`: only where the number is greater than this.
        text: Rules for the text.
        text_only: Without a text that a rule knows there is no value.
    """

    scale: float = 1.0
    offset: float = 0.0
    where: tuple[Piece, ...] = ()
    constant: float | None = None
    above: float | None = None
    text: tuple[TextRule, ...] = ()
    text_only: bool = False

    @property
    def is_line(self) -> bool:
        """A scale and an offset say it all."""
        return not self.where and not self.text and self.constant is None


class Concept(_Model):
    """One harmonised variable.

    Attributes:
        name: What the field calls it: `heart_rate`.
        unit: What every value is converted to, e.g. `mg/dL`; `1` for scores and flags.
        kind: What sort of variable it is.
        low: Smallest plausible value, in `unit`.
        high: Largest plausible value, in `unit`.
        at_once: What several values of one patient at one time become.
        hidden: A part of another concept and no variable itself.
        sum_of: Where the concept itself was not charted: the sum of these, if all were at that time.
        loinc: LOINC codes.
        ids: Export key -> conversion -> ids.
        units: Unit concept id or UCUM text -> conversion (`omop` and `meds`, whose codes carry a dependable unit).
    """

    name: str
    unit: str
    kind: Kind
    low: float
    high: float
    at_once: AtOnce = "mean"
    hidden: bool = False
    sum_of: tuple[str, ...] = ()
    loinc: tuple[Id, ...] = ()
    ids: Mapping[str, Mapping[str, tuple[Id, ...]]] = Field(default_factory=dict)
    units: Mapping[Id, str] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, entry: dict[str, object]) -> dict[str, object]:
        """`range: [low, high]`, and a bare list of ids for those that need no conversion."""
        entry = dict(entry)
        if isinstance(limits := entry.pop("range", None), list):
            entry["low"], entry["high"] = limits
        if isinstance(ids := entry.get("ids"), dict):
            entry["ids"] = {key: {AS_IS: v} if isinstance(v, list) else v for key, v in ids.items()}
        return entry

    @model_validator(mode="after")
    def _sound(self) -> "Concept":
        if not self.low < self.high:
            raise ValueError(f"range: expected the lower limit first, found [{self.low}, {self.high}]")
        return self


class Catalogue(_Model):
    """The whole file.

    Attributes:
        exports: The keys of `ids`, one for exports of like ids. Known without standing here are `common` (what all
            exports share) and, for datasets, `meds` (LOINC and MIMIC's ids) and "" (only what all share).
        conversions: By name.
        concepts: By name.
    """

    exports: tuple[str, ...]
    conversions: Mapping[str, Conversion]
    concepts: Mapping[str, Concept]

    @model_validator(mode="before")
    @classmethod
    def _names(cls, content: dict[str, dict[str, dict[str, object]]]) -> dict[str, object]:
        concepts = {name: {"name": name, **entry} for name, entry in content["concepts"].items()}
        return {**content, "conversions": {AS_IS: {}, **content["conversions"]}, "concepts": concepts}

    @model_validator(mode="after")
    def _closed(self) -> "Catalogue":
        for concept in self.concepts.values():
            if unknown := set(concept.ids) - {*self.exports, "common"}:
                raise ValueError(
                    f"{concept.name}: unknown export key {min(unknown)!r}; expected one of common, "
                    f"{', '.join(self.exports)}"
                )
            used = {c for by_conversion in concept.ids.values() for c in by_conversion} | set(concept.units.values())
            if unknown := used - set(self.conversions):
                raise ValueError(f"{concept.name}: conversion {min(unknown)!r} is not declared under `conversions`")
            if unknown := set(concept.sum_of) - set(self.concepts):
                raise ValueError(f"{concept.name}: sum_of names {min(unknown)!r}, which is no concept")
        return self


class Meaning(NamedTuple):
    """What one code means: a concept and the conversion of its numbers."""

    concept: str
    conversion: str


def parse(text: str) -> Catalogue:
    """Read the text of a concepts file.

    Raises:
        InputError: A field is unknown, missing or out of place.
    """
    try:
        return Catalogue.model_validate(yaml.safe_load(text))
    except ValidationError as error:
        # A field that is unknown explains one that is missing.
        first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
        place = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(f"concepts.yaml: {place}: {first['msg']}; mend that entry.") from error


@cache
def catalogue() -> Catalogue:
    """The file that comes with this package."""
    return parse((files("sites") / "concepts.yaml").read_text(encoding="utf-8"))


class Index:
    """The ids of one export key.

    >>> Index("mimic").meanings("LAB//223761//°F")
    [Meaning(concept='temperature', conversion='fahrenheit')]
    """

    def __init__(self, key: str) -> None:
        known = catalogue().exports
        if key not in {"", "meds", *known}:
            raise InputError(
                f"concepts.yaml has no ids for the export key {key!r}; expected one of {', '.join(known)} or meds."
            )
        self._units = key in {"omop", "meds"}
        self._exact: dict[str, dict[str, str]] = {}
        self._prefixes: list[tuple[str, Meaning]] = []
        keys = {"": ("common",), "meds": ("common", "mimic")}.get(key, ("common", key))
        for concept in catalogue().concepts.values():
            for one in keys:
                for conversion, ids in concept.ids.get(one, {}).items():
                    for written in ids:
                        self._add(written, Meaning(concept.name, conversion))
            if self._units:
                for written in concept.loinc:
                    self._add(written, Meaning(concept.name, AS_IS))

    def _add(self, written: str, meaning: Meaning) -> None:
        if written.endswith("*"):
            self._prefixes.append((written[:-1], meaning))
        else:
            self._exact.setdefault(written, {})[meaning.concept] = meaning.conversion

    def meanings(self, code: str) -> list[Meaning]:
        """What a MEDS code means: none, one, or several (a verbal score speaks of a tube, too); most specific id."""
        parts = [part.strip() for part in code.casefold().split("//")]
        found: dict[str, str] = {}
        for written in _candidates(parts):
            for concept, conversion in self._exact.get(written, {}).items():
                found.setdefault(concept, conversion)
            for prefix, meaning in self._prefixes:
                if written.startswith(prefix):
                    found.setdefault(meaning.concept, meaning.conversion)
        if self._units:
            units = {name: catalogue().concepts[name].units.get(parts[-1]) for name in found}
            found = {name: units[name] or conversion for name, conversion in found.items()}
        return [Meaning(concept, conversion) for concept, conversion in found.items()]


_MEASURED = frozenset({"lab", "subject_fluid_output", "body", "loinc", "vital", "omr"})
_OMOP_DOMAINS = frozenset({"measurement", "observation", "condition", "procedure", "device"})


def _candidates(parts: list[str]) -> Iterator[str]:
    """The ids under which the file may list a code, the most specific first.

    `LAB//50889//mg/dL` may stand there whole or by any beginning, as `50889//mg/dl` or as `50889`; of an OMOP code the
    id is the third part.
    """
    for n in range(len(parts), 0, -1):
        yield "//".join(parts[:n])
    if len(parts) > 1 and parts[0] in _MEASURED:
        bare = parts[1:]
    elif len(parts) > 2 and parts[0] in _OMOP_DOMAINS and parts[1] in {"omop", "source", "loinc"}:
        bare = parts[2:]
    else:
        return
    for n in range(len(bare), 0, -1):
        yield "//".join(bare[:n])


@cache
def index(key: str) -> Index:
    """The ids of one export key, read once.

    Raises:
        InputError: The key is unknown.
    """
    return Index(key)
