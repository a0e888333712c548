"""Hand-made and random Loihi 2 programs for the tests that meet Lava."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from neuro.hardware.export.lava_shim import MISSING, available
from neuro.hardware.program import Placement, Population, Program, Projection

needs_lava = pytest.mark.skipif(not available(), reason=MISSING)


def population(name, size, model="lif", **params):
    """A population; size is an int or a (C, H, W) shape."""
    shape = (size,) if isinstance(size, int) else tuple(size)
    given = {} if model == "input" else {"du": 4095, "dv": 0, "vth": 100, "bias_mant": 0, "bias_exp": 0} | params
    return Population(name, name, model, shape, given)


def dense(name, source, target, weight, *, exponent=0, bits=8, sign=1, delay=None):
    params = {"weight_exp": exponent, "num_weight_bits": bits, "sign_mode": sign}
    if delay is not None:
        params["delay_steps"] = delay
    return Projection(name, name, source, target, "dense", weight, params)


def sparse(name, source, target, at, weight, *, exponent=0, bits=8, sign=1, delay=None):
    """at: (rows, columns) of the weights."""
    params = {"row": at[0], "col": at[1], "weight_exp": exponent, "num_weight_bits": bits, "sign_mode": sign}
    if delay is not None:
        params["delay_steps"] = delay
    return Projection(name, name, source, target, "sparse", weight, params)


def conv(name, source, target, weight, *, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1):
    params = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return Projection(name, name, source, target, "conv", weight, params)


def program(populations: Sequence[Population], projections: Sequence[Projection], depth=2, readout="count") -> Program:
    """The first population is the input, the last the output; everything on one core."""
    table = {p.name: p for p in populations}
    return Program(
        chip="loihi2",
        dt=1e-3,
        populations=table,
        projections=tuple(projections),
        input=populations[0].name,
        output=populations[-1].name,
        skew={p.name: min(k, depth) for k, p in enumerate(populations)} | {populations[-1].name: depth},
        scale={p.name: 1.0 for p in populations},
        readout=readout,
        placement=Placement(
            {p.name: np.zeros(p.size, np.int64) for p in populations if p.model != "input"},
            np.zeros((1, 2), np.int64),
        ),
    )


def even(rng, shape, low=-128, high=127):
    """Weights that mixed 8-bit synapses hold."""
    return 2 * rng.integers(low, high, shape, endpoint=True)


def spikes(rng, steps, batch, n, rate=0.2):
    return (rng.random((steps, batch, n)) < rate).astype(np.uint8)


def two_layers(seed=0, *, n_in=12, hidden=32, n_out=7, recurrent=True, readout="count") -> Program:
    """Input -> recurrent CuBa-LIF -> readout, the shape of the Braille network."""
    rng = np.random.default_rng(seed)
    model, vth = ("lif", 90) if readout == "count" else ("li", 131071)
    populations = [
        population("input", n_in, "input"),
        population("hidden", hidden, du=1200, dv=300, vth=60, bias_mant=rng.integers(-20, 20, hidden), bias_exp=4),
        population("out", n_out, model, du=2048, dv=200, vth=vth),
    ]
    projections = [dense("fc1", "input", "hidden", even(rng, (hidden, n_in)))]
    if recurrent:
        projections.append(dense("rec", "hidden", "hidden", even(rng, (hidden, hidden), -30, 20), exponent=-1))
    projections.append(dense("fc2", "hidden", "out", even(rng, (n_out, hidden), -60, 60)))
    return program(populations, projections, readout=readout)


# Exported folders that misbehave, for the tests of the guard


def spoil(folder, lines):
    """Make an exported folder's build() run some lines first: here, to break a process model of Lava."""
    path = folder / "network.py"
    text = path.read_text()
    mark = "    import_lava()\n    from lava.proc"
    assert text.count(mark) == 1
    block = "".join(f"    {line}\n" for line in ["import_lava()", *lines])
    path.write_text(text.replace(mark, block + "    from lava.proc"))


FAIL_AT_5 = [
    "from lava.proc.dense.models import PyDenseModelBitAcc as Model",
    "whole = Model.run_spk",
    "def run_spk(self):",
    "    if self.time_step == 5:",
    "        raise RuntimeError('injected failure')",
    "    whole(self)",
    "Model.run_spk = run_spk",
]
HANG_AT_5 = [
    line.replace("raise RuntimeError('injected failure')", "__import__('time').sleep(1e6)") for line in FAIL_AT_5
]
SLOW = [
    line.replace("self.time_step == 5", "True").replace(
        "raise RuntimeError('injected failure')", "__import__('time').sleep(0.05)"
    )
    for line in FAIL_AT_5
]
