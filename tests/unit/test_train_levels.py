"""Training for typed axons (TrueNorth): levels, whole units, and integers that spike as the float network does."""

from __future__ import annotations

import itertools

import axon_integer_if
import numpy as np
import pytest
import torch
from torch import nn

from neuro import ir, reference
from neuro.errors import NetworkError
from neuro.nn.bridge import to_module, to_network
from neuro.nn.delay import Delay, DelayedLinear, Taps
from neuro.nn.layers import IF, LI, LIF, Recurrent
from neuro.nn.levels import LevelLayer, Levels, best_step, nearest, sums
from neuro.nn.masked import MaskedLinear, windows
from neuro.nn.network import SpikingNetwork
from neuro.nn.stateless import Dropout, ScaleNorm
from neuro.train.build import build
from neuro.train.config import load_config, presets
from neuro.train.data import Recordings
from neuro.train.quantise_aware import prepare

SCHEMES = ((1, -1), (1, 2, -3), (1, 2, 4, -8), (1,))


def net(*layers: nn.Module, shape=(6,), seed: int = 0, scale: float = 0.5) -> SpikingNetwork:
    generator = torch.Generator().manual_seed(seed)
    for layer in layers:
        for name, p in layer.named_parameters():
            if "learnt" not in name:
                nn.init.normal_(p, 0.1, scale if p.dim() > 1 else 0.1, generator=generator)
    names = {f"l{k}": layer for k, layer in enumerate(layers)}
    return SpikingNetwork(names, input_shape=shape, dt=1e-3, readout="count").eval()


def dense_for(shape: tuple[int, ...], steps: int = 25, batch: int = 4, rate: float = 0.4, seed: int = 1) -> np.ndarray:
    return (np.random.default_rng(seed).random((steps, batch, *shape)) < rate).astype(np.uint8)


# ---------------------------------------------------------------- levels


def test_levels_are_the_sums_of_subsets() -> None:
    assert sums((1, -1)) == (-1, 0, 1)
    assert sums((1, 2, -3)) == tuple(range(-3, 4))
    assert sums((1, 2, 4, -8)) == tuple(range(-8, 8))
    assert sums((3, 5)) == (0, 3, 5, 8)


@pytest.mark.parametrize("values", SCHEMES)
def test_nearest_is_nearest(values: tuple[int, ...]) -> None:
    x = torch.linspace(-10, 10, 977, dtype=torch.float64)
    table = torch.tensor(sums(values), dtype=torch.float64)
    least = (x[:, None] - table).abs().min(1).values
    assert torch.equal((x - nearest(x, sums(values))).abs(), least)


def test_best_step_of_normal_weights() -> None:
    """Lloyd-Max with three uniform levels: +-1.224 sigma (Max 1960, table I); mean |x| is sqrt(2 / pi) sigma."""
    assert best_step((1, -1)) * np.sqrt(2 / np.pi) == pytest.approx(1.224, rel=0.01)


# ---------------------------------------------------------------- what lies on the grid


def image_net(values: tuple[int, ...], seed: int) -> tuple[SpikingNetwork, float]:
    layers = (
        nn.Conv2d(2, 4, 3, 2, 1, bias=False), ScaleNorm(4, 0.8), IF(1.0),
        nn.Conv2d(4, 6, 3, groups=2, bias=False), IF(np.linspace(0.6, 1.4, 6).reshape(6, 1, 1) * np.ones((6, 2, 2)),
        learn=("v_threshold",)), Dropout(0.2), nn.Flatten(), nn.Linear(24, 3, bias=False), IF(0.5, reset="subtract"),
    )  # fmt: skip
    module = net(*layers, shape=(2, 8, 8), seed=seed)
    unit = 1 / 32
    prepare(module, Levels(values, unit))
    return module, unit


def vector_net(values: tuple[int, ...], seed: int) -> tuple[SpikingNetwork, float]:
    layers = (
        Taps((0, 3), 6), nn.Linear(12, 7, bias=True), Recurrent(IF(1.0, v_reset=-0.3), 7), Delay(np.arange(7) % 4),
        DelayedLinear(np.arange(35).reshape(5, 7) % 3), IF(0.7, reset="subtract"), nn.Linear(5, 3, bias=False),
        IF(0.5, reset="subtract"),
    )  # fmt: skip
    module = net(*layers, seed=seed)
    unit = 1 / 64
    prepare(module, Levels(values, unit))
    return module, unit


