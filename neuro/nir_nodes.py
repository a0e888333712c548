"""NIR node <-> `neuro.ir` node: one row per type.

What NIR has no field for travels as NIR metadata under names that begin with "axonport.".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from neuro import ir
from neuro.errors import FormatError
from neuro.ir import IntArray, Shape
from neuro.nir_graph import shape_of
from neuro.nir_hdf5 import Tree
from neuro.nir_metadata import OURS

WHOLE = 1e-6  # how far, relatively, a delay may lie from a whole step: float32 seconds err by 6e-8


@dataclass
class Reader:
    """The fields of one node of a file, and what the caller and the file say about the whole.

    claim: shape that the file gives for the node's input, where it gives one.
    """

    fields: Tree
    metadata: Tree
    dt: float
    file_dt: float | None
    reset: str | None
    readout: str | None
    nearest_step: bool = False
    used: set[str] = field(default_factory=set)
    claim: Shape | None = None

    def get(self, name: str) -> Any:
        """A field that must be there."""
        if name not in self.fields:
            raise FormatError(f"field '{name}' is missing")
        self.used.add(name)
        return self.fields[name]

    def number(self, name: str) -> Any:
        """A field of numbers."""
        value = self.get(name)
        if not isinstance(value, np.ndarray):
            raise FormatError(f"field '{name}' must hold numbers, got {value!r:.100}")
        return value

    def whole(self, name: str) -> int:
        """A field with one integer."""
        value = self.number(name)
        if value.size != 1 or value.dtype.kind not in "iu":
            raise FormatError(f"field '{name}' must be one integer, got {value!r:.100}")
        return int(value.item())

    def our_text(self, name: str, otherwise: str) -> str:
        """A string of our own metadata."""
        value = self.metadata.get(OURS + name, otherwise)
        if not isinstance(value, str):
            raise FormatError(f"metadata '{OURS}{name}' must be a string, got {value!r:.100}")
        return value

    def our_integers(self, name: str) -> IntArray | None:
        """An array of integers of our own metadata, None if it is not there."""
        value = self.metadata.get(OURS + name)
        if value is not None and not (isinstance(value, np.ndarray) and value.dtype.kind in "iu"):
            raise FormatError(f"metadata '{OURS}{name}' must hold integers, got {value!r:.100}")
        return value

    def steps(self, seconds: Any, what: str) -> IntArray:
        """Seconds as whole steps of dt."""
        with np.errstate(all="ignore"):  # the node refuses what is not finite
            in_steps = np.atleast_1d(np.asarray(seconds, np.float64) / self.dt)
            whole = np.rint(in_steps)
            off = np.abs(in_steps - whole) > WHOLE * np.maximum(whole, 1)
        if not self.nearest_step and off.any():
            raise FormatError(
                f"{what} is {in_steps[off][0]:.9g} steps of {self.dt:g} s, not a whole number; "
                "load with another dt, or with nearest_step=True"
            )
        return whole.reshape(np.shape(seconds))  # the node casts

    def in_steps(self, steps: IntArray, what: str) -> IntArray:
        """Steps of the file's length as steps of dt."""
        if self.file_dt is None:
            raise FormatError(f"{what} is given in steps, but metadata '{OURS}dt' does not say of what length")
        return steps if self.file_dt == self.dt else self.steps(steps * self.file_dt, what)


@dataclass(frozen=True)
class Row:
    """How one node type is read and written. write: (node, shape of its input, dt) -> (fields, metadata)."""

    read: Callable[[Reader], ir.Node]
    write: Callable[[Any, Shape, float], tuple[Tree, Tree]]


def _read_input(r: Reader) -> ir.Input:
    high = r.our_integers("high")
    return ir.Input(shape_of(r.get("shape")), 1 if high is None else _single(high, "high"))


def _write_input(node: ir.Input, shape: Shape, dt: float) -> tuple[Tree, Tree]:
    return {"shape": np.array(node.shape, np.int64)}, {OURS + "high": np.array(node.high)} if node.high > 1 else {}


