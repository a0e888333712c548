"""Running Akida programs: counters by hand, what a program may hold, what a run may be given."""

from __future__ import annotations

from dataclasses import replace

import axon_akida as akida
import numpy as np
import pytest
from axon_vectors import differences

from neuro.errors import SimulationError
from neuro.hardware import simulate
from neuro.hardware.akida.contract import accumulator_ranges, check
from neuro.hardware.akida.kernels import run
from neuro.hardware.akida.messages import messages
from neuro.hardware.program import Population, Program
from neuro.hardware.trace import Counters


def by_hand(program: Program, trace) -> dict[str, np.ndarray]:
    """Counters [batch, steps, cores], synapse by synapse."""
    steps, batch = trace.spikes["in"].shape[:2]
    cores = program.placement.cores
    found = {n: np.zeros((batch, steps, cores), np.int64) for n in Counters.NAMES}
    for p in program.projections:
        source, target = program.populations[p.source], program.populations[p.target]
        core = program.placement.core_of[p.target]
        values = trace.spikes[p.source]
        for t, b, i in np.argwhere(values != 0):
            hit = _targets(p, source, target, i)
            np.add.at(found["synops"][b, t], core[hit], 1)
            if p.source == "in":
                continue
            own = program.placement.core_of[p.source][i]
            if p is first_of(program, p.source, p.target):
                found["spikes"][b, t, own] += p is first_of(program, p.source)
    sent = messages(program)
    for name, (neuron, target) in sent.items():
        own, xy = program.placement.core_of[name], program.placement.xy
        for i, to in zip(neuron, target, strict=True):
            active = (trace.spikes[name][:, :, i] != 0).T
            found["packets"][:, :, own[i]] += active
            found["hops"][:, :, own[i]] += active * int(np.abs(xy[own[i]] - xy[to]).sum())
    last = program.placement.core_of[program.output]
    for t, b, i in np.argwhere(trace.spikes[program.output] != 0):
        found["spikes"][b, t, last[i]] += 1
    for name in program.populations:
        if name != "in":
            found["updates"] += np.bincount(program.placement.core_of[name], minlength=cores)
    found["memory"] = found["synops"] * 4 // 8
    return found


def first_of(program, source, target=None):
    return next(p for p in program.projections if p.source == source and target in (None, p.target))


def _targets(p, source, target, i) -> np.ndarray:
    """Neurons of the target whose kernel covers neuron i of the source; zero weights count."""
    if p.kind == "dense":
        return np.arange(target.size)
    _, height, width = source.shape
    c, y, x = np.unravel_index(i, source.shape)
    groups, out = int(p.params["groups"]), len(p.weight_q)
    side = p.weight_q.shape[2]
    hit = []
    for o in range(out):
        if o // (out // groups) != c // (source.shape[0] // groups):
            continue
        for oy in range(height):
            for ox in range(width):
                if abs(oy - y) <= side // 2 and abs(ox - x) <= side // 2:
                    hit.append((o * height + oy) * width + ox)
    return np.array(hit)


@pytest.mark.parametrize("seed", [0, 1])
def test_counters_are_what_they_are_by_hand(seed):
    program, dense = akida.program_from_seed(seed)
    dense = dense[:2, :2]
    trace = run(program, dense)
    wanted = by_hand(program, trace)
    for name, values in wanted.items():
        assert not differences(name, getattr(trace.counters, name), values)
    assert np.array_equal(trace.counters.injected, np.count_nonzero(dense, axis=2).T)


def test_a_sample_does_not_depend_on_its_batch():
    program, dense = akida.program_from_seed(4)
    whole = simulate(program, dense, probes=[("c", "p")])
    alone = simulate(program, dense, probes=[("c", "p")], batch=1)
    for a, b in ((whole.scores, alone.scores), (whole.probes["c", "p"], alone.probes["c", "p"])):
        assert np.array_equal(a, b)
    assert np.array_equal(whole.counters.synops, alone.counters.synops)
    quiet = simulate(program, dense, record_spikes=False)
    assert not quiet.spikes
    assert np.array_equal(quiet.scores, whole.scores)


def test_steps_are_frames_of_their_own():
    program, dense = akida.program_from_seed(5)
    forward, backward = run(program, dense), run(program, np.ascontiguousarray(dense[::-1]))
    for name in program.populations:
        assert np.array_equal(forward.spikes[name], backward.spikes[name][::-1])


