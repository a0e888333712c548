"""The command line as a script meets it: exit codes, JSON on standard output, errors without tracebacks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import neuro
from neuro.cli import EXIT_CHIP, EXIT_INPUT
from neuro.datasets.npz import save_events_npz
from neuro.events import Events
from neuro.ir import IF, Input, Linear, Output

ROOT = Path(__file__).parents[2]


def run(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from neuro.cli import main; main()", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ, "COLUMNS": "100"})
    assert done.returncode == code, (done.returncode, done.stdout[-2000:], done.stderr[-2000:])
    assert "Traceback" not in done.stderr
    return done


def printed(*arguments: str | Path, code: int = 0) -> Any:
    return json.loads(run(*arguments, "--json", code=code).stdout)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("net") / "net.nir"
    nodes = {"in": Input((3,)), "fc": Linear(np.eye(3)), "n": IF(v_threshold=0.5), "out": Output("count")}
    neuro.save(neuro.chain(nodes, dt=1e-3), path)
    return path


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sample k has events in channel k only."""
    path = tmp_path_factory.mktemp("events") / "events.npz"
    step = np.arange(5, dtype=np.int32)
    save_events_npz(path, [Events(step, np.full(5, k, np.int32), (3,), 8, 1e-3) for k in range(3)], [0, 1, 2])
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "braille"
    summary = printed("train", "braille", "--out", out, "--epochs", "2", "--holdout")
    assert summary["epochs"] == 2
    return out


def test_version_and_help() -> None:
    assert run("--version").stdout.startswith("axonport ")
    assert "deploy" in run("--help").stdout
    run(code=2)


def test_chips() -> None:
    assert "loihi2" in printed("chips")
    chip = printed("chips", "loihi2")
    assert chip["energy"]["synop"]["unit"] == "J"
    assert chip["not_modelled"]
    assert {q["source"] for q in chip["energy"].values()} <= set(chip["sources"])
    assert "synop" in run("chips", "loihi2").stdout
    other = printed("chips", "loihi1")
    assert {"sanafe", "davies2018"} <= set(other["constants"])
    assert other["constants"]["davies2018"]["energy"]["synop"]["value"] == 23.6e-12
    assert {"sanafe2025", "davies2018"} <= set(other["sources"])
    assert "constants davies2018" in run("chips", "loihi1").stdout
    assert "Refused: '26pJ' as energy.synop" in run("chips", "truenorth").stdout


def test_unknown_chip() -> None:
    assert "Did you mean 'loihi2'" in run("chips", "loihi3", code=EXIT_CHIP).stderr


def test_doctor() -> None:
    found = printed("doctor")
    assert found["ok"]
    assert {"python", "compiled kernels", "lava-nc", "data: braille", "chip: loihi2"} <= {
        c["name"] for c in found["checks"]
    }


def test_simulate(net: Path, events: Path, tmp_path: Path) -> None:
    out = tmp_path / "trace.npz"
    summary = printed("simulate", net, events, "--out", out, "--probe", "n.v")
    assert summary["decision"] == [0, 1, 2]
    assert summary["accuracy"] == 1.0
    with np.load(out, allow_pickle=False) as trace:
        np.testing.assert_array_equal(trace["decision"], [0, 1, 2])
        assert trace["spikes.n"].shape == trace["probe.n.v"].shape == (9, 3, 3)
        assert trace["spikes.n"].sum() == 15  # every event fires once
        assert trace["counters.spikes"].sum() == 15


