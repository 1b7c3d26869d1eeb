"""What a message that leaves a site may hold, action by action.

Four kinds of thing cross the hospital's wall, and each action names which of them, exactly:

- model updates: the arrays the site was sent, by the same names, types and shapes. (An array of bytes may come back
  with another length: that is a boosted-tree model, which grows.)
- sketches (`privacy.releases.sketches`), which check themselves.
- what secure aggregation is made of (`privacy.secagg`): keys, sealed shares, and a masked vector, of fixed types and
  lengths. What is under the mask is held against the schema of `train` before it is masked.
- numbers of a fixed name, each one number and never a list: sums and counts that stand for `DEFAULT_MINIMUM` patients
  or are 0. How many samples the model was trained on is among them: a weighted average cannot do without.

A site whose training split has fewer than `DEFAULT_MINIMUM` patients trains nothing: a model trained on one patient is
that patient's row. None of this is noise: sums are exact, so whoever knows all patients of a sum but one knows that
one, two releases that differ by a patient differ by what the patient adds, and model updates can be inverted in part.
The minimum is therefore no guarantee: the loss of a model that says the same of everybody, a tree of one leaf, a bias
or a control variate after a first step tell the number of events exactly, also below ten; and samples less patients
tell how many stays are a patient's second.

Texts are names of things: the site's own name. A message of any other content does not leave. The rule is kept twice,
with the same code: at the site before the message leaves, and at the server before it is used.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from privacy.releases.sketches import DEFAULT_MINIMUM, ReleaseError, unpack
from privacy.secagg.sizes import KEYS_BYTES, SEALED_BYTES, SHARE_BYTES


@dataclass(frozen=True)
class Parcel:
    """The content of a message without its framework.

    Attributes:
        arrays: by name.
        numbers: by name.
        texts: by name.
    """

    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    numbers: Mapping[str, object] = field(default_factory=dict)
    texts: Mapping[str, object] = field(default_factory=dict)


class Layout(NamedTuple):
    """The type of an array and its shape; None: any length."""

    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Schema:
    """What the reply to one action holds, no more and no less.

    Attributes:
        arrays: `model`: the request's own; `sketches`; `masked`: one vector for all of the request's arrays; `none`.
        fixed: further arrays, by name.
        released_counts: names of whole numbers that stand for patients: 0, or at least the minimum.
        sums: names of finite numbers.
        texts: names of texts: one line, at most 200 characters.
        may: texts that may be there or not: one line, at most 400 characters.
    """

    arrays: str = "none"
    fixed: Mapping[str, Layout] = field(default_factory=dict)
    released_counts: frozenset[str] = frozenset()
    sums: frozenset[str] = frozenset()
    texts: frozenset[str] = frozenset()
    may: frozenset[str] = frozenset()


REFUSED = "refused"
"""The text with which a site introduces itself that takes no part: which rule of its policy is why."""

REFUSED_LENGTH = 400

SCHEMAS: Mapping[str, Schema] = {
    # which hospital this is, how much it would weigh, and whether its tuning split can help to choose
    "query.site": Schema(
        released_counts=frozenset({"train", "tuning", "tuning-events", "tuning-non-events"}),
        texts=frozenset({"site"}),
        may=frozenset({REFUSED}),
    ),
    # the training samples, as sketches
    "query.statistics": Schema(arrays="sketches"),
    # the site has taken the agreed features
    "query.space": Schema(),
    # the trained model, its weight, the optimiser steps, and the loss over so many patients
    "train": Schema(
        arrays="model",
        released_counts=frozenset({"num-examples", "loss-weight"}),
        sums=frozenset({"loss-sum", "steps"}),
    ),
    # the loss over the tuning split
    "evaluate": Schema(released_counts=frozenset({"num-examples"}), sums=frozenset({"loss-sum"})),
    # secure aggregation in a round: two public keys
    "query.advertise": Schema(fixed={"keys": Layout("uint8", (KEYS_BYTES,))}),
    # for each other site two shares, sealed for it
    "query.share": Schema(fixed={"sealed": Layout("uint8", (None, SEALED_BYTES))}),
    # the reply to `train` under masks
    "train.masked": Schema(arrays="masked"),
    # one share of each site
    "query.unmask": Schema(fixed={"shares": Layout("uint8", (None, SHARE_BYTES))}),
}

MASKED = "masked"
MASKED_BESIDE = 3
"""What is masked beside the model: the loss, its weight, and the model's weight."""


TOO_FEW = f"fewer than {DEFAULT_MINIMUM} training patients"
"""Why a site takes no part in training."""


