"""Order of evaluation and shapes of a `Network`: one walk, one table of shape rules."""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Mapping
from dataclasses import replace

from neuro import ir
from neuro.errors import CyclicWithoutDelay, NetworkError, ShapeMismatch
from neuro.ir import Edge, Network, Node, Shape


def settle(net: Network) -> None:
    """Check the graph, then set ``order``, ``feedback``, ``shapes`` and give each neuron its own parameters.

    Raises:
        NetworkError: no input or output, a node that nothing reaches, a node left without source.
        CyclicWithoutDelay: a loop without a neuron or delay.
        ShapeMismatch: every disagreement at once.
    """
    bad: list[str] = []
    inputs = [n for n, node in net.nodes.items() if isinstance(node, ir.Input)]
    outputs = [n for n, node in net.nodes.items() if isinstance(node, ir.Output)]
    if not inputs:
        bad.append("there is no Input node; add one with the shape of the events")
    if not outputs:
        bad.append("there is no Output node; add one behind the last layer")
    bad += [f"Input '{n}' has a source; nothing may feed an input" for n in inputs if net.sources(n)]
    bad += [f"Output '{n}' has a target; nothing may follow an output" for n in outputs if net.targets(n)]
    order, feedback = _walk(net, inputs)
    reached = set(order)
    unreached = [n for n in net.nodes if n not in reached]
    if inputs and unreached:
        bad.append(f"no path from an input reaches {', '.join(map(repr, unreached))}; connect or remove")
    if bad:
        raise NetworkError("network cannot be built", bad)
    loops = [edge for edge in feedback if not _has_state_on_loop(net, edge)]
    if loops:
        raise CyclicWithoutDelay(
            "a loop needs a neuron or a Delay in it", [f"loop closed by {s} -> {d}" for s, d in loops]
        )
    object.__setattr__(net, "order", order)
    object.__setattr__(net, "feedback", frozenset(feedback))
    _infer(net)


def _walk(net: Network, inputs: list[str]) -> tuple[tuple[str, ...], list[Edge]]:
    """Depth-first from the inputs: reverse postorder, and the edges that close a loop."""
    state: dict[str, int] = {}  # 1 on the stack, 2 done
    post: list[str] = []
    feedback: list[Edge] = []
    for root in reversed(inputs):  # reversed: reverse postorder then keeps declared order
        if root in state:
            continue
        state[root] = 1
        stack = [(root, iter(net.targets(root)))]
        while stack:
            name, rest = stack[-1]
            for target in rest:
                if state.get(target) == 1:
                    feedback.append((name, target))
                elif target not in state:
                    state[target] = 1
                    stack.append((target, iter(net.targets(target))))
                    break
            else:
                state[name] = 2
                post.append(name)
                stack.pop()
    return tuple(reversed(post)), feedback


def _has_state_on_loop(net: Network, edge: Edge) -> bool:
    """Whether every path from the edge's target back to its source meets state.

    Other feedback edges are walked too: a loop closed by two of them needs state as well.
    """
    source, target = edge
    todo, seen = [target], set()
    while todo:  # over stateless nodes only: reaching the source means a loop without state
        name = todo.pop()
        if name in seen or isinstance(net.nodes[name], (ir.Neuron, ir.Delay)):
            continue
        if name == source:
            return False
        seen.add(name)
        todo += net.targets(name)
    return True


def _infer(net: Network) -> None:
    shapes: dict[str, Shape] = {}
    nodes = dict(net.nodes)
    bad: list[str] = []
    broken: set[str] = set()  # a wrong shape is reported once, not again by all that follow
    for name in net.order:
        given = [(s, shapes[s]) for s in net.sources(name) if s in shapes]
        if any(s in broken for s in net.sources(name)):
            broken.add(name)
            continue
        kinds = {shape for _, shape in given}
        if len(kinds) > 1:
            listed = ", ".join(f"'{s}' {shape}" for s, shape in given)
            bad.append(f"'{name}' adds up sources of different shapes: {listed}")
            broken.add(name)
            continue
        rule = _RULES[type(nodes[name]).__name__]
        try:
            nodes[name], shape = rule(nodes[name], kinds.pop() if kinds else ())
            if ir.too_large(shape):  # what a convolution or a pool with much padding would make
                raise ShapeMismatch(*ir.too_large(shape))
            shapes[name] = shape
        except ShapeMismatch as problem:
            bad.append(f"'{name}' ({type(nodes[name]).__name__}): {problem}")
            broken.add(name)
    for source, target in sorted(net.feedback):
        wanted = _input_shape(net, target, shapes)
        if source in shapes and wanted is not None and shapes[source] != wanted:
            bad.append(f"feedback '{source}' {shapes[source]} -> '{target}', which gets {wanted} from elsewhere")
    for name in net.of(ir.Output):
        node = nodes[name]
        assert isinstance(node, ir.Output)
        silent = [s for s in net.sources(name) if not sends_spikes(net, s)]
        if node.readout == "count" and silent:
            bad.append(f"'{name}' counts spikes, but {', '.join(map(repr, silent))} sends none; use 'sum' or 'max'")
    if bad:
        raise ShapeMismatch("shapes do not agree", bad)
    object.__setattr__(net, "nodes", types.MappingProxyType(nodes))
    object.__setattr__(net, "shapes", types.MappingProxyType(shapes))


