"""`Tracer`: what front ends write graphs with. Keeps track of where the batch is.

Code of others is free with the batch axis: it moves it (attention, time first), and merges it with others
("view(B * heads, ...)"). A graph has it first, always. So a traced value has two shapes: the **seen** one that the
original has, and the stored one [batch, *rest]; `Value` says how they belong together. Shapes are found on torch's
meta device: nothing is allocated, and a value beyond ``MOST`` numbers is refused before it could be.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from neuro.convert.graph import Graph
from neuro.convert.ops import Add, Affine, Constant, Input, Op, Permute, Reshape

MOST = 1 << 28  # numbers in one value, of the batch that is traced


class Refused(Exception):  # never leaves a front end, which collects all of them
    """An operation that cannot be taken, and why."""


@dataclass(frozen=True)
class Value:
    """A traced value, stored as [batch, *rest].

    batch: which axis of the seen shape has the batch; that axis counts outer * batch * inner entries, and where outer
    or inner is not 1 it is an axis of ``rest`` in the same place.
    """

    name: str
    rest: tuple[int, ...]
    size: int
    batch: int = 0
    outer: int = 1
    inner: int = 1

    @property
    def extra(self) -> int:
        """Axes of ``rest`` that the batch axis of the seen shape hides."""
        return (self.outer > 1) + (self.inner > 1)

    @property
    def shape(self) -> tuple[int, ...]:
        """The seen shape."""
        after = self.rest[self.batch + self.extra :]
        return (*self.rest[: self.batch], self.outer * self.size * self.inner, *after)

    @property
    def plain(self) -> bool:
        """Whether the seen shape is the stored one."""
        return self.batch == 0 and self.extra == 0

    def stored_axis(self, axis: int) -> int:
        """The stored axis (the batch is 0) of a seen one that is not the batch."""
        axis = self.axis(axis)
        if axis == self.batch:
            raise Refused("it works along the batch axis")
        return axis + 1 if axis < self.batch else axis + self.extra

    def axis(self, axis: int) -> int:
        """A seen axis, counted from the front."""
        return axis % len(self.shape)


class Tracer:
    """Collects operations. size: of the batch while tracing."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.hint = ""  # name of what is added next; the front end sets it
        self.ops: dict[str, Op] = {}
        self.takes: dict[str, tuple[str, ...]] = {}

    def input(self, name: str, shape: Sequence[int]) -> Value:
        """An input of the seen shape [batch, ...]."""
        rest = tuple(int(n) for n in shape[1:])
        self._limit((self.size, *rest))
        return Value(self._add(name, Input(rest), ()), rest, self.size)

    def constant(self, data: Tensor) -> str:
        """A constant; data without a batch axis."""
        return self._add(f"{self.hint}.constant", Constant(data.detach().clone()), ())

    def put(self, operation: Op, *values: Value, batch: int | None = None) -> Value:
        """A value of an operation on stored values; its batch is where the first has it, or at ``batch``."""
        found = self.put_names(operation, [v.name for v in values], [v.rest for v in values], values[0])
        return found if batch is None else replace(found, batch=batch)

    def put_names(self, operation: Op, names: Sequence[str], rests: Sequence[Sequence[int]], like: Value) -> Value:
        """`put`, also for constants, which have a name and a shape but no batch."""
        sizes = [1 if isinstance(self.ops[n], Constant) else self.size for n in names]
        shape = on_meta(operation, [(size, *rest) for size, rest in zip(sizes, rests, strict=True)])
        self._limit(shape)
        name = self._add(self.hint or type(operation).__name__.lower(), operation, tuple(names))
        return replace(like, name=name, rest=tuple(shape[1:]))

    def graph(self, output: Value, metadata: dict[str, str]) -> Graph:
        """The graph, of what the output needs."""
        whole = Graph(self.ops, self.takes, output.name, metadata)
        needed = [n for n in self.ops if n in set(whole.order) or isinstance(self.ops[n], Input)]
        return Graph({n: self.ops[n] for n in needed}, {n: self.takes[n] for n in needed}, output.name, metadata)

    def _add(self, name: str, operation: Op, names: tuple[str, ...]) -> str:
        name = re.sub(r"[^\w.@-]", "_", name).strip(".") or type(operation).__name__.lower()
        unique, k = name, 2
        while unique in self.ops:
            unique, k = f"{name}_{k}", k + 1
        self.ops[unique], self.takes[unique] = operation, names
        return unique

    def _limit(self, shape: Sequence[int]) -> None:
        if math.prod(shape) > MOST:
            raise Refused(f"its value {tuple(shape)} has more than {MOST} numbers")


