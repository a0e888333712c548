"""`tune`: training of a quantised graph, so that few levels are enough.

QCFS (Bu et al. 2022, ICLR): h(z) = lam clip(floor(L z / lam + 1/2) / L, 0, 1), which is `Quantise` with lam = step L;
the floor passes its gradient on as it is, so dh/dz = 1 inside the clip and dh/dstep = floor(z / step + 1/2) - z / step
inside, ``high`` above. Trained are the tensors of linear operations and of norms, and the logarithms of steps.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
import torch.nn.functional as fn
from torch import Tensor

from neuro.convert.graph import Graph
from neuro.convert.grid import short
from neuro.convert.ops import LayerNorm, Op, Quantise
from neuro.convert.quantise import rounded, weight_scale
from neuro.errors import ConversionError

WeightBits = int | Literal["ternary"] | None


def tune(
    graph: Graph,
    x: Tensor | tuple[Tensor, ...],
    y: Tensor,
    *,
    epochs: int = 10,
    batch: int = 64,
    optimiser: str = "adamw",
    lr: float | None = None,
    weight_decay: float = 5e-4,
    weight_bits: WeightBits = None,
    teacher: Graph | None = None,
    valid: tuple[Tensor | tuple[Tensor, ...], Tensor] | None = None,
    held_out: float = 0.1,
    judge: Callable[[Graph], float] | None = None,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Graph:
    """A trained copy. Its metadata say how it went: "tuned" holds JSON with the scores on the validation split, of the
    start and after each epoch, and which epoch was taken.

    Args:
        graph: with neurons, see `neuro.convert.quantise`.
        x: [samples, ...] per input. y: whole numbers [samples] for cross entropy, real ones for squared error.
        optimiser: "adamw" (lr 1e-3) or "sgd" (momentum 0.9, lr 0.02); both follow a cosine to 0.
        weight_bits: train with weights as `quantise` rounds them (gradients pass straight through); the result is
            rounded, so it is on the grid.
        teacher: cross entropy to its softmax as well, both by half (classes only).
        valid: data that the epoch is chosen by; None: a share ``held_out`` of x, drawn by seed. The start counts as
            an epoch, so the result is never worse there.
        judge: graph -> score, larger is better, instead of accuracy (or minus the squared error) on valid.
        dtype: of training; the result has the dtype of the graph's own tensors.

    Raises:
        ConversionError: a graph without neurons, options out of range, lengths that differ.
    """
    inputs = x if isinstance(x, tuple) else (x,)
    bad = [] if graph.neurons else ["the graph has no neurons: quantise it first"]
    bad += [] if all(len(each) == len(y) for each in inputs) else ["x and y differ in length"]
    bad += [] if optimiser in ("adamw", "sgd") else [f"optimiser must be 'adamw' or 'sgd', got {optimiser!r}"]
    bad += [] if epochs >= 1 and batch >= 1 else [f"epochs and batch must be at least 1, got {epochs}, {batch}"]
    bad += [] if 0 < held_out < 1 else [f"held_out must lie in (0, 1), got {held_out}"]
    if bad:
        raise ConversionError("cannot tune", bad)
    own = next(t.dtype for t in _tensors(graph).values())
    rng = torch.Generator().manual_seed(seed)
    inputs, y = tuple(each.to(dtype) for each in inputs), y if not y.is_floating_point() else y.to(dtype)
    if valid is None:
        order = torch.randperm(len(y), generator=rng)
        kept = max(1, round(held_out * len(y)))
        seen = (tuple(each[order[:kept]] for each in inputs), y[order[:kept]])
        inputs, y = tuple(each[order[kept:]] for each in inputs), y[order[kept:]]
    else:
        given = valid[0] if isinstance(valid[0], tuple) else (valid[0],)
        seen = (tuple(each.to(dtype) for each in given), valid[1])
    score = judge or (lambda g: _score(g, *seen))
    student = _Student(graph.to(dtype), weight_bits)
    soft = None if teacher is None else teacher.to(dtype)
    steps = epochs * math.ceil(len(y) / batch)
    rate = lr if lr is not None else (1e-3 if optimiser == "adamw" else 0.02)
    optimise = _optimiser(student, optimiser, rate, weight_decay)
    cosine = torch.optim.lr_scheduler.LambdaLR(optimise, lambda k: 0.5 * (1 + math.cos(math.pi * min(k / steps, 1))))
    student.measure()
    best, scores, at = student.result(), [score(student.result())], 0
    for epoch in range(1, epochs + 1):
        order = torch.randperm(len(y), generator=rng)
        for chosen in torch.split(order, batch):
            now = student.graph()
            taken = tuple(each[chosen] for each in inputs)
            found = now.run(*taken)
            loss = _loss(found, y[chosen])
            if soft is not None:
                with torch.no_grad():
                    wanted = fn.softmax(soft.run(*taken), -1)
                loss = 0.5 * loss + 0.5 * fn.cross_entropy(found, wanted)
            optimise.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimise.step()
            cosine.step()
        student.measure()
        candidate = student.result()
        scores.append(score(candidate))
        if scores[-1] > scores[at]:
            best, at = candidate, epoch
    how = json.dumps({"scores": scores, "epoch": at, "optimiser": optimiser, "lr": rate, "seed": seed})
    return Graph(best.to(own).ops, graph.takes, graph.output, {**graph.metadata, "tuned": how})


@dataclass(frozen=True, eq=False)
class _Straight(Quantise):
    """`Quantise` whose floor passes gradients on."""

    def value(self, *x: Tensor) -> Tensor:
        u = x[0] / self.step + 0.5
        return self.step * (u + (torch.floor(u) - u).detach()).clamp(self.low, self.high)


class _Student:
    """The tensors that are trained, and the graph they make."""

    def __init__(self, graph: Graph, weight_bits: WeightBits) -> None:
        self.base, self.bits = graph, weight_bits
        self.tensors: dict[tuple[str, str], Tensor] = {}
        self.scales: Mapping[str, tuple[Tensor, int]] = {}
        for (name, part), value in _tensors(graph).items():
            start = value.detach().clone()
            self.tensors[name, part] = (start.log() if _is_step(graph, name) else start).requires_grad_()

    def measure(self) -> None:
        """The grids of weights, once an epoch."""
        if self.bits is not None:
            weights = {n: t for (n, part), t in self.tensors.items() if part == "weight" and self.base.ops[n].linear}
            self.scales = {name: weight_scale(weight, self.bits) for name, weight in weights.items()}

    def graph(self) -> Graph:
        """For training: differentiable in ``tensors``."""
        return self._made(_Straight, self._soft)

    def result(self) -> Graph:
        """For use: rounded where it is to be."""
        with torch.no_grad():
            done = self._made(Quantise, lambda name, part, value: self._soft(name, part, value).detach().clone())
            biases = rounded(done, self.bits) if self.bits is not None else {}
            whole: dict[str, Op] = {}
            for name, operation in biases.items():
                # weights are on their grid already; rounding them again would only search for another one
                kept = {"weight": getattr(done.ops[name], "weight")} if name in self.scales else {}  # noqa: B009
                whole[name] = replace(operation, **kept)
            steps: dict[str, Op] = {}
            for name in done.neurons:
                neurons = done.ops[name]
                assert isinstance(neurons, Quantise)
                steps[name] = replace(neurons, step=short(neurons.step))
            return done.replace({**whole, **steps})

    def _soft(self, name: str, part: str, value: Tensor) -> Tensor:
        if _is_step(self.base, name):
            return value.exp()
        if part == "weight" and name in self.scales:
            scale, most = self.scales[name]
            with torch.no_grad():
                exact = scale * torch.round(value / scale).clamp(-most, most)
            return value + (exact - value).detach() if torch.is_grad_enabled() else exact
        return value

    def _made(self, kind: type[Quantise], read: Callable[[str, str, Tensor], Tensor]) -> Graph:
        changed: dict[str, dict[str, Any]] = {}
        for (name, part), value in self.tensors.items():
            changed.setdefault(name, {})[part] = read(name, part, value)
        ops: dict[str, Op] = {}
        for name, parts in changed.items():
            old = self.base.ops[name]
            if isinstance(old, Quantise):
                ops[name] = kind(parts["step"], old.low, old.high)
            else:
                ops[name] = copy.copy(old)  # no checks of every step anew
                for part, value in parts.items():
                    object.__setattr__(ops[name], part, value)
        return self.base.replace(ops)


def _is_step(graph: Graph, name: str) -> bool:
    return isinstance(graph.ops[name], Quantise)


def _tensors(graph: Graph) -> dict[tuple[str, str], Tensor]:
    found: dict[tuple[str, str], Tensor] = {}
    for name in graph.order:
        operation = graph.ops[name]
        if not operation.linear and not isinstance(operation, Quantise | LayerNorm):
            continue
        for each in fields(operation):
            value = getattr(operation, each.name)
            if isinstance(value, Tensor) and value.is_floating_point():
                found[name, each.name] = value
    return found


def _optimiser(student: _Student, kind: str, lr: float, decay: float) -> torch.optim.Optimizer:
    weights = [t for (_, part), t in student.tensors.items() if part == "weight"]
    others = [t for (_, part), t in student.tensors.items() if part != "weight"]
    groups = [{"params": weights, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    if kind == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=0.9)
    return torch.optim.AdamW(groups, lr=lr)


def _loss(found: Tensor, y: Tensor) -> Tensor:
    return fn.mse_loss(found, y) if y.is_floating_point() else fn.cross_entropy(found, y)


def _score(graph: Graph, x: tuple[Tensor, ...], y: Tensor) -> float:
    """Accuracy, or minus the mean squared error."""
    with torch.no_grad():
        found = torch.cat([graph.run(*part) for part in zip(*(torch.split(each, 256) for each in x), strict=True)])
    if y.is_floating_point():
        return -float(fn.mse_loss(found, y))
    return float((found.argmax(-1) == y).to(torch.float64).mean())