def test_what_a_run_cannot_take():
    program, dense = akida.program_from_seed(6)  # high is 15 or less for this seed
    assert program.high < 255
    with pytest.raises(SimulationError, match="no layer 'zz' to probe"):
        run(program, dense, (("zz", "p"),))
    with pytest.raises(SimulationError, match="an Akida layer has p"):
        run(program, dense, (("a", "v"),))
    with pytest.raises(SimulationError, match="dense must hold integers"):
        run(program, np.full_like(dense, 255))
    with pytest.raises(SimulationError, match="dense must be"):
        run(program, dense[0])
    with pytest.raises(SimulationError, match=f"0..{program.high}"):
        simulate(program, np.full_like(dense, 255))


def changed(program: Program, name: str, model: str | None = None, **params) -> Program:
    """The program with some registers of a population changed; None takes one away."""
    old = program.populations[name]
    kept = {k: v for k, v in {**old.params, **params}.items() if v is not None}
    new = Population(name, name, model or old.model, old.shape, kept)
    return replace(program, populations={**program.populations, name: new})


BAD = {
    "m must lie in 0..255": ("a", {"m": np.full(6, 256)}),
    "e must lie in -16..48": ("a", {"e": np.full(6, 49)}),
    "'m' is missing": ("a", {"m": None}),
    "'zz' is unknown": ("a", {"zz": np.array(1)}),
    "m must be one value or one per channel": ("a", {"m": np.full(5, 1)}),
    "act_bits must lie in 1..4": ("b", {"act_bits": np.array(5)}),
    "step_mantissa must lie in": ("b", {"step_mantissa": np.zeros(6, int)}),
    "lut must hold 2048 values": ("a", {"lut": np.zeros(3, int)}),
    "belong together": ("a", {"pool_kernel": np.array([2, 2])}),
    "its weights and pools give": ("a", {"pool_kernel": np.array([2, 2]), "pool_stride": np.array([2, 2])}),
    "beyond 32 bits": ("d", {"bias": np.full(5, (1 << 31) - 1), "bias_shift": np.array(2)}),
    "a window would see nothing": (
        "a", {"pool_kernel": np.ones(2, int), "pool_stride": np.ones(2, int), "pool_pads": np.ones(4, int)}
    ),
    "high must lie in 1..255": ("in", {"high": np.array(300)}),
    "low must lie in 0..0": ("in", {"low": np.array(-1)}),
}  # fmt: skip


@pytest.mark.parametrize("message", BAD)
def test_a_program_beyond_the_contract_is_refused(message):
    program, _ = akida.program_from_seed(0)
    check(program)
    name, params = BAD[message]
    with pytest.raises(SimulationError, match="compile it afresh") as caught:
        check(changed(program, name, **params))
    assert message in str(caught.value)


def test_a_broken_graph_is_refused():
    program, _ = akida.program_from_seed(0)
    a, *others = program.projections
    for broken, message in (
        (replace(program, projections=tuple(others)), "nothing feeds 'a'"),
        (replace(program, projections=(replace(a, source="q"), *others)), "'q' is no population"),
        (replace(program, projections=(replace(a, source="c"), *others)), "comes before what feeds it"),
        (replace(program, output="zz"), "output 'zz' is no population"),
        (replace(program, readout="count"), "readout must be"),
        (replace(program, skew={**program.skew, "d": 1}), "all skews must be 0"),
        (replace(program, projections=(replace(a, kind="sparse"), *others)), "kind 'sparse' is unknown"),
        (replace(program, projections=(replace(a, weight_q=a.weight_q[:, :1]), *others)), "does not suit 2 channels"),
        (changed(program, "a", model="lif"), "model 'lif' is unknown"),
    ):
        with pytest.raises(SimulationError) as caught:
            check(broken)
        assert message in str(caught.value), message


def test_a_table_may_send_what_a_rectifier_would_not():
    program, _ = akida.program_from_seed(0)
    table = {"lut": np.full(2048, -700), "m_act": np.ones(6, int), "e_act": np.zeros(6, int)}
    assert accumulator_ranges(changed(program, "a", **table))["a"][0] <= -700


def test_ranges_hold_what_occurs():
    for seed in range(6):
        program, dense = akida.program_from_seed(seed)
        ranges = accumulator_ranges(program)
        trace = run(program, dense, tuple((n, "p") for n in "abcd"))
        for name, (low, high) in ranges.items():
            values = trace.probes[name, "p"]
            assert low <= values.min()
            assert values.max() <= high
