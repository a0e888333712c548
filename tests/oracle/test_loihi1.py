"""Loihi 1 against what nengo-loihi and brian2-loihi recorded: weights, currents, membranes, spikes, refractory."""

from __future__ import annotations

import numpy as np
import pytest
from axon_vectors import batches, differences

from neuro.hardware.loihi1 import kernels, plain, weights
from neuro.hardware.loihi1.contract import BRIAN2LOIHI
from neuro.hardware.loihi1.kernels import update_nengo
from neuro.hardware.program import Placement, Population, Program, Projection

# brian2loihi.npz was stored without its parameters; these are the only ones that reproduce every array
UNSTORED = {
    "n_in": 20, "n_out": 40, "T": 200, "decay_I": 1024, "decay_v": 256, "threshold_v_mant": 400, "refractory": 2,
    "delay": 0, "w_exp": -1, "num_weight_bits": 7, "sign_mode": 1,
}  # fmt: skip
LIMIT = (1 << 23) - 1
BITS = ("num_weight_bits", "sign_mode")


def nengo_registers(batch):
    n = batch["decay_u"].size
    low, high = batch.get("vmin", np.full(n, -LIMIT)), batch.get("vmax", np.full(n, LIMIT))
    rows = (batch["decay_u"] + 1, batch["decay_v"], batch["vth"], batch["bias"], batch["refract"], low, high)
    return np.array(rows, np.int64)


@pytest.mark.parametrize(
    "batch", batches("loihi/nengoloihi_compartment.npz") + batches("loihi/edge_nengoloihi_compartment.npz")
)
@pytest.mark.parametrize("compiled", [True, False])
def test_compartments_of_nengo(batch, compiled):
    steps, n = batch["inp"].shape
    one_step = update_nengo if compiled else getattr(update_nengo, "py_func", update_nengo)
    steps = steps if compiled else min(steps, 20)
    registers, state = nengo_registers(batch), np.zeros((3, n), np.int64)
    fired, out = np.zeros(n, np.uint8), np.zeros((4, steps, n), np.int64)
    for t in range(steps):
        arrived = batch["inp"][t].astype(np.int64)
        one_step(0, n, state[0], state[1], state[2], arrived, 0, registers, fired)
        out[:, t] = state[0], state[1], fired, state[2]
    for name, ours in zip(("u", "v", "spk", "ref"), out, strict=True):
        assert not differences(name, ours, batch[name][:steps].astype(np.int64))


@pytest.mark.parametrize("batch", batches("loihi/edge_nengoloihi_compartment.npz"))
def test_compartments_of_nengo_in_unbounded_integers(batch):
    steps, n = batch["inp"].shape
    names = ("decay_u", "decay_v", "threshold", "bias", "refractory", "v_min", "v_max")
    registers = nengo_registers(batch)
    registers[0] -= 1
    bank = [plain.Neuron(True, **dict(zip(names, registers[:, i].tolist(), strict=True))) for i in range(n)]
    out = np.zeros((4, steps, n), np.int64)
    for t in range(steps):
        for i, neuron in enumerate(bank):
            spike = neuron.step(int(batch["inp"][t, i]))
            out[:, t, i] = neuron.u, neuron.v, spike, neuron.wait
    for name, ours in zip(("u", "v", "spk", "ref"), out, strict=True):
        assert not differences(name, ours, batch[name].astype(np.int64))


@pytest.mark.parametrize("batch", batches("loihi/edge_nengoloihi_weights.npz"))
def test_weights_of_nengo(batch):
    mixed = int(batch["fanout_type"]) == 1
    args = int(batch["weight_exp"]), int(batch["weight_bits"]), 1 if mixed else 2
    assert not differences("out", weights.nengo(batch["w"], *args), batch["out"].astype(np.int64))


