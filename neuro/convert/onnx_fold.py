"""Constant parts of an ONNX graph (shape arithmetic, weights that are reshaped) computed by ONNX's own reference, after
the size of what would come out has been bounded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuro.convert.trace import MOST, Refused

# what broadcasts its inputs, and what gives no more numbers than it takes
# what broadcasts its inputs, and what gives no more numbers than it takes
ELEMENTWISE = (
    *("Add", "Sub", "Mul", "Div", "Mod", "Pow", "Min", "Max", "Equal", "Less", "LessOrEqual", "Greater"),
    *("GreaterOrEqual", "And", "Or", "Xor", "Where"),
)
SMALLER = (
    *("Identity", "Cast", "CastLike", "Neg", "Abs", "Sqrt", "Floor", "Ceil", "Round", "Reciprocal", "Exp", "Log"),
    *("Sin", "Cos", "Erf", "Not", "Sign", "Relu", "Sigmoid", "Tanh", "Clip", "Concat", "Gather", "Slice"),
    *("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Split", "ReduceProd", "ReduceSum", "ReduceMax"),
    *("ReduceMin", "ReduceMean", "Trilu", "Softmax", "CumSum", "Constant", "Shape", "Size", "ScatterND"),
)


def foldable(kind: str) -> bool:
    return kind in ELEMENTWISE or kind in SMALLER or kind in _BOUNDS


def fold(node: Any, values: Sequence[Tensor | None], version: int) -> list[Tensor]:
    """Outputs of one operation whose inputs are all known.

    Raises:
        Refused: an operation that is not computed here, one that fails, or an output that would be too large.
    """
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    if not foldable(node.op_type):
        raise Refused("not computed on constants")
    known = [None if v is None else v.numpy() for v in values]
    size = _size(node, known)
    if size > MOST:
        raise Refused(f"a constant of {size} numbers, {MOST} are allowed")
    names = [n for n in node.input if n]
    fed = dict(zip(node.input, known, strict=True))
    kinds = {n: helper.np_dtype_to_tensor_dtype(fed[n].dtype) for n in names}
    inputs = [helper.make_tensor_value_info(n, kind, None) for n, kind in kinds.items()]
    outputs = [helper.make_empty_tensor_value_info(n) for n in node.output if n]
    graph = helper.make_graph([node], "fold", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)])
    try:
        found = ReferenceEvaluator(model).run(None, {n: fed[n] for n in names})
    except Exception as cause:  # whatever a wrong attribute raises there
        raise Refused(f"it cannot be computed: {cause}") from cause
    return [torch.from_numpy(np.array(each)) for each in found]


def _size(node: Any, values: Sequence[Any]) -> int:
    if node.op_type in ELEMENTWISE:
        shapes = [v.shape for v in values if v is not None]
        return math.prod(max(sizes) for sizes in _columns(shapes))
    if node.op_type in _BOUNDS:
        return _BOUNDS[node.op_type](values)
    if node.op_type == "Gather":
        return int(values[0].size // max(1, min(values[0].shape or (1,))) * max(1, values[1].size))
    return sum(int(v.size) for v in values if v is not None)


def _columns(shapes: Sequence[Sequence[int]]) -> list[list[int]]:
    rank = max((len(s) for s in shapes), default=0)
    return [[((1,) * (rank - len(s)) + tuple(s))[k] for s in shapes] for k in range(rank)]


def _product(values: Sequence[Any]) -> int:
    return math.prod(max(1, int(n)) for n in values[0].ravel())


def _expanded(values: Sequence[Any]) -> int:
    return math.prod(max(1, int(n)) for n in values[1].ravel()) * max(1, int(values[0].size))


def _tiled(values: Sequence[Any]) -> int:
    return int(values[0].size) * math.prod(max(1, int(n)) for n in values[1].ravel())


def _range(values: Sequence[Any]) -> int:
    start, limit, step = (float(v.ravel()[0]) for v in values)
    return int(abs(limit - start) / abs(step)) + 1 if step else MOST + 1


def _multiplied(values: Sequence[Any]) -> int:
    return int(max(v.size for v in values[:2])) * max(values[1].shape[-1:] or (1,))


def _padded(values: Sequence[Any]) -> int:
    rank = values[0].ndim
    pads = [int(n) for n in values[1].ravel()]
    return math.prod(max(0, n + pads[k] + pads[k + rank]) for k, n in enumerate(values[0].shape))


_BOUNDS = {
    "ConstantOfShape": _product,
    "Expand": _expanded,
    "Tile": _tiled,
    "Range": _range,
    "MatMul": _multiplied,
    "Gemm": _multiplied,
    "Pad": _padded,
}
