"""Families: spikes equal the quantised original on whole test sets, in decisions and in every bit of the values."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as fn

from neuro.convert import file
from neuro.convert.families import hopfield, kan, moe, products, spike_driven, vision
from neuro.convert.families.build import Settled, accuracy, fit, settle
from neuro.convert.graph import Graph
from neuro.convert.grid import on_grid
from neuro.convert.neurons import Settling
from neuro.convert.ops_beyond import Lookup

Data = tuple[Tensor, Tensor, Tensor, Tensor]


@pytest.fixture(scope="module")
def digits() -> Data:
    """scikit-learn's digits in 0..1: 1198 to train on (float32), 599 to test on (float64)."""
    datasets = pytest.importorskip("sklearn.datasets", reason="needs scikit-learn")
    x, y = (torch.as_tensor(each) for each in datasets.load_digits(return_X_y=True))
    return (x[:1198] / 16).float(), y[:1198], x[1198:] / 16, y[1198:]


def settles(graph: Graph, *x: Tensor, tmp_path: Path) -> Settled:
    """Equal to the graph from some step on, whatever number of levels fits in a message; the same after a file."""
    file.save(graph, tmp_path / "graph.safetensors")
    graph = file.load(tmp_path / "graph.safetensors")
    settled = settle(graph, *x, most=1000)
    assert settled.silent_at is not None
    assert settled.equal_from is not None
    assert settled.equal_from <= settled.silent_at
    assert settled.changing[-1] == 0.0
    graded = settle(graph, *x, dynamics=Settling(at_once=10**6), most=100)
    assert graded.equal_from is not None
    assert graded.equal_from <= settled.equal_from
    assert graded.silent_at is not None
    return settled


def test_kan_by_tables_and_by_thermometers(digits: Data, tmp_path: Path) -> None:
    x, y, held_out, labels = digits
    net = kan.KAN((64, 16, 10))
    fit(net, (x,), y, 8, lr=6e-3)
    tables, units = kan.to_graph(net), kan.to_thermometer(net)
    settled = settles(tables, held_out, tmp_path=tmp_path)
    assert accuracy(settled.reference, labels) > 0.85
    binary = settle(units, held_out)
    assert (binary.equal_from, binary.silent_at) == (1, 2)
    assert torch.equal(binary.reference, settled.reference)  # one linear layer of units, the very same numbers
    whole = kan.to_thermometer(net, whole=True)
    assert torch.equal(whole.run(held_out * 16), settled.reference)
    assert on_grid(units, held_out)
    # a finer grid of levels comes nearer to the splines
    with torch.no_grad():
        exact = net.double()(held_out)
        away = [float((kan.to_graph(net, n, 20).run(held_out) - exact).abs().max()) for n in (16, 64, 256)]
    assert away[0] > 2 * away[1] > 4 * away[2]


def test_splines_are_a_partition_of_unity_and_match_scipy() -> None:
    layer = kan.KANLayer(1, 1, low=-1.0, high=1.0, grid=5).double()
    x = torch.linspace(-1, 0.999, 41, dtype=torch.float64)
    basis = layer.basis(x)
    torch.testing.assert_close(basis.sum(-1), torch.ones_like(x))
    interpolate = pytest.importorskip("scipy.interpolate", reason="needs scipy")
    for g in range(basis.shape[1]):
        element = interpolate.BSpline.basis_element(layer.knots[g : g + 5].double().numpy(), extrapolate=False)
        wanted = torch.nan_to_num(torch.as_tensor(element(x.numpy())))
        torch.testing.assert_close(basis[:, g], wanted, atol=1e-6, rtol=1e-6)


def test_vision_transformer(digits: Data, tmp_path: Path) -> None:
    x, y, held_out, labels = (each.reshape(-1, 1, 8, 8) if each.ndim > 1 else each for each in digits)
    vit = vision.ViT(size=8, patch=3, stride=2, dim=16, heads=2, depth=2)
    fit(vit, (x,), y, 12, lr=4e-3)
    graph = vision.to_graph(vit, x[:300].double(), levels=16)
    settled = settles(graph, held_out, tmp_path=tmp_path)
    with torch.no_grad():
        floating = vit.double()(held_out)
    assert accuracy(floating, labels) > 0.8
    assert abs(accuracy(settled.reference, labels) - accuracy(floating, labels)) < 0.04
    finer = vision.to_graph(vit, held_out, levels=1 << 14, bits=30).run(held_out)
    torch.testing.assert_close(finer, floating, atol=0.02, rtol=0)  # the graph is the module