def masked_net(values: tuple[int, ...], seed: int) -> tuple[SpikingNetwork, float]:
    loop = Recurrent(IF(1.0), 8)
    loop.recurrent = MaskedLinear(8, 8, False, 3)
    module = net(MaskedLinear(6, 8, True, 4), loop, MaskedLinear(8, 4, False, 4), IF(0.5, reset="subtract"), seed=seed)
    prepare(module, Levels(values, 1 / 16))
    return module, 1 / 16


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("values", SCHEMES)
@pytest.mark.parametrize("make", [image_net, vector_net, masked_net])
def test_integers_spike_as_the_float_network(make, values: tuple[int, ...], seed: int) -> None:
    """Every spike of every layer in every step: trained module, float reference and int64 loop are one."""
    module, unit = make(values, seed)
    dense = dense_for(module.input_shape, seed=seed)
    record: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        module(torch.from_numpy(dense), record)
    network = to_network(module)
    float_spikes = reference.run(network, dense, record=("spikes",)).spikes
    integer_spikes = axon_integer_if.run(network, dense, unit)
    assert set(float_spikes) == set(integer_spikes) == set(record)
    for name, s in integer_spikes.items():
        assert s.any(), f"{name} is silent, which shows nothing"
        np.testing.assert_array_equal(s, float_spikes[name], err_msg=name)
        np.testing.assert_array_equal(s, record[name].numpy(), err_msg=name)


@pytest.mark.parametrize("values", SCHEMES)
def test_each_neuron_has_one_value_per_axon_type(values: tuple[int, ...]) -> None:
    for module, unit in (image_net(values, 0), vector_net(values, 0)):
        network = to_network(module)
        for name in module.names:
            layer = module.layer(name)
            members = [(name, layer)]
            if isinstance(layer, Recurrent):
                members = [(f"{name}_recurrent", layer.recurrent)]
            for node, member in members:
                if not isinstance(member, LevelLayer):
                    continue
                m = member.group.multiple().numpy()
                assert (m >= 1).all()
                assert (m * max(map(abs, values)) <= 255).all()
                k = axon_integer_if.whole(network.nodes[node].weight, unit)
                for row, step in zip(k.reshape(len(k), -1), m, strict=True):
                    assert set(row.tolist()) <= {int(step * level) for level in sums(values)}


def test_a_loop_shares_the_step_with_the_input() -> None:
    """Input and recurrent weights of one neuron are multiples of one step, whatever their sizes."""
    loop = Recurrent(IF(1.0), 7)
    module = net(nn.Linear(6, 7, bias=False), loop, nn.Linear(7, 3, bias=False), IF(1.0))
    with torch.no_grad():
        loop.recurrent.weight.mul_(0.2)
    prepare(module, Levels())
    assert module.layer("l0").group is loop.recurrent.group
    k = torch.cat([module.layer("l0").integers()[0], loop.recurrent.integers()[0]], 1)
    assert all(len(row.abs().unique()) <= 2 for row in k)


def test_no_input_leaves_the_range_of_the_membrane() -> None:
    """With all inputs on for max_steps the membrane stays above -2^18, however large the weights are."""
    for steps, scale in ((1000, 100.0), (10, 1e4)):
        module = net(nn.Linear(90, 3, bias=True), IF(1.0, reset="subtract"), shape=(90,), scale=scale)
        with torch.no_grad():
            module.layer("l0").weight.abs_().neg_()
            module.layer("l0").bias.fill_(-0.3)
        prepare(module, Levels(unit=1 / 256), max_steps=steps)
        network = to_network(module)
        v = reference.run(network, np.ones((steps, 1, 90), np.uint8)).v["l1"][-1] * 256
        assert (v >= -(1 << 18) + 1).all()
        assert (v <= -(1 << 17)).all(), "the range is used"


def test_a_network_from_the_levels_comes_back() -> None:
    module, _ = vector_net((1, -1), 0)
    dense = torch.from_numpy(dense_for((6,)))
    network = to_network(module)
    with torch.no_grad():
        assert torch.equal(to_module(network)(dense), module(dense))


# ---------------------------------------------------------------- training


