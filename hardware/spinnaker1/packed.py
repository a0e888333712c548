"""A Program as the arrays that the kernels read. What the params and the image of a Program mean: contract.py."""

from __future__ import annotations

from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.program import Program
from neuro.hardware.spikes import Blocks, blocks_of
from neuro.hardware.spinnaker1.contract import HEADER, check, layout_of, slices_of
from neuro.hardware.spinnaker1.neurons import MODELS, Constants, State, start
from neuro.hardware.spinnaker1.ring import FULL, Words
from neuro.hardware.spinnaker1.traffic import names_of, traffic
from neuro.hardware.vectors import BLOCK
from neuro.ir import READOUTS

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Bytes = NDArray[np.uint8]
MOST_WORDS = 1 << 23  # of a program that are held twice, the second time in blocks


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


class Quick(NamedTuple):
    """Cores none of whose ring buffers can run over if no source spikes twice in a step: the order of additions is
    nothing to their sums. cores: per core, whether it is one. blocks: the words of those, by row of row_start."""

    cores: Bytes
    blocks: Blocks


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
    return net, Initial(state, ring + BLOCK)  # a block of `Quick` may begin at the last ring buffer


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


_quick: WeakKeyDictionary[Program, Quick] = WeakKeyDictionary()


def quick(program: Program) -> Quick:
    """The cores of a checked program that need not go word by word, from memory if they were asked for before."""
    if program not in _quick:
        _quick[program] = _found_quick(program)
    return _quick[program]


def _found_quick(program: Program) -> Quick:
    names, blocks = names_of(program), program.image["blocks"]
    sizes = [program.populations[n].size for n in names]
    row_start, words = program.image["row_start"].astype(np.int64), program.image["words"]
    cores = np.zeros(program.placement.cores, np.uint8)
    layouts = {core: layout_of(program.populations[n]) for n in names[1:] for core, _, _ in slices_of(program, n)}
    parts, most = [np.zeros((3, 0), np.int64)], BLOCK
    for core, layout in layouts.items() if words.size <= MOST_WORDS else ():
        found = [np.zeros((3, 0), np.int64)]
        for _, source, _, row, word in blocks[blocks[:, 0] == core].tolist():
            rows = np.arange(row, row + int(sizes[source]))
            own = words[word + row_start[row] : word + row_start[rows[-1] + 1]]
            row_of = np.repeat(rows, np.diff(row_start[row : rows[-1] + 2]))
            found.append(np.stack([row_of, own & layout.mask, own >> 16]).astype(np.int64))
        every = np.concatenate(found, axis=1)
        buffers = np.bincount(every[1] & ((1 << layout.shift) - 1), every[2], 1)  # all slots together: an upper bound
        whole = 1 << layout.shift >= BLOCK  # a slot is whole blocks, so that none reaches beyond the ring
        cores[core] = whole and buffers.max() <= FULL
        if cores[core]:
            parts.append(every)
            most = max(most, layout.entries)
    row, at, weight = np.concatenate(parts, axis=1)
    weight = weight - (weight > FULL // 2) * (FULL + 1)  # the same 16 bits
    return Quick(cores, blocks_of(row, 0 * row, at, weight, row_start.size, np.array([0, most])))
