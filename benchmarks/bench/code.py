"""The code that a cell's predictions rest on, by its fingerprint: what trains, and nothing that plans or scores."""

from fedcore.features import representation
from fedcore.fingerprint import fingerprint
from fedcore.models import model as models
from fedcore.protocols import protocol as protocols
from fedcore.strategies import strategy as strategies

ORACLE = "oracle"
TRAINING_MODULES = ("bench.training", "fedcore.federation", "fedcore.prepare")


def representation_of(model: str, protocol: str | None = None) -> str:
    """The representation in which a cell of this model wants its samples; the oracle looks at none of it."""
    if protocol is not None:
        return protocols.load(protocol).representation
    return "tabular" if model == ORACLE else models.load(model).representation


def training_code(model: str, strategy: str, protocol: str | None) -> str:
    """The fingerprint of the code that makes a cell's predictions."""
    rules = None if protocol is None else protocols.load(protocol)
    meant = (model, strategy) if rules is None else (rules.model(model), rules.strategy(strategy))
    chosen = [models.module(meant[0]), strategies.module(meant[1])]
    if protocol is not None:
        chosen.append(protocols.module(protocol))
    shown = representation.module(representation_of(model, protocol))
    return fingerprint(*TRAINING_MODULES, *chosen, shown)
