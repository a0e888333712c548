"""A program that breaks the contract is refused before a kernel sees it, with all that is wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from neuro.errors import SimulationError
from neuro.hardware.loihi2.contract import check
from neuro.hardware.loihi2.kernels import run
from neuro.hardware.program import Placement, Population, Program, Projection

LIF = {"du": 4095, "dv": 300, "vth": 40, "bias_mant": 0, "bias_exp": 0}
MATRIX = {"weight_exp": 0, "num_weight_bits": 8, "sign_mode": 1}
CONV = {"stride": (2, 2), "padding": (1, 1), "dilation": (1, 1), "groups": 1}


def make(*, conv=None, hidden=None, matrix=None, **changes):
    """in (2, 5, 5) -conv-> hidden (3, 3, 3) -dense-> out (4,), with parameters changed or (None) left out."""

    def table(base, new):
        return {k: v for k, v in {**base, **(new or {})}.items() if v is not None}

    pops = [
        Population("in", "in", "input", (2, 5, 5)),
        Population("hidden", "hidden", "lif", (3, 3, 3), table(LIF, hidden)),
        Population("out", "out", "li", (4,), LIF),
    ]
    made = Program(
        chip="loihi2",
        dt=1e-3,
        populations={p.name: p for p in pops},
        projections=(
            Projection("c", "c", "in", "hidden", "conv", np.ones((3, 2, 3, 3), int), table(CONV, conv)),
            Projection("d", "d", "hidden", "out", "dense", np.ones((4, 27), int), table(MATRIX, matrix)),
        ),
        input="in",
        output="out",
        skew={"in": 0, "hidden": 1, "out": 2},
        scale={},
        readout="sum",
        placement=Placement({"hidden": np.zeros(27, int), "out": np.zeros(4, int)}, np.zeros((1, 2), int)),
    )
    return replace(made, **changes)


def sparse(row, col, weight=(1, 1), **more):
    params = MATRIX | {"row": np.array(row), "col": np.array(col)} | more
    return make(projections=(Projection("s", "s", "hidden", "out", "sparse", np.array(weight), params),))


def refuse(program, *says):
    with pytest.raises(SimulationError) as caught:
        check(program)
    for text in says:
        assert text in str(caught.value)
    return caught.value


def test_a_good_program_passes():
    check(make())
    check(sparse([0, 3], [26, 0]))


@pytest.mark.parametrize(
    ("program", "says"),
    [
        (make(hidden={"du": 4096}), "du must lie in 0..4095"),
        (make(hidden={"du": -1}), "du must lie in 0..4095"),
        (make(hidden={"dv": 4097}), "dv must lie in 0..4096"),
        (make(hidden={"vth": 1 << 25}), "vth must lie in"),
        (make(hidden={"bias_exp": 32}), "bias_exp must lie in -31..31"),
        (make(hidden={"dv": np.zeros(26, int)}), "dv must be a scalar or [27], got shape (26,)"),
        (make(hidden={"dv": None}), "parameter 'dv' is missing"),
        (make(matrix={"weight_exp": None}), "parameter 'weight_exp' is missing"),
        (make(matrix={"weight_exp": 32}), "weight_exp must lie in -31..31"),
        (make(matrix={"num_weight_bits": 9}), "num_weight_bits must lie in 1..8"),
        (make(matrix={"sign_mode": 4}), "sign_mode must lie in 0..3"),
        (make(matrix={"sign_mode": np.ones(2, int)}), "sign_mode must be a scalar"),
        (make(matrix={"delay_steps": np.zeros((4, 26), int)}), "delay_steps must have the shape"),
        (make(matrix={"delay_steps": np.full((4, 27), -1)}), "delay_steps must lie in 0.."),
        (make(conv={"stride": (0, 1)}), "stride must be two integers >= 1"),
        (make(conv={"padding": None}), "padding must be two integers >= 0"),
        (make(conv={"groups": 2}), "groups must be one positive divisor of 3"),
        (make(conv={"groups": 3}), "weights take 6 channels, the source has 2"),
        (make(conv={"padding": (0, 0)}), "makes shape (3, 2, 2), the target has (3, 3, 3)"),
        (make(hidden={"refractory": 3}), "no fixed-point model with a refractory period"),
        (make(hidden={"tau": 3}), "parameter 'tau' means nothing to model 'lif'"),
        (make(conv={"weight_exp": 1}), "parameter 'weight_exp' means nothing to kind 'conv'"),
        (make(matrix={"num_message_bits": 33}), "num_message_bits must lie in 0..32"),
        (make(matrix={"port": 1}), "port 1 is the imaginary input of a resonator; 'out' is 'li'"),
        (make(matrix={"t_epoch": 1}), "rng_seed must be one number"),
        (sparse([0, 4], [0, 0]), "row must lie in 0..3"),
        (sparse([0, 0], [0, 27]), "col must lie in 0..26"),
        (sparse([1, 1], [2, 2]), "1 (row, col) pair(s) are given twice"),
        (sparse([0], [0, 1]), "row must have the shape of the weights"),
        (make(output="ouf"), "Did you mean 'out'?"),
        (make(readout="mean"), "readout 'mean'"),
        (make(output="in"), "reads a membrane, which the input"),
        (make(skew={"in": 0}), "skew of 'out'"),
        (make(placement=Placement({"hidden": np.zeros(27, int)}, np.zeros((1, 2), int))), "got nothing"),
        (
            make(placement=Placement({"hidden": np.ones(27, int), "out": np.zeros(4, int)}, np.zeros((1, 2), int))),
            "core must lie in 0..0",
        ),
    ],
)
def test_each_violation_is_named(program, says):
    refuse(program, says)


DELTA = {"vth": 5, "spike_exp": 0, "state_exp": 6, "cum_error": 0}
RF = {"sin_decay": 2000, "cos_decay": 3000, "decay_bits": 12, "state_exp": 6, "vth": 100}


@pytest.mark.parametrize(
    ("model", "params", "says"),
    [
        ("delta", DELTA | {"cum_error": 2}, "cum_error must lie in 0..1"),
        ("sigma_delta", DELTA | {"relu": 1}, "parameter 'bias' is missing"),
        ("sigma_delta", DELTA | {"relu": 1, "bias": 1 << 31}, "bias must lie in"),
        ("sigma", DELTA, "parameter 'vth' means nothing to model 'sigma'"),
        ("rf", RF | {"decay_bits": 32}, "decay_bits must lie in 0..31"),
        ("lif_reset", LIF | {"reset_interval": 0, "reset_offset": 0}, "reset_interval must lie in 1.."),
        ("lif_reset", LIF | {"reset_interval": np.full(4, 2), "reset_offset": 0}, "reset_interval must be a scalar"),
        ("ternary_lif", LIF, "parameter 'vth_hi' is missing"),
        ("lif_refractory", LIF, "model 'lif_refractory' is not one of"),
    ],
)
def test_parameters_of_other_models_are_checked(model, params, says):
    good = make()
    refuse(replace(good, populations={**good.populations, "out": Population("out", "out", model, (4,), params)}), says)


def test_graded_messages_teach_nothing():
    good = make()
    rule = {"t_epoch": 1, "rng_seed": 0, "x1_tau": 1000, "y1_tau": 1000, "x1_impulse": 0, "y1_impulse": 0}
    rule |= {f"{a}_{b}": 0 for a in ("pre", "post") for b in ("mantissa", "exponent")}
    dense = Projection("d", "d", "hidden", "out", "dense", np.ones((4, 27), int), MATRIX | rule)
    made = replace(good, projections=(good.projections[0], dense))
    check(made)
    hidden = Population("hidden", "hidden", "delta", (3, 3, 3), DELTA)
    refuse(replace(made, populations={**made.populations, "hidden": hidden}), "'hidden' sends graded messages")


def test_wrong_kinds_and_ends():
    good = make()
    pops = dict(good.populations)
    refuse(replace(good, populations=pops | {"hidden": Population("hidden", "h", "alif", (3, 3, 3))}), "model 'alif'")
    refuse(replace(good, populations=pops | {"x": Population("x", "x", "input", (2,))}), "a second input")
    weights = np.ones((50, 4), int)
    refuse(
        replace(good, projections=(Projection("p", "p", "out", "in", "dense", weights, MATRIX),)), "ends in an input"
    )
    refuse(replace(good, projections=(Projection("p", "p", "out", "hiden", "dense", weights, MATRIX),)), "'hidden'?")
    refuse(replace(good, projections=(Projection("p", "p", "in", "out", "fast", weights, MATRIX),)), "kind 'fast'")


def test_everything_at_once_and_through_run():
    bad = make(hidden={"du": 5000, "vth": None}, matrix={"sign_mode": 9})
    assert len(refuse(bad).violations) == 3
    with pytest.raises(SimulationError, match="3 problems"):
        run(bad, np.zeros((1, 1, 50), np.uint8))


@pytest.mark.parametrize(
    "dense",
    [
        np.full((2, 1, 50), 2, np.uint8),
        np.full((2, 1, 50), -1, np.int8),
        np.zeros((2, 1, 49), np.uint8),
        np.zeros((2, 50), np.uint8),
        np.zeros((0, 1, 50), np.uint8),
        np.zeros((2, 1, 50), np.float32),
    ],
)
def test_kernels_are_never_given_what_would_write_out_of_bounds(dense):
    with pytest.raises(SimulationError, match="dense must"):
        run(make(), dense)


def test_a_program_is_packed_once_and_forgotten_with_it():
    import gc

    from neuro.hardware.loihi2 import packed as loihi2_packed

    program = make()
    first = loihi2_packed.pack(program)
    assert loihi2_packed.pack(program) is first
    before = len(loihi2_packed._cache)
    del program
    gc.collect()
    assert len(loihi2_packed._cache) == before - 1


def test_weights_take_16_bits_where_they_fit():
    from neuro.hardware.loihi2.packed import pack

    assert pack(make()).weight.dtype == np.int16
    big = make()
    conv = replace(big.projections[0], weight_q=np.full((3, 2, 3, 3), 1 << 15))
    assert pack(replace(big, projections=(conv, big.projections[1]))).weight.dtype == np.int32
    least = replace(conv, weight_q=np.full((3, 2, 3, 3), -(1 << 15)))
    assert pack(replace(big, projections=(least, big.projections[1]))).weight.dtype == np.int16
