"""Integer neurons: their equation, their gradient, and the spikes that they unfold to, on chips too."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neuro import reference
from neuro.errors import NetworkError, PrecisionLoss, UnsupportedLayer, UnsupportedNode
from neuro.hardware import simulate
from neuro.hardware.compile import compile as compile_network
from neuro.nn import LIF, I, IntegerLIF, SpikingNetwork, to_module, to_network, unfold
from neuro.nn.joined import Carry
from neuro.train.build import build

D = torch.float64


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape) * 2.0 + 1.0)


def test_the_equation_in_python_floats() -> None:
    """How many thresholds (k - 1/2) theta lie below u; what they stand for is taken from u; ties round down."""
    theta, beta, levels, v = 0.5, 0.75, 4, 0.0
    xs = [0.25, 0.5, 1.0, -2.0, 0.9, 5.0, 0.0, 0.26]
    expected = []
    for x in xs:
        u = beta * v + x
        s = sum(u > (k - 0.5) * theta for k in range(1, levels + 1))
        v = u - theta * s
        expected.append(s)
    found = IntegerLIF(theta, beta, levels=levels)(torch.tensor(xs, dtype=D).view(-1, 1, 1))
    assert found.flatten().tolist() == expected
    assert {0, 1, levels} <= set(expected)


def test_the_gradient_goes_straight_through_between_zero_and_all_levels() -> None:
    x = torch.tensor([[[-0.4, 0.3, 1.2, 1.9, 2.6]]], dtype=D, requires_grad=True)
    IntegerLIF(0.5, levels=4)(x).sum().backward()
    assert x.grad.flatten().tolist() == [0.0, 2.0, 2.0, 2.0, 0.0]


def test_the_gradient_over_time_is_that_of_the_rounded_sum() -> None:
    """By hand for T = 2: what a step sends is taken from the next one's membrane."""
    x = torch.tensor([0.8, 0.9], dtype=D).view(2, 1, 1).requires_grad_()
    theta, beta = 1.0, 0.5
    s = IntegerLIF(theta, beta, levels=4)(x)
    s[1].sum().backward()
    # ds1 = du1 / theta, u1 = beta (u0 - theta s0) + x1, ds0 = du0 / theta: the first step cancels
    assert x.grad.flatten().tolist() == [0.0, 1.0]
    x.grad = None
    IntegerLIF(theta, beta, levels=4, detach=True)(x)[1].sum().backward()
    assert x.grad.flatten().tolist() == [0.5, 1.0]


def test_pieces_are_the_whole() -> None:
    one, x, carry = IntegerLIF(0.7, 0.8, levels=3), drawn(9, 2, 5), Carry()
    whole = one(x)
    assert len(whole.unique()) == 4
    assert torch.equal(torch.cat([one.resume(part, carry) for part in x.split((4, 5))]), whole)


# ---------------------------------------------------------------- unfolding


def on_grid(rng: np.random.Generator, out: int, inputs: int) -> nn.Linear:
    linear = nn.utils.skip_init(nn.Linear, inputs, out)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(rng.integers(-3, 4, (out, inputs)) / 4))
        linear.bias.copy_(torch.from_numpy(rng.integers(-2, 3, out) / 4))
    return linear


def trained(
    levels: int = 4, readout: str = "integers", depth: int = 2, seed: int = 0, first: float = 0.25
) -> SpikingNetwork:
    rng = np.random.default_rng(seed)
    sizes = [6, 8, 7, 5][: depth + 1]
    layers: dict[str, nn.Module] = {}
    for k, (inputs, out) in enumerate(itertools.pairwise(sizes)):
        layers |= {f"w{k}": on_grid(rng, out, inputs), f"n{k}": IntegerLIF([first, 0.5][k % 2], levels=levels)}
    last = I(0.5) if readout == "integrator" else IntegerLIF(1.0, levels=levels)
    layers |= {"wo": on_grid(rng, 3, sizes[-1]), "no": last}
    return SpikingNetwork(layers, input_shape=(6,), dt=1e-3, readout="sum").double()


def sample(seed: int = 1, batch: int = 40) -> np.ndarray:
    return (np.random.default_rng(seed).random((1, batch, 6)) < 0.5).astype(np.uint8)


@pytest.mark.parametrize("readout", ["integers", "integrator"])
@pytest.mark.parametrize(("levels", "depth"), [(1, 1), (4, 1), (4, 2), (3, 3)])
def test_the_sum_of_spikes_is_the_integer(levels: int, depth: int, readout: str) -> None:
    """Every integer of every layer, in the float reference and in torch; outside its window a layer is silent."""
    net, x = trained(levels, readout, depth), sample()
    sent: dict[str, Tensor] = {}
    integer = [n for n in net.names if isinstance(net.layer(n), IntegerLIF)]
    for n in integer:
        net.layer(n).register_forward_hook(lambda _m, _x, y, n=n: sent.__setitem__(n, y[0].detach()))
    scores = net.scores(net(torch.from_numpy(x))).detach().numpy()
    found = unfold(net)
    assert found.sub_steps == levels * len(integer)
    run = reference.run(found.network, found.encode(x))
    for n in integer:
        np.testing.assert_array_equal(found.integers(n, run.spikes[n]), sent[n].numpy())
        assert run.spikes[n].sum() == sent[n].sum()
    assert len(torch.cat([s.flatten() for s in sent.values()]).unique()) == levels + 1
    np.testing.assert_array_equal(reference.scores(found.network, run), scores)
    again = to_module(found.network, D)
    np.testing.assert_array_equal(again.scores(again(torch.from_numpy(found.encode(x)))).detach().numpy(), scores)


