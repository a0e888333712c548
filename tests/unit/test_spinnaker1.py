"""Networks on SpiNNaker 1: close to the reference, exact where it can be, limits with remedies that work."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from axon_strategies import LAW, networks
from hypothesis import given

from neuro import ir, reference
from neuro.errors import ChipError, DoesNotFit, PrecisionLoss, SimulationError, UnsupportedNode
from neuro.hardware import compile as compile_network
from neuro.hardware import simulate
from neuro.hardware.certify import certify
from neuro.hardware.spinnaker1 import layout
from neuro.hardware.spinnaker1.batch import saturations
from neuro.hardware.spinnaker1.contract import check, layout_of
from neuro.hardware.spinnaker1.plain import synapses_of

CHIP = "spinnaker1"
STEPS = 80


def chain(*nodes, dt=1e-3):
    return ir.chain([(f"n{k}", node) for k, node in enumerate(nodes)], dt=dt)


def weights(rng, out, into, size=8.0):
    return rng.normal(0, size / math.sqrt(into), (out, into))


def lif(n, tau=0.02, **options):
    return ir.LIF(np.full(n, tau), np.full(n, 0.1), **options)


def cuba(n, **options):
    return ir.CubaLIF(np.full(n, 0.005), np.full(n, 0.02), np.full(n, 0.1), **options)


def run_both(network, program, seed=0, rate=0.2, batch=3):
    """population -> (spikes, v) on the chip, moved back by its skew and in reals, and of the reference."""
    rng = np.random.default_rng(seed)
    size = program.populations[program.input].size
    dense = (rng.random((STEPS, batch, size)) < rate).astype(np.uint8)
    names = [n for n, p in program.populations.items() if p.model != "input"]
    trace = simulate(program, dense, probes=[(n, "v") for n in names])
    record = reference.run(network, dense.reshape(STEPS, batch, *network.shapes[network.input]).astype(float))
    found = {}
    for n in names:
        own = slice(program.skew[n], program.skew[n] + STEPS)
        assert not trace.spikes[n][: program.skew[n]].any()
        v = trace.probes[n, "v"][own] * program.scale[n]
        theirs = np.asarray(record.spikes.get(n, np.zeros(v.shape))).reshape(v.shape)
        found[n] = trace.spikes[n][own], v, theirs, np.asarray(record.v[n]).reshape(v.shape)
    return dense, trace, found


def assert_close(network, program, spikes_off=0.01, v_off=0.005):
    dense, trace, found = run_both(network, program)
    agreed = True  # so far, in all populations
    for name, (s, v, s_ref, v_ref) in found.items():
        assert (s != s_ref).sum() <= spikes_off * max(s_ref.sum(), 1), name
        same = (s == s_ref).all(axis=(0, 1))  # neurons whose spikes agree throughout
        if agreed:
            assert np.abs(v - v_ref)[:, :, same].max(initial=0) <= v_off * np.abs(v_ref).max(), name
        agreed &= bool(same.all())
    return dense, trace, found


CASES = {
    "lif": lambda r: chain(
        ir.Input((20,)), ir.Linear(weights(r, 30, 20)), lif(30), ir.Linear(weights(r, 5, 30)), ir.LI(np.full(5, 0.02)),
        ir.Output("sum"),
    ),
    "rest and reset": lambda r: chain(
        ir.Input((20,)), ir.Linear(weights(r, 30, 20)),
        lif(30, v_leak=np.full(30, 0.05), v_reset=np.full(30, -0.05), r=np.linspace(0.5, 2, 30)),
        ir.Affine(weights(r, 5, 30), bias=np.ones(5)), ir.LI(np.full(5, 0.02)), ir.Output("max"),
    ),
    "cuba": lambda r: chain(
        ir.Input((20,)), ir.Affine(weights(r, 300, 20, 30), bias=r.normal(0, 1, 300)), cuba(300),
        ir.Affine(weights(r, 5, 300), bias=r.normal(0, 1, 5)), ir.CubaLI(np.full(5, 0.01), np.full(5, 0.02)),
        ir.Output("last"),
    ),
    "delays": lambda r: chain(
        ir.Input((12,)), ir.Linear(weights(r, 260, 12), r.integers(0, 90, (260, 12))), lif(260, 0.004),
        ir.Linear(weights(r, 8, 260), r.integers(0, 70, (8, 260))), lif(8), ir.Output("count"),
    ),
    "convolution": lambda r: chain(
        ir.Input((2, 10, 10)), ir.Conv2d(r.normal(0, 1, (4, 2, 3, 3)), padding=1, bias=r.normal(0, 0.1, 4)),
        ir.LIF(np.full((4, 10, 10), 0.01), np.full((4, 10, 10), 0.2)), ir.AvgPool2d(2, 2), ir.Flatten(),
        ir.Linear(weights(r, 5, 100)), ir.LI(np.full(5, 0.02)), ir.Output("sum"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("timestep_ms", [1.0, 0.1])
@pytest.mark.parametrize("case", CASES)
def test_networks_are_close_to_the_reference(case, timestep_ms):
    network = CASES[case](np.random.default_rng(3))
    program = compile_network(network, CHIP, timestep_ms=timestep_ms)
    assert program.substitutions == ()
    check(program)
    dense, trace, _ = assert_close(network, program)
    assert not saturations(program, dense).any()
    assert trace.counters.updates.sum() == program.neurons * trace.counters.injected.size


def test_a_recurrent_loop_costs_no_extra_step():
    rng = np.random.default_rng(5)
    nodes = {
        "in": ir.Input((10,)),
        "w": ir.Linear(weights(rng, 40, 10, 6)),
        "p": cuba(40),
        "back": ir.Linear(weights(rng, 40, 40, 2)),
        "out": ir.Output("count"),
    }
    edges = (("in", "w"), ("w", "p"), ("p", "back"), ("back", "p"), ("p", "out"))
    network = ir.Network(nodes, edges, 1e-3)
    program = compile_network(network, CHIP, strict=True)
    assert program.skew == {"in": 0, "p": 1}
    assert_close(network, program, spikes_off=0.05)


def test_without_leak_whole_weights_are_exact():
    rng = np.random.default_rng(1)
    network = chain(
        ir.Input((20,)),
        ir.Linear(rng.integers(-3, 5, (30, 20)).astype(float)),
        ir.IF(np.full(30, 9.0)),
        ir.Affine(rng.integers(-3, 5, (6, 30)) / 8, bias=np.arange(6) / 8),
        ir.IF(np.full(6, 1.0)),
        ir.Output("count"),
    )
    program = compile_network(network, CHIP)
    assert len(program.substitutions) == 2
    _, _, found = run_both(network, program)
    for s, v, s_ref, v_ref in found.values():
        assert s_ref.sum() > 100
        assert np.array_equal(s, s_ref)
        assert np.array_equal(v, v_ref)


def test_what_strict_refuses_and_what_it_takes():
    subtract = chain(ir.Input((2,)), ir.Linear(np.eye(2)), lif(2, reset="subtract"), ir.Output("count"))
    assert "subtracting its threshold" in compile_network(subtract, CHIP).substitutions[0]
    with pytest.raises(PrecisionLoss, match="subtracting its threshold"):
        compile_network(subtract, CHIP, strict=True)
    compile_network(chain(ir.Input((2,)), ir.Linear(np.eye(2)), lif(2), ir.Output("count")), CHIP, strict=True)


def test_membranes_do_not_travel_and_options_are_checked():
    nodes = (ir.Input((2,)), ir.Linear(np.eye(2)), ir.LI(np.full(2, 0.01)), ir.Linear(np.eye(2)), lif(2))
    with pytest.raises(UnsupportedNode, match=r"'n2' \(LI\).*only spikes travel"):
        compile_network(chain(*nodes, ir.Output("count")), CHIP)
    fine = chain(ir.Input((2,)), ir.Linear(np.eye(2)), lif(2), ir.Output("count"))
    with pytest.raises(ChipError, match="4 problems"):
        compile_network(fine, CHIP, max_steps=0, timestep_ms=0, ring="big", neurons_per_core=300)
    with pytest.raises(ChipError, match="2 boards form no torus"):
        compile_network(fine, CHIP, boards=2)


def test_ring_buffers_by_sPyNNakers_own_bound_say_who_may_lose_input():
    rng = np.random.default_rng(2)
    network = chain(ir.Input((400,)), ir.Linear(np.abs(weights(rng, 20, 400))), lif(20), ir.Output("count"))
    safe, usual = compile_network(network, CHIP), compile_network(network, CHIP, ring="spynnaker")
    assert "ring buffers saturate" in usual.substitutions[0]
    finest = {name: p.projections[0].weight_q.max() for name, p in {"safe": safe, "usual": usual}.items()}
    assert finest["usual"] >= 4 * finest["safe"]
    every = np.ones((5, 1, 400), np.uint8)
    assert saturations(usual, every).any()
    assert not saturations(safe, every).any()
    assert safe.populations["n2"].params["shift_exc"] > usual.populations["n2"].params["shift_exc"]


def image_as_lists(program):
    """(source, target, pre, post, signed weight, delay) of every synapse in the image."""
    found = []
    for s in synapses_of(program):
        n = program.populations[s.target].size
        pre = np.repeat(np.arange(s.begin.size - 1), np.diff(s.begin))
        signed = np.where(s.place >= n, -s.weight, s.weight)[: pre.size]
        delay = (s.delay + s.late)[: pre.size]
        found += list(
            zip(
                [s.source] * pre.size, [s.target] * pre.size, pre, (s.place % n)[: pre.size], signed, delay, strict=True
            )
        )
    return sorted(found)


@pytest.mark.parametrize("case", CASES)
def test_the_image_holds_what_the_projections_say(case):
    program = compile_network(CASES[case](np.random.default_rng(4)), CHIP)
    listed = []
    for p in program.projections:
        columns = (p.params["col"], p.params["row"], p.weight_q, p.params["delay_steps"])
        listed += [(p.source, p.target, *(int(c) for c in row)) for row in zip(*columns, strict=True)]
    assert image_as_lists(program) == sorted(listed)
    slots = {n: layout_of(p).slots for n, p in program.populations.items() if p.model != "input"}
    late = {(r[0], r[1]) for r in listed if r[5] > slots[r[1]]}
    assert bool(late) == bool(len(program.image["relays"])) == (case == "delays")


@pytest.mark.parametrize("case", ["cuba", "delays"])
def test_cores_change_nothing(case):
    network = CASES[case](np.random.default_rng(6))
    one, many = (compile_network(network, CHIP, neurons_per_core=n) for n in (256, 16))
    assert many.placement.cores > one.placement.cores
    dense = (np.random.default_rng(0).random((40, 2, one.populations[one.input].size)) < 0.2).astype(np.uint8)
    a, b = simulate(one, dense), simulate(many, dense)
    for name, spikes in a.spikes.items():
        assert np.array_equal(spikes, b.spikes[name])
    assert np.array_equal(a.scores, b.scores)
    if case == "cuba":  # late rows of delay extensions are read later, some of them never
        assert a.counters.synops.sum() == b.counters.synops.sum()
    assert b.counters.hops.sum() > a.counters.hops.sum()


def test_a_certificate_asks_the_plain_model():
    program = compile_network(CASES["cuba"](np.random.default_rng(7)), CHIP)
    dense = (np.random.default_rng(0).random((20, 3, 20)) < 0.2).astype(np.uint8)
    found = certify(program, dense)
    assert found.passed
    assert found.oracle == "plain"
    assert "golden vectors of the sPyNNaker 7.4.1 kernels" in found.title
    assert found.compared == 3 * (20 + program.depth) * program.neurons * 4


def test_packets_and_hops():
    """Two neurons a chip: each spike is one packet, along a tree over the chips of its targets."""
    network = chain(
        ir.Input((1,)),
        ir.Linear(np.full((1, 1), 20.0)),
        lif(1),
        ir.Linear(np.ones((170, 1))),
        lif(170),
        ir.Output("count"),
    )
    program = compile_network(network, CHIP, neurons_per_core=1)
    trace = simulate(program, np.ones((1, 1, 1), np.uint8))
    c = trace.counters
    core = int(program.placement.core_of["n2"][0])
    assert c.spikes[0, :, core].sum() == c.packets[0, :, core].sum() == 1
    chips = np.unique(program.placement.xy, axis=0)
    assert len(chips) == 11  # 171 cores, 17 to a chip
    assert c.hops.sum() == 10  # a tree over 11 chips has 10 links
    assert c.synops.sum() == 1 + 170
    assert c.memory.sum() == 171 * 16  # one row of one word, three words ahead of it
    assert c.injected.sum() == 1


def test_too_many_cores_and_the_remedy_works():
    network = chain(ir.Input((4,)), ir.Linear(np.ones((900, 4))), lif(900), ir.Output("count"))
    with pytest.raises(DoesNotFit) as caught:
        compile_network(network, CHIP, neurons_per_core=1)
    (found,) = caught.value.violations
    assert (found.wanted, found.allowed) == (904, 48 * 17)
    assert "boards=3" in found.remedy
    program = compile_network(network, CHIP, neurons_per_core=1, boards=3)
    assert program.placement.fabric.nodes == 144


def refusal(network, **options):
    with pytest.raises(DoesNotFit) as caught:
        compile_network(network, CHIP, **options)
    return {v.limit: v for v in caught.value.violations}


def followed(network):
    """(limits that were exceeded on the way, the program) when each first remedy is followed until it fits."""
    options, met = {}, []
    for _ in range(6):
        try:
            return met, compile_network(network, CHIP, **options)
        except DoesNotFit as refused:
            violation = refused.violations[0]
            met.append(re.split(r" ?\(", violation.limit)[0])
            name, value = re.search(r"Compile with (\w+)=(\d+)", violation.remedy).groups()
            assert options.get(name) != int(value), violation
            options[name] = int(value)
    raise AssertionError(met)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"sdram": 20_000}, ["SDRAM of synaptic rows"]),
        ({"dtcm": 40_000}, ["DTCM of a core"]),
        ({"dtcm": 40_000, "sdram": 20_000}, ["DTCM of a core", "SDRAM of synaptic rows"]),
        (
            {"sdram": 8_000},
            ["SDRAM of the synaptic rows of one core", "SDRAM of synaptic rows", "cores of 1 board"],
        ),
    ],
)
def test_memory_and_the_remedies_work(monkeypatch, limits, expected):
    network = CASES["cuba"](np.random.default_rng(8))
    monkeypatch.setattr(type(layout.CHIP), "limit", lambda self, name: limits.get(name, int(self.limits[name].value)))
    met, program = followed(network)
    assert met == expected
    assert program.neurons == 305


def test_routing_entries_are_counted(monkeypatch):
    network = CASES["cuba"](np.random.default_rng(8))
    monkeypatch.setattr(
        type(layout.CHIP), "limit", lambda self, name: 1 if name == "routing_entries" else int(self.limits[name].value)
    )
    found = refusal(network, neurons_per_core=4)
    assert set(found) == {"routing entries"}


def test_kernels_refuse_a_broken_program():
    program = compile_network(CASES["lif"](np.random.default_rng(9)), CHIP)
    from dataclasses import replace

    words = program.image["words"].copy()
    words[0] |= 31  # a neuron that its core has not
    for name, array in (("words", words), ("words", words[:-5]), ("blocks", program.image["blocks"][:, :4])):
        with pytest.raises(SimulationError, match="no program for SpiNNaker 1"):
            check(replace(program, image={**program.image, name: array}))
    with pytest.raises(SimulationError, match="no population 'x'"):
        simulate(program, np.ones((1, 1, 20), np.uint8), probes=[("x", "v")])


@LAW
@given(networks(blocks=3))
def test_any_network_that_compiles_is_certified(network):
    try:
        program = compile_network(network, CHIP, neurons_per_core=3)
    except (UnsupportedNode, DoesNotFit):
        return
    size = program.populations[program.input].size
    dense = (np.random.default_rng(0).random((12, 2, size)) < 0.4).astype(np.uint8)
    assert certify(program, dense).passed


def test_every_node_is_held_or_refused_with_a_reason():
    from neuro.hardware.spinnaker1.compiler import REFUSES, SUPPORTS

    assert set(SUPPORTS) | set(REFUSES) == set(ir.NODE_TYPES.values())
    assert not set(SUPPORTS) & set(REFUSES)
    nodes = (ir.Input((2,)), ir.Linear(np.eye(2)), ir.I(np.ones(2)), ir.Output("sum"))
    with pytest.raises(UnsupportedNode, match="use an LI with a long tau_mem"):
        compile_network(chain(*nodes), CHIP)


def test_a_delay_extension_sends_once_for_each_stretch_it_holds_back():
    """32 slots for 256 neurons: delays of 1, 33 and 71 steps wait for 0, 32 and 64 steps in the extension."""
    delay = np.zeros((256, 2), np.int64)  # of the second neuron nothing is late
    delay[100:, 0], delay[200:, 0] = 32, 70
    network = chain(
        ir.Input((1,)), ir.Linear(np.full((2, 1), 20.0)), lif(2),
        ir.Linear(np.tile([20.0, 1e-2], (256, 1)), delay), lif(256),
        ir.Output("count"),
    )  # fmt: skip
    program = compile_network(network, CHIP)
    dense = np.zeros((90, 1, 1), np.uint8)
    dense[0] = 1
    c = simulate(program, dense).counters
    source, target, extension = (
        int(program.placement.core_of["n2"][0]),
        int(program.placement.core_of["n4"][0]),
        int(program.image["relays"][0, 0]),
    )
    assert len({source, target, extension}) == program.placement.cores == 3
    assert c.packets[0, :, source].tolist() == [0, 2] + [0] * 90
    assert c.packets[0, :, extension].tolist() == [0, 2] + [0] * 90
    synops = c.synops[0, :, target]
    assert {t: int(n) for t, n in enumerate(synops) if n} == {1: 100 + 256, 33: 100, 65: 56}
    spikes = simulate(program, dense).spikes["n4"][:, 0]
    assert [np.flatnonzero(spikes[:, k]).tolist() for k in (0, 100, 200)] == [[2], [34], [72]]
