"""Deleting what was made from a site's data: patient data has one place, so it can be emptied."""

import shutil
from pathlib import Path

from sites.errors import InputError
from sites.home import home


def forget_site(name: str) -> list[str]:
    """Delete a site's dataset, features and predictions, and its remembered name.

    Args:
        name: a remembered name, or KIND:PATH.

    Returns:
        What was deleted, a line each.

    Raises:
        InputError: nothing of that name is remembered or ingested.
    """
    from sites import site
    from sites.origins import forget_datasets
    from sites.spec import SiteSpec

    known = site.registered()
    if name not in known and ":" not in name:
        raise InputError(f"no site {name!r} is remembered; `bench list sites` names those that are")
    lines = []
    if name in known:
        gone = site.forget(name)
        lines.append(f"forgot the name {name}")
    else:
        gone = forget_datasets(SiteSpec.parse(name, named="=" in name.partition(",")[0]), home())
    lines += [f"deleted {folder}" for folder in gone]
    for folder in ("features", "trained", "cohorts"):
        lines += _delete(home() / folder)
    return lines


def _delete(folder: Path) -> list[str]:
    """Features and predictions of all sites go with it: a federation's predictions are of several sites at once."""
    if not folder.is_dir():
        return []
    shutil.rmtree(folder)
    return [f"deleted {folder}"]
