"""`Session`: a circuit loaded onto cores of SpiNNaker 1 and run, with the integers of sPyNNaker 7.4.1.

A spike of step t goes through all its rows in step t and arrives d >= 1 steps later. In a step inputs go first, then
neurons, in declared order: the machine leaves that order open. It matters only where a sum saturates.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from neuro.errors import DoesNotFit, SimulationError, Violation
from neuro.extend import did_you_mean
from neuro.hardware.spinnaker1 import fixed
from neuro.hardware.spinnaker1.circuit import RECEPTORS, Circuit
from neuro.hardware.spinnaker1.neurons import Constants, State, start
from neuro.hardware.spinnaker1.ring import Layout, bits_for, words_of
from neuro.hardware.spinnaker1.stdp import fresh, plastic_words, row_weights, rule_words, rules_of
from neuro.hardware.spinnaker1.stdp_kernels import Cores, Fan, Learning, Rules, steps
from neuro.hardware.spinnaker1.words import BLOCK

Int64 = NDArray[np.int64]
Bytes = NDArray[np.uint8]
NEURONS_PER_CORE = 256
WORD_BITS = 14  # delay, type and index of a synaptic word together: 7.4.1 makes the delay as wide as they leave it


class Row(NamedTuple):
    """Where a row begins in memory, its core, and which of the projection's connections it holds, in order."""

    at: int
    core: int
    of: Int64


class Loaded(NamedTuple):
    """A circuit as the kernels read it. rows: of each projection."""

    constants: Constants
    start: State
    learning: Learning
    cores: Cores
    rules: Rules
    fan: Fan
    first: dict[str, int]  # of each population's neurons, or of each source's inputs
    rows: list[list[Row]]


def load(circuit: Circuit) -> Loaded:
    """Cores, synaptic words and neuron words.

    Raises:
        DoesNotFit: delays longer than the ring buffers; every one.
    """
    names = [n for n, p in circuit.populations.items() if p.cell is not None]
    sources = [n for n, p in circuit.populations.items() if p.cell is None]
    sizes = {n: p.size for n, p in circuit.populations.items()}
    first = {n: int(sum(sizes[m] for m in of[: of.index(n)])) for of in (sources, names) for n in of}
    slices = [(n, a, min(a + NEURONS_PER_CORE, sizes[n])) for n in names for a in range(0, sizes[n], NEURONS_PER_CORE)]
    index_bits = [bits_for(b - a) for _, a, b in slices]
    delay_bits = WORD_BITS - 1 - max(index_bits, default=0)
    _check_delays(circuit, 1 << delay_bits)
    layouts = [Layout(bits, 1, delay_bits) for bits in index_bits]
    rules = list(dict.fromkeys(r for n in names if (r := circuit.rule_of(n)) is not None))
    number = {rule: k for k, rule in enumerate(rules)}
    shifts = {n: [ring_shift(circuit, n, receptor) for receptor in RECEPTORS] for n in names}
    cores = Cores(
        first=np.cumsum([0, *(b - a for _, a, b in slices)]),
        index_bits=np.array(index_bits, np.int64),
        ring=np.cumsum([0, *(layout.entries for layout in layouts)])[:-1],
        shift=np.array([shifts[n] for n, _, _ in slices], np.int64).reshape(-1, 2),
        rule=np.array([number[rule] if (rule := circuit.rule_of(n)) is not None else -1 for n, _, _ in slices]),
        delay_bits=delay_bits,
    )
    fan, memory, rows = _rows(circuit, slices, layouts, shifts, first, sum(sizes[s] for s in sources))
    constants, state = _neurons(circuit, names)
    learning = fresh(int(cores.first[-1]), sum(layout.entries for layout in layouts), memory)
    tables = rules_of([(rule_words(rule, circuit.time_step), rule.weight_dependence) for rule in rules])
    return Loaded(constants, state, learning, cores, tables, fan, first, rows)


def _check_delays(circuit: Circuit, slots: int) -> None:
    bad = []
    for p in circuit.projections:
        most = slots - 1 if p.stdp is not None else slots
        longest = int(p.connections.delay.max(initial=0))
        if longest > most:
            what = "delay of a plastic synapse (steps)" if p.stdp is not None else "delay (steps)"
            remedy = "Shorten it, use a longer time step, or pass the spike on through a population in between"
            bad.append(Violation(f"{p.source}->{p.target}", what, longest, most, remedy))
    if bad:
        raise DoesNotFit("the circuit does not fit a SpiNNaker 1 core", bad)


