"""Random Loihi 1 programs with registers at their ends, and digests of what the kernels make of them.

    NUMBA_DISABLE_JIT=1 python axon_loihi1.py PRESET STEPS BATCH SEED...

prints one digest for each seed.
"""

from __future__ import annotations

import hashlib
import sys

import numpy as np

from neuro.hardware.loihi1.contract import NENGO
from neuro.hardware.program import Placement, Population, Program, Projection
from neuro.hardware.trace import Trace

LIMIT = (1 << 23) - 1
PROBES = tuple((p, v) for p in "ab" for v in "uv")


def program(seed: int, preset: int) -> Program:
    """Two recurrent populations; weights, exponents, thresholds, biases and decays often at their ends."""
    rng = np.random.default_rng(seed)
    least, highest = (0, 7) if preset == NENGO else (256, 2)  # nothing bounds brian2loihi's state: keep it in 32 bits
    sizes = {"input": int(rng.integers(3, 12)), "a": int(rng.integers(3, 30)), "b": int(rng.integers(2, 20))}
    populations = {"input": Population("input", "input", "input", (sizes["input"],))}
    for name in "ab":
        n = sizes[name]
        populations[name] = Population(
            name,
            name,
            "lif",
            (n,),
            {
                "preset": np.array(preset),
                "decay_u": extreme(rng, n, least, 4095),
                "decay_v": extreme(rng, n, least, 4096),
                "threshold": extreme(rng, n, 0, 131071) << 6,
                "bias": extreme(rng, n, -(1 << 19), 1 << 19) if preset == NENGO else np.zeros(n, np.int64),
                "refractory": rng.integers(1, 8, n),
                "v_min": np.full(n, -LIMIT) if rng.random() < 0.5 else rng.integers(-LIMIT, 0, n),
                "v_max": np.full(n, LIMIT) if rng.random() < 0.5 else rng.integers(1 << 9, LIMIT, n),
            },
        )
    pairs = [("input", "a"), ("a", "b"), ("a", "a"), ("b", "a"), ("input", "b")]
    projections = tuple(synapses(rng, s, t, sizes, k, highest) for k, (s, t) in enumerate(pairs))
    cores = {"a": rng.integers(0, 2, sizes["a"]), "b": np.full(sizes["b"], 2)}
    placement = Placement(cores, np.array([[0, 0], [1, 0], [2, 1]]))
    skew = {"input": 0, "a": 1, "b": 2}
    return Program(
        "loihi1", 1e-3, populations, projections, "input", "b", skew, {}, ["count", "sum"][seed % 2], placement
    )


def synapses(
    rng: np.random.Generator, source: str, target: str, sizes: dict[str, int], k: int, highest: int
) -> Projection:
    count = int(rng.integers(1, sizes[source] * sizes[target]))
    mode = int(rng.integers(1, 4))
    low, high = {1: (-256, 255), 2: (0, 255), 3: (-255, 0)}[mode]
    params = {
        "row": rng.integers(0, sizes[target], count),
        "col": rng.integers(0, sizes[source], count),
        "weight_exp": np.array(rng.choice([-8, -3, 0, highest])),
        "num_weight_bits": np.array(rng.integers(2, 9)),
        "sign_mode": np.array(mode),
    }
    if rng.random() < 0.6:
        params["delay_steps"] = rng.integers(0, 63, count)
    return Projection(f"p{k}", f"p{k}", source, target, "sparse", extreme(rng, count, low, high), params)


def extreme(rng: np.random.Generator, n: int, low: int, high: int) -> np.ndarray:
    """Uniform values, a third of them at either end."""
    values = rng.integers(low, high + 1, n)
    return np.where(rng.random(n) < 0.33, rng.choice([low, high, 0, 1], n).clip(low, high), values)


def spikes(made: Program, seed: int, steps: int, batch: int = 1) -> np.ndarray:
    """Input of a program: uint8[steps, batch, inputs], sparse, dense or always."""
    rng = np.random.default_rng([seed, 7])
    n = made.populations["input"].size
    return (rng.random((steps, batch, n)) < rng.choice([0.05, 0.3, 1.0])).astype(np.uint8)


def digest(trace: Trace) -> str:
    """Of u, v, spikes, scores and all that was counted."""
    whole = hashlib.sha256()
    counted = [getattr(trace.counters, name) for name in (*trace.counters.NAMES, "injected")]
    for values in (*(trace.probes[k] for k in PROBES), *(trace.spikes[n] for n in "ab"), trace.scores, *counted):
        whole.update(str(values.shape).encode() + np.ascontiguousarray(values, np.int64).tobytes())
    return whole.hexdigest()


if __name__ == "__main__":
    from neuro.hardware.loihi1.kernels import run

    preset, steps, batch, *seeds = map(int, sys.argv[1:])
    for seed in seeds:
        made = program(seed, preset)
        print(seed, digest(run(made, spikes(made, seed, steps, batch), PROBES)))
