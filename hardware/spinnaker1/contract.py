"""What a SpiNNaker Program means, and its check.

Populations, model "curr_exp" or "curr_delta": params are the words the machine is given, s16.15 unless said, one or
one per neuron: `neurons.WORDS` (refract_init in whole steps), and, one for the population, ``shift_exc`` and
``shift_inh`` (left shift of its ring buffers, 0..16), ``index_bits`` and ``delay_bits`` (of its synaptic words,
`words.Layout`; there is always one type bit: 0 excitatory, 1 inhibitory).

Neurons of a population sit in contiguous slices on cores of their own (`Placement.core_of`), the slices in order.
A core beyond those is a delay extension.

Image (sources are numbered as in `packed.names_of`, the input 0):

    blocks     int64[blocks, 5]: target core, source population, late, first row, first word; by core
    row_start  uint32: row k of a block is words[first word + row_start[first row + k]:  ... + k + 1]
    words      uint32: synaptic words, see `words`
    relays     int64[relays, 4]: delay extension core, source population, first and last neuron (exclusive)

A block holds one row per neuron of its source. Its rows are processed ``late`` steps after a spike: 0, or as many
as delay extensions hold it back. Projections repeat the same synapses for reading: ``row`` target, ``col`` source,
``delay_steps`` >= 1, weight_q = +- 1..65535, the sign being the type. They may be left out where there are too many.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from neuro.errors import SimulationError
from neuro.hardware.program import Population, Program
from neuro.hardware.spinnaker1.words import WORDS, Layout

Int64 = NDArray[np.int64]
SCALARS = {"shift_exc": (0, 16), "shift_inh": (0, 16), "index_bits": (0, 8), "delay_bits": (0, 14)}
DIVISORS = ("c_m", "tau_m", "time_step", "tau_exc", "tau_inh", "synapse_step", "input_step")
IMAGE = {"blocks": (np.int64, 2), "row_start": (np.uint32, 1), "words": (np.uint32, 1), "relays": (np.int64, 2)}
HEADER = 3  # words of a row before its synapses


def layout_of(population: Population) -> Layout:
    """Fields of the words that a population receives."""
    return Layout(int(population.params["index_bits"]), 1, int(population.params["delay_bits"]))


def slices_of(program: Program, name: str) -> list[tuple[int, int, int]]:
    """(core, first neuron, last, exclusive) of a population's slices, in order."""
    core = program.placement.core_of[name]
    cuts = [0, *(np.flatnonzero(np.diff(core)) + 1).tolist(), core.size]
    return [(int(core[a]), a, b) for a, b in itertools.pairwise(cuts)]


def check(program: Program) -> None:
    """Refuse a program that breaks the contract, since kernels trust what they are given.

    Raises:
        SimulationError: every violation.
    """
    bad: list[str] = []
    stateful = [p for p in program.populations.values() if p.model != "input"]
    for p in stateful:
        if p.model not in WORDS:
            bad.append(f"'{p.name}' has model '{p.model}', not one of {', '.join(WORDS)}")
            continue
        bad += _population_problems(p)
        if program.placement.core_of.get(p.name, np.zeros(0)).shape != (p.size,):
            bad.append(f"'{p.name}' needs a core for each of its {p.size} neurons")
    if not bad:
        bad += _core_problems(program, stateful)
    for name, (kind, axes) in IMAGE.items():
        array = program.image.get(name)
        if array is None or array.dtype != kind or array.ndim != axes:
            bad.append(f"image '{name}' must be {np.dtype(kind).name} with {axes} axes")
    if not bad:
        bad += _block_problems(program)
    if bad:
        raise SimulationError("this is no program for SpiNNaker 1", bad)


def _population_problems(p: Population) -> list[str]:
    bad = []
    for name in (*WORDS[p.model], *SCALARS):
        values = p.params.get(name)
        if values is None:
            bad.append(f"'{p.name}' lacks the parameter '{name}'")
            continue
        low, high = SCALARS.get(name, (-(1 << 31), (1 << 31) - 1))
        if values.size not in ((1,) if name in SCALARS else (1, p.size)):
            bad.append(f"'{p.name}' {name} must be one value or {p.size}, got {values.size}")
        elif values.size and (values.min() < low or values.max() > high):
            bad.append(f"'{p.name}' {name} must lie in {low}..{high}, found {values.min()}..{values.max()}")
        elif name in DIVISORS and (values == 0).any():
            bad.append(f"'{p.name}' {name} is 0, by which the machine would divide")
    if not bad and layout_of(p).shift + layout_of(p).delay_bits > 16:
        bad.append(f"'{p.name}': the fields of its synaptic words need more than 16 bits")
    return bad


def _core_problems(program: Program, stateful: list[Population]) -> list[str]:
    bad, seen = [], set()
    for p in stateful:
        for core, first, last in slices_of(program, p.name):
            if core in seen or not 0 <= core < program.placement.cores:
                bad.append(f"core {core} of '{p.name}' is used twice or does not exist; slices must be contiguous")
            if last - first > 1 << int(p.params["index_bits"]):
                bad.append(f"core {core} holds {last - first} neurons, more than its index bits can name")
            seen.add(core)
    return bad


def _block_problems(program: Program) -> list[str]:
    image = program.image
    blocks, row_start, words = image["blocks"], image["row_start"], image["words"]
    names = [program.input, *(n for n in program.populations if n != program.input)]
    owner = {core: n for n in names[1:] for core, _, _ in slices_of(program, n)}
    bad = []
    if blocks.shape[1:] != (5,) or image["relays"].shape[1:] != (4,):
        return ["image 'blocks' must have 5 columns and 'relays' 4"]
    if (np.diff(blocks[:, 0]) < 0).any():
        bad.append("blocks must be sorted by core")
    for k, (core, source, late, row, word) in enumerate(blocks.tolist()):
        if core not in owner or not 0 <= source < len(names) or late < 0 or row < 0 or word < 0:
            bad.append(f"block {k}: no such core, source or place")
            continue
        starts = row_start[row : row + program.populations[names[source]].size + 1].astype(np.int64)
        if starts.size != program.populations[names[source]].size + 1 or (np.diff(starts) < 0).any():
            bad.append(f"block {k}: its rows are not in order, or incomplete")
        elif word + starts[-1] > words.size:
            bad.append(f"block {k}: its rows end beyond the last word")
    if not bad:
        bad += _index_problems(program, owner)
    return bad


def _index_problems(program: Program, owner: dict[int, str]) -> list[str]:
    """Words that name a neuron which its core has not. Others would be added where nobody reads."""
    blocks = program.image["blocks"]
    bad = []
    for core, name in owner.items():
        count = int((program.placement.core_of[name] == core).sum())
        bits = int(program.populations[name].params["index_bits"])
        of = np.flatnonzero(blocks[:, 0] == core)
        if count == 1 << bits or not of.size:
            continue
        for k in of.tolist():
            _, source, _, row, word = blocks[k].tolist()
            size = [p.size for p in _ordered(program)][source]
            begin, end = program.image["row_start"][row], program.image["row_start"][row + size]
            some = program.image["words"][word + int(begin) : word + int(end)]
            if some.size and int((some & np.uint32((1 << bits) - 1)).max()) >= count:
                bad.append(f"block {k}: a word names a neuron beyond the {count} of core {core}")
    return bad


def _ordered(program: Program) -> list[Population]:
    populations = program.populations
    return [populations[program.input], *(p for n, p in populations.items() if n != program.input)]
