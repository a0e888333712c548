"""Bad training configurations, modules, run folders and CLI input."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from axon_bad import Attempt, category, pick
from axon_bad_core import some_network

from neuro import ir
from neuro.errors import BadConfig, ConversionError, NetworkError, NeuroError, RunError
from neuro.events import EventSet
from neuro.nn.bridge import to_module, to_network
from neuro.results import CONFIG, MANIFEST, Run, claim
from neuro.train.checkpoint import latest
from neuro.train.config import Config, load_config
from neuro.train.evaluate import evaluate

Rng = np.random.Generator

TABLE: dict[str, Any] = {
    "name": "small",
    "seed": 0,
    "readout": "sum",
    "data": {"dataset": "braille"},
    "layers": [
        {"type": "linear", "out": 8},
        {"type": "cuba_lif", "alpha": 0.8, "beta": 0.9},
        {"type": "linear", "out": 27},
        {"type": "li", "beta": 0.9},
    ],
    "loss": {"kind": "cross_entropy"},
    "optimiser": {"kind": "adamw", "lr": 1e-3, "betas": [0.9, 0.99]},
    "train": {"epochs": 1, "batch_size": 4},
}


def changed(where: str, value: Any) -> dict[str, Any]:
    """`TABLE` with one value set; numbers in the path are indices."""
    table = copy.deepcopy(TABLE)
    place: Any = table
    *path, last = where.split(".")
    for part in path:
        place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
    place[int(last) if isinstance(place, list) else last] = value
    return table


NONSENSE = (None, [], {}, "many", "", [1, 2, 3], {"a": 1}, math.nan, math.inf, -math.inf, 10**400)
NUMBERS = ("seed", "data.steps", "data.dt", "train.epochs", "train.batch_size", "train.patience", "optimiser.lr",
           "optimiser.warmup", "loss.label_smoothing", "loss.many", "layers.0.out", "layers.1.beta")  # fmt: skip
TEXTS = ("readout", "data.dataset", "data.train_on", "train.keep", "optimiser.kind", "optimiser.schedule", "loss.kind")


@category("train: values in a configuration")
def config_values(rng: Rng, folder: Path) -> Attempt:
    Config.from_table(TABLE)  # it is fine
    if rng.random() < 0.6:
        where = NUMBERS[int(rng.integers(len(NUMBERS)))]
        value = (*NONSENSE[1:], -1, -0.5, True)[int(rng.integers(len(NONSENSE) + 2))]
        if where == "layers.1.beta" and value is True:
            value = -1
    else:
        where = TEXTS[int(rng.integers(len(TEXTS)))]
        value = (*NONSENSE[1:7], 3, 0.5, True)[int(rng.integers(9))]
        if where == "data.dataset" and isinstance(value, str):
            value = 3  # which names there are is known when the data are loaded
    last = [part for part in where.split(".") if not part.isdigit()][-1]
    call = lambda: Config.from_table(changed(where, value))  # noqa: E731
    return Attempt(f"{where} = {value!r:.30}", call, (last,), BadConfig)


@category("train: keys and tables of a configuration")
def config_keys(rng: Rng, folder: Path) -> Attempt:
    table = copy.deepcopy(TABLE)
    what, (made, names) = pick(
        rng,
        {
            "unknown key": (changed("sead", 1), ("sead",)),
            "unknown nested": (changed("train.epoch", 1), ("epoch",)),
            "unknown table": (changed("optimizer", {"lr": 1}), ("optimizer",)),
            "unknown layer": (changed("layers.1.type", "liff"), ("liff",)),
            "unknown layer option": (changed("layers.1.betta", 0.5), ("betta",)),
            "no type": (changed("layers.0", {"out": 3}), ("type",)),
            "no layers": (changed("layers", []), ("layers",)),
            "layers of text": (changed("layers", ["linear"]), ("layers",)),
            "no data": ({k: v for k, v in table.items() if k != "data"}, ("data",)),
            "no name": ({k: v for k, v in table.items() if k != "name"}, ("name",)),
            "a list": ([table], ("table", "configuration")),
            "nothing": (None, ("table", "configuration")),
            "best without valid": (changed("data.train_on", "all") | {"train": {"keep": "best"}}, ("valid",)),
        },
    )
    return Attempt(what, lambda: Config.from_table(made), names, BadConfig)


@category("train: configuration files")
def config_files(rng: Rng, folder: Path) -> Attempt:
    path = folder / "run.toml"
    what, content = pick(
        rng,
        {
            "not TOML": b"name = [",
            "binary": b"\xff\xfe" + rng.bytes(30),
            "json": json.dumps(TABLE).encode(),
            "empty": b"",
            "twice": b"name = 'a'\nname = 'b'\n",
            "missing": None,
            "folder": None,
            "preset": None,
            "long name": None,
            "nul": None,
        },
    )
    if content is not None:
        path.write_bytes(content)
    others: dict[str, Any] = {
        "folder": folder, "preset": "brail", "long name": folder / ("x" * 5000 + ".toml"), "nul": "a\0b.toml",
    }  # fmt: skip
    given = others.get(what, path)
    if what == "missing":
        path.unlink(missing_ok=True)
    return Attempt(what, lambda: load_config(given), (str(given), "TOML", "preset"), BadConfig)


@category("train: modules that are no network")
def modules(rng: Rng, folder: Path) -> Attempt:
    from torch import nn

    n = int(rng.integers(1, 6))
    linear, ring = nn.Linear(n, n), nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular")
    spoiled = nn.Linear(n, n)
    with torch.no_grad():
        spoiled.weight.view(-1)[int(rng.integers(n * n))] = math.nan
    what, (module, shape, dt, names) = pick(
        rng,
        {
            "Tanh": (nn.Sequential(linear, nn.Tanh()), (n,), 1e-3, ("Tanh",)),
            "LSTM": (nn.Sequential(nn.LSTM(n, n)), (n,), 1e-3, ("LSTM",)),
            "NaN weight": (nn.Sequential(spoiled), (n,), 1e-3, ("NaN",)),
            "shape": (nn.Sequential(linear), (n + 1,), 1e-3, ("wants", "shape", "(")),
            "no shape": (nn.Sequential(linear), None, 1e-3, ("input_shape",)),
            "no dt": (nn.Sequential(linear), (n,), None, ("dt",)),
            "dt": (nn.Sequential(linear), (n,), -1.0, ("dt",)),
            "padding": (nn.Sequential(ring), (1, 5, 5), 1e-3, ("padding",)),
            "readout": (nn.Sequential(linear), (n,), 1e-3, ("readout",)),
        },
    )
    readout = "mean" if what == "readout" else "sum"
    return Attempt(what, lambda: to_network(module, shape, dt, readout), names, (ConversionError, NetworkError))  # type: ignore[arg-type]


@category("train: surrogates")
def surrogates(rng: Rng, folder: Path) -> Attempt:
    net = some_network(rng)
    name = ("quick_sigmoid", "", "Atan", "fast-sigmoid", "none")[int(rng.integers(5))]
    return Attempt(repr(name), lambda: to_module(net, surrogate=name), ("surrogate", "spike function"), NeuroError)


@category("train: evaluate")
def bad_evaluate(rng: Rng, folder: Path) -> Attempt:
    nodes = {"i": ir.Input((3,)), "l": ir.Linear(np.ones((2, 3))), "n": ir.IF(1.0), "o": ir.Output()}
    net = ir.chain(nodes, 1e-3)
    what, (shape, classes, given, names) = pick(
        rng,
        {
            "shape": ((4,), 2, {}, ("shape",)),
            "classes": ((3,), 9, {}, ("labels",)),
            "none": ((3,), 2, {}, ("no recording",)),
            "steps": ((3,), 2, {"steps": -5}, ("steps",)),
            "dt": ((3,), 2, {"dt": math.nan}, ("dt",)),
            "batch size": ((3,), 2, {"batch_size": 0}, ("batch_size",)),
        },
    )
    count = 0 if what == "none" else 2
    data = EventSet(
        np.zeros(count), np.zeros(count, int), np.arange(count + 1), np.full(count, classes - 1), np.zeros(count, int),
        shape, 0.01, tuple(map(str, range(classes))),
    )  # type: ignore[arg-type]  # fmt: skip
    return Attempt(what, lambda: evaluate(net, data, **given), names, NeuroError)


@category("train: run folders")
def run_folders(rng: Rng, folder: Path) -> Attempt:
    place = folder / "run"
    place.mkdir(exist_ok=True)
    for old in place.iterdir():
        old.unlink()
    whole = ("missing", "empty", "unfinished", "foreign", "resume")
    kinds = (*whole, "broken manifest", "other format", "list", "changed")
    what = kinds[int(rng.integers(len(kinds)))]
    names: tuple[str, ...] = (str(place), str(folder))
    if what == "missing":
        return Attempt(what, lambda: Run.open(folder / "nothing"), names, RunError)
    if what == "unfinished":
        (place / CONFIG).write_text("{}")
    elif what == "broken manifest":
        (place / MANIFEST).write_text("{" * int(rng.integers(1, 9)))
    elif what == "other format":
        (place / MANIFEST).write_text(json.dumps({"format": 99, "files": {}, "summary": {}}))
    elif what == "list":
        (place / MANIFEST).write_text("[]")
    elif what == "changed":
        table = {"format": 2, "files": {CONFIG: "0" * 64}, "summary": {}, "sha256": "0" * 64}
        (place / MANIFEST).write_text(json.dumps(table))
        (place / CONFIG).write_text("{}")
    elif what == "foreign":
        (place / "thesis.tex").write_text("")
        return Attempt(what, lambda: claim(place, TABLE, resume=True), names, RunError)
    elif what == "resume":
        (place / CONFIG).write_text(json.dumps({**TABLE, "seed": 1}))
        return Attempt(what, lambda: claim(place, TABLE, resume=True), names, RunError)
    return Attempt(what, lambda: Run.open(place), names, NeuroError)


@category("train: checkpoints")
def checkpoints(rng: Rng, folder: Path) -> Attempt:
    from neuro.train import checkpoint

    run = folder / f"run{int(rng.integers(10**9))}"
    run.mkdir()
    checkpoint.save(run, 1, {"epoch": 1}, {"model": {"w": torch.zeros(8)}}, {"state": {}})
    assert latest(run) is not None
    (place,) = (run / "checkpoint").iterdir()
    files = sorted(p for p in place.iterdir())
    file = files[int(rng.integers(len(files)))]
    what = ("cut", "gone", "flipped")[int(rng.integers(3))]
    content = bytearray(file.read_bytes())
    if what == "cut":
        file.write_bytes(bytes(content[: len(content) // 2]))
    elif what == "gone":
        file.unlink()
    else:
        content[int(rng.integers(len(content)))] ^= 0x15
        file.write_bytes(bytes(content))
    return Attempt(f"{file.name} {what}", lambda: latest(run), (str(run),), NeuroError)
