"""What all chips' simulators share: batches are their samples one by one, for any number of threads, and it makes no
difference whether synapses are added sixteen at a time or one by one."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import axon_loihi1
import axon_spinnaker2
import numpy as np
import pytest
from axon_interpreted import interpreted

sys.path.append(str(Path(__file__).parents[1] / "bench"))
import bench_chips as bench

from neuro.hardware import compile as compile_network
from neuro.hardware import simulate, spikes
from neuro.hardware.loihi1.contract import BRIAN2LOIHI, NENGO
from neuro.hardware.trace import Counters
from neuro.hardware.truenorth.kernels import integrate

NETS = ("small", "conv")


def program_of(title, name):
    chip, options = bench.CHIPS[title]
    return compile_network(bench.network(chip, name), chip, **options)


def values(trace):
    """All arrays of a trace, [batch, ...] or [steps, batch, ...]: (array, axis of samples)."""
    found = [(trace.scores, 0), (trace.counters.injected, 0)]
    found += [(getattr(trace.counters, n), 0) for n in Counters.NAMES]
    found += [(s, 1) for s in trace.spikes.values()] + [(p, 1) for p in trace.probes.values()]
    return found


def assert_same(trace, other):
    for (a, _), (b, _) in zip(values(trace), values(other), strict=True):
        assert np.array_equal(a, b)


def run(program, dense):
    """With what the output's neurons hold."""
    return simulate(program, dense, probes=((program.output, "p" if program.chip.startswith("akida") else "v"),))


def sample(program, rate, count=5, steps=30):
    n = program.populations[program.input].size
    return (np.random.default_rng(3).random((steps, count, n)) < rate).astype(np.uint8)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("title", bench.CHIPS)
def test_a_batch_is_its_samples_for_any_number_of_threads(title, name, monkeypatch):
    import numba

    program = program_of(title, name)
    dense = np.concatenate([sample(program, r) for r in (0.05, 0.5, 1.0)], axis=1)
    whole = run(program, dense)
    assert all(s.any() for s in whole.spikes.values())
    for threads in (1, 2, 3):
        monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", threads)
        assert_same(whole, run(program, dense))
    alone = [run(program, dense[:, k : k + 1]) for k in range(dense.shape[1])]
    for parts in zip(values(whole), *map(values, alone), strict=True):
        (together, axis), rest = parts[0], [array for array, _ in parts[1:]]
        assert np.array_equal(together, np.concatenate(rest, axis=axis))


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("title", ["loihi1", "loihi1 brian2loihi", "spinnaker1", "spinnaker2"])
def test_sixteen_at_a_time_or_one_by_one(title, name, monkeypatch):
    """And wherever the neurons stand."""
    program = program_of(title, name)
    dense = sample(program, 0.3)
    wanted = run(program, dense)
    for few in (1, 17):
        monkeypatch.setattr(spikes, "FEW", few)
        assert_same(wanted, run(dataclasses.replace(program), dense))
    module = f"neuro.hardware.{title.split()[0]}"
    place = {"loihi1": "kernels", "spinnaker2": "packed"}.get(title.split()[0])
    if place:
        monkeypatch.setattr(f"{module}.{place}.order_of", lambda shape, *_: np.arange(np.prod(shape)))
        assert_same(wanted, run(dataclasses.replace(program), dense))


@pytest.mark.parametrize("preset", [None, NENGO, BRIAN2LOIHI], ids=["spinnaker2", "nengo", "brian2loihi"])
def test_sixteen_at_a_time_or_one_by_one_with_delays_and_currents(preset, monkeypatch):
    for seed in range(12):
        if preset is None:
            program, dense = axon_spinnaker2.random_program(seed)
        else:
            program = axon_loihi1.program(seed, preset)
            dense = axon_loihi1.spikes(program, seed, 40, batch=2)
        monkeypatch.undo()
        wanted = run(program, dense)
        for few in (1, 17):
            monkeypatch.setattr(spikes, "FEW", few)
            assert_same(wanted, run(dataclasses.replace(program), dense))