def _read_output(r: Reader) -> ir.Output:
    r.claim = shape_of(r.get("shape"))
    return ir.Output(r.readout or r.our_text("readout", "sum"))


def _write_output(node: ir.Output, shape: Shape, dt: float) -> tuple[Tree, Tree]:
    return {"shape": np.array(shape, np.int64)}, {OURS + "readout": node.readout}


def _read_linear(r: Reader) -> ir.Linear:
    return ir.Linear(r.number("weight"), _synaptic_delay(r))


def _read_affine(r: Reader) -> ir.Affine:
    return ir.Affine(r.number("weight"), _synaptic_delay(r), bias=r.number("bias"))


def _synaptic_delay(r: Reader) -> IntArray | None:
    steps = r.our_integers("delay_steps")
    return None if steps is None else r.in_steps(steps, "a synaptic delay")


def _write_linear(node: ir.Linear, shape: Shape, dt: float) -> tuple[Tree, Tree]:
    delays = {} if node.delay_steps is None else {OURS + "delay_steps": node.delay_steps}
    bias = {"bias": node.bias} if isinstance(node, ir.Affine) else {}
    return {"weight": node.weight, **bias}, delays


def _read_conv(r: Reader) -> ir.Conv2d:
    padding = r.get("padding")
    named = isinstance(padding, str)
    stored = ir.Conv2d(
        r.number("weight"),
        r.number("stride"),
        (0, 0) if named else padding,
        r.number("dilation"),
        r.whole("groups"),
        bias=r.number("bias"),
    )
    if named:
        stored = replace(stored, padding=_named_padding(padding, stored))
    if "input_shape" in r.fields:
        size = shape_of(r.get("input_shape"))
        r.claim = (stored.weight.shape[1] * stored.groups, *(size * 2 if len(size) == 1 else size))
    kernel = r.our_integers("kernel_size")
    if kernel is None:
        return stored
    padding, groups = r.our_integers("padding"), r.our_integers("groups")
    if kernel.shape != (2,) or padding is None or groups is None or groups.size != 1:
        raise FormatError(f"metadata '{OURS}kernel_size' needs '{OURS}padding' and '{OURS}groups' beside it")
    return _unpacked(stored, (int(kernel[0]), int(kernel[1])), padding, int(groups.item()))


