"""Torch modules as graphs: equal to the original, which is left alone; everything that is not taken, by name."""

from __future__ import annotations

import copy
import inspect

import pytest
import torch
import torch.nn.functional as fn
from axon_strangers import strangers
from torch import Tensor, nn

from neuro.convert import file
from neuro.convert.aten_table import ATEN
from neuro.convert.from_torch import from_torch, supported
from neuro.convert.graph import Graph
from neuro.errors import ConversionError, UnsupportedLayer

STRANGERS = strangers()


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ones(*shape: int) -> Tensor:
    return torch.ones(*shape, dtype=torch.float64)


def close(graph: Graph, module: nn.Module, *x: Tensor) -> bool:
    with torch.no_grad():
        return torch.allclose(graph.run(*x), module.eval()(*x), rtol=1e-11, atol=1e-12)


class Calls(nn.Module):
    """A module that is a function."""

    def __init__(self, function):  # type: ignore[no-untyped-def]
        super().__init__()
        self.function = function

    def forward(self, *x: Tensor) -> Tensor:
        return self.function(*x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", STRANGERS)
def test_network_of_a_stranger_converts_unedited(name: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    module, sample = STRANGERS[name]
    before = copy.deepcopy(module.state_dict())
    module.train()
    graph = from_torch(module, sample)
    assert all(m.training for m in module.modules())
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert all(p.requires_grad for p in module.parameters())
    for batch in (1, 2, 5):
        new = tuple(normal(batch, *x.shape[1:], seed=batch) for x in sample)
        assert close(graph, module, *new)
    file.save(graph, tmp_path / "net.safetensors")
    loaded = file.load(tmp_path / "net.safetensors")
    for key, operation in graph.ops.items():
        for attribute, value in vars(operation).items():
            if isinstance(value, Tensor):
                assert torch.equal(vars(loaded.ops[key])[attribute], value)
    # some BLAS add up in another order where memory begins elsewhere
    torch.testing.assert_close(loaded.run(*sample), graph.run(*sample), rtol=1e-12, atol=1e-12)


def test_names_are_those_of_the_layers() -> None:
    graph = from_torch(*STRANGERS["resnet_b"])
    assert {"conv1", "bn1", "layer2.0.shortcut.0", "linear"} <= set(graph.ops)
    assert {"again.0", "again.0_2"} <= {n.replace("@1", "_2") for n in from_torch(*STRANGERS["shared"]).ops}


FUNCTIONS = {
    "clamp": lambda x: x.clamp(-0.5, 0.7) + x.clamp(min=0.1) + x.clamp(max=0.2) + x.clamp(0, 6),
    "elu": lambda x: fn.elu(x, 0.3) + fn.selu(x),
    "hard": lambda x: fn.hardtanh(x) + fn.hardswish(x) + fn.hardsigmoid(x) + fn.relu6(x),
    "smooth": lambda x: fn.mish(x) + fn.softplus(x) + fn.logsigmoid(x) + fn.gelu(x, approximate="tanh"),
    "glu": lambda x: fn.glu(x, 1),
    "powers": lambda x: x**3 + x.abs().sqrt() + (x * x + 1).rsqrt() - 1 / (2 + x.abs()) + x.square() / (1 + x * x),
    "maximum": lambda x: torch.maximum(x, -x) + torch.minimum(x, torch.tensor(0.3, dtype=x.dtype)),
    "where": lambda x: torch.where(torch.arange(6) > 2, x.flatten(2)[..., :6], torch.tensor(2.0, dtype=x.dtype)),
    "amax": lambda x: x.amax((2, 3)) + x.max(dim=3)[0].sum(-1),
    "shapes": lambda x: x.permute(2, 0, 3, 1).flatten(2).transpose(0, 1).unsqueeze(2).repeat(1, 1, 2, 1).squeeze(),
    "merged": lambda x: (x.reshape(-1, x.shape[-1]) @ torch.ones(6, 2, dtype=x.dtype)).view(x.size(0), -1),
    "time_first": lambda x: fn.softmax(x.flatten(2).permute(2, 0, 1), dim=0).mean(0),
    "gather": lambda x: x[:, [3, 0, 0]][..., torch.tensor([5, 1])].flip(3).roll(1, 2),
    "pools": lambda x: fn.adaptive_avg_pool2d(x, (4, 5)).sum((2, 3)) + fn.adaptive_max_pool2d(x, 3).flatten(1)[:, :4],
    "pads": lambda x: fn.pad(x, (1, 2, 0, 1)) + fn.pad(x, (2, 1, 1, 0)),
    "crop": lambda x: fn.pad(x, (-1, 2)),
    "conv1d": lambda x: fn.conv1d(x.flatten(2), ones(4, 2, 3), groups=2, dilation=2, padding="same"),
    "transposed1d": lambda x: fn.conv_transpose1d(x.flatten(2), ones(4, 3, 3), stride=2, padding=1),
    "group_norm": lambda x: fn.group_norm(x, 2, torch.arange(4.0, dtype=x.dtype), torch.ones(4, dtype=x.dtype)),
    "constants": lambda x: torch.zeros(x.size(0), 4, 6, 6, dtype=x.dtype) + x * torch.arange(6) - torch.ones_like(x),
    "masked": lambda x: fn.scaled_dot_product_attention(x, x, x, is_causal=True)
    + fn.scaled_dot_product_attention(x, x, x, attn_mask=torch.eye(6, dtype=torch.bool), scale=0.2)
    + fn.scaled_dot_product_attention(x, x, x, attn_mask=torch.eye(6, dtype=torch.float64)),
    "baddbmm": lambda x: torch.baddbmm(x[:, 0], x[:, 1], x[:, 2], beta=0.5, alpha=2.0) + torch.addmm(
        torch.ones(6, dtype=x.dtype), x[:, 3].mean(1), torch.ones(6, 6, dtype=x.dtype)
    )[:, None],
    "moments": lambda x: (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    + x.std((1, 2), keepdim=True) + x.var(2, keepdim=True),
    "rms_norm": lambda x: fn.rms_norm(x, (6, 6), torch.arange(36.0, dtype=x.dtype).view(6, 6), 1e-6),
    "bilinear": lambda x: fn.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
    + fn.interpolate(x, size=(12, 12), mode="bilinear") + fn.interpolate(x, scale_factor=2.0, mode="nearest"),
    "axes": lambda x: x.mT + x.swapaxes(2, 3).movedim(1, 3).movedim(3, 1) + x.movedim(2, -1),
    "from_left": lambda x: torch.arange(12.0, dtype=x.dtype).reshape(2, 6) @ x,
    "stack": lambda x: torch.stack(x.unbind(1)[:2], 1),
    "written": lambda x: _written(x),
}  # fmt: skip


def _written(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, 1] += 2
    y[:, :, 2:4] = x[:, :, :2]
    y[:, 3, 0] = 7
    return y.mul_(2)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    module = Calls(FUNCTIONS[name])
    graph = from_torch(module, normal(2, 4, 6, 6))
    assert close(graph, module, normal(4, 4, 6, 6, seed=9))


@pytest.mark.parametrize(
    "layer",
    [nn.GRU(6, 3, 2, batch_first=True), nn.LSTM(6, 3, batch_first=True, bidirectional=True), nn.RNN(6, 3)],
    ids=lambda layer: type(layer).__name__,
)
def test_recurrent_layers_are_unrolled(layer: nn.Module) -> None:
    x = normal(2, 4, 6) if layer.batch_first else normal(4, 2, 6)  # type: ignore[union-attr]
    module = nn.Sequential(layer.double(), Calls(lambda y: y[0].transpose(0, 1) if x.shape[0] == 4 else y[0]))
    if x.shape[0] == 4:
        module = Calls(lambda x: layer(x.transpose(0, 1))[0][-1])  # type: ignore[assignment]
        x = x.transpose(0, 1)
    assert close(from_torch(module, x), module, x)


def test_parametrised_weights_are_computed() -> None:
    module = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), nn.ReLU()).double()
    assert close(from_torch(module, normal(2, 4)), module, normal(3, 4))


def test_float32_stays_float32() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Hardswish())
    graph = from_torch(module, torch.ones(1, 1, 5, 5))
    assert graph.run(torch.ones(2, 1, 5, 5)).dtype == torch.float32


