"""The float meaning of a `Network`: a slow, obvious interpreter in float64 NumPy.

Every other back end is measured against this one. It follows the docstrings of `neuro.ir` word by
word, one step after the other, batched. Sums run in a fixed order (input by input, tap by tap), so
that the result of a sample does not depend, to the last bit, on the batch it is in.
"""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro import ir
from neuro.discretise import Coefficients, adaptation, coefficients
from neuro.errors import NetworkError, SimulationError
from neuro.ir import Array, Network, Node, Shape
from neuro.shapes import input_shape

RECORDS = ("spikes", "v", "i", "sent")
Past = deque[Array]  # past[d] is what entered a node d steps ago, zeros before the sample
Table = Mapping[str, Array]


@dataclass(frozen=True, eq=False)
class Record:
    """What `run` saw, by node name; [time, batch, *shape of the node]. Empty where not asked for.

    spikes: uint8 of 0 and 1, of every spiking neuron. v: membrane after the reset, of every neuron.
    i: synaptic current of CubaLI and CubaLIF, sum of a SigmaDelta, imaginary part of a ResonateAndFire, summed input
    of the others. sent: what every node sends; the messages of graded neurons are there.
    answers: of every Output, what its readout reads; always kept.
    """

    spikes: Mapping[str, NDArray[np.uint8]]
    v: Table
    i: Table
    sent: Table
    answers: Table


def run(
    network: Network, dense: ArrayLike | Mapping[str, ArrayLike], *, record: Iterable[str] = ("spikes", "v")
) -> Record:
    """Interpret a network.

    Args:
        dense: numbers [time, batch, *input shape]; a mapping by name where there are several inputs.
        record: which of "spikes", "v", "i", "sent" to keep. "sent" of a large network is large.

    Raises:
        SimulationError: the input has another shape, is not finite numbers, or has no steps; an
            unknown name in ``record``.
        NetworkError: a value leaves float64 (an unstable network).
    """
    wanted = (record,) if isinstance(record, str) else tuple(record)
    unknown = [name for name in wanted if name not in RECORDS]
    if unknown:
        raise SimulationError(f"record may hold {', '.join(RECORDS)}, got {unknown}")
    inputs = _inputs(network, dense)
    steps, batch = next(iter(inputs.values())).shape[:2]
    rules = {n: coefficients(node, network.dt, network.discretisation) for n, node in _neurons(network).items()}
    past = {n: _silence(network, n, steps, batch) for n in network.order if _delays(network.nodes[n])}
    sent = _at_rest(network, batch, past)
    v = {n: np.zeros((batch, *network.shapes[n])) for n in rules}
    i = dict(v)
    rest: dict[str, dict[str, Array]] = {n: _constants(network, n) for n in rules}
    kept: dict[str, dict[str, list[NDArray[Any]]]] = {name: {} for name in (*RECORDS, "answers")}
    for t in range(steps):
        before, sent = sent, {}
        for name in network.order:
            node = network.nodes[name]
            if isinstance(node, ir.Input):
                sent[name] = inputs[name][t].astype(np.float64)
                continue
            late = {s for s in network.sources(name) if (s, name) in network.feedback}
            try:
                with np.errstate(over="raise", invalid="raise"):
                    x = _total([before[s] if s in late else sent[s] for s in network.sources(name)])
                    if isinstance(node, ir.Neuron):
                        step_of = _BEYOND.get(type(node))
                        state = (i[name], v[name], x)
                        if step_of is None:
                            i[name], v[name], sent[name] = neuron_step(node, rules[name], *state)
                        else:
                            i[name], v[name], sent[name] = step_of(node, rules[name], *state, rest[name], network.dt)
                    elif name in past:
                        past[name].appendleft(x)
                        sent[name] = _DELAYED[type(node)](node, past[name])
                    else:
                        sent[name] = _STATELESS[type(node)](node, x, network.shapes[name])
            except FloatingPointError as cause:
                raise NetworkError(f"'{name}' leaves the range of float64 in step {t}; it is unstable") from cause
        spikes = {n: sent[n].astype(np.uint8) for n in rules if _spikes(network.nodes[n])}
        answers = {n: _answer(network, n, sent, v) for n in network.of(ir.Output)}
        step: dict[str, Mapping[str, NDArray[Any]]] = {"spikes": spikes, "v": v, "i": i, "sent": sent}
        for kind, table in {**{k: step[k] for k in wanted}, "answers": answers}.items():
            for name, values in table.items():
                kept[kind].setdefault(name, []).append(values)
    whole = {kind: {n: np.stack(rows) for n, rows in table.items()} for kind, table in kept.items()}
    return Record(**{kind: types.MappingProxyType(table) for kind, table in whole.items()})


