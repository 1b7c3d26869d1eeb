"""What was found, spent and let out while a cell ran: the blocks of a record beside its spec and its metrics."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from leaderboard.block import Block, Count, Many, Moment, Name, Sha256, Text

DataKind = Literal["simulated", "demo", "real"]

_FROM_LEAST_REAL: tuple[DataKind, ...] = ("simulated", "demo", "real")


def least_real(kinds: list[DataKind]) -> DataKind:
    """What a federation of such sites may call itself: one simulated hospital among real ones makes it simulated.

    >>> least_real(["real", "demo", "real"])
    'demo'
    """
    return min(kinds, key=_FROM_LEAST_REAL.index)


class AttritionStep(Block):
    """What was left after one step of the cohort's definition; `positives` is null while labels are not yet known."""

    step: Name
    samples: Count
    patients: Count
    positives: Count | None = None


class SiteData(Block):
    """One site's cohort. `n_subjects`: MEDS subjects; `n_patients`: persons (an eICU subject is a hospital stay)."""

    name: Name
    role: Literal["train", "external"]
    data_kind: DataKind
    n_subjects: Count
    n_patients: Count
    n_samples: Count
    n_pos: Count
    cohort_sha256: Sha256
    splits_sha256: Sha256
    attrition: Many[AttritionStep] = ()

    @model_validator(mode="after")
    def _counts_agree(self) -> Self:
        if self.n_pos > self.n_samples:
            raise ValueError(f"`n_pos` {self.n_pos} is above `n_samples` {self.n_samples}")
        return self


class SkippedSite(Block):
    """A site that could not serve the task, and why."""

    name: Name
    reason: Text


class Data(Block):
    """What the sites brought. These hashes are results: from the same spec and code they must come out the same."""

    data_kind: DataKind
    sites: Many[SiteData] = Field(min_length=1)
    skipped: Many[SkippedSite] = ()
    partition_sha256: Sha256

    @model_validator(mode="after")
    def _no_realer_than_its_sites(self) -> Self:
        expected = least_real([site.data_kind for site in self.sites])
        if self.data_kind != expected:
            raise ValueError(f"`data_kind` is {self.data_kind!r}, but its least real site is {expected!r}")
        return self


class Trial(Block):
    """One setting that competed; `tuning_loss` is null if `note` says why there is none."""

    settings: dict[str, JsonValue]
    tuning_loss: float | None
    best_round: Count | None = None
    note: Text | None = None

    @model_validator(mode="after")
    def _a_loss_or_a_note(self) -> Self:
        if self.tuning_loss is None and self.note is None:
            raise ValueError("a trial without `tuning_loss` says why in `note`")
        return self


class Round(Block):
    """One round of the chosen trial (under `local` each site chose one, and none is here).

    `answered`: sites whose training counted; 0: too few, and the round changed nothing. `waited_s`: simulated seconds
    that the coordinator waited for slow sites. Seconds it took are cost, not result, and stand in `cost.round_s`.
    """

    round: Count
    train_loss: float | None = None
    tuning_loss: float | None = None
    answered: Count
    waited_s: float = 0.0


class DroppedAnswers(Block):
    """Answers of one site that did not count, for one reason, and the rounds of the chosen trial in which they fell."""

    site: Name
    action: Name
    reason: Text
    rounds: Many[Count]


class SiteLevel(Block):
    """Noise with which a coordinator hid single hospitals; its epsilon is of another unit than patient-level privacy's.

    It is that of the models alone, given what the sites agreed on and the losses they told, which bear no such noise.

    `noise_multiplier`: over what one hospital can change a round's sum by, the least of those tried; `models`: how many
    were released, of all settings that were tried; `noise` says that the noise was seeded.
    """

    unit: Literal["hospital"] = "hospital"
    epsilon: Annotated[float, Field(ge=0)]
    delta: Annotated[float, Field(gt=0, lt=1)]
    noise_multiplier: Annotated[float, Field(gt=0)]
    models: Annotated[int, Field(ge=1)]
    noise: Literal["seeded, no privacy claim"] = "seeded, no privacy claim"


