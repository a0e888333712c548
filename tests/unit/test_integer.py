"""Integer helpers against Python's unbounded integers, compiled and as plain Python."""

from __future__ import annotations

import numpy as np
import pytest
from axon_strategies import LAW
from hypothesis import example, given
from hypothesis import strategies as st

from neuro.hardware import integer

I32_MIN, I32_MAX, M = -(1 << 31), (1 << 31) - 1, 1 << 23
int32s = st.one_of(
    st.integers(I32_MIN, I32_MAX),
    st.integers(-5000, 5000),
    st.sampled_from([I32_MIN, I32_MAX, -M - 1, -M, -M + 1, M - 1, M, M + 1, -4096, 4096, 0]),
)


def both(name, *args):
    """The value of the compiled function, which must equal the value without the compiler."""
    function = getattr(integer, name)
    compiled = function(*args)
    with np.errstate(over="ignore"):
        plain = getattr(function, "py_func", function)(*args)
    assert int(compiled) == int(plain)
    return int(compiled)


@LAW
@given(int32s, st.integers(0, 4096))
@example(I32_MIN, 4096)
@example(-1, 4095)
@example(-1, 4096)
def test_decay_rounds_the_44_bit_product_toward_zero(x, keep):
    product = x * keep
    expected = (abs(product) // 4096) * (1 if product >= 0 else -1)
    assert both("decay", np.int32(x), np.int32(keep)) == expected


@LAW
@given(int32s, st.integers(0, 4096))
def test_decay_never_grows_and_keeps_the_sign(x, keep):
    y = both("decay", np.int32(x), np.int32(keep))
    assert abs(y) <= abs(x)
    assert y == 0 or (y > 0) == (x > 0)


@LAW
@given(int32s)
@example(M)
@example(-M)
@example(M + 1)
def test_wrap_once_adds_or_takes_one_turn_and_keeps_plus_m(x):
    y = both("wrap_once", np.int32(x))
    expected = x - 2 * M if x > M else x + 2 * M if x <= -M else x
    assert y == expected
    assert (y - x) % (2 * M) == 0
    if -3 * M < x <= 3 * M:
        assert -M < y <= M


@LAW
@given(st.integers(-(1 << 61), (1 << 61) - 1), st.integers(1, 62))
def test_wrap_is_twos_complement(x, bits):
    y = both("wrap", np.int64(x), bits)
    assert -(1 << (bits - 1)) <= y < 1 << (bits - 1)
    assert (y - x) % (1 << bits) == 0


@LAW
@given(st.integers(-(1 << 62), 1 << 62), st.integers(0, 40))
def test_shift_to_zero_divides_toward_zero(x, bits):
    assert both("shift_to_zero", x, bits) == (abs(x) // 2**bits) * (1 if x >= 0 else -1)


@LAW
@given(st.integers(-(1 << 40), 1 << 40), st.integers(-20, 20))
def test_shift_floors_where_the_exponent_is_negative(x, exponent):
    assert both("shift", x, exponent) == (x * 2**exponent if exponent > 0 else x // 2**-exponent)


@LAW
@given(int32s, int32s, int32s)
def test_saturate_is_the_nearest_value_inside(x, a, b):
    low, high = sorted((a, b))
    assert both("saturate", x, low, high) == sorted((low, x, high))[1]


@pytest.mark.parametrize("name", ["saturate", "wrap", "wrap_once", "shift_to_zero", "shift", "decay"])
def test_every_helper_is_compiled(name):
    import os

    if os.environ.get("NUMBA_DISABLE_JIT", "0") == "0":
        assert hasattr(getattr(integer, name), "py_func")
