"""Parts by name: one file of a folder each, registered by being there; or a user's own, named as `module:NAME`."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from fedcore.plugin import is_plugin, named, plugin_module
from sites.errors import InputError

Part = TypeVar("Part")


@dataclass(frozen=True)
class Registry(Generic[Part]):
    """The parts of one kind.

    Attributes:
        what: what such a part is called.
        package: the folder of their files, as it is imported.
        attribute: what each file defines.
        no_part: files of the folder that are none; the first holds the registry.
        of_a_user: makes a part of its name and the object that a user names; None: a user can name none.
        without_file: parts that the registry's own file holds.
    """

    what: str
    package: str
    attribute: str
    no_part: tuple[str, ...]
    of_a_user: Callable[[str, Any], Part] | None = None
    without_file: Mapping[str, Part] = field(default_factory=dict)

    def files(self) -> dict[str, Path]:
        """The parts with a file and where it is, sorted by name; loads none of them."""
        folders = importlib.import_module(self.package).__path__
        found = {path.stem: path for folder in folders for path in Path(folder).glob("[a-z]*.py")}
        return {name: found[name] for name in sorted(found) if name not in self.no_part}

    def names(self) -> list[str]:
        """The parts that come with FedWard: those without a file, then the others, sorted."""
        return [*self.without_file, *self.files()]

    def module(self, name: str) -> str:
        """The module that holds a part.

        Raises:
            InputError: there is none of that name.
        """
        if self.of_a_user is not None and is_plugin(name):
            return plugin_module(name)
        if name not in self.names():
            own = "" if self.of_a_user is None else ", or module:NAME"
            raise InputError(f"unknown {self.what} {name!r}; expected one of {', '.join(self.names())}{own}")
        return f"{self.package}.{self.no_part[0] if name in self.without_file else name}"

    def load(self, name: str) -> Part:
        """The part of that name.

        Raises:
            InputError: there is none, or what `module:NAME` names cannot be one.
        """
        if self.of_a_user is not None and is_plugin(name):
            return self.of_a_user(name, named(name, self.what))
        module = self.module(name)
        if name in self.without_file:
            return self.without_file[name]
        part: Part = getattr(importlib.import_module(module), self.attribute)
        return part
