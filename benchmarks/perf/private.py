"""A step with patient-level privacy beside one without, and beside Opacus: `python private.py MODEL` prints JSON."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from process import measured

from fedcore.models import model as models
from privacy.accounting import Mechanism, epsilon
from privacy.clipping import Clipping

ROWS, CLIP, NOISE, STEP = 64, 1.0, 1.0, 0.01
FEATURES, HOURS, CONCEPTS, EVENTS, WORDS = 622, 24, 40, 128, 60
SHAPES = {
    "logistic": f"{FEATURES} features",
    "mlp": f"{FEATURES} features",
    "gru": f"{HOURS} hours of {CONCEPTS} concepts",
    "retain": f"{HOURS} hours of {CONCEPTS} concepts",
    "transformer": f"{EVENTS} events of {WORDS} words",
}
SECONDS = 20.0
WAYS = ("hooks", "functorch", "ghost")


Rows = dict[str, torch.Tensor]


def section(folder: Path, home: Path) -> dict[str, Any]:
    """All models, and the accountant."""
    return {
        "steps": [measured(home, "private.py", "step", name) for name in SHAPES],
        "accounting": measured(home, "private.py", "accounting"),
    }


def lines(report: dict[str, Any]) -> list[str]:
    """The table of the page."""
    out = [
        "| step of 64 patients | each | no privacy, ms | ours, ms | ratio | Opacus: hooks | functorch | ghost |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for s in report["steps"]:
        theirs = " | ".join(f"{s[way] / s['plain']:.1f}" if s[way] else "fails" for way in WAYS)
        told = f"{s['plain']:.3f} | {s['ours']:.3f} | {s['ours'] / s['plain']:.2f} | {theirs}"
        out.append(f"| {s['model']} | {SHAPES[s['model']]} | {told} |")
    a = report["accounting"]
    return [
        *out,
        "",
        f"Accounting of {a['steps']:,} steps, one more each time: {a['ms']:.0f} ms a query after the first.",
    ]


def accounting() -> dict[str, Any]:
    """Milliseconds a query, each of one step more than the one before."""
    epsilon([Mechanism(1.0, 0.01, 9_999)], 1e-5)
    times = []
    for count in range(10_000, 10_011):
        began = time.process_time()
        epsilon([Mechanism(1.0, 0.01, count)], 1e-5)
        times.append((time.process_time() - began) * 1000)
    return {"steps": 10_000, "ms": median(times)}


def step(name: str) -> dict[str, Any]:
    """Milliseconds of processor time a step, turn by turn; None for a way of Opacus' that fails on the model.

    Without privacy a recurrence is torch's own (`nn.GRU`); under Opacus it is Opacus' (`DPGRU`), ours is ours.
    """
    torch.manual_seed(0)
    rows, truth = _rows(models.load(name).representation), (torch.rand(ROWS) < 0.2).float()
    ways: dict[str, Callable[[], None]] = {
        "plain": _plain(_fused(name), rows, truth),
        "ours": _ours(_network(name), rows, truth),
    }
    failed = dict.fromkeys(WAYS)
    for way in WAYS:
        try:
            ways[way] = _opacus(_of_opacus(name), rows, truth, way)
            ways[way]()
        except (RuntimeError, NotImplementedError, ValueError, AttributeError, TypeError) as error:
            print(f"{name}, {way}: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
            ways.pop(way, None)
    times: dict[str, list[float]] = {way: [] for way in ways}
    until = time.monotonic() + SECONDS
    while time.monotonic() < until or len(times["plain"]) < 5:
        for way, make in ways.items():
            began = time.process_time()
            make()
            times[way].append((time.process_time() - began) * 1000)
    return {"model": name, **failed, **{way: median(found[len(found) // 10 :]) for way, found in times.items()}}


def _rows(representation: str) -> dict[str, torch.Tensor]:
    if representation == "tabular":
        return {"x": torch.randn(ROWS, FEATURES)}
    if representation == "series":
        shape = (ROWS, HOURS, CONCEPTS)
        return {"x": torch.randn(shape), "mask": (torch.rand(shape) < 0.4).float(), "delta": torch.rand(shape) * 5}
    shape = (ROWS, EVENTS)
    length = torch.full((ROWS,), EVENTS, dtype=torch.int32)
    code = torch.randint(2, WORDS, shape, dtype=torch.int32)
    return {"code": code, "gap_hours": torch.rand(shape), "value": torch.randn(shape), "length": length}


def _made(name: str, kind: str) -> torch.nn.Module:
    spec = models.load(name)
    recipe = spec.recipe(kind)
    x = FEATURES if spec.representation == "tabular" else CONCEPTS
    setting = {**recipe.untuned, "dropout": 0.0}
    learner: Any = recipe.learner({"x": x, "vocabulary": WORDS, "length": 256}, setting)
    network: torch.nn.Module = learner._built(torch.device("cpu"))
    return network.train()


def _network(name: str) -> torch.nn.Module:
    return _made(name, "private")


def _fused(name: str) -> torch.nn.Module:
    """The same network, a recurrence being torch's own."""
    return _made(name, "federated") if name in ("gru", "retain") else _network(name)


