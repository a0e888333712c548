"""Random Loihi 2 programs over everything that Lava has a process for, far beyond what the compiler emits.

`random_program` asks ``choose(low, high)`` for every decision of structure, so that hypothesis and a plain random
generator drive the same code; array contents come from a generator seeded by one more choice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from lava_programs import conv, dense, population, program, sparse, spikes

from neuro.hardware.export.lava_limits import heterogeneous
from neuro.hardware.program import Population

Choose = Callable[[int, int], int]
SPECIAL_DECAYS = (0, 1, 2047, 4094, 4095)


def of(choose: Choose, values):
    return values[choose(0, len(values) - 1)]


def random_program(choose: Choose, wild: bool = True, others: bool = True):
    """Returns (program, dense [steps, 2, n_inputs]). wild: also exponents and biases beyond the registers.
    others: also neurons that are not LIF, and graded messages."""
    rng = np.random.default_rng(choose(0, 2**32 - 1))
    image = choose(0, 2) == 0
    first = (choose(1, 3), choose(3, 6), choose(3, 6)) if image else choose(1, 8)
    low, high = of(choose, ((0, 1), (0, 1), (0, 200), (-300, 300))) if others else (0, 1)
    populations = [population("input", first, "input")]
    if high > 1:
        populations = [Population("input", "input", "input", populations[0].shape, {"low": low, "high": high})]
    projections = []
    for layer in range(choose(1, 3)):
        before = populations[-1]
        if len(before.shape) == 3 and choose(0, 1):
            made, name = _conv(choose, rng, before), f"layer{layer}"
            projections.append(conv(f"conv{layer}", before.name, name, made["weight"], **made["options"]))
            populations.append(_population(choose, rng, name, made["shape"], wild=wild, others=others))
        else:
            populations.append(_population(choose, rng, f"layer{layer}", choose(1, 9), wild=wild, others=others))
            projections.append(_matrix(choose, rng, f"forward{layer}", before, populations[-1], wild=wild))
    for k in range(choose(0, 2)):  # loops, skips and feedback between any two
        source = of(choose, populations)
        target = of(choose, populations[1:])
        projections.append(_matrix(choose, rng, f"extra{k}", source, target, wild=wild))
    table = {p.name: p for p in populations}
    projections = [_message(choose, p, table) for p in projections] if others else projections
    made = program(populations, projections, depth=choose(1, 4))
    rate = of(choose, (0.05, 0.3, 1.0))
    dense_in = spikes(rng, choose(4, 25), 2, populations[0].size, rate)
    if high > 1:
        dense_in = dense_in * rng.integers(low, high, dense_in.shape, dtype=np.int32, endpoint=True)
    return made, dense_in


def _message(choose, projection, table):
    """The projection with graded messages, and perhaps at the imaginary port. Sparse, which a convolution becomes
    where neurons differ, does not wrap the sum of messages as Lava's Conv does: no such pair."""
    more = {}
    target = table[projection.target].model
    mixed = any(heterogeneous(table[end]) for end in (projection.source, projection.target))
    if choose(0, 2) and not (projection.kind == "conv" and mixed):
        more["num_message_bits"] = 24
    if target in ("rf", "rf_iz") and choose(0, 1):
        more["port"] = 1
    return replace(projection, params={**projection.params, **more})


def _other(choose, rng, name, size):
    """A population that is not LIF, at most two kinds of neurons in it."""
    n = int(np.prod(size))
    model = of(choose, ("lif_reset", "ternary_lif", "sigma", "delta", "sigma_delta", "sigma_delta", "rf", "rf_iz"))

    def kinds(*values):
        return rng.choice(values, n) if choose(0, 4) == 0 else of(choose, values)

    bias = {"bias_mant": rng.integers(-2000, 2000, n), "bias_exp": choose(0, 7)}
    cuba = {"du": kinds(0, 900, 4095), "dv": kinds(0, 200, 4095), **bias}
    delta = {"vth": kinds(0, 7, 300), "spike_exp": choose(0, 3), "state_exp": kinds(0, 6), "cum_error": choose(0, 1)}
    bits = of(choose, (6, 12))
    decay = {"decay_bits": bits, "sin_decay": kinds(int(0.5 * 2**bits), int(0.1 * 2**bits))}
    table = {
        "lif_reset": cuba | {"vth": kinds(0, 50), "reset_interval": choose(1, 6), "reset_offset": choose(0, 9)},
        "ternary_lif": cuba | {"vth_hi": kinds(0, 90), "vth_lo": -kinds(0, 60)},
        "sigma": {},
        "delta": delta,
        "sigma_delta": delta | {"bias": rng.integers(-500, 500, n), "relu": choose(0, 1)},
        "rf": decay | {"cos_decay": kinds(int(0.8 * 2**bits), -int(0.3 * 2**bits)), "state_exp": choose(0, 7)},
    }
    resonator = table["rf"] | {"vth": kinds(1, 400, 9000)}
    params = resonator if model.startswith("rf") else table[model]
    shape = (size,) if isinstance(size, int) else tuple(size)
    return Population(name, name, model, shape, params)


