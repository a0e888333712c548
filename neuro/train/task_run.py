"""`run_tasks`: the network of a configuration, trained on its classes a few at a time, through several methods.

The configuration gives network, data, learning rule, batch size, logits and clipping. What belongs to training on all
classes at once is left out, and said: variation and augmentation of recordings, its optimiser (steps are SGD's, which
stay where a projected gradient lies), pruning, noise and quantisation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuro.datasets.source import source
from neuro.errors import BadConfig
from neuro.extend import did_you_mean
from neuro.files import write_json
from neuro.learn.continual import EWC, GPM, Method, Replay, matrices
from neuro.learn.hlop import HLOP
from neuro.learn.inhibition import SOFTNESS, Inhibition
from neuro.learn.rule import Rule
from neuro.nn.network import SpikingNetwork
from neuro.train.build import build
from neuro.train.config import Config, load_config
from neuro.train.continual import Task, learn_tasks, split_classes

FILE = "continual.json"
ENERGY = 0.98  # of a layer's input that lateral neurons explain before the others are let go
Rows = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Lateral:
    """rows: of "hlop", by layer. softness: of "hlop-soft". own: layers whose weights no later task reaches."""

    rows: Rows
    softness: float
    own: tuple[str, ...]


METHODS: dict[str, Callable[[Rule, Lateral], Method]] = {
    "plain": lambda rule, lateral: Method(rule),
    "hlop": lambda rule, lateral: HLOP(rule, rows=lateral.rows, energy=ENERGY, passes=1),
    "hlop-soft": lambda rule, lateral: Inhibition(rule, softness=lateral.softness, leave_out=lateral.own),
    "gpm": lambda rule, lateral: GPM(rule, fixed=True, threshold=0.97, rise=0.0, leave_out=lateral.own),
    "ewc": lambda rule, lateral: EWC(rule, strength=1000.0),
    "replay": lambda rule, lateral: Replay(rule, samples=50),
}


@dataclass(frozen=True)
class Steps:
    """epochs: of each task; None takes the configuration's. lr, momentum: of SGD. anneal: see `learn_tasks`."""

    epochs: int | None = None
    lr: float = 0.1
    momentum: float = 0.9
    anneal: float = 0.0


def default_rows(model: SpikingNetwork, tasks: int, own: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """For each layer but those in ``own``: a third of its inputs for the first task, the rest shared by the others.
    What a task does not need is let go (`ENERGY`)."""
    found: dict[str, tuple[int, ...]] = {}
    for name, weights in matrices(model, own).items():
        first = max(1, weights.width // 3)
        found[name] = (first, max(1, (weights.width - first) // max(tasks - 1, 1)))
    return found


def run_tasks(
    config: str | Path | Config,
    out: Path | str,
    *,
    per_task: int,
    methods: Sequence[str] = ("hlop",),
    rows: Rows | None = None,
    softness: float = SOFTNESS,
    steps: Steps | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Writes and returns ``continual.json``: per method accuracy [after task, of task], ACC, BWT and bytes kept.

    Each task is ``per_task`` classes, in order, answered among themselves; trained on the split "train", judged on
    "valid". All methods begin with the same weights and see the same batches.

    rows: lateral neurons of "hlop" by layer, (first task, later tasks); `default_rows` where left out. softness: of
    "hlop-soft", see `neuro.learn.inhibition`.

    Raises:
        BadConfig: an unknown method, layers that rows names and the network has not, fewer classes than two tasks
            need. NetworkError: layers that a method, or the learning rule, is not defined on.
    """
    chosen = config if isinstance(config, Config) else load_config(config)
    steps = steps or Steps()
    bad = [f"method '{m}' is unknown. {did_you_mean(m, METHODS)}" for m in methods if m not in METHODS]
    tasks, shape, dt = _tasks(chosen, per_task, bad)
    if bad:
        raise BadConfig("continual learning cannot begin", bad)

    def network() -> SpikingNetwork:
        classes = len(source(chosen.data.dataset).classes)
        return build(chosen.layers, shape, dt, chosen.readout, chosen.seed, classes, chosen.data.high)

    first = network()
    own = (list(matrices(first))[-1],)
    unknown = [f"'{n}': the layers are {', '.join(matrices(first))}" for n in rows or {} if n not in matrices(first)]
    if unknown:
        raise BadConfig("rows of lateral neurons for layers that are not there", unknown)
    lateral = Lateral(rows or default_rows(first, len(tasks), own), softness, own)
    epochs = chosen.train.epochs if steps.epochs is None else steps.epochs
    table: dict[str, Any] = {
        "name": chosen.name, "dataset": chosen.data.dataset, "seed": chosen.seed, "rule": dict(chosen.rule),
        "tasks": [t.name for t in tasks], "per_task": per_task, "epochs": epochs, "lr": steps.lr,
        "momentum": steps.momentum, "anneal": steps.anneal, "rows": {n: list(r) for n, r in lateral.rows.items()},
        "softness": softness, "left_out": left_out(chosen),
        "methods": {},
    }  # fmt: skip
    for name in methods:
        progress(f"{chosen.name}: {len(tasks)} tasks of {per_task} classes, {name}")
        method = METHODS[name](chosen.learning, lateral)
        found = learn_tasks(
            network(), tasks, method, epochs=epochs, lr=steps.lr, momentum=steps.momentum,
            batch_size=chosen.train.batch_size, scale=chosen.loss.scale, clip=chosen.optimiser.clip,
            anneal=steps.anneal, seed=chosen.seed,
        )  # fmt: skip
        table["methods"][name] = {
            "acc": found.acc, "bwt": found.bwt, "memory_bytes": found.memory, "accuracy": found.accuracy.tolist(),
            "losses": list(found.losses),
        }  # fmt: skip
        write_json(Path(out) / FILE, table)
    return table


def left_out(config: Config) -> list[str]:
    """What a configuration asks for that `run_tasks` does not do."""
    asked = {
        "data.vary": config.data.vary, "data.augment": config.data.augment, "quantise": config.quantise,
        "noise": config.noise, "prune": config.prune,
    }  # fmt: skip
    return [name for name, value in asked.items() if value]


def _tasks(config: Config, per_task: int, bad: list[str]) -> tuple[list[Task], tuple[int, ...], float]:
    data = config.data
    of = source(data.dataset)
    if data.high > 1:
        bad.append(f"data.high is {data.high}: tasks are made of spikes; set it to 1")
    if not 1 <= per_task <= len(of.classes) // 2:
        bad.append(f"{per_task} classes in each task: '{data.dataset}' has {len(of.classes)}, two tasks need 1.."
                   f"{len(of.classes) // 2}")  # fmt: skip
    bad += [f"data.options.{n} is unknown. {did_you_mean(n, of.options)}" for n in data.options if n not in of.options]
    if bad:
        return [], (), 0.0
    train, valid = (of.load(split, data.path, **data.options) for split in ("train", "valid"))
    if data.limit is not None:
        train, valid = (s.subset(np.arange(min(data.limit, len(s)))) for s in (train, valid))
    dt = of.dt if data.dt is None else data.dt
    tasks = split_classes(data.dataset, per_task, steps=data.steps, dt=dt, folds=(train, valid))
    return tasks, train.shape, dt


__all__ = ["METHODS", "Steps", "default_rows", "left_out", "run_tasks"]
