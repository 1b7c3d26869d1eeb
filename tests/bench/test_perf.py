"""What `make perf` compares is one and the same training."""

from pathlib import Path

import numpy as np
import pytest

PERF = Path(__file__).parents[2] / "benchmarks" / "perf"


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(PERF))


@pytest.mark.parametrize("hidden", [0, 8])
@pytest.mark.parametrize("sites", [1, 5])
def test_the_plain_loop_comes_to_the_inline_engines_very_model(hidden, sites):
    import federated
    from job import made_up
    from shared_job import Training

    training = Training(hidden=hidden, rounds=4, epochs=2, batch_size=8, step_size=0.1)
    job = made_up(sites, train=50, tuning=400 // sites, training=training)
    ours = federated.inline(job)
    assert any(np.any(value != 0) for value in ours.arrays.values())
    for style in ("plain", "gathered"):
        loop = federated.plain(job, job.tensors(), style=style)
        assert len(ours.processor) == len(loop.processor) == training.rounds
        assert federated.difference(ours.arrays, loop.arrays) == 0
        assert ours.tuning_loss == pytest.approx(loop.tuning_loss, rel=1e-12)


def test_a_job_survives_its_file(tmp_path):
    from job import made_up
    from shared_job import Training, load, save

    job = made_up(2, train=30, tuning=12, training=Training(rounds=3, step_size=0.25))
    save(tmp_path / "job.npz", job.training, job.tensors())
    training, sites = load(tmp_path / "job.npz")
    assert training == job.training
    for kept, site in zip(sites, job.tensors(), strict=True):
        assert kept.name == site.name
        for field in ("x", "y", "tuning_x", "tuning_y"):
            assert np.array_equal(getattr(kept, field), getattr(site, field))


def test_a_perceptron_has_about_the_parameters_that_it_is_asked_for():
    from networks import Perceptron, hidden_for

    for wanted in (100, 10_000, 1_000_000):
        network = Perceptron(13, hidden_for(wanted, 13))
        assert sum(value.numel() for value in network.parameters()) == pytest.approx(wanted, rel=0.06)


def test_both_secure_sums_come_to_the_mean():
    import sums

    sites = sums.Sites(500, 4)
    with sums._task():
        for make, within in ((sums.ours, 1e-9), (sums.flower, 2e-5)):
            add_up, counted = make(sites)
            for _ in range(2):
                assert np.abs(add_up() - sites.mean).max() < within
            assert counted()["up"] > 4 * 500 * 8
    for bits, within in ((64, 1e-12), (32, 1e-6)):
        assert np.abs(sums.protocol(sites, bits) - sites.mean).max() < within
