"""What was asked of a cell. This block, and nothing else, is hashed into `cell_id`.

A new machine, a new day or a new commit leaves it as it is; another hospital's data, model setting or seed does not.
Where the data lies on disk is not part of it, what it contains is (`content_sha256`).
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, JsonValue, model_validator

from leaderboard.block import Block, Count, Many, Name, Sha256, Share, Slug
from leaderboard.canonical import sha256_of


class Suite(Block):
    """The suite that the cell belongs to."""

    name: Slug
    version: Name


class TaskRef(Block):
    """The task and the hash of its file: two tasks of one name but of different definitions never share a cell."""

    name: Name
    sha256: Sha256


class SiteRef(Block):
    """A site: the export it was read from, its options, its part in the federation, the hash of its content."""

    name: Name
    kind: Name
    options: dict[str, str] = Field(default_factory=dict)
    role: Literal["train", "external"]
    content_sha256: Sha256


class Configured(Block):
    """A model or strategy by name, with every setting that differs from its declared defaults."""

    name: Name
    config: dict[str, JsonValue] = Field(default_factory=dict)


class FaultAxis(Block):
    """What goes wrong on purpose, under the name it has in the suite."""

    name: Name
    plan: dict[str, JsonValue]


class FederationPlan(Block):
    """How the sites work together.

    `rounds`: at most so many; null: as many as the model's defaults say. `fraction`: share of the sites asked in one.
    `min_sites`: so many have to answer, or the round changes nothing. `protocol`: another body of rules for data,
    models and strategies.
    """

    rounds: Count | None = None
    fraction: Share = 1.0
    min_sites: Count = 1
    faults: FaultAxis | None = None
    protocol: Name | None = None


SHARED_NOISE = "distributed DP-SGD"
"""The mechanism whose noise the sites share, on secure sums."""


class PrivacyPlan(Block):
    """What was promised. A field that a mechanism does not use is null."""

    mechanism: Name
    unit: Literal["patient", "sample", "site"]
    epsilon: float | None = Field(default=None, gt=0)
    delta: float | None = Field(default=None, gt=0, lt=1)
    clip: float | None = Field(default=None, gt=0)
    noise_multiplier: float | None = Field(default=None, ge=0)
    accountant: Name | None = None
    secure_aggregation: bool = False
    budget: dict[str, float] = Field(default_factory=dict)


class TunePlan(Block):
    """Which settings compete on the tuning split, and by what they are judged."""

    select: Name
    settings: Many[dict[str, JsonValue]] = ()


class AttackPlan(Block):
    """Which attacks the federation is put to, by name.

    A coin decides of each candidate whether they are trained on, so that the others are non-members like them.
    `patients`: at most so many candidates a site; null: all training patients. `shadows`: federations that an attacker
    trains for comparison.
    """

    kinds: Many[Name] = Field(min_length=1)
    patients: Count | None = None
    shadows: Count = 0


class EvaluationPlan(Block):
    """What is computed from the predictions: `b` bootstrap replicates, intervals at `level`.

    `small_groups`: accuracy and the like also of groups that are else too small for a value.
    """

    b: Count
    level: float = Field(gt=0.0, lt=1.0)
    metrics: Many[Name] = ()
    small_groups: bool = False


class Spec(Block):
    """One cell: one federation with one task, model, strategy, privacy setting and seed."""

    suite: Suite
    task: TaskRef
    sites: Many[SiteRef] = Field(min_length=1)
    model: Configured
    strategy: Configured
    federation: FederationPlan
    privacy: PrivacyPlan | None = None
    tune: TunePlan | None = None
    attack: AttackPlan | None = None
    evaluation: EvaluationPlan
    seed: Count
    split_seed: Count

    @property
    def epsilon(self) -> float | None:
        """The budget of patient-level privacy; None: no noise."""
        return self.privacy.epsilon if self.privacy else None

    @property
    def summed_securely(self) -> bool:
        """Whether coordinators learn sums of the sites' models only."""
        return self.privacy is not None and self.privacy.secure_aggregation

    @model_validator(mode="after")
    def _sites_have_names_of_their_own(self) -> Self:
        names = [site.name for site in self.sites]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"the site name {twice[0]!r} stands twice; give each site a name of its own")
        return self


def cell_id(spec: Spec) -> str:
    """The cell's identity: the hash of all that was asked. Sites are a set, so their order does not count."""
    return _hash(spec, leave_out=frozenset())


def training_id(spec: Spec) -> str:
    """The identity of what was trained: `cell_id` without the evaluation, so a new evaluator retrains nothing."""
    return _hash(spec, leave_out=frozenset({"evaluation"}))


def _hash(spec: Spec, leave_out: frozenset[str]) -> str:
    body = {name: getattr(spec, name) for name in type(spec).model_fields if name not in leave_out}
    if spec.attack is None:  # what was asked before there were attacks is the same question today
        body.pop("attack", None)
    body["sites"] = sorted(spec.sites, key=lambda site: site.name)
    return sha256_of(body)
