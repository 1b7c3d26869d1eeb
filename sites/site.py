"""Sites: a hospital's dataset, or a part of it, as one client of a federation.

Sites whose patients may overlap refuse to stand in one federation: a patient who trains at one site and is held out at
another would make every score a lie.
"""

import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from sites.dataset import Dataset, Manifest
from sites.errors import InputError
from sites.exports.export import BIDMC
from sites.home import home as default_home
from sites.home import write_whole
from sites.ingest import Progress, ingest
from sites.origins import forget_datasets
from sites.spec import SiteSpec
from sites.splits import dirichlet_parts

__all__ = ["Site", "SiteSpec", "forget", "open_sites", "register", "registered"]

_LOG = logging.getLogger(__name__)

CAREVUE = f"{BIDMC}-carevue"
"""The source of `mimic3,carevue`: patients of MIMIC-III all of whose ICU stays are CareVue, which ended in 2008."""
MIMIC4 = "mimic4"

UNKNOWN = "unknown"
"""The name of the site of those whose group is null."""


@dataclass(frozen=True)
class Site:
    """One client of a federation.

    Attributes:
        name: What records call it.
        dataset: Its MEDS dataset; a derived site shares it with its siblings.
        subjects: subject_id Int64, patient_id Int64: who of the dataset belongs to this site; sorted by subject_id.
        external: It is only scored.
        spec: As the user wrote it.
    """

    name: str
    dataset: Dataset
    subjects: pl.DataFrame
    external: bool
    spec: SiteSpec

    @property
    def whole(self) -> bool:
        """Whether it is all of its dataset."""
        return len(self.subjects) == self.dataset.manifest.n_subjects

    def scan(self) -> pl.LazyFrame:
        """The events of this site's subjects, lazily."""
        events = self.dataset.scan()
        if self.whole:
            return events
        return events.filter(pl.col("subject_id").is_in(self.subjects["subject_id"].implode()))


def open_sites(
    specs: Sequence[SiteSpec],
    external_specs: Sequence[SiteSpec] = (),
    *,
    home: Path | None = None,
    progress: Progress | None = None,
    jobs: int | None = None,
    warn: Callable[[str], None] | None = None,
) -> list[Site]:
    """The sites of one federation, ingested where they were not yet, and divided where `by=` or `parts=` says so.

    Args:
        specs: The sites that train.
        external_specs: The sites that are only scored.
        home: FEDWARD_HOME; default `sites.home.home()`.
        progress: As in `sites.ingest.ingest`.
        jobs: As in `sites.ingest.ingest`.
        warn: Told what is allowed but odd, e.g. residual overlap; default: a log record of level warning.

    Raises:
        InputError: A name stands twice, a site cannot be read, or patients may overlap.
    """
    home = home or default_home()
    opened: list[tuple[SiteSpec, bool, Dataset]] = []
    for external, spec in [*((False, spec) for spec in specs), *((True, spec) for spec in external_specs)]:
        opened.append((spec, external, ingest(spec, home, progress=progress, jobs=jobs)))
    _refuse_overlap([(spec, dataset) for spec, _, dataset in opened], warn or _LOG.warning)
    sites = [site for spec, external, dataset in opened for site in _divide(spec, dataset, external)]
    names = [site.name for site in sites]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"found two sites named {name}, expected each name once; name one of them otherwise")
    return sites


def _refuse_overlap(opened: Sequence[tuple[SiteSpec, Dataset]], warn: Callable[[str], None]) -> None:
    for index, (spec, dataset) in enumerate(opened):
        for other_spec, other in opened[:index]:
            _compare(other_spec, other.manifest, spec, dataset.manifest, warn)
            if other.manifest.source == dataset.manifest.source and _parts(other.manifest, dataset.manifest):
                shared = np.intersect1d(other.subjects["patient_id"], dataset.subjects["patient_id"]).size
                if shared:
                    raise InputError(
                        f"the sites {other_spec.name} ({other_spec.what}) and {spec.name} ({spec.what}) are declared "
                        f"disjoint parts of {dataset.manifest.source}, but {shared} patient ids stand in both; "
                        "leave one of them out"
                    )


def _parts(first: Manifest, second: Manifest) -> bool:
    return bool(first.part and second.part and first.part != second.part)


def _compare(
    first_spec: SiteSpec, first: Manifest, second_spec: SiteSpec, second: Manifest, warn: Callable[[str], None]
) -> None:
    """Raise if two datasets may hold the same patients."""
    what = f"{first_spec.name} ({first_spec.what}) and {second_spec.name} ({second_spec.what})"
    if first.source_sha256 == second.source_sha256 or first.content_sha256 == second.content_sha256:
        raise InputError(f"the sites {what} are the same data; leave one of them out, or divide one with by=")
    if {first.source, second.source} == {BIDMC, CAREVUE} and MIMIC4 in (first.kind, second.kind):
        warn(
            f"the sites {what} are one hospital in different years (CareVue 2001-2008, MIMIC-IV from 2008): "
            "a few patients may stand in both"
        )
        return
    one_hospital = {first.source, second.source} <= {BIDMC, CAREVUE}
    if (first.source == second.source and not _parts(first, second)) or (
        one_hospital and first.source != second.source
    ):
        raise InputError(
            f"the sites {what} come from one patient source ({first.source}): the same patients may train at one and "
            "be held out at the other; leave one of them out"
        )


