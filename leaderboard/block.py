"""What every block of a record shares: closed, frozen, strictly typed, finite."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, Strict, StringConstraints

T = TypeVar("T")

Text = Annotated[str, StringConstraints(min_length=1)]
"""Text that says something."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=300)]
"""What something is called; shown to readers, so whoever shows it escapes it."""

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")]
"""A name that is also a folder's name."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""64 hex digits."""

Moment = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z$")]
"""A moment in UTC, as 2026-11-20T15:24:05Z."""

Count = Annotated[int, Field(ge=0)]
"""How many."""

Share = Annotated[float, Field(ge=0.0, le=1.0)]
"""A share between 0 and 1."""

Many = Annotated[tuple[T, ...], Strict(False)]
"""A frozen sequence; a list will do to make one."""


class Block(BaseModel):
    """A part of a record: unknown fields, wrong types, NaN and infinities are refused, and nothing changes later."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
