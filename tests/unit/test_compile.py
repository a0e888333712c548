"""`compile`: refusals that name everything, options, substitutions, and what a Program says of itself."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from compile_networks import dense_graph

from neuro import ir
from neuro.errors import ChipError, DoesNotFit, PrecisionLoss, UnknownChip, UnsupportedNode, Violation
from neuro.hardware import compile as compile_network
from neuro.hardware import load_chip
from neuro.hardware.loihi2 import compiler as loihi2
from neuro.hardware.loihi2.compiler import CHIP, SUPPORTS
from neuro.hardware.loihi2.contract import check

ROOT = Path(__file__).parents[2]


def small(node: ir.Neuron | None = None, readout: str = "count", **weights: object) -> ir.Network:
    """Input 3 -> Affine -> one population of 2 -> Output; numbers off any grid."""
    rng = np.random.default_rng(0)
    layer = (
        ir.Affine(rng.normal(size=(2, 3)), bias=rng.normal(0, 0.1, 2))
        if weights.get("bias")
        else ir.Linear(rng.normal(size=(2, 3)))
    )
    node = node or ir.LIF(tau_mem=np.full(2, 0.01), v_threshold=1.0, r=10.0)
    return ir.chain([("in", ir.Input((3,))), ("w", layer), ("p", node), ("out", ir.Output(readout))], dt=1e-3)


def test_a_program_keeps_the_kernels_contract() -> None:
    for seed in range(5):
        check(compile_network(dense_graph(seed, bias=True)))


def test_every_node_type_is_supported_or_refused_by_name() -> None:
    assert set(SUPPORTS) == set(ir.NODE_TYPES.values()) - {ir.MaxPool2d, ir.QuantisedReLU, ir.AdaptiveLIF}


def test_unknown_chip_and_unknown_option() -> None:
    with pytest.raises(UnknownChip, match="Did you mean 'loihi2'"):
        compile_network(small(), "loihi")
    with pytest.raises(UnknownChip, match="loihi2"):
        load_chip("lohi2")
    with pytest.raises(ChipError, match="Did you mean 'max_steps'"):
        compile_network(small(), max_step=3)
    with pytest.raises(ChipError, match="3 problems") as caught:
        compile_network(small(), start_up="no", max_steps=0, readout_headroom=2.0)
    assert len(caught.value.violations) == 3


def test_membranes_do_not_travel() -> None:
    nodes = {
        "in": ir.Input((2,)),
        "a": ir.Linear(np.eye(2)),
        "li": ir.LI(tau_mem=np.full(2, 0.01)),
        "b": ir.Linear(np.eye(2)),
        "cuba": ir.CubaLI(tau_syn=np.full(2, 0.01), tau_mem=0.01),
        "c": ir.Linear(np.eye(2)),
        "p": ir.IF(v_threshold=1.0),
        "out": ir.Output(),
    }
    with pytest.raises(UnsupportedNode) as caught:
        compile_network(ir.chain(nodes, dt=1e-3))
    text = str(caught.value)
    assert "'li' (LI)" in text
    assert "'cuba' (CubaLI)" in text
    assert "only spikes travel" in text


def test_an_output_must_read_one_population() -> None:
    plain = ir.chain([("in", ir.Input((2,))), ("w", ir.Linear(np.eye(2))), ("out", ir.Output("sum"))], dt=1e-3)
    with pytest.raises(UnsupportedNode, match=r"'w' \(Linear\), which holds no membrane; put an LI"):
        compile_network(plain)
    nodes = {
        "in": ir.Input((2,)),
        "p": ir.IF(v_threshold=np.ones(2)),
        "q": ir.IF(v_threshold=np.ones(2)),
        "out": ir.Output(),
    }
    both = ir.Network(nodes, (("in", "p"), ("in", "q"), ("p", "out"), ("q", "out")), dt=1e-3)
    with pytest.raises(UnsupportedNode, match="reads 2 sources"):
        compile_network(both)


def test_a_loop_of_delays_only_is_refused() -> None:
    nodes = {
        "in": ir.Input((2,)),
        "w": ir.Linear(np.eye(2)),
        "echo": ir.Delay(np.ones(2, int)),
        "half": ir.Scale(np.full(2, 0.5)),
        "p": ir.IF(v_threshold=np.ones(2)),
        "out": ir.Output(),
    }
    edges = (("in", "w"), ("w", "echo"), ("echo", "half"), ("half", "echo"), ("half", "p"), ("p", "out"))
    with pytest.raises(UnsupportedNode, match="no neuron in the loop"):
        compile_network(ir.Network(nodes, edges, dt=1e-3))


def test_everything_that_does_not_fit_is_listed_at_once() -> None:
    rng = np.random.default_rng(0)
    wide = 200_000  # one neuron's weights alone exceed a core's 192 KiB
    nodes = {
        "in": ir.Input((wide,)),
        "w": ir.Linear(rng.normal(size=(1, wide))),
        "p": ir.IF(v_threshold=np.ones(1)),
        "d": ir.Delay(np.array([70])),
        "v": ir.Linear(np.ones((1, 1))),
        "q": ir.LIF(tau_mem=0.01, v_threshold=1.0, v_reset=np.array([2.0])),
        "u": ir.Linear(np.ones((1, 1))),
        "r": ir.LI(tau_mem=np.array([1e4])),
        "out": ir.Output("max"),
    }
    with pytest.raises(DoesNotFit) as caught:
        compile_network(ir.chain(nodes, dt=1e-3))
    found = caught.value.violations
    assert all(isinstance(v, Violation) and v.remedy for v in found)
    assert {v.node for v in found if isinstance(v, Violation)} >= {"p", "q", "r"}
    text = str(caught.value)
    assert "'p': memory of one neuron" in text
    assert "'q': v_threshold - v_reset is -1, allowed 0" in text
    assert "'r': worst-case membrane" in text
    assert (
        "delay of 'p->q' on the chip (steps) is 69, allowed 62" in text
    )  # one step of the 70 is the projection itself
    assert len(found) == 4
    assert "max_steps" in text


def test_delays_are_counted() -> None:
    late = ir.chain(
        [
            ("in", ir.Input((2,))),
            ("w", ir.Linear(np.ones((2, 2)), np.array([[0, 63], [1, 2]]))),
            ("p", ir.IF(v_threshold=1.0)),
            ("out", ir.Output()),
        ],
        dt=1e-3,
    )
    with pytest.raises(DoesNotFit, match=r"delay of 'in->p' on the chip .* is 63, allowed 62. Shorten"):
        compile_network(late)


def test_limits_of_the_whole_chip(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chip of 2 cores of 10 neurons, 25 neurons and 50 synapses: 30 neurons with 3 inputs break all three."""
    tight = {
        n: replace(CHIP.limits[n], value=v)
        for n, v in (("cores", 2), ("neurons_per_core", 10), ("neurons", 25), ("synapses", 50))
    }
    monkeypatch.setattr(loihi2, "CHIP", replace(CHIP, limits={**CHIP.limits, **tight}))
    network = ir.chain(
        [
            ("in", ir.Input((3,))),
            ("w", ir.Linear(np.ones((30, 3)))),
            ("p", ir.IF(v_threshold=1.0)),
            ("out", ir.Output()),
        ],
        dt=1e-3,
    )
    with pytest.raises(DoesNotFit) as caught:
        compile_network(network)
    found = {v.limit: (v.wanted, v.allowed) for v in caught.value.violations if isinstance(v, Violation)}
    assert found == {"cores of one chip": (3, 2), "neurons of one chip": (30, 25), "synapses of one chip": (90, 50)}


