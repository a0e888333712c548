"""Fixed-point numbers of the SpiNNaker kernels (sPyNNaker 7.4.1): s16.15 in int32, u0.32 in uint32.

Sums, differences and products wrap modulo 2^32; nothing here saturates. All functions take and give
integers that fit int64, and work the same compiled and as ``.py_func``. Constants are compiled in (neuro.jit).

    mul(a, b)      (a b) >> 15, floor                          accum times accum
    decayed(s, u)  (s u) >> 32, floor                          accum times unsigned long fract
    kdivk(a, b)    (a << 15) / b, as unsigned 64-bit integers
    expk(n)        e^n as s16.15, expulr(n) the same as u0.32; tables and a polynomial, exact bits below
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.jit import kernel

Integer = int | np.integer[Any]
ONE = 1 << 15  # 1.0 in s16.15
LOWEST, HIGHEST = -(1 << 31), (1 << 31) - 1
EXP_LOWEST, EXP_HIGHEST = -340695, 363408  # arguments of the exponential; below it is 0, above the largest number
U = np.uint64
MASK32 = U(0xFFFFFFFF)
QUARTER = U(32)
ROUND_UP = U(0x7FFFFFFF)  # the low word from which on a product is rounded up
CUBIC, SQUARE, ALONE = U(2081624032), U(4293434720), U(5294)  # 1 - e^-x for x below 1/16


def _rounded(power: Decimal) -> int:
    """power 2^32 to the nearest integer."""
    return int((power * (1 << 32)).to_integral_value(ROUND_HALF_EVEN))


_EXACT = Context(prec=60)
_FIRST = -11  # of HI; e^z for z = -11..12
HI = np.array([_rounded(_EXACT.exp(Decimal(z))) for z in range(_FIRST, 13)], np.uint64)
MID = np.array([_rounded(1 - _EXACT.exp(Decimal(-i) / 16)) for i in range(16)], np.uint64)


@kernel
def wrap32(x: Integer) -> Any:
    """The low 32 bits of x as a signed number."""
    return ((x + 2147483648) & 4294967295) - 2147483648


@kernel
def mul(a: Integer, b: Integer) -> Any:
    """s16.15 a b, rounded down, wrapped."""
    return wrap32((np.int64(a) * np.int64(b)) >> 15)


@kernel
def decayed(s: Integer, u: Integer) -> Any:
    """s16.15 s times u0.32 u (0..2^32-1), rounded down."""
    return wrap32((np.int64(s) * np.int64(u)) >> 32)


@kernel
def kdivk(a: Integer, b: Integer) -> Any:
    """s16.15 a / b. For positive numbers rounded down; a negative a is taken modulo 2^64 before it is divided.

    b must not be 0 (the division traps nowhere on the machine, and means nothing)."""
    quotient = (U(np.int64(a)) << U(15)) // U(np.int64(b))
    return wrap32(np.int64(quotient & MASK32))


@kernel
def whole_steps(time: Integer, step: Integer) -> Any:
    """time / step, rounded up to a whole number. The rounding itself does not wrap."""
    return (kdivk(time, step) + 32767) >> 15


@kernel
def _scaled(x: Any, fraction: Any) -> Any:
    """x fraction / 2^32, rounded up from ROUND_UP on; x < 2^50, fraction < 2^32."""
    low = (x & MASK32) * fraction
    up = U(1) if (low & MASK32) >= ROUND_UP else U(0)
    return (x >> QUARTER) * fraction + (low >> QUARTER) + up


@kernel
def _exp(n: Integer) -> Any:
    """e^n times 2^32, n in s16.15 within EXP_LOWEST..EXP_HIGHEST."""
    whole = n >> 15
    rest = n - (whole << 15)
    if rest == 0:
        return HI[whole + 11]
    down = 32768 - rest  # e^n = e^(whole + 1) e^-down
    total = HI[whole + 12]
    total -= _scaled(total, MID[down >> 11])
    y = U(down & 0x7FF) << U(17)
    s = (((SQUARE - ((CUBIC * y) >> QUARTER)) * y) >> QUARTER) + ALONE
    return total - _scaled(total, s)


@kernel
def expk(n: Integer) -> Any:
    """e^n, both s16.15."""
    if n < -340695:
        return 0
    if n > 363408:
        return 2147483647
    return wrap32(np.int64(_exp(n) >> U(17)))


@kernel
def expulr(n: Integer) -> Any:
    """e^n for n <= 0 in s16.15, as u0.32 in 0..2^32-1. 1.0 has no such number: expulr(0) is 0."""
    if n < -340695:
        return 0
    if n > 363408:
        return 2147483647
    return np.int64(_exp(n) & MASK32)


def raw(x: ArrayLike) -> NDArray[np.int64]:
    """Real numbers as s16.15, to the nearest, ties to even, as the host writes arrays. Not wrapped: compare with
    LOWEST and HIGHEST before it is loaded."""
    return np.rint(np.asarray(x, np.float64) * ONE).astype(np.int64)
