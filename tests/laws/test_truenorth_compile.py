"""Networks on TrueNorth: the image computes what the projections say, and they what the network says, exactly."""

from __future__ import annotations

import itertools

import axon_truenorth_logical as logical
import numpy as np
import pytest
from axon_vectors import differences

from neuro import reference
from neuro.errors import DoesNotFit, PrecisionLoss, UnsupportedNode
from neuro.hardware import compile as compile_network
from neuro.hardware import simulate
from neuro.hardware.certify import certify
from neuro.hardware.truenorth import compiler
from neuro.ir import (
    IF,
    LI,
    LIF,
    Affine,
    AvgPool2d,
    Conv2d,
    CubaLIF,
    Delay,
    Flatten,
    Input,
    Linear,
    Network,
    Output,
    Scale,
    SumPool2d,
    chain,
)

STEPS = 40


def trinary(rng, *shape, share=0.4, step=0.25):
    return rng.integers(-1, 2, shape) * (rng.random(shape) < share) * step


def neurons(rng, *shape, subtract=True):
    """Thresholds and resets on a grid of 1/8."""
    threshold = rng.integers(2, 9, shape) / 8
    return IF(threshold, v_reset=0.0 if subtract else -0.25, reset="subtract" if subtract else "hard")


def dense_chain(rng):
    return chain(
        {
            "in": Input((40,)),
            "w0": Affine(trinary(rng, 60, 40), bias=rng.integers(-2, 3, 60) / 8),
            "a": neurons(rng, 60),
            "w1": Linear(trinary(rng, 30, 60)),
            "b": neurons(rng, 30, subtract=False),
            "w2": Affine(trinary(rng, 7, 30), bias=rng.integers(0, 2, 7) / 8),
            "c": neurons(rng, 7),
            "out": Output(),
        },
        1e-3,
    )


def four_bits(rng):
    return chain(
        {
            "in": Input((50,)),
            "w0": Linear(rng.integers(-8, 8, (40, 50)) / 16),
            "a": IF(np.full(40, 1.5), r=0.5, reset="subtract"),
            "w1": Linear(rng.choice([0, 5, -7, 20, 33], (20, 40)) / 64),
            "b": IF(rng.random(20) + 0.3),  # a threshold between multiples
            "out": Output(),
        },
        1e-3,
    )


def planes(rng):
    return chain(
        {
            "in": Input((2, 10, 8)),
            "c0": Conv2d(
                trinary(rng, 6, 2, 3, 3, share=1), stride=(2, 1), padding=(1, 1), bias=rng.integers(-1, 2, 6) / 8
            ),
            "a": IF(np.full((6, 5, 8), 0.5), reset="subtract"),
            "pool": AvgPool2d((1, 2), (1, 2)),
            "c1": Conv2d(trinary(rng, 4, 3, 3, 2, share=1), groups=2, padding=(1, 0)),
            "b": IF(np.full((4, 5, 3), 0.25)),
            "sum": SumPool2d((2, 2), (2, 2)),
            "flat": Flatten(),
            "scale": Scale(np.full(8, 0.5)),
            "w": Linear(trinary(rng, 5, 8, share=1)),
            "c": IF(np.full(5, 0.25), reset="subtract"),
            "out": Output(),
        },
        1e-3,
    )


def loops(rng):
    nodes = {
        "in": Input((20,)),
        "w": Linear(trinary(rng, 70, 20)),
        "a": neurons(rng, 70),
        "r": Linear(trinary(rng, 70, 70)),
        "l": Linear(trinary(rng, 9, 70)),
        "b": neurons(rng, 9),
        "back": Linear(trinary(rng, 70, 9)),
        "later": Delay(np.array(1)),
        "out": Output(),
    }
    edges = [("in", "w"), ("w", "a"), ("a", "r"), ("r", "a"), ("a", "l"), ("l", "b"), ("b", "out")]
    return Network(nodes, (*edges, ("b", "later"), ("later", "back"), ("back", "a")), 1e-3)


