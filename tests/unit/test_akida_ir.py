"""What a quantised convolutional network needs of the IR: counted inputs, levels, largest values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from neuro import ir, nir, reference
from neuro.errors import BadEventFile, NetworkError
from neuro.events import Events, EventSet
from neuro.nn.bridge import to_module, to_network
from neuro.nn.quantised import QuantisedConv2d, QuantisedLinear, QuantisedReLU, quantise_activations
from neuro.train.evaluate import evaluate


def counting(high: int = 15) -> ir.Network:
    rng = np.random.default_rng(0)
    nodes = {
        "in": ir.Input((2, 9, 9), high),
        "conv": ir.Conv2d(rng.normal(size=(4, 2, 3, 3)), padding=1, bias=rng.normal(size=4)),
        "relu": ir.QuantisedReLU(np.array([0.5, 0.7, 1.0, 1.3]).reshape(4, 1, 1), 15),
        "pool": ir.MaxPool2d(3, 2, 1),
        "flat": ir.Flatten(),
        "read": ir.Linear(rng.normal(size=(3, 100))),
        "out": ir.Output("sum"),
    }
    return ir.chain(nodes, dt=0.3)


def test_levels_round_half_up_and_clip() -> None:
    node = ir.chain({"in": ir.Input((7,)), "q": ir.QuantisedReLU(0.5, 3), "out": ir.Output("sum")}, dt=1.0)
    x = np.array([-1.0, -0.25, 0.24, 0.25, 0.74, 0.75, 99.0])[None, None]
    sent = reference.run(node, x).answers["out"][0, 0]
    assert sent.tolist() == [0.0, 0.0, 0.0, 0.5, 0.5, 1.0, 1.5]


def test_the_largest_value_of_a_window_is_never_padding() -> None:
    node = ir.chain({"in": ir.Input((1, 3, 3)), "m": ir.MaxPool2d(2, 2, 1), "out": ir.Output("sum")}, dt=1.0)
    x = -np.arange(1.0, 10.0).reshape(1, 1, 1, 3, 3)
    assert reference.run(node, x).answers["out"].ravel().tolist() == [-1, -2, -4, -5]


@pytest.mark.parametrize("high", [0, 256, 1.5, True, "2"])
def test_high_is_a_byte(high: object) -> None:
    with pytest.raises(NetworkError, match=r"high must be a whole number in 1\.\.255"):
        ir.Input((3,), high)  # type: ignore[arg-type]


def test_bad_nodes_are_refused() -> None:
    with pytest.raises(NetworkError, match="half of kernel_size"):
        ir.MaxPool2d(3, 1, 2)
    with pytest.raises(NetworkError, match="step must be positive"):
        ir.QuantisedReLU(0.0, 3)
    with pytest.raises(NetworkError, match="levels"):
        ir.QuantisedReLU(1.0, 0)
    with pytest.raises(NetworkError, match="counts spikes"):
        ir.chain({"in": ir.Input((3,)), "q": ir.QuantisedReLU(1.0, 1), "out": ir.Output("count")}, dt=1.0)


def test_a_file_and_torch_give_it_back(tmp_path) -> None:
    network = counting()
    nir.save(network, tmp_path / "a.nir")
    for again in (nir.load(tmp_path / "a.nir"), to_network(to_module(network, torch.float64))):
        assert again.nodes[again.input].high == 15
        relu = next(n for n in again.nodes.values() if isinstance(n, ir.QuantisedReLU))
        assert np.array_equal(relu.step, network.nodes["relu"].step)
        assert relu.levels == 15
        pool = next(n for n in again.nodes.values() if isinstance(n, ir.MaxPool2d))
        assert (pool.kernel_size, pool.stride, pool.padding) == ((3, 3), (2, 2), (1, 1))
    x = np.random.default_rng(1).integers(0, 16, (2, 3, 2, 9, 9))
    ours = reference.run(network, x).answers["out"]
    assert np.allclose(to_module(network, torch.float64)(torch.from_numpy(x)).detach().numpy(), ours, atol=1e-9)


def test_spiking_files_keep_their_bytes(tmp_path) -> None:
    nir.save(ir.chain({"in": ir.Input((3,)), "l": ir.Linear(np.eye(3)), "out": ir.Output("sum")}, 1.0), tmp_path / "a")
    assert b"axonport.high" not in (tmp_path / "a").read_bytes()


def test_events_are_counted_up_to_high() -> None:
    events = Events(np.array([0, 0, 0, 1]), np.array([2, 2, 2, 0]), (3,), 2, 0.1)
    assert events.to_dense().tolist() == [[0, 0, 1], [1, 0, 0]]
    assert events.to_dense(2).tolist() == [[0, 0, 2], [1, 0, 0]]
    assert events.to_dense(255).tolist() == [[0, 0, 3], [1, 0, 0]]
    with pytest.raises(BadEventFile, match="high"):
        events.to_dense(256)


def recordings() -> EventSet:
    rng = np.random.default_rng(2)
    n = 400
    return EventSet(
        np.tile(np.sort(rng.random(n // 2)).astype(np.float32) * 0.2, 2), rng.integers(0, 162, n).astype(np.int32),
        np.array([0, n // 2, n]), np.array([0, 1]), np.array([0, 1]), (2, 9, 9), 0.3, ("a", "b", "c"),
    )  # fmt: skip


def test_batches_count_wherever_they_are_made() -> None:
    from neuro.datasets.loader import arrays

    data = recordings()
    dense = data.batch([0, 1], 0.3, 1, 4)
    assert dense.max() == 4
    assert np.array_equal(data.batch([0, 1], 0.3, 1), dense > 0)
    ((loaded, _),) = arrays(data, 2, 0.3, 1, shuffle=False, high=4)
    assert np.array_equal(loaded, dense)


def test_evaluate_counts_as_the_network_says() -> None:
    data, network = recordings(), counting(4)
    found = evaluate(network, data)
    wanted = reference.scores(network, reference.run(network, data.batch([0, 1], 0.3, 1, 4)))
    assert np.allclose(found.scores, wanted, rtol=1e-4)


def test_weights_run_on_the_grid_that_is_exported() -> None:
    generator = torch.Generator().manual_seed(1)
    layers = (QuantisedConv2d(1, 3, 3, bits=4), QuantisedReLU(2.0, 15), nn.Flatten(), QuantisedLinear(12, 2, bits=2))
    module = nn.Sequential(*layers)
    for p in module.parameters():
        nn.init.normal_(p, generator=generator)
    network = to_network(module, (1, 4, 4), 1.0, readout="sum", high=3)
    conv = network.nodes["0"]
    assert isinstance(conv, ir.Conv2d)
    for kernel in conv.weight:
        integers = kernel / (np.abs(kernel).max() / 7)
        assert np.allclose(integers, np.rint(integers), atol=1e-5)
    x = torch.randint(0, 4, (5, 1, 4, 4), generator=generator)
    ours = reference.run(network, x.numpy()[None]).answers["output"][0]
    assert np.allclose(module(x.float()).detach().numpy(), ours, atol=1e-5)
    module(x.float()).square().sum().backward()
    assert layers[0].weight.grad.abs().sum() > 0


def test_rectifiers_get_levels() -> None:
    x = torch.linspace(-1, 8, 19).view(1, -1)
    made = quantise_activations(nn.Sequential(nn.Identity(), nn.ReLU6()), 12)
    assert made(x).unique().tolist() == [k / 2 for k in range(13)]
    made = quantise_activations(nn.Sequential(nn.ReLU()), 4, x)
    assert made(x).max() == 8
    with pytest.raises(NetworkError, match="samples"):
        quantise_activations(nn.Sequential(nn.ReLU()), 4)
