"""Measured runs stay within the limits that tests/proofs/energy_validation.py judges by."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import axon_energy_runs as runs
import numpy as np
import pytest

from neuro.hardware.baseline import ann_counts

LIMITS = {runs.EVENT: 0.25, runs.TOTAL: 0.10, runs.TIME: 0.15}
JUDGED = [r for r in runs.RUNS if r.judged in LIMITS]
RESULT = Path(__file__).parents[2] / "docs" / "results" / "energy_validation.json"


@pytest.mark.parametrize("run", JUDGED, ids=[f"{r.name}, {r.what}" for r in JUDGED])
def test_a_judged_run_is_within_its_limit(run: runs.Run) -> None:
    assert run.kind != "fit"
    low, nominal, high = run.value()
    assert low <= nominal <= high
    assert abs(nominal / run.measured - 1) <= LIMITS[run.judged]


def test_event_energies_have_a_small_median() -> None:
    errors = [abs(r.value()[1] / r.measured - 1) for r in JUDGED if r.judged == runs.EVENT]
    assert statistics.median(errors) <= 0.15


def test_pilotnet_has_the_shape_that_its_notebook_prints() -> None:
    sizes = {n: int(np.prod(runs.pilotnet().shapes[n])) for n in runs.pilotnet().nodes}
    printed = {"n0": 200 * 66 * 3, "n1": 99 * 32 * 24, "n2": 49 * 15 * 36, "n3": 24 * 7 * 48, "n4": 22 * 4 * 64}
    assert {n: sizes[n] for n in printed} == printed
    assert (sizes["n5"], sizes["n6"], sizes["n9"]) == (20 * 2 * 64, 100, 1)
    assert ann_counts(runs.pilotnet())[0]["neurons"] == sum(v for n, v in sizes.items() if n[0] == "n")


def test_the_published_table_is_what_is_computed_now() -> None:
    table = json.loads(RESULT.read_text(encoding="utf-8"))["table"]
    assert [(r["run"], r["what"]) for r in table] == [(r.name, r.what) for r in runs.RUNS]
    for row, run in zip(table, runs.RUNS, strict=True):
        assert row["predicted"] == pytest.approx(run.value()[1], rel=1e-9), row["run"]
        assert row["measured"] == run.measured
