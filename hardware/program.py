"""`Program`: what a compiler hands to a simulator or an exporter. Integers only.

A program is a graph of populations (groups of neurons with one update rule) joined by projections
(groups of synapses), plus where each neuron sits. What the keys of ``params`` mean is defined by the
chip's own module, once, next to the kernel that reads them.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.fabric import Fabric

Shape = tuple[int, ...]
IntArray = NDArray[np.int64]
Integers = NDArray[np.integer[Any]]


def _freeze(table: Mapping[str, object]) -> Mapping[str, IntArray]:
    frozen = {}
    for name, value in table.items():
        array = np.array(value)
        assert array.dtype.kind in "iub", f"a Program holds integers only, '{name}' is {array.dtype}"
        array = array.astype(np.int64)
        array.setflags(write=False)
        frozen[name] = array
    return types.MappingProxyType(frozen)


@dataclass(frozen=True, eq=False)
class Population:
    """Neurons with one update rule.

    node: name in the Network. model: key of the chip's update rule ("input" has no state).
    params: integer arrays, scalar or one value per neuron (flat, row-major). Of an input, "high" is the largest
    value of a channel in a step: 1, a spike, unless given; "low" the smallest, 0 unless given.
    """

    name: str
    node: str
    model: str
    shape: Shape
    params: Mapping[str, IntArray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "params", _freeze(self.params))

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))


@dataclass(frozen=True, eq=False)
class Projection:
    """Synapses from one population to another.

    node: name of the weight node in the Network. kind: key of the chip's synapse rule.
    weight_q: integers, laid out as the kind says. params: as in `Population`.
    """

    name: str
    node: str
    source: str
    target: str
    kind: str
    weight_q: IntArray
    params: Mapping[str, IntArray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight_q", _freeze({"weight_q": self.weight_q})["weight_q"])
        object.__setattr__(self, "params", _freeze(self.params))


@dataclass(frozen=True, eq=False)
class Placement:
    """core_of: population -> int64[n] core of each neuron (inputs have none). xy: int64[cores, 2].

    utilisation: per core, limit name -> share used, 0..1. fabric: what joins the cores, with xy among its
    positions; None where the chip's own is meant (`neuro.hardware.fabric.fabric_of`).
    """

    core_of: Mapping[str, IntArray]
    xy: IntArray
    utilisation: tuple[Mapping[str, float], ...] = ()
    fabric: Fabric | None = None

    @property
    def cores(self) -> int:
        return len(self.xy)


@dataclass(frozen=True)
class QuantisationError:
    """What integers cost in one node. Errors are relative to the largest magnitude of the quantity."""

    node: str
    quantity: str
    scale: float
    max_error: float
    rms_error: float
    note: str = ""


@dataclass(frozen=True, eq=False)
class Program:
    """A network in a chip's integers.

    chip: name of the target. dt: seconds of network time per step.
    populations and projections: in order of evaluation. input, output: population names.
    skew: population -> steps that its activity lags behind the Network's (pipeline depth).
    scale: population -> reals per integer of the membrane, v = scale * v_q.
    readout: as `neuro.ir.Output.readout`. budget: quantisation errors. substitutions: every
    approximation the compiler made, one sentence each; empty if there is none.
    image: what is loaded on the chip where populations and projections do not say it all (crossbars, tables),
    name -> integers as the chip's own module defines them; empty where they do.
    """

    chip: str
    dt: float
    populations: Mapping[str, Population]
    projections: tuple[Projection, ...]
    input: str
    output: str
    skew: Mapping[str, int]
    scale: Mapping[str, float]
    readout: str
    placement: Placement
    budget: tuple[QuantisationError, ...] = ()
    substitutions: tuple[str, ...] = ()
    image: Mapping[str, Integers] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("populations", "skew", "scale"):
            object.__setattr__(self, name, types.MappingProxyType(dict(getattr(self, name))))
        for name, array in self.image.items():
            assert array.dtype.kind in "iub", f"a Program holds integers only, image '{name}' is {array.dtype}"
            array.setflags(write=False)  # not copied: an image may be large
        object.__setattr__(self, "image", types.MappingProxyType(dict(self.image)))

    @property
    def depth(self) -> int:
        """Steps to run beyond the length of a sample until the output has seen all of it."""
        return self.skew[self.output]

    def into(self, population: str) -> tuple[Projection, ...]:
        """Projections that end in a population."""
        return tuple(p for p in self.projections if p.target == population)

    @property
    def high(self) -> int:
        """The largest value of an input channel in a step; 1 where inputs are spikes."""
        return int(self.populations[self.input].params.get("high", np.array(1)))

    @property
    def low(self) -> int:
        """The smallest value of an input channel in a step; 0 unless messages have a sign."""
        return int(self.populations[self.input].params.get("low", np.array(0)))

    @property
    def neurons(self) -> int:
        return sum(p.size for p in self.populations.values() if p.model != "input")