def test_gradients_pass_straight_through() -> None:
    module = net(nn.Linear(6, 3, bias=True), IF(1.0, reset="subtract"))
    prepare(module, Levels())
    layer = module.layer("l0")
    real = net(nn.Linear(6, 3, bias=True), IF(1.0, reset="subtract"))
    with torch.no_grad():
        weight, bias = layer.real()
        real.layer("l0").weight.copy_(weight)
        real.layer("l0").bias.copy_(bias)
    x = torch.from_numpy(dense_for((6,)))
    for m in (module, real):
        (m(x).mean(0) ** 2).sum().backward()
    assert layer.weight.grad.abs().sum() > 0
    torch.testing.assert_close(layer.weight.grad, real.layer("l0").weight.grad, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(layer.bias.grad, real.layer("l0").bias.grad, rtol=1e-4, atol=1e-6)


def test_training_on_levels_learns() -> None:
    """A target rate per channel is reached, and everything that may move has moved."""
    module = net(
        nn.Linear(6, 8, bias=True), IF(np.ones(8), learn=("v_threshold",)), nn.Linear(8, 3, bias=False), IF(1.0)
    )
    prepare(module, Levels())
    before = {n: p.detach().clone() for n, p in module.named_parameters()}
    optimiser = torch.optim.AdamW(module.parameters(), lr=0.02)
    x = torch.from_numpy(dense_for((6,), steps=40))
    losses = []
    for _ in range(60):
        loss = (module(x).mean((0, 1)) - torch.tensor([0.5, 0.2, 0.0])).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert min(losses[-5:]) < 0.3 * losses[0]
    for name, p in module.named_parameters():
        assert (p != before[name]).any(), name


@pytest.mark.parametrize(
    ("layers", "levels", "message"),
    [
        ((nn.Linear(6, 3), LIF(0.9)), Levels(), "LIF decays"),
        ((nn.Linear(6, 3), IF(1.0), nn.Linear(3, 3), LI(0.9)), Levels(), "LI decays"),
        ((nn.Linear(6, 3), IF(1.0, gain=2.0)), Levels(), "has gain 2"),
        ((nn.Linear(6, 3), IF(-1.0)), Levels(), "thresholds must lie in"),
        ((nn.Linear(6, 3), IF(1e5)), Levels(), "thresholds must lie in"),
        ((nn.Linear(6, 3), IF(1.0)), Levels(unit=0.01), "power of two"),
        ((nn.Linear(6, 3), IF(1.0)), Levels(unit=5e-324), "power of two"),
        ((nn.Linear(6, 3), IF(1.0)), Levels((1, 0)), "other than 0"),
        ((nn.Linear(6, 3), IF(1.0)), Levels((1, 2, 3, 4, 5)), "one to four"),
        ((nn.Linear(6, 3), IF(1.0)), Levels((1, 300)), "must lie in -255..255"),
        ((IF(1.0), nn.Linear(6, 3), IF(1.0)), Levels(), "fed by 'input'"),
    ],
)
def test_what_has_no_place_on_typed_axons(layers: tuple[nn.Module, ...], levels: Levels, message: str) -> None:
    names = {f"l{k}": layer for k, layer in enumerate(layers)}
    module = SpikingNetwork(names, input_shape=(6,), dt=1e-3, readout="sum")
    with pytest.raises(NetworkError, match=message):
        prepare(module, levels)


def test_diverged_weights_are_an_error() -> None:
    module = net(nn.Linear(6, 3, bias=False), IF(1.0))
    prepare(module, Levels())
    with torch.no_grad():
        module.layer("l0").weight[0, 0] = torch.nan
    with pytest.raises(NetworkError, match="diverged"):
        module(torch.ones(3, 1, 6))


# ---------------------------------------------------------------- few inputs per neuron


def test_windows_read_every_input() -> None:
    mask = windows(200, 27, 128)
    assert (mask.sum(1) == 128).all()
    assert (mask.sum(0) > 0).all()
    assert len(torch.unique(mask, dim=0)) == 2, "two cores, not 27"
    assert (windows(5, 3, 128) == 1).all()
    with pytest.raises(NetworkError, match="read by none"):
        windows(200, 2, 10)


def test_masks_are_kept_in_training_and_exported_as_zeros() -> None:
    rows = (
        {"type": "linear", "out": 8, "fan_in": 4},
        {"type": "if", "recurrent": True, "recurrent_fan_in": 3},
        {"type": "linear", "out": 3},
        {"type": "if"},
    )
    for levels in (None, Levels()):
        module = build(rows, (6,), 1e-3, "count", 0, 3)
        if levels:
            prepare(module, levels)
        optimiser = torch.optim.AdamW(module.parameters(), lr=0.05, weight_decay=0.0)
        for _ in range(3):
            optimiser.zero_grad()
            module(torch.from_numpy(dense_for((6,)))).sum().backward()
            optimiser.step()
        network = to_network(module)
        for name, inputs, fan_in in (("0_linear", 6, 4), ("1_if_recurrent", 8, 3)):
            read = network.nodes[name].weight != 0
            assert not read[windows(inputs, 8, fan_in).numpy() == 0].any()
            assert read.sum() > 8
        x = dense_for((6,))
        if levels:
            with torch.no_grad():
                s = module(torch.from_numpy(x)).numpy()
            np.testing.assert_array_equal(s, reference.run(network, x).spikes["3_if"])


# ---------------------------------------------------------------- taps


def test_taps_are_delays_side_by_side() -> None:
    x = torch.from_numpy(dense_for((4,))).float()
    taps = Taps((0, 2, 40), 4)
    y = taps(x)
    assert y.shape == (25, 4, 12)
    assert torch.equal(y[..., :4], x)
    assert torch.equal(y[2:, :, 4:8], x[:-2])
    assert not y[:2, :, 4:8].any()
    assert not y[..., 8:].any(), "later than the sample is long"
    state, rows = None, []
    for step in x:
        row, state = taps.step(step, state)
        rows.append(row)
    assert torch.equal(torch.stack(rows), y)


def test_a_window_of_taps_forgets() -> None:
    """The start of a linear layer with ``window``: d steps after the last input the membrane is what it was."""
    rows = ({"type": "taps", "steps": [0, 5]}, {"type": "linear", "out": 3, "init": 0.5, "window": 2},
            {"type": "if", "v_threshold": 1e6})  # fmt: skip
    network = to_network(build(rows, (4,), 1e-3, "count", 0, 3))
    dense = dense_for((4,), steps=20)
    dense[10:] = 0
    v = next(iter(reference.run(network, dense, record=("v",)).v.values()))
    assert np.abs(v[5:13]).max() > 0.1
    np.testing.assert_allclose(v[15:], 0, atol=1e-6)


# ---------------------------------------------------------------- presets


def typed() -> list[str]:
    return [name for name in presets() if (q := load_config(name).quantise) is not None and q.axons]


@pytest.mark.parametrize("name", typed())
def test_presets_lie_on_typed_axons(name: str) -> None:
    """Fresh from their start on the levels: at most 256 axons and four values per neuron, integers spike the same."""
    config = load_config(name)
    assert config.quantise is not None
    recordings = Recordings(config.data, config.seed)
    data = recordings.train(0)
    module = build(config.layers, data.shape, recordings.dt, config.readout, 0, len(recordings.source.classes)).eval()
    prepare(module, config.quantise.formats, config.quantise.state, recordings.steps)
    network = to_network(module)
    unit, axons = config.quantise.unit, len(config.quantise.axons)
    for node in (n for n in network.nodes.values() if isinstance(n, (ir.Linear, ir.Conv2d))):
        if isinstance(node, ir.Linear) and node.delay_steps is not None:
            continue  # taps: one input each
        k = axon_integer_if.whole(node.weight, unit).reshape(len(node.weight), -1)
        assert (np.count_nonzero(k, axis=1) * axons <= 256).all()
        assert k.shape[1] * axons <= 256, "every input of a core's neurons fits"
        strongest = np.maximum(np.clip(k, 0, None).sum(1), -np.clip(k, None, 0).sum(1)).max() * recordings.steps
        assert strongest < 1 << 18, "no input leaves the range of the membrane"
        values = [np.unique(np.abs(row[row != 0])) for row in k]
        assert all(len(v) <= 1 for v in values) or axons > 2
    dense = data.batch(range(2), recordings.dt, min(recordings.steps, 20))
    floats = reference.run(network, dense, record=("spikes",)).spikes
    for layer, s in axon_integer_if.run(network, dense, unit).items():
        np.testing.assert_array_equal(s, floats[layer], err_msg=layer)


def test_levels_resume_exactly(tmp_path) -> None:
    """Broken off in the middle of the integers and started again: the same weights."""
    from neuro.train.loop import fit

    small = load_config("braille_truenorth").with_changes(
        **{"data.limit": 40, "train.epochs": 4, "train.threads": 1, "quantise.start": 0.3}
    )
    straight = fit(small, tmp_path / "straight")

    class Stop(Exception):
        pass

    def stop(row) -> None:
        if row["epoch"] == 2:
            raise Stop

    with pytest.raises(Stop):
        fit(small, tmp_path / "broken", on_epoch=stop)
    resumed = fit(small, tmp_path / "broken")
    for a, b in itertools.zip_longest(straight.network.nodes.values(), resumed.network.nodes.values()):
        if hasattr(a, "weight"):
            assert np.array_equal(a.weight, b.weight)
    assert straight.summary["quantised"]
