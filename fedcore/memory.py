"""What a site remembers of a federation, from round to round: its own model, control variates, an optimiser.

It never leaves the site. On disk it outlives the site's process: each round's memory is a file of its own, and a round
that is done again, because the server was killed in it, finds what there was before that round.
"""

import json
import zlib
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote
from zipfile import BadZipFile

import numpy as np

from fedcore.errors import CheckpointError, StorageError
from fedcore.learner import Arrays

AGREED = "agreed.json"


class SiteMemory:
    """One site's memory of one federation.

    Args:
        folder: where the federation's sites remember; None: in this process only.
        site: the site's name.
    """

    def __init__(self, folder: Path | None, site: str) -> None:
        self._folder = None if folder is None else folder / quote(site, safe="").replace(".", "%2E")  # one may be ".."
        self._agreed: dict[str, str] = {}
        self._versions: dict[tuple[int, int], Mapping[str, Arrays]] = {}
        self._notes: dict[str, bytes | memoryview] = {}

    def place(self, name: str) -> Path | None:
        """Where the site keeps a file of its own beside its memory; None: it remembers in this process only."""
        return None if self._folder is None else self._folder / name

    def note(self, name: str, content: bytes | memoryview) -> None:
        """Remember a note under a name, in place of the one before; the caller leaves `content` as it is.

        Raises:
            StorageError: it cannot be written.
        """
        if self._folder is None:
            self._notes[name] = content
            return
        with _whole(self._folder / f"{name}.note") as file:
            file.write(content)

    def noted(self, name: str) -> bytes | memoryview | None:
        """The note of that name, if there is one.

        Raises:
            CheckpointError: it cannot be read.
        """
        if self._folder is None:
            return self._notes.get(name)
        try:
            return (self._folder / f"{name}.note").read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CheckpointError(_lost(f"the site's note of {name}")) from error

    def detached(self) -> "SiteMemory":
        """A copy in this process, which outlives the folder."""
        copy = SiteMemory(None, "")
        copy._agreed = dict(self.agreed)
        trials = {int(path.stem.partition("-")[0]) for path in self._folder.glob("*-*.npz")} if self._folder else set()
        for trial in trials:
            copy._versions |= {(trial, number): self._load(trial, number) for number in self._rounds(trial)}
        return copy

    def agree(self, terms: Mapping[str, str]) -> None:
        """Remember what the sites agreed on.

        Raises:
            StorageError: it cannot be written.
        """
        self._agreed = dict(terms)
        if self._folder is not None:
            with _whole(self._folder / AGREED) as file:
                file.write(json.dumps(self._agreed).encode())

    @property
    def agreed(self) -> Mapping[str, str]:
        """What the sites agreed on; empty before they did.

        Raises:
            CheckpointError: it is damaged.
        """
        if not self._agreed and self._folder is not None and (self._folder / AGREED).is_file():
            try:
                self._agreed = dict(json.loads((self._folder / AGREED).read_bytes()))
            except (OSError, ValueError) as error:
                raise CheckpointError(_lost("what the sites agreed on")) from error
        return self._agreed

    def term(self, name: str) -> str:
        """One of the things that the sites agreed on.

        Raises:
            CheckpointError: the site does not remember that they did.
        """
        if name not in self.agreed:
            raise CheckpointError(_lost("what the sites agreed on"))
        return self.agreed[name]

    def read(self, trial: int, number: int) -> MutableMapping[str, Arrays]:
        """What the site remembered after a round that it took part in.

        Args:
            trial: of the federation.
            number: the round; 0: before the first, when there was nothing to remember.

        Raises:
            CheckpointError: it does not remember it.
        """
        if number == 0:
            return {}
        if number not in self._rounds(trial):
            raise CheckpointError(_lost(f"what the site remembered of round {number}"))
        return dict(self._load(trial, number))

    def write(self, trial: int, number: int, parts: Mapping[str, Arrays], *, last: int, best: int) -> None:
        """Remember `parts` as of round `number`, and forget what nobody can ask for any more.

        Args:
            trial: of the federation.
            number: the round.
            parts: what to remember.
            last: the site's last round before this one that counted: asked for if this one is done again, or does not
                count. Later rounds than that did not.
            best: the best round so far: the site predicts with what it remembered then.

        Raises:
            StorageError: it cannot be written.
        """
        rounds = [n for n in self._rounds(trial) if n != number]
        counted = [n for n in rounds if n <= last]
        needed = {max(counted, default=0), max([n for n in counted if n <= best], default=0)}
        self._store(trial, number, parts)
        for old in rounds:
            if old not in needed:
                self._forget(trial, old)

    def _rounds(self, trial: int) -> list[int]:
        if self._folder is None:
            return [number for of, number in self._versions if of == trial]
        return [int(path.stem.partition("-")[2]) for path in self._folder.glob(f"{trial}-*.npz")]

    def _path(self, trial: int, number: int) -> Path:
        assert self._folder is not None
        return self._folder / f"{trial}-{number}.npz"

    def _load(self, trial: int, number: int) -> Mapping[str, Arrays]:
        if self._folder is None:
            return self._versions[trial, number]
        parts: dict[str, dict[str, np.ndarray]] = {}
        try:
            with np.load(self._path(trial, number), allow_pickle=False) as stored:
                for key in stored.files:
                    part, _, name = key.partition("/")
                    parts.setdefault(part, {})[name] = stored[key]
        except (OSError, ValueError, EOFError, BadZipFile, zlib.error) as error:
            raise CheckpointError(_lost(f"what the site remembered of round {number}")) from error
        return parts

    def _store(self, trial: int, number: int, parts: Mapping[str, Arrays]) -> None:
        if self._folder is None:
            self._versions[trial, number] = {part: dict(arrays) for part, arrays in parts.items()}
            return
        named = {f"{part}/{name}": value for part, arrays in parts.items() for name, value in arrays.items()}
        with _whole(self._path(trial, number)) as file:
            np.savez(file, **named)  # type: ignore[arg-type]

    def _forget(self, trial: int, number: int) -> None:
        if self._folder is None:
            del self._versions[trial, number]
        else:
            self._path(trial, number).unlink(missing_ok=True)


def _lost(what: str) -> str:
    return f"{what} is lost; delete the federation's checkpoint to start anew"


@contextmanager
def _whole(path: Path) -> Iterator[BinaryIO]:
    """A file that is there when it is written, or not at all."""
    making = path.with_name(f".{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with making.open("wb") as file:
            yield file
        making.replace(path)
    except OSError as error:
        with suppress(OSError):
            making.unlink(missing_ok=True)
        raise StorageError(
            f"what the site is to remember cannot be written ({error.strerror}); mend that and run again"
        ) from error
