"""Convolutions, pools, norms and attention on traced values; shared by the front ends."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from neuro.convert import arithmetic, axes, ops
from neuro.convert.ops_shape import ConvTranspose, Pad
from neuro.convert.trace import Refused, Tracer, Value, affine, reshape, same_rank


def layer_norm(
    g: Tracer, v: Value, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> Value:
    if v.batch >= len(v.shape) - len(shape):
        raise Refused("it works along the batch axis")
    kept = [None if t is None else t.detach().clone() for t in (weight, bias)]
    return g.put(ops.LayerNorm(tuple(int(n) for n in shape), kept[0], kept[1], float(eps)), v)


def group_norm(g: Tracer, v: Value, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float) -> Value:
    need_plain(v)
    shape = v.shape
    grouped = reshape(g, v, (shape[0], groups, math.prod(shape[1:]) // groups))
    normed = reshape(g, layer_norm(g, grouped, grouped.shape[2:], None, None, eps), shape)
    if weight is None and bias is None:
        return normed
    scale = torch.ones(shape[1], dtype=torch.float64) if weight is None else weight
    return affine(g, normed, per_channel(scale, v), None if bias is None else per_channel(bias, v))


def batch_norm(g: Tracer, v: Value, scale: Tensor, shift: Tensor) -> Value:
    """scale and shift of each channel, axis 1."""
    return affine(g, v, per_channel(scale, v), per_channel(shift, v))


def per_channel(data: Tensor, v: Value) -> Tensor:
    return data.detach().reshape(-1, *(1,) * (len(v.shape) - 2))


def need_plain(v: Value, rank: int | None = None) -> None:
    """Raises:
    Refused: the batch is not the first axis alone, or the rank is another.
    """
    if not v.plain:
        raise Refused(f"the batch must be the first axis, alone, in {v.shape}")
    if rank is not None and len(v.shape) != rank:
        raise Refused(f"it takes {rank} axes with the batch, got {v.shape}")


def conv(
    g: Tracer,
    v: Value,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: tuple[Sequence[int], Sequence[int]],
    dilation: Sequence[int],
    groups: int,
) -> Value:
    """padding: before and after each axis of space."""
    dims = weight.ndim - 2
    need_plain(v, dims + 2)
    before, after = many(padding[0], dims), many(padding[1], dims)
    if before != after:
        v, before = g.put(Pad(before, after), v), (0,) * dims
    kept = None if bias is None else bias.detach().clone()
    where = many(stride, dims), before, many(dilation, dims), int(groups)
    return g.put(ops.Conv(weight.detach().clone(), kept, *where), v)


def conv_transpose(
    g: Tracer,
    v: Value,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Value:
    dims = weight.ndim - 2
    need_plain(v, dims + 2)
    kept = None if bias is None else bias.detach().clone()
    steps, pad, more, apart = (many(n, dims) for n in (stride, padding, output_padding, dilation))
    return g.put(ConvTranspose(weight.detach().clone(), kept, steps, pad, more, apart, int(groups)), v)


def many(numbers: Sequence[int] | int, dims: int) -> tuple[int, ...]:
    listed = [numbers] if isinstance(numbers, int) else list(numbers)
    return tuple(int(n) for n in (listed * dims if len(listed) == 1 else listed))


def pool(
    g: Tracer,
    v: Value,
    kernel_size: Sequence[int],
    stride: Sequence[int] | None,
    padding: Sequence[int],
    *,
    largest: bool,
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Value:
    """Windows over the axes of space."""
    dims = len(v.shape) - 2
    need_plain(v)
    kernel, pad = many(kernel_size, dims), many(padding, dims)
    steps = many(stride, dims) if stride else kernel
    if set(many(dilation, dims)) != {1}:
        raise Refused("dilated windows")
    sizes = [n + 2 * p - k for n, p, k in zip(v.shape[2:], pad, kernel, strict=True)]
    if ceil_mode and any(size % step for size, step in zip(sizes, steps, strict=True)):
        raise Refused("ceil_mode=True with windows that stand out")
    if largest:
        return g.put(ops.MaxPool(kernel, steps, pad), v)
    if any(pad) and not count_include_pad:
        raise Refused("count_include_pad=False with padding")
    return g.put(ops.AvgPool(kernel, steps, pad), v)


def adaptive_pool(g: Tracer, v: Value, wanted: Sequence[int], *, largest: bool) -> Value:
    """Windows that share an axis of m out to n entries: entry k covers floor(k m / n) to ceil((k+1) m / n)."""
    need_plain(v)
    space = v.shape[2:]
    out = [space[k] if n is None else int(n) for k, n in enumerate(_maybe(wanted, len(space)))]
    if all(m % n == 0 for m, n in zip(space, out, strict=True)):
        kernel = [m // n for m, n in zip(space, out, strict=True)]
        return v if set(kernel) == {1} else pool(g, v, kernel, None, (0,), largest=largest)
    if largest:
        raise Refused(f"windows of {space} into {tuple(out)} that are not all of one size")
    weight = torch.ones(1, 1, dtype=torch.float64)
    for m, n in zip(space, out, strict=True):
        one = torch.zeros(n, m, dtype=torch.float64)
        for k in range(n):
            begin, end = k * m // n, -((-(k + 1) * m) // n)
            one[k, begin:end] = 1 / (end - begin)
        weight = torch.kron(weight, one)
    flat = arithmetic.linear(g, reshape(g, v, (*v.shape[:2], math.prod(space))), weight)
    return reshape(g, flat, (*v.shape[:2], *out))


def _maybe(wanted: Sequence[int | None] | int, dims: int) -> Sequence[int | None]:
    return [wanted] * dims if isinstance(wanted, int) else wanted


def pad_zeros(g: Tracer, v: Value, before: Sequence[int], after: Sequence[int]) -> Value:
    """Zeros around the last seen axes; negative numbers cut."""
    count = len(before)
    first = len(v.shape) - count
    while count and before[0] == after[0] == 0:
        before, after, count, first = before[1:], after[1:], count - 1, first + 1
    if not count:
        return v
    for k in range(count):
        if before[k] < 0 or after[k] < 0:
            size = v.shape[first + k]
            v = axes.slice_of(g, v, first + k, max(0, -before[k]), size - max(0, -after[k]))
    if v.batch >= first:
        raise Refused("it works along the batch axis")
    low, high = (tuple(max(0, int(n)) for n in side) for side in (before, after))
    return g.put(Pad(low, high), v)


def attention(g: Tracer, q: Value, k: Value, v: Value, mask: Tensor | None, causal: bool, scale: float | None) -> Value:
    """softmax(q k^T scale + mask) v."""
    beta = 1 / math.sqrt(q.shape[-1]) if scale is None else float(scale)
    q, k, v = same_rank(g, [q, k, v])
    if q.batch >= len(q.shape) - 2:
        raise Refused("it works along the batch axis")
    if q.shape[1:-2] != k.shape[1:-2]:
        raise Refused(f"heads of {q.shape} and {k.shape} that differ")
    scores = g.put(ops.MatMul(transposed=True), q, k)
    if causal:
        mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril()
    if mask is None:
        return g.put(ops.MatMul(), g.put(ops.Softmax(-1, beta), scores), v)
    if mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask, -math.inf)
    scores = affine(g, scores, arithmetic.tensor_of(beta).to(mask.dtype), mask)
    return g.put(ops.MatMul(), g.put(ops.Softmax(-1), scores), v)
