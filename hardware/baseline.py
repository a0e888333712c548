"""`compare`: three energies of a network side by side, and of the ANN of the same shape, so that nobody fools himself.

    naive    the literature's count at 45 nm, float32: 0.9 pJ per synaptic operation (AC) of a spiking network, 4.6 pJ
             per multiplication and addition (MAC) of an ANN; neither memory nor neurons (Horowitz 2014, Fig. 1.1.9)
    memory   8-bit weights, 32-bit sums and states, at 45 nm, with every access to a memory just large enough
    chip     event energy by the chip's own table: what was counted; for the ANN all its MACs as synaptic operations,
             all its neurons as updates and all its inputs as injected, as if the chip knew nothing but dense passes

The ANN sees a sample either once ("one pass", where time carries nothing) or once a step ("every step", as the spiking
network does, for data that unfold in time). Memory ranges: nominal, a spiking network reads a weight and reads and
writes a sum per operation, an ANN reads a weight and an activation per MAC; low, sums stay where they are and each
weight and activation is read once a pass; high, every access moves a whole 64-bit word. No column is the energy of an
inference: static power, control and the host are in none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from neuro import ir
from neuro.hardware.chip import Chip, Quantity, read_chip
from neuro.hardware.costs import Constants, Prices, Source, joules
from neuro.hardware.estimate import Range
from neuro.hardware.program import Program
from neuro.hardware.target import load_target
from neuro.hardware.trace import Trace
from neuro.ir import Network, Node, Shape

PROCESS = Path(__file__).parent / "cmos45.toml"
WORD = 64  # bits of one access in the process's table
WEIGHT, SUM, ACTIVATION = 8, 32, 8  # bits
SPIKING = "spiking network, as simulated"
ONE_PASS, EVERY_STEP = "ANN of the same shape, one pass", "ANN of the same shape, every step"


@cache
def process() -> Chip:
    """Energies of the 45 nm process that the literature counts with."""
    return read_chip(PROCESS)


def compare(
    network: Network,
    trace: Trace,
    program: Program | None = None,
    *,
    event_j: Range | None = None,
    chip: Chip | None = None,
    constants: Constants = None,
) -> dict[str, Any]:
    """The table of the module's docstring for one simulated batch, per sample.

    Args:
        network: what was compiled; gives the ANN's shape. program: splits synaptic operations by kind.
        event_j: event energy already estimated; default: estimated here. chip, constants: as in `estimate`.

    Returns:
        {"per": "sample", "rows": [{"what", "counts", "naive_j", "memory_j", "chip_j"}], "notes", "sources"}; energies
        as low, nominal, high, or nominal None and a reason.
    """
    from neuro.hardware.estimate import estimate

    chip = chip or load_target(trace.chip).chip
    if event_j is None:
        event_j = estimate(trace, program, chip=chip, constants=constants).energy_j
    return table(network, trace.counters.totals(), trace.steps, event_j, chip, constants)


def table(
    network: Network,
    counters: Mapping[str, float],
    steps: int,
    event_j: Range | None,
    chip: Chip,
    constants: Constants = None,
) -> dict[str, Any]:
    """`compare` from the counters of a sample (means of a data set) instead of a trace."""
    shape, unknown = ann_counts(network)
    valued = sends_values(network)
    prices = Prices(chip, constants)
    notes = [
        "no column is the energy of an inference: static power, control and the host are in none",
        f"the chip's column of an ANN runs its MACs as synaptic operations of {chip.name}: an assumption",
    ]
    if valued:
        notes.append("messages carry values, so every synaptic operation is counted as a MAC")
    notes += [f"not counted in the ANN: {line}" for line in unknown]
    rows = [
        {
            "what": SPIKING,
            "counts": {n: float(counters.get(n, 0.0)) for n in ("synops", "updates", "spikes")},
            "naive_j": _naive(counters.get("synops", 0.0), macs=valued),
            "memory_j": _spiking_memory(counters, shape, macs=valued),
            "chip_j": _told(event_j, "no energy per operation in the chip's file"),
        }
    ]
    for what, passes in ((ONE_PASS, 1), (EVERY_STEP, steps)):
        dense = {n: shape[m] * passes for n, m in (("synops", "macs"), ("updates", "neurons"), ("injected", "inputs"))}
        rows.append(
            {
                "what": what,
                "counts": {"macs": dense["synops"], "neurons": dense["updates"]},
                "naive_j": _naive(dense["synops"], macs=True),
                "memory_j": _ann_memory(shape, passes),
                "chip_j": _told(_dense_on_chip(dense, prices), "no energy per operation in the chip's file"),
            }
        )
    sources = {f"cmos45.{n}": q for n, q in process().quantities().items() if n.startswith("energy.")}
    used = [vars(_source(n, q)) for n, q in sources.items()] + [vars(s) for s in prices.sources.values()]
    return {"per": "sample", "steps": steps, "rows": rows, "notes": notes, "sources": used}


def _source(name: str, q: Quantity) -> Source:
    return Source(name, q.value, q.low, q.high, q.unit, q.grade, q.source, q.note)


def _told(r: Range | None, reason: str) -> dict[str, Any]:
    return r.to_json() if r is not None else {"low": None, "nominal": None, "high": None, "reason": reason}


def _price(name: str) -> float:
    return process().energy[name].value


def _naive(operations: float, *, macs: bool) -> dict[str, float]:
    each = _price("add_float32") + (_price("multiply_float32") if macs else 0.0)
    return Range(*(3 * [operations * each])).to_json()


def _access(size: float) -> Range:
    """Joules of 64 bits from the smallest memory of ``size`` bytes or more."""
    for name in ("sram_8k", "sram_32k", "sram_1m"):
        if size <= process().limit(f"bytes_{name}"):
            return Range(*(3 * [_price(name)]))
    q = process().energy["dram"]
    return Range(q.low, q.value, q.high)


def _spiking_memory(counters: Mapping[str, float], shape: Mapping[str, float], *, macs: bool) -> dict[str, float]:
    """Per operation a weight, and a sum there and back; per update a state there and back."""
    synops, updates = float(counters.get("synops", 0.0)), float(counters.get("updates", 0.0))
    word = _access(shape["weights"] * WEIGHT / 8 + shape["neurons"] * 2 * SUM / 8)
    arithmetic = synops * (_price("add_int32") + (_price("multiply_int8") if macs else 0.0))
    arithmetic += updates * (_price("multiply_int32") + _price("add_int32"))
    state = updates * 2 * SUM / WORD
    low = synops * WEIGHT / WORD + state
    nominal = synops * (WEIGHT + 2 * SUM) / WORD + state
    high = synops * 3 + updates * 2
    return Range(
        arithmetic + low * word.low, arithmetic + nominal * word.nominal, arithmetic + high * word.high
    ).to_json()


def _ann_memory(shape: Mapping[str, float], passes: int) -> dict[str, float]:
    """Per MAC a weight and an activation; sums stay where they are; an activation is written once."""
    word = _access((shape["weights"] * WEIGHT + shape["activations"] * ACTIVATION) / 8)
    arithmetic = shape["macs"] * (_price("multiply_int8") + _price("add_int32"))
    once = (shape["weights"] * WEIGHT + 2 * shape["activations"] * ACTIVATION) / WORD
    each = (shape["macs"] * (WEIGHT + ACTIVATION) + shape["activations"] * ACTIVATION) / WORD
    words = shape["macs"] * 2 + shape["activations"]
    return Range(
        passes * (arithmetic + min(once, each) * word.low),
        passes * (arithmetic + each * word.nominal),
        passes * (arithmetic + words * word.high),
    ).to_json()


def _dense_on_chip(dense: Mapping[str, float], prices: Prices) -> Range | None:
    split = joules({n: np.array([v]) for n, v in dense.items()}, prices)
    if not split:
        return None
    return Range(*(float(x) for x in np.atleast_2d(sum(split.values(), np.zeros(3)))[0]))


def sends_values(network: Network) -> bool:
    """Whether messages are more than 0 and 1: inputs that count, activations with levels."""
    return any(
        (isinstance(n, ir.Input) and n.high > 1) or (isinstance(n, ir.QuantisedReLU) and n.levels > 1)
        for n in network.nodes.values()
    )


def _linear(node: Any, out: Shape) -> tuple[float, float]:
    return float(node.weight.size), float(node.weight.size)


def _conv(node: Any, out: Shape) -> tuple[float, float]:
    """Every place of the output takes a whole kernel, zero padding included."""
    return float(node.weight.size) * float(np.prod(out[1:])), float(node.weight.size)


# node type -> (MACs of one pass, stored weights); pools and scales are folded into their neighbours, as compilers do
MACS: dict[type[Node], Callable[[Any, Shape], tuple[float, float]]] = {
    ir.Linear: _linear,
    ir.Affine: _linear,
    ir.Conv2d: _conv,
}
FREE = (ir.Input, ir.Output, ir.Flatten, ir.Scale, ir.Delay, ir.SumPool2d, ir.AvgPool2d, ir.MaxPool2d, ir.QuantisedReLU)


def ann_counts(network: Network) -> tuple[dict[str, float], list[str]]:
    """MACs, neurons, weights, activations (inputs included) and inputs of one dense pass; and what was not counted."""
    found = {"macs": 0.0, "neurons": 0.0, "weights": 0.0, "activations": 0.0, "inputs": 0.0}
    unknown = []
    for name, node in network.nodes.items():
        out = network.shapes[name]
        if type(node) in MACS:
            macs, weights = MACS[type(node)](node, out)
            found["macs"] += macs
            found["weights"] += weights
        elif isinstance(node, (ir.Input, ir.Neuron, ir.QuantisedReLU)):
            found["activations"] += float(np.prod(out))
            found["inputs" if isinstance(node, ir.Input) else "neurons"] += float(np.prod(out))
        elif not isinstance(node, FREE):
            unknown.append(f"'{name}', a {type(node).__name__}")
    return found, unknown


__all__ = ["EVERY_STEP", "ONE_PASS", "SPIKING", "ann_counts", "compare", "process", "table"]
