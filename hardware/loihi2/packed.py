"""`Packed`: a Loihi 2 `Program` as the flat arrays its kernel walks through, made once per program.

The populations are cut into stages. A stage that no projection leaves backwards is one population, run
over all time before the next begins; populations that feed back run step by step together.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.loihi2 import neurons
from neuro.hardware.loihi2.contract import check
from neuro.hardware.loihi2.learning import learns
from neuro.hardware.loihi2.models import graded
from neuro.hardware.loihi2.plastic import Rules, rules_of
from neuro.hardware.loihi2.synapses import ROWS, Arc, Order, arcs, fan, order_of, sum_pairs
from neuro.hardware.program import Population, Program, Projection
from neuro.ir import READOUTS

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

PLAIN, OTHER, PLASTIC = 0, 1, 2  # kinds of arcs, compiled into kernels (neuro.jit)
REGISTERS = ("keep_u", "keep_v", "bias", "threshold", "extra")
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


class Packed(NamedTuple):
    """Populations are numbered with the input first, neurons through all of them.

    first: int64[populations + 1], first neuron of each. block: likewise, in blocks of 64 flags.
    stage: int64[stages + 1], first population of each. output, readout: numbers.
    flat: neuron -> row-major index within its population.
    model: of `neurons`, per population. graded: 1 where it sends anything but 0 and 1. period, phase: the steps,
    counted from 1, before which u and v are zeroed; period 0: none.
    keep_u, keep_v, bias, threshold, extra: per neuron, see `registers`; v keeps keep_v / 4096 of itself each step.

    arc: int64[populations + 1], first arc into each. The arc_* arrays have one entry per arc: source,
    lag, layout, down, wrap as in `synapses.Arc`; graded: 1 where weights are multiplied by what is sent; wide: 1
    where the sum of a step is an int64; port; kind: PLAIN, OTHER (graded, or at port 1) or PLASTIC; rule: number of
    a plastic one; and where its part of each array below begins.

    core, packets, hops: per neuron, its core (-1: input) and what one of its spikes sends.
    fan: int64[neurons + 1] into fan_core, fan_synapses: synapses per target core that a spike reaches.
    updates: int64[cores], neurons of each core. alike: 1 for a population all of whose neurons stand on
    one core and send to the same cores.

    tiled: 1 for a population that `tiles` runs, whose weights are in tiles (int16), from arc_tiles of each arc on,
    and not in weight; arc_most: the largest of them, without sign, at least 1. brief: 1 where of u nothing is left
    after a step, and its sum cannot leave 24 bits.
    """

    first: Int64
    block: Int64
    stage: Int64
    output: int
    readout: int
    flat: Int32
    model: Int64
    graded: Int64
    period: Int64
    phase: Int64
    keep_u: Int32
    keep_v: Int32
    bias: Int32
    threshold: Int32
    extra: Int32
    arc: Int64
    arc_source: Int64
    arc_lag: Int64
    arc_layout: Int64
    arc_down: Int64
    arc_wrap: Int64
    arc_graded: Int64
    arc_wide: Int64
    arc_port: Int64
    arc_kind: Int64
    arc_rule: Int64
    arc_weight: Int64
    arc_site: Int64
    arc_pointer: Int64
    arc_target: Int64
    arc_run: Int64
    weight: NDArray[Any]  # int16 where all weights fit, else int32
    site: Int32
    base_weight: Int64
    base_target: Int32
    pointer: Int64
    target: Int32
    run_weight: Int32
    run_length: Int32
    core: Int32
    packets: Int32
    hops: Int32
    fan: Int64
    fan_core: Int32
    fan_synapses: Int32
    updates: Int64
    alike: Int64
    rules: Rules
    tiled: Int64
    tiles: NDArray[np.int16]
    arc_tiles: Int64
    arc_most: Int64
    brief: Int64


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
    untiled = Packed(
        first=_offsets([p.size for p in populations]),
        block=_offsets([-(-p.size // 64) for p in populations]),
        stage=_stages(program, names),
        output=names.index(program.output),
        readout=READOUTS.index(program.readout),
        flat=np.concatenate([orders[n].flat for n in names]).astype(np.int32),
        model=np.array([MODELS[p.model] for p in populations], np.int64),
        graded=np.array([graded(p) for p in populations], np.int64),
        **_resets(populations),
        **dict(zip(REGISTERS, columns, strict=True)),
        **_arcs(program, names, orders),
        **_traffic(program, names, orders),
        rules=rules_of(
            [
                (p, names.index(p.source), names.index(p.target), orders[p.source], orders[p.target])
                for p in plastic_of(program)
            ]
        ),
        tiled=np.zeros(len(names), np.int64),
        tiles=np.zeros(0, np.int16),
        arc_tiles=np.zeros(0, np.int64),
        arc_most=np.zeros(0, np.int64),
        brief=np.zeros(len(names), np.int64),
    )
    return _tiled(untiled)


def plain(net: Packed) -> bool:
    """Whether there is nothing but LIF and spikes, for which a smaller kernel is compiled."""
    others = (net.model != neurons.LIF).any() or net.period.any() or (net.arc_kind != PLAIN).any()
    return not (others or net.graded.any())


def _tiled(net: Packed) -> Packed:
    """With the weights of layers that `tiles` can run in tiles: nothing of a layer's spikes comes back to it, all
    that leads to it are dense matrices of small weights, and it is not much smaller than its tiles."""
    count = net.first.size - 1
    tiled, brief = np.zeros(count, np.int64), np.zeros(count, np.int64)
    ends = np.concatenate([net.arc_weight[1:], [net.weight.size]]) if net.arc_weight.size else net.arc_weight
    begins, kept, tiles, arc_tiles = net.arc_weight.copy(), [net.weight[:0]], [np.zeros(0, np.int16)], ends * 0
    alone = net.stage[:-1][np.diff(net.stage) == 1] if plain(net) else net.stage[:0]
    arc_most, at = np.ones_like(ends), 0
    for p in range(count):
        into, n = range(net.arc[p], net.arc[p + 1]), int(net.first[p + 1] - net.first[p])
        parts = [net.weight[net.arc_weight[k] : ends[k]] for k in into]
        fits = TILE * -(-n // TILE) <= TILES_WASTE * n and p in alone
        rows = all(net.arc_layout[k] == ROWS and net.arc_down[k] == 0 and net.arc_source[k] != p for k in into)
        small = all(int(np.abs(w.astype(np.int64)).max(initial=0)) <= FITS for w in parts)
        tiled[p] = fits and rows and small
        if not tiled[p]:
            for k, w in zip(into, parts, strict=True):
                begins[k] = sum(x.size for x in kept)
                kept.append(w)
            continue
        most = np.zeros(n, np.int64)
        for k, w in zip(into, parts, strict=True):
            matrix = w.reshape(-1, n).astype(np.int64)
            most += np.maximum(np.maximum(matrix, 0).sum(axis=0), -np.minimum(matrix, 0).sum(axis=0))
            whole = np.zeros((len(matrix), TILE * -(-n // TILE)), np.int16)
            whole[:, :n] = matrix
            arc_tiles[k], arc_most[k] = at, max(1, int(np.abs(matrix).max(initial=0)))
            at += whole.size
            tiles.append(whole.reshape(len(matrix), -1, TILE).transpose(1, 0, 2).ravel())
        here = slice(net.first[p], net.first[p + 1])
        brief[p] = not net.keep_u[here].any() and 64 * int(most.max(initial=0)) < 1 << 23
    weight = np.concatenate(kept)
    return net._replace(
        tiled=tiled,
        brief=brief,
        tiles=np.concatenate(tiles),
        arc_tiles=arc_tiles,
        arc_most=arc_most,
        arc_weight=begins,
        weight=weight,
    )


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
    """`REGISTERS` of a population's neurons, in the order given by ``flat``: what `neurons` takes of them.

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


