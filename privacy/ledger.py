"""A site's ledger: what it has released, with which noise, and what all of it together comes to.

A release is written down, and is on the disk, before it leaves: a process that is killed in between has spent what it
did not send, and never sent what it did not spend. What would pass the budget is refused and not written.

The file is one JSON object a line, each with the hash of the line before it. A ledger that is damaged, or is lost where
there was one, is refused: nothing is ever counted from zero again.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from privacy.accounting import ACCOUNTANTS, Mechanism, composed, epsilon

FORMAT = "fedward.ledger/1"
BEGINNING = "0" * 64
PLAN = "settled"


class LedgerError(RuntimeError):
    """A ledger that cannot be trusted or written: one sentence."""


class BudgetError(RuntimeError):
    """A release would pass the site's budget: one sentence, which tells nothing of any patient."""


@dataclass(frozen=True)
class Budget:
    """What a site is willing to spend.

    Attributes:
        epsilon: of all its releases together, above 0.
        delta: of all its releases together; at most a tenth of one patient's share, 1 / (10 patients).
    """

    epsilon: float
    delta: float

    @classmethod
    def of(cls, target: float, delta: float | None, patients: int) -> "Budget":
        """A budget for a site of so many patients, a public number; without a delta, 1 / (10 patients).

        Raises:
            ValueError: epsilon or delta is out of range.
        """
        most = 1 / (10 * max(patients, 1))
        if not 0 < target < float("inf"):
            raise ValueError(f"epsilon: found {target}, expected a finite number above 0")
        if delta is not None and not 0 < delta <= most:
            raise ValueError(f"delta: found {delta:g}, expected above 0 and at most 1/(10 x {patients}) = {most:g}")
        return cls(target, most if delta is None else delta)


@dataclass(frozen=True)
class Entry:
    """One spend.

    Attributes:
        key: what it was for, unique: the same release made once more, with the same noise, is no further spend.
        phase: `statistics` or `training`.
        mechanism: with which noise, how often.
    """

    key: str
    phase: str
    mechanism: Mechanism