def test_real_weights_agree_too() -> None:
    """Without a grid only an exact tie could differ, and random reals have none."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = {"a": nn.Linear(6, 20), "n": IntegerLIF(0.2), "b": nn.Linear(20, 5), "o": IntegerLIF(0.1)}
    net = SpikingNetwork(layers, input_shape=(6,), dt=1e-3, readout="sum").double()
    x, found = sample(), unfold(net)
    run = reference.run(found.network, found.encode(x))
    scores = net.scores(net(torch.from_numpy(x))).detach().numpy()
    assert scores.max() > 1
    np.testing.assert_array_equal(reference.scores(found.network, run), scores)


def test_the_clock_ticks_once_each() -> None:
    found = unfold(trained(4))
    spikes = reference.run(found.network, found.encode(sample(batch=1))).spikes["clock"][:, 0]
    assert np.argwhere(spikes).tolist() == [[0, 0], [4, 1], [8, 2]]


def test_spikes_on_truenorth_are_the_integers() -> None:
    """A chip that subtracts the threshold, and holds small weights beside large ones, sends the same spikes."""
    found, x = unfold(trained(depth=1, first=1.0)), sample(batch=6)
    program = compile_network(found.network, "truenorth", max_steps=found.sub_steps)
    trace = simulate(program, found.encode(x))
    wanted = reference.run(found.network, found.encode(x)).spikes["no"]
    begin = program.skew["no"]
    np.testing.assert_array_equal(trace.spikes["no"][begin : begin + len(wanted)], wanted)
    assert wanted.sum() > 5


@pytest.mark.parametrize("chip", ["loihi1", "loihi2", "spinnaker1"])
def test_chips_that_reset_to_zero_say_so(chip: str) -> None:
    """They would send one spike where several are meant."""
    with pytest.raises(PrecisionLoss, match=r"'n0' resets to .* instead of subtracting its threshold"):
        compile_network(unfold(trained(depth=1)).network, chip, strict=True)


@pytest.mark.parametrize(("levels", "depth", "paths"), [(1, 1, ["'input->n0'"]), (3, 3, ["'n0->n1'", "'n2->no'"])])
def test_a_chip_that_rounds_the_weights_beside_the_clock_says_so(levels: int, depth: int, paths: list[str]) -> None:
    """SpiNNaker 2 gives all synapses of a neuron one unit; beside the clock's hold, little is left of others."""
    network = unfold(trained(levels, depth=depth)).network
    with pytest.raises(PrecisionLoss) as found:
        compile_network(network, "spinnaker2", strict=True)
    for path in paths:
        assert f"{path} is left with no weight" in str(found.value)
    assert compile_network(network, "spinnaker2").substitutions


@pytest.mark.parametrize("chip", ["akida1", "akida2"])
def test_chips_without_memory_refuse(chip: str) -> None:
    with pytest.raises(UnsupportedNode, match="'n0' is a IF"):
        compile_network(unfold(trained(depth=1)).network, chip)


def test_a_network_of_integers_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedLayer, match="unfold"):
        to_network(trained())


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ({"w": nn.Linear(6, 3), "n": LIF()}, "'n' is a LIF where an IntegerLIF"),
        ({"w": nn.Linear(6, 3)}, "the last layer must be"),
        ({"n": IntegerLIF()}, "'n' is a IntegerLIF where a Linear"),
        ({"a": nn.Linear(6, 6), "n": IntegerLIF(levels=2), "b": nn.Linear(6, 3), "m": IntegerLIF()}, r"\[2, 4\]"),
    ],
)  # fmt: skip
def test_what_cannot_be_unfolded_is_named(layers: dict[str, nn.Module], says: str) -> None:
    with pytest.raises(NetworkError, match=says):
        unfold(SpikingNetwork(layers, input_shape=(6,), dt=1e-3, readout="sum"))


def test_a_sample_of_several_steps_is_refused() -> None:
    with pytest.raises(NetworkError, match="one step"):
        unfold(trained()).encode(np.zeros((2, 1, 6)))


@pytest.mark.parametrize(
    ("given", "says"),
    [({"levels": 0}, "levels must be"), ({"v_threshold": 0.0}, "v_threshold must be positive"),
     ({"beta": 1.5}, "beta must lie"), ({"beta": math.nan}, "NaN"), ({"learn": ("beta",)}, "learn may hold")],
)  # fmt: skip
def test_bad_neurons(given: dict[str, object], says: str) -> None:
    with pytest.raises(NetworkError, match=says):
        IntegerLIF(**given)


def test_a_configuration_trains() -> None:
    rows = ({"type": "linear", "out": 16}, {"type": "integer_lif", "levels": 4, "v_threshold": 0.3,
             "learn": ("v_threshold",)}, {"type": "linear", "out": 2}, {"type": "integrator"})  # fmt: skip
    net = build(rows, (6,), 1e-3, "last", 0, 2)
    x, optimiser = torch.from_numpy(sample(batch=64)), torch.optim.Adam(net.parameters(), 0.02)
    target = (x[0, :, 0] ^ x[0, :, 1]).long()
    for _ in range(60):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(net.scores(net(x)), target)
        loss.backward()
        optimiser.step()
    assert (net.scores(net(x)).argmax(1) == target).float().mean() > 0.95
