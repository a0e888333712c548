"""Training: it learns, it resumes to the bit from any epoch, and its folder is whole or refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from neuro import results
from neuro.errors import BadConfig, ChecksumMismatch, RunError
from neuro.results import Run
from neuro.train import checkpoint, loop
from neuro.train.config import Config
from neuro.train.evaluate import decisions, evaluate
from neuro.train.loop import fit

FORMATS = {
    "weight": {"bits": 8, "low": -256, "high": 254, "step": 2},
    "weight_conv": {"bits": 8, "low": -128, "high": 127},
    "decay": {"bits": 12, "signed": False, "low": 0, "high": 4095},
    "threshold": {"bits": 17, "signed": False, "low": 0, "high": 131071},
    "bias": {"bits": 13, "low": -4096, "high": 4095},
}
TABLE: dict[str, Any] = {
    "name": "tiny",
    "seed": 1,
    "data": {"dataset": "braille", "limit": 96, "steps": 40, "dt": 0.05, "vary": {"shift": 1.0}},
    "layers": [
        {"type": "linear", "out": 24},
        {"type": "batch_norm", "start": 0.6},
        {"type": "lif", "beta": 0.9, "learn": ["beta"], "each": True, "surrogate": "atan"},
        {"type": "dropout", "p": 0.1},
        {"type": "linear", "out": 24, "init": 0.7},
        {"type": "cuba_lif", "alpha": 0.8, "beta": 0.95, "recurrent": True, "detach": True, "surrogate_alpha": 5.0},
        {"type": "linear", "out": 27, "init": 1.0},
        {"type": "li", "beta": 0.95},
    ],
    "optimiser": {"lr": 5e-3, "weight_decay": 1e-3, "clip": 1.0, "ema": 0.8},
    "train": {"epochs": 4, "batch_size": 32, "keep": "best", "recalibrate": 2, "threads": 1},
    "quantise": {**FORMATS, "start": 0.5},
}


def tiny(**changes: Any) -> Config:
    return Config.from_table(TABLE).with_changes(**changes)


def content(path: Path) -> dict[str, bytes]:
    return {name: (path / name).read_bytes() for name in (results.WEIGHTS, results.NETWORK, results.METRICS)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fit(tiny(), tmp_path_factory.mktemp("run") / "whole")


def test_it_learns(tmp_path: Path) -> None:
    rows: list[Any] = []
    changes = {"quantise": None, "data.limit": None, "data.vary": {}, "optimiser.ema": 0.0, "optimiser.lr": 0.01}
    run = fit(tiny(**changes), tmp_path / "run", on_epoch=rows.append)
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3]
    assert rows[3]["loss"] < rows[0]["loss"]
    assert run.metrics == tuple(json.loads(json.dumps(rows)))
    best = min(rows, key=lambda row: row["valid_loss"])
    assert best["valid_accuracy"] > 3 / 27, "three times chance after four epochs"
    assert run.summary["valid_accuracy"] == pytest.approx(best["valid_accuracy"], abs=0.02), "the best weights are kept"


def test_a_finished_run_is_all_there(finished: Run) -> None:
    names = {p.name for p in finished.path.iterdir()} - {results.LOCK}
    assert names == {
        results.MANIFEST, results.CONFIG, results.METRICS, results.NETWORK, results.WEIGHTS, results.VERSIONS,
        results.TIMING,
    }  # fmt: skip
    assert finished.config == tiny().to_table() | {"data": json.loads(json.dumps(tiny().to_table()["data"]))}
    assert finished.versions["torch"] == torch.__version__.split("+")[0] or finished.versions["torch"]
    assert finished.versions["threads"] == 1
    assert [row["phase"] for row in finished.metrics] == ["float", "float", "integers", "integers"]
    assert finished.seed == 1
    weights = load_file(finished.path / results.WEIGHTS)
    assert any(name.endswith("recurrent.weight") for name in weights)


def test_the_network_file_is_the_trained_network(finished: Run) -> None:
    """Quantised training leaves weights on the chip's grid in the NIR file."""
    network = finished.network
    assert network.shapes["output"] == (27,)
    for name, node in network.nodes.items():
        if hasattr(node, "weight"):
            weight = np.unique(np.abs(node.weight[node.weight != 0]))
            unit = np.diff(np.concatenate([[0.0], weight])).min()
            np.testing.assert_allclose(weight / unit, np.rint(weight / unit), atol=1e-6, err_msg=name)


