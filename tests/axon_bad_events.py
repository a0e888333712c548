"""Bad events, and bad input of the float reference and of discretisation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from axon_bad import Attempt, category, pick
from axon_bad_core import NAN_OR_INF, Rng, some_network

from neuro import ir, reference
from neuro.discretise import decay, tau
from neuro.errors import BadEventFile, NetworkError, SimulationError
from neuro.events import Events, EventSet


@category("discretisation: decay and tau")
def bad_decay(rng: Rng, folder: Path) -> Attempt:
    x = float(rng.uniform(0.1, 5))
    what, call = pick(
        rng,
        {
            "tau zero": lambda: decay(np.array([x, 0.0]), 1e-3, "exact"),
            "tau negative": lambda: decay(np.array([-x]), 1e-3, "euler"),
            "tau NaN": lambda: decay(np.array([math.nan]), 1e-3, "exact"),
            "overshoot": lambda: decay(np.array([x]), 2 * x, "euler"),
            "rule": lambda: decay(np.array([x]), 1e-3, "other"),
            "decay above 1": lambda: tau(1 + x, 1e-3),
            "decay 0": lambda: tau(0.0, 1e-3),
            "dt": lambda: tau(0.5, -x),
        },
    )
    return Attempt(what, call, ("time constant", "overshoots", "discretisation", "decay", "dt"), NetworkError)


@category("reference: input")
def bad_dense(rng: Rng, folder: Path) -> Attempt:
    net = some_network(rng)
    shape = net.shapes["in"]
    good = rng.integers(0, 2, (int(rng.integers(1, 5)), 2, *shape)).astype(np.float64)
    reference.run(net, good, record=())
    spoiled = good.copy()
    spoiled.flat[int(rng.integers(good.size))] = NAN_OR_INF[int(rng.integers(3))]
    what, dense = pick(
        rng,
        {
            "not finite": spoiled,
            "no batch": good[:, 0],
            "no time": good[:0],
            "empty batch": good[:, :0],
            "other shape": np.concatenate([good, good], axis=2),
            "more axes": good[..., None],
            "texts": good.astype(str),
            "objects": good.astype(object),
            "complex": good * 1j,
            "longdouble": good.astype(np.longdouble),
            "None": None,
            "ragged": [[[1.0]], [[1.0, 2.0]]],
            "number": 3,
            "other name": {"inp": good},
            "events": Events([0], [0], shape, 3, 1e-3),  # type: ignore[arg-type]
        },
    )
    return Attempt(what, lambda: reference.run(net, dense), ("'in'", "[time, batch", "input"), SimulationError)


@category("reference: unstable or unknown")
def bad_run(rng: Rng, folder: Path) -> Attempt:
    gain = 10.0 ** int(rng.integers(100, 300))
    assert gain > 1e99
    nodes = {"i": ir.Input((1,)), "n": ir.LI(1e-3), "w": ir.Linear([[gain]]), "o": ir.Output("sum")}
    net = ir.Network(nodes, (("i", "n"), ("n", "w"), ("w", "n"), ("n", "o")), 1e-3)
    what, call = pick(
        rng,
        {
            "unstable": lambda: reference.run(net, np.ones((20, 1, 1))),
            "record": lambda: reference.run(net, np.ones((1, 1, 1)), record=("voltage",)),
            "two outputs": lambda: reference.scores(*_two_outputs()),
        },
    )
    return Attempt(what, call, ("float64", "record", "exactly one Output"), (NetworkError, SimulationError))  # type: ignore[arg-type]


def _two_outputs() -> tuple[ir.Network, reference.Record]:
    nodes = {"i": ir.Input((1,)), "n": ir.IF(1.0), "a": ir.Output(), "b": ir.Output()}
    net = ir.Network(nodes, (("i", "n"), ("n", "a"), ("n", "b")), 1e-3)
    return net, reference.run(net, np.ones((1, 1, 1)))


@category("events: one sample")
def bad_events(rng: Rng, folder: Path) -> Attempt:
    n, steps, shape = int(rng.integers(1, 9)), int(rng.integers(2, 9)), (2, 3)
    good: dict[str, Any] = {
        "t": rng.integers(0, steps, n), "x": rng.integers(0, 6, n), "shape": shape, "steps": steps, "dt": 1e-3,
    }  # fmt: skip
    Events(**good)
    k = int(rng.integers(n))

    def with_one(column: str, value: float) -> Any:
        spoiled = good[column].astype(np.float64 if value != int(value) else np.int64)
        spoiled[k] = value
        return spoiled

    what, changed = pick(
        rng,
        {
            "late": {"t": with_one("t", steps + int(rng.integers(100)))},
            "early": {"t": with_one("t", -1)},
            "channel": {"x": with_one("x", 6 + int(rng.integers(10**6)))},
            "negative channel": {"x": with_one("x", -3)},
            "fraction": {"t": with_one("t", 0.5)},
            "float": {"x": good["x"].astype(float)},
            "text": {"x": good["x"].astype(str)},
            "object": {"t": good["t"].astype(object)},
            "length": {"t": good["t"][:-1], "x": good["x"]},
            "two axes": {"t": good["t"][None]},
            "None": {"t": None},
            "no steps": {"steps": 0},
            "steps fraction": {"steps": 2.5},
            "steps NaN": {"steps": math.nan},
            "dt zero": {"dt": 0.0},
            "dt NaN": {"dt": math.nan},
            "dt text": {"dt": "1e-3"},
            "shape zero": {"shape": (0, 3)},
            "shape list": {"shape": [2, 3]},
            "shape huge": {"shape": (2**40, 2**40)},
            "shape None": {"shape": None},
        },
    )
    names = ("steps", "channels", "whole", "vector", "events", "dt", "shape", "x", "t")
    return Attempt(what, lambda: Events(**{**good, **changed}), names, BadEventFile)


@category("events: dense")
def bad_from_dense(rng: Rng, folder: Path) -> Attempt:
    good = rng.integers(0, 2, (4, 3)).astype(float)
    spoiled = good.copy()
    spoiled.flat[int(rng.integers(good.size))] = NAN_OR_INF[int(rng.integers(3))]
    huge = Events([0], [0], (2**20,), 2**20, 1e-3)  # type: ignore[arg-type]
    what, call = pick(
        rng,
        {
            "not finite": lambda: Events.from_dense(spoiled, 1e-3),
            "texts": lambda: Events.from_dense(good.astype(str), 1e-3),
            "objects": lambda: Events.from_dense(good.astype(object), 1e-3),
            "vector": lambda: Events.from_dense(good[0], 1e-3),
            "empty": lambda: Events.from_dense(good[:0], 1e-3),
            "ragged": lambda: Events.from_dense([[1], [1, 2]], 1e-3),
            "dt": lambda: Events.from_dense(good, -1.0),
            "beyond memory": huge.to_dense,
        },
    )
    return Attempt(what, call, ("dense", "dt"), BadEventFile)


@category("events: recordings")
def bad_event_set(rng: Rng, folder: Path) -> Attempt:
    n = int(rng.integers(4, 9))
    good: dict[str, Any] = {
        "times": np.sort(rng.uniform(0, 0.1, n)), "channels": rng.integers(0, 5, n), "offsets": np.array([0, n - 1, n]),
        "labels": np.array([0, 1]), "groups": np.array([0, 1]), "shape": (5,), "duration": 0.1, "classes": ("a", "b"),
    }  # fmt: skip
    data = EventSet(**good)
    late = good["times"].copy()
    late[0] = math.nan
    what, call = pick(
        rng,
        {
            **{
                name: (lambda changed=changed: EventSet(**{**good, **changed}))
                for name, changed in {
                    "NaN time": {"times": late},
                    "negative time": {"times": good["times"] - 1},
                    "not sorted": {"times": good["times"][::-1] + np.arange(n) * 1e-9},
                    "channel": {"channels": good["channels"] + 5},
                    "fraction": {"channels": good["channels"] + 0.5},
                    "lengths": {"channels": good["channels"][1:]},
                    "offsets fall": {"offsets": np.array([0, n, n - 1])},
                    "offsets short": {"offsets": np.array([0, n])},
                    "offsets beyond": {"offsets": np.array([0, 1, n + 1])},
                    "labels": {"labels": np.array([0, 2])},
                    "groups": {"groups": np.array([0])},
                    "shape": {"shape": ()},
                    "duration": {"duration": -0.1},
                    "texts": {"times": good["times"].astype(str)},
                }.items()
            },
            "bin dt": lambda: data.events(0, 0.0, 10),
            "bin steps": lambda: data.batch([0, 1], 1e-3, -1),
            "bin dt NaN": lambda: data.batch([0], math.nan, 10),
            "bin beyond memory": lambda: data.batch([0, 1], 1e-12, 2**31 - 1),
        },
    )
    names = ("times", "channels", "offsets", "labels", "groups", "shape", "duration", "dt", "steps", "bytes")
    return Attempt(what, call, names, BadEventFile)
