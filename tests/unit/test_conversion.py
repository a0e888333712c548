"""`neuro.conversion`: chips beside the quantised graph, mistakes found, files and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as fn
from torch import Tensor, nn
from typer.testing import CliRunner

import neuro
from neuro import conversion
from neuro.cli import app, main
from neuro.conversion import convert_model
from neuro.conversion_chips import WAYS, certify_on_chip, lower_for
from neuro.conversion_data import samples
from neuro.convert.file import load, save
from neuro.convert.graph import Graph
from neuro.convert.lower import Lowered
from neuro.convert.ops import AvgPool, Conv, Function, Input, Linear, MaxPool, Op, Reshape, Softmax
from neuro.convert.quantise import quantise
from neuro.convert.regrid import in_levels, whole_steps
from neuro.errors import ConversionError, FormatError, UnknownChip

RNG = torch.Generator().manual_seed(11)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=RNG, dtype=torch.float64)


IMAGES = torch.rand(60, 1, 8, 8, generator=RNG, dtype=torch.float64)
LABELS = torch.randint(0, 5, (60,), generator=RNG)


def chain(*pairs: tuple[str, Op]) -> Graph:
    names = [name for name, _ in pairs]
    return Graph(dict(pairs), {b: (a,) for a, b in zip(names, names[1:], strict=False)}, names[-1])  # noqa: RUF007


def cnn() -> Graph:
    return chain(
        ("x", Input((1, 8, 8))),
        ("c1", Conv(0.5 * normal(4, 1, 3, 3), 0.3 * normal(4), (1, 1), (1, 1))),
        ("r1", Function("relu")),
        ("p1", MaxPool((2, 2), (2, 2))),
        ("c2", Conv(0.3 * normal(6, 4, 3, 3), 0.3 * normal(6), (1, 1), (1, 1))),
        ("r2", Function("relu")),
        ("a", AvgPool((2, 2), (2, 2))),
        ("f", Reshape((-1,))),
        ("l", Linear(0.4 * normal(5, 24), normal(5))),
    )


FLOAT = cnn()
PLAIN = quantise(FLOAT, IMAGES, levels=3, weight_bits=4, input_levels=3)
VOTES = quantise(FLOAT, IMAGES, levels=1, weight_bits="ternary", input_levels=1)


@pytest.mark.parametrize("chip", sorted(set(WAYS) - {"akida1", "akida2"}))
def test_equal_in_the_integers_of_each_chip(chip: str) -> None:
    graph = VOTES if chip == "truenorth" else PLAIN
    found = certify_on_chip(lower_for(graph, chip), chip, IMAGES, LABELS)
    assert found.equal, str(found)
    assert found.expected
    assert {"r1", "p1", "r2"} == set(found.layers)
    assert found.values == 60 * (256 + 64 + 96 + 5)
    assert found.accuracy == found.quantised_accuracy
    assert found.cores > 0
    assert found.off_whole < 0.1


@pytest.mark.parametrize("levels", [1, 3, 15])
def test_akida_is_equal_once_scales_are_its_own(levels: int) -> None:
    graph = quantise(FLOAT, IMAGES, levels=levels, weight_bits=4, input_levels=min(levels, 7))
    for chip, regrid in (("akida1", whole_steps), ("akida2", in_levels)):
        own = regrid(graph)
        found = certify_on_chip(lower_for(own, chip), chip, IMAGES, weight_bits=4)
        assert found.equal, (chip, str(found), found.rounded)
        assert found.expected, (chip, found.rounded)
        assert set(found.layers) == {"p1", "r2"}  # a layer pools before it sends
        off = (own.run(IMAGES) - graph.run(IMAGES)).abs().mean() / graph.run(IMAGES).abs().mean()
        assert off < 0.25  # the graph that it was made of, nearly


@pytest.mark.parametrize("chip", ["loihi1", "loihi2", "spinnaker1", "spinnaker2"])
def test_eight_bits_fill_the_weights(chip: str) -> None:
    graph = quantise(FLOAT, IMAGES, levels=3, weight_bits=8, input_levels=3)
    found = certify_on_chip(lower_for(graph, chip), chip, IMAGES)
    assert found.equal, (str(found), found.rounded)
    assert found.weight_bits == 8


def test_akida_differs_where_its_scales_round_and_says_so() -> None:
    graph = quantise(FLOAT, IMAGES, levels=15, weight_bits=4, input_levels=15)
    found = certify_on_chip(lower_for(graph, "akida2"), "akida2", IMAGES, weight_bits=4)
    assert not found.equal
    assert not found.expected
    assert found.holds
    assert found.rounded


def broken(lowered: Lowered, how: str) -> Lowered:
    nodes = lowered.network.nodes
    if how == "threshold":
        node: Any = nodes["r2"]
        changed = {"r2": replace(node, v_threshold=1.1 * node.v_threshold)}
    else:
        node = nodes["r2.weights"]
        weight = np.array(node.weight)
        weight[np.unravel_index(np.abs(weight).argmax(), weight.shape)] *= -1
        changed = {"r2.weights": replace(node, weight=weight)}
    return replace(lowered, network=lowered.network.replace_nodes(changed))


@pytest.mark.parametrize("how", ["threshold", "weight"])
@pytest.mark.parametrize("chip", ["loihi2", "spinnaker2"])
def test_a_broken_conversion_turns_the_certificate_red(chip: str, how: str) -> None:
    found = certify_on_chip(broken(lower_for(PLAIN, chip), how), chip, IMAGES)
    assert found.differ > 0
    assert found.layers["r2"].differ > 0
    assert found.layers["r1"].differ == 0  # and it says where
    assert not found.holds
    assert "DIFFERS" in str(found)


class Net(nn.Module):
    """Functional calls, in a style of common code."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.out = nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(fn.max_pool2d(fn.relu(self.norm(self.conv(x))), 2).flatten(1))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def module() -> nn.Module:
    torch.manual_seed(3)
    return Net().eval()


