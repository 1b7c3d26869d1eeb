"""What a site answers, action by action."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from fedcore.client import client_app
from fedcore.engines import inline
from fedcore.engines.parcels import parcel, record
from fedcore.features import representation
from fedcore.learner import log_loss
from fedcore.models import model
from fedcore.samples import SiteSamples
from privacy.releases import sketches
from privacy.releases.messages import Parcel

Ask = Callable[..., Parcel]


@pytest.fixture
def samples(make_hospital: Any) -> SiteSamples:
    made: SiteSamples = make_hospital("boston", n=500)
    return made


@pytest.fixture
def opened() -> list[int]:
    """The nodes whose samples were opened."""
    return []


@pytest.fixture
def in_federation(samples: SiteSamples, opened: list[int]) -> Callable[[Callable[[Ask], None]], None]:
    """Runs a function that can ask the one site anything."""

    def open_site(context: Context) -> SiteSamples:
        opened.append(context.node_id)
        return samples

    def run(body: Callable[[Ask], None]) -> None:
        server = ServerApp()

        @server.main()
        def main(grid: Grid, context: Context) -> None:
            def ask(action: str, arrays: Any = None, **texts: Any) -> Parcel:
                content = RecordDict({"config": ConfigRecord(texts)} if texts else {})
                if arrays is not None:
                    content["arrays"] = record(arrays)
                (reply,) = grid.send_and_receive([Message(content, dst_node_id=1, message_type=action)])
                assert not reply.has_error(), reply.error.reason
                return parcel(reply.content)

            body(ask)

        inline.run(server, client_app(open_site), 1)

    return run


def _agree(ask: Ask, name: str = "logistic", recipe: str = "federated") -> dict[str, str]:
    """Bring the site to the agreed space; what a training message says."""
    shown = representation.load(model.load(name).representation)
    space = shown.agree(sketches.unpack(ask("query.statistics", representation=shown.name).arrays))
    ask("query.space", model=name, recipe=recipe, space=space.to_json())
    return {"setting": json.dumps(dict(model.load(name).recipe(recipe).untuned))}


def _learner(samples: SiteSamples, name: str = "logistic", recipe: str = "federated") -> Iterator[Any]:
    shown = representation.load(model.load(name).representation)
    space = shown.agree(shown.sketch(samples.in_split("train")))
    chosen = model.load(name).recipe(recipe)
    yield chosen.learner(space.sizes, chosen.untuned)
    yield lambda split: shown.encode(samples.in_split(split), space)


def test_a_site_introduces_itself_with_what_its_splits_hold(in_federation: Any, samples: SiteSamples) -> None:
    tuning = samples.label[samples.split == "tuning"]

    def body(ask: Ask) -> None:
        said = ask("query.site")
        assert said.texts == {"site": "boston"}
        assert said.numbers == {
            "train": (samples.split == "train").sum(),
            "tuning-events": tuning.sum(),
            "tuning-non-events": (~tuning).sum(),
        }

    in_federation(body)


def test_statistics_are_those_of_the_training_split(in_federation: Any, samples: SiteSamples) -> None:
    def body(ask: Ask) -> None:
        (moments,) = sketches.unpack(ask("query.statistics", representation="tabular").arrays).values()
        assert isinstance(moments, sketches.Moments)
        np.testing.assert_allclose(moments.mean(), samples.raw["x"][samples.split == "train"].mean(0))

    in_federation(body)


def test_training_is_the_learners_own_on_the_training_split(in_federation: Any, samples: SiteSamples) -> None:
    learner, encode = _learner(samples)
    start = learner.initial(0)
    label = samples.label[samples.split == "train"]

    def body(ask: Ask) -> None:
        said = ask("train", start, trial=0, seed=5, **_agree(ask), **{"server-round": 1})
        assert said.numbers["num-examples"] == said.numbers["loss-weight"] == len(label)
        assert not np.array_equal(said.arrays["weight"], start["weight"])
        again = ask("train", start, trial=0, seed=5, **_agree(ask), **{"server-round": 1})
        assert again.arrays["weight"].tobytes() == said.arrays["weight"].tobytes()
        later = ask("train", start, trial=0, seed=5, **_agree(ask), **{"server-round": 2})
        assert later.arrays["weight"].tobytes() != said.arrays["weight"].tobytes()
        after = log_loss(label, learner.predict(said.arrays, encode("train"))).mean()
        assert after < log_loss(label, learner.predict(start, encode("train"))).mean()

    in_federation(body)


def test_evaluation_is_the_summed_loss_over_the_tuning_split(in_federation: Any, samples: SiteSamples) -> None:
    learner, encode = _learner(samples)
    arrays = {"weight": np.full((1, 8), 0.3, np.float32), "bias": np.float32([-1])}
    label = samples.label[samples.split == "tuning"]

    def body(ask: Ask) -> None:
        said = ask("evaluate", arrays, trial=0, seed=5, **_agree(ask), **{"server-round": 1})
        assert said.numbers["num-examples"] == len(label)
        assert said.numbers["loss-sum"] == log_loss(label, learner.predict(arrays, encode("tuning"))).sum()

    in_federation(body)


def test_a_lone_sites_optimiser_goes_on_within_a_trial_and_starts_anew_in_the_next(in_federation: Any) -> None:
    def body(ask: Ask) -> None:
        config = _agree(ask, "gru", "alone")
        start = model.load("gru").alone.learner({"x": 8}, json.loads(config["setting"])).initial(0)

        def train(trial: int) -> bytes:
            return (
                ask("train", start, trial=trial, seed=5, **config, **{"server-round": 1})
                .arrays["output.weight"]
                .tobytes()
            )

        first, second, other = train(0), train(0), train(1)
        assert first != second
        assert first == other

    in_federation(body)


def test_samples_are_opened_once(in_federation: Any, opened: list[int]) -> None:
    in_federation(lambda ask: [ask("query.site") for _ in range(3)])
    assert opened == [1]
