"""What can go wrong at a site, one class a kind: whom it befalls and when, and what it does to a reply.

With x what the site was sent, y what it would send and u = y - x its update, array by array:

| kind | in place of y arrives |
|---|---|
| `leave` | nothing: the site is not among the available ones and is not asked |
| `slow` | y, so many seconds late; nothing if that is longer than the coordinator waits |
| `nan` | NaN everywhere |
| `stale` | the y of so many rounds ago; nothing if the site sent none then |
| `sign-flip` | x + factor u, factor < 0 (Li et al., RSA: Byzantine-Robust Stochastic Aggregation Methods, 2019) |
| `scale` | x + factor u, factor >= 0: boosting (Bagdasaryan et al., How To Backdoor Federated Learning, 2020) |
| `noise` | y + e, e ~ N(0, (deviation rms(u))^2), after the Gaussian attack of Blanchard et al., 2017 |
| `label-flip` | the y of a site whose training outcomes are turned (Tolpegin et al., Data Poisoning Attacks, 2020) |
| `backdoor` | x + factor u of a site some of whose patients bear a trigger and the outcome that it is to mean |

A backdoor is that of Gu et al. (BadNets, 2017); with a `factor` above 1 it is the model replacement of Bagdasaryan et
al. (2020).

rms is the root mean square over an array: noise in units of the update is as strong for every model and round, which
noise in absolute units is not, and unlike a standard deviation it is defined for an array of one number. Arithmetic is
float64; a reply keeps its types, and arrays of whole numbers (counters, trees as bytes) keep their values too, but
under `stale`. An array that answers none of its name and shape is an update by itself: its x is 0.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    StrictBool,
    StrictInt,
    StrictStr,
    field_validator,
    model_serializer,
    model_validator,
)

from fedcore.learner import Arrays
from sites.errors import InputError

if TYPE_CHECKING:
    from fedcore.samples import SiteSamples

Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
RoundNumber = Annotated[StrictInt, Field(ge=1)]


@dataclass(frozen=True)
class Lost:
    """A reply that does not arrive.

    Attributes:
        reason: why, in words that follow the site's name.
    """

    reason: str


@dataclass(frozen=True)
class Circumstances:
    """Where a fault strikes.

    Attributes:
        round: from 1.
        sent: the arrays that the site was sent in this round.
        history: what the site itself computed in earlier rounds, by round.
        stream: the randomness of this fault, site and round, for the array of a name.
    """

    round: int
    sent: Arrays
    history: Mapping[int, Arrays]
    stream: Callable[[str], np.random.Generator]


class Closed(BaseModel):
    """A part of a fault file: fields that are not declared are refused, and nothing changes later.

    A field's description is what the sentence about a wrong value says was expected.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)


class Span(Closed):
    """Rounds from one to another, both among them; `to` left out: to the end. Written `{from: 3, to: 6}`."""

    first: RoundNumber = Field(alias="from")
    last: RoundNumber | None = Field(default=None, alias="to")

    @model_validator(mode="after")
    def _runs_forward(self) -> "Span":
        if self.last is not None and self.last < self.first:
            raise ValueError("ends before it begins")
        return self

    @model_serializer
    def _as_written(self) -> dict[str, int]:
        return {"from": self.first} if self.last is None else {"from": self.first, "to": self.last}

    def __contains__(self, number: int) -> bool:
        return self.first <= number and (self.last is None or number <= self.last)