class Training(Block):
    """What was chosen and from what.

    `selection`: how, as `tuning log loss` or `declared defaults: 12 patients`. `skipped`: sites that serve the task and
    took no part in training, as one with fewer than ten training patients. `dropped`: answers that did not count.
    `own_start`: the strategy ran through a `start` of its own, whose rounds are not seen and which cannot go on where
    it was stopped.
    """

    chosen: dict[str, JsonValue] = Field(default_factory=dict)
    selection: Text
    trials: Many[Trial] = ()
    rounds: Many[Round] = ()
    skipped: Many[SkippedSite] = ()
    dropped: Many[DroppedAnswers] = ()
    own_start: bool = False
    site_level: SiteLevel | None = None


class Check(Block):
    """Something that was tested while the cell ran."""

    name: Name
    passed: bool
    detail: Text | None = None


class Release(Block):
    """One thing that left a site: accounted (`epsilon`) or without noise, with the reason why it may (`public`)."""

    what: Name
    where: Name
    epsilon: float | None = Field(default=None, ge=0.0)
    public: Text | None = None

    @model_validator(mode="after")
    def _accounted_or_public(self) -> Self:
        if (self.epsilon is None) == (self.public is None):
            raise ValueError("a release has either an `epsilon` or a `public` reason")
        return self


class Spend(Block):
    """Gaussian releases of one kind: how often, with which noise over sensitivity, of which share of the patients."""

    phase: Name
    noise_multiplier: float = Field(gt=0)
    sampling_rate: float = Field(gt=0, le=1)
    count: Count


class SitePrivacy(Block):
    """What one site's ledger came to.

    `epsilon` at `delta` covers everything that the site released of its training patients; `opinions` are what other
    accountants say of the same. With `seeded` noise whoever knows the seed can subtract it: nothing is claimed.
    """

    site: Name
    unit: Literal["patient"] = "patient"
    epsilon: float = Field(ge=0)
    delta: float = Field(gt=0, lt=1)
    accountant: Name
    noise: Literal["cryptographic", "seeded, no privacy claim"]
    opinions: dict[str, float | None] = Field(default_factory=dict)
    spends: Many[Spend] = ()


class Predictions(Block):
    """The predictions stay under FEDWARD_HOME; their hash lets an audit find out later whether they are the ones."""

    sha256: Sha256
    rows: Count
    released: Literal[False] = False


class Code(Block):
    """The code that ran. `commit` is null outside a git checkout (an installed wheel)."""

    commit: str | None = Field(default=None, pattern=r"^[0-9a-f]{40}$")
    dirty: bool | None = None
    package_version: Name


class Hardware(Block):
    """The machine."""

    cpu: Name
    cores: Count
    ram_gb: float = Field(ge=0.0)
    gpu: Many[Name] = ()
    os: Name


class Provenance(Block):
    """Where and when the cell ran; no part of the result. `determinism`: threads, flags, engine."""

    code: Code
    python: Name
    packages: dict[str, str] = Field(default_factory=dict)
    lock_sha256: Sha256 | None = None
    hardware: Hardware
    determinism: dict[str, JsonValue] = Field(default_factory=dict)
    started_at: Moment
    finished_at: Moment
    command: Text | None = None
    traceback: Text | None = None


class Cost(Block):
    """What the cell took. Bytes are counted from the messages; null where nothing was counted."""

    wall_s: float = Field(ge=0.0)
    cpu_s: float | None = Field(default=None, ge=0.0)
    peak_rss_mb: float | None = Field(default=None, ge=0.0)
    gpu_mem_mb: float | None = Field(default=None, ge=0.0)
    bytes_up: Count | None = None
    bytes_down: Count | None = None
    rounds: Count | None = None
    round_s: Many[float] = ()