def test_experts_that_are_not_chosen_receive_nothing(digits: Data, tmp_path: Path) -> None:
    x, y, held_out, labels = digits
    messages = []
    for active in (1, 2, 4):
        net = moe.MoE(64, 8, experts=4, active=active)
        fit(net, (x,), y, 12)
        mixture = moe.to_graphs(net, x.double())
        first, settled = moe.run(mixture, held_out)
        settles(mixture.router, held_out, tmp_path=tmp_path)
        settles(mixture.experts, held_out, first.reference, tmp_path=tmp_path)
        chosen = first.reference > 0
        assert torch.equal(chosen.sum(1), torch.full((len(held_out),), active))
        with torch.no_grad():
            assert accuracy(settled.reference, labels) > accuracy(net.double()(held_out), labels) - 0.03
        for e in range(4):  # silent in every sample that did not choose it
            none = held_out[~chosen[:, e]]
            if len(none):
                quiet = settle(mixture.experts, none, first.reference[~chosen[:, e]])
                assert quiet.messages[f"expert{e}.hidden"] == 0
        messages.append(sum(n for name, n in settled.messages.items() if "hidden" in name))
        if active == 1:
            floating, quantised = net.router(held_out).argmax(1), first.reference.argmax(1)
            margin, moved = moe.margins(net, mixture, held_out)
            assert bool((floating == quantised)[margin > 0].all())
            assert float(moved.min()) > 0
            assert int((margin > 0).sum()) > len(held_out) / 2
            coarse = moe.to_graphs(net, x.double(), levels=1)  # here winners do change, and never where they must not
            quantised = coarse.router.run(held_out).argmax(1)
            assert int((floating != quantised).sum()) > 5
            assert bool((floating == quantised)[moe.margins(net, coarse, held_out)[0] > 0].all())
    assert messages[0] < messages[1] < messages[2]


def stored(digits: Data) -> tuple[hopfield.Hopfield, Tensor, Tensor]:
    def centred(x: Tensor) -> Tensor:
        y: Tensor = (x - 0.5) / (x - 0.5).norm(dim=1, keepdim=True)
        return y

    x, y, held_out, labels = digits
    layer = hopfield.Hopfield(centred(x)[:100], 4 * fn.one_hot(y[:100], 10).float())
    fit(layer, (centred(x),), y, 6)
    return layer.double(), centred(held_out), labels


def test_hopfield_layer(digits: Data, tmp_path: Path) -> None:
    layer, held_out, labels = stored(digits)
    graph = hopfield.to_graph(layer, held_out[:300])
    settled = settles(graph, held_out, tmp_path=tmp_path)
    with torch.no_grad():
        assert accuracy(settled.reference, labels) > accuracy(layer(held_out), labels) - 0.03


