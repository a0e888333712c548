"""Small graphs for the tests of conversion, and an implementation of spiking graphs that shares no code with the
engine: messages are added one by one, in any order, as exact fractions."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from neuro.convert.graph import Graph
from neuro.convert.ops import Add, Affine, AvgPool, Conv, Function, Input, Linear, Op, Quantise, Reshape


def small_graph(seed: int = 0, dtype: torch.dtype = torch.float64) -> Graph:
    """6x6 images -> conv with batch norm -> residual conv -> pool -> linear -> linear: every kind of sum."""
    rng = torch.Generator().manual_seed(seed)

    def draw(*shape: int, scale: float) -> Tensor:
        return (scale * torch.randn(*shape, generator=rng, dtype=torch.float64)).to(dtype)

    ops: dict[str, Op] = {
        "x": Input((1, 6, 6)),
        "conv1": Conv(draw(4, 1, 3, 3, scale=0.5), draw(4, scale=0.1), padding=(1, 1)),
        "bn1": Affine(1 + draw(4, 1, 1, scale=0.2), draw(4, 1, 1, scale=0.2)),
        "relu1": Function("relu"),
        "conv2": Conv(draw(4, 4, 3, 3, scale=0.25), draw(4, scale=0.1), padding=(1, 1)),
        "sum": Add(),
        "relu2": Function("relu"),
        "pool": AvgPool((2, 2), (2, 2)),
        "flat": Reshape((36,)),
        "fc1": Linear(draw(12, 36, scale=0.3), draw(12, scale=0.1)),
        "relu3": Function("relu6"),
        "fc2": Linear(draw(5, 12, scale=0.4), draw(5, scale=0.1)),
    }
    names = list(ops)
    takes = {name: (names[k - 1],) for k, name in enumerate(names) if k}
    takes["sum"] = ("relu1", "conv2")
    return Graph(ops, takes, "fc2")


def data(samples: int = 64, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    """Like images: [samples, 1, 6, 6] in 0..1."""
    return torch.rand(samples, 1, 6, 6, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class Messages:
    """A spiking graph, one message at a time: every wire is a list of exact sums, a neuron that fires adds to
    whatever its message reaches, and nothing else happens. One sample.

    Args:
        law: (membrane sum, spikes so far, population, step) -> message in levels; what a neuron does.
        again: input and biases arrive in every step (code "rate"), else once.
    """

    def __init__(self, graph: Graph, x: Tensor, law: Callable[..., int], again: bool, seed: int = 0) -> None:
        self.graph, self.law, self.again = graph, law, again
        self.rng = random.Random(seed)
        values = graph.values(x[None])
        self.shapes = {name: tuple(value.shape[1:]) for name, value in values.items()}
        self.sums = {n: [Fraction(0)] * values[n].numel() for n in graph.order}
        self.counts = {n: [0] * values[n].numel() for n in graph.neurons}
        self.input = [Fraction(v) for v in x.reshape(-1).tolist()]
        self.reach: dict[tuple[str, int, int], list[tuple[int, Fraction]]] = {}
        self.t = 0

    def _reached(self, name: str, argument: int, source: str, k: int) -> list[tuple[int, Fraction]]:
        """(place, weight) of all that one unit at place k of the source changes in an operation's value."""
        key = (name, argument, k)
        if key not in self.reach:
            operation = self.graph.ops[name]
            zeros = [torch.zeros(1, *self.shapes[s], dtype=torch.float64) for s in self.graph.takes[name]]
            without = operation.value(*zeros).clone()  # may be a view
            zeros[argument].reshape(-1)[k] = 1.0
            # unit responses are exact where there is no bias: the two differ in one weight alone
            response = _biasless(operation).value(*zeros) if _biasless(operation) else operation.value(*zeros) - without
            flat = response.reshape(-1).tolist()
            self.reach[key] = [(j, Fraction(w)) for j, w in enumerate(flat) if w]
        return self.reach[key]

    def _send(self, source: str, message: list[Fraction]) -> None:
        """Adds a message to a wire, and to everything behind it up to the next neurons, spike by spike."""
        places = [k for k, m in enumerate(message) if m]
        self.rng.shuffle(places)
        for k in places:
            self.sums[source][k] += message[k]
        for name in self.graph.order:
            for argument, taken in enumerate(self.graph.takes[name]):
                if taken != source:
                    continue
                if isinstance(self.graph.ops[name], Quantise):
                    continue  # reads the wire's sum
                arrived = [Fraction(0)] * len(self.sums[name])
                for k in places:
                    for j, w in self._reached(name, argument, source, k):
                        arrived[j] += w * message[k]
                self._send(name, arrived)

    def step(self) -> None:
        self.t += 1
        if self.t == 1 or self.again:
            for name in self.graph.order:
                operation = self.graph.ops[name]
                zeros = [torch.zeros(1, *self.shapes[s], dtype=torch.float64) for s in self.graph.takes[name]]
                if zeros and not isinstance(operation, Quantise):
                    bias = operation.value(*zeros)
                    self._send(name, [Fraction(v) for v in bias.reshape(-1).tolist()])
            self._send(self.graph.inputs[0], self.input)
        for name in self.graph.neurons:  # in the order of evaluation, as a layered chip does
            operation: Any = self.graph.ops[name]
            step = Fraction(float(operation.step))
            taken = self.sums[self.graph.takes[name][0]]
            message = [Fraction(0)] * len(taken)
            for k, total in enumerate(taken):
                s = self.law(total / step, self.counts[name][k], operation, self.t)
                self.counts[name][k] += s
                message[k] = s * step * (operation.high if self.again else 1)
            self._send(name, message)

    def sum(self, name: str) -> Tensor:
        return torch.tensor([float(v) for v in self.sums[name]], dtype=torch.float64).reshape(self.shapes[name])


def _biasless(operation: Op) -> Op | None:
    return replace(operation, bias=None) if isinstance(operation, Linear | Conv) else None
