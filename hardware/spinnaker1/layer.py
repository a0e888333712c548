"""One population on its way to SpiNNaker, before and after `fit`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuro import ir
from neuro.discretise import Coefficients
from neuro.hardware.lowering import Bias
from neuro.hardware.program import QuantisationError
from neuro.ir import Array

Int64 = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Incoming:
    """One projection in reals as a list. delay: steps on the chip, >= 1."""

    name: str
    node: str
    source: str
    row: Int64
    col: Int64
    weight: Array
    delay: Int64


@dataclass(frozen=True, eq=False)
class Layer:
    """One population on its way to the chip."""

    name: str
    node: ir.Neuron
    c: Coefficients
    incoming: tuple[Incoming, ...]
    biases: tuple[Bias, ...]
    skew: int

    @property
    def size(self) -> int:
        return self.c.beta.size

    @property
    def exponential(self) -> bool:
        return isinstance(self.node, (ir.CubaLI, ir.CubaLIF))


@dataclass(frozen=True, eq=False)
class Fitted:
    """A population in integers. weights: of each incoming projection, signed, 0 where a synapse is left out.

    unit: reals per raw unit of v."""

    layer: Layer
    model: str
    params: dict[str, Int64]
    weights: tuple[Int64, ...]
    unit: float
    budget: tuple[QuantisationError, ...]


@dataclass(frozen=True, eq=False)
class Gains:
    """What the machine makes of its words. pull: 1 - D. arrive: F, or 1 / step. hold: sum of the decays of a
    constant input; all [n]."""

    tau: Int64
    decay: Int64
    pull: Array
    tau_syn: Int64
    decay_syn: Array
    arrive: Array
    hold: Array


def per_neuron(layer: Layer, name: str, otherwise: float) -> Array:
    """A parameter of the node for each neuron, or ``otherwise`` where it has none."""
    found = getattr(layer.node, name, None)
    return np.full(layer.size, otherwise) if found is None else np.asarray(found, np.float64).reshape(-1)
