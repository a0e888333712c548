"""Layers whose weights and state live on a chip's integers while they train.

All that feeds one neuron shares a ``unit``: the real value of one weight integer. A layer's integers k
are multiples of the format's step, in low..high; its weights are unit 2^e k, with one exponent e >= 0
per layer. The unit divides the threshold, so the threshold is exact; biases are multiples of unit /
fraction. The neuron's state runs on the chip's integers (`fused.StateGrid`), bit for bit.

Gradients pass straight through all rounding (Bengio et al. 2013, arXiv:1308.3432; Jacob et al. 2018,
arXiv:1712.05877). Integer weights times spikes add up without rounding in float32 below 2^24, so what
is trained is what the chip computes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuro.errors import NetworkError
from neuro.nn.delay import DelayedLinear, delayed
from neuro.nn.fused import StateGrid
from neuro.nn.layers import IF, Neuron


class NumberFormat(Protocol):
    """Integers low..high in multiples of ``step``; `neuro.hardware.chip.NumberFormat` is one."""

    @property
    def bits(self) -> int: ...
    @property
    def signed(self) -> bool: ...
    @property
    def low(self) -> int: ...
    @property
    def high(self) -> int: ...
    @property
    def step(self) -> int: ...


@dataclass(frozen=True)
class Formats:
    """What training must know of a chip.

    decay: only its ``bits`` count. fraction, limit: as `StateGrid`. exponent: the highest of a layer.
    """

    weight: NumberFormat
    weight_conv: NumberFormat
    decay: NumberFormat
    threshold: NumberFormat
    bias: NumberFormat
    fraction: int = 64
    limit: int = 1 << 23
    exponent: int = 7


def smallest_unit(values: Tensor, fmt: NumberFormat) -> float:
    """The unit at which the format just holds all values; 0 if all are 0."""
    most, least = float(values.max()), float(values.min())
    return max(most / fmt.high if most > 0 else 0.0, least / fmt.low if least < 0 and fmt.low < 0 else 0.0)


def geometric(decay: float, steps: int | None) -> float:
    """1 + decay + decay^2 + ... over ``steps`` terms, or for ever."""
    if decay >= 1.0:
        return float(steps) if steps else math.inf
    return (1.0 - (0.0 if steps is None else decay**steps)) / (1.0 - decay)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, exact: Tensor, rounded: Tensor) -> Tensor:
        return rounded.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def straight_through(exact: Tensor, rounded: Tensor) -> Tensor:
    """``rounded`` forwards to the last bit, the gradient of ``exact`` backwards."""
    y: Tensor = _StraightThrough.apply(exact, rounded)  # type: ignore[no-untyped-call]
    return y


class Group:
    """One neuron layer and the weight layers that feed it: they share a unit.

    state: False quantises weights, thresholds and biases, but lets the state be real. max_steps: the
    longest sample, which bounds sums that leak slowly; None for any.
    """

    def __init__(
        self,
        neuron: Neuron,
        members: list[GridLayer],
        formats: Formats,
        state: bool = True,
        max_steps: int | None = None,
    ) -> None:
        self.neuron, self.members, self.formats, self.state = neuron, members, formats, state
        self.max_steps = max_steps
        self._known: tuple[object, float] = (None, 0.0)

    def unit(self) -> float:
        """Reals per weight integer: as small as the formats allow, rounded up so that it divides the threshold.

        Bounded below so that no input can make i wrap, and no input can make an integrator clip.
        """
        tensors = [*(m.weight for m in self.members), *self.neuron.parameters(), *self.neuron.buffers()]
        key = tuple((t.data_ptr(), t._version) for t in tensors)  # the unit follows the weights while they train
        if self._known[0] != key:
            self._known = (key, self._unit())
        return self._known[1]

    def _unit(self) -> float:
        f = self.formats
        if not all(m.weight.isfinite().all() for m in self.members):
            raise NetworkError("weights hold NaN or infinite values; training has diverged, lower its rate")
        needed = [m.needed() for m in self.members]
        convs = [n for n, m in zip(needed, self.members, strict=True) if isinstance(m, GridConv2d)]
        # a convolution has no exponent, so it must fit as it is; matrices can be shifted up to theirs
        unit = max(convs) if convs else min((n for n in needed if n > 0), default=0.0)
        unit = max(unit, max(needed) / 2**f.exponent)
        largest = f.limit // f.fraction - 1
        theta = float(self.neuron.value("v_threshold").detach().mean()) if self.neuron.spiking else math.inf
        if theta <= 0:
            raise NetworkError(f"a threshold of {theta:g} has no place on a grid; thresholds must be positive")
        unit = unit or (theta if self.neuron.spiking else 1.0) / f.threshold.high
        while True:
            if self.neuron.spiking:
                steps = min(math.floor(theta / unit + 1e-9), f.threshold.high)
                unit = theta / steps if steps else unit
            worst = self._worst(unit)
            if worst <= largest:
                return unit
            unit *= max(worst / largest, 1.0 + 1e-6)

    def _worst(self, unit: float) -> float:
        """Largest |i| that any input can cause, or |v| of an integrator, in weight integers."""
        gains = geometric(float(self.neuron.value("alpha").detach().max()), self.max_steps)
        if not self.neuron.spiking:
            gains *= geometric(float(self.neuron.value("beta").detach().max()), self.max_steps)
        worst = 0.0
        for member in self.members:
            k = member.rounded(unit).flatten(1)
            worst += member.peak * float(torch.maximum(k.clamp(min=0).sum(1), -k.clamp(max=0).sum(1)).max())
        return worst * gains

    def exponent(self, member: GridLayer, unit: float) -> int:
        """Smallest e >= 0 at which the member's weights fit."""
        needed = member.needed()
        if isinstance(member, GridConv2d) or needed <= 0:
            return 0
        return max(0, math.ceil(math.log2(needed / unit) - 1e-9))

    def grid(self) -> StateGrid:
        """The grid that the neuron runs on."""
        f = self.formats
        return StateGrid(self.unit(), f.fraction, f.limit, f.decay.bits, self.state)