def scores(network: Network, record: Record) -> Array:
    """[batch, classes]: the series of the only Output, over time, as its ``readout`` says.

    Raises:
        NetworkError: not exactly one Output.
    """
    name = network.output
    node = network.nodes[name]
    assert isinstance(node, ir.Output)
    series = record.answers[name]
    flat = series.reshape(*series.shape[:2], -1)
    return _OVER_TIME[node.readout](flat)


def classify(network: Network, record: Record) -> NDArray[np.int64]:
    """[batch]: index of the highest score, the lowest on a tie.

    Raises:
        NetworkError: not exactly one Output.
    """
    return np.asarray(scores(network, record).argmax(axis=1), np.int64)


_OVER_TIME: dict[str, Callable[[Array], Array]] = {
    "count": lambda series: series.sum(axis=0),
    "sum": lambda series: series.sum(axis=0),
    "max": lambda series: series.max(axis=0),
    "last": lambda series: series[-1],
}


def neuron_step(node: ir.Neuron, c: Coefficients, i: Array, v: Array, x: Array) -> tuple[Array, Array, Array]:
    """One step of a population: (i, v, what it sends). All [batch, *shape]."""
    i = c.alpha * i + c.gain_syn * x
    v = c.beta * v + c.gain_mem * i + c.drive
    if not isinstance(node, (ir.IF, ir.LIF, ir.CubaLIF)):
        return i, v, v
    fired = v > node.v_threshold
    if node.reset == "hard":
        v = np.where(fired, node.v_reset, v)
    else:
        v = v - fired * node.v_threshold
    return i, v, fired.astype(np.float64)


def _ternary(
    node: ir.Neuron, c: Coefficients, i: Array, v: Array, x: Array, rest: dict[str, Array], dt: float
) -> tuple[Array, Array, Array]:
    assert isinstance(node, ir.TernaryLIF)
    v = c.beta * v + c.gain_mem * x + c.drive
    sent = (v > node.v_threshold).astype(np.float64) - (v < node.v_threshold_low)
    return x, np.where(sent != 0, node.v_reset, v), sent


def _delta(
    node: ir.Neuron, c: Coefficients, i: Array, v: Array, x: Array, rest: dict[str, Array], dt: float
) -> tuple[Array, Array, Array]:
    """`ir.Delta`, and the second half of `ir.SigmaDelta`: v was the last activation, x is the new one."""
    assert isinstance(node, (ir.Delta, ir.SigmaDelta))
    zero = np.zeros_like(x)
    delta = x - v + rest.get("residue", zero)
    judged = rest.get("error", zero) + delta if node.cumulative else delta
    sent = np.where(np.abs(judged) >= node.v_threshold, delta, 0.0)
    rest["residue"], rest["error"] = delta - sent, np.where(sent != 0, 0.0, judged)
    return x, x, sent


def _sigma_delta(
    node: ir.Neuron, c: Coefficients, i: Array, v: Array, x: Array, rest: dict[str, Array], dt: float
) -> tuple[Array, Array, Array]:
    assert isinstance(node, ir.SigmaDelta)
    sigma = i + x
    active = sigma + node.bias
    if node.activation == "relu":
        active = np.maximum(active, 0.0)
    _, v, sent = _delta(node, c, i, v, active, rest, dt)
    return sigma, v, sent