def _of_opacus(name: str) -> torch.nn.Module:
    """The same network, a recurrence being Opacus'."""
    from opacus.layers import DPGRU

    network = _fused(name)
    for child, layer in list(network.named_children()):
        if isinstance(layer, torch.nn.GRU):
            setattr(network, child, DPGRU(layer.input_size, layer.hidden_size, batch_first=True))
    return network


def _loss(logits: torch.Tensor, truth: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, truth, reduction=reduction)


def _plain(network: torch.nn.Module, rows: Rows, truth: torch.Tensor) -> Callable[[], None]:
    optimizer = torch.optim.SGD(network.parameters(), lr=STEP)

    def make() -> None:
        optimizer.zero_grad()
        _loss(network(**rows), truth).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return make


def _ours(network: torch.nn.Module, rows: Rows, truth: torch.Tensor) -> Callable[[], None]:
    patient, clipping = torch.arange(ROWS), Clipping(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=STEP)

    def make() -> None:
        optimizer.zero_grad()
        total = clipping.sum(rows, truth, patient, CLIP).total
        for name, value in network.named_parameters():
            value.grad = (total[name] + NOISE * CLIP * torch.randn_like(value)) / ROWS
        optimizer.step()

    return make


def _plain_layers(network: torch.nn.Module) -> torch.nn.Module:
    """The network with logistic regression's layer a plain one, as Opacus' hooks want it: [n, 1] comes out."""

    class Wide(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network
            for child, layer in list(network.named_children()):
                if type(layer).__name__ == "LogisticRegression":
                    setattr(network, child, torch.nn.Linear(FEATURES, 1))

        def forward(self, **rows: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.inner(**rows)
            return logits.reshape(ROWS)

    return Wide()


def _opacus(network: torch.nn.Module, rows: Rows, truth: torch.Tensor, way: str) -> Callable[[], None]:
    from opacus import GradSampleModule
    from opacus.grad_sample import GradSampleModuleFastGradientClipping
    from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

    wide = _plain_layers(network)
    more = {"noise_multiplier": NOISE, "max_grad_norm": CLIP, "expected_batch_size": ROWS}
    if way == "ghost":
        ghost = GradSampleModuleFastGradientClipping(wide, max_grad_norm=CLIP, use_ghost_clipping=True)
        fast = DPOptimizerFastGradientClipping(torch.optim.SGD(ghost.parameters(), lr=STEP), **more)
        of = DPLossFastGradientClipping(ghost, fast, torch.nn.BCEWithLogitsLoss(reduction="mean"))

        def make_ghost() -> None:
            fast.zero_grad()
            of(ghost(**rows), truth).backward()
            fast.step()

        return make_ghost
    sampled = GradSampleModule(wide, force_functorch=way == "functorch")
    optimizer = DPOptimizer(torch.optim.SGD(sampled.parameters(), lr=STEP), **more)

    def make() -> None:
        optimizer.zero_grad()
        _loss(sampled(**rows), truth).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return make


if __name__ == "__main__":
    torch.set_num_threads(1)
    what, *arguments = sys.argv[1:]
    print(json.dumps({"step": step, "accounting": accounting}[what](*arguments)))
