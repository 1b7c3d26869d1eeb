"""A fault file: which faults a federation is put through.

    timeout_s: 60
    faults:
      - { kind: leave, rate: 0.3 }
      - { kind: sign-flip, sites: 1, factor: -2 }
      - { kind: slow, sites: [boston, lyon], rounds: { from: 3, to: 6 }, seconds: 90 }

Its content is part of a cell's identity, where it lies is not: `model_dump(mode="json", exclude_none=True)` is its
canonical form.
"""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError

from fedcore.faults import drawn
from fedcore.faults.drawn import Faults
from fedcore.faults.kinds import KINDS, Closed, Fault, Leave, Number, Slow, Stale
from sites.errors import InputError


class FaultPlan(Closed):
    """The faults of a federation.

    Attributes:
        faults: where several befall a site in one round, they act in this order.
        timeout_s: how long the coordinator waits for a reply, in simulated seconds; None: for ever.
    """

    faults: tuple[Fault, ...] = Field(min_length=1, description="a list of faults, one at least")
    timeout_s: Annotated[Number, Field(gt=0)] | None = Field(default=None, description="seconds above 0, such as 60")

    @classmethod
    def load(cls, path: Path) -> "FaultPlan":
        """Read a fault file.

        Raises:
            InputError: it cannot be read, or does not say what a fault file must say.
        """
        try:
            content = _Unambiguous(path.read_text(encoding="utf-8")).get_single_data()
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path}: found no UTF-8 text at byte {error.start}, expected a fault file in YAML; save it as UTF-8"
            ) from error
        except OSError as error:
            raise InputError(
                f"{path}: found no file that can be read ({error.strerror}), expected a fault file; correct the path"
            ) from error
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
            raise InputError(
                f"{path}: {place}found no YAML ({error.problem}), expected a fault file; mend it"
            ) from error
        except (yaml.YAMLError, RecursionError) as error:
            raise InputError(f"{path}: found no YAML ({error}), expected a fault file; mend it") from error
        return cls.parse(content, str(path))

    @classmethod
    def parse(cls, content: object, where: str) -> "FaultPlan":
        """Take what a fault file or a part of a suite holds.

        Args:
            content: as YAML gives it.
            where: what the sentence about a mistake begins with.

        Raises:
            InputError: it is no fault plan.

        >>> FaultPlan.parse({"faults": [{"kind": "leave", "rate": 2}]}, "f.yaml")
        Traceback (most recent call last):
        sites.errors.InputError: f.yaml: faults.0.rate: found 2, expected a number from 0 to 1, such as 0.2; mend it
        """
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise InputError(f"{where}: {_sentence(content, error)}") from None

    def check(self, sites: Collection[str], where: str, *, trees: bool = False) -> None:
        """See that the plan can befall this federation.

        Args:
            sites: the names of all its sites.
            where: what the sentence begins with: the file.
            trees: the model travels as bytes, which have no sign and no NaN.

        Raises:
            InputError: it names a site or asks for a number of sites that is not there, or would leave trees as they
                are.
        """
        for number, fault in enumerate(self.faults):
            place = f"{where}: faults.{number}"
            for name in fault.names or ():
                if name not in sites:
                    raise InputError(
                        f"{place}.sites: found {name!r}, expected sites of the federation "
                        f"({', '.join(sorted(sites))}); correct the name"
                    )
            if isinstance(fault.sites, int) and fault.sites > len(sites):
                raise InputError(
                    f"{place}.sites: found {fault.sites}, expected at most {len(sites)}, as there are; lower it"
                )
            if trees and not isinstance(fault, Leave | Slow | Stale):
                raise InputError(
                    f"{place}.kind: found {fault.kind}, expected leave, slow or stale for a model of trees, which "
                    "travels as bytes; leave the fault or the model out"
                )

    def draw(self, seed: int, sites: Iterable[str]) -> Faults:
        """The faults of a cell.

        Args:
            seed: the cell's.
            sites: those that train; among them are those chosen whom no name tells.
        """
        return drawn.draw(self.faults, self.timeout_s, seed, sites)


class _Unambiguous(yaml.SafeLoader):
    """YAML in which a name stands once: of two, the second would win unseen."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        met: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in met:
                    raise yaml.MarkedYAMLError(
                        problem=f"the field {key.value!r} stands twice", problem_mark=key.start_mark
                    )
                met.add(key.value)
        return super().construct_mapping(node, deep)


def _sentence(content: Any, error: ValidationError) -> str:
    """The place, what was found there, what was expected and what to do, of the first mistake."""
    first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")  # it explains a missing field
    loc, wrong = first["loc"], first["type"]
    model: type[Closed] = FaultPlan
    place, entry = "", content
    if loc[:1] == ("faults",) and len(loc) > 1:
        place, entry = f"faults.{loc[1]}", content["faults"][loc[1]]
        if not isinstance(entry, Mapping):
            return f"{place}: found {_shown(entry)}, expected fields, such as {{kind: leave, rate: 0.3}}; mend it"
        if len(loc) == 2:
            return f"{place}.kind: found {_shown(entry.get('kind'))}, expected one of {', '.join(KINDS)}; choose one"
        model, loc = KINDS[str(loc[2])], loc[3:]
    if not loc:
        own = first.get("ctx", {}).get("error")
        return (
            f"{place}: {own}" if own else f"found {_shown(content)}, expected `faults:` and a list of faults; mend it"
        )
    at = f"{place}.{loc[0]}" if place else str(loc[0])
    field = model.model_fields.get(str(loc[0]))
    if field is None:
        return f"{at}: found this field, expected one of {', '.join(model.model_fields)}; rename or remove it"
    if wrong == "missing":
        return f"{at}: found nothing, expected {field.description}; add it"
    return f"{at}: found {_shown(entry[loc[0]])}, expected {field.description}; mend it"


def _shown(value: object) -> str:
    return "nothing" if value is None else repr(value)[:80]
