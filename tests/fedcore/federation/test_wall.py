"""The hospital's wall: every action is put to a tiny site, and all that left it is looked at."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedcore.client import client_app, wall
from fedcore.desk import Desk
from fedcore.engines import inline, parcels
from fedcore.engines.grid import TERMS, SiteGrid, Turn
from fedcore.engines.inline import InlineGrid
from fedcore.errors import FederationError
from fedcore.features import representation
from fedcore.federation import FederationRequest, run_federation
from fedcore.memory import SiteMemory
from fedcore.models import model
from fedcore.samples import SiteSamples
from privacy.releases.messages import SCHEMAS

SECURE = {"query.advertise", "query.share", "train.masked", "query.unmask"}

TINY = 37
"""Samples of the tiny site: a length no model, grid or text of it has."""


class Tap(InlineGrid):
    """Keeps what every site sent, as it left."""

    left: list[tuple[str, RecordDict]]

    def _delivered(self, message: Message) -> Message:
        reply = super()._delivered(message)
        assert not reply.has_error(), reply.error.reason
        type(self).left.append((reply.metadata.message_type, reply.content))
        return reply


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, RecordDict]]:
    """What left the sites, in order."""
    Tap.left = []
    monkeypatch.setattr(inline, "InlineGrid", Tap)
    return Tap.left


@pytest.fixture
def tiny(make_hospital: Any) -> SiteSamples:
    samples: SiteSamples = make_hospital("tiny", n=TINY, d=5)
    return samples


def _values(content: RecordDict) -> Iterator[np.ndarray]:
    for record in content.array_records.values():
        yield from (array.numpy() for array in record.values())
    for numbers in content.metric_records.values():
        yield from (np.asarray(value) for value in numbers.values())


@pytest.mark.parametrize(("model", "secure"), [("logistic", False), ("gru", False), ("logistic", True)])
def test_nothing_like_a_row_an_id_or_a_date_leaves(
    model: str, secure: bool, tiny: SiteSamples, make_hospital: Any, left: list[tuple[str, RecordDict]]
) -> None:
    others = [make_hospital(name, n=300, d=5) for name in ("other", "third")[: 1 + secure]]
    request = FederationRequest(model=model, strategy="fedavg", rounds=2, secure_aggregation=secure)
    run_federation([tiny, *others], request)
    assert {action for action, _ in left} == set(SCHEMAS) - ({"train"} if secure else SECURE)
    lengths = {len(tiny), *(int((tiny.split == split).sum()) for split in set(tiny.split.tolist()))} - {1, 2, 3, 5}
    days = tiny.prediction_time.astype("datetime64[D]")
    for action, content in left:
        texts = {str(value) for record in content.config_records.values() for value in record.values()}
        assert texts <= {"tiny", "other", "third"}, action
        for value in _values(content):
            assert not lengths & set(value.shape), action
            numbers = set(np.ravel(value).tolist())
            assert not numbers & set(tiny.patient_id.tolist()), action
            assert not numbers & set(tiny.subject_id.tolist()), action
            assert not numbers & set(tiny.prediction_time.astype(np.int64).tolist()), action
            assert not numbers & set(days.astype(np.int64).tolist()), action
            assert not numbers & set(np.ravel(tiny.raw["x"]).tolist()), action


def test_a_few_patients_tuning_loss_stays_at_the_site(tiny: SiteSamples, left: list[tuple[str, RecordDict]]) -> None:
    assert 0 < (tiny.split == "tuning").sum() < 10
    result = run_federation([tiny], FederationRequest(model="logistic", strategy="fedavg", rounds=2))
    told = [dict(content.metric_records["metrics"]) for action, content in left if action == "evaluate"]
    assert told == [{"num-examples": 0, "loss-sum": 0.0}] * 2
    assert [report.tuning_loss for report in result.rounds] == [None, None]


def test_a_site_asked_for_a_model_of_nine_patients_refuses_whoever_asks(make_hospital: Any) -> None:
    samples = make_hospital("tiny", n=40, d=5)
    few = samples.take(np.flatnonzero(samples.split == "train")[:9])
    shown = representation.load("tabular")
    space = shown.agree(shown.sketch(samples)).to_json()
    agreed = {"model": "logistic", "recipe": "federated", "strategy": "fedavg", "space": space}
    setting = json.dumps(dict(model.load("logistic").recipe("federated").untuned))
    start = parcels.record({"weight": np.zeros((1, 5), np.float32), "bias": np.zeros(1, np.float32)})
    numbers = {"trial": 0, "seed": 0, "round": 1, "last-round": 0, "best-round": 0}
    terms = ConfigRecord({"federation": "0", "setting": setting, **numbers})
    agreement = RecordDict({"config": ConfigRecord({**agreed}), TERMS: terms})
    training = RecordDict({"arrays": start, TERMS: terms})

    def insist(grid: Grid) -> None:
        for action, what in (("query.space", agreement), ("train", training)):
            (reply,) = grid.send_and_receive([Message(what, dst_node_id=1, message_type=action)])
            if reply.has_error():
                raise FederationError(reply.error.reason)

    with pytest.raises(FederationError, match="fewer than 10 training patients"):
        inline.run(_server(insist), _app(few), 1)


def _app(samples: SiteSamples) -> ClientApp:
    here = Desk(samples, SiteMemory(None, samples.site))
    return client_app(lambda context, federation: here)


@pytest.mark.parametrize(
    "extra",
    [
        {"rows": ArrayRecord([np.zeros(3)])},
        {"more": MetricRecord({"label": 1})},
        {"more": MetricRecord({"losses": [0.1, 0.2]})},
        {"note": ConfigRecord({"patient": "Jane Roe"})},
    ],
)
def test_the_wall_stops_what_no_schema_names(extra: dict[str, Any], tiny: SiteSamples) -> None:
    app = _app(tiny)
    leaky = ClientApp(mods=[wall])

    @leaky.query("site")
    def site(message: Message, context: Context) -> Message:
        reply = app(message, context)
        reply.content = RecordDict({**reply.content, **extra})
        return reply

    with pytest.raises(FederationError, match=r"'query\.site' would send .* which may not leave") as refusal:
        inline.run(_server(SiteGrid), leaky, 1)
    assert "Jane" not in str(refusal.value)


def test_what_the_wall_stops_has_not_left_the_site(tiny: SiteSamples, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server would refuse it too, but would have it by then."""
    app, inner, sent = _app(tiny), InlineGrid._delivered, []
    leaky = ClientApp(mods=[wall])

    @leaky.query("site")
    def site(message: Message, context: Context) -> Message:
        reply = app(message, context)
        reply.content["rows"] = ArrayRecord({"rows": Array(np.zeros(TINY))})
        return reply

    def delivered(self: InlineGrid, message: Message) -> Message:
        sent.append(inner(self, message))
        return sent[-1]

    monkeypatch.setattr(InlineGrid, "_delivered", delivered)
    with pytest.raises(FederationError, match="which may not leave"):
        inline.run(_server(SiteGrid), leaky, 1)
    assert [reply.has_error() for reply in sent] == [True]


