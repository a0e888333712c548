"""`quantise`: where neurons are, and their steps. It has no time; the graph it makes is what spikes can be equal to.

    float graph --fold--> batch norm inside weights --quantise--> every rectifier a `Quantise`, calibrated on data

**Bit for bit.** Steps always have at most 8 significant bits. With ``weight_bits`` (and ``input_levels``, or inputs
that are themselves multiples of a power of two) weights and biases are short binary fractions too, so that every
product and every partial sum is a multiple of one power of two, below 2^53 of it: float64 holds it exactly, in any
order of addition. An implementation that adds messages one by one, in whatever order, then equals the engine's
estimates bit for bit, and so do integers on a chip. `neuro.convert.grid.on_grid` checks it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Literal

import torch
from torch import Tensor

from neuro.convert.graph import Graph
from neuro.convert.grid import short
from neuro.convert.ops import (
    Affine,
    Concat,
    Constant,
    Conv,
    Function,
    Input,
    Linear,
    MaxPool,
    Op,
    Permute,
    Quantise,
    Reshape,
    Slice,
)
from neuro.errors import ConversionError

METHODS = ("mse", "max", "percentile")
RECTIFIERS = ("relu", "relu6")
MOVES = (Reshape, Permute, Slice, Concat, MaxPool)  # events in, events out
MOST = 1 << 18  # values of one channel that a step is fitted to
WeightBits = int | Literal["ternary"] | None


def quantise(
    graph: Graph,
    *x: Tensor,
    levels: int = 4,
    method: str = "mse",
    percentile: float = 99.9,
    per_channel: bool = False,
    weight_bits: WeightBits = None,
    everywhere: bool | Literal["weights"] = False,
    input_levels: int | None = None,
) -> Graph:
    """Puts neurons where rectifiers were; names stay, so values can be compared by name.

    Args:
        x: calibration data, one tensor [batch, ...] per input; more is better, a few hundred samples are enough.
        levels: largest level of each population; signed ones go from -levels to levels.
        method: what a step is fitted to, on the rectified values v: "mse" (least E (v - quantised v)^2), "max"
            (Diehl et al. 2015: levels step = max v), "percentile" (Rueckauer et al. 2017: that percentile of v).
        percentile: 0 < percentile <= 100, of the values that are above 0.
        per_channel: one step per channel (axis 1; the last axis behind a `Linear`), else one per population.
        weight_bits: weights as whole multiples k of one scale per operation, |k| < 2^(bits - 1), or k in -1, 0, 1
            ("ternary"); the scale of least squared error. Biases to 16 significant bits of the largest.
        everywhere: also a signed population in front of every operation with weights and every free one whose input
            is not made of events; "weights": only in front of weights and products.
        input_levels: largest level of a population behind every input, its step the largest input / input_levels.

    Raises:
        ConversionError: options out of range, inputs that do not fit, or no place for neurons at all.
    """
    bad = [] if levels >= 1 else [f"levels must be at least 1, got {levels}"]
    bad += [] if method in METHODS else [f"method must be one of {METHODS}, got {method!r}"]
    bad += [] if 0 < percentile <= 100 else [f"percentile must lie in (0, 100], got {percentile}"]
    bad += (
        [] if everywhere in (True, False, "weights") else [f"everywhere: True, False or 'weights', got {everywhere!r}"]
    )
    if weight_bits not in (None, "ternary") and not (isinstance(weight_bits, int) and 2 <= weight_bits <= 16):
        bad.append(f"weight_bits must be 2..16, 'ternary' or None, got {weight_bits!r}")
    bad += [] if input_levels is None or input_levels >= 1 else [f"input_levels must be at least 1, got {input_levels}"]
    if bad:
        raise ConversionError("cannot quantise", bad)
    with torch.no_grad():
        graph = fold(graph)
        if weight_bits is not None:
            graph = graph.replace(rounded(graph, weight_bits))
        placed = _placed(graph, everywhere, input_levels is not None)
        if not placed.neurons and not any(_rectifies(placed.ops[name]) for name in placed.order):
            raise ConversionError(_nowhere(placed))
        added = set(placed.ops) - set(graph.ops)
        values = _floating(placed, added, x)
        changed: dict[str, Op] = {}
        for name in placed.order:
            operation, value = placed.ops[name], values[name]
            if _rectifies(operation):
                rows = _rows(value, _channel(placed, name) if per_channel else None)
                step = fit_step(rows, levels, 0, method, percentile)
                changed[name] = Quantise(_shaped(step, value, placed, name), 0, levels)
            elif name in added:
                behind = isinstance(placed.ops[placed.takes[name][0]], Input)
                high = input_levels if behind and input_levels is not None else levels
                low = -high if bool((value < 0).any()) else 0
                axis = _channel(placed, name) if per_channel and not behind else None
                step = fit_step(_rows(value, axis), high, low, "max" if behind else method, percentile)
                changed[name] = Quantise(_shaped(step, value, placed, name), low, high)
    return placed.replace(changed)


def fold(graph: Graph) -> Graph:
    """Affine operations (batch norm, factors) behind a `Linear` or `Conv` that nothing else takes, inside its weights:
    scale (W x + b) + shift = (scale W) x + (scale b + shift). Nothing else changes; the answer is the same up to
    rounding."""
    while True:
        users: dict[str, int] = {}
        for name in graph.order:
            for source in graph.takes[name]:
                users[source] = users.get(source, 0) + 1
        for name in graph.order:
            operation = graph.ops[name]
            if not isinstance(operation, Affine):
                continue
            source = graph.takes[name][0]
            merged = _merged(graph.ops[source], operation)
            if merged is None or users[source] > 1 or source == graph.output:
                continue
            ops = {n: merged if n == source else o for n, o in graph.ops.items() if n != name}
            takes = {n: tuple(source if s == name else s for s in graph.takes[n]) for n in ops}
            output = source if graph.output == name else graph.output
            graph = Graph(ops, takes, output, graph.metadata)
            break
        else:
            return graph


def rounded(graph: Graph, weight_bits: WeightBits) -> dict[str, Op]:
    """The operations with weights, on the grid that `quantise` describes; for `Graph.replace`."""
    changed: dict[str, Op] = {}
    for name in graph.order:
        operation = graph.ops[name]
        exchanged: dict[str, Any] = {}
        for each in fields(operation) if operation.linear else ():
            value = getattr(operation, each.name)
            if not isinstance(value, Tensor) or not value.is_floating_point():
                continue
            if each.name == "weight":
                exchanged["weight"] = round_weight(value, weight_bits)
            else:  # biases, and what could not be folded: 16 bits of the largest
                unit = torch.exp2(torch.floor(torch.log2(value.abs().max().clamp_min(1e-30))) - 15)
                exchanged[each.name] = torch.round(value / unit) * unit
        if exchanged:
            changed[name] = replace(operation, **exchanged)
    return changed


def round_weight(weight: Tensor, bits: WeightBits) -> Tensor:
    """scale k of least squared error, scale of at most 8 significant bits; see `quantise`."""
    if bits is None:
        return weight
    scale, most = weight_scale(weight, bits)
    return scale * torch.round(weight / scale).clamp(-most, most)


def weight_scale(weight: Tensor, bits: int | Literal["ternary"]) -> tuple[Tensor, int]:
    """(scale, largest k) of `round_weight`."""
    most = 1 if bits == "ternary" else 2 ** (bits - 1) - 1
    w = weight.detach().reshape(1, -1)
    top = w.abs().amax().clamp_min(1e-30) / most
    tried = [short(top * share / 100) for share in range(20 if most < 8 else 60, 161 if most == 1 else 101, 2)]
    costs = torch.stack([((w - s * torch.round(w / s).clamp(-most, most)) ** 2).sum() for s in tried])
    return tried[int(costs.argmin())], most


def fit_step(rows: Tensor, high: int, low: int = 0, method: str = "mse", percentile: float = 99.9) -> Tensor:
    """Steps [channels] for values [channels, samples], each of at most 8 significant bits; 1 where all values are 0."""
    size = rows.abs()
    if rows.shape[1] > MOST:
        rows = rows[:, :: -(-rows.shape[1] // MOST)]
    top = size.amax(1)
    if method == "percentile":
        ordered = size.sort(1).values
        zeros = (ordered == 0).sum(1)
        at = zeros + ((size.shape[1] - zeros - 1).clamp_min(0) * percentile / 100).round().long()
        top = ordered.gather(1, at.clamp_max(size.shape[1] - 1)[:, None])[:, 0]
    top = torch.where(top > 0, top, torch.full_like(top, float(high)))
    if method != "mse":
        return short(top / high)
    best, least = short(top / high), torch.full_like(top, torch.inf)
    for share in torch.linspace(1.0, 0.04, 97).tolist():
        step = short(top * share / high)[:, None]
        cost = ((rows - step * torch.floor(rows / step + 0.5).clamp(low, high)) ** 2).mean(1)
        better = cost < least
        best, least = torch.where(better, step[:, 0], best), torch.where(better, cost, least)
    return best


def _merged(source: Op, affine: Affine) -> Op | None:
    """None where the scale is not one number per output channel."""
    if not isinstance(source, Linear | Conv):
        return None
    out, space = len(source.weight), 0 if isinstance(source, Linear) else source.weight.ndim - 2
    flat = []
    for part in (affine.scale, affine.shift):
        if part is None:
            flat.append(torch.zeros(out, dtype=source.weight.dtype))
        elif part.numel() == 1:
            flat.append(part.reshape(()).expand(out))
        elif part.ndim == 1 + space and tuple(part.shape) == (out,) + (1,) * space:
            flat.append(part.reshape(out))
        else:
            return None
    scale, shift = flat
    bias = shift if source.bias is None else source.bias * scale + shift
    return replace(source, weight=source.weight * scale.reshape(-1, *[1] * (source.weight.ndim - 1)), bias=bias)


def _rectifies(operation: Op) -> bool:
    return isinstance(operation, Function) and operation.name in RECTIFIERS


def _placed(graph: Graph, everywhere: bool | str, inputs: bool) -> Graph:
    """With a `Quantise`, its step to be found, on every wire that must carry events."""
    wanted: list[tuple[str, str | None]] = [(name, None) for name in graph.inputs if inputs]
    events: dict[str, bool] = {}
    for name in graph.order:
        operation, sources = graph.ops[name], graph.takes[name]
        # an input is sent as it is, once or in every step, unless input_levels says otherwise
        events[name] = isinstance(operation, Quantise | Input | Constant) or _rectifies(operation)
        if isinstance(operation, MOVES):
            events[name] = all(events[source] for source in sources)
        if not everywhere or isinstance(operation, (Quantise, *MOVES)) or _rectifies(operation):
            continue
        weighs = hasattr(operation, "weight") if operation.linear else operation.arity == 2
        if weighs or (everywhere is True and not operation.linear):
            wanted += [(source, name) for source in sources if not events[source]]
    for source, user in dict.fromkeys(wanted):
        name = f"{source}.events"
        if name not in graph.ops:
            free = Quantise(torch.ones(()), 0, 1)
            if user is None:
                graph = graph.insert(source, name, free)
                continue
            takes: Mapping[str, tuple[str, ...]] = {**graph.takes, name: (source,)}
            graph = Graph({**graph.ops, name: free}, takes, graph.output, graph.metadata)
        if user is not None:
            changed = tuple(name if each == source else each for each in graph.takes[user])
            graph = Graph(graph.ops, {**graph.takes, user: changed}, graph.output, graph.metadata)
    return graph


def _floating(graph: Graph, added: set[str], x: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """`Graph.values`, populations whose step is not known yet passing on what they take."""
    found = dict(graph.fed(*x))
    for name in graph.order:
        if name not in found:
            taken = [found[source] for source in graph.takes[name]]
            found[name] = taken[0] if name in added else graph.ops[name].value(*taken)
    return found


def _channel(graph: Graph, name: str) -> int:
    """Axis of channels of a value: the last behind a `Linear`, else 1."""
    while graph.takes[name]:
        name = graph.takes[name][0]
        if isinstance(graph.ops[name], Linear):
            return -1
        if isinstance(graph.ops[name], Conv):
            break
    return 1


def _rows(value: Tensor, axis: int | None) -> Tensor:
    return value.reshape(1, -1) if axis is None else value.movedim(axis, 0).flatten(1)


def _shaped(step: Tensor, value: Tensor, graph: Graph, name: str) -> Tensor:
    if len(step) == 1:
        return step.reshape(())
    if _channel(graph, name) == -1:
        return step
    return step.reshape(-1, *[1] * (value.ndim - 2))


def _nowhere(graph: Graph) -> str:
    found = sorted({o.name for o in (graph.ops[n] for n in graph.order) if isinstance(o, Function)})
    return (
        f"no place for neurons: the graph has no {' or '.join(RECTIFIERS)} (its functions: {found or 'none'}); "
        "everywhere=True puts signed neurons in front of every operation that needs events"
    )
