"""One step of each neuron model of Loihi 2, compiled. Lava's fixed-point process models of 0.10.0, bit for bit.

All arithmetic is int32 modulo 2^32 where Lava's is, int64 where Lava's is. M = 2^23; tz rounds toward zero.

LIF, and what is made of it (lava.proc.lif: PyLifModelBitAcc, PyTernLifModelFixed, PyLifResetModelBitAcc)::

    u = once(tz(u (4095 - du) / 4096) + (a << 6))      once: u > M -> u - 2M; u <= -M -> u + 2M
    v = clip(tz(v (4096 - dv) / 4096) + u + bias, -M + 1, M - 1)
    "lif", "li"       s = v > vth << 6;                                  v = 0 there
    "ternary_lif"     s = (v > vth_hi << 6) - (v < vth_lo << 6);         v = 0 where s is not 0
    "lif_reset"       as "lif"; u = v = 0 before step t (from 1) with t % interval == offset % interval

Sigma-delta (lava.proc.sdn: PySigmaModelFixed, PyDeltaModelFixed, PySigmaDeltaModelFixed), vth, bias as held::

    "sigma"           sigma += a;  s = sigma
    "sigma_delta"     sigma += a;  new = sigma + bias, at least 0 with relu
    "delta"           new = a << (spike_exp + state_exp)
    both              d = new - act + residue;  act = new
                      out = d where |e| >= vth, else 0; residue = d - out; s = out >> state_exp (floor)
                      e = d, or with cum_error: error += d; e = error; error = 0 where out is not 0

Resonators (lava.proc.rf, rf_iz: PyRFModelFixed, PyRF_IZModelFixed), D = decay_bits, both clipped to +-(M - 1)::

    real' = tz(cos real / 2^D) - tz(sin imag / 2^D) + (a << state_exp)
    imag' = tz(sin real / 2^D) + tz(cos imag / 2^D) + (a_imag << state_exp)
    "rf"              s = real' >= vth and imag' >= 0 and imag < 0; nothing is reset
    "rf_iz"           s = imag' >= vth; there real' = 0, imag' = vth - 1
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.integer import decay, saturate, wrap_once
from neuro.jit import disjoint, kernel

I32 = np.int32
I64 = np.int64
U = np.uintp  # an index that cannot be negative: the compiler drops Python's wrap-around and vectorises
LIMIT = np.int32((1 << 23) - 1)
WIDE_LIMIT = np.int64((1 << 23) - 1)
# models, compiled into kernels (neuro.jit); an input is LIF that nobody steps
LIF, TERNARY, SIGMA, SIGMA_DELTA, RF, RF_IZ = 0, 1, 2, 3, 4, 5
RELU, CUMULATIVE, INTEGRATES = 1, 2, 4  # flags of SIGMA_DELTA; "delta" does not integrate

Int32 = NDArray[np.int32]
Bytes = NDArray[np.uint8]


@disjoint
def update(
    lo: int,
    hi: int,
    u: Int32,
    v: Int32,
    a: Int32,
    keep_u: Int32,
    keep_v: Int32,
    bias: Int32,
    threshold: Int32,
    fired: Bytes,
    first: int,
) -> None:
    """One step of neurons lo..hi-1, in place; a is consumed (left zero). fired[first + i - lo]: i spikes."""
    ahead = U(first) - U(lo)
    for k in range(U(lo), U(hi)):
        i = U(k)
        current = wrap_once(I32(decay(u[i], keep_u[i]) + I32(a[i] << 6)))
        drift = I32(decay(v[i], keep_v[i]) + current)
        membrane = saturate(I32(drift + bias[i]), -LIMIT, LIMIT)
        spike = membrane > threshold[i]
        u[i] = current
        v[i] = I32(0) if spike else membrane
        fired[i + ahead] = spike
        a[i] = 0


@kernel
def update_ternary(
    lo: int,
    hi: int,
    u: Int32,
    v: Int32,
    a: Int32,
    keep_u: Int32,
    keep_v: Int32,
    bias: Int32,
    high: Int32,
    low: Int32,
    sent: Int32,
    fired: Bytes,
    first: int,
) -> None:
    """As `update`, with two thresholds. sent: -1, 0 or 1."""
    ahead = U(first) - U(lo)
    for k in range(U(lo), U(hi)):
        i = U(k)
        current = wrap_once(I32(decay(u[i], keep_u[i]) + I32(a[i] << 6)))
        drift = I32(decay(v[i], keep_v[i]) + current)
        membrane = saturate(I32(drift + bias[i]), -LIMIT, LIMIT)
        spike = I32(I32(membrane > high[i]) - I32(membrane < low[i]))
        u[i] = current
        v[i] = I32(0) if spike != 0 else membrane
        sent[i] = spike
        fired[i + ahead] = spike != 0
        a[i] = 0


@kernel
def update_sigma(lo: int, hi: int, sigma: Int32, a: Int32, sent: Int32, fired: Bytes, first: int) -> None:
    """A sum over time, sent as it is."""
    ahead = U(first) - U(lo)
    for k in range(U(lo), U(hi)):
        i = U(k)
        total = I32(sigma[i] + a[i])
        sigma[i] = total
        sent[i] = total
        fired[i + ahead] = total != 0
        a[i] = 0


@kernel
def update_sigma_delta(
    lo: int,
    hi: int,
    sigma: Int32,
    act: Int32,
    residue: Int32,
    error: Int32,
    a: Int32,
    shift_in: Int32,
    flags: Int32,
    bias: Int32,
    threshold: Int32,
    shift_out: Int32,
    sent: Int32,
    fired: Bytes,
    first: int,
) -> None:
    """ "sigma_delta" and "delta"; see the module's docstring."""
    ahead = U(first) - U(lo)
    for k in range(U(lo), U(hi)):
        i = U(k)
        if flags[i] & INTEGRATES:
            total = I32(sigma[i] + a[i])
            sigma[i] = total
            new = I32(total + bias[i])
            if flags[i] & RELU and new < 0:
                new = I32(0)
        else:
            new = I32(a[i] << shift_in[i])
        delta = I32(I32(new - act[i]) + residue[i])
        judged = I32(error[i] + delta) if flags[i] & CUMULATIVE else delta
        size = judged if judged >= 0 else I32(-judged)  # the lowest int32 stays negative, as in NumPy
        out = delta if size >= threshold[i] else I32(0)
        if flags[i] & CUMULATIVE:
            # Lava asks |out| > 0, which is false of the lowest int32
            error[i] = I32(0) if out != 0 and out != I32(-2147483648) else judged
        residue[i] = I32(delta - out)
        act[i] = new
        message = I32(out >> shift_out[i])
        sent[i] = message
        fired[i + ahead] = message != 0
        a[i] = 0


