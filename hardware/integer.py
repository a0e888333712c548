"""Bit-exact integer helpers that chips share, on scalars, for use inside kernels.

Each works on numpy integers or Python integers that fit int64. "32-bit" ones do all arithmetic
modulo 2**32 in two's complement, as a register does.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neuro.jit import kernel

I32 = np.int32
Integer = int | np.signedinteger[Any]


@kernel
def saturate(x: Integer, low: Integer, high: Integer) -> Integer:
    """The nearest value in low..high."""
    return min(max(x, low), high)


@kernel
def wrap(x: Integer, bits: Integer) -> Integer:
    """Two's complement in ``bits`` (1..62) bits: the value in [-2^(bits-1), 2^(bits-1)) congruent to x."""
    half = np.int64(1) << np.int64(bits - 1)
    return ((np.int64(x) + half) & (half + half - 1)) - half


@kernel
def wrap_once(x: np.int32) -> np.int32:
    """Lava's overflow of the 24-bit synaptic current, M = 2^23: x > M -> x - 2M; x <= -M -> x + 2M.

    Not two's complement: +M stays, -M becomes +M, and beyond three M the result is still outside.
    """
    if x > I32(8388608):
        return I32(x - I32(16777216))
    if x <= I32(-8388608):
        return I32(x + I32(16777216))
    return x


@kernel
def shift_to_zero(x: Integer, bits: Integer) -> Integer:
    """x / 2^bits rounded toward zero; a bare >> rounds toward minus infinity."""
    return x >> bits if x >= 0 else -((-x) >> bits)


@kernel
def shift(x: Integer, exponent: Integer) -> Integer:
    """x 2^exponent; a negative exponent rounds toward minus infinity (floor), as a bare >> does."""
    return x << exponent if exponent > 0 else x >> -exponent


@kernel
def decay(x: np.int32, keep: np.int32) -> np.int32:
    """x keep / 4096 rounded toward zero, for any int32 x and 0 <= keep <= 4096, in 32-bit lanes.

    With x = 4096 h + l, 0 <= l < 4096: x keep / 4096 = h keep + l keep / 4096. Only the second term
    has a remainder; adding 4095 to it where x < 0 turns the floor of >> into rounding toward zero.
    The product x keep itself needs 44 bits, which would halve the width of the vector unit.
    """
    high = I32(x >> 12)
    low = I32(x & 4095)
    up = I32(I32(x >> 31) & 4095)
    return I32(I32(high * keep) + I32(I32(I32(low * keep) + up) >> 12))