def test_hopfield_by_samples_keeps_its_bound(digits: Data) -> None:
    layer, held_out, _ = stored(digits)
    found = hopfield.sample(layer, held_out, 64, torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted, one = layer(held_out), hopfield.spread(layer, held_out).mean()
        for n in (1, 4, 16, 64):
            error = ((found[n - 1] - wanted) ** 2).sum(1).mean()
            assert math.isclose(float(error), float(one) / n, rel_tol=0.15)


def test_hopfield_of_large_beta_is_the_nearest_memory(digits: Data, tmp_path: Path) -> None:
    layer, held_out, _ = stored(digits)
    graph = hopfield.nearest(layer, held_out)
    settled = settles(graph, held_out, tmp_path=tmp_path)
    q = graph.values(held_out)["query"]
    memories = torch.round(layer.memories.detach() * 2.0**12) / 2.0**12
    best = torch.tensor([max(range(len(memories)), key=lambda m: float(q[k] @ memories[m])) for k in range(len(q))])
    values = torch.round(layer.values.detach() * 2.0**12) / 2.0**12
    assert torch.equal(settled.reference, values[best])
    sharp = hopfield.Hopfield(memories, values, beta=1e6)
    with torch.no_grad():
        torch.testing.assert_close(sharp(q), settled.reference, atol=1e-2, rtol=0)


def test_dense_memory(digits: Data, tmp_path: Path) -> None:
    layer, held_out, labels = stored(digits)
    with torch.no_grad():
        net = products.DenseMemory(layer.memories, layer.values, power=3)
    graph = products.dense_graph(net, held_out[:300])
    settled = settles(graph, held_out, tmp_path=tmp_path)
    with torch.no_grad():
        assert accuracy(settled.reference, labels) > accuracy(net(held_out), labels) - 0.03
        fine = products.dense_graph(net, held_out, levels=1 << 14, bits=30).run(held_out)
        torch.testing.assert_close(fine, net(held_out), atol=2e-2, rtol=2e-2)
    assert on_grid_levels(graph, held_out)


def on_grid_levels(graph: Graph, q: Tensor) -> bool:
    """The power's table adds up from what each further spike carries."""
    table = graph.ops["power"]
    assert isinstance(table, Lookup)
    level = torch.round(graph.values(q)["u.events"] / table.steps[0]).long()
    carried = torch.cat([table.data[:1], table.data[1:] - table.data[:-1]])
    return torch.equal(torch.cumsum(carried, 0)[level], graph.values(q)["power"])


def test_quadratic_network(digits: Data, tmp_path: Path) -> None:
    x, y, held_out, labels = digits
    net = products.Quadratic(64, 16)
    fit(net, (x,), y, 10)
    graph = products.quadratic_graph(net, x.double())
    settled = settles(graph, held_out, tmp_path=tmp_path)
    table = graph.ops["squares"]
    assert isinstance(table, Lookup)
    odd = 2 * torch.arange(1, 17, dtype=torch.float64) - 1
    assert torch.equal((table.data[1:] - table.data[:-1]) * 256, odd)  # the k-th spike is worth 2k - 1
    with torch.no_grad():
        assert accuracy(settled.reference, labels) > accuracy(net.double()(held_out), labels) - 0.03
        fine = products.quadratic_graph(net, held_out, levels=1 << 14, bits=30).run(held_out)
        torch.testing.assert_close(fine, net(held_out), atol=2e-2, rtol=1e-2)


def test_complex_network(digits: Data, tmp_path: Path) -> None:
    x, y, held_out, labels = digits
    spectra = [torch.fft.fft2(each.double().reshape(-1, 8, 8))[:, :, :5].flatten(1) / 8 for each in (x, held_out)]
    parts, tested = (torch.cat([s.real, s.imag], 1) for s in spectra)
    net = products.ComplexNet(40, 16)
    fit(net, (parts.float(),), y, 12)
    graph = products.complex_graph(net, parts)
    settled = settles(graph, tested, tmp_path=tmp_path)
    assert on_grid(graph)
    with torch.no_grad():
        assert accuracy(settled.reference, labels) > accuracy(net.double()(tested), labels) - 0.04
        fine = products.complex_graph(net, tested, levels=1 << 14, bits=30).run(tested)
        torch.testing.assert_close(fine, net(tested), atol=2e-2, rtol=1e-2)


def turned(x: Tensor, quarters: int) -> tuple[Tensor, Tensor]:
    """Digits turned by 0..3 quarters, each sample its own, and that number as a context."""
    many = torch.arange(len(x)) % quarters
    image = x.reshape(-1, 8, 8)
    turn = torch.stack([torch.rot90(image, k, (1, 2)) for k in range(quarters)])
    return turn[many, torch.arange(len(x))].flatten(1), fn.one_hot(many, quarters).to(x.dtype)


def test_hypernetwork(digits: Data, tmp_path: Path) -> None:
    x, y, held_out, labels = digits
    (x, c), (held_out, context) = turned(x, 4), turned(held_out, 4)
    net = products.HyperNet(64, 4)
    fit(net, (x, c), y, 12)
    graph = products.hyper_graph(net, x.double(), c.double())
    settled = settles(graph, held_out, context, tmp_path=tmp_path)
    with torch.no_grad():
        net = net.double()
        assert accuracy(settled.reference, labels) > accuracy(net(held_out, context), labels) - 0.04
        fine = products.hyper_graph(net, x.double(), c.double(), levels=4096, bits=30).run(held_out, context)
        torch.testing.assert_close(fine, net(held_out, context), atol=3e-2, rtol=1e-2)
        upright = context[:, 0] > 0
        one = products.folded(net, context[0], x.double(), levels=4096, bits=30)
        torch.testing.assert_close(one.run(held_out[upright]), net(held_out, context)[upright], atol=3e-2, rtol=1e-2)
    settles(products.folded(net, context[0], x.double()), held_out, tmp_path=tmp_path)


def test_spike_driven_transformer(digits: Data, tmp_path: Path) -> None:
    x, y, held_out, labels = (each.reshape(-1, 1, 8, 8) if each.ndim > 1 else each for each in digits)
    net = spike_driven.SpikeDriven(size=8, dim=16, heads=2)
    fit(net, (x,), y, 8, lr=4e-3)
    graph = spike_driven.to_graph(net)
    settled = settles(graph, held_out, tmp_path=tmp_path)
    with torch.no_grad():
        floating = net.double()(held_out)
        assert accuracy(floating, labels) > 0.8
        # the network as trained, but for folding and weights of 16 binary places: few levels differ
        assert accuracy(settled.reference, labels) > accuracy(floating, labels) - 0.01
        fine = spike_driven.to_graph(net, bits=40).run(held_out)
        torch.testing.assert_close(fine, floating, atol=1e-6, rtol=0)


def test_a_folded_repconv_is_one_convolution() -> None:
    torch.manual_seed(0)
    rep = spike_driven.RepConv(3).double()
    x = torch.randn(20, 3, 5, 6, dtype=torch.float64)
    for _ in range(3):
        rep(x + 1)  # statistics that are not 0 and 1
    with torch.no_grad():
        torch.testing.assert_close(spike_driven.folded(rep).value(x), rep.eval()(x))
