"""`lower`: a Loihi 2 `Program` as the processes Lava has, before anything is written.

Lava differs from a `Program` in four ways, all settled here and exactly:

- Decays, thresholds and exponents are one number per process. A population whose neurons differ is split into parts
  of equal parameters; matrices are split into the same rows and columns.
- A right shift acts on the accumulated sum of one Dense, so the columns of a matrix with a negative weight
  exponent may not be split. Each part of such a source keeps the full size, its foreign neurons fed nothing
  and therefore silent; Lava adds the spike vectors of the parts in the one matrix' input port.
- Images are (width, height, channel). Populations next to a Conv take that shape; `Part.index` says which
  neuron of ours sits at each place, and matrices that meet them are permuted.
- Conv holds its geometry in int8 and wants whole populations at both ends. Where that fails, the same
  synapses become an excitatory and an inhibitory Sparse.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.export.lava_limits import (
    EXCITATORY,
    INHIBITORY,
    PER_NEURON,
    RANGES,
    check,
    geometry,
    heterogeneous,
    scalar,
    shared,
    sign_mode_of,
    stays_conv,
    truncated,
    why_not_conv,
)
from neuro.hardware.loihi2 import learning
from neuro.hardware.loihi2.learning import learns
from neuro.hardware.program import Population, Program, Projection

IntArray = NDArray[np.int64]
Shape = tuple[int, ...]
# Lava's process of each model
PROCESS = {"lif": "LIF", "li": "LIF", "lif_reset": "LIFReset", "ternary_lif": "TernaryLIF", "sigma": "Sigma"}
PROCESS |= {"delta": "Delta", "sigma_delta": "SigmaDelta", "rf": "RF", "rf_iz": "RF_IZ"}
MANY_KINDS = 8  # kinds of neurons beyond which a matrix per pair of parts costs more than padded parts


@dataclass(frozen=True, eq=False)
class Part:
    """One Lava process with neurons, or the source of the input.

    population, of: the population it belongs to, and how many neurons that has. model: as in the program.
    index: int64[n] our flat (row-major) neuron at each flat place of the process; -1 where the place is
    only padding. shape: of the Lava process, its product is n. scalars: parameters that all its neurons share.
    arrays: int64[n] the others, in the process' order.
    """

    name: str
    population: str
    of: int
    shape: Shape
    index: IntArray
    model: str = "input"
    scalars: dict[str, int] = field(default_factory=dict)
    arrays: dict[str, IntArray] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return int(self.index.size)


@dataclass(frozen=True, eq=False)
class Synapses:
    """One Lava connection process. kind: Dense, DelayDense, LearningDense, Sparse, DelaySparse or Conv.

    sources: parts whose spikes are added at its input; more than one only if they are padded to one size.
    arrays: what the process takes, in Lava's orientation. options: its integer keyword arguments. port: the name of
    the target's port.
    """

    name: str
    projection: str
    kind: str
    sources: tuple[str, ...]
    target: str
    arrays: dict[str, NDArray[np.int64]]
    options: dict[str, int | tuple[int, ...]]
    port: str = "a_in"

    @property
    def live(self) -> bool:
        """Whether any weight is not zero, or may come to be. A Conv is always kept."""
        return self.kind in ("Conv", "LearningDense") or bool(self.arrays["weights"].any())


@dataclass(frozen=True, eq=False)
class LavaGraph:
    """Processes and connections of one `Program`. notes: what was split or replaced, and why."""

    parts: tuple[Part, ...]
    synapses: tuple[Synapses, ...]
    notes: tuple[str, ...]

    def of(self, population: str) -> tuple[Part, ...]:
        """Parts of one population."""
        return tuple(p for p in self.parts if p.population == population)


def lower(program: Program, registers: bool = True) -> LavaGraph:
    """The Lava processes that do exactly what a program says.

    registers: refuse numbers that the chip's registers cannot hold. Lava's simulation takes many of them
    all the same; its oracle runs (see `lava_inprocess`) ask for no more than Lava does.

    Raises:
        UnsupportedNode: populations or projections that Lava has no fixed-point process for, all of them.
        DoesNotFit: registers out of range, delays over 63, convolutions too large for Lava; all at once.
    """
    check(program, registers)
    whc = _imaged(program)
    notes: list[str] = []
    parts: dict[str, tuple[Part, ...]] = {}
    taken: set[str] = set()
    for population in program.populations.values():
        parts[population.name] = _parts(program, population, population.name in whc, taken, notes)
    synapses: list[Synapses] = []
    empty: list[Synapses] = []  # blocks without a synapse that is not zero
    for projection in program.projections:
        sources, targets = parts[projection.source], parts[projection.target]
        if projection.kind == "conv" and stays_conv(program, projection):
            synapses.append(_conv(program, projection, sources[0], targets[0], _unique(projection.name, taken)))
            continue
        if projection.kind == "conv":
            notes.append(f"'{projection.name}' is written as Sparse: {why_not_conv(program, projection)}")
        if learns(projection):
            synapses.append(_learning(projection, sources[0], targets[0], _unique(projection.name, taken)))
            continue
        for entries in _entries(program, projection):
            for block in _blocks(projection, entries, sources, targets, taken):
                (synapses if block.live else empty).append(block)
    every = tuple(p for group in parts.values() for p in group)
    return LavaGraph(every, tuple(_connected(every, synapses, empty)), tuple(notes))


def _connected(parts: tuple[Part, ...], synapses: list[Synapses], empty: list[Synapses]) -> list[Synapses]:
    """Drop empty blocks unless the graph would fall apart: Lava runs only what hangs together."""
    group = {p.name: p.name for p in parts}

    def root(name: str) -> str:
        while group[name] != name:
            name = group[name]
        return name

    kept = list(synapses)
    for block in (*synapses, *empty):
        ends = {root(n) for n in (*block.sources, block.target)}
        if len(ends) > 1:
            first = ends.pop()
            group.update(dict.fromkeys(ends, first))
            if not block.live:
                kept.append(block)
    return kept


def _unique(name: str, taken: set[str]) -> str:
    base = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "unnamed"
    candidate, k = base, 2
    while candidate in taken:
        candidate, k = f"{base}_{k}", k + 1
    taken.add(candidate)
    return candidate


# Convolutions


def _imaged(program: Program) -> set[str]:
    """Populations that take Lava's image shape because a Conv ends or starts there."""
    convs = [p for p in program.projections if p.kind == "conv" and stays_conv(program, p)]
    return {name for p in convs for name in (p.source, p.target)}


