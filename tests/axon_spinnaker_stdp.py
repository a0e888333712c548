"""STDP vectors of the SpiNNaker kernels, and random cores, as the arrays that our kernels read.

Run by path it prints a digest of what random cores do, so that the same can be asked without the compiler:

    NUMBA_DISABLE_JIT=1 python axon_spinnaker_stdp.py 3 7 11
"""

from __future__ import annotations

import hashlib
import sys
from typing import Any, NamedTuple

import numpy as np

from neuro.hardware.spinnaker1.neurons import Constants, State, start
from neuro.hardware.spinnaker1.ring import Layout
from neuro.hardware.spinnaker1.stdp import fresh, plastic_words, rules_of
from neuro.hardware.spinnaker1.stdp_kernels import Cores, Fan, Learning, Rules, steps
from neuro.hardware.spinnaker1.words import BLOCK


class Core(NamedTuple):
    """One core with plastic rows, source s owning row s, and the spikes that arrive."""

    constants: Constants
    start: State
    learning: Learning
    cores: Cores
    rules: Rules
    fan: Fan
    events: np.ndarray
    event: np.ndarray
    steps: int


def core_of(batch: dict[str, Any], delay_bits: int = 4) -> Core:
    """A batch of stdp_pair.npz as a core."""
    n_steps = int(batch.get("T", batch["state"].shape[0]))
    n = batch["state"].shape[1]
    params = batch["params"].astype(np.int64)
    assert params[0] == 1
    neuron = params[1 : 1 + 9 * n].reshape(n, 9)
    threshold = params[1 + 9 * n : 1 + 10 * n]
    synapse = params[1 + 10 * n :].reshape(n, 5)
    words = dict(zip(BLOCK, neuron.T, strict=True)) | {"threshold": threshold}
    words |= dict(zip(("tau_exc", "init_exc", "tau_inh", "init_inh", "synapse_step"), synapse.T, strict=True))
    constants, state = start("curr_exp", words, n)
    layout = Layout(int(batch["log_n"]), 1, delay_bits)
    row_len = batch["row_len"].astype(np.int64)
    rows = len(row_len)
    cores = Cores(
        first=np.array([0, n]),
        index_bits=np.array([layout.index_bits]),
        ring=np.array([0]),
        shift=batch["shifts"].astype(np.int64).reshape(1, 2),
        rule=np.array([0]),
        delay_bits=delay_bits,
    )
    fan = Fan(
        pointer=np.concatenate([np.arange(rows + 1), np.full(n, rows)]),
        at=np.concatenate([[0], np.cumsum(row_len)])[:-1],
        core=np.zeros(rows, np.int64),
        plastic=np.ones(rows, np.int64),
    )
    step = batch["spk_step"].astype(np.int64)
    assert (np.diff(step) >= 0).all()
    return Core(
        constants,
        state,
        fresh(n, layout.entries, batch["rows"]),
        cores,
        rules_of([(batch["dyn_region"], str(batch["rule"]).removesuffix("_one_term"))]),
        fan,
        np.searchsorted(step, np.arange(n_steps + 1)),
        batch["spk_row"].astype(np.int64),
        n_steps,
    )


def copied(state: Any) -> Any:
    """A tuple of arrays, each copied."""
    return type(state)(*(array.copy() for array in state))


def replay(core: Core, function: Any = steps) -> dict[str, np.ndarray]:
    """state [T, n, 5], row_mem [T, words], sat, skipped, synapses [T] of a core from its start."""
    state, learning = copied(core.start), copied(core.learning)
    n = state.v.size
    spikes = np.zeros((core.steps, n), np.uint8)
    synapses = np.zeros(core.steps, np.int64)
    states = np.zeros((core.steps, n, 5), np.int32)
    rows = np.zeros((core.steps, learning.memory.size), np.uint32)
    fixed = (core.cores, core.rules, core.fan, 0, core.events, core.event)
    function(core.constants, state, learning, *fixed, spikes, synapses, states, rows)
    assert (spikes == states[:, :, 4]).all()
    return {
        "state": states,
        "row_mem": rows,
        "sat": learning.counts[0],
        "skipped": learning.counts[1],
        "lost": learning.counts[2],
        "synapses": synapses,
    }


