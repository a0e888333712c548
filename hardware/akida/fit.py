"""What both Akidas do to a block: place its kernel in a window the chip has, put its weights on a grid, check rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from neuro.errors import Violation
from neuro.hardware.akida.geometry import Geometry, Pair, Sides
from neuro.hardware.akida.layers import Block
from neuro.hardware.chip import Chip, NumberFormat
from neuro.hardware.program import Projection
from neuro.hardware.quantise import grid_of, smallest_unit, to_format
from neuro.ir import Array

IntArray = np.ndarray[tuple[int, ...], np.dtype[np.int64]]


@dataclass(frozen=True)
class Windows:
    """What a kind of layer may have. title: as the user guide calls it. kernels: sides, strides: of each kernel.

    pools: (kernel, stride) pairs, all (h, w). valid: whether a convolution without padding is allowed beside "same".
    """

    title: str
    kernels: tuple[int, ...]
    strides: dict[int, tuple[int, ...]]
    pools: tuple[tuple[Pair, Pair], ...]
    valid: bool = False


def squares(*pairs: tuple[int, int]) -> tuple[tuple[Pair, Pair], ...]:
    """(kernel, stride) of square pools."""
    return tuple(((k, k), (s, s)) for k, s in pairs)


def same(size: int, kernel: int, stride: int) -> tuple[int, int, int]:
    """(outputs, padding before, padding behind) of a "same" convolution: ceil(size / stride) outputs, the odd pixel
    of padding behind."""
    out = -(-size // stride)
    total = max((out - 1) * stride + kernel - size, 0)
    return out, total // 2, total - total // 2


def placed(block: Block, windows: Windows) -> tuple[Array, Sides] | None:
    """(kernel, pads) with which the chip computes the block's convolution: the smallest window it has in which the
    kernel lies at its place, zeros around; None where there is none."""
    m = block.map
    high, wide = m.weight.shape[2:]
    sizes = m.in_shape[1:]
    stride = m.stride
    image = Geometry(1, (sizes[0], sizes[1]), 1, (high, wide), stride, _both(m.padding)).image
    if windows.valid and m.padding == (0, 0) and high == wide and high in windows.kernels:
        return m.weight, (0, 0, 0, 0)
    for side in windows.kernels:
        if stride[0] not in windows.strides[side]:
            continue
        found = [same(sizes[i], side, stride[i]) for i in (0, 1)]
        before = [found[i][1] - m.padding[i] for i in (0, 1)]
        fits = all(before[i] >= 0 and before[i] + m.weight.shape[2 + i] <= side for i in (0, 1))
        if fits and (found[0][0], found[1][0]) == image:
            kernel = np.zeros((*m.weight.shape[:2], side, side))
            kernel[:, :, before[0] : before[0] + high, before[1] : before[1] + wide] = m.weight
            return kernel, (found[0][1], found[1][1], found[0][2], found[1][2])
    return None


def _both(padding: Pair) -> Sides:
    return (padding[0], padding[1], padding[0], padding[1])


def window_problems(block: Block, windows: Windows) -> Iterator[Violation]:
    """Kernel, stride, padding and pool that the chip does not have."""
    m = block.map
    high, wide = m.weight.shape[2:]
    sides = ", ".join(f"{k} x {k}" for k in windows.kernels)
    if m.stride[0] != m.stride[1] or not any(m.stride[0] in s for s in windows.strides.values()):
        allowed = ", ".join(str(s) for s in sorted({s for row in windows.strides.values() for s in row}))
        yield Violation(
            block.node, f"stride of a layer {windows.title}", str(m.stride), allowed, "Use one of these for both axes"
        )
    elif placed(block, windows) is None:
        yield Violation(
            block.node,
            f"kernel of a layer {windows.title}, with padding (h, w)",
            f"{high} x {wide}, {m.padding}",
            f"{sides}, " + ("'same' or none" if windows.valid else "'same'"),
            "Use an odd kernel with padding = kernel // 2, as many outputs as inputs over stride",
        )
    if block.pool is not None:
        asked = (block.pool.kernel_size, block.pool.stride)
        if asked not in windows.pools or block.pool.padding != (0, 0):
            allowed = ", ".join(f"{k[0]} x {k[1]} every {s}" for k, s in windows.pools)
            yield Violation(
                block.name,
                f"max-pool behind a layer {windows.title}",
                f"{block.pool.kernel_size[0]} x {block.pool.kernel_size[1]} every {block.pool.stride}, "
                f"padding {block.pool.padding}",
                f"{allowed}, no padding",
                "Use one of these, or a stride in the convolution",
            )


def at_most(chip: Chip, limit: str, node: str, wanted: int, what: str, remedy: str) -> Iterable[Violation]:
    """A violation where a number is beyond a limit of the chip."""
    return [Violation(node, what, wanted, chip.limit(limit), remedy)] if wanted > chip.limit(limit) else []


def at_least(chip: Chip, limit: str, node: str, wanted: int, what: str, remedy: str) -> Iterable[Violation]:
    """A violation where a number is below a limit of the chip."""
    return [Violation(node, what, wanted, chip.limit(limit), remedy)] if wanted < chip.limit(limit) else []


def units(weight: Array, fmt: NumberFormat, each: bool) -> Array:
    """[channels] reals per weight integer: the grid that the weights lie on, else the finest that holds them.

    each: of every channel for itself. Where all weights are 0 any unit does: 1.
    """
    rows = list(weight) if each else [weight]
    found = np.array([grid_of(row, fmt) or smallest_unit(row, fmt) or 1.0 for row in rows])
    return np.broadcast_to(found, len(weight)).copy()


def on_grid(weight: Array, unit: Array, fmt: NumberFormat) -> IntArray:
    """Integers of weights [channels, ...] in multiples of a unit per channel."""
    flat = weight.reshape(len(weight), -1)
    rows = [to_format(row, float(u), fmt) for row, u in zip(flat, unit, strict=True)]
    return np.stack(rows).reshape(weight.shape)


def times(values: IntArray, unit: Array) -> Array:
    """What integers per channel stand for."""
    product: Array = values * unit.reshape(-1, *(1,) * (values.ndim - 1))
    return product


def bits_of(weight_q: IntArray, formats: Iterable[NumberFormat]) -> int:
    """Bits of the narrowest of the formats that holds the integers."""
    most = int(np.abs(weight_q).max(initial=0))
    return min((f.bits for f in formats if f.high >= most), default=max(f.bits for f in formats))


def projection(block: Block, weight_q: IntArray, pads: Sides, bits: int) -> Projection:
    """The block's weights in a `Program`."""
    name = f"{block.source}->{block.name}"
    if block.map.kind == "dense":
        return Projection(name, block.node, block.source, block.name, "dense", weight_q, {"bits": np.array(bits)})
    params = {
        "stride": np.array(block.map.stride),
        "pads": np.array(pads),
        "groups": np.array(block.map.groups),
        "bits": np.array(bits),
    }
    return Projection(name, block.node, block.source, block.name, "conv", weight_q, params)


