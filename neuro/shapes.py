"""Order of evaluation and shapes of a `Network`: one walk, one table of shape rules."""

from __future__ import annotations

import math
import types
from collections.abc import Callable

import numpy as np

from neuro import ir
from neuro.errors import CyclicWithoutDelay, NetworkError, ShapeMismatch
from neuro.ir import Edge, Network, Node, Shape


def settle(net: Network) -> None:
    """Check the graph, then set ``order``, ``feedback``, ``shapes`` and expand scalar parameters.

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
    unreached = [n for n in net.nodes if n not in order]
    if inputs and unreached:
        bad.append(f"no path from an input reaches {', '.join(map(repr, unreached))}; connect or remove")
    if bad:
        raise NetworkError("network cannot be built", bad)
    loops = [edge for edge in feedback if not _has_state_on_loop(net, edge, feedback)]
    if loops:
        raise CyclicWithoutDelay(
            "a loop needs a neuron or a Delay in it", [f"loop closed by {s} -> {d}" for s, d in loops]
        )
    object.__setattr__(net, "order", order)
    object.__setattr__(net, "feedback", frozenset(feedback))
    _infer(net)


def _walk(net: Network, inputs: list[str]) -> tuple[tuple[str, ...], list[Edge]]:
    """Depth-first from the inputs: reverse postorder, and the edges that close a loop."""
    follow: dict[str, list[str]] = {n: [] for n in net.nodes}
    for source, target in net.edges:
        follow[source].append(target)
    state: dict[str, int] = {}  # 1 on the stack, 2 done
    post: list[str] = []
    feedback: list[Edge] = []
    for root in reversed(inputs):  # reversed: reverse postorder then keeps declared order
        if root in state:
            continue
        state[root] = 1
        stack = [(root, iter(follow[root]))]
        while stack:
            name, rest = stack[-1]
            for target in rest:
                if state.get(target) == 1:
                    feedback.append((name, target))
                elif target not in state:
                    state[target] = 1
                    stack.append((target, iter(follow[target])))
                    break
            else:
                state[name] = 2
                post.append(name)
                stack.pop()
    return tuple(reversed(post)), feedback


def _has_state_on_loop(net: Network, edge: Edge, feedback: list[Edge]) -> bool:
    """Whether every forward path from the edge's target back to its source meets state."""
    source, target = edge
    closed = set(feedback)
    stateful = (ir.Neuron, ir.Delay)
    todo, seen = [target], set()
    while todo:  # walk over stateless nodes only: reaching the source means a loop without state
        name = todo.pop()
        if name in seen or isinstance(net.nodes[name], stateful):
            continue
        seen.add(name)
        if name == source:
            return False
        todo += [d for s, d in net.edges if s == name and (s, d) not in closed]
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
            nodes[name], shapes[name] = rule(nodes[name], kinds.pop() if kinds else ())
        except ValueError as problem:
            bad.append(f"'{name}' ({type(nodes[name]).__name__}): {problem}")
            broken.add(name)
    for source, target in net.feedback:
        if source in broken or target in broken or bad:
            continue
        wanted = _input_shape(net, target, shapes)
        if wanted is not None and shapes[source] != wanted:
            bad.append(f"feedback '{source}' {shapes[source]} -> '{target}' wants {wanted}")
    for name in net.of(ir.Output) if not bad else ():
        node = nodes[name]
        assert isinstance(node, ir.Output)
        spiking = [s for s in net.sources(name) if getattr(net.nodes[s], "spiking", False)]
        if node.readout == "count" and len(spiking) != len(net.sources(name)):
            bad.append(f"'{name}' counts spikes of a source that sends none; use readout 'sum' or 'max'")
    if bad:
        raise ShapeMismatch("shapes do not agree", bad)
    object.__setattr__(net, "nodes", types.MappingProxyType(nodes))
    object.__setattr__(net, "shapes", types.MappingProxyType(shapes))


def _input_shape(net: Network, name: str, shapes: dict[str, Shape]) -> Shape | None:
    """What the forward sources send to ``name``, None if it has none."""
    for source in net.sources(name):
        if (source, name) not in net.feedback:
            return shapes[source]
    return None


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
        raise ValueError(f"weight {node.weight.shape} wants input ({wanted},), got {shape}{hint}")
    return node, (out,)


def _conv(node: Node, shape: Shape) -> tuple[Node, Shape]:
    assert isinstance(node, ir.Conv2d)
    if len(shape) != 3:
        raise ValueError(f"wants input [channel, height, width], got {shape}")
    out, per_group, *kernel = node.weight.shape
    if shape[0] != per_group * node.groups:
        raise ValueError(f"weight {node.weight.shape} with groups {node.groups} wants {per_group * node.groups} "
                         f"input channels, got {shape[0]}")
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, node.dilation, strict=True)]
    size = _slide(shape[1:], reach, node.stride, node.padding)
    return node, (out, *size)


def _pool(node: Node, shape: Shape) -> tuple[Node, Shape]:
    assert isinstance(node, (ir.SumPool2d, ir.AvgPool2d))
    if len(shape) != 3:
        raise ValueError(f"wants input [channel, height, width], got {shape}")
    return node, (shape[0], *_slide(shape[1:], node.kernel_size, node.stride, node.padding))


def _slide(size: Shape, reach: tuple[int, ...] | list[int], stride: Shape, padding: Shape) -> Shape:
    out = tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, reach, stride, padding, strict=True))
    if min(out) < 1:
        raise ValueError(f"window {tuple(reach)} is larger than input {size} with padding {tuple(padding)}")
    return out


def _elementwise(field: str) -> Callable[[Node, Shape], tuple[Node, Shape]]:
    def rule(node: Node, shape: Shape) -> tuple[Node, Shape]:
        values = getattr(node, field)
        if values.shape == shape:
            return node, shape
        if values.size == 1:
            return type(node)(np.full(shape, values.item())), shape
        raise ValueError(f"{field} has shape {values.shape}, input has {shape}")

    return rule


def _neuron(node: Node, shape: Shape) -> tuple[Node, Shape]:
    assert isinstance(node, ir.Neuron)
    if node.shape == shape:
        return node, shape
    if math.prod(node.shape) == 1:  # one value for all, as snnTorch and others write it
        return node.expand(()).expand(shape) if node.shape == () else _squeezed(node).expand(shape), shape
    raise ValueError(f"parameters have shape {node.shape}, input has {shape}")


def _squeezed(node: ir.Neuron) -> ir.Neuron:
    values = {n: getattr(node, n).reshape(()) for n in node._parameters()}
    return type(node)(**values, **({"reset": node.reset} if hasattr(node, "reset") else {}))


_RULES: dict[str, Callable[[Node, Shape], tuple[Node, Shape]]] = {
    "Input": _source,
    "Output": _same,
    "Linear": _linear,
    "Affine": _linear,
    "Conv2d": _conv,
    "SumPool2d": _pool,
    "AvgPool2d": _pool,
    "Flatten": _flatten,
    "Scale": _elementwise("scale"),
    "Delay": _elementwise("steps"),
    "IF": _neuron,
    "LI": _neuron,
    "LIF": _neuron,
    "CubaLI": _neuron,
    "CubaLIF": _neuron,
}
