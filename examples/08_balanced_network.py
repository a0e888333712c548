"""A balanced random network (Brunel 2000): 12,500 neurons, 15.6 million synapses, 0.5 s in a few seconds.

Expect: 36 to 38 spikes a second each, CV of intervals 0.35 to 0.5 (of 0.4 s; longer trains have more), 2 bytes a
synapse, and the same spikes again after an interruption; under 30 seconds, half of them compiling the first time.
"""

import tempfile
from pathlib import Path

import numpy as np

from neuro.engine.circuit import LIF, Circuit, Drive, FixedInDegree, Population, Projection
from neuro.engine.simulation import Simulation

J, G, EXTERNAL_HZ = 0.1e-3, 5.0, 20.0  # volts, inhibition over excitation, rate of each of 1,000 outside sources


def network(seed: int = 1) -> Circuit:
    cell = LIF(tau_mem=20e-3, v_threshold=20e-3, v_reset=10e-3, refractory=2e-3)
    projections = [
        Projection(source, target, FixedInDegree(count), weight, delay=1.5e-3)
        for source, count, weight in (("E", 1000, J), ("I", 250, -G * J))
        for target in "EI"
    ]
    drives = [Drive(target, EXTERNAL_HZ, J, sources=1000) for target in "EI"]
    return Circuit(
        {"E": Population(10_000, cell), "I": Population(2500, cell)}, projections, drives, dt=1e-4, seed=seed
    )


def main() -> dict[str, float]:
    simulation = Simulation(network())
    simulation.run(seconds=0.1, record=False)  # settle
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state.npz"
        simulation.save(state)
        first = simulation.run(seconds=0.4)
        simulation.load(state)
        again = simulation.run(seconds=0.05)
    same = first.spikes["E"][0] < again.start + again.steps
    repeated = np.array_equal(first.spikes["E"][1][same], again.spikes["E"][1])
    gaps = [np.diff(t) for t in first.trains("E") if len(t) > 5]
    found = {
        "rate_hz": first.rate_hz("E"),
        "cv": float(np.mean([g.std(ddof=1) / g.mean() for g in gaps])),
        "bytes_per_synapse": simulation.bytes_per_synapse,
        "repeated": float(repeated),
    }
    print(found, f"{first.events / first.seconds / 1e6:.0f} million synaptic events a second")
    return found


if __name__ == "__main__":
    main()
