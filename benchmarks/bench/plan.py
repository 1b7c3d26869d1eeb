"""A suite and its sites become cells; each is cached or pending, and each has a price.

A cell is one federation with one task, model, strategy and seed. Its `cell_id` is the hash of what is asked (the data's
hashes with it); with the fingerprint of the code it reaches, that is the key under which its record is found again.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from bench.modes import CacheMode, Rerun
from bench.suite import Entry, SuiteSpec
from fedcore.fingerprint import fingerprint
from fedcore.models import model as models
from fedcore.strategies import strategy as strategies
from fedcore.task import Task, load_task
from leaderboard.evaluators import registry as metrics
from leaderboard.record import Record, Spec, cell_id
from leaderboard.spec import (
    Configured,
    EvaluationPlan,
    FederationPlan,
    SiteRef,
    Suite,
    TaskRef,
)
from leaderboard.store import Store
from sites.errors import InputError
from sites.site import Site

ORACLE = "oracle"
TRAINING_MODULES = ("bench.training", "fedcore.federation", "fedcore.prepare")
SCORING_MODULES = ("bench.cell", *metrics.modules())


@dataclass(frozen=True)
class Cell:
    """One cell of the plan; `record` is what is known of it already, if anything."""

    spec: Spec
    task: Task
    cell_id: str
    code_fingerprint: str
    record: Record | None

    @property
    def name(self) -> str:
        """For people: `task model strategy seed`."""
        s = self.spec
        return f"{s.task.name} {s.model.name} {s.strategy.name} seed {s.seed}"


@dataclass(frozen=True)
class Choice:
    """What `--only` leaves of a suite: `model=gru,strategy=fedavg`; an empty tuple is all."""

    models: tuple[str, ...] = ()
    strategies: tuple[str, ...] = ()

    @classmethod
    def parse(cls, texts: Sequence[str]) -> "Choice":
        """Read `model=...` and `strategy=...`, separated by commas, in any number.

        Raises:
            InputError: something else.
        """
        chosen: dict[str, list[str]] = {"model": [], "strategy": []}
        for text in (part for given in texts for part in given.split(",")):
            key, _, value = text.partition("=")
            if key not in chosen or not value:
                raise InputError(f"--only takes model=NAME or strategy=NAME, found {text!r}")
            chosen[key].append(value)
        return cls(tuple(chosen["model"]), tuple(chosen["strategy"]))

    def allows(self, model: str, strategy: str) -> bool:
        """Whether the cell stays."""
        return (not self.models or model in self.models) and (not self.strategies or strategy in self.strategies)


def check_names(suite: SuiteSpec, choice: Choice) -> None:
    """Refuse what is unknown, and what does not go together, before anything runs.

    Raises:
        InputError: names what is unknown and what there is.
    """
    for entry in suite.entries:
        try:
            model = models.load(entry.model)
            for strategy in entry.strategies:
                strategies.module(strategy)
                model.refuse_unknown(strategies.recipe(strategy), entry.config)
        except InputError as error:
            raise InputError(f"suite {suite.name}: {error}") from None
    in_suite = {(e.model, s) for e in suite.entries for s in e.strategies}
    for kind, asked, there in (
        ("model", choice.models, sorted({m for m, _ in in_suite})),
        ("strategy", choice.strategies, sorted({s for _, s in in_suite})),
    ):
        for name in asked:
            if name not in there:
                raise InputError(f"suite {suite.name} has no {kind} {name!r}; it has: {', '.join(there)}")
    for task in suite.tasks:
        load_task(task)


def representation_of(model: str) -> str:
    """The representation in which a cell of this model wants its samples; the oracle looks at none of it."""
    return "tabular" if model == ORACLE else models.load(model).representation


def training_code(model: str, strategy: str, representation: str) -> str:
    """The fingerprint of the code that makes a cell's predictions."""
    chosen = [f"fedcore.models.{model}", strategies.module(strategy), f"fedcore.features.{representation}"]
    return fingerprint(*TRAINING_MODULES, *chosen)


@cache
def _code(model: str, strategy: str) -> str:
    if model == ORACLE:
        return fingerprint(*SCORING_MODULES, "bench.oracle", "fedcore.prepare")
    training = training_code(model, strategy, representation_of(model))
    return hashlib.sha256((training + fingerprint(*SCORING_MODULES)).encode()).hexdigest()


def _site_refs(sites: Sequence[Site]) -> tuple[SiteRef, ...]:
    """In the order of their names, whatever order the user gave: a record of the same cell is the same record."""
    return tuple(
        SiteRef(
            name=site.name,
            kind=site.dataset.manifest.kind,
            options=dict(site.spec.options),
            role="external" if site.external else "train",
            content_sha256=site.dataset.manifest.content_sha256,
        )
        for site in sorted(sites, key=lambda site: site.name)
    )


def _spec(suite: SuiteSpec, entry: Entry, strategy: str, task: Task, seed: int, sites: tuple[SiteRef, ...]) -> Spec:
    return Spec(
        suite=Suite(name=suite.name, version=suite.version),
        task=TaskRef(name=task.name, sha256=task.sha256),
        sites=sites,
        model=Configured(name=entry.model, config=dict(entry.config)),
        strategy=Configured(name=strategy),
        federation=FederationPlan(rounds=suite.rounds),
        evaluation=EvaluationPlan(b=suite.evaluation.replicates, level=suite.evaluation.level, metrics=metrics.names()),
        seed=seed,
        split_seed=seed,
    )


def make_plan(suite: SuiteSpec, sites: Sequence[Site], choice: Choice, store: Store) -> list[Cell]:
    """Every cell of the suite on these sites, in the order of the file, with the record of each if there is one."""
    check_names(suite, choice)
    refs = _site_refs(sites)
    entries = list(suite.entries)
    if all(site.dataset.manifest.truth for site in sites):
        entries.append(Entry(model=ORACLE, strategies=("truth",)))
    cells = []
    for task in (load_task(name) for name in suite.tasks):
        for entry in entries:
            for strategy in entry.strategies:
                if entry.model != ORACLE and not choice.allows(entry.model, strategy):
                    continue
                for seed in suite.seeds:
                    spec = _spec(suite, entry, strategy, task, seed, refs)
                    identity, code = cell_id(spec), _code(entry.model, strategy)
                    record = store.latest(identity, code_fingerprint=code, status=None)
                    cells.append(Cell(spec, task, identity, code, record))
    return cells


def is_pending(cell: Cell, cache_mode: CacheMode, rerun: Rerun | None) -> bool:
    """Whether the cell is to be run: what has a record is not, unless asked for."""
    if cell.record is None or rerun is Rerun.all or cache_mode is CacheMode.ignore:
        return True
    return rerun is Rerun.failed and cell.record.status == "failed"
