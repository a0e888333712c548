"""LIF without a reset, as a scan: the step loop, the reference, the two nodes that it is, chips."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neuro import ir, reference
from neuro.errors import ChipError
from neuro.hardware.compile import compile as compile_network
from neuro.hardware.target import targets
from neuro.nn import LI, ParallelLIF, Recurrent, SpikingNetwork, to_module, to_network
from neuro.nn.joined import Carry
from neuro.nn.parallel import scan
from neuro.nn.plain import forced
from neuro.train.build import build

D = torch.float64


def layer() -> ParallelLIF:
    between = np.linspace
    return ParallelLIF(between(0.5, 0.95, 5), between(0.6, 1.1, 5), gain=0.9, drive=0.05, surrogate="atan",
                       learn=("beta", "v_threshold")).double()  # fmt: skip


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape) + 0.2)


def stepped(one: ParallelLIF, x: Tensor) -> tuple[Tensor, Tensor]:
    sent, v, state = [], [], None
    for current in x:
        y, state = one.step(current, state)
        sent.append(y)
        v.append(state.v)
    return torch.stack(sent), torch.stack(v)


def test_the_scan_is_the_recurrence() -> None:
    x, beta = drawn(37, 2, 3), torch.tensor([0.3, 0.9, 0.99], dtype=D)
    y = [x[0]]
    for current in x[1:]:
        y.append(beta * y[-1] + current)
    torch.testing.assert_close(scan(x, beta), torch.stack(y), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("plain", [False, True])
def test_whole_time_equals_the_step_loop(plain: bool) -> None:
    """Spikes, membrane and every gradient; the scan of other devices adds in another order."""
    one = layer()
    x, found = drawn(23, 3, 5).requires_grad_(), []
    up_s, up_v = drawn(23, 3, 5, seed=2), drawn(23, 3, 5, seed=3)

    def fast(given: Tensor) -> tuple[Tensor, Tensor]:
        if not plain:
            return one.with_membrane(given)
        with forced():
            return one.with_membrane(given)

    for run in (fast, lambda given: stepped(one, given)):
        one.zero_grad()
        x.grad = None
        spikes, v = run(x)
        ((spikes * up_s).sum() + (v * up_v).sum()).backward()
        found.append([spikes.detach() * 1, v.detach(), x.grad, *(p.grad for p in one.parameters())])
    assert 0.05 < found[0][0].mean() < 0.95
    for ours, loop in zip(*found, strict=True):
        torch.testing.assert_close(ours, loop, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("plain", [False, True])
def test_pieces_are_the_whole(plain: bool) -> None:
    one, x, carry = layer(), drawn(11, 3, 5, seed=4), Carry()
    whole = one(x).dense()
    assert 0.05 < whole.mean() < 0.95
    parts = x.split((3, 1, 7))
    if plain:
        with forced():
            found = torch.cat([one.resume(part, carry).detach() for part in parts])
    else:
        found = torch.cat([one.resume(part, carry).dense() for part in parts])
    assert torch.equal(found, whole)


def trained(readout: str, recurrent: bool = False) -> SpikingNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        one = layer()
        layers = {"w": nn.Linear(6, 5), "n": Recurrent(one, 5) if recurrent else one}
    return SpikingNetwork(layers, input_shape=(6,), dt=1e-3, readout=readout).double()


@pytest.mark.parametrize("rule", ["exact", "euler"])
@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("readout", ["count", "max"])
def test_it_is_two_nodes_exactly(readout: str, recurrent: bool, rule: str) -> None:
    module = trained(readout, recurrent)
    net = to_network(module, discretisation=rule)
    assert isinstance(net.nodes["n"], ir.LI)
    x = (np.random.default_rng(0).random((40, 3, 6)) < 0.5).astype(np.uint8)
    record: dict[str, Tensor] = {}
    y = module(torch.from_numpy(x), record)
    run = reference.run(net, x)
    np.testing.assert_allclose(reference.scores(net, run), module.scores(y).detach().numpy(), atol=1e-9)
    if "n_fires" in net.nodes:
        assert isinstance(net.nodes["n_fires"], ir.LIF)
        np.testing.assert_array_equal(record["n"].detach().numpy(), run.spikes["n_fires"])
        assert 20 < run.spikes["n_fires"].sum() < 550
    again = to_module(net, D)
    assert isinstance(again.layer("n"), LI)
    np.testing.assert_allclose(again.scores(again(torch.from_numpy(x))).detach().numpy(), reference.scores(net, run),
                               atol=1e-9)  # fmt: skip


@pytest.mark.parametrize("chip", targets())
def test_no_chip_takes_it(chip: str) -> None:
    with pytest.raises(ChipError, match="'n'"):
        compile_network(to_network(trained("count")), chip)


def test_a_configuration() -> None:
    rows = ({"type": "linear", "out": 3}, {"type": "parallel_lif", "beta": 0.8, "learn": ("beta",), "each": True})
    one = build(rows, (4,), 1e-3, "count", 0, 3).layer("1_parallel_lif")
    assert isinstance(one, ParallelLIF)
    assert one.beta_learnt.shape == (3,)