def _input_shape(net: Network, name: str, shapes: Mapping[str, Shape]) -> Shape | None:
    """What the forward sources send to ``name``; None for an input, or where that could not be settled."""
    forward = [s for s in net.sources(name) if (s, name) not in net.feedback]
    return shapes.get(forward[0]) if forward else None


def input_shape(net: Network, name: str) -> Shape:
    """Shape of what enters a node in one step (of an Input: its own shape)."""
    return _input_shape(net, name, net.shapes) or net.shapes[name]


def sends_spikes(net: Network, name: str) -> bool:
    """Whether a node sends spikes: a spiking neuron, or a Flatten or Delay with one source that sends them."""
    while isinstance(net.nodes[name], (ir.Flatten, ir.Delay)) and len(net.sources(name)) == 1:
        (name,) = net.sources(name)
    return bool(getattr(net.nodes[name], "spiking", False))


def _source(node: Node, shape: Shape) -> tuple[Node, Shape]:
    assert isinstance(node, ir.Input)
    return node, node.shape


def _same(node: Node, shape: Shape) -> tuple[Node, Shape]:
    return node, shape


def _flatten(node: Node, shape: Shape) -> tuple[Node, Shape]:
    return node, (math.prod(shape),)


def _linear(node: Node, shape: Shape) -> tuple[Node, Shape]:
    assert isinstance(node, ir.Linear)
    out, wanted = node.weight.shape
    if shape != (wanted,):
        hint = "; put a Flatten in front" if math.prod(shape) == wanted else ""
        raise ShapeMismatch(f"weight {node.weight.shape} wants input ({wanted},), got {shape}{hint}")
    return node, (out,)


def _conv(node: Node, shape: Shape) -> tuple[Node, Shape]:
    assert isinstance(node, ir.Conv2d)
    if len(shape) != 3:
        raise ShapeMismatch(f"wants input [channel, height, width], got {shape}")
    out, per_group, *kernel = node.weight.shape
    if shape[0] != per_group * node.groups:
        raise ShapeMismatch(
            f"weight {node.weight.shape} with groups {node.groups} wants {per_group * node.groups} "
            f"input channels, got {shape[0]}"
        )
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, node.dilation, strict=True)]
    size = _slide(shape[1:], reach, node.stride, node.padding)
    return node, (out, *size)


def _pool(node: Node, shape: Shape) -> tuple[Node, Shape]:
    assert isinstance(node, (ir.SumPool2d, ir.AvgPool2d, ir.MaxPool2d))
    if len(shape) != 3:
        raise ShapeMismatch(f"wants input [channel, height, width], got {shape}")
    return node, (shape[0], *_slide(shape[1:], node.kernel_size, node.stride, node.padding))


def _slide(size: Shape, reach: tuple[int, ...] | list[int], stride: Shape, padding: Shape) -> Shape:
    out = tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, reach, stride, padding, strict=True))
    if min(out) < 1:
        raise ShapeMismatch(f"window {tuple(reach)} is larger than input {size} with padding {tuple(padding)}")
    return out


def _elementwise(field: str) -> Callable[[Node, Shape], tuple[Node, Shape]]:
    def rule(node: Node, shape: Shape) -> tuple[Node, Shape]:
        return replace(node, **{field: ir.expand(getattr(node, field), shape, f"{field} has")}), shape

    return rule


def _neuron(node: Node, shape: Shape) -> tuple[Node, Shape]:
    assert isinstance(node, ir.Neuron)
    return (node if node.shape == shape else node.expand(shape)), shape


_RULES: dict[str, Callable[[Node, Shape], tuple[Node, Shape]]] = {
    "Input": _source,
    "Output": _same,
    "Linear": _linear,
    "Affine": _linear,
    "Conv2d": _conv,
    "SumPool2d": _pool,
    "AvgPool2d": _pool,
    "MaxPool2d": _pool,
    "QuantisedReLU": _elementwise("step"),
    "Flatten": _flatten,
    "Scale": _elementwise("scale"),
    "Delay": _elementwise("steps"),
    "IF": _neuron,
    "LI": _neuron,
    "LIF": _neuron,
    "CubaLI": _neuron,
    "CubaLIF": _neuron,
    "AdaptiveLIF": _neuron,
    "TernaryLIF": _neuron,
    "I": _neuron,
    "Delta": _neuron,
    "SigmaDelta": _neuron,
    "ResonateAndFire": _neuron,
}
