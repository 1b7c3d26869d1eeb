"""What a coordinator sees is what sites sent and what is averaged, and nothing of it changes by being seen."""

import numpy as np

from fedcore.engines.grid import Passed
from fedcore.federation import FederationRequest, run_federation
from fedcore.samples import SiteSamples


def test_what_passes_is_what_is_averaged(clinics: list[SiteSamples], told) -> None:
    request = FederationRequest(model="logistic", strategy="fedmedian", rounds=2)
    seen: list[Passed] = []
    result = run_federation(clinics, request, watch=seen.append)
    assert told(run_federation(clinics, request)) == told(result)
    sites = sorted(one.site for one in clinics if not one.external and one.site not in result.skipped)
    chosen = [one for one in seen if one.trial == result.chosen]
    assert [(one.round, one.site) for one in chosen][: 2 * len(sites)] == [(r, s) for r in (1, 2) for s in sites]
    last = [one for one in chosen if one.round == result.trials[result.chosen or 0].best_round]
    for name, value in result.arrays.items():
        assert value.dtype == last[0].arrived[name].dtype
        middle = np.median([one.arrived[name].astype(np.float64) for one in last], axis=0)
        assert np.allclose(middle, value, atol=1e-6)
    first = {one.site: one for one in chosen if one.round == 1}
    assert all((one.sent["weight"] == 0).all() and (one.arrived["weight"] != 0).any() for one in first.values())
    second = [one.sent for one in chosen if one.round == 2]
    assert all(np.array_equal(second[0][name], other[name]) for other in second for name in other)