def test_a_synapse_of_weight_zero_may_be_as_late_as_it_likes() -> None:
    delays = np.array([[0, 1000], [1, 2]])
    network = ir.chain(
        [
            ("in", ir.Input((2,))),
            ("w", ir.Linear(np.array([[1.0, 0.0], [1, 1]]), delays)),
            ("p", ir.IF(v_threshold=1.0)),
            ("out", ir.Output()),
        ],
        dt=1e-3,
    )
    assert compile_network(network).projections[0].params["delay_steps"].max() == 2


def test_strict_refuses_every_substitution_and_names_it() -> None:
    node = ir.IF(v_threshold=np.full(2, 1.3), v_reset=np.array([0.1, 0.2]), reset="subtract")
    program = compile_network(small(node))
    text = " ".join(program.substitutions)
    assert "resets to zero instead of subtracting" in text
    with pytest.raises(PrecisionLoss) as caught:
        compile_network(small(node), strict=True)
    assert tuple(caught.value.violations) == program.substitutions
    assert compile_network(small(), strict=True).substitutions == ()


def test_v_reset_shifts_the_membrane() -> None:
    """v' = v - v_reset: the threshold falls by v_reset, the rest pulls towards -v_reset."""
    node = ir.LIF(tau_mem=np.full(2, 0.01), v_threshold=1.0, r=10.0, v_reset=0.25, v_leak=0.5)
    program = compile_network(small(node))
    params, unit = program.populations["p"].params, 64 * program.scale["p"]
    assert int(params["vth"]) * unit == pytest.approx(0.75, rel=1e-3)
    bias = params["bias_mant"] * 2.0 ** params["bias_exp"] * unit / 64
    assert bias == pytest.approx((1 - np.exp(-0.1)) * 0.25, rel=2e-2)