def skips(rng):
    nodes = {
        "in": Input((20,)),
        "w": Linear(trinary(rng, 30, 20), delay_steps=rng.integers(0, 5, (30, 20))),
        "a": neurons(rng, 30),
        "long": Delay(rng.integers(0, 50, 30)),
        "l": Linear(trinary(rng, 12, 30)),
        "b": neurons(rng, 12),
        "s": Linear(trinary(rng, 9, 30)),
        "t": Linear(trinary(rng, 9, 12)),
        "late": Delay(rng.integers(0, 30, 20)),
        "u": Linear(trinary(rng, 9, 20)),
        "c": neurons(rng, 9),
        "out": Output(),
    }
    edges = [("in", "w"), ("w", "a"), ("a", "long"), ("long", "l"), ("l", "b"), ("a", "s"), ("s", "c"), ("b", "t")]
    edges += [("t", "c"), ("in", "late"), ("late", "u"), ("u", "c"), ("c", "out")]
    return Network(nodes, tuple(edges), 1e-3)


def dale(rng):
    signs = np.where(np.arange(200) % 2, -1, 1)
    return chain(
        {
            "in": Input((200,)),
            "w": Linear(np.abs(trinary(rng, 30, 200)) * signs),
            "a": neurons(rng, 30),
            "out": Output(),
        },
        1e-3,
    )


def negative_biases(rng):
    """Leaks that would make deep neurons fire before their sample comes, and one that a Delay holds back."""
    nodes = {
        "in": Input((30,)),
        "w0": Linear(trinary(rng, 40, 30)),
        "a": neurons(rng, 40),
        "w1": Affine(trinary(rng, 30, 40), bias=-rng.integers(0, 5, 30) / 8),
        "b": IF(np.full(30, 0.25), reset="subtract"),
        "w2": Affine(trinary(rng, 20, 30, share=1), bias=-rng.integers(0, 7, 20) / 8),
        "c": IF(np.full(20, 0.25)),
        "w3": Affine(trinary(rng, 9, 20, share=1), bias=rng.integers(-3, 4, 9) / 8),
        "late": Delay(np.array(3)),
        "now": Linear(trinary(rng, 9, 20)),
        "d": IF(np.full(9, 0.5), reset="subtract"),
        "out": Output(),
    }
    order = [n for n in nodes if n != "now"]
    return Network(nodes, (*itertools.pairwise(order), ("c", "now"), ("now", "d")), 1e-3)


NETWORKS = (negative_biases, dense_chain, four_bits, planes, loops, skips, dale)


def events(rng, network, batch=3, share=0.25):
    shape = network.shapes[network.input]
    return (rng.random((STEPS, batch, *shape)) < share).astype(np.uint8)


def assert_same(network, program, dense):
    """The float network, the projections and the image agree on every spike, image and projections on every V."""
    names = [n for n in program.populations if n != program.input]
    trace = simulate(program, dense, probes=tuple((n, "v") for n in names))
    flat = dense.reshape(*dense.shape[:2], -1)
    sent, v = logical.simulate(program, flat)
    for n in names:
        assert not differences(f"spikes of {n}", trace.spikes[n], sent[n].astype(np.uint8))
        assert not differences(f"V of {n}", trace.probes[n, "v"], v[n].astype(np.int32))
    float_spikes = reference.run(network, dense).spikes
    for n in network.of(IF):
        late = program.skew[n]
        theirs = float_spikes[n].reshape(len(dense), dense.shape[1], -1)
        assert not differences(f"spikes of {n} in float", trace.spikes[n][late : late + len(dense)], theirs)
    assert np.array_equal(trace.scores, float_spikes[program.output].reshape(*theirs.shape).sum(axis=0))
    assert theirs.sum() > 10


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("build", NETWORKS)
def test_exact(build, seed):
    rng = np.random.default_rng([5, seed])
    network = build(rng)
    program = compile_network(network, "truenorth", strict=True, max_steps=STEPS)
    assert program.substitutions == ()
    assert max(row.max_error for row in program.budget) < 1e-12
    assert_same(network, program, events(rng, network))


@pytest.mark.parametrize("build", NETWORKS)
def test_certificate(build):
    rng = np.random.default_rng(8)
    network = build(rng)
    program = compile_network(network, "truenorth", max_steps=STEPS)
    dense = events(rng, network, batch=2)
    certificate = certify(program, dense.reshape(*dense.shape[:2], -1))
    assert certificate.passed
    assert certificate.compared > 1000


