"""The kinds of export, by name: every module of this folder with an `EXPORT`, and a user's own modules."""

import importlib
import pkgutil

import sites.exports
from sites.errors import InputError
from sites.exports.export import Export


def kinds() -> list[str]:
    """The kinds that come with the project, sorted."""
    names = sorted(module.name for module in pkgutil.iter_modules(sites.exports.__path__))
    return [name for name in names if name not in ("export", "registry") and _is_export(name)]


def _is_export(name: str) -> bool:
    return isinstance(getattr(importlib.import_module(f"sites.exports.{name}"), "EXPORT", None), Export)


def load(kind: str) -> Export:
    """The declaration of a kind: `mimic4`, or a module of the user's own, `mylab.myhospital`.

    Raises:
        InputError: There is no such kind, or the module holds no `EXPORT`.
    """
    module_name = kind if "." in kind else f"sites.exports.{kind}"
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise InputError(
                f"found the export kind {kind!r}, expected one of {', '.join(kinds())} "
                "or the dotted name of a module that can be imported; correct the kind"
            ) from None
        raise
    export = getattr(module, "EXPORT", None)
    if not isinstance(export, Export):
        raise InputError(
            f"the module {module_name} holds no EXPORT of type sites.exports.export.Export; "
            f"expected one of {', '.join(kinds())} or a module that declares one"
        )
    return export
