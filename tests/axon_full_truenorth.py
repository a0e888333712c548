"""A TrueNorth full of neurons that fire at a given rate: every core 256 x 256, half of all crosspoints set.

Each neuron climbs by its leak and fires when it has climbed far enough, in a phase of its own; what arrives from
128 excitatory and inhibitory synapses in the mean pushes it about. Each neuron sends to an axon of another core.
"""

from __future__ import annotations

import numpy as np

from neuro.hardware.truenorth.bank import Bank, bank_from, empty

TICK = 1e-3  # seconds
CLIMB = 40  # leak, in units of a synapse


def full(cores: int, rate_hz: float = 20.0, density: float = 0.5, seed: int = 0) -> Bank:
    """``cores`` cores in a square as nearly as can be."""
    rng = np.random.default_rng(seed)
    made = empty(cores)
    n = (cores, 256)
    octets = rng.integers(0, 256, (cores, 256, 32), dtype=np.uint8)
    if density != 0.5:
        bits = rng.random((cores, 256, 256)) < density
        octets = np.packbits(bits, axis=2, bitorder="little")
    made["crossbar"][...] = octets.view(np.uint64)
    made["axon_type"][...] = np.arange(256) % 2
    made["weight"][...] = np.array([1, -1, 0, 0])
    made["leak"][...] = CLIMB
    period = round(1.0 / (rate_hz * TICK))
    made["alpha"][...] = CLIMB * period
    made["negative"][...] = -(1 << 18)
    made["v0"][...] = rng.integers(0, CLIMB * period, n)
    targets = rng.permutation(cores * 256).reshape(n)  # every axon has one neuron
    made["target"][...] = targets // 256
    made["axon"][...] = targets % 256
    made["delay"][...] = rng.integers(1, 16, n)
    made["neurons"][...] = 256
    side = int(np.ceil(np.sqrt(cores)))
    made["xy"][...] = np.stack([np.arange(cores) % side, np.arange(cores) // side], axis=1)
    return bank_from(made)


def sliced(cores: int, seed: int = 1) -> Bank:
    """The same for other simulators: every delay one tick, all from V = 0, leaks that differ instead of phases."""
    rng = np.random.default_rng(seed)
    made = {name: array.copy() for name, array in full(cores, seed=seed).image().items()}
    made["delay"][...] = 1
    made["v0"][...] = 0
    made["leak"][...] = rng.integers(CLIMB - 10, CLIMB + 11, made["leak"].shape)
    return bank_from(made)


def synapses_of(bank: Bank) -> dict[str, np.ndarray]:
    """Every synapse by itself: pre, post, weight; leak, alpha and core of each neuron (256 of a core in a row)."""
    pre, post, weight = [], [], []
    for core in range(bank.cores):
        joined = np.unpackbits(bank.crossbar[core].view(np.uint8), axis=1, bitorder="little")
        axon, neuron = np.nonzero(joined)
        source = np.full(bank.axons, -1)
        here = np.flatnonzero(bank.target.reshape(-1) == core)
        source[bank.axon.reshape(-1)[here]] = here
        pre.append(source[axon])
        post.append(core * 256 + neuron)
        weight.append(bank.weight[core, neuron, bank.axon_type[core, axon]])
    return {
        "pre": np.concatenate(pre).astype(np.int32),
        "post": np.concatenate(post).astype(np.int32),
        "weight": np.concatenate(weight).astype(np.float32),
        "leak": bank.leak.reshape(-1),
        "alpha": bank.alpha.reshape(-1),
        "core": np.repeat(np.arange(bank.cores), 256),
    }
