"""Laws: layers that run a tile of neurons over all steps do what unbounded integers do, and what they do untiled."""

from __future__ import annotations

import numpy as np
import pytest
from axon_loihi2_results import results
from axon_pyint_loihi2 import simulate
from axon_vectors import differences

from neuro.hardware.loihi2 import packed
from neuro.hardware.program import Placement, Population, Program, Projection

READOUTS = ("count", "sum", "max", "last")
SEEDS = range(40)


def layered(seed):
    """(program, input): layers of LIF behind dense matrices, some with delays, some that skip a layer; registers from
    calm to those at their ends, weights from the smallest to the largest that 16 bits take; several cores."""
    rng = np.random.default_rng(seed)
    sizes = rng.choice([1, 7, 48, 63, 64, 65, 100, 128, 200], rng.integers(2, 5))
    calm = rng.random() < 0.6
    populations = [Population("p0", "p0", "input", (int(sizes[0]),))]
    for k, n in enumerate(sizes[1:], 1):
        each = n if rng.random() < 0.5 else ()
        registers = {
            "du": 4095 if rng.random() < 0.5 else rng.choice([0, 1, 3000, 4095], each),
            "dv": rng.choice([0, 1, 200, 4095, 4096], each),
            "vth": rng.integers(0, 500 if calm else 131072, each),
            "bias_mant": rng.integers(-20, 21, each) if calm else rng.choice([-4096, 0, 4095], each),
            "bias_exp": 0 if calm else 7,
        }
        model = "li" if k == len(sizes) - 1 and rng.random() < 0.3 else "lif"
        populations.append(Population(f"p{k}", f"p{k}", model, (int(n),), registers))
    projections = []
    for k in range(1, len(sizes)):
        for source in {k - 1, int(rng.integers(0, k))}:
            shape = int(sizes[k]), int(sizes[source])
            params = {"weight_exp": int(rng.choice([0, 1, 4])), "num_weight_bits": 8, "sign_mode": 1}
            if rng.random() < 0.4:
                params["delay_steps"] = rng.integers(0, 3, shape)
            weight = rng.integers(-256, 256, shape) if rng.random() < 0.5 else rng.choice([254] * 4 + [-254], shape)
            name = f"w{source}{k}"
            projections.append(Projection(name, name, f"p{source}", f"p{k}", "dense", weight, params))
    cores = 3
    core_of = {p.name: rng.integers(0, cores if rng.random() < 0.5 else 1, p.size) for p in populations[1:]}
    placement = Placement(core_of, rng.integers(0, 4, (cores, 2)))
    skew = {p.name: k for k, p in enumerate(populations)}
    table = {p.name: p for p in populations}
    last, readout = populations[-1].name, str(rng.choice(READOUTS))
    made = Program("loihi2", 1e-3, table, tuple(projections), "p0", last, skew, {}, readout, placement)
    return made, (rng.random((int(rng.integers(1, 20)), 2, sizes[0])) < rng.choice([0.02, 0.3, 1.0])).astype(np.uint8)


@pytest.mark.parametrize("seed", SEEDS)
def test_tiles_equal_unbounded_integers(seed, monkeypatch):
    monkeypatch.setattr(packed, "TILES_WASTE", 100.0)  # layers of one neuron too
    program, dense = layered(seed)
    ours, theirs = results(program, dense), simulate(program, dense)
    for key, values in ours.items():
        assert not differences(str(key), values, theirs[key])


def test_what_runs_in_tiles():
    """Of the programs above, most layers; none of another kind."""
    chosen = []
    for seed in SEEDS:
        net = packed.pack(layered(seed)[0])
        chosen += list(zip(net.tiled[1:].tolist(), np.diff(net.first)[1:].tolist(), strict=True))
    assert sum(t for t, _ in chosen) > 20
    assert all(not t for t, n in chosen if n < 48)


@pytest.mark.parametrize("seed", SEEDS)
def test_tiles_and_rows_are_the_same(seed, monkeypatch):
    program, dense = layered(seed)
    found = []
    for waste in (0.0, 100.0):
        monkeypatch.setattr(packed, "TILES_WASTE", waste)
        packed._cache.clear()
        found.append(results(program, dense))
    for key in found[0]:
        assert np.array_equal(found[0][key], found[1][key]), key
