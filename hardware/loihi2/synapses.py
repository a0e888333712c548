"""What a Loihi 2 projection stores: the weights Lava computes with, laid out for event-driven access.

A projection becomes one or more `Arc`. An arc delivers spikes of step t in step t + lag, all of them
with one lag: a projection with delays is split by delay, which is what Lava's buckets per (step, delay)
compute, with the exponent applied to each bucket by itself.

Three layouts, all indexed by the spiking source neuron:

- ROWS: one weight per target, for dense matrices.
- RUNS: stretches of targets that lie side by side and read weights that lie side by side, for
  convolutions. Stretches depend on the source's pixel only; its channel shifts them.
- LISTS: (target, weight) pairs, for sparse matrices.

Inside a simulation neurons stand in an `Order` of their own: channels last where a convolution ends,
so that a tap's output channels lie side by side.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.loihi2.learning import learns
from neuro.hardware.loihi2.models import graded
from neuro.hardware.program import Population, Projection

IntArray = NDArray[np.int64]

AUTO, MIXED, EXCITATORY, INHIBITORY = 0, 1, 2, 3  # as lava.utils.weightutils.SignMode, AUTO: guess like Lava
ROWS, RUNS, LISTS = 0, 1, 2  # compiled into kernels (neuro.jit)
NO_WRAP, WRAP_24 = 0, 1
SPARSE_BELOW = 0.1  # share of non-zero weights under which lists beat rows (both measured)


@dataclass(frozen=True, eq=False)
class Order:
    """flat: place -> flat row-major index. place: its inverse. channels_last: (height, width, channel)."""

    flat: IntArray
    place: IntArray
    channels_last: bool


def order_of(population: Population, into: tuple[Projection, ...]) -> Order:
    """Channels last if a convolution with several output channels per group ends here, else row-major."""
    last = any(p.kind == "conv" and p.weight_q.shape[0] > int(p.params["groups"]) for p in into)
    flat = np.arange(population.size)
    if last:
        flat = np.ascontiguousarray(flat.reshape(population.shape).transpose(1, 2, 0)).ravel()
    return Order(flat, np.argsort(flat), last)


@dataclass(frozen=True, eq=False)
class Arc:
    """Synapses of one lag. weight: flat integers, already shifted left where the exponent is positive.

    down: right shift of the sum of each step (0 or -weight_exp). wrap: WRAP_24 where the sum of each step
    may leave 24 bits. graded: 1 where weights are multiplied by what is sent. wide: 1 where the sum of a step is an
    int64 of int32 products, as Lava's DelayDense has it. port: of the target. rule: number of a
    plastic projection, whose weights are not here.
    site, base_weight, base_target: per source neuron. pointer: into the runs of a site
    (RUNS) or the synapses of a source neuron (LISTS).
    """

    lag: int
    layout: int
    weight: IntArray
    down: int = 0
    wrap: int = NO_WRAP
    graded: int = 0
    wide: int = 0
    port: int = 0
    rule: int = -1
    site: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    base_weight: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    base_target: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    pointer: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    target: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    run_weight: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    run_length: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))


def effective_weights(weight_q: IntArray, num_weight_bits: int, sign_mode: int) -> IntArray:
    """Weights after Lava's clip and truncation.

    Clip to [-256, 255] (mixed), [0, 255] (excitatory), [-255, 0] (inhibitory); then the lowest
    8 - num_weight_bits + (1 if mixed) bits are zeroed, of |w| where inhibitory, else of w (floor).
    """
    if sign_mode == AUTO:
        sign_mode = EXCITATORY if (weight_q >= 0).all() else INHIBITORY if (weight_q <= 0).all() else MIXED
    mixed = int(sign_mode == MIXED)
    sign = -1 if sign_mode == INHIBITORY else 1
    dropped = 8 - num_weight_bits + mixed
    clipped = np.clip(sign * weight_q, -256 * mixed, 255)
    return sign * ((clipped >> dropped) << dropped)


def conv_shape(source: tuple[int, ...], projection: Projection) -> tuple[int, int, int]:
    """(channels, height, width) of a convolution's output."""
    out, _, *kernel = projection.weight_q.shape
    stride, padding, dilation = (projection.params[n] for n in ("stride", "padding", "dilation"))
    size = [
        (n + 2 * int(p) - int(d) * (k - 1) - 1) // int(s) + 1
        for n, k, s, p, d in zip(source[1:], kernel, stride, padding, dilation, strict=True)
    ]
    return out, size[0], size[1]


