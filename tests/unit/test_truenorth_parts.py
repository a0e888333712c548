"""Parts of the TrueNorth target by themselves: weights, registers, banks that cannot be, probes, limits of the loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuro.errors import ChipError, SimulationError
from neuro.hardware import compile as compile_network
from neuro.hardware import simulate
from neuro.hardware.truenorth.bank import NAMES, bank_from, choices, empty, pack_bits, unpack_bits
from neuro.hardware.truenorth.image import arrange
from neuro.hardware.truenorth.registers import Wanted, exact
from neuro.hardware.truenorth.run import net_of, start, step_many
from neuro.hardware.truenorth.weights import basis, rounded, shape, sums
from neuro.ir import IF, Input, Linear, Output, chain


@given(st.frozensets(st.integers(-300, 300).filter(bool), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_a_basis_adds_up(wanted):
    found = basis(wanted)
    if found is None:
        assert len(wanted) > 4 or any(not -256 <= w <= 255 for w in wanted)
        return
    assert all(-256 <= v <= 255 for v in found)
    table = sums(found)
    for w in wanted:
        assert sum(v for k, v in enumerate(found) if table[w] >> k & 1) == w


@pytest.mark.parametrize(
    ("wanted", "axons"),
    [
        ({3}, 1),
        ({-1, 1}, 2),
        ({1, 2}, 2),
        ({5, 7, 12}, 2),
        (set(range(-4, 4)) - {0}, 3),
        (set(range(-8, 8)) - {0}, 4),
        ({1, 10, 100, 200}, 4),
        (set(range(-9, 10)) - {0}, None),
        ({1, 5, 25, 125, 250}, None),
    ],
)
def test_the_fewest_axons(wanted, axons):
    found = basis(frozenset(wanted))
    assert (None if found is None else len(found)) == axons


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_shaped_weights_are_the_weights(seed):
    rng = np.random.default_rng(seed)
    n, lines = 9, 14
    weight = rng.choice(rng.choice([-3, -1, 1, 2, 7], rng.integers(1, 5)), (n, lines)) * (rng.random((n, lines)) < 0.6)
    row, line = np.nonzero(weight)
    shaped, hard = shape(row, line, weight[row, line], n)
    assert hard.size == 0
    joined = (shaped.subset[:, None] >> np.arange(4)) & 1
    assert np.array_equal((joined * shaped.values[row]).sum(axis=1), weight[row, line])


@pytest.mark.parametrize("axons", [2, 3, 4])
def test_rounding_gets_better_with_axons(axons):
    weight = np.random.default_rng(1).normal(0, 1, 500)
    values, step = rounded(weight, axons)
    levels = np.array(sorted(sums(values))) * step
    error = np.abs(weight[:, None] - levels).min(axis=1).std()
    assert error < {2: 0.45, 3: 0.25, 4: 0.15}[axons]


def test_thresholds_are_strict():
    """v > K u fires; V counts from one step below zero where K is subtracted, alpha is K + 1 where it is not."""
    for subtract, alpha, v0 in ((True, 8, -1), (False, 9, 0)):
        found = exact(Wanted((0.25, -0.25), 2.0, 0.0, 0.0, subtract, False), None)
        assert (found.unit, found.alpha, found.start) == (0.25, alpha, v0)


def test_a_step_is_divided_for_a_bias():
    found = exact(Wanted((0.5, -0.5), 1.0, 0.125, 0.0, True, False), None)
    assert (found.unit, found.whole[0.5], found.leak, found.alpha) == (0.125, 4, 1, 8)


def test_bits_there_and_back():
    joined = np.random.default_rng(2).random((3, 5, 130)) < 0.5
    assert np.array_equal(unpack_bits(pack_bits(joined), 130), joined)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("gamma", 3, "gamma must lie in 0..2"),
        ("delay", 0, "delay must lie in 1..15"),
        ("delay", 16, "delay must lie in 1..15"),
        ("target", 2, "target must lie in -2..1"),
        ("neurons", 257, "neurons must lie in 0..256"),
        ("weight", 1 << 22, "weight must lie in"),
        ("choices", 9, "choice 'overflow' is 9"),
        ("seed", 0, "seed of 0"),
    ],
)
def test_a_bank_that_cannot_be_run(name, value, said):
    image = empty(2)
    image[name][...] = value
    with pytest.raises(SimulationError, match=said):
        bank_from(image)


def test_banks_of_wrong_arrays():
    with pytest.raises(SimulationError, match="missing"):
        bank_from({})
    for name in NAMES:
        with pytest.raises(SimulationError):
            bank_from(empty(2) | {name: np.zeros((1, 1, 1, 1), np.float32)})
    image = empty(2)
    image["target"][0, 0], image["axon"][0, 0] = 1, 256
    with pytest.raises(SimulationError, match="axon 256"):
        bank_from(image)
    with pytest.raises(SimulationError, match="saturate"):
        choices("saturated")


def test_packets_beyond_the_end():
    bank = bank_from(empty(2))
    for packets in ([[3, 0]], [[0, 512]], [[-1, 0]]):
        with pytest.raises(SimulationError, match="packets"):
            step_many(net_of(bank), start(bank), 3, np.array(packets))


def small():
    nodes = {"in": Input((3,)), "w": Linear(np.eye(3)), "a": IF(np.full(3, 0.5)), "out": Output()}
    return chain(nodes, 1e-3)


def test_options():
    for options in ({"leak": "exponential"}, {"chips": (0, 1)}, {"chips": 4}, {"max_steps": 0}, {"overflow": "clip"}):
        with pytest.raises(ChipError):
            compile_network(small(), "truenorth", **options)


def test_only_v_can_be_probed():
    program = compile_network(small(), "truenorth", max_steps=5)
    with pytest.raises(SimulationError, match="has v"):
        simulate(program, np.zeros((5, 1, 3), np.uint8), probes=[("a", "u")])


def test_counters_of_a_known_bank():
    """Two neurons, one axon each: every event is where it must be."""
    program = compile_network(small(), "truenorth", max_steps=5)
    dense = np.zeros((5, 1, 3), np.uint8)
    dense[1, 0, :2] = 1
    c = simulate(program, dense).counters
    assert c.injected[0].tolist() == [0, 0, 2, 0, 0, 0]  # an event of step 1 is consumed in tick 2
    assert c.synops[0, :, 0].tolist() == [0, 0, 2, 0, 0, 0]
    assert c.memory[0, :, 0].tolist() == [0, 0, 64, 0, 0, 0]
    assert c.spikes[0, :, 0].tolist() == c.packets[0, :, 0].tolist() == [0, 0, 2, 0, 0, 0]
    assert (c.updates == 3).all()
    assert (c.hops == 0).all()


def test_hops_are_counted_along_x_then_y():
    image = empty(2)
    image["xy"][:] = [[1, 2], [6, 0]]
    image["leak"][0, 0], image["target"][0, 0] = 1, 1
    image["neurons"][:] = 1
    bank = bank_from(image)
    totals = step_many(bank, start(bank), 10)
    assert totals.per_core[4].tolist() == [7 * totals.per_core[2, 0], 0]
    assert totals.per_core[2, 0] == 10


@pytest.mark.parametrize(("cores", "width", "height"), [(1, 64, 64), (70, 64, 64), (4096, 64, 64), (8000, 128, 64)])
def test_a_snake_of_neighbours(cores, width, height):
    xy = arrange(cores, width, height)
    assert (xy >= 0).all()
    assert (xy < (width, height)).all()
    assert (np.abs(np.diff(xy, axis=0)).sum(axis=1) == 1).all()
