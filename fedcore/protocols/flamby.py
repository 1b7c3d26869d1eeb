"""FLamby's Fed-Heart-Disease benchmark, replayed: its one random stream, its local training, its server updates.

Ogier du Terrail et al., FLamby, 2022; the benchmark's code at edacf54 (github.com/owkin/FLamby) gave the published
numbers. The data are `fedcore.protocols.flamby_data`'s, without a tuning split.

**The stream.** A run seeds torch with its seed and draws from that one generator whatever is random, so the seed fixes
everything, but in an order that looks arbitrary from outside:

- The initial model, 13 weights and an intercept uniform in [-1/sqrt(13), 1/sqrt(13)], is drawn right after seeding.
- The generator is seeded again before each method trains, so methods do not depend on one another.
- A data loader takes a number from the generator when an iteration over it begins (which serves nothing here) and one,
  when its first batch is asked for, to seed a generator of its own that permutes the centre's patients; batches of 4
  follow, the last one shorter.
- A strategy keeps an iteration for each centre, begun before the generator is seeded again: a centre's first pass
  takes one number, each later pass two. The numbers go to the centres in the order in which they need them, 100 batches
  at a visit: Cleveland, Hungary, Switzerland, Long Beach, and the next round.

None of it depends on what is learned, so each site can work out its batches by itself (`Batches`).

**Methods.** All four centres train in each of 15 rounds, 100 steps of SGD each, weighted by training patients.
`pooled` and `local_<hospital>` (FLamby's Local 0 to 3, each scored at all centres) train 50 epochs with Adam; here
they are spread over the rounds, which changes nothing. FedAdam, FedYogi and FedAdagrad move the model by
rate * m / (sqrt(v) + tau) with m a running mean (decay beta_1) of the averaged change d, from 0 and without correction
for it, and v a running mean, Yogi's signed one, or the sum of d * d. SCAFFOLD's control variates grow by what the
server's model differs from the one that the centre last ended with, over rate * steps. `cyclic` hands nothing on:
each centre goes on with a model of its own when its turn comes, and it is Cleveland's that is scored.

**Pooled test.** Beside each centre's test patients FLamby scores all of them together, scaled by statistics over all
centres' training patients, which no federation knows and no federated model was trained with. It stands here as the
external site `pooled_test`; the scope `pooled` is of the same patients, each scaled at home.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from fedcore.learner import PLAIN, Arrays, Encoded, Fit, Objective, Setting, TrainingError, log_loss
from fedcore.local import Update, Visit
from fedcore.models.model import ModelSpec, Recipe, Sizes
from fedcore.protocols import flamby_data
from fedcore.protocols.flamby_data import FEATURES, PAPER, TRAINED, prepare_whole, scaled
from fedcore.protocols.protocol import Protocol
from fedcore.rule import Averaging, Reply, Roster, combination, ruled
from fedcore.samples import SiteSamples
from fedcore.strategies.strategy import StrategySpec
from sites.errors import InputError

CENTRES: Final = tuple(TRAINED)
PATIENTS: Final = tuple(TRAINED.values())
POOLED_ORDER: Final = ("cleveland", "switzerland", "hungarian", "va")
"""In which FLamby's files were read, unsorted, when its numbers were made."""
POOLED_TEST: Final = "pooled_test"

ROUNDS: Final = 15
STEPS: Final = 100
BATCH: Final = 4
EPOCHS: Final = 50
ADAM: Final = (0.9, 0.999, 1e-8)

Vector = npt.NDArray[np.float64]
Batch = npt.NDArray[np.int64]
Turns = Callable[[int], Iterator[Sequence[int]]]
"""For a seed: the centres of each round, in order, without end."""