def synapses(seed):
    """Random parts of a layout, from matrices to a few synapses; pairs repeat. Weights of 8 to 32 bits."""
    rng = np.random.default_rng(seed)
    sources, sizes = int(rng.integers(1, 40)), rng.integers(1, 50, rng.integers(1, 4))
    parts = np.concatenate([[0], np.cumsum(sizes)])
    share, many = rng.choice([0.02, 0.2, 0.7, 1.0]), int(rng.choice([1, 1, 3, 9]))
    target, source = np.nonzero(rng.random((parts[-1], sources)) < share)
    again = rng.integers(0, max(1, source.size), source.size // 5)
    source, target = (np.concatenate([a, a[again]]) for a in (source, target))
    most = int(rng.choice([1 << 7, 1 << 15, (1 << 31) - 1]))
    weight = rng.integers(-most, most + 1, source.size)
    return source, rng.integers(0, many, source.size), target, weight, sources, parts


def spread_alone(seed, few):
    """Sums that random events make, [slots * width], and what NumPy makes of them."""
    source, late, target, weight, sources, parts = synapses(seed)
    rng = np.random.default_rng([seed, 1])
    events = np.flatnonzero(rng.random(sources) < rng.choice([0.1, 0.5, 1.0])).astype(np.int32)
    before, spikes.FEW = spikes.FEW, few
    try:
        blocks = spikes.blocks_of(source, late, target, weight, sources, parts)
    finally:
        spikes.FEW = before
    width, slots = spikes.width_of(int(parts[-1])), int(late.max(initial=0)) + 2
    now = int(rng.integers(0, slots)) * width
    kind = np.int32 if seed % 2 else np.int64
    sums = np.zeros(slots * width, kind)
    spikes.spread(sums, sums.size, now, events, 0, events.size, blocks)
    wanted = np.zeros(slots * width, np.int64)
    on = np.isin(source, events)
    np.add.at(wanted, (now + late[on] * width + target[on]) % wanted.size, weight[on])
    return sums, wanted.astype(kind), blocks


def test_sums_are_those_of_numpy():
    seen = {"blocks": 0, "alone": 0, "four": 0, np.int16: 0, np.int32: 0, np.int64: 0}
    for seed in range(120):
        for few in (1, spikes.FEW, 17):
            sums, wanted, blocks = spread_alone(seed, few)
            assert np.array_equal(sums, wanted), seed
            seen["blocks"] += blocks.at.size
            seen["alone"] += blocks.to.size
            seen["four"] += int((np.bincount(blocks.pattern[blocks.pattern >= 0], minlength=1) >= 8).sum())
            seen[blocks.weight.dtype.type] += 1
    assert min(seen.values()) > 5, seen


def test_the_same_without_the_compiler():
    """Sums, and found spikes, of the code as plain Python in a process of its own."""
    wanted = [" ".join(map(str, (seed, *digest(seed)))) for seed in range(12)]
    assert interpreted("axon_spikes.py", *range(12)) == wanted


def digest(seed):
    from axon_spikes import numbers

    return numbers(seed)


def test_where_bits_are_set():
    """Rows of a crossbar, words of which are empty, full and neither; sums wrap."""
    rng = np.random.default_rng(0)
    ends = np.array([0, -1, 1, -(1 << 31)])
    for count in (0, 1, 2, 7, 40):
        rows = np.where(
            rng.random((40, 8)) < 0.5, rng.choice(ends, (40, 8)), rng.integers(-(1 << 31), 1 << 31, (40, 8))
        )
        rows, weight = rows.astype(np.int32), rng.integers(-(1 << 31), 1 << 31, (4, 256)).astype(np.int32)
        kind, active = rng.integers(0, 4, 40).astype(np.uint8), rng.permutation(40).astype(np.int32)
        bits = np.unpackbits(rows.view(np.uint8), axis=1, bitorder="little").astype(np.int64)
        chosen = active[:count]
        wanted = (bits[chosen] * weight[kind[chosen]]).sum(axis=0).astype(np.int32)
        sums = rng.integers(-(1 << 31), 1 << 31, 256).astype(np.int32)
        integrate(sums, rows, weight, kind, active, count)
        assert np.array_equal(sums, wanted)


def test_ring_buffers_that_may_run_over_are_added_to_in_order(monkeypatch):
    """SpiNNaker 1 saturates: 16 bits, addition by addition. Such a core goes word by word, the others need not."""
    from neuro.hardware.spinnaker1 import packed
    from neuro.hardware.spinnaker1.batch import saturations

    program = program_of("spinnaker1", "small")
    image = dict(program.image)
    quick = packed.quick(program)
    assert quick.cores.all()
    words = image["words"].astype(np.int64)
    image["words"] = ((words & 0xFFFF) | (np.minimum((words >> 16) * 5000, 0xFFFF) << 16)).astype(np.uint32)
    heavy = dataclasses.replace(program, image=image)
    dense = sample(heavy, 0.9)
    assert saturations(heavy, dense).any()
    assert not packed.quick(heavy).cores.all()
    wanted = simulate(program, dense)
    monkeypatch.setitem(packed._quick, program, quick._replace(cores=np.zeros_like(quick.cores)))
    assert_same(wanted, simulate(program, dense))


def test_ring_buffers_of_few_neurons(monkeypatch):
    """A slot of a core with one to twenty neurons: sixteen at a time must not reach beyond the ring."""
    from neuro import ir
    from neuro.hardware.spinnaker1 import packed

    for seed, n in enumerate((1, 2, 3, 5, 7, 9, 20)):
        rng = np.random.default_rng(seed)
        late = rng.integers(0, 9, (n, 24))
        nodes = {
            "in": ir.Input((24,)),
            "w": ir.Linear(rng.integers(-1, 2, (n, 24)) * 1.0, delay_steps=late),
            "a": ir.LI(tau_mem=np.full(n, 0.02)),
            "out": ir.Output("sum"),
        }
        program = compile_network(ir.chain(nodes, dt=1e-3), "spinnaker1")
        dense = sample(program, 0.9)
        quick = packed.quick(program)
        wanted = run(program, dense)
        monkeypatch.setitem(packed._quick, program, quick._replace(cores=np.zeros_like(quick.cores)))
        assert_same(wanted, run(program, dense))
        assert quick.cores.any() == (n > 4), n
