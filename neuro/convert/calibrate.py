"""Corrections measured on data, of a spiking graph against the graph that it stands for (Li et al. 2021, ICML).

Populations are corrected in the order of evaluation, each with those before it corrected already.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from neuro.convert.dynamics import Primed
from neuro.convert.engine import Dynamics, moments
from neuro.convert.graph import Graph
from neuro.convert.neurons import Firing
from neuro.convert.ops import Affine, Conv, Linear, Quantise
from neuro.convert.quantise import MOST


def light(original: Graph, graph: Graph, x: tuple[Tensor, ...], steps: int, dynamics: Dynamics) -> Graph:
    """Biases plus the mean, per channel, of (the original's value - the spiking one's after ``steps``)."""
    wanted = original.values(*x)
    for name in graph.neurons:
        got = _after(graph, x, steps, dynamics, name)
        gap = wanted[name if name in wanted else graph.takes[name][0]] - got
        axes = [k for k in range(gap.ndim) if k != 1]
        graph = shifted(graph, name, gap.mean(axes))
    return graph


def advanced(
    original: Graph, graph: Graph, x: tuple[Tensor, ...], steps: int, v0: float = 0.5
) -> tuple[Graph, dict[str, Dynamics]]:
    """theta of every population by a grid (least squared error of the spiking value after ``steps`` steps of even
    input), then v0 of every neuron plus steps times the mean of (the original's value - the spiking one's)."""
    wanted = original.values(*x)
    dynamics: dict[str, Dynamics] = {name: Firing(v0) for name in graph.neurons}
    for name in graph.neurons:
        aim = wanted[name if name in wanted else graph.takes[name][0]]
        z = _after(graph, x, steps, dynamics, graph.takes[name][0])
        neurons = graph.ops[name]
        assert isinstance(neurons, Quantise)
        graph = graph.replace({name: replace(neurons, step=_best_step(neurons, z, aim, steps, v0))})
        gap = aim - _after(graph, x, steps, dynamics, name)
        theta: Any = getattr(graph.ops[name], "step") * neurons.high  # noqa: B009
        dynamics[name] = Primed(v0 + steps * gap.mean(0) / theta)
    return graph, dynamics


def shifted(graph: Graph, user: str, shift: Tensor) -> Graph:
    """With shift [channels] added, on axis 1, to what a population takes: inside a bias if nothing else takes that."""
    name = graph.takes[user][0]
    operation = graph.ops[name]
    users = [n for n in graph.order for s in graph.takes[n] if s == name]
    fits = isinstance(operation, Linear | Conv) and len(shift) == len(operation.weight)
    if fits and len(users) == 1 and name != graph.output and _dims(graph, name) in (1, 3):
        assert isinstance(operation, Linear | Conv)
        bias = shift if operation.bias is None else operation.bias + shift
        return graph.replace({name: replace(operation, bias=bias)})
    dims = _dims(graph, name)
    part = Affine(torch.ones((), dtype=shift.dtype), shift.reshape(-1, *[1] * (dims - 1)))
    added = f"{user}.shift"
    takes = {**graph.takes, added: (name,), user: tuple(added if s == name else s for s in graph.takes[user])}
    return Graph({**graph.ops, added: part}, takes, graph.output, graph.metadata)


def _dims(graph: Graph, name: str) -> int:
    """Axes of a value without the batch."""
    shapes = [getattr(graph.ops[each], "shape", ()) for each in graph.inputs]
    zeros = [torch.zeros(1, *shape, dtype=_dtype(graph)) for shape in shapes]
    with torch.no_grad():
        return graph.values(*zeros)[name].ndim - 1


def _dtype(graph: Graph) -> torch.dtype:
    neurons = graph.ops[graph.neurons[0]]
    assert isinstance(neurons, Quantise)
    return neurons.step.dtype


def _after(graph: Graph, x: tuple[Tensor, ...], steps: int, dynamics: Any, name: str) -> Tensor:
    """The estimate of a value after so many steps."""
    with torch.no_grad():
        for moment in moments(graph, x, steps, dynamics):
            last = moment.estimates[name]
    return last


def _best_step(neurons: Quantise, z: Tensor, aim: Tensor, steps: int, v0: float) -> Tensor:
    flat, wanted = z.reshape(-1), aim.reshape(-1)
    skip = max(1, len(flat) // MOST)
    flat, wanted = flat[::skip], wanted[::skip]
    best, least = neurons.step, float("inf")
    if neurons.step.numel() > 1:
        return best  # already one per channel
    for share in torch.linspace(0.4, 1.6, 61).tolist():
        theta = neurons.step * neurons.high * share
        value = theta * torch.floor(steps * flat / theta + v0).clamp(0, steps) / steps
        cost = float(((value - wanted) ** 2).mean())
        if cost < least:
            best, least = neurons.step * share, cost
    return best