def brian_program(batch):
    """The recorded network; input spikes of column t are given one step earlier, see loihi1/contract.py."""
    n_in, n = int(batch["n_in"]), int(batch["n_out"])
    common = {name: batch[key] for name, key in (("weight_exp", "w_exp"), *((k, k) for k in BITS))}
    populations = {
        "input": Population("input", "input", "input", (n_in,)),
        "out": Population(
            "out",
            "out",
            "lif",
            (n,),
            {
                "preset": np.array(BRIAN2LOIHI),
                "decay_u": batch["decay_I"],
                "decay_v": batch["decay_v"],
                "threshold": np.array(int(batch["threshold_v_mant"]) << 6),
                "bias": np.array(0),
                "refractory": batch["refractory"],
                "v_min": np.array(0),
                "v_max": np.array(0),
            },
        ),
    }
    projections = [
        Projection(
            "in", "in", "input", "out", "sparse", batch["W"],
            {"row": batch["dst"], "col": batch["src"],
             "delay_steps": np.full(len(batch["src"]), batch["delay"]), **common},
        )
    ]  # fmt: skip
    if "rsrc" in batch:
        projections.append(
            Projection(
                "rec", "rec", "out", "out", "sparse", batch["rW"],
                {"row": batch["rdst"], "col": batch["rsrc"],
                 "delay_steps": np.full(len(batch["rsrc"]), batch["rdelay"]), **common},
            )
        )  # fmt: skip
    placement = Placement({"out": np.zeros(n, np.int64)}, np.zeros((1, 2), np.int64))
    return Program(
        "loihi1", 1e-3, populations, tuple(projections), "input", "out", {"input": 0, "out": 1}, {}, "count", placement
    )


def brian_input(batch):
    dense = np.zeros((int(batch["T"]), 1, int(batch["n_in"])), np.uint8)
    dense[batch["in_t"], 0, batch["in_i"]] = 1
    return dense


BRIAN = batches("loihi/brian2loihi.npz") + batches("loihi/edge_brian2loihi.npz")


@pytest.mark.parametrize("batch", BRIAN)
def test_networks_of_brian2loihi(batch):
    batch = UNSTORED | batch
    program = brian_program(batch)
    ours = kernels.run(program, brian_input(batch), (("out", "u"), ("out", "v")))
    columns = slice(1, 1 + int(batch["T"]))  # a step later, as every projection takes one
    assert not differences("I", ours.probes["out", "u"][columns, 0].T.astype(np.int64), batch["I"].astype(np.int64))
    assert not differences("v", ours.probes["out", "v"][columns, 0].T.astype(np.int64), batch["v"].astype(np.int64))
    t, i = np.nonzero(ours.spikes["out"][columns, 0])
    assert not differences("spk_t", t, batch["spk_t"].astype(np.int64))
    assert not differences("spk_i", i, batch["spk_i"].astype(np.int64))


@pytest.mark.parametrize("batch", BRIAN)
def test_weights_of_brian2loihi(batch):
    batch = UNSTORED | batch
    args = int(batch["w_exp"]), int(batch["num_weight_bits"]), int(batch["sign_mode"])
    assert not differences("w_act", weights.brian2loihi(batch["W"], *args), batch["w_act"].astype(np.int64))
    if "rW" in batch:
        assert not differences("rw_act", weights.brian2loihi(batch["rW"], *args), batch["rw_act"].astype(np.int64))


@pytest.mark.parametrize("batch", BRIAN)
def test_brian2loihi_in_unbounded_integers(batch):
    batch = UNSTORED | batch
    program, dense = brian_program(batch), brian_input(batch)
    theirs = plain.simulate(program, dense[:, 0], nengo=False)
    ours = kernels.run(program, dense, (("out", "u"), ("out", "v")))
    for variable in "uv":
        kernel = ours.probes["out", variable][:, 0].astype(np.int64)
        assert not differences(variable, kernel, theirs["out", variable].astype(np.int64))
    assert not differences("s", ours.spikes["out"][:, 0].astype(np.int64), theirs["out", "s"].astype(np.int64))
