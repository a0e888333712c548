"""Adaptive neurons: a second state w that follows the membrane and the spikes, and holds the neuron back.

In one step, with v and w of the step before::

    u[t] = beta v[t-1] + gain x[t] + drive - w[t-1]              "symplectic", "euler": w is a current
    s[t] = 1 if u[t] > v_threshold else 0
    v[t] = v_reset where s[t] = 1 ("hard"), or u[t] - v_threshold s[t] ("subtract"), else u[t]
    w[t] = rho w[t-1] + a v[t] + b s[t]                          "symplectic"
    w[t] = rho w[t-1] + a v[t-1] + b s[t-1]                      "euler"

    u[t] = beta v[t-1] + gain x[t] + drive                       "threshold": w raises the threshold
    s[t] = 1 if u[t] > v_threshold + w[t-1] else 0
    w[t] = rho w[t-1] + b s[t]

"symplectic" is the SE-adLIF of Baronig et al. 2025 (Nat. Commun. 16, doi 10.1038/s41467-025-60878-z): stable where the
forward Euler scheme ("euler", Bittar & Garner 2022, Front. Neurosci. 16:865897) diverges. "threshold" is the ALIF of
Bellec et al. 2018 (arXiv:1803.09574). These papers normalise: u = beta v + (1 - beta) (x - w') and
w' = rho w' + (1 - rho) (a' v + b' s), as `neuro.ir.AdaptiveLIF` does. So w = (1 - beta) w', which here makes
gain = 1 - beta, a = (1 - beta) (1 - rho) a', b = (1 - beta) (1 - rho) b'; of a threshold, b = (1 - rho) b'.

These functions are the meaning; `neuro.nn.adaptive_run` runs the same thing over whole time.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from neuro.errors import NetworkError
from neuro.ir import ADAPTATIONS, RESETS
from neuro.nn import plain
from neuro.nn.adaptive_run import run
from neuro.nn.fused import Rule
from neuro.nn.joined import Carry
from neuro.nn.layers import Population, Value
from neuro.nn.neurons import NeuronParams, Number, reset_membrane
from neuro.nn.surrogate import AnySurrogate, SpikeFunction
from neuro.nn.surrogate import surrogate as make_surrogate

COEFFICIENTS = ("beta", "rho", "a", "b", "gain", "drive", "v_threshold", "v_reset")
DECAYS = ("beta", "rho")
LEARNABLE = ("beta", "rho", "a", "b", "v_threshold")


class AdaptiveParams(NamedTuple):
    """Coefficients per step; each a number or a tensor that broadcasts over [batch, ...]."""

    beta: Number = 0.9
    rho: Number = 0.95
    a: Number = 0.0
    b: Number = 0.0
    gain: Number = 1.0
    drive: Number = 0.0
    v_threshold: Number = 1.0
    v_reset: Number = 0.0
    reset: str = "hard"
    detach: bool = False
    adaptation: str = "symplectic"


class AdaptiveState(NamedTuple):
    """What an adaptive neuron keeps between steps: membrane v, adaptation w and spikes s, [batch, ...]."""

    v: Tensor
    w: Tensor
    s: Tensor


def adaptive_membrane(current: Tensor, state: AdaptiveState, p: AdaptiveParams) -> tuple[Tensor, Tensor]:
    """(u, u - threshold) of a step; a neuron fires where the second is above 0. current: [batch, ...]."""
    u = p.beta * state.v + p.gain * current + p.drive
    if p.adaptation == "threshold":
        return u, u - state.w - p.v_threshold
    u = u - state.w
    return u, u - p.v_threshold


def adaptive_rest(u: Tensor, spikes: Tensor, state: AdaptiveState, p: AdaptiveParams) -> AdaptiveState:
    """The state after a step whose membrane before the reset is u."""
    v = reset_membrane(u, spikes, NeuronParams(v_threshold=p.v_threshold, v_reset=p.v_reset, reset=p.reset,
                                               detach=p.detach))  # fmt: skip
    followed = (state.v, state.s) if p.adaptation == "euler" else (v, spikes)
    return AdaptiveState(v, p.rho * state.w + p.a * followed[0] + p.b * followed[1], spikes)


def adaptive_step(
    current: Tensor, state: AdaptiveState, p: AdaptiveParams, surrogate: AnySurrogate
) -> tuple[Tensor, AdaptiveState]:
    """One step. current: [batch, ...]. Returns (spikes, state)."""
    u, over = adaptive_membrane(current, state, p)
    spikes = surrogate(over)
    return spikes, adaptive_rest(u, spikes, state, p)


class AdLIF(Population):
    """Adaptive leaky integrate-and-fire neurons, see the module's equations.

    Args:
        beta, rho: decays per step of membrane and adaptation, in [0, 1). a, b: how much of the membrane and of a
            spike goes into w. v_threshold, v_reset, gain, drive: as for `LIF`. Numbers, or one value per neuron.
        adaptation: "symplectic", "euler" or "threshold"; the last has no a.
        reset, detach, surrogate: as for `LIF`.
        learn: which of "beta", "rho", "a", "b", "v_threshold" are trained. A decay is trained as sigmoid(x).

    Raises:
        NetworkError: a decay outside [0, 1), NaN or infinite values, unknown reset, adaptation or learn.
    """

    spiking = True

    def __init__(
        self,
        beta: Value = 0.9,
        rho: Value = 0.95,
        a: Value = 0.0,
        b: Value = 0.0,
        v_threshold: Value = 1.0,
        *,
        v_reset: Value = 0.0,
        gain: Value = 1.0,
        drive: Value = 0.0,
        adaptation: str = "symplectic",
        reset: str = "hard",
        detach: bool = False,
        surrogate: str | SpikeFunction | AnySurrogate = "fast_sigmoid",
        learn: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        given = {"beta": beta, "rho": rho, "a": a, "b": b, "v_threshold": v_threshold, "v_reset": v_reset}
        given |= {"gain": gain, "drive": drive}
        tensors = {name: torch.from_numpy(np.array(value, np.float64)) for name, value in given.items()}
        self._check(tensors, reset, adaptation, learn)
        self.reset, self.detach, self.adaptation, self.learn = reset, detach, adaptation, tuple(learn)
        self.surrogate = make_surrogate(surrogate)
        for name, value in tensors.items():
            if name in learn:
                start = torch.logit(value) if name in DECAYS else value
                self.register_parameter(f"{name}_learnt", nn.Parameter(start.to(torch.get_default_dtype())))
            else:
                self.register_buffer(f"{name}_fixed", value)

    def _check(self, values: dict[str, Tensor], reset: str, adaptation: str, learn: tuple[str, ...]) -> None:
        bad = [f"{n} holds values that are NaN or infinite" for n, v in values.items() if not v.isfinite().all()]
        bad += [] if reset in RESETS else [f"reset must be one of {RESETS}, got {reset!r}"]
        bad += [] if adaptation in ADAPTATIONS else [f"adaptation must be one of {ADAPTATIONS}, got {adaptation!r}"]
        unknown = [n for n in learn if n not in LEARNABLE]
        bad += [f"learn may hold {LEARNABLE}, got {unknown}"] if unknown else []
        if adaptation == "threshold" and (values["a"].any() or "a" in learn):
            bad.append("a threshold follows the spikes alone; leave out a")
        for name in DECAYS:
            if not ((values[name] >= 0) & (values[name] < 1)).all():
                bad.append(f"{name} must lie in [0, 1), it spans {values[name].min():g}..{values[name].max():g}")
            elif name in learn and not (values[name] > 0).all():
                bad.append(f"{name} must be above 0 to be learnt")
        if bad:
            raise NetworkError(f"{type(self).__name__} cannot be built", bad)

    def value(self, name: str) -> Tensor:
        """A coefficient by its name in `AdaptiveParams`."""
        if name not in self.learn:
            fixed: Any = self._buffers[f"{name}_fixed"]
            return fixed  # type: ignore[no-any-return]
        learnt = self.get_parameter(f"{name}_learnt")
        return torch.sigmoid(learnt) if name in DECAYS else learnt

    def params(self, dtype: torch.dtype) -> AdaptiveParams:
        """All coefficients, for the step functions."""
        values = {n: self.value(n).to(dtype) for n in COEFFICIENTS}
        return AdaptiveParams(**values, reset=self.reset, detach=self.detach, adaptation=self.adaptation)

    def run(
        self,
        current: Tensor,
        weight: Tensor | None = None,
        *,
        entering: tuple[Tensor, Tensor | None] | None = None,
        carry: Carry | None = None,
        membrane: bool = True,
    ) -> tuple[Tensor, Any]:
        """(spikes, u, or None where no membrane is wanted) for currents [time, batch, ...]; as `Neuron.run`."""
        if plain.wanted(current):
            return plain.adaptive(self, current, weight, entering, carry)
        rule = Rule(self.surrogate, self.reset, self.detach)
        values = {n: self.value(n) for n in COEFFICIENTS}
        w_in, bias = entering or (None, None)
        return run(current, rule, self.adaptation, weight, w_in=w_in, bias=bias, carry=carry, membrane=membrane,
                   **values)  # fmt: skip

    def forward(self, current: Tensor) -> Tensor:
        """`Spikes` [time, batch, ...] like the current."""
        return self.run(current, membrane=False)[0]

    def resume(self, x: Tensor, carry: Carry) -> Tensor:
        """`forward` from the state in ``carry`` (`AdaptiveState`), which it replaces."""
        return self.run(x, carry=carry, membrane=False)[0]

    def with_membrane(
        self, current: Tensor, weight: Tensor | None = None, *, carry: Carry | None = None
    ) -> tuple[Tensor, Tensor]:
        """(spikes, v after the reset), both [time, batch, ...]."""
        spikes, u = self.run(current, weight, carry=carry)
        p = self.params(u.dtype)
        return spikes, reset_membrane(u, spikes, NeuronParams(v_threshold=p.v_threshold, v_reset=p.v_reset,
                                                              reset=p.reset, detach=p.detach))  # fmt: skip

    def membrane(self, state: AdaptiveState) -> Tensor:
        """v after the reset, of a state that `step` returned."""
        return state.v

    def step(self, x: Tensor, state: AdaptiveState | None) -> tuple[Tensor, AdaptiveState]:
        """One step, in plain torch operations."""
        zero = torch.zeros_like(x)
        state = AdaptiveState(zero, zero, zero) if state is None else state
        return adaptive_step(x, state, self.params(x.dtype), self.surrogate)

    def extra_repr(self) -> str:
        with torch.no_grad():
            parts = [f"{n}={self.value(n).mean():.4g}" for n in LEARNABLE]
        parts += [f"adaptation={self.adaptation!r}", f"reset={self.reset!r}"]
        return ", ".join(parts + [f"learn={self.learn}"] * bool(self.learn))


class ALIF(AdLIF):
    """`AdLIF` whose threshold rises by b with each spike and falls back with rho: adaptation "threshold".

    Bellec et al. write v_threshold + beta_a a[t] with a[t] = rho a[t-1] + s: b is their beta_a.
    """

    def __init__(self, beta: Value = 0.9, rho: Value = 0.95, b: Value = 0.1, v_threshold: Value = 1.0, **options: Any):
        options.setdefault("reset", "subtract")
        super().__init__(beta, rho, 0.0, b, v_threshold, adaptation="threshold", **options)
