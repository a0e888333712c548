"""Nodes with state. ``a`` and ``b`` are the decays of synapse and membrane over one step, see `neuro.ir`."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import ClassVar

import numpy as np

from neuro.node import ADAPTATIONS, RESETS, Array, Node, Shape, expand, frozen, one_of, too_large


@dataclass(frozen=True, eq=False)
class Neuron(Node):
    """Base of nodes with state. Parameters broadcast to one value per neuron.

    spiking: it sends spikes, 0 and 1. graded: it sends numbers, see `neuro.graded`. Neither: its membrane.
    """

    _positive: ClassVar[tuple[str, ...]] = ("tau_mem", "tau_syn", "tau_adapt")
    spiking: ClassVar[bool] = False
    graded: ClassVar[bool] = False

    @property
    def shape(self) -> Shape:
        """Shape of the population: that of its parameters."""
        return np.broadcast_shapes(*(getattr(self, n).shape for n in self._parameters()))

    @classmethod
    def _parameters(cls) -> tuple[str, ...]:
        return tuple(f.name for f in fields(cls) if f.type == "Array")

    def problems(self) -> list[str]:
        try:
            shape = self.shape
        except ValueError:
            given = ", ".join(f"{n} {getattr(self, n).shape}" for n in self._parameters())
            return [f"parameters do not broadcast to one shape: {given}"]
        if too_large(shape):
            return too_large(shape)
        for name in self._parameters():
            self._set(name, frozen(np.broadcast_to(getattr(self, name), shape), np.float64))
        reset = getattr(self, "reset", "hard")
        return [] if one_of(reset, RESETS) else [f"reset must be one of {RESETS}, got {reset!r}"]

    def expand(self, shape: Shape) -> Neuron:
        """The same neuron with one value per neuron of ``shape``: from scalars, from one value for all
        (any number of axes of length 1), or from parameters like [channel, 1, 1].

        Raises:
            ShapeMismatch: the parameters have another shape.
        """
        return replace(self, **{n: expand(getattr(self, n), shape, "parameters have") for n in self._parameters()})


@dataclass(frozen=True, eq=False)
class IF(Neuron):
    """Integrate-and-fire: v[t] = v[t-1] + r x[t].

    ``r`` acts per step, not per second, as every simulator that reads NIR has it.
    """

    spiking: ClassVar[bool] = True
    v_threshold: Array
    r: Array = 1.0  # type: ignore[assignment]  # scalars become arrays in __post_init__
    v_reset: Array = 0.0  # type: ignore[assignment]
    reset: str = "hard"


@dataclass(frozen=True, eq=False)
class LI(Neuron):
    """Leaky integrator: v[t] = b v[t-1] + (1 - b) (v_leak + r x[t]). tau_mem in seconds."""

    tau_mem: Array
    r: Array = 1.0  # type: ignore[assignment]
    v_leak: Array = 0.0  # type: ignore[assignment]


@dataclass(frozen=True, eq=False)
class LIF(Neuron):
    """Leaky integrate-and-fire: `LI`, then spike and reset. tau_mem in seconds."""

    spiking: ClassVar[bool] = True
    tau_mem: Array
    v_threshold: Array
    r: Array = 1.0  # type: ignore[assignment]
    v_leak: Array = 0.0  # type: ignore[assignment]
    v_reset: Array = 0.0  # type: ignore[assignment]
    reset: str = "hard"


@dataclass(frozen=True, eq=False)
class CubaLI(Neuron):
    """Current-based leaky integrator, the synapse first, in the same step:

    i[t] = a i[t-1] + (1 - a) w_in x[t];  v[t] = b v[t-1] + (1 - b) (v_leak + r i[t]).
    """

    tau_syn: Array
    tau_mem: Array
    r: Array = 1.0  # type: ignore[assignment]
    v_leak: Array = 0.0  # type: ignore[assignment]
    w_in: Array = 1.0  # type: ignore[assignment]


@dataclass(frozen=True, eq=False)
class CubaLIF(Neuron):
    """Current-based leaky integrate-and-fire: `CubaLI`, then spike and reset (i is not reset)."""

    spiking: ClassVar[bool] = True
    tau_syn: Array
    tau_mem: Array
    v_threshold: Array
    r: Array = 1.0  # type: ignore[assignment]
    v_leak: Array = 0.0  # type: ignore[assignment]
    v_reset: Array = 0.0  # type: ignore[assignment]
    w_in: Array = 1.0  # type: ignore[assignment]
    reset: str = "hard"


@dataclass(frozen=True, eq=False)
class AdaptiveLIF(Neuron):
    """Leaky integrate-and-fire with a second state w, c its decay over a step, that follows membrane and spikes:

    u[t] = b v[t-1] + (1 - b) (v_leak + r x[t] - w[t-1]);  s[t] = u[t] > v_threshold;  v[t]: u[t] after the reset
    w[t] = c w[t-1] + (1 - c) (a_adapt v[t] + b_adapt s[t])          "symplectic" (SE-adLIF, Baronig et al. 2025)
    w[t] = c w[t-1] + (1 - c) (a_adapt v[t-1] + b_adapt s[t-1])      "euler"
    u[t] = b v[t-1] + (1 - b) (v_leak + r x[t]);  s[t] = u[t] > v_threshold + w[t-1]
    w[t] = c w[t-1] + (1 - c) b_adapt s[t]                           "threshold" (ALIF, Bellec et al. 2018)

    tau_mem and tau_adapt in seconds; sources in `neuro.nn.adaptive`. No chip here has it.
    """

    spiking: ClassVar[bool] = True
    tau_mem: Array
    tau_adapt: Array
    v_threshold: Array
    a_adapt: Array = 0.0  # type: ignore[assignment]  # scalars become arrays in __post_init__
    b_adapt: Array = 0.0  # type: ignore[assignment]
    r: Array = 1.0  # type: ignore[assignment]
    v_leak: Array = 0.0  # type: ignore[assignment]
    v_reset: Array = 0.0  # type: ignore[assignment]
    reset: str = "hard"
    adaptation: str = "symplectic"

    def problems(self) -> list[str]:
        bad = super().problems()
        if not one_of(self.adaptation, ADAPTATIONS):
            bad.append(f"adaptation must be one of {ADAPTATIONS}, got {self.adaptation!r}")
        elif not bad and self.adaptation == "threshold" and self.a_adapt.any():
            bad.append("a threshold follows the spikes alone; leave out a_adapt")
        return bad
