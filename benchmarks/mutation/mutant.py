"""What a mutant is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One line that is broken.

    Attributes:
        file: where.
        name: what is broken.
        find: the text, which stands in the file exactly once.
        replacement: what it becomes.
        tests: those of which one must fail.
    """

    file: str
    name: str
    find: str
    replacement: str
    tests: tuple[str, ...]


def within(file: str, tests: str, *mutants: tuple[str, str, str, str]) -> tuple[Mutant, ...]:
    """Mutants of one file: what is broken, text, replacement, test in `tests`."""
    return tuple(Mutant(file, name, find, new, (f"{tests}::{test}",)) for name, find, new, test in mutants)