class GridLayer(nn.Module):
    """A weight layer that sends its sums in weight integers; `real` is what it stands for.

    weight and bias stay real parameters; what runs forwards is rounded. peak: the largest number that one input
    can be in a step, 1 for a spike, more behind a sum pool.
    """

    peak: int = 1
    weight: Any  # torch's own layers declare these; here they are parameters, bias may be None
    bias: Any
    group: Group
    format: NumberFormat

    def adopt(self, layer: nn.Module, fmt: NumberFormat) -> None:
        """Take over another layer's parameters (the same objects) and settings."""
        own = {"_parameters", "_buffers", "_modules"}
        self.__dict__.update({k: dict(v) if k in own else v for k, v in layer.__dict__.items()})
        self.format = fmt

    def needed(self) -> float:
        """The smallest unit that holds the weights."""
        return smallest_unit(self.weight.detach().double(), self.format)

    def rounded(self, unit: float) -> Tensor:
        """k 2^e in float64: the weights in units of ``unit``, on the format."""
        fmt, e = self.format, self.group.exponent(self, unit)
        k = self.weight.detach().double() / (unit * 2.0**e * fmt.step)
        whole: Tensor = k.round().clamp(-(-fmt.low // fmt.step), fmt.high // fmt.step) * (2.0**e * fmt.step)
        return whole

    def integers(self) -> tuple[Tensor, Tensor | None]:
        """(weights k 2^e, bias in weight integers), in the dtype of the weight, with straight-through gradients."""
        group = self.group
        unit = group.unit()
        weight = straight_through(self.weight.double() / unit, self.rounded(unit)).to(self.weight.dtype)
        if self.bias is None:
            return weight, None
        exact = self.bias.double() / unit
        q, high = exact.detach() * group.formats.fraction, group.formats.bias.high
        most = float(q.abs().max())
        step = 2.0 ** max(0, math.ceil(math.log2(most / high))) if most > 0 else 1.0
        q = (q / step).round().clamp(group.formats.bias.low, high) * step / group.formats.fraction
        return weight, straight_through(exact, q).to(self.bias.dtype)

    def real(self) -> tuple[Tensor, Tensor | None]:
        """(weight, bias) on the grid, in reals: what the chip will hold."""
        unit = self.group.unit()
        weight, bias = self.integers()
        return weight * unit, None if bias is None else bias * unit


class GridLinear(GridLayer, nn.Linear):
    """`torch.nn.Linear` on a grid."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, *self.integers())


class GridConv2d(GridLayer, nn.Conv2d):
    """`torch.nn.Conv2d` on a grid."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self._conv_forward(x, *self.integers())
        return y


class GridDelayedLinear(GridLayer, DelayedLinear):
    """`DelayedLinear` on a grid."""

    def forward(self, x: Tensor) -> Tensor:
        return delayed(x, self.get_buffer("delay_steps"), *self.integers())


_GRID: dict[type[nn.Module], type[GridLayer]] = {
    nn.Linear: GridLinear,
    nn.Conv2d: GridConv2d,
    DelayedLinear: GridDelayedLinear,
}


def on_grid(layer: nn.Module, formats: Formats) -> GridLayer:
    """A layer that shares the parameters of ``layer`` and sends weight integers; its group is still to be set.

    Raises:
        NetworkError: no such layer.
    """
    cls = _GRID.get(type(layer))
    if cls is None:
        raise NetworkError(
            f"{type(layer).__name__} has no integer form; it has: {', '.join(t.__name__ for t in _GRID)}"
        )
    grid = cls.__new__(cls)
    nn.Module.__init__(grid)
    grid.adopt(layer, formats.weight_conv if isinstance(grid, GridConv2d) else formats.weight)
    return grid


def settle(
    neuron: Neuron, members: list[GridLayer], formats: Formats, state: bool = True, max_steps: int | None = None
) -> Group:
    """Put a neuron and the layers that feed it on one grid.

    Raises:
        NetworkError: a neuron with gains or drive, or a bias in front of a synapse: the chip has none.
    """
    bad = []
    for name in ("gain", "gain_syn", "drive"):
        value = neuron.value(name)
        if not (value == (0.0 if name == "drive" else 1.0)).all():
            bad.append(f"{type(neuron).__name__} has {name} {value.mean():g}; fold it into the weights or bias")
    if neuron.synapse and any(m.bias is not None for m in members):
        bad.append(f"{type(neuron).__name__} filters its bias, a chip adds it to v; train without bias")
    if neuron.spiking and not (neuron.value("v_threshold") > 0).all():
        bad.append("thresholds must be positive")
    if bad:
        raise NetworkError("no place on the chip's grid", bad)
    _round_decays(neuron, formats)
    group = Group(neuron, members, formats, state, max_steps)
    for member in members:
        member.group = group
    neuron.grid = group.grid
    return group


def _round_decays(neuron: Neuron, formats: Formats) -> None:
    """Round fixed decays to the chip's registers once; learnt ones are rounded wherever they are used."""
    steps = float(1 << formats.decay.bits)
    for name in ("alpha", "beta"):
        if name not in neuron.learn and not isinstance(neuron, IF):
            buffer = neuron.get_buffer(f"{name}_fixed")
            buffer.copy_(torch.round(buffer * steps).clamp(0, steps - 1) / steps)


__all__ = [
    "Formats",
    "GridConv2d",
    "GridDelayedLinear",
    "GridLayer",
    "GridLinear",
    "Group",
    "NumberFormat",
    "on_grid",
    "settle",
    "smallest_unit",
    "straight_through",
]
