"""Exported graphs in Lava's real runtime, one operating-system process per Lava process, against our kernels."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from lava_programs import conv, dense, even, needs_lava, population, program, sparse, spikes, two_layers

from neuro.hardware.certify import certify
from neuro.hardware.export import export
from neuro.hardware.loihi2.learning import STDP, plastic
from neuro.hardware.program import Population
from neuro.hardware.simulate import simulate

pytestmark = [pytest.mark.lava, needs_lava]


def assert_passed(certificate, at_least):
    assert certificate.status == "passed", certificate
    assert certificate.mismatches == 0
    assert certificate.compared >= at_least
    assert certificate.version == "lava-nc 0.10.0"


def test_recurrent_network_over_several_samples():
    made = two_layers(hidden=48, readout="sum")
    dense_in = spikes(np.random.default_rng(0), 40, 4, 12, 0.3)
    assert_passed(certify(made, dense_in), at_least=3 * 55 * 42 * 4)


def every_model():
    """Graded input -> one population of each model, fed by what may carry a sign."""
    rng = np.random.default_rng(3)
    cuba = {"du": 1500, "dv": 120, "bias_mant": rng.integers(-40, 40, 6), "bias_exp": 3}
    delta = {"vth": 90, "spike_exp": 0, "state_exp": 4, "cum_error": 1}
    decay = {"sin_decay": 2239, "cos_decay": 3081, "decay_bits": 12, "state_exp": 3, "vth": 900}
    table = {
        "sigma_delta": delta | {"bias": rng.integers(-300, 300, 6), "relu": 1},
        "ternary_lif": cuba | {"vth_hi": 30, "vth_lo": -20},
        "lif_reset": cuba | {"vth": 35, "reset_interval": 5, "reset_offset": 9},
        "delta": delta | {"cum_error": 0},
        "rf": decay,
        "rf_iz": decay | {"vth": 2500},
        "sigma": {},
    }
    populations = [Population("input", "input", "input", (4,), {"low": -9, "high": 20})]
    projections = []
    for k, (model, params) in enumerate(table.items()):
        for source in populations[: 1 if k == 0 else 2] if k != 6 else populations[3:5]:
            weight = even(rng, (6, source.size), -20, 20)
            made = dense(f"{source.name} to {model}", source.name, model, weight, exponent=-1 if k % 2 else 0)
            more = {"num_message_bits": 16} | ({"port": 1} if k == 4 and source.name != "input" else {})
            projections.append(replace(made, params={**made.params, **more}))
        populations.append(Population(model, model, model, (6,), params))
    return program(populations, projections, depth=3, readout="last")


def numbers(seed):
    """Input for `every_model`."""
    rng = np.random.default_rng(seed)
    return (rng.random((25, 3, 4)) < 0.5) * rng.integers(-9, 21, (25, 3, 4))


def test_every_neuron_model_with_graded_messages():
    made, given = every_model(), numbers(4)
    trace = simulate(made, given)
    for name, sent in trace.spikes.items():
        assert 0 < (sent != 0).mean() < 1, f"'{name}' says nothing in this test"
    assert trace.spikes["sigma_delta"].min() < 0 < trace.spikes["sigma_delta"].max()
    assert (trace.spikes["ternary_lif"] == -1).any()
    for oracle in ("lava", "lava-inprocess"):
        assert_passed(certify(made, given, oracle=oracle), at_least=28 * 3 * 6 * (5 + 3 + 3 + 4 + 3 + 3 + 2))


def test_an_exported_folder_checks_itself(tmp_path):
    """Numbers in, numbers between the processes, and one projection that learns, in a fresh interpreter."""
    made = every_model()
    learns = dense("learns", "lif_reset", "rf", even(np.random.default_rng(6), (6, 6), 0, 60))
    made = replace(made, projections=(*made.projections, learns))
    folder = export(plastic(made, "learns", STDP(t_epoch=3, seed=4)), tmp_path / "exported")
    command = [sys.executable, str(folder / "network.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert "0 differ" in done.stdout
    assert "integers in -9..20" in (folder / "README.md").read_text()


def test_convolutions_then_dense_delays_and_sparse():
    rng = np.random.default_rng(1)
    populations = [
        population("input", (2, 9, 8), "input"),
        population("conv 1", (4, 5, 4), du=3000, dv=200, vth=5, bias_mant=rng.integers(-50, 50, 80), bias_exp=2),
        population("conv 2", (6, 3, 2), du=4095, dv=500, vth=4),
        population("hidden", 20, du=1000, dv=100, vth=30),
        population("out", 5, "li", du=4095, dv=60, vth=131071),
    ]
    at = np.divmod(rng.choice(20 * 20, 60, replace=False), 20)
    projections = [
        conv("c1", "input", "conv 1", rng.integers(-9, 30, (4, 2, 3, 3)), stride=(2, 2), padding=(1, 1)),
        conv("c2", "conv 1", "conv 2", rng.integers(-9, 20, (6, 2, 3, 3)), dilation=(1, 1), groups=2),
        dense("f1", "conv 2", "hidden", even(rng, (20, 36)), delay=rng.integers(0, 12, (20, 36)), exponent=-1),
        sparse("loop", "hidden", "hidden", at, even(rng, 60), delay=rng.integers(0, 63, 60)),
        sparse("f2", "hidden", "out", np.divmod(np.arange(50), 20), rng.integers(0, 255, 50), sign=2, exponent=-2),
        dense("back to image", "hidden", "conv 2", even(rng, (36, 20), -20, 20)),
    ]
    made = program(populations, projections, depth=4)
    assert_passed(certify(made, spikes(rng, 30, 2, 144, 0.3)), at_least=3 * 141 * 34 * 2)


def test_neurons_with_parameters_of_their_own_read_through_a_negative_exponent():
    rng = np.random.default_rng(2)
    populations = [
        population("input", 10, "input"),
        population("mixed", 24, du=rng.choice([900, 4095], 24), dv=rng.choice([0, 400], 24), vth=40),
        population("out", 6, du=2048, dv=100, vth=rng.choice([30, 60], 6)),
    ]
    projections = [
        dense("f1", "input", "mixed", even(rng, (24, 10))),
        dense("loop", "mixed", "mixed", even(rng, (24, 24), -40, 40), exponent=-3),
        dense("f2", "mixed", "out", even(rng, (6, 24), -60, 60)),
    ]
    assert_passed(certify(program(populations, projections), spikes(rng, 30, 2, 10, 0.4)), at_least=3 * 30 * 32 * 2)


def test_a_projection_that_learns_in_lavas_learning_phase():
    rng = np.random.default_rng(5)
    populations = [
        population("input", 6, "input"),
        population("pre", 6, du=4095, dv=4095, vth=1),
        population("post", 4, du=2000, dv=200, vth=150, bias_mant=60, bias_exp=6),
    ]
    projections = [
        dense("relay", "input", "pre", 2 * np.eye(6, dtype=int)),
        dense("learns", "pre", "post", even(rng, (4, 6), -40, 90)),
    ]
    rule = STDP(7.5, 20.0, 20.5, 31.25, (-1, -1), (2, -1), t_epoch=4, seed=8)
    made = plastic(program(populations, projections, depth=1), "learns", rule)
    certificate = certify(made, spikes(rng, 30, 2, 6, 0.4))
    assert_passed(certificate, at_least=(3 * 10 + 24 + 6 + 4) * 31 * 2)