def _whc_order(shape: Shape) -> IntArray:
    """Our flat (C, H, W) index at each flat place of (W, H, C)."""
    return np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape).transpose(2, 1, 0).ravel()


def _conv(program: Program, projection: Projection, source: Part, target: Part, name: str) -> Synapses:
    stride, padding, dilation, groups = geometry(projection)
    # Lava convolves, we correlate: flip both axes; then (out, in, y, x) -> (out, x, y, in).
    weight = np.ascontiguousarray(projection.weight_q[:, :, ::-1, ::-1].transpose(0, 3, 2, 1))
    options: dict[str, int | tuple[int, ...]] = {
        "input_shape": source.shape,
        "stride": stride[::-1],
        "padding": padding[::-1],
        "dilation": dilation[::-1],
        "groups": groups,
    }
    if bits := scalar(projection, "num_message_bits", 0):
        options["num_message_bits"] = bits
    port = port_of(projection, target)
    return Synapses(name, projection.name, "Conv", (source.name,), target.name, {"weight": weight}, options, port)


def port_of(projection: Projection, target: Part) -> str:
    """The port of the target that a projection ends in."""
    if target.model not in ("rf", "rf_iz"):
        return "a_in"
    return "a_imag_in" if scalar(projection, "port", 0) else "a_real_in"


