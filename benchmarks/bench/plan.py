"""A suite and its sites become cells; each is cached or pending, and each has a price.

A cell is one federation with one task, model, strategy and seed. Its `cell_id` is the hash of what is asked (the data's
hashes with it); with the fingerprint of the code it reaches, that is the key under which its record is found again.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from bench import tuning
from bench.attacks import attack as attacks
from bench.code import ORACLE, training_code
from bench.modes import CacheMode, Rerun
from bench.policies import Policies
from bench.suite import ALL, Entry, SuiteSpec
from fedcore.faults.plan import FaultPlan
from fedcore.fingerprint import fingerprint
from fedcore.learner import Setting
from fedcore.models import model as models
from fedcore.models.model import ModelSpec
from fedcore.options import check_bounds
from fedcore.plan import refuse_single, refuse_unshared
from fedcore.plugin import is_plugin
from fedcore.protocols import protocol as protocols
from fedcore.rule import Roster
from fedcore.strategies import strategy as strategies
from fedcore.strategies.strategy import StrategySpec
from fedcore.task import Task, load_task
from leaderboard.evaluators import registry as metrics
from leaderboard.record import Spec, cell_id
from leaderboard.spec import (
    SHARED_NOISE,
    AttackPlan,
    Configured,
    EvaluationPlan,
    FaultAxis,
    FederationPlan,
    PrivacyPlan,
    SiteRef,
    Suite,
    TaskRef,
    TunePlan,
)
from leaderboard.store import Found, Store
from privacy.secagg.sizes import FEWEST
from privacy.terms import Terms
from sites.errors import InputError
from sites.site import Site

MANY = 1000
"""Sites and samples of each: more than any strategy needs at least."""

SCORING_MODULES = ("bench.cell", *metrics.modules())


@dataclass(frozen=True)
class Cell:
    """One cell of the plan.

    `found` is its record, if there is one; `left_out` the site that only it scores.
    """

    spec: Spec
    task: Task
    cell_id: str
    code_fingerprint: str
    found: Found | None
    left_out: str | None = None

    @property
    def name(self) -> str:
        """For people: `task model strategy seed`, the faults and the site left out if there are any."""
        s = self.spec
        faults = f" under {s.federation.faults.name}" if s.federation.faults else ""
        private = f" at epsilon {s.epsilon:g}" if s.epsilon else ""
        private += " summed securely" if s.summed_securely else ""
        left_out = f" without {self.left_out}" if self.left_out else ""
        return f"{s.task.name} {s.model.name} {s.strategy.name}{private}{faults}{left_out} seed {s.seed}"


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


def with_more(suite: SuiteSpec, more_models: Sequence[str], more_strategies: Sequence[str]) -> SuiteSpec:
    """The suite with more models and strategies: each with every one of the suite's that goes with it.

    Raises:
        InputError: one of them is unknown, or goes with none.
    """
    if not more_models and not more_strategies:
        return suite
    entries = list(suite.entries)
    known = list(dict.fromkeys(name for entry in entries for name in strategies_of(suite, entry)))
    for name in more_models:
        model = models.load(_meant(suite, "model", name))
        there = [
            s
            for s in known
            if s in strategies.ANCHORS or strategies.load(_meant(suite, "strategy", s)).lacks(model) is None
        ]
        entries.append(Entry(model=name, strategies=tuple(there)))
    for name in more_strategies:
        spec = strategies.load(_meant(suite, "strategy", name))
        fitting = {
            entry.model for entry in entries if spec.lacks(models.load(_meant(suite, "model", entry.model))) is None
        }
        if not fitting:
            raise InputError(f"strategy '{name}' goes with no model of suite {suite.name}; name one with --model")
        entries = [
            entry.model_copy(update={"strategies": (*entry.strategies, name)})
            if entry.model in fitting and name not in strategies_of(suite, entry)
            else entry
            for entry in entries
        ]
    return suite.model_copy(update={"entries": tuple(entries)})


def strategies_of(suite: SuiteSpec, entry: Entry) -> tuple[str, ...]:
    """The entry's strategies, `all` spelled out: the anchors and what goes with the model, but for noise on hospitals.

    Raises:
        InputError: the model or a strategy is unknown, or they do not go together.
    """
    model = models.load(_meant(suite, "model", entry.model))
    found: list[str] = []
    for name in entry.strategies:
        if name == ALL:
            known = {n: strategies.load(n) for n in strategies.federated()} if model.federated is not None else {}
            fitting = [n for n, spec in known.items() if spec.lacks(model) is None and not spec.site_level]
            found += [*strategies.ANCHORS, *fitting]
        else:
            meant = _meant(suite, "strategy", name)
            if meant == name:
                model.recipe(strategies.recipe(name))
            strategies.check(entry.model, model, meant)
            found.append(name)
    return tuple(dict.fromkeys(found))


def _meant(suite: SuiteSpec, what: str, name: str) -> str:
    """What the suite's protocol means by the name of a model or strategy."""
    if suite.protocol is None:
        return name
    rules = protocols.load(suite.protocol)
    return rules.model(name) if what == "model" else rules.strategy(name)


