"""IF_curr_exp and IF_curr_delta: what the machine makes of a neuron's parameters, and one step of its neurons.

Step t, x the ring buffer of slot t shifted left, everything s16.15 unless said (neuro.jit compiles this in):

    exponential  exc += decayed(x, init);  e = exc          delta  exc += x;  e = mul(exc, 1/ts)       (inh alike)
    refract > 0: refract -= 1, v is held; else
        alpha = mul(e - i + i_offset + injected, r) + v_rest;   v = alpha - mul(exp_tc, alpha - v)
    spike where v >= threshold, refractory or not: v = v_reset, refract = t_refract
    exponential  exc = decayed(exc, decay)                   delta  exc = 0
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.spinnaker1.fixed import Integer, decayed, expk, expulr, kdivk, mul, whole_steps, wrap32
from neuro.hardware.spinnaker1.ring import Ring
from neuro.hardware.spinnaker1.words import BLOCK, WORDS
from neuro.jit import disjoint, kernel, piece, wide

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Bytes = NDArray[np.uint8]
EXP, DELTA = 0, 1
MODELS = {"curr_exp": EXP, "curr_delta": DELTA}


class Constants(NamedTuple):
    """Per neuron, s16.15 unless said. refract: whole steps. decay, init: u0.32 of both synapse types.

    Of a delta neuron, init_exc is 1 / time step and the other three are not used."""

    r: Int32
    exp_tc: Int32
    t_refract: Int32
    decay_exc: NDArray[np.uint32]
    init_exc: NDArray[np.uint32]
    decay_inh: NDArray[np.uint32]
    init_inh: NDArray[np.uint32]
    v_rest: Int32
    i_offset: Int32
    v_reset: Int32
    threshold: Int32


class State(NamedTuple):
    """Per neuron: s16.15 but for refract, which counts steps."""

    v: Int32
    refract: Int32
    exc: Int32
    inh: Int32


@kernel
def membrane_constants(words: Int64, r: Int32, exp_tc: Int32, t_refract: Int32) -> None:
    """words: [n, columns], the first of them those of BLOCK."""
    for i in range(r.size):
        r[i] = kdivk(words[i, 3], words[i, 2])
        exp_tc[i] = expk(wrap32(-kdivk(words[i, 8], words[i, 3])))
        t_refract[i] = wrap32(whole_steps(words[i, 6], words[i, 8]))


@kernel
def synapse_constants(tau: Int64, step: Int64, decay: NDArray[np.uint32], init: NDArray[np.uint32]) -> None:
    """Of an exponential synapse; 1.0 of u0.32 is 2^32 - 1."""
    for i in range(tau.size):
        left = expulr(wrap32(-kdivk(step[i], tau[i])))
        decay[i] = left
        init[i] = ((np.int64(kdivk(tau[i], step[i])) * (4294967295 - left)) >> 15) & 4294967295


@kernel
def input_constants(step: Int64, per_step: NDArray[np.uint32]) -> None:
    """Of a delta synapse: 1 / time step."""
    for i in range(step.size):
        per_step[i] = kdivk(32768, step[i])


def start(model: str, params: dict[str, Any] | Any, n: int) -> tuple[Constants, State]:
    """What the machine computes from the words of n neurons of a model when it loads them."""
    word = {name: np.broadcast_to(np.asarray(params[name], np.int64), n).copy() for name in WORDS[model]}
    low = {name: values.astype(np.int32) for name, values in word.items()}
    r, exp_tc, t_refract = (np.zeros(n, np.int32) for _ in range(3))
    membrane_constants(np.stack([word[name] for name in BLOCK], axis=1), r, exp_tc, t_refract)
    fract = [np.zeros(n, np.uint32) for _ in range(4)]
    if model == "curr_exp":
        synapse_constants(word["tau_exc"], word["synapse_step"], fract[0], fract[1])
        synapse_constants(word["tau_inh"], word["synapse_step"], fract[2], fract[3])
    else:
        input_constants(word["input_step"], fract[1])
    kept = (low[name] for name in ("v_rest", "i_offset", "v_reset", "threshold"))
    state = State(*(low[name] for name in ("v_init", "refract_init", "init_exc", "init_inh")))
    return Constants(r, exp_tc, t_refract, *fract, *kept), state  # type: ignore[arg-type]


@disjoint
def update_exp(
    c: Constants, s: State, lo: Integer, hi: Integer, ring: Ring, exc_at: Integer, inh_at: Integer,
    exc_shift: Integer, inh_shift: Integer, injected: Int32, fired: Int32, at: Integer,
) -> Any:  # fmt: skip
    """One step of neurons lo..hi-1 with exponential synapses; takes and clears ring[exc_at:] and ring[inh_at:].

    injected: s16.15 per neuron, or empty. Writes i - lo of those that spike to fired[at:], returns how many."""
    wide()
    for k in range(np.uintp(hi - lo)):
        i = np.uintp(lo) + np.uintp(k)
        at_exc, at_inh = np.uintp(exc_at) + np.uintp(k), np.uintp(inh_at) + np.uintp(k)
        x_exc, x_inh = wrap32(np.int64(ring[at_exc]) << exc_shift), wrap32(np.int64(ring[at_inh]) << inh_shift)
        ring[at_exc], ring[at_inh] = 0, 0
        exc = wrap32(np.int64(s.exc[i]) + decayed(x_exc, c.init_exc[i]))
        inh = wrap32(np.int64(s.inh[i]) + decayed(x_inh, c.init_inh[i]))
        extra = np.int64(injected[i]) if injected.size > 0 else np.int64(0)
        fired[np.uintp(at) + np.uintp(k)] = _membrane(c, s, i, exc, inh, extra)
        s.exc[i] = decayed(exc, c.decay_exc[i])
        s.inh[i] = decayed(inh, c.decay_inh[i])
    return _numbered(fired, at, hi - lo)


@disjoint
def update_delta(
    c: Constants, s: State, lo: Integer, hi: Integer, ring: Ring, exc_at: Integer, inh_at: Integer,
    exc_shift: Integer, inh_shift: Integer, injected: Int32, fired: Int32, at: Integer,
) -> Any:  # fmt: skip
    """As `update_exp`, of neurons whose input lasts one step."""
    wide()
    for k in range(np.uintp(hi - lo)):
        i = np.uintp(lo) + np.uintp(k)
        at_exc, at_inh = np.uintp(exc_at) + np.uintp(k), np.uintp(inh_at) + np.uintp(k)
        x_exc, x_inh = wrap32(np.int64(ring[at_exc]) << exc_shift), wrap32(np.int64(ring[at_inh]) << inh_shift)
        ring[at_exc], ring[at_inh] = 0, 0
        per_step = wrap32(np.int64(c.init_exc[i]))
        exc = mul(wrap32(np.int64(s.exc[i]) + x_exc), per_step)
        inh = mul(wrap32(np.int64(s.inh[i]) + x_inh), per_step)
        extra = np.int64(injected[i]) if injected.size > 0 else np.int64(0)
        fired[np.uintp(at) + np.uintp(k)] = _membrane(c, s, i, exc, inh, extra)
        s.exc[i], s.inh[i] = 0, 0
    return _numbered(fired, at, hi - lo)


@piece
def _membrane(c: Constants, s: State, i: Integer, exc: Integer, inh: Integer, extra: Integer) -> Any:
    """Membrane, threshold and reset of neuron i; 1 if it spikes. Without branches, so that it is done for several
    neurons at once."""
    v, refract = np.int64(s.v[i]), np.int64(s.refract[i])
    waits = refract > 0
    current = np.int64(exc) - np.int64(inh) + np.int64(c.i_offset[i]) + extra
    alpha = wrap32(mul(wrap32(current), c.r[i]) + np.int64(c.v_rest[i]))
    moved = wrap32(alpha - mul(c.exp_tc[i], wrap32(alpha - v)))
    v = v if waits else np.int64(moved)
    spike = v >= c.threshold[i]
    left = refract - 1 if waits else refract
    s.v[i] = np.int64(c.v_reset[i]) if spike else v
    s.refract[i] = np.int64(c.t_refract[i]) if spike else left
    return np.int32(spike)


@piece
def _numbered(fired: Int32, at: Integer, many: Integer) -> Any:
    """From zeros and ones to the places of the ones, at the front; how many."""
    count = np.int64(0)
    for k in range(np.uintp(many)):
        found = fired[np.uintp(at) + np.uintp(k)]
        fired[np.uintp(at) + np.uintp(count)] = np.int32(k)
        count += np.int64(found)
    return count
