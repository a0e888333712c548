"""Laws of the Loihi 2 kernel that need no second implementation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from axon_loihi2_programs import from_seed, programs
from axon_loihi2_results import COUNTERS, results
from axon_pyint_loihi2 import Synapses
from axon_strategies import LAW
from hypothesis import given
from hypothesis import strategies as st

from neuro.hardware.loihi2 import kernels as loihi2_kernels
from neuro.hardware.loihi2 import synapses as loihi2_synapses
from neuro.hardware.loihi2.kernels import run
from neuro.hardware.loihi2.record import AHEAD
from neuro.hardware.program import Placement, Population, Program, Projection

SEEDS = range(12)
M = 1 << 23


def assert_same(first, second):
    assert first.keys() == second.keys()
    for key in first:
        assert np.array_equal(first[key], second[key]), key


def samples(found, chosen):
    """The results of some samples only."""
    batch_first = (*COUNTERS, "scores")
    return {key: v[chosen] if key in batch_first else v[:, chosen] for key, v in found.items()}


@LAW
@given(programs(most=12), st.randoms(use_true_random=False))
def test_a_sample_does_not_know_its_batch(case, random):
    program, dense = case
    order = list(range(dense.shape[1]))
    random.shuffle(order)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loihi2_kernels, "_threads", lambda: 1)  # one after the other in the same room
        together = results(program, dense)
    assert_same(results(program, dense[:, order]), samples(together, order))
    assert_same(results(program, dense[:, order[:1]]), samples(together, order[:1]))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_change_nothing(threads, monkeypatch):
    for seed in SEEDS:
        program, dense = from_seed(seed)
        many = np.repeat(dense, 7, axis=1)
        expected = results(program, many)
        monkeypatch.setattr(loihi2_kernels, "_threads", lambda: threads)
        assert_same(results(program, many), expected)


def test_little_room_for_spikes_is_enough(monkeypatch):
    """A sample that outgrows its room is run again with more; nothing of the first try may be left."""
    made = loihi2_kernels.work_of
    asked = []

    def small(net, steps, capacity):
        asked.append(capacity)
        return made(net, steps, capacity if capacity in (2 << k for k in range(40)) else 1)  # 1, 2, 4, ...

    for seed in SEEDS:
        program, dense = from_seed(seed)
        expected = results(program, dense)
        with monkeypatch.context() as patch:
            patch.setattr(loihi2_kernels, "work_of", small)
            assert_same(results(program, dense), expected)
    assert len(asked) > 2 * len(SEEDS)


@LAW
@given(programs(most=12), st.integers(0, 15))
def test_causality(case, since):
    """What enters in step t changes nothing before step t + 1 but the input itself."""
    program, dense = case
    since %= len(dense)
    other = dense.copy()
    other[since:] = other[since:] == 0
    first, second = results(program, dense), results(program, other)
    for key in first:
        if isinstance(key, tuple):
            upto = since if key == ("spikes", program.input) else since + 1
            assert np.array_equal(first[key][:upto], second[key][:upto]), key


def still(p):
    """Parameters with which a population does nothing unless something arrives, and knows no time."""
    wanted = {"bias_mant": 0, "bias": 0, "reset_interval": 1}
    made = {name: value for name, value in wanted.items() if name in p.params}
    made |= {name: abs(p.params[name]) + (p.model == "rf_iz") for name in ("vth", "vth_hi") if name in p.params}
    return made | ({"vth_lo": -abs(p.params["vth_lo"])} if "vth_lo" in p.params else {})


@LAW
@given(programs(most=12), st.integers(1, 4))
def test_without_bias_silence_before_a_sample_only_delays_it(case, silence):
    program, dense = case
    quiet = {n: replace(p, params={**p.params, **still(p)}) for n, p in program.populations.items()}
    program = replace(program, populations=quiet)
    late = np.concatenate([np.zeros((silence, *dense.shape[1:]), np.uint8), dense])
    first, second = results(program, dense), results(program, late)
    for key in first:
        if isinstance(key, tuple):
            assert not second[key][:silence].any()
            assert np.array_equal(first[key], second[key][silence:]), key


@LAW
@given(programs(most=12))
def test_counters_are_sums_over_spikes(case):
    program, dense = case
    trace = run(program, dense)
    c, steps = trace.counters, trace.steps
    spikes = {n: (s != 0).astype(np.int64) for n, s in trace.spikes.items() if n != program.input}
    assert np.array_equal(c.injected[:, : len(dense)], (dense != 0).sum(axis=2).T)
    assert not c.injected[:, len(dense) :].any()
    assert np.array_equal(c.spikes.sum(axis=2), sum(s.sum(axis=2) for s in spikes.values()).T)
    assert c.updates.sum() == program.neurons * steps * dense.shape[1]
    silent = (c.spikes.sum(axis=2) == 0) & (c.injected == 0)
    for name in ("synops", "packets", "hops"):
        assert not getattr(c, name)[silent].any()
    assert (c.packets <= c.spikes * program.placement.cores).all()
    assert np.array_equal(run(program, dense, record_spikes=False).scores, trace.scores)
    assert run(program, dense, record_spikes=False).spikes == {}


def conv_program(seed):
    """(program with one convolution of small even weights, input); often the kernel covers the whole width."""
    rng = np.random.default_rng(seed)
    groups = int(rng.choice([1, 2]))
    out, shape = groups * int(rng.choice([1, 3])), np.zeros(2, int)
    while (shape < 1).any():
        size, kernel, stride = rng.integers(1, 8, 2), rng.integers(1, 6, 2), rng.integers(1, 4, 2)
        padding, dilation = rng.integers(0, 3, 2), rng.integers(1, 3, 2)
        shape = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    source = (2 * groups, *size.tolist())
    weight = 2 * rng.integers(-127, 128, (out, 2, *kernel))
    params = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    target = (out, *shape.tolist())
    registers = {
        "du": 3000,
        "dv": 200,
        "vth": rng.integers(0, 300, int(np.prod(target))),
        "bias_mant": 0,
        "bias_exp": 0,
    }
    pops = [Population("in", "in", "input", source), Population("out", "out", "lif", target, registers)]
    projection = Projection("w", "w", "in", "out", "conv", weight, params)
    placement = Placement({"out": np.arange(pops[1].size) // 10}, rng.integers(0, 4, (pops[1].size // 10 + 1, 2)))
    skew = {"in": 0, "out": 1}
    made = Program("loihi2", 1e-3, {p.name: p for p in pops}, (projection,), "in", "out", skew, {}, "count", placement)
    return made, (rng.random((9, 2, pops[0].size)) < 0.1).astype(np.uint8)


def as_matrix(program):
    """The convolution's weights as dense [out, in], by the definition of a convolution."""
    source, target = (program.populations[name] for name in ("in", "out"))
    matrix = np.zeros((target.size, source.size), np.int64)
    for i, synapses in Synapses(program.projections[0], source, target).reach.items():
        for o, weight, _ in synapses:
            matrix[o, i] += weight
    return matrix


