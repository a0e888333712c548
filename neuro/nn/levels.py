"""Layers whose weights are sums of subsets of a few values, as a crossbar with typed axons holds them (TrueNorth).

An input has one axon of each of a few types, a neuron one value per type, and the neuron is connected to any subset
of the input's axons. With the values (1, -1) a weight is -1, 0 or 1 times the neuron's own step (trinary, 2 axons per
input), with (1, 2, -3) one of -3..3 (3 axons), with (1, 2, 4, -8) one of -8..7 (4 axons)::

    weight[o, i] = unit m[o] level[o, i],   level a sum of a subset of ``values``, m[o] a whole number >= 1

Thresholds, resets and biases are whole multiples of ``unit``, a power of two: sums of spikes times weights are exact
in float32 below 2^24 units, so what is trained is what integers compute, to the last spike. unit m[o] follows the
mean size of the neuron's weights, by the factor that rounds normally distributed weights with the least square error.
The real weights stay behind the rounding and gradients pass straight through it (Courbariaux et al. 2015,
arXiv:1511.00363; trinary weights and grouped convolutions for TrueNorth: Esser et al. 2016, PNAS 113:11441).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import torch
from torch import Tensor, nn

from neuro.errors import NetworkError
from neuro.nn.delay import DelayedLinear
from neuro.nn.fused import StateGrid
from neuro.nn.grid import GridConv2d, GridDelayedLinear, GridLayer, GridLinear, Group, straight_through
from neuro.nn.layers import IF, Neuron
from neuro.nn.masked import MaskedLinear


@dataclass(frozen=True)
class Levels:
    """What training must know of a chip with typed axons. All but ``values`` in units.

    values: of the axons that each input has. unit: reals per unit, a power of two. weight: the largest value of a
    neuron's axon type. bias: the largest leak. threshold: the highest threshold, and as far as a membrane may fall.
    """

    values: tuple[int, ...] = (1, -1)
    unit: float = 1.0 / 64
    weight: int = 255
    bias: int = 255
    threshold: int = (1 << 18) - 1

    def problems(self) -> list[str]:
        """What is wrong with these numbers."""
        bad = []
        if not self.values or 0 in self.values or len(self.values) > 4:
            bad.append(f"axons must be one to four values other than 0, got {list(self.values)}")
        elif max(map(abs, self.values)) > self.weight:
            bad.append(f"axons must lie in -{self.weight}..{self.weight}, got {list(self.values)}")
        if not 2.0**-20 <= self.unit <= 2.0**20 or not math.log2(self.unit).is_integer():
            bad.append(f"unit must be a power of two in 2^-20..2^20, got {self.unit!r}")
        return bad

    @property
    def table(self) -> tuple[int, ...]:
        """All levels, ascending: the sums of all subsets of the values."""
        return sums(self.values)


@cache
def sums(values: tuple[int, ...]) -> tuple[int, ...]:
    """Sums of all subsets, ascending, the empty one (0) among them."""
    parts = (part for k in range(len(values) + 1) for part in itertools.combinations(values, k))
    return tuple(sorted({sum(part) for part in parts}))


def nearest(x: Tensor, table: tuple[int, ...]) -> Tensor:
    """The nearest entry of an ascending table; the lower one on a tie."""
    found = torch.full_like(x, table[0])  # element by element: keeps the layout of a convolution's weights
    for low, high in itertools.pairwise(table):
        found += (x > (low + high) / 2) * float(high - low)
    return found


@cache
def best_step(values: tuple[int, ...]) -> float:
    """The step that rounds weights of mean size 1, normally distributed, to the levels with the least square error."""
    normal = NormalDist()
    x = torch.tensor([normal.inv_cdf((k + 0.5) / 2048) for k in range(2048)], dtype=torch.float64)
    x = x / x.abs().mean()
    steps = [1.01**k for k in range(-300, 200)]
    errors = [float((s * nearest(x / s, sums(values)) - x).square().mean()) for s in steps]
    return steps[errors.index(min(errors))]


class LevelGroup(Group):
    """One IF layer and the weight layers that feed it: they share the unit and each neuron's m.

    max_steps: the longest sample. m stays so small that no input that long takes a membrane out of range.
    """

    members: list[LevelLayer]  # type: ignore[assignment]

    def __init__(self, neuron: Neuron, members: list[LevelLayer], levels: Levels, max_steps: int | None = None) -> None:
        self.neuron, self.members, self.levels, self.max_steps = neuron, members, levels, max_steps

    def unit(self) -> float:
        return self.levels.unit

    def grid(self) -> StateGrid:
        """state False: the state runs in reals, which hold whole units exactly."""
        return StateGrid(self.levels.unit, 1, 1 << 20, 12, False)

    def multiple(self) -> Tensor:
        """float64[out]: m of each neuron."""
        rows = torch.cat([m.held().detach().double().flatten(1) for m in self.members], 1)
        if not rows.isfinite().all():
            raise NetworkError("weights hold NaN or infinite values; training has diverged, lower its rate")
        inputs = sum(m.inputs() for m in self.members)
        m = rows.abs().sum(1) * (best_step(self.levels.values) / self.levels.unit / inputs)
        return m.round().clamp(1, max(1, self._largest(inputs)))

    def _largest(self, inputs: int) -> int:
        """The largest m of a neuron with so many inputs."""
        c = self.levels
        most = c.weight // max(abs(v) for v in c.values)
        if self.max_steps is None:
            return most
        peak = max((m.peak for m in self.members), default=1)
        falls = self.max_steps * inputs * peak * max(abs(level) for level in c.table)
        leaks = [float(m.bias.detach().abs().max()) / c.unit for m in self.members if m.bias is not None]
        leak = sum(min(c.bias, round(x)) for x in leaks)
        return min(most, (c.threshold - self.max_steps * leak) // falls)


class LevelLayer(GridLayer):
    """A weight layer on levels; sends its sums in units."""

    group: LevelGroup

    def held(self) -> Tensor:
        """The real weights, those of a mask's inputs only."""
        mask = self._buffers.get("mask")
        weight: Tensor = self.weight
        return weight if mask is None else weight * mask.to(weight.dtype)

    def inputs(self) -> int:
        """Inputs per output."""
        mask = self._buffers.get("mask")
        return int(self.weight[0].numel() if mask is None else mask[0].sum())

    def rounded(self, unit: float) -> Tensor:
        """m level in float64: the weights in units."""
        group = self.group
        m = group.multiple().view(-1, *[1] * (self.weight.dim() - 1))
        return m * nearest(self.held().detach().double() / (unit * m), group.levels.table)

    def integers(self) -> tuple[Tensor, Tensor | None]:
        group = self.group
        unit = group.unit()
        weight = straight_through(self.held().double() / unit, self.rounded(unit)).to(self.weight.dtype)
        if self.bias is None:
            return weight, None
        exact = self.bias.double() / unit
        high = group.levels.bias
        return weight, straight_through(exact, exact.detach().round().clamp(-high, high)).to(self.bias.dtype)


