"""Rows of `neuro.convert.onnx_table`: element by element."""

from __future__ import annotations

import torch
from torch import Tensor

from neuro.convert import arithmetic
from neuro.convert.arithmetic import Given
from neuro.convert.onnx_table import ONNX, number, row, weight_of
from neuro.convert.trace import Refused, Tracer, Value, add, affine

# element by element
_FUNCTIONS = {
    "Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "Exp": "exp", "Softplus": "softplus", "Reciprocal":
    "reciprocal", "Abs": "abs", "Log": "log", "Sqrt": "sqrt", "Erf": "erf", "Sin": "sin", "Cos": "cos",
}  # fmt: skip
for _name, _ours in _FUNCTIONS.items():
    ONNX[_name] = lambda g, x, ours=_ours: arithmetic.function(g, ours, x)
ONNX["Neg"] = lambda g, x: arithmetic.times(g, x, -1.0)
ONNX["Identity"] = lambda g, x: x
ONNX["Sub"] = lambda g, a, b: arithmetic.plus(g, a, b, -1)
ONNX["Mul"] = arithmetic.times
ONNX["Div"] = arithmetic.over
ONNX["Swish"] = lambda g, x, alpha=1.0: arithmetic.times(
    g, x, arithmetic.function(g, "sigmoid", arithmetic.times(g, x, alpha))
)


@row("Add", "Sum")
def plus(g: Tracer, *x: Given) -> Given:
    found = x[0]
    for each in x[1:]:
        found = arithmetic.plus(g, found, each)
    return found


@row("Max")
def maximum(g: Tracer, a: Given, b: Given) -> Value:
    return arithmetic.plus(g, b, arithmetic.function(g, "relu", arithmetic.plus(g, a, b, -1)))


@row("Min")
def minimum(g: Tracer, a: Given, b: Given) -> Value:
    return arithmetic.plus(g, b, arithmetic.function(g, "relu", arithmetic.plus(g, b, a, -1)), -1)


@row("Pow")
def power(g: Tracer, x: Given, exponent: Given) -> Value:
    if not isinstance(x, Value) or isinstance(exponent, Value) or arithmetic.tensor_of(exponent).numel() != 1:
        raise Refused("a power whose exponent is not a number")
    return arithmetic.power(g, x, float(exponent))


@row("Clip")
def clip(g: Tracer, x: Value, low: Given | None = None, high: Given | None = None, **edges: float) -> Value:
    ends = [edges.get("min", number(low)), edges.get("max", number(high))]
    kept = [None if e is None or abs(e) > 1e38 else e for e in ends]
    return arithmetic.clamp(g, x, kept[0], kept[1])


@row("LeakyRelu")
def leaky_relu(g: Tracer, x: Value, alpha: float = 0.01) -> Value:
    return arithmetic.leaky(g, x, alpha)


@row("PRelu")
def prelu(g: Tracer, x: Value, slope: Given) -> Value:
    return arithmetic.leaky(g, x, arithmetic.tensor_of(weight_of(slope)))


@row("Elu")
def elu(g: Tracer, x: Value, alpha: float = 1.0) -> Value:
    if alpha == 1:
        return arithmetic.function(g, "elu", x)
    below = arithmetic.function(g, "elu", arithmetic.clamp(g, x, None, 0))
    return add(g, arithmetic.function(g, "relu", x), arithmetic.times(g, below, alpha))


@row("Selu")
def selu(
    g: Tracer, x: Value, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875
) -> Value:
    return arithmetic.times(g, elu(g, x, alpha), gamma)


@row("HardSigmoid")
def hard_sigmoid(g: Tracer, x: Value, alpha: float = 0.2, beta: float = 0.5) -> Value:
    y = arithmetic.plus(g, arithmetic.times(g, x, 6 * alpha), 6 * beta)
    return arithmetic.times(g, arithmetic.function(g, "relu6", y), 1 / 6)


@row("HardSwish")
def hard_swish(g: Tracer, x: Value) -> Value:
    return arithmetic.times(g, x, hard_sigmoid(g, x, 1 / 6, 0.5))


@row("Mish")
def mish(g: Tracer, x: Value) -> Value:
    return arithmetic.times(g, x, arithmetic.function(g, "tanh", arithmetic.function(g, "softplus", x)))


@row("Gelu")
def gelu(g: Tracer, x: Value, approximate: str = "none") -> Value:
    return arithmetic.function(g, "gelu" if approximate == "none" else "gelu_tanh", x)


@row("Cast", "CastLike")
def cast(g: Tracer, x: Value, like: Given | None = None, to: int = 1) -> Value:
    if to not in (1, 10, 11, 16):  # float, float16, double, bfloat16
        raise Refused("a cast to whole numbers")
    return x


@row("Dropout")
def dropout(g: Tracer, x: Value, ratio: Given | None = None, training: Given | None = None) -> tuple[Value, None]:
    if number(training):
        raise Refused("a dropout that is active; export in evaluation")
    return x, None


@row("Where")
def where(g: Tracer, mask: Given, x: Given, y: Given) -> Value:
    if not isinstance(mask, Tensor):
        raise Refused("a mask that depends on the input")
    keep, zero = mask.to(torch.float64), torch.zeros((), dtype=torch.float64)
    if isinstance(x, Value) and isinstance(y, Value):
        return add(g, affine(g, x, keep), affine(g, y, 1 - keep))
    if isinstance(x, Value):
        return affine(g, x, keep, torch.where(mask.bool(), zero, arithmetic.tensor_of(y)))  # type: ignore[arg-type]
    return affine(g, y, 1 - keep, torch.where(mask.bool(), arithmetic.tensor_of(x), zero))  # type: ignore[arg-type]
