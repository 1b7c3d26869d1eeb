"""From `--site` and `--external` to sites that are read, or to the embedded simulated hospitals if there are none."""

from collections.abc import Sequence

from bench.output import note
from bench.progress import reading
from sites.home import home
from sites.site import Site, open_sites, registered
from sites.spec import SiteSpec


def specs(texts: Sequence[str]) -> list[SiteSpec]:
    """Read site specifications; a text without a colon is the name of a remembered site."""
    known = registered() if any(":" not in text for text in texts) else {}
    return [known[text] if text in known else SiteSpec.parse(text) for text in texts]


def parse_site(text: str) -> tuple[SiteSpec, bool]:
    """Read `[NAME=]KIND[,OPTION...]:PATH`, and say whether it has a name."""
    named = "=" in text.partition(":")[0].partition(",")[0]
    return SiteSpec.parse(text, named=named), named


def embedded() -> list[SiteSpec]:
    """The embedded simulated hospitals, written under FEDWARD_HOME if they are not there yet."""
    from sites.simulate.federation import simulate

    return [hospital.spec for hospital in simulate(home() / "simulated")]


def open_all(site: Sequence[str], external: Sequence[str], *, quiet: bool) -> list[Site]:
    """Read every site, showing progress.

    Raises:
        InputError: a site that cannot be read or may not stand beside another.
    """
    with reading(quiet=quiet) as progress:
        if not site and not external:
            progress("simulating hospitals", 0.0)
            return open_sites(embedded(), [], progress=progress, warn=note)
        return open_sites(specs(site), specs(external), progress=progress, warn=note)
