"""Random SpiNNaker 2 programs, and a digest of what they do.

NUMBA_DISABLE_JIT=1 python axon_spinnaker2.py 3 7 11
"""

from __future__ import annotations

import hashlib
import sys

import numpy as np

from neuro.hardware.program import Placement, Population, Program, Projection
from neuro.hardware.spinnaker2.contract import VARIABLES, bits, floats_of

STEPS, BATCH = 24, 2


def random_program(seed: int) -> tuple[Program, np.ndarray]:
    """Every model, kind of projection, reset and readout; loops; parameters from tame to the ends of float32."""
    rng = np.random.default_rng([11, seed])
    inputs = (2, 5, 4)
    populations = {"in": Population("in", "in", "input", inputs)}
    projections = []
    count = int(rng.integers(1, 4))
    for k in range(count):
        name = f"p{k}"
        conv = k == 0 and rng.random() < 0.5
        if conv:
            stride, padding = rng.integers(1, 3, 2), rng.integers(0, 2, 2)
            kernel = rng.integers(-127, 128, (3, 2, 2, 3))
            shape = (3, *((np.array(inputs[1:]) + 2 * padding - kernel.shape[2:]) // stride + 1).tolist())
            model = "lif_conv2d"
            params = {"stride": stride, "padding": padding, "dilation": np.array([1, 1]), "groups": np.array(1)}
            projections.append(Projection(f"in->{name}", "k", "in", name, "conv", kernel, params))
        else:
            shape = (int(rng.integers(1, 20)),)
            model = str(rng.choice(["lif", "lif_curr_exp", "lif_no_delay", "lif_curr_exp_no_delay"]))
        n = int(np.prod(shape))
        populations[name] = Population(name, name, model, shape, _params(rng, model, n))
        if not conv:
            for source in [*rng.permutation([*populations])[: int(rng.integers(1, 3))], name][
                : int(rng.integers(1, 4))
            ]:
                projections.append(_projection(rng, populations, str(source), name))
    last = f"p{count - 1}"
    cores, at = {}, 0
    for name, p in populations.items():
        if p.model != "input":
            cores[name] = at + np.sort(rng.integers(0, 2, p.size))
            at += 2
    program = Program(
        "spinnaker2",
        1e-3,
        populations,
        tuple(projections),
        "in",
        last,
        {n: min(k, 1) * int(rng.integers(1, 4)) for k, n in enumerate(populations)},
        {n: float(2.0 ** rng.integers(-20, 3)) for n in populations},
        str(rng.choice(["count", "sum", "max", "last"])),
        Placement(cores, np.zeros((at, 2), np.int64)),
    )
    dense = (rng.random((STEPS, BATCH, int(np.prod(inputs)))) < rng.choice([0.02, 0.2, 0.9])).astype(np.uint8)
    return program, dense


def _params(rng: np.random.Generator, model: str, n: int) -> dict[str, np.ndarray]:
    wild = rng.random() < 0.3
    table = {
        "alpha_decay": np.where(rng.random(n) < 0.3, 1.0, rng.uniform(-0.2, 1.0, n)),
        "i_offset": rng.normal(0, 20, n) * (rng.random(n) < 0.5),
        "threshold": rng.uniform(-5, 300, n),
        "v_reset": rng.normal(0, 30, n),
        "v_init": rng.normal(0, 50, n),
        "v_unit": rng.uniform(1e-4, 1.0, n),
        "exc_decay": rng.uniform(0, 1, n),
        "inh_decay": rng.uniform(0, 1, n),
    }
    if wild:  # up to float32's ends, denormal numbers and powers that swallow each other's bits
        for name in ("i_offset", "threshold", "v_reset", "v_init"):
            power = np.where(rng.random(n) < 0.3, 37, rng.integers(-42, 38, n))
            table[name] = np.clip(table[name] * 10.0**power, -3e38, 3e38)
    size = 1 if rng.random() < 0.3 else n
    found = {name: bits(table[name][:size]) if size == n else bits(table[name][0]) for name in floats_of(model)}
    return found | {"reset": np.array(rng.integers(0, 2))}


def _projection(rng: np.random.Generator, populations: dict[str, Population], source: str, target: str) -> Projection:
    delayed = populations[target].model in ("lif", "lif_curr_exp")
    n, m, most = populations[source].size, populations[target].size, 15 if delayed else 127
    name = f"{source}->{target}"
    if rng.random() < 0.5:
        weight = rng.integers(-most, most + 1, (m, n)) * (rng.random((m, n)) < 0.7)
        params = {"delay_steps": rng.integers(0, 8, (m, n))} if delayed else {}
        return Projection(name, "w", source, target, "dense", weight, params)
    count = int(rng.integers(1, 3 * max(n, m)))
    params = {"row": rng.integers(0, m, count), "col": rng.integers(0, n, count)}
    if delayed:
        params["delay_steps"] = rng.integers(0, 8, count)
    return Projection(name, "w", source, target, "sparse", rng.integers(-most, most + 1, count), params)


def results(seed: int) -> dict[tuple[str, str], np.ndarray]:
    """(population, variable or "s") -> [steps, batch, n], the scores and counters."""
    from neuro.hardware.spinnaker2.kernels import run

    program, dense = random_program(seed)
    names = [n for n, p in program.populations.items() if p.model != "input"]
    with np.errstate(all="ignore"):  # without the compiler NumPy would speak of overflow
        trace = run(program, dense, tuple((n, v) for n in names for v in VARIABLES))
    found = dict(trace.probes) | {(n, "s"): trace.spikes[n] for n in names}
    found["", "scores"] = trace.scores
    for name in ("synops", "spikes", "packets", "updates"):
        found["", name] = getattr(trace.counters, name)
    return found


def digest(found: dict[tuple[str, str], np.ndarray]) -> str:
    whole = hashlib.sha256()
    for key in sorted(found):
        whole.update(repr(key).encode() + np.ascontiguousarray(found[key]).astype(np.int64).tobytes())
    return whole.hexdigest()[:32]


if __name__ == "__main__":
    for number in sys.argv[1:]:
        print(number, digest(results(int(number))))