def conv_entries(
    projection: Projection, source_shape: Shape, target_shape: Shape
) -> tuple[IntArray, IntArray, IntArray]:
    """(row, col, weight) of every synapse of a convolution, rows and columns row-major (C, H, W)."""
    (sy, sx), (py, px), (dy, dx), groups = geometry(projection)
    out_c, in_c, kh, kw = projection.weight_q.shape
    channels, height, width = source_shape
    _, out_h, out_w = target_shape
    o, i, ky, kx, y, x = np.meshgrid(
        *(np.arange(n) for n in (out_c, in_c, kh, kw, out_h, out_w)), indexing="ij", sparse=True
    )
    in_y, in_x = y * sy - py + ky * dy, x * sx - px + kx * dx
    in_channel = (o // (out_c // groups)) * in_c + i
    inside = (in_y >= 0) & (in_y < height) & (in_x >= 0) & (in_x < width) & (in_channel < channels)
    row = (o * out_h + y) * out_w + x
    col = (in_channel * height + in_y) * width + in_x
    weight = projection.weight_q[:, :, :, :, None, None]
    keep = inside & (weight != 0)
    row, col, weight = (np.broadcast_to(a, keep.shape)[keep] for a in (row, col, weight))
    return row.astype(np.int64), col.astype(np.int64), weight.astype(np.int64)


def _learning(projection: Projection, source: Part, target: Part, name: str) -> Synapses:
    """A plastic matrix, between whole populations (`lava_limits.check`)."""
    options: dict[str, int | tuple[int, ...]] = {
        "weight_exp": scalar(projection, "weight_exp", 0),
        "num_weight_bits": scalar(projection, "num_weight_bits", 8),
        "sign_mode": sign_mode_of(projection),
        "shape": (target.size, source.size),
    }
    options |= {n: scalar(projection, n, 0) for n in learning.RANGES}
    ends, arrays = ((source.name,), target.name), {"weights": projection.weight_q}
    return Synapses(name, projection.name, "LearningDense", *ends, arrays, options, port_of(projection, target))


# Splitting


def _parts(
    program: Program, population: Population, image: bool, taken: set[str], notes: list[str]
) -> tuple[Part, ...]:
    size = population.size
    if image:
        index: IntArray = _whc_order(population.shape)
        shape: Shape = population.shape[::-1]
    else:
        index, shape = np.arange(size, dtype=np.int64), (size,)
    if population.model == "input":
        return (Part(_unique(population.name, taken), population.name, size, shape, index),)
    held = RANGES[population.model]
    values = {n: np.broadcast_to(population.params.get(n, np.int64(0)).ravel(), (size,)) for n in held}
    if not heterogeneous(population):
        name = _unique(population.name, taken)
        return (_part(name, population, shape, index, values),)
    rows = np.stack([values[n] for n in shared(population)], axis=1)
    kinds, member = np.unique(rows, axis=0, return_inverse=True)
    member = member.ravel()
    shifted = any(
        p.source == population.name and p.kind in ("dense", "sparse") and scalar(p, "weight_exp", 0) < 0
        for p in program.projections
    )
    padded = shifted or len(kinds) > MANY_KINDS
    why = "a matrix with a negative exponent reads them" if shifted else "one matrix can then read them all"
    notes.append(
        f"'{population.name}' is {len(kinds)} {PROCESS[population.model]} processes, one for each "
        f"({', '.join(shared(population))})"
        + (f", each of full size because {why}" if padded else "")
    )
    parts = []
    for k in range(len(kinds)):
        where = np.flatnonzero(member == k).astype(np.int64)
        own = np.where(member == k, np.arange(size), -1).astype(np.int64) if padded else where
        name = _unique(f"{population.name}_{k}", taken)
        parts.append(_part(name, population, (own.size,), own, values))
    return tuple(parts)


def _part(name: str, population: Population, shape: Shape, index: IntArray, values: dict[str, IntArray]) -> Part:
    live = index >= 0
    first = index[live][0]
    scalars = {n: int(v[first]) for n, v in values.items() if n not in PER_NEURON}
    arrays = {n: np.where(live, v[index], 0) for n, v in values.items() if n in PER_NEURON}
    return Part(name, population.name, population.size, shape, index, population.model, scalars, arrays)


@dataclass(frozen=True, eq=False)
class _Entries:
    """Synapses of one projection: a matrix, or rows, columns and values."""

    kind: str  # dense or sparse
    weight: IntArray
    row: IntArray | None
    col: IntArray | None
    delay: IntArray | None
    options: dict[str, int | tuple[int, ...]]


def _entries(program: Program, projection: Projection) -> Iterable[_Entries]:
    if projection.kind == "conv":
        source, target = program.populations[projection.source], program.populations[projection.target]
        row, col, weight = conv_entries(projection, source.shape, target.shape)
        for mode, where in ((EXCITATORY, weight > 0), (INHIBITORY, weight < 0)):
            if where.any() or mode == EXCITATORY:  # one of them is always there, if only to hold the graph together
                options: dict[str, int | tuple[int, ...]] = {"weight_exp": 0, "num_weight_bits": 8, "sign_mode": mode}
                yield _Entries("sparse", weight[where], row[where], col[where], None, options)
        return
    options = {
        "weight_exp": scalar(projection, "weight_exp", 0),
        "num_weight_bits": scalar(projection, "num_weight_bits", 8),
        "sign_mode": sign_mode_of(projection),
    }
    delay = projection.params.get("delay_steps")
    if projection.kind == "dense":
        yield _Entries("dense", projection.weight_q, None, None, delay, options)
        return
    mode, bits = sign_mode_of(projection), scalar(projection, "num_weight_bits", 8)
    live = truncated(projection.weight_q, mode, bits) != 0  # the rest is no synapse, and Lava is slow about it
    yield _Entries(
        "sparse",
        projection.weight_q[live],
        projection.params["row"][live],
        projection.params["col"][live],
        None if delay is None else delay[live],
        options,
    )


def _place(part: Part, size: int) -> IntArray:
    """Our neuron -> its place in a part, -1 where it is not there."""
    place = np.full(size, -1, np.int64)
    live = part.index >= 0
    place[part.index[live]] = np.flatnonzero(live)
    return place


def _blocks(
    projection: Projection, entries: _Entries, sources: tuple[Part, ...], targets: tuple[Part, ...], taken: set[str]
) -> list[Synapses]:
    """One connection process per target part and per group of source parts that share an input port."""
    padded = len(sources) > 1 and any((s.index < 0).any() for s in sources)
    groups = [sources] if padded else [(s,) for s in sources]
    found = []
    for target in targets:
        for group in groups:
            block = _dense_block if entries.kind == "dense" else _sparse_block
            arrays = block(entries, group, target)
            kind = ("Delay" if entries.delay is not None else "") + entries.kind.capitalize()
            name = _unique(projection.name, taken)
            options = dict(entries.options)
            options["shape"] = (target.size, group[0].size)
            if bits := scalar(projection, "num_message_bits", 0):
                options["num_message_bits"] = bits
            ends = tuple(s.name for s in group), target.name
            found.append(Synapses(name, projection.name, kind, *ends, arrays, options, port_of(projection, target)))
    return found


def _columns(group: tuple[Part, ...]) -> IntArray:
    """Our neuron at each column of a block; padded parts together cover every neuron once."""
    merged = group[0].index.copy()
    for part in group[1:]:
        merged = np.where(part.index >= 0, part.index, merged)
    assert (merged >= 0).all(), "every column of a block belongs to a neuron"
    return merged


def _dense_block(entries: _Entries, group: tuple[Part, ...], target: Part) -> dict[str, IntArray]:
    columns, live = _columns(group), target.index >= 0
    pick = np.ix_(np.where(live, target.index, 0), columns)
    arrays = {"weights": np.where(live[:, None], entries.weight[pick], 0)}
    if entries.delay is not None:
        arrays["delays"] = np.where(live[:, None], entries.delay[pick], 0)
    return arrays


def _sparse_block(entries: _Entries, group: tuple[Part, ...], target: Part) -> dict[str, IntArray]:
    assert entries.row is not None
    assert entries.col is not None
    columns = _columns(group)
    rows_at = np.full(int(max(entries.row.max(initial=0), target.index.max())) + 1, -1, np.int64)
    live = target.index >= 0
    rows_at[target.index[live]] = np.flatnonzero(live)
    cols_at = np.full(int(max(entries.col.max(initial=0), columns.max())) + 1, -1, np.int64)
    cols_at[columns] = np.arange(columns.size)
    row, col = rows_at[entries.row], cols_at[entries.col]
    keep = (row >= 0) & (col >= 0)
    order = np.lexsort((col[keep], row[keep]))
    arrays = {"weights": entries.weight[keep][order], "row": row[keep][order], "col": col[keep][order]}
    if entries.delay is not None:
        arrays["delays"] = entries.delay[keep][order]
    return arrays
