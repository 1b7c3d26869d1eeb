"""A site's total: what all its analyses together may cost its patients, in a file that outlives every federation.

An analysis (one cell) has a ledger of its own (`privacy.ledger`), which refuses whatever would pass the analysis's
(epsilon, delta), however often it is run again. Before its first release the whole of that budget is reserved here,
once. With k analyses of (e_i, d_i), each chosen in the light of what the others released, all of them together are
(sum of e_i, sum of d_i)-differentially private (basic composition, which holds as a filter for budgets that are chosen
adaptively: Rogers, Roth, Ullman and Vadhan, 2016, section 4). So the total holds if the sums do not pass it.

What was released under no policy counts as well: a ledger of the site that lies beside the others and is not reserved
is reserved first. The file is one JSON object a line, each with the time and the hash of the line before. Lost or
damaged, it is refused; only `begin` makes one.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO

from privacy.ledger import BEGINNING, Budget, BudgetError, LedgerError

FORMAT = "fedward.total/1"


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


@dataclass(frozen=True)
class Total:
    """A site's total.

    Args:
        path: its file.
        ledgers: the folder of all analyses' ledgers, `<analysis>/<name of this file>` in it.
        now: the clock.
    """

    path: Path
    ledgers: Path
    now: Callable[[], datetime] = _now

    def begin(self) -> Mapping[str, Budget]:
        """Begin it, once: with what the site's ledgers show already.

        Raises:
            LedgerError: there is one, or one of the ledgers is damaged.
        """
        found = self._elsewhere({})
        whole = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with whole.open("wb+") as file:
                last = _append(file, {"format": FORMAT, "at": self.now().isoformat()}, BEGINNING)
                self._reserve_all(file, found, last)
            self.path.hardlink_to(whole)  # which, unlike renaming, replaces nothing
        except FileExistsError:
            raise LedgerError(f"{self.path.name}: the site's total has begun already") from None
        except OSError as error:
            raise self._unwritable(error) from error
        finally:
            whole.unlink(missing_ok=True)
        return found

    def reserved(self) -> Mapping[str, Budget]:
        """What is reserved for each analysis.

        Raises:
            LedgerError: the file is lost or damaged, or the clock went back.
        """
        with self._open() as file:
            return self._read(file)[0]

    def reserve(self, analysis: str, budget: Budget, within: Budget) -> None:
        """Reserve an analysis's budget before its first release; once reserved it stays so, and costs no more.

        Raises:
            privacy.ledger.BudgetError: the total would be passed; nothing was reserved for the analysis.
            LedgerError: the file cannot be trusted or written, or the analysis had another budget.
        """
        with self._open() as file:
            entries, last = self._read(file)
            others = {name: one for name, one in self._elsewhere(entries).items() if name != analysis}
            try:
                last = self._reserve_all(file, others, last)
                self._see(entries | others, analysis, budget, within)
                if analysis not in entries:
                    self._reserve_all(file, {analysis: budget}, last)
            except OSError as error:
                raise self._unwritable(error) from error

    def see(self, analysis: str, budget: Budget, within: Budget) -> None:
        """Find out whether `reserve` would refuse; nothing is written. Raises what that raises."""
        with self._open() as file:
            entries = self._read(file)[0]
        others = {name: one for name, one in self._elsewhere(entries).items() if name != analysis}
        self._see({**entries, **others}, analysis, budget, within)

    def _see(self, entries: Mapping[str, Budget], analysis: str, budget: Budget, within: Budget) -> None:
        if analysis in entries:
            if entries[analysis] != budget:
                raise LedgerError(f"{self.path.name}: this analysis is reserved with another budget of privacy")
            return
        for name in ("epsilon", "delta"):
            before = sum((_exact(getattr(one, name)) for one in entries.values()), Decimal(0))
            most, asked = _exact(getattr(within, name)), _exact(getattr(budget, name))
            if before + asked > most:
                told = [f"{float(one):g}" for one in (most, before, asked)]
                raise BudgetError(
                    f"{name} of all analyses is at most {told[0]}, {told[1]} is reserved, and this one asks for "
                    f"{told[2]} more"
                )

    def _elsewhere(self, known: Mapping[str, Budget]) -> dict[str, Budget]:
        """What the analyses' ledgers may spend that the total does not know of."""
        found = {}
        for path in sorted(self.ledgers.glob(f"*/{self.path.name}")):
            analysis = path.parent.name
            if analysis in known:
                continue
            try:
                head, *entries = path.read_bytes().splitlines()
                first = json.loads(head)
                if entries:  # else nothing was released
                    found[analysis] = Budget(float(first["epsilon"]), float(first["delta"]))
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise LedgerError(
                    f"the ledger of analysis {analysis[:12]} is damaged, so that what it spent is not known; restore it"
                ) from error
        return found

    @contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        try:
            with self.path.open("rb+") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield file
        except OSError as error:
            raise LedgerError(
                f"{self.path.name}: what all analyses of this site have spent is not there; restore it, or where there "
                "never was any, begin it with `bench privacy begin`"
            ) from error

    def _read(self, file: BinaryIO) -> tuple[dict[str, Budget], str]:
        """What is reserved, and the hash of the last line."""
        damaged = f"{self.path.name}: line {{}} of the site's total is damaged; restore the file"
        entries: dict[str, Budget] = {}
        last, size, at, number = BEGINNING, 0, "", 0
        lines = file.readlines()
        if len(lines) > 1 and not lines[-1].endswith(b"\n"):  # killed while it was written: nothing was released
            lines.pop()
        for number, line in enumerate(lines, start=1):
            try:
                content = json.loads(line)
                whole = line.endswith(b"\n") and content["after"] == last
                at = datetime.fromisoformat(content["at"]).isoformat()
                if number == 1:
                    whole = whole and content["format"] == FORMAT
                else:
                    entries[content["analysis"]] = Budget(content["epsilon"], content["delta"])
            except (ValueError, KeyError, TypeError):
                whole = False
            if not whole:
                raise LedgerError(damaged.format(number))
            last, size = hashlib.sha256(line).hexdigest(), size + len(line)
        if number == 0:
            raise LedgerError(damaged.format(1))
        if self.now() < datetime.fromisoformat(at):
            raise LedgerError(
                f"the site's clock says {self.now().isoformat()}, which is before the last entry of {self.path.name} "
                f"({at}); set the clock"
            )
        file.seek(size)
        return entries, last

    def _reserve_all(self, file: BinaryIO, budgets: Mapping[str, Budget], last: str) -> str:
        for analysis, one in budgets.items():
            told = {"analysis": analysis, "epsilon": one.epsilon, "delta": one.delta, "at": self.now().isoformat()}
            last = _append(file, told, last)
        return last

    def _unwritable(self, error: OSError) -> LedgerError:
        return LedgerError(f"{self.path.name}: cannot be written ({error.strerror}); nothing was released; mend that")


def _append(file: BinaryIO, content: Mapping[str, Any], last: str) -> str:
    """Write a line where the file stands, and sync it; returns its hash."""
    line = (json.dumps({**content, "after": last}, sort_keys=True) + "\n").encode()
    file.truncate()
    file.write(line)
    file.flush()
    os.fsync(file.fileno())
    return hashlib.sha256(line).hexdigest()


def _exact(number: float) -> Decimal:
    """The number as it is written, so that three tenths are not more than 0.3."""
    return Decimal(repr(float(number)))