def _named_padding(name: str, node: ir.Conv2d) -> tuple[int, int]:
    if name == "valid":
        return (0, 0)
    reach = [(k - 1) * d for k, d in zip(node.weight.shape[2:], node.dilation, strict=True)]
    if name != "same" or node.stride != (1, 1) or any(n % 2 for n in reach):
        raise FormatError(
            f"padding {name!r:.100} with stride {node.stride} and kernel {node.weight.shape[2:]} differs by side"
        )
    return (reach[0] // 2, reach[1] // 2)


def _write_conv(node: ir.Conv2d, shape: Shape, dt: float) -> tuple[Tree, Tree]:
    packed = _packed(node)
    unpack = {"kernel_size": node.weight.shape[2:], "padding": node.padding, "groups": node.groups}
    windows = {name: np.array(getattr(packed, name), np.int64) for name in ("stride", "padding", "dilation", "groups")}
    return (
        {"input_shape": np.array(shape[1:], np.int64), "weight": packed.weight, **windows, "bias": packed.bias},
        {} if packed is node else {OURS + name: np.array(value, np.int64) for name, value in unpack.items()},
    )


def _packed(node: ir.Conv2d) -> ir.Conv2d:
    """The same convolution with one group and a square kernel, padded by zeros.

    nir 1.0.8 types a Conv2d by weight.shape[1] and weight.shape[2] alone, so it refuses the graph of a
    grouped or oblong one. Where no square kernel does it (sides of different parity), the kernel stays.
    """
    out, ins, high, wide = node.weight.shape
    weight = node.weight
    if node.groups > 1:
        weight = np.zeros((out, ins * node.groups, high, wide))
        for group in range(node.groups):
            rows = slice(group * out // node.groups, (group + 1) * out // node.groups)
            weight[rows, group * ins : (group + 1) * ins] = node.weight[rows]
    padding = node.padding
    if (high - wide) % 2 == 0 and high != wide:
        side = max(high, wide)
        before = ((side - high) // 2, (side - wide) // 2)
        weight = np.pad(weight, ((0, 0), (0, 0), *((n, n) for n in before)))
        padding = (padding[0] + before[0] * node.dilation[0], padding[1] + before[1] * node.dilation[1])
    if weight is node.weight:
        return node
    return ir.Conv2d(weight, node.stride, padding, node.dilation, 1, bias=node.bias)


def _unpacked(stored: ir.Conv2d, kernel: tuple[int, int], padding: Any, groups: int) -> ir.Conv2d:
    """The convolution that `_packed` made ``stored`` of."""
    out, ins, *side = stored.weight.shape
    if not (1 <= groups <= ins and 1 <= kernel[0] <= side[0] and 1 <= kernel[1] <= side[1]):
        raise FormatError(f"weight {stored.weight.shape} cannot hold {groups} groups of kernel {kernel}")
    parts, inner = groups, ins // groups
    ys, xs = (slice((s - k) // 2, (s - k) // 2 + k) for s, k in zip(side, kernel, strict=True))
    owner = [o * parts // out for o in range(out)]  # the group of each output channel
    weight = np.stack([stored.weight[o, g * inner : (g + 1) * inner, ys, xs] for o, g in enumerate(owner)])
    node = ir.Conv2d(weight, stored.stride, padding, stored.dilation, parts, bias=stored.bias)
    again = _packed(node)
    if not np.array_equal(again.weight, stored.weight) or again.padding != stored.padding:
        raise FormatError(f"weight does not match metadata '{OURS}kernel_size' and 'groups': changed by another tool")
    return node


def _single(values: IntArray, what: str) -> int:
    if values.size != 1:
        raise FormatError(f"metadata '{OURS}{what}' must be one integer, got {values!r:.100}")
    return int(values.item())


def _pool(cls: type[ir.SumPool2d] | type[ir.AvgPool2d] | type[ir.MaxPool2d]) -> Row:
    names = ("kernel_size", "stride", "padding")

    def read(r: Reader) -> ir.Node:
        return cls(*(r.number(name) for name in names))

    def write(node: Any, shape: Shape, dt: float) -> tuple[Tree, Tree]:
        return {name: np.array(getattr(node, name), np.int64) for name in names}, {}

    return Row(read, write)


def _read_flatten(r: Reader) -> ir.Flatten:
    first, last = r.whole("start_dim"), r.whole("end_dim")
    shape = shape_of(r.get("input_type")) if "input_type" in r.fields else None
    r.claim = shape
    # NIR's axes leave the batch out, but some writers count it, as torch does: then 1 is the first axis
    if first not in (0, 1) or not (last == -1 or (shape is not None and last == len(shape) - 1 + first)):
        raise FormatError(f"flattens only the axes {first}..{last} of {shape}; a Flatten here takes all of them")
    return ir.Flatten()


def _write_flatten(node: ir.Flatten, shape: Shape, dt: float) -> tuple[Tree, Tree]:
    ends = {"start_dim": np.array(0, np.int64), "end_dim": np.array(-1, np.int64)}
    return {"input_type": np.array(shape, np.int64), **ends}, {}


def _read_scale(r: Reader) -> ir.Scale:
    return ir.Scale(r.number("scale"))


def _write_scale(node: ir.Scale, shape: Shape, dt: float) -> tuple[Tree, Tree]:
    return {"scale": node.scale}, {}


def _read_quantised_relu(r: Reader) -> ir.QuantisedReLU:
    return ir.QuantisedReLU(r.number("step"), r.whole("levels"))


def _write_quantised_relu(node: ir.QuantisedReLU, shape: Shape, dt: float) -> tuple[Tree, Tree]:
    return {"step": node.step, "levels": np.array(node.levels, np.int64)}, {}


def _read_delay(r: Reader) -> ir.Delay:
    seconds, steps = r.number("delay"), r.our_integers("steps")
    if steps is None or r.file_dt is None:
        return ir.Delay(r.steps(seconds, "a delay"))
    if steps.shape != seconds.shape or not np.allclose(steps * r.file_dt, seconds, rtol=WHOLE, atol=0):
        raise FormatError(f"delay does not match metadata '{OURS}steps': changed by another tool")
    return ir.Delay(r.in_steps(steps, "a delay"))


def _write_delay(node: ir.Delay, shape: Shape, dt: float) -> tuple[Tree, Tree]:
    return {"delay": node.steps * dt}, {OURS + "steps": node.steps}


def _neuron(cls: type[ir.Neuron], renamed: Mapping[str, str] | None = None) -> Row:
    """NIR's names are ours but for ``renamed`` (ours -> NIR's); what has a default in NIR may be missing."""
    names = {f.name: (renamed or {}).get(f.name, f.name) for f in fields(cls) if f.name != "reset"}
    resets = any(f.name == "reset" for f in fields(cls))

    def read(r: Reader) -> ir.Node:
        given = {
            ours: r.number(theirs)
            for ours, theirs in names.items()
            if theirs in r.fields or ours not in ("v_reset", "w_in")
        }
        return cls(**given, **({"reset": r.reset or r.our_text("reset", "hard")} if resets else {}))

    def write(node: Any, shape: Shape, dt: float) -> tuple[Tree, Tree]:
        table = {theirs: getattr(node, ours) for ours, theirs in names.items()}
        return table, ({OURS + "reset": node.reset} if resets else {})

    return Row(read, write)


def _flagged(cls: type[ir.Neuron], flags: tuple[str, ...], texts: tuple[str, ...] = ()) -> Row:
    """A neuron that NIR does not have: its own fields, flags as 0 and 1, texts as they are."""
    numbers = tuple(f.name for f in fields(cls) if f.name not in (*flags, *texts))

    def read(r: Reader) -> ir.Node:
        given: dict[str, Any] = {n: r.number(n) for n in numbers}
        for name in flags:
            value = r.whole(name)
            if value not in (0, 1):
                raise FormatError(f"field '{name}' must be 0 or 1, got {value}")
            given[name] = bool(value)
        return cls(**given, **{n: r.get(n) for n in texts})

    def write(node: Any, shape: Shape, dt: float) -> tuple[Tree, Tree]:
        table: Tree = {n: getattr(node, n) for n in (*numbers, *texts)}
        return table | {n: np.array(int(getattr(node, n)), np.int64) for n in flags}, {}

    return Row(read, write)


ROWS: dict[str, Row] = {
    "Input": Row(_read_input, _write_input),
    "Output": Row(_read_output, _write_output),
    "Linear": Row(_read_linear, _write_linear),
    "Affine": Row(_read_affine, _write_linear),
    "Conv2d": Row(_read_conv, _write_conv),
    "SumPool2d": _pool(ir.SumPool2d),
    "AvgPool2d": _pool(ir.AvgPool2d),
    "MaxPool2d": _pool(ir.MaxPool2d),
    "QuantisedReLU": Row(_read_quantised_relu, _write_quantised_relu),
    "Flatten": Row(_read_flatten, _write_flatten),
    "Scale": Row(_read_scale, _write_scale),
    "Delay": Row(_read_delay, _write_delay),
    "IF": _neuron(ir.IF),
    "LI": _neuron(ir.LI, {"tau_mem": "tau"}),
    "LIF": _neuron(ir.LIF, {"tau_mem": "tau"}),
    "CubaLI": _neuron(ir.CubaLI),
    "CubaLIF": _neuron(ir.CubaLIF),
    "TernaryLIF": _flagged(ir.TernaryLIF, ()),
    "AdaptiveLIF": _flagged(ir.AdaptiveLIF, (), ("reset", "adaptation")),
    "I": _neuron(ir.I),
    "Delta": _flagged(ir.Delta, ("cumulative",)),
    "SigmaDelta": _flagged(ir.SigmaDelta, ("cumulative",), ("activation",)),
    "ResonateAndFire": _flagged(ir.ResonateAndFire, ("resets",)),
}
