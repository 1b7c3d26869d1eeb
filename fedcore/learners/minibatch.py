"""Local training as FedAvg means it: a few epochs of minibatches, starting from the federation's model.

McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data, 2017 (algorithm 1,
ClientUpdate).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Self, cast

import numpy as np
import torch
from torch import nn

from fedcore.learner import PLAIN, Arrays, Encoded, Fit, Mixture, Objective, Setting, TrainingError
from fedcore.learners.device import device
from fedcore.learners.mixture import MixedTraining
from fedcore.learners.optimizers import Optimizer
from privacy.clipping import InexactError
from privacy.dpsgd import DPSGD, MixesPatientsError, refuse

PREDICTION_BATCH = 1024

GATHERED = 1024
"""Samples that are put into a pass's order at a time."""


class MinibatchLearner:
    """Trains a torch network that maps encoded samples to logits.

    The setting holds `step_size`, `epochs` (passes over the site's samples in a round), `batch_size` and `l2` (the
    penalty l2/2 |w|^2 on everything but biases).

    Args:
        build: makes the network; its `forward` takes the encoded arrays by name and returns logits [n].
        setting: the hyperparameters.
        optimizer: how it descends.
        keeps_moments: whether the optimiser's moments live on from round to round (a lone site, for which rounds are
            but epochs) or start anew (a federation, where the model changes under the site).
    """

    def __init__(
        self,
        build: Callable[[], nn.Module],
        setting: Setting,
        *,
        optimizer: type[Optimizer],
        keeps_moments: bool = False,
    ) -> None:
        self._build = build
        self._setting = setting
        self._optimizer = optimizer
        self._keeps_moments = keeps_moments
        self._kept: nn.Module | None = None
        self._private = False  # whether it was seen that the network can be trained privately

    def initial(self, seed: int) -> Arrays:
        """The network as torch initialises it."""
        with _seeded(seed, torch.device("cpu")):
            return _arrays(self._build())

    def fit(
        self,
        arrays: Arrays,
        encoded: Encoded,
        label: np.ndarray,
        seed: int,
        memory: Arrays,
        objective: Objective = PLAIN,
    ) -> Fit:
        """Run the epochs; see `fedcore.learner.Learner`."""
        place = device()
        inputs = {name: _tensor(value, place) for name, value in encoded.items()}
        target = torch.from_numpy(label.astype(np.float32)).to(place)
        n, batch_size, epochs = len(target), int(self._setting["batch_size"]), int(self._setting["epochs"])
        with _seeded(seed, place), ExitStack() as left:
            network = self._network(arrays, place).train()
            trained = _trained(network, objective)
            optimizer = self._optimizer(
                trained.items(), step_size=float(self._setting["step_size"]), l2=float(self._setting["l2"])
            )
            if memory:
                optimizer.restore(memory)
            pulls = _pulls(trained, objective, place)
            contrast = self._contrast(objective, place)
            embedded = None if contrast is None else left.enter_context(_Embedded(network))
            traced = {name: torch.zeros_like(value) for name, value in trained.items()} if objective.traced else {}
            mixed = self._mixed(objective.mixture, place)
            order = torch.Generator().manual_seed(seed)
            losses: list[torch.Tensor] = []
            steps = 0
            for _ in range(epochs):
                losses.clear()
                shuffled = torch.randperm(n, generator=order).to(place)
                for batch, truth in _batches(inputs, target, shuffled, batch_size):
                    loss = nn.functional.binary_cross_entropy_with_logits(network(**batch), truth)
                    losses.append(loss.detach())
                    if contrast is not None and embedded is not None:
                        loss = loss + contrast(embedded.of(batch), batch)
                    loss.backward()  # type: ignore[no-untyped-call]
                    for name, trace in traced.items():
                        if (gradient := trained[name].grad) is not None:
                            trace.add_(gradient)
                    for value, pull in pulls:
                        pull(value)
                    if mixed is not None:
                        mixed.step(network, batch, truth)
                    optimizer.step()
                    steps += 1
        last = n - (len(losses) - 1) * batch_size
        weights = torch.tensor([batch_size] * (len(losses) - 1) + [last], dtype=torch.float64, device=place)
        mean = float((torch.stack(losses).double() * weights).sum()) / n
        result = _arrays(network)
        if not np.isfinite(mean) or not all(np.isfinite(value).all() for value in result.values()):
            raise TrainingError(
                f"the training loss is not a number with step_size {self._setting['step_size']}; expected a finite "
                "loss; choose a smaller step_size"
            )
        return Fit(
            result,
            mean,
            optimizer.moments() if self._keeps_moments else {},
            steps,
            {name: (trace / steps).cpu().numpy() for name, trace in traced.items()},
            None if mixed is None else mixed.result(),
        )

    def fit_privately(
        self, arrays: Arrays, encoded: Encoded, label: np.ndarray, how: DPSGD, seed: int, objective: Objective = PLAIN
    ) -> Fit:
        """DP-SGD: the steps that `how` says, each along a gradient to which no patient adds more than its share.

        What the strategy adds to the loss depends on no patient, and is added to the noised gradient.

        Args:
            arrays: the model to start from.
            encoded: the samples.
            label: bool [n].
            how: draws the patients, clips and adds the noise.
            seed: of dropout.
            objective: what the strategy adds to the loss.

        Raises:
            TrainingError: the network lets patients mix, the objective looks at patients, or the model is not finite.
        """
        if objective.contrast is not None or objective.mixture is not None:
            raise TrainingError("this strategy's term of the loss looks at patients; it cannot be trained privately")
        place = device()
        inputs = {name: _tensor(value, place) for name, value in encoded.items()}
        target = torch.from_numpy(label.astype(np.float32)).to(place)
        with _seeded(seed, place):
            if not self._private:
                try:
                    refuse(self._built(place).train(), inputs)
                except (MixesPatientsError, InexactError) as error:
                    raise TrainingError(str(error)) from error
                self._private = True
            network = self._network(arrays, place).train()
            trained = _trained(network, objective)
            optimizer = self._optimizer(
                trained.items(), step_size=float(self._setting["step_size"]), l2=float(self._setting["l2"])
            )
            pulls = _pulls(trained, objective, place)
            traced = {name: torch.zeros_like(value) for name, value in trained.items()} if objective.traced else {}
            for gradients in how.gradients(network, inputs, target):
                for name, value in trained.items():
                    value.grad = gradients[name]
                    if traced:
                        traced[name].add_(gradients[name])
                for value, pull in pulls:
                    pull(value)
                optimizer.step()
        learned = dict(network.named_parameters())
        result = {name: value if name in learned else arrays[name] for name, value in _arrays(network).items()}
        if not all(np.isfinite(value).all() for value in result.values()):
            raise TrainingError("the model is not finite; expected numbers; choose a smaller step_size")
        mean = {name: (trace / how.steps).cpu().numpy() for name, trace in traced.items()}
        return Fit(result, float("nan"), {}, how.steps, mean)

    def predict(self, arrays: Arrays, encoded: Encoded) -> np.ndarray:
        """Probabilities, the logistic function taken in float64."""
        place = device()
        inputs = {name: _tensor(value, place) for name, value in encoded.items()}
        network = self._network(arrays, place).eval()
        n = len(next(iter(inputs.values())))
        with torch.no_grad():
            logits = [
                network(**{name: value[start : start + PREDICTION_BATCH] for name, value in inputs.items()})
                for start in range(0, n, PREDICTION_BATCH)
            ]
            if not logits:
                return np.zeros(0)
            return torch.sigmoid(torch.cat(logits).double()).cpu().numpy()

    def network(self, arrays: Arrays) -> nn.Module:
        """A network of its own with these arrays, as it trains but without dropout: what an attacker differentiates."""
        network = _loaded(self._built(torch.device("cpu")), arrays).train()
        for layer in network.modules():
            if isinstance(layer, nn.Dropout):
                layer.eval()
        return network

    def _network(self, arrays: Arrays, place: torch.device) -> nn.Module:
        """The one network that is kept for this, since building one draws initial weights; it holds `arrays` now."""
        if self._kept is None:
            self._kept = self._built(place)
        return _loaded(self._kept, arrays)

    def _built(self, place: torch.device) -> nn.Module:
        with _seeded(0, torch.device("cpu")):
            return self._build().to(place)

    def _mixed(self, mixture: Mixture | None, place: torch.device) -> MixedTraining | None:
        if mixture is None:
            return None
        network = _loaded(self._built(place), mixture.own)  # beside the one that is kept
        return MixedTraining(network.train(), mixture, self._optimizer, self._setting)

    def _contrast(
        self, objective: Objective, place: torch.device
    ) -> Callable[[torch.Tensor, Mapping[str, torch.Tensor]], torch.Tensor] | None:
        asked = objective.contrast
        if asked is None:
            return None
        towards, previous = (_loaded(self._built(place), arrays).eval() for arrays in (asked.towards, asked.previous))

        def term(z: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
            with torch.no_grad():
                fixed = [other.embed(**batch) for other in (towards, previous)]  # type: ignore[operator]
            near, far = (nn.functional.cosine_similarity(z, other) / asked.temperature for other in fixed)
            return asked.weight * nn.functional.softplus(far - near).mean()

        return term


class _Embedded:
    """What a network's last pass embedded its batch as: a second pass would move batch statistics once more, and draw
    another dropout than the loss sees.

    Args:
        network: has `embed`, and calls it in `forward`; it is as it was when the `with` block is left.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = cast("Any", network)
        self._z: torch.Tensor | None = None

    def __enter__(self) -> Self:
        inner: Callable[..., torch.Tensor] = self._network.embed

        def noted(*arguments: torch.Tensor, **named: torch.Tensor) -> torch.Tensor:
            self._z = z = inner(*arguments, **named)
            return z

        self._network.embed = noted
        return self

    def __exit__(self, *_: object) -> None:
        del self._network.embed

    def of(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The embedding of the batch that was just passed."""
        if self._z is None:  # a network that does not embed on its way to the logits
            self._network.embed(**batch)
        z, self._z = self._z, None
        if z is None:
            raise TrainingError("the model's `embed` returns nothing; expected a tensor [n, k]")
        return z


def _batches(
    inputs: Mapping[str, torch.Tensor], target: torch.Tensor, order: torch.Tensor, batch_size: int
) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
    """The samples in that order, batch by batch; many batches are gathered at once and then cut, which is cheaper."""
    for some in order.split(batch_size * max(1, GATHERED // batch_size)):  # type: ignore[no-untyped-call]
        cut = [value.index_select(0, some).split(batch_size) for value in (target, *inputs.values())]  # type: ignore[no-untyped-call]
        for truth, *values in zip(*cut, strict=True):
            yield dict(zip(inputs, values, strict=True)), truth


def _loaded(network: nn.Module, arrays: Arrays) -> nn.Module:
    """The network with these arrays, copied into its own memory, so that training leaves them as they are."""
    state = network.state_dict()
    fits = state.keys() == arrays.keys() and all(value.shape == arrays[name].shape for name, value in state.items())
    if not fits or any(value.device.type != "cpu" for value in state.values()):
        network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in arrays.items()})
    else:
        for name, value in state.items():
            np.copyto(value.numpy(), arrays[name], casting="unsafe")
    for value in network.parameters():
        value.grad = None
    return network


def _trained(network: nn.Module, objective: Objective) -> dict[str, nn.Parameter]:
    """The parameters that the objective trains; no gradient is taken of the others."""
    named = dict(network.named_parameters())
    trained = {name: value for name, value in named.items() if objective.only is None or name in objective.only}
    for name, value in named.items():
        value.requires_grad_(name in trained)
    return trained


def _pulls(
    trained: Mapping[str, nn.Parameter], objective: Objective, place: torch.device
) -> list[tuple[nn.Parameter, Callable[[nn.Parameter], None]]]:
    """What is to be added to each gradient after `backward`: slope + mu (w - anchor)."""

    def pull(slope: torch.Tensor | None, anchor: torch.Tensor | None) -> Callable[[nn.Parameter], None]:
        @torch.no_grad()
        def add(value: nn.Parameter) -> None:
            if value.grad is None:
                return
            if slope is not None:
                value.grad.add_(slope)
            if anchor is not None:
                value.grad.add_(value, alpha=objective.mu).add_(anchor, alpha=-objective.mu)

        return add

    found = []
    for name, value in trained.items():
        slope = _tensor(objective.slope[name], place).to(value.dtype) if name in objective.slope else None
        pulled = objective.mu != 0 and name in objective.anchor
        anchor = _tensor(objective.anchor[name], place).to(value.dtype) if pulled else None
        if slope is not None or anchor is not None:
            found.append((value, pull(slope, anchor)))
    return found


def _tensor(value: np.ndarray, place: torch.device) -> torch.Tensor:
    value = np.ascontiguousarray(value)
    return torch.from_numpy(value if value.flags.writeable else value.copy()).to(place)


@contextmanager
def _seeded(seed: int, place: torch.device) -> Iterator[None]:
    """Torch's global generators, which dropout and initialisation draw from, seeded inside and as before outside."""
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also queue seeds for an absent GPU
        if place.type == "cuda":
            torch.cuda.manual_seed(seed)
        yield


def _arrays(network: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().cpu().numpy().copy() for name, value in network.state_dict().items()}