class Linear:
    """`sigmoid(x w + b)`: the model; it is trained by the strategies' sites, batch by batch as FLamby drew them."""

    def initial(self, seed: int) -> Arrays:
        """As torch initialises a linear layer, from a generator of this seed."""
        generator, bound = torch.Generator().manual_seed(seed), len(FEATURES) ** -0.5
        return {
            "weight": torch.empty(1, len(FEATURES)).uniform_(-bound, bound, generator=generator).numpy(),
            "bias": torch.empty(1).uniform_(-bound, bound, generator=generator).numpy(),
        }

    def fit(
        self,
        arrays: Arrays,
        encoded: Encoded,
        label: np.ndarray,
        seed: int,
        memory: Arrays,
        objective: Objective = PLAIN,
    ) -> Fit:
        """Refuses: a strategy that is not FLamby's has no place in its stream."""
        raise TrainingError("FLamby's model is trained by FLamby's strategies alone; use protocol flamby_data")

    def predict(self, arrays: Arrays, encoded: Encoded) -> np.ndarray:
        """Probabilities."""
        return _sigmoid(_design(encoded) @ _vector(arrays))


def _design(encoded: Encoded) -> Vector:
    """The features and a column of ones."""
    x = np.asarray(encoded["x"], np.float64)
    return np.column_stack([x, np.ones(len(x))])


def _vector(arrays: Arrays) -> Vector:
    return np.concatenate([np.ravel(arrays["weight"]), np.ravel(arrays["bias"])]).astype(np.float64)


def _model(vector: Vector) -> Arrays:
    whole = vector.astype(np.float32)
    return {"weight": whole[np.newaxis, :-1], "bias": whole[-1:]}


def _sigmoid(z: Vector) -> Vector:
    return np.asarray(1 / (1 + np.exp(-z)))


class _Loader:
    """Batches of one centre without end, from a generator that centres share."""

    def __init__(self, generator: torch.Generator, patients: int) -> None:
        self._generator, self._patients = generator, patients
        self._left: list[Batch] = []
        self._begun = True

    def next(self) -> Batch:
        """The next batch; begins another pass where there is none."""
        if not self._left:
            if not self._begun:
                _drawn(self._generator)
            self._begun = False
            self._left = _permuted(_drawn(self._generator), self._patients)
        return self._left.pop()


def _drawn(generator: torch.Generator) -> int:
    return int(torch.empty((), dtype=torch.int64).random_(generator=generator))


def _permuted(seed: int, patients: int) -> list[Batch]:
    """One pass, its last batch first."""
    order = torch.randperm(patients, generator=torch.Generator().manual_seed(seed))
    return [batch.numpy() for batch in torch.split(order, BATCH)][::-1]


class Batches:
    """Who trains on which patients in each round, for one seed and order of centres.

    Args:
        seed: the cell's.
        turns: the order.
    """

    def __init__(self, seed: int, turns: Turns) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._loaders = [_Loader(generator, patients) for patients in PATIENTS]
        self._turns = turns(seed)
        self._rounds: list[Mapping[int, list[Batch]]] = []

    def of(self, number: int) -> Mapping[int, list[Batch]]:
        """By centre, in round `number` (from 1); a centre that does not train is not there."""
        while len(self._rounds) < number:
            turn = next(self._turns)
            self._rounds.append({centre: [self._loaders[centre].next() for _ in range(STEPS)] for centre in turn})
        return self._rounds[number - 1]


def everyone(seed: int) -> Iterator[Sequence[int]]:
    """All centres in each round."""
    while True:
        yield range(len(CENTRES))


def in_turn(seed: int) -> Iterator[Sequence[int]]:
    """One centre a round, in a new order after each four."""
    generator = np.random.default_rng(seed)
    while True:
        for centre in generator.permutation(len(CENTRES)).tolist():
            yield (centre,)


_batches = lru_cache(maxsize=32)(Batches)


@lru_cache(maxsize=32)
def epochs(seed: int, patients: int) -> list[list[Batch]]:
    """The batches of each of an anchor's epochs."""
    generator = torch.Generator().manual_seed(seed)
    passes = []
    for _ in range(EPOCHS):
        _drawn(generator)
        passes.append(_permuted(_drawn(generator), patients)[::-1])
    return passes


