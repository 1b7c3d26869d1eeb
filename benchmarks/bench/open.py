"""From `--site` and `--external` to sites that are read, or to the embedded simulated hospitals if there are none."""

import os
from collections.abc import Sequence
from pathlib import Path

from bench.output import note
from bench.progress import reading
from bench.suite import SuiteSpec
from sites.errors import InputError
from sites.home import home
from sites.site import Site, open_sites, registered
from sites.spec import SiteSpec


def specs(texts: Sequence[str]) -> list[SiteSpec]:
    """Read site specifications; a text without a colon is the name of a remembered site."""
    return [SiteSpec.parse(text) if ":" in text else remembered(text) for text in texts]


def remembered(name: str) -> SiteSpec:
    """The site that `bench site ingest NAME=KIND:PATH` remembered.

    Raises:
        InputError: none of that name.
    """
    known = registered()
    if name not in known:
        raise InputError(
            f"no site {name!r} is remembered (`bench list sites` names those that are); "
            "a new one is written NAME=KIND[,OPTION...]:PATH, e.g. boston=mimic4:/data/mimiciv"
        )
    return known[name]


def parse_site(text: str) -> tuple[SiteSpec, bool]:
    """Read `[NAME=]KIND[,OPTION...]:PATH` or a remembered name, and say whether it has a name."""
    if ":" not in text:
        return remembered(text), True
    named = "=" in text.partition(":")[0].partition(",")[0]
    return SiteSpec.parse(text, named=named), named


HOSPITALS = 6
REAL_DATA = "FEDWARD_REAL_DATA"


def embedded(hospitals: int = HOSPITALS) -> list[SiteSpec]:
    """So many embedded simulated hospitals, written under FEDWARD_HOME if they are not there yet."""
    from sites.simulate.federation import simulate

    place = home() / ("simulated" if hospitals == HOSPITALS else f"simulated-{hospitals}")
    return [hospital.spec for hospital in simulate(place, hospitals)]


def of_suite(suite: SuiteSpec) -> list[SiteSpec]:
    """The sites that a suite runs on where no site is named.

    Raises:
        InputError: it reads openly licensed data that is not there.
    """
    folder = Path(os.environ.get(REAL_DATA, "../shared/data"))
    if not suite.sites:
        return embedded(suite.hospitals)
    if any(f"${REAL_DATA}" in text for text in suite.sites) and not folder.is_dir():
        raise InputError(
            f"suite {suite.name} reads openly licensed data from {folder}, which is no folder; set {REAL_DATA} to the "
            f"folder that holds it, or name the sites with --site, each as it stands in the suite's file: "
            f"{', '.join(site.replace('$FEDWARD_REAL_DATA', 'FOLDER') for site in suite.sites)}"
        )
    return specs([text.replace(f"${REAL_DATA}", str(folder)) for text in suite.sites])


def open_all(
    site: Sequence[str], external: Sequence[str], *, quiet: bool, suite: SuiteSpec | None = None
) -> list[Site]:
    """Read every site, showing progress; the suite's own, or embedded ones, where none is named.

    Raises:
        InputError: a site that cannot be read or may not stand beside another, or none to train on.
    """
    if external and not site:
        raise InputError("sites given with --external are only scored; name those to train on with --site")
    with reading(quiet=quiet) as progress:
        if not site and not external:
            progress("simulating hospitals", 0.0)
            own = embedded() if suite is None else of_suite(suite)
            return open_sites(own, [], progress=progress, warn=note)
        return open_sites(specs(site), specs(external), progress=progress, warn=note)
