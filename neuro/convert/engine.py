"""How a graph with neurons runs over time, whatever the recipe.

Every wire carries an **estimate**: what its value is taken to be after t steps. Two codes:

- ``"sum"``: the input is sent once, messages add up; the estimate is the sum of all messages so far.
- ``"rate"``: the input and every bias are sent in every step; the estimate is the sum so far, divided by t.

In both, a linear operation of estimates is the estimate of the operation, and a temporal-difference operator (see
`neuro.convert.ops`) keeps f(estimate of its input). So all operations but neurons are evaluated on estimates, and a
recipe is nothing but what a neuron does with the estimate z of its input: an implementation with messages adds the same
increments, and equals this one where its sums are exact (on a grid, as on every chip).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from neuro.convert.graph import Graph
from neuro.convert.ops import Quantise
from neuro.errors import ConversionError

CODES = ("sum", "rate")


class Dynamics(Protocol):
    """What neurons do: a frozen dataclass of its options. code: see the module."""

    @property
    def code(self) -> str: ...

    def begin(self, neurons: Quantise, z: Tensor) -> Any:
        """State before the first step, for inputs like z [batch, ...]."""
        ...

    def step(self, neurons: Quantise, state: Any, z: Tensor, t: int) -> tuple[Tensor, Tensor, Any]:
        """One step, t from 1 on: (estimate of the neurons' own value, messages sent per neuron as whole numbers >= 0,
        state)."""
        ...


@dataclass(frozen=True)
class Moment:
    """After step t: estimates of all wires, and how many messages each population sent in this step, per neuron."""

    t: int
    estimates: Mapping[str, Tensor]
    messages: Mapping[str, Tensor]


def moments(
    graph: Graph, x: tuple[Tensor, ...], steps: int, dynamics: Dynamics | Mapping[str, Dynamics]
) -> Iterator[Moment]:
    """Runs the graph for ``steps`` steps, and yields after each.

    Args:
        x: one tensor [batch, ...] per input.
        dynamics: of all neurons, or of each population by name; all of one code.

    Raises:
        ConversionError: a population without dynamics, codes that differ, no steps.
    """
    of = dict(dynamics) if isinstance(dynamics, Mapping) else dict.fromkeys(graph.neurons, dynamics)
    missing = [name for name in graph.neurons if name not in of]
    codes = {each.code for each in of.values()}
    bad = [f"no dynamics for the neurons '{name}'" for name in missing]
    if len(codes) > 1 or not codes <= set(CODES):
        bad.append(f"all neurons must be of one code of {CODES}, got {sorted(codes)}")
    if steps < 1:
        bad.append(f"steps must be at least 1, got {steps}")
    if bad:
        raise ConversionError("the graph cannot run over time", bad)
    state: dict[str, Any] = {}
    still = graph.fed(*x)
    for name in graph.order:  # what no neuron reaches is the same in every step
        known = all(source in still for source in graph.takes[name])
        if known and name not in still and not isinstance(graph.ops[name], Quantise):
            still[name] = graph.ops[name].value(*(still[source] for source in graph.takes[name]))
    for t in range(1, steps + 1):
        found: dict[str, Tensor] = dict(still)
        sent: dict[str, Tensor] = {}
        for name in graph.order:
            if name in found:
                continue
            operation = graph.ops[name]
            taken = [found[source] for source in graph.takes[name]]
            if isinstance(operation, Quantise):
                if t == 1:
                    state[name] = of[name].begin(operation, taken[0])
                found[name], sent[name], state[name] = of[name].step(operation, state[name], taken[0], t)
            else:
                found[name] = operation.value(*taken)
        yield Moment(t, found, sent)


@dataclass(frozen=True)
class Run:
    """outputs: [steps, batch, ...], the answer's estimate after each step. messages: population -> [steps], messages
    of all its neurons and samples in each step."""

    outputs: Tensor
    messages: Mapping[str, Tensor]


def run(graph: Graph, x: tuple[Tensor, ...], steps: int, dynamics: Dynamics | Mapping[str, Dynamics]) -> Run:
    """`moments`, with what most callers want of it."""
    outputs, counts = [], []
    with torch.no_grad():
        for moment in moments(graph, x, steps, dynamics):
            outputs.append(moment.estimates[graph.output])
            counts.append({name: sent.sum(dtype=torch.float64) for name, sent in moment.messages.items()})
    return Run(torch.stack(outputs), {name: torch.stack([c[name] for c in counts]) for name in counts[0]})
