"""A site's policy applied to one analysis: whether the site takes part, and on which terms.

It stands at the hospital: it knows which task the site's samples are of and which suite they were made for, and takes
from the coordinator only what that proposes (`Proposal`), which every message is held against (`fedcore.gate`).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from fedcore.fingerprint import ROOMS, fingerprint, reached
from fedcore.learner import Setting
from fedcore.models import model
from fedcore.plan import Plan
from fedcore.plugin import is_plugin
from fedcore.protection import TRAINING, Protection
from fedcore.registry import Registry
from fedcore.strategies import strategy
from privacy.ledger import BudgetError, LedgerError
from privacy.policy import Policy, PolicyRefusal
from privacy.terms import Terms
from privacy.total import Total
from sites.errors import InputError

SUMS_ONLY = "secure-aggregation"
"""What the coordinator's proposal and the agreed terms hold where updates leave only inside a secure sum: `true`."""


class Named(NamedTuple):
    """A task and the hash of its definition."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Proposal:
    """What a coordinator asks sites to take part in; what it does not tell is empty.

    Attributes:
        model: its name.
        strategy: its name.
        recipe: `federated` or `private`.
        rounds: how many.
        setting: hyperparameters.
        secure: whether updates leave only inside a secure sum.
    """

    model: str
    strategy: str
    recipe: str
    rounds: int
    setting: Setting
    secure: bool = False

    @classmethod
    def of(cls, texts: Mapping[str, object], setting: str | None = None) -> "Proposal":
        """Of a message's texts, or of what was agreed and the setting that a message asks for.

        Raises:
            PolicyRefusal: they make no sense.
        """
        told = {key: str(value) for key, value in texts.items()}
        try:
            given = json.loads(told.get("setting", "{}") if setting is None else setting)
            numbers = {str(name): float(value) for name, value in given.items()}
            return cls(
                told.get("model", ""),
                told.get("strategy", ""),
                told.get("recipe", ""),
                int(told.get("rounds", "0")),
                numbers,
                told.get(SUMS_ONLY) == "true",
            )
        except (ValueError, TypeError, AttributeError) as error:
            raise PolicyRefusal("the coordinator's proposal cannot be read") from error

    @classmethod
    def of_plan(cls, plan: Plan) -> "Proposal":
        """What a plan comes to."""
        return cls(plan.model_name, plan.strategy_name, plan.recipe, plan.untuned_rounds, plan.untuned, plan.secure)

    def texts(self) -> dict[str, str]:
        """For a message."""
        told = {"model": self.model, "strategy": self.strategy, "recipe": self.recipe, "rounds": str(self.rounds)}
        secure = {SUMS_ONLY: "true"} if self.secure else {}
        return told | {"setting": json.dumps(dict(self.setting), sort_keys=True)} | secure


@dataclass(frozen=True)
class Guard:
    """A site's policy in one analysis.

    Attributes:
        policy: what the hospital allows.
        file: the policy file's name, without folders: what refusals call it.
        suite: what the analysis is part of.
        task: what the site's samples were made for.
        total: where the site keeps its total; needed where the policy has one.
        analysis: what the total calls the analysis: the folder of its ledgers.
    """

    policy: Policy
    file: str
    suite: str
    task: Named
    total: Total | None = None
    analysis: str = ""

    def terms(self, terms: Terms | None) -> Terms | None:
        """The terms on which the site takes part: with the policy's delta where they name none."""
        limit = self.policy.privacy.per_analysis
        if terms is None or limit is None or terms.delta is not None:
            return terms
        return terms.model_copy(update={"delta": limit.delta})

    def examine(self, asked: Proposal, terms: Terms | None) -> None:
        """See whether the site takes part in an analysis, as far as that can be known without its patients.

        Args:
            asked: what the coordinator proposes.
            terms: those that the site would take part on.

        Raises:
            PolicyRefusal: it does not.
        """
        self._time()
        if self.policy.tasks is not None:
            from fedcore.task import tasks

            self._allowed("tasks", "task", self.task.name, self.task.name in tasks(), self.task.sha256)
        if self.policy.suites is not None and self.suite not in self.policy.suites:
            raise self._refusal("suites", f"found {self.suite!r}, allowed are {', '.join(self.policy.suites)}")
        self._code("models", model.MODELS, asked.model)
        if asked.strategy not in strategy.ANCHORS:
            self._code("strategies", strategy.STRATEGIES, asked.strategy)
        else:
            self._allowed("strategies", "strategy", asked.strategy, True, "")
        if self.policy.secure_aggregation == "required" and not asked.secure:
            raise self._refusal(
                "secure_aggregation", "this analysis sums updates in the clear; run it with --secure-aggregation"
            )
        self._privacy(asked, terms)

    def examine_anchor(self, asked: Proposal) -> None:
        """See whether the site takes part in a comparison that is no federation.

        Under `local` nothing leaves the site; `pooled` takes its rows, `external` its model.

        Raises:
            PolicyRefusal: it does not.
        """
        if asked.strategy == "local":
            self.examine_visit(asked)
        else:
            self.examine(asked, None)

    def examine_visit(self, asked: Proposal) -> None:
        """See whether the site may be scored, or train by itself: nothing of its training patients leaves it.

        Raises:
            PolicyRefusal: it may not.
        """
        plain = Policy(**{**dict(self.policy), "privacy": {}, "secure_aggregation": "optional"})
        replace(self, policy=plain).examine(asked, None)

    def examine_with(self, asked: Proposal, protection: Protection | None, patients: int) -> None:
        """See the rest: what depends on how many training patients the site has, and on what it has spent.

        Args:
            asked: what the coordinator proposes.
            protection: the site's; None: it would take part without noise.
            patients: so many training patients.

        Raises:
            PolicyRefusal: the site does not take part.
            privacy.ledger.LedgerError: what it has spent cannot be known.
        """
        smallest = self.policy.smallest_count
        if patients < smallest:  # how many they are is not told
            raise self._refusal("smallest_count", f"the site has fewer than {smallest} training patients")
        rules = self.policy.privacy
        for name, limit in (("per_analysis", rules.per_analysis), ("total", rules.total)):
            if limit is not None and limit.delta > 1 / (10 * patients):
                raise self._refusal(
                    f"privacy.{name}.delta",
                    f"found {limit.delta:g}, expected at most 1/(10 x {patients} patients) = {1 / (10 * patients):.3g}",
                )
        if protection is None:
            return
        if rules.smallest_noise_multiplier is not None:
            for phase, mechanism in protection.planned(asked.setting, asked.rounds).items():
                if phase == TRAINING and mechanism.noise_multiplier < rules.smallest_noise_multiplier:
                    raise self._refusal(
                        "privacy.smallest_noise_multiplier",
                        f"this analysis trains with {mechanism.noise_multiplier:.3g}, at least "
                        f"{rules.smallest_noise_multiplier:g} is wanted; ask for a smaller epsilon or fewer rounds",
                    )
        self._spend(protection, write=False)

    def reserve(self, protection: Protection | None) -> None:
        """Reserve what the analysis may spend in the site's total; before its first release.

        Raises:
            PolicyRefusal: the total would be passed.
            privacy.ledger.LedgerError: the total cannot be trusted or written.
        """
        if protection is not None:
            self._spend(protection, write=True)

    def expects_ledger(self) -> bool:
        """Whether the analysis has released something before, as the site's total tells.

        Raises:
            privacy.ledger.LedgerError: the total cannot be trusted.
        """
        if self.policy.privacy.total is None or self.total is None:
            return False
        return self.analysis in self.total.reserved()

    def _spend(self, protection: Protection, *, write: bool) -> None:
        limit = self.policy.privacy.total
        if limit is None:
            return
        if self.total is None:
            raise self._refusal("privacy.total", "there is no place to keep what all analyses spend")
        try:
            self.total.see(self.analysis, protection.budget, limit.budget)
            if write or self.expects_ledger():  # what is reserved has a ledger, so that one that is lost is found out
                self.total.reserve(self.analysis, protection.ledger.budget, limit.budget)
        except BudgetError as error:
            raise self._refusal("privacy.total", str(error)) from error

    def _time(self) -> None:
        last = self.policy.valid_until
        if last is not None and datetime.now(UTC).date() > last:
            raise self._refusal("valid_until", f"the policy ended with {last}; the hospital has to renew it")

    def _privacy(self, asked: Proposal, terms: Terms | None) -> None:
        rules = self.policy.privacy
        if terms is None:
            if rules.required:
                most = "" if rules.per_analysis is None else f" {rules.per_analysis.epsilon:g} or less"
                raise self._refusal(
                    "privacy.required", f"this analysis asks for none; run it with --epsilon{most or ' EPSILON'}"
                )
            return
        if rules.required and rules.noise == "cryptographic" and terms.noise != "cryptographic":
            raise self._refusal("privacy.noise", "this analysis's noise follows from its seed and protects nobody")
        if rules.required and terms.place == "distributed" and not rules.shared_noise:
            raise self._refusal(
                "privacy.shared_noise", "this analysis lets sites share their noise, each release bears a part"
            )
        for name in ("epsilon", "delta") if rules.per_analysis is not None else ():
            wanted, most = getattr(terms, name), getattr(rules.per_analysis, name)
            if wanted is not None and wanted > most:
                raise self._refusal(
                    f"privacy.per_analysis.{name}", f"this analysis asks for {wanted:g}, at most {most:g} is allowed"
                )
        lacking = sorted({"sampling_rate", "steps", "clip"} - set(asked.setting))
        if lacking:
            raise self._refusal("privacy", f"this analysis does not tell its {', '.join(lacking)}")
        if asked.recipe != "private" or not _trained_with_noise(asked):
            raise self._refusal(
                "privacy.required", f"{asked.model} with {asked.strategy} sends more than follows from a noised model"
            )
        clip = asked.setting["clip"]
        if rules.largest_clip is not None and not 0 < clip <= rules.largest_clip:
            raise self._refusal(
                "privacy.largest_clip",
                f"this analysis clips each patient's gradient to {clip:g}, at most {rules.largest_clip:g} is allowed",
            )
        if rules.largest_clip is not None and asked.setting.get("quantile"):
            raise self._refusal("privacy.largest_clip", "this analysis adapts its clip, which may pass what is allowed")
        try:
            self.expects_ledger()
        except LedgerError as error:
            raise self._refusal("privacy.total", str(error)) from error

    def _code(self, rule: str, parts: "Registry[model.ModelSpec] | Registry[strategy.StrategySpec]", name: str) -> None:
        """Whether a model or strategy may run here; nothing of it is imported."""
        try:
            module = parts.module(name)
        except InputError as error:
            raise self._refusal(rule, str(error)) from error
        own = is_plugin(name) and module.partition(".")[0] not in ROOMS
        pinned = self._pinned(rule, name)
        sha256 = code_sha256(module) if own or pinned else ""
        if own and self.policy.privacy.required and not pinned:
            raise self._refusal(
                rule,
                f"{name} is no code of FedWard's, which has to clip and noise here; if you have read it and trust it, "
                f"list it as {name}@{sha256}",
            )
        self._allowed(rule, parts.what, name, not own, sha256)

    def _pinned(self, rule: str, name: str) -> list[str]:
        entries = getattr(self.policy, rule) or ()
        return [entry.partition("@")[2] for entry in entries if entry.startswith(f"{name}@")]

    def _allowed(self, rule: str, what: str, name: str, ours: bool, sha256: str) -> None:
        entries = getattr(self.policy, rule)
        if entries is None:
            return
        if (name in entries and (ours or rule != "tasks")) or (sha256 and f"{name}@{sha256}" in entries):
            return
        if name in entries or self._pinned(rule, name):
            raise self._refusal(rule, f"the {what} {name} has another definition or none listed: {name}@{sha256}")
        raise self._refusal(
            rule, f"found {what} {name!r}, allowed are {', '.join(entry.partition('@')[0] for entry in entries)}"
        )

    def _refusal(self, rule: str, why: str) -> PolicyRefusal:
        return PolicyRefusal(f"{self.file}, {rule}: {why}")


def _trained_with_noise(asked: Proposal) -> bool:
    """Whether a model and strategy that may run here can be trained privately; the coordinator's word is no proof."""
    try:
        chosen, trained = strategy.load(asked.strategy), model.load(asked.model)
    except InputError:
        return False
    return chosen.private and trained.private is not None and chosen.lacks(trained) is None


def code_sha256(module: str) -> str:
    """The hash of a module's code, of which nothing is imported.

    Of a user's module: its own and the user's modules that it imports, not those of FedWard, which the hospital has
    installed itself; of one of ours: all that it reaches, with the libraries' versions.
    """
    if module.partition(".")[0] in ROOMS:
        return fingerprint(module)
    digest = hashlib.sha256()
    for name, path in sorted(reached([module]).items()):
        if name.partition(".")[0] not in ROOMS:
            digest.update(f"{name}\0".encode() + hashlib.sha256(Path(path).read_bytes()).digest())
    return digest.hexdigest()
