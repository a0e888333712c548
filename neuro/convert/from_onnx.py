"""`from_onnx`: an ONNX file, whoever wrote it, as a graph.

    graph = from_onnx("net.onnx")

Rows of `neuro.convert.onnx_table` say what each operation is in terms of ours; what does not depend on the input (shape
arithmetic, reshaped weights) is computed. Files are not trusted, see `neuro.convert.onnx_file`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuro.convert import onnx_arithmetic, onnx_axes, onnx_layers  # noqa: F401  # register their rows
from neuro.convert.fuse import fused
from neuro.convert.graph import Graph
from neuro.convert.onnx_file import opset, read, tensor, weights
from neuro.convert.onnx_fold import fold
from neuro.convert.onnx_table import HARMLESS, ONNX, supported
from neuro.convert.trace import Refused, Tracer, Value
from neuro.errors import ConversionError, FormatError, NeuroError, UnsupportedLayer

ELSE = "neuro.convert.from_onnx.supported() lists what is taken"
# what attributes of the wrong kind, sizes that do not fit and text that is none raise where they are used
DAMAGE = (TypeError, ValueError, RuntimeError, KeyError, IndexError, AttributeError, OverflowError, ArithmeticError)
BATCH = 3  # while tracing, where the file leaves it open


class Unknown:
    """What an operation that was refused would have given."""


def from_onnx(
    path: str | Path, *, shapes: Mapping[str, Sequence[int]] | None = None, output: int | str | None = None
) -> Graph:
    """The graph of an ONNX file.

    Args:
        path: the file; weights beside it ("external data") are read from its own folder.
        shapes: input -> shape without the batch, where the file leaves sizes open. The first axis is the batch.
        output: which answer, where the file has several: a position or a name.

    Raises:
        UnsupportedLayer: operations that have no place in a graph: all of them, by node.
        FormatError: not ONNX, damaged, too large, or with weights outside of its folder.
        ConversionError: sizes that are open, several answers, inputs that are not real numbers.
        MissingExtra: pip install 'axonport[convert]'.
    """
    path = Path(path)
    try:
        return _graph(path, shapes, output)
    except NeuroError as problem:
        if str(path) in str(problem):
            raise
        raise type(problem)(f"{path}: {problem.title}", problem.violations) from problem
    except DAMAGE as cause:
        raise FormatError(f"{path} is damaged, or says what no graph holds: {type(cause).__name__}: {cause}") from cause


def _graph(path: Path, shapes: Mapping[str, Sequence[int]] | None, output: int | str | None) -> Graph:
    model = read(path)
    known: dict[str, Any] = {"": None, **weights(model, path.resolve().parent)}
    opened = [each for each in model.graph.input if each.name not in known]
    wanted = _shapes(opened, shapes or {})
    size = next(iter(wanted.values()))[0]
    if any(shape[0] != size for shape in wanted.values()):
        raise ConversionError(f"inputs have different batches: {dict(wanted)}")
    g = Tracer(size)
    bad: list[str] = []
    for name, shape in wanted.items():
        try:
            known[name] = g.input(name, shape)
        except Refused as cause:
            raise ConversionError(f"the input '{name}' is refused: {cause}") from cause
    for place, node in enumerate(model.graph.node):
        g.hint = _name(node, place)
        try:
            found = _call(g, node, known, opset(model), path.resolve().parent)
        except Refused as cause:
            bad.append(f"'{g.hint}' ({node.op_type}): {cause}")
            found = [Unknown()] * len(node.output)
        known.update(zip(node.output, found, strict=False))
        known[""] = None
    if bad:
        raise UnsupportedLayer("operations that have no place in a graph", dict.fromkeys(bad))
    answer = known.get(_chosen([each.name for each in model.graph.output], output))
    if not isinstance(answer, Value):
        raise ConversionError("the answer does not depend on the input")
    if not answer.plain:
        raise ConversionError(f"the answer {answer.shape} must have the batch as its first axis, alone")
    return fused(g.graph(answer, {"from": "onnx", "producer": model.producer_name}).to(_dtype(opened[0])))


def _shapes(opened: Sequence[Any], given: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """Shapes of the inputs, batch first.

    Raises:
        ConversionError: sizes that are open and not given, types that are not real; all of them.
    """
    found, bad = (
        {},
        [f"there is no input '{n}' to give a shape for" for n in given if n not in {v.name for v in opened}],
    )
    for value in opened:
        kind = value.type.tensor_type
        sizes = [d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim]
        if kind.elem_type not in (1, 10, 11, 16):
            bad.append(f"the input '{value.name}' does not hold real numbers; give the network the embedded values")
            continue
        if not kind.HasField("shape") or not sizes:
            if value.name not in given:
                bad.append(f"the input '{value.name}' has no shape; say it with shapes=")
                continue
            sizes = [None, *given[value.name]]
        elif value.name in given:
            sizes = [sizes[0], *given[value.name]]
        if any(n is None or n < 1 for n in sizes[1:]):
            bad.append(f"the input '{value.name}' leaves sizes open: {sizes}; say them with shapes=")
            continue
        found[value.name] = (sizes[0] or BATCH, *(int(n) for n in sizes[1:] if n is not None))
    if not opened:
        bad.append("the file has no input")
    if bad:
        raise ConversionError("inputs cannot be used", bad)
    return found


def _dtype(value: Any) -> torch.dtype:
    return torch.float64 if value.type.tensor_type.elem_type == 11 else torch.float32


def _name(node: Any, place: int) -> str:
    return str(node.name).strip("/").replace("/", ".") or f"{node.op_type.lower()}_{place}"


def _chosen(outputs: Sequence[str], output: int | str | None) -> str:
    if output is None and len(outputs) == 1:
        return outputs[0]
    if isinstance(output, int) and 0 <= output < len(outputs):
        return outputs[output]
    if output in outputs:
        return str(output)
    said = f"{len(outputs)} answers" if output is None else f"no answer {output!r}"
    raise ConversionError(f"the file has {said}; choose with output=: one of {list(outputs)}")


def _call(g: Tracer, node: Any, known: Mapping[str, Any], version: int, folder: Path) -> Sequence[Any]:
    if node.domain not in ("", "ai.onnx"):
        raise Refused(f"of the domain {node.domain!r}, which is not ONNX's own")
    missing = [n for n in node.input if n not in known]
    if missing:
        raise Refused(f"it takes {missing}, which nothing gives")
    taken = [known[n] for n in node.input]
    if node.op_type == "Constant":
        return [_constant(node, folder)]
    if any(isinstance(v, Unknown) for v in taken):
        if node.op_type not in ONNX and node.op_type not in ("Shape", "Size"):
            raise Refused(ELSE)
        return [Unknown()] * len(node.output)
    if not any(isinstance(v, Value) for v in taken):
        return fold(node, taken, version)
    if node.op_type in ("Shape", "Size"):
        return [_shape(node, taken[0])]
    if node.op_type not in ONNX:
        raise Refused(ELSE)
    found = ONNX[node.op_type](g, *taken, **_attributes(node, ONNX[node.op_type], version))
    return found if isinstance(found, (tuple, list)) else [found]


def _shape(node: Any, value: Value) -> Tensor:
    attributes = {a.name: a.i for a in node.attribute}
    if node.op_type == "Size":
        return torch.tensor(value.shape).prod()
    return torch.tensor(value.shape[attributes.get("start", 0) : attributes.get("end")], dtype=torch.int64)


def _constant(node: Any, folder: Path) -> Tensor:
    from onnx import helper

    attribute = node.attribute[0]
    if attribute.name == "value":
        try:
            return tensor(attribute.t, folder)
        except FormatError as cause:
            raise Refused(str(cause)) from cause
    if attribute.name not in ("value_float", "value_floats", "value_int", "value_ints"):
        raise Refused(f"a constant of {attribute.name}")
    kind = torch.float32 if "float" in attribute.name else torch.int64
    return torch.tensor(helper.get_attribute_value(attribute), dtype=kind)


def _attributes(node: Any, row: Any, version: int) -> dict[str, Any]:
    from onnx import helper

    said: dict[str, Any] = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    said = {k: v.decode() if isinstance(v, bytes) else v for k, v in said.items()}
    taken = inspect.signature(row).parameters
    every = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in taken.values())
    extra = [k for k in said if k not in taken and not every and k not in HARMLESS]
    if extra:
        raise Refused(f"attributes {extra}")
    kept = {k: v for k, v in said.items() if k in taken or (every and k not in HARMLESS)}
    kept |= {"version": version} if "version" in taken else {}
    return kept | ({"outputs": len(node.output)} if "outputs" in taken else {})


__all__ = ["from_onnx", "supported"]
