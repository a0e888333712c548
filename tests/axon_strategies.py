"""Hypothesis strategies that all laws share: small random networks, events, and integers of a format.

Weights are dyadic (multiples of 1/16) unless asked otherwise: their sums are exact in float64 in any
order, so that laws about reordering can demand equality to the last bit.
"""

from __future__ import annotations

import math
import os
from typing import Any, NamedTuple

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from neuro import ir
from neuro.events import Events

# derandomised: a test run is a function of the code alone; AXON_EXAMPLES=1000 looks further
LAW = settings(
    deadline=None,
    derandomize=True,
    max_examples=int(os.environ.get("AXON_EXAMPLES", "20")),
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)

NEURONS = (ir.IF, ir.LI, ir.LIF, ir.CubaLI, ir.CubaLIF)
SPIKING = (ir.IF, ir.LIF, ir.CubaLIF)
Shape = tuple[int, ...]


class Style(NamedTuple):
    """What all nodes of a drawn network have in common, see `networks`."""

    elements: st.SearchStrategy[float]
    quiet: bool = False
    delays: bool = True


def dyadic(low: int = -32, high: int = 32) -> st.SearchStrategy[float]:
    """Multiples of 1/16."""
    return st.integers(low, high).map(lambda k: k / 16)


def any_float() -> st.SearchStrategy[float]:
    """Every finite float64: subnormal, -0.0 and the largest included."""
    return st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def values(draw: st.DrawFn, shape: Shape, elements: st.SearchStrategy[Any], dtype: type = np.float64) -> NDArray[Any]:
    """Arrays of a shape, each value one of at most five drawn ones: far faster than to draw each value."""
    palette = np.array(draw(st.lists(elements, min_size=1, max_size=5)), dtype)
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    return palette[rng.integers(0, len(palette), shape)]


@st.composite
def neurons(
    draw: st.DrawFn, shape: Shape, dt: float, kinds: tuple[type[ir.Neuron], ...] = NEURONS, quiet: bool = False
) -> ir.Neuron:
    """A population; parameters as one scalar, one value per neuron, or one per channel."""
    kind = draw(st.sampled_from(kinds))
    forms: list[Shape] = [(), (1,), shape]
    if len(shape) == 3:
        forms.append((shape[0], 1, 1))

    def parameter(elements: st.SearchStrategy[float]) -> Any:
        return draw(values(draw(st.sampled_from(forms)), elements))

    still = st.just(0.0)
    table = {
        "tau_mem": st.sampled_from([1.0, 1.5, 2.0, 4.0, 20.0]).map(lambda k: k * dt),
        "tau_syn": st.sampled_from([1.0, 1.25, 3.0, 10.0]).map(lambda k: k * dt),
        "v_threshold": dyadic(0, 12),
        "r": dyadic(-2, 64),
        "v_leak": still if quiet else dyadic(-8, 8),
        "v_reset": still if quiet else dyadic(-16, 8),
        "w_in": dyadic(-2, 64),
    }
    given = {name: parameter(table[name]) for name in kind._parameters()}
    if issubclass(kind, SPIKING):
        given["reset"] = draw(st.sampled_from(ir.RESETS))
    return kind(**_same_axes(given, shape))


def _same_axes(given: dict[str, Any], shape: Shape) -> dict[str, Any]:
    """Parameters must broadcast among themselves, as [1] and [channel, 1, 1] do not always mean to."""
    return {
        name: value.reshape(()) if isinstance(value, np.ndarray) and value.size == 1 and math.prod(shape) > 1 else value
        for name, value in given.items()
    }


