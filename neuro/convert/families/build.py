"""What all families share: writing a graph by hand, steps for its neurons from data, numbers on a binary grid, and a
run until nobody sends any more.

On a binary grid (`round_to`) every sum of weights times levels is exact in float64. Then it does not matter in which
order messages arrive, and a chip that adds integers computes the very same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from neuro.convert.engine import Dynamics, moments
from neuro.convert.graph import Graph
from neuro.convert.neurons import Settling
from neuro.convert.ops import Input, Op, Quantise
from neuro.convert.quantise import fit_step
from neuro.errors import ConversionError


class Build:
    """Writes a graph operation by operation; every call returns the name to take from."""

    def __init__(self) -> None:
        self.ops: dict[str, Op] = {}
        self.takes: dict[str, tuple[str, ...]] = {}
        self.open: list[str] = []
        self.powers: list[str] = []

    def __call__(self, name: str, operation: Op, *sources: str) -> str:
        if name in self.ops:
            raise ConversionError(f"'{name}' exists already")
        self.ops[name], self.takes[name] = operation, sources
        return name

    def input(self, name: str, *shape: int) -> str:
        return self(name, Input(shape))

    def neurons(self, name: str, source: str, levels: int, signed: bool = False, power_of_two: bool = False) -> str:
        """A population of levels 0..levels, or -levels..levels; its step is found by `graph`."""
        self.open.append(name)
        self.powers += [name] if power_of_two else []
        one = torch.ones((), dtype=torch.float64)
        return self(name, Quantise(one, -levels if signed else 0, levels), source)

    def graph(self, output: str, *x: Tensor, bits: int | None = 14) -> Graph:
        """The graph in float64, steps of open populations by `calibrate` on x, numbers on a grid of 2^-bits."""
        graph = Graph(self.ops, self.takes, output).to(torch.float64)
        graph = graph if bits is None else round_to(graph, bits)
        return calibrate(graph, self.open, *x, power_of_two=self.powers)


def round_to(graph: Graph, bits: int) -> Graph:
    """All real tensors but those of neurons to multiples of 2^-bits."""
    changed: dict[str, Op] = {}
    for name, operation in graph.ops.items():
        if isinstance(operation, Quantise):
            continue
        found: dict[str, Any] = {}
        for each in fields(operation):
            value = getattr(operation, each.name)
            if isinstance(value, Tensor) and value.is_floating_point():
                found[each.name] = torch.round(value * 2.0**bits) / 2.0**bits
        if found:
            changed[name] = replace(operation, **found)
    return graph.replace(changed)


def calibrate(graph: Graph, names: Collection[str], *x: Tensor, power_of_two: Collection[str] = ()) -> Graph:
    """Steps of least squared error (`neuro.convert.quantise.fit_step`) for these populations, in the order of
    evaluation, so that each sees quantised values. ``power_of_two``: for those, the nearest power of two."""
    for name in graph.order:
        if name in names:
            part = Graph(graph.ops, graph.takes, graph.takes[name][0])
            with torch.no_grad():
                z = part.run(*_needed(graph, part, x))
            neurons = graph.ops[name]
            assert isinstance(neurons, Quantise)
            step = fit_step(z.reshape(1, -1), neurons.high, neurons.low)[0]
            step = torch.exp2(torch.round(torch.log2(step))) if name in power_of_two else step
            graph = graph.replace({name: replace(neurons, step=step)})
    return graph


def _needed(graph: Graph, part: Graph, x: tuple[Tensor, ...]) -> list[Tensor]:
    given = dict(zip(graph.inputs, x, strict=True))
    return [given[name] for name in part.inputs]


@dataclass(frozen=True)
class Settled:
    """A run until nobody sends any more.

    reference: [batch, ...] the quantised graph's answer. outputs: T -> estimate after T steps. equal_from: the first
    step from which on the estimate equals the reference in every bit, None if it never did. silent_at: the first step
    in which nobody sent anything, so nothing changes any more; None if that was not seen. messages: population ->
    messages per sample until then. changing: largest |estimate - reference| after each step.
    """

    reference: Tensor
    outputs: Mapping[int, Tensor]
    equal_from: int | None
    silent_at: int | None
    messages: Mapping[str, float]
    changing: tuple[float, ...]


def settle(
    graph: Graph,
    *x: Tensor,
    dynamics: Dynamics | Mapping[str, Dynamics] | None = None,
    at: tuple[int, ...] = (1, 2, 4, 8, 16, 32),
    most: int = 400,
) -> Settled:
    """Runs the graph over time until a step without messages, at most ``most`` steps."""
    outputs: dict[int, Tensor] = {}
    changing: list[float] = []
    counts = dict.fromkeys(graph.neurons, 0.0)
    equal_from, silent_at = None, None
    with torch.no_grad():
        reference = graph.run(*x)
        neurons: Any = Settling() if dynamics is None else dynamics
        for moment in moments(graph, x, most, neurons):
            now = moment.estimates[graph.output]
            equal = torch.equal(now, reference.expand_as(now))
            equal_from = (equal_from or moment.t) if equal else None
            changing.append(float((now - reference).abs().max()))
            if moment.t in at:
                outputs[moment.t] = now
            sent = {name: float(each.sum()) for name, each in moment.messages.items()}
            for name, number in sent.items():
                counts[name] += number / len(x[0])
            if not any(sent.values()):
                silent_at = moment.t
                break
    outputs.update({t: now for t in at if t not in outputs and silent_at is not None and t > silent_at})
    return Settled(reference, outputs, equal_from, silent_at, counts, tuple(changing))


def fit(
    module: nn.Module, x: tuple[Tensor, ...], y: Tensor, epochs: int, lr: float = 3e-3, batch: int = 64, seed: int = 0
) -> nn.Module:
    """Adam on cross-entropy, rate to zero along a cosine; the order of samples from ``seed``."""
    order = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(module.parameters(), lr)
    steps = epochs * math.ceil(len(y) / batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    module.train()
    for _ in range(epochs):
        for chosen in torch.tensor_split(torch.randperm(len(y), generator=order), list(range(batch, len(y), batch))):
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(module(*(each[chosen] for each in x)), y[chosen])
            extra = getattr(module, "extra_loss", None)
            (loss if extra is None else loss + extra).backward()
            optimiser.step()
            schedule.step()
    return module.eval()


def accuracy(answer: Tensor, y: Tensor) -> float:
    """Share of samples whose largest output is the label."""
    return float((answer.argmax(-1) == y).double().mean())
