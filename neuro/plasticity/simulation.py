"""`Plastic`: a circuit some of whose projections learn while it runs; neurons are the engine's own (`neuro.engine`).

In each step the engine moves all neurons and fixed synapses on by one step; then the spikes of the step go through the
learning rule; then what arrives of them is put, with the new weights, where the neurons will take it, in the same step
in which the engine would have delivered it. Learning is in float64 and in one thread; what neurons take is rounded to
the engine's float32 once per target and step. So results do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.engine.circuit import Circuit
from neuro.engine.simulation import Probes, Recording, Simulation, steps_of
from neuro.errors import NetworkError, SimulationError
from neuro.plasticity.kernels import Law, Memory, Synapses, learn, send
from neuro.plasticity.rules import Rule, bounds_of, parts_of
from neuro.plasticity.state import law_of, memory_of, synapses_of

Ints = NDArray[np.int64]
Reals = NDArray[np.float64]
Reward = ArrayLike | Callable[[int, Mapping[str, Ints]], float]


class _Learns(NamedTuple):
    """A projection that learns. order: place in the engine's list of each synapse. inbox: of its receptor."""

    source: str
    target: str
    law: Law
    synapses: Synapses
    memory: Memory
    order: Ints
    inbox: int
    ring: Reals


@dataclass(frozen=True, eq=False)
class Learnt:
    """What some steps did.

    spikes: population -> (int64[n] step, int64[n] neuron), by step, then neuron. probes: as `Recording.probes`.
    weights: projection -> float64[k, n], after every so many steps, synapses as in `Plastic.connections`. sizes: of
    populations. events: synapses that spikes went through, plastic ones included.
    """

    start: int
    steps: int
    dt: float
    spikes: dict[str, tuple[Ints, Ints]]
    probes: dict[tuple[str, str], Reals]
    weights: dict[int, Reals]
    sizes: dict[str, int]
    events: int

    def rate_hz(self, population: str) -> float:
        """Mean rate of a population, hertz."""
        return len(self.spikes[population][0]) / (self.sizes[population] * self.steps * self.dt)

    def dense(self, population: str) -> NDArray[np.uint8]:
        """uint8[steps, n], 1 where a neuron fired."""
        found = np.zeros((self.steps, self.sizes[population]), np.uint8)
        steps, neurons = self.spikes[population]
        found[steps - self.start, neurons] = 1
        return found


