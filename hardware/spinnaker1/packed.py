"""A Program as the arrays that the kernels read. What the params and the image of a Program mean: contract.py."""

from __future__ import annotations

from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.program import Program
from neuro.hardware.spinnaker1.contract import HEADER, check, layout_of, slices_of
from neuro.hardware.spinnaker1.neurons import MODELS, Constants, State, start
from neuro.hardware.spinnaker1.ring import Words
from neuro.hardware.spinnaker1.traffic import names_of, traffic
from neuro.ir import READOUTS

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


class Packed(NamedTuple):
    """Neurons and cores in order of population; population 0 is the input, which has neither.

    first: int64[populations + 1], first neuron of each; the input's are counted from 0, the others' too.
    core_*: per core; neurons lo..hi-1, ring buffers from ring on, fields of its words, shift of either type, model.
    core_of: int32 core of each neuron. block: int64[cores + 1], blocks of each core. block_*: source population,
    steps that its spikes are late, first row, first word, bytes fetched per spike. row_start: as in the image.
    depth: steps of spikes of each population that are still needed. packets, hops, relay*, unit: see `traffic`.
    """

    size: Int64
    first: Int64
    output: int
    readout: int
    constants: Constants
    core_lo: Int64
    core_hi: Int64
    core_pop: Int64
    core_ring: Int64
    core_type: Int64
    core_shift: Int64
    core_mask: Int64
    core_model: Int64
    core_exc: Int64
    core_inh: Int64
    block: Int64
    block_pop: Int64
    block_lag: Int64
    block_row: Int64
    block_word: Int64
    block_bytes: Int64
    row_start: NDArray[np.uint32]
    words: Words
    depth: Int64
    packets: Int64
    hops: Int64
    relay: Int64
    relay_packets: Int64
    unit: Int64


class Initial(NamedTuple):
    """The state that a run starts from, and the room it needs."""

    state: State
    ring: int


_cache: WeakKeyDictionary[Program, tuple[Packed, Initial]] = WeakKeyDictionary()


def pack(program: Program) -> tuple[Packed, Initial]:
    """The arrays of a program, from memory if it was packed before.

    Raises:
        SimulationError: the program breaks the contract; every violation at once.
    """
    if program not in _cache:
        check(program)
        _cache[program] = _pack(program)
    return _cache[program]


def _pack(program: Program) -> tuple[Packed, Initial]:
    names = names_of(program)
    populations = [program.populations[n] for n in names]
    sizes = np.array([p.size for p in populations], np.int64)
    parts = [start(p.model, p.params, p.size) for p in populations[1:]]
    constants = Constants(*(np.concatenate(columns) for columns in zip(*(c for c, _ in parts), strict=True)))
    state = State(*(np.concatenate(columns) for columns in zip(*(s for _, s in parts), strict=True)))
    first = np.concatenate([[0, 0], np.cumsum(sizes[1:])]).astype(np.int64)
    cores: dict[str, Any]
    cores, ring = _cores(program, names, first)
    sent: dict[str, Any] = dict(traffic(program))
    net = Packed(
        size=sizes,
        first=first,
        output=names.index(program.output),
        readout=READOUTS.index(program.readout),
        constants=constants,
        **cores,
        **_blocks(program, sizes),
        **sent,
    )
    return net, Initial(state, ring)


def _cores(program: Program, names: list[str], first: Int64) -> tuple[dict[str, Any], int]:
    """Cores in the order of Placement; one without neurons has lo = hi."""
    count = program.placement.cores
    found = {
        f"core_{name}": np.zeros(count, np.int64)
        for name in ("lo", "hi", "pop", "ring", "type", "shift", "mask", "model", "exc", "inh")
    }
    used = 0
    for k, name in enumerate(names[1:], 1):
        p = program.populations[name]
        layout = layout_of(p)
        for core, lo, hi in slices_of(program, name):
            row = (first[k] + lo, first[k] + hi, k, used, 1 << layout.index_bits, layout.shift, layout.mask)
            for key, value in zip(found, (*row, MODELS[p.model], p.params["shift_exc"], p.params["shift_inh"]),
                                  strict=True):  # fmt: skip
                found[key][core] = int(value)
            used += layout.entries
    return found, used


def _blocks(program: Program, sizes: Int64) -> dict[str, Any]:
    blocks, row_start, words = (program.image[name] for name in ("blocks", "row_start", "words"))
    longest = np.zeros(len(blocks), np.int64)
    for k, (_, source, _, row, _) in enumerate(blocks.tolist()):
        longest[k] = np.diff(row_start[row : row + int(sizes[source]) + 1].astype(np.int64)).max(initial=0)
    depth = np.ones(len(sizes), np.int64)
    np.maximum.at(depth, blocks[:, 1], blocks[:, 2] + 1)
    return {
        "block": np.searchsorted(blocks[:, 0], np.arange(program.placement.cores + 1)).astype(np.int64),
        "block_pop": np.ascontiguousarray(blocks[:, 1]),
        "block_lag": np.ascontiguousarray(blocks[:, 2]),
        "block_row": np.ascontiguousarray(blocks[:, 3]),
        "block_word": np.ascontiguousarray(blocks[:, 4]),
        "block_bytes": 4 * (HEADER + longest),
        "row_start": row_start,
        "words": words,
        "depth": depth,
    }
