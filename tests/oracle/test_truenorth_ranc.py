"""Every potential, spike and output of the RANC simulator, by both ways through the kernel and by the plain model."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from axon_ranc import bank_of_vector
from axon_vectors import FOLDER, batches, differences

from neuro.hardware.truenorth import plain
from neuro.hardware.truenorth.run import net_of, record_bank, start, step_many

FILES = sorted(p.name for p in (FOLDER / "truenorth").glob("*.npz"))
VECTORS = [v for name in FILES for v in batches(f"truenorth/{name}")] or batches("truenorth/ranc_000.npz")
SMALL = 50_000  # neuron updates of a file that the plain model repeats in the default run
WIDE = 256 * 5 * 8


def outputs(vector, lines):
    """Our lines, with those that no neuron uses."""
    full = np.zeros_like(vector["out_bus"])
    full[:, : lines.shape[1]] = lines
    return full


@pytest.mark.parametrize("by_neuron", [False, True], ids=["words", "neurons"])
@pytest.mark.parametrize("vector", VECTORS)
def test_kernel(vector, by_neuron):
    bank, packets = bank_of_vector(vector)
    ours = record_bank(bank, len(vector["V"]), packets, by_neuron=by_neuron)
    assert not differences("V", ours.v[:, 0], vector["V"])
    assert not differences("spikes", ours.spikes[:, 0], vector["spikes"])
    assert not differences("out_bus", outputs(vector, ours.lines[:, 0]), vector["out_bus"])


@pytest.mark.parametrize("vector", VECTORS)
def test_plain_model(vector):
    if vector["V"].size > SMALL:
        vector = vector | {name: vector[name][:8] for name in ("V", "spikes", "out_bus")}
    bank, packets = bank_of_vector(vector)
    steps, (where, axon) = len(vector["V"]), np.divmod(packets[:, 1], bank.axons)
    spikes, v, lines = plain.ticks(bank, steps, zip(packets[:, 0].tolist(), where.tolist(), axon.tolist(), strict=True))
    assert not differences("V", v, vector["V"])
    assert not differences("spikes", spikes, vector["spikes"])
    shown = np.zeros_like(vector["out_bus"])
    for tick, line in lines:
        shown[tick : tick + 1, line] = 1  # the last spikes show after the end
    assert not differences("out_bus", shown, vector["out_bus"])


@pytest.mark.parametrize("vector", VECTORS[:12])
def test_in_several_calls(vector):
    """State that is kept between calls, and time that wraps round the ring."""
    bank, packets = bank_of_vector(vector)
    net, state, steps = net_of(bank), start(bank, threads=2), len(vector["V"])
    shown = np.zeros((steps, net.alpha.size), np.uint8)
    cuts = [0, min(1, steps), min(18, steps), steps]
    for begin, end in itertools.pairwise(cuts):
        now = packets[(packets[:, 0] >= begin) & (packets[:, 0] < end)] - [begin, 0]
        step_many(net, state, end - begin, now, shown[begin:end])
    shown = shown.reshape(steps, *net.alpha.shape)[..., : bank.width]
    assert not differences("spikes", shown, vector["spikes"])
