"""From `--site` and `--external` to sites that are read, or to the embedded simulated hospitals if there are none."""

from collections.abc import Sequence

from bench.output import note
from bench.progress import reading
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


def embedded() -> list[SiteSpec]:
    """The embedded simulated hospitals, written under FEDWARD_HOME if they are not there yet."""
    from sites.simulate.federation import simulate

    return [hospital.spec for hospital in simulate(home() / "simulated")]


def open_all(site: Sequence[str], external: Sequence[str], *, quiet: bool) -> list[Site]:
    """Read every site, showing progress.

    Raises:
        InputError: a site that cannot be read or may not stand beside another, or none to train on.
    """
    if external and not site:
        raise InputError("sites given with --external are only scored; name those to train on with --site")
    with reading(quiet=quiet) as progress:
        if not site and not external:
            progress("simulating hospitals", 0.0)
            return open_sites(embedded(), [], progress=progress, warn=note)
        return open_sites(specs(site), specs(external), progress=progress, warn=note)
