"""Akida's integers in compiled loops: what the populations and projections of `contract` compute.

A step is a frame, and a layer is run over all frames of a slice before the next layer: sums of what is not zero,
then pool, activation, global sum and scale or code. Sums have 32 bits, which `contract` sees to it suffice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.errors import SimulationError
from neuro.extend import did_you_mean
from neuro.hardware.akida.packed import CODE, RAW, Arc, Layer, Packed, Stage, pack
from neuro.hardware.akida.stages import stages
from neuro.hardware.integer import Integer, saturate
from neuro.hardware.program import Program
from neuro.hardware.threads import available as _threads
from neuro.hardware.threads import over_pieces
from neuro.hardware.trace import Counters, Trace
from neuro.ir import READOUTS
from neuro.jit import disjoint, kernel, piece, wide

I64: Any = np.int64  # what it makes is an int to mypy
I32: Any = np.int32
U = np.uintp  # as an index: numba need not ask whether it is negative
ROOM = 1 << 17  # sums that a thread holds at a time, 512 KB: they stay in its cache
PROBES = ("p",)

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


@kernel
def rescale(p: Integer, m: Integer, e: Integer) -> Any:
    """floor(p m 2^-e + 1/2): round half up, which an arithmetic shift of p m + 2^(e-1) does."""
    if e > I64(0):
        return I64(I64(p * m) + I64(I64(1) << I64(e - I64(1)))) >> e
    return I64(p * m) << I64(-e)


@piece
def reach(arc: Arc, sums: NDArray[Any], f: int, c: int, y: int, z: int, value: int) -> int:
    """Add to the sums of frame f what a value of channel c at (y, z), in the padding too, sends; how many windows of
    the kernel have it."""
    filters, reached = arc.out // arc.groups, 0
    first_out = c // (arc.channels // arc.groups) * filters
    first_weight = c * arc.kernel_h * arc.kernel_w * filters
    for i in range(arc.kernel_h):
        row = y + arc.top - i
        if row < 0 or row % arc.stride_h != 0 or row >= arc.out_h * arc.stride_h:
            continue
        for j in range(arc.kernel_w):
            column = z + arc.left - j
            if column < 0 or column % arc.stride_w != 0 or column >= arc.out_w * arc.stride_w:
                continue
            reached += 1
            at = (row // arc.stride_h * arc.out_w + column // arc.stride_w) * arc.out + first_out
            add_scaled(sums, f, at, arc.weight, first_weight + (i * arc.kernel_w + j) * filters, filters, value)
    return reached


@disjoint
def add_scaled(sums: NDArray[Any], f: int, at: int, weight: Int32, first: int, many: int, value: int) -> None:
    """sums[f, at + k] += weight[first + k] value, k < many; in 32 bits, which `contract` says suffice."""
    wide()
    scale = I32(value)
    for k in range(U(many)):
        sums[U(f), U(at) + U(k)] += I32(weight[U(first) + U(k)] * scale)


@kernel
def accumulate(arc: Arc, x: Int32, sums: NDArray[Any], synops: Int64, begin: int, end: int) -> None:
    """Add to sums [frames, out_h out_w, out] what the values x [frames, in] of frames begin..end-1 send.

    synops [frames, len(arc.cores)] counts synapses that a value other than zero reaches."""
    per_group, area = arc.channels // arc.groups, arc.height * arc.width
    matrix = area == 1 and arc.out_h * arc.out_w * arc.kernel_h * arc.kernel_w * arc.groups == 1
    padded = False
    for c in range(arc.channels):
        padded = padded or arc.pad_value[c] != 0
    for f in range(begin, end):
        for n in range(U(x.shape[1])):
            value = x[U(f), U(n)]
            if value == 0:
                continue
            place, c, reached = I64(n), I64(n), 1
            if matrix:
                add_scaled(sums, f, 0, arc.weight, place * arc.out, arc.out, value)
            else:
                c = place // area
                reached = reach(arc, sums, f, c, place % area // arc.width, place % arc.width, value)
            for k in range(arc.cores.size):
                synops[f, k] += reached * arc.share[c // per_group, k]
        if not padded:
            continue
        for c in range(arc.channels):
            for y in range(-arc.top, arc.height + arc.bottom):
                for z in range(-arc.left, arc.width + arc.right):
                    inside = y >= 0 and y < arc.height and z >= 0 and z < arc.width
                    if not inside and arc.pad_value[c] != 0:
                        reach(arc, sums, f, c, y, z, arc.pad_value[c])


@piece
def activate(layer: Layer, o: int, a: int) -> int:
    """The activation of a sum of channel o."""
    if layer.relu:
        a = max(a, I64(0))
    if layer.clipped:
        a = min(a, layer.max_value[o])
    if layer.table:
        index = saturate(rescale(a, layer.m_act[o], layer.e_act[o]), I64(-1024), I64(1023))
        a = layer.lut[index & I64(2047)]
    return a


@piece
def sent(layer: Layer, o: int, total: int) -> Any:
    """What a neuron of channel o sends at a potential."""
    if layer.end == RAW:
        return I32(total)
    if layer.end == CODE:
        above, code = I64(total - layer.threshold[o]), 0
        for k in range(U(layer.levels.shape[1])):  # they ascend
            code += above > layer.levels[o, U(k)]
        return I32(code)
    return I32(saturate(rescale(total, layer.m[o], layer.e[o]), I64(-128), I64(127)))


@kernel
def finish(layer: Layer, sums: NDArray[Any], p: Int32, s: Int32, begin: int, end: int) -> None:
    """From sums [frames, image, channels] to potentials p and values s [frames, neurons], row-major."""
    positions = layer.pooled_h * layer.pooled_w
    pools = layer.pool_h * layer.pool_w > 1 or layer.pool_top > 0 or layer.pool_left > 0
    if not (pools or layer.gap) and positions == layer.image_h * layer.image_w:
        for f in range(begin, end):
            for position in range(positions):
                for o in range(U(layer.channels)):
                    a = I64(sums[f, U(position * layer.channels) + U(o)]) + layer.bias[U(o)]
                    total = activate(layer, I64(o), a)
                    at = o * positions + position
                    p[f, at] = I32(total)
                    s[f, at] = sent(layer, I64(o), total)
        return
    for f in range(begin, end):
        for o in range(layer.channels):
            total = I64(0)
            for position in range(positions):
                y0 = position // layer.pooled_w * layer.pool_stride_h - layer.pool_top
                z0 = position % layer.pooled_w * layer.pool_stride_w - layer.pool_left
                largest = I64(-9223372036854775808)
                for y in range(max(y0, 0), min(y0 + layer.pool_h, layer.image_h)):
                    for z in range(max(z0, 0), min(z0 + layer.pool_w, layer.image_w)):
                        largest = max(largest, I64(sums[f, (y * layer.image_w + z) * layer.channels + o]))
                a = activate(layer, o, I64(largest + layer.bias[o]))
                total = I64(total + a) if layer.gap else a
                if layer.gap and position < positions - 1:
                    continue
                at = o if layer.gap else o * positions + position
                p[f, at] = I32(total)
                s[f, at] = sent(layer, o, total)


@kernel
def book(
    s: Int32, core: Int64, packets: Int64, hops: Int64, sent: Int64, messages: Int64, links: Int64, begin: int, end: int
) -> None:
    """Count the values other than zero of frames begin..end-1, per core, and what they send."""
    for f in range(begin, end):
        for n in range(s.shape[1]):
            if s[f, n] != 0:
                sent[f, core[n]] += 1
                messages[f, core[n]] += packets[n]
                links[f, core[n]] += hops[n]


def run_stage(stage: Stage, inputs: tuple[Int32, ...]) -> tuple[Int32, Int32, list[Int64]]:
    """(potentials, values) int32[frames, neurons] of one layer, and per arc its synops int64[frames, cores of it].

    inputs: int32[frames, n] of each source."""
    frames = len(inputs[0])
    layer = stage.layer
    image = layer.image_h * layer.image_w * layer.channels
    neurons = layer.channels * (1 if layer.gap else layer.pooled_h * layer.pooled_w)
    p, s = np.zeros((frames, neurons), np.int32), np.zeros((frames, neurons), np.int32)
    synops = [np.zeros((frames, arc.cores.size), np.int64) for arc in stage.arcs]
    step = max(1, ROOM // image)
    for begin in range(0, frames, step):
        end = min(begin + step, frames)
        sums = np.zeros((end - begin, image), np.int32)
        for arc, x, counted in zip(stage.arcs, inputs, synops, strict=True):
            accumulate(arc, x[begin:end], sums, counted[begin:end], 0, end - begin)
        finish(layer, sums, p[begin:end], s[begin:end], 0, end - begin)
    return p, s, synops


def _simulate(
    net: Packed, values: Mapping[str, Int32], potentials: Mapping[str, Int32], booked: Int64, begin: int, end: int
) -> None:
    """Frames begin..end-1 through all layers. booked: [4, frames, cores], synops, spikes, packets, hops."""
    for stage in net.stages:
        inputs = tuple(values[source][begin:end] for source in stage.sources)
        p, s, synops = run_stage(stage, inputs)
        values[stage.name][begin:end] = s
        if stage.name in potentials:
            potentials[stage.name][begin:end] = p
        for arc, counted in zip(stage.arcs, synops, strict=True):
            booked[0, begin:end, arc.cores] += counted.T
        sent, messages, links = (booked[k, begin:end] for k in (1, 2, 3))
        book(s, stage.core, stage.packets, stage.hops, sent, messages, links, 0, end - begin)


def _check_dense(dense: NDArray[np.uint8], inputs: int, high: int) -> None:
    """Kernels trust what they are given; a larger value could leave 32 bits."""
    if dense.ndim != 3 or dense.shape[2] != inputs or 0 in dense.shape:
        raise SimulationError(f"dense must be [steps, batch, {inputs}], none of them 0, got shape {dense.shape}")
    if dense.dtype.kind not in "bui" or int(dense.min()) < 0 or int(dense.max()) > high:
        raise SimulationError(f"dense must hold integers 0..{high}, got {dense.dtype} {dense.min()}..{dense.max()}")


def run(
    program: Program,
    dense: NDArray[np.uint8],
    probes: tuple[tuple[str, str], ...] = (),
    record_spikes: bool = True,
) -> Trace:
    """Simulate a batch, every step of every sample a frame; frames in parallel threads (NUMBA_NUM_THREADS).

    dense: uint8[steps, batch, inputs] of 0..program.high. probes: (population, "p"), potentials before scale or code.
    Trace.spikes holds the values that layers send, int32. Counters: synops, synapses that values other than zero
    reach; updates, all neurons in every frame; memory, bytes of weights read, and of weights loaded where the model
    is run in sequences.

    Raises:
        SimulationError: the program breaks the contract, dense is not that, or a probe does not exist.
    """
    net = pack(program)
    _check_dense(dense, program.populations[program.input].size, program.high)
    named = [p.name for p in program.populations.values() if p.model != "input"]
    for name, variable in probes:
        if name not in named:
            raise SimulationError(f"no layer '{name}' to probe. {did_you_mean(name, named)}")
        if variable not in PROBES:
            raise SimulationError(f"cannot probe '{variable}' of '{name}'; an Akida layer has {', '.join(PROBES)}")
    steps, batch, inputs = dense.shape
    frames, cores = steps * batch, program.placement.cores
    values: dict[str, Int32] = {program.input: dense.reshape(frames, inputs).astype(np.int32)}
    values |= {n: np.zeros((frames, program.populations[n].size), np.int32) for n in named}
    potentials = {n: np.zeros((frames, program.populations[n].size), np.int32) for n, _ in probes}
    booked = np.zeros((4, frames, cores), np.int64)

    def some(pieces: Iterator[tuple[int, int]]) -> None:
        for begin, end in pieces:
            _simulate(net, values, potentials, booked, begin, end)

    over_pieces(min(_threads(), frames), frames, some)
    counted = booked.reshape(4, steps, batch, cores).transpose(0, 2, 1, 3)
    synops, sent, packets, hops = (np.ascontiguousarray(c) for c in counted)
    injected = np.count_nonzero(dense, axis=2).T.astype(np.int64)
    kept: dict[str, NDArray[np.uint8] | Int32] = {}
    if record_spikes:
        kept = {program.input: dense, **{n: values[n].reshape(steps, batch, -1) for n in named}}
    return Trace(
        chip=program.chip,
        dt=program.dt,
        spikes=kept,
        probes={(n, "p"): potentials[n].reshape(steps, batch, -1) for n, _ in dict.fromkeys(probes)},
        counters=Counters(
            synops=synops,
            updates=np.broadcast_to(net.updates, synops.shape),
            spikes=sent,
            packets=packets,
            hops=hops,
            memory=synops * net.entry // 8 + net.reload,
            injected=injected,
        ),
        scores=scores(values[program.output].reshape(steps, batch, -1), program.readout),
        stages=stages(program, values, steps),
    )


def scores(values: Int32, readout: str) -> Int64:
    """[steps, batch, n] -> int64[batch, n], as `neuro.ir.Output` says: "sum", "max" or "last" over the steps."""
    assert readout in READOUTS
    over: Int64 = values.astype(np.int64)
    if readout == "max":
        return np.asarray(over.max(axis=0))
    return over[-1] if readout == "last" else np.asarray(over.sum(axis=0))
