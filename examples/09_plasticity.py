"""One learning rule, and what SpiNNaker 1 and Loihi 2 hold of it; then a neuron that finds inputs that come together.

Expect: what SpiNNaker 1 holds of the rule moves weights (0 to 1) as the rule does, to 0.001, and what Loihi 2 holds to
0.05: it orders spikes of one step otherwise, and says so. In the loop the 10 inputs that fire together end above 0.9 on
average, the 30 that fire for themselves below 0.15; some seconds, most of them compiling the first time.
"""

import numpy as np

from neuro.engine.circuit import LIF, Circuit, Given, Pairs, Population, Projection
from neuro.hardware.loihi2.plasticity import to_loihi2
from neuro.hardware.spinnaker1.plasticity import to_spinnaker
from neuro.plasticity import PairSTDP
from neuro.plasticity.follow import follow
from neuro.plasticity.simulation import Plastic

DT = 1e-3
RULE = PairSTDP(tau_plus=20e-3, tau_minus=20e-3, a_plus=0.02, a_minus=0.024)


def together(seed: int, steps: int, alone: int = 30, group: int = 10) -> np.ndarray:
    """uint8[steps, group + alone]: 20 spikes a second each; those of the group in the same steps."""
    rng = np.random.default_rng(seed)
    spikes = (rng.random((steps, group + alone)) < 20 * DT).astype(np.uint8)
    spikes[:, :group] = 0
    spikes[rng.random(steps) < 20 * DT, :group] = 1
    return spikes


def main() -> dict[str, float]:
    pre, post = together(1, 400, 3, 1), together(2, 400, 1, 1)
    start = np.full((4, 2), 0.5)
    plain = follow(RULE, pre, post, start, dt=DT).weights
    found = {}
    for name, made in (("spinnaker1", to_spinnaker(RULE, DT)), ("loihi2", to_loihi2(RULE, DT))):
        print(f"{name}: {made.rule}\n  " + "\n  ".join(made.remarks))
        held = follow(made.held, pre, post, start, dt=DT).weights
        found[name] = float(np.abs(held - plain).max())

    spikes = together(3, 20_000)
    steps, neurons = np.nonzero(spikes)
    n = spikes.shape[1]
    cell = LIF(tau_mem=5e-3, v_threshold=3.0, refractory=3e-3)
    circuit = Circuit(
        {"in": Population(n, Given(steps, neurons)), "out": Population(1, cell)},
        (Projection("in", "out", Pairs(np.arange(n), np.zeros(n, int)), np.full(n, 0.5)),),
        dt=DT,
    )
    net = Plastic(circuit, {0: RULE})
    net.run(len(spikes))
    source, _, weight, _ = net.connections(0)
    found |= {"group": float(weight[source < 10].mean()), "alone": float(weight[source >= 10].mean())}
    print(found)
    return found


if __name__ == "__main__":
    main()
