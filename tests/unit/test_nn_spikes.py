"""`Spikes`: bits that torch takes for a tensor; neurons that send them; samples in pieces."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neuro.errors import NetworkError
from neuro.nn.joined import Carry
from neuro.nn.layers import IF, LI, LIF, CubaLI, CubaLIF, Neuron
from neuro.nn.neurons import State
from neuro.nn.spikes import Spikes


def some(shape: tuple[int, ...], rate: float, seed: int = 0) -> Tensor:
    return torch.from_numpy((np.random.default_rng(seed).random(shape) < rate).astype(np.float32))


@pytest.mark.parametrize("shape", [(3, 2, 1), (4, 3, 63), (1, 1, 64), (5, 2, 65), (2, 3, 4, 5, 7), (2, 2, 1000)])
@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_bits_and_events_are_the_dense_values(shape: tuple[int, ...], rate: float) -> None:
    dense = some(shape, rate)
    spikes = Spikes.pack(dense)
    assert torch.equal(spikes.dense(), dense)
    assert spikes.total() == dense.sum()
    found, flat = spikes.events(), dense.reshape(shape[0] * shape[1], -1).numpy()
    for row in range(len(flat)):
        np.testing.assert_array_equal(found.index[found.start[row] : found.start[row + 1]], np.flatnonzero(flat[row]))


def test_many_neurons_have_wide_indices() -> None:
    dense = torch.zeros(1, 1, (1 << 16) + 2)
    dense[0, 0, -1] = 1
    assert Spikes.pack(dense).events().index.tolist() == [(1 << 16) + 1]


def test_words_of_another_size_are_refused() -> None:
    with pytest.raises(NetworkError, match="not the bits"):
        Spikes(np.zeros((6, 1), np.uint64), (3, 2, 65))
    with pytest.raises(NetworkError, match="not the bits"):
        Spikes(np.zeros((6, 1), np.int64), (3, 2, 64))  # type: ignore[arg-type]


def test_ordinary_torch_code_sees_a_tensor() -> None:
    dense = some((4, 3, 70), 0.2)
    spikes = Spikes.pack(dense)
    w = torch.randn(5, 70, generator=torch.Generator().manual_seed(0))
    assert torch.equal(nn.functional.linear(spikes, w), nn.functional.linear(dense, w))
    assert torch.equal(spikes + 1, dense + 1)
    assert torch.equal(torch.cat([spikes, dense]), torch.cat([dense, dense]))
    assert torch.equal(spikes[1:, :, ::7], dense[1:, :, ::7])
    assert torch.equal(spikes.to(torch.float64), dense.double())
    assert torch.equal(torch.stack(list(spikes)), dense)
    assert spikes.sum() == dense.sum()
    assert torch.equal(spikes.sum(0), dense.sum(0))
    assert isinstance(spikes.flatten(0, 1), Spikes)
    assert isinstance(spikes.view(4, 3, 7, 10), Spikes)
    assert torch.equal(spikes.view(4, 3, 7, 10).transpose(2, 3), dense.view(4, 3, 7, 10).transpose(2, 3))
    assert torch.equal(spikes.reshape(-1), dense.reshape(-1))  # cuts rows: dense
    np.testing.assert_array_equal(spikes.numpy(), dense.numpy())
    np.testing.assert_array_equal(np.asarray(spikes), dense.numpy())
    assert spikes.tolist() == dense.tolist()


@pytest.mark.parametrize("shape", [(3, 2, 1), (4, 3, 63), (5, 2, 65), (2, 3, 4, 5, 7), (2, 2, 1000)])
@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_sums_over_time_are_those_of_the_dense_values(shape: tuple[int, ...], rate: float) -> None:
    dense = some(shape, rate)
    spikes = Spikes.pack(dense)
    for dim in (0, -len(shape), 1, -1, (0, 1)):
        for keepdim in (False, True):
            assert torch.equal(spikes.sum(dim, keepdim=keepdim), dense.sum(dim, keepdim=keepdim))
    assert torch.equal(spikes.sum(0, dtype=torch.float64), dense.sum(0, dtype=torch.float64))
    assert torch.equal(spikes.flatten(0, 1).sum(0), dense.flatten(0, 1).sum(0))  # rows are the first dimension
    leaf = Spikes.pack(dense).requires_grad_()
    (leaf.sum(0) * 3).sum().backward()
    assert torch.equal(leaf.grad, torch.full_like(dense, 3))  # type: ignore[arg-type]


def test_copies_are_spikes_of_their_own() -> None:
    dense = some((4, 3, 70), 0.2)
    spikes = Spikes.pack(dense)
    file = io.BytesIO()
    torch.save(spikes, file)
    file.seek(0)
    for other in (copy.deepcopy(spikes), spikes.clone(), torch.load(file, weights_only=False)):
        assert isinstance(other, Spikes)
        assert other.words is not spikes.words
        assert torch.equal(other.dense(), dense)


def test_autograd_goes_through_spikes() -> None:
    """Sliced, reshaped, multiplied: the gradient is that of the dense spikes."""
    x = torch.randn(6, 2, 70, generator=torch.Generator().manual_seed(1))
    weight = torch.randn(3, 70, generator=torch.Generator().manual_seed(2))
    gradients = []
    for bits in (True, False):
        given = x.clone().requires_grad_()
        spikes = LIF(0.9, surrogate="atan")(given)
        assert isinstance(spikes, Spikes)
        y = spikes if bits else _Dense.apply(spikes)
        a = (y.flatten(0, 1) @ weight.t()).square().sum()
        b = (y.view(6, 2, 7, 10).mean((0, 3)) * torch.arange(7)).sum() + (y[2:4] * y[1]).sum() + y.sum()
        (a + b).backward()
        gradients.append(given.grad)
    torch.testing.assert_close(*gradients)


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.dense() if isinstance(x, Spikes) else x.clone()

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> Tensor:
        return grads[0]


def test_nothing_is_kept_that_the_backward_pass_does_not_need() -> None:
    """The membrane of a layer without learnt decays: nothing else of the size of the activity."""
    x = torch.randn(8, 2, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert not LIF(0.9)(x).requires_grad
    sizes: list[int] = []

    def pack(kept: Tensor) -> Tensor:
        sizes.append(kept.numel())
        return kept

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept):
        LIF(0.9)(x.requires_grad_())
    assert sum(size >= x.numel() for size in sizes) == 1


PIECES = [
    (cls, reset, learn)
    for cls in (IF, LIF, CubaLIF, LI, CubaLI)
    for reset in ("hard", "subtract")
    for learn in (False, True)
]


def neuron(cls: type[Neuron], reset: str, learn: bool) -> Neuron:
    names = (["beta"] * cls.leaky + ["alpha"] * cls.synapse + ["v_threshold"] * cls.spiking) * learn
    options = {"v_threshold": np.linspace(0.7, 1.3, 70)} if cls.spiking else {}
    return cls(reset=reset, surrogate="atan", learn=tuple(names), v_reset=-0.1, **options).double()


@pytest.mark.parametrize(("cls", "reset", "learn"), PIECES)
def test_pieces_are_the_whole(cls: type[Neuron], reset: str, learn: bool) -> None:
    """Same bits forwards; the gradient of a piece is that of the step loop from the state it began with."""
    layer = neuron(cls, reset, learn)
    x = torch.randn(11, 3, 70, dtype=torch.float64, generator=torch.Generator().manual_seed(4)) + 0.2
    carry = Carry()
    parts = [layer.resume(part, carry) for part in x.split((3, 1, 7))]
    assert torch.equal(torch.cat([p.detach() for p in parts]), layer(x).detach())
    assert isinstance(carry.value, State)
    assert not carry.value.v.requires_grad

    before = Carry()
    layer.resume(x[:4], before)
    state, found = State(before.value.i.clone(), before.value.v.clone()), []
    upstream = torch.randn(7, 3, 70, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    for fast in (True, False):
        given = x[4:].clone().requires_grad_()
        layer.zero_grad()
        if fast:
            y = layer.resume(given, before)
        else:
            now, steps = state, []
            for t in range(len(given)):
                out, now = layer.step(given[t], now)
                steps.append(out)
            y = torch.stack(steps)
        y.backward(upstream)
        found.append([given.grad, *(p.grad.clone() for p in layer.parameters())])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_shapes_of_a_state_are_those_of_the_population() -> None:
    layer, carry = LIF(0.9), Carry()
    layer.resume(torch.randn(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(0)), carry)
    assert carry.value.v.shape == (3, 4, 5, 6)
