"""SpiNNaker 2: what its compiler makes of a network, what it refuses, and what its certificate says."""

from __future__ import annotations

import numpy as np
import pytest

from neuro import ir, reference
from neuro.errors import ChipError, DoesNotFit, PrecisionLoss, SimulationError, UnsupportedNode
from neuro.hardware import compile as compile_network
from neuro.hardware import load_chip, simulate
from neuro.hardware.certify import certify
from neuro.hardware.place import Placement
from neuro.hardware.program import Population, Program, Projection
from neuro.hardware.spinnaker2.contract import bits, check, reals
from neuro.hardware.target import load_target


def lif(n: int, **options: object) -> ir.LIF:
    return ir.LIF(tau_mem=np.full(n, 0.01), v_threshold=np.full(n, 0.3), **options)  # type: ignore[arg-type]


def two_layers(weight: np.ndarray, node: ir.Node, **options: object) -> ir.Network:
    return ir.chain(
        {"input": ir.Input((weight.shape[1],)), "w": ir.Linear(weight), "a": node, "output": ir.Output()},
        dt=1e-3,
        **options,
    )


def drawn(n: int, m: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.1, 0.4, (n, m))


def test_parameters_are_those_of_py_spinnaker2() -> None:
    """threshold = v_threshold 127 / (max |w| (1 - beta) r), alpha_decay = exp(-dt/tau), i_offset of the leak alike."""
    weight = drawn(5, 7)
    program = compile_network(two_layers(weight, lif(5, r=np.full(5, 2.0), v_leak=np.full(5, 0.01))), "spinnaker2")
    p = program.populations["a"]
    beta = np.exp(-0.1)
    scale = 127 / np.abs(weight).max() / ((1 - beta) * 2.0)
    for name, expected in (("threshold", 0.3 * scale), ("alpha_decay", beta), ("i_offset", (1 - beta) * 0.01 * scale)):
        assert np.array_equal(reals(p.params[name], 5), np.full(5, expected, np.float32)), name
    assert np.array_equal(program.projections[0].weight_q, np.rint(weight * 127 / np.abs(weight).max()))
    assert p.model == "lif_no_delay"


def test_a_program_holds_integers_only() -> None:
    program = compile_network(two_layers(drawn(5, 7), lif(5)), "spinnaker2")
    for p in program.populations.values():
        assert all(a.dtype == np.int64 for a in p.params.values())
    values = np.array([0.1, -3e38, 1e-45, 0.0], np.float32)
    assert np.array_equal(reals(bits(values), 4), values)


def test_v_is_zero_when_a_sample_arrives() -> None:
    """A bias moves v in the steps before; v_init undoes it, so a deep biased layer agrees with the float network."""
    rng = np.random.default_rng(2)
    nodes = {"input": ir.Input((6,)), "w": ir.Linear(drawn(8, 6)), "a": lif(8), "w2": ir.Linear(drawn(8, 8, 1)),
             "b": lif(8), "w3": ir.Affine(drawn(4, 8, 2), bias=rng.normal(0, 0.05, 4)), "c": lif(4),
             "output": ir.Output()}  # fmt: skip
    network = ir.chain(nodes, dt=1e-3)
    program = compile_network(network, "spinnaker2", strict=True)
    assert program.skew["c"] == 3
    assert reals(program.populations["c"].params["v_init"], 4).any()
    dense = np.zeros((30, 1, 6), np.uint8)
    v = simulate(program, dense, probes=(("c", "v"),)).probes["c", "v"][3:33, 0] * program.scale["c"]
    assert np.abs(v - reference.run(network, dense).v["c"].reshape(30, 4)).max() < 1e-5


def test_what_cannot_be_exact_is_said() -> None:
    """A bias behind a synapse or a Delay, one that fires before its time; strict refuses each."""
    biased = ir.Affine(drawn(3, 4), bias=np.array([0.2, 0.0, -0.1]))
    cuba = ir.CubaLIF(tau_mem=np.full(3, 0.01), tau_syn=np.full(3, 0.005), v_threshold=np.full(3, 0.3))
    eager = ir.Affine(drawn(3, 4), bias=np.array([50.0, 0.0, 0.0]))
    for nodes, said in (
        ({"w": biased, "a": cuba}, "i_offset has no synapse"),
        ({"w": biased, "d": ir.Delay(np.array(2)), "a": lif(3)}, "where a Delay would hold it back by 2"),
        ({"w": eager, "a": ir.IF(v_threshold=np.full(3, 1.0), v_reset=np.full(3, 0.5))}, None),
    ):
        network = ir.chain({"input": ir.Input((4,)), **nodes, "output": ir.Output()}, dt=1e-3)
        program = compile_network(network, "spinnaker2")
        if said is None:
            assert not program.substitutions  # v_init holds even this one down
            continue
        assert any(said in line for line in program.substitutions), program.substitutions
        with pytest.raises(PrecisionLoss):
            compile_network(network, "spinnaker2", strict=True)


