"""Neurons and recurrence as `torch.nn.Module`s. Time is first: [time, batch, ...].

Layers without memory (torch's own Linear, Conv2d, AvgPool2d, Flatten, BatchNorm, and those of
`neuro.nn.stateless`) see [time * batch, ...]; `neuro.nn.network.SpikingNetwork` folds time for them.
Layers with memory derive from `Temporal`: they see whole time, or one step at a time through `step`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuro import discretise
from neuro.errors import NetworkError
from neuro.ir import RESETS
from neuro.nn import fused, plain, recurrent
from neuro.nn.joined import Carry
from neuro.nn.neurons import NeuronParams, State, li_step, lif_step, reset_membrane, rest
from neuro.nn.surrogate import AnySurrogate, SpikeFunction
from neuro.nn.surrogate import surrogate as make_surrogate

COEFFICIENTS = ("alpha", "gain_syn", "beta", "gain", "drive", "v_threshold", "v_reset")
LEARNABLE = ("alpha", "beta", "v_threshold")
Value = float | Tensor | np.ndarray[Any, Any]


class Temporal(nn.Module):
    """A layer with memory. forward: [time, batch, ...] -> [time, batch, ...], from rest."""

    spiking = False

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One step of `forward`; state None means rest. x: [batch, ...]. Returns (y, state)."""
        raise NotImplementedError

    def resume(self, x: Tensor, carry: Carry) -> Tensor:
        """`forward` from where the last piece of a long sample left off; no gradient flows between pieces.

        Raises:
            NetworkError: this kind of layer cannot be run in pieces.
        """
        raise NetworkError(f"{type(self).__name__} cannot run a long sample in pieces; leave out carry")


class Population(Temporal):
    """Base of neurons, whatever their state: what `Recurrent` and a membrane readout ask of them."""

    grid: Callable[[], fused.StateGrid] | None = None  # set by neuro.nn.grid.settle

    def run(
        self,
        current: Tensor,
        weight: Tensor | None = None,
        *,
        entering: tuple[Tensor, Tensor | None] | None = None,
        carry: Carry | None = None,
        membrane: bool = True,
    ) -> tuple[Tensor, Any]:
        """(spikes, v before the reset) for currents [time, batch, ...]; v may be None where no membrane is wanted.

        weight, entering: of neurons that listen to themselves, and (weight, bias) of a Linear in front of those, see
        `recurrent.run`.
        """
        raise NotImplementedError

    def with_membrane(
        self, current: Tensor, weight: Tensor | None = None, *, carry: Carry | None = None
    ) -> tuple[Tensor, Tensor]:
        """(output, v after the reset), both [time, batch, ...]; v is what a membrane readout sees."""
        raise NotImplementedError

    def membrane(self, state: Any) -> Tensor:
        """v after the reset, of a state that `step` returned."""
        raise NotImplementedError


