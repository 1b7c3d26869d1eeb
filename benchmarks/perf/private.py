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
from privacy.clipping import clipped_sum

FEATURES, ROWS, CLIP, NOISE, STEP = 622, 64, 1.0, 1.0, 0.01
TURNS = 300
WAYS = {"hooks": "hooks", "functorch": "functorch", "ghost": "ghost"}


def section(folder: Path, home: Path) -> dict[str, Any]:
    """Both models, and the accountant."""
    return {
        "steps": [measured(home, "private.py", "step", name) for name in ("logistic", "mlp")],
        "accounting": measured(home, "private.py", "accounting"),
    }


def lines(report: dict[str, Any]) -> list[str]:
    """The table of the page."""
    out = [
        "| step of 64 patients, 622 features | no privacy, ms | ours, ms | ratio | Opacus: hooks | functorch | ghost |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for s in report["steps"]:
        theirs = " | ".join(f"{s[way] / s['plain']:.1f}" for way in WAYS)
        out.append(f"| {s['model']} | {s['plain']:.3f} | {s['ours']:.3f} | {s['ours'] / s['plain']:.2f} | {theirs} |")
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
    """Milliseconds of processor time a step, turn by turn."""
    torch.manual_seed(0)
    recipe = models.load(name).recipe("private")
    x, truth = torch.randn(ROWS, FEATURES), (torch.rand(ROWS) < 0.2).float()
    ways: dict[str, Callable[[], None]] = {
        "plain": _plain(_network(recipe), x, truth),
        "ours": _ours(_network(recipe), x, truth),
        **{way: _opacus(_network(recipe), x, truth, way) for way in WAYS},
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(TURNS):
        for way, make in ways.items():
            began = time.process_time()
            make()
            if turn >= TURNS // 10:
                times[way].append((time.process_time() - began) * 1000)
    return {"model": name, **{way: median(found) for way, found in times.items()}}


def _network(recipe: Any) -> torch.nn.Module:
    network: torch.nn.Module = recipe.learner({"x": FEATURES}, recipe.untuned)._built(torch.device("cpu"))
    return network.train()


def _loss(logits: torch.Tensor, truth: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, truth, reduction=reduction)


def _plain(network: torch.nn.Module, x: torch.Tensor, truth: torch.Tensor) -> Callable[[], None]:
    optimizer = torch.optim.SGD(network.parameters(), lr=STEP)

    def make() -> None:
        optimizer.zero_grad()
        _loss(network(x), truth).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return make


def _ours(network: torch.nn.Module, x: torch.Tensor, truth: torch.Tensor) -> Callable[[], None]:
    patient = torch.arange(ROWS)
    optimizer = torch.optim.SGD(network.parameters(), lr=STEP)

    def make() -> None:
        optimizer.zero_grad()
        total = clipped_sum(network, {"x": x}, truth, patient, CLIP)
        for name, value in network.named_parameters():
            value.grad = (total[name] + NOISE * CLIP * torch.randn_like(value)) / ROWS
        optimizer.step()

    return make


class _Wide(torch.nn.Module):
    """A logistic regression whose layer is a layer, as Opacus' hooks want it."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(FEATURES, 1) if isinstance(inner, torch.nn.Linear) else inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x).reshape(len(x))  # type: ignore[no-any-return]


def _opacus(network: torch.nn.Module, x: torch.Tensor, truth: torch.Tensor, way: str) -> Callable[[], None]:
    from opacus import GradSampleModule
    from opacus.grad_sample import GradSampleModuleFastGradientClipping
    from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

    wide = _Wide(network)
    more = {"noise_multiplier": NOISE, "max_grad_norm": CLIP, "expected_batch_size": ROWS}
    if way == "ghost":
        ghost = GradSampleModuleFastGradientClipping(wide, max_grad_norm=CLIP, use_ghost_clipping=True)
        fast = DPOptimizerFastGradientClipping(torch.optim.SGD(ghost.parameters(), lr=STEP), **more)
        of = DPLossFastGradientClipping(ghost, fast, torch.nn.BCEWithLogitsLoss(reduction="mean"))

        def make_ghost() -> None:
            fast.zero_grad()
            of(ghost(x), truth).backward()
            fast.step()

        return make_ghost
    sampled = GradSampleModule(wide, force_functorch=way == "functorch")
    optimizer = DPOptimizer(torch.optim.SGD(sampled.parameters(), lr=STEP), **more)

    def make() -> None:
        optimizer.zero_grad()
        _loss(sampled(x), truth).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return make


if __name__ == "__main__":
    torch.set_num_threads(1)
    what, *arguments = sys.argv[1:]
    print(json.dumps({"step": step, "accounting": accounting}[what](*arguments)))