def random_core(seed: int, n: int = 16, rows: int = 10, length: int = 40) -> Core:
    """A core of anything that registers can hold: a third of its neurons at the ends of int32, weights at both ends of
    their range, all shifts, tables of any sign and length, traces that leave int16, rows twice in a step."""
    rng = np.random.default_rng([7, seed])
    ends = np.array([-(1 << 31), (1 << 31) - 1, -(1 << 31) + 1, -1, 0, 1, 1 << 30, -(1 << 30)])

    def raw(low: float, high: float, wild: float = 0.15) -> np.ndarray:
        sane = rng.uniform(low, high, n) * 32768
        return np.where(rng.random(n) < wild, rng.choice(ends, n), np.rint(sane)).astype(np.int64)

    step = np.where(rng.random(n) < 0.2, rng.integers(1, 65536, n), 32768)
    words = {"v_init": raw(-70, -60), "v_rest": raw(-70, -60), "v_reset": raw(-75, -60), "i_offset": raw(-1, 3)}
    words |= {"c_m": rng.integers(1, 1 << 16, n), "tau_m": rng.integers(1, 1 << 20, n), "time_step": step}
    words |= {"t_refract": raw(0, 3, 0.1), "refract_init": rng.integers(-2, 3, n), "threshold": raw(-70, -58)}
    words |= {"tau_exc": rng.integers(1, 1 << 18, n), "tau_inh": rng.integers(1, 1 << 18, n)}
    words |= {"init_exc": raw(0, 2), "init_inh": raw(0, 2), "synapse_step": step}
    constants, start_state = start("curr_exp", words, n)
    layout = Layout(int(n - 1).bit_length(), 1, 4)
    fields = [
        (rng.integers(0, 16, k), rng.integers(0, 2, k), rng.integers(0, n, k)) for k in rng.integers(1, 2 * n, rows)
    ]
    ends_of_weight = np.array([0, 1, 65534, 65535])
    weight = [
        np.where(rng.random(len(d)) < 0.3, rng.choice(ends_of_weight, len(d)), rng.integers(0, 65536, len(d)))
        for d, _, _ in fields
    ]
    made = [plastic_words(layout, w, d, k, i) for w, (d, k, i) in zip(weight, fields, strict=True)]
    region = [int(rng.random() < 0.7)]
    for _ in range(2):
        size = 2 * int(rng.integers(1, 30))
        region += [size | int(rng.integers(0, 4)) << 16]
        wild = rng.random() < 0.3
        lut = rng.integers(-32768, 32768, size) if wild else np.exp(-np.arange(size) / rng.uniform(1, 30)) * 2048
        pairs = (lut.astype(np.int64) & 0xFFFF).reshape(-1, 2)
        region += [int(a | b << 16) for a, b in pairs]
    for _ in range(2):
        low, high = np.sort(rng.integers(0, 1 << int(rng.integers(1, 31)), 2))
        region += [int(low), int(high), *(int(x) & 0xFFFFFFFF for x in rng.choice(
            [*rng.integers(-(1 << 17), 1 << 17, 4), *ends[:2]], 2))]  # fmt: skip
    shifts = rng.choice([0, 1, 3, 7, 15, 16], 2)
    rate = rng.choice([0.05, 0.3, 1.2])
    when = np.sort(rng.integers(0, length, int(rate * length * rows)))
    return Core(
        constants,
        start_state,
        fresh(n, layout.entries, np.concatenate(made)),
        Cores(
            first=np.array([0, n]),
            index_bits=np.array([layout.index_bits]),
            ring=np.array([0]),
            shift=shifts.astype(np.int64).reshape(1, 2),
            rule=np.array([0]),
            delay_bits=4,
        ),
        rules_of([(np.array(region, np.uint32), str(rng.choice(["additive", "multiplicative"])))]),
        Fan(
            pointer=np.concatenate([np.arange(rows + 1), np.full(n, rows)]),
            at=np.concatenate([[0], np.cumsum([len(m) for m in made])])[:-1],
            core=np.zeros(rows, np.int64),
            plastic=np.ones(rows, np.int64),
        ),
        np.searchsorted(when, np.arange(length + 1)),
        rng.integers(0, rows, when.size),
        length,
    )


def digest(result: dict[str, Any]) -> str:
    """A short name of everything a core did."""
    whole = hashlib.sha256()
    for name in ("state", "row_mem", "sat", "skipped", "lost", "synapses"):
        whole.update(np.ascontiguousarray(np.asarray(result[name]).astype(np.int64)).tobytes())
    return whole.hexdigest()[:32]


if __name__ == "__main__":
    for number in sys.argv[1:]:
        print(number, digest(replay(random_core(int(number)))))
