"""From the name of an order to the name of an ingredient, without a drug database.

A hospital orders `ONDANSETRON HCL 4 MG/2ML IJ SOLN`, another `Zofran`, a third `Ondansetron`: all become `ONDANSETRON`.
The rules, in this order (`drugs.yaml` holds the lists):

1. Upper case; what stands in parentheses goes; a package in front (`2 ML VIAL : `, `Volume (mL)-`) goes.
2. Numbers, strengths and percent signs in front go; from the next number on, everything goes.
3. `/` and `-` join a combination: its parts in alphabetical order.
4. The first word stays, or the first two where the first alone says nothing (`POTASSIUM CHLORIDE`, `FOLIC ACID`); so
   salts, forms and routes, which follow, go.
5. Brands, abbreviations and spellings become the ingredient; containers and diluents become nothing.

This is coarse by intent: oral and intravenous vancomycin become one, and so do all insulins.
"""

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

import yaml
from pydantic import BaseModel, ConfigDict


class Lists(BaseModel):
    """`drugs.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    not_drugs: frozenset[str]
    two_words: frozenset[str]
    leading: frozenset[str]
    synonyms: Mapping[str, tuple[str, ...]]
    items: Mapping[str, tuple[int, ...]]


@cache
def lists() -> Lists:
    """The rules of this package."""
    return Lists.model_validate(yaml.safe_load((files("sites") / "drugs.yaml").read_text(encoding="utf-8")))


@cache
def _ingredient() -> Mapping[str, str]:
    return {other: name for name, others in lists().synonyms.items() for other in others}


@cache
def items() -> Mapping[str, str]:
    """MIMIC's infusion items that are a drug: item id -> ingredient."""
    return {str(item): name for name, ids in lists().items.items() for item in ids}


_PACKAGE = re.compile(r"^(?:[\d.,]+ ?(?:ML|G|GM|MG|L)\b[^:]{0,30}?(?: ?: | - |: )|VOLUME ?-? ?)")
_NUMBER = re.compile(r"^[\d.,/%+#*]+(?:MG|MCG|ML|GM?|%)?$")


@cache
def ingredient(name: str) -> str | None:
    """The ingredient that the name of an order stands for, in upper case, or None where it stands for none.

    >>> ingredient("2 ML VIAL : ONDANSETRON HCL 4 MG/2ML IJ SOLN"), ingredient("Zofran"), ingredient("Bag")
    ('ONDANSETRON', 'ONDANSETRON', None)
    """
    text = re.sub(r"\([^)]*(\)|$)", " ", name.upper())
    text = _PACKAGE.sub("", " ".join(text.split()))
    words: list[str] = []
    for word in re.sub(r"[,;:*<>_]", " ", re.sub(r"\s*([/-])\s*", r"\1", text)).split():
        if _NUMBER.match(word) or word[0].isdigit() or word in {"%", ".", "-", "="} or word.startswith("."):
            if words:
                break
            if (rest := re.sub(r"^[\d./]+%?", "", word)) in _ingredient():
                words.append(rest)
            continue
        if not words and word in lists().leading:
            continue
        words.append(word.strip(".") if len(word) > 2 else word)
        if len(words) == 2:
            break
    return _named(words) if words else None


def _named(words: list[str]) -> str | None:
    pair = " ".join(words)
    first = words[0]
    synonyms = _ingredient()
    if pair in synonyms or first in synonyms:
        if first in lists().two_words and pair not in synonyms and len(words) == 2:
            return pair
        return synonyms.get(pair) or synonyms[first]
    if {pair, first} & lists().not_drugs:
        return None
    if first in lists().two_words:
        return pair
    parts = sorted({synonyms.get(part, part) for part in re.split(r"[/-]", first) if part.isalpha() and len(part) > 1})
    joined = "-".join(parts)
    return synonyms.get(joined, joined) or None