def test_a_tight_loop_arrives_late_and_says_so() -> None:
    nodes = {"input": ir.Input((2,)), "w": ir.Linear(drawn(3, 2)), "a": lif(3), "w2": ir.Linear(drawn(3, 3)),
             "b": lif(3), "w3": ir.Linear(drawn(3, 3)), "output": ir.Output()}  # fmt: skip
    edges = (("input", "w"), ("w", "a"), ("a", "w2"), ("w2", "b"), ("b", "w3"), ("w3", "a"), ("b", "output"))
    program = compile_network(ir.Network(nodes, edges, dt=1e-3), "spinnaker2")
    assert any("closes a loop" in line for line in program.substitutions)


def test_kernels_are_shared_unless_something_forbids_it() -> None:
    rng = np.random.default_rng(4)

    def conv(node: ir.Node, **options: object) -> Program:
        kernel = ir.Conv2d(rng.normal(0, 0.3, (4, options.pop("inner", 2), 3, 3)), **options)  # type: ignore[arg-type]
        chain = {"input": ir.Input((2, 9, 9)), "k": kernel, "a": node, "output": ir.Output()}
        return compile_network(ir.chain(chain, dt=1e-3), "spinnaker2")

    plain = ir.IF(v_threshold=np.full((4, 7, 7), 1.0))
    assert conv(plain).populations["a"].model == "lif_conv2d"
    assert conv(plain).projections[0].kind == "conv"
    cuba = ir.CubaLIF(
        tau_mem=np.full((4, 7, 7), 0.01), tau_syn=np.full((4, 7, 7), 5e-3), v_threshold=np.full((4, 7, 7), 0.3)
    )
    assert conv(cuba).populations["a"].model == "lif_curr_exp_no_delay"
    assert conv(plain, groups=2, inner=1).projections[0].kind == "sparse"
    negative = ir.IF(v_threshold=np.full((4, 7, 7), 1.0), r=np.where(np.arange(4)[:, None, None] == 1, -1.0, 1.0))
    assert conv(negative).projections[0].kind == "sparse"


def test_a_negative_gain_turns_the_weights_round() -> None:
    weight, r = drawn(4, 5, 3), np.array([1.0, -1.0, 2.0, 0.0])
    network = two_layers(weight, ir.IF(v_threshold=np.full(4, 0.5), r=r))
    program = compile_network(network, "spinnaker2")
    dense = (np.random.default_rng(0).random((80, 1, 5)) < 0.2).astype(np.uint8)
    fired = simulate(program, dense).spikes["a"][1:81, 0].sum(axis=0)
    theirs = reference.run(network, dense).spikes["a"].reshape(80, 4).sum(axis=0)
    assert np.abs(fired.astype(int) - theirs.astype(int)).max() <= 2
    assert fired[3] == 0
    assert fired[1] > 0 or theirs[1] == 0


