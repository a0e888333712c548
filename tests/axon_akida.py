"""Akida layers and programs drawn at random, run by the compiled kernels and in plain integers.

Run as a script ("answers" or "layer", seeds), it prints digests of what the kernels give for the seeds.
"""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Iterable

import numpy as np

from neuro.hardware.akida import plain
from neuro.hardware.akida.geometry import geometry, slid
from neuro.hardware.akida.kernels import accumulate, finish, run_stage
from neuro.hardware.akida.packed import alone
from neuro.hardware.program import Placement, Population, Program, Projection

Case = tuple[Population, tuple[Projection, ...], tuple[Population, ...], tuple[np.ndarray, ...]]
EDGE = (1 << 31) - 1


def compiled(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """(potentials, values) int64[n] of the kernels."""
    population, projections, sources, inputs = case
    stage = alone(population, projections, sources)
    p, s, _ = run_stage(stage, tuple(x.reshape(1, -1).astype(np.int32) for x in inputs))
    return p[0].astype(np.int64), s[0].astype(np.int64)


def unbounded(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """The same in Python integers."""
    population, projections, _, inputs = case
    images = tuple(plain.big(x, x.shape).reshape(x.shape if x.ndim == 3 else (-1, 1, 1)) for x in inputs)
    p, s = plain.layer(population, projections, images)
    return p.reshape(-1).astype(np.int64), s.reshape(-1).astype(np.int64)


def both(*case) -> list[tuple[np.ndarray, np.ndarray]]:
    """Kernels, then plain integers."""
    return [compiled(case), unbounded(case)]


def _projection(rng: np.random.Generator, source: Population, out: int, dense: bool, most: int) -> Projection:
    if dense:
        weight = rng.integers(-most, most + 1, (out, source.size))
        return Projection("p", "p", "x", "l", "dense", weight, {})
    channels, height, width = source.shape
    groups = int(rng.choice([g for g in (1, 2, channels) if channels % g == 0 and out % g == 0]))
    stride = rng.integers(1, 4, 2)
    pads = rng.integers(0, 4, 4)
    kernel = [int(rng.integers(1, min(5, n + pads[i] + pads[i + 2]) + 1)) for i, n in enumerate((height, width))]
    weight = rng.integers(-most, most + 1, (out, channels // groups, *kernel))
    params = {"stride": stride, "pads": pads, "groups": groups}
    if rng.random() < 0.3:
        params["pad_value"] = rng.integers(0, 256, channels)
    return Projection("p", "p", "x", "l", "conv", weight, params)


def from_seed(seed: int, side: int = 9) -> Case:
    """One layer of any kind: registers at their ends, ties and saturation likely."""
    rng = np.random.default_rng(seed)
    dense = rng.random() < 0.25
    source = Population("x", "x", "layer", (int(rng.integers(1, 5)), *rng.integers(3, side + 1, 2).tolist()))
    out = int(rng.choice([source.shape[0], rng.integers(1, 9)]))
    most = int(rng.choice([1, 7, 127, 1 << 12]))
    projection = _projection(rng, source, out, dense, most)
    low, high = [(0, 1), (0, 15), (0, 255), (-128, 127)][rng.integers(4)]
    x = rng.integers(low, high + 1, source.shape)
    x[rng.random(source.shape) < rng.choice([0.0, 0.5, 0.9])] = 0
    g = geometry(source, projection)
    params: dict[str, np.ndarray] = {}
    size = g.image
    if not dense and rng.random() < 0.4:
        kernel = [int(rng.integers(1, min(3, n) + 1)) for n in size]
        pads = [int(rng.integers(0, k)) for k in (*kernel, *kernel)]
        params = {"pool_kernel": np.array(kernel), "pool_stride": rng.integers(1, 4, 2), "pool_pads": np.array(pads)}
        size = slid(size, tuple(kernel), tuple(params["pool_stride"].tolist()), tuple(pads))
    params |= {"relu": np.array(1)} if rng.random() < 0.6 else {}
    if rng.random() < 0.4:
        params |= {"max_value": rng.integers(0, 256, out), "max_shift": rng.integers(0, 9, out)}
    if rng.random() < 0.2:
        params["lut"] = rng.integers(-8192, 8192, 2048)
        params |= {"m_act": rng.integers(0, 256, out), "e_act": rng.integers(-2, 16, out)}
    if not dense and rng.random() < 0.25:
        params["gap"] = np.array(1)
    area = int(np.prod(size)) if "gap" in params else 1
    reach = int(np.abs(projection.weight_q).reshape(out, -1).sum(1).max()) * 255
    room = EDGE // area - reach
    if rng.random() < 0.7 and room > 0:  # up to the ends of 32 bits
        top = int(rng.choice([min(room, 200), min(room, 1 << 16), room]))
        params["bias"] = rng.integers(-top, top + 1, out)
    shape = (out, *((1, 1) if "gap" in params else size)) if not dense else (out,)
    model = ("potential", "scaled", "code")[rng.integers(3)]
    p, _ = unbounded((Population("l", "l", "potential", shape, params), (projection,), (source,), (x,)))
    p = p.reshape(out, -1)
    params |= _registers(rng, model, p)
    return Population("l", "l", model, shape, params), (projection,), (source,), (x,)


def _registers(rng: np.random.Generator, model: str, p: np.ndarray) -> dict[str, np.ndarray]:
    """Scales and thresholds around the potentials p [out, n] that occur, and at the ends of their ranges."""
    out = len(p)
    size = np.maximum(np.abs(p).max(1), 1)
    if model == "scaled":
        if rng.random() < 0.2:
            return {"m": rng.choice([0, 1, 128, 255], out), "e": rng.choice([-16, -1, 0, 1, 2, 47, 48], out)}
        m = rng.choice([1, 2, 4, 128, 3, 255, 200], out)  # powers of two: many potentials on a tie
        e = np.clip(np.ceil(np.log2(m * size / rng.choice([30, 100, 200, 1000], out))), -16, 48)
        return {"m": m, "e": e.astype(np.int64)}
    if model == "potential":
        return {}
    bits = int(rng.choice([1, 2, 4]))
    threshold = np.array([rng.choice(row) for row in p]) + rng.integers(-2, 3, out)
    threshold = np.where(rng.random(out) < 0.1, rng.choice([-EDGE - 1, EDGE], out), np.clip(threshold, -EDGE - 1, EDGE))
    spread = np.maximum(p.max(1) - threshold, 1) / rng.choice([4, 10, 40], out)
    fraction, exponent = np.frexp(spread * 2.0 ** (bits - 4))
    mantissa = (fraction * 2**24).astype(np.int64)
    mantissa = np.where(rng.random(out) < 0.4, 1 << 23, mantissa)  # a power of two: potentials fall on a step
    exponent = exponent - 24
    extreme = rng.random(out) < 0.1
    exponent = np.where(extreme, rng.choice([-160, 128], out), exponent)
    return {"threshold": threshold, "act_bits": np.array(bits), "step_mantissa": mantissa, "step_exponent": exponent}


def wide_from_seed(seed: int, side: int = 60) -> Case:
    """A layer that passes its input on, [channel, side, side], to registers drawn as above: one synapse per neuron."""
    rng = np.random.default_rng(seed)
    channels = int(rng.integers(1, 7))
    source = Population("x", "x", "layer", (channels, side, side))
    top = int(rng.choice([100, 1 << 12, 1 << 20, EDGE]))
    x = rng.integers(-top, top + 1, source.shape)
    params = {"stride": [1, 1], "pads": [0] * 4, "groups": channels}
    projection = Projection("p", "p", "x", "l", "conv", np.ones((channels, 1, 1, 1), int), params)
    model = ("scaled", "code")[rng.integers(2)]
    registers = _registers(rng, model, x.reshape(channels, -1))
    return Population("l", "l", model, source.shape, registers), (projection,), (source,), (x,)


def interpreted(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """(potentials, values) int64[n] of the kernels' ``.py_func``."""
    population, projections, sources, inputs = case
    stage = alone(population, projections, sources)
    layer, x = stage.layer, inputs[0].reshape(1, -1).astype(np.int32)
    sums = np.zeros((1, layer.image_h * layer.image_w * layer.channels), np.int64)
    p, s = (np.zeros((1, population.size), np.int32) for _ in range(2))
    accumulate.py_func(stage.arcs[0], x, sums, np.zeros((1, 1), np.int64), 0, 1)
    finish.py_func(layer, sums, p, s, 0, 1)
    return p[0].astype(np.int64), s[0].astype(np.int64)


SEEN: Counter[str] = Counter()


def note(case: Case, p: np.ndarray, s: np.ndarray) -> None:
    """Count in SEEN which ends and ties a layer met."""
    population = case[0]
    params, out = population.params, population.shape[0]
    p, s = p.reshape(out, -1).astype(object), s.reshape(out, -1)
    SEEN["values"] += s.size
    if population.model == "scaled":
        m, e = (plain.big(params[n], (out,))[:, None] for n in ("m", "e"))
        doubled = 2 * p * m * 2 ** np.maximum(-e, 0)
        SEEN["tie"] += int(((doubled % (2 * 2 ** np.maximum(e, 0))) == 2 ** np.maximum(e, 0)).sum())
        SEEN["negative tie"] += int(
            (((doubled % (2 * 2 ** np.maximum(e, 0))) == 2 ** np.maximum(e, 0)) & (doubled < 0)).sum()
        )
        SEEN["high"] += int((s == 127).sum())
        SEEN["low"] += int((s == -128).sum())
        SEEN["shift left"] += int((e < 0).sum())
    elif population.model == "code":
        SEEN["on the threshold"] += int((p == plain.big(params["threshold"], (out,))[:, None]).sum())
        SEEN["top code"] += int((s == (1 << int(params["act_bits"])) - 1).sum())
        SEEN["code between"] += int(((s > 0) & (s < (1 << int(params["act_bits"])) - 1)).sum())
    SEEN["beyond 30 bits"] += int((np.abs(p) > 1 << 30).sum())
    for name in ("lut", "gap", "pool_kernel", "max_value"):
        SEEN[name] += s.size if name in params else 0


def program_from_seed(seed: int) -> tuple[Program, np.ndarray]:
    """A program of a few layers over several cores, with a layer that two others feed; frames in steps and samples."""
    rng = np.random.default_rng(seed)
    high = int(rng.choice([1, 15, 255]))
    populations = {"in": Population("in", "in", "input", (2, 7, 8), {"high": np.array(high)})}
    projections = [
        _conv(rng, "in", "a", 2, 6, 1),
        _conv(rng, "a", "b", 6, 6, 6),
        _conv(rng, "a", "c", 6, 6, 1, 1),
        _conv(rng, "b", "c", 6, 6, 6, 1),
    ]
    flat = 6 * 7 * 8
    projections.append(Projection("c->d", "d", "c", "d", "dense", rng.integers(-7, 8, (5, flat)), {"bits": 4}))
    scale = {"m": rng.integers(128, 256, 6), "e": rng.integers(9, 14, 6)}
    code = {"threshold": rng.integers(-50, 50, 6), "act_bits": 4, "step_mantissa": np.full(6, 1 << 23)}
    code["step_exponent"] = rng.integers(-20, -14, 6)
    populations["a"] = Population("a", "a", "scaled", (6, 7, 8), {"relu": 1, **scale})
    populations["b"] = Population("b", "b", "code", (6, 7, 8), code)
    populations["c"] = Population("c", "c", "scaled", (6, 7, 8), scale)
    populations["d"] = Population("d", "d", "potential", (5,), {"bias": rng.integers(-9, 9, 5), "bias_shift": 3})
    core_of = {"a": np.repeat([0, 0, 1, 1, 1, 2], 56), "b": np.repeat([3, 3, 3, 4, 4, 4], 56)}
    core_of |= {"c": np.full(flat, 5), "d": np.full(5, 6)}
    xy = np.array([[0, 0], [0, 0], [1, 0], [1, 0], [2, 1], [3, 2], [0, 3]])
    readout = ("sum", "max", "last")[seed % 3]
    program = Program(
        chip="akida2", dt=0.1, populations=populations, projections=tuple(projections), input="in", output="d",
        skew=dict.fromkeys(populations, 0), scale={}, readout=readout, placement=Placement(core_of, xy),
        image={"sequence_of_core": np.zeros(7, np.int64), "sequence_bytes": np.array([9])},
    )  # fmt: skip
    dense = rng.integers(0, high + 1, (3, 4, 2 * 7 * 8)).astype(np.uint8)
    dense[rng.random(dense.shape) < 0.5] = 0
    return program, dense


def _conv(
    rng: np.random.Generator, source: str, target: str, ins: int, outs: int, groups: int, side: int = 3
) -> Projection:
    weight = rng.integers(-7, 8, (outs, ins // groups, side, side))
    params = {"stride": [1, 1], "pads": [side // 2] * 4, "groups": groups, "bits": 4}
    return Projection(f"{source}->{target}", target, source, target, "conv", weight, params)


def digest(arrays: Iterable[np.ndarray]) -> str:
    """A digest of arrays, shapes included."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(str(array.shape).encode() + np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def answers(seed: int) -> list[np.ndarray]:
    """What the kernels give for a layer and for a program of this seed."""
    from neuro.hardware.akida.kernels import run

    program, dense = program_from_seed(seed)
    trace = run(program, dense, (("a", "p"), ("d", "p")))
    counters = [getattr(trace.counters, n) for n in (*trace.counters.NAMES, "injected")]
    return [*compiled(from_seed(seed)), *trace.spikes.values(), *trace.probes.values(), trace.scores, *counters]


def layer(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(potentials, values) that the kernels give for a layer of up to 40 x 40 inputs."""
    return compiled(from_seed(seed, 40))


if __name__ == "__main__":
    what, *seeds = sys.argv[1:]
    for argument in seeds:
        print(argument, digest({"answers": answers, "layer": layer}[what](int(argument))))
