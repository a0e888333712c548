"""Compiled == .py_func == unbounded integers, on random banks with registers at their ends."""

from __future__ import annotations

import collections

import numpy as np
import pytest
from axon_interpreted import interpreted
from axon_truenorth_banks import digest, random_bank
from axon_vectors import differences

from neuro.hardware.truenorth import kernels, plain, prng, run
from neuro.hardware.truenorth.run import net_of, record_bank, start, step_many

QUICK = range(150)


def by_plain(bank, packets, steps):
    where = [(t, *divmod(at, bank.axons)) for t, at in packets.tolist()]
    spikes, v, lines = plain.ticks(bank, steps, where)
    shown = np.zeros((steps, 1 + max((line for _, line in lines), default=-1)), np.uint8)
    for tick, line in lines:
        shown[tick : tick + 1, line] = 1
    return spikes, v, shown


def seen_in(bank, v, seen):
    """Count what a bank reached, so that a fuzz that reaches nothing is not taken for a proof."""
    low, high = run.RANGES[bank.overflow][2:]
    ends = (v == low) | (v == high)
    seen[f"{bank.overflow} at an end"] += int(ends.sum())
    before = np.concatenate([bank.v0[None], v[:-1]]).astype(np.int64)
    jump = np.abs(v.astype(np.int64) - before) > high
    seen[f"{bank.overflow} jumped"] += int(jump.sum())
    seen[f"{bank.generator} with chance"] += int(((bank.stochastic != 0) | (bank.mask != 0)).any())
    seen["updates"] += v.size


def compare(seeds, seen):
    for seed in seeds:
        bank, packets, steps = random_bank(seed)
        ours = record_bank(bank, steps, packets)
        spikes, v, lines = by_plain(bank, packets, steps)
        assert not differences(f"V of seed {seed}", ours.v[:, 0], v)
        assert not differences(f"spikes of seed {seed}", ours.spikes[:, 0], spikes)
        shown = np.zeros_like(ours.lines[:, 0])
        shown[:, : lines.shape[1]] = lines
        assert not differences(f"lines of seed {seed}", ours.lines[:, 0], shown)
        seen_in(bank, v, seen)


def test_kernel_is_the_plain_model():
    seen = collections.Counter()
    compare(QUICK, seen)
    assert seen["saturate at an end"] > 100
    assert seen["wrap jumped"] > 100
    assert seen["wrap32 jumped"] > 100
    assert all(seen[f"{name} with chance"] > 5 for name in ("xorshift32", "lfsr16", "table"))


@pytest.mark.slow
def test_millions_of_updates():
    seen = collections.Counter()
    seed = 1000
    while seen["updates"] < 3_000_000:
        compare(range(seed, seed + 50), seen)
        seed += 50


@pytest.mark.parametrize("seed", range(12))
def test_neuron_by_neuron_is_the_same(seed):
    bank, packets, steps = random_bank(seed)
    fast, slow = (record_bank(bank, steps, packets, by_neuron=by) for by in (False, True))
    for name in ("v", "spikes", "lines", "booked"):
        assert not differences(name, getattr(fast, name), getattr(slow, name))


@pytest.fixture
def uncompiled(monkeypatch):
    """Every function of the kernel without the compiler."""
    for module in (prng, kernels, run):
        for name, value in list(vars(module).items()):
            if hasattr(value, "py_func"):
                monkeypatch.setattr(module, name, value.py_func)


@pytest.mark.parametrize("seed", range(6))
def test_without_the_compiler(seed, uncompiled):
    assert not hasattr(run.run_samples, "py_func")
    assert not hasattr(kernels.draw, "py_func")
    bank, packets, _ = random_bank(seed, cores=2, axons=17, neurons=16)
    steps = 8
    packets = packets[packets[:, 0] < steps]
    with np.errstate(over="ignore"):  # numbers of numpy warn where they wrap; the compiled ones wrap
        ours = record_bank(bank, steps, packets)
    spikes, v, _ = by_plain(bank, packets, steps)
    assert not differences("V", ours.v[:, 0], v)
    assert not differences("spikes", ours.spikes[:, 0], spikes)


@pytest.mark.slow
def test_a_million_updates_without_the_compiler():
    """Neurons that the loops go through, not those of calm cores, which the counters count as well."""
    seen, compiled, seed = collections.Counter(), [], 1000
    while seen["booked"] < 1_100_000:
        bank, packets, steps = random_bank(seed)
        ours = record_bank(bank, steps, packets)
        seen["booked"] += int(ours.booked[kernels.UPDATES].sum())
        seen_in(bank, ours.v[:, 0], seen)
        compiled.append(f"{seed} {digest(ours)}")
        seed += 1
    *told, settled = interpreted("axon_truenorth_banks.py", *range(1000, seed))
    plainly, anyhow = map(int, settled.split())
    print(f"{seed - 1000} banks, {plainly} + {anyhow} updates, {dict(seen)}")
    assert told == compiled
    assert plainly + anyhow >= 1_000_000
    assert min(plainly, anyhow) > 100_000
    assert min(seen["saturate at an end"], seen["wrap jumped"], seen["wrap32 jumped"]) > 1000


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_and_calls_change_nothing(threads, monkeypatch):
    """Cores in threads, time in several calls: the same spikes and counters as in one go."""
    monkeypatch.setattr(run, "CORES_PER_THREAD", 1)
    bank, packets, steps = random_bank(4, cores=7, axons=64, neurons=65)
    whole = record_bank(bank, steps, packets)
    net, state = net_of(bank), start(bank, threads)
    shown = np.zeros((steps, net.alpha.size), np.uint8)
    totals = np.zeros((6, bank.cores), np.int64)
    for begin, end in ((0, 1), (1, 19), (19, steps)):
        now = packets[(packets[:, 0] >= begin) & (packets[:, 0] < end)] - [begin, 0]
        found = step_many(net, state, end - begin, now, shown[begin:end])
        assert np.array_equal(found.per_core.sum(axis=1), found.per_step.sum(axis=1))
        totals += found.per_core
    shown = shown.reshape(steps, bank.cores, -1)[..., : bank.width]
    assert not differences("spikes", shown, whole.spikes[:, 0])
    assert not differences("counters", totals, whole.booked[:, 0].sum(axis=1))
