"""What the sums of an estimate are made of: constants of a chip, what was counted, what is switched on.

A counter and its constant belong together by name: "synops" costs ``energy.synop`` and takes ``time.synop``. A counter
of a special kind, "synops_conv" or "hops_north_south", costs ``energy.synop_conv`` where the chip has it, and else
what any of its kind costs. Knows no chip.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuro.errors import ChipError
from neuro.extend import did_you_mean
from neuro.hardware.chip import Chip, Quantity
from neuro.hardware.program import Program
from neuro.hardware.trace import Counters, Trace
from neuro.ir import Array

# constant -> counter; the same names under [energy] and [time] of a chip
COUNTED = {
    "synop": "synops",
    "update": "updates",
    "spike": "spikes",
    "packet": "packets",
    "hop": "hops",
    "memory": "memory",
    "weight_update": "weight_updates",
    "injection": "injected",
}
ON_CORE = ("synop", "update", "spike", "packet", "memory", "weight_update")  # keep a core busy; hops are flight
Constants = str | Mapping[str, float | Quantity] | None


@dataclass(frozen=True)
class Source:
    """One constant that an estimate used."""

    quantity: str
    value: float
    low: float
    high: float
    unit: str
    grade: str
    source: str
    note: str = ""


@dataclass(frozen=True)
class Machine:
    """What is switched on. cores: that hold neurons. boards: None where the chips are not on boards.

    host_io_s: seconds per sample in which a host reads and writes. host_trips: its round trips per sample.
    """

    cores: int = 0
    chips: int = 1
    boards: int | None = None
    host_io_s: float | None = None
    host_trips: float | None = None


class Prices:
    """Constants of a chip, remembering what was used and what was missing.

    constants: name of a set of the chip, or values that replace single ones, {"energy.synop": 20e-12}.

    Raises:
        ChipError: no such set or quantity, or a figure that the chip's file refuses by name.
    """

    def __init__(self, chip: Chip, constants: Constants = None) -> None:
        self.chip = chip
        self.sources: dict[str, Source] = {}
        self.missing: dict[str, None] = {}
        name = constants if isinstance(constants, str) else None
        if name in chip.refused:
            raise ChipError(_refusal(chip, name))
        if name is not None and name not in chip.constant_sets:
            hint = did_you_mean(name, chip.constant_sets)
            raise ChipError(f"{chip.name} has no constants '{name}'. {hint}")
        self.name = name or chip.default_constants
        self.quantities = chip.quantities(self.name)
        if isinstance(constants, Mapping):
            self.name = f"{self.name}, {len(constants)} replaced"
            self.quantities |= _replaced(chip, constants)
        self.included = {
            other if "." in other else f"{dotted.partition('.')[0]}.{other}": dotted
            for dotted, q in self.quantities.items()
            for other in q.includes
        }
        self.within_power = False  # something counted was, whose energy is part of a power

    def has(self, name: str) -> bool:
        return name in self.quantities

    def take(self, name: str, missing: str) -> Array | None:
        """float64[3] low, nominal, high; None and a note where the chip's file lacks it."""
        q: Quantity | None = self.quantities.get(name)
        if q is None:
            inside = self.included.get(name)
            self.within_power |= inside is not None and inside.startswith("power.")
            why = f"not told apart from {inside}, which includes it" if inside else missing
            self.missing[f"{name}: {why}"] = None
            return None
        self.sources[name] = Source(name, q.value, q.low, q.high, q.unit, q.grade, q.source, q.note)
        return np.array([q.low, q.value, q.high])

    def of_counter(self, group: str, counter: str, missing: str) -> Array | None:
        """Price of a counter, by its special kind where the chip has one."""
        constant, kind = constant_of(counter)
        special = f"{group}.{constant}_{kind}"
        return self.take(special if kind and self.has(special) else f"{group}.{constant}", missing)

    def limit(self, *names: str) -> int | None:
        """The first of some limits that the chip has."""
        return next((self.chip.limit(n) for n in names if n in self.chip.limits), None)

    def barrier(self, cores: int) -> Array | None:
        """Seconds per step until all agree that it is over; of the most routers not beyond those in use."""
        table = {
            int(m[1]): name for name in self.quantities if (m := re.fullmatch(r"time\.barrier_(\d+)", name)) is not None
        }
        nodes = -(-cores // (self.limit("cores_per_tile", "cores_per_chip") or 1))
        fitting = [n for n in sorted(table) if n <= max(nodes, min(table, default=1))]
        return self.take(table[fitting[-1]] if fitting else "time.barrier", "steps follow each other without a barrier")


def _refusal(chip: Chip, name: str | None) -> str:
    quantity, q = chip.refused[str(name)]
    return f"'{name}' is refused as {quantity} of {chip.name}: {q.note} (source: {q.source})"


def _replaced(chip: Chip, constants: Mapping[str, float | Quantity]) -> dict[str, Quantity]:
    found = {}
    known = [f"{g}.{n}" for g in ("energy", "time", "power") for n in (*COUNTED, *getattr(chip, g))]
    for name, value in constants.items():
        if name not in known:
            raise ChipError(f"no quantity '{name}'. {did_you_mean(name, known)}")
        unit = {"energy": "J", "time": "s", "power": "W"}[name.partition(".")[0]]
        q = value if isinstance(value, Quantity) else Quantity(value, value, value, unit, "the caller", "assumed")
        for refused, (quantity, bad) in chip.refused.items():
            if quantity == name and bad.low <= q.value <= bad.high:
                raise ChipError(_refusal(chip, refused))
        found[name] = q
    return found


def constant_of(counter: str) -> tuple[str, str]:
    """Counter -> constant and special kind: "synops" -> ("synop", ""), "hops_east_west" -> ("hop", "east_west").

    Raises:
        ChipError: nothing is counted by that name.
    """
    for constant, plural in COUNTED.items():
        if counter == plural:
            return constant, ""
        if counter.startswith(f"{plural}_"):
            return constant, counter[len(plural) + 1 :]
    raise ChipError(f"no counter '{counter}'. {did_you_mean(counter, tuple(COUNTED.values()))}")


def counts_of(trace: Trace, program: Program | None, prices: Prices, cores: Array | None = None) -> dict[str, Array]:
    """What a batch counted: counter -> float64[batch], synaptic operations by kind where kinds differ in price.

    cores: of these alone, and then without input events, which are on no core.
    """
    found: dict[str, Array] = {}
    kinds = _kinds(trace.counters, program, prices)
    for counter in COUNTED.values():
        counts = getattr(trace.counters, counter, None)
        if counts is None or (cores is not None and counts.ndim < 3):
            continue
        counts = counts if cores is None else counts[:, :, cores]
        per_core = counts.sum(axis=1).astype(np.float64)
        if counter == "synops":
            names = kinds if cores is None else [kinds[int(c)] for c in cores]
            for name in sorted(set(names)):
                found[name] = per_core[:, [n == name for n in names]].sum(axis=1)
        else:
            found[counter] = per_core.sum(axis=1) if per_core.ndim > 1 else per_core
    return found


def _kinds(counters: Counters, program: Program | None, prices: Prices) -> list[str]:
    """Counter of the synaptic operations of each core: special where all its synapses are of one priced kind."""
    kinds: list[set[str]] = [set() for _ in range(counters.synops.shape[2])]
    for projection in program.projections if program is not None else ():
        for core in np.unique(program.placement.core_of.get(projection.target, [])) if program is not None else ():
            kinds[int(core)].add(projection.kind)
    single = [next(iter(kind)) if len(kind) == 1 else "" for kind in kinds]
    return [f"synops_{kind}" if kind and prices.has(f"energy.synop_{kind}") else "synops" for kind in single]


def joules(counts: Mapping[str, Array], prices: Prices) -> dict[str, Array]:
    """Counter -> float64[batch, 3] joules, by the name of its constant."""
    found: dict[str, Array] = {}
    for counter, count in counts.items():
        if not count.any() and not prices.has(f"energy.{constant_of(counter)[0]}"):
            continue
        price = prices.of_counter("energy", counter, f"not in the chip's file, {counter} cost nothing here")
        if price is not None:
            constant = constant_of(counter)[0]
            found[constant] = found.get(constant, np.zeros(1)) + count[:, None] * price
    return found


def static(prices: Prices, machine: Machine) -> dict[str, Array | None]:
    """Watts that flow whatever the network does: "boot_idle", "loaded_idle", "static" (both, not told apart).

    Of whole boards where the chip's file knows boards, of chips elsewhere; each float64[3], None where unknown.
    """
    on_boards = any(name.startswith("power.board_") for name in prices.quantities)
    boards = machine.boards or -(-machine.chips // (prices.limit("chips_per_board") or machine.chips))
    number, of = (boards, "board_") if on_boards else (machine.chips, "")
    if prices.has(f"power.{of}static"):
        both = prices.take(f"power.{of}static", "")
        return {"boot_idle": None, "loaded_idle": None, "static": _times(both, number)}
    boot = _times(prices.take(f"power.{of}boot_idle", "the idle power is unknown"), number)
    parts = []
    if prices.has(f"power.{of}loaded_idle") or not prices.has("power.core_active"):
        plateau = prices.take(f"power.{of}loaded_idle", "the plateau of a loaded network is unknown")
        parts.append(_times(plateau, number))
    if prices.has("power.core_active"):
        if not machine.cores:
            prices.missing["power.core_active: the number of cores in use is not given"] = None
        parts.append(_times(prices.take("power.core_active", ""), machine.cores) if machine.cores else None)
    known = [p for p in parts if p is not None]
    loaded = sum(known, np.zeros(3)) if known else None
    both = boot + loaded if boot is not None and loaded is not None else None
    return {"boot_idle": boot, "loaded_idle": loaded, "static": both}


def _times(value: Array | None, factor: float) -> Array | None:
    return None if value is None else value * factor


def machine_of(program: Program | None, prices: Prices, **given: Any) -> Machine:
    """What a program switches on, unless given. A chip has as many cores as its file says."""
    cores = int(given.get("cores") or (program.placement.cores if program is not None else 0))
    per_chip = prices.limit("cores_per_chip", "cores")
    chips = given.get("chips") or (max(1, -(-cores // per_chip)) if per_chip else 1)
    return Machine(cores, int(chips), given.get("boards"), given.get("host_io_s"), given.get("host_trips"))
