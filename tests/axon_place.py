"""Networks and demands for tests of placement."""

from __future__ import annotations

import numpy as np

from neuro import ir
from neuro.hardware.arrange import Wanted
from neuro.hardware.fabric import Fabric
from neuro.hardware.place import Demand
from neuro.hardware.program import Population, Projection


def communities(neurons: int, groups: int, fan_in: int, seed: int, stray: float = 0.02) -> np.ndarray:
    """bool[neurons, neurons]: synapses (target, source), most within a community, members in random order."""
    rng = np.random.default_rng(seed)
    member = rng.permutation(np.arange(neurons) % groups)
    found = np.zeros((neurons, neurons), bool)
    for k in range(neurons):
        own = np.flatnonzero(member == member[k])
        found[k, rng.choice(own, min(fan_in, own.size), replace=False)] = True
    return found | (rng.random(found.shape) < stray * fan_in / neurons)


def recurrent(matrix: np.ndarray, per_core: int, fabric: Fabric, bits: int = 1 << 30) -> Wanted:
    """One population with sparse recurrent synapses, an input in front of it, another layer behind."""
    n = len(matrix)
    rng = np.random.default_rng(n)
    row, col = np.nonzero(matrix)
    populations = {
        "in": Population("in", "in", "input", (4,)),
        "a": Population("a", "a", "lif", (n,)),
        "b": Population("b", "b", "lif", (2 * per_core,)),
    }
    loop = Projection("loop", "loop", "a", "a", "sparse", np.ones(row.size, np.int64), {"row": row, "col": col})
    into = Projection("w", "w", "in", "a", "dense", np.ones((n, 4), np.int64))
    out = Projection("o", "o", "a", "b", "dense", (rng.random((2 * per_core, n)) < 0.9).astype(np.int64))
    demands = [
        Demand(name, rng.integers(4, 13, size), np.zeros(size, np.int64), np.zeros(1, np.int64))
        for name, size in (("a", n), ("b", 2 * per_core))
    ]
    return Wanted(demands, populations, (into, loop, out), per_core, bits, fabric)


def community_network(neurons: int = 1600, groups: int = 8, fan_in: int = 120, seed: int = 5) -> ir.Network:
    """IF neurons in hidden communities, wide enough for several cores of Loihi 2, and a readout."""
    rng = np.random.default_rng(seed)
    loop = communities(neurons, groups, fan_in, seed) * rng.uniform(0.1, 1.0, (neurons, neurons))
    nodes: dict[str, ir.Node] = {
        "in": ir.Input((16,)),
        "w": ir.Linear(rng.uniform(0, 1, (neurons, 16)) * (rng.random((neurons, 16)) < 0.1)),
        "hidden": ir.IF(v_threshold=np.full(neurons, 2.0)),
        "loop": ir.Linear(0.02 * loop),
        "wo": ir.Linear(rng.uniform(-1, 1, (5, neurons))),
        "readout": ir.LI(tau_mem=np.full(5, 0.01)),
        "out": ir.Output("sum"),
    }
    edges = (("in", "w"), ("w", "hidden"), ("hidden", "loop"), ("loop", "hidden"), ("hidden", "wo"))
    return ir.Network(nodes, (*edges, ("wo", "readout"), ("readout", "out")), 1e-3)