def check_names(suite: SuiteSpec, choice: Choice) -> None:
    """Refuse what is unknown, and what does not go together, before anything runs.

    Raises:
        InputError: names what is unknown and what there is.
    """
    _refuse_attacks(suite)
    in_suite: set[tuple[str, str]] = set()
    tunable: set[str] = set()
    for entry in suite.entries:
        try:
            model = models.load(_meant(suite, "model", entry.model))
            names = strategies_of(suite, entry)
            known: set[str] = set()
            for name in names:
                kind, chosen = strategies.recipe(name), strategies.load(_meant(suite, "strategy", name))
                own = {*model.recipe(kind).untuned, *chosen.options}
                known |= own
                _try(name, chosen, {**model.recipe(kind).untuned, **chosen.options}, entry.config)
                if suite.tune is not None:
                    fixed = {key: value for key, value in entry.config.items() if key in own}
                    for tried in tuning.settings(model, chosen, kind, suite.tune.settings, suite.tune.ranges, fixed):
                        check_bounds(tried)
                    tunable |= tuning.declared_ranges(model, chosen, kind).keys()
            check_bounds(entry.config)
            unknown = sorted(set(entry.config) - known)
            if unknown:
                raise InputError(
                    f"unknown hyperparameter '{unknown[0]}' of {entry.model} with {', '.join(names)}; expected "
                    f"{', '.join(sorted(known))}"
                )
        except InputError as error:
            raise InputError(f"suite {suite.name}: {error}") from None
        in_suite |= {(entry.model, name) for name in names}
    stray = sorted(set(suite.tune.ranges if suite.tune else ()) - tunable)
    if stray:
        raise InputError(
            f"suite {suite.name}: tune.ranges: found {stray[0]!r}, expected hyperparameters with a declared range: "
            f"{', '.join(sorted(tunable))}"
        )
    for kind, asked, there in (
        ("model", choice.models, sorted({m for m, _ in in_suite})),
        ("strategy", choice.strategies, sorted({s for _, s in in_suite})),
    ):
        for name in asked:
            if name not in there:
                raise InputError(f"suite {suite.name} has no {kind} {name!r}; it has: {', '.join(there)}")
    _refuse_unscored(suite)
    _refuse_unprotected(suite, [pair for pair in in_suite if choice.allows(*pair)])
    _refuse_single(suite, sorted(pair for pair in in_suite if choice.allows(*pair)))
    _refuse_unshared(suite, choice)
    if not any(choice.allows(model, name) for model, name in in_suite):
        raise InputError(f"suite {suite.name}: --only leaves no cell; no model in it goes with such a strategy")
    for task in suite.tasks:
        load_task(task)


def _try(name: str, chosen: StrategySpec, declared: Setting, config: Setting) -> None:
    """See that a user's strategy, or one whose options the suite sets, can be made, before anything runs.

    Raises:
        InputError: it cannot.
    """
    if is_plugin(name) or set(chosen.options) & set(config):
        known = {key: value for key, value in config.items() if key in declared}
        chosen.build(Roster(sites=MANY, samples=MANY * MANY), {**declared, **known})


@cache
def cell_code(model: str, strategy: str, protocol: str | None) -> str:
    """The fingerprint of all code that a cell's record rests on."""
    if model == ORACLE:
        return fingerprint(*SCORING_MODULES, "bench.oracle", "fedcore.prepare")
    training = training_code(model, strategy, protocol)
    return hashlib.sha256((training + fingerprint(*SCORING_MODULES)).encode()).hexdigest()