def test_everything_that_is_not_taken_is_named_at_once() -> None:
    module = Calls(
        lambda x: torch.fft.rfft(x).abs() + torch.cumsum(x.argsort(-1), -1).sum() + torch.rand(3, 4, 6, 6)[0, 0, 0, 0]
    )
    with pytest.raises(UnsupportedLayer) as caught:
        from_torch(module, normal(2, 4, 6, 6))
    said = str(caught.value)
    for name in ("fft_rfft", "argsort", "cumsum", "rand"):
        assert name in said
    assert len(caught.value.violations) >= 4


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x: fn.dropout(x, 0.5, training=True), "active in evaluation"),
        (lambda x: x.softmax(0), "along the batch"),
        (lambda x: x.mean(), "along the batch"),
        (lambda x: x.flatten(0), "batch as its first axis"),
        (lambda x: x.reshape(4, -1).mean(1), "cannot be traced|cut samples apart"),
        (lambda x: x if x.sum() > 0 else -x, "cannot be traced"),
        (lambda x: x * torch.arange(len(x), dtype=x.dtype)[:, None, None, None], "sample to sample"),
        (lambda x: fn.batch_norm(x, None, None, training=True), "measures its batch"),
        (lambda x: fn.max_pool2d(x, 4, 4, ceil_mode=True), "ceil_mode"),
        (lambda x: (x, x), "choose with output="),
        (lambda x: torch.ones(2), "does not depend on the input"),
        (lambda x: x * len(x), "differs from the module"),
        (lambda x: x[0], "along the batch"),
        (lambda x: fn.pad(x, (1, 1, 1, 1), mode="reflect"), "reflection_pad2d|reflect"),
        (lambda x: fn.conv2d(x, x[0, 0, :3, :3][None, None].expand(1, 4, 3, 3)), "input|batch"),
    ],
)  # fmt: skip
def test_refused_with_a_reason(function, said: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConversionError, match=said):
        from_torch(Calls(function), normal(2, 4, 6, 6))


