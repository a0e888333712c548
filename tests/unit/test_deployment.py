"""`deploy`: one network, labelled events, four answers; refused where they do not suit each other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neuro import Network, chain, deploy, plots
from neuro.deployment import run_program, spread_over_classes, steps_of, utilisation
from neuro.errors import PrecisionLoss, RunError, SimulationError, UnknownChip
from neuro.events import EventSet
from neuro.hardware import compile as compile_network
from neuro.ir import IF, LI, Input, Linear, Output


def toy(classes: int = 3, per_class: int = 4, shape: tuple[int, ...] = (3,)) -> EventSet:
    """Recordings of class k have ten events in channel k, a millisecond apart."""
    labels = np.repeat(np.arange(classes), per_class)
    times = np.tile(np.arange(10, dtype=np.float32) * 1e-3 + 1e-4, len(labels))
    return EventSet(
        times, np.repeat(labels, 10).astype(np.int32), np.arange(len(labels) + 1) * 10, labels, np.arange(len(labels)),
        shape, 0.012, tuple("abc"[:classes]), "toy",
    )  # fmt: skip


def network(reset: str = "hard") -> Network:
    nodes = {"in": Input((3,)), "fc": Linear(np.eye(3)), "n": IF(v_threshold=0.5, reset=reset), "out": Output("count")}
    return chain(nodes, dt=1e-3)


def test_the_four_answers(tmp_path: Path) -> None:
    report = deploy(network(), toy(), out=tmp_path / "out", certify_samples=3)
    chip = report.chips["loihi2"]
    assert report.proven == (chip.matches["status"] == "passed")
    assert report.float_accuracy == chip.accuracy == chip.agrees_with_float == 1.0
    assert chip.matches["mismatches"] == 0
    assert chip.counters["spikes"] == chip.counters["injected"] == 10
    assert chip.estimate["causes"]["spike"]["nominal"] > 0
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report.to_json()
    for name in chip.files.values():
        assert (tmp_path / "out" / name).exists()
    assert (tmp_path / "out" / chip.files["raster"]).read_bytes()[:4] == b"\x89PNG"


def test_nothing_is_written_without_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    report = deploy(network(), toy(), certify_samples=0)
    assert not report.proven  # nothing was certified
    assert not list(tmp_path.iterdir())


def test_wrong_events_are_refused() -> None:
    with pytest.raises(SimulationError, match=r"shape \(4,\).*wants \(3,\)"):
        deploy(network(), toy(shape=(4,)))
    with pytest.raises(SimulationError, match="no recording"):
        deploy(network(), toy().subset([]))


def test_more_labels_than_outputs() -> None:
    nodes = {"in": Input((3,)), "fc": Linear(np.eye(3)[:2]), "n": IF(v_threshold=0.5), "out": Output("count")}
    with pytest.raises(SimulationError, match="2 outputs"):
        deploy(chain(nodes, dt=1e-3), toy())


def test_unknown_chip_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UnknownChip):
        deploy(network(), toy(), chips=("loihi2", "nope"), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_strict_refuses_an_approximation() -> None:
    assert deploy(network("subtract"), toy(), certify_samples=0).chips["loihi2"].substitutions
    with pytest.raises(PrecisionLoss, match="subtract"):
        deploy(network("subtract"), toy(), strict=True)


def test_a_stale_report_does_not_survive_a_failed_deploy(tmp_path: Path) -> None:
    deploy(network("subtract"), toy(), out=tmp_path, certify_samples=0)
    with pytest.raises(PrecisionLoss):
        deploy(network("subtract"), toy(), out=tmp_path, strict=True)
    assert not (tmp_path / "report.json").exists()


def test_what_a_killed_deploy_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "loihi2").mkdir()
    left = [tmp_path / ".report.json.x.part", tmp_path / "loihi2" / ".network.nir.x.part"]
    for path in left:
        path.write_text("half")
    deploy(network(), toy(), out=tmp_path, certify_samples=0)
    assert not any(path.exists() for path in left)


def test_two_deploys_into_one_folder_refuse(tmp_path: Path) -> None:
    from filelock import FileLock

    with FileLock(tmp_path / ".deploy.lock"), pytest.raises(RunError, match="another process"):
        deploy(network(), toy(), out=tmp_path)


def test_the_readout_that_fires_is_reported() -> None:
    nodes = {"in": Input((3,)), "fc": Linear(np.eye(3)), "v": LI(tau_mem=1.0), "out": Output("sum")}
    program = compile_network(chain(nodes, dt=1e-3), "loihi2", max_steps=12)
    assert not run_program(program, toy(), 12).warnings
    readout = program.populations["v"]
    low = replace(readout, params={**readout.params, "vth": np.array(0)})
    program = replace(program, populations={**program.populations, "v": low})
    assert any("ran out of range" in w for w in run_program(program, toy(), 12).warnings)


def test_samples_are_spread_over_classes() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    assert spread_over_classes(labels, 3).tolist() == [0, 3, 5]
    assert spread_over_classes(labels, 4).tolist() == [0, 1, 3, 5]
    assert spread_over_classes(labels, 99).tolist() == list(range(6))
    assert spread_over_classes(labels, 0).size == 0


def test_steps_cover_a_recording() -> None:
    assert steps_of(network(), toy()) == 12


def test_utilisation_counts() -> None:
    found = utilisation(compile_network(network(), "loihi2"))
    assert (found["cores"], found["neurons"], found["synapses"]) == (1, 3, 3)
    assert 0 < max(found["fullest_core"].values()) <= 1


def test_plots_draw_what_they_are_given(tmp_path: Path) -> None:
    spikes = np.zeros((10, 4), np.uint8)
    spikes[3, 2] = 1
    axes = plots.raster({"a": spikes, "b": spikes}, 1e-3, "title")
    assert len(axes) == 2
    points = axes[0].collections[0].get_offsets()
    assert np.asarray(points).tolist() == [[3.0, 2.0]]
    v = np.linspace(0, 1, 30).reshape(10, 3)
    _, difference = plots.membrane(v, v + 0.25, 1e-3, "title", ("x", "y", "z"), label=1)
    assert np.allclose(difference.lines[0].get_ydata(), 0.25)
    assert plots.save(difference, tmp_path / "m.png").stat().st_size > 1000