def code_of(spec: Spec) -> str:
    """The fingerprint of all code that the cell's record rests on, attacks included."""
    code = cell_code(spec.model.name, spec.strategy.name, spec.federation.protocol)
    if spec.attack is None:
        return code
    return hashlib.sha256(
        (code + fingerprint(*(attacks.module(kind) for kind in spec.attack.kinds))).encode()
    ).hexdigest()


def _site_refs(sites: Sequence[Site], policies: Policies) -> tuple[SiteRef, ...]:
    """In the order of their names, whatever order the user gave: a record of the same cell is the same record.

    A site with a policy has the hash of its rules among its options: with other rules it is another cell.
    """
    ruled = {name: {"policy": one.policy.rules_sha256()} for name, one in policies.items()}
    return tuple(
        SiteRef(
            name=site.name,
            kind=site.dataset.manifest.kind,
            options={**site.spec.options, **ruled.get(site.name, {})},
            role="external" if site.external else "train",
            content_sha256=site.dataset.manifest.content_sha256,
        )
        for site in sorted(sites, key=lambda site: site.name)
    )


@dataclass(frozen=True)
class _Asked:
    """What one line of a suite asks, task, seed and sites apart."""

    entry: Entry
    strategy: str
    config: dict[str, int | float]
    tune: TunePlan | None
    faults: FaultAxis | None
    privacy: PrivacyPlan | None = None
    attack: AttackPlan | None = None


def _asked(suite: SuiteSpec, choice: Choice) -> Iterator[_Asked]:
    """The suite's lines: models, their strategies, and for a federated one its faults."""
    for entry in suite.entries:
        model = models.load(_meant(suite, "model", entry.model))
        for name in strategies_of(suite, entry):
            if not choice.allows(entry.model, name):
                continue
            kind, chosen = strategies.recipe(name), strategies.load(_meant(suite, "strategy", name))
            known = {*model.recipe(kind).untuned, *chosen.options}
            config = {key: value for key, value in entry.config.items() if key in known}
            tune = None
            if suite.tune is not None:
                tried = tuning.settings(model, chosen, kind, suite.tune.settings, suite.tune.ranges, config)
                tune = TunePlan(select="log loss on the tuning split", settings=tuple(dict(one) for one in tried))
            anchor = name in strategies.ANCHORS
            axis: Mapping[str, FaultPlan | None] = {"": None}
            budgets: Sequence[float | None] = (None,)
            if suite.faults and not anchor:
                axis = {one: plan for one, plan in suite.faults.items() if entry.faults is None or one in entry.faults}
            if suite.epsilon and not anchor:
                budgets = [one for one in suite.epsilon if entry.epsilon is None or one in entry.epsilon]
            attack = None if anchor else _attack(suite, entry)
            for budget in budgets:
                if budget is not None:
                    if unprotected(model, chosen):
                        continue
                    private = {
                        key: value for key, value in entry.config.items() if key in model.recipe("private").untuned
                    }
                for fault, plan in axis.items():
                    if budget is None:
                        secure = _privacy(None) if suite.secure_aggregation and not anchor else None
                        yield _Asked(entry, name, config, tune, _axis(fault, plan), secure, attack)
                    else:
                        noised = _privacy(budget, secure=suite.secure_aggregation, shared=suite.noise == "distributed")
                        yield _Asked(entry, name, private, None, _axis(fault, plan), noised, attack)


def _attack(suite: SuiteSpec, entry: Entry) -> AttackPlan | None:
    """What the entry's federated cells are attacked with."""
    if suite.attacks is None:
        return None
    kinds = tuple(kind for kind in suite.attacks.kinds if entry.attacks is None or kind in entry.attacks)
    if not kinds:
        return None
    shadows = suite.attacks.shadows if any(attacks.load(kind).shadows for kind in kinds) else 0
    return AttackPlan(kinds=kinds, patients=entry.patients, shadows=shadows)


