"""Form "unfold": a level is a number of spikes, each layer in a window of its own, as `neuro.nn.unfold` has it.

Every `Quantise` of D levels is an integrate-and-fire neuron that subtracts its threshold. Layer l (from 1 on) sends in
sub-steps (l - 1) D .. l D - 1, when the sum S of all whole weights has arrived, and is held below its threshold by a
clock before and after::

    v += S of what arrives                                     in every sub-step
    v += offset - hold   at clock 0;   v += hold   at clock l - 1;   v -= hold   at clock l

A level more for each ``theta`` of S; offset says where the first begins. Layers of images are reached by the clock too:
a convolution of its [ticks, 1, 1] whose padding is as wide as the image gives each pixel a weight of its own.
Ways that skip layers need nothing: what comes early is kept. There is no max-pool.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, log2, prod

import numpy as np
import torch
from torch import Tensor

from neuro import ir
from neuro.convert.graph import Graph
from neuro.convert.ops import Quantise
from neuro.convert.valued import lines_into
from neuro.convert.weave import Loom
from neuro.convert.wires import Array, Code, Shape, plain, ways_into

ALWAYS, CLOCK = "clock_always", "clock"
Gates = list[tuple[str, Shape, Array]]  # node of a population, its shape, [ticks, *shape] that the clock adds


def lower(
    graph: Graph,
    shapes: Mapping[str, Shape],
    loom: Loom,
    codes: dict[str, Code],
    nodes: dict[str, str],
    bad: list[str],
) -> tuple[int, bool]:
    """All populations and the clock; (sub-steps, whether nothing is rounded). The entrance is given."""
    (front,) = codes
    names = [n for n in graph.order if isinstance(graph.ops[n], Quantise) and n != front]
    found = {n: graph.ops[n] for n in names}
    levels = {o.high for o in found.values() if isinstance(o, Quantise)}
    bad += [f"'{n}' has levels below 0: spikes count from 0" for n, o in found.items() if getattr(o, "low", 0)]
    if len(levels) != 1:
        bad.append(f"one number of levels is needed for all windows to be of one length, found {sorted(levels)}")
    if bad:
        return 0, False
    (top,) = levels
    layer, exact = {front: 0}, True
    gates: Gates = []
    for name in names:
        made = lines_into(graph, shapes, codes, name, graph.takes[name][0], bad)
        if made is None:
            return 0, False
        lines, gain, base = made
        operation = graph.ops[name]
        assert isinstance(operation, Quantise)
        theta = (operation.step / gain).expand(base.shape)
        offset = _offset(theta, base / gain)
        exact &= all(w.exact for w in lines) and bool((theta == theta.round()).all())
        fronts = [loom.weave(name, nodes[w.source], w, codes[w.source]) for w in lines]
        nodes[name] = loom.add(name, ir.IF(theta.numpy(), reset="subtract"), *fronts)
        sources = [layer[s] for s, _ in ways_into(graph, graph.takes[name][0], codes)]
        layer[name] = max(sources, default=0) + 1
        most = max(
            float(np.abs(end).sum(0).max())
            for end in (np.stack([w.low for w in lines]), np.stack([w.high for w in lines]))
        )
        hold = 2.0 ** ceil(log2(most + float(offset.abs().max()) + float(theta.max())))
        ticks = np.zeros((len(names) + 1, *base.shape))
        ticks[0] = offset.numpy() - hold
        ticks[layer[name] - 1] += hold
        ticks[layer[name]] -= hold
        gates.append((nodes[name], tuple(base.shape), ticks))
        codes[name] = plain(shapes[name], operation.step, 0, top)
    depth = max(layer.values())
    _clock(loom, nodes[front], depth + 1, top)
    for node, shape, ticks in gates:
        _gate(loom, node, shape, ticks[: depth + 1])
    return depth * top, exact


def _offset(theta: Tensor, base: Tensor) -> Tensor:
    """So that the k-th spike needs S > k theta - offset, where `Quantise` asks S + base >= (k - 1/2) theta. With whole
    theta and sums the first is S >= m for the least whole m, so offset = theta - m + 1 is whole as well."""
    whole = theta == theta.round()
    least = torch.ceil(theta / 2 - base)
    return torch.where(whole, theta - least + 1, theta / 2 + base)


def _clock(loom: Loom, front: str, ticks: int, levels: int) -> None:
    """Neurons CLOCK [ticks, 1, 1], of which number j fires in sub-step j D alone; nothing of the input reaches them."""
    shape = loom.nodes[front].shape  # type: ignore[attr-defined]
    begin = front
    if len(shape) == 3:
        nothing: ir.Node = ir.Conv2d(np.zeros((1, *shape)), bias=np.ones(1))
    else:  # a vector of n is an image of n pixels for a clock that is one
        nothing = ir.Affine(np.zeros((1, prod(shape))), bias=np.ones(1))
    flat = len(shape) != 3
    loom.add(f"{ALWAYS}_bias", nothing, begin)
    loom.add(ALWAYS, ir.IF(np.full(1 if flat else (1, 1, 1), 0.5)), f"{ALWAYS}_bias")
    first = np.zeros((ticks, 1))
    first[0] = 1.0
    # a constant 1, and a constant -1 from the next step on: what is left is one pulse, in step 0
    loom.add(f"{CLOCK}_start", _matrix(first, flat), ALWAYS)
    loom.add(f"{CLOCK}_late", ir.Delay(np.array(1)), ALWAYS)
    loom.add(f"{CLOCK}_end", _matrix(-first, flat), f"{CLOCK}_late")
    loom.add(CLOCK, ir.IF(np.full(ticks if flat else (ticks, 1, 1), 0.5)), f"{CLOCK}_start", f"{CLOCK}_end")
    link = CLOCK
    if levels > 1:  # a loop takes a step of its own
        link = loom.add(f"{CLOCK}_held", ir.Delay(np.array(levels - 1)), CLOCK)
    loom.add(f"{CLOCK}_chain", _matrix(np.eye(ticks, k=-1), flat), link)
    loom.edges.append((f"{CLOCK}_chain", CLOCK))


def _matrix(weight: Array, flat: bool) -> ir.Node:
    return ir.Linear(weight) if flat else ir.Conv2d(weight[:, :, None, None])


def _gate(loom: Loom, node: str, shape: Shape, ticks: Array) -> None:
    """What the clock adds to a population, pixel by pixel."""
    clock = loom.nodes[CLOCK].shape  # type: ignore[attr-defined]
    front = CLOCK
    if len(shape) == 3:
        high, wide = shape[1:]
        kernel = np.ascontiguousarray(ticks.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1])
        made = loom.add(f"{node}.gate", ir.Conv2d(kernel, padding=(high - 1, wide - 1)), front)
    else:
        if len(clock) == 3:
            front = loom.add(f"{node}.ticks", ir.Flatten(), front)
        made = loom.add(f"{node}.gate", ir.Linear(np.ascontiguousarray(ticks.T)), front)
    loom.edges.append((made, node))


__all__ = ["lower"]
