"""A folder for one process at a time: who comes second is told so, and nobody waits."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Whether the folder is this process's alone while the block lasts.

    The kernel lets go of a claim when its process dies. Where a file system knows no locks nobody gets one.

    Args:
        folder: need not exist; its parent need not either.
    """
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder.with_name(f".{folder.name}.lock")
    with path.open("a") as lock:
        mine = _locked(lock.fileno(), path)
        try:
            yield mine
        finally:
            if mine:
                path.unlink(missing_ok=True)


def _locked(lock: int, path: Path) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The last one to hold it may have deleted the file since this process opened it.
        return os.fstat(lock).st_ino == path.stat().st_ino
    except OSError:
        return False
