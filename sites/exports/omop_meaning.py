"""What the rows of an OMOP export mean: which visits are admissions, which places are ICUs, what a date says."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from sites.errors import InputError


@cache
def declared() -> Mapping[str, Any]:
    """What `omop_visits.yaml` says."""
    loaded: Mapping[str, Any] = yaml.safe_load(Path(__file__).with_name("omop_visits.yaml").read_text(encoding="utf-8"))
    return loaded


@dataclass(frozen=True)
class Meaning:
    """Which visits and places mean what, for one site.

    Attributes:
        admissions: Visit concepts that are admissions.
        if_admitted_from: Those that are admissions if they record from where.
        icu: Concepts of intensive care.
        icu_names: A pattern for the names of its care sites ("": none).
    """

    admissions: tuple[int, ...]
    if_admitted_from: tuple[int, ...]
    icu: tuple[int, ...]
    icu_names: str

    @classmethod
    def of(cls, options: Mapping[str, str]) -> "Meaning":
        """The declared meaning, or what the options `admissions` and `icu` say instead.

        Raises:
            InputError: `admissions` holds something other than concept ids.
        """
        lists = declared()
        admissions, conditional = tuple(lists["admissions"]), tuple(lists["admissions_if_admitted_from"])
        icu, names = tuple(lists["icu"]), str(lists["icu_names"])
        if "admissions" in options:
            parts = [part.strip() for part in options["admissions"].split("+")]
            wrong = next((part for part in parts if not part.lstrip("-").isdigit()), None)
            if wrong is not None:
                raise InputError(
                    f"option admissions={options['admissions']}: found {wrong!r}, expected visit concept ids joined "
                    "by +; write for example admissions=9201+262"
                )
            admissions, conditional = tuple(map(int, parts)), ()
        if "icu" in options:
            parts = [part.strip() for part in options["icu"].split("+") if part.strip()]
            icu = tuple(int(part) for part in parts if part.lstrip("-").isdigit())
            names = "|".join(f"(?i:{_escape(part)})" for part in parts if not part.lstrip("-").isdigit())
        return cls(admissions, conditional, icu, names)


def _escape(text: str) -> str:
    return "".join(c if c.isalnum() or c.isspace() else f"\\{c}" for c in text)


def moment(date: pl.Expr, time: pl.Expr, midnight_is_a_time: bool | pl.Expr) -> pl.Expr:
    """When a fact was known that OMOP keeps as a date and perhaps a time: Datetime("us").

    Args:
        date: Date.
        time: Datetime("us"), may be null.
        midnight_is_a_time: False where 00:00:00 only says that there is no time.

    Returns:
        The time, or the last second of the day.
    """
    midnight = (time.dt.time() == pl.time(0, 0)).fill_null(True)
    day = pl.coalesce(time.cast(pl.Date), date)
    last_second = day.cast(pl.Datetime("us")) + pl.duration(hours=23, minutes=59, seconds=59)
    return pl.when(midnight & ~pl.lit(midnight_is_a_time) | time.is_null()).then(last_second).otherwise(time)


def matches(name: pl.Expr, pattern: str) -> pl.Expr:
    """Whether a text is there and holds the pattern; no text holds the empty pattern."""
    return name.str.contains(pattern).fill_null(False) if pattern else pl.lit(False)
