"""Synapses of the compiled kernel against what Lava's connection processes recorded.

Each batch becomes a program of one projection; what arrives at its target (probe "a") is Lava's a_out.
"""

from __future__ import annotations

import numpy as np
import pytest
from axon_vectors import batches, differences

from neuro.hardware.loihi2.kernels import run
from neuro.hardware.loihi2.synapses import AUTO, EXCITATORY, INHIBITORY, MIXED, effective_weights
from neuro.hardware.program import Placement, Population, Program, Projection

MODES = {"auto": AUTO, "mixed": MIXED, "exc": EXCITATORY, "inh": INHIBITORY}
SILENT = {"du": 4095, "dv": 0, "vth": 131071, "bias_mant": 0, "bias_exp": 0}


def arrivals(kind, weight_q, params, s_in, source, target):
    """a [T, n] that one projection delivers for input s_in [T, *source]; without message bits whatever is not zero
    is a spike."""
    between = {"low": s_in.min(), "high": s_in.max()} if s_in.min() < 0 or s_in.max() > 1 else {}
    populations = [Population("in", "in", "input", source, between), Population("out", "out", "li", target, SILENT)]
    program = Program(
        chip="loihi2",
        dt=1e-3,
        populations={p.name: p for p in populations},
        projections=(Projection("w", "w", "in", "out", kind, weight_q, params),),
        input="in",
        output="out",
        skew={"in": 0, "out": 0},
        scale={},
        readout="sum",
        placement=Placement({"out": np.zeros(populations[1].size, int)}, np.zeros((1, 2), int)),
    )
    dense = s_in.reshape(len(s_in), 1, -1)
    return run(program, dense, (("out", "a"),)).probes["out", "a"][:, 0]


def matrix(batch, keep):
    """(kind, weight_q, params) with the synapses in ``keep``, None for all of a dense matrix."""
    params = {n: batch[n] for n in ("weight_exp", "num_weight_bits", "num_message_bits")}
    params |= {"sign_mode": MODES[str(batch["sign_mode"])]}
    delays = {"delay_steps": batch["delays"]} if "delays" in batch else {}
    if delays:
        assert batch["delays"].max() <= batch["max_delay"]
    if keep is None:
        return "dense", batch["weights"], params | delays
    row, col = np.nonzero(keep)
    delays = {name: values[row, col] for name, values in delays.items()}
    return "sparse", batch["weights"][row, col], params | delays | {"row": row, "col": col}


FILES = [
    *(("dense", b) for n in ("dense", "delaydense") for b in batches(f"loihi/lava_{n}_edge.npz")),
    *(("sparse", b) for n in ("sparse", "delaysparse") for b in batches(f"loihi/lava_{n}_edge.npz")),
]
MATRICES = [pytest.param(k, *b.values, marks=b.marks, id=f"{k}-{i}-{b.id}") for i, (k, b) in enumerate(FILES)]


@pytest.mark.parametrize(("kind", "batch"), MATRICES)
def test_weights_after_truncation(kind, batch):
    ours = effective_weights(batch["weights"], int(batch["num_weight_bits"]), MODES[str(batch["sign_mode"])])
    assert not differences("w_eff", ours, batch["w_eff"])


@pytest.mark.parametrize(("kind", "batch"), MATRICES)
def test_arrivals(kind, batch):
    n_out, n_in = batch["weights"].shape
    projection = matrix(batch, None if kind == "dense" else batch["weights"] != 0)
    assert not differences("a_out", arrivals(*projection, batch["s_in"], (n_in,), (n_out,)), batch["a_out"])


@pytest.mark.parametrize("batch", batches("loihi/lava_conv_edge.npz"))
def test_convolution(batch):
    """Lava convolves (x, y, channel) with a flipped kernel; torch and we correlate (channel, height, width)."""
    weight_q = batch["weight"][:, ::-1, ::-1].transpose(0, 3, 2, 1)
    params = {n: batch[n][::-1] for n in ("stride", "padding", "dilation")}
    params |= {n: batch[n] for n in ("groups", "num_message_bits")}
    s_in, a_out = (batch[n].transpose(0, 3, 2, 1) for n in ("s_in", "a_out"))
    ours = arrivals("conv", weight_q, params, s_in, s_in.shape[1:], a_out.shape[1:])
    assert not differences("a_out", ours, a_out.reshape(len(a_out), -1))
