"""`Packed`: an Akida `Program` as the arrays its kernels walk through, made once per program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.akida.contract import LUT_SIZE, check
from neuro.hardware.akida.geometry import Geometry, geometry, geometry_of, pool_of
from neuro.hardware.akida.messages import filters_of, messages
from neuro.hardware.program import Population, Program, Projection

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
FAR = 1 << 62  # beyond every potential
RAW, SCALE, CODE = 0, 1, 2  # compiled into kernels (neuro.jit)
ENDS = {"potential": RAW, "scaled": SCALE, "code": CODE}


class Arc(NamedTuple):
    """One projection. weight: [in, kernel_h, kernel_w, out / groups], so that what one input value adds to lies side
    by side. cores, share: cores that hold filters of the target, and [groups, cores] how many of each group."""

    channels: int
    height: int
    width: int
    out: int
    out_h: int
    out_w: int
    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    top: int
    left: int
    bottom: int
    right: int
    groups: int
    weight: Int32
    pad_value: Int32
    cores: Int64
    share: Int64


class Layer(NamedTuple):
    """What happens to the sums of one population: one value per channel in the arrays, see `contract`.

    levels: int64[channels, codes - 1], code k + 1 is sent from p - threshold > levels[k] on.
    """

    channels: int
    image_h: int
    image_w: int
    pooled_h: int
    pooled_w: int
    pool_h: int
    pool_w: int
    pool_stride_h: int
    pool_stride_w: int
    pool_top: int
    pool_left: int
    gap: bool
    relu: bool
    clipped: bool
    table: bool
    end: int
    bias: Int64
    max_value: Int64
    lut: Int64
    m_act: Int64
    e_act: Int64
    m: Int64
    e: Int64
    threshold: Int64
    levels: Int64


class Stage(NamedTuple):
    """A population with the projections into it. core, packets, hops: per neuron, where it sits and what one value of
    it sends."""

    name: str
    layer: Layer
    sources: tuple[str, ...]
    arcs: tuple[Arc, ...]
    core: Int64
    packets: Int64
    hops: Int64


class Packed(NamedTuple):
    """Stages in order of evaluation. updates: int64[cores] neurons of each core. entry: bits of a weight per core.
    reload: int64[cores] bytes of weights that each frame loads anew, 0 where the whole model stays on the chip."""

    stages: tuple[Stage, ...]
    updates: Int64
    entry: Int64
    reload: Int64


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
    placement = program.placement
    cores_of = {name: placement.core_of[name] for name in program.populations if name != program.input}
    updates = np.zeros(placement.cores, np.int64)
    entry, reload = (np.zeros(placement.cores, np.int64) for _ in range(2))
    sequences = program.image.get("sequence_of_core", np.zeros(placement.cores, np.int64))
    sent = messages(program)
    stages = []
    for name, population in program.populations.items():
        if population.model == "input":
            continue
        incoming = program.into(name)
        core = np.asarray(cores_of[name], np.int64)
        updates += np.bincount(core, minlength=placement.cores)
        of_channel = filters_of(program, name)
        for p in incoming:
            used = np.unique(of_channel)
            entry[used] = np.maximum(entry[used], int(p.params.get("bits", np.array(8))))
            per_channel = p.weight_q[0].size * int(p.params.get("bits", np.array(8)))
            if len(np.unique(sequences)) > 1:
                reload += -(-np.bincount(of_channel, minlength=placement.cores) * per_channel // 8)
        geometries = [geometry_of(program, p) for p in incoming]
        arcs = tuple(arc(g, p, of_channel) for g, p in zip(geometries, incoming, strict=True))
        packets, hops = _traffic(program, sent, name, core)
        sources = tuple(p.source for p in incoming)
        stages.append(Stage(name, layer(geometries[0], population), sources, arcs, core, packets, hops))
    return Packed(tuple(stages), updates, entry, reload)


def _traffic(program: Program, sent: Mapping[str, tuple[Int64, Int64]], name: str, core: Int64) -> tuple[Int64, Int64]:
    """(packets, hops) of one value of each neuron."""
    neuron, target = sent.get(name, (np.zeros(0, np.int64), np.zeros(0, np.int64)))
    xy = program.placement.xy
    links = np.abs(xy[core[neuron]] - xy[target]).sum(1)
    packets, hops = np.zeros(len(core), np.int64), np.zeros(len(core), np.int64)
    np.add.at(packets, neuron, 1)
    np.add.at(hops, neuron, links)
    return packets, hops


def arc(g: Geometry, projection: Projection, core_of_channel: Int64) -> Arc:
    """The arrays of one projection."""
    weight = projection.weight_q.reshape(g.groups, g.out // g.groups, g.channels // g.groups, *g.kernel)
    pad = projection.params.get("pad_value", np.zeros(g.channels, np.int64))
    cores, index = np.unique(core_of_channel, return_inverse=True)
    share = np.zeros((g.groups, len(cores)), np.int64)
    np.add.at(share, (np.arange(g.out) // (g.out // g.groups), index), 1)
    return Arc(
        g.channels, *g.size, g.out, *g.image, *g.kernel, *g.stride, *g.pads, g.groups,
        np.ascontiguousarray(weight.transpose(0, 2, 3, 4, 1)).astype(np.int32).reshape(-1),
        pad.astype(np.int32), cores, share,
    )  # fmt: skip


def layer(g: Geometry, population: Population) -> Layer:
    """The arrays of one population, whose sums have the geometry ``g``."""
    params, channels = population.params, g.out

    def each(name: str, otherwise: int) -> Int64:
        # a copy: what a Program holds is read-only, which to the compiler is another type
        return np.array(np.broadcast_to(params.get(name, np.array(otherwise)), channels), np.int64)

    kernel, stride, pads = pool_of(population) if "pool_kernel" in params else ((1, 1), (1, 1), (0, 0, 0, 0))
    return Layer(
        channels, *g.image, *g.pooled(population), *kernel, *stride, pads[0], pads[1],
        bool(params.get("gap", np.array(0))), bool(params.get("relu", np.array(0))), "max_value" in params,
        "lut" in params, ENDS[population.model],
        each("bias", 0) << each("bias_shift", 0), each("max_value", 0) << each("max_shift", 0),
        np.array(params.get("lut", np.zeros(LUT_SIZE)), np.int64), each("m_act", 0), each("e_act", 0),
        each("m", 0), each("e", 0),
        each("threshold", 0), levels(population, channels),
    )  # fmt: skip


def levels(population: Population, channels: int) -> Int64:
    """floor(k step) for k = 0 .. codes - 2: what p - threshold must exceed for code k + 1, in whole numbers.

    p and threshold are whole, so p - threshold > k step and p - threshold > floor(k step) say the same.
    """
    if population.model != "code":
        return np.zeros((channels, 0), np.int64)
    bits = int(population.params["act_bits"])
    mantissas = np.broadcast_to(population.params["step_mantissa"], channels).tolist()
    exponents = np.broadcast_to(population.params["step_exponent"], channels).tolist()
    table = np.zeros((channels, (1 << bits) - 1), np.int64)
    for channel, (mantissa, exponent) in enumerate(zip(mantissas, exponents, strict=True)):
        shift = exponent + 4 - bits
        for k in range(table.shape[1]):
            value = k * mantissa << shift if shift >= 0 else k * mantissa >> -shift
            table[channel, k] = min(value, FAR)
    return table


def alone(population: Population, projections: tuple[Projection, ...], sources: tuple[Population, ...]) -> Stage:
    """One layer without a program around it: all of it on core 0."""
    geometries = [geometry(s, p) for s, p in zip(sources, projections, strict=True)]
    nowhere = np.zeros(geometries[0].out, np.int64)
    arcs = tuple(arc(g, p, nowhere) for g, p in zip(geometries, projections, strict=True))
    size = np.zeros(population.size, np.int64)
    names = tuple(s.name for s in sources)
    return Stage(population.name, layer(geometries[0], population), names, arcs, size, size, size)
