"""A suite: which tasks, models, strategies and seeds are compared, read from a YAML file.

Suites that come with FedWard lie in `suites/`, one file each; any other is run by its path.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, ValidationError, model_validator

from fedcore.faults.plan import FaultPlan
from leaderboard.tables import COLUMNS
from sites.errors import InputError

FOLDER = Path(__file__).parent / "suites"


ALL = "all"


class Entry(BaseModel):
    """One model of a suite and the strategies it is trained with.

    Attributes:
        model: its name, or a user's `module:NAME`.
        strategies: their names; `all`: the anchors and every strategy that goes with the model.
        config: hyperparameters that override the defaults, of the model or of the strategies that know them.
        attacks: which of the suite's attacks; none: all of them. `faults` and `epsilon` likewise.
        patients: where a coin decides who is trained on, of at most so many of a site's training patients.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    strategies: tuple[str, ...] = Field(min_length=1)
    config: dict[str, StrictInt | StrictFloat] = {}
    attacks: tuple[str, ...] | None = None
    patients: Annotated[int, Field(ge=40)] | None = None
    faults: tuple[str, ...] | None = None
    epsilon: tuple[float | None, ...] | None = None


class Tune(BaseModel):
    """Equal budgets: every strategy of every model tries so many settings on the tuning split.

    Attributes:
        settings: how many; the first is the declared one, the others are drawn (`bench.tuning`).
        ranges: where to draw hyperparameters from, in place of the declared ranges: `step_size: [0.001, 1]`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    settings: Annotated[int, Field(ge=1, le=1000)]
    ranges: dict[str, tuple[float, float]] = {}


class Attacks(BaseModel):
    """What the federated cells are attacked with.

    Attributes:
        kinds: the attacks, by name.
        shadows: how many federations an attacker trains for comparison; an even number.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kinds: tuple[str, ...] = Field(min_length=1)
    shadows: Annotated[int, Field(ge=2, le=1000, multiple_of=2)] = 32


class Evaluation(BaseModel):
    """How cells are scored: bootstrap replicates and the level of the intervals.

    `columns`: the metrics of the end table. `small_groups`: accuracy and the like also of hospitals with too few
    held-out patients for a value, as a published benchmark on open data reports them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    replicates: Annotated[int, Field(ge=100)] = 1000
    level: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    small_groups: bool = False
    columns: tuple[str, ...] = Field(default=COLUMNS, min_length=1)


class SuiteSpec(BaseModel):
    """A suite file.

    Attributes:
        name: What `bench run --suite` is given.
        version: Raised whenever the suite's numbers may change.
        tasks: Names of task files in fedcore/tasks, or paths of ACES files.
        entries: Models and their strategies.
        rounds: The largest number of federated rounds (the best is chosen on the tuning split); none: the model's own.
        seeds: One seed a cell: it decides splits, initial weights, batches and bootstrap.
        sites: What it runs on where no site is named, each as `--site` takes it; `$FEDWARD_REAL_DATA` is the folder of
            openly licensed data (../shared/data, where it is not set). None: embedded simulated hospitals.
        hospitals: How many embedded hospitals.
        tune: Equal tuning budgets; none: each model's own few settings.
        faults: What goes wrong on purpose, by name, none for nothing: each federated cell runs under each.
        epsilon: Budgets of patient-level privacy under each of which each federated cell runs; none for no noise.
        secure_aggregation: Whether the coordinator of a federated cell learns sums of the sites' models only.
        noise: Who adds a budget's noise: each site all of its own (`local`), or all together, on secure sums.
        attacks: What the federated cells are attacked with.
        min_sites: So many sites have to answer in a round.
        fraction: The share of the sites that is asked in a round.
        protocol: Another body of rules for data, models and strategies (`fedcore.protocols`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    version: str
    description: str
    tasks: tuple[str, ...] = Field(min_length=1)
    entries: tuple[Entry, ...] = Field(min_length=1)
    rounds: Annotated[int, Field(ge=1)] | None = None
    seeds: tuple[int, ...] = Field(min_length=1)
    sites: tuple[str, ...] = ()
    hospitals: Annotated[int, Field(ge=1, le=400)] = 6
    tune: Tune | None = None
    faults: dict[str, FaultPlan | None] = {}
    epsilon: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)] | None, ...] = ()
    secure_aggregation: bool = False
    noise: Literal["local", "distributed"] = "local"
    attacks: Attacks | None = None
    min_sites: Annotated[int, Field(ge=1)] = 1
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    protocol: str | None = None
    evaluation: Evaluation = Evaluation()

    @model_validator(mode="after")
    def _entries_choose_among_what_is_there(self) -> Self:
        kinds = self.attacks.kinds if self.attacks else ()
        for entry in self.entries:
            for what, chosen, there in (
                ("attacks", entry.attacks, kinds),
                ("faults", entry.faults, tuple(self.faults)),
                ("epsilon", entry.epsilon, self.epsilon),
            ):
                stray = [one for one in chosen or () if one not in there]
                if stray:
                    raise ValueError(f"{what} of {entry.model} names {stray[0]!r}, which the suite's {what} does not")
        return self


def names() -> list[str]:
    """The suites that come with FedWard."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_suite(name: str) -> SuiteSpec:
    """Read a suite by name, or by path where the name ends in .yaml or .yml.

    Raises:
        InputError: no such suite, or the file does not say what a suite must say.
    """
    path = Path(name).expanduser() if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise InputError(
            f"there is no suite {name!r}; there are: {', '.join(names())}, or give the path of a .yaml file"
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and isinstance(content.get("faults"), dict):
            plans = content["faults"].items()
            parsed = {n: None if plan is None else FaultPlan.parse(plan, f"{path}: faults.{n}") for n, plan in plans}
            content = {**content, "faults": parsed}
        return SuiteSpec.model_validate(content)
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text at byte {error.start}; save it as UTF-8") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(f"{path}: {where}: {first['msg']}, found {str(first['input'])[:80]!r}") from error
