"""Pictures of objects come back as axes that show the object's own numbers; a notebook shows them by itself."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from neuro import Network, chain, deploy, plots, simulate
from neuro.errors import SimulationError
from neuro.events import Events, EventSet
from neuro.ir import IF, Input, Linear, Output


def toy() -> EventSet:
    labels = np.repeat(np.arange(3), 2)
    times = np.tile(np.arange(10, dtype=np.float32) * 1e-3 + 1e-4, len(labels))
    return EventSet(
        times, np.repeat(labels, 10).astype(np.int32), np.arange(len(labels) + 1) * 10, labels, np.arange(len(labels)),
        (3,), 0.012, ("a", "b", "c"), "toy",
    )  # fmt: skip


def network(weight: float = 1.0) -> Network:
    nodes = {"in": Input((3,)), "fc": Linear(weight * np.eye(3)), "n": IF(v_threshold=0.5), "out": Output("count")}
    return chain(nodes, dt=1e-3)


@pytest.mark.parametrize(("what", "factor"), [("energy", 1e6), ("latency", 1e3), ("accuracy", 100.0)])
def test_a_report_draws_its_own_numbers(what: str, factor: float) -> None:
    report = deploy(network(), toy(), chips=("loihi2", "truenorth"), certify_samples=0)
    axes = report.plot(what)
    assert [t.get_text() for t in axes.get_yticklabels()] == ["loihi2", "truenorth"]
    points = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"]
    found = [report.chips[name] for name in ("loihi2", "truenorth")]
    key = {"energy": "energy_j", "latency": "latency_s"}.get(what)
    wanted = [c.accuracy if key is None else getattr(c, key)["nominal"] for c in found]
    assert np.allclose(points, factor * np.array(wanted, float))
    again = report.plot(what, ax=axes)
    assert again is axes


def test_a_chip_without_a_number_keeps_its_row() -> None:
    wide = {
        "in": Input((3,)),
        "fc": Linear(np.eye(3)),
        "n": IF(v_threshold=0.5, reset="subtract"),
        "out": Output("count"),
    }
    report = deploy(chain(wide, dt=1e-3), toy(), chips=("loihi2", "akida1"), certify_samples=0)
    assert not report.chips["akida1"].fits
    said = [t.get_text() for t in report.plot().texts]
    assert "does not fit" in said
    with pytest.raises(SimulationError, match="'joules'"):
        report.plot("joules")


def test_a_trace_and_events_draw_their_spikes() -> None:
    dense = toy().batch([0, 4], 1e-3, 12)
    trace = simulate(network(), dense, chip="loihi2")
    panels = trace.plot(1)
    for axis, train in zip(panels, trace.spikes.values(), strict=True):
        step, neuron = np.nonzero(train[:, 1])
        assert np.allclose(axis.collections[0].get_offsets(), np.stack([step, neuron], 1))
    with pytest.raises(SimulationError, match=r"samples 0\.\.1"):
        trace.plot(2)
    sample = Events.from_dense(dense[:, 1], 1e-3)
    axes = sample.plot()
    assert np.allclose(axes.collections[0].get_offsets(), np.stack([sample.t, sample.x], 1))


def test_a_notebook_shows_what_is_not_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg", force=True)
    from matplotlib import pyplot

    sample = Events.from_dense(np.eye(4, dtype=np.uint8), 1e-3)
    sample.plot()
    assert not pyplot.get_fignums()  # a script: nothing is held
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    axes = sample.plot()
    assert len(pyplot.get_fignums()) == 1  # what the notebook's backend shows at the end of its cell
    assert plots.save(axes, tmp_path / "a.png").stat().st_size > 1000
    assert not pyplot.get_fignums()
