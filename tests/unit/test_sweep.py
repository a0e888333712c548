"""Design exploration: each row is what a run by hand gives, nothing is computed twice, the Pareto set is right."""

from __future__ import annotations

import importlib.util
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuro import chain
from neuro import sweep as module
from neuro.deployment import run_program
from neuro.errors import BadConfig, MissingExtra, RunError, UnknownChip
from neuro.events import EventSet
from neuro.hardware import compile as compile_network
from neuro.hardware import load_chip
from neuro.ir import IF, Input, Linear, Network, Output
from neuro.sweep import ROWS, SYNC, pareto, read_grid, sweep
from neuro.variants import variant


def toy(classes: int = 3, per_class: int = 4) -> EventSet:
    """Recordings of class k have ten events in channel k, a millisecond apart."""
    labels = np.repeat(np.arange(classes), per_class)
    times = np.tile(np.arange(10, dtype=np.float32) * 1e-3 + 1e-4, len(labels))
    channels = np.repeat(labels, 10).astype(np.int32)
    offsets = np.arange(len(labels) + 1) * 10
    return EventSet(times, channels, offsets, labels, np.arange(len(labels)), (3,), 0.012, ("a", "b", "c"), "toy")


def network(wrong: float = 0.3) -> Network:
    """Right for every class as it is; with two bits the stray weights are lost, with 90 % pruned everything is."""
    weight = np.eye(3) + wrong * np.roll(np.eye(3), 1, axis=0)
    nodes = {"in": Input((3,)), "fc": Linear(weight), "n": IF(v_threshold=0.5), "out": Output("count")}
    return chain(nodes, dt=1e-3)


GRID: dict[str, Any] = {"network.weight_bits": [2, 8], "network.sparsity": [0.0, 0.9]}


def test_rows_are_what_a_run_by_hand_gives(tmp_path: Path) -> None:
    found = sweep(network(), toy(), GRID, out=tmp_path, scheduler=SYNC)
    assert (found.computed, found.reused) == (4, 0)
    assert [(r["point"]["network.weight_bits"], r["point"]["network.sparsity"]) for r in found.rows] == list(
        itertools.product([2, 8], [0.0, 0.9])
    )
    for row in found.rows:
        bits, sparse = row["point"]["network.weight_bits"], row["point"]["network.sparsity"]
        program = compile_network(variant(network(), weight_bits=bits, sparsity=sparse), "loihi2", max_steps=12)
        answers = run_program(program, toy(), 12)
        assert row["accuracy"] == pytest.approx((answers.decision == toy().labels).mean())
        assert row["energy_j"] == answers.estimate.energy_j.to_json()
        assert row["latency_s"] == answers.estimate.latency_s.to_json()
        assert row["counters"] == pytest.approx(dict(answers.counters))
        assert row["fits"]
        assert not row["error"]
    assert len({r["accuracy"] for r in found.rows}) > 1
    assert len({r["energy_j"]["nominal"] for r in found.rows}) > 2
    table = json.loads((tmp_path / "sweep.json").read_text())
    assert table["rows"] == list(found.rows)
    assert (tmp_path / "pareto.png").read_bytes()[:4] == b"\x89PNG"