def _matrix_arc(rows: IntArray, cols: IntArray, weight: IntArray, n_in: int, n_out: int, lag: int, down: int) -> Arc:
    """ROWS or LISTS, whichever is faster, from the non-zero weights in coordinate form."""
    if weight.size > SPARSE_BELOW * n_in * n_out:
        dense = np.zeros((n_in, n_out), np.int64)
        dense[cols, rows] = weight
        return Arc(lag, ROWS, dense.ravel(), down)
    by_source = np.lexsort((rows, cols))
    pointer = np.concatenate([[0], np.cumsum(np.bincount(cols, minlength=n_in))])
    return Arc(lag, LISTS, weight[by_source], down, pointer=pointer, target=rows[by_source])


def _coordinates(projection: Projection) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """(target, source, effective weight, delay) of every synapse with a non-zero effective weight."""
    p = projection.params
    weight = effective_weights(projection.weight_q, int(p["num_weight_bits"]), int(p["sign_mode"]))
    delay = p.get("delay_steps", np.zeros(weight.shape, np.int64))
    if projection.kind == "dense":
        row, col = np.nonzero(weight)
        return row, col, weight[row, col], delay[row, col]
    kept = np.nonzero(weight)[0]
    return p["row"][kept], p["col"][kept], weight[kept], delay[kept]


def _matrix_arcs(projection: Projection, source: Order, target: Order) -> list[Arc]:
    row, col, weight, delay = _coordinates(projection)
    row, col = target.place[row], source.place[col]
    exponent = int(projection.params["weight_exp"])
    weight, down = weight << max(exponent, 0), max(-exponent, 0)
    arcs = []
    for steps in np.unique(delay):
        chosen = delay == steps
        arcs.append(
            _matrix_arc(
                *(row[chosen], col[chosen], weight[chosen]),
                *(source.flat.size, target.flat.size, 1 + int(steps), down),
            )
        )
    return arcs