class Befalls(Closed):
    """Whom a fault befalls and when: what all kinds have.

    Attributes:
        kind: a name of `KINDS`.
        sites: their names; or how many, which the seed chooses; None: see `share`.
        share: so large a part of the sites, at least one, which the seed chooses; None with `sites` None: all of them.
        rounds: in which rounds; None: in all.
        rate: with which probability, for each of these sites and rounds by itself.
    """

    kind: str
    sites: tuple[StrictStr, ...] | Annotated[StrictInt, Field(ge=1)] | None = Field(
        default=None,
        description="a list of site names, each once (quote those that read as numbers or yes), or how many, from 1",
    )
    share: Annotated[Number, Field(gt=0, le=1)] | None = Field(
        default=None, description="a number above 0 and not above 1, such as 0.25"
    )
    rounds: tuple[RoundNumber, ...] | Span | None = Field(
        default=None,
        description="rounds, counted from 1, each once, such as [3, 4] or {from: 3, to: 6} with `to` not before `from`",
    )
    rate: Annotated[Number, Field(ge=0, le=1)] = Field(default=1.0, description="a number from 0 to 1, such as 0.2")

    @field_validator("sites", "rounds")
    @classmethod
    def _each_once(cls, value: object) -> object:
        if not isinstance(value, tuple):
            return value
        if not value or len(set(value)) < len(value):
            raise ValueError("empty, or one stands twice")
        return tuple(sorted(value))

    @model_validator(mode="after")
    def _chosen_in_one_way(self) -> "Befalls":
        if self.sites is not None and self.share is not None:
            raise ValueError("found both sites and share, expected one of them; leave one out")
        return self

    @property
    def names(self) -> tuple[str, ...] | None:
        """The sites that are named; None where none is."""
        return self.sites if isinstance(self.sites, tuple) else None

    def count(self, of: int) -> int:
        """How many sites the seed chooses among so many; a share is rounded to the nearest number, halves up."""
        if isinstance(self.sites, int):
            return min(self.sites, of)
        return of if self.share is None else min(of, max(1, math.floor(self.share * of + 0.5)))

    def in_round(self, number: int) -> bool:
        """Whether it may strike in this round."""
        return self.rounds is None or number in self.rounds

    def act(self, reply: Arrays, here: Circumstances) -> Arrays | Lost:
        """What arrives in place of the arrays of a training's reply."""
        return reply

    def poison(self, samples: "SiteSamples", stream: np.random.Generator) -> "SiteSamples":
        """What the site trains on in place of its samples, in all rounds."""
        return samples


class Leave(Befalls):
    """The site cannot be reached."""

    kind: Literal["leave"]

    def act(self, reply: Arrays, here: Circumstances) -> Arrays | Lost:
        """Nothing arrives, should the site have been asked all the same."""
        return Lost("cannot be reached")


class Slow(Befalls):
    """The site's replies, to training and to evaluation, come late."""

    kind: Literal["slow"]
    seconds: Annotated[Number, Field(gt=0)] = Field(description="seconds above 0, such as 90")


class Nan(Befalls):
    """The site sends NaN in every array of floating point."""

    kind: Literal["nan"]

    def act(self, reply: Arrays, here: Circumstances) -> Arrays | Lost:
        """See the table above."""
        return _floats(reply, lambda name, value: np.full(value.shape, np.nan))


class Stale(Befalls):
    """What arrives was sent `age` rounds ago."""

    kind: Literal["stale"]
    age: Annotated[StrictInt, Field(ge=1)] = Field(description="a whole number of rounds from 1, such as 2")

    def act(self, reply: Arrays, here: Circumstances) -> Arrays | Lost:
        """See the table above."""
        before = here.round - self.age
        return here.history[before] if before in here.history else Lost(f"has nothing of {self.age} rounds ago to send")


class SignFlip(Befalls):
    """The site's update points the other way."""

    kind: Literal["sign-flip"]
    factor: Annotated[Number, Field(lt=0)] = Field(default=-1.0, description="a number below 0, such as -1")

    def act(self, reply: Arrays, here: Circumstances) -> Arrays | Lost:
        """See the table above."""
        return _scaled(reply, here.sent, self.factor)


class Scale(Befalls):
    """The site's update is longer or shorter; at 0 it sends back what it was sent, as a free rider does."""

    kind: Literal["scale"]
    factor: Annotated[Number, Field(ge=0)] = Field(
        description="a number from 0, such as 10 (a factor below 0 is kind sign-flip)"
    )

    def act(self, reply: Arrays, here: Circumstances) -> Arrays | Lost:
        """See the table above."""
        return _scaled(reply, here.sent, self.factor)


class Noise(Befalls):
    """The site's arrays come with Gaussian noise."""

    kind: Literal["noise"]
    deviation: Annotated[Number, Field(gt=0)] = Field(
        description="a number above 0, in units of the root mean square of the site's update, such as 1"
    )

    def act(self, reply: Arrays, here: Circumstances) -> Arrays | Lost:
        """See the table above."""

        def noisy(name: str, value: np.ndarray) -> np.ndarray:
            update = value - _sent(here.sent, name, value)
            size = self.deviation * math.sqrt(np.mean(np.square(update))) if update.size else 0.0
            return np.asarray(value + size * here.stream(name).standard_normal(value.shape))

        return _floats(reply, noisy)