def test_the_server_refuses_what_a_site_without_a_wall_sends(tiny: SiteSamples) -> None:
    app = _app(tiny)
    open_door = ClientApp()

    @open_door.query("site")
    def site(message: Message, context: Context) -> Message:
        reply = app(message, context)
        reply.content["rows"] = ArrayRecord({"rows": Array(np.zeros(TINY))})
        return reply

    with pytest.raises(FederationError, match=r"node 1: .* would send the array 'rows', which may not leave"):
        inline.run(_server(SiteGrid), open_door, 1)


ROWS = ArrayRecord({"rows": Array(np.zeros(TINY))})


def test_a_reply_that_may_not_leave_is_left_out_of_its_round_and_noted(tiny: SiteSamples, make_hospital: Any) -> None:
    """One of two sites has no wall and sends rows beside its model; the other's answer counts."""
    apps = [_app(tiny), _app(make_hospital("other", n=300, d=5))]
    sites = ClientApp()

    def at(context: Context) -> ClientApp:
        return apps[int(str(context.node_config["partition-id"]))]

    @sites.query("site")
    def site(message: Message, context: Context) -> Message:
        return at(context)(message, context)

    @sites.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        content = RecordDict({"metrics": MetricRecord({"num-examples": 10, "loss-sum": 6.9})})
        if at(context) is apps[0]:
            content["rows"] = ROWS
        return Message(content, reply_to=message)

    def ask(inner: Grid) -> None:
        grid = SiteGrid(inner)
        grid.begin(Turn(trial=2, seed=0, setting="{}", round=3))
        nodes = list(grid.get_node_ids())
        counted = grid.exchange([Message(RecordDict(), dst_node_id=n, message_type="evaluate") for n in nodes])
        assert [reply.metadata.src_node_id for reply in counted] == [2]
        (dropped,) = grid.dropped
        assert dropped[:4] == (2, 3, "tiny", "evaluate")
        assert "would send the array 'rows', which may not leave" in dropped.reason

    inline.run(_server(ask), sites, 2)


def test_a_crash_tells_its_kind_and_keeps_its_text_at_the_site() -> None:
    app = ClientApp(mods=[wall])

    @app.query("site")
    def site(message: Message, context: Context) -> Message:
        raise ValueError("could not convert '2180-05-06' of patient 5000017")

    with pytest.raises(FederationError, match=r"node 1: ValueError in 'query\.site'") as failure:
        inline.run(_server(SiteGrid), app, 1)
    assert "2180" not in str(failure.value)
    assert "5000017" not in str(failure.value)


def _server(use: Any) -> ServerApp:
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        use(grid)

    return app
