"""What a site does in secure aggregation (`privacy.secagg`): it trains as ever, and what it would send leaves masked.

| action | the site gets in the record `secure` | the site sends |
|---|---|---|
| `query.advertise` | `round` | `keys`: uint8 [64] |
| `query.share` | `round`, `sites` and their `keys`, `threshold` | `sealed`: uint8 [sites - 1, 82] |
| `train.masked` | `round`, `sites` and what they `sealed`, the fixed point's numbers; a strategy's records | `masked` |
| `query.unmask` | `round`, `sites`: who sent a masked vector | `shares`: uint8 [sites of `train.masked`, 33] |

Rows stand in the order of the sites' names, a site's own left out of `sealed`. `masked` is uint64 [m + 3]: the model's
arrays, the mean loss and its weight, each times the site's weight, and that weight.

What a site remembers of a round is written down before its answer leaves: killed and asked again, it says the same.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Message
from flwr.clientapp import ClientApp

from fedcore.desk import Desk, noised, reply, trained
from fedcore.engines.parcels import parcel
from fedcore.learner import Arrays
from fedcore.local import Update
from privacy.releases import messages
from privacy.releases.messages import MASKED, Parcel
from privacy.releases.sketches import ReleaseError
from privacy.secagg.fixed_point import FixedPoint
from privacy.secagg.masks import Words
from privacy.secagg.participant import Participant

SECURE = "secure"
"""The record that a message of secure aggregation holds."""

BOUND = 2.0**20
"""The largest number that a model may hold."""

NOISED_BOUND = 2.0**12
"""The same where sites share the noise: a finer grid, on which rounding costs next to nothing of delta."""

_ROUND, _VECTOR = "secure-round", "secure-vector"


def secure_actions(app: ClientApp, open_desk: Callable[[Message, Context], Desk]) -> None:
    """Teach the sites' app the four stages.

    Args:
        app: theirs.
        open_desk: the desk of the site whose context it is.
    """

    @app.query("advertise")
    def advertise(message: Message, context: Context) -> Message:
        here, asked = open_desk(message, context), _asked(message)
        participant = _resumed(here, asked)
        keys = participant.advertise()
        _remember(here, participant)
        return reply(message, arrays={SECURE: {"keys": np.frombuffer(keys, np.uint8)}})

    @app.query("share")
    def share(message: Message, context: Context) -> Message:
        here, asked = open_desk(message, context), _asked(message)
        participant = _resumed(here, asked)
        sealed = participant.share(_named(asked, "keys"), int(asked["threshold"]))
        _remember(here, participant)
        return reply(message, arrays={SECURE: {"sealed": _rows(sealed)}})

    @app.train("masked")
    def masked(message: Message, context: Context) -> Message:
        here, asked = open_desk(message, context), _asked(message)
        participant = _resumed(here, asked)
        sealed = _named(asked, "sealed")
        if participant.has_masked(sealed):
            words = _kept(here)
        else:
            if here.shares_noise:
                words = noised(here, message, participant.threshold, fixed_point(asked))
            else:
                sent = parcel(message.content).arrays
                words = _vector(sent, *trained(here, message), asked)
            participant.mask(sealed, words)
            here.memory.note(_VECTOR, words.data)
            _remember(here, participant)
        return reply(message, arrays={SECURE: {MASKED: words}})

    @app.query("unmask")
    def unmask(message: Message, context: Context) -> Message:
        here, asked = open_desk(message, context), _asked(message)
        participant = _resumed(here, asked)
        shares = participant.unmask([str(site) for site in asked["sites"]])
        _remember(here, participant)
        return reply(message, arrays={SECURE: {"shares": _rows(shares)}})


def fixed_point(asked: Mapping[str, Any]) -> FixedPoint:
    """How numbers become integers, as the coordinator's message says: `most` sites, `weight`, `bound`."""
    return FixedPoint(int(asked["most"]), int(asked["weight"]), float(asked["bound"]))


def _asked(message: Message) -> Mapping[str, Any]:
    """The record of secure aggregation, taken out of the message, which is then as a strategy sent it."""
    entry = message.content.pop(SECURE)
    assert isinstance(entry, ConfigRecord)
    return dict(entry)


def _resumed(here: Desk, asked: Mapping[str, Any]) -> Participant:
    """The site in this round: as it remembers itself, or anew in a round of which it knows nothing."""
    context = str(asked["round"]).encode()
    noted = here.memory.noted(_ROUND)
    before = None if noted is None else Participant.from_json(bytes(noted).decode())
    if before is not None and before.context == context:
        return before
    return Participant(here.samples.site, context)


def _remember(here: Desk, participant: Participant) -> None:
    here.memory.note(_ROUND, participant.to_json().encode())


def _kept(here: Desk) -> Words:
    """The masked vector that has left before.

    Raises:
        ReleaseError: it is lost; another one under the same masks would tell the difference.
    """
    noted = here.memory.noted(_VECTOR)
    if noted is None:
        raise ReleaseError("the masked vector of this round is lost, and no second one is made under the same masks")
    return np.frombuffer(noted, np.uint64)


def _vector(sent: Arrays, update: Update, numbers: Mapping[str, Any], asked: Mapping[str, Any]) -> Words:
    """What is masked: the reply to `train` as integers.

    Raises:
        ReleaseError: it could not leave as a plain reply either, or a number is out of range.
    """
    beside = {f"{part}/{name}": value for part, arrays in update.beside.items() for name, value in arrays.items()}
    messages.check("train", Parcel({**update.arrays, **beside}, numbers), sent)
    weight = int(numbers["num-examples"])
    losses = np.array([numbers["loss-sum"], numbers["loss-weight"]], np.float64) / weight
    return fixed_point(asked).encode([*(update.arrays[name] for name in sent), losses], weight)


def _named(asked: Mapping[str, Any], what: str) -> dict[str, bytes]:
    return dict(zip(asked["sites"], asked[what], strict=True))


def _rows(each: Mapping[str, bytes]) -> np.ndarray:
    """Contents of equal length, one a row, in the order of the sites' names."""
    return np.stack([np.frombuffer(each[site], np.uint8) for site in sorted(each)])
