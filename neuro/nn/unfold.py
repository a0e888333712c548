"""`unfold`: what integer neurons compute in one step, as an ordinary network of neurons that send spikes.

Each `IntegerLIF` becomes an integrate-and-fire neuron that subtracts its threshold, and each integer the number of its
spikes in D sub-steps, exactly. Layer l (from 1 on) sends in sub-steps (l - 1) D .. l D - 1, when all that it must know
has arrived; until then, and afterwards, it is held below its threshold by a clock::

    clock[j] fires in sub-step j D, and never else
    v_l += W s_(l-1)                                       in every sub-step
    v_l += bias + v_threshold / 2 - hold   at clock 0;   v_l += hold   at clock l - 1;   v_l -= hold   at clock l

hold is the power of two from the largest v on that any input can cause. v_threshold / 2 makes the count of subtracted
thresholds the rounded u / v_threshold. The clock is made of ordinary neurons: one that a bias makes fire in every
sub-step, one that hears it twice, a step apart, the second time with the opposite sign, and so fires once, and one per
further tick, each D sub-steps after the one before.

Values that float64 adds without rounding (a chip's integers) give equal integers without exception; others may differ
where u meets a threshold to the last bits.
"""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from neuro import ir
from neuro.errors import NetworkError
from neuro.ir import Array, Network, Node
from neuro.nn.bridge import VANISHING
from neuro.nn.bridge_beyond import array
from neuro.nn.integer import IntegerLIF
from neuro.nn.layers import weights
from neuro.nn.network import INPUT, OUTPUT, SpikingNetwork
from neuro.nn.sigma_delta import I

ALWAYS, CLOCK = "clock_always", "clock"


@dataclass(frozen=True, eq=False)
class Unfolded:
    """network: reads ``sub_steps`` steps per sample, its readout gives the scores of the integers' network.
    windows: of each integer layer, the sub-steps (first, last + 1) in which it sends."""

    network: Network
    sub_steps: int
    windows: dict[str, tuple[int, int]]

    def encode(self, x: ArrayLike) -> Array:
        """[1, batch, *input] as the integers' network reads it -> [sub_steps, batch, *input]: all in the first."""
        values = np.asarray(x)
        if values.ndim < 2 or len(values) != 1:
            raise NetworkError(f"a sample of an unfolded network has one step, got shape {values.shape}")
        return np.concatenate([values, np.zeros((self.sub_steps - 1, *values.shape[1:]), values.dtype)])

    def integers(self, name: str, spikes: ArrayLike) -> Array:
        """[batch, n]: what an integer layer sends, from its spikes [sub_steps, batch, n]."""
        first, end = self.windows[name]
        total: Array = np.asarray(spikes)[first:end].astype(np.float64).sum(axis=0)
        return total