def _population(choose, rng, name, size, *, wild, others=False):
    n = int(np.prod(size))
    if others and choose(0, 1):
        return _other(choose, rng, name, size)
    per_neuron = choose(0, 3) == 0

    def decay():
        kinds = [of(choose, SPECIAL_DECAYS), choose(0, 4095)]
        return rng.choice(kinds, n) if per_neuron else kinds[choose(0, 1)]

    vth = [of(choose, (0, 1, 20, 131071)), choose(0, 2000)]
    bias = rng.integers(-(2 ** choose(0, 12)), 2 ** choose(0, 12), n)
    return population(
        name,
        size,
        of(choose, ("lif", "lif", "li")),
        du=decay(),
        dv=decay(),
        vth=rng.choice(vth, n) if per_neuron else vth[choose(0, 1)],
        bias_mant=bias if choose(0, 1) else 0,
        bias_exp=rng.integers(-8 if wild else 0, 8, n) if choose(0, 1) else choose(0, 7),
    )


def _matrix(choose, rng, name, source, target, *, wild):
    sign = choose(0, 3)
    low, high = {0: (-40, 40), 1: (-256, 254), 2: (0, 255), 3: (-255, 0)}[sign]
    if wild and choose(0, 3) == 0:
        low, high = -300, 300  # clipped and truncated by Lava
    options = {"exponent": choose(-8, 16 if wild else 7), "bits": choose(1, 8), "sign": sign}
    longest = of(choose, (0, 1, 5, 63))
    delayed = choose(0, 1)
    if choose(0, 1):
        weight = rng.integers(low, high, (target.size, source.size), endpoint=True)
        delay = rng.integers(0, longest, weight.shape, endpoint=True) if delayed else None
        return dense(name, source.name, target.name, weight, delay=delay, **options)
    pairs = np.flatnonzero(rng.random(target.size * source.size) < of(choose, (0.1, 0.6)))
    if not pairs.size:
        pairs = np.array([0])
    weight = rng.integers(low, high, pairs.size, endpoint=True)
    delay = rng.integers(0, longest, pairs.size, endpoint=True) if delayed else None
    at = (pairs // source.size, pairs % source.size)
    return sparse(name, source.name, target.name, at, weight, delay=delay, **options)


def _conv(choose, rng, before):
    channels, height, width = before.shape
    groups = of(choose, [g for g in range(1, channels + 1) if channels % g == 0])
    out = groups * choose(1, 2)
    options = {
        "stride": (choose(1, 2), choose(1, 3)),
        "padding": (choose(0, 2), choose(0, 1)),
        "dilation": (choose(1, 2), choose(1, 2)),
        "groups": groups,
    }
    kernel = []
    for size, padding, dilation in zip((height, width), options["padding"], options["dilation"], strict=True):
        kernel.append(choose(1, max(1, (size + 2 * padding - 1) // dilation + 1)))
    shape = [out]
    for k, size in enumerate((height, width)):
        reach = options["dilation"][k] * (kernel[k] - 1) + 1
        shape.append((size + 2 * options["padding"][k] - reach) // options["stride"][k] + 1)
    largest = of(choose, (1, 255))  # 255: what Sparse holds, should the convolution have to become one
    weight = rng.integers(-largest, largest, (out, channels // groups, *kernel), endpoint=True)
    return {"weight": weight, "options": options, "shape": tuple(shape)}


def describe(made) -> str:
    """One line per part, to read a failure."""
    lines = [
        f"{p.name} {p.model} {p.shape} { {k: v.tolist() for k, v in p.params.items()} }"
        for p in made.populations.values()
    ]
    for p in made.projections:
        params = {k: v.tolist() for k, v in p.params.items() if v.size < 9}
        lines.append(f"{p.name} {p.source}->{p.target} {p.kind} {p.weight_q.shape} {params}")
    return "\n".join(lines)
