"""Is a graph's arithmetic exact in float64? Then the order of additions does not matter, and integers agree.

Every wire has a **grid**: all its values, and all partial sums on the way to them, are multiples of 2^unit, and none
exceeds ``most`` 2^unit in size. Where most < 2^53 on every wire, nothing is ever rounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from neuro.convert.graph import Graph
from neuro.convert.ops import (
    Add,
    Affine,
    AvgPool,
    Concat,
    Constant,
    Conv,
    Input,
    Linear,
    MatMul,
    MaxPool,
    Mean,
    Op,
    Permute,
    Product,
    Quantise,
    Reshape,
    Slice,
)

EXACT = 2.0**53  # whole numbers that float64 holds
SIGNIFICANT = 8  # bits of steps and scales


def short(x: Tensor, bits: int = SIGNIFICANT) -> Tensor:
    """Positive numbers, rounded to so many significant bits."""
    unit = torch.exp2(torch.floor(torch.log2(x)) - (bits - 1))
    return torch.round(x / unit) * unit


@dataclass(frozen=True)
class Grid:
    """Values are multiples of 2^unit, their size at most ``most`` (not in units)."""

    unit: int
    most: float


def on_grid(graph: Graph, *x: Tensor) -> bool:
    """Whether an implementation that adds message by message equals the engine's estimates bit for bit (code "sum").

    Args:
        x: one tensor per input, whose grid counts; needed where an input reaches weights without a `Quantise`.
    """
    return not off_grid(graph, *x)


def off_grid(graph: Graph, *x: Tensor) -> list[str]:
    """Why not: one line per operation whose result may be rounded. Operations behind it are checked as if it were
    exact only where neurons come in between, which are on a grid again whatever they take."""
    bad: list[str] = []
    found: dict[str, Grid | None] = {}
    given = graph.fed(*x) if x else {}
    sizes = _sizes(graph)
    for name in graph.order:
        operation = graph.ops[name]
        if isinstance(operation, Input):
            found[name] = of_values(given[name]) if name in given else None
            continue
        taken = [found[source] for source in graph.takes[name]]
        if isinstance(operation, Quantise):
            step = of_values(operation.step)
            found[name] = Grid(step.unit, step.most * max(operation.high, -operation.low))
            if found[name].most >= EXACT * 2.0**step.unit:  # type: ignore[union-attr]
                bad.append(f"'{name}': steps have too many bits")
            continue
        rule = RULES.get(type(operation))
        if any(grid is None for grid in taken):
            if rule is None or not isinstance(operation, MaxPool | Reshape | Permute | Slice | Concat):
                bad.append(f"'{name}' takes values that are on no grid: give the inputs, or quantise them")
            found[name] = None
        elif rule is None:
            bad.append(f"'{name}' ({type(operation).__name__}) is computed in floating point")
            found[name] = None
        else:
            count = sizes[graph.takes[name][0]] / max(sizes[name], 1) if isinstance(operation, Mean) else 0.0
            if isinstance(operation, MatMul):
                count = sizes[f"{name}.length"]
            grids = [each for each in taken if each is not None]
            grid = rule(operation, *grids, count) if count else rule(operation, *grids)
            found[name] = grid
            if grid is None:
                bad.append(f"'{name}' divides by a number that is no power of two")
            elif grid.most >= EXACT * 2.0**grid.unit:
                bits = math.ceil(math.log2(grid.most) - grid.unit)
                bad.append(f"'{name}' needs {bits} bits, float64 has 53: round weights and steps (weight_bits)")
    return bad


def of_values(values: Tensor) -> Grid:
    """The coarsest grid that holds these values."""
    flat = values.detach().to(torch.float64).reshape(-1)
    flat = flat[flat != 0].abs()
    if not len(flat):
        return Grid(0, 0.0)
    mantissa, exponent = torch.frexp(flat)
    whole = (mantissa * EXACT).to(torch.int64)  # exact: 53 bits
    zeros = torch.log2((whole & -whole).to(torch.float64)).to(torch.int64)
    return Grid(int((exponent.to(torch.int64) - 53 + zeros).min()), float(flat.max()))


def _weighted(operation: Op, grid: Grid) -> Grid:
    assert isinstance(operation, Linear | Conv)
    weight = of_values(operation.weight)
    sums = operation.weight.detach().to(torch.float64).abs().flatten(1).sum(1)
    most, unit = float(sums.max()) * grid.most, weight.unit + grid.unit
    if operation.bias is None:
        return Grid(unit, most)
    bias = of_values(operation.bias)
    return Grid(min(unit, bias.unit), most + bias.most)


def _affine(operation: Op, grid: Grid) -> Grid:
    assert isinstance(operation, Affine)
    scale = of_values(operation.scale)
    shift = Grid(scale.unit + grid.unit, 0.0) if operation.shift is None else of_values(operation.shift)
    return Grid(min(scale.unit + grid.unit, shift.unit), scale.most * grid.most + shift.most)


def _add(operation: Op, *grids: Grid) -> Grid:
    return Grid(min(g.unit for g in grids), sum(g.most for g in grids))


def _joined(operation: Op, *grids: Grid) -> Grid:
    return Grid(min(g.unit for g in grids), max(g.most for g in grids))


def _pooled(operation: Op, grid: Grid) -> Grid | None:
    assert isinstance(operation, AvgPool)
    power = math.log2(math.prod(operation.kernel_size))
    return Grid(grid.unit - int(power), grid.most * 2**power) if power.is_integer() else None


def _product(operation: Op, a: Grid, b: Grid) -> Grid:
    return Grid(a.unit + b.unit, a.most * b.most)


def _constant(operation: Op) -> Grid:
    assert isinstance(operation, Constant)
    return of_values(operation.data)


def _mean(operation: Op, grid: Grid, count: float) -> Grid | None:
    power = math.log2(count)
    return Grid(grid.unit - int(power), grid.most * count) if power.is_integer() else None


def _matmul(operation: Op, a: Grid, b: Grid, length: float) -> Grid:
    return Grid(a.unit + b.unit, a.most * b.most * length)


def _sizes(graph: Graph) -> dict[str, float]:
    """Numbers per sample of each value, and how long the sums of products are."""
    tensors = [t for n in graph.order for t in vars(graph.ops[n]).values() if isinstance(t, Tensor)]
    dtype = next((t.dtype for t in tensors if t.is_floating_point()), torch.float64)
    with torch.no_grad():
        zeros = [torch.zeros(1, *getattr(graph.ops[n], "shape", ()), dtype=dtype) for n in graph.inputs]
        values = graph.values(*zeros)
    found = {name: float(value.numel()) for name, value in values.items()}
    for name in graph.order:
        if isinstance(graph.ops[name], MatMul):
            found[f"{name}.length"] = float(values[graph.takes[name][0]].shape[-1])
    return found


RULES: dict[type[Op], Callable[..., Grid | None]] = {
    Constant: _constant,
    Linear: _weighted,
    Conv: _weighted,
    Affine: _affine,
    Add: _add,
    Concat: _joined,
    AvgPool: _pooled,
    Mean: _mean,
    Reshape: _joined,
    Permute: _joined,
    Slice: _joined,
    MaxPool: _joined,
    Product: _product,
    MatMul: _matmul,
}
