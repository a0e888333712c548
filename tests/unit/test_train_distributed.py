"""Parts of a batch, their weights, refusals; the curve of two processes is held against one by tests/proofs/ddp.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from neuro.errors import BadConfig, RunError
from neuro.nn import Dropout, SpikingNetwork
from neuro.nn.spikes import Spikes
from neuro.train import load_config
from neuro.train.distributed import Team, fit_in_processes


@pytest.mark.parametrize("bits", [False, True])
@pytest.mark.parametrize("size", [2, 3])
def test_the_parts_are_the_batch(bits: bool, size: int) -> None:
    torch.manual_seed(0)
    x = (torch.rand(4, 7, 70) < 0.3).to(torch.float32)
    labels = torch.arange(7)
    given = Spikes.pack(x) if bits else x
    parts = [Team(rank, size).share(given, labels, nn.Identity()) for rank in range(size)]
    torch.testing.assert_close(torch.cat([p.dense() if isinstance(p, Spikes) else p for p, _ in parts], 1), x)
    assert torch.cat([answers for _, answers in parts]).tolist() == labels.tolist()
    weights = [Team(rank, size).weight(len(answers), 7) for rank, (_, answers) in enumerate(parts)]
    assert sum(weights) / size == pytest.approx(1.0)


def test_dropout_drops_what_it_would_in_one_process() -> None:
    layer = Dropout(0.5)
    layer.generator = torch.Generator()
    x, labels = torch.ones(2, 7, 30), torch.zeros(7)
    whole = layer.train()(x) if layer.generator.manual_seed(3) else x
    found = []
    for rank in range(2):
        part, _ = Team(rank, 2).share(x, labels, nn.Sequential(layer))
        layer.generator.manual_seed(3)
        found.append(layer(part))
    torch.testing.assert_close(torch.cat(found, 1), whole)


def test_what_needs_the_whole_batch_is_refused() -> None:
    model = SpikingNetwork({"a": nn.Linear(3, 2), "n": nn.BatchNorm1d(2)}, input_shape=(3,), dt=1e-3, readout="sum")
    with pytest.raises(BadConfig) as problem:
        Team(0, 2).check(model, [64, 1])
    assert "layers.n" in str(problem.value)
    assert "1 samples for 2 processes" in str(problem.value)
    Team(0, 1).check(model, [64, 1])


def test_two_processes_leave_one_finished_run(tmp_path: Path) -> None:
    config = load_config("braille").with_changes(**{"train.epochs": 1, "data.limit": 64, "quantise": None})
    fit_in_processes(config.to_table(), tmp_path / "run", 2)
    assert (tmp_path / "run" / "manifest.json").is_file()
    lines = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1
    assert json.loads(lines[0])["loss"] > 0


def test_what_went_wrong_is_said(tmp_path: Path) -> None:
    config = load_config("braille").with_changes(**{"train.batch_size": 3, "data.limit": 4, "quantise": None})
    with pytest.raises(RunError, match="a batch has 1 samples for 2 processes"):
        fit_in_processes(config.to_table(), tmp_path / "run", 2)