class _Descent:
    """Gradients of the site's loss, batch by batch, and the loss as the batches met it."""

    def __init__(self, visit: Visit) -> None:
        self._x, self._y = _design(visit.split.encoded), visit.split.label.astype(np.float64)
        self._sum, self._patients = 0.0, 0

    def gradient(self, w: Vector, batch: Batch) -> Vector:
        """Of the batch's mean log loss."""
        x, y = self._x[batch], self._y[batch]
        p = _sigmoid(x @ w)
        self._sum, self._patients = self._sum + float(log_loss(y > 0, p).sum()), self._patients + len(batch)
        return np.asarray((p - y) @ x / len(batch))

    def loss(self, w: Vector) -> float:
        """The mean over the patients that were met; over all if none was."""
        if not self._patients:
            return float(log_loss(self._y > 0, _sigmoid(self._x @ w)).mean())
        return self._sum / self._patients


class _Shared:
    """A site's half that predicts with the server's model."""

    def personal(self, visit: Visit) -> Arrays:
        """The server's model."""
        return visit.arrays


class Updates(_Shared):
    """100 steps of SGD; with `mu` FedProx's, on mu/2 |w - w_server|^2 more."""

    def train(self, visit: Visit) -> Update:
        """See `fedcore.local.Local`."""
        return self._descended(visit, np.zeros(len(FEATURES) + 1))

    def _descended(self, visit: Visit, slope: Vector) -> Update:
        start, rate, mu = _vector(visit.arrays), visit.setting["step_size"], visit.setting.get("mu", 0.0)
        batches = _batches(visit.cell_seed, everyone).of(visit.round)[_centre(len(visit.split.label))]
        w, descent = start, _Descent(visit)
        for batch in batches:
            w = w - rate * (descent.gradient(w, batch) + mu * (w - start) + slope)
        return Update(_model(w), descent.loss(w), len(batches))


class Controlled(Updates):
    """SCAFFOLD's steps, against a slope that the site keeps."""

    def train(self, visit: Visit) -> Update:
        """See `fedcore.local.Local`."""
        sent, rate = _vector(visit.arrays), visit.setting["step_size"]
        share = visit.setting["server_step_size"]
        kept = visit.memory.get("control", {"ended": sent, "slope": np.zeros_like(sent)})
        slope = kept["slope"] + (kept["ended"] - sent) / (share * rate * STEPS)
        update = self._descended(visit, slope)
        ended = _model(share * _vector(update.arrays) + (1 - share) * sent)
        visit.memory["control"] = {"ended": _vector(ended), "slope": slope}
        return replace(update, arrays=ended)


class OwnUpdates(_Shared):
    """100 steps of SGD on a model of the site's own, when its turn comes."""

    def train(self, visit: Visit) -> Update:
        """See `fedcore.local.Local`."""
        w, descent = _vector(visit.memory.get("own", visit.arrays)), _Descent(visit)
        centre = _centre(len(visit.split.label))
        batches = _batches(visit.cell_seed, in_turn).of(visit.round).get(centre, [])
        for batch in batches:
            w = w - visit.setting["step_size"] * descent.gradient(w, batch)
        visit.memory["own"] = _model(w)
        return Update(_model(w), descent.loss(w), len(batches))