class Neuron(Population):
    """Base of all neurons: coefficients of `neurons.NeuronParams` per step.

    Fixed ones are float64 buffers, cast to the currents' dtype where they meet them.

    Args:
        v_threshold, v_reset, gain_syn, gain, drive, alpha, beta: numbers, or arrays of the
            population's shape (one value per neuron).
        reset: "hard" or "subtract". detach: no gradient through the reset.
        surrogate: a name, a `Surrogate`, or a callable.
        learn: which of "alpha", "beta", "v_threshold" are trained. A decay is trained as
            sigmoid(w), which keeps it in (0, 1) (Fang et al. 2021, arXiv:2007.05785).

    Raises:
        NetworkError: a decay outside [0, 1], NaN or infinite values, unknown reset or learn.
    """

    synapse = False
    leaky = True  # False: an integrator

    def __init__(
        self,
        *,
        alpha: Value = 0.0,
        beta: Value = 1.0,
        v_threshold: Value = 1.0,
        v_reset: Value = 0.0,
        gain_syn: Value = 1.0,
        gain: Value = 1.0,
        drive: Value = 0.0,
        reset: str = "hard",
        detach: bool = False,
        surrogate: str | SpikeFunction | AnySurrogate = "fast_sigmoid",
        learn: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        given = {"alpha": alpha, "beta": beta, "v_threshold": v_threshold, "v_reset": v_reset}
        given |= {"gain_syn": gain_syn, "gain": gain, "drive": drive}
        tensors = {name: torch.from_numpy(np.array(value, np.float64)) for name, value in given.items()}
        self._check(tensors, reset, learn)
        self.reset, self.detach, self.learn = reset, detach, tuple(learn)
        self.surrogate = make_surrogate(surrogate)
        for name, value in tensors.items():
            if name in learn:
                start = torch.logit(value) if name != "v_threshold" else value
                self.register_parameter(f"{name}_learnt", nn.Parameter(start.to(torch.get_default_dtype())))
            else:
                self.register_buffer(f"{name}_fixed", value)

    def _check(self, values: dict[str, Tensor], reset: str, learn: tuple[str, ...]) -> None:
        bad = [f"{n} holds values that are NaN or infinite" for n, v in values.items() if not v.isfinite().all()]
        if reset not in RESETS:
            bad.append(f"reset must be one of {RESETS}, got {reset!r}")
        unknown = [n for n in learn if n not in LEARNABLE]
        if unknown:
            bad.append(f"learn may hold {LEARNABLE}, got {unknown}")
        for name, used in (("alpha", self.synapse), ("beta", self.leaky)):
            value = values[name]
            if not used and name in learn:
                bad.append(f"{type(self).__name__} has no {name} to learn")
            elif used and not ((value >= 0) & (value < 1)).all():
                bad.append(f"{name} must lie in [0, 1), it spans {value.min():g}..{value.max():g}")
            elif name in learn and not (value > 0).all():
                bad.append(f"{name} must be above 0 to be learnt")
        if bad:
            raise NetworkError(f"{type(self).__name__} cannot be built", bad)

    def value(self, name: str) -> Tensor:
        """A coefficient by its name in `NeuronParams`."""
        if name not in self.learn:
            fixed: Any = self._buffers[f"{name}_fixed"]  # get_buffer takes four times as long
            return fixed  # type: ignore[no-any-return]
        learnt = self.get_parameter(f"{name}_learnt")
        return learnt if name == "v_threshold" else torch.sigmoid(learnt)

    def settled(self, name: str) -> Tensor:
        """`value` as a chip holds it: decays and thresholds rounded, where the neuron is on a grid."""
        value = self.value(name)
        if self.grid is None or name not in ("alpha", "beta", "v_threshold", "v_reset"):
            return value
        grid = self.grid()
        step = {"v_threshold": grid.unit, "v_reset": grid.unit / grid.fraction}.get(name, 2.0**-grid.decay_bits)
        rounded = torch.round(value.double() / step) * step
        if name == "v_threshold" and not grid.state:
            rounded = rounded.clamp(min=step)  # a learnt one may have sunk to zero, where no chip has a register
        return value + (rounded - value).detach()  # the gradient goes straight through

    def params(self, dtype: torch.dtype) -> NeuronParams:
        """All coefficients, for the step functions."""
        values = {n: self.settled(n).to(dtype) for n in COEFFICIENTS}
        return NeuronParams(**values, reset=self.reset, detach=self.detach)

    def run(
        self,
        current: Tensor,
        weight: Tensor | None = None,
        *,
        entering: tuple[Tensor, Tensor | None] | None = None,
        carry: Carry | None = None,
        membrane: bool = True,
    ) -> tuple[Tensor, Any]:
        """As `Population.run`. On a grid currents and weight come in weight integers; v is in reals either way."""
        if plain.wanted(current):
            return plain.neuron(self, current, weight, entering, carry)
        grid = None if self.grid is None else self.grid()
        values = {n: self.value(n) for n in COEFFICIENTS}
        if grid is not None and not grid.state:
            current, weight = current * grid.unit, None if weight is None else weight * grid.unit
            values, grid = {n: self.settled(n) for n in COEFFICIENTS}, None
        rule = fused.Rule(self.surrogate, self.reset, self.detach, self.spiking, grid)
        if weight is None:
            return fused.run(current, rule, carry=carry, membrane=membrane, **values)
        w_in, bias = entering or (None, None)
        return recurrent.run(current, rule, weight, w_in=w_in, bias=bias, carry=carry, membrane=membrane, **values)

    def with_membrane(
        self, current: Tensor, weight: Tensor | None = None, *, carry: Carry | None = None
    ) -> tuple[Tensor, Tensor]:
        """(output, v after the reset), both [time, batch, ...]; v is what a membrane readout sees."""
        spikes, v = self.run(current, weight, carry=carry)
        return (spikes, reset_membrane(v, spikes, self.params(v.dtype))) if self.spiking else (v, v)

    def membrane(self, state: State) -> Tensor:
        """v after the reset, of a state that `step` returned."""
        return state.v

    def forward(self, current: Tensor) -> Tensor:
        """`Spikes` of a spiking neuron, v of an integrator; [time, batch, ...] like the current."""
        return self.run(current, membrane=False)[0]

    def resume(self, x: Tensor, carry: Carry) -> Tensor:
        """`forward` from the state in ``carry`` (`neurons.State`, v after the reset), which it replaces."""
        return self.run(x, carry=carry, membrane=False)[0]

    def step(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """One step, in plain torch operations.

        Raises:
            NetworkError: the neuron is on a grid; integers run over whole time only.
        """
        if self.grid is not None:
            raise NetworkError("a loop over several layers cannot run on a chip's integers in training; use Recurrent")
        state = rest(x) if state is None else state
        if self.spiking:
            return lif_step(x, state, self.params(x.dtype), self.surrogate)
        return li_step(x, state, self.params(x.dtype))

    def extra_repr(self) -> str:
        shown = ["alpha"] * self.synapse + ["beta"] * self.leaky + ["v_threshold"] * self.spiking
        with torch.no_grad():
            parts = [f"{n}={self.value(n).mean():.4g}" for n in shown]
        parts += [f"reset={self.reset!r}"] * self.spiking + [f"learn={self.learn}"] * bool(self.learn)
        return ", ".join(parts)


class IF(Neuron):
    """Integrate-and-fire: v = v + gain x."""

    spiking, leaky = True, False

    def __init__(self, v_threshold: Value = 1.0, **options: Any) -> None:
        super().__init__(v_threshold=v_threshold, **options)


class LIF(Neuron):
    """Leaky integrate-and-fire: v = beta v + gain x."""

    spiking = True

    def __init__(self, beta: Value = 0.9, v_threshold: Value = 1.0, **options: Any) -> None:
        super().__init__(beta=beta, v_threshold=v_threshold, **options)


class LI(Neuron):
    """Leaky integrator, a readout: v = beta v + gain x."""

    def __init__(self, beta: Value = 0.9, **options: Any) -> None:
        super().__init__(beta=beta, **options)


class CubaLIF(Neuron):
    """Current-based leaky integrate-and-fire: i = alpha i + gain_syn x, v = beta v + gain i."""

    spiking, synapse = True, True

    def __init__(self, alpha: Value = 0.8, beta: Value = 0.9, v_threshold: Value = 1.0, **options: Any) -> None:
        super().__init__(alpha=alpha, beta=beta, v_threshold=v_threshold, **options)


class CubaLI(Neuron):
    """Current-based leaky integrator, a readout: i = alpha i + gain_syn x, v = beta v + gain i."""

    synapse = True

    def __init__(self, alpha: Value = 0.8, beta: Value = 0.9, **options: Any) -> None:
        super().__init__(alpha=alpha, beta=beta, **options)


def decays(tau_mem: float, dt: float, tau_syn: float | None = None, rule: str = "exact") -> dict[str, float]:
    """{"beta": ..., "alpha": ...} from time constants in seconds: ``LIF(**decays(0.02, dt=0.001))``.

    Raises:
        NetworkError: as `neuro.discretise.decay`; a time constant that is not positive.
    """
    taus = {"beta": tau_mem} | ({} if tau_syn is None else {"alpha": tau_syn})
    bad = [f"{n}: time constants must be positive, got {t!r}" for n, t in taus.items() if not t > 0]
    if bad:
        raise NetworkError("decays cannot be computed", bad)
    return {name: float(discretise.decay(np.array(t), dt, rule)) for name, t in taus.items()}


def weights(layer: Any) -> tuple[Tensor, Tensor | None]:
    """(weight, bias) as a layer uses them: its integers where it is on a grid (`neuro.nn.grid`), masked if it is."""
    if hasattr(layer, "integers"):
        return layer.integers()  # type: ignore[no-any-return]
    return layer.real() if hasattr(layer, "real") else (layer.weight, layer.bias)


class Recurrent(Temporal):
    """A neuron layer whose spikes return to it one step later: current x[t] + W s[t-1].

    neuron: a spiking `Neuron` or `adaptive.AdLIF`.
    weight: [n, n], target by source; the layer's populations are vectors. x: [time, batch, n].

    Raises:
        NetworkError: the neuron does not spike, or n is not positive.
    """

    spiking = True

    def __init__(self, neuron: Population, n: int) -> None:
        super().__init__()
        if not neuron.spiking or n < 1:
            raise NetworkError(f"Recurrent needs a spiking neuron and n >= 1, got {type(neuron).__name__}, n = {n}")
        self.neuron = neuron
        self.recurrent = nn.Linear(n, n, bias=False)

    def forward(self, current: Tensor) -> Tensor:
        """`Spikes` [time, batch, n]."""
        return self.neuron.run(current, weights(self.recurrent)[0], membrane=False)[0]

    def resume(self, x: Tensor, carry: Carry) -> Tensor:
        """`forward` from the state in ``carry``, one as `step` returns it, which it replaces."""
        return self.neuron.run(x, weights(self.recurrent)[0], carry=carry, membrane=False)[0]

    def with_membrane(self, current: Tensor, *, carry: Carry | None = None) -> tuple[Tensor, Tensor]:
        """(spikes, v after the reset), both [time, batch, n]."""
        return self.neuron.with_membrane(current, weights(self.recurrent)[0], carry=carry)

    def membrane(self, state: Any) -> Tensor:
        """v after the reset, of a state that `step` returned."""
        return self.neuron.membrane(state[0])

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        inner, spikes = (None, torch.zeros_like(x)) if state is None else state
        spikes, inner = self.neuron.step(x + self.recurrent(spikes), inner)
        return spikes, (inner, spikes)