def pool_params(block: Block) -> dict[str, IntArray]:
    """What a `Program` says of the block's max-pool and global sum."""
    params: dict[str, IntArray] = {"gap": np.array(1)} if block.area > 1 else {}
    if block.pool is not None:
        params |= {"pool_kernel": np.array(block.pool.kernel_size), "pool_stride": np.array(block.pool.stride)}
    return params


def shape_of(block: Block, pads: Sides) -> tuple[int, ...]:
    """Shape of what the layer sends."""
    m = block.map
    if m.kind == "dense":
        return m.out_shape if len(m.out_shape) == 3 else (len(m.weight),)
    if block.area > 1:
        return (len(m.weight), 1, 1)
    kernel = m.weight.shape[2:]
    size = Geometry(1, m.in_shape[1:], 1, kernel, m.stride, pads).image  # type: ignore[arg-type]
    if block.pool is not None:
        size = Geometry(1, size, 1, block.pool.kernel_size, block.pool.stride).image
    return (len(m.weight), *size)


def with_kernel(block: Block, kernel: Array) -> Block:
    """The block with its kernel in another window."""
    return replace(block, map=replace(block.map, weight=kernel))


def sum_bound(weight_q: IntArray, bias: IntArray, low: int, high: int, area: int) -> int:
    """The largest magnitude that a sum, or the global sum of it, can have."""
    flat = weight_q.reshape(len(weight_q), -1).astype(object)
    up, down = np.maximum(flat, 0).sum(1), np.minimum(flat, 0).sum(1)
    most = [abs(int(u) * high + int(d) * low) + abs(int(b)) for u, d, b in zip(up, down, bias, strict=True)]
    least = [abs(int(u) * low + int(d) * high) + abs(int(b)) for u, d, b in zip(up, down, bias, strict=True)]
    return max(*most, *least) * area