class Epochs(_Shared):
    """The anchors' 50 epochs of Adam (Kingma and Ba, 2015), a fifteenth of them in a round."""

    def train(self, visit: Visit) -> Update:
        """See `fedcore.local.Local`."""
        w, descent, steps = _vector(visit.arrays), _Descent(visit), 0
        zero = np.zeros_like(w)
        kept = visit.memory.get("adam", {"first": zero, "second": zero, "steps": np.zeros(1)})
        first, second, count = kept["first"], kept["second"], float(kept["steps"][0])
        passes = epochs(visit.cell_seed, len(visit.split.label))
        decay, decay_of_squares, tiny = ADAM
        for batches in passes[EPOCHS * (visit.round - 1) // ROUNDS : EPOCHS * visit.round // ROUNDS]:
            for batch in batches:
                gradient = descent.gradient(w, batch)
                count, steps = count + 1, steps + 1
                first = decay * first + (1 - decay) * gradient
                second = decay_of_squares * second + (1 - decay_of_squares) * gradient**2
                scale = np.sqrt(second / (1 - decay_of_squares**count)) + tiny
                w = w - visit.setting["step_size"] * first / (1 - decay**count) / scale
        visit.memory["adam"] = {"first": first, "second": second, "steps": np.array([count])}
        return Update(_model(w), descent.loss(w), steps)


def _centre(patients: int) -> int:
    """A centre is told by its number of training patients, which no two share."""
    return PATIENTS.index(patients)


class Adaptive(Averaging):
    """The server as an optimiser on the averaged change.

    Args:
        second: the next v, of v and the change's square.
        setting: `server_step_size`, `beta_1`, `tau`.
    """

    def __init__(self, second: Callable[[np.ndarray, np.ndarray], np.ndarray], setting: Setting) -> None:
        self._second, self._setting = second, setting
        self._m: dict[str, np.ndarray] = {}
        self._v: dict[str, np.ndarray] = {}

    def combine(self, arrays: Arrays, replies: Sequence[Reply]) -> Arrays:
        """The model moved by rate * m / (sqrt(v) + tau)."""
        change = combination((1, super().combine(arrays, replies)), (-1, arrays))
        rate, decay, tau = (self._setting[name] for name in ("server_step_size", "beta_1", "tau"))
        moved = {}
        for name, d in change.items():
            self._m[name] = decay * self._m.get(name, np.zeros_like(d)) + (1 - decay) * d
            self._v[name] = self._second(self._v.get(name, np.zeros_like(d)), d**2)
            moved[name] = arrays[name] + rate * self._m[name] / (np.sqrt(self._v[name]) + tau)
        return moved


def _adam(_roster: Roster, setting: Setting) -> Adaptive:
    keep = setting["beta_2"]
    return Adaptive(lambda v, square: keep * v + (1 - keep) * square, setting)


def _yogi(_roster: Roster, setting: Setting) -> Adaptive:
    return Adaptive(lambda v, square: v - (1 - setting["beta_2"]) * square * np.sign(v - square), setting)


def _adagrad(_roster: Roster, setting: Setting) -> Adaptive:
    return Adaptive(lambda v, square: v + square, setting)


@dataclass(frozen=True)
class TakenFrom(Averaging):
    """The model of one centre, whatever the others answer.

    Attributes:
        centre: its number.
        alone: no other centre is asked.
    """

    centre: int
    alone: bool

    def ask(self, number: int, sites: Sequence[int]) -> Sequence[int]:
        """All, or the one; sites stand in the order of the centres (`gather` sees to it)."""
        return [sites[self.centre]] if self.alone else sites

    def combine(self, arrays: Arrays, replies: Sequence[Reply]) -> Arrays:
        """The centre's; as it was where the centre has not answered."""
        taken = [reply.arrays for reply in replies if reply.samples == PATIENTS[self.centre]]
        return taken[0] if taken else arrays


def gather(sites: Sequence[SiteSamples]) -> list[SiteSamples]:
    """The four centres, and all their test patients as FLamby's pooled test.

    Raises:
        InputError: they are not the four, in the order of FLamby's centres by their names.
    """
    trained = [int(np.sum(one.split == "train")) for one in sorted(sites, key=lambda one: one.site)]
    if trained != list(PATIENTS) or any(one.external for one in sites):
        found = ", ".join(f"{one.site} ({int(np.sum(one.split == 'train'))} to train)" for one in sites)
        raise InputError(
            f"FLamby's benchmark is of four hospitals that all train; found {found}; expected Cleveland, Hungary, "
            f"Switzerland and Long Beach under names in this order of the alphabet, as {', '.join(CENTRES)}"
        )
    return [*sites, replace(pool(sites).in_split("held_out"), site=POOLED_TEST, external=True)]


def pool(sites: Sequence[SiteSamples]) -> SiteSamples:
    """The four centres' patients in FLamby's order, scaled by the training patients of all."""
    place = {PATIENTS[CENTRES.index(name)]: number for number, name in enumerate(POOLED_ORDER)}
    ordered = sorted(sites, key=lambda one: place[int(np.sum(one.split == "train"))])
    return scaled(SiteSamples.concatenate(ordered))


def _learner(_sizes: Sizes, _setting: Setting) -> Linear:
    return Linear()


_RECIPE = Recipe(_learner, settings=({},), rounds=ROUNDS, patience=None, untuned={}, untuned_rounds=ROUNDS)

MODEL = ModelSpec(name="logistic", representation=flamby_data.REPRESENTATION.name, federated=_RECIPE, alone=_RECIPE)

_WHEN = "to compare with FLamby's published numbers"


def _anchor(centre: int | None) -> StrategySpec:
    """Adam on the pooled patients, or on one centre's."""
    title = "Pooled training" if centre is None else f"Local {centre}"
    rule = Averaging() if centre is None else TakenFrom(centre, alone=True)
    return StrategySpec(
        ruled(lambda _roster, _setting: rule), title, PAPER, _WHEN, local=Epochs(), options={"step_size": 0.001}
    )


POOLED, LOCAL_0, LOCAL_1, LOCAL_2, LOCAL_3 = (_anchor(centre) for centre in (None, 0, 1, 2, 3))

CYCLIC = StrategySpec(
    ruled(lambda _roster, _setting: TakenFrom(0, alone=False)),
    "Cyclic",
    "Chang et al., Distributed deep learning networks among institutions for medical imaging, 2018",
    _WHEN,
    local=OwnUpdates(),
    options={"step_size": 0.01},
)

FEDAVG = StrategySpec(
    ruled(lambda _roster, _setting: Averaging()),
    "FedAvg",
    "McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data, 2017",
    _WHEN,
    local=Updates(),
    options={"step_size": 0.001},
)

FEDPROX = replace(
    FEDAVG,
    title="FedProx",
    paper="Li et al., Federated Optimization in Heterogeneous Networks, 2020",
    options={"step_size": 0.001, "mu": 0.01},
)

SCAFFOLD = replace(
    FEDAVG,
    title="SCAFFOLD",
    paper="Karimireddy et al., SCAFFOLD: Stochastic Controlled Averaging for Federated Learning, 2020",
    local=Controlled(),
    options={"step_size": 0.001, "server_step_size": 1.0},
)

_OPTIMISER: Setting = {"beta_1": 0.9, "beta_2": 0.999, "tau": 1e-8}

FEDADAM = StrategySpec(
    ruled(_adam),
    "FedAdam",
    "Reddi et al., Adaptive Federated Optimization, 2021",
    _WHEN,
    local=Updates(),
    options={"step_size": 0.01, "server_step_size": 0.01, **_OPTIMISER},
)

FEDYOGI = replace(
    FEDADAM,
    build=ruled(_yogi),
    title="FedYogi",
    options={"step_size": 0.003162, "server_step_size": 0.01, **_OPTIMISER},
)

FEDADAGRAD = replace(
    FEDADAM,
    build=ruled(_adagrad),
    title="FedAdagrad",
    options={"step_size": 0.003162, "server_step_size": 0.316228, **_OPTIMISER},
)

PROTOCOL = Protocol(
    title="FLamby's Fed-Heart-Disease benchmark",
    paper=PAPER,
    representation=flamby_data.REPRESENTATION.name,
    prepare=lambda site, task, _split_seed: prepare_whole(site, task),
    gather=gather,
    pool=pool,
    models={"logistic": f"{__name__}:MODEL"},
    strategies={
        "pooled": f"{__name__}:POOLED",
        **{f"local_{hospital}": f"{__name__}:LOCAL_{number}" for number, hospital in enumerate(CENTRES)},
        **{
            name: f"{__name__}:{name.upper()}"
            for name in ("cyclic", "fedavg", "fedprox", "scaffold", "fedadam", "fedyogi", "fedadagrad")
        },
    },
    initial_seed=lambda seed: seed,
)