@kernel
def scaled(x: np.int64, keep: np.int64, bits: np.int64) -> np.int64:
    """x keep / 2^bits toward zero."""
    product = x * keep
    return product >> bits if product >= 0 else -((-product) >> bits)


@kernel
def update_resonator(
    lo: int,
    hi: int,
    imag: Int32,
    real: Int32,
    a: Int32,
    a_imag: Int32,
    cosine: Int32,
    sine: Int32,
    shift_in: Int32,
    threshold: Int32,
    bits: Int32,
    resets: bool,
    fired: Bytes,
    first: int,
) -> None:
    """ "rf", or with ``resets`` "rf_iz"; see the module's docstring."""
    ahead = U(first) - U(lo)
    for k in range(U(lo), U(hi)):
        i = U(k)
        re, im, c, s, d = I64(real[i]), I64(imag[i]), I64(cosine[i]), I64(sine[i]), I64(bits[i])
        new_re = scaled(re, c, d) - scaled(im, s, d) + I64(I32(a[i] << shift_in[i]))
        new_im = scaled(re, s, d) + scaled(im, c, d) + I64(I32(a_imag[i] << shift_in[i]))
        new_re = I64(saturate(new_re, -WIDE_LIMIT, WIDE_LIMIT))
        new_im = I64(saturate(new_im, -WIDE_LIMIT, WIDE_LIMIT))
        if resets:
            spike = new_im >= threshold[i]
            if spike:
                new_re, new_im = I64(0), I64(threshold[i]) - 1
        else:
            spike = new_re >= threshold[i] and new_im >= 0 and im < 0
        real[i] = I32(new_re)
        imag[i] = I32(new_im)
        fired[i + ahead] = spike
        a[i] = 0
        a_imag[i] = 0
