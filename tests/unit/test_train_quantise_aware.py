"""Putting a network on a chip's integers: what changes, what does not, and what is refused."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from neuro.errors import NetworkError
from neuro.nn.bridge import to_network
from neuro.nn.delay import DelayedLinear
from neuro.nn.grid import Formats, GridConv2d, GridLayer, GridLinear, smallest_unit
from neuro.nn.layers import IF, LI, LIF, CubaLI, CubaLIF, Recurrent
from neuro.nn.network import SpikingNetwork
from neuro.nn.stateless import AvgPool2d, Dropout, ScaleNorm
from neuro.train.config import Format
from neuro.train.quantise_aware import fold_batch_norm, prepare

FORMATS = Formats(
    Format(8, -256, 254, 2), Format(8, -128, 127), Format(12, 0, 4095, 1, False), Format(17, 0, 131071, 1, False),
    Format(13, -4096, 4095),
)  # fmt: skip


def net(*layers: nn.Module, shape=(6,), readout: str = "sum") -> SpikingNetwork:
    torch.manual_seed(0)
    for layer in layers:
        for p in layer.parameters():
            nn.init.normal_(p, 0.0, 0.3)
    return SpikingNetwork(
        {f"l{k}": layer for k, layer in enumerate(layers)}, input_shape=shape, dt=1e-3, readout=readout
    ).eval()


def test_smallest_unit() -> None:
    fmt = Format(8, -256, 254, 2)
    assert smallest_unit(torch.tensor([1.0, -0.5]), fmt) == 1 / 254
    assert smallest_unit(torch.tensor([0.1, -0.512]), fmt) == pytest.approx(0.002)
    assert smallest_unit(torch.zeros(3), fmt) == 0.0


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", [nn.BatchNorm2d, ScaleNorm])
def test_batch_norm_folds_exactly(kind: type[nn.Module], bias: bool) -> None:
    layers = (nn.Conv2d(2, 4, 3, bias=bias), kind(4), LIF(0.9, 0.4), nn.Flatten(), nn.Linear(64, 3), LI(0.9))
    module = net(*layers, shape=(2, 6, 6)).double()
    x = (torch.rand(9, 3, 2, 6, 6, generator=torch.Generator().manual_seed(1)) < 0.4).double()
    with torch.no_grad():
        module.layer("l1").weight.fill_(0.7)
    module.train()
    module(x)  # gives the norm statistics of its own
    module.eval()
    spikes: dict[str, torch.Tensor] = {}
    before = module(x, spikes)
    assert spikes["l2"].mean() > 0.02
    fold_batch_norm(module)
    assert not any(isinstance(m, (nn.BatchNorm2d, ScaleNorm)) for m in module.modules())
    torch.testing.assert_close(module(x), before, rtol=1e-12, atol=1e-12)


def test_norms_that_cannot_fold() -> None:
    with pytest.raises(NetworkError, match="directly follow"):
        fold_batch_norm(net(LIF(0.9), nn.BatchNorm1d(6), LI(0.9)))


def test_one_unit_per_neuron_and_an_exact_threshold() -> None:
    """Input weights ten times the recurrent ones: one unit, two exponents, threshold a multiple."""
    layer = Recurrent(CubaLIF(0.8, 0.95, 1.0), 8)
    module = net(nn.Linear(6, 8, bias=False), layer, nn.Linear(8, 3, bias=False), LI(0.9))
    with torch.no_grad():
        layer.recurrent.weight.mul_(0.1)
    prepare(module, FORMATS)
    fc, inner = module.layer("l0"), layer.recurrent
    assert isinstance(fc, GridLinear)
    assert isinstance(inner, GridLayer)
    assert fc.group is inner.group
    unit = fc.group.unit()
    assert 1.0 / unit == pytest.approx(round(1.0 / unit), abs=1e-9)
    exponents = fc.group.exponent(fc, unit), fc.group.exponent(inner, unit)
    assert exponents[0] == exponents[1] + math.ceil(math.log2(fc.needed() / unit) - 1e-9)
    assert exponents[1] == 0
    assert exponents[0] >= 3
    for member, e in zip((fc, inner), exponents, strict=True):
        k = member.integers()[0] / 2**e
        assert torch.equal(k, torch.round(k / 2) * 2)
        assert 190 < k.abs().max() <= 256, "the format is used to the full"


def test_gradients_pass_straight_through() -> None:
    """d(output)/d(weight) on the grid is that of the real layer at the rounded weights."""
    module = net(nn.Linear(6, 3), LI(0.875))  # a register's decay
    real = copy.deepcopy(module)
    prepare(module, FORMATS, state=False)
    grid = module.layer("l0")
    assert isinstance(grid, GridLinear)
    with torch.no_grad():
        weight, bias = grid.real()
        assert bias is not None
        real.layer("l0").weight.copy_(weight)
        real.layer("l0").bias.copy_(bias)
    x = (torch.rand(11, 4, 6, generator=torch.Generator().manual_seed(2)) < 0.5).float()
    for m in (module, real):
        (m(x) ** 2).sum().backward()
    torch.testing.assert_close(grid.weight.grad, real.layer("l0").weight.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(grid.bias.grad, real.layer("l0").bias.grad, rtol=1e-4, atol=1e-4)


def test_training_on_the_grid_moves_the_weights() -> None:
    module = net(nn.Linear(6, 8, bias=False), Recurrent(CubaLIF(0.8, 0.95), 8), nn.Linear(8, 3, bias=False), LI(0.9))
    prepare(module, FORMATS)
    names = {n for n, _ in module.named_parameters()}
    assert names == {"layers.l0.weight", "layers.l1.recurrent.weight", "layers.l2.weight"}, "names stay for checkpoints"
    before = {n: p.detach().clone() for n, p in module.named_parameters()}
    optimiser = torch.optim.AdamW(module.parameters(), lr=0.01)
    x = (torch.rand(30, 4, 6, generator=torch.Generator().manual_seed(3)) < 0.4).float()
    losses = []
    for _ in range(25):
        loss = (module(x).mean(0) - torch.tensor([1.0, 0.0, -1.0])).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    for name, p in module.named_parameters():
        assert (p != before[name]).any(), name


def test_a_copy_is_on_its_own_grid() -> None:
    module = net(nn.Linear(6, 8, bias=False), LIF(0.9), nn.Linear(8, 3, bias=False), LI(0.9))
    prepare(module, FORMATS)
    twin = copy.deepcopy(module)
    with torch.no_grad():
        twin.layer("l0").weight.mul_(2.0)
    assert twin.layer("l0").group.unit() > 1.9 * module.layer("l0").group.unit()
    assert twin.layer("l1").grid().unit == twin.layer("l0").group.unit()


@pytest.mark.parametrize("steps", [None, 100])
def test_no_input_can_wrap_or_clip_an_integrator(steps: int | None) -> None:
    """All inputs on for ever: the readout stays below the limit and equals the geometric sum."""
    module = net(nn.Linear(40, 3, bias=False), CubaLI(0.9, 0.95), shape=(40,))
    with torch.no_grad():
        module.layer("l0").weight.abs_()
    prepare(module, FORMATS, max_steps=100 if steps else None)
    trace = module(torch.ones(steps or 500, 1, 40))[:, 0]
    unit = module.layer("l0").group.unit()
    assert trace.max() < unit * (1 << 17)
    beta, alpha = round(0.95 * 4096) / 4096, round(0.9 * 4096) / 4096
    final = to_network(module).nodes["l0"].weight.sum(1) / (1 - alpha) / (1 - beta)
    if steps is None:
        assert trace.max() > 0.95 * unit * (1 << 17), "the range is used"
        np.testing.assert_allclose(trace[-1].detach(), final, rtol=1e-3)


def test_decays_are_registers() -> None:
    module = net(nn.Linear(6, 8, bias=False), CubaLIF(0.7777, 0.9123), nn.Linear(8, 3, bias=False), LI(0.95))
    prepare(module, FORMATS)
    for name in ("l1", "l3"):
        for decay in ("alpha", "beta"):
            value = float(module.layer(name).value(decay)) * 4096
            assert value == round(value)


def test_convolutions_have_their_own_format() -> None:
    module = net(nn.Conv2d(2, 3, 3), IF(1.0), nn.Flatten(), nn.Linear(48, 3), LI(0.9), shape=(2, 6, 6))
    prepare(module, FORMATS)
    conv = module.layer("l0")
    assert isinstance(conv, GridConv2d)
    k, bias = conv.integers()
    assert torch.equal(k, k.round())
    assert -128 <= k.min() < 0 < k.max() <= 127
    assert torch.equal(bias * 64, (bias * 64).round())


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((nn.Linear(6, 3), CubaLIF(0.8, 0.9), nn.Linear(3, 3), LI(0.9)), "filters its bias"),
        ((nn.Linear(6, 3), LIF(0.9, gain=2.0), nn.Linear(3, 3), LI(0.9)), "has gain 2"),
        ((nn.Linear(6, 3), LIF(0.9, drive=0.1), nn.Linear(3, 3), LI(0.9)), "has drive 0.1"),
        ((nn.Linear(6, 3), LIF(0.9, -1.0), nn.Linear(3, 3), LI(0.9)), "thresholds must be positive"),
        ((nn.Linear(6, 3), LI(0.9), nn.Linear(3, 3), LI(0.9)), "real numbers from 'l1'"),
        ((LIF(0.9), nn.Linear(6, 3), LI(0.9)), "fed by 'input'"),
        ((nn.Linear(6, 3), nn.Linear(3, 3), LI(0.9)), "feeds no neuron"),
        ((nn.Linear(6, 3), LIF(0.9), nn.Linear(3, 3)), "feeds no neuron"),
    ],
)
def test_what_has_no_place_on_the_grid(layers: tuple[nn.Module, ...], message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        prepare(
            SpikingNetwork({f"l{k}": m for k, m in enumerate(layers)}, input_shape=(6,), dt=1e-3, readout="sum"),
            FORMATS,
        )


def test_averages_are_refused() -> None:
    layers = (nn.Conv2d(1, 2, 3), LIF(0.9), AvgPool2d(2), Dropout(0.1), nn.Flatten(), nn.Linear(8, 3), LI(0.9))
    with pytest.raises(NetworkError, match="SumPool2d"):
        prepare(net(*layers, shape=(1, 6, 6)), FORMATS)


def test_delays_have_integers_too() -> None:
    module = net(DelayedLinear(np.arange(18).reshape(3, 6) % 4), LI(0.9))
    prepare(module, FORMATS)
    network = to_network(module)
    np.testing.assert_array_equal(network.nodes["l0"].delay_steps, np.arange(18).reshape(3, 6) % 4)


def test_loops_over_layers_cannot_run_on_integers() -> None:
    layers = {
        "a": nn.Linear(6, 3, bias=False),
        "h": LIF(0.9),
        "b": nn.Linear(3, 3, bias=False),
        "g": LIF(0.9),
        "c": nn.Linear(3, 3, bias=False),
    }
    edges = [("input", "a"), ("a", "h"), ("h", "b"), ("b", "g"), ("g", "c"), ("c", "h"), ("g", "output")]
    module = SpikingNetwork(layers, edges, input_shape=(6,), dt=1e-3)
    prepare(module, FORMATS)
    with pytest.raises(NetworkError, match="Recurrent"):
        module(torch.ones(3, 1, 6))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_diverged_weights_are_an_error_not_a_hang(value: float) -> None:
    module = net(nn.Linear(6, 3, bias=False), LI(0.9))
    prepare(module, FORMATS)
    with torch.no_grad():
        module.layer("l0").weight[0, 0] = value
    with pytest.raises(NetworkError, match="diverged"):
        module(torch.ones(3, 1, 6))


def test_exponents_stay_in_the_register() -> None:
    """Recurrent weights a million times smaller: they round to nothing rather than ask for an exponent of 20."""
    layer = Recurrent(CubaLIF(0.8, 0.95, 1.0), 8)
    module = net(nn.Linear(6, 8, bias=False), layer, nn.Linear(8, 3, bias=False), LI(0.9))
    with torch.no_grad():
        layer.recurrent.weight.mul_(1e-6)
    prepare(module, FORMATS)
    fc = module.layer("l0")
    assert 1 <= fc.group.exponent(fc, fc.group.unit()) <= 7
    assert not layer.recurrent.integers()[0].any()


def test_silent_layers_have_a_grid() -> None:
    module = net(nn.Linear(6, 8, bias=False), LIF(0.9), nn.Linear(8, 3, bias=False), LI(0.9))
    with torch.no_grad():
        for name in ("l0", "l2"):
            module.layer(name).weight.zero_()
    prepare(module, FORMATS)
    assert module(torch.ones(3, 1, 6)).abs().sum() == 0
    assert not to_network(module).nodes["l0"].weight.any()
