"""TrueNorth once more, in unbounded Python integers: the independent model that fuzz and certificates compare with.

Written from the equations (bank.py tells what the arrays mean), not from the kernels: neurons are objects, axons
hold the list of what they reach, spikes travel as entries of a calendar, and every number is a Python integer.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.program import Program
from neuro.hardware.target import Oracle, Visit
from neuro.hardware.truenorth.bank import Bank, bank_of, unpack_bits

TITLE = "independent integer model of the cores; the kernel it is compared with is itself equal to vectors of RANC"
Draw = Callable[[], int]


def sign(x: int) -> int:
    return (x > 0) - (x < 0)


def perhaps(value: int, drawn: int) -> int:
    """The sign of a value, or nothing."""
    return sign(value) if abs(value) >= drawn % 256 else 0


def brought_in(x: int, overflow: str) -> int:
    """V back in its register."""
    if overflow == "saturate":
        return max(-(2**19), min(x, 2**19 - 1))
    size = 2**20 if overflow == "wrap" else 2**32
    return (x + size // 2) % size - size // 2


def _xorshift32(seed: int) -> Draw:
    state = [seed]

    def draw() -> int:
        x = state[0]
        x = (x ^ (x << 13)) % 2**32
        x = x ^ (x >> 17)
        state[0] = (x ^ (x << 5)) % 2**32
        return state[0]

    return draw


def _lfsr16(seed: int) -> Draw:
    state = [seed]

    def draw() -> int:
        half, bit = divmod(state[0], 2)
        state[0] = half ^ 0xB400 if bit else half
        return state[0]

    return draw


def _table(numbers: list[int]) -> Draw:
    given = itertools.cycle(numbers)
    return lambda: next(given)


def _generator(bank: Bank, core: int) -> Draw:
    if bank.generator == "table":
        return _table(bank.draws[core].tolist())
    return {"xorshift32": _xorshift32, "lfsr16": _lfsr16}[bank.generator](int(bank.seed[core]))


@dataclass
class Neuron:
    """One neuron with all its registers; inputs: axon -> (weight, whether by chance)."""

    v: int
    inputs: dict[int, tuple[int, bool]]
    leak: int
    chance_leak: bool
    alpha: int
    beta: int
    reset: int
    gamma: int
    kappa: bool
    epsilon: bool
    mask: int

    def tick(self, active: list[int], draw: Draw, overflow: str, inclusive: bool, zero_cross: bool) -> bool:
        """One tick; whether it spikes. active: axons, ascending."""
        for weight, chance in [self.inputs[a] for a in active if a in self.inputs]:
            self.v += perhaps(weight, draw()) if chance else weight
        self.v = brought_in(self.v, overflow)

        leak = perhaps(self.leak, draw()) if self.chance_leak else self.leak
        if self.epsilon:
            before = self.v
            self.v += sign(before) * leak
            if zero_cross and sign(before) * sign(self.v) < 0:
                self.v = 0
        else:
            self.v += leak
        self.v = brought_in(self.v, overflow)

        eta = draw() & self.mask if self.mask else 0
        floor = -self.beta if self.kappa else -(self.beta + eta)
        if spike := self.v >= self.alpha + eta:
            self.v = (self.reset, self.v - (self.alpha + eta), self.v)[self.gamma]
        elif self.v <= floor if inclusive else self.v < floor:
            self.v = -self.beta if self.kappa else (-self.reset, self.v + self.beta + eta, self.v)[self.gamma]
        self.v = brought_in(self.v, overflow)
        return spike


def _neurons(bank: Bank, c: int) -> list[Neuron]:
    joined = unpack_bits(bank.crossbar[c], bank.width)
    kinds = bank.axon_type[c].tolist()
    found = []
    for n in range(int(bank.neurons[c])):
        weights, chance = bank.weight[c, n].tolist(), int(bank.stochastic[c, n])
        found.append(
            Neuron(
                v=int(bank.v0[c, n]),
                inputs={
                    a: (weights[kinds[a]], bool(chance >> kinds[a] & 1)) for a in np.flatnonzero(joined[:, n]).tolist()
                },
                leak=int(bank.leak[c, n]),
                chance_leak=bool(chance & 16),
                alpha=int(bank.alpha[c, n]),
                beta=-int(bank.negative[c, n]),
                reset=int(bank.reset[c, n]),
                gamma=int(bank.gamma[c, n]),
                kappa=bool(bank.kappa[c, n]),
                epsilon=bool(bank.epsilon[c, n]),
                mask=int(bank.mask[c, n]),
            )
        )
    return found


def neurons_of(bank: Bank) -> list[list[Neuron]]:
    """The neurons in use, core by core."""
    return [_neurons(bank, c) for c in range(bank.cores)]


def ticks(
    bank: Bank, steps: int, packets: Iterable[tuple[int, int, int]], built: list[list[Neuron]] | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.int32], dict[tuple[int, int], int]]:
    """A bank from rest. packets: (tick, core, axon), active in that tick. built: `neurons_of` it, used again.

    Returns spikes uint8[steps, C, N], V after the reset int32[steps, C, N], and what shows on the output lines,
    (tick, line) -> 1.
    """
    cores = neurons_of(bank) if built is None else built
    for neurons, start in zip(cores, bank.v0.tolist(), strict=True):
        for neuron, v0 in zip(neurons, start, strict=False):
            neuron.v = v0
    draws = [_generator(bank, c) for c in range(bank.cores)]
    where = list(zip(bank.target.tolist(), bank.axon.tolist(), bank.delay.tolist(), strict=True))
    rules = (bank.overflow, bool(bank.choices[1]), bool(bank.choices[2]))
    calendar: dict[tuple[int, int], set[int]] = defaultdict(set)
    for tick, core, axon in packets:
        calendar[tick, core].add(axon)
    spikes = np.zeros((steps, bank.cores, bank.width), np.uint8)
    v = np.zeros((steps, bank.cores, bank.width), np.int32)
    v[:] = bank.v0
    lines: dict[tuple[int, int], int] = {}
    for tick in range(steps):
        for c, neurons in enumerate(cores):
            active = sorted(calendar.pop((tick, c), ()))
            target, axon, delay = where[c]
            for n, neuron in enumerate(neurons):
                if neuron.tick(active, draws[c], *rules):
                    spikes[tick, c, n] = 1
                    if target[n] >= 0:
                        calendar[tick + delay[n], target[n]].add(axon[n])
                    elif target[n] == -2:
                        lines[tick + 1, axon[n]] = 1
                v[tick, c, n] = neuron.v
    return spikes, v, lines


def _run(program: Program, dense: NDArray[np.uint8], visit: Visit, timeout_s: float, folder: Path | None) -> None:
    bank = bank_of(program)
    steps = dense.shape[0] + program.depth
    built = neurons_of(bank)
    table = np.asarray(program.image["inject"]).tolist()
    slots = {n: np.asarray(program.image[f"slot:{n}"]) for n in program.populations if n != program.input}
    for k in range(dense.shape[1]):
        when = [*(np.flatnonzero(channel).tolist() for channel in dense[:, k].T), [0]]  # the last: the host's own
        packets = [(t + late, *divmod(at, bank.axons)) for i, at, late in table for t in when[i]]
        spikes, v, _ = ticks(bank, steps, packets, built)
        found: dict[tuple[str, str], NDArray[np.int32]] = {}
        for name, slot in slots.items():
            found[name, "s"] = spikes.reshape(steps, -1)[:, slot].astype(np.int32)
            found[name, "v"] = v.reshape(steps, -1)[:, slot]
        visit(k, found)


ORACLE = Oracle(TITLE, _run, lambda: "axonport")
