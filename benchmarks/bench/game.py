"""The game that decides who was trained on, where a federation is attacked.

It is that of Yeom et al. (Privacy Risk in Machine Learning, 2018, experiment 1) and Carlini et al. (Membership
Inference Attacks From First Principles, 2022, definition 1), with the patient as the unit: of each site's training
patients a fair coin decides who is a member. The federation trains on members; the others are candidates like them,
from the same draw, whom it never met. Tuning patients are set aside, so that every federation trains as declared to its
last round, and an attacker can train its like. Held-out patients stay what they are.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fedcore.samples import SiteSamples
from fedcore.streams import stream

ASIDE = "recalibration"
"""The split of those who take no part."""


def candidates(site: SiteSamples, seed: int, patients: int | None = None) -> np.ndarray:
    """int64: whom a coin decides of: the site's training patients, or so many of them, drawn at random."""
    train = np.unique(site.patient_id[site.split == "train"])
    if patients is None or len(train) <= patients:
        return train
    return np.sort(stream(seed, "candidates", site.site).permutation(train)[:patients])


def play(
    sites: Sequence[SiteSamples], seed: int, *names: str | int, turned: bool = False, patients: int | None = None
) -> list[SiteSamples]:
    """The sites' samples with the splits of one game.

    Args:
        sites: with the splits that are theirs.
        seed: the cell's.
        names: of the game.
        turned: every coin turned: members are those who else would be none.
        patients: the most candidates a site; None: all training patients.
    """
    return [_played(site, candidates(site, seed, patients), seed, names, turned) for site in sites]


def _played(
    site: SiteSamples, patients: np.ndarray, seed: int, names: tuple[str | int, ...], turned: bool
) -> SiteSamples:
    train = site.split == "train"
    heads = stream(seed, "members", *names, site.site).random(len(patients)) < 0.5
    members = patients[heads != turned]
    split = np.where(train & ~np.isin(site.patient_id, members), ASIDE, site.split)
    return replace(site, split=np.where(split == "tuning", ASIDE, split))
