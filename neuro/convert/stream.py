"""Sigma-delta: frames that follow one another, of which only changes are sent.

An input sends what has changed since its last message, a population the change of its quantised value; whatever takes
them adds up (O'Connor and Welling 2017, ICLR). After the steps of a frame every estimate is what it would be if that
frame had been the first: exactly, where neurons have settled (`Settling`, also of `stream`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neuro.convert.graph import Graph
from neuro.convert.neurons import Settling
from neuro.convert.ops import Quantise
from neuro.errors import ConversionError


@dataclass(frozen=True)
class Frame:
    """output: [batch, ...] after the frame's last step. inputs: messages of all inputs, one per value that changed by
    at least its threshold. messages: population -> messages in this frame, of all samples. settled: every population
    has its quantised value."""

    output: Tensor
    inputs: int
    messages: dict[str, int]
    settled: bool


def stream(
    graph: Graph,
    frames: Sequence[Tensor | tuple[Tensor, ...]],
    steps: int = 1,
    dynamics: Settling | None = None,
    threshold: float = 0.0,
) -> Iterator[Frame]:
    """Runs frame after frame, state kept.

    Args:
        frames: each one tensor [batch, *shape] per input.
        steps: per frame. dynamics: default graded messages, which settle in one step.
        threshold: inputs send a change once its size exceeds this; above 0 the result is that of the inputs as sent.

    Raises:
        ConversionError: no steps, or inputs that do not fit.
    """
    if steps < 1 or threshold < 0:
        raise ConversionError(f"steps must be at least 1 and threshold at least 0, got {steps}, {threshold}")
    rule = dynamics or Settling(at_once=1 << 30)
    state: dict[str, Any] = {}
    seen: dict[str, Tensor] = {}
    for frame in frames:
        now = graph.fed(*(frame if isinstance(frame, tuple) else (frame,)))
        changed = 0
        for name, value in now.items():
            before = seen.get(name, torch.zeros_like(value))
            sent = (value - before).abs() > threshold
            changed += int(sent.sum())
            seen[name] = torch.where(sent, value, before)
        messages = dict.fromkeys(graph.neurons, 0)
        for t in range(1, steps + 1):
            found, settled = dict(seen), True
            for name in graph.order:
                if name in found:
                    continue
                operation, taken = graph.ops[name], [found[source] for source in graph.takes[name]]
                if not isinstance(operation, Quantise):
                    found[name] = operation.value(*taken)
                    continue
                if name not in state:
                    state[name] = rule.begin(operation, taken[0])
                found[name], sent, state[name] = rule.step(operation, state[name], taken[0], t)
                messages[name] += int(sent.sum())
                settled = settled and torch.equal(state[name], operation.levels(taken[0]))
        yield Frame(found[graph.output], changed, messages, settled)