@pytest.mark.parametrize("build", [dense_chain, planes, skips])
def test_relays_keep_time(build, monkeypatch):
    """Every population through relays: some ticks later, otherwise the same."""
    rng = np.random.default_rng(9)
    network = build(rng)
    whole = compiler._attempt
    monkeypatch.setattr(compiler, "_attempt", lambda n, low, o, _, d: whole(n, low, o, frozenset("abc"), d))
    program = compile_network(network, "truenorth", strict=True, max_steps=STEPS)
    assert "a+1" in program.populations
    assert_same(network, program, events(rng, network))


def refused(network, **options):
    with pytest.raises(DoesNotFit) as refusal:
        compile_network(network, "truenorth", max_steps=STEPS, **options)
    return refusal.value.violations


def test_too_many_cores_and_more_chips(monkeypatch):
    """Small chips of 2 x 1 cores: refused; the remedy, more chips, works."""
    monkeypatch.setattr(compiler.Options, "mesh", property(lambda o: (2 * o.chips[0], o.chips[1])))
    rng = np.random.default_rng(10)
    rows = lambda out, n, fan: np.argsort(rng.random((out, n)), axis=1) < fan  # noqa: E731
    weights = {"w": rows(100, 20, 10), "r": rows(100, 100, 90), "l": rows(100, 100, 90)}
    nodes = {name: Linear(rng.choice([-0.25, 0.25], mask.shape) * mask) for name, mask in weights.items()}
    nodes |= {"in": Input((20,)), "a": neurons(rng, 100), "b": neurons(rng, 100), "out": Output()}
    edges = (("in", "w"), ("w", "a"), ("a", "r"), ("r", "a"), ("a", "l"), ("l", "b"), ("b", "out"))
    network = Network(nodes, edges, 1e-3)
    (violation,) = refused(network)
    assert violation.allowed == 2
    assert "chips" in violation.remedy
    program = compile_network(network, "truenorth", max_steps=STEPS, chips=(3, 1))
    assert program.placement.xy.max(axis=0)[0] < 6
    assert program.placement.xy.max(axis=0)[1] < 1
    assert len(np.unique(program.placement.xy, axis=0)) == program.placement.cores
    assert_same(network, program, events(rng, network, batch=1))


def test_too_many_inputs_and_fewer():
    """Refused with the fan-in that would fit; that fan-in fits."""
    rng = np.random.default_rng(11)
    weight = rng.choice([-0.25, 0.25], (20, 300))
    make = lambda w: chain({"in": Input((w.shape[1],)), "w": Linear(w), "a": neurons(rng, 20), "out": Output()}, 1e-3)  # noqa: E731
    (violation,) = refused(make(weight))
    assert (violation.node, violation.wanted, violation.allowed) == ("a", 300, 256)
    for network in (make(weight[:, :128]), make(weight[:1, :256].repeat(20, axis=0))):
        program = compile_network(network, "truenorth", strict=True, max_steps=STEPS)
        assert_same(network, program, events(rng, network))


def test_parts_of_many_inputs():
    """split_fan_in: listed, refused by strict, image == projections, and rates near those of the float network."""
    rng = np.random.default_rng(14)
    weight = rng.choice([-0.25, 0.25], (12, 900), p=[0.45, 0.55])
    nodes = {"in": Input((900,)), "w": Linear(weight), "a": IF(np.full(12, 2.0), reset="subtract")}
    nodes |= {"l": Linear(trinary(rng, 6, 12, share=1)), "b": IF(np.full(6, 0.5)), "out": Output()}
    network = chain(nodes, 1e-3)
    program = compile_network(network, "truenorth", max_steps=STEPS, split_fan_in=True)
    assert "lumps" in program.substitutions[0]
    dense = events(rng, network, share=0.04)
    sent, v = logical.simulate(program, dense)
    trace = simulate(program, dense, probes=(("a", "v"),))
    for name in ("a:parts", "a", "b"):
        assert not differences(name, trace.spikes[name], sent[name].astype(np.uint8))
    assert not differences("V", trace.probes["a", "v"], v["a"].astype(np.int32))
    theirs = reference.run(network, dense).spikes["a"].sum(axis=(0, 1))
    ours = trace.spikes["a"].sum(axis=(0, 1))
    assert theirs.sum() > 30
    assert abs(int(ours.sum()) - int(theirs.sum())) < 0.25 * theirs.sum()
    assert certify(program, dense).passed
    with pytest.raises(PrecisionLoss):
        compile_network(network, "truenorth", max_steps=STEPS, split_fan_in=True, strict=True)


