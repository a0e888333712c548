"""Rows of `neuro.convert.onnx_table`: layers and pools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from neuro.convert import arithmetic, axes, layers
from neuro.convert.arithmetic import Given
from neuro.convert.onnx_table import known, row, weight_of
from neuro.convert.ops_shape import Largest, Take
from neuro.convert.trace import Refused, Tracer, Value


# layers
@row("MatMul")
def matmul(g: Tracer, a: Given, b: Given) -> Value:
    return arithmetic.matmul(g, a, b)


@row("Gemm")
def gemm(
    g: Tracer,
    a: Given,
    b: Given,
    c: Given | None = None,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # ONNX's names
    transB: int = 0,
) -> Value:
    if transA:
        raise Refused("transA=1")
    weight = weight_of(b)
    weight = weight if transB else weight.T
    bias = None if c is None else weight_of(c)
    if not isinstance(a, Value):
        raise Refused("a product with the input from the right")
    if bias is not None and bias.numel() == weight.shape[0] and bias.shape[-1:] == weight.shape[:1]:
        return arithmetic.linear(g, a, alpha * weight, beta * bias.reshape(-1))
    y = arithmetic.linear(g, a, alpha * weight)
    return y if bias is None else arithmetic.plus(g, y, beta * bias)


@row("Conv")
def conv(
    g: Tracer,
    x: Value,
    w: Given,
    b: Given | None = None,
    strides: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] = (),
    auto_pad: str = "NOTSET",
) -> Value:
    weight = weight_of(w)
    dims = weight.ndim - 2
    steps, apart = strides or [1] * dims, dilations or [1] * dims
    reach = [d * (k - 1) + 1 for d, k in zip(apart, weight.shape[2:], strict=True)]
    around = _padding(x, reach, steps, pads, auto_pad)
    return layers.conv(g, x, weight, None if b is None else weight_of(b), steps, around, apart, group)


def _padding(
    x: Value, reach: Sequence[int], steps: Sequence[int], pads: Sequence[int] | None, auto_pad: str
) -> tuple[list[int], list[int]]:
    """Before and after each axis of space."""
    dims = len(reach)
    if auto_pad == "VALID":
        return [0] * dims, [0] * dims
    if auto_pad in ("NOTSET", ""):
        listed = list(pads or [0] * 2 * dims)
        return listed[:dims], listed[dims:]
    layers.need_plain(x, dims + 2)
    whole = [max(0, (-(-n // s) - 1) * s + r - n) for n, s, r in zip(x.shape[2:], steps, reach, strict=True)]
    less, more = [n // 2 for n in whole], [n - n // 2 for n in whole]
    return (less, more) if auto_pad == "SAME_UPPER" else (more, less)


@row("ConvTranspose")
def conv_transpose(
    g: Tracer,
    x: Value,
    w: Given,
    b: Given | None = None,
    strides: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] = (),
    auto_pad: str = "NOTSET",
) -> Value:
    weight = weight_of(w)
    dims = weight.ndim - 2
    before, after = _padding(x, [1] * dims, [1] * dims, pads, auto_pad)
    if before != after or auto_pad not in ("NOTSET", "VALID"):
        raise Refused("padding that differs before and after")
    ones, bias = [1] * dims, None if b is None else weight_of(b)
    more = output_padding or [0] * dims
    return layers.conv_transpose(g, x, weight, bias, strides or ones, before, more, dilations or ones, group)


@row("BatchNormalization")
def batch_norm(
    g: Tracer,
    x: Value,
    scale: Given,
    bias: Given,
    mean: Given,
    var: Given,
    epsilon: float = 1e-5,
    training_mode: int = 0,
) -> tuple[Value, None, None]:
    if training_mode:
        raise Refused("a batch norm that measures its batch; export in evaluation")
    gain = arithmetic.tensor_of(weight_of(scale)) / torch.sqrt(arithmetic.tensor_of(weight_of(var)).double() + epsilon)
    shift = arithmetic.tensor_of(weight_of(bias)) - arithmetic.tensor_of(weight_of(mean)) * gain
    return layers.batch_norm(g, x, gain, shift), None, None


@row("LayerNormalization")
def layer_norm(
    g: Tracer, x: Value, scale: Given, bias: Given | None = None, axis: int = -1, epsilon: float = 1e-5
) -> tuple[Value, None, None]:
    shape = x.shape[x.axis(axis) :]
    weight, shift = known(scale), known(bias)
    weight = None if weight is None else weight.expand(shape)
    return layers.layer_norm(g, x, shape, weight, None if shift is None else shift.expand(shape), epsilon), None, None


@row("GroupNormalization")
def group_norm(g: Tracer, x: Value, scale: Given, bias: Given, num_groups: int = 1, epsilon: float = 1e-5) -> Value:
    weight, shift = weight_of(scale), weight_of(bias)
    if weight.numel() != x.shape[1]:
        raise Refused("one scale per group (opset 18); opset 21 has one per channel")
    return layers.group_norm(g, x, num_groups, weight, shift, epsilon)


@row("InstanceNormalization")
def instance_norm(g: Tracer, x: Value, scale: Given, bias: Given, epsilon: float = 1e-5) -> Value:
    return layers.group_norm(g, x, x.shape[1], weight_of(scale), weight_of(bias), epsilon)


# pools
def _pool(
    g: Tracer,
    x: Value,
    kernel_shape: Sequence[int],
    strides: Sequence[int] | None,
    pads: Sequence[int] | None,
    auto_pad: str,
    ceil_mode: int,
    largest: bool,
    dilations: Sequence[int] | None = None,
    count_include_pad: bool = True,
) -> Value:
    steps = strides or [1] * len(kernel_shape)
    before, after = _padding(x, kernel_shape, steps, pads, auto_pad)
    if before != after:
        raise Refused("padding that differs before and after")
    return layers.pool(
        g, x, kernel_shape, steps, before, largest=largest, dilation=dilations or (1,), ceil_mode=bool(ceil_mode),
        count_include_pad=count_include_pad,
    )  # fmt: skip


@row("MaxPool")
def max_pool(
    g: Tracer,
    x: Value,
    kernel_shape: Sequence[int] = (),
    strides: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
) -> tuple[Value, None]:
    return _pool(g, x, kernel_shape, strides, pads, auto_pad, ceil_mode, True, dilations), None


@row("AveragePool")
def average_pool(
    g: Tracer,
    x: Value,
    kernel_shape: Sequence[int] = (),
    strides: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
) -> Value:
    return _pool(
        g, x, kernel_shape, strides, pads, auto_pad, ceil_mode, False, dilations, bool(count_include_pad)
    )  # fmt: skip


@row("GlobalAveragePool")
def global_average_pool(g: Tracer, x: Value) -> Value:
    return axes.mean(g, x, list(range(2, len(x.shape))), True)


@row("GlobalMaxPool")
def global_max_pool(g: Tracer, x: Value) -> Value:
    return g.put(Largest(tuple(x.stored_axis(a) for a in range(2, len(x.shape))), True), x)


@row("Resize", "Upsample")
def resize(
    g: Tracer,
    x: Value,
    *more: Given | None,
    mode: str = "nearest",
    coordinate_transformation_mode: str = "half_pixel",
    nearest_mode: str = "round_prefer_floor",
    **other: Any,
) -> Value:
    """Nearest neighbours by whole factors, which every way of counting pixels agrees on up to the rounding mode."""
    if mode != "nearest":
        raise Refused(f"mode={mode!r}; only 'nearest'")
    scales, sizes = (more[-1], None) if len(more) < 3 else (more[1], more[2])
    if isinstance(sizes, Tensor) and sizes.numel():
        out = [int(n) for n in sizes]
    elif isinstance(scales, Tensor) and scales.numel():
        out = [round(n * float(s)) for n, s in zip(x.shape, scales, strict=True)]
    else:
        raise Refused("neither scales nor sizes")
    if max(out) > axes.ENTRIES:
        raise Refused(f"{max(out)} entries, {axes.ENTRIES} are allowed")
    if out[0] != x.shape[0] or any(n % m for n, m in zip(out, x.shape, strict=True)):
        raise Refused(f"{x.shape} to {tuple(out)}; whole factors only, not of the batch")
    agreed = coordinate_transformation_mode == "asymmetric" and nearest_mode == "floor"
    if not (agreed or coordinate_transformation_mode in ("half_pixel", "pytorch_half_pixel")):
        raise Refused(f"{coordinate_transformation_mode!r} with {nearest_mode!r}")
    for axis, (m, n) in enumerate(zip(x.shape, out, strict=True)):
        if n != m:
            x = g.put(Take(x.stored_axis(axis), tuple(k * m // n for k in range(n))), x)
    return x
