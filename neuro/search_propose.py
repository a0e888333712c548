"""What a search tries next: a function of its seed and of what is known, and of nothing else.

Trials come in generations of a fixed size. What generation g tries is computed from all trials of generations before
it, in the order of their numbers, by a sampler that is seeded with (seed, g). Every process computes the same, whoever
measured what and when: a search that was killed and went on, or had eight workers instead of one, has the same trials.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuro.extend import require
from neuro.search_front import front

Point = dict[str, Any]
Space = Mapping[str, tuple[Any, ...]]
Known = Sequence[tuple[Point, tuple[float, ...] | None]]  # None: refused
SAMPLERS: dict[str, Callable[..., list[Point]]] = {}
STRANGERS = 0.2  # of what evolution proposes
AGAIN = 50  # times a sampler may repeat itself before any new point is taken


@dataclass(frozen=True)
class Plan:
    """How a search proposes. objectives: how many, all minimised. size: of a generation."""

    space: Space
    objectives: int
    sampler: str
    seed: int
    size: int


def sampler(name: str) -> Callable[[Callable[..., list[Point]]], Callable[..., list[Point]]]:
    def keep(function: Callable[..., list[Point]]) -> Callable[..., list[Point]]:
        SAMPLERS[name] = function
        return function

    return keep


def propose(plan: Plan, generation: int, known: Known) -> list[Point]:
    """The points of a generation, none of them known and none twice while there are others."""
    named = hashlib.sha256(f"{plan.seed}/{generation}".encode()).digest()
    return SAMPLERS[plan.sampler](plan, int.from_bytes(named[:4], "big"), known)


def key(point: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(sorted((n, repr(v)) for n, v in point.items()))


def size_of(space: Space) -> int:
    """How many points there are."""
    return math.prod(len(values) for values in space.values())


@sampler("random")
def random(plan: Plan, seed: int, known: Known) -> list[Point]:
    """Evenly, without repeating."""
    rng = np.random.default_rng(seed)
    seen = {key(point) for point, _ in known}
    return _new(plan, seen, lambda: _any(plan.space, rng), rng)


@sampler("evolve")
def evolve(plan: Plan, seed: int, known: Known) -> list[Point]:
    """Children of designs that nothing beats: each name from one of two parents, then moved with probability 1 / names,
    numbers to a neighbour, names to any. One in five is anything, and so is all before something was measured."""
    rng = np.random.default_rng(seed)
    seen = {key(point) for point, _ in known}
    measured = [(point, values) for point, values in known if values is not None]
    best = front(np.array([values for _, values in measured], dtype=np.float64)) if measured else np.zeros(0, np.bool_)
    parents = [point for (point, _), is_best in zip(measured, best, strict=True) if is_best]

    def ask() -> Point:
        if not parents or rng.random() < STRANGERS:
            return _any(plan.space, rng)
        pair = [parents[int(rng.integers(len(parents)))] for _ in range(2)]
        child = {}
        for name, values in plan.space.items():
            at = values.index(pair[int(rng.integers(2))][name])
            if rng.random() < 1 / len(plan.space):
                step = int(rng.choice((-1, 1)))
                at = min(max(at + step, 0), len(values) - 1) if _ordered(values) else int(rng.integers(len(values)))
            child[name] = values[at]
        return child

    return _new(plan, seen, ask, rng)


@sampler("tpe")
def tpe(plan: Plan, seed: int, known: Known) -> list[Point]:
    """Tree-structured Parzen estimators of good and other points (Ozaki et al. 2022, MOTPE), as Optuna has them. A
    refused point counts as the worst that was measured, in this model alone."""
    optuna = require("optuna", extra="search")
    rng = np.random.default_rng(seed)
    seen = {key(point) for point, _ in known}
    measured = [values for _, values in known if values is not None]
    if not measured:
        return _new(plan, seen, lambda: _any(plan.space, rng), rng)
    worst = tuple(max(v[k] for v in measured) for k in range(plan.objectives))
    axes = {name: _axis(optuna, values) for name, values in plan.space.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # options that Optuna calls experimental
        before = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        model = optuna.samplers.TPESampler(seed=seed, n_startup_trials=plan.size, multivariate=True, constant_liar=True)
        study = optuna.create_study(directions=["minimize"] * plan.objectives, sampler=model)
        study.add_trials(
            [
                optuna.trial.create_trial(
                    params={n: plan.space[n].index(v) for n, v in point.items()},
                    distributions=axes,
                    values=list(values or worst),
                )
                for point, values in known
            ]
        )

        def ask() -> Point:
            found = study.ask(axes).params
            return {n: plan.space[n][found[n]] for n in plan.space}

        try:
            return _new(plan, seen, ask, rng)
        finally:
            optuna.logging.set_verbosity(before)


def _ordered(values: Sequence[Any]) -> bool:
    return all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)


def _axis(optuna: Any, values: Sequence[Any]) -> Any:
    """Numbers have an order, names have none."""
    if _ordered(values):
        return optuna.distributions.IntDistribution(0, len(values) - 1)
    return optuna.distributions.CategoricalDistribution(tuple(range(len(values))))


def _any(space: Space, rng: np.random.Generator) -> Point:
    return {name: values[int(rng.integers(len(values)))] for name, values in space.items()}


def _new(plan: Plan, seen: set[tuple[Any, ...]], ask: Callable[[], Point], rng: np.random.Generator) -> list[Point]:
    found: list[Point] = []
    for _ in range(plan.size):
        point = ask()
        for attempt in range(2 * AGAIN):
            if key(point) not in seen or len(seen) >= size_of(plan.space):
                break
            point = ask() if attempt < AGAIN else _any(plan.space, rng)
        seen.add(key(point))
        found.append(point)
    return found