def released(count: int, minimum: int = DEFAULT_MINIMUM) -> int:
    """A count of patients as it may leave: itself, or 0 below the minimum.

    >>> released(9), released(10), released(10, minimum=20)
    (0, 10, 0)
    """
    return count if count >= minimum else 0


def check(action: str, parcel: Parcel, sent: Mapping[str, np.ndarray]) -> None:
    """Let a reply pass, or refuse it.

    Args:
        action: the message type, `train` or `query.statistics`.
        parcel: what the site would send.
        sent: the arrays of the request it answers.

    Raises:
        ReleaseError: the reply holds what its schema does not name, lacks what it names, or a value is out of bounds.
            The sentence names fields, never values.
    """
    if action not in SCHEMAS:
        raise ReleaseError(f"action '{action}' has no schema of what may leave a site; add one to be able to use it")
    schema = SCHEMAS[action]
    _names(action, "number", set(parcel.numbers), schema.released_counts | schema.sums)
    _names(action, "text", set(parcel.texts) - schema.may, schema.texts)
    for name, number in parcel.numbers.items():
        _number(action, schema, name, number)
    for name, text in parcel.texts.items():
        longest = REFUSED_LENGTH if name in schema.may else 200
        if not isinstance(text, str) or len(text) > longest or not re.fullmatch(r"[^\x00-\x1f]+", text):
            raise ReleaseError(
                f"'{action}' would send the text '{name}': expected one line of 1 to {longest} characters"
            )
    if schema.arrays == "model":
        _model(action, parcel.arrays, sent)
    elif schema.arrays == "sketches":
        _sketches(action, parcel.arrays)
    elif schema.arrays == "masked":
        length = MASKED_BESIDE + sum(array.size for array in sent.values())
        _fixed(action, parcel.arrays, {MASKED: Layout("uint64", (length,))})
    else:
        _fixed(action, parcel.arrays, schema.fixed)


def _names(action: str, kind: str, found: set[str], expected: frozenset[str]) -> None:
    if found != expected:
        surplus, lacking = sorted(found - expected), sorted(expected - found)
        what = f"the {kind} '{surplus[0]}', which may not leave" if surplus else f"no {kind} '{lacking[0]}'"
        raise ReleaseError(f"'{action}' would send {what}; expected {', '.join(sorted(expected)) or 'none'}")


def _number(action: str, schema: Schema, name: str, number: object) -> None:
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise ReleaseError(f"'{action}' would send '{name}': expected one finite number")
    if name in schema.sums:
        return
    if not isinstance(number, int) or number < 0:
        raise ReleaseError(f"'{action}' would send '{name}': expected a whole number, 0 or more")
    if name in schema.released_counts and released(number) != number:
        raise ReleaseError(f"'{action}' would send '{name}': expected 0 or at least {DEFAULT_MINIMUM} patients")


def _model(action: str, arrays: Mapping[str, np.ndarray], sent: Mapping[str, np.ndarray]) -> None:
    _names(action, "array", set(arrays), frozenset(sent))
    for name, array in arrays.items():
        asked = sent[name]
        grows = asked.dtype == np.uint8 and array.ndim == asked.ndim == 1
        if array.dtype != asked.dtype or (array.shape != asked.shape and not grows):
            raise ReleaseError(
                f"'{action}' would send the array '{name}' as {array.dtype} {array.shape}; expected {asked.dtype} "
                f"{asked.shape}, as it was sent"
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ReleaseError(
                f"'{action}' would send the array '{name}' with NaN or infinity; expected finite numbers"
            )


def _fixed(action: str, arrays: Mapping[str, np.ndarray], layouts: Mapping[str, Layout]) -> None:
    _names(action, "array", set(arrays), frozenset(layouts))
    for name, (dtype, shape) in layouts.items():
        found = arrays[name]
        fits = found.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, found.shape, strict=True))
        if found.dtype != dtype or not fits:
            wanted = ", ".join("any" if n is None else str(n) for n in shape)
            raise ReleaseError(
                f"'{action}' would send the array '{name}' as {found.dtype} {found.shape}; expected {dtype} ({wanted})"
            )


def _sketches(action: str, arrays: Mapping[str, np.ndarray]) -> None:
    for name, sketch in unpack(arrays).items():
        if sketch.minimum < DEFAULT_MINIMUM:
            raise ReleaseError(
                f"'{action}' would send the sketch '{name}' with counts of {sketch.minimum} patients and more; "
                f"expected {DEFAULT_MINIMUM} and more"
            )