def test_convert_and_save(module: nn.Module, tmp_path: Path) -> None:
    found = neuro.convert_model(
        module, (IMAGES, LABELS), levels=3, steps=6, recipe="st_bif", chip=("loihi2", "spinnaker2")
    )
    assert found.holds
    assert set(found.chips) == {"loihi2", "spinnaker2"}
    assert all(c.equal for c in found.chips.values())
    assert found.certificate.exact
    written = found.save(tmp_path / "out")
    assert {"quantised.safetensors", "network.nir", "certificate.json"} <= {p.name for p in written}
    table = json.loads((tmp_path / "out" / "certificate.json").read_text(encoding="utf-8"))
    assert table["holds"]
    assert table["chips"]["loihi2"]["differ"] == 0
    network = neuro.load(tmp_path / "out" / "network.nir")
    assert network.shapes[network.output] == (5,)
    assert torch.equal(load(tmp_path / "out" / "quantised.safetensors").run(IMAGES), found.quantised.run(IMAGES))
    page = found._repr_html_()
    assert "spinnaker2" in page
    assert "equal" in str(found)


def test_what_cannot_be_converted_is_said() -> None:
    data = (IMAGES, LABELS)
    with pytest.raises(UnknownChip, match="Did you mean 'loihi2'"):
        convert_model(FLOAT, data, chip="loihi3")
    with pytest.raises(ConversionError, match="steps must be at least 1") as caught:
        convert_model(FLOAT, data, steps=0, epochs=-1, test_samples=0)
    assert len(caught.value.violations) == 3
    with pytest.raises(ConversionError, match="got int"):
        convert_model(3, data)
    with pytest.raises(FormatError, match="does not exist"):
        convert_model("nowhere.onnx", data)


