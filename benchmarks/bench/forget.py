"""Deleting what was made from a site's data: patient data has one place, so it can be emptied."""

import shutil

from bench.open import parse_site
from sites import site
from sites.errors import InputError
from sites.home import home
from sites.origins import forget_datasets

DERIVED = ("cohorts", "features", "trained", "checkpoints")
"""Samples, features and predictions: of all sites, since those of a federation are of several at once. They are made
anew when they are wanted."""


def forget_site(name: str) -> list[str]:
    """Delete a site's datasets and all that was derived from any, and its remembered name.

    Args:
        name: a remembered name, or KIND:PATH.

    Returns:
        What was done, a line each.

    Raises:
        InputError: nothing of that name is remembered, or nothing of that export is there.
    """
    place = home()
    if name in site.registered():
        lines = [f"forgot the name {name}", *(f"deleted {path}" for path in site.forget(name))]
    elif ":" in name:
        spec, _ = parse_site(name)
        lines = [f"deleted {path}" for path in forget_datasets(spec, place)]
        if not lines:
            raise InputError(f"nothing was made from {spec.what}; `bench status` says what is there")
    else:
        raise InputError(f"no site {name!r} is remembered; `bench list sites` names those that are")
    for folder in DERIVED:
        if (place / folder).is_dir():
            shutil.rmtree(place / folder)
            lines.append(f"deleted {place / folder}")
    return lines
