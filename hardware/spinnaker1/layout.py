"""Where a network sits on the machine: cores, rows, delay extensions, routes; and every limit that it exceeds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuro.errors import ChipError, Violation
from neuro.hardware.chip import CHIP_FOLDER, Chip, read_chip
from neuro.hardware.fabric import HexTorus, hexagon
from neuro.hardware.place import Demand, place
from neuro.hardware.program import Integers, Placement, Population, Program, Projection
from neuro.hardware.route import check_tables, key_blocks, routing_tables
from neuro.hardware.spinnaker1.contract import HEADER, slices_of
from neuro.hardware.spinnaker1.rows import Rows
from neuro.hardware.spinnaker1.traffic import routes
from neuro.hardware.spinnaker1.words import Layout, bits_for

Int64 = NDArray[np.int64]
CHIP: Chip = read_chip(CHIP_FOLDER / "spinnaker1.toml")
RING_BYTES = 2 << CHIP.limit("ring_bits")


def machine(boards: int, cores: int) -> HexTorus:
    """One board, or a torus of three boards and their multiples. cores: how many of a chip's are used.

    Raises:
        ChipError: another number of boards.
    """
    side = CHIP.limit("hex_width")
    if boards == 1:
        return HexTorus(side, side, cores, False, False, hexagon(side // 2))
    if boards < 1 or boards % 3:
        raise ChipError(f"{boards} boards form no torus; take 1, or a multiple of 3")
    triads = boards // 3
    high = next(k for k in range(int(triads**0.5), 0, -1) if triads % k == 0)
    return HexTorus(triads // high * side * 3 // 2, high * side * 3 // 2, cores)


class Shape(NamedTuple):
    """Of a population on its cores."""

    atoms: int
    layout: Layout


def shape_of(size: int, per_core: int) -> Shape:
    """Neurons on its fullest core when spread evenly over the fewest, and the fields of its words."""
    atoms = -(-size // -(-size // per_core))
    index = bits_for(atoms)
    return Shape(atoms, Layout(index, 1, CHIP.limit("ring_bits") - index - 1))


@dataclass(frozen=True, eq=False)
class Laid:
    """placement: of all cores, delay extensions last. image: as contract.py has it."""

    placement: Placement
    image: dict[str, Integers]


def lay(
    populations: dict[str, Population],
    projections: tuple[Projection, ...],
    source: str,
    per_core: int,
    fabric: HexTorus,
    violations: list[Violation],
) -> Laid:
    """Place the neurons and write their rows. Limits of cores and memory are checked here, of routes in `check`."""
    names = [source, *(n for n in populations if n != source)]
    placement = _placed(populations, projections, names[1:], per_core, fabric, violations)
    rows = Rows([populations[n].size for n in names], sum(int(np.count_nonzero(p.weight_q)) for p in projections))
    late: dict[int, NDArray[np.bool_]] = {}
    for name in names[1:]:
        layout = Layout(int(populations[name].params["index_bits"]), 1, int(populations[name].params["delay_bits"]))
        cores = placement.core_of[name]
        first = np.searchsorted(cores, cores)  # slices are contiguous, their cores in order
        for k, other in enumerate(names):
            into = [p for p in projections if p.target == name and p.source == other and p.weight_q.any()]
            if not into:
                continue
            row, col, word, delay = (
                np.concatenate([part(p) for p in into])
                for part in (_rows, _cols, lambda p: p.weight_q, lambda p: p.params["delay_steps"])
            )
            there = word != 0
            row, col, word, delay = row[there], col[there], word[there], delay[there]
            if (delay > layout.slots).any():
                held = late.setdefault(k, np.zeros(populations[other].size, bool))
                held[col[delay > layout.slots]] = True
            for core in np.unique(cores[row]).tolist():
                of = cores[row] == core
                index = row[of] - first[row[of]]
                rows.add(core, k, layout, col[of], index, np.abs(word[of]), delay[of], word[of] < 0)
    relays = _relays(late, names, placement, per_core)
    total = placement.cores + len(relays)
    placement = replace(
        placement,
        xy=fabric.xy(total),
        utilisation=(*placement.utilisation, *({"neurons": (b - a) / per_core} for _, _, a, b in relays)),
    )
    return Laid(placement, rows.image(relays))


def _rows(p: Projection) -> Int64:
    return p.params["row"]


def _cols(p: Projection) -> Int64:
    return p.params["col"]


def _relays(
    late: dict[int, NDArray[np.bool_]], names: list[str], placement: Placement, per_core: int
) -> list[tuple[int, int, int, int]]:
    """One delay extension per slice of a source that has spikes to hold back."""
    found: list[tuple[int, int, int, int]] = []
    for k, held in sorted(late.items()):
        cores = placement.core_of.get(names[k], np.arange(held.size) // per_core)
        for core in np.unique(cores).tolist():
            inside = np.flatnonzero(cores == core)
            if held[inside].any():
                found.append((placement.cores + len(found), k, int(inside[0]), int(inside[-1]) + 1))
    return found


def _placed(
    populations: dict[str, Population],
    projections: tuple[Projection, ...],
    names: list[str],
    per_core: int,
    fabric: HexTorus,
    violations: list[Violation],
) -> Placement:
    """Slices of populations on cores of their own; DTCM is that of the neurons, the ring buffers and the tables."""
    cores_of = {n: -(-populations[n].size // per_core) for n in populations}
    demands = []
    for name in names:
        n = populations[name].size
        entries = sum(cores_of[s] for s in {p.source for p in projections if p.target == name})
        shared = RING_BYTES + CHIP.limit("population_table_entry") * entries
        own = np.full(n, 8 * CHIP.limit("neuron_memory"), np.int64)
        demands.append(Demand(name, own, np.zeros(n, np.int64), np.array([8 * shared])))
        most = shape_of(n, per_core).atoms * CHIP.limit("neuron_memory") + shared
        if most > CHIP.limit("dtcm"):
            fit = (CHIP.limit("dtcm") - shared) // CHIP.limit("neuron_memory")
            remedy = f"Compile with neurons_per_core={fit} or less" if fit > 0 else "Let fewer neurons feed this one"
            violations.append(Violation(name, "DTCM of a core (bytes)", most, CHIP.limit("dtcm"), remedy))
    placement, _ = place(demands, per_core, 1 << 62, fabric)
    use = []
    for core, shares in enumerate(placement.utilisation):
        name = next(n for n in names if (placement.core_of[n] == core).any())
        dtcm = demands[names.index(name)].bits(0, int((placement.core_of[name] == core).sum())) / 8
        use.append({"neurons": shares["neurons"], "dtcm": dtcm / CHIP.limit("dtcm")})
    return replace(placement, utilisation=tuple(use))


def check(program: Program, boards: int, per_core: int, violations: list[Violation]) -> None:
    """Cores, SDRAM of each chip and entries of each router."""
    placement, fabric = program.placement, program.placement.fabric
    assert isinstance(fabric, HexTorus)
    sources = -(-program.populations[program.input].size // per_core)
    if placement.cores + sources > fabric.cores:
        chips = -(-(placement.cores + sources) // fabric.cores_per_node)
        enough = 3 * -(-chips // (3 * CHIP.limit("hex_chips")))
        more = f"Compile with boards={enough}, or use fewer or smaller layers"
        what = f"cores of {boards} board(s), {sources} of them for spike sources"
        violations.append(Violation("network", what, placement.cores + sources, fabric.cores, more))
    _check_sdram(program, fabric, violations)
    if placement.cores > fabric.cores:
        return  # no routes to chips that are not there
    source, target = routes(program)
    if not source.size:
        return
    chip = fabric.at(placement.xy)
    key, mask = key_blocks(_keys(program))
    local = target % fabric.cores_per_node
    tables = routing_tables(fabric, key, mask, chip, source, chip[target], local)
    violations += check_tables(fabric, tables, CHIP.limit("routing_entries"))[1]


def _keys(program: Program) -> list[int]:
    """Keys of each core: one per neuron; of a delay extension one per neuron and stage."""
    found = [1] * program.placement.cores
    for name in program.placement.core_of:
        for core, lo, hi in slices_of(program, name):
            found[core] = hi - lo
    blocks = program.image["blocks"]
    for core, k, lo, hi in program.image["relays"].tolist():
        found[core] = (hi - lo) * np.unique(blocks[(blocks[:, 1] == k) & (blocks[:, 2] > 0), 2]).size
    return found


def _check_sdram(program: Program, fabric: HexTorus, violations: list[Violation]) -> None:
    sizes = [program.populations[n].size for n in [program.input, *program.placement.core_of]]
    used, heads = (np.zeros(program.placement.cores, np.int64) for _ in range(2))
    for core, k, _, row, _ in program.image["blocks"].tolist():
        length = np.diff(program.image["row_start"][row : row + sizes[k] + 1].astype(np.int64))
        used[core] += 4 * sizes[k] * (HEADER + int(length.max(initial=0)))
        heads[core] += 4 * sizes[k] * HEADER
    limit = CHIP.limit("sdram")
    over = np.flatnonzero(used > limit)
    if over.size:
        most = int(used.argmax())
        atoms = np.bincount(np.concatenate(list(program.placement.core_of.values())), minlength=used.size)
        fit = int((atoms[over] * (limit - heads[over]) // np.maximum(used[over] - heads[over], 1)).min())
        remedy = f"Compile with neurons_per_core={fit} or less" if fit > 0 else "Let fewer neurons feed it"
        what = "SDRAM of the synaptic rows of one core (bytes)"
        violations.append(Violation(f"core {most}", what, int(used[most]), limit, remedy))
        return
    on_chip = _on_chips(used, fabric.cores_per_node)
    if (on_chip > limit).any():
        fit = next(k for k in range(fabric.cores_per_node, 0, -1) if (_on_chips(used, k) <= limit).all())
        worst = int(on_chip.argmax())
        violations.append(
            Violation(
                f"chip {tuple(fabric.position(worst).tolist())}",
                "SDRAM of synaptic rows (bytes)",
                int(on_chip[worst]),
                limit,
                f"Compile with cores_per_chip={fit}, which spreads them over more chips",
            )
        )


def _on_chips(used: Int64, per_chip: int) -> NDArray[np.float64]:
    return np.asarray(np.bincount(np.arange(used.size) // per_chip, used), np.float64)
