"""What a user names as `module:NAME`: a class or object of a module in the current folder or installed."""

import importlib
import sys
from typing import Any

from sites.errors import InputError


def is_plugin(name: str) -> bool:
    """Whether a name is written `module:NAME`.

    >>> is_plugin("fedavg"), is_plugin("mylab.strategies:Mine")
    (False, True)
    """
    return ":" in name


def plugin_module(name: str) -> str:
    """The module of `module:NAME`.

    Raises:
        InputError: it is not written so.
    """
    module, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in module.split(".")) or not attribute.isidentifier():
        raise InputError(f"found {name!r}, expected module:NAME, as mylab.strategies:MyStrategy")
    return module


def named(name: str, what: str) -> Any:
    """The object that `module:NAME` names.

    Raises:
        InputError: the module cannot be imported, or has nothing of that name.
    """
    module, attribute = plugin_module(name), name.partition(":")[2]
    try:
        found = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # a user's module may fail in any way
        missing = isinstance(error, ModuleNotFoundError) and error.name in _above(module)
        reason = (
            f"found no such module in {sys.path[0] or '.'} or installed"
            if missing
            else f"{type(error).__name__}: {error}"
        )
        raise InputError(f"the {what} {name} cannot be imported: {reason}") from error
    if not hasattr(found, attribute):
        there = ", ".join(sorted(entry for entry in vars(found) if not entry.startswith("_"))[:10])
        raise InputError(f"the module {module} has no {attribute}; it has {there or 'nothing'}")
    return getattr(found, attribute)


def _above(module: str) -> set[str]:
    parts = module.split(".")
    return {".".join(parts[:count]) for count in range(1, len(parts) + 1)}
