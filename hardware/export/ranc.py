"""Exporter "ranc": cores as the two JSON files that the open RANC simulator reads, and back.

RANC (UA-RCL/RANC, MIT, simulator as of commit 08ae4bd) takes an input file of packets, an output bus and cores, a
configuration file and a number of ticks: ``ranc_sim input.json output.txt config.json TICKS``. What it knows of a
TrueNorth neuron is the deterministic part: resets 0 and 1, no kappa, no mask, no leak reversal, int32 without a
clamp. Programs with more than that are refused.

    delay D (1..15)      destination_tick D - 1
    -beta                negative_threshold
    alpha, R, gamma      positive_threshold, reset_potential, reset_mode
    OUTSIDE, line        the output bus, which stands in a free place of the mesh
    NOWHERE              the last line of the output bus

``input.json`` also holds an object "axonport", which RANC does not read: the choices that RANC does not have, and
which line means nowhere. Without it (any other RANC file) cores are taken as RANC would run them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.errors import FormatError, UnsupportedNode
from neuro.hardware.export import Exporter
from neuro.hardware.export.folders import whole_folder
from neuro.hardware.program import Placement, Population, Program
from neuro.hardware.truenorth.bank import (
    CHOICES,
    NOWHERE,
    OUTSIDE,
    TYPES,
    Bank,
    bank_from,
    bank_of,
    choices,
    empty,
    pack_bits,
    unpack_bits,
)
from neuro.hardware.truenorth.inject import packets_of

INPUT, CONFIG = "input.json", "config.json"
NEURON = {  # RANC's name -> the bank's
    "reset_potential": "reset",
    "leak": "leak",
    "positive_threshold": "alpha",
    "negative_threshold": "negative",
    "current_potential": "v0",
    "reset_mode": "gamma",
    "destination_axon": "axon",
}
IntArray = NDArray[np.int64]


def write(program: Program, path: Path | str, dense: NDArray[np.uint8] | None = None) -> Path:
    """A folder with input.json and config.json.

    dense: uint8[steps, inputs] or [steps, 1, inputs], one sample whose packets go into the file; None: no packets.

    Raises:
        UnsupportedNode: cores that RANC cannot run, every reason. FormatError: the folder holds something else.
    """
    bank = bank_of(program)
    _refuse(program, bank)
    packets = np.zeros((0, 2), np.int64)
    if dense is not None:
        sample = np.asarray(dense).reshape(len(dense), 1, -1)
        steps = len(dense) + program.depth
        first, where = packets_of(program, sample, steps)
        packets = np.stack([np.repeat(np.arange(steps), np.diff(first[0])), where], axis=1)
    data, config = encode(bank, packets)
    with whole_folder(Path(path), INPUT) as folder:
        for name, value in ((INPUT, data), (CONFIG, config)):  # compact: a core has 65,536 zeros and ones
            (folder / name).write_text(json.dumps(value, separators=(",", ":")) + "\n", encoding="utf-8")
    return Path(path)


def _refuse(program: Program, bank: Bank) -> None:
    used = np.arange(bank.width) < bank.neurons[:, None]
    reasons = {
        "neurons whose membrane may leave its range and is held at -beta (kappa); compile with max_steps, and keep "
        "inhibition within 262143 steps of the weights": (bank.kappa != 0) & used,
        "neurons that are not reset by a spike (gamma 2)": (bank.gamma == 2) & used,
        "stochastic synapses or leaks": (bank.stochastic != 0) & used,
        "random thresholds": (bank.mask != 0) & used,
        "leaks towards zero; use IF": (bank.epsilon != 0) & used,
    }
    bad = [f"{int(found.sum())} with {what}" for what, found in reasons.items() if found.any()]
    if bad:
        raise UnsupportedNode(f"RANC has no counterpart for parts of this {program.chip} program", bad)


def encode(bank: Bank, packets: IntArray) -> tuple[dict[str, Any], dict[str, Any]]:
    """(input, config) of a bank that RANC can run. packets: int64[k, 2], (tick, core A + axon)."""
    used = np.arange(bank.width) < bank.neurons[:, None]
    across, down = (int(k) + 1 for k in bank.xy.max(axis=0))
    bus = np.array([across, 0])
    lines = int(bank.axon[(bank.target == OUTSIDE) & used].max(initial=-1)) + 1
    cores = [_core(bank, c, bus, lines) for c in range(bank.cores)]
    ticks: list[list[dict[str, Any]]] = [[] for _ in range(int(packets[:, 0].max(initial=-1)) + 1)]
    for tick, at in packets.tolist():
        core, axon = divmod(at, bank.axons)
        place = bank.xy[core].tolist()
        ticks[tick].append({"destination_core": place, "destination_axon": axon, "destination_tick": 0})
    data = {
        "packets": ticks,
        "output_bus": {"coordinates": bus.tolist(), "num_outputs": lines + 1},
        "cores": cores,
        "axonport": {
            "nowhere": lines,
            "choices": dict(zip(CHOICES, bank.choices.tolist(), strict=True)),
            "seed": bank.seed.tolist(),
        },
    }
    config = {
        "num_neurons": bank.width,
        "num_axons": bank.axons,
        "num_cores_x": across + 1,
        "num_cores_y": down,
        "num_weights": TYPES,
        "max_tick_offset": 16,
        "neuron_block_trace_verbosity": 0,
        "core_controller_trace_verbosity": 0,
        "scheduler_trace_verbosity": 0,
        "neuron_reset_type": int(bank.choices[1]),
    }
    return data, config


def _core(bank: Bank, c: int, bus: IntArray, lines: int) -> dict[str, Any]:
    count, here = int(bank.neurons[c]), bank.xy[c]
    joined = unpack_bits(bank.crossbar[c], bank.width).T
    neurons = []
    for n in range(count):
        target = int(bank.target[c, n])
        there = bus if target < 0 else bank.xy[target]
        neuron: dict[str, Any] = {theirs: int(getattr(bank, ours)[c, n]) for theirs, ours in NEURON.items()}
        neuron |= {
            "weights": bank.weight[c, n].tolist(),
            "destination_core_offset": (there - here).tolist(),
            "destination_axon": lines if target == NOWHERE else int(bank.axon[c, n]),
            "destination_tick": int(bank.delay[c, n]) - 1,
        }
        neurons.append(neuron)
    return {
        "axons": bank.axon_type[c].tolist(),
        "neurons": neurons,
        "connections": joined[:count].tolist(),
        "coordinates": here.tolist(),
    }


def read(path: Path | str) -> tuple[Bank, IntArray]:
    """A folder of `write`, or any input.json and config.json of RANC, as a bank and its packets.

    Packets: int64[k, 2], (tick in which it is consumed, core A + axon).

    Raises:
        FormatError: the files are missing, are not JSON, or are no cores of RANC.
    """
    folder = Path(path)
    loaded = []
    for name in (INPUT, CONFIG):
        try:
            loaded.append(json.loads((folder / name).read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as cause:
            raise FormatError(f"{folder / name} cannot be read: {cause}") from cause
    try:
        return decode(*loaded)
    except (AttributeError, KeyError, TypeError, IndexError, ValueError, OverflowError) as cause:
        raise FormatError(f"{folder} holds no cores as RANC reads them: {type(cause).__name__} {cause}") from cause


def decode(data: dict[str, Any], config: dict[str, Any]) -> tuple[Bank, IntArray]:
    """The inverse of `encode`; files of others run with RANC's int32."""
    ours = data.get("axonport", {})
    cores = data["cores"]
    axons, width = int(config["num_axons"]), int(config["num_neurons"])
    image = empty(len(cores), axons, width)
    at = {tuple(core["coordinates"]): c for c, core in enumerate(cores)}
    bus = tuple(data["output_bus"]["coordinates"])
    for c, core in enumerate(cores):
        count, neurons = len(core["neurons"]), core["neurons"]
        image["neurons"][c] = count
        image["xy"][c] = core["coordinates"]
        image["axon_type"][c, : len(core["axons"])] = core["axons"]
        joined = np.zeros((axons, width), bool)
        for n, (row, neuron) in enumerate(zip(core["connections"], neurons, strict=False)):
            joined[: len(row), n] = row
            image["weight"][c, n, : len(neuron["weights"])] = neuron["weights"]
            for theirs, name in NEURON.items():
                image[name][c, n] = neuron[theirs]
            image["delay"][c, n] = neuron["destination_tick"] + 1
            offset = neuron["destination_core_offset"]
            there = (core["coordinates"][0] + offset[0], core["coordinates"][1] + offset[1])
            target = OUTSIDE if there == bus else at.get(there, NOWHERE)
            if target == OUTSIDE and neuron["destination_axon"] == ours.get("nowhere"):
                target, image["axon"][c, n] = NOWHERE, 0
            image["target"][c, n] = target
        image["crossbar"][c] = pack_bits(joined)
    found = [
        (tick + p["destination_tick"], at[tuple(p["destination_core"])] * axons + p["destination_axon"])
        for tick, each in enumerate(data["packets"])
        for p in each
    ]
    picked = np.array([ours["choices"][name] for name in CHOICES], np.int32) if ours else None
    image["choices"] = choices("wrap32", bool(config["neuron_reset_type"])) if picked is None else picked
    if ours:
        image["seed"] = np.array(ours["seed"], np.uint32)
    return bank_from(image), np.array(found, np.int64).reshape(-1, 2)