class Plastic:
    """A circuit with its synapses drawn, and rules for some of its projections.

    Args:
        circuit: in floats. Its projections' weights are where learning starts.
        rules: number of a projection in ``circuit.projections`` -> its rule.
        threads: of the engine, 1 unless said; results do not depend on it.

    Raises:
        NetworkError: no such projection, weights outside of a rule's bounds, or a circuit in a chip's integers.
    """

    def __init__(self, circuit: Circuit, rules: Mapping[int, Rule], *, threads: int = 1) -> None:
        missing = [k for k in rules if not 0 <= k < len(circuit.projections)]
        if missing:
            raise NetworkError(f"no projection {missing}; the circuit has 0..{len(circuit.projections) - 1}")
        if circuit.arithmetic != "float32":
            raise NetworkError(f"rules run in floats, this circuit is in the integers of '{circuit.arithmetic}'; "
                               "give the rule to the chip instead (neuro.hardware.loihi2.plasticity)")  # fmt: skip
        self.circuit = circuit
        self.rules = dict(rules)
        self._engine = Simulation(circuit, threads=threads)
        self._learns = {k: self._taken(k, rule) for k, rule in self.rules.items()}

    def _taken(self, k: int, rule: Rule) -> _Learns:
        """Projection k, which from now on weighs nothing in the engine."""
        p, built = self.circuit.projections[k], self._engine.built
        source, target, weight, delay = self._engine.connections(k)
        size = {name: population.size for name, population in self.circuit.populations.items()}
        syn, order = synapses_of(rule, size[p.source], size[p.target], source, target, delay)
        memory = memory_of(rule, syn, self._given(k, weight)[order])
        net = self._engine._net
        for part in range(net.parts):  # without their weights: what is added of them is 0, which changes no sum
            at = int(net.pointer_at[k, part])
            n = int(built.pools.pointer[at + size[p.source] * int(net.bins[k])])
            if net.weighs[k]:
                built.pools.weight[int(net.weight_at[k, part]) : int(net.weight_at[k, part]) + n] = 0
        if not net.weighs[k]:
            net.weight[k] = 0
        ring = np.zeros((int(syn.travel.max(initial=1)) + 1, size[p.target]))
        return _Learns(p.source, p.target, law_of(rule, self.circuit.dt), syn, memory, order, int(net.inbox[k]), ring)

    def _given(self, k: int, weight: NDArray[Any]) -> Reals:
        """Weights as the engine drew them; a plain number, and what is a bound in float32, in full."""
        held = self.circuit.projections[k].weight
        if isinstance(held, (int, float)):
            return np.full(weight.size, float(held))
        found = weight.astype(np.float64)
        for bound in bounds_of(self.rules[k]):
            found[weight == np.float32(bound)] = bound
        return found

    @property
    def step(self) -> int:
        """Next to be run."""
        return self._engine.step

    def connections(self, number: int) -> tuple[Ints, Ints, Reals, Ints]:
        """Sources, targets, weights as learnt so far, and delays (steps) of a projection that learns."""
        source, target, _, delay = self._engine.connections(number)
        weight = np.empty(source.size)
        weight[self._learns[number].order] = self._learns[number].memory.weight
        return source, target, weight, delay

    def run(
        self,
        steps: int | None = None,
        *,
        seconds: float | None = None,
        reward: Reward = 0.0,
        every: int = 0,
        probes: Probes | None = None,
    ) -> Learnt:
        """So many more steps.

        Args:
            steps, or seconds: one of them.
            reward: a number a step, one for all, or a function of (step, population -> who fires in it).
            every: keep the weights after every so many steps; 0 keeps none.
            probes: as `neuro.engine.simulation.Simulation.run` takes them.

        Raises:
            SimulationError: no or two lengths, a reward that does not fit or that no rule takes.
        """
        count = steps_of(self.circuit, steps, seconds)
        pays = self._rewards(reward, count)
        names, start = list(self.circuit.populations), self.step
        spikes: dict[str, list[Ints]] = {name: [] for name in names}
        probed: dict[tuple[str, str], list[Any]] = {key: [] for key in probes or {}}
        kept: dict[int, list[Reals]] = {k: [] for k in self._learns}
        events = 0
        for n in range(count):
            t = self.step
            self._arrive(t)
            done: Recording = self._engine.run(1, probes=probes)
            fired = {name: done.spikes[name][1].astype(np.int64) for name in names}
            paid = float(pays(t, fired)) if callable(pays) else float(pays[n])
            for k, own in self._learns.items():
                pre, post = fired[own.source], fired[own.target]
                learn(own.law, own.synapses, own.memory, t, paid, pre, 0, pre.size, post, 0, post.size)
                send(own.synapses, own.memory, t, own.ring)
                if every and (n + 1) % every == 0:
                    back = np.empty(own.order.size)
                    back[own.order] = own.memory.weight
                    kept[k].append(back)
            events += done.events
            for name in names:
                spikes[name].append(fired[name])
            for key, rows in probed.items():
                rows.append(done.probes[key])
        joined = {name: self._joined(start, lists) for name, lists in spikes.items()}
        values = {key: np.concatenate(rows) if rows else np.zeros((0, 0)) for key, rows in probed.items()}
        history = {k: np.array(rows).reshape(len(rows), self._learns[k].order.size) for k, rows in kept.items()}
        sizes = {name: p.size for name, p in self.circuit.populations.items()}
        return Learnt(start, count, self.circuit.dt, joined, values, history, sizes, events)

    def _arrive(self, t: int) -> None:
        """What plastic synapses have sent for step t, into the engine's inbox of that step."""
        state, net = self._engine._state, self._engine._net
        for own in self._learns.values():
            row = own.ring[t % len(own.ring)]
            state.inbox[t % net.rings, own.inbox : own.inbox + row.size] += row.astype(state.inbox.dtype)
            row[:] = 0

    def _rewards(self, reward: Reward, count: int) -> Any:
        takes = any(parts_of(rule)[1] is not None for rule in self.rules.values())
        if callable(reward):
            if not takes:
                raise SimulationError("a reward, but no rule takes it; wrap one in RewardSTDP")
            return reward
        given = np.asarray(reward, np.float64)
        if given.shape not in ((), (count,)) or not np.isfinite(given).all():
            raise SimulationError(f"reward must be finite, one number or [{count}], got {list(given.shape)}")
        if given.any() and not takes:
            raise SimulationError("a reward, but no rule takes it; wrap one in RewardSTDP")
        return np.broadcast_to(given, (count,))

    @staticmethod
    def _joined(start: int, lists: list[Ints]) -> tuple[Ints, Ints]:
        when = np.repeat(np.arange(start, start + len(lists)), [len(found) for found in lists])
        return when.astype(np.int64), np.concatenate([np.zeros(0, np.int64), *lists])


def simulate(plastic: Plastic, *lengths: int, **options: Any) -> Learnt:
    """`Plastic.run`, as `neuro.simulate` calls it: what was learnt before stays."""
    return plastic.run(*lengths, **options)


__all__ = ["Learnt", "Plastic", "Reward", "simulate"]
