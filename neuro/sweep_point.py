"""One point of a sweep: change, compile, simulate every recording, estimate. Runs wherever a worker is."""

from __future__ import annotations

from dataclasses import asdict, dataclass, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from neuro import variants
from neuro.errors import ChipError, DoesNotFit, NeuroError, UnsupportedNode
from neuro.events import EventSet
from neuro.ir import Network
from neuro.sweep_grid import CONSTANTS, NETWORK, Point

if TYPE_CHECKING:
    from neuro.hardware.chip import Chip, Quantity
    from neuro.hardware.program import Program

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Subject:
    """What every point shares; sent to the workers once."""

    network: Network
    data: EventSet
    steps: int | None
    digest: str


def measure(subject: Subject, point: Point) -> Row:
    """One row. Refusals of the chip are results; any other error is kept in the row and tried again next time."""
    from neuro.deployment import steps_of

    row: Row = {"point": dict(point), "fits": False, "error": "", "violations": [], "pareto": False}
    row |= {"accuracy": None, "energy_j": None, "latency_s": None, "cores": None}
    try:
        changes = {n: point[f"network.{n}"] for n in NETWORK if f"network.{n}" in point}
        network = variants.variant(subject.network, **changes)
        steps = int(point.get("steps") or subject.steps or steps_of(network, subject.data))
        program = _compiled(network, point, steps)
        return row | _measured(program, subject.data, steps, point)
    except (DoesNotFit, UnsupportedNode) as refusal:
        told = [asdict(v) if is_dataclass(v) and not isinstance(v, type) else str(v) for v in refusal.violations]
        return row | {"violations": told or [str(refusal)]}
    except NeuroError as problem:
        return row | {"error": str(problem)}


def _compiled(network: Network, point: Point, steps: int) -> Program:
    """Compile with the point's limits and options.

    Raises:
        ChipError: a limit that this network's compilation does not ask for, or that changes the integers: the
            simulator has such a number compiled in, so a result would be wrong.
    """
    from neuro.hardware import compile as compile_network
    from neuro.hardware.chip import assuming

    chip = point["chip"]
    options = {n.partition(".")[2]: v for n, v in point.items() if n.startswith("compile.")}
    limits = {n.partition(".")[2]: v for n, v in point.items() if n.startswith("limits.")}
    if not limits:
        return compile_network(network, chip, max_steps=steps, **options)
    with assuming(chip, **limits) as assumed:
        program = compile_network(network, chip, max_steps=steps, **options)
    unread = sorted(n for n in limits if (chip, n) not in assumed.read)
    if unread:
        raise ChipError(f"compiling this for {chip} does not ask for limits.{', limits.'.join(unread)}")
    try:
        plain = compile_network(network, chip, max_steps=steps, **options)
    except DoesNotFit:
        with assuming(chip, **{n: 2 * v for n, v in limits.items()}):
            plain = compile_network(network, chip, max_steps=steps, **options)
    arithmetic = [] if _same_integers(program, plain) else sorted(limits)
    for name in limits:  # a limit that decides only what fits refuses, or changes nothing, even at its least
        with assuming(chip, **{**limits, name: 1}):
            try:
                least = compile_network(network, chip, max_steps=steps, **options)
            except DoesNotFit:
                continue
            except (NeuroError, ArithmeticError, ValueError, AssertionError):  # it is computed with, and 1 is absurd
                arithmetic.append(name)
                continue
        if not _same_integers(least, plain):
            arithmetic.append(name)
    if arithmetic:
        raise ChipError(
            f"limits.{', limits.'.join(dict.fromkeys(arithmetic))} changes the integers of this program on {chip}, and "
            "its simulator has the chip's own compiled in; only limits that decide what fits can be swept"
        )
    return program


def _same_integers(a: Program, b: Program) -> bool:
    def arrays(program: Program) -> dict[str, Any]:
        found = {f"image.{n}": v for n, v in program.image.items()}
        for p in program.populations.values():
            found |= {f"{p.name}.{n}": v for n, v in p.params.items()}
        for q in program.projections:
            found |= {f"{q.name}.{n}": v for n, v in q.params.items()} | {f"{q.name}.weight_q": q.weight_q}
        return found

    if dict(a.scale) != dict(b.scale) or dict(a.skew) != dict(b.skew):
        return False
    one, two = arrays(a), arrays(b)
    return one.keys() == two.keys() and all(np.array_equal(one[n], two[n]) for n in one)


def _measured(program: Program, data: EventSet, steps: int, point: Point) -> Row:
    """Run every sample and add up."""
    from neuro.deployment import batches
    from neuro.hardware import estimate, simulate
    from neuro.hardware.estimate import merge
    from neuro.hardware.target import load_target

    constants = _constants(load_target(program.chip).chip, point)
    right, estimates = 0, []
    totals: dict[str, float] = {}
    begin = 0
    for dense in batches(data, steps, program.dt, program.populations[program.input].size, program.high):
        trace = simulate(program, dense, record_spikes=False)
        count = dense.shape[1]
        right += int((trace.decision == data.labels[begin : begin + count]).sum())
        estimates.append(estimate(trace, program, constants=constants or None))
        for name, value in trace.counters.totals().items():
            totals[name] = totals.get(name, 0.0) + value * count / len(data)
        begin += count
    cost = merge(estimates)
    return {
        "fits": True,
        "accuracy": right / len(data),
        "energy_j": None if cost.energy_j is None else cost.energy_j.to_json(),
        "latency_s": None if cost.latency_s is None else cost.latency_s.to_json(),
        "regime": cost.regime,
        "cores": program.placement.cores,
        "neurons": program.neurons,
        "synapses": int(sum(np.count_nonzero(p.weight_q) for p in program.projections)),
        "counters": totals,
        "samples": len(data),
        "steps": steps,
        "substitutions": len(program.substitutions),
    }


def _constants(chip: Chip, point: Point) -> dict[str, Quantity]:
    """The constants a point changes, low and high in the same proportion as before."""
    found = {}
    quantities = chip.quantities()
    for name, value in point.items():
        if name.partition(".")[0] in CONSTANTS:
            q = quantities[name]
            low, high = (value * q.low / q.value, value * q.high / q.value) if q.value else (value, value)
            found[name] = replace(q, value=float(value), low=low, high=high, source="the sweep", grade="assumed")
    return found
