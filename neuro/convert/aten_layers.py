"""Rows of `neuro.convert.aten_table`: layers and pools."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from neuro.convert import arithmetic, layers
from neuro.convert.arithmetic import Given
from neuro.convert.aten_table import REMEDIES, row
from neuro.convert.ops_shape import Take
from neuro.convert.trace import Refused, Tracer, Value, permute


@row("linear")
def linear(g: Tracer, x: Given, weight: Given, bias: Tensor | None = None) -> Value:
    if isinstance(weight, Value) or isinstance(bias, Value):
        raise Refused("weights that depend on the input")
    assert isinstance(x, Value)
    assert isinstance(weight, Tensor)
    return arithmetic.linear(g, x, weight, bias)


@row("addmm", "baddbmm")
def addmm(
    g: Tracer, x: Given, mat1: Given = 0.0, mat2: Given = 0.0, beta: float = 1, alpha: float = 1, **b: Any
) -> Value:
    one, two = (b["batch1"], b["batch2"]) if b else (mat1, mat2)
    if isinstance(one, Value) or isinstance(two, Value):
        product: Given = arithmetic.matmul(g, one, two)
    else:
        product = arithmetic.tensor_of(one) @ arithmetic.tensor_of(two)
    return arithmetic.plus(g, arithmetic.scaled(g, product, alpha), arithmetic.scaled(g, x, beta))


@row("matmul")
def matmul(g: Tracer, x: Given, other: Given) -> Value:
    return arithmetic.matmul(g, x, other)


@row("mm", "bmm")
def mm(g: Tracer, x: Given, mat2: Given) -> Value:
    return arithmetic.matmul(g, x, mat2)


@row("conv1d", "conv2d")
def conv(
    g: Tracer,
    x: Value,
    weight: Given,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Value:
    if not isinstance(weight, Tensor) or isinstance(bias, Value):
        raise Refused("weights that depend on the input")
    dims = weight.ndim - 2
    if isinstance(padding, str):
        reach = [d * (k - 1) for d, k in zip(layers.many(dilation, dims), weight.shape[2:], strict=True)]
        before = tuple(r // 2 if padding == "same" else 0 for r in reach)
        after = tuple(r - r // 2 if padding == "same" else 0 for r in reach)
    else:
        before = after = layers.many(padding, dims)
    return layers.conv(g, x, weight, bias, stride, (before, after), dilation, groups)


@row("conv_transpose1d", "conv_transpose2d")
def conv_transpose(
    g: Tracer,
    x: Value,
    weight: Given,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Value:
    if not isinstance(weight, Tensor):
        raise Refused("weights that depend on the input")
    return layers.conv_transpose(g, x, weight, bias, stride, padding, output_padding, dilation, groups)


@row("convolution")
def convolution(
    g: Tracer,
    x: Value,
    weight: Given,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> Value:
    if transposed:
        return conv_transpose(g, x, weight, bias, stride, padding, output_padding, groups, dilation)
    return conv(g, x, weight, bias, stride, padding, dilation, groups)


@row("batch_norm")
def batch_norm(
    g: Tracer,
    x: Value,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    momentum: float = 0.1,
    eps: float = 1e-5,
    training: bool = False,
    cudnn_enabled: bool = True,
) -> Value:
    if training or running_mean is None or running_var is None:
        raise Refused("a batch norm that measures its batch in evaluation; track_running_stats=True")
    mean, var = running_mean.double(), running_var.double()
    scale = 1 / torch.sqrt(var + eps) if weight is None else weight.double() / torch.sqrt(var + eps)
    shift = -mean * scale if bias is None else bias.double() - mean * scale
    return layers.batch_norm(g, x, scale, shift)


@row("_native_batch_norm_legit_no_training")
def batch_norm_and_moments(g: Tracer, **named: Any) -> tuple[Value, None, None]:
    return batch_norm(g, **named), None, None


@row("layer_norm")
def layer_norm(
    g: Tracer,
    x: Value,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Value:
    return layers.layer_norm(g, x, normalized_shape, weight, bias, eps)


@row("group_norm")
def group_norm(
    g: Tracer,
    x: Value,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Value:
    return layers.group_norm(g, x, num_groups, weight, bias, eps)


@row("scaled_dot_product_attention")
def attention(
    g: Tracer,
    query: Value,
    key: Value,
    value: Value,
    attn_mask: Given | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Value:
    if dropout_p:
        raise Refused(REMEDIES["dropout"])
    if not all(isinstance(v, Value) for v in (query, key, value)) or isinstance(attn_mask, Value):
        raise Refused("query, key and value must depend on the input, the mask must not; write it with matmul, softmax")
    return layers.attention(g, query, key, value, attn_mask, is_causal, scale)  # type: ignore[arg-type]


# pools
@row("max_pool1d", "max_pool2d")
def max_pool(
    g: Tracer,
    x: Value,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> Value:
    return layers.pool(g, x, kernel_size, stride, padding, largest=True, dilation=dilation, ceil_mode=ceil_mode)


@row("max_pool2d_with_indices", "max_pool1d_with_indices")
def max_pool_and_where(g: Tracer, **named: Any) -> tuple[Value, None]:
    return max_pool(g, **named), None


@row("avg_pool1d", "avg_pool2d")
def avg_pool(
    g: Tracer,
    x: Value,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Value:
    return layers.pool(
        g, x, kernel_size, stride, padding, largest=False, ceil_mode=ceil_mode, count_include_pad=count_include_pad
    )


@row("adaptive_avg_pool1d", "adaptive_avg_pool2d", "_adaptive_avg_pool2d")
def adaptive_avg_pool(g: Tracer, x: Value, output_size: Any) -> Value:
    return layers.adaptive_pool(g, x, output_size, largest=False)


@row("adaptive_max_pool1d", "adaptive_max_pool2d")
def adaptive_max_pool(g: Tracer, x: Value, output_size: Any) -> Any:
    return (layers.adaptive_pool(g, x, output_size, largest=True), None)


@row("upsample_nearest1d", "upsample_nearest2d")
def upsample_nearest(g: Tracer, x: Value, output_size: Any = None, **scales: Any) -> Value:
    layers.need_plain(x)
    factors = scales.get("scale_factors") or [v for k, v in sorted(scales.items()) if k.startswith("scales")]
    space = x.shape[2:]
    out = output_size or [math.floor(m * f) for m, f in zip(space, factors, strict=True)]
    for axis, (m, n) in enumerate(zip(space, out, strict=True), 2):
        x = g.put(Take(axis, tuple(k * m // n for k in range(n))), x)
    return x


@row("upsample_linear1d", "upsample_bilinear2d")
def upsample_linear(g: Tracer, x: Value, output_size: Any = None, align_corners: bool = False, **scales: Any) -> Value:
    """A matrix along each axis of space."""
    layers.need_plain(x)
    factors = scales.get("scale_factors") or [v for k, v in sorted(scales.items()) if k.startswith("scales")]
    last = len(x.shape) - 1
    for k, size in enumerate(x.shape[2:]):
        how: dict[str, Any] = {"size": output_size[k]} if output_size else {"scale_factor": factors[k]}
        eye = torch.eye(size, dtype=torch.float64)[None]
        matrix = torch.nn.functional.interpolate(eye, mode="linear", align_corners=align_corners, **how)[0].T
        swapped = [last if a == k + 2 else k + 2 if a == last else a for a in range(last + 1)]
        x = permute(g, arithmetic.linear(g, permute(g, x, swapped), matrix), swapped)
    return x
