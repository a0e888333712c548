"""From fitted layers to a `Program`: limits, mapping, refusal of what does not fit. What both Akidas end with."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from neuro import ir
from neuro.errors import DoesNotFit, PrecisionLoss, Violation
from neuro.hardware.akida.mapping import Demand, mapped
from neuro.hardware.chip import Chip
from neuro.hardware.program import Population, Program, Projection, QuantisationError
from neuro.ir import Network


@dataclass
class Draft:
    """What a compiler gathers, layer by layer. scale: population -> reals per integer of its potential."""

    populations: dict[str, Population] = field(default_factory=dict)
    projections: list[Projection] = field(default_factory=list)
    budget: list[QuantisationError] = field(default_factory=list)
    scale: dict[str, float] = field(default_factory=dict)
    substitutions: list[str] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)


def start(network: Network) -> Draft:
    """A draft that holds the input."""
    node = network.nodes[network.input]
    assert isinstance(node, ir.Input)
    name = network.input
    return Draft({name: Population(name, name, "input", node.shape, {"high": np.array(node.high)})})


def program(chip: Chip, network: Network, draft: Draft, strict: bool) -> Program:
    """The finished program; its output is the last layer.

    Raises:
        DoesNotFit: limits exceeded, all of them. PrecisionLoss: ``strict`` and a substitution was made.
    """
    demands = []
    for population in draft.populations.values():
        incoming = [p for p in draft.projections if p.target == population.name]
        if incoming:
            filters = population.shape[0]
            bits = sum(p.weight_q[0].size * int(p.params["bits"]) for p in incoming)
            demands.append(Demand(population.name, filters, max(1, population.size // filters), bits))
    placed = mapped(chip, demands)
    violations = [*draft.violations, *placed.violations]
    if violations:
        raise DoesNotFit(f"the network does not fit {chip.name}", violations)
    if strict and draft.substitutions:
        raise PrecisionLoss(f"{chip.name} needs approximations, which strict refuses", draft.substitutions)
    output = network.nodes[network.output]
    assert isinstance(output, ir.Output)
    return Program(
        chip=chip.name,
        dt=network.dt,
        populations=draft.populations,
        projections=tuple(draft.projections),
        input=network.input,
        output=next(reversed(draft.populations)),
        skew=dict.fromkeys(draft.populations, 0),
        scale=draft.scale,
        readout=output.readout,
        placement=placed.placement,
        budget=tuple(draft.budget),
        substitutions=tuple(dict.fromkeys(draft.substitutions)),
        image=placed.image,
    )
