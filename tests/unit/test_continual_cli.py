"""`neuro continual`: tasks of a data set's classes through methods, written down; what cannot be is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from neuro.cli_continual import add, read_rows
from neuro.errors import BadConfig, NetworkError
from neuro.learn.continual import matrices
from neuro.train.build import build
from neuro.train.config import Config, load_config
from neuro.train.task_run import FILE, Steps, default_rows, left_out, run_tasks

LAYERS: tuple[dict[str, Any], ...] = (
    {"type": "linear", "out": 40, "init": 1.0},
    {"type": "lif", "beta": 0.9, "detach": True},
    {"type": "linear", "out": 27, "init": 1.0},
    {"type": "li", "beta": 0.9},
)


TOML = """
name = "letters"
data = { dataset = "braille", steps = 40, dt = 0.05, vary = { noise = 0.5 } }
loss = { scale = 5.0 }
train = { batch_size = 16, epochs = 2 }
layers = [
    { type = "linear", out = 40, init = 1.0 }, { type = "lif", beta = 0.9, detach = true },
    { type = "linear", out = 27, init = 1.0 }, { type = "li", beta = 0.9 },
]
"""


def config(**changes: Any) -> Config:
    table = {
        "name": "letters",
        "data": {"dataset": "braille", "steps": 40, "dt": 0.05},
        "layers": list(LAYERS),
        "loss": {"scale": 5.0},
        "train": {"batch_size": 16, "epochs": 2},
    }
    return Config.from_table(table).with_changes(**changes)


METHODS = ("plain", "hlop", "hlop-soft")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("letters")
    made = config(**{"train.batch_size": 8, "data.steps": 100, "data.dt": 0.02, "seed": 2})
    rows, steps = {"0_linear": (20, 6)}, Steps(epochs=4)
    found = run_tasks(made, out, per_task=3, methods=METHODS, rows=rows, steps=steps)
    assert json.loads((out / FILE).read_text(encoding="utf-8")) == found
    return found


def test_nothing_is_forgotten_and_plain_training_forgets(table: dict[str, Any]) -> None:
    plain, *others = (table["methods"][m] for m in METHODS)
    assert plain["bwt"] < -0.2
    for hlop in others:
        assert len(hlop["accuracy"]) == len(table["tasks"]) == 9
        assert hlop["bwt"] > -0.05
        assert hlop["acc"] > plain["acc"] + 0.1
        assert hlop["memory_bytes"] > 0 == plain["memory_bytes"]


def invoke(*arguments: str) -> Any:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.callback()(lambda: None)
    add(app)
    return CliRunner().invoke(app, ["continual", *arguments])


def test_the_command_prints_what_the_function_writes(tmp_path: Path) -> None:
    file = tmp_path / "letters.toml"
    file.write_text(TOML, encoding="utf-8")
    options = [
        "--per-task",
        "9",
        "--rows",
        "0_linear=20,10",
        "--epochs",
        "2",
        "--rule",
        "sltt",
        "--seed",
        "3",
        "--anneal",
        "0.5",
    ]
    done = invoke(str(file), "--out", str(tmp_path / "run"), *options, "--method", "gpm", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found == json.loads((tmp_path / "run" / FILE).read_text(encoding="utf-8"))
    assert (found["rule"], found["seed"], list(found["methods"])) == ({"kind": "sltt"}, 3, ["gpm"])
    assert (found["left_out"], found["anneal"]) == (["data.vary"], 0.5)


def test_it_says_what_it_leaves_out_and_shows_a_table(tmp_path: Path) -> None:
    file = tmp_path / "letters.toml"
    file.write_text(TOML, encoding="utf-8")
    done = invoke(str(file), "--out", str(tmp_path / "run"), "--per-task", "13", "--epochs", "1", "--method", "plain")
    assert done.exit_code == 0, done.output
    assert "left out of the configuration: data.vary" in done.output
    assert "plain" in done.output


def test_problems_are_named_together(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"(?s)method 'hlp' is unknown.*hlop.*14 classes in each task: .* 1\.\.13"):
        run_tasks(config(), tmp_path, per_task=14, methods=("hlp",))
    with pytest.raises(BadConfig, match="'a': the layers are 0_linear, 2_linear"):
        run_tasks(config(), tmp_path, per_task=9, rows={"a": (3,)})
    with pytest.raises(BadConfig, match="high is 2"):
        run_tasks(config(**{"data.high": 2}), tmp_path, per_task=9)
    with pytest.raises(BadConfig, match=r"(?s)--rows a: .*--rows b=0: .*--rows c=1,2,3: "):
        read_rows(["a", "b=0", "c=1,2,3", "d=4"])
    assert read_rows(["a=3", "b=4,5"]) == {"a": (3,), "b": (4, 5)}
    delayed = [{**LAYERS[0], "max_delay": 3}, *LAYERS[1:]]
    with pytest.raises(NetworkError, match="0_linear: DelayedLinear"):
        run_tasks(config(layers=delayed), tmp_path, per_task=9)
    assert not (tmp_path / FILE).exists()


def test_lateral_neurons_that_nobody_counted_fit_the_layer() -> None:
    net = build(LAYERS, (72,), 0.05, "sum", 0, 27)
    assert list(matrices(net)) == ["0_linear", "2_linear"]
    assert default_rows(net, 3, ("2_linear",)) == {"0_linear": (24, 24)}
    assert sum(default_rows(net, 5, ())["0_linear"]) <= 72


def test_what_a_preset_asks_for_in_vain_is_listed() -> None:
    assert left_out(load_config("braille")) == ["data.vary", "quantise"]
    assert left_out(config()) == []
