"""Rows of `neuro.convert.aten_table`: means, sums, norms and softmax along axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from neuro.convert import arithmetic, axes, ops
from neuro.convert.aten_table import ATEN, row
from neuro.convert.ops_shape import Largest, LogSoftmax
from neuro.convert.trace import Refused, Tracer, Value


@row("softmax", "_safe_softmax")
def softmax(g: Tracer, x: Value, dim: int, dtype: Any = None) -> Value:
    return g.put(ops.Softmax(_stored_from_end(x, dim)), x)


@row("log_softmax")
def log_softmax(g: Tracer, x: Value, dim: int, dtype: Any = None) -> Value:
    return g.put(LogSoftmax(_stored_from_end(x, dim)), x)


ATEN["_softmax"] = lambda g, x, dim, half_to_float: softmax(g, x, dim)
ATEN["_log_softmax"] = lambda g, x, dim, half_to_float: log_softmax(g, x, dim)


def _stored_from_end(x: Value, dim: int) -> int:
    stored = x.stored_axis(dim)
    return -1 if stored == len(x.rest) else stored


@row("mean")
def mean(g: Tracer, x: Value, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
    return axes.mean(g, x, dim, keepdim)


@row("sum")
def total(g: Tracer, x: Value, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
    return axes.total(g, x, dim, keepdim)


@row("var")
def var(
    g: Tracer, x: Value, dim: Any = None, unbiased: bool = True, keepdim: bool = False, correction: float | None = None
) -> Value:
    lost = (1.0 if unbiased else 0.0) if correction is None else float(correction)
    count = math.prod(x.shape[a] for a in axes.axes_of(x, dim))
    apart = arithmetic.plus(g, x, axes.mean(g, x, dim, True), -1)
    spread = axes.mean(g, arithmetic.function(g, "square", apart), dim, keepdim)
    return arithmetic.times(g, spread, count / (count - lost)) if lost else spread


@row("std")
def std(
    g: Tracer, x: Value, dim: Any = None, unbiased: bool = True, keepdim: bool = False, correction: float | None = None
) -> Value:
    return arithmetic.function(g, "sqrt", var(g, x, dim, unbiased, keepdim, correction))


@row("rms_norm")
def rms_norm(
    g: Tracer, x: Value, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Value:
    last = list(range(-len(normalized_shape), 0))
    if eps is None:
        raise Refused("rms_norm without eps, which then depends on the dtype")
    power = axes.mean(g, arithmetic.function(g, "square", x), last, True)
    y = arithmetic.times(g, x, arithmetic.power(g, arithmetic.plus(g, power, eps), -0.5))
    return y if weight is None else arithmetic.times(g, y, weight)


@row("amax", "max")
def largest(g: Tracer, x: Value, dim: Any = None, keepdim: bool = False) -> Any:
    seen = axes.axes_of(x, dim)
    lost = 0 if keepdim else sum(a < x.batch for a in seen)
    found = g.put(Largest(tuple(x.stored_axis(a) for a in seen), keepdim), x, batch=x.batch - lost)
    return (found, None) if isinstance(dim, int) else found
