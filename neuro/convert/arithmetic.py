"""Arithmetic of traced and known values in terms of our operations; shared by the front ends.

Values come in traced (`Value`) or known (a tensor, a number)."""

from __future__ import annotations

import torch
from torch import Tensor

from neuro.convert import ops
from neuro.convert.trace import Refused, Tracer, Value, add, affine, against, reshape, same_rank

Given = Value | Tensor | float | int | bool


def tensor_of(known: Tensor | float | int | bool) -> Tensor:
    """A constant as a tensor; whole numbers become real."""
    found = known if isinstance(known, Tensor) else torch.tensor(known, dtype=torch.float64)
    return found if found.is_floating_point() else found.to(torch.float64)


def function(g: Tracer, name: str, v: Value) -> Value:
    return g.put(ops.Function(name), v)


def plus(g: Tracer, a: Given, b: Given, sign: int = 1) -> Value:
    """a + sign b, at least one of them traced."""
    if isinstance(a, Value) and isinstance(b, Value):
        return add(g, a, b, sign)
    if isinstance(a, Value):
        assert not isinstance(b, Value)
        return affine(g, a, like(1.0, b), sign * tensor_of(b))
    assert isinstance(b, Value)
    return affine(g, b, like(float(sign), a), tensor_of(a))


def like(number: float, other: Tensor | float) -> Tensor:
    """A scalar in the dtype of another constant."""
    return torch.tensor(number, dtype=tensor_of(other).dtype)


def times(g: Tracer, a: Given, b: Given) -> Value:
    if isinstance(a, Value) and isinstance(b, Value):
        one, two = same_rank(g, [a, b])
        return g.put(ops.Product(), one, two)
    v, known = (a, b) if isinstance(a, Value) else (b, a)
    assert isinstance(v, Value)
    assert not isinstance(known, Value)
    return affine(g, v, tensor_of(known))


def scaled(g: Tracer, x: Given, factor: float) -> Given:
    if factor == 1:
        return x
    return times(g, x, factor) if isinstance(x, Value) else tensor_of(x) * factor


def over(g: Tracer, a: Given, b: Given) -> Value:
    if isinstance(b, Value):
        return times(g, a, function(g, "reciprocal", b))
    return times(g, a, 1.0 / tensor_of(b))


def power(g: Tracer, v: Value, exponent: float) -> Value:
    if exponent == 2:
        return function(g, "square", v)
    if exponent in (0.5, -0.5):
        root = function(g, "sqrt", v)
        return root if exponent > 0 else function(g, "reciprocal", root)
    if exponent == -1:
        return function(g, "reciprocal", v)
    if exponent != int(exponent) or not 1 <= exponent <= 8:
        raise Refused(f"a power of {exponent:g}; powers are 1 to 8, -1, 1/2, -1/2")
    result = v
    for _ in range(int(exponent) - 1):
        result = times(g, result, v)
    return result


def clamp(g: Tracer, v: Value, low: float | None, high: float | None) -> Value:
    """By rectifiers: low + relu(v - low), and relu6 stretched between both."""
    if low == 0 and high is None:
        return function(g, "relu", v)
    if low == 0 and high == 6:
        return function(g, "relu6", v)
    if low == -1 and high == 1:
        return function(g, "hardtanh", v)
    if low is not None and high is not None:
        gain = (high - low) / 6
        up = affine(g, v, tensor_of(1 / gain), tensor_of(-low / gain))
        return affine(g, function(g, "relu6", up), tensor_of(gain), tensor_of(low))
    sign, edge = (1.0, low) if low is not None else (-1.0, high)
    if edge is None:
        return v
    turned = affine(g, v, tensor_of(sign), tensor_of(-sign * edge))
    return affine(g, function(g, "relu", turned), tensor_of(sign), tensor_of(edge))


def leaky(g: Tracer, v: Value, slope: Tensor | float) -> Value:
    """relu(v) - slope relu(-v)."""
    down = function(g, "relu", affine(g, v, tensor_of(-1.0)))
    return add(g, function(g, "relu", v), affine(g, down, -tensor_of(slope)))


def linear(g: Tracer, v: Value, weight: Tensor, bias: Tensor | None = None) -> Value:
    """v weight^T + bias along the last seen axis."""
    if v.batch == len(v.shape) - 1:
        raise Refused("it works along the batch axis")
    return g.put(ops.Linear(weight.detach().clone(), None if bias is None else bias.detach().clone()), v)


def matmul(g: Tracer, a: Given, b: Given) -> Value:
    """a @ b, at least one of them traced."""
    if isinstance(a, Value) and isinstance(b, Value):
        one, two = same_rank(g, [a, b])
        if one.batch >= len(one.shape) - 2:
            raise Refused("it works along the batch axis")
        return g.put(ops.MatMul(), one, two)
    if isinstance(a, Value) and isinstance(b, Tensor):
        if b.ndim == 1:
            y = linear(g, a, b[None])
            return reshape(g, y, y.shape[:-1])
        if b.ndim == 2:
            return linear(g, a, b.T)
        return _with_constant(g, a, b, constant_first=False)
    if isinstance(b, Value) and isinstance(a, Tensor) and a.ndim >= 2:
        return _with_constant(g, b, a, constant_first=True)
    raise Refused("a product with a vector from the left")


def _with_constant(g: Tracer, v: Value, constant: Tensor, *, constant_first: bool) -> Value:
    if v.batch >= len(v.shape) - 2:
        raise Refused("it works along the batch axis")
    constant = tensor_of(constant)
    data = against(constant, v) if constant.ndim == len(v.shape) else constant
    while data.ndim < len(v.rest):
        data = data[None]
    if data.ndim > len(v.rest):
        raise Refused(f"a constant of shape {tuple(constant.shape)} would add axes to {v.shape}")
    pairs = [(v.name, v.rest), (g.constant(data), tuple(data.shape))]
    pairs = pairs[::-1] if constant_first else pairs
    return g.put_names(ops.MatMul(), [n for n, _ in pairs], [r for _, r in pairs], v)