def _resets(populations: list[Population]) -> dict[str, Any]:
    interval = np.array([int(p.params.get("reset_interval", np.array(0))) for p in populations], np.int64)
    offset = np.array([int(p.params.get("reset_offset", np.array(0))) for p in populations], np.int64)
    return {"period": interval, "phase": offset % np.maximum(interval, 1)}


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

    def scalars(name: str) -> Int64:
        return np.array([getattr(a, name) for a in parts], np.int64)

    def starts(name: str) -> Int64:
        return _offsets([getattr(a, name).size for a in parts])[:-1]

    def joined(name: str, dtype: type) -> NDArray[Any]:
        return np.concatenate([np.zeros(0, np.int64), *(getattr(a, name) for a in parts)]).astype(dtype)

    weight = joined("weight", np.int64).astype(np.int32)
    if weight.size == 0 or (weight.min() >= -(1 << 15) and weight.max() < 1 << 15):
        weight = weight.astype(np.int16)  # half the memory traffic
    rule = np.array([a.rule for a in parts], np.int64)
    other = (scalars("graded") > 0) | (scalars("port") > 0)
    return {
        "arc_kind": np.where(rule >= 0, PLASTIC, np.where(other, OTHER, PLAIN)).astype(np.int64),
        "arc_rule": rule,
        "arc": np.array(begins, np.int64),
        "arc_source": np.array([source for source, _ in found], np.int64),
        **{f"arc_{n}": scalars(n) for n in ("lag", "layout", "down", "wrap", "graded", "wide", "port")},
        **{f"arc_{n}": starts(n) for n in ("weight", "site", "pointer", "target")},
        "arc_run": starts("run_weight"),
        "weight": weight,
        "base_weight": joined("base_weight", np.int64),
        "pointer": joined("pointer", np.int64),
        **{n: joined(n, np.int32) for n in ("site", "base_target", "target", "run_weight", "run_length")},
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
        "core": everywhere.astype(np.int32),
        "packets": np.concatenate(packets).astype(np.int32),
        "hops": np.concatenate(hops).astype(np.int32),
        "fan": fan_begins,
        "fan_core": np.concatenate(fan_core).astype(np.int32),
        "fan_synapses": np.concatenate(fan_synapses).astype(np.int32),
        "updates": np.bincount(everywhere[everywhere >= 0], minlength=cores).astype(np.int64),
    }