def test_nothing_is_computed_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = sweep(network(), toy(), GRID, out=tmp_path, scheduler=SYNC)
    lines = (tmp_path / ROWS).read_text().splitlines(keepends=True)
    # a process killed in the middle of a line
    (tmp_path / ROWS).write_text("".join(lines[:3]) + lines[3][: len(lines[3]) // 2])
    calls = []
    measured = module.measure
    monkeypatch.setattr(module, "measure", lambda s, p: calls.append(p) or measured(s, p))
    again = sweep(network(), toy(), GRID, out=tmp_path, scheduler=SYNC)
    assert len(calls) == again.computed == 2
    assert again.reused == 2
    assert again.rows == first.rows
    wider = sweep(network(), toy(), {**GRID, "network.sparsity": [0.0, 0.5, 0.9]}, out=tmp_path, scheduler=SYNC)
    assert (wider.computed, wider.reused) == (2, 4)
    assert len(wider.rows) == 6


def test_another_network_is_not_mixed_in(tmp_path: Path) -> None:
    sweep(network(), toy(), {"steps": [12]}, out=tmp_path, scheduler=SYNC)
    with pytest.raises(RunError, match="another network"):
        sweep(network(0.31), toy(), {"steps": [12]}, out=tmp_path, scheduler=SYNC)


def test_limits_constants_options_and_steps() -> None:
    grid = {
        "limits.cores": [120, 1],
        "energy.synop": [23.6e-12, 47.2e-12],
        "compile.readout_headroom": [1.0],
        "compile.start_up": [True],
        "steps": [6, 12],
    }
    rows = {
        (r["point"]["limits.cores"], r["point"]["energy.synop"], r["point"]["steps"]): r
        for r in sweep(network(), toy(), grid, scheduler=SYNC).rows
    }
    base = load_chip("loihi2").energy["synop"]
    one, two = rows[120, 23.6e-12, 12], rows[120, 47.2e-12, 12]
    synops = one["counters"]["synops"]
    for k, value in (("low", base.low), ("nominal", base.value), ("high", base.high)):
        assert two["energy_j"][k] - one["energy_j"][k] == pytest.approx(synops * value)  # the range moved with it
    assert rows[120, 23.6e-12, 6]["counters"]["spikes"] < one["counters"]["spikes"]
    assert rows[1, 23.6e-12, 12]["fits"]


def test_a_design_that_does_not_fit_is_a_row_with_its_violations() -> None:
    rows = sweep(network(), toy(), {"limits.core_memory": [196608, 13]}, scheduler=SYNC).rows
    assert [r["fits"] for r in rows] == [True, False]
    assert "memory" in rows[1]["violations"][0]["limit"]
    assert rows[1]["accuracy"] is None
    assert [r["pareto"] for r in rows] == [True, False]


def test_a_larger_limit_makes_room() -> None:
    big = chain(
        {"in": Input((3,)), "fc": Linear(np.ones((200, 3))), "n": IF(v_threshold=0.5), "out": Output("count")}, dt=1e-3
    )
    grid = {"limits.neurons_per_core": [2, 100], "limits.cores": [90, 120]}
    rows = sweep(big, toy(), grid, scheduler=SYNC).rows
    assert [r["fits"] for r in rows] == [False, True, True, True]  # 100 cores of two neurons, of 90 and of 120
    assert [r["cores"] for r in rows] == [None, 100, 2, 2]


@pytest.mark.parametrize(("limit", "value"), [("membrane_shift", 4), ("state_bits", 20), ("weight_exponent_low", 1)])
def test_a_limit_that_is_arithmetic_cannot_be_swept(limit: str, value: int) -> None:
    """The simulator has it compiled in: a row would be wrong, so there is none."""
    found = sweep(network(), toy(), {f"limits.{limit}": [value]}, scheduler=SYNC)
    assert found.rows[0]["accuracy"] is None
    assert f"limits.{limit} changes the integers" in found.errors[0]


def test_a_limit_nobody_asks_for_is_named() -> None:
    found = sweep(network(), toy(), {"chip": "loihi2", "limits.index_entry": [3]}, scheduler=SYNC)
    assert "does not ask for limits.index_entry" in found.errors[0]


def test_everything_wrong_with_a_grid_is_said_at_once() -> None:
    grid = {
        "network.weight_bit": [4],
        "limits.corse": [1],
        "network.sparsity": [1.5],
        "steps": [0],
        "compile.placement": [],
        "energy.synop": ["cheap"],
    }
    with pytest.raises(BadConfig) as caught:
        sweep(network(), toy(), grid, scheduler=SYNC)
    told = str(caught.value)
    assert len(caught.value.violations) == 6
    assert "Did you mean 'network.weight_bits'" in told
    assert "Did you mean 'limits.cores'" in told
    with pytest.raises(UnknownChip, match="loihi2"):
        sweep(network(), toy(), {"chip": ["loihi22"]}, scheduler=SYNC)


def test_grids_are_read_from_text() -> None:
    assert read_grid(["a.b=1,2.5,true", "c=traffic,1e-12"]) == {"a.b": (1, 2.5, True), "c": ("traffic", 1e-12)}
    with pytest.raises(BadConfig) as caught:
        read_grid(["a", "b=", "c=1,,2", "d=1", "d=2"])
    assert len(caught.value.violations) == 4


def _row(accuracy: float, energy: float, latency: float | None, fits: bool = True) -> dict[str, Any]:
    return {
        "accuracy": accuracy,
        "energy_j": {"nominal": energy},
        "latency_s": None if latency is None else {"nominal": latency},
        "fits": fits,
    }


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.booleans()), max_size=12))
def test_pareto_is_what_nobody_beats(values: list[tuple[int, int, int, bool]]) -> None:
    rows = [_row(a, e, t, fits) for a, e, t, fits in values]

    def beats(one: tuple[int, ...], two: tuple[int, ...]) -> bool:
        as_good = one[0] >= two[0] and one[1] <= two[1] and one[2] <= two[2]
        return as_good and one[:3] != two[:3]

    wanted = [v[3] and not any(w[3] and beats(w, v) for w in values) for v in values]
    assert pareto(rows) == wanted


