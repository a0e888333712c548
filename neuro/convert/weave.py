"""Nodes and edges of a `neuro.ir.Network` for the ways of `neuro.convert.wires`."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from neuro import ir
from neuro.convert.ops import AvgPool, Conv
from neuro.convert.wires import Array, Code, IntArray, Part, Way

if TYPE_CHECKING:
    from neuro.ir import Node

INPUT, OUTPUT = "input", "output"


@dataclass
class Loom:
    """A network that is being made."""

    nodes: dict[str, Node] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)

    def add(self, name: str, node: Node, *sources: str) -> str:
        """A node behind others, under the first free name like the one asked for."""
        free, number = name, 1
        while free in self.nodes:
            number += 1
            free = f"{name}.{number}"
        self.nodes[free] = node
        self.edges += [(source, free) for source in dict.fromkeys(sources)]
        return free

    def weave(
        self,
        name: str,
        front: str,
        line: Way,
        code: Code,
        rows: tuple[IntArray, IntArray] | None = None,
        factor: float = 1.0,
        bias: Array | None = None,
    ) -> str:
        """All parts of a way behind the node ``front``; returns the last.

        rows: (channel, sign) of every row that the population wants, as in `Code`; None: its channels.
        bias: [channels], behind the last weights.
        """
        mixing = [k for k, p in enumerate(line.parts) if p.kind in ("conv", "linear")]
        shape = code.shape
        for k, part in enumerate(line.parts):
            weight = part.weight
            if k == mixing[0]:
                weight = _columns(weight, code, shape)
            if k == mixing[-1]:
                weight = weight * factor
                if rows is not None:
                    weight = weight[rows[0]] * rows[1].reshape(-1, *(1,) * (weight.ndim - 1))
            here = bias if k == mixing[-1] else None
            front = self.add(f"{name}.{_label(line, k)}", _node(part, weight, here), front)
            if k < mixing[0]:
                shape = part.shape if part.kind == "sum_pool" else shape
        return front


def _label(line: Way, k: int) -> str:
    kind = {"conv": "weights", "linear": "weights", "sum_pool": "pool", "flatten": "flat"}[line.parts[k].kind]
    return f"{kind}" if sum(p.kind == line.parts[k].kind for p in line.parts) == 1 else f"{kind}{k}"


def _columns(weight: Array, code: Code, shape: tuple[int, ...]) -> Array:
    """Weights for units instead of channels; shape: of values where they were flattened, if they were."""
    signs = code.sign.reshape(1, -1, *(1,) * (weight.ndim - 2))
    if weight.ndim == 4 or len(shape) == 1:
        units: Array = weight[:, code.channel] * signs
        return units
    split = weight.reshape(len(weight), shape[0], prod(shape[1:]))
    whole: Array = (split[:, code.channel] * code.sign.reshape(1, -1, 1)).reshape(len(weight), -1)
    return whole


def _node(part: Part, weight: Array, bias: Array | None) -> Node:
    if part.kind == "flatten":
        return ir.Flatten()
    if part.kind == "sum_pool":
        assert isinstance(part.op, AvgPool)
        return ir.SumPool2d(_pair(part.op.kernel_size), _pair(part.op.stride), _pair(part.op.padding))
    if part.kind == "linear":
        return ir.Linear(weight) if bias is None else ir.Affine(weight, bias=bias)
    assert isinstance(part.op, Conv)
    given, groups = np.zeros(len(weight)) if bias is None else bias, 1
    if _diagonal(weight):
        groups, weight = len(weight), weight[np.arange(len(weight)), np.arange(len(weight))][:, None]
    geometry = _pair(part.op.stride), _pair(part.op.padding), _pair(part.op.dilation)
    return ir.Conv2d(weight, *geometry, groups, given)


def _pair(sizes: tuple[int, ...]) -> tuple[int, int]:
    high, wide = sizes
    return high, wide


def _diagonal(weight: Array) -> bool:
    """Whether every output channel reads the input channel of its own number alone."""
    if len(weight) != weight.shape[1] or len(weight) == 1:
        return False
    used = (weight != 0).any((2, 3))
    return not used[~np.eye(len(weight), dtype=bool)].any()


__all__ = ["INPUT", "OUTPUT", "Loom"]
