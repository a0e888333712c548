"""Layers of an Akida program as its time law counts them, and an estimate that goes by layers."""

from __future__ import annotations

import numpy as np
import pytest

from neuro import chain, ir
from neuro.hardware import compile as compile_network
from neuro.hardware import estimate, simulate
from neuro.hardware.akida.stages import stages
from neuro.hardware.chip import CHIP_FOLDER, read_chip
from neuro.hardware.estimate import merge
from neuro.hardware.program import Placement, Population, Program, Projection
from neuro.hardware.trace import Counters, Trace

STEPS, BATCH = 2, 3


def conv(name: str, source: str, target: str, shape: tuple[int, ...], groups: int = 1) -> Projection:
    params = {"stride": np.array([1, 1]), "pads": np.array([1, 1, 1, 1]), "groups": np.array(groups)}
    return Projection(name, name, source, target, "conv", np.ones(shape, np.int64), params)


def program() -> Program:
    """image -> 3 x 3 convolution -> depthwise 5 x 5 and 1 x 1 -> dense; the convolution on two processors."""
    shapes = {"in": (1, 4, 4), "c": (4, 4, 4), "dw": (4, 4, 4), "pw": (6, 4, 4), "fc": (5,)}
    populations = {n: Population(n, n, "input" if n == "in" else "potential", s) for n, s in shapes.items()}
    dense = Projection("fc", "fc", "pw", "fc", "dense", np.ones((5, 96), np.int64))
    projections = (
        conv("c", "in", "c", (4, 1, 3, 3)),
        conv("dw", "c", "dw", (4, 1, 5, 5), groups=4),
        conv("pw", "dw", "pw", (6, 4, 1, 1)),
        dense,
    )
    core_of = {"c": np.repeat([0, 1], 32), "dw": np.full(64, 2), "pw": np.full(96, 2), "fc": np.full(5, 3)}
    where = Placement(core_of, np.zeros((4, 2), np.int64))
    skew = dict.fromkeys(shapes, 0)
    return Program("akida1", 1e-3, populations, projections, "in", "fc", skew, {}, "sum", where)


def values(p: Program) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(4)
    return {n: rng.integers(0, 3, (STEPS * BATCH, pop.size)).astype(np.int32) for n, pop in p.populations.items()}


def test_a_separable_convolution_is_one_layer() -> None:
    p = program()
    v = values(p)
    found = stages(p, v, STEPS)
    assert {n: (s.kind, s.filters, s.units, s.passes) for n, s in found.items()} == {
        "c": ("conv3x3", 4, 2, STEPS),
        "pw": ("sepconv5x5", 6, 1, STEPS),
        "fc": ("dense", 5, 1, STEPS),
    }
    for layer, source in (("c", "in"), ("pw", "c"), ("fc", "pw")):
        wanted = (v[source].reshape(STEPS, BATCH, -1) != 0).sum(axis=(0, 2))
        np.testing.assert_array_equal(found[layer].events, wanted)


def test_a_depthwise_convolution_alone_has_no_law() -> None:
    p = program()
    alone = Program(
        p.chip,
        p.dt,
        {n: p.populations[n] for n in ("in", "c", "dw")},
        p.projections[:2],
        "in",
        "dw",
        dict.fromkeys(("in", "c", "dw"), 0),
        {},
        "sum",
        p.placement,
    )
    assert stages(alone, values(p), STEPS)["dw"].kind == "dwconv5x5"
    e = estimate(trace(alone), chip=read_chip(CHIP_FOLDER / "akida1.toml"))
    assert e.latency_s is None
    assert "dwconv5x5" in e.reason


def trace(p: Program) -> Trace:
    counts = {n: np.ones((BATCH, STEPS, 4), np.int64) for n in Counters.NAMES}
    counters = Counters(**counts, injected=np.ones((BATCH, STEPS), np.int64))
    found = stages(p, values(p), STEPS)
    return Trace("akida1", 1e-3, {}, {}, counters, np.zeros((BATCH, 2), np.int64), stages=found)


def test_an_estimate_goes_by_layers() -> None:
    p = program()
    three = {"sepconv5x5": "sepconv3x3"}  # the law knows no separable 5 x 5
    t = trace(p)
    known = {n: type(s)(three.get(s.kind, s.kind), s.events, s.filters, s.units, s.passes) for n, s in t.stages.items()}
    t = Trace(t.chip, t.dt, {}, {}, t.counters, t.scores, stages=known)
    e = estimate(t, chip=read_chip(CHIP_FOLDER / "akida1.toml"))
    c = {"c": 0.648, "pw": 0.646, "fc": 0.386}
    work = {n: c[n] * s.events * s.filters for n, s in known.items()}
    clocks = sum(25577 * STEPS + work[n] / s.units for n, s in known.items())
    assert e.latency_s is not None
    assert e.latency_s.nominal * 400e6 == pytest.approx(np.mean(clocks))
    assert set(e.stages) == {"c", "pw", "fc"}
    layers = [e.stages[n].nominal * 400e6 for n in known]
    assert layers == pytest.approx([25577 * STEPS + np.mean(work[n]) / s.units for n, s in known.items()])
    np.testing.assert_allclose(sum(a[:, 1] for a in e.seconds.values()) * 400e6, clocks)
    np.testing.assert_allclose(e.joules["work"][:, 1], sum(work.values()) * 1.4e-12)
    both = merge([e, e])
    assert both.samples == 2 * BATCH
    assert both.stages["c"] == e.stages["c"]


def test_batches_joined_count_the_same_layers() -> None:
    rng = np.random.default_rng(0)
    nodes = {
        "in": ir.Input((1, 8, 8), high=15),
        "c": ir.Conv2d(rng.normal(size=(4, 1, 3, 3)), (1, 1), (1, 1)),
        "a": ir.QuantisedReLU(step=2.0, levels=15),
        "f": ir.Flatten(),
        "d": ir.Linear(rng.normal(size=(5, 256))),
        "out": ir.Output("sum"),
    }
    compiled = compile_network(chain(nodes, dt=1e-3), "akida1")
    dense = rng.integers(0, 16, (2, 5, 1, 8, 8)).astype(np.uint8)
    whole, parts = simulate(compiled, dense), simulate(compiled, dense, batch=2)
    assert {n: s.kind for n, s in whole.stages.items()} == {"a": "conv3x3", "d": "dense"}
    for name, stage in whole.stages.items():
        np.testing.assert_array_equal(stage.events, parts.stages[name].events)
        assert (stage.passes, parts.stages[name].passes) == (2, 2)
    np.testing.assert_array_equal(whole.stages["a"].events, (dense != 0).sum(axis=(0, 2, 3, 4)))
    a, b = (estimate(t, compiled).latency_s for t in (whole, parts))
    assert a is not None
    assert b is not None
    assert a.nominal == pytest.approx(b.nominal)