def test_same_configuration_same_bits(finished: Run, tmp_path: Path) -> None:
    again = fit(tiny(), tmp_path / "again")
    assert content(again.path) == content(finished.path)
    other = fit(tiny(seed=2), tmp_path / "other")
    assert content(other.path)[results.WEIGHTS] != content(finished.path)[results.WEIGHTS]


class Stopped(Exception):
    pass


@pytest.mark.parametrize("epoch", [1, 2, 3, 4])
def test_resume_from_any_epoch_ends_the_same(finished: Run, tmp_path: Path, epoch: int) -> None:
    """Epoch 2 is the step from reals to integers, epoch 4 leaves only the last files to write."""

    def stop(row: Any) -> None:
        if row["epoch"] + 1 == epoch:
            raise Stopped

    with pytest.raises(Stopped):
        fit(tiny(), tmp_path / "run", on_epoch=stop)
    assert not (tmp_path / "run" / results.MANIFEST).exists()
    with pytest.raises(RunError, match="not finished"):
        Run.open(tmp_path / "run")
    assert content(fit(tiny(), tmp_path / "run").path) == content(finished.path)


@pytest.mark.parametrize("place", ["state.json", checkpoint.DIGESTS, "moved"])
def test_killed_while_a_checkpoint_is_written(
    finished: Run, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is on disk when writing stops, the next start finds the last whole checkpoint."""
    real_json, real_replace, calls = checkpoint.write_json, checkpoint.os.replace, []

    def write_json(path: Path, value: Any) -> None:
        if path.name == place and len(calls) == 2:
            raise Stopped
        real_json(path, value)

    def replace(a: Any, b: Any) -> None:
        if "epoch-" in str(b):
            calls.append(b)
            if place == "moved" and len(calls) == 3:
                raise Stopped
        real_replace(a, b)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_json", write_json)
        patch.setattr(checkpoint.os, "replace", replace)
        patch.setattr(checkpoint.shutil, "rmtree", lambda *_, **__: None)  # a killed process cleans nothing up
        with pytest.raises(Stopped):
            fit(tiny(), tmp_path / "run")
    left = [p.name for p in (tmp_path / "run" / results.CHECKPOINT).iterdir()]
    assert any(name.endswith(".part") for name in left)
    saved = checkpoint.latest(tmp_path / "run")
    assert saved is not None
    assert saved.state["epoch"] == 2
    assert content(fit(tiny(), tmp_path / "run").path) == content(finished.path)


@pytest.mark.slow
def test_convolutions_resume_to_the_bit_on_two_threads(tmp_path: Path) -> None:
    config = Config.from_table({
        "name": "tiny-conv",
        "data": {
            "dataset": "nmnist", "limit": 60, "steps": 4, "dt": 0.05, "options": {"size": 16},
            "augment": {"shift": 1.0, "elastic": 1.0, "drop": 0.2},
        },
        "layers": [
            {"type": "conv", "out": 6, "kernel": 3, "stride": 2},
            {"type": "batch_norm", "start": 0.6, "shift": False},
            {"type": "lif", "beta": 0.8, "surrogate": "triangle"},
            {"type": "dropout", "p": 0.2},
            {"type": "conv", "out": 6, "kernel": 3},
            {"type": "batch_norm", "start": 0.6},
            {"type": "lif", "beta": 0.8, "surrogate": "gaussian"},
            {"type": "flatten"},
            {"type": "linear", "out": 10},
            {"type": "li", "beta": 0.9},
        ],
        "optimiser": {"kind": "sgd", "lr": 0.05, "nesterov": True, "schedule": "cosine", "ema": 0.5},
        "train": {"epochs": 3, "batch_size": 20, "threads": 2, "recalibrate": 2, "drop_last": True},
        "quantise": {**FORMATS, "start": 0.7},
    })  # fmt: skip

    def stop(row: Any) -> None:
        raise Stopped

    whole = fit(config, tmp_path / "whole")
    assert [row["phase"] for row in whole.metrics] == ["float", "float", "integers"]
    for _ in range(2):
        with pytest.raises(Stopped):
            fit(config, tmp_path / "broken", on_epoch=stop)
    assert content(fit(config, tmp_path / "broken").path) == content(whole.path)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    def stop(row: Any) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        fit(tiny(), tmp_path / "run", on_epoch=stop)
    file = tmp_path / "run" / results.CHECKPOINT / "epoch-000001" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(ChecksumMismatch, match=r"model\.safetensors"):
        fit(tiny(), tmp_path / "run")
    (file.parent / checkpoint.DIGESTS).write_text("{")
    with pytest.raises(RunError, match="delete it"):
        fit(tiny(), tmp_path / "run")


def test_a_finished_run_is_returned_as_it_is(finished: Run) -> None:
    before = {p.name: p.stat().st_mtime_ns for p in finished.path.iterdir()}
    assert fit(tiny(), finished.path).summary == finished.summary
    assert {p.name: p.stat().st_mtime_ns for p in finished.path.iterdir()} == before


def test_folders_of_others_are_left_alone(finished: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        fit(tiny(seed=5, **{"train.epochs": 9}), finished.path)
    assert len(caught.value.violations) == 2
    assert "seed is 1 there, 5 here" in str(caught.value)
    with pytest.raises(RunError, match="already holds a run"):
        fit(tiny(), finished.path, resume=False)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(RunError, match=r"thesis\.tex"):
        fit(tiny(), tmp_path / "mine")
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="cannot be used"):
        fit(tiny(), tmp_path / "file")


def test_two_runs_in_one_folder_refuse(tmp_path: Path) -> None:
    with results.locked(tmp_path / "run"), pytest.raises(RunError, match="another process"):
        fit(tiny(), tmp_path / "run")


@pytest.mark.parametrize("name", [results.WEIGHTS, results.NETWORK, results.METRICS, results.CONFIG, results.VERSIONS])
def test_every_file_of_a_run_is_guarded(finished: Run, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished.path, copy)
    Run.open(copy)
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(bytes(data))
    with pytest.raises(ChecksumMismatch, match=name):
        Run.open(copy)
    (copy / name).unlink()
    with pytest.raises(ChecksumMismatch, match="missing"):
        Run.open(copy)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 99, "files": {}, "summary": {}}', '{"format": 1}'])
def test_manifests_that_mean_nothing(finished: Run, tmp_path: Path, text: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished.path, copy)
    (copy / results.MANIFEST).write_text(text)
    with pytest.raises(RunError):
        Run.open(copy)


def test_a_manifest_is_held_to_its_own_digest(finished: Run, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished.path, copy)
    table = json.loads((copy / results.MANIFEST).read_text())
    (copy / results.MANIFEST).write_text(json.dumps(table, separators=(",", ":")))
    assert Run.open(copy).summary == finished.summary  # whitespace says nothing
    key, value = next((k, v) for k, v in table["summary"].items() if isinstance(v, float))
    table["summary"][key] = value + 1e-9
    (copy / results.MANIFEST).write_text(json.dumps(table))
    with pytest.raises(ChecksumMismatch, match="manifest"):
        Run.open(copy)


def test_places_that_are_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a folder"):
        Run.open(tmp_path / "none")
    with pytest.raises(RunError, match="holds no run"):
        Run.open(tmp_path)


def test_divergence_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="diverged"):
        fit(tiny(**{"optimiser.lr": 1e30, "optimiser.clip": 0.0, "loss.scale": 1e30}), tmp_path / "run")


def test_impossible_pairs_of_data_and_layers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="classes"):
        fit(tiny(layers=[{"type": "linear", "out": 5}, {"type": "li", "beta": 0.9}]), tmp_path / "a")
    with pytest.raises(BadConfig, match="shift"):
        fit(tiny(**{"data.augment": {"shift": 1.0}}), tmp_path / "b")


def test_early_stopping(tmp_path: Path) -> None:
    """With a rate of nearly nothing the validation loss gets better by nothing; patience ends it."""
    changes = {"optimiser.lr": 1e-30, "optimiser.ema": 0.0, "train.patience": 2, "quantise": None, "data.vary": {}}
    layers = [{"type": "linear", "out": 27, "init": 1.0}, {"type": "li", "beta": 0.95}]
    run = fit(tiny(**changes, **{"train.epochs": 9}, layers=layers), tmp_path / "run")
    assert run.summary["epochs"] == 3


def test_training_on_everything_has_no_validation(tmp_path: Path) -> None:
    changes = {"data.train_on": "all", "train.keep": "last", "train.epochs": 1, "quantise": None}
    run = fit(tiny(**changes), tmp_path / "run")
    assert run.summary["trained_on"] == "all"
    assert "valid_accuracy" not in run.summary
    assert "valid_loss" not in run.metrics[0]


def test_settings_of_torch_come_back(tmp_path: Path) -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    state = torch.get_rng_state()
    fit(tiny(**{"train.epochs": 1, "quantise": None}), tmp_path / "run")
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before
    assert torch.equal(torch.get_rng_state(), state), "no global random number was drawn"


def test_progress_bar_goes_to_the_console(tmp_path: Path) -> None:
    from io import StringIO

    from rich.console import Console

    text = StringIO()
    fit(
        tiny(**{"train.epochs": 1, "quantise": None}),
        tmp_path / "run",
        progress=Console(file=text, force_terminal=True),
    )
    assert "train tiny 1/1 loss" in text.getvalue()


# ---------------------------------------------------------------- evaluate


def test_evaluation_counts_what_is_there(finished: Run) -> None:
    from neuro.datasets.source import load

    data = load("braille", "valid").subset(np.arange(40))
    found = evaluate(finished, data)
    assert found.samples == 40
    assert found.confusion.sum() == 40
    assert found.accuracy == pytest.approx(np.trace(found.confusion) / 40)
    assert found.accuracy == pytest.approx((found.decided == data.labels).mean())
    assert set(found.per_class) == {data.classes[k] for k in np.unique(data.labels)}
    for k in np.unique(data.labels):
        rows = data.labels == k
        assert found.per_class[data.classes[k]] == pytest.approx((found.decided[rows] == k).mean())
    dense = data.batch(range(40), finished.network.dt, 40)
    assert found.input_events == pytest.approx(dense.sum() / 40)
    assert set(found.spikes) == {"2_lif", "5_cuba_lif"}
    assert json.loads(json.dumps(found.to_json()))["samples"] == 40
    # the batch does not matter, a module or a network neither
    np.testing.assert_allclose(evaluate(finished, data, batch_size=7).scores, found.scores, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(decisions(finished.network, data, steps=40), found.decided)


def test_evaluation_agrees_with_the_reference(finished: Run) -> None:
    from neuro import reference
    from neuro.datasets.source import load

    data = load("braille", "valid").subset(np.arange(6))
    dense = data.batch(range(6), finished.network.dt, 30)
    record = reference.run(finished.network, dense)
    found = evaluate(finished, data, steps=30)
    np.testing.assert_allclose(found.scores, reference.scores(finished.network, record), rtol=1e-3, atol=1e-3)
    for name, spikes in found.spikes.items():
        assert spikes == pytest.approx(record.spikes[name].sum() / 6)


def test_recordings_that_do_not_fit_are_refused(finished: Run) -> None:
    from neuro.datasets.source import load
    from neuro.errors import SimulationError

    with pytest.raises(SimulationError, match="shape"):
        evaluate(finished, load("nmnist", "valid"))
    data = load("braille", "valid")
    with pytest.raises(SimulationError, match="no recording"):
        evaluate(finished, data.subset(np.arange(0)))


def test_the_threads_of_a_run_are_kept_on_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(row: Any) -> None:
        raise Stopped

    config = tiny(**{"train.threads": 0, "train.epochs": 2, "quantise": None})
    monkeypatch.setattr(loop, "cores", lambda: 2)
    with pytest.raises(Stopped):
        fit(config, tmp_path / "run", on_epoch=stop)
    monkeypatch.setattr(loop, "cores", lambda: 1)
    assert fit(config, tmp_path / "run").versions["threads"] == 2
