"""Neurons beyond LIF: the simulator's step against what Lava's fixed-point process models recorded.

Each batch becomes a program of one population; its state is set as the batch says, then stepped as a simulation does.
"""

from __future__ import annotations

import numpy as np
import pytest
from axon_vectors import batches, differences

from neuro.hardware.loihi2.kernels import ROW, step, work_of
from neuro.hardware.loihi2.models import graded
from neuro.hardware.loihi2.packed import pack
from neuro.hardware.program import Placement, Population, Program

LIF = ("du", "dv", "bias_mant", "bias_exp")
# model -> what the file gives as parameters
MODELS = {
    "lif_reset": (*LIF, "vth", "reset_interval", "reset_offset"),
    "ternary_lif": (*LIF, "vth_hi", "vth_lo"),
    "sigma": (),
    "delta": ("spike_exp", "state_exp", "cum_error"),
    "sigma_delta": ("spike_exp", "state_exp", "cum_error", "relu"),
    "rf": ("sin_decay", "cos_decay", "decay_bits", "state_exp", "vth"),
    "rf_iz": ("sin_decay", "cos_decay", "decay_bits", "state_exp", "vth"),
}
FILES = {m: f"loihi/lava_{m.replace('_', '') if not m.startswith('rf') else m}_edge.npz" for m in MODELS}
FILES["ternary_lif"] = "loihi/lava_ternarylif_edge.npz"
ARRIVES = {"a": ("inp", "a_in", "a_real"), "a_imag": ("a_imag",)}
STATE = {"u": "u", "v": "v"} | {n: n for n in ("sigma", "act", "residue", "error", "real", "imag")}


def program_of(model, batch):
    """(program of one population "p", steps, neurons)."""
    steps, n = batch["s"].shape
    params = {name: batch[name] for name in MODELS[model]}
    if model in ("delta", "sigma_delta"):  # the files say what the user gave; the process multiplies
        full = 1 << int(batch["spike_exp"] + batch["state_exp"])
        params |= {name: batch[name] * full for name in ("vth", "bias") if name in batch}
    populations = {"in": Population("in", "in", "input", (1,)), "p": Population("p", "p", model, (n,), params)}
    placement = Placement({"p": np.zeros(n, int)}, np.zeros((1, 2), int))
    made = Program("loihi2", 1e-3, populations, (), "in", "p", {"in": 0, "p": 0}, {}, "last", placement)
    return made, steps, n


def rows(net, work, name):
    """The part of `Work` that holds a variable of population "p"."""
    arrays = (work.u, work.v, work.a, work.w, work.x, work.b)
    return arrays[ROW[name]][net.first[1] : net.first[2]]


def replay(model, batch):
    """Every recorded variable [T, n] as the simulator steps it."""
    made, steps, n = program_of(model, batch)
    net = pack(made)
    work = work_of(net, steps, 64)
    for name in STATE:
        if f"{name}0" in batch:
            rows(net, work, name)[:] = batch[f"{name}0"]
    known = [name for name in STATE if name in batch]
    out = {name: np.zeros((steps, n), np.int64) for name in (*known, "s")}
    at = int(64 * net.block[1])
    for t in range(steps):
        for name, keys in ARRIVES.items():
            for key in set(keys) & set(batch):
                rows(net, work, name)[:] = batch[key][t]
        step(net, work, 1, t)
        for name in known:
            out[name][t] = rows(net, work, name)
        fired = work.fired[at : at + n]
        out["s"][t] = work.sent[net.first[1] :] if graded(made.populations["p"]) else fired
        assert np.array_equal(fired, out["s"][t] != 0)
        assert not work.a.any()
        assert not work.b.any()
    return out


BATCHES = [pytest.param(m, *b.values, marks=b.marks, id=f"{m}-{b.id}") for m in MODELS for b in batches(FILES[m])]


@pytest.mark.parametrize(("model", "batch"), BATCHES)
def test_every_variable(model, batch):
    for name, ours in replay(model, batch).items():
        assert not differences(name, ours, batch[name].astype(np.int64))