class Ledger:
    """A site's ledger of one federation.

    Args:
        budget: what must not be passed.
        path: the file; None: it lives in this process only.
        expected: whether there must be one already, because the site has released something before.

    Raises:
        LedgerError: the file is damaged, of another budget, or lost.
    """

    def __init__(self, budget: Budget, path: Path | None = None, *, expected: bool = False) -> None:
        self.budget = budget
        self._path = path
        self._entries: dict[str, Entry] = {}
        self._size = 0
        self._settled: tuple[Mechanism, ...] | None = None
        self._lines = 0
        self._last = BEGINNING
        if path is None:
            return
        if path.is_file():
            self._read(path)
        elif expected or _head(path).is_file():
            raise LedgerError(
                f"{path}: the ledger of what this site has spent is lost; restore it, or delete the whole federation"
            )
        else:
            self._append({"format": FORMAT, "epsilon": budget.epsilon, "delta": budget.delta})

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All spends, in order."""
        return tuple(self._entries.values())

    def spend(self, key: str, phase: str, mechanism: Mechanism, *, repeats: bool = False) -> None:
        """Write a release down before it leaves.

        Args:
            key: names the release.
            phase: the part of the federation it belongs to.
            mechanism: its noise.
            repeats: whether a release of a known key is that same one, noise and all; else it is a further one.

        Raises:
            BudgetError: with it the budget would be passed.
            LedgerError: it cannot be written.
        """
        with self._alone():
            known = self._entries.get(key)
            if repeats and known is not None and known.mechanism == mechanism:
                return
            number = 2
            while key in self._entries:
                key, number = f"{key.partition('#')[0]}#{number}", number + 1
            self._allow((*self.mechanisms(), mechanism))
            self._append(
                {
                    "key": key,
                    "phase": phase,
                    "noise_multiplier": mechanism.noise_multiplier,
                    "sampling_rate": mechanism.sampling_rate,
                    "count": mechanism.count,
                }
            )
            self._entries[key] = Entry(key, phase, mechanism)

    def settle(self, mechanisms: Iterable[Mechanism]) -> None:
        """Write down, once and before anything is released, what all releases will be; nothing else is spent then.

        Accountants compose mechanisms that stand beforehand: what is computed from earlier releases may be chosen by
        them, the noise and the number of later ones may not.

        Raises:
            BudgetError: they pass the budget, or others were settled.
            LedgerError: they cannot be written down.
        """
        plan = composed(mechanisms)
        with self._alone():
            if self._settled is None and not self._entries:
                self._within(plan)
                self._append({PLAN: [[one.noise_multiplier, one.sampling_rate, one.count] for one in plan]})
                self._settled = plan
            elif self._settled != plan:
                raise BudgetError("the site has settled what it releases, and this is other noise or another number")

    def _allow(self, mechanisms: tuple[Mechanism, ...]) -> None:
        after = composed(mechanisms)
        if self._settled is None:
            self._within(after)
        elif not _less(after, self._settled):
            raise BudgetError(
                f"the site's budget of epsilon {self.budget.epsilon:g} at delta {self.budget.delta:.3g} is spent: with "
                "this release there would be more than was settled"
            )

    def _within(self, mechanisms: tuple[Mechanism, ...]) -> None:
        spent = epsilon(mechanisms, self.budget.delta)
        if spent > self.budget.epsilon:
            raise BudgetError(
                f"the site's budget of epsilon {self.budget.epsilon:g} at delta {self.budget.delta:.3g} would be "
                f"passed: with this release it would have spent {spent:.4g}"
            )

    def mechanisms(self, phase: str | None = None) -> tuple[Mechanism, ...]:
        """What was released, in canonical form; of one phase alone if it is named."""
        return composed(one.mechanism for one in self._entries.values() if phase in (None, one.phase))

    def spent(self, accountant: str = "pld", phase: str | None = None) -> float:
        """The epsilon of all that was released, at the budget's delta."""
        return epsilon(self.mechanisms(phase), self.budget.delta, accountant)

    def opinions(self) -> Mapping[str, float | None]:
        """What each accountant says of all; None where it cannot tell."""
        found: dict[str, float | None] = {}
        for name in ACCOUNTANTS:
            try:
                found[name] = self.spent(name)
            except ValueError:
                found[name] = None
        return found

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else spends meanwhile, and what others of this site's processes have spent is known."""
        if self._path is None:
            yield
            return
        try:
            with self._path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if os.fstat(file.fileno()).st_size != self._size:
                    self._entries, self._settled, self._last = {}, None, BEGINNING
                    self._read(self._path)
                yield
        except OSError as error:
            raise LedgerError(
                f"{self._path}: cannot be read ({error.strerror}); nothing was released; mend that and run again"
            ) from error

    def _append(self, content: Mapping[str, Any]) -> None:
        line = json.dumps({**content, "after": self._last}, sort_keys=True) + "\n"
        if self._path is not None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("ab") as file:
                    file.write(line.encode())
                    file.flush()
                    os.fsync(file.fileno())
                    self._size = file.tell()
                self._lines += 1
                self._keep_head(self._path, hashlib.sha256(line.encode()).hexdigest())
            except OSError as error:
                raise LedgerError(
                    f"{self._path}: cannot be written ({error.strerror}); nothing was released; mend that and run again"
                ) from error
        self._last = hashlib.sha256(line.encode()).hexdigest()

    def _keep_head(self, path: Path, last: str) -> None:
        """Keep, beside the ledger, how many lines it has and the last one's hash: so that lost ones are missed."""
        fresh = path.with_name(path.name + ".new")
        with fresh.open("w", encoding="ascii") as file:
            file.write(f"{self._lines} {last}\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(_head(path))
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _read(self, path: Path) -> None:
        damaged = f"{path}: line {{}} of the ledger is damaged; restore it, or delete the whole federation"
        lines = path.read_bytes().splitlines(keepends=True)
        known, last = 0, ""
        if _head(path).is_file():
            number_of, _, last = _head(path).read_text(encoding="ascii").strip().partition(" ")
            known = int(number_of) if number_of.isdigit() else len(lines) + 1
        if len(lines) > max(known, 1) and not lines[-1].endswith(b"\n"):  # killed while it was written: not released
            os.truncate(path, sum(map(len, lines[:-1])))
            lines.pop()
        for number, line in enumerate(lines, start=1):
            try:
                content = json.loads(line)
                whole = line.endswith(b"\n") and content.pop("after") == self._last
            except (ValueError, KeyError, AttributeError):
                whole = False
            if not whole:
                raise LedgerError(damaged.format(number))
            if number == 1:
                told = {"format": FORMAT, "epsilon": self.budget.epsilon, "delta": self.budget.delta}
                if content != told:
                    raise LedgerError(f"{path}: the ledger is of another budget; expected {json.dumps(told)}")
            elif PLAN in content:
                self._settled = tuple(Mechanism(*numbers) for numbers in content[PLAN])
            else:
                key, phase, *numbers = (
                    content[name] for name in ("key", "phase", "noise_multiplier", "sampling_rate", "count")
                )
                self._entries[key] = Entry(key, phase, Mechanism(*numbers))
            self._last = hashlib.sha256(line).hexdigest()
            if number == known and self._last != last:
                raise LedgerError(damaged.format(number))
        if len(lines) < max(known, 1):
            raise LedgerError(damaged.format(len(lines) + 1))
        self._size, self._lines = sum(map(len, lines)), len(lines)


def _head(path: Path) -> Path:
    return path.with_name(path.name + ".head")


def _less(some: tuple[Mechanism, ...], others: tuple[Mechanism, ...]) -> bool:
    """Whether each of some releases, in canonical form, is among the others as often, or with as little noise."""
    sampled = {(one.noise_multiplier, one.sampling_rate): one.count for one in others if one.sampling_rate < 1}
    whole = [one.noise_multiplier for one in others if one.sampling_rate == 1]
    return all(
        one.count <= sampled.get((one.noise_multiplier, one.sampling_rate), 0)
        if one.sampling_rate < 1
        else bool(whole) and one.noise_multiplier >= whole[0] * (1 - 1e-9)
        for one in some
    )
