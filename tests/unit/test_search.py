"""Search: the same trials whatever happens on the way; refusals keep their reasons; fronts and volumes by hand."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axon_search import Toy

from neuro.errors import BadConfig, RunError
from neuro.search_front import front, hypervolume

pytest.importorskip("optuna", reason="needs optuna: pip install 'axonport[search]'")

from neuro.search import Search, search
from neuro.search_picture import picture
from neuro.search_propose import Plan, key, propose

HERE = Path(__file__).resolve().parents[1]


def trials(found: Search) -> list[tuple[Any, ...]]:
    return [(key(r["point"]), r["accuracy"], repr(r["violations"])) for r in found.rows]


def test_volume_of_boxes_by_hand() -> None:
    assert hypervolume(np.array([[1.0, 1.0]]), (3, 4)) == 6.0
    assert hypervolume(np.array([[1.0, 2.0], [2.0, 1.0]]), (3, 3)) == 3.0
    assert hypervolume(np.array([[4.0, 0.0]]), (3, 3)) == 0.0
    assert hypervolume(np.zeros((0, 2)), (3, 3)) == 0.0


@pytest.mark.parametrize("dims", [2, 3, 4])
def test_volume_equals_counted_cells(dims: int) -> None:
    rng = np.random.default_rng(dims)
    for _ in range(20):
        points = rng.integers(0, 5, (6, dims)).astype(float)
        cells = itertools.product(range(5), repeat=dims)
        counted = sum(any((np.array(c) >= p).all() for p in points) for c in cells)
        assert hypervolume(points, (5,) * dims) == counted


def test_front_beats_all_others() -> None:
    values = np.random.default_rng(1).integers(0, 4, (60, 3)).astype(float)
    best = front(values)
    for k, own in enumerate(values):
        beaten = any((v <= own).all() and (v < own).any() for v in values)
        assert best[k] == (not beaten)


def test_proposals_are_new_and_depend_on_nothing_but_what_is_known() -> None:
    toy = Toy()
    for sampler in ("evolve", "tpe", "random"):
        plan = Plan(toy.space, 4, sampler, 3, 8)
        known: list[Any] = []
        for generation in range(4):
            points = propose(plan, generation, known)
            assert points == propose(plan, generation, known)
            known += [(p, None if k % 3 == 0 else (k * 1.0, 2.0 - k, 1.0, 0.0)) for k, p in enumerate(points)]
        assert len({key(p) for p, _ in known}) == 32


def test_rows_front_and_files(tmp_path: Path) -> None:
    found = search(Toy(), out=tmp_path, trials=24, seed=1)
    assert (len(found.rows), found.computed, found.reused) == (24, 24, 0)
    assert found.refused
    assert all(r["accuracy"] is None and r["violations"] for r in found.refused)
    assert not any(r["pareto"] for r in found.refused)
    assert [r["split"] for r in found.tested] == ["test"] * len(found.front)
    assert [r["point"] for r in found.tested] == [r["point"] for r in found.front]
    assert all(r["split"] == "valid" for r in found.rows if r["fits"])
    written = json.loads((tmp_path / "search.json").read_text())
    assert written["rows"] == list(found.rows)
    assert (tmp_path / "front.png").stat().st_size > 1000
    axes = picture(found.rows, "toy")
    assert len(axes) == 2
    assert all(a.collections for a in axes)


def test_going_on_measures_only_what_is_missing(tmp_path: Path) -> None:
    whole = search(Toy(), out=tmp_path / "a", trials=24, seed=1)
    first = search(Toy(), out=tmp_path / "b", trials=11, seed=1)
    more = search(Toy(), out=tmp_path / "b", trials=24, seed=1)
    assert trials(first) == trials(whole)[:11]
    assert trials(more) == trials(whole)
    assert (more.computed, more.reused) == (13, 11)
    with pytest.raises(RunError, match="seed"):
        search(Toy(), out=tmp_path / "b", trials=24, seed=2)
    with pytest.raises(RunError, match="problem"):
        search(Toy(shift=0.5), out=tmp_path / "b", trials=24, seed=1)


def test_the_front_is_tested_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    toy = Toy(log=str(log))
    search(toy, out=tmp_path / "s", trials=16)
    count = log.read_text().count("test")
    again = search(toy, out=tmp_path / "s", trials=16)
    assert again.computed == 0
    assert count == len(again.front) == log.read_text().count("test")


def test_two_workers_share_a_storage_and_lose_nothing(tmp_path: Path) -> None:
    one = search(Toy(pause_s=0.02), out=tmp_path / "one", trials=24, seed=5)
    two = search(Toy(pause_s=0.02, log=str(tmp_path / "log")), out=tmp_path / "two", trials=24, seed=5, workers=2)
    assert trials(one) == trials(two)
    done = [line.split() for line in (tmp_path / "log").read_text().splitlines() if "valid" in line]
    assert len(done) == 24
    assert len({who for who, *_ in done}) == 2


PROGRAM = """
import sys
sys.path.insert(0, {here!r})
from axon_search import Toy
from neuro.search import search
if __name__ == "__main__":
    search(Toy(pause_s=0.15), out={out!r}, trials=24, seed=7, workers={workers})
