"""The forms of `neuro.convert.lower.to_network`, one function each."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuro import ir
from neuro.convert import clocked, valued
from neuro.convert import thermometer as thermo
from neuro.convert.graph import Graph
from neuro.convert.lower import Lowered, Options, entrance, refuse
from neuro.convert.ops import Constant, Function, MaxPool, Op, Quantise
from neuro.convert.thermometer import FOREVER, Stack
from neuro.convert.weave import INPUT, OUTPUT, Loom
from neuro.convert.wires import Code, Shape, base_at, one_gain, plain, prepared, refusals, shapes_of, way, ways_into

OTHERS = (
    "what products, softmax and other functions need runs in neuro.convert.engine alone: save the graph "
    "(neuro.convert.file) instead, or quantise the function away"
)
RATE_STEPS = 32


def _is_neuron(operation: Op) -> bool:
    return isinstance(operation, Quantise)


def thermometer(graph: Graph, options: Options) -> Lowered:
    """See `neuro.convert.thermometer`."""
    graph, shapes, loom, front, bad = _begun(graph, options, _is_neuron, (Quantise, MaxPool))
    first = _levels_in(graph, shapes, loom, front, options.binary_input)
    stacks = thermo.lower(graph, shapes, loom, (front, first), options.neuron, options.dt, bad)
    refuse(options.form, bad)
    codes = {n: s.code for n, s in stacks.items()}
    nodes = {n: s.node for n, s in stacks.items()}
    answer = _answer(graph, shapes, loom, codes, nodes, options, bad)
    refuse(options.form, bad)
    exact = all(s.exact for s in stacks.values()) and answer.exact
    largest = max([answer.largest, *(s.largest for s in stacks.values())])
    bits = max(2, int(largest).bit_length() + 1)
    claim = (
        f"equal to the quantised graph in every value on any chip that holds whole weights of {bits} bits"
        if exact
        else "weights lie on no grid: rounded to 24 bits here, and further by chips; use weight_bits= of quantise"
    )
    claim += answer.note
    network = ir.Network(loom.nodes, tuple(loom.edges), options.dt)
    encode = _encoder(graph, front, options.binary_input)
    return Lowered(network, options.form, 1, graph, exact, claim, front, codes, nodes, encode, answer.decode, bits)


def levels(graph: Graph, options: Options) -> Lowered:
    """See `neuro.convert.valued.levels`."""
    graph, shapes, loom, front, bad = _begun(graph, options, _is_neuron, (Quantise, MaxPool))
    quantiser = graph.ops[front]
    assert isinstance(quantiser, Quantise)
    loom.add(INPUT, ir.Input(shapes[front], quantiser.high - quantiser.low))
    codes = {front: plain(shapes[front], quantiser.step, quantiser.low, quantiser.high - quantiser.low)}
    nodes = {front: INPUT}
    valued.levels(graph, shapes, loom, codes, nodes, bad)
    refuse(options.form, bad)
    if graph.output in codes:
        bad.append(f"the answer '{graph.output}' is that of neurons: leave them out, the last layer sends its sums")
    answer = _answer(graph, shapes, loom, codes, nodes, options, bad, direct=True)
    refuse(options.form, bad)
    claim = "equal to the quantised graph; on a chip where its scales, thresholds and biases have their own grid too"
    network = ir.Network(loom.nodes, tuple(loom.edges), options.dt)
    encode = valued.numbers_in(quantiser, _before(graph, front))
    return Lowered(network, options.form, 1, graph, answer.exact, claim + answer.note, front, codes, nodes, encode,
                   answer.decode)  # fmt: skip


def graded(graph: Graph, options: Options) -> Lowered:
    """See `neuro.convert.valued.graded`."""

    def rectifies(operation: Op) -> bool:
        return isinstance(operation, Function) and operation.name == "relu"

    graph, shapes, loom, front, bad = _begun(graph, options, rectifies, (Quantise,), rectifies)
    bad += [
        f"'{n}' has levels: a sigma-delta neuron rounds nothing; leave rectifiers as they are, or use 'thermometer'"
        for n in graph.neurons
        if n != front
    ]
    refuse(options.form, bad)
    quantiser = graph.ops[front]
    assert isinstance(quantiser, Quantise)
    top = quantiser.high - quantiser.low
    loom.add(INPUT, ir.Input(shapes[front], top))
    nodes = {front: loom.add("changes", ir.Delta(np.zeros(shapes[front])), INPUT)}
    codes = {front: plain(shapes[front], quantiser.step, quantiser.low, top)}
    valued.graded(graph, shapes, loom, codes, nodes, bad)
    refuse(options.form, bad)
    answer = _answer(graph, shapes, loom, codes, nodes, options, bad, reader=ir.I())
    refuse(options.form, bad)
    claim = "equal to the graph in every value where the chip holds whole weights and sums" + answer.note
    network = ir.Network(loom.nodes, tuple(loom.edges), options.dt)
    encode = valued.numbers_in(quantiser, _before(graph, front))
    return Lowered(network, options.form, 1, graph, answer.exact, claim, front, codes, nodes, encode, answer.decode)


def rate(graph: Graph, options: Options) -> Lowered:
    """See `neuro.convert.valued.rate`."""
    graph, shapes, loom, front, bad = _begun(graph, options, _is_neuron, (Quantise,))
    quantiser = graph.ops[front]
    assert isinstance(quantiser, Quantise)
    steps = options.steps or RATE_STEPS
    if quantiser.low:
        bad.append(f"'{front}' has levels below 0 ({quantiser.low}): spikes count from 0")
    top = quantiser.high - quantiser.low
    loom.add(INPUT, ir.Input(shapes[front], 1 if options.binary_input else top))
    worth = quantiser.step * (top if options.binary_input else 1)
    codes, nodes = {front: plain(shapes[front], worth, 0, 1 if options.binary_input else top)}, {front: INPUT}
    valued.rate(graph, shapes, loom, codes, nodes, steps, bad)
    refuse(options.form, bad)
    answer = _answer(graph, shapes, loom, codes, nodes, options, bad, times=steps)
    refuse(options.form, bad)
    claim = f"spikes of {steps} steps: close to the quantised graph, equal by chance; the certificate says how far"
    network = ir.Network(loom.nodes, tuple(loom.edges), options.dt)
    numbers, trains = (
        valued.numbers_in(quantiser, _before(graph, front)),
        valued.trains_in(quantiser, steps, _before(graph, front)),
    )
    encode = trains if options.binary_input else lambda x: np.repeat(numbers(x), steps, 0)
    return Lowered(network, options.form, steps, graph, False, claim, front, codes, nodes, encode, answer.decode)


def unfold(graph: Graph, options: Options) -> Lowered:
    """See `neuro.convert.clocked`."""
    graph, shapes, loom, front, bad = _begun(graph, options, _is_neuron, (Quantise,))
    first = _levels_in(graph, shapes, loom, front, options.binary_input)
    codes, nodes = {front: first.code}, {front: INPUT}
    steps, exact = clocked.lower(graph, shapes, loom, codes, nodes, bad)
    refuse(options.form, bad)
    answer = _answer(graph, shapes, loom, codes, nodes, replace(options, bias="decode"), bad)
    refuse(options.form, bad)
    claim = (
        "equal to the quantised graph in every value"
        if exact and answer.exact
        else "equal to the quantised graph but where a sum meets a threshold to the last bits: steps are no whole sums"
    )
    network = ir.Network(loom.nodes, tuple(loom.edges), options.dt)
    once = _encoder(graph, front, options.binary_input)

    def encode(x: Tensor) -> NDArray[np.uint8]:
        here = once(x)
        return np.concatenate([here, np.zeros((steps - 1, *here.shape[1:]), np.uint8)])

    exact = exact and answer.exact
    return Lowered(
        network, options.form, steps, graph, exact, claim + answer.note, front, codes, nodes, encode, answer.decode
    )


def _begun(
    graph: Graph,
    options: Options,
    neurons: Callable[[Op], bool],
    allowed: tuple[type[Op], ...],
    but: Callable[[Op], bool] = lambda _: False,
) -> tuple[Graph, dict[str, Shape], Loom, str, list[str]]:
    """(graph prepared, shapes, an empty network, the entrance, no complaints): or all refusals at once."""
    graph = prepared(graph, options.form, neurons)
    refuse(options.form, refusals(graph, options.form, allowed, OTHERS, but))
    return graph, shapes_of(graph), Loom(), entrance(graph), []


def _levels_in(graph: Graph, shapes: Mapping[str, Shape], loom: Loom, front: str, binary: bool) -> Stack:
    """The input as a population."""
    quantiser = graph.ops[front]
    assert isinstance(quantiser, Quantise)
    channels, *space = shapes[front]
    levels = quantiser.high - quantiser.low
    base = (quantiser.step * quantiser.low).expand(channels, *space).clone()
    copies = levels if binary else 1
    high = 1 if binary else levels
    loom.add(INPUT, ir.Input((channels * copies, *space), high))
    code = Code(
        (channels, *space),
        np.repeat(np.arange(channels), copies),
        np.ones(channels * copies, np.int64),
        base,
        quantiser.step,
        high,
    )
    held = np.zeros((channels, levels, *space), np.int64)
    return Stack(code, INPUT, np.tile(np.arange(copies), channels), held, quantiser.low)


def _before(graph: Graph, front: str) -> Callable[[Tensor], Tensor]:
    """What the host hands to the entrance, from samples."""

    def value(x: Tensor) -> Tensor:
        found = {graph.inputs[0]: x}

        def visit(name: str) -> Tensor:
            if name not in found:
                found[name] = graph.ops[name].value(*(visit(s) for s in graph.takes[name]))
            return found[name]

        return visit(graph.takes[front][0])

    return value


def _encoder(graph: Graph, front: str, binary: bool) -> Callable[[Tensor], NDArray[np.uint8]]:
    quantiser = graph.ops[front]
    assert isinstance(quantiser, Quantise)
    before = _before(graph, front)

    def encode(x: Tensor) -> NDArray[np.uint8]:
        levels = (quantiser.levels(before(x)) - quantiser.low).numpy().astype(np.int64)
        if not binary:
            return levels.astype(np.uint8)[None]
        count = quantiser.high - quantiser.low
        at = np.arange(1, count + 1).reshape(1, 1, count, *(1,) * (levels.ndim - 2))
        spikes = (levels[:, :, None] >= at).astype(np.uint8)
        return spikes.reshape(1, len(levels), -1, *levels.shape[2:])

    return encode


class _Answer:
    """How the output is read. largest, exact: of the weights in front of it. note: for the claim."""

    def __init__(self, decode: Callable[[NDArray[np.float64]], Tensor], largest: int, exact: bool, note: str) -> None:
        self.decode, self.largest, self.exact, self.note = decode, largest, exact, note


def _answer(
    graph: Graph,
    shapes: Mapping[str, Shape],
    loom: Loom,
    codes: Mapping[str, Code],
    nodes: Mapping[str, str],
    options: Options,
    bad: list[str],
    reader: ir.Neuron | None = None,
    direct: bool = False,
    times: int = 1,
) -> _Answer:
    """reader: the node whose membrane is read, by default one that forgets. direct: none; weights are real.
    times: steps over which spikes, and the bias of the network, add up."""
    found = ways_into(graph, graph.output, codes)
    weights = any(not isinstance(graph.ops[n], (Quantise, MaxPool)) and n not in codes for n in _tail(graph, codes))
    spikes = options.readout == "spikes" or (options.readout == "auto" and graph.output in codes)
    sources = list(dict.fromkeys(source for source, _ in found))
    if spikes:
        if len(sources) != 1:
            bad.append(f"the answer is made of {sources}: spikes are read from one population; use readout='membrane'")
            return _Answer(lambda raw: torch.zeros(0), 0, True, "")
        if times > 1 or direct or reader is not None:
            bad.append(f"form '{options.form}' reads membranes: use readout='membrane', and no neurons at the end")
            return _Answer(lambda raw: torch.zeros(0), 0, True, "")
        source = sources[0]
        loom.add(OUTPUT, ir.Output("count"), nodes[source])
        note = "; what is linear behind the last neurons is computed by decode, on the host" if weights else ""
        return _Answer(lambda raw: _host(graph, source, codes[source].value(raw)), 0, True, note)
    lines = [way(graph, shapes, each, codes[each[0]], bad) for each in found]
    if bad:
        return _Answer(lambda raw: torch.zeros(0), 0, True, "")
    made, gain = one_gain([w for w in lines if w is not None], graph.output, bad)
    if bad:
        return _Answer(lambda raw: torch.zeros(0), 0, True, "")
    base = base_at(graph, graph.output, {n: c.base for n, c in codes.items()})
    last = made[0].parts[-1]
    per_channel = base.reshape(base.shape[0], -1)
    uniform = options.bias == "network" and bool((per_channel == per_channel[:, :1]).all()) and last.kind != "flatten"
    exact = all(w.exact for w in made)
    factor, unit = (gain, 1.0) if direct else (1.0, gain)
    wanted = per_channel[:, 0] / unit
    whole = (wanted if direct else torch.round(wanted)) * uniform
    rest = base - (unit * whole).reshape(-1, *(1,) * (base.ndim - 1))
    fronts = []
    for k, w in enumerate(made):
        bias = whole.numpy() if k == 0 and bool(whole.any()) else None
        fronts.append(loom.weave("answer", nodes[w.source], w, codes[w.source], None, factor, bias))
    read = fronts if direct else [loom.add("answer", reader or ir.LI(np.array(FOREVER * options.dt)), *fronts)]
    loom.add(OUTPUT, ir.Output("last" if isinstance(reader, ir.I) else "sum"), *read)
    rounds = exact and not direct  # sums are whole: what a chip's fractions add to them is not theirs

    def decode(raw: NDArray[np.float64]) -> Tensor:
        sums = torch.as_tensor(np.rint(raw) if rounds else raw).reshape(len(raw), *base.shape)
        return unit * sums / times + rest

    note = (
        ""
        if not bool((rest.abs() > 1e-12).any())
        else "; what the answer's bias is off whole numbers is added by decode"
    )
    return _Answer(decode, max(w.largest for w in made), exact, note)


def _tail(graph: Graph, codes: Mapping[str, Code]) -> list[str]:
    """Operations between the last populations and the answer."""
    found, todo = [], [graph.output]
    while todo:
        name = todo.pop()
        if name not in codes and not isinstance(graph.ops[name], Constant):
            found.append(name)
            todo += graph.takes[name]
    return found


def _host(graph: Graph, source: str, value: Tensor) -> Tensor:
    found = {source: value}

    def visit(name: str) -> Tensor:
        if name not in found:
            found[name] = graph.ops[name].value(*(visit(s) for s in graph.takes[name]))
        return found[name]

    return visit(graph.output)


FORMS: Mapping[str, Callable[[Graph, Options], Lowered]] = types.MappingProxyType(
    {"thermometer": thermometer, "levels": levels, "graded": graded, "unfold": unfold, "rate": rate}
)

__all__ = ["FORMS"]
