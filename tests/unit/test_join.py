"""Networks side by side: the scores of the whole are the sums of those of its members, in floats and on a chip."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from neuro import ir, nir, reference
from neuro.cli import app
from neuro.errors import NetworkError
from neuro.hardware import compile as compile_network
from neuro.hardware import simulate
from neuro.ir import Network
from neuro.join import join
from neuro.nn.bridge import to_module


def whole(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Weights -7..7, each output with a 7 in it, so that a chip of few bits holds them as they are."""
    found = rng.integers(-7, 8, shape).astype(float)
    found.reshape(shape[0], -1)[:, 0] = 7.0
    return found


def chain(nodes: dict[str, ir.Node], dt: float = 1e-3) -> Network:
    names = list(nodes)
    return Network(nodes, tuple(itertools.pairwise(names)), dt)


def image(seed: int, levels: int = 15) -> Network:
    """Convolutions that send levels, as the preset digits_unseen has them."""
    rng = np.random.default_rng(seed)
    step = np.full((4, 1, 1), 2.0**4)
    return chain(
        {
            "in": ir.Input((2, 8, 9), 15),
            "conv": ir.Conv2d(whole(rng, 4, 2, 3, 3), padding=(1, 1), bias=rng.integers(-9, 9, 4).astype(float)),
            "relu": ir.QuantisedReLU(step, levels),
            "conv2": ir.Conv2d(whole(rng, 6, 4, 3, 3) / 16, padding=(1, 1), bias=rng.integers(-9, 9, 6).astype(float)),
            "relu2": ir.QuantisedReLU(np.full((6, 1, 1), 2.0**3), levels),
            "pool": ir.MaxPool2d((2, 2), (2, 2)),
            "flat": ir.Flatten(),
            "last": ir.Linear(whole(rng, 5, 6 * 4 * 4) / 8),
            "out": ir.Output("sum"),
        }
    )


def spiking(seed: int) -> Network:
    """Three weight layers; neurons of which each has its own threshold and time constant; delays; biases."""
    rng = np.random.default_rng(seed)
    late = rng.integers(0, 4, (7, 3))
    return chain(
        {
            "in": ir.Input((3,)),
            "first": ir.Linear(rng.normal(size=(7, 3)), late),
            "lif": ir.LIF(rng.uniform(2e-3, 9e-3, 7), v_threshold=rng.uniform(0.2, 1.0, 7)),
            "second": ir.Affine(rng.normal(size=(6, 7)), bias=rng.normal(size=6) * 0.1),
            "if": ir.IF(rng.uniform(0.5, 1.5, 6)),
            "last": ir.Affine(rng.normal(size=(4, 6)), bias=rng.normal(size=4)),
            "out": ir.Output("sum"),
        }
    )


def scores(network: Network, x: np.ndarray) -> np.ndarray:
    return reference.scores(network, reference.run(network, x, record=()))


@pytest.mark.parametrize("make", [image, spiking])
@pytest.mark.parametrize("members", [2, 3])
def test_scores_add_up(make, members: int) -> None:
    networks = [make(seed) for seed in range(members)]
    shape = networks[0].nodes["in"].shape
    rng = np.random.default_rng(9)
    x = rng.integers(0, 16, (1, 6, *shape)) if make is image else rng.integers(0, 2, (20, 6, *shape))
    each = [scores(network, x) for network in networks]
    joined = join(networks)
    np.testing.assert_allclose(scores(joined, x), sum(each), rtol=1e-9, atol=1e-9)
    assert not np.allclose(each[0], each[1]), "members differ, or nothing is seen"
    assert [type(n) for n in joined.nodes.values()] == [type(n) for n in networks[0].nodes.values()]


def test_layers_in_torch_compute_the_same() -> None:
    import torch

    networks = [image(seed) for seed in range(3)]
    x = np.random.default_rng(1).integers(0, 16, (1, 4, 2, 8, 9))
    module = to_module(join(networks)).double()
    found = module.scores(module(torch.from_numpy(x).double())).detach().numpy()
    np.testing.assert_allclose(found, sum(scores(n, x) for n in networks), rtol=1e-9)


def test_akidas_integers_add_up_bit_by_bit() -> None:
    """Weights that its 4 bits hold as they are: what the chip counts is the sum of what it counts for each member."""
    networks = [image(seed) for seed in range(3)]
    x = np.random.default_rng(2).integers(0, 16, (1, 32, 2 * 8 * 9)).astype(np.uint8)
    each = [simulate(compile_network(network, "akida1"), x).scores for network in networks]
    found = simulate(compile_network(join(networks), "akida1"), x).scores
    assert np.array_equal(found, sum(each))
    assert len({row.tobytes() for row in each}) == 3
    assert len(np.unique(found)) > 20


def test_what_cannot_be_joined_is_named_at_once() -> None:
    one, other = image(0), image(1)
    with pytest.raises(NetworkError, match="two or more"):
        join([one])
    with pytest.raises(NetworkError) as caught:
        join([one, replace(image(1, levels=7), dt=2e-3), spiking(0)])
    assert "another dt" in str(caught.value)
    assert "network 1: 'relu' is ('QuantisedReLU'" in str(caught.value)
    assert "network 2" in str(caught.value)
    loop = Network({**spiking(0).nodes, "back": ir.Linear(np.eye(6))},
                   (*spiking(0).edges, ("if", "back"), ("back", "if")), 1e-3)  # fmt: skip
    with pytest.raises(NetworkError, match="no chain of layers: 'if'"):
        join([loop, loop])
    largest = Network({**other.nodes, "out": ir.Output("max")}, other.edges, other.dt)
    with pytest.raises(NetworkError, match="can be added"):
        join([largest, largest])
    short = chain(
        {n: one.nodes[n] for n in ("in", "flat")} | {"last": ir.Linear(np.ones((2, 144))), "out": one.nodes["out"]}
    )
    with pytest.raises(NetworkError, match="1 layers of weights"):
        join([short, short])
    grouped = replace(one.nodes["conv"], weight=one.nodes["conv"].weight[:, :1], groups=2)
    split = Network({**one.nodes, "conv": grouped}, one.edges, one.dt)
    with pytest.raises(NetworkError, match="into 2 groups"):
        join([split, split])


def test_from_files_to_a_file(tmp_path: Path) -> None:
    networks = [image(seed) for seed in range(2)]
    for k, network in enumerate(networks):
        nir.save(network, tmp_path / f"{k}.nir")
    files = [str(tmp_path / f"{k}.nir") for k in range(2)]
    done = CliRunner().invoke(app, ["join", *files, "--out", str(tmp_path / "both.nir"), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["members"] == files
    x = np.random.default_rng(3).integers(0, 16, (1, 4, 2, 8, 9))
    np.testing.assert_allclose(scores(nir.load(tmp_path / "both.nir"), x), sum(scores(n, x) for n in networks))