def test_simulate_refuses(net: Path, events: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.npz"
    assert "NODE.u" in run("simulate", net, events, "--out", out, "--probe", "v", code=EXIT_INPUT).stderr
    assert "nn" in run("simulate", net, events, "--out", out, "--probe", "nn.v", code=EXIT_INPUT).stderr
    assert "npz" in run("simulate", net, net, "--out", out, code=EXIT_INPUT).stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("to", ["lava", "netx", "nir", "pynn"])
def test_export(net: Path, tmp_path: Path, to: str) -> None:
    out = tmp_path / f"exported.{to}"
    assert printed("export", net, "--to", to, "--out", out)["path"] == str(out)
    assert out.exists()


def test_a_format_is_for_its_chips(net: Path, tmp_path: Path) -> None:
    said = run("export", net, "--to", "pynn", "--chip", "loihi2", "--out", tmp_path / "x", code=EXIT_CHIP).stderr
    assert "spinnaker1" in said
    assert not list(tmp_path.iterdir())


def test_export_to_nowhere(net: Path, tmp_path: Path) -> None:
    assert "lava" in run("export", net, "--to", "lavva", "--out", tmp_path / "x", code=EXIT_INPUT).stderr


def test_evaluate_a_run(trained: Path) -> None:
    result = printed("evaluate", trained, "--chip", "loihi2")
    assert result["samples"] == 216
    assert 0.05 < result["float_accuracy"] <= 1
    assert abs(result["chips"]["loihi2"]["accuracy"] - result["float_accuracy"]) < 0.05


def test_evaluate_on_all_chips(trained: Path) -> None:
    chips = printed("evaluate", trained, "--chip", "all")["chips"]
    assert abs(chips["spinnaker1"]["accuracy"] - chips["loihi2"]["accuracy"]) < 0.05
    assert "CubaLIF" in chips["truenorth"]["violations"][0]
    assert "CubaLIF" in run("evaluate", trained, "--chip", "truenorth", code=EXIT_CHIP).stderr


def test_evaluate_on_a_path(trained: Path) -> None:
    path = ROOT / "datasets" / "data" / "braille" / "braille_1080.npz"
    assert printed("evaluate", trained, "--data", path)["samples"] == 1080


def test_evaluate_refuses(trained: Path, net: Path, tmp_path: Path) -> None:
    assert "does not exist" in run("evaluate", trained, "--data", tmp_path / "none.npz", code=EXIT_INPUT).stderr
    assert "--data" in run("evaluate", net, code=EXIT_INPUT).stderr
    assert "no run" in run("evaluate", tmp_path, code=EXIT_INPUT).stderr


def test_nothing_unseen_is_said(tmp_path: Path) -> None:
    """A run trained on everything has nothing left to judge it by, and says so."""
    config = (ROOT / "neuro" / "presets" / "braille.toml").read_text(encoding="utf-8")
    config = config.replace('train_on = "train"', 'train_on = "all"').replace("epochs = 50", "epochs = 1")
    config = config.replace("[data]", "[data]\nlimit = 64")
    (tmp_path / "config.toml").write_text(config)
    run("train", tmp_path / "config.toml", "--out", tmp_path / "run", "--quiet")
    assert "nothing unseen" in run("evaluate", tmp_path / "run", code=EXIT_INPUT).stderr


def test_bad_config_lists_everything(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('name = "x"\nsed = 1\n[data]\ndataset = "braille"\n[train]\nepochs = -1\n')
    text = run("train", tmp_path / "c.toml", "--out", tmp_path / "run", code=EXIT_INPUT).stderr
    assert "sed" in text
    assert "epochs" in text


def test_deploy_writes_the_report(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = printed("deploy", trained, "--out", out, "--certify", "0")
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report == found
    chip = report["chips"]["loihi2"]
    assert chip["fits"]
    assert chip["matches"]["status"] == "not run"
    assert chip["energy_j"]["low"] <= chip["energy_j"]["nominal"] <= chip["energy_j"]["high"]
    assert chip["latency_s"]["low"] <= chip["latency_s"]["nominal"] <= chip["latency_s"]["high"]
    assert {"dataset", "seed", "versions", "float_accuracy"} <= set(report)
    for name in chip["files"].values():
        assert (out / name).exists(), name
    assert not list(out.glob("**/*.part"))


def test_a_network_that_does_not_fit(tmp_path: Path) -> None:
    """Wrong in two ways at once; both are listed, the report says so, the exit code too."""
    delays = np.full((27, 72), 500)
    nodes = {"in": Input((72,)), "fc": Linear(np.ones((27, 72)), delay_steps=delays), "n": IF(v_threshold=0.5),
             "out": Output("count")}  # fmt: skip
    neuro.save(neuro.chain(nodes, dt=12.5e-3), tmp_path / "net.nir")
    text = run("deploy", tmp_path / "net.nir", "--data", "braille", "--out", tmp_path / "out", code=EXIT_CHIP)
    assert "500" in text.stdout
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert not report["chips"]["loihi2"]["fits"]
    assert report["chips"]["loihi2"]["violations"]


def test_an_interrupt_that_python_forgets_comes_again() -> None:
    """One that is raised in a weak reference's callback is only printed by Python, and the program goes on."""
    script = """
import signal, time, weakref
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts tests in the background ignores it
import neuro.cli
class Thing: pass
def work():
    thing = Thing()
    gone = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))
    del thing
    time.sleep(120)
neuro.cli.app = work
neuro.cli.main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=90)
    assert done.returncode == 130
    assert done.stderr == "interrupted; what was finished is kept\n"