def test_without_a_start_the_bias_acts_early_and_says_so() -> None:
    early = compile_network(small(bias=True), start_up=False)
    assert any("1 step(s) before the sample" in s and "start_up=True" in s for s in early.substitutions)
    assert "start_up" not in early.populations
    timed = compile_network(small(bias=True))
    assert timed.substitutions == ()
    assert "start_up" in timed.populations
    assert "start_up" not in compile_network(small()).populations  # nothing to set up
    np.testing.assert_array_equal(
        early.populations["p"].params["bias_mant"], timed.populations["p"].params["bias_mant"]
    )


def test_a_node_of_the_starters_name_is_refused() -> None:
    network = ir.chain([("in", ir.Input((2,))), ("start_up", ir.IF(v_threshold=1.0)), ("out", ir.Output())], dt=1e-3)
    with pytest.raises(ChipError, match="rename"):
        compile_network(network)


def test_a_synapse_with_memory_gets_the_steady_state_of_its_bias() -> None:
    node = ir.CubaLIF(tau_syn=np.full(2, 0.01), tau_mem=0.02, v_threshold=1.0, r=20.0, w_in=1 / (1 - np.exp(-0.1)))
    network = small(node, bias=True)
    program = compile_network(network)
    affine = network.nodes["w"]
    assert isinstance(affine, ir.Affine)
    params = program.populations["p"].params
    bias = params["bias_mant"] * 2.0 ** params["bias_exp"] * program.scale["p"]
    gain = (1 - np.exp(-0.05)) * 20
    np.testing.assert_allclose(bias, gain * affine.bias / (1 - np.exp(-0.1)), rtol=0.02)


def test_flat_populations_behind_a_kernel_keep_their_planes() -> None:
    rng = np.random.default_rng(0)
    network = ir.chain(
        [
            ("in", ir.Input((1, 5, 5))),
            ("c", ir.Conv2d(rng.normal(size=(2, 1, 3, 3)))),
            ("f", ir.Flatten()),
            ("p", ir.IF(v_threshold=np.ones(18))),
            ("out", ir.Output()),
        ],
        dt=1e-3,
    )
    program = compile_network(network)
    assert program.projections[0].kind == "conv"
    assert program.populations["p"].shape == (2, 3, 3)


def test_gains_that_differ_within_a_channel_end_weight_sharing() -> None:
    taus = np.linspace(0.005, 0.05, 18).reshape(2, 3, 3)
    by_channel = np.broadcast_to(np.array([0.01, 0.02])[:, None, None], (2, 3, 3))

    def kind(tau: np.ndarray) -> str:
        conv = ir.Conv2d(np.random.default_rng(0).normal(size=(2, 1, 3, 3)))
        network = ir.chain(
            [
                ("in", ir.Input((1, 5, 5))),
                ("c", conv),
                ("p", ir.LIF(tau_mem=tau, v_threshold=0.1)),
                ("out", ir.Output()),
            ],
            dt=1e-3,
        )
        return compile_network(network).projections[0].kind

    assert (kind(by_channel), kind(taus)) == ("conv", "sparse")


def test_parameters_of_one_value_are_scalars() -> None:
    params = compile_network(small()).populations["p"].params
    assert {n: a.shape for n, a in params.items()} == dict.fromkeys(("du", "dv", "vth", "bias_mant", "bias_exp"), ())
    several = small(ir.LIF(tau_mem=np.array([0.01, 0.02]), v_threshold=np.array([1.0, 2.0])))
    params = compile_network(several).populations["p"].params
    assert (params["dv"].shape, params["vth"].shape, params["du"].shape) == ((2,), (2,), ())


def test_registers_stay_in_their_formats() -> None:
    for tau in (1e-5, 1e-3, 1e-2, 0.3):
        node = ir.CubaLIF(tau_syn=np.full(2, tau), tau_mem=tau, v_threshold=1.0, r=5.0, v_leak=0.3)
        params = compile_network(small(node)).populations["p"].params
        for name, fmt in (("du", "decay"), ("dv", "decay"), ("vth", "threshold"), ("bias_mant", "bias")):
            assert CHIP.formats[fmt].low <= params[name].min() <= params[name].max() <= CHIP.formats[fmt].high
        assert 0 <= int(params["bias_exp"]) <= 7


def test_a_network_of_zero_weights_compiles() -> None:
    network = ir.chain(
        [
            ("in", ir.Input((3,))),
            ("w", ir.Linear(np.zeros((2, 3)))),
            ("p", ir.IF(v_threshold=1.0)),
            ("out", ir.Output()),
        ],
        dt=1e-3,
    )
    program = compile_network(network)
    assert not program.projections[0].weight_q.any()
    assert int(program.populations["p"].params["vth"]) > 0


def test_the_package_refuses_its_folder_name() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import hardware"], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.returncode != 0
    assert "this package is neuro.hardware" in done.stderr


def test_public_names_stay_functions_after_their_modules_load() -> None:
    code = (
        "import neuro.hardware.compile, neuro.hardware.estimate\n"
        "from neuro.hardware import compile, estimate\n"
        "assert callable(compile) and callable(estimate)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr
