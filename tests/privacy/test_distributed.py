"""Noise that sites share: what is left of it, and that rounding it to whole numbers costs next to nothing."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chi2, norm

from privacy.accounting import gaussian_delta
from privacy.distributed import SharedNoise
from privacy.noise import Cryptographic, Seeded
from privacy.releases.sketches import ReleaseError
from privacy.secagg.coordinator import majority

SITES = 6
NOISE = SharedNoise(
    noise_multiplier=1.3,
    step_size=0.7,
    clip=2.0,
    sampling_rate=0.2,
    scale=2.0**28,
    coordinates=20_000,
    threshold=majority(SITES),
)


def _within(squares: float, variance: float, n: int) -> bool:
    """Whether a sum of n squared normals is one of that variance, but for one time in a million."""
    low, high = chi2.ppf([5e-7, 1 - 5e-7], n)
    return bool(low <= squares / variance <= high)


@pytest.mark.parametrize("source", ["seeded", "cryptographic"])
@pytest.mark.parametrize("there", [NOISE.threshold, SITES])
def test_whoever_subtracts_a_share_faces_the_noise_that_is_accounted(source: str, there: int) -> None:
    rng = np.random.default_rng(there)
    shares = [NOISE.draw(Seeded(rng) if source == "seeded" else Cryptographic()) for _ in range(there)]
    accounted = (NOISE.noise_multiplier * 1.001 * 2.0**28 * 0.7 * 2.0 / 0.2) ** 2
    assert (NOISE.noise_multiplier * NOISE.sensitivity) ** 2 == pytest.approx(accounted, rel=1e-6)
    left = np.sum(shares[1:], axis=0)
    more = (there - 1) / (NOISE.threshold - 1)  # 1 where nobody stayed who need not
    assert more >= 1
    scaled = left / math.sqrt(accounted)
    assert _within(float(scaled @ scaled), more, left.size)
    assert all(share.dtype == np.int64 for share in shares)


def _rounded(deviation: float, reach: int) -> np.ndarray:
    """The probabilities of rint of a normal, from -reach to reach."""
    at = np.arange(-reach, reach + 1)
    return np.asarray(norm.cdf((at + 0.5) / deviation) - norm.cdf((at - 0.5) / deviation))


def _sum(shares: int, deviation: float, reach: int) -> np.ndarray:
    one = total = _rounded(deviation, reach)
    for _ in range(shares - 1):
        total = np.convolve(total, one)
    middle = len(total) // 2
    return total[middle - reach : middle + reach + 1]


@pytest.mark.parametrize("threshold", [3, 4, 7])
@pytest.mark.parametrize(("scale", "z"), [(4.0, 1.0), (8.0, 0.6), (20.0, 2.0)])
def test_on_a_coarse_grid_rounding_costs_what_is_said_at_most(threshold: int, scale: float, z: float) -> None:
    noise = SharedNoise(z, 1.0, 1.0, 1.0, scale, coordinates=1, threshold=threshold)
    total = z * noise.sensitivity
    reach = int(9 * total) + 30
    found = _sum(noise.honest, noise.deviation, reach)
    apart = float(np.abs(found - _rounded(total, reach)).sum()) / 2
    assert 0 < apart <= noise.distance(1)
    moved = math.floor(noise.sensitivity)
    with_patient = np.concatenate([np.zeros(moved), found[:-moved]])
    for target in (0.1, 1.0, 3.0):
        delta = max(
            float(np.maximum(one - math.exp(target) * other, 0).sum())
            for one, other in ((found, with_patient), (with_patient, found))
        )
        assert delta <= gaussian_delta(z, target) + (1 + math.exp(target)) * noise.distance(1) + 1e-12


def test_rounding_counts_in_every_coordinate_and_round() -> None:
    coarse = replace(NOISE, scale=1.0)
    assert coarse.sensitivity == pytest.approx(1.001 * 0.7 * 2.0 / 0.2 + math.sqrt(20_000))
    assert NOISE.distance(6) / NOISE.distance(1) == pytest.approx(6)
    assert NOISE.distance(1) / replace(NOISE, coordinates=200).distance(1) == pytest.approx(100)


def test_a_fine_grid_adds_next_to_nothing_and_a_coarse_one_is_refused() -> None:
    NOISE.check(8.0, 1e-5, 1000)
    assert (1 + math.exp(8)) * replace(NOISE, coordinates=200).distance(100) < 1e-6 * 1e-5
    with pytest.raises(ReleaseError, match="rounding the shared noise to whole numbers would add"):
        replace(NOISE, scale=2.0**6).check(8.0, 1e-5, 1000)
    with pytest.raises(ReleaseError, match="rounding"):
        NOISE.check(1000.0, 1e-5, 1000)