@st.composite
def convolutions(draw: st.DrawFn, shape: Shape, style: Style) -> ir.Conv2d:
    """A convolution that fits an image of [channel, height, width]."""
    channels, *size = shape
    groups = draw(st.sampled_from([g for g in (1, 2) if channels % g == 0]))
    dilation = tuple(draw(st.integers(1, 2)) for _ in size)
    padding = tuple(draw(st.integers(0, 2)) for _ in size)
    kernel = tuple(
        draw(st.integers(1, max(1, min(3, (n + 2 * p - 1) // d + 1))))
        for n, p, d in zip(size, padding, dilation, strict=True)
    )
    out = groups * draw(st.integers(1, 2))
    weight = draw(values((out, channels // groups, *kernel), style.elements))
    bias = np.zeros(out) if style.quiet else draw(values((out,), style.elements))
    stride = tuple(draw(st.integers(1, 2)) for _ in size)
    return ir.Conv2d(weight, stride, padding, dilation, groups, bias=bias)


@st.composite
def pools(draw: st.DrawFn, shape: Shape) -> ir.SumPool2d | ir.AvgPool2d:
    """A pool that fits an image."""
    kernel = tuple(draw(st.integers(1, min(3, n))) for n in shape[1:])
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    stride = tuple(draw(st.integers(1, 3)) for _ in kernel)
    return draw(st.sampled_from([ir.SumPool2d, ir.AvgPool2d]))(kernel, stride, padding)


@st.composite
def linears(draw: st.DrawFn, ins: int, outs: int, style: Style) -> ir.Linear:
    """Linear or Affine, with delays per synapse now and then."""
    weight = draw(values((outs, ins), style.elements))
    delayed = style.delays and draw(st.booleans())
    steps = draw(values((outs, ins), st.integers(0, 4), np.int64)) if delayed else None
    if style.quiet or draw(st.booleans()):
        return ir.Linear(weight, steps)
    return ir.Affine(weight, steps, bias=draw(values((outs,), style.elements)))


@st.composite
def networks(
    draw: st.DrawFn,
    *,
    quiet: bool = False,
    kinds: tuple[type[ir.Neuron], ...] = NEURONS,
    images: bool = True,
    recurrent: bool = True,
    delays: bool = True,
    blocks: int = 3,
    elements: st.SearchStrategy[float] | None = None,
    last: tuple[type[ir.Neuron], ...] | None = None,
) -> ir.Network:
    """A small valid network with one input and one output.

    Args:
        quiet: silent without input: no bias, no leak potential, rest and reset at zero.
        kinds: neuron types to use; last: those of the last population. images: convolutions and pools too.
        recurrent: loops. delays: axonal and synaptic ones. blocks: at most so many populations.
        elements: of weights and biases; default -0.75 to 2.
    """
    style = Style(dyadic(-12, 32) if elements is None else elements, quiet, delays)
    dt = draw(st.sampled_from([1e-3, 1e-4, 2.5e-3, 0.3]))
    rule = draw(st.sampled_from(ir.RULES))
    image = images and draw(st.booleans())
    sizes = [(1, 2), (2, 5), (2, 5)] if image else [(1, 5)]
    shape: Shape = tuple(draw(st.integers(low, high)) for low, high in sizes)
    nodes: dict[str, ir.Node] = {"input": ir.Input(shape)}
    edges: list[tuple[str, str]] = []
    end = "input"
    vectors: dict[str, int] = {"input": shape[0]} if not image else {}  # nodes that a skip may start from

    def add(name: str, node: ir.Node) -> None:
        nonlocal end
        nodes[name] = node
        edges.append((end, name))
        end = name

    count = draw(st.integers(1, blocks))
    for k in range(count):
        shape = connect(draw, add, shape, k, style)
        if delays and draw(st.integers(0, 3)) == 0:
            form = draw(st.sampled_from([(), shape]))
            add(f"delay{k}", ir.Delay(draw(values(form, st.integers(0, 3), np.int64))))
        if draw(st.integers(0, 4)) == 0:
            add(f"scale{k}", ir.Scale(draw(values(draw(st.sampled_from([(), shape])), dyadic(1, 32)))))
        population = f"pop{k}"
        entrance = end
        these = last if last is not None and k == count - 1 else kinds
        add(population, draw(neurons(shape, dt, these, quiet)))
        if len(shape) == 1:
            if recurrent and draw(st.integers(0, 2)) == 0:
                nodes[f"back{k}"] = draw(linears(shape[0], shape[0], style))
                edges += [(population, f"back{k}"), (f"back{k}", population)]
            if vectors and draw(st.integers(0, 3)) == 0:
                source = draw(st.sampled_from(sorted(vectors)))
                if source != entrance:
                    nodes[f"skip{k}"] = draw(linears(vectors[source], shape[0], style))
                    edges += [(source, f"skip{k}"), (f"skip{k}", population)]
            vectors[population] = shape[0]
        elif recurrent and draw(st.integers(0, 3)) == 0:
            nodes[f"back{k}"] = ir.Scale(draw(values((), dyadic(-16, 16))))
            edges += [(population, f"back{k}"), (f"back{k}", population)]
    spikes = isinstance(nodes[end], SPIKING)
    readout = draw(st.sampled_from(ir.READOUTS if spikes else ir.READOUTS[1:]))
    add("output", ir.Output(readout))
    return ir.Network(nodes, tuple(edges), dt, rule, draw(metadata()))


def connect(draw: st.DrawFn, add: Any, shape: Shape, k: int, style: Style) -> Shape:
    """Add what stands between two populations; the shape that enters the next one."""
    if len(shape) == 3:
        if draw(st.booleans()):
            node = draw(convolutions(shape, style))
            add(f"conv{k}", node)
            out, _, *kernel = node.weight.shape
            reach = [(s - 1) * d + 1 for s, d in zip(kernel, node.dilation, strict=True)]
            shape = (out, *_slid(shape[1:], reach, node.stride, node.padding))
        if draw(st.booleans()):
            pool = draw(pools(shape))
            add(f"pool{k}", pool)
            shape = (shape[0], *_slid(shape[1:], pool.kernel_size, pool.stride, pool.padding))
        if draw(st.booleans()):
            add(f"flat{k}", ir.Flatten())
            shape = (math.prod(shape),)
    if len(shape) == 1:
        outs = draw(st.integers(1, 4))
        add(f"fc{k}", draw(linears(shape[0], outs, style)))
        shape = (outs,)
    return shape


def _slid(size: Any, reach: Any, stride: Any, padding: Any) -> Shape:
    return tuple((n + 2 * p - r) // s + 1 for n, r, s, p in zip(size, reach, stride, padding, strict=True))


def metadata() -> st.SearchStrategy[dict[str, str]]:
    """Notes on a network and its nodes, with the names and texts that a file format may stumble over."""
    plain = ["classes", "a b", "pop0/bits", "output/note"]
    words = st.sampled_from([*plain, "pop0/a/b", "/", "axonport.dt", "x\0y", "\ud800"])
    return st.dictionaries(words, st.text(max_size=6) | st.sampled_from(["\0", "\ud800", "ä\n"]), max_size=3)


@st.composite
def inputs(draw: st.DrawFn, network: ir.Network, steps: int = 8, batch: int = 3) -> NDArray[np.uint8]:
    """uint8[time, batch, *shape] of 0 and 1 for a network, of at most so many steps and samples."""
    shape = (draw(st.integers(1, steps)), draw(st.integers(1, batch)), *network.shapes[network.input])
    rng = np.random.default_rng(draw(st.integers(0, 9999)))
    return (rng.random(shape) < draw(st.sampled_from([0.5, 0.2, 0.9, 0.0]))).astype(np.uint8)


@st.composite
def events(draw: st.DrawFn, max_events: int = 30) -> Events:
    """Events on a small grid, several in one place now and then, none now and then."""
    shape = draw(st.sampled_from([(1,), (7,), (2, 3), (2, 4, 3)]))
    steps = draw(st.integers(1, 12))
    where = st.tuples(st.integers(0, steps - 1), st.integers(0, math.prod(shape) - 1))
    pairs = draw(st.lists(where, max_size=max_events))
    t, x = (np.array([pair[axis] for pair in pairs], np.int32) for axis in (0, 1))
    return Events(t, x, shape, steps, draw(st.sampled_from([1e-3, 1e-4, 0.5])))


def integers_of(fmt: Any, shape: Shape | None = None) -> st.SearchStrategy[Any]:
    """Integers that a `NumberFormat` holds (low..high in multiples of step), its ends more often than chance.

    One integer, or int64 arrays of a shape.
    """
    low, high = -(-fmt.low // fmt.step), fmt.high // fmt.step
    ends = sorted({low, high, max(low, -1), min(high, 1), min(max(0, low), high)})
    one = (st.sampled_from(ends) | st.integers(low, high)).map(lambda k: k * fmt.step)
    return one if shape is None else values(shape, one, np.int64)


def assert_same_network(a: ir.Network, b: ir.Network) -> None:
    """Equal to the last bit, order included; -0.0 is not 0.0."""
    assert a.edges == b.edges
    assert (a.dt, a.discretisation) == (b.dt, b.discretisation)
    assert list(a.metadata.items()) == list(b.metadata.items())
    assert list(a.nodes) == list(b.nodes)
    assert a.shapes == b.shapes
    assert a.order == b.order
    assert a.feedback == b.feedback
    for name, node in a.nodes.items():
        other = b.nodes[name]
        assert type(node) is type(other), name
        for key, value in vars(node).items():
            theirs = getattr(other, key)
            if isinstance(value, np.ndarray):
                assert value.dtype == theirs.dtype, (name, key)
                assert value.shape == theirs.shape, (name, key)
                assert value.tobytes() == theirs.tobytes(), (name, key)
            else:
                assert value == theirs, (name, key)