def _refuse_attacks(suite: SuiteSpec) -> None:
    """See that attacks can be put to what is trained.

    Raises:
        InputError: an attack is unknown, or needs another suite.
    """
    offered = suite.attacks.kinds if suite.attacks else ()
    for kind in offered:
        attacks.load(kind)
    beside = {
        "protocol": suite.protocol is not None,
        "tune": suite.tune is not None,
        "secure_aggregation": suite.secure_aggregation,  # what attackers see of it would be sums
    }
    for other in (name for name, there in beside.items() if offered and there):
        raise InputError(f"suite {suite.name}: attacks: found beside {other}, expected neither; leave one of them out")
    for entry in suite.entries:
        attacked = offered if entry.attacks is None else entry.attacks
        for name in strategies_of(suite, entry) if attacked else ():
            if name not in strategies.ANCHORS and not strategies.load(_meant(suite, "strategy", name)).whole:
                raise InputError(
                    f"suite {suite.name}: strategy {name!r} has no model in common that could be attacked; leave it "
                    "out, or give its entry `attacks: []`"
                )


def _refuse_unscored(suite: SuiteSpec) -> None:
    """See that the end table's columns are metrics.

    Raises:
        InputError: one is none.
    """
    unscored = sorted(set(suite.evaluation.columns) - set(metrics.names()))
    if unscored:
        expected = ", ".join(metrics.names())
        raise InputError(f"suite {suite.name}: evaluation.columns: found {unscored[0]!r}, expected {expected}")


def _refuse_unprotected(suite: SuiteSpec, pairs: Sequence[tuple[str, str]]) -> None:
    """See that some pair of model and strategy can be trained with privacy, where a budget is given.

    Raises:
        InputError: none can.
    """

    def cannot(model: str, strategy: str) -> bool:
        loaded = models.load(_meant(suite, "model", model)), strategies.load(_meant(suite, "strategy", strategy))
        return strategy in strategies.ANCHORS or unprotected(*loaded)

    if any(budget is not None for budget in suite.epsilon) and all(cannot(*pair) for pair in pairs):
        raise InputError(
            f"suite {suite.name}: none of its cells can be trained with patient-level privacy; expected a network "
            "with fedavg, fedprox, scaffold or the like"
        )


def _refuse_single(suite: SuiteSpec, pairs: Sequence[tuple[str, str]]) -> None:
    """See that secure aggregation serves each federated strategy, and what goes wrong on purpose, if it is asked for.

    Raises:
        InputError: it does not, or there is nothing to sum.
    """
    if not suite.secure_aggregation:
        return
    federated = [name for _, name in pairs if name not in strategies.ANCHORS]
    if pairs and not federated:
        raise InputError(f"suite {suite.name}: anchors are no federations and sum nothing; expected fedavg or the like")
    try:
        for name in federated:
            for plan in suite.faults.values() or (None,):
                refuse_single(name, strategies.load(_meant(suite, "strategy", name)), plan)
    except InputError as error:
        raise InputError(f"suite {suite.name}: {error}") from None


def _refuse_unshared(suite: SuiteSpec, choice: Choice) -> None:
    """See that sites can share the noise of each private cell, where they are to.

    Raises:
        InputError: there is no noise, sums are not secure, or a strategy trains otherwise than by plain steps.
    """
    if suite.noise == "local":
        return
    lacking = "" if any(suite.epsilon) else "a budget (--epsilon)"
    lacking = lacking if suite.secure_aggregation else "secure aggregation (--secure-aggregation)"
    if lacking:
        raise InputError(f"suite {suite.name}: noise: found distributed without {lacking}, expected both")
    for entry in suite.entries:
        model = models.load(_meant(suite, "model", entry.model))
        for name in strategies_of(suite, entry):
            chosen = strategies.load(_meant(suite, "strategy", name))
            anchor = name in strategies.ANCHORS
            if anchor or not choice.allows(entry.model, name) or unprotected(model, chosen):
                continue
            try:
                refuse_unshared(name, chosen, entry.config)
            except InputError as error:
                raise InputError(f"suite {suite.name}: {error}") from None


def unprotected(model: ModelSpec, strategy: StrategySpec) -> bool:
    """Whether the two cannot be trained with patient-level privacy."""
    return model.private is None or not strategy.private or strategy.lacks(model) is not None


def _privacy(budget: float | None, *, secure: bool = True, shared: bool = False) -> PrivacyPlan:
    """What is promised: patients' privacy within a budget, or without one that no site's model is seen by itself."""
    if budget is None:
        return PrivacyPlan(mechanism="secure aggregation", unit="site", secure_aggregation=secure)
    share = Terms(epsilon=budget).statistics
    return PrivacyPlan(
        mechanism=SHARED_NOISE if shared else "DP-SGD",
        unit="patient",
        epsilon=budget,
        accountant="pld",
        secure_aggregation=secure,
        budget={"statistics": share},
    )


