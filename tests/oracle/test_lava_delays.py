"""Delays learnt here, rounded and exported, in Lava's own DelayDense: bit for bit, feed-forward and recurrent."""

from __future__ import annotations

import numpy as np
import pytest
from lava_programs import needs_lava

from neuro import ir
from neuro.datasets.source import source
from neuro.hardware import compile as compile_network
from neuro.hardware.certify import certify
from neuro.hardware.export.lava_graph import lower
from neuro.hardware.simulate import simulate
from neuro.train.config import Config
from neuro.train.loop import fit

pytestmark = [pytest.mark.lava, needs_lava]

TABLE = {
    "name": "late",
    "seed": 2,
    "data": {"dataset": "braille", "limit": 128, "steps": 40, "dt": 0.05},
    "layers": [
        {"type": "linear", "out": 20, "delay": {"chip": "loihi2", "max": 12, "kernel": "triangle"}},
        {"type": "cuba_lif", "alpha": 0.7, "beta": 0.9, "recurrent": True, "recurrent_delay": {"max": 5}},
        {"type": "linear", "out": 27, "init": 1.0, "delay": {"max": 8, "kind": "axonal"}},
        {"type": "li", "beta": 0.95},
    ],
    "readout": "sum",
    "optimiser": {"lr": 1e-2},
    "train": {"epochs": 4, "batch_size": 32, "threads": 1},
}


def test_trained_delays_are_lavas(tmp_path):
    run = fit(Config.from_table(TABLE), tmp_path / "run")
    delayed = [n for n, node in run.network.nodes.items() if isinstance(node, ir.Linear) and node.delay_steps.max() > 1]
    assert sorted(delayed) == ["0_linear", "1_cuba_lif_recurrent", "2_linear"]
    program = compile_network(run.network, "loihi2", max_steps=40)
    assert {s.kind for s in lower(program).synapses} == {"DelayDense"}
    given = source("braille").load("valid").batch(range(3), 0.05, 40)
    hidden = simulate(program, given).spikes["1_cuba_lif"]
    assert 0 < hidden.mean() < 0.5
    assert len(np.unique(program.projections[0].params["delay_steps"])) > 6
    certificate = certify(program, given, oracle="lava-inprocess")
    assert certificate.passed, certificate
    assert certificate.mismatches == 0
