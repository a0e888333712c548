"""What a trace is made of: `Op`, a node of the graph of one step, and `Value`, what a tensor of the module is of it.

`detached` copies a user's module so that running it changes nothing of theirs.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from neuro.errors import ConversionError
from neuro.ir import Shape


@dataclass(eq=False)
class Op:
    """A node of the graph of one step. kind: "input", "neuron", "layer", "call", "add", "bad".

    what: the leaf module, or the function's arguments. inputs: (node, slot, steps late). shape: of one step.
    """

    kind: str
    name: str
    what: Any = None
    inputs: tuple[tuple[Op, str, int], ...] = ()
    shape: Shape = ()
    calls: int = 0


@dataclass(frozen=True)
class Value:
    """What a tensor is: ``slot`` ("" what it sends, "v" its membrane, "state") of a node.

    time: step, None for all steps at once or what does not change. lead: axes before those of one step; order: which
    they are. done: "sum" or "max" over all steps, only an answer from here on.
    """

    op: Op
    slot: str = ""
    time: int | None = None
    lead: int = 1
    order: str = "B"
    done: str = ""


@dataclass
class Traced:
    """The graph. output: what the module returns first. held: the input is the same in every step. steps: that ran.

    bad: what is wrong with the whole; nodes of the kind "bad" say what is wrong with them.
    """

    input: Op
    output: Value
    bad: list[str]
    held: bool
    steps: int


class Unclear(ConversionError):
    """The sample's axes cannot be told from what the module does with it."""


def detached(module: nn.Module) -> nn.Module:
    """A copy in evaluation mode that shares nothing with the module, also where it holds tensors of a graph.

    Not copy.deepcopy, which asks each module how it wants to be copied, and some (sinabs' recurrent ones) cannot.
    """
    memo: dict[int, Any] = {}
    for part in module.modules():
        for value in tensors([part.__dict__, getattr(part, "_memories", {})]):
            if value.grad_fn is not None:
                memo[id(value)] = value.detach().clone()
    return _copied(module, memo).eval()


def _copied(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    if id(module) in memo:
        known: nn.Module = memo[id(module)]
        return known
    kind: Any = type(module)
    new = memo[id(module)] = kind.__new__(kind)
    parts = {name: None if part is None else _copied(part, memo) for name, part in module._modules.items()}
    for name, value in module.__dict__.items():
        new.__dict__[name] = parts if name == "_modules" else copy.deepcopy(value, memo)
    made: nn.Module = new
    return made


def parts(inputs: tuple[tuple[Op, str, int], ...]) -> set[int]:
    """Modules whose values reach these inputs within a step: layers, and the neurons and inputs they see."""
    found: set[int] = set()
    todo = [source for source, _, _ in inputs]
    while todo:
        op = todo.pop()
        if op.kind in ("neuron", "layer", "input"):
            found.add(id(op.what) if op.kind == "layer" else id(op))
        if op.kind not in ("neuron", "input"):
            todo += [source for source, _, _ in op.inputs]
    return found


MEANT = {"TB": "time first", "BT": "batch first, then time", "flat": "batch and time in one axis"}
ASK = (
    "a sample of shape {} may be steps or one step: say axes='TB' (time, batch, ...), 'BT' (batch, time, ...) or "
    "'B' (batch, ...; one step, or the same in every step)"
)


def tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for child in value.values():
            yield from tensors(child)
    elif isinstance(value, (list, tuple)):
        for child in value:
            yield from tensors(child)