@pytest.mark.parametrize("sample", [torch.ones(2, 3, dtype=torch.int64), torch.ones(0, 3), (), torch.tensor(1.0)])
def test_bad_samples(sample) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConversionError):
        from_torch(nn.ReLU(), sample)


def test_one_of_several_answers() -> None:
    module = Calls(lambda x: {"logits": x + 1, "aux": x * 2})
    x = normal(2, 3)
    assert torch.equal(from_torch(module, x, output="aux").run(x), 2 * x)


def test_a_wrong_row_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ATEN, "relu", ATEN["tanh"])
    with pytest.raises(ConversionError, match="differs from the module"):
        from_torch(nn.Sequential(nn.Linear(3, 3), nn.ReLU()).double(), normal(2, 3))


def test_rows_name_arguments_that_torch_has() -> None:
    assert set(supported()) == set(ATEN)
    known: dict[object, set[str]] = {}
    for name, row in ATEN.items():
        packet = getattr(torch.ops.aten, name)
        of = {a.name for o in packet.overloads() for a in getattr(packet, o)._schema.arguments} | {"g", "n"}
        known.setdefault(row, set()).update(of | ({"x"} if of & {"self", "input"} else set()))
    for row, names in known.items():
        plain = [p.name for p in inspect.signature(row).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
        assert set(plain) <= names, (row, set(plain) - names)