def _resonator(
    node: ir.Neuron, c: Coefficients, i: Array, v: Array, x: Array, rest: dict[str, Array], dt: float
) -> tuple[Array, Array, Array]:
    assert isinstance(node, ir.ResonateAndFire)
    sine, cosine = (c.beta * f(2 * np.pi * dt / node.period) for f in (np.sin, np.cos))
    real, imag = cosine * v - sine * i + x, sine * v + cosine * i
    if not node.resets:
        fired = (real >= node.v_threshold) & (imag >= 0) & (i < 0)
        return imag, real, fired.astype(np.float64)
    fired = imag >= node.v_threshold
    return np.where(fired, node.v_threshold, imag), np.where(fired, 0.0, real), fired.astype(np.float64)


def _adaptive(
    node: ir.Neuron, c: Coefficients, i: Array, v: Array, x: Array, rest: dict[str, Array], dt: float
) -> tuple[Array, Array, Array]:
    assert isinstance(node, ir.AdaptiveLIF)
    rho, a, b = rest["rho"], rest["a"], rest["b"]
    w, before = rest.get("w", np.zeros_like(x)), rest.get("s", np.zeros_like(x))
    u = c.beta * v + c.gain_mem * x + c.drive
    if node.adaptation != "threshold":
        u = u - (1.0 - c.beta) * w
    fired = (u > (node.v_threshold + w if node.adaptation == "threshold" else node.v_threshold)).astype(np.float64)
    after = np.where(fired > 0, node.v_reset, u) if node.reset == "hard" else u - fired * node.v_threshold
    followed, spikes = (v, before) if node.adaptation == "euler" else (after, fired)
    rest["w"], rest["s"] = rho * w + a * followed + b * spikes, fired
    return x, after, fired


Step = Callable[[ir.Neuron, Coefficients, Array, Array, Array, dict[str, Array], float], tuple[Array, Array, Array]]
_BEYOND: dict[type[Node], Step] = {
    ir.TernaryLIF: _ternary,
    ir.Delta: _delta,
    ir.SigmaDelta: _sigma_delta,
    ir.ResonateAndFire: _resonator,
    ir.AdaptiveLIF: _adaptive,
}


def linear(weight: Array, x: Array) -> Array:
    """sum_i weight[o, i] x[b, i], added up in the order of i. weight: [out, in], x: [batch, in]."""
    y = np.zeros((len(x), len(weight)))
    for column in np.flatnonzero(x.any(axis=0)):  # a silent input adds zero
        y += x[:, column, None] * weight[:, column]
    return y


def _linear(node: Node, x: Array, shape: Shape) -> Array:
    assert isinstance(node, ir.Linear)
    return _biased(node, linear(node.weight, x))


def _biased(node: ir.Linear, y: Array) -> Array:
    return y + node.bias if isinstance(node, ir.Affine) else y


def _linear_delayed(node: Node, past: Past) -> Array:
    assert isinstance(node, ir.Linear)
    assert node.delay_steps is not None
    y = np.zeros((len(past[0]), len(node.weight)))
    for steps in np.unique(node.delay_steps):
        if steps < len(past):  # what is longer than the sample never arrives
            y += linear(np.where(node.delay_steps == steps, node.weight, 0.0), past[steps])
    return _biased(node, y)


def _delay(node: Node, past: Past) -> Array:
    assert isinstance(node, ir.Delay)
    y = np.zeros_like(past[0])
    for steps in np.unique(node.steps):
        if steps < len(past):
            chosen = node.steps == steps
            y[:, chosen] = past[steps][:, chosen]
    return y