def program_of(bank: Bank, dt: float = 1e-3) -> Program:
    """A bank as a program of its own: one input channel per axon of every core, one population of all neurons.

    An event of step t makes the axon active in that very tick.
    """
    n, a = bank.cores * bank.width, bank.cores * bank.axons
    inject = np.stack([np.arange(a), np.arange(a), np.zeros(a, np.int64)], axis=1)
    names = ("leak", "alpha", "negative", "reset", "v0", "gamma", "kappa", "epsilon", "mask")
    neurons = Population(
        "neurons",
        "neurons",
        "truenorth",
        (bank.cores, bank.width),
        {name: getattr(bank, name).reshape(-1) for name in names},
    )
    given = Population("axons", "axons", "input", (bank.cores, bank.axons))
    return Program(
        chip="truenorth",
        dt=dt,
        populations={"axons": given, "neurons": neurons},
        projections=(),
        input="axons",
        output="neurons",
        skew={"axons": 0, "neurons": 0},
        scale={"neurons": 1.0},
        readout="count",
        placement=Placement({"neurons": np.repeat(np.arange(bank.cores), bank.width)}, bank.xy.astype(np.int64)),
        image={**bank.image(), "inject": inject, "slot:neurons": np.arange(n)},
    )


EXPORTER = Exporter(
    "ranc", "input and configuration of the RANC simulator (JSON)", "program", write, chips=("truenorth",)
)