def test_latency_counts_only_where_all_have_it() -> None:
    assert pareto([_row(1, 1, 5), _row(1, 2, None)]) == [True, False]
    assert pareto([_row(1, 1, 5), _row(1, 2, 1)]) == [True, True]


@pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="needs the extra 'sweep' (Dask)")
def test_processes_of_dask_give_the_same_rows(tmp_path: Path) -> None:
    here = sweep(network(), toy(), GRID, scheduler=SYNC)
    there = sweep(network(), toy(), GRID, out=tmp_path, workers=1)
    assert there.rows == here.rows
    assert there.computed == 4


def test_without_dask_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingExtra, match=r"axonport\[sweep\]"):
        sweep(network(), toy(), GRID)


def test_the_command(tmp_path: Path) -> None:
    """On embedded data: JSON on standard output, a table without it, and every wrong name at once."""
    from typer.testing import CliRunner

    import neuro
    from neuro.cli import app

    data = neuro.load_dataset("braille")
    n = int(np.prod(data.shape))
    weight = np.random.default_rng(0).normal(0, 0.2, (len(data.classes), n))
    nodes = {"in": Input(data.shape), "fc": Linear(weight), "n": IF(v_threshold=1.0), "out": Output("count")}
    net = tmp_path / "net.nir"
    neuro.save(chain(nodes, dt=10e-3), net)
    common = ["sweep", str(net), "--data", "braille", "--samples", "27", "--out", str(tmp_path / "out")]
    common += ["--set", "network.weight_bits=2,8", "--set", "network.sparsity=0,0.5", "--scheduler", "sync"]
    done = CliRunner().invoke(app, [*common, "--json"])
    assert done.exit_code == 0, done.output
    table = json.loads(done.stdout)
    assert [len(table["rows"]), table["computed"], table["reused"]] == [4, 4, 0]
    assert all(r["samples"] == 27 for r in table["rows"])
    shown = CliRunner().invoke(app, common)
    assert "4 designs, 0 measured now, 4 before" in shown.output
    assert "weight_bits" in shown.output
    wrong = CliRunner().invoke(app, [*common, "--set", "limits.corse=1", "--set", "network.bits=1"])
    assert isinstance(wrong.exception, BadConfig)
    assert len(wrong.exception.violations) == 2