LIMITS = {
    "delay": (
        ir.chain({"input": ir.Input((3,)), "w": ir.Linear(drawn(4, 3), delay_steps=np.full((4, 3), 8)), "a": lif(4),
                  "output": ir.Output()}, dt=1e-3),
        ir.chain({"input": ir.Input((3,)), "w": ir.Linear(drawn(4, 3), delay_steps=np.full((4, 3), 7)), "a": lif(4),
                  "output": ir.Output()}, dt=1e-3),
        "delay of",
    ),
    "fan-in": (
        two_layers(np.ones((2, 30000)), lif(2)),
        two_layers(np.ones((2, 5000)), lif(2)),
        "memory of one neuron",
    ),
    "cores": (
        two_layers(np.ones((38001, 1)), lif(38001)),
        two_layers(np.ones((38000, 1)), lif(38000)),
        "cores of one chip",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LIMITS)
def test_limits_are_named_and_their_remedies_work(name: str) -> None:
    too_much, enough, said = LIMITS[name]
    with pytest.raises(DoesNotFit) as caught:
        compile_network(too_much, "spinnaker2")
    assert any(said in str(v) for v in caught.value.violations)
    compile_network(enough, "spinnaker2")


def test_every_violation_at_once() -> None:
    w = ir.Linear(drawn(4, 3), delay_steps=np.full((4, 3), 9))
    nodes = {"input": ir.Input((3,)), "w": w, "a": lif(4), "w2": ir.Linear(drawn(39000, 4)), "b": lif(39000),
             "output": ir.Output()}  # fmt: skip
    with pytest.raises(DoesNotFit) as caught:
        compile_network(ir.chain(nodes, dt=1e-3), "spinnaker2")
    assert len(caught.value.violations) == 2


def test_refusals() -> None:
    nodes = {"input": ir.Input((3,)), "w": ir.Linear(drawn(4, 3)), "a": ir.LI(tau_mem=np.full(4, 0.01)),
             "w2": ir.Linear(drawn(2, 4)), "b": lif(2), "output": ir.Output()}  # fmt: skip
    with pytest.raises(UnsupportedNode, match="sends its membrane"):
        compile_network(ir.chain(nodes, dt=1e-3), "spinnaker2")
    with pytest.raises(ChipError, match="max_steps"):
        compile_network(two_layers(drawn(2, 2), lif(2)), "spinnaker2", max_steps=0)
    with pytest.raises(ChipError, match="no such compile option"):
        compile_network(two_layers(drawn(2, 2), lif(2)), "spinnaker2", bits=4)


def test_nobody_is_told_that_this_was_verified() -> None:
    chip = load_chip("spinnaker2")
    assert "no reference implementation available here" in chip.title
    assert any(line.startswith("no reference implementation available here") for line in chip.not_modelled)
    program = compile_network(two_layers(drawn(6, 5), lif(6)), "spinnaker2")
    dense = (np.random.default_rng(1).random((40, 2, 5)) < 0.4).astype(np.uint8)
    certificate = certify(program, dense)
    assert certificate.passed
    assert "no reference implementation" in certificate.title
    assert "our consistency only" in certificate.title
    assert all("no reference" in o.title for o in load_target("spinnaker2").oracles.values())


def test_a_broken_kernel_fails_its_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    from neuro.hardware.spinnaker2 import kernels

    program = compile_network(two_layers(drawn(6, 5), lif(6)), "spinnaker2")
    dense = (np.random.default_rng(1).random((40, 1, 5)) < 0.4).astype(np.uint8)
    packed = kernels.pack(program)
    blocks = packed.blocks
    later = blocks._replace(at=blocks.at + packed.width, to=blocks.to + packed.width)
    monkeypatch.setattr(kernels, "pack", lambda _: packed._replace(slots=packed.slots + 1, blocks=later))
    assert not certify(program, dense).passed


def test_readouts_are_those_of_the_membrane() -> None:
    """max, last and sum of v in whole numbers of Program.scale decide as the float network does."""
    for readout in ("max", "last", "sum", "count"):
        node = ir.LI(tau_mem=np.full(4, 0.02)) if readout != "count" else lif(4)
        nodes = {"input": ir.Input((9,)), "w": ir.Linear(drawn(4, 9, 5)), "o": node, "output": ir.Output(readout)}
        network = ir.chain(nodes, dt=1e-3)
        program = compile_network(network, "spinnaker2")
        dense = (np.random.default_rng(3).random((60, 8, 9)) < 0.3).astype(np.uint8)
        trace, float64 = simulate(program, dense, probes=(("o", "v"),)), reference.run(network, dense)
        assert (trace.decision == reference.classify(network, float64)).mean() >= 7 / 8
        v = trace.probes["o", "v"][1:61].astype(np.int64)
        if readout != "count":
            made = {"max": v.max(axis=0), "last": v[-1], "sum": v.sum(axis=0)}[readout]
            assert np.array_equal(trace.scores, made)
            assert np.abs(v * program.scale["o"] - float64.v["o"].reshape(60, 8, 4)).max() < 0.01


def test_a_program_that_breaks_the_contract_is_refused_whole() -> None:
    good = {n: bits(np.zeros(3)) for n in ("alpha_decay", "i_offset", "threshold", "v_reset", "v_init", "v_unit")}
    a = Population("a", "a", "lif_no_delay", (3,), good | {"reset": np.array(2), "v_init": bits([np.nan, 0, 0])})
    b = Population("b", "b", "izhikevich", (2,))
    projections = (
        Projection("in->a", "w", "in", "a", "dense", np.full((3, 2), 128), {"delay_steps": np.ones((3, 2), np.int64)}),
        Projection("a->a", "w", "a", "a", "sparse", np.ones(1, np.int64), {"row": np.array([3]), "col": np.array([0])}),
        Projection("in->b", "w", "in", "b", "stamp", np.ones(1, np.int64)),
    )
    populations = {"in": Population("in", "in", "input", (2,)), "a": a, "b": b}
    program = Program("spinnaker2", 1e-3, populations, projections, "in", "a", {"in": 0, "a": 1}, {}, "count",
                      Placement({"a": np.zeros(3, np.int64)}, np.zeros((1, 2), np.int64)))  # fmt: skip
    with pytest.raises(SimulationError) as caught:
        check(program)
    text = str(caught.value)
    for said in ("reset must be", "v_init must be finite", "izhikevich", "beyond -127..127", "delays beyond 0..0",
                 "row must name", "must be one of", "needs a positive scale"):  # fmt: skip
        assert said in text, said