def on_meta(operation: Op, shapes: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The shape of an operation's value, without computing it."""
    changed: dict[str, Any] = {}
    for each in fields(operation):
        tensor = getattr(operation, each.name)
        if isinstance(tensor, Tensor):
            changed[each.name] = tensor.to("meta")
    there = object.__new__(type(operation))
    for each in fields(operation):
        object.__setattr__(there, each.name, changed.get(each.name, getattr(operation, each.name)))
    dtype = next((t.dtype for t in changed.values() if t.is_floating_point()), torch.float64)
    try:
        return tuple(there.value(*(torch.empty(tuple(s), dtype=dtype, device="meta") for s in shapes)).shape)
    except (RuntimeError, IndexError, ValueError) as cause:
        raise Refused(f"shapes {[tuple(s) for s in shapes]} do not suit it: {str(cause).splitlines()[0]}") from cause


def against(constant: Tensor, value: Value) -> Tensor:
    """A constant that broadcasts against the seen shape, as one that broadcasts against the stored one without batch.

    Raises:
        Refused: it differs from sample to sample.
    """
    rank = len(value.shape)
    if constant.ndim > rank:
        raise Refused(f"a constant of shape {tuple(constant.shape)} would add axes to {value.shape}")
    full = constant.detach().reshape((1,) * (rank - constant.ndim) + tuple(constant.shape))
    at, hidden = value.batch, (value.outer,) * (value.outer > 1) + (value.inner,) * (value.inner > 1)
    if full.shape[at] == 1:
        return full.reshape((*full.shape[:at], *(1 for _ in hidden), *full.shape[at + 1 :]))
    if full.shape[at] != value.shape[at]:
        raise Refused(f"a constant of shape {tuple(constant.shape)} would repeat the batch of {value.shape}")
    split = full.reshape(*full.shape[:at], value.outer, value.size, value.inner, *full.shape[at + 1 :])
    one = split.select(at + 1, 0)
    if not bool((split == one.unsqueeze(at + 1)).all()):
        raise Refused("a constant differs from sample to sample")
    return one.reshape((*full.shape[:at], *hidden, *full.shape[at + 1 :])).clone()


def reshape(g: Tracer, v: Value, wanted: Sequence[int]) -> Value:
    """Row-major reshape of the seen shape; one entry may be -1."""
    shape = [int(n) for n in wanted]
    if -1 in shape:
        shape[shape.index(-1)] = math.prod(v.shape) // max(1, math.prod(n for n in shape if n != -1))
    if math.prod(shape) != math.prod(v.shape):
        raise Refused(f"{v.shape} cannot become {tuple(wanted)} for every batch")
    ahead = math.prod(v.shape[: v.batch]) * v.outer  # entries outside of the batch
    at, outer, inner = _batch_of(shape, ahead, v)
    hidden = (outer,) * (outer > 1) + (inner,) * (inner > 1)
    rest = (*shape[:at], *hidden, *shape[at + 1 :])
    found = v if rest == v.rest else g.put(Reshape(rest), v)
    return replace(found, rest=rest, batch=at, outer=outer, inner=inner)


def _batch_of(shape: Sequence[int], ahead: int, v: Value) -> tuple[int, int, int]:
    """Which axis of a new shape has the batch, and what is merged with it outside and inside."""
    for at in range(len(shape)):  # alone, where that is possible
        if math.prod(shape[:at]) == ahead and shape[at] == v.size:
            return at, 1, 1
    for at, count in enumerate(shape):
        before = math.prod(shape[:at])
        if before * count >= ahead * v.size:
            if ahead % before == 0 and count % (v.size * (ahead // before)) == 0:
                outer = ahead // before
                return at, outer, count // (v.size * outer)
            break
    raise Refused(f"{v.shape} to {tuple(shape)} would cut samples apart")


def permute(g: Tracer, v: Value, axes: Sequence[int]) -> Value:
    """Seen axes in another order."""
    order = [v.axis(a) for a in axes]
    stored: list[int] = [0]
    for axis in order:
        if axis == v.batch:
            stored += range(v.batch + 1, v.batch + 1 + v.extra)
        else:
            stored.append(v.stored_axis(axis))
    batch = order.index(v.batch)
    if stored == list(range(len(stored))):
        return replace(v, batch=batch)
    return g.put(Permute(tuple(stored)), v, batch=batch)


def same_rank(g: Tracer, values: Sequence[Value]) -> list[Value]:
    """Values whose seen shapes have one rank, with the batch in one place.

    Raises:
        Refused: the batch is not in one place.
    """
    rank = max(len(v.shape) for v in values)
    found = [widened(g, v, rank) for v in values]
    if len({(v.batch, v.outer, v.inner) for v in found}) > 1:
        raise Refused(f"the batch is in different places of {' and '.join(str(v.shape) for v in found)}")
    return found


def widened(g: Tracer, v: Value, rank: int) -> Value:
    """With axes of one entry in front of the seen shape."""
    more = rank - len(v.shape)
    at = 0 if v.size == 1 and v.batch == 0 else v.batch + more  # a batch of one is in front, wherever that is
    return g.put(Reshape((1,) * more + v.rest), v, batch=at) if more > 0 else v


def affine(g: Tracer, v: Value, scale: Tensor, shift: Tensor | None = None) -> Value:
    """scale v + shift for constants that broadcast against the seen shape."""
    v = widened(g, v, max(scale.ndim, 0 if shift is None else shift.ndim))
    return g.put(Affine(against(scale, v), None if shift is None else against(shift, v)), v)


def add(g: Tracer, a: Value, b: Value, sign: int = 1) -> Value:
    """a + sign b."""
    one, two = same_rank(g, [a, b])
    return g.put(Add(() if sign > 0 else (1, -1)), one, two)
