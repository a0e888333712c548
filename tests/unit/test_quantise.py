"""Rounding, saturation, grids, registers: against numbers worked out by hand and against exact fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuro.hardware.chip import NumberFormat
from neuro.hardware.quantise import (
    decay_register,
    error_of,
    geometric,
    grid_of,
    mantissa_exponent,
    smallest_unit,
    to_format,
)

MIXED = NumberFormat(8, True, -256, 254, 2)
SIGNED = NumberFormat(8, True, -128, 127)
UNSIGNED = NumberFormat(8, False, 0, 255)
DECAY = NumberFormat(12, False, 0, 4095)
BIAS = NumberFormat(13, True, -4096, 4095)


def test_to_format_rounds_half_to_even_steps_and_saturates() -> None:
    values = np.array([0.5, 1.5, 2.5, -0.5, 200.0, -200.0, 0.49])
    np.testing.assert_array_equal(to_format(values, 1.0, SIGNED), [0, 2, 2, 0, 127, -128, 0])
    np.testing.assert_array_equal(
        to_format([1.0, 3.0, -1.0, 255.0, -257.0, 999.0], 1.0, MIXED), [0, 4, 0, 254, -256, 254]
    )
    np.testing.assert_array_equal(to_format([-3.0, 300.0], 1.0, UNSIGNED), [0, 255])


@given(
    st.lists(st.floats(-1e3, 1e3), min_size=1), st.floats(1e-3, 1e3), st.sampled_from([MIXED, SIGNED, UNSIGNED, BIAS])
)
def test_every_result_is_in_the_format_and_the_nearest_there(
    values: list[float], unit: float, fmt: NumberFormat
) -> None:
    q = to_format(values, unit, fmt)
    assert ((q >= fmt.low) & (q <= fmt.high) & (q % fmt.step == 0)).all()
    for real, kept in zip(values, q.tolist(), strict=True):
        for other in (kept - fmt.step, kept + fmt.step):
            if fmt.low <= other <= fmt.high:
                assert abs(kept * unit - real) <= abs(other * unit - real) * (1 + 1e-9) + 1e-12


def test_smallest_unit_just_holds_the_extremes() -> None:
    assert smallest_unit(np.array([-2.56, 1.0]), MIXED) == pytest.approx(0.01)
    assert smallest_unit(np.array([-0.1, 2.54]), MIXED) == pytest.approx(0.01)
    assert smallest_unit(np.array([0.0, 5.1]), UNSIGNED) == pytest.approx(0.02)
    assert smallest_unit(np.array([-1.0, 5.1]), UNSIGNED) == np.inf
    assert smallest_unit(np.zeros(3), MIXED) == 0.0


@given(st.integers(0, 2**32 - 1), st.floats(1e-9, 1e9), st.integers(1, 127))
def test_grid_is_found_whatever_its_step(seed: int, step: float, most: int) -> None:
    rng = np.random.default_rng(seed)
    whole = rng.integers(-most, most + 1, 40)
    whole[0] = most
    found = grid_of((whole * step).astype(np.float64), SIGNED)
    assert found is not None
    multiples = whole * step / found
    np.testing.assert_allclose(multiples, np.rint(multiples), atol=1e-6)
    assert np.abs(multiples).max() <= 128


def test_what_is_on_no_grid_has_none() -> None:
    rng = np.random.default_rng(0)
    assert grid_of(rng.normal(size=100), MIXED) is None
    assert grid_of(np.zeros(4), MIXED) is None
    assert grid_of([1.0, 300.0], SIGNED) is None  # would need 300 steps
    assert grid_of([1.0, 127.0], SIGNED) == pytest.approx(1.0)
    assert grid_of([1.0, 128.0], SIGNED) is None
    assert grid_of([1.0, -128.0], SIGNED) == pytest.approx(1.0)
    assert grid_of([2.0, 3.0], SIGNED) == pytest.approx(1.0)  # the smallest value is two steps


@given(st.floats(0.0, 1.0), st.sampled_from([0, 1]))
def test_decay_register_is_the_nearest(decay: float, offset: int) -> None:
    register, real = decay_register(decay, DECAY, offset)
    assert 0 <= register <= 4095
    assert real == pytest.approx(float(1 - Fraction(int(register) + offset, 4096)), abs=0)
    nearest = min(abs(1 - (r + offset) / 4096 - decay) for r in range(4096))
    assert abs(real - decay) == pytest.approx(nearest, abs=1e-15)


def test_decay_register_ends() -> None:
    assert decay_register(0.0, DECAY, 1)[0] == 4095  # du = 4095: no memory of the current at all
    assert decay_register(1.0, DECAY, 0)[0] == 0  # dv = 0: no leak
    assert decay_register(1.0, DECAY, 1)[1] == pytest.approx(4095 / 4096)  # the current always leaks a little


def test_mantissa_and_exponent() -> None:
    mantissa, exponent = mantissa_exponent([4095.0, -4096.0], 1.0, BIAS, 7)  # type: ignore[misc]
    assert (mantissa.tolist(), exponent) == ([4095, -4096], 0)
    mantissa, exponent = mantissa_exponent([4096.0, 3.0], 1.0, BIAS, 7)  # type: ignore[misc]
    assert (mantissa.tolist(), exponent) == ([2048, 2], 1)
    assert mantissa_exponent([4096.0 * 128], 1.0, BIAS, 7) is None


def test_geometric_sums() -> None:
    np.testing.assert_allclose(geometric([0.0, 0.5, 0.75]), [1, 2, 4])
    assert geometric(1.0) == np.inf
    np.testing.assert_allclose(geometric([1.0, 0.5], 3), [3, 1.75])


def test_error_is_relative_to_the_largest_magnitude() -> None:
    error = error_of("n", "weight", [1.0, -4.0], [1.2, -4.0], 0.4)
    assert (error.max_error, error.scale) == (pytest.approx(0.05), 0.4)
    assert error.rms_error == pytest.approx(0.05 / np.sqrt(2))
    assert error_of("n", "weight", [0.0], [0.0], 1.0).max_error == 0.0
