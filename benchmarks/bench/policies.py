"""From `--policy` to what guards each site: a policy is the hospital's, and the runner only passes it on.

The runner says before anything runs what would be refused; who enforces it is the site (`fedcore.gate`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from bench.code import ORACLE
from leaderboard.measured import Check, SkippedSite
from leaderboard.record import Spec
from privacy.policy import Policy, PolicyError, PolicyRefusal, load
from privacy.total import Total
from sites.errors import InputError
from sites.home import home
from sites.site import Site

if TYPE_CHECKING:
    from fedcore.guard import Guard


@dataclass(frozen=True)
class SitePolicy:
    """A site's policy.

    Attributes:
        policy: what it says.
        file: the file's name, without folders.
        sha256: of the file.
    """

    policy: Policy
    file: str
    sha256: str


Policies = Mapping[str, SitePolicy]


def policies_of(texts: Sequence[str], sites: Sequence[Site]) -> dict[str, SitePolicy]:
    """Read `NAME=FILE` for one site (or all parts of it), and `FILE` for every other.

    Raises:
        InputError: a file is no policy, a name is no site, or a site has two.
    """
    found: dict[str, SitePolicy] = {}
    for_all: SitePolicy | None = None
    for text in texts:
        name, equals, file = text.partition("=")
        try:
            if not equals or "/" in name:
                if for_all is not None:
                    raise InputError(f"--policy: found a second file for all sites, {text!r}; write NAME={text}")
                for_all = _read(text)
                continue
            named = [site.name for site in sites if name in (site.name, site.spec.name)]
            if not named:
                raise InputError(
                    f"--policy: found the site {name!r}, expected one of {', '.join(site.name for site in sites)}; "
                    "correct the name"
                )
            one = _read(file)
        except PolicyError as error:
            raise InputError(str(error)) from error
        for site in named:
            if site in found:
                raise InputError(f"--policy: found two files for the site {site}, expected one; leave one out")
            found[site] = one
    if for_all is not None:
        found = {site.name: for_all for site in sites} | found
    return found


def _read(text: str) -> SitePolicy:
    path = Path(text).expanduser()
    policy, sha256 = load(path)
    return SitePolicy(policy, path.name, sha256)


def total_of(site: str) -> Total:
    """A site's total, of all analyses under FEDWARD_HOME."""
    return Total(home() / "totals" / f"{quote(site, safe='')}.ledger", home() / "ledgers")


def guards_of(policies: Policies, spec: Spec, analysis: str = "") -> dict[str, "Guard"]:
    """What guards each site in one cell, whose ledgers lie in the folder `analysis`."""
    if not policies:
        return {}
    from fedcore.guard import Guard, Named

    task = Named(spec.task.name, spec.task.sha256)
    return {
        site: Guard(one.policy, one.file, spec.suite.name, task, total_of(site), analysis)
        for site, one in policies.items()
    }


def refusals(spec: Spec, sites: Sequence[Site], policies: Policies) -> dict[str, str]:
    """The sites that refuse a cell, as far as that can be told without their patients, and why."""
    if not policies or spec.model.name == ORACLE:
        return {}
    from bench.training import request_of
    from fedcore.guard import Proposal
    from fedcore.plan import plan_of
    from fedcore.strategies.strategy import ANCHORS

    plan = plan_of(request_of(spec, sites))
    proposal = Proposal.of_plan(plan)
    guards = guards_of(policies, spec)
    external = {site.name for site in spec.sites if site.role == "external"}
    refused = {}
    for site in (site.name for site in sites if site.name in guards):
        try:
            if site in external:
                guards[site].examine_visit(proposal)
            elif spec.strategy.name in ANCHORS:
                guards[site].examine_anchor(proposal)
            else:
                guards[site].examine(proposal, plan.terms)
        except PolicyRefusal as refusal:
            refused[site] = str(refusal)
    return refused


def foreseen(specs: Sequence[Spec], sites: Sequence[Site], policies: Policies) -> list[str]:
    """A sentence for each refusal that will come, with how many cells it is of."""
    counted: dict[tuple[str, str], int] = {}
    for spec in specs:
        for refusal in refusals(spec, sites, policies).items():
            counted[refusal] = counted.get(refusal, 0) + 1
    return [
        f"site {site} will take no part in {number} of {len(specs)} cells: {reason}"
        for (site, reason), number in counted.items()
    ]


def told(policies: Policies, refused: Sequence[SkippedSite]) -> tuple[Check, ...]:
    """For the record: which policies were in force, by the hash of their files, and what came of them."""
    reasons = {one.name: one.reason for one in refused}
    return tuple(
        Check(
            name=f"policy of {site}",
            passed=site not in reasons,
            detail=f"sha256 {one.sha256}: {f'refused: {reasons[site]}' if site in reasons else 'kept'}",
        )
        for site, one in sorted(policies.items())
    )
