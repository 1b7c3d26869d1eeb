"""What a site does so that nothing of its training patients leaves it without noise, nor beyond its budget.

It belongs to the hospital's side: the coordinator neither sees it nor can switch it off. The noise of a phase is what
the budget leaves for it, once for all: `Terms.statistics` of epsilon for the statistics that the sites agree on, the
rest for as many DP-SGD steps as the agreed rounds have. A coordinator that asks for more rounds than it agreed on finds
a site whose budget is spent, and which says so.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path

from fedcore.learner import Setting
from fedcore.local import Split
from fedcore.options import check_bounds
from fedcore.streams import stream
from privacy.accounting import Mechanism, noise_multiplier
from privacy.distributed import KEPT_BACK
from privacy.dpsgd import CLIPS, DPSGD
from privacy.ledger import Budget, Ledger
from privacy.noise import Cryptographic, Seeded, Source
from privacy.terms import Terms
from sites.errors import InputError

STATISTICS, TRAINING = "statistics", "training"

AGREED = "noise_multiplier"
"""The hyperparameter that the coordinator adds where sites share noise: what serves them all."""


class Protection:
    """A site's protection in one federation.

    Args:
        terms: on which it takes part.
        site: its name.
        patients: how many training patients it has, which is public.
        seed: of seeded noise.
        path: where its ledger lies; None: it lives in this process only.
        expected: whether the site has released something before, so that there must be a ledger.
    """

    def __init__(
        self, terms: Terms, site: str, patients: int, seed: int, path: Path | None = None, *, expected: bool = False
    ) -> None:
        self.terms = terms
        self._site = site
        self._patients = patients
        self._seed = seed
        self._path = path
        self._expected = expected

    @cached_property
    def budget(self) -> Budget:
        """What the site is willing to spend.

        Raises:
            sites.errors.InputError: the terms are out of bounds for so many patients.
        """
        try:
            return Budget.of(self.terms.epsilon, self._delta, self._patients)
        except ValueError as error:
            raise InputError(str(error)) from error

    @cached_property
    def ledger(self) -> Ledger:
        """What the site has spent.

        Raises:
            privacy.ledger.LedgerError: it is damaged, lost or of other terms.
            sites.errors.InputError: the terms are out of bounds for so many patients.
        """
        return Ledger(self.budget, self._path, expected=self._expected)

    @property
    def _delta(self) -> float:
        if self.terms.delta is not None:
            return self.terms.delta
        doubled = (max(self._patients, 1) - 1).bit_length()
        return float(0.1 * 0.5**doubled)

    def planned(self, setting: Setting, rounds: int) -> Mapping[str, Mechanism]:
        """What each phase will release if all goes as agreed: phase -> mechanism.

        Args:
            setting: holds `sampling_rate`, `steps` and `clip`; `noise_multiplier` where sites share noise and have
                agreed on it.
            rounds: in how many rounds the site is asked to train.

        Raises:
            sites.errors.InputError: the setting is out of bounds, or no noise keeps the site within its budget.
        """
        check_bounds(setting)
        rate, steps, clip = float(setting["sampling_rate"]), int(setting["steps"]), float(setting["clip"])
        if not CLIPS[0] <= clip <= CLIPS[1]:
            raise InputError(f"clip: found {clip:g}, expected a length from {CLIPS[0]:g} to {CLIPS[1]:g}")
        budget = self.budget
        try:
            statistics = Mechanism(_statistics_noise(budget.epsilon * self.terms.statistics, budget.delta))
            noise = _training_noise(budget.epsilon, self._training_delta, rate, steps * rounds, (statistics,))
        except ValueError as error:
            raise InputError(str(error)) from error
        if self.terms.place == "distributed" and AGREED in setting:
            agreed = float(setting[AGREED])
            if not agreed >= noise * (1 - 1e-9):
                raise InputError(
                    f"the sites agreed on a noise multiplier of {agreed:.4g}; this site needs {noise:.4g} for its "
                    "delta; name one delta for all sites"
                )
            noise = agreed
        return {STATISTICS: statistics, TRAINING: Mechanism(noise, rate, steps * rounds)}

    def statistics(self, setting: Setting, rounds: int) -> tuple[float, Source]:
        """The noise of the statistics, over their sensitivity, and its source; the spend is written down.

        All that the site will release is settled here: what of it is asked for may not depend on what came out.

        Args:
            setting: with which the sites will train.
            rounds: in how many rounds.

        Raises:
            privacy.ledger.BudgetError: the budget would be passed.
            privacy.ledger.LedgerError: the spend cannot be written down.
        """
        planned = self.planned(setting, rounds)
        self.ledger.settle(planned.values())
        self.ledger.spend(STATISTICS, STATISTICS, planned[STATISTICS], repeats=self._repeats)
        return planned[STATISTICS].noise_multiplier, self._source(STATISTICS)

    def training(self, trial: int, number: int, rounds: int, stream: str, setting: Setting, split: Split) -> DPSGD:
        """DP-SGD for one visit; the spend is written down.

        Args:
            trial: the setting's number.
            number: the round.
            rounds: how many the sites agreed on.
            stream: which training of the visit this is.
            setting: holds `sampling_rate`, `steps`, `clip`, `per_layer` and `quantile`.
            split: the training samples.

        Raises:
            privacy.ledger.BudgetError: the budget would be passed.
            privacy.ledger.LedgerError: the spend cannot be written down.
        """
        planned = self.planned(setting, rounds)
        self.ledger.settle(planned.values())
        steps = int(setting["steps"])
        visit = replace(planned[TRAINING], count=steps)
        self.ledger.spend(f"{TRAINING}/{trial}/{number}/{stream}", TRAINING, visit, repeats=self._repeats)
        return DPSGD(
            noise_multiplier=visit.noise_multiplier,
            sampling_rate=visit.sampling_rate,
            steps=steps,
            clip=float(setting["clip"]),
            patient=split.patient,
            patients=split.patients,
            source=self._source(TRAINING, trial, number, stream),
            per_layer=bool(setting.get("per_layer", 0)),
            quantile=float(setting.get("quantile", 0)) or None,
        )

    @property
    def _training_delta(self) -> float:
        """The delta of Gaussian noise: of noise that is shared a part is kept back for rounding."""
        return self.budget.delta * (1 - KEPT_BACK if self.terms.place == "distributed" else 1)

    @property
    def _repeats(self) -> bool:
        """Seeded noise is the same when a round is done again: it is the same release."""
        return self.terms.noise == "seeded"

    def _source(self, *names: str | int) -> Source:
        if self.terms.noise == "seeded":
            return Seeded(stream(self._seed, "noise", self._site, *names))
        return Cryptographic()


def agreed_noise(terms: Terms, patients: Iterable[int], setting: Setting, rounds: int) -> float:
    """The noise multiplier that serves every one of some sites: that of the largest, whose delta is the smallest.

    Args:
        terms: theirs.
        patients: how many each has.
        setting: see `Protection.planned`.
        rounds: as well.

    Raises:
        sites.errors.InputError: no noise keeps the largest within its budget.
    """
    return Protection(terms, "", max(patients), 0).planned(setting, rounds)[TRAINING].noise_multiplier


@lru_cache
def _statistics_noise(target: float, delta: float) -> float:
    return noise_multiplier(target, delta, 1.0, 1)


@lru_cache
def _training_noise(target: float, delta: float, rate: float, steps: int, beside: tuple[Mechanism, ...]) -> float:
    return noise_multiplier(target, delta, rate, steps, beside)