def _conv2d(node: Node, x: Array, shape: Shape) -> Array:
    """One kernel tap after the other; x: [batch, in, height, width]."""
    assert isinstance(node, ir.Conv2d)
    outs, ins, *kernel = node.weight.shape
    y = np.zeros((len(x), *shape)) + node.bias[:, None, None]
    for group in range(node.groups):
        to = slice(group * outs // node.groups, (group + 1) * outs // node.groups)
        for row, column, ys, xs in _taps(kernel, (node.stride, node.padding, node.dilation), x.shape[2:], shape[1:]):
            for channel in range(ins):
                seen = x[(slice(None), group * ins + channel, *xs)]
                if seen.any():
                    y[(slice(None), to, *ys)] += node.weight[to, channel, row, column, None, None] * seen[:, None]
    return y


def _sum_pool(node: Node, x: Array, shape: Shape) -> Array:
    assert isinstance(node, (ir.SumPool2d, ir.AvgPool2d))
    y = np.zeros((len(x), *shape))
    for _, _, ys, xs in _taps(node.kernel_size, (node.stride, node.padding, (1, 1)), x.shape[2:], shape[1:]):
        y[(slice(None), slice(None), *ys)] += x[(slice(None), slice(None), *xs)]
    return y


def _avg_pool(node: Node, x: Array, shape: Shape) -> Array:
    assert isinstance(node, ir.AvgPool2d)
    return _sum_pool(node, x, shape) / (node.kernel_size[0] * node.kernel_size[1])


def _max_pool(node: Node, x: Array, shape: Shape) -> Array:
    assert isinstance(node, ir.MaxPool2d)
    y = np.full((len(x), *shape), -np.inf)  # every window sees a part of the image, so none of it stays
    for _, _, ys, xs in _taps(node.kernel_size, (node.stride, node.padding, (1, 1)), x.shape[2:], shape[1:]):
        at = (slice(None), slice(None), *ys)
        y[at] = np.maximum(y[at], x[(slice(None), slice(None), *xs)])
    return y


def _quantised_relu(node: Node, x: Array, shape: Shape) -> Array:
    assert isinstance(node, ir.QuantisedReLU)
    level: Array = np.clip(np.floor(x / node.step + 0.5), 0, node.levels)
    return node.step * level


def _taps(
    kernel: Iterable[int], geometry: tuple[Shape, Shape, Shape], size: Shape, out: Shape
) -> Iterable[tuple[int, int, list[slice], list[slice]]]:
    """(row, column, where in the output, where in the input) of each kernel tap; padding is never stored."""
    height, width = kernel
    stride, padding, dilation = geometry
    for row in range(height):
        for column in range(width):
            spans = [
                _span(tap * dilation[axis] - padding[axis], stride[axis], size[axis], out[axis])
                for axis, tap in enumerate((row, column))
            ]
            if None not in spans:
                ys, xs = zip(*(span for span in spans if span), strict=True)
                yield row, column, list(ys), list(xs)


def _span(offset: int, stride: int, size: int, out: int) -> tuple[slice, slice] | None:
    """Outputs o with 0 <= o stride + offset < size, and the inputs they see; None if there are none."""
    first = max(0, -(offset // stride))  # the ceiling of -offset / stride
    last = min(out - 1, (size - 1 - offset) // stride)
    if first > last:
        return None
    return slice(first, last + 1), slice(first * stride + offset, last * stride + offset + 1, stride)


def _flatten(node: Node, x: Array, shape: Shape) -> Array:
    return x.reshape(len(x), *shape)


def _scale(node: Node, x: Array, shape: Shape) -> Array:
    assert isinstance(node, ir.Scale)
    return node.scale * x


def _output(node: Node, x: Array, shape: Shape) -> Array:
    return x


_STATELESS: dict[type[Node], Callable[[Node, Array, Shape], Array]] = {
    ir.Output: _output,
    ir.Linear: _linear,
    ir.Affine: _linear,
    ir.Conv2d: _conv2d,
    ir.SumPool2d: _sum_pool,
    ir.AvgPool2d: _avg_pool,
    ir.MaxPool2d: _max_pool,
    ir.QuantisedReLU: _quantised_relu,
    ir.Flatten: _flatten,
    ir.Scale: _scale,
}
_DELAYED: dict[type[Node], Callable[[Node, Past], Array]] = {
    ir.Linear: _linear_delayed,
    ir.Affine: _linear_delayed,
    ir.Delay: _delay,
}


def _delays(node: Node) -> bool:
    return isinstance(node, ir.Delay) or (isinstance(node, ir.Linear) and node.delay_steps is not None)


def _silence(network: Network, name: str, steps: int, batch: int) -> Past:
    node = network.nodes[name]
    longest = int(getattr(node, "steps" if isinstance(node, ir.Delay) else "delay_steps").max())
    nothing = np.zeros((batch, *input_shape(network, name)))
    length = min(longest, steps) + 1  # what is longer than the sample never arrives
    return deque([nothing] * length, maxlen=length)


def at_rest(network: Network) -> dict[str, Array]:
    """What every node has sent before step 0, [*shape of the node]."""
    past = {n: _silence(network, n, 1, 1) for n in network.order if _delays(network.nodes[n])}
    return {name: values[0] for name, values in _at_rest(network, 1, past).items()}


def _at_rest(network: Network, batch: int, past: Mapping[str, Past]) -> dict[str, Array]:
    """What every node has sent before step 0: inputs and state zero, the rest what follows from that."""
    sent: dict[str, Array] = {}
    while len(sent) < len(network.order):  # again for each late edge between nodes without state
        for name in network.order:
            node = network.nodes[name]
            if isinstance(node, (ir.Input, ir.Neuron)):
                sent[name] = np.zeros((batch, *network.shapes[name]))
            elif name in past:
                sent[name] = _DELAYED[type(node)](node, past[name])
            elif all(s in sent for s in network.sources(name)):
                x = _total([sent[s] for s in network.sources(name)])
                sent[name] = _STATELESS[type(node)](node, x, network.shapes[name])
    return sent


def _constants(network: Network, name: str) -> dict[str, Array]:
    """What a step needs beyond `Coefficients`; its further state joins them."""
    node = network.nodes[name]
    if not isinstance(node, ir.AdaptiveLIF):
        return {}
    return dict(zip(("rho", "a", "b"), adaptation(node, network.dt, network.discretisation), strict=True))


def _neurons(network: Network) -> dict[str, ir.Neuron]:
    return {n: node for n, node in network.nodes.items() if isinstance(node, ir.Neuron)}


def _spikes(node: Node) -> bool:
    return bool(getattr(node, "spiking", False))


def _total(parts: list[Array]) -> Array:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _answer(network: Network, name: str, sent: Table, v: Table) -> Array:
    """What an Output reads in one step: spikes to count, else membranes, else what is sent."""
    node = network.nodes[name]
    assert isinstance(node, ir.Output)
    return _total([v[s] if node.readout != "count" and s in v else sent[s] for s in network.sources(name)])


def _inputs(network: Network, dense: ArrayLike | Mapping[str, ArrayLike]) -> dict[str, NDArray[Any]]:
    """[time, batch, *shape] per Input, checked, of any real dtype: a long recording stays uint8."""
    names = network.of(ir.Input)
    given = dense if isinstance(dense, Mapping) else {network.input: dense}
    if set(given) != set(names):
        raise SimulationError(f"input is given for {sorted(map(str, given))}, the network has {sorted(names)}")
    bad: list[str] = []
    found: dict[str, NDArray[Any]] = {}
    for name in names:
        try:
            array = np.asarray(given[name])
        except (TypeError, ValueError, RuntimeError) as cause:
            bad.append(f"'{name}' cannot be read as an array ({cause})")
            continue
        shape = network.shapes[name]
        if array.dtype.kind not in "buif" or array.dtype.itemsize > 8:
            bad.append(f"'{name}' must hold real numbers of at most 64 bits, got {array.dtype}")
        elif array.ndim != len(shape) + 2 or array.shape[2:] != shape or 0 in array.shape:
            bad.append(f"'{name}' must be [time, batch, {', '.join(map(str, shape))}], got shape {array.shape}")
        elif not np.isfinite(array).all():
            bad.append(f"'{name}' holds values that are NaN or infinite")
        else:
            found[name] = array
    if not bad and len({array.shape[:2] for array in found.values()}) > 1:
        bad.append("inputs differ in time or batch: " + ", ".join(f"'{n}' {a.shape[:2]}" for n, a in found.items()))
    if bad:
        raise SimulationError("input cannot be given to this network", bad)
    return found