def test_data(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=IMAGES.numpy(), y=LABELS.numpy())
    held = samples(tmp_path / "a.npz", (8, 8))
    assert held.x.shape == (48, 8, 8)
    assert held.test_y is not None
    assert torch.equal(held.test_y, LABELS[48:])
    np.savez(tmp_path / "b.npz", x=IMAGES.numpy(), y=LABELS.numpy()[:5])
    np.savez(tmp_path / "c.npz", z=IMAGES.numpy())
    np.savez(tmp_path / "d.npz", x=IMAGES.numpy() * np.nan)
    np.savez(tmp_path / "e.npz", x=IMAGES.numpy(), x_test=IMAGES.numpy()[:, :, 1:], y_test=np.zeros(3, np.int64))
    (tmp_path / "f.npz").write_bytes(b"no archive")
    (tmp_path / "g.txt").write_text("x", encoding="utf-8")
    wrong = (
        ("b.npz", "60 samples and 5 labels"),
        ("c.npz", "holds"),
        ("d.npz", "NaN"),
        ("e.npz", "cannot be used"),
        ("f.npz", "cannot be read"),
        ("g.txt", "holds no samples"),
        ("h.npz", "cannot be read"),
    )
    for name, words in wrong:
        with pytest.raises(FormatError, match=words):
            samples(tmp_path / name)
    with pytest.raises(FormatError, match="Did you mean 'mnist'"):
        samples("mnst")
    with pytest.raises(FormatError, match="have 64 values"):
        samples((IMAGES, LABELS), (65,))
    with pytest.raises(FormatError, match="cannot be split"):
        samples(IMAGES[:1])


def test_registered_events_become_counts() -> None:
    held = samples("braille")
    assert held.x.shape[1:] == (72,)
    assert held.x.max() > 1
    assert held.y is not None
    assert len(held.y) == len(held.x)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    np.savez(tmp_path / "data.npz", x=IMAGES.numpy(), y=LABELS.numpy())
    save(FLOAT, tmp_path / "net.safetensors")
    softmax = chain(
        ("x", Input((1, 8, 8))),
        ("f", Reshape((-1,))),
        ("l", Linear(normal(6, 64))),
        ("r", Function("relu")),
        ("s", Softmax()),
        ("o", Linear(normal(5, 6))),
    )
    save(softmax, tmp_path / "softmax.safetensors")
    return tmp_path


def test_command(files: Path) -> None:
    arguments = ["convert", str(files / "net.safetensors"), "--data", str(files / "data.npz")]
    options = ["--levels", "3", "--steps", "8", "--recipe", "st_bif", "--chip", "loihi2"]
    out = files / "net.nir"
    done = CliRunner().invoke(app, [*arguments, *options, "--out", str(out), "--report", str(files / "r"), "--json"])
    assert done.exit_code == 0, done.output
    table = json.loads(done.output)
    assert table["chips"]["loihi2"]["equal"]
    assert out.is_file()
    assert (files / "r" / "certificate.json").is_file()
    shown = CliRunner().invoke(app, [*arguments, *options, "--out", str(files / "net2.safetensors")])
    assert shown.exit_code == 0
    assert "loihi2" in shown.output
    assert (files / "net2.safetensors").is_file()


def test_command_fails_where_a_certificate_does(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "lower_for", lambda graph, chip, **more: broken(lower_for(graph, chip), "weight"))
    arguments = ["convert", str(files / "net.safetensors"), "--data", str(files / "data.npz"), "--chip", "loihi2"]
    done = CliRunner().invoke(app, [*arguments, "--out", str(files / "net.nir"), "--recipe", "st_bif", "--levels", "3"])
    assert done.exit_code == 1
    assert "certificate fails" in done.output


@pytest.mark.parametrize(
    ("model", "out", "more", "words"),
    [
        ("softmax.safetensors", "net.nir", [], "Write .safetensors instead"),
        ("net.safetensors", "net.txt", [], ".nir or .safetensors"),
        ("net.safetensors", "net.nir", ["--weight-bits", "many"], "--weight-bits"),
        ("net.safetensors", "net.nir", ["--shape", "1,x"], "--shape"),
        ("net.safetensors", "net.nir", ["--form", "ladder"], "no form"),
        ("data.npz", "net.nir", [], "can be read"),
    ],
)
def test_command_refuses_by_name(
    files: Path,
    model: str,
    out: str,
    more: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = ["neuro", "convert", str(files / model), "--data", str(files / "data.npz"), "--out", str(files / out)]
    monkeypatch.setattr("sys.argv", [*line, "--recipe", "st_bif", "--input-levels", "3", "--quiet", *more])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 3
    assert words in capsys.readouterr().err
    assert not (files / out).exists()
