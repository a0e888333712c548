"""Learnt delays in a configuration: what is read and refused, groups of the optimiser, a run and its chips."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neuro import hardware, ir, results
from neuro.errors import BadConfig
from neuro.hardware import compile as compile_network
from neuro.hardware.chip import read_chip
from neuro.nn import DelayedRecurrent, DelayLinear
from neuro.train import delays, loop
from neuro.train.build import build
from neuro.train.config import Config
from neuro.train.loop import fit
from neuro.train.schedule import optimiser_of

CHIPS = Path(hardware.__file__).parent / "chips"
FORMATS = {
    "weight": {"bits": 8, "low": -256, "high": 254, "step": 2},
    "weight_conv": {"bits": 8, "low": -128, "high": 127},
    "decay": {"bits": 12, "signed": False, "low": 0, "high": 4095},
    "threshold": {"bits": 17, "signed": False, "low": 0, "high": 131071},
    "bias": {"bits": 13, "low": -4096, "high": 4095},
}
TABLE: dict[str, Any] = {
    "name": "late",
    "seed": 1,
    "data": {"dataset": "braille", "limit": 96, "steps": 40, "dt": 0.05},
    "layers": [
        {"type": "linear", "out": 24, "delay": {"chip": "loihi2", "max": 12, "kernel": "triangle", "rate": 10.0}},
        {"type": "lif", "beta": 0.9, "recurrent": True, "recurrent_delay": {"max": 6, "kind": "axonal"}},
        {"type": "linear", "out": 27, "init": 1.0, "delay": {"max": 8, "kernel": "gauss", "sigma": 2.0}},
        {"type": "li", "beta": 0.95},
    ],
    "readout": "sum",
    "optimiser": {"lr": 5e-3, "weight_decay": 1e-3, "clip": 1.0, "ema": 0.8},
    "train": {"epochs": 5, "batch_size": 32, "keep": "best", "threads": 1},
}


def late(**changes: Any) -> Config:
    return Config.from_table(TABLE).with_changes(**changes)


def content(path: Path) -> dict[str, bytes]:
    return {name: (path / name).read_bytes() for name in (results.WEIGHTS, results.NETWORK, results.METRICS)}


def with_delay(**table: Any) -> Config:
    layers = [{"type": "linear", "out": 27, "delay": table}, {"type": "li", "beta": 0.9}]
    return Config.from_table({**TABLE, "layers": layers})


def test_a_network_is_built_and_its_delays_start_at_random() -> None:
    model = build(late().layers, (72,), 0.05, "sum", 3, 27)
    first, back, last = delays.learnt(model)
    assert [(d.kind, d.kernel, d.max_delay) for d in (first, back, last)] == [
        ("synaptic", "triangle", 12),
        ("axonal", "linear", 6),
        ("synaptic", "gauss", 8),
    ]
    assert isinstance(model.layer("1_lif"), DelayedRecurrent)
    assert (first.sigma, last.sigma) == (6.0, 2.0)
    assert 0 <= first.delay.min() < 1
    assert 11 < first.delay.max() <= 12
    again = build(late().layers, (72,), 0.05, "sum", 3, 27)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    other = build(late().layers, (72,), 0.05, "sum", 4, 27)
    assert not torch.equal(first.delay, delays.learnt(other)[0].delay)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({}, "max is missing"),
        ({"max": 63, "chip": "loihi2"}, "max is 63 steps, what loihi2 holds: 1..62"),
        ({"max": 15, "chip": "truenorth"}, "what truenorth holds: 1..14"),
        ({"chip": "akida2"}, "chip 'akida2' has no delays"),
        ({"chip": "loihi3"}, "chip 'loihi3' is unknown"),
        ({"max": 9, "kind": "somatic"}, "kind 'somatic' is unknown"),
        ({"max": 9, "kernel": "gaus"}, "kernel 'gaus' is unknown. Did you mean 'gauss'"),
        ({"max": 9, "sigma": 2.0}, "kernel 'linear' has no sigma"),
        ({"max": 9, "kernel": "gauss", "sigma": -1.0}, "sigma must not be negative"),
        ({"max": 9, "round_from": 1.5}, "round_from is 1.5, it must lie in [0, 1]"),
        ({"max": 9, "start": [3.0, 12.0]}, "start must be two delays, rising, in 0..9"),
        ({"max": 0}, "max is 0 steps, allowed: 1.."),
    ],
)
def test_what_is_refused(table: dict[str, Any], says: str) -> None:
    with pytest.raises(BadConfig) as caught:
        with_delay(**table)
    assert says in str(caught.value)
    assert "layers[0].delay" in str(caught.value)


def test_delays_exclude_what_they_cannot_be_had_with() -> None:
    layer = {"type": "linear", "out": 27, "delay": {"max": 4}, "max_delay": 3}
    neuron = {"type": "lif", "beta": 0.9, "recurrent_delay": {"max": 4}}
    with pytest.raises(BadConfig, match="only one can be had"):
        Config.from_table({**TABLE, "layers": [layer, {"type": "li", "beta": 0.9}]})
    with pytest.raises(BadConfig, match="recurrent_delay is not trained on a chip's integers"):
        Config.from_table({**TABLE, "quantise": FORMATS})
    with pytest.raises(BadConfig, match="needs recurrent = true"):
        Config.from_table({**TABLE, "layers": [TABLE["layers"][0], neuron, *TABLE["layers"][2:]]})


def test_limits_are_those_of_the_chips() -> None:
    ticks = {"truenorth": 1}  # a tick that every spike takes
    for name, most in delays.LONGEST.items():
        limits = read_chip(CHIPS / f"{name}.toml").limits
        if "delay_steps" in limits:
            assert limits["delay_steps"].value == most + ticks.get(name, 0), name
        else:
            assert most == 0 or name == "spinnaker1", name
    assert with_delay(chip="spinnaker1", max=40).layers[0]["delay"]["max"] == 40, "delay extensions hold it"
    model = build(with_delay(chip="truenorth").layers, (72,), 0.05, "sum", 0, 27)
    assert delays.learnt(model)[0].max_delay == 14


@pytest.mark.parametrize("chip", ["loihi2", "truenorth", "spinnaker1"])
def test_the_longest_delay_fits_its_chip(chip: str) -> None:
    """Two layers of relays with the longest delay between them compile without a substitution of it."""
    most = delays.LONGEST[chip]
    nodes = {
        "input": ir.Input((2,)),
        "w": ir.Linear(np.eye(2), np.full((2, 2), most)),
        "n": ir.IF(np.full(2, 0.5), np.zeros(2)) if chip == "truenorth" else ir.LIF(np.full(2, 0.02), np.full(2, 0.5)),
        "output": ir.Output("count"),
    }
    network = ir.chain(nodes, 1e-3)
    program = compile_network(network, chip, max_steps=20)
    assert not [s for s in program.substitutions if "late" in s or "delay" in s]


def test_groups_of_the_optimiser() -> None:
    model = build(late().layers, (72,), 0.05, "sum", 3, 27)
    groups = optimiser_of(model, late().optimiser).param_groups
    assert [(len(g["params"]), g["weight_decay"], g["factor"]) for g in groups] == [
        (3, 1e-3, 1.0), (1, 0.0, 10.0), (2, 0.0, 20.0)
    ]  # fmt: skip
    shapes = [tuple(p.shape) for p in (*groups[1]["params"], *groups[2]["params"])]
    assert shapes == [(24, 72), (1, 24), (27, 24)]
    every = [id(p) for g in groups for p in g["params"]]
    assert sorted(every) == sorted(id(p) for p in model.parameters())


def test_a_rate_of_zero_is_the_control() -> None:
    model = build(with_delay(max=9, rate=0.0).layers, (72,), 0.05, "sum", 0, 27)
    (layer,) = delays.learnt(model)
    assert not layer.delay.requires_grad
    assert layer.rounding
    assert torch.equal(layer.delay, layer.delay.round())
    assert len(layer.delay.unique()) == 10


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> results.Run:
    return fit(late(), tmp_path_factory.mktemp("delays") / "run")


def test_a_run_moves_delays_and_leaves_whole_ones(run: results.Run) -> None:
    from safetensors.torch import load_file

    start = delays.learnt(build(late().layers, (72,), 0.05, "sum", 1, 27))
    weights = load_file(run.path / results.WEIGHTS)
    for layer, name in zip(start, ("0_linear.delay", "1_lif.recurrent.delay", "2_linear.delay"), strict=True):
        found = weights[f"layers.{name}"]
        assert (found - layer.delay).abs().max() > 0.05
        assert found.min() >= 0
        assert found.max() <= layer.max_delay
    for name, longest in (("0_linear", 12), ("1_lif_recurrent", 6), ("2_linear", 8)):
        node = run.network.nodes[name]
        assert isinstance(node, ir.Linear)
        assert node.delay_steps is not None
        assert 0 <= node.delay_steps.min() < node.delay_steps.max() <= longest
    program = compile_network(run.network, "loihi2", max_steps=40)
    assert not [s for s in program.substitutions if "late" in s]


@pytest.mark.parametrize("epoch", [0, 1, 3])
def test_resume_from_any_epoch_ends_the_same(run: results.Run, tmp_path: Path, epoch: int) -> None:
    """Within the schedule of sigma, and before and after rounding begins."""

    def stop(row: Any) -> None:
        if row["epoch"] == epoch:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(late(), tmp_path / "run", on_epoch=stop)
    fit(late(), tmp_path / "run")
    assert content(tmp_path / "run") == content(run.path)


def test_delays_then_the_integers_of_a_chip(tmp_path: Path) -> None:
    """Delays are rounded, and stay, where training goes on on integers; compiling then rounds nothing."""
    layers = [TABLE["layers"][0], {"type": "lif", "beta": 0.9}, *TABLE["layers"][2:]]
    table = {**TABLE, "layers": layers, "quantise": {**FORMATS, "start": 0.8}, "readout": "sum"}
    whole = fit(Config.from_table(table), tmp_path / "whole")
    program = compile_network(whole.network, "loihi2", max_steps=40)
    assert not program.substitutions
    assert max(e.max_error for e in program.budget) < 1e-9

    def stop(row: Any) -> None:
        if row["epoch"] == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(Config.from_table(table), tmp_path / "run", on_epoch=stop)
    fit(Config.from_table(table), tmp_path / "run")
    assert content(tmp_path / "run") == content(whole.path)


def test_the_best_epoch_is_one_with_whole_delays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was best with delays between the steps is forgotten when they are rounded."""
    kept: list[Any] = []
    validate = loop._validate

    def watched(session: Any, *rest: Any) -> Any:
        found = validate(session, *rest)
        kept.append((session.epoch, session.stale, all(d.rounding for d in delays.learnt(session.model))))
        return found

    monkeypatch.setattr(loop, "_validate", watched)
    fit(late(), tmp_path / "run")
    assert [row[2] for row in kept] == [False] * 4 + [True]
    assert kept[4][1] == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / results.METRICS).read_text().splitlines()]
    assert len(rows) == 5
    shutil.rmtree(tmp_path / "run")


def test_layers_without_delays_are_left_alone() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2))
    assert delays.learnt(model) == []
    assert delays.settle([model], 3, 4) is False
    delays.clamp(model)
    layer = DelayLinear(3, 2, 5)
    with torch.no_grad():
        layer.delay[0, 0] = 7.0
    delays.clamp(layer)
    assert layer.delay.max() <= 5
