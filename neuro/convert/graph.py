"""`Graph`: what a trained network computes, as data. Every front end writes it, every recipe reads it.

    torch module, ONNX file, state dict --front end--> Graph --quantise--> Graph with neurons --recipe--> Run over steps
                                                                                   |--lower--> Network of neuro.ir

A graph has no time. Which of its operations pass increments, make events or need a temporal-difference operator is
said by their type, see `neuro.convert.ops`; how time runs is `neuro.convert.engine`.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from neuro.convert.ops import Constant, Input, Op, Quantise
from neuro.errors import ConversionError


@dataclass(frozen=True, eq=False)
class Graph:
    """Operations and what each takes, without loops.

    Args:
        ops: name -> operation. Names are those of the original's layers where there are any.
        takes: name -> the names whose values it takes, in order; () for inputs and constants.
        output: whose value is the answer.
        metadata: strings that travel along, e.g. class names.

    Raises:
        ConversionError: unknown names, a loop, a wrong number of values, all of them.

    ``order``: names in the order of evaluation, of those that the output needs.
    """

    ops: Mapping[str, Op]
    takes: Mapping[str, tuple[str, ...]]
    output: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    order: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        takes = {name: tuple(self.takes.get(name, ())) for name in self.ops}
        pairs = [(name, source) for name in takes for source in takes[name]]
        bad = [f"'{name}' takes '{source}', which does not exist" for name, source in pairs if source not in self.ops]
        bad += [] if self.output in self.ops else [f"the output '{self.output}' does not exist"]
        for name, operation in self.ops.items():
            count = len(takes[name])
            if count != operation.arity and not (operation.arity < 0 < count):
                wanted = "one or more" if operation.arity < 0 else operation.arity
                bad.append(f"'{name}' ({type(operation).__name__}) takes {wanted} value(s), got {count}")
        if bad:
            raise ConversionError("graph cannot be built", bad)
        for name, value in (("ops", dict(self.ops)), ("takes", takes), ("metadata", dict(self.metadata))):
            object.__setattr__(self, name, types.MappingProxyType(value))
        object.__setattr__(self, "order", self._sorted())

    def _sorted(self) -> tuple[str, ...]:
        done: dict[str, bool] = {}  # False: being visited
        stack = [(self.output, iter(self.takes[self.output]))]
        done[self.output] = False
        while stack:
            name, rest = stack[-1]
            following = next(rest, None)
            if following is None:
                stack.pop()
                del done[name]
                done[name] = True  # in the order of completion
            elif following not in done:
                done[following] = False
                stack.append((following, iter(self.takes[following])))
            elif not done[following]:
                raise ConversionError(f"graph cannot be built: '{following}' depends on itself; unroll it first")
        return tuple(done)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs that the output needs, in declared order."""
        return tuple(n for n, o in self.ops.items() if isinstance(o, Input) and n in self.order)

    @property
    def neurons(self) -> tuple[str, ...]:
        """Names of all `Quantise`, in the order of evaluation."""
        return tuple(n for n in self.order if isinstance(self.ops[n], Quantise))

    def values(self, *x: Tensor) -> dict[str, Tensor]:
        """name -> value [batch, ...] of everything that the output needs.

        Args:
            x: one tensor [batch, *shape] per input, in the order of ``inputs``.

        Raises:
            ConversionError: another number of inputs, or shapes.
        """
        found = dict(self.fed(*x))
        for name in self.order:
            if name not in found:
                found[name] = self.ops[name].value(*(found[source] for source in self.takes[name]))
        return found

    def run(self, *x: Tensor) -> Tensor:
        """The answer [batch, ...]."""
        return self.values(*x)[self.output]

    def fed(self, *x: Tensor) -> dict[str, Tensor]:
        """name -> value of the inputs, checked."""
        if len(x) != len(self.inputs):
            raise ConversionError(f"the graph takes {len(self.inputs)} input(s) {self.inputs}, got {len(x)}")
        bad = []
        for name, value in zip(self.inputs, x, strict=True):
            wanted = getattr(self.ops[name], "shape", ())
            if tuple(value.shape[1:]) != tuple(wanted):
                bad.append(f"'{name}' takes [batch, {', '.join(map(str, wanted))}], got {tuple(value.shape)}")
        if bad:
            raise ConversionError("inputs do not fit the graph", bad)
        return dict(zip(self.inputs, x, strict=True))

    def replace(self, changed: Mapping[str, Op]) -> Graph:
        """With some operations exchanged."""
        return Graph({**self.ops, **changed}, self.takes, self.output, self.metadata)

    def insert(self, after: str, name: str, operation: Op) -> Graph:
        """With an operation of one value behind ``after``: everything that took ``after`` takes it instead."""
        if name in self.ops:
            raise ConversionError(f"'{name}' exists already")
        takes = {n: tuple(name if s == after else s for s in sources) for n, sources in self.takes.items()}
        takes[name] = (after,)
        output = name if self.output == after else self.output
        return Graph({**self.ops, name: operation}, takes, output, self.metadata)

    def to(self, dtype: torch.dtype) -> Graph:
        """With all real tensors in ``dtype``."""
        return Graph({n: _to(o, dtype) for n, o in self.ops.items()}, self.takes, self.output, self.metadata)

    def __repr__(self) -> str:
        lines = [f"Graph({len(self.order)} operations, {len(self.neurons)} of neurons)"]
        for name in self.order:
            into = ", ".join(self.takes[name])
            lines.append(f"  {name}: {type(self.ops[name]).__name__}" + (f" <- {into}" if into else ""))
        return "\n".join(lines)


def _to(operation: Op, dtype: torch.dtype) -> Op:
    changed: dict[str, Any] = {}
    for each in fields(operation):
        value = getattr(operation, each.name)
        if isinstance(value, Tensor) and value.is_floating_point():
            changed[each.name] = value.to(dtype)
    return replace(operation, **changed) if changed else operation


__all__ = ["Constant", "Graph", "Input", "Op"]