class LevelLinear(LevelLayer, GridLinear):
    """`torch.nn.Linear` on levels."""


class LevelConv2d(LevelLayer, GridConv2d):
    """`torch.nn.Conv2d` on levels."""


class LevelDelayedLinear(LevelLayer, GridDelayedLinear):
    """`DelayedLinear` on levels."""


_LEVELS: dict[type[nn.Module], type[LevelLayer]] = {
    nn.Linear: LevelLinear,
    MaskedLinear: LevelLinear,
    nn.Conv2d: LevelConv2d,
    DelayedLinear: LevelDelayedLinear,
}


def on_levels(layer: nn.Module) -> LevelLayer:
    """A layer that shares the parameters of ``layer`` and sends units; its group is still to be set.

    Raises:
        NetworkError: no such layer.
    """
    cls = _LEVELS.get(type(layer))
    if cls is None:
        names = ", ".join(t.__name__ for t in _LEVELS)
        raise NetworkError(f"{type(layer).__name__} has no form with typed axons; it has: {names}")
    made = cls.__new__(cls)
    nn.Module.__init__(made)
    made.adopt(layer, None)  # type: ignore[arg-type]  # no number format: the group holds the levels
    return made


def settle_levels(
    neuron: Neuron, members: list[LevelLayer], levels: Levels, max_steps: int | None = None
) -> LevelGroup:
    """Put an IF layer and the layers that feed it on one unit.

    Raises:
        NetworkError: a neuron that decays, gains, or thresholds that are not positive or too high.
    """
    bad = []
    if not isinstance(neuron, IF):
        bad.append(f"{type(neuron).__name__} decays, the chip has no decay; use 'if'")
    for name in ("gain", "gain_syn", "drive"):
        value = neuron.value(name)
        if not (value == (0.0 if name == "drive" else 1.0)).all():
            bad.append(f"{type(neuron).__name__} has {name} {value.mean():g}; fold it into the weights or bias")
    if neuron.spiking:
        theta = neuron.value("v_threshold").detach() / levels.unit
        sunk = "v_threshold" in neuron.learn  # is held at one unit
        if not (sunk or (theta >= 0.5).all()) or float(theta.max()) > levels.threshold:
            bad.append(f"thresholds must lie in {levels.unit:g}..{levels.threshold * levels.unit:g}")
    bad += levels.problems()
    if bad:
        raise NetworkError("no place on the chip's integers", bad)
    group = LevelGroup(neuron, members, levels, max_steps)
    for member in members:
        member.group = group
    neuron.grid = group.grid
    return group


__all__ = [
    "LevelConv2d",
    "LevelDelayedLinear",
    "LevelGroup",
    "LevelLayer",
    "LevelLinear",
    "Levels",
    "best_step",
    "nearest",
    "on_levels",
    "settle_levels",
    "sums",
]
