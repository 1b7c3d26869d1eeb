"""What a hospital does in a federation: the Flower ClientApp.

| action | the site gets | the site sends (`privacy.releases.messages`) |
|---|---|---|
| `query.site` | nothing | its name, its number of training samples (0 if it may not train), what its tuning can say |
| `query.statistics` | the representation's name | sketches of its training samples |
| `query.space` | the model, the recipe and the agreed features | nothing |
| `train` | the model's arrays, a setting | the trained arrays, their weight, the loss |
| `evaluate` | the model's arrays, a setting | the loss over its tuning split |

`evaluate` bears no action of its own because Flower's strategies send plain `evaluate`.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from fedcore.engines.parcels import parcel, record
from fedcore.features import representation
from fedcore.features.representation import FeatureSpace
from fedcore.learner import Arrays, Encoded, Learner, log_loss
from fedcore.models import model
from fedcore.samples import SiteSamples
from fedcore.streams import draw_seed
from privacy.releases import messages, sketches
from privacy.releases.messages import TOO_FEW, Parcel
from privacy.releases.sketches import ReleaseError


class Split(NamedTuple):
    """Encoded samples of one split."""

    encoded: Encoded
    label: np.ndarray
    patients: int


class Desk:
    """What a site's process keeps at hand: its samples, and tensors it would otherwise make anew in each round."""

    def __init__(self, samples: SiteSamples) -> None:
        self.samples = samples
        self._spaces: dict[str, FeatureSpace] = {}
        self._splits: dict[tuple[str, str], Split] = {}

    def split(self, context: Context, name: str) -> Split:
        """A split, encoded for the agreed space."""
        key = (name, _agreed(context, "space"))
        if key not in self._splits:
            space = self._space(context)
            chosen = self.samples.in_split(name)
            encoded = representation.load(space.representation).encode(chosen, space)
            self._splits[key] = Split(encoded, chosen.label, _patients(chosen))
        return self._splits[key]

    def learner(self, context: Context, asked: Parcel) -> Learner:
        """The agreed model's learner with the setting that is asked for."""
        recipe = model.load(_agreed(context, "model")).recipe(_agreed(context, "recipe"))
        return recipe.learner(self._space(context).sizes, json.loads(str(asked.texts["setting"])))

    def _space(self, context: Context) -> FeatureSpace:
        text = _agreed(context, "space")
        if text not in self._spaces:
            self._spaces[text] = FeatureSpace.from_json(text)
        return self._spaces[text]


def client_app(open_site: Callable[[Context], SiteSamples]) -> ClientApp:
    """The app of all sites.

    Args:
        open_site: the samples of the site whose context it is; called once for a node in this process.
    """
    app = ClientApp(mods=[wall])
    desks: dict[int, Desk] = {}

    def desk(context: Context) -> Desk:
        if context.node_id not in desks:
            desks[context.node_id] = Desk(open_site(context))
        return desks[context.node_id]

    @app.query("site")
    def site(message: Message, context: Context) -> Message:
        samples = desk(context).samples
        train, tuning = samples.in_split("train"), samples.in_split("tuning")
        numbers = {
            "train": len(train) if messages.released(_patients(train)) else 0,
            "tuning-events": messages.released(_patients(tuning.take(tuning.label))),
            "tuning-non-events": messages.released(_patients(tuning.take(~tuning.label))),
        }
        return _reply(message, numbers=numbers, texts={"site": samples.site})

    @app.query("statistics")
    def statistics(message: Message, context: Context) -> Message:
        chosen = representation.load(str(parcel(message.content).texts["representation"]))
        return _reply(message, arrays=sketches.pack(chosen.sketch(desk(context).samples.in_split("train"))))

    @app.query("space")
    def space(message: Message, context: Context) -> Message:
        context.state["federation"] = ConfigRecord(dict(parcel(message.content).texts))  # type: ignore[arg-type]
        return _reply(message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        here, asked = desk(context), parcel(message.content)
        learner, split = here.learner(context, asked), here.split(context, "train")
        weight = messages.released(split.patients)
        if weight == 0:
            raise ReleaseError(f"{TOO_FEW}; a model of so few would tell of each of them")
        remembered = f"memory-{asked.texts['trial']}"
        seed, server_round = int(str(asked.texts["seed"])), int(str(asked.texts["server-round"]))
        fit = learner.fit(
            asked.arrays,
            split.encoded,
            split.label,
            draw_seed(seed, "train", here.samples.site, server_round),
            _remembered(context, remembered),
        )
        if fit.memory:
            context.state[remembered] = record(fit.memory)
        numbers = {"num-examples": len(split.label), "loss-weight": weight, "loss-sum": fit.loss * weight}
        return _reply(message, arrays=fit.arrays, numbers=numbers)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        here, asked = desk(context), parcel(message.content)
        split = here.split(context, "tuning")
        if messages.released(split.patients) == 0:  # a sum over so few would be nearly a patient's own
            return _reply(message, numbers={"num-examples": 0, "loss-sum": 0.0})
        probability = here.learner(context, asked).predict(asked.arrays, split.encoded)
        total = float(log_loss(split.label, probability).sum())
        return _reply(message, numbers={"num-examples": len(split.label), "loss-sum": total})

    return app


def wall(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Let no reply out of the site that its action's schema does not describe (a Flower mod)."""
    sent = parcel(message.content).arrays
    reply = call_next(message, context)
    messages.check(message.metadata.message_type, parcel(reply.content), sent)
    return reply


def _agreed(context: Context, name: str) -> str:
    return str(context.state.config_records["federation"][name])


def _remembered(context: Context, name: str) -> Arrays:
    if name not in context.state:
        return {}
    return {key: value.numpy() for key, value in context.state.array_records[name].items()}


def _patients(samples: SiteSamples) -> int:
    return len(np.unique(samples.patient_id))


def _reply(
    message: Message,
    *,
    arrays: Arrays | None = None,
    numbers: dict[str, Any] | None = None,
    texts: dict[str, Any] | None = None,
) -> Message:
    content = RecordDict()
    if arrays is not None:
        content["arrays"] = record(arrays)
    if numbers is not None:
        content["metrics"] = MetricRecord(numbers)
    if texts is not None:
        content["config"] = ConfigRecord(texts)
    return Message(content, reply_to=message)
