"""One worker of a search. Workers know of each other through the storage alone."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from neuro.extend import require
from neuro.search_propose import Plan, Point, propose

Row = dict[str, Any]
STORAGE, STUDY, ASKING = "search.db", "search", ".asking.lock"
POLL_S = 0.1
WAIT_S = 300  # for another writer of the storage


class Problem(Protocol):
    """What is searched. Frozen and picklable: it is sent to every worker.

    name: for pictures. digest: changes with everything that a row depends on, but the point. space: names and values
    that may be chosen.
    """

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str: ...

    @property
    def space(self) -> Mapping[str, tuple[Any, ...]]: ...

    def measure(self, point: Mapping[str, Any], split: str) -> Row:
        """A row as `neuro.sweep` has it: point, fits, violations, error, accuracy, energy_j, latency_s, cores. split:
        "valid" while searching, "test" for the front, once."""
        ...


@dataclass(frozen=True)
class Task:
    """What all workers share. objectives: see `neuro.search.OBJECTIVES`."""

    folder: Path
    problem: Problem
    plan: Plan
    objectives: tuple[str, ...]
    trials: int


def storage(folder: Path) -> Any:
    optuna = require("optuna", extra="search")
    url = f"sqlite:///{(folder / STORAGE).resolve()}"
    return optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": WAIT_S}})


def open_study(task: Task) -> Any:
    """The study in a folder; made where there is none."""
    optuna = require("optuna", extra="search")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(
        study_name=STUDY,
        storage=storage(task.folder),
        directions=["minimize"] * len(task.objectives),
        sampler=_sampler(task),
        load_if_exists=True,
    )


def _sampler(task: Task) -> Any:
    optuna = require("optuna", extra="search")

    class Generations(optuna.samplers.BaseSampler):  # type: ignore[name-defined,misc]  # of a package that is not there always
        """Gives a trial what its number is due."""

        def __init__(self) -> None:
            self.made: dict[int, list[Point]] = {}

        def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
            return {}

        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
            return {}

        def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
            generation, place = divmod(trial.number, task.plan.size)
            if generation not in self.made:
                before = wait_for(study, generation * task.plan.size)
                self.made = {generation: propose(task.plan, generation, before)}
            return task.plan.space[param_name].index(self.made[generation][place][param_name])

    return Generations()


def wait_for(study: Any, count: int) -> list[tuple[Point, tuple[float, ...] | None]]:
    """What the first ``count`` trials found, once all of them are finished; None where the point was refused."""
    while True:
        trials = sorted(study.get_trials(deepcopy=False), key=lambda t: t.number)[:count]
        if len(trials) == count and all(t.state.is_finished() for t in trials):
            return [(dict(t.user_attrs["point"]), tuple(t.values) if t.values else None) for t in trials]
        time.sleep(POLL_S)


def work(task: Task, orphans: Sequence[int] = ()) -> None:
    """Measure until the search has all its trials. orphans: numbers of trials that a killed worker left unfinished."""
    from filelock import FileLock

    optuna = require("optuna", extra="search")
    study = open_study(task)
    for number in orphans:
        frozen = next(t for t in study.get_trials(deepcopy=False) if t.number == number)
        _finish(task, study, optuna.trial.Trial(study, frozen._trial_id))
    while True:
        with FileLock(str(task.folder / ASKING)):  # how many there are, and one more, must be one thing
            if len(study.get_trials(deepcopy=False)) >= task.trials:
                return
            trial = study.ask()
        _finish(task, study, trial)


def _finish(task: Task, study: Any, trial: Any) -> None:
    """Measure a trial and say what came out: values, or no values and the reasons in its row."""
    optuna = require("optuna", extra="search")
    point: Point = {}
    for name, values in task.plan.space.items():
        numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
        last = len(values) - 1
        at = trial.suggest_int(name, 0, last) if numbers else trial.suggest_categorical(name, tuple(range(last + 1)))
        point[name] = values[at]
    trial.set_user_attr("point", point)
    row = task.problem.measure(point, "valid")
    found = costs(row, task.objectives)
    trial.set_user_attr("row", row)
    if found is None:
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    else:
        study.tell(trial, list(found))


def costs(row: Mapping[str, Any], objectives: Sequence[str]) -> tuple[float, ...] | None:
    """Objectives of a row, all to be minimised; None where it does not fit, or one is not known."""
    if not row["fits"] or row["error"] or any(row[name] is None for name in objectives):
        return None
    found = []
    for name in objectives:
        value = row[name]["nominal"] if isinstance(row[name], Mapping) else row[name]
        found.append(-float(value) if name == "accuracy" else float(value))
    return tuple(found)
