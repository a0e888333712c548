"""Forms whose neurons send numbers ("levels", "graded") or many spikes ("rate"): one node per population."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuro import ir
from neuro.convert.graph import Graph
from neuro.convert.ops import MaxPool, Quantise
from neuro.convert.weave import Loom
from neuro.convert.wires import Array, Code, Shape, Way, base_at, one_gain, plain, way, ways_into

Codes = dict[str, Code]
Names = dict[str, str]


def lines_into(
    graph: Graph, shapes: Mapping[str, Shape], codes: Mapping[str, Code], name: str, source: str, bad: list[str]
) -> tuple[list[Way], float, Tensor] | None:
    """(ways, their gain, base [*shape]) of the value ``source``, for the population ``name``."""
    found = [way(graph, shapes, each, codes[each[0]], bad) for each in ways_into(graph, source, codes)]
    if bad:
        return None
    lines, gain = one_gain([w for w in found if w is not None], name, bad)
    if bad:
        return None
    return lines, gain, base_at(graph, source, {n: c.base for n, c in codes.items()})


def per_channel(base: Tensor, name: str, bad: list[str]) -> Array | None:
    """[channels] of a bias that is the same all over a channel."""
    flat = base.reshape(len(base), -1)
    if not bool((flat - flat[:, :1]).abs().max() <= 1e-9 * max(1e-30, float(flat.abs().max()))):
        bad.append(
            f"what '{name}' is given at rest differs within a channel (values that are not 0 meet zero padding): use "
            "levels from 0 on for the input, or form 'thermometer'"
        )
        return None
    return flat[:, 0].numpy()


def levels(graph: Graph, shapes: Mapping[str, Shape], loom: Loom, codes: Codes, nodes: Names, bad: list[str]) -> float:
    """`ir.QuantisedReLU` in reals for every `Quantise`; what they send are values. Returns the gain: always 1."""
    for name in graph.order:
        operation = graph.ops[name]
        if name in codes or bad or not isinstance(operation, Quantise | MaxPool):
            continue
        source = graph.takes[name][0]
        if isinstance(operation, MaxPool):
            if source not in codes or len(operation.kernel_size) != 2:
                bad.append(f"'{name}' must take the largest of what neurons send, over images")
                continue
            pool = ir.MaxPool2d(operation.kernel_size, operation.stride, operation.padding)  # type: ignore[arg-type]
            nodes[name] = loom.add(name, pool, nodes[source])
            codes[name] = plain(shapes[name], codes[source].step, 0, codes[source].most)
            continue
        if operation.low:
            bad.append(f"'{name}' has levels below 0 ({operation.low}): a rectifier sends none; use form 'thermometer'")
            continue
        made = lines_into(graph, shapes, codes, name, source, bad)
        bias = None if made is None else per_channel(made[2], name, bad)
        if made is None or bias is None:
            continue
        fronts = _woven(loom, name, made[0], codes, nodes, made[1], bias)
        nodes[name] = loom.add(name, ir.QuantisedReLU(operation.step.numpy(), operation.high), *fronts)
        codes[name] = plain(shapes[name], torch.ones((), dtype=torch.float64), 0, 1)
    return 1.0


def graded(graph: Graph, shapes: Mapping[str, Shape], loom: Loom, codes: Codes, nodes: Names, bad: list[str]) -> None:
    """`ir.SigmaDelta` with threshold 0 for every rectifier, in whole numbers; a message is the change of its value."""
    for name in graph.order:
        operation, source = graph.ops[name], (graph.takes[name] or ("",))[0]
        if name in codes or bad or getattr(operation, "name", "") != "relu":
            continue
        made = lines_into(graph, shapes, codes, name, source, bad)
        if made is None:
            continue
        lines, gain, base = made
        bias = base / gain
        if bool((bias - bias.round()).abs().max() > 1e-9):
            bad.append(
                f"biases of '{name}' are no whole multiples of {gain:.6g}, the unit of their sums: round them to "
                "it, or leave them out"
            )
            continue
        fronts = _woven(loom, name, lines, codes, nodes, 1.0, None)
        nodes[name] = loom.add(name, ir.SigmaDelta(np.zeros(()), bias.round().numpy()), *fronts)
        most = max(1, int(sum((w.high for w in lines), np.zeros(1)).max() + bias.max().clamp_min(0)))
        codes[name] = plain(shapes[name], torch.tensor(gain, dtype=torch.float64), 0, most)


def rate(
    graph: Graph, shapes: Mapping[str, Shape], loom: Loom, codes: Codes, nodes: Names, steps: int, bad: list[str]
) -> None:
    """`ir.IF`, reset by subtraction: a spike is worth theta = high step, the bias comes in every step.

    A neuron starts at 0 instead of theta / 2; theta / (2 steps) in every step adds up to it by the end. For many steps
    rates tend to the values that are cut at the largest level, but have none between.
    """
    for name in graph.order:
        operation = graph.ops[name]
        if name in codes or bad or not isinstance(operation, Quantise):
            continue
        if operation.low:
            bad.append(f"'{name}' has levels below 0 ({operation.low}): spikes count from 0; use form 'thermometer'")
            continue
        made = lines_into(graph, shapes, codes, name, graph.takes[name][0], bad)
        bias = None if made is None else per_channel(made[2], name, bad)
        if made is None or bias is None:
            continue
        theta = operation.step * operation.high
        shift = np.broadcast_to(theta.reshape(-1).numpy() / (2 * steps), bias.shape)
        fronts = _woven(loom, name, made[0], codes, nodes, made[1], bias + shift)
        nodes[name] = loom.add(name, ir.IF(theta.numpy(), reset="subtract"), *fronts)
        codes[name] = plain(shapes[name], theta, 0, 1)


def _woven(
    loom: Loom, name: str, lines: list[Way], codes: Codes, nodes: Names, factor: float, bias: Array | None
) -> list[str]:
    given = bias if bias is not None and bias.any() else None
    return [
        loom.weave(name, nodes[w.source], w, codes[w.source], None, factor, given if k == 0 else None)
        for k, w in enumerate(lines)
    ]


def numbers_in(quantiser: Quantise, before: Callable[[Tensor], Tensor]) -> Callable[[Tensor], NDArray[np.uint8]]:
    """Encoder of one step that sends level - low. before: what the host hands to it, from samples."""

    def encode(x: Tensor) -> NDArray[np.uint8]:
        return (quantiser.levels(before(x)) - quantiser.low).numpy().astype(np.uint8)[None]

    return encode


def trains_in(
    quantiser: Quantise, steps: int, before: Callable[[Tensor], Tensor]
) -> Callable[[Tensor], NDArray[np.uint8]]:
    """Encoder of regular spike trains: level n of K fires in step t where floor((t + 1) n / K) > floor(t n / K)."""

    def encode(x: Tensor) -> NDArray[np.uint8]:
        n = (quantiser.levels(before(x)) - quantiser.low).numpy().astype(np.int64)
        top = quantiser.high - quantiser.low
        return np.stack([((t + 1) * n // top > t * n // top).astype(np.uint8) for t in range(steps)])

    return encode
