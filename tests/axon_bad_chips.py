"""Bad networks, options and inputs for a chip; bad chip files."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from axon_bad import Attempt, category, pick
from axon_bad_core import some_network

from neuro import ir
from neuro.deployment import deploy
from neuro.errors import BadChipFile, ChipError, NeuroError, SimulationError
from neuro.events import Events, EventSet
from neuro.hardware import compile as compile_network
from neuro.hardware import estimate, export, load_chip, simulate
from neuro.hardware.certify import certify
from neuro.hardware.chip import CHIP_FOLDER, read_chip
from neuro.hardware.program import Program
from neuro.nir import save

Rng = np.random.Generator


@cache
def program() -> Program:
    """A small program: 3 inputs, 2 outputs."""
    weight = np.array([[1.0, -0.5, 0.25], [0.5, 1.0, -1.0]])
    net = ir.chain({"in": ir.Input((3,)), "fc": ir.Linear(weight), "lif": ir.LIF(5e-3, 0.05), "out": ir.Output()}, 1e-3)
    return compile_network(net, "loihi2")


def wrapped(rng: Rng, **nodes: ir.Node) -> ir.Network:
    table: dict[str, ir.Node] = {"in": ir.Input((3,)), "fc": ir.Linear(rng.normal(size=(3, 3))), **nodes}
    return ir.chain({**table, "out": ir.Output("sum")}, 1e-3)


@category("chip: networks it cannot hold")
def cannot_hold(rng: Rng, folder: Path) -> Attempt:
    n = int(rng.integers(2, 5))
    what, (make, names) = pick(
        rng,
        {
            "no neuron": (
                lambda: ir.chain({"i": ir.Input((n,)), "o": ir.Output("sum")}, 1e-3),
                ("neuron", "Output", "'o'"),
            ),
            "only weights": (lambda: wrapped(rng), ("fc", "out")),
            "two inputs": (lambda: _two_inputs(n), ("Input", "input")),
            "two outputs": (lambda: _two_outputs(n), ("Output", "output")),
            "graded source": (
                lambda: wrapped(rng, li=ir.LI(5e-3), w=ir.Linear(np.ones((2, 3))), n=ir.IF(1.0)),
                ("li", "w"),
            ),
            "long delay": (
                lambda: wrapped(rng, d=ir.Linear(np.ones((2, 3)), np.full((2, 3), 100_000)), n=ir.IF(1.0)),
                ("d", "n"),
            ),
        },
    )
    return Attempt(what, lambda: compile_network(make(), "loihi2"), names, NeuroError)


def _two_inputs(n: int) -> ir.Network:
    nodes = {"a": ir.Input((n,)), "b": ir.Input((n,)), "n": ir.IF(1.0), "o": ir.Output()}
    return ir.Network(nodes, (("a", "n"), ("b", "n"), ("n", "o")), 1e-3)


def _two_outputs(n: int) -> ir.Network:
    nodes = {"i": ir.Input((n,)), "l": ir.Linear(np.eye(n)), "n": ir.IF(1.0), "o": ir.Output(), "p": ir.Output()}
    return ir.Network(nodes, (("i", "l"), ("l", "n"), ("n", "o"), ("n", "p")), 1e-3)


@category("chip: names and options")
def chip_options(rng: Rng, folder: Path) -> Attempt:
    net = some_network(rng)
    what, (call, names) = pick(
        rng,
        {
            "chip": (lambda: compile_network(net, "loihi3"), ("loihi2",)),
            "empty chip": (lambda: compile_network(net, ""), ("loihi2", "unknown")),
            "load": (lambda: load_chip("lohi2"), ("loihi2",)),
            "option": (lambda: compile_network(net, "loihi2", strickt=True), ("strickt",)),
            "bias": (lambda: compile_network(net, "loihi2", bias="maybe"), ("bias",)),
            "steps": (lambda: compile_network(net, "loihi2", max_steps=-1), ("max_steps",)),
            "headroom": (lambda: compile_network(net, "loihi2", readout_headroom=-1.0), ("readout_headroom",)),
            "headroom NaN": (lambda: compile_network(net, "loihi2", readout_headroom=math.nan), ("readout_headroom",)),
            "regime": (lambda: estimate(_trace(), regime="warp"), ("regime",)),
        },
    )
    return Attempt(what, call, names, ChipError)


@cache
def _trace() -> Any:
    return simulate(program(), np.zeros((2, 1, 3), np.uint8))


@category("chip: simulate")
def bad_input(rng: Rng, folder: Path) -> Attempt:
    good = rng.integers(0, 2, (int(rng.integers(1, 6)), 2, 3)).astype(np.uint8)
    simulate(program(), good)
    sample = Events([0], [0], (3,), 4, 1e-3)  # type: ignore[arg-type]
    what, (inputs, more) = pick(
        rng,
        {
            "fractions": (good * 0.5, {}),
            "counts": (good + 2, {}),
            "negative": (-good.astype(np.int64) - 1, {}),
            "NaN": (np.full(good.shape, np.nan), {}),
            "texts": (good.astype(str), {}),
            "objects": (good.astype(object), {}),
            "complex": (good * 1j, {}),
            "channels": (np.zeros((4, 2, 4), np.uint8), {}),
            "axes": (good[..., None, None], {}),
            "vector": (good[0, 0], {}),
            "no steps": (good[:0], {}),
            "no samples": (good[:, :0], {}),
            "None": (None, {}),
            "number": (3, {}),
            "list of numbers": ([1, 2], {}),
            "empty list": ([], {}),
            "other dt": (Events([0], [0], (3,), 4, 2e-3), {}),  # type: ignore[arg-type]
            "other shape": (Events([0], [0], (4,), 4, 1e-3), {}),  # type: ignore[arg-type]
            "other steps": ([sample, Events([0], [0], (3,), 5, 1e-3)], {}),  # type: ignore[arg-type]
            "probe": (good, {"probes": [("liff", "v")]}),
            "variable": (good, {"probes": [("lif", "w")]}),
            "no pair": (good, {"probes": ["lif"]}),
            "batch": (good, {"batch": 0}),
        },
    )
    return Attempt(
        what, lambda: simulate(program(), inputs, **more), ("in", "probe", "batch", "variable"), SimulationError
    )


@category("chip: export")
def bad_export(rng: Rng, folder: Path) -> Attempt:
    net = some_network(rng)
    (folder / "file").write_text("")
    what, (call, names) = pick(
        rng,
        {
            "exporter": (lambda: export(program(), folder / "x", to="lavva"), ("lava",)),
            "network to lava": (lambda: export(net, folder / "x", to="lava"), ("Program",)),
            "network to netx": (lambda: export(net, folder / "x", to="netx"), ("Program",)),
            "program to nir": (lambda: export(program(), folder / "x.nir", to="nir"), ("Network",)),
            "nothing": (lambda: export(None, folder / "x", to="lava"), ("NoneType",)),  # type: ignore[arg-type]
            "below a file": (lambda: export(net, folder / "file" / "x.nir", to="nir"), ("cannot be written",)),
        },
    )
    return Attempt(what, call, names, NeuroError)


@category("chip: certificate")
def bad_certificate(rng: Rng, folder: Path) -> Attempt:
    good = np.zeros((3, 1, 3), np.uint8)
    what, (call, names) = pick(
        rng,
        {
            "oracle": (lambda: certify(program(), good, oracle="lavva"), ("lava",)),
            "channels": (lambda: certify(program(), np.zeros((3, 1, 4), np.uint8)), ("4", "3")),
            "axes": (lambda: certify(program(), good[0]), ("shape", "batch", "steps")),
            "values": (lambda: certify(program(), good + 2), ("0 and 1", "2", "binary")),
            "fractions": (lambda: certify(program(), good + 0.5), ("0 and 1", "integer", "binary", "float")),  # type: ignore[arg-type]
        },
    )
    return Attempt(what, call, names, NeuroError)


@category("chip: files")
def chip_file(rng: Rng, folder: Path) -> Attempt:
    path = folder / f"chip{int(rng.integers(10**9))}.toml"  # read_chip remembers what it has read
    text = (CHIP_FOLDER / "loihi2.toml").read_text(encoding="utf-8")
    lines = text.splitlines()

    def without(start: str) -> str:
        chosen = [k for k, line in enumerate(lines) if line.startswith(start)]
        gone = chosen[int(rng.integers(len(chosen)))]
        return "\n".join(line for k, line in enumerate(lines) if k != gone)

    def replaced(start: str, by: str) -> str:
        chosen = [k for k, line in enumerate(lines) if line.startswith(start)]
        one = chosen[int(rng.integers(len(chosen)))]
        return "\n".join(by if k == one else line for k, line in enumerate(lines))

    what, content = pick(
        rng,
        {
            "no value": without("value = "),
            "no unit": without("unit = "),
            "no source": without("source = "),
            "no grade": without("grade = "),
            "unknown source": replaced("source = ", 'source = "nobody1900"'),
            "unknown grade": replaced("grade = ", 'grade = "sure"'),
            "NaN": replaced("value = ", "value = nan"),
            "infinite": replaced("value = ", "value = inf"),
            "text as value": replaced("value = ", 'value = "fast"'),
            "no name": without("name = "),
            "not TOML": text + "\n[[[",
            "binary": None,
            "missing": "",
            "numbers": "limits = 3\n",
        },
    )
    if what == "binary":
        path.write_bytes(b"\xff\xfe" + rng.bytes(50))
    elif what != "missing":
        path.write_text(content, encoding="utf-8")
    return Attempt(what, lambda: read_chip(path), (str(path),), BadChipFile)


@category("chip: networks from files")
def from_file(rng: Rng, folder: Path) -> Attempt:
    """What `deploy` does first with a damaged file."""
    from neuro.nir import load

    path = folder / "net.nir"
    save(some_network(rng), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return Attempt("half a file", lambda: compile_network(load(path), "loihi2"), (str(path),), NeuroError)


@category("chip: deploy")
def bad_deploy(rng: Rng, folder: Path) -> Attempt:
    net = ir.chain({"i": ir.Input((3,)), "l": ir.Linear(np.ones((2, 3))), "n": ir.IF(1.0), "o": ir.Output()}, 1e-3)

    def data(shape: tuple[int, ...] = (3,), count: int = 2, label: int = 1) -> EventSet:
        zeros = np.zeros(count, np.int64)
        columns = np.zeros(count, np.float32), zeros.astype(np.int32), np.arange(count + 1)
        return EventSet(*columns, zeros + label, zeros, shape, 0.005, tuple("abcdefghi"))

    what, (call, names) = pick(
        rng,
        {
            "chip": (lambda: deploy(net, data(), chips="loihi3"), ("loihi2",)),
            "one of the chips": (lambda: deploy(net, data(), chips=("loihi2", "truesouth")), ("truesouth",)),
            "shape": (lambda: deploy(net, data((4,))), ("shape",)),
            "labels": (lambda: deploy(net, data(label=8)), ("labels",)),
            "nothing": (lambda: deploy(net, data(count=0)), ("no recording",)),
        },
    )
    return Attempt(what, call, names, NeuroError)