@pytest.mark.parametrize("seed", range(60))
def test_runs_rows_and_lists_are_the_same_synapses(seed, monkeypatch):
    """A convolution, its dense matrix stored as rows or lists, and its list of synapses do the same.

    Only a kernel's zero weights differ: a convolution reads them, so it counts them.
    """
    program, dense = conv_program(seed)
    matrix = as_matrix(program)
    params = {"weight_exp": 0, "num_weight_bits": 8, "sign_mode": 1}
    row, col = np.nonzero(matrix)
    rows = Projection("w", "w", "in", "out", "dense", matrix, params)
    lists = Projection("w", "w", "in", "out", "sparse", matrix[row, col], params | {"row": row, "col": col})
    expected = results(program, dense)
    full_kernel = bool((program.projections[0].weight_q != 0).all())
    for below in (0.0, 1.1):
        monkeypatch.setattr(loihi2_synapses, "SPARSE_BELOW", below)
        for projection in (rows, lists):
            found = results(replace(program, projections=(projection,)), dense)
            if not full_kernel:
                found["synops"] = expected["synops"]
            assert_same(found, expected)


@pytest.mark.parametrize(
    ("weights", "arrives"), [((M - 1, 0), M - 1), ((M - 1, 1), -M), ((-M, 0), -M), ((-M, -1), M - 1)]
)
def test_a_convolution_wraps_to_24_bits_from_the_first_sum_that_needs_it(weights, arrives):
    registers = {"du": 4095, "dv": 0, "vth": 131071, "bias_mant": 0, "bias_exp": 0}
    pops = [Population("in", "in", "input", (2, 1, 1)), Population("out", "out", "lif", (1, 1, 1), registers)]
    params = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    kernel = Projection("w", "w", "in", "out", "conv", np.array(weights).reshape(1, 2, 1, 1), params)
    placement = Placement({"out": np.zeros(1, int)}, np.zeros((1, 2), int))
    skew = {"in": 0, "out": 1}
    made = Program("loihi2", 1e-3, {p.name: p for p in pops}, (kernel,), "in", "out", skew, {}, "sum", placement)
    assert run(made, np.ones((1, 1, 2), np.uint8), (("out", "a"),)).probes["out", "a"][1, 0, 0] == arrives


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_collect_finds_every_flag(share):
    rng = np.random.default_rng(0)
    flags = (rng.random((9, 64)) < share).astype(np.uint8)
    for first in range(10):
        for last in range(first, 10):
            events = np.full(5 + flags.size + AHEAD + 1, -1, np.int32)
            end = loihi2_kernels.collect(flags.ravel().view(np.uint64), first, last, events, 5)
            assert np.array_equal(events[5:end], np.nonzero(flags[first:last].ravel())[0])
            assert (events[:5] == -1).all()
            assert (events[end + AHEAD :] == -1).all()
