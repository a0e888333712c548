"""State dicts by the name of an architecture, and exported programs; nothing of a file is run."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from axon_strangers import strangers
from safetensors.torch import save_file
from torch import nn

from neuro.convert.architectures import ARCHITECTURES
from neuro.convert.from_exported import from_exported
from neuro.convert.from_state import from_state_dict
from neuro.errors import ConversionError, FormatError


def lenet() -> nn.Module:
    """An own module with the names of lenet5."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(1, 3, 5, padding=2)
            self.conv2 = nn.Conv2d(3, 4, 5)
            self.fc1 = nn.Linear(100, 12)
            self.fc2 = nn.Linear(12, 8)
            self.fc3 = nn.Linear(8, 10)

        def forward(self, x):  # type: ignore[no-untyped-def]
            pool = nn.AvgPool2d(2)
            x = pool(torch.relu(self.conv2(pool(torch.relu(self.conv1(x)))))).flatten(1)
            return self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(x)))))

    return Net()


def vgg() -> nn.Module:
    rows = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)]
    rows += [nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)]
    rows += [nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)]
    net = nn.Sequential()
    net.add_module("features", nn.Sequential(*rows))
    net.add_module("flatten", nn.Flatten())
    net.add_module("classifier", nn.Sequential(nn.Linear(8 * 16, 12), nn.ReLU(), nn.Dropout(), nn.Linear(12, 5)))
    return net


CASES = {
    "mlp": (lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4, bias=False)), (6,)),
    "lenet5": (lenet, (1, 28, 28)),
    "vgg_small": (vgg, (1, 16, 16)),
    "resnet_small": (lambda: strangers()["resnet_b"][0], (3, 32, 32)),
}


def ready(name: str) -> tuple[nn.Module, torch.Tensor]:
    build, shape = CASES[name]
    rng = torch.Generator().manual_seed(2)
    module = build().double().eval()
    for key, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=rng, dtype=tensor.dtype) * 0.4 - 0.1)
            tensor.abs_() if key.endswith("var") else None
    return module, torch.rand(3, *shape, generator=rng, dtype=torch.float64)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", ["net.safetensors", "net.pt", "wrapped.pth"])
def test_files_equal_the_module(name: str, kind: str, tmp_path: Path) -> None:
    module, x = ready(name)
    state = module.state_dict()
    path = tmp_path / kind
    if kind.endswith("safetensors"):
        save_file(state, path)
    else:
        wrapped = {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}
        torch.save(wrapped if "wrapped" in kind else state, path)
    graph = from_state_dict(path, name)
    with torch.no_grad():
        assert torch.allclose(graph.run(x), module(x), rtol=1e-12, atol=1e-12)


def test_every_architecture_has_its_test() -> None:
    assert set(CASES) == set(ARCHITECTURES)


def test_all_names_and_shapes_that_do_not_fit_are_said(tmp_path: Path) -> None:
    state = ready("resnet_small")[0].state_dict()
    del state["bn1.bias"], state["layer2.1.conv2.weight"]
    state["layer1.0.bn1.weight"] = torch.ones(9, dtype=torch.float64)
    state["linear.wieght"] = state.pop("linear.weight")
    save_file(state, tmp_path / "net.safetensors")
    with pytest.raises(ConversionError) as caught:
        from_state_dict(tmp_path / "net.safetensors", "resnet_small")
    said = str(caught.value)
    for part in ("'bn1.bias'", "'layer2.1.conv2.weight'", "(9,)", "Did you mean 'linear.weight'?", "'linear.weight'"):
        assert part in said
    with pytest.raises(ConversionError, match="Did you mean 'resnet_small'"):
        from_state_dict(tmp_path / "net.safetensors", "resnet_smal")


def test_shapes_that_multiply_to_too_much_are_refused(tmp_path: Path) -> None:
    state = {"conv1.weight": torch.zeros(60000, 1, 1, 1), "conv2.weight": torch.zeros(60000, 1, 1, 1)}
    save_file(state, tmp_path / "net.safetensors")
    with pytest.raises(ConversionError, match=r"'conv2\.weight'"):
        from_state_dict(tmp_path / "net.safetensors", "lenet5")


class Evil:
    def __reduce__(self):  # type: ignore[no-untyped-def]
        return exec, ("raise SystemExit('code of the file has run')",)


@pytest.mark.parametrize("protocol", ["torch", "pickle"])
def test_code_in_a_file_is_not_run(protocol: str, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save({"a.weight": Evil()}, path) if protocol == "torch" else path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(FormatError, match="without running code"):
        from_state_dict(path, "mlp")


@pytest.mark.parametrize("content", [b"", b"nothing of the kind", bytes(range(256)) * 9])
@pytest.mark.parametrize("name", ["net.pt", "net.safetensors"])
def test_files_that_are_none(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError):
        from_state_dict(tmp_path / name, "mlp")
    with pytest.raises(FormatError, match="does not exist"):
        from_state_dict(tmp_path / "absent.pt", "mlp")


def test_names_that_are_traps(tmp_path: Path) -> None:
    save_file({"forward.weight": torch.zeros(2, 2), "x.weight": torch.zeros(2, 2)}, tmp_path / "net.safetensors")
    with pytest.raises(ConversionError):
        from_state_dict(tmp_path / "net.safetensors", "mlp")


@pytest.mark.parametrize("name", ["resnet_a", "gpt"])
@pytest.mark.parametrize("open_batch", [True, False])
def test_exported_programs(name: str, open_batch: bool) -> None:
    module, sample = strangers()[name]
    module.eval()
    dynamic = tuple({0: torch.export.Dim.AUTO} for _ in sample) if open_batch else None
    graph = from_exported(torch.export.export(module, sample, dynamic_shapes=dynamic, strict=False))
    with torch.no_grad():
        assert torch.allclose(graph.run(*sample), module(*sample), rtol=1e-11, atol=1e-12)


def test_exported_files_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="unpickles"):
        from_exported(tmp_path / "net.pt2")
    with pytest.raises(ConversionError, match="ExportedProgram"):
        from_exported(nn.ReLU())
