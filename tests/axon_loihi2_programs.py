"""Random Loihi 2 programs with extreme registers, for hypothesis and for seeds.

A builder takes ``pick``, which chooses one of a sequence: hypothesis' draw, or a generator's choice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from neuro.hardware.program import Placement, Population, Program, Projection

Pick = Callable[[Sequence[Any]], Any]
READOUTS = ("count", "sum", "max", "last")


def _registers(pick: Pick, rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    """Parameters, one value for all or one each, from ranges that wrap, clip, stay silent or always fire."""

    def values(low: int, high: int, *special: int) -> np.ndarray:
        each = rng.integers(low, high + 1, n if pick((True, False)) else ())
        return np.where(rng.random(each.shape) < 0.3, rng.choice(special, each.shape), each)

    calm = pick((True, True, False))
    return {
        "du": values(0, 4095, 0, 4095),
        "dv": values(0, 4096, 0, 1, 4095, 4096),
        "vth": values(0, 300, 0, 1) if calm else values(0, 131071, 0, 131071),
        "bias_mant": values(-20, 20, 0) if calm else values(-4096, 4095, -4096, 4095),
        "bias_exp": values(0, 2, 0, -1) if calm else values(-8, 7, -8, 7),
    }


def _others(pick: Pick, rng: np.random.Generator, n: int) -> tuple[str, dict[str, Any]]:
    """(model, parameters) of a population beyond LIF; calm ones, and ones at the ends of their registers."""
    model = pick(("lif_reset", "ternary_lif", "sigma", "delta", "sigma_delta", "sigma_delta", "rf", "rf_iz"))

    def values(low: int, high: int, *special: int) -> np.ndarray:
        each = rng.integers(low, high + 1, n if pick((True, False)) else ())
        return np.where(rng.random(each.shape) < 0.2, rng.choice(special, each.shape), each)

    if model in ("lif_reset", "ternary_lif"):
        params = _registers(pick, rng, n)
        if model == "lif_reset":
            return model, params | {"reset_interval": pick((1, 2, 3, 7)), "reset_offset": pick((0, 1, 2, 9))}
        high = params.pop("vth")
        return model, params | {"vth_hi": high, "vth_lo": -values(0, 300, 0, 131071, -3)}
    if model == "sigma":
        return model, {}
    if model in ("delta", "sigma_delta"):
        top = pick((50, 5000, (1 << 31) - 1))
        params = {"vth": values(0, top, 0, 1), "spike_exp": values(0, 7, 0), "state_exp": values(0, 7, 0)}
        params |= {"cum_error": values(0, 1, 0)}
        if model == "sigma_delta":
            params |= {"bias": values(-top, top, 0, -(1 << 31)), "relu": values(0, 1, 1)}
        return model, params
    bits = pick((0, 5, 12, 20))
    one = 1 << bits
    params = {"sin_decay": values(-one, one, one, 0), "cos_decay": values(-one, one, one, -2 * one)}
    params |= {"decay_bits": bits, "state_exp": values(0, 7, 0, 12), "vth": values(0, 3000, 0, (1 << 23) - 1)}
    return model, params


def _matrix_params(pick: Pick, rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, dict[str, Any]]:
    mode = pick((1, 1, 2, 3, 0))
    low, high = {2: (-9, 300), 3: (-300, 9)}.get(mode, (-300, 300))
    weight = rng.integers(low, high + 1, shape)
    weight[rng.random(shape) < pick((0.0, 0.5, 0.95))] = 0
    params = {"weight_exp": pick((0, 0, 1, 7, -1, -2, -8)), "num_weight_bits": pick((8, 8, 5, 1)), "sign_mode": mode}
    if pick((False, True)):
        params["delay_steps"] = rng.integers(0, pick((1, 3, 12)) + 1, shape)
    return weight, params


def _dense(pick, rng, source, target):
    return "dense", *_matrix_params(pick, rng, (target.size, source.size))


def _sparse(pick, rng, source, target):
    count = int(rng.integers(1, source.size * target.size + 1))
    weight, params = _matrix_params(pick, rng, (count,))
    row, col = np.unravel_index(rng.choice(source.size * target.size, count, replace=False), (target.size, source.size))
    return "sparse", weight, params | {"row": row, "col": col}


def _conv(pick, rng, source):
    """(shape of the target, weights, parameters) of a convolution out of a (C, H, W) population, or None."""
    channels, *size = source.shape
    groups = pick([g for g in (1, 2, channels) if channels % g == 0])
    out = groups * pick((1, 2, 3))
    kernel, stride, padding, dilation = (
        np.array([pick(o), pick(o)]) for o in ((1, 2, 3, 5), (1, 2, 3), (0, 1, 2), (1, 1, 2))
    )
    shape = (np.array(size) + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    if (shape < 1).any():
        return None
    top = pick((127, 127, 1 << 21, 1 << 24))
    weight = rng.integers(-top, top + 1, (out, channels // groups, *kernel))
    if pick((False, False, True)):
        weight = np.sign(weight) << 17  # << 6 that is exactly M or -M, where u just wraps or does not
    params = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return (out, *shape.tolist()), weight, params


def build(pick: Pick, seed: int, most: int = 30) -> tuple[Program, np.ndarray]:
    """A program of one to five populations and dense input uint8[steps, batch, inputs] for it."""
    rng = np.random.default_rng(seed)
    image = pick((True, False))
    shape = (pick((1, 2, 4)), pick((3, 6, 7)), pick((3, 5, 8))) if image else (pick((1, 5, most)),)
    low, high = pick(((0, 1), (0, 1), (-9, 9), (-(1 << 20), 1 << 20)))
    populations = [Population("in", "in", "input", shape, {} if high == 1 else {"low": low, "high": high})]
    projections: list[Projection] = []

    def join(source: str, target: str, kind: str, weight, params) -> None:
        name = f"{source}-{target}-{len(projections)}"
        params = dict(params)
        if pick((True, True, False)):
            params["num_message_bits"] = pick((8, 24))
        if {p.name: p.model for p in populations}[target] in ("rf", "rf_iz") and pick((True, False)):
            params["port"] = 1
        projections.append(Projection(name, name, source, target, kind, weight, params))

    for k in range(pick((1, 2, 3, 4))):
        name, source = f"p{k}", populations[pick(range(len(populations)))]
        conv = _conv(pick, rng, source) if len(source.shape) == 3 and pick((True, True, False)) else None
        shape = conv[0] if conv else (pick((1, 4, 33, most)),)
        n = int(np.prod(shape))
        model, params = _others(pick, rng, n) if pick((True, False)) else ("lif", _registers(pick, rng, n))
        target = Population(name, name, pick(("lif", "li")) if model == "lif" else model, shape, params)
        populations.append(target)
        if conv:
            join(source.name, name, "conv", *conv[1:])
        else:
            join(source.name, name, *pick((_dense, _sparse))(pick, rng, source, target))
    for _ in range(pick((0, 1, 2, 3))):  # more projections: skips, feedback, loops onto itself
        source, target = populations[pick(range(len(populations)))], populations[pick(range(1, len(populations)))]
        if source.size * target.size <= 4000:
            join(source.name, target.name, *pick((_dense, _sparse))(pick, rng, source, target))

    core_of, cores = {}, 0
    for p in populations[1:]:
        per_core = pick((1 << 20, 7, 64))
        core_of[p.name] = cores + np.arange(p.size) // per_core
        cores += int(core_of[p.name][-1]) + 1 - cores
    xy = rng.integers(0, 8, (cores, 2))
    output = pick([p.name for p in populations[1:]])
    program = Program(
        chip="loihi2",
        dt=1e-3,
        populations={p.name: p for p in populations},
        projections=tuple(projections),
        input="in",
        output=output,
        skew={p.name: pick((0, 1, 2)) for p in populations},
        scale={},
        readout=pick(READOUTS),
        placement=Placement(core_of, xy),
    )
    steps, batch = pick((1, 5, 16)), pick((1, 2, 3))
    dense = rng.random((steps, batch, populations[0].size)) < pick((0.0, 0.05, 0.3, 1.0))
    if high == 1:
        return program, dense.astype(np.uint8)
    return program, (dense * rng.integers(low, high + 1, dense.shape)).astype(np.int32)


def from_seed(seed: int, most: int = 30) -> tuple[Program, np.ndarray]:
    """`build` with every choice made by a generator."""
    rng = np.random.default_rng([seed, 1])
    return build(lambda options: options[int(rng.integers(len(options)))], seed, most)


@st.composite
def programs(draw: st.DrawFn, most: int = 30) -> tuple[Program, np.ndarray]:
    """`build` with every choice drawn by hypothesis."""
    return build(lambda options: draw(st.sampled_from(options)), draw(st.integers(0, 2**32 - 1)), most)
