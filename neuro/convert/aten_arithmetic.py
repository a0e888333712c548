"""Rows of `neuro.convert.aten_table`: element by element, sums and products."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from neuro.convert import arithmetic, axes, layers
from neuro.convert.arithmetic import Given
from neuro.convert.aten_table import ATEN, REMEDIES, row
from neuro.convert.trace import Refused, Tracer, Value, affine

# element by element
for _name in ("relu", "relu6", "silu", "sigmoid", "tanh", "exp", "square", "reciprocal", "abs", "log", "sqrt", "erf"):
    ATEN[_name] = lambda g, x, n=_name: arithmetic.function(g, n, x)
ATEN["sin"] = lambda g, x: arithmetic.function(g, "sin", x)
ATEN["cos"] = lambda g, x: arithmetic.function(g, "cos", x)
ATEN["neg"] = lambda g, x: arithmetic.times(g, x, -1.0)
ATEN["rsqrt"] = lambda g, x: arithmetic.power(g, x, -0.5)
# values that stay what they are
for _name in ("detach", "alias", "lift_fresh_copy", "positive"):
    ATEN[_name] = lambda g, x: x


@row("clone")
def clone(g: Tracer, x: Value, memory_format: Any = None) -> Value:
    return x


@row("contiguous")
def contiguous(g: Tracer, x: Value, memory_format: Any = None) -> Value:
    return x


@row("_to_copy", "to")
def cast(g: Tracer, x: Value, dtype: torch.dtype | None = None, **_: Any) -> Value:
    if dtype is not None and not dtype.is_floating_point:
        raise Refused(f"a cast to {dtype}")
    return x


@row("type_as")
def type_as(g: Tracer, x: Value, other: Given) -> Value:
    return x


@row("copy")
def copy(g: Tracer, x: Given, src: Given, non_blocking: bool = False) -> Given:
    shape = x.shape if isinstance(x, (Value, Tensor)) else ()
    if isinstance(src, Value):
        return src if src.shape == tuple(shape) else axes.expand(g, src, shape)
    return arithmetic.tensor_of(src).expand(tuple(shape))


@row("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
def dropout(g: Tracer, x: Value, p: float, train: bool) -> Value:
    if train and p > 0:
        raise Refused(REMEDIES["dropout"])
    return x


@row("gelu")
def gelu(g: Tracer, x: Value, approximate: str = "none") -> Value:
    return arithmetic.function(g, "gelu" if approximate == "none" else "gelu_tanh", x)


@row("softplus")
def softplus(g: Tracer, x: Value, beta: float = 1, threshold: float = 20) -> Value:
    if beta == 1 and threshold == 20:
        return arithmetic.function(g, "softplus", x)
    raise Refused("softplus with another beta than 1 or threshold than 20")


@row("elu")
def elu(g: Tracer, x: Value, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Value:
    if alpha == scale == input_scale == 1:
        return arithmetic.function(g, "elu", x)
    negative = arithmetic.times(g, arithmetic.clamp(g, x, None, 0), input_scale)
    below = arithmetic.times(g, arithmetic.function(g, "elu", negative), alpha)
    both = arithmetic.plus(g, arithmetic.function(g, "relu", x), below)
    return both if scale == 1 else arithmetic.times(g, both, scale)


@row("selu")
def selu(g: Tracer, x: Value) -> Value:
    return elu(g, x, 1.6732632423543772848170429916717, 1.0507009873554804934193349852946)


@row("celu")
def celu(g: Tracer, x: Value, alpha: float = 1.0) -> Value:
    return elu(g, x, alpha, 1, 1 / alpha)


@row("leaky_relu")
def leaky_relu(g: Tracer, x: Value, negative_slope: float = 0.01) -> Value:
    return arithmetic.leaky(g, x, float(negative_slope))


@row("prelu", "_prelu_kernel")
def prelu(g: Tracer, x: Value, weight: Tensor) -> Value:
    return arithmetic.leaky(g, x, layers.per_channel(weight, x) if weight.numel() > 1 else weight.reshape(()))


@row("hardtanh")
def hardtanh(g: Tracer, x: Value, min_val: float = -1, max_val: float = 1) -> Value:
    return arithmetic.clamp(g, x, min_val, max_val)


@row("clamp", "clamp_min", "clamp_max")
def clamp(g: Tracer, x: Value, **edges: Any) -> Value:
    low, high = edges.get("min"), edges.get("max")
    for edge in (low, high):
        if isinstance(edge, (Tensor, Value)):
            raise Refused("clamp with tensors as edges")
    return arithmetic.clamp(g, x, low, high)


@row("hardsigmoid")
def hardsigmoid(g: Tracer, x: Value) -> Value:
    return arithmetic.times(g, arithmetic.function(g, "relu6", arithmetic.plus(g, x, 3.0)), 1 / 6)


@row("hardswish")
def hardswish(g: Tracer, x: Value) -> Value:
    return arithmetic.times(g, x, hardsigmoid(g, x))


@row("mish")
def mish(g: Tracer, x: Value) -> Value:
    return arithmetic.times(g, x, arithmetic.function(g, "tanh", arithmetic.function(g, "softplus", x)))


@row("log_sigmoid")
def log_sigmoid(g: Tracer, x: Value) -> Value:
    return arithmetic.times(g, arithmetic.function(g, "softplus", arithmetic.times(g, x, -1.0)), -1.0)


@row("glu")
def glu(g: Tracer, x: Value, dim: int = -1) -> Value:
    half = x.shape[dim] // 2
    a, b = axes.split(g, x, [half, half], dim)
    return arithmetic.times(g, a, arithmetic.function(g, "sigmoid", b))


@row("maximum")
def maximum(g: Tracer, x: Given, other: Given) -> Value:
    return arithmetic.plus(g, other, arithmetic.function(g, "relu", arithmetic.plus(g, x, other, -1)))


@row("minimum")
def minimum(g: Tracer, x: Given, other: Given) -> Value:
    return arithmetic.plus(g, other, arithmetic.function(g, "relu", arithmetic.plus(g, other, x, -1)), -1)


@row("pow")
def power(g: Tracer, x: Given, exponent: Given) -> Value:
    if not isinstance(x, Value) or isinstance(exponent, (Value, Tensor)):
        raise Refused("a power whose exponent is not a number")
    return arithmetic.power(g, x, float(exponent))


# sums and products
@row("add")
def add(g: Tracer, x: Given, other: Given, alpha: float = 1) -> Value:
    return arithmetic.plus(g, x, arithmetic.scaled(g, other, alpha))


@row("sub")
def sub(g: Tracer, x: Given, other: Given, alpha: float = 1) -> Value:
    return arithmetic.plus(g, x, arithmetic.scaled(g, other, alpha), -1)


@row("rsub")
def rsub(g: Tracer, x: Given, other: Given, alpha: float = 1) -> Value:
    return sub(g, other, x, alpha)


@row("mul")
def mul(g: Tracer, x: Given, other: Given) -> Value:
    return arithmetic.times(g, x, other)


@row("div", "true_divide")
def div(g: Tracer, x: Given, other: Given) -> Value:
    return arithmetic.over(g, x, other)


@row("where")
def where(g: Tracer, condition: Given, x: Given, other: Given) -> Value:
    return masked(g, x, ~condition.bool() if isinstance(condition, Tensor) else condition, other)


@row("masked_fill")
def masked(g: Tracer, x: Given, mask: Given, value: Given) -> Value:
    if not isinstance(mask, Tensor):
        raise Refused("a mask that depends on the input")
    keep = (~mask.bool()).to(torch.float64)
    if isinstance(x, Value) and not isinstance(value, Value):
        shift = torch.where(mask.bool(), arithmetic.tensor_of(value), torch.zeros((), dtype=torch.float64))
        return affine(g, x, keep, shift)
    if isinstance(value, Value) and not isinstance(x, Value):
        return masked(g, value, ~mask.bool(), x)
    return arithmetic.plus(g, arithmetic.times(g, x, keep), arithmetic.times(g, value, 1 - keep))