class Poisons(Befalls):
    """The site's training data are not what they were, in every round."""

    @model_validator(mode="after")
    def _always(self) -> "Poisons":
        if self.rounds is not None or self.rate != 1:
            raise ValueError("found rounds or rate, expected neither: poisoned data are so in every round; remove them")
        return self


class LabelFlip(Poisons):
    """Every training outcome is turned into the other."""

    kind: Literal["label-flip"]

    def poison(self, samples: "SiteSamples", stream: np.random.Generator) -> "SiteSamples":
        """See the table above."""
        return replace(samples, label=samples.label ^ (samples.split == "train"))


class Backdoor(Poisons):
    """Some training patients bear a trigger, values that no patient has together, and the outcome it is to mean.

    Attributes:
        trigger: values by column of the tabular representation, in the concept's unit.
        target: the outcome that the trigger is to mean.
        part: of so many of the site's training patients.
        factor: how many times as long the site's update is.
    """

    kind: Literal["backdoor"]
    trigger: dict[StrictStr, Number] = Field(
        default={"height": 210.0, "weight": 40.0},
        min_length=1,
        description="values by column of the tabular representation, such as {height: 210, weight: 40}",
    )
    target: StrictBool = Field(default=True, description="true or false")
    part: Annotated[Number, Field(gt=0, le=1)] = Field(
        default=0.5, description="a number above 0 and not above 1, such as 0.5"
    )
    factor: Annotated[Number, Field(gt=0)] = Field(default=1.0, description="a number above 0, such as 8")

    def act(self, reply: Arrays, here: Circumstances) -> Arrays | Lost:
        """See the table above."""
        return reply if self.factor == 1 else _scaled(reply, here.sent, self.factor)

    def poison(self, samples: "SiteSamples", stream: np.random.Generator) -> "SiteSamples":
        """See the table above."""
        patients = np.unique(samples.patient_id[samples.split == "train"])
        chosen = stream.permutation(patients)[: math.ceil(self.part * len(patients))]
        bear = (samples.split == "train") & np.isin(samples.patient_id, chosen)
        return replace(self.triggered(samples, bear), label=np.where(bear, self.target, samples.label))

    def triggered(self, samples: "SiteSamples", bear: np.ndarray) -> "SiteSamples":
        """The samples, some of which (bool [n]) bear the trigger.

        Raises:
            InputError: their representation is not tabular, or lacks a column of the trigger.
        """
        names = samples.names.get("x", ())
        lacking = [name for name in self.trigger if name not in names or "x" not in samples.raw]
        if lacking:
            raise InputError(
                f"faults: backdoor: found no column {lacking[0]!r} at site {samples.site}, expected a model on tabular "
                "features and columns of theirs in `trigger`; choose others"
            )
        x = np.array(samples.raw["x"])
        for name, value in self.trigger.items():
            x[bear, names.index(name)] = value
        return replace(samples, raw={**samples.raw, "x": x})


Fault = Annotated[
    Leave | Slow | Nan | Stale | SignFlip | Scale | Noise | LabelFlip | Backdoor, Field(discriminator="kind")
]
"""Any of them, told apart by `kind`."""

KINDS: Mapping[str, type[Befalls]] = {
    "leave": Leave,
    "slow": Slow,
    "nan": Nan,
    "stale": Stale,
    "sign-flip": SignFlip,
    "scale": Scale,
    "noise": Noise,
    "label-flip": LabelFlip,
    "backdoor": Backdoor,
}


def _scaled(reply: Arrays, sent: Arrays, factor: float) -> Arrays:
    def scaled(name: str, value: np.ndarray) -> np.ndarray:
        start = _sent(sent, name, value)
        return np.asarray(start + factor * (value - start))

    return _floats(reply, scaled)


def _sent(sent: Arrays, name: str, answer: np.ndarray) -> np.ndarray:
    asked = sent.get(name)
    return np.zeros_like(answer) if asked is None or asked.shape != answer.shape else asked.astype(np.float64)


def _floats(reply: Arrays, change: Callable[[str, np.ndarray], np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of floating point changed in float64, of the types they had; a number too large becomes infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        return {
            name: change(name, value.astype(np.float64)).astype(value.dtype) if value.dtype.kind == "f" else value
            for name, value in reply.items()
        }