def ring_shift(circuit: Circuit, name: str, receptor: str) -> int:
    """Left shift of a population's ring buffers: the fewest whole powers of two above the sum of all weights onto its
    most connected neuron, projection by projection, as sPyNNaker 7.4.1 does where delays do not vary. A plastic
    synapse counts with w_max."""
    total = 0.0
    for p in circuit.projections:
        if p.target == name and p.receptor == receptor and p.connections.weight.size:
            weight = float(np.abs(p.connections.weight).max())
            weight = max(weight, p.stdp.w_max) if p.stdp is not None else weight
            total += weight * int(np.bincount(p.connections.post).max())
    shift = int(np.ceil(max(0.0, np.log2(total)))) if total > 0 else 0
    return min(shift + (total > 0 and 1 << shift <= total), 16)


def _rows(
    circuit: Circuit, slices: list[tuple[str, int, int]], layouts: list[Layout], shifts: dict[str, list[int]],
    first: dict[str, int], inputs: int,
) -> tuple[Fan, NDArray[np.uint32], list[list[Row]]]:  # fmt: skip
    """One row per projection, source neuron and target core."""
    found: list[tuple[int, int, int, int]] = []  # source, at, core, plastic
    words: list[NDArray[np.uint32]] = []
    places: list[list[Row]] = []
    end = 0
    for p in circuit.projections:
        c, kind = p.connections, RECEPTORS.index(p.receptor)
        weight = np.rint(np.abs(c.weight) * 2.0 ** (15 - shifts[p.target][kind])).astype(np.int64)
        begin = first[p.source] + (inputs if circuit.populations[p.source].cell is not None else 0)
        places.append([])
        order = np.lexsort((np.arange(c.pre.size), c.pre, c.post // NEURONS_PER_CORE))  # in a row as they were given
        mine = [core for core, (name, _, _) in enumerate(slices) if name == p.target]
        for of in _runs(c.post[order] // NEURONS_PER_CORE, c.pre[order]):
            some = order[of]
            core, pre = mine[int(c.post[some[0]]) // NEURONS_PER_CORE], int(c.pre[some[0]])
            index, kinds = c.post[some] - slices[core][1], np.full(some.size, kind)
            if p.stdp is not None:
                row = plastic_words(layouts[core], weight[some], c.delay[some], kinds, index)
            else:
                row = words_of(layouts[core], weight[some], c.delay[some], kinds, index)
                row = np.concatenate([np.array([some.size], np.uint32), row])
            places[-1].append(Row(end, core, some))
            found.append((begin + pre, end, core, int(p.stdp is not None)))
            words.append(row)
            end += row.size
    total = inputs + sum(b - a for _, a, b in slices)
    table = np.array(found, np.int64).reshape(-1, 4)
    table = table[np.argsort(table[:, 0], kind="stable")]
    pointer = np.searchsorted(table[:, 0], np.arange(total + 1)).astype(np.int64)
    memory = np.concatenate([np.zeros(0, np.uint32), *words])
    columns = (np.ascontiguousarray(table[:, k]) for k in (1, 2, 3))
    return Fan(pointer, *columns), memory, places


def _runs(*keys: Int64) -> list[slice]:
    """Slices within which all keys, sorted, stay the same."""
    if not keys[0].size:
        return []
    cuts = np.flatnonzero(np.any([np.diff(k) != 0 for k in keys], axis=0)) + 1
    ends = [0, *cuts.tolist(), keys[0].size]
    return [slice(a, b) for a, b in itertools.pairwise(ends)]


def _neurons(circuit: Circuit, names: list[str]) -> tuple[Constants, State]:
    """The words of all neurons, and what the machine makes of them."""
    columns: dict[str, list[Int64]] = {}
    for name in names:
        population = circuit.populations[name]
        cell = population.cell
        assert cell is not None
        step = circuit.time_step
        v_init = cell.v_rest if cell.v_init is None else cell.v_init
        real = (v_init, cell.v_rest, cell.cm, cell.tau_m, cell.i_offset, cell.v_reset, cell.tau_refrac, 0.0, step)
        table = dict(zip(BLOCK, real, strict=True)) | {"threshold": cell.v_thresh, "synapse_step": step}
        table |= {"tau_exc": cell.tau_syn_E, "init_exc": 0.0, "tau_inh": cell.tau_syn_I, "init_inh": 0.0}
        for word, value in table.items():
            columns.setdefault(word, []).append(np.full(population.size, int(fixed.raw(value))))
    return start("curr_exp", {w: np.concatenate(v) for w, v in columns.items()}, sum(map(len, columns["v_rest"])))


Arrays = TypeVar("Arrays", State, Learning)


def _copied(arrays: Arrays) -> Arrays:
    return arrays._replace(**{name: getattr(arrays, name).copy() for name in arrays._fields})


class Session:
    """A circuit that runs, keeping what it has learnt from one `run` to the next.

    Raises:
        DoesNotFit: as `load`.
    """

    def __init__(self, circuit: Circuit) -> None:
        self.circuit = circuit
        self.loaded = load(circuit)
        self.time = 0
        self._state = _copied(self.loaded.start)
        self._learning = _copied(self.loaded.learning)
        self._sources = [n for n, p in circuit.populations.items() if p.cell is None]

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, Bytes]:
        """Run for the steps of the inputs, uint8[steps, n] of 0 and 1 for each source (those left out are silent):
        population -> uint8[steps, n] spikes. ``synapses`` then holds how many synapses were reached per step.

        Raises:
            SimulationError: inputs of another shape, length or value; every problem.
        """
        events, event, length = self._events(inputs)
        neurons = self._state.v.size
        spikes, self.synapses = np.zeros((length, neurons), np.uint8), np.zeros(length, np.int64)
        states, rows = np.zeros((0, 0, 0), np.int32), np.zeros((0, 0), np.uint32)
        of = self.loaded
        steps(of.constants, self._state, self._learning, of.cores, of.rules, of.fan, self.time, events, event, spikes,
              self.synapses, states, rows)  # fmt: skip
        self.time += length
        found = {}
        for name, p in self.circuit.populations.items():
            if p.cell is not None:
                found[name] = spikes[:, of.first[name] : of.first[name] + p.size]
        return found

    def _events(self, inputs: Mapping[str, NDArray[Any]]) -> tuple[Int64, Int64, int]:
        bad = [f"no source '{n}'. {did_you_mean(n, self._sources)}" for n in inputs if n not in self._sources]
        lengths = {np.asarray(a).shape[0] for a in inputs.values() if np.asarray(a).ndim}
        if len(lengths) != 1 or 0 in lengths:
            bad.append(f"give every source the same number of steps, at least one; got {sorted(lengths)}")
        parts = []
        for name in self._sources:
            n = self.circuit.populations[name].size
            dense = np.asarray(inputs.get(name, np.zeros((max(lengths, default=1), n), np.uint8)))
            if dense.ndim != 2 or dense.shape[1] != n:
                bad.append(f"'{name}' must be [steps, {n}], got shape {dense.shape}")
            elif dense.dtype.kind not in "bui" or (dense.size and (dense.min() < 0 or dense.max() > 1)):
                bad.append(f"'{name}' must hold 0 and 1")
            parts.append(dense)
        if bad:
            raise SimulationError("these inputs cannot be run", bad)
        whole = np.concatenate(parts, axis=1)
        step, source = np.nonzero(whole)
        begins = np.searchsorted(step, np.arange(len(whole) + 1)).astype(np.int64)
        return begins, source.astype(np.int64), len(whole)

    def weights(self, projection: int) -> NDArray[np.float64]:
        """Weights in nA [pre, post] of a projection by its place in the circuit, as they stand in memory; NaN where
        there is no synapse. A plastic one is brought up to date by the next spike of its source, not before."""
        p = self.circuit.projections[projection]
        c, kind = p.connections, RECEPTORS.index(p.receptor)
        shape = (self.circuit.populations[p.source].size, self.circuit.populations[p.target].size)
        found = np.full(shape, np.nan)
        memory = self._learning.memory
        for row in self.loaded.rows[projection]:
            unit = 2.0 ** (int(self.loaded.cores.shift[row.core, kind]) - 15)
            begin = row.at + 1
            held = memory[begin : begin + row.of.size] >> 16 if p.stdp is None else row_weights(memory, row.at)
            found[c.pre[row.of], c.post[row.of]] = held * unit
        return found

    @property
    def saturated(self) -> int:
        """Sums in ring buffers that were too large for 16 bits so far."""
        return int(self._learning.counts[0])

    @property
    def lost(self) -> int:
        """Plastic weights so far that missed a post spike: their source was silent while the target fired more often
        than its history of 15 spikes holds. The machine does not notice."""
        return int(self._learning.counts[2])

    def copy(self) -> Session:
        """A session in the same state that goes its own way."""
        other = copy.copy(self)
        other._state, other._learning = self.state
        return other

    @property
    def state(self) -> tuple[State, Learning]:
        """Copies of all that changes."""
        return _copied(self._state), _copied(self._learning)


__all__ = ["Loaded", "Session", "load", "ring_shift"]
