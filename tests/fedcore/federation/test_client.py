"""What a site answers, action by action."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from fedcore.client import client_app
from fedcore.desk import Desk
from fedcore.engines import inline
from fedcore.engines.grid import MEMORY_LOST, TERMS
from fedcore.engines.parcels import parcel, record
from fedcore.features import representation
from fedcore.learner import log_loss
from fedcore.memory import SiteMemory
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
def in_federation(samples: SiteSamples) -> Callable[..., None]:
    """Runs a function that can ask one site anything; `terms` are what the federation says beside the strategy."""

    def run(body: Callable[[Ask], None], memory: SiteMemory | None = None, of: SiteSamples = samples) -> None:
        server = ServerApp()
        here = Desk(of, memory or SiteMemory(None, of.site))

        @server.main()
        def main(grid: Grid, context: Context) -> None:
            def ask(action: str, arrays: Any = None, terms: dict[str, Any] | None = None, **texts: Any) -> Parcel:
                content = RecordDict({"config": ConfigRecord(texts)} if texts else {})
                if arrays is not None:
                    content["arrays"] = record(arrays)
                content[TERMS] = ConfigRecord({"federation": "0", **(terms or {})})
                (reply,) = grid.send_and_receive([Message(content, dst_node_id=1, message_type=action)])
                if reply.has_error():
                    raise RefusedError(reply.error.reason, reply.error.code)
                return parcel(reply.content)

            body(ask)

        inline.run(server, client_app(lambda context, federation: here), 1)

    return run


class RefusedError(Exception):
    """The site answered with an error: the reason and the code."""


def _agree(ask: Ask, name: str = "logistic", recipe: str = "federated") -> Callable[..., dict[str, Any]]:
    """Bring the site to the agreed space; makes what the federation says in a round."""
    shown = representation.load(model.load(name).representation)
    space = shown.agree(sketches.unpack(ask("query.statistics", representation=shown.name).arrays))
    ask("query.space", model=name, recipe=recipe, strategy="fedavg", space=space.to_json())
    setting = json.dumps(dict(model.load(name).recipe(recipe).untuned))

    def terms(number: int = 1, *, trial: int = 0, last: int = 0, best: int = 0) -> dict[str, Any]:
        told = {"trial": trial, "seed": 5, "setting": setting}
        return {**told, "round": number, "last-round": last, "best-round": best}

    return terms


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
            "tuning": len(tuning),
            "tuning-events": tuning.sum(),
            "tuning-non-events": (~tuning).sum(),
        }

    in_federation(body)


@pytest.mark.parametrize(("events", "told"), [(9, (0, 0)), (10, (10, 10)), (11, (0, 0))])
def test_a_site_tells_of_both_outcomes_in_its_tuning_split_or_of_neither(
    events: int, told: tuple[int, int], in_federation: Any, samples: SiteSamples
) -> None:
    """Nine events among twenty would be known from the eleven others and the twenty."""
    tuning = np.flatnonzero(samples.split == "tuning")[:20]
    label = samples.label.copy()
    label[tuning] = np.arange(20) < events
    split = np.where(samples.split == "tuning", "held_out", samples.split)
    split[tuning] = "tuning"

    def body(ask: Ask) -> None:
        numbers = ask("query.site").numbers
        assert (numbers["tuning"], numbers["tuning-events"], numbers["tuning-non-events"]) == (20, *told)

    in_federation(body, of=replace(samples, label=label, split=split))


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
        terms = _agree(ask)
        said = ask("train", start, terms())
        assert said.numbers["num-examples"] == said.numbers["loss-weight"] == len(label)
        assert said.numbers["steps"] == 4 * -(-len(label) // 64)
        assert not np.array_equal(said.arrays["weight"], start["weight"])
        again = ask("train", start, terms())
        assert again.arrays["weight"].tobytes() == said.arrays["weight"].tobytes()
        later = ask("train", start, terms(2, last=1))
        assert later.arrays["weight"].tobytes() != said.arrays["weight"].tobytes()
        after = log_loss(label, learner.predict(said.arrays, encode("train"))).mean()
        assert after < log_loss(label, learner.predict(start, encode("train"))).mean()

    in_federation(body)


def test_evaluation_is_the_summed_loss_over_the_tuning_split(in_federation: Any, samples: SiteSamples) -> None:
    learner, encode = _learner(samples)
    arrays = {"weight": np.full((1, 8), 0.3, np.float32), "bias": np.float32([-1])}
    label = samples.label[samples.split == "tuning"]

    def body(ask: Ask) -> None:
        said = ask("evaluate", arrays, _agree(ask)())
        assert said.numbers["num-examples"] == len(label)
        assert said.numbers["loss-sum"] == log_loss(label, learner.predict(arrays, encode("tuning"))).sum()

    in_federation(body)


def test_a_lone_sites_optimiser_goes_on_within_a_trial_and_starts_anew_in_the_next(in_federation: Any) -> None:
    def body(ask: Ask) -> None:
        terms = _agree(ask, "gru", "alone")
        start = model.load("gru").alone.learner({"x": 8}, json.loads(terms()["setting"])).initial(0)

        def train(number: int, **more: int) -> bytes:
            return ask("train", start, terms(number, **more)).arrays["output.weight"].tobytes()

        first, second = train(1), train(2, last=1)
        assert train(1, trial=1) == first
        assert train(2, last=1) == second
        assert train(2) != second

    in_federation(body)


def test_a_site_that_has_forgotten_says_so_with_a_code_of_its_own(in_federation: Any, samples: SiteSamples) -> None:
    start = {"weight": np.zeros((1, 8), np.float32), "bias": np.zeros(1, np.float32)}

    def body(ask: Ask) -> None:
        terms = _agree(ask)
        for action in ("train", "evaluate"):
            with pytest.raises(RefusedError, match="what the site remembered of round 7 is lost") as refusal:
                ask(action, start, terms(8, last=7))
            assert refusal.value.args[1] == MEMORY_LOST

    in_federation(body)


def test_a_site_that_has_forgotten_what_was_agreed_says_so(in_federation: Any) -> None:
    def body(ask: Ask) -> None:
        terms = {"trial": 0, "seed": 5, "setting": "{}", "round": 2, "last-round": 1, "best-round": 1}
        with pytest.raises(RefusedError, match="what the sites agreed on is lost") as refusal:
            ask("train", {"weight": np.zeros((1, 8), np.float32)}, terms)
        assert refusal.value.args[1] == MEMORY_LOST

    in_federation(body)


def test_a_desk_is_asked_for_by_site_and_federation(samples: SiteSamples) -> None:
    asked: list[tuple[str, str]] = []
    server = ServerApp()

    def open_desk(context: Context, federation: str) -> Desk:
        asked.append((str(context.node_config["partition-id"]), federation))
        return Desk(samples, SiteMemory(None, samples.site))

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        for node, federation in ((1, "0"), (2, "0"), (2, "1")):
            content = RecordDict({TERMS: ConfigRecord({"federation": federation})})
            list(grid.send_and_receive([Message(content, dst_node_id=node, message_type="query.site")]))

    inline.run(server, client_app(open_desk), 2)
    assert list(dict.fromkeys(asked)) == [("0", "0"), ("1", "0"), ("1", "1")]
