"""A network built by hand: two inputs, one neuron that fires only if they come 7 steps apart.

Expect: of all gaps from -10 to 10 steps the neuron on Loihi 2 fires at +7 alone, 8 steps after the first input
(7 of delay and 1 for the synapse); under 10 seconds.
"""

import numpy as np

from neuro import Network, chain
from neuro.hardware import compile, simulate
from neuro.ir import LIF, Input, Linear, Output

GAP = 7


def network() -> Network:
    """The first input waits GAP steps in its synapse, so both arrive together; one alone is too weak."""
    detector = Linear(weight=[[0.6, 0.6]], delay_steps=[[GAP, 0]])
    return chain(
        {
            "events": Input((2,)),
            "synapses": detector,
            "coincidence": LIF(tau_mem=1e-3, v_threshold=1.0, r=1 / (1 - np.exp(-1.0))),
            "out": Output("count"),
        },
        dt=1e-3,
    )


def main() -> list[int]:
    program = compile(network(), "loihi2")
    gaps = np.arange(-10, 11)
    dense = np.zeros((32, len(gaps), 2), np.uint8)
    for sample, gap in enumerate(gaps):
        dense[11, sample, 0] = 1
        dense[11 + gap, sample, 1] = 1
    spikes = simulate(program, dense).spikes["coincidence"][:, :, 0]
    fired = [int(gap) for sample, gap in enumerate(gaps) if spikes[:, sample].any()]
    late = int(np.flatnonzero(spikes[:, list(gaps).index(GAP)])[0]) - 11 if GAP in fired else None
    print(f"fires at gaps {fired}, {late} steps after the first input")
    return fired


if __name__ == "__main__":
    main()