"""


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_killed_and_resumed_is_the_same(workers: int, tmp_path: Path) -> None:
    whole = search(Toy(), out=tmp_path / "whole", trials=24, seed=7)
    out = tmp_path / "killed"
    script = tmp_path / "run.py"
    script.write_text(textwrap.dedent(PROGRAM.format(here=str(HERE), out=str(out), workers=workers)))
    for wanted in (3, 12):
        job = subprocess.Popen([sys.executable, str(script)], start_new_session=True)
        while _rows(out) < wanted and job.poll() is None:
            time.sleep(0.02)
        os.killpg(job.pid, signal.SIGKILL)
        job.wait()
    assert 3 <= _rows(out, "rw") < 24
    resumed = search(Toy(), out=out, trials=24, seed=7, workers=1)
    assert trials(resumed) == trials(whole)


def _rows(out: Path, mode: str = "ro") -> int:
    """Trials that ended. A writer that was killed leaves a journal, which only a connection in mode ``rw`` undoes."""
    import sqlite3

    try:
        with sqlite3.connect(f"file:{out / 'search.db'}?mode={mode}", uri=True, timeout=5) as base:
            return int(base.execute("select count(*) from trials where state != 'RUNNING'").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


@pytest.mark.slow
def test_a_worker_that_dies_is_said_and_its_trial_done_again(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="worker"):
        search(Toy(die_at=9, mark=str(tmp_path / "died")), out=tmp_path / "s", trials=24, seed=7, workers=2)
    again = search(Toy(die_at=9, mark=str(tmp_path / "died")), out=tmp_path / "s", trials=24, seed=7, workers=2)
    assert trials(again) == trials(search(Toy(), out=tmp_path / "whole", trials=24, seed=7))


def test_everything_that_cannot_be_searched_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(BadConfig) as caught:
        search(Toy(), out=tmp_path, trials=0, space={"widht": [1], "chip": []}, objectives=("speed",), sampler="grid")
    assert len(caught.value.violations) == 5
    assert "Did you mean 'width'?" in str(caught.value)


def test_a_space_that_is_exhausted_ends(tmp_path: Path) -> None:
    found = search(Toy(), out=tmp_path, trials=100, space={"width": [1, 2], "bits": [2], "chip": ["a", "b"]})
    assert len(found.rows) == len({key(r["point"]) for r in found.rows}) == 4


def test_objectives_that_are_unknown_are_no_values(tmp_path: Path) -> None:
    found = search(Toy(unknown=True), out=tmp_path, trials=8)
    assert not found.front
    assert len(found.refused) == 8
    some = search(Toy(unknown=True), out=tmp_path / "b", trials=8, objectives=("accuracy", "cores"))
    assert some.front
