"""Links of SpiNNaker: what `traffic` puts on them is what the simulator counts, packet by packet."""

from __future__ import annotations

import numpy as np
import pytest
from axon_place import community_network

from neuro.hardware import compile as compile_network
from neuro.hardware import simulate
from neuro.hardware.spinnaker1.traffic import messages, routes
from neuro.hardware.traffic import NOT_MODELLED, traffic


@pytest.mark.parametrize("per_core", [2, 5, 16])
def test_links_carry_what_the_simulator_counts(per_core: int, monkeypatch: pytest.MonkeyPatch) -> None:
    program = compile_network(community_network(160, 4, 12, 1), "spinnaker1", neurons_per_core=per_core)
    dense = (np.random.default_rng(1).random((25, 3, 16)) < 0.3).astype(np.uint8)
    trace = simulate(program, dense)
    found = traffic(program, trace)
    monkeypatch.setattr("neuro.hardware.traffic.PAIRS", 3)  # messages stay whole however few are routed at a time
    assert np.allclose(traffic(program, trace).link, found.link, rtol=1e-12)
    assert found.multicast
    assert found.notes == NOT_MODELLED
    assert found.link.sum() == pytest.approx(trace.counters.hops.sum() / 3)
    assert trace.counters.hops.sum() > 0 or per_core == 16
    pairs = set(zip(*(a.tolist() for a in routes(program)), strict=True))
    for name, (neuron, core) in messages(program).items():
        own = program.placement.core_of[name]
        for i in range(own.size):
            assert sorted(core[neuron == i].tolist()) == sorted(t for s, t in pairs if s == own[i])