def _taps(size_in: int, size_out: int, kernel: int, stride: int, padding: int, dilation: int) -> list[IntArray]:
    """Per kernel tap k: int64[2, n], input and output positions along one axis that it joins."""
    at = np.arange(size_in)
    taps = []
    for k in range(kernel):
        reach = at + padding - k * dilation
        inside = (reach % stride == 0) & (reach >= 0) & (reach // stride < size_out)
        taps.append(np.stack([at[inside], reach[inside] // stride]))
    return taps


def _conv_axes(projection: Projection, source: Population, target: Population) -> tuple[list[IntArray], list[IntArray]]:
    p = projection.params
    return tuple(  # type: ignore[return-value]  # height, then width
        _taps(
            *(source.shape[1 + axis], target.shape[1 + axis], projection.weight_q.shape[2 + axis]),
            *(int(p[n][axis]) for n in ("stride", "padding", "dilation")),
        )
        for axis in (0, 1)
    )


def _conv_arc(projection: Projection, source: Population, target: Population, orders: tuple[Order, Order]) -> Arc:
    """RUNS. Kernel columns are stored so that targets side by side read weights side by side: by the
    residue of their reach modulo the stride, then backwards."""
    source_order, target_order = orders
    w, p = projection.weight_q, projection.params
    out, in_group, kernel_h, kernel_w = w.shape
    groups = int(p["groups"])
    out_group = out // groups
    _, height, width = source.shape
    pixels_out = target.shape[1] * target.shape[2]
    pixel_step, channel_step = (out, 1) if target_order.channels_last else (1, pixels_out)
    block = out_group  # targets of one tap that lie side by side
    assert block == 1 or target_order.channels_last, "see order_of"

    stride, dilation = int(p["stride"][1]), int(p["dilation"][1])
    columns = sorted(range(kernel_w), key=lambda k: (k * dilation % stride, -k))
    position = {k: i for i, k in enumerate(columns)}
    # [group, in, ky, kx, out in group]
    stored = w.reshape(groups, out_group, in_group, kernel_h, kernel_w)[..., columns].transpose(0, 2, 3, 4, 1)

    site, first, read = [], [], []
    taps_y, taps_x = _conv_axes(projection, source, target)
    for ky, (in_y, out_y) in enumerate(taps_y):
        for kx, (in_x, out_x) in enumerate(taps_x):
            shape = (in_y.size, in_x.size)
            site.append((in_y[:, None] * width + in_x).ravel())
            first.append((out_y[:, None] * target.shape[2] + out_x).ravel() * pixel_step)
            read.append(np.broadcast_to((ky * kernel_w + position[kx]) * block, shape).ravel())
    sites, firsts, reads = (np.concatenate(parts) for parts in (site, first, read))
    by_site = np.lexsort((firsts, sites))
    sites, firsts, reads = sites[by_site], firsts[by_site], reads[by_site]
    joined = (sites[1:] == sites[:-1]) & (firsts[1:] == firsts[:-1] + block) & (reads[1:] == reads[:-1] + block)
    begin = np.concatenate([[True], ~joined]) if sites.size else np.zeros(0, bool)
    starts = np.nonzero(begin)[0]
    length = np.diff(np.concatenate([starts, [sites.size]])) * block
    pointer = np.concatenate([[0], np.cumsum(np.bincount(sites[starts], minlength=height * width))])

    channel, pixel = source_order.flat // (height * width), source_order.flat % (height * width)
    per_channel = kernel_h * kernel_w * out_group
    bound = int(np.abs(w).sum(axis=(1, 2, 3)).max())
    return Arc(
        lag=1,
        layout=RUNS,
        weight=stored.ravel(),
        wrap=WRAP_24 if bound >= 1 << 23 else NO_WRAP,
        site=pixel,
        base_weight=channel * per_channel,
        base_target=channel // in_group * out_group * channel_step,
        pointer=pointer,
        target=firsts[starts],
        run_weight=reads[starts],
        run_length=length,
    )


def arcs(projection: Projection, source: Population, target: Population, orders: tuple[Order, Order]) -> list[Arc]:
    """The arcs of one projection, with neurons in the order of (source, target)."""
    multiplies = graded(source) and int(projection.params.get("num_message_bits", np.array(0))) > 0
    port = int(projection.params.get("port", np.array(0)))
    if projection.kind == "conv":
        found = [_conv_arc(projection, source, target, orders)]
        if multiplies:  # what is sent has no bound
            found = [replace(a, wrap=WRAP_24) for a in found]
        wide = False
    else:
        found = _matrix_arcs(projection, *orders)
        wide = multiplies and projection.kind == "dense" and "delay_steps" in projection.params
    return [replace(a, graded=int(multiplies), wide=int(wide and a.down > 0), port=port) for a in found]


def fan(
    projection: Projection, source: Population, target: Population, core_of: IntArray, cores: int
) -> NDArray[np.int64]:
    """int64[3, n]: flat source neuron, target core, number of synapses there; pairs are unique.

    A synapse counts if its effective weight is not zero ("dense", "sparse") or if its tap lies inside the
    target ("conv", whose kernel is stored once and read whole).
    """
    if projection.kind == "conv":
        sources, weights_core, counts = _conv_fan(projection, source, target, core_of, cores)
    elif learns(projection):  # every pair is a synapse, whatever its weight is now
        row, sources = (part.ravel() for part in np.indices(projection.weight_q.shape))
        weights_core, counts = core_of[row], np.ones(row.size, np.int64)
    else:
        row, sources, _, _ = _coordinates(projection)
        weights_core, counts = core_of[row], np.ones(row.size, np.int64)
    return sum_pairs(sources, weights_core, counts, cores)


def sum_pairs(first: IntArray, second: IntArray, counts: IntArray, cores: int) -> IntArray:
    """int64[3, n]: the distinct pairs (first, second core), sorted, and the sum of counts of each."""
    key, inverse = np.unique(first * cores + second, return_inverse=True)
    total = np.zeros(key.size, np.int64)
    np.add.at(total, inverse, counts)
    return np.stack([key // cores, key % cores, total])


def _conv_fan(
    projection: Projection, source: Population, target: Population, core_of: IntArray, cores: int
) -> tuple[IntArray, IntArray, IntArray]:
    """(flat source neuron, core, synapses), not summed yet. Goes through output pixels, not synapses."""
    groups, in_group = int(projection.params["groups"]), projection.weight_q.shape[1]
    out_group = projection.weight_q.shape[0] // groups
    pixels_in, pixels_out = (p.shape[1] * p.shape[2] for p in (source, target))
    # how many output channels of a group sit on which core, per output pixel
    group_of = np.repeat(np.arange(groups), out_group * pixels_out)
    place = group_of * pixels_out + np.tile(np.arange(pixels_out), groups * out_group)
    there, core, channels = sum_pairs(place, core_of, np.ones(core_of.size, np.int64), cores)
    begin = np.searchsorted(there, np.arange(groups * pixels_out + 1))
    taps_y, taps_x = _conv_axes(projection, source, target)
    in_y, out_y = np.concatenate(taps_y, axis=1)
    in_x, out_x = np.concatenate(taps_x, axis=1)
    pixel_in = (in_y[:, None] * source.shape[2] + in_x).ravel()
    pixel_out = (out_y[:, None] * target.shape[2] + out_x).ravel()
    found = []
    for group in range(groups):
        at = group * pixels_out + pixel_out
        many = begin[at + 1] - begin[at]
        entry = np.repeat(begin[at] - np.concatenate([[0], np.cumsum(many)[:-1]]), many) + np.arange(many.sum())
        found.append(sum_pairs(np.repeat(group * pixels_in + pixel_in, many), core[entry], channels[entry], cores))
    place, core, synapses = np.concatenate(found, axis=1)
    channel = place // pixels_in * in_group + np.arange(in_group)[:, None]  # every input channel of the group
    flat = channel * pixels_in + place % pixels_in
    return flat.ravel(), np.tile(core, in_group), np.tile(synapses, in_group)