def _axis(name: str, plan: FaultPlan | None) -> FaultAxis | None:
    return None if plan is None else FaultAxis(name=name, plan=plan.model_dump(mode="json", exclude_none=True))


def _spec(suite: SuiteSpec, asked: _Asked, task: Task, seed: int, sites: tuple[SiteRef, ...]) -> Spec:
    anchor = asked.strategy in strategies.ANCHORS
    return Spec(
        suite=Suite(name=suite.name, version=suite.version),
        task=TaskRef(name=task.name, sha256=task.sha256),
        sites=sites,
        model=Configured(name=asked.entry.model, config=dict(asked.config)),
        strategy=Configured(name=asked.strategy),
        federation=FederationPlan(
            rounds=suite.rounds,
            fraction=1.0 if anchor else suite.fraction,
            min_sites=1 if anchor else suite.min_sites,
            faults=asked.faults,
            protocol=suite.protocol,
        ),
        privacy=asked.privacy,
        tune=asked.tune,
        attack=asked.attack,
        evaluation=EvaluationPlan(
            b=suite.evaluation.replicates,
            level=suite.evaluation.level,
            metrics=metrics.names(),
            small_groups=suite.evaluation.small_groups,
        ),
        seed=seed,
        split_seed=seed,
    )


def make_plan(
    suite: SuiteSpec,
    sites: Sequence[Site],
    choice: Choice,
    store: Store,
    *,
    leave_one_out: bool = False,
    policies: Policies | None = None,
) -> list[Cell]:
    """Every cell of the suite on these sites, in the order of the file, with the record of each if there is one.

    Args:
        suite: the suite.
        sites: its sites.
        choice: what of it is wanted.
        store: where records may be.
        leave_one_out: each cell once for each training site, which it leaves out of training and only scores.
        policies: by site, what its hospital allows.

    Raises:
        InputError: a name is unknown, two cells are one, or fewer than two sites are there to leave one out.
    """
    check_names(suite, choice)
    asked = list(_asked(suite, choice))
    truth = Entry(model=ORACLE, strategies=("truth",))
    if suite.protocol is None and all(site.dataset.manifest.truth for site in sites):
        asked.append(_Asked(truth, "truth", {}, None, None))
    cells: dict[str, Cell] = {}
    found = store.by_cell()
    for left_out, cast in _casts(sites, leave_one_out=leave_one_out):
        training = [site.name for site in cast if not site.external]
        if suite.secure_aggregation and len(training) < FEWEST:
            raise InputError(
                f"suite {suite.name}: secure aggregation needs {FEWEST} training sites; found {len(training)} "
                f"({', '.join(training)})"
            )
        refs = _site_refs(cast, policies or {})
        for task in (load_task(name) for name in suite.tasks):
            for line in asked:
                first = _spec(suite, line, task, suite.seeds[0], refs)
                for seed in suite.seeds:
                    spec = first.model_copy(update={"seed": seed, "split_seed": seed})
                    identity, code = cell_id(spec), code_of(spec)
                    known = store.newest(found.get(identity, ()), code_fingerprint=code)
                    cell = Cell(spec, task, identity, code, known, left_out)
                    if identity in cells:
                        raise InputError(
                            f"suite {suite.name}: two cells are one and the same, {cell.name}; leave one out"
                        )
                    cells[identity] = cell
    return list(cells.values())


def _casts(sites: Sequence[Site], *, leave_one_out: bool) -> Iterator[tuple[str | None, Sequence[Site]]]:
    """The sites as they are, or once for each training site with that one external."""
    if not leave_one_out:
        yield None, sites
        return
    training = sorted(site.name for site in sites if not site.external)
    if len(training) < 2:
        raise InputError(f"--leave-one-site-out found {len(training)} training site(s), expected two at least")
    for name in training:
        yield name, [replace(site, external=True) if site.name == name else site for site in sites]


def is_pending(cell: Cell, cache_mode: CacheMode, rerun: Rerun | None) -> bool:
    """Whether the cell is to be run: what has a record is not, unless asked for."""
    if cell.found is None or rerun is Rerun.all or cache_mode is CacheMode.ignore:
        return True
    return rerun is Rerun.failed and cell.found.status == "failed"