def unfold(module: SpikingNetwork) -> Unfolded:
    """The binary network of a chain of Linear and `IntegerLIF` layers, run over one step per sample.

    The last layer is an `IntegerLIF`, or a Linear with an integrator `I` behind it; Flatten may stand in front.

    Raises:
        NetworkError: any other layer or order, edges that are no chain, levels that differ; all that is found.
    """
    net = copy.deepcopy(module).double().eval()
    names = [n for n in net.names if not isinstance(net.layer(n), VANISHING)]
    bad = _problems(net, names)
    if bad:
        raise NetworkError("this network cannot be unfolded into spikes", bad)
    stages: list[tuple[str, nn.Linear, str, IntegerLIF | I]] = []
    flat = [n for n in names if isinstance(net.layer(n), nn.Flatten)]
    rest = [n for n in names if n not in flat]
    for w, n in zip(rest[::2], rest[1::2], strict=True):
        stages.append((w, net.layer(w), n, net.layer(n)))  # type: ignore[arg-type]
    integer = [neuron for *_, neuron in stages if isinstance(neuron, IntegerLIF)]
    levels = integer[0].levels
    nodes: dict[str, Node] = {INPUT: ir.Input(net.input_shape, net.high)}
    edges: list[tuple[str, str]] = []
    front = INPUT
    for name in flat:
        nodes[name] = ir.Flatten()
        edges.append((front, name))
        front = name
    _clock(nodes, edges, front, math.prod(net.input_shape), len(integer) + 1, levels)
    windows, peak = {}, float(net.high)
    for k, (w, linear, n, neuron) in enumerate(stages):
        with torch.no_grad():
            weight, bias = (None if a is None else array(a) for a in weights(linear))
        assert weight is not None
        offset = np.zeros(len(weight)) if bias is None else bias
        ticks = np.zeros((len(weight), len(integer) + 1))
        nodes[w] = ir.Linear(weight)
        if isinstance(neuron, I):
            ticks[:, 0] = offset
            nodes[n] = ir.I(np.broadcast_to(array(neuron.value("gain")), offset.shape))
        else:
            theta = np.broadcast_to(array(neuron.value("v_threshold")), offset.shape)
            most = float((np.abs(weight).sum(1) * peak + np.abs(offset) + theta).max())
            hold = 2.0 ** math.ceil(math.log2(most))
            ticks[:, 0] = offset + theta / 2 - hold
            ticks[:, k] += hold
            ticks[:, k + 1] -= hold
            nodes[n] = ir.IF(theta, reset="subtract")
            windows[n] = (k * levels, (k + 1) * levels)
        edges += [(front, w), (w, n)]
        if ticks.any():
            nodes[f"{n}_gate"] = ir.Linear(ticks)
            edges += [(CLOCK, f"{n}_gate"), (f"{n}_gate", n)]
        front, peak = n, float(levels)
    counts = isinstance(stages[-1][3], IntegerLIF)
    nodes[OUTPUT] = ir.Output("count" if counts else "last")
    edges.append((front, OUTPUT))
    return Unfolded(Network(nodes, tuple(edges), net.dt, net.discretisation), len(integer) * levels, windows)


def _clock(nodes: dict[str, Node], edges: list[Any], front: str, inputs: int, ticks: int, levels: int) -> None:
    """Neurons CLOCK, of which number j fires in sub-step j D alone. Nothing of the input reaches them."""
    start, once, chain = f"{ALWAYS}_bias", f"{CLOCK}_start", f"{CLOCK}_chain"
    nodes[start] = ir.Affine(np.zeros((1, inputs)), bias=np.ones(1))
    nodes[ALWAYS] = ir.IF(np.full(1, 0.5))
    first = np.zeros((ticks, 1))
    first[0] = 1.0
    # a constant 1, and a constant -1 from the next step on: what is left is one pulse, in step 0
    nodes[once] = ir.Linear(first)
    nodes[f"{once}_end"] = ir.Linear(-first, np.ones((ticks, 1), np.int64))
    nodes[CLOCK] = ir.IF(np.full(ticks, 0.5))
    nodes[chain] = ir.Linear(np.eye(ticks, k=-1), np.full((ticks, ticks), levels - 1))  # a loop takes a step of its own
    edges += [(front, start), (start, ALWAYS), (ALWAYS, once), (once, CLOCK), (ALWAYS, f"{once}_end")]
    edges += [(f"{once}_end", CLOCK), (CLOCK, chain), (chain, CLOCK)]


def _problems(net: SpikingNetwork, names: list[str]) -> list[str]:
    chain = [INPUT, *net.names, OUTPUT]
    bad = [] if net.edges == tuple(itertools.pairwise(chain)) else ["its layers are no chain"]
    kinds = [net.layer(n) for n in names]
    while kinds and isinstance(kinds[0], nn.Flatten):
        kinds, names = kinds[1:], names[1:]
    for k, (name, layer) in enumerate(zip(names, kinds, strict=True)):
        last = k == len(kinds) - 1
        if k % 2 == 0:
            wanted = "a Linear" if isinstance(layer, nn.Linear) else ""
        else:
            wanted = "an IntegerLIF" if isinstance(layer, IntegerLIF) or (last and isinstance(layer, I)) else ""
        if not wanted:
            needs = "a Linear" if k % 2 == 0 else "an IntegerLIF, or I at the end"
            bad.append(f"'{name}' is a {type(layer).__name__} where {needs} must stand")
    if len(kinds) % 2:
        bad.append("the last layer must be an IntegerLIF, or I behind a Linear")
    levels = {layer.levels for layer in kinds if isinstance(layer, IntegerLIF)}
    if len(levels) != 1:
        bad.append(f"one number of levels is needed, found {sorted(levels)}")
    return bad


__all__ = ["Unfolded", "unfold"]
