"""`Packed`: a Loihi 2 `Program` as the flat arrays its kernel walks through, made once per program.

The populations are cut into stages. A stage that no projection leaves backwards is one population, run
over all time before the next begins; populations that feed back run step by step together.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.loihi2 import neurons
from neuro.hardware.loihi2.contract import check
from neuro.hardware.loihi2.learning import learns
from neuro.hardware.loihi2.models import graded
from neuro.hardware.loihi2.plastic import rules_of
from neuro.hardware.loihi2.synapses import ROWS, RUNS, Arc, Order, arcs, fan, order_of, sum_pairs
from neuro.hardware.program import Population, Program, Projection
from neuro.ir import READOUTS

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

PLAIN, OTHER, PLASTIC = 0, 1, 2  # kinds of arcs, compiled into kernels (neuro.jit)
TILE = 64  # neurons that go through all steps together (`tiles`), one block of flags
FITS = 4095  # no larger weight: at least eight of them are added up in int16 there
TILES_WASTE = 1.34  # of at most so many times the neurons a layer has, in whole tiles, there is something to gain
MODELS = {
    **dict.fromkeys(("input", "lif", "li", "lif_reset"), neurons.LIF),
    "ternary_lif": neurons.TERNARY,
    "sigma": neurons.SIGMA,
    **dict.fromkeys(("delta", "sigma_delta"), neurons.SIGMA_DELTA),
    "rf": neurons.RF,
    "rf_iz": neurons.RF_IZ,
}


# Rows of the tables of `Packed`, compiled into kernels (neuro.jit).
# populations, one column each and one more: ends where the next would begin
FIRST, BLOCK, STAGE, ARC, MODEL, GRADED, PERIOD, PHASE, ALIKE, TILED, BRIEF, SILENT = range(12)
# arcs, one column each
SOURCE, LAG, LAYOUT, DOWN, WRAP, CARRIES, WIDE, PORT, KIND, RULE = range(10)
WEIGHT, SITE, POINTER, TARGET, RUN, TILES, MOST = range(10, 17)
KEEP_U, KEEP_V, BIAS, THRESHOLD, EXTRA = range(5)  # registers, one column per neuron
FLAT, CORE, PACKETS, HOPS = range(4)  # neurons
TO_CORE, SYNAPSES = 0, 1  # fans
FROM_SITE, FROM_WEIGHT, FROM_TARGET = 0, 1, 2  # columns of sites
AT, OF, LENGTH = 0, 1, 2  # columns of runs


class Packed(NamedTuple):
    """Populations are numbered with the input first, neurons through all of them. Few arrays with many rows: what a
    kernel compiles for grows with the number of its arguments.

    output, readout, stages: numbers. populations: int64[12, populations + 1], by row

    - FIRST: first neuron. BLOCK: likewise, in blocks of 64 flags. STAGE: first population of each stage, as many as
      there are stages, and one more. ARC: first arc into it.
    - MODEL: of `neurons`. GRADED: 1 where it sends anything but 0 and 1. PERIOD, PHASE: the steps, counted from 1,
      before which u and v are zeroed; period 0: none.
    - ALIKE: 1 where all its neurons stand on one core and send to the same cores.
    - TILED: 1 where `tiles` runs it, whose weights are in tiles and not in weight. BRIEF: 1 where of u nothing is left
      after a step, and its sum cannot leave 24 bits. SILENT: 1 where it is tiled and alike, and no projection takes
      its spikes.

    arcs: int64[17, arcs]: SOURCE, LAG, LAYOUT, DOWN, WRAP, WIDE, PORT as in `synapses.Arc`; CARRIES: 1 where weights
    are multiplied by what is sent; KIND: PLAIN, OTHER (graded, or at port 1) or PLASTIC; RULE: number of a plastic
    one; WEIGHT, SITE, POINTER, TARGET, RUN, TILES: where its part of each array below begins; MOST: in tiles, the
    largest of its weights, without sign, at least 1.

    registers: int32[5, neurons], see `registers`; v keeps KEEP_V / 4096 of itself each step. neurons: int32[4,
    neurons]: FLAT, row-major index within its population; CORE (-1: input); PACKETS, HOPS, what one of its spikes
    sends. weight: flat, int16 where all weights fit, else int32. sites: int64[n, 3], runs: int32[n, 3], layout RUNS;
    target: int32, layout LISTS; pointer: int64, into runs of a site or targets of a neuron.
    fan: int64[neurons + 1] into the columns of fans, int32[2, n]: cores that a spike reaches, synapses there.
    updates: int64[cores], neurons of each core. tiles: int16. rules: of plastic projections; None where the program is
    `plain`.
    """

    output: int
    readout: int
    stages: int
    populations: Int64
    arcs: Int64
    registers: Int32
    neurons: Int32
    weight: NDArray[Any]
    sites: Int64
    runs: Int32
    target: Int32
    pointer: Int64
    fan: Int64
    fans: Int32
    updates: Int64
    tiles: NDArray[np.int16]
    rules: Any  # `Rules`, or None: code for them is compiled where there are any

    @property
    def first(self) -> Int64:
        """First neuron of each population, and where the last one ends."""
        return cast(Int64, self.populations[FIRST])

    @property
    def block(self) -> Int64:
        """Likewise, in blocks of 64 flags."""
        return cast(Int64, self.populations[BLOCK])

    @property
    def graded(self) -> Int64:
        """Per population, 1 where it sends anything but 0 and 1."""
        return self.populations[GRADED, :-1]

    @property
    def tiled(self) -> Int64:
        """Per population, 1 where `tiles` runs it."""
        return self.populations[TILED, :-1]


def names_of(program: Program) -> list[str]:
    """Population names in the order of the arrays: the input first."""
    return [program.input, *(name for name in program.populations if name != program.input)]


_cache: WeakKeyDictionary[Program, Packed] = WeakKeyDictionary()


def pack(program: Program) -> Packed:
    """The arrays of a program, from memory if it was packed before.

    Raises:
        SimulationError: the program breaks the contract; every violation at once.
    """
    if program not in _cache:
        check(program)
        _cache[program] = _pack(program)
    return _cache[program]


def _pack(program: Program) -> Packed:
    names = names_of(program)
    populations = [program.populations[n] for n in names]
    orders = {p.name: order_of(p, program.into(p.name)) for p in populations}
    columns = [
        np.concatenate(parts) for parts in zip(*(registers(p, orders[p.name].flat) for p in populations), strict=True)
    ]
    stage, found = _stages(program, names), _arcs(program, names, orders)
    traffic = _traffic(program, names, orders)
    table = np.zeros((12, len(names) + 1), np.int64)
    table[FIRST] = _offsets([p.size for p in populations])
    table[BLOCK] = _offsets([-(-p.size // 64) for p in populations])
    table[STAGE, : stage.size] = stage
    table[ARC] = found["begins"]
    table[MODEL, :-1] = [MODELS[p.model] for p in populations]
    table[GRADED, :-1] = [graded(p) for p in populations]
    table[PERIOD, :-1], table[PHASE, :-1] = _resets(populations)
    table[ALIKE, :-1] = traffic["alike"]
    flat = np.concatenate([orders[n].flat for n in names])
    made = Packed(
        output=names.index(program.output),
        readout=READOUTS.index(program.readout),
        stages=stage.size - 1,
        populations=table,
        registers=np.stack(columns),
        neurons=np.stack([flat, traffic["core"], traffic["packets"], traffic["hops"]]).astype(np.int32),
        **{n: found[n] for n in ("arcs", "weight", "sites", "runs", "target", "pointer")},
        **{n: traffic[n] for n in ("fan", "fans", "updates")},
        tiles=np.zeros(0, np.int16),
        rules=None,
    )
    if plain(made):
        return _tiled(made)
    taught = [
        (p, names.index(p.source), names.index(p.target), orders[p.source], orders[p.target])
        for p in plastic_of(program)
    ]
    return made._replace(rules=rules_of(taught))


def plain(net: Packed) -> bool:
    """Whether there is nothing but LIF and spikes, for which a smaller kernel is compiled."""
    others = (net.populations[[PERIOD, GRADED]] != 0).any() or (net.populations[MODEL, :-1] != neurons.LIF).any()
    return not (others or (net.arcs[KIND] != PLAIN).any())


def _tiled(net: Packed) -> Packed:
    """With the weights of layers that `tiles` can run in tiles: nothing of a layer's spikes comes back to it, all
    that leads to it are dense matrices of small weights, and it is not much smaller than its tiles."""
    table, arcs = net.populations.copy(), net.arcs.copy()
    ends = np.concatenate([net.arcs[WEIGHT, 1:], [net.weight.size]]) if arcs.size else arcs[WEIGHT]
    kept, tiles, at = [net.weight[:0]], [np.zeros(0, np.int16)], 0
    stage = table[STAGE, : net.stages + 1]
    alone = stage[:-1][np.diff(stage) == 1]
    for p in range(table.shape[1] - 1):
        into, n = range(table[ARC, p], table[ARC, p + 1]), int(table[FIRST, p + 1] - table[FIRST, p])
        parts = [net.weight[net.arcs[WEIGHT, k] : ends[k]] for k in into]
        fits = TILE * -(-n // TILE) <= TILES_WASTE * n and p in alone
        rows = all(arcs[LAYOUT, k] == ROWS and arcs[DOWN, k] == 0 and arcs[SOURCE, k] != p for k in into)
        small = all(int(np.abs(w.astype(np.int64)).max(initial=0)) <= FITS for w in parts)
        if not (fits and rows and small):
            for k, w in zip(into, parts, strict=True):
                arcs[WEIGHT, k] = sum(x.size for x in kept)
                kept.append(w)
            continue
        most = np.zeros(n, np.int64)
        for k, w in zip(into, parts, strict=True):
            matrix = w.reshape(-1, n).astype(np.int64)
            most += np.maximum(np.maximum(matrix, 0).sum(axis=0), -np.minimum(matrix, 0).sum(axis=0))
            whole = np.zeros((len(matrix) + 1, TILE * -(-n // TILE)), np.int16)  # its last row is nothing
            whole[:-1, :n] = matrix
            arcs[TILES, k], arcs[MOST, k] = at, max(1, int(np.abs(matrix).max(initial=0)))
            at += whole.size
            tiles.append(whole.reshape(len(matrix) + 1, -1, TILE).transpose(1, 0, 2).ravel())
        keep_u = net.registers[KEEP_U, table[FIRST, p] : table[FIRST, p + 1]]
        table[TILED, p] = 1
        table[BRIEF, p] = not keep_u.any() and 64 * int(most.max(initial=0)) < 1 << 23
        table[SILENT, p] = table[ALIKE, p] and not (arcs[SOURCE] == p).any()
    return net._replace(populations=table, arcs=arcs, weight=np.concatenate(kept), tiles=aligned(np.concatenate(tiles)))


def aligned(array: NDArray[Any]) -> NDArray[Any]:
    """A copy of a flat array that begins with a cache line: a row of a tile is then two of them, not three."""
    room = np.empty(array.nbytes + 63, np.uint8)
    at = -room.ctypes.data % 64
    found: NDArray[Any] = room[at : at + array.nbytes].view(array.dtype)
    found[:] = array
    return found


def plastic_of(program: Program) -> list[Projection]:
    """Projections that learn, in the order of `Packed.rules`."""
    return [p for p in program.projections if learns(p)]


def _offsets(sizes: list[int]) -> Int64:
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)


def _stages(program: Program, names: list[str]) -> Int64:
    """First population of each stage. A projection back from j to i <= j puts i..j into one stage; a loop
    of a population onto itself needs nothing, its stage is run step by step anyway."""
    number = {name: i for i, name in enumerate(names)}
    joined = np.zeros(len(names) + 1, bool)  # joined[i]: population i is in the stage of population i - 1
    for p in program.projections:
        joined[number[p.target] + 1 : number[p.source] + 1] = True
    return np.array([i for i in range(1, len(names) + 1) if not joined[i]], np.int64)


def _wrapped(values: Int64) -> Int32:
    return values.astype(np.int64).astype(np.int32)  # modulo 2^32, as Lava's int32


def registers(population: Population, flat: Int64) -> tuple[Int32, ...]:
    """KEEP_U to EXTRA of a population's neurons, in the order given by ``flat``: what `neurons` takes of them.

    LIF and its kin: threshold (of a ternary one the upper), extra the lower threshold. Sigma-delta: keep_u left
    shift of the input, keep_v flags, extra right shift of the output. Resonators: keep_u cosine, keep_v sine, bias
    left shift of the input, extra decay_bits.
    """
    nothing = np.zeros(population.size, np.int64)
    p = {n: np.broadcast_to(values, population.size)[flat] for n, values in population.params.items()}
    if population.model in ("input", "sigma"):
        found = (nothing, nothing, nothing, nothing, nothing)
    elif population.model in ("delta", "sigma_delta"):
        flags = neurons.CUMULATIVE * p["cum_error"]
        shift, bias = p["spike_exp"] + p["state_exp"], nothing
        if population.model == "sigma_delta":
            flags = flags + neurons.INTEGRATES + neurons.RELU * p["relu"]
            shift, bias = nothing, p["bias"]
        found = (shift, flags, bias, p["vth"], p["state_exp"])
    elif population.model in ("rf", "rf_iz"):
        found = (p["cos_decay"], p["sin_decay"], p["state_exp"], p["vth"], p["decay_bits"])
    else:
        exponent = p["bias_exp"]
        bias = (p["bias_mant"] << np.maximum(exponent, 0)) >> np.maximum(-exponent, 0)
        high, low = (p["vth_hi"], p["vth_lo"]) if population.model == "ternary_lif" else (p["vth"], nothing)
        found = (4095 - p["du"], 4096 - p["dv"], bias, high << 6, low << 6)
    return tuple(_wrapped(values) for values in found)


def _resets(populations: list[Population]) -> tuple[Int64, Int64]:
    interval = np.array([int(p.params.get("reset_interval", np.array(0))) for p in populations], np.int64)
    offset = np.array([int(p.params.get("reset_offset", np.array(0))) for p in populations], np.int64)
    return interval, offset % np.maximum(interval, 1)


def _arcs(program: Program, names: list[str], orders: dict[str, Order]) -> dict[str, Any]:
    found: list[tuple[int, Arc]] = []
    begins = [0]
    learning = [p.name for p in plastic_of(program)]
    for name in names:
        for projection in program.into(name):
            ends = program.populations[projection.source], program.populations[name]
            source = names.index(projection.source)
            made = arcs(projection, *ends, (orders[projection.source], orders[name]))
            if learns(projection):  # one arc whatever its weights are now
                made = [Arc(1, ROWS, np.zeros(0, np.int64), rule=learning.index(projection.name))]
            found += [(source, a) for a in made]
        begins.append(len(found))
    parts = [a for _, a in found]

    def joined(arrays: list[Any], columns: int = 0) -> Int64:
        shape = (0, columns) if columns else (0,)
        return np.concatenate([np.zeros(shape, np.int64), *arrays])

    weights, pointers = [a.weight for a in parts], [a.pointer for a in parts]
    sites = [np.stack([a.site, a.base_weight, a.base_target], axis=1) for a in parts]
    runs = [np.stack([a.target, a.run_weight, a.run_length], axis=1) for a in parts if a.layout == RUNS]
    targets = [a.target[:0] if a.layout == RUNS else a.target for a in parts]
    table = np.zeros((17, len(parts)), np.int64)
    scalars = {LAG: "lag", LAYOUT: "layout", DOWN: "down", WRAP: "wrap", CARRIES: "graded", WIDE: "wide", PORT: "port"}
    for row, name in (scalars | {RULE: "rule"}).items():
        table[row] = [getattr(a, name) for a in parts]
    table[SOURCE] = [source for source, _ in found]
    table[KIND] = np.where(table[RULE] >= 0, PLASTIC, np.where((table[CARRIES] > 0) | (table[PORT] > 0), OTHER, PLAIN))
    lengths = [a.run_weight.size for a in parts]
    for row, arrays in {WEIGHT: weights, SITE: sites, POINTER: pointers, TARGET: targets}.items():
        table[row] = _offsets([len(a) for a in arrays])[:-1]
    table[RUN], table[MOST] = _offsets(lengths)[:-1], 1
    weight = joined(weights).astype(np.int32)
    if weight.size == 0 or (weight.min() >= -(1 << 15) and weight.max() < 1 << 15):
        weight = weight.astype(np.int16)  # half the memory traffic
    return {
        "begins": begins,
        "arcs": table,
        "weight": weight,
        "sites": joined(sites, 3),
        "runs": joined(runs, 3).astype(np.int32),
        "target": joined(targets).astype(np.int32),
        "pointer": joined(pointers),
    }


def _traffic(program: Program, names: list[str], orders: dict[str, Order]) -> dict[str, Any]:
    """What one spike of each neuron causes."""
    populations, placement = program.populations, program.placement
    cores = placement.cores
    core, packets, hops, begins, fan_core, fan_synapses = [], [], [], [], [], []
    for name in names:
        size = populations[name].size
        own = np.asarray(placement.core_of.get(name, np.full(size, -1)), np.int64)[orders[name].flat]
        leaving = [p for p in program.projections if p.source == name]
        parts = [
            fan(p, populations[name], populations[p.target], np.asarray(placement.core_of[p.target], np.int64), cores)
            for p in leaving
        ]
        flat, there, synapses = np.concatenate([np.zeros((3, 0), np.int64), *parts], axis=1)
        neuron, there, synapses = sum_pairs(orders[name].place[flat], there, synapses, cores)
        begins.append(np.bincount(neuron, minlength=size))
        fan_core.append(there)
        fan_synapses.append(synapses)
        core.append(own)
        if populations[name].model == "input":  # its messages come from outside the chip
            packets.append(np.zeros(size, np.int64))
            hops.append(np.zeros(size, np.int64))
            continue
        packets.append(np.bincount(neuron, minlength=size))
        distance = np.abs(placement.xy[own[neuron]] - placement.xy[there]).sum(axis=1)
        hops.append(np.bincount(neuron, weights=distance, minlength=size).astype(np.int64))
    everywhere = np.concatenate(core)
    fan_begins = np.concatenate([[0], np.cumsum(np.concatenate(begins))]).astype(np.int64)
    columns = core, packets, hops, begins
    alike = [all((c[i] == c[i][:1]).all() for c in columns) for i in range(len(names))]
    for i, first in enumerate(_offsets([populations[n].size for n in names])[:-1]):
        n = populations[names[i]].size
        if alike[i]:
            reached = np.concatenate(fan_core)[fan_begins[first] : fan_begins[first + n]].reshape(n, -1)
            alike[i] = bool((reached == reached[:1]).all())
    return {
        "alike": np.array(alike, np.int64),
        "core": everywhere,
        "packets": np.concatenate(packets),
        "hops": np.concatenate(hops),
        "fan": fan_begins,
        "fans": np.stack([np.concatenate(fan_core), np.concatenate(fan_synapses)]).astype(np.int32),
        "updates": np.bincount(everywhere[everywhere >= 0], minlength=cores).astype(np.int64),
    }
