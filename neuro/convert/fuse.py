"""`fused`: functions that files write out in parts, recognised, so that they are one operation with one neuron."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from neuro.convert.graph import Graph
from neuro.convert.ops import Affine, Function, Op, Product


@dataclass(frozen=True)
class _Form:
    """(p f(x) + q) (r x if product else r), where the walk from f has come."""

    name: str
    p: float
    q: float
    r: float
    product: bool


def fused(graph: Graph) -> Graph:
    """With x (1 + erf(x / sqrt 2)) / 2 as GELU and x sigmoid(x) as SiLU, in any order of factors."""
    users: dict[str, list[str]] = {name: [] for name in graph.ops}
    for name in graph.order:
        for source in graph.takes[name]:
            users[source].append(name)
    ops, takes = dict(graph.ops), dict(graph.takes)
    for name in graph.order:
        operation = graph.ops[name]
        if isinstance(operation, Function) and operation.name in ("erf", "sigmoid"):
            found = _whole(graph, users, name, operation.name)
            if found is not None:
                end, kind, x = found
                ops[end], takes[end] = Function(kind), (x,)
    return _only_needed(ops, takes, graph)


def _whole(graph: Graph, users: dict[str, list[str]], start: str, inner: str) -> tuple[str, str, str] | None:
    """(the operation that ends the pattern, its function, what it is of)."""
    x, gain = _scale(graph, graph.takes[start][0])
    if not math.isclose(gain, math.sqrt(0.5) if inner == "erf" else 1.0, rel_tol=1e-6):
        return None
    form, at = _Form(inner, 1.0, 0.0, 1.0, product=False), start
    while not _done(form):
        if len(users[at]) != 1 or at == graph.output:
            return None
        following = users[at][0]
        step = _through(graph.ops[following], graph, form, following, at, x)
        if step is None:
            return None
        form, at = step, following
    return at, "gelu" if inner == "erf" else "silu", x


def _done(form: _Form) -> bool:
    if not form.product:
        return False
    p, q = form.p * form.r, form.q * form.r
    if form.name == "erf":
        return math.isclose(p, 0.5, rel_tol=1e-6) and math.isclose(q, 0.5, rel_tol=1e-6)
    return math.isclose(p, 1.0, rel_tol=1e-6) and q == 0


def _through(operation: Op, graph: Graph, form: _Form, name: str, came: str, x: str) -> _Form | None:
    if isinstance(operation, Affine):
        scale, shift = _number(operation.scale), 0.0 if operation.shift is None else _number(operation.shift)
        if scale is None or shift is None or (form.product and shift):
            return None
        if form.product:
            return _Form(form.name, form.p, form.q, form.r * scale, product=True)
        return _Form(form.name, form.p * scale, form.q * scale + shift, form.r, product=False)
    if isinstance(operation, Product) and not form.product:
        other = [source for source in graph.takes[name] if source != came]
        if len(other) == 1:
            source, gain = _scale(graph, other[0])
            if source == x:
                return _Form(form.name, form.p, form.q, form.r * gain, product=True)
    return None


def _scale(graph: Graph, name: str) -> tuple[str, float]:
    """(x, c) where the value is c x."""
    operation = graph.ops[name]
    if isinstance(operation, Affine) and (operation.shift is None or not bool(operation.shift.any())):
        scale = _number(operation.scale)
        if scale is not None:
            source, inner = _scale(graph, graph.takes[name][0])
            return source, inner * scale
    return name, 1.0


def _number(tensor: Tensor) -> float | None:
    return float(tensor) if tensor.numel() == 1 else None


def _only_needed(ops: dict[str, Op], takes: dict[str, tuple[str, ...]], graph: Graph) -> Graph:
    whole = Graph(ops, takes, graph.output, graph.metadata)
    kept = set(whole.order) | set(graph.inputs)
    return Graph({n: o for n, o in ops.items() if n in kept}, takes, graph.output, graph.metadata)