def _divide(spec: SiteSpec, dataset: Dataset, external: bool) -> Iterator[Site]:
    """One site, or those that `by=` and `parts=` make of it; a patient belongs wholly to one."""
    subjects = dataset.subjects
    for suffix, members in _groups(spec, subjects):
        name = f"{spec.name}-{suffix}" if suffix else spec.name
        yield Site(name, dataset, members.select("subject_id", "patient_id").sort("subject_id"), external, spec)


def _groups(spec: SiteSpec, subjects: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    by, parts = spec.options.get("by"), spec.options.get("parts")
    if by and parts:
        raise InputError(f"found by= and parts= for the site {spec.name}, expected one of them; leave one out")
    if parts:
        yield from _parted(spec, subjects, parts)
        return
    if "skew" in spec.options:
        raise InputError(f"found skew= without parts= for the site {spec.name}; add parts=NUMBER")
    if not by:
        yield "", subjects
        return
    of_patient = first_value(subjects, by)
    slugs: dict[str, str | None] = {}
    for value in of_patient["value"].unique().sort(nulls_last=True):
        slug = UNKNOWN if value is None else slugify(value)
        if slug in slugs:
            raise InputError(
                f"the values {slugs[slug]!r} and {value!r} of {by} give the site {spec.name} the same name {slug!r}; "
                "rename one of them in the export"
            )
        slugs[slug] = value
        members = of_patient.filter(pl.col("value").eq_missing(pl.lit(value, dtype=pl.String)))
        yield slug, subjects.join(members, on="patient_id", how="semi")


def first_value(subjects: pl.DataFrame, group: str) -> pl.DataFrame:
    """patient_id and `value`: the patient's group, that of the first subject (stay) of the patient.

    Where a patient has several subjects they carry the value of the patient's first stay already (`Export.frames`); the
    first in order of subject_id that has one decides.
    """
    return (
        subjects.sort("patient_id", "subject_id")
        .group_by("patient_id", maintain_order=True)
        .agg(pl.col(group).drop_nulls().first().alias("value"))
    )


def slugify(value: str) -> str:
    """A group value as part of a site's name.

    >>> slugify("Medical Intensive Care Unit (MICU)")
    'medical-intensive-care-unit-micu'
    """
    return re.sub(r"[^a-z0-9]+", "-", value.lower()).strip("-") or "blank"


def _parted(spec: SiteSpec, subjects: pl.DataFrame, parts: str) -> Iterator[tuple[str, pl.DataFrame]]:
    form = "parts=NUMBER and skew=quantity@ALPHA or skew=GROUP@ALPHA"
    what, _, alpha = spec.options.get("skew", "quantity@1000000").partition("@")
    groups = [column for column in subjects.columns if column not in ("subject_id", "patient_id")]
    try:
        number, concentration = int(parts), float(alpha)
    except ValueError:
        number, concentration = 0, 0.0
    if not 1 <= number <= 1000 or not concentration > 0 or what not in ("quantity", *groups):
        raise InputError(
            f"found the options of {spec.what}, expected {form} with 1 to 1000 parts, ALPHA > 0 and GROUP one of "
            f"{', '.join(groups) or 'none (this kind has no groups)'}; correct them"
        )
    if what == "quantity":
        patients, label = subjects.select("patient_id").unique().sort("patient_id"), None
    else:
        patients = first_value(subjects, what)
        label = patients["value"].fill_null(UNKNOWN).to_numpy()
    part = dirichlet_parts(patients["patient_id"], label, concentration, number, seed=0)
    for index in range(number):
        members = patients.filter(pl.Series(part == index))
        if len(members):
            yield f"part{index + 1}", subjects.join(members, on="patient_id", how="semi")


def registered(home: Path | None = None) -> dict[str, SiteSpec]:
    """The sites that the user has registered, by name."""
    path = (home or default_home()) / "sites.json"
    if not path.is_file():
        return {}
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return {name: replace(SiteSpec.parse(f"{name}={what}"), name=name) for name, what in told.items()}
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path}: found no list of sites ({error}), expected name to KIND:PATH; remove it") from None


def register(spec: SiteSpec, home: Path | None = None) -> None:
    """Remember a site by its name; a later one of the same name takes its place."""
    absolute = replace(spec, path=spec.path.resolve())
    _write_registered(registered(home) | {spec.name: absolute}, home or default_home())


def forget(name: str, home: Path | None = None) -> list[Path]:
    """Forget a site, and delete its dataset unless another registered site uses it.

    Returns:
        The deleted folders.

    Raises:
        InputError: No site of that name is registered.
    """
    home = home or default_home()
    known = registered(home)
    if name not in known:
        raise InputError(
            f"found no registered site {name!r}, expected one of {', '.join(sorted(known)) or 'none: there is no site'}"
        )
    spec = known.pop(name)
    _write_registered(known, home)
    used = any(o.path == spec.path and o.reading_options() == spec.reading_options() for o in known.values())
    return [] if used else forget_datasets(spec, home)


def _write_registered(specs: dict[str, SiteSpec], home: Path) -> None:
    told = {name: spec.what for name, spec in sorted(specs.items())}
    write_whole(home / "sites.json", json.dumps(told, indent=1) + "\n")
