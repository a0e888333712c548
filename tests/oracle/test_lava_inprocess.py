"""Every rewriting that the Lava exporter makes, one program each, in Lava's process models against our kernels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from lava_programs import conv, dense, even, needs_lava, population, program, sparse, spikes

from neuro.hardware.certify import certify
from neuro.hardware.export.lava_graph import lower
from neuro.hardware.program import Population
from neuro.hardware.simulate import simulate

pytestmark = [pytest.mark.lava, needs_lava]


def images(first=(3, 5, 6), second=(4, 3, 2), **mixed):
    """Input image -> convolution -> convolution -> readout; mixed: parameters of the first layer."""
    g = np.random.default_rng(7)
    size = int(np.prod(second))
    hidden = {"du": 3000, "dv": 200, "vth": 60} | mixed.get("hidden", {})
    populations = [
        population("input", first, "input"),
        population("a", second, **{k: g.choice(v, size) if np.ndim(v) else v for k, v in hidden.items()}),
        population("b", (2, 2, 1), du=4095, dv=100, vth=mixed.get("vth", 8)),
        population("out", 3, du=2000, dv=50, vth=200),
    ]
    kernel = (first[1] - 2 * (second[1] - 1), first[2] - 1 * (second[2] - 1))
    projections = [
        conv("k1", "input", "a", g.integers(-1, 4, (second[0], first[0], *kernel)), stride=(2, 1)),
        conv("k2", "a", "b", g.integers(-1, 3, (2, second[0], second[1] - 1, second[2])), stride=(1, 1)),
        dense("f", "b", "out", even(g, (3, 4), 5, 60)),
    ]
    return program(populations, projections, depth=3)


def loop(exponent, delays):
    """Neurons of three kinds that read each other."""
    g = np.random.default_rng(8)
    populations = [
        population("input", 5, "input"),
        population("a", 15, du=g.choice([100, 4095], 15), dv=g.choice([0, 300], 15), vth=25),
        population("out", 4, du=2000, dv=50, vth=g.choice([600, 900], 4)),
    ]
    delay = g.integers(0, 7, (15, 15)) if delays else None
    projections = [
        dense("f1", "input", "a", even(g, (15, 5))),
        dense("rec", "a", "a", even(g, (15, 15), -40, 60), exponent=exponent, delay=delay),
        dense("f2", "a", "out", g.integers(-30, 1, (4, 15)), exponent=exponent, sign=0, bits=6),
        dense("f3", "a", "out", even(g, (4, 15), 20, 100)),
    ]
    return program(populations, projections)


def silent_part():
    """Neurons of two kinds, one fed nothing but zeros: its part hangs together with the rest all the same."""
    g = np.random.default_rng(10)
    weight = even(g, (6, 5), 0, 127)
    weight[3:] = 0
    populations = [
        population("input", 5, "input"),
        population("a", 6, du=4095, dv=0, vth=[9, 9, 9, 70, 70, 70], bias_mant=50, bias_exp=6),
    ]
    return program(populations, [dense("f", "input", "a", weight)], depth=1)


PROGRAMS = {
    "convolutions as they are": (images(), {"Conv", "Dense"}),
    "a convolution into neurons of several kinds": (
        images(hidden={"vth": [40, 70], "dv": [0, 200]}),
        {"Sparse", "Dense"},
    ),
    "a convolution out of a population that stays whole": (images(vth=[8, 8, 9, 8]), {"Conv", "Sparse", "Dense"}),
    "an image too wide for int8": (images(first=(1, 3, 131), second=(2, 2, 1)), {"Conv", "Sparse", "Dense"}),
    "neurons that only their bias drives": (silent_part(), {"Dense"}),
    "split columns": (loop(2, False), {"Dense"}),
    "columns under a right shift": (loop(-3, False), {"Dense"}),
    "columns with delays under a right shift": (loop(-3, True), {"Dense", "DelayDense"}),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_rewriting_changes_no_bit(name):
    made, kinds = PROGRAMS[name]
    assert {s.kind for s in lower(made).synapses} == kinds
    given = spikes(np.random.default_rng(9), 30, 2, made.populations["input"].size, 0.3)
    trace = simulate(made, given)
    for population_name in trace.spikes:
        assert 0 < trace.spikes[population_name].mean() < 1, f"'{population_name}' says nothing in this test"
    certificate = certify(made, given, oracle="lava-inprocess")
    assert certificate.passed, certificate


@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize("delayed", [False, True])
def test_sums_of_messages_beyond_32_bits_are_those_of_lava(kind, delayed):
    """A delayed Dense adds up in int64 before its right shift, the others in int32: both must be met."""
    rng = np.random.default_rng(11)
    weight = even(rng, (3, 6), 60, 127)
    delay = rng.integers(0, 2, weight.shape) if delayed else None
    at = np.divmod(np.arange(18), 6)
    made = {
        "dense": lambda: dense("w", "input", "sum", weight, exponent=-8, delay=delay),
        "sparse": lambda: sparse("w", "input", "sum", at, weight.ravel(), exponent=-8, delay=_flat(delay)),
    }[kind]()
    made = replace(made, params={**made.params, "num_message_bits": 24})
    source = Population("input", "input", "input", (6,), {"low": -(1 << 23), "high": (1 << 23) - 1})
    sums = program([source, Population("sum", "sum", "sigma", (3,))], [made], depth=1, readout="last")
    given = rng.integers(1 << 22, 1 << 23, (10, 2, 6))
    assert (np.abs(weight).sum(axis=1) * given.min() > 1 << 32).all()
    certificate = certify(sums, given, oracle="lava-inprocess")
    assert certificate.passed, certificate
    assert certificate.compared == 2 * 3 * 11 * 2


def _flat(delay):
    return None if delay is None else delay.ravel()
