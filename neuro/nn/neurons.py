"""Neurons as pure step functions: parameters and state in, output and state out.

One equation covers all six models; a model is a choice of coefficients::

    i[t] = alpha i[t-1] + gain_syn x[t]                   synapse
    v[t] = beta v[t-1] + gain i[t] + drive                membrane
    s[t] = 1 if v[t] > v_threshold else 0                 strictly
    v[t] <- v_reset where s[t] = 1        (reset "hard")
    v[t] <- v[t] - v_threshold s[t]       (reset "subtract")

============ ======== ======= ========= =================== ==================
model        alpha    beta    gain_syn  gain                fires
============ ======== ======= ========= =================== ==================
IF           0        1       1         r                   yes
LIF, LI      0        b       1         (1 - b) r           LIF
CubaLIF, -LI a        b       (1-a) w   (1 - b) r           CubaLIF
============ ======== ======= ========= =================== ==================

a and b are `neuro.discretise.decay`; these are the equations of `neuro.ir` with its coefficients
multiplied out. Trained networks use gain = gain_syn = 1, v = beta v + W s: r = 1 / (1 - b) in the IR.

``detach`` keeps the gradient from flowing through the spike of the reset term (Zenke & Vogels 2021).
These functions are the meaning; `neuro.nn.fused` runs the same thing over whole time.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from neuro.nn.surrogate import AnySurrogate

Number = Tensor | float


class NeuronParams(NamedTuple):
    """Coefficients per step; each a number or a tensor that broadcasts over [batch, ...].

    ``NeuronParams(beta=0.9)`` is a trained LIF, ``NeuronParams(alpha=0.8, beta=0.9)`` a CubaLIF and
    ``NeuronParams()`` an IF.
    """

    alpha: Number = 0.0
    gain_syn: Number = 1.0
    beta: Number = 1.0
    gain: Number = 1.0
    drive: Number = 0.0
    v_threshold: Number = 1.0
    v_reset: Number = 0.0
    reset: str = "hard"
    detach: bool = False


class State(NamedTuple):
    """What a neuron keeps between steps: synaptic current i and membrane v, [batch, ...]."""

    i: Tensor
    v: Tensor


def rest(current: Tensor) -> State:
    """The state at the start of a sample: zeros shaped like one step of input [batch, ...]."""
    return State(torch.zeros_like(current), torch.zeros_like(current))


def reset_membrane(v: Tensor, spikes: Tensor, p: NeuronParams) -> Tensor:
    """The membrane after the reset that ``spikes`` cause."""
    s = spikes.detach() if p.detach else spikes
    if p.reset == "subtract":
        return v - p.v_threshold * s
    return v * (1.0 - s) + p.v_reset * s  # exact for s of 0 and 1, unlike v + (v_reset - v) s


def li_step(current: Tensor, state: State, p: NeuronParams) -> tuple[Tensor, State]:
    """One step of LI or CubaLI. current: [batch, ...]. Returns (v, state)."""
    i = p.alpha * state.i + p.gain_syn * current
    v = p.beta * state.v + p.gain * i + p.drive
    return v, State(i, v)


def lif_step(current: Tensor, state: State, p: NeuronParams, surrogate: AnySurrogate) -> tuple[Tensor, State]:
    """One step of IF, LIF or CubaLIF. current: [batch, ...]. Returns (spikes, state)."""
    v, state = li_step(current, state, p)
    spikes = surrogate(v - p.v_threshold)
    return spikes, State(state.i, reset_membrane(v, spikes, p))
