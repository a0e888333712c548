"""`Packed`: a SpiNNaker 2 `Program` as the flat arrays its kernel walks through (neuro.jit), made once per program."""

from __future__ import annotations

from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.maps import Map
from neuro.hardware.program import Population, Program, Projection
from neuro.hardware.spikes import Blocks, Costs, blocks_of, costs_of, order_of, width_of
from neuro.hardware.spinnaker2.contract import check, reals
from neuro.ir import READOUTS

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
EXACT = 1 << 24  # whole numbers up to here are exact in float32


class Packed(NamedTuple):
    """Populations are numbered with the input first, neurons through all of them, inputs included.

    first: int64[populations + 1]. output, readout: numbers. Per neuron: alpha, offset, threshold, reset, init,
    keep_exc, keep_inh (float32), subtract, current (0 or 1), value (float64: v times it is a whole number of
    Program.scale). costs: of spikes.
    flat: of each neuron, row-major index in its population and first of it (`spikes.order_of`). blocks: synapses; a
    neuron's excitatory sum stands at its number, the inhibitory one as far behind it as there are neurons. Without a
    synaptic current only e - h counts, which is one signed sum in the first of them, as long as float32 holds it
    exactly. slots, width: of the ring of sums. updates: int64[cores].
    """

    first: Int64
    output: int
    readout: int
    alpha: Float32
    offset: Float32
    threshold: Float32
    reset: Float32
    init: Float32
    keep_exc: Float32
    keep_inh: Float32
    subtract: NDArray[np.uint8]
    current: NDArray[np.uint8]
    value: NDArray[np.float64]
    flat: Int64
    blocks: Blocks
    slots: int
    width: int
    costs: Costs
    updates: Int64


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


def synapses(p: Projection, source: Population, target: Population) -> tuple[Int64, Int64, Int64, Int64]:
    """(source, target, weight, delay) of every synapse of a projection that is not zero."""
    delay = p.params.get("delay_steps", np.zeros((), np.int64))
    if p.kind == "sparse":
        of = np.flatnonzero(p.weight_q)
        late = np.broadcast_to(delay, p.weight_q.shape)
        return p.params["col"][of], p.params["row"][of], p.weight_q[of], late[of]
    if p.kind == "dense":
        row, col = np.nonzero(p.weight_q)
        return col, row, p.weight_q[row, col], np.broadcast_to(delay, p.weight_q.shape)[row, col]
    stride, padding, dilation = ((int(a), int(b)) for a, b in (p.params[n] for n in ("stride", "padding", "dilation")))
    m = Map("conv", p.weight_q.astype(np.float64), np.zeros((), np.int64), source.shape, target.shape, stride, padding,
            dilation)  # fmt: skip
    s = m.coordinates()
    return s.col, s.row, s.value.astype(np.int64), np.zeros(s.row.size, np.int64)


def _pack(program: Program) -> Packed:
    names = names_of(program)
    populations = [program.populations[n] for n in names]
    first = np.concatenate([[0], np.cumsum([p.size for p in populations])]).astype(np.int64)
    begin = dict(zip(names, first.tolist(), strict=False))

    def vector(name: str) -> Float32:
        nothing = np.zeros((), np.int64)
        return np.concatenate([reals(p.params.get(name, nothing), p.size) for p in populations])[flat]

    parts = [np.zeros((4, 0), np.int64)]
    for p in program.projections:
        source, target, weight, delay = synapses(p, program.populations[p.source], program.populations[p.target])
        parts.append(np.stack([source + begin[p.source], target + begin[p.target], weight, delay]))
    every = np.concatenate(parts, axis=1)
    order = [_order(p, begin[p.name], every) for p in populations]
    flat = np.concatenate(order)
    place = np.argsort(flat)
    every[:2] = place[every[:2]]
    n = int(first[-1])
    current = np.repeat(["curr_exp" in p.model for p in populations], np.diff(first))[flat]
    most = np.bincount(every[1], np.abs(every[2]), n)
    inhibits = (every[2] <= 0) & (current | (most >= EXACT))[every[1]]
    both = np.concatenate([first[:-1], n + first])  # of excitatory sums, of inhibitory ones
    weight = np.where(inhibits, -every[2], every[2])
    blocks = blocks_of(every[0], every[3], every[1] + n * inhibits, weight, n, both)
    core = np.concatenate([
        np.full(p.size, -1) if p.model == "input" else program.placement.core_of[p.name] for p in populations
    ]).astype(np.int64)[flat]  # fmt: skip
    scale = np.concatenate([np.full(p.size, program.scale.get(p.name, 1.0)) for p in populations])[flat]
    reset = [np.broadcast_to(p.params.get("reset", np.zeros((), np.int64)), p.size) for p in populations]
    return Packed(
        first=first,
        output=names.index(program.output),
        readout=READOUTS.index(program.readout),
        alpha=vector("alpha_decay"),
        offset=vector("i_offset"),
        threshold=vector("threshold"),
        reset=vector("v_reset"),
        init=vector("v_init"),
        keep_exc=vector("exc_decay"),
        keep_inh=vector("inh_decay"),
        subtract=np.concatenate(reset).astype(np.uint8)[flat],
        current=current.astype(np.uint8),
        value=vector("v_unit").astype(np.float64) / scale,
        flat=flat,
        blocks=blocks,
        slots=int(every[3].max(initial=0)) + 2,
        width=width_of(2 * n),
        costs=costs_of(every[0], every[1], core, program.placement.cores),
        updates=np.bincount(core[core >= 0], minlength=program.placement.cores).astype(np.int64),
    )


def _order(p: Population, begin: int, every: Int64) -> Int64:
    """Where the neurons of a population stand, as numbers through all populations."""
    into = (every[1] >= begin) & (every[1] < begin + p.size)
    return begin + order_of(p.shape, every[0, into], every[3, into], every[1, into] - begin)
