"""Taps of a feature map: a convolution behind them has a kernel over time; torch, IR and chip compute the same."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from neuro import reference
from neuro.hardware import compile as compile_network
from neuro.nn import Taps, to_module, to_network
from neuro.nn.joined import Carry
from neuro.nn.spikes import Spikes
from neuro.train.build import build

STEPS = (0, 2, 5)
ROWS = (
    {"type": "taps", "steps": list(STEPS)},
    {"type": "conv", "out": 4, "kernel": 3, "padding": 1, "line": True, "init": 1.5},
    {"type": "batch_norm"},
    {"type": "lif", "beta": 0.5},
    {"type": "taps", "steps": [0, 3]},
    {"type": "conv", "out": 3, "kernel": 3, "stride": 2, "padding": 1, "line": True, "init": 2.0},
    {"type": "lif", "beta": 0.8},
    {"type": "flatten"},
    {"type": "linear", "out": 3, "init": 1.0},
    {"type": "li", "beta": 0.9},
)


def spikes(seed: int, steps: int, batch: int, *shape: int) -> torch.Tensor:
    return (torch.rand(steps, batch, *shape, generator=torch.Generator().manual_seed(seed)) < 0.3).to(torch.uint8)


def test_taps_and_a_convolution_are_a_convolution_over_time() -> None:
    """Taps 0, 2, 4 and a kernel along the width: the 2-D convolution over (time, width) with dilation 2, causal."""
    x = spikes(0, 12, 3, 2, 1, 7).double()
    weight = torch.randn(5, 6, 1, 3, generator=torch.Generator().manual_seed(1)).double()
    late = Taps((0, 2, 4), (2, 1, 7))(x)
    assert late.shape == (12, 3, 6, 1, 7)
    found = functional.conv2d(late.flatten(0, 1), weight, padding=(0, 1)).unflatten(0, (12, 3))[:, :, :, 0]
    kernel = weight[:, :, 0].unflatten(1, (3, 2)).flip(1).transpose(1, 2)  # [out, in, time, width]; the last tap is now
    padded = functional.pad(x[:, :, :, 0].permute(1, 2, 0, 3), (1, 1, 4, 0))
    over_time = functional.conv2d(padded, kernel, dilation=(2, 1))  # [batch, out, time, width]
    torch.testing.assert_close(found, over_time.permute(2, 0, 1, 3))


def test_bits_pieces_and_single_steps_of_a_feature_map() -> None:
    taps, x = Taps(STEPS, (2, 3, 4)), spikes(2, 11, 2, 2, 3, 4).double()
    whole = taps(x)
    for k, d in enumerate(STEPS):
        assert torch.equal(whole[d:, :, 2 * k : 2 * k + 2], x[: len(x) - d])
        assert not whole[:d, :, 2 * k : 2 * k + 2].any()
    assert torch.equal(taps(Spikes.pack(x)), whole)
    carry, state, rows = Carry(), None, []
    assert torch.equal(
        torch.cat([taps.resume(x[:3], carry), taps.resume(x[3:4], carry), taps.resume(x[4:], carry)]), whole
    )
    for step in x:
        row, state = taps.step(step, state)
        rows.append(row)
    assert torch.equal(torch.stack(rows), whole)


def test_network_module_and_chip_compute_what_was_trained() -> None:
    trained = build(ROWS, (2, 1, 8), 1e-2, "sum", 0, 3).double()
    x = spikes(3, 20, 4, 2, 1, 8)
    trained.train()
    trained(x)  # statistics of the norm
    trained.eval()
    with torch.no_grad():
        found = trained.scores(trained(x)).numpy()
        network = to_network(trained)
        again = to_module(network, dtype=torch.float64)
        np.testing.assert_allclose(again.scores(again(x)).numpy(), found, atol=1e-9)
    run = reference.run(network, x.numpy(), record=())
    np.testing.assert_array_equal(reference.classify(network, run), found.argmax(1))
    late = [q.params["delay_steps"] for q in compile_network(network, "loihi2", max_steps=20).projections
            if "delay_steps" in q.params]  # fmt: skip
    assert {int(d) for row in late for d in np.unique(row)} == {
        2,
        3,
        5,
    }  # what comes at once is a projection without delays
