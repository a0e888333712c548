"""Hardware-aware search: designs that are accurate, frugal, quick and small at once, with the estimator in the loop.

    from neuro.search import search
    from neuro.search_convert import Converted

    found = search(Converted(), trials=64, out="designs", workers=2)
    for row in found.front:
        print(row["point"], row["accuracy"], row["energy_j"]["nominal"])

A trial builds one design (width, depth, levels, bits, sparsity, recipe, chip: the problem says what may be chosen),
compiles it, simulates it bit for bit on the validation data, and estimates what that costs. What the chip refuses is
kept with its reasons, and has no values. The designs that nothing beats are measured once more, on the test data.

Trials are in ``search.db`` (Optuna's SQLite) as they are done. The same command goes on after a kill, or with more
trials; the trials do not depend on interruptions nor on the number of workers, see `neuro.search_propose`.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import multiprocessing.connection
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from neuro.errors import BadConfig, RunError
from neuro.extend import did_you_mean, require
from neuro.files import write_json
from neuro.search_front import front
from neuro.search_propose import SAMPLERS, Plan, size_of
from neuro.search_worker import Problem, Row, Task, costs, open_study, work

FORMAT = 1
RESULT, PICTURE = "search.json", "front.png"
OBJECTIVES = ("accuracy", "energy_j", "latency_s", "cores")  # accuracy is maximised, others minimised
GENERATION = 8
Progress = Callable[[str], None]

__all__ = ["OBJECTIVES", "Search", "search"]


@dataclass(frozen=True)
class Search:
    """rows: one per trial, in order; ``pareto`` marks the front. tested: the front's rows on test data, in its order.
    computed, reused: how many trials were new, and not."""

    rows: tuple[Row, ...]
    objectives: tuple[str, ...]
    computed: int
    reused: int
    tested: tuple[Row, ...] = field(default=())

    @property
    def front(self) -> tuple[Row, ...]:
        """The rows that no other beats, most accurate first."""
        return tuple(sorted((r for r in self.rows if r["pareto"]), key=lambda r: -(r["accuracy"] or 0.0)))

    @property
    def refused(self) -> tuple[Row, ...]:
        """The rows without values, with their reasons."""
        return tuple(r for r in self.rows if costs(r, self.objectives) is None)

    def to_json(self) -> dict[str, Any]:
        return {
            "objectives": list(self.objectives),
            "rows": list(self.rows),
            "tested": list(self.tested),
            "computed": self.computed,
            "reused": self.reused,
        }


def search(
    problem: Problem,
    *,
    out: Path | str,
    trials: int = 64,
    space: Mapping[str, Sequence[Any]] | None = None,
    objectives: Sequence[str] = OBJECTIVES,
    sampler: str = "evolve",
    seed: int = 0,
    workers: int = 1,
    generation: int = GENERATION,
    test: bool = True,
    progress: Progress = lambda _: None,
) -> Search:
    """Search a problem's designs.

    Args:
        problem: see `neuro.search_worker.Problem`; `neuro.search_convert.Converted` is one.
        out: folder for search.db (resumed), search.json and front.png.
        trials: designs to try, those that are refused included.
        space: narrows what may be chosen: name -> values.
        sampler: "evolve", "tpe" (Optuna's), or "random" to compare with.
        workers: processes; a script that uses more than one calls this under ``if __name__ == "__main__"``.
        generation: trials that are proposed together, from all before them. test: measure the front on test data.

    Raises:
        BadConfig: names or values that the problem does not have, options out of range; all of them.
        RunError: ``out`` holds another search or is in use; a worker died (run again to go on).
        MissingExtra: Optuna is not installed; pip install 'axonport[search]'.
    """
    from neuro.results import locked

    require("optuna", extra="search")
    chosen = _checked(problem, space, objectives, sampler, trials, workers, generation)
    plan = Plan(chosen, len(objectives), sampler, seed, generation)
    folder = Path(out)
    with locked(folder):
        task = Task(folder, problem, plan, tuple(objectives), min(trials, size_of(chosen)))
        study = open_study(task)
        _claim(study, task)
        held = study.get_trials(deepcopy=False)
        done = sum(t.state.is_finished() for t in held)
        orphans = [t.number for t in held if not t.state.is_finished()]
        progress(f"{task.trials} trials, {done} of them done before")
        _run(task, orphans, workers if task.trials - done > 1 else 1)
        kept = sorted(study.get_trials(deepcopy=False), key=lambda t: t.number)
        rows = _marked([dict(t.user_attrs["row"]) for t in kept], task.objectives)
        found = Search(rows, task.objectives, len(kept) - done, done)
        tested = _tested(folder, found, problem, progress) if test else ()
        found = Search(rows, task.objectives, len(kept) - done, done, tested)
        _write(found, task)
    return found


def _checked(
    problem: Problem,
    space: Mapping[str, Sequence[Any]] | None,
    objectives: Sequence[str],
    sampler: str,
    trials: int,
    workers: int,
    generation: int,
) -> dict[str, tuple[Any, ...]]:
    own = {name: tuple(values) for name, values in problem.space.items()}
    bad = []
    for name, values in (space or {}).items():
        if name not in own:
            bad.append(f"nothing to choose is called '{name}'. {did_you_mean(name, own)}")
        elif not values:
            bad.append(f"'{name}' has no values")
        else:
            own[name] = tuple(dict.fromkeys(values))
    judge = getattr(problem, "problems", None)
    bad += list(judge(own)) if judge is not None and not bad else []
    bad += [f"no objective '{o}'. {did_you_mean(o, OBJECTIVES)}" for o in objectives if o not in OBJECTIVES]
    if not objectives or len(set(objectives)) != len(objectives):
        bad.append("objectives: one or more, each once")
    if sampler not in SAMPLERS:
        bad.append(f"no sampler '{sampler}'. {did_you_mean(sampler, SAMPLERS)}")
    for name, value in (("trials", trials), ("workers", workers), ("generation", generation)):
        bad += [] if value >= 1 else [f"{name} must be at least 1, got {value}"]
    if bad:
        raise BadConfig("this cannot be searched", bad)
    return own


def _claim(study: Any, task: Task) -> None:
    """Make the folder the place of this search."""
    plan = task.plan
    header = {
        "format": FORMAT,
        "problem": task.problem.digest,
        "space": hashlib.sha256(repr(sorted(plan.space.items())).encode()).hexdigest(),
        "objectives": list(task.objectives),
        "sampler": plan.sampler,
        "seed": plan.seed,
        "generation": plan.size,
    }
    held = study.user_attrs.get("search")
    if held is None:
        study.set_user_attr("search", header)
    elif held != header:
        other = [n for n in header if held.get(n) != header[n]]
        raise RunError(f"{task.folder} holds a search with another {', '.join(other)}; choose another --out")


def _run(task: Task, orphans: Sequence[int], workers: int) -> None:
    if workers == 1:
        work(task, orphans)
        return
    context = multiprocessing.get_context("spawn")
    before = {n: os.environ.get(n) for n in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")}
    os.environ.update(dict.fromkeys(before, "1"))  # processes share the processors, not threads
    try:
        started = [context.Process(target=work, args=(task, orphans[k::workers])) for k in range(workers)]
        for each in started:
            each.start()
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    try:
        alive = list(started)
        while alive:
            multiprocessing.connection.wait([each.sentinel for each in alive])
            alive = [each for each in alive if each.is_alive()]
            dead = [each.exitcode for each in started if each.exitcode not in (None, 0)]
            if dead:  # the others would wait for its trial
                raise RunError(f"a worker of the search ended with {dead[0]}; run the same command again to go on")
    finally:
        for each in started:
            if each.is_alive():
                each.terminate()
            each.join()


def _marked(rows: Sequence[Row], objectives: Sequence[str]) -> tuple[Row, ...]:
    values = [costs(r, objectives) for r in rows]
    some = [k for k, v in enumerate(values) if v is not None]
    best = front(np.array([values[k] for k in some], dtype=np.float64)) if some else np.zeros(0, np.bool_)
    marked = {k for k, is_best in zip(some, best, strict=True) if is_best}
    return tuple({**r, "pareto": k in marked} for k, r in enumerate(rows))


def _tested(folder: Path, found: Search, problem: Problem, progress: Progress) -> tuple[Row, ...]:
    """The front on test data; what was measured there once is not measured again."""
    held: dict[str, Row] = {}
    if (folder / RESULT).is_file():
        try:
            old = json.loads((folder / RESULT).read_text(encoding="utf-8"))
            held = {repr(r["point"]): r for r in old["tested"]} if old["digest"] == problem.digest else {}
        except (ValueError, KeyError):
            held = {}
    rows = []
    for row in found.front:
        name = repr(row["point"])
        if name not in held:
            progress(f"on test data: {name}")
            held[name] = {**problem.measure(row["point"], "test"), "pareto": True}
        rows.append(held[name])
    return tuple(rows)


def _write(found: Search, task: Task) -> None:
    from neuro import plots
    from neuro.deployment import versions
    from neuro.search_picture import picture

    plan = task.plan
    table = {
        "problem": task.problem.name,
        "digest": task.problem.digest,
        "space": {n: list(v) for n, v in plan.space.items()},
        "sampler": plan.sampler,
        "seed": plan.seed,
        "generation": plan.size,
        "versions": versions(),
    }
    write_json(task.folder / RESULT, {**table, **found.to_json()})
    if any(r["fits"] and r["energy_j"] and r["accuracy"] is not None for r in found.rows):
        drawn = picture(found.rows, f"{task.problem.name}: {len(found.rows)} designs")
        plots.save(drawn, task.folder / PICTURE)