def test_every_violation_at_once():
    rng = np.random.default_rng(12)
    nodes = {
        "in": Input((300,)),
        "w": Affine(rng.choice([-0.25, 0.25], (20, 300)), bias=np.full(20, 100.0)),
        "a": IF(np.full(20, -1.0)),
        "l": Linear(rng.choice([-1e-3, 1e-3], (5, 20))),
        "b": IF(np.full(5, 1e6)),
        "out": Output(),
    }
    found = {(v.node, v.limit.split(",")[0].split()[0]) for v in refused(chain(nodes, 1e-3))}
    assert found == {("a", "axons"), ("a", "threshold"), ("a", "leak"), ("b", "threshold")}


def test_nodes_without_a_counterpart_are_refused_with_a_remedy():
    w = Linear(np.eye(3))
    one = np.full(3, 0.02)
    for node, readout, said in (
        (LIF(one, one), "count", "leak='linear'"),
        (IF(one), "sum", r"Output\('count'\)"),
        (LI(one), "sum", "spike count"),
        (CubaLIF(one, one, one), "count", "IF neurons"),
    ):
        network = chain({"in": Input((3,)), "w": w, "a": node, "out": Output(readout)}, 1e-3)
        with pytest.raises(UnsupportedNode, match=said):
            compile_network(network, "truenorth")


def test_strict_refuses_an_open_end():
    """Without max_steps inhibition may take V anywhere: listed, and refused by strict; with it, exact."""
    network = dense_chain(np.random.default_rng(1))
    with pytest.raises(PrecisionLoss, match="max_steps"):
        compile_network(network, "truenorth", strict=True)
    assert compile_network(network, "truenorth").substitutions


def test_weights_off_the_grid_are_rounded_and_booked():
    rng = np.random.default_rng(13)
    network = chain(
        {"in": Input((60,)), "w": Linear(rng.normal(0, 0.3, (30, 60))), "a": IF(np.full(30, 1.0)), "out": Output()},
        1e-3,
    )
    program = compile_network(network, "truenorth", max_steps=STEPS)
    row = next(r for r in program.budget if r.quantity == "weight")
    assert 0.01 < row.max_error < 0.1
    dense = events(rng, network)
    ours, theirs = simulate(program, dense).scores, reference.run(network, dense).spikes["a"].sum(axis=0)
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.95
    sent, _ = logical.simulate(program, dense)
    assert np.array_equal(sent["a"][1:].sum(axis=0), ours)


def test_every_crossbar_is_within_the_chip():
    network = planes(np.random.default_rng(3))
    program = compile_network(network, "truenorth", max_steps=STEPS)
    image = program.image
    assert image["crossbar"].shape[1:] == (256, 4)
    assert image["neurons"].max() <= 256
    assert image["weight"].min() >= -256
    assert image["weight"].max() <= 255
    assert image["delay"].min() >= 1
    assert image["delay"].max() <= 15
    inside = image["target"] >= 0
    fed = np.stack([image["target"][inside], image["axon"][inside]], axis=1)
    assert len(np.unique(fed, axis=0)) == len(fed), "two neurons feed one axon"


def test_the_host_holds_biases_back():
    """It sends packets from step 0 on, counted as injected, also where nothing comes in."""
    network = negative_biases(np.random.default_rng(6))
    program = compile_network(network, "truenorth", max_steps=STEPS)
    own = program.image["inject"][program.image["inject"][:, 0] == 30]
    assert len(own) > 0
    assert own[:, 2].min() == 0
    silent = simulate(program, np.zeros((5, 2, 30), np.uint8)).counters.injected
    assert silent.sum(axis=1).tolist() == [len(own)] * 2


def test_a_linear_leak_is_listed():
    rng = np.random.default_rng(4)
    network = chain(
        {
            "in": Input((30,)),
            "w": Linear(trinary(rng, 20, 30)),
            "a": LIF(np.full(20, 0.02), np.full(20, 0.05)),
            "out": Output(),
        },
        1e-3,
    )
    program = compile_network(network, "truenorth", leak="linear", max_steps=STEPS)
    assert "linear" in program.substitutions[0]
    dense = events(rng, network)
    ours, theirs = simulate(program, dense).scores, reference.run(network, dense).spikes["a"].sum(axis=0)
    assert 0.6 < ours.sum() / theirs.sum() < 1.6
    sent, _ = logical.simulate(program, dense)
    assert np.array_equal(sent["a"][1:].sum(axis=0), ours)
