"""Form "thermometer": each `Quantise` with K levels becomes K threshold units per neuron, of equal weights.

Unit k fires where the sum S of whole weights reaches M_k, the least whole number with base + gain M_k >=
(low + k - 1/2) step: then the level is low + k or more, so level = low + the number of units that fire. All neurons are
stateless, spikes are binary, thresholds are M_k - 1/2 and never met: exact on every chip that holds the whole weights.

No unit has a bias, since a bias would act before a sample arrives: what it would add is inside M_k. Where M_k is not
positive, silence must mean "reached"; there the unit is **mirrored**: it fires where S < M_k, which is -S >= 1 - M_k,
the reader's weights change their sign and the base of the value rises by one step. A unit whose answer no input can
change is left out. A max-pool asks whether any unit k of its window fires: threshold units as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
import torch.nn.functional as fn
from torch import Tensor

from neuro import ir
from neuro.convert.graph import Graph
from neuro.convert.ops import Conv, MaxPool, Quantise
from neuro.convert.weave import Loom
from neuro.convert.wires import Array, Code, IntArray, Part, Shape, Way, base_at, one_gain, way, ways_into

FOREVER = 1e-3  # tau_mem in steps: a decay of exp(-1000) = 0


@dataclass(frozen=True, eq=False)
class Stack:
    """A population.

    node: its name in the network. level: int64[units], which of its channel's levels, from 0, each unit stands for.
    held: [channels, levels, *space], 1 where a level is reached while the unit is silent. exact, largest: of the
    weights into it, see `neuro.convert.wires.Way`.
    """

    code: Code
    node: str
    level: IntArray
    held: IntArray
    low: int
    exact: bool = True
    largest: int = 1

    def by_level(self) -> Code:
        """The same spikes as one channel per (channel, level)."""
        channels, levels, *space = self.held.shape
        flat = (channels * levels, *space)
        return Code(flat, self.code.channel * levels + self.level, self.code.sign, torch.zeros(flat), torch.ones(()))


def lower(
    graph: Graph,
    shapes: Mapping[str, Shape],
    loom: Loom,
    first: tuple[str, Stack],
    neuron: str,
    dt: float,
    bad: list[str],
) -> dict[str, Stack]:
    """Every population, that of the input given, until something is wrong."""
    stacks = dict([first])
    for name in graph.order:
        operation = graph.ops[name]
        if name not in stacks and not bad and isinstance(operation, Quantise | MaxPool):
            make = _pooled if isinstance(operation, MaxPool) else _quantised
            made = make(graph, shapes, loom, stacks, name, neuron, dt, bad)
            if made is not None:
                stacks[name] = made
    return stacks


def _quantised(
    graph: Graph,
    shapes: Mapping[str, Shape],
    loom: Loom,
    stacks: Mapping[str, Stack],
    name: str,
    neuron: str,
    dt: float,
    bad: list[str],
) -> Stack | None:
    operation, source = graph.ops[name], graph.takes[name][0]
    assert isinstance(operation, Quantise)
    codes = {n: s.code for n, s in stacks.items()}
    found = [way(graph, shapes, each, codes[each[0]], bad) for each in ways_into(graph, source, codes)]
    if bad:
        return None
    lines, gain = one_gain([w for w in found if w is not None], name, bad)
    if bad:
        return None
    base = base_at(graph, source, {n: c.base for n, c in codes.items()})
    least = least_sums(base, gain, operation.step, operation.low, operation.high)
    return _stack(loom, stacks, name, lines, least, operation.step, operation.low, neuron, dt)


def _pooled(
    graph: Graph,
    shapes: Mapping[str, Shape],
    loom: Loom,
    stacks: Mapping[str, Stack],
    name: str,
    neuron: str,
    dt: float,
    bad: list[str],
) -> Stack | None:
    operation, source = graph.ops[name], graph.takes[name][0]
    assert isinstance(operation, MaxPool)
    if source not in stacks:
        bad.append(f"'{name}' takes the largest of values that are no events: put a Quantise in front of it")
        return None
    if len(operation.kernel_size) != 2:
        bad.append(f"'{name}' is a max-pool in one dimension: only two have a node")
        return None
    below = stacks[source]
    channels, levels, *space = below.held.shape
    kernel = operation.kernel_size
    held = torch.as_tensor(below.held, dtype=torch.float64).reshape(1, channels * levels, *space)
    counts = fn.avg_pool2d(held, kernel, operation.stride, operation.padding, divisor_override=1)[0]
    least = 1 - counts.numpy().astype(np.int64).reshape(channels, levels, *counts.shape[1:])
    weight = np.broadcast_to(
        np.eye(channels * levels)[:, :, None, None], (channels * levels, channels * levels, *kernel)
    )
    geometry = Conv(torch.zeros(0, 0, 1, 1), None, operation.stride, operation.padding)
    part = Part("conv", geometry, weight.astype(np.float64), (channels * levels, *counts.shape[1:]))
    most = np.full(channels * levels, float(prod(kernel)))
    line = Way(source, (part,), 1.0, -most, most)
    return _stack(loom, stacks, name, [line], least, below.code.step, below.low, neuron, dt, by_level=True)


def _stack(
    loom: Loom,
    stacks: Mapping[str, Stack],
    name: str,
    lines: list[Way],
    least: IntArray,
    step: Tensor,
    low: int,
    neuron: str,
    dt: float,
    by_level: bool = False,
) -> Stack:
    channels, levels, *space = least.shape
    bounds = [sum((getattr(w, end) for w in lines), np.zeros(1)) for end in ("low", "high")]
    ends = [
        b.reshape(channels, -1, *(1,) * len(space)) if by_level else b.reshape(-1, 1, *(1,) * len(space))
        for b in bounds
    ]
    channel, level, sign, threshold = units(least, *ends)
    rows = (channel * levels + level if by_level else channel, sign)
    fronts = []
    for w in lines:
        below = stacks[w.source]
        fronts.append(loom.weave(name, below.node, w, below.by_level() if by_level else below.code, rows))
    node: ir.Neuron = ir.IF(threshold) if neuron == "IF" else ir.LIF(np.array(FOREVER * dt), threshold)
    made = loom.add(name, node, *fronts)
    held = (least <= 0).astype(np.int64)
    base = step * (low + torch.as_tensor(held.sum(1), dtype=torch.float64))
    code = Code((channels, *space), channel, sign, base, step)
    whole, largest = all(w.exact for w in lines), max((w.largest for w in lines), default=0)
    return Stack(code, made, level, held, low, whole, largest)


def units(least: IntArray, low: Array, high: Array) -> tuple[IntArray, IntArray, IntArray, Array]:
    """(channel, level, sign, threshold [units, *space]) for least[channels, levels, *space], the smallest sums that
    reach each level, where sums lie in low..high (which broadcast); sign -1: mirrored. At least one unit."""
    most, fewest = (np.broadcast_to(a, least.shape) for a in (np.floor(high), np.ceil(low)))
    rising = (least >= 1) & (least <= most)
    falling = (least <= 0) & (least > fewest)
    space = tuple(range(2, least.ndim))
    found: list[tuple[int, int, int, Array]] = []
    for active, sign in ((rising, 1), (falling, -1)):
        silent = np.maximum(most if sign > 0 else -fewest, 0) + 0.5
        reached = np.where(active, least - 0.5 if sign > 0 else 0.5 - least, silent)
        wanted = active.any(space) if space else active
        if sign > 0 and not wanted.any() and not falling.any():
            wanted = np.zeros_like(wanted)
            wanted[0, 0] = True  # a population of none has no node: one that never fires
        found += [(int(c), int(k), sign, reached[c, k]) for c, k in np.argwhere(wanted)]
    found.sort(key=lambda entry: entry[:3])
    numbers = np.array([entry[:3] for entry in found], np.int64)
    return numbers[:, 0], numbers[:, 1], numbers[:, 2], np.stack([entry[3] for entry in found])


def least_sums(base: Tensor, gain: float, step: Tensor, low: int, high: int) -> IntArray:
    """int64[channels, levels, *space]: least whole M with base + gain M >= (low + k - 1/2) step, k from 1 on.

    Exact where base, gain and step are short binary fractions; a tie is then reached, as `Quantise` rounds it up.
    """
    found = []
    for k in range(1, high - low + 1):
        wanted = (low + k - 0.5) * step - base
        near = torch.round(wanted / gain)
        here = torch.where(gain * near >= wanted, near, near + 1)
        found.append(torch.where(gain * (here - 1) >= wanted, here - 1, here).expand(base.shape))
    return torch.stack(found, 1).to(torch.int64).numpy()
