"""Which core of Loihi 1 holds which neuron, under every limit of a core at once.

A core holds so many compartments, bits of synapses, input axons (distinct neurons that reach it), output axons
(pairs of own neuron and target core), sets of decays, thresholds and synapse formats. Neurons of a convolution are
taken place by place, all channels of a pixel together, so that a core sees a patch of its input and not all of it.
Cores are filled one after the other; where output axons do not suffice, the population is spread over more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from neuro.errors import Violation
from neuro.hardware.chip import Chip
from neuro.hardware.fabric import Mesh
from neuro.hardware.program import IntArray, Placement, Population, Projection

REMEDY = {
    "in_axons": "Reduce the fan-in: prune, pool, or split the inputs over a hidden layer",
    "memory": "Reduce the fan-in: prune, pool, or split the inputs over a hidden layer",
    "out_axons": "Let the neuron reach fewer cores: smaller kernels, or a smaller next layer",
}


@dataclass(frozen=True, eq=False)
class Needs:
    """What the neurons of one population ask of a core. order: the order in which they are placed.

    pointer, source: distinct sources of each neuron, numbered over all populations. bits: of its synapses.
    decays, threshold: number of the set of decays, and of the threshold, that it uses. formats: of the population.
    """

    name: str
    order: IntArray
    pointer: IntArray
    source: IntArray
    bits: IntArray
    decays: IntArray
    threshold: IntArray
    formats: int

    @property
    def size(self) -> int:
        return len(self.order)


def place_cores(
    populations: dict[str, Population], projections: tuple[Projection, ...], chip: Chip
) -> tuple[Placement, list[Violation]]:
    """The placement, and what no placement can hold."""
    start, total = {}, 0
    for name, p in populations.items():
        start[name] = total
        total += p.size
    needs = [
        _needs(p, [k for k in projections if k.target == p.name], start, chip)
        for p in populations.values()
        if p.model != "input"
    ]
    caps = {n.name: chip.limit("compartments_per_core") for n in needs}
    violations: list[Violation] = []
    while True:
        cores: dict[str, list[IntArray]] = {}
        violations = []
        for n in needs:
            cores[n.name] = _fill(n, caps[n.name], chip, violations)
        out = _out_axons(needs, cores, start, total)
        crowded = {name for name, most in out.items() if most > chip.limit("out_axons_per_core")}
        shrunk = {name for name in crowded if caps[name] > 1}
        for name in shrunk:
            caps[name] = min(caps[name], max(len(c) for c in cores[name])) // 2 or 1
        if not shrunk:
            break
    for name in crowded:
        limit = chip.limit("out_axons_per_core")
        violations.append(Violation(name, "output axons of one neuron", out[name], limit, REMEDY["out_axons"]))
    return _placement(needs, cores, chip), violations


def _needs(population: Population, incoming: list[Projection], start: dict[str, int], chip: Chip) -> Needs:
    n = population.size
    order = np.arange(n).reshape(population.shape)
    if len(population.shape) == 3:
        order = order.transpose(1, 2, 0)  # pixel by pixel, all channels together
    bits = np.zeros(n, np.int64)
    pairs = [np.zeros((2, 0), np.int64)]
    formats = set()
    for p in incoming:
        row, col, delayed = _synapses(p)
        entry = chip.limit("synapse_entry") + delayed * chip.limit("delay_entry")
        bits += entry * np.bincount(row, minlength=n)
        pairs.append(np.stack([row, col + start[p.source]]))
        formats.add((*(int(p.params[k]) for k in ("weight_exp", "num_weight_bits", "sign_mode")), delayed))
    row, source = np.unique(np.concatenate(pairs, axis=1), axis=1)
    pointer = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=n))])
    return Needs(
        population.name,
        order.reshape(-1),
        pointer,
        source,
        bits,
        _kinds(population, ("du", "dv", "decay_u", "decay_v", "refractory", "bias_exp")),
        _kinds(population, ("vth", "threshold")),
        len(formats),
    )


def _synapses(p: Projection) -> tuple[IntArray, IntArray, bool]:
    delayed = "delay_steps" in p.params
    if p.kind == "sparse":
        return p.params["row"], p.params["col"], delayed
    row, col = np.nonzero(p.weight_q)
    return row.astype(np.int64), col.astype(np.int64), delayed


def _kinds(population: Population, names: tuple[str, ...]) -> IntArray:
    """int64[n]: number of the distinct set of these parameters."""
    rows = [np.broadcast_to(population.params[k], (population.size,)) for k in names if k in population.params]
    return np.unique(np.stack(rows), axis=1, return_inverse=True)[1].reshape(-1).astype(np.int64)


class _Core:
    """A core that is being filled."""

    def __init__(self) -> None:
        self.neurons: list[int] = []
        self.sources: set[int] = set()
        self.decays: set[int] = set()
        self.thresholds: set[int] = set()
        self.bits = 0


def _fill(n: Needs, cap: int, chip: Chip, violations: list[Violation]) -> list[IntArray]:
    """Neurons of each core, in order. A neuron that fits no core is reported and gets one of its own."""
    axons, bits = chip.limit("in_axons_per_core"), chip.limit("synapse_bits_per_core")
    too_many, too_large = 0, 0
    cores, core = [], _Core()
    for i in n.order.tolist():
        new = set(n.source[n.pointer[i] : n.pointer[i + 1]].tolist()) - core.sources
        fits = (
            len(core.neurons) < cap
            and len(core.sources) + len(new) <= axons
            and core.bits + int(n.bits[i]) <= bits
            and len(core.decays | {int(n.decays[i])}) <= chip.limit("compartment_configs_per_core")
            and len(core.thresholds | {int(n.threshold[i])}) <= chip.limit("thresholds_per_core")
        )
        if not fits and core.neurons:
            cores.append(core)
            core = _Core()
            new = set(n.source[n.pointer[i] : n.pointer[i + 1]].tolist())
        core.neurons.append(i)
        core.sources |= new
        core.bits += int(n.bits[i])
        core.decays.add(int(n.decays[i]))
        core.thresholds.add(int(n.threshold[i]))
        too_many, too_large = max(too_many, int(n.pointer[i + 1] - n.pointer[i])), max(too_large, int(n.bits[i]))
    cores.append(core)
    for what, wanted, limit, remedy in (
        ("input axons of one neuron", too_many, axons, REMEDY["in_axons"]),
        ("synapse memory of one neuron (bits)", too_large, bits, REMEDY["memory"]),
        ("synapse formats on one core", n.formats, chip.limit("synapse_configs_per_core"), "Merge paths into it"),
    ):
        if wanted > limit:
            violations.append(Violation(n.name, what, wanted, limit, remedy))
    return [np.array(c.neurons, np.int64) for c in cores]


def _out_axons(
    needs: list[Needs], cores: dict[str, list[IntArray]], start: dict[str, int], total: int
) -> dict[str, int]:
    """Per population, the most output axons that one of its cores needs: pairs of own neuron and target core."""
    reached = np.zeros(total, np.int64)  # cores that each neuron reaches
    for n in needs:
        for neurons in cores[n.name]:
            spans = [n.source[n.pointer[i] : n.pointer[i + 1]] for i in neurons.tolist()]
            reached[np.unique(np.concatenate(spans))] += 1
    return {n.name: max(int(reached[start[n.name] + c].sum()) for c in cores[n.name]) for n in needs}


def _placement(needs: list[Needs], cores: dict[str, list[IntArray]], chip: Chip) -> Placement:
    core_of: dict[str, IntArray] = {}
    use: list[Mapping[str, float]] = []
    for n in needs:
        core_of[n.name] = np.empty(n.size, np.int64)
        for neurons in cores[n.name]:
            core_of[n.name][neurons] = len(use)
            spans = [n.source[n.pointer[i] : n.pointer[i + 1]] for i in neurons.tolist()]
            use.append(
                {
                    "compartments": len(neurons) / chip.limit("compartments_per_core"),
                    "input axons": len(np.unique(np.concatenate(spans))) / chip.limit("in_axons_per_core"),
                    "synapse memory": float(n.bits[neurons].sum()) / chip.limit("synapse_bits_per_core"),
                }
            )
    mesh = Mesh(chip.limit("mesh_width"), chip.limit("mesh_height"), chip.limit("cores_per_tile"))
    return Placement(core_of, mesh.xy(len(use)), tuple(use))
