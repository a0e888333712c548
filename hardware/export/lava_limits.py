"""What a `Program` may hold to be written for Lava, and how its parameters are read.

Lava itself checks almost nothing: numbers beyond a register run in its simulation and fail on the chip.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from neuro.errors import DoesNotFit, UnsupportedNode, Violation
from neuro.hardware.loihi2.learning import learns
from neuro.hardware.loihi2.models import MODELS as PARAMETERS
from neuro.hardware.loihi2.models import graded
from neuro.hardware.program import Population, Program, Projection

IntArray = NDArray[np.int64]
AUTO, MIXED, EXCITATORY, INHIBITORY = 0, 1, 2, 3
SIGN_NAMES = {MIXED: "MIXED", EXCITATORY: "EXCITATORY", INHIBITORY: "INHIBITORY"}
KINDS = ("dense", "conv", "sparse")
# Registers as lava/proc/lif/models.py documents them; Lava itself checks none of these.
LIF_RANGES = {"du": (0, 4095), "dv": (0, 4095), "vth": (0, 131071), "bias_mant": (-4096, 4095), "bias_exp": (0, 7)}
_CUBA = {n: LIF_RANGES[n] for n in ("du", "dv", "bias_mant", "bias_exp")}
_STATE = (1 << 23) - 1  # 24 bits, signed
_DELTA = {"vth": (0, _STATE), "spike_exp": (0, 7), "state_exp": (0, 7), "cum_error": (0, 1)}
_RF = {"sin_decay": (-4096, 4096), "cos_decay": (-4096, 4096), "decay_bits": (0, 12), "state_exp": (0, 7)}
_RF |= {"vth": (1, _STATE)}
RANGES: dict[str, dict[str, tuple[int, int]]] = {
    "lif": LIF_RANGES,
    "li": LIF_RANGES,
    "lif_reset": LIF_RANGES | {"reset_interval": (1, 1 << 30), "reset_offset": (0, 1 << 30)},
    "ternary_lif": _CUBA | {"vth_hi": (0, 131071), "vth_lo": (-131071, 0)},
    "sigma": {},
    "delta": _DELTA,
    "sigma_delta": _DELTA | {"bias": (-_STATE, _STATE), "relu": (0, 1)},
    "rf": _RF,
    "rf_iz": _RF,
}
MODELS = ("input", *RANGES)
PER_NEURON = ("bias_mant", "bias_exp", "bias")  # every other parameter is one number per process
WEIGHT_EXP = (-8, 7)
MAX_DELAY = 63
INT8_MAX = 127
WRAP_24 = 1 << 23


# Parameters


def scalar(projection: Projection, name: str, default: int) -> int:
    """A parameter of a projection as a plain integer."""
    return int(projection.params[name]) if name in projection.params else default


def truncated(weights: IntArray, sign_mode: int, num_weight_bits: int) -> IntArray:
    """What Lava makes of a matrix before it multiplies: clip to 8 bits, drop the bits it does not hold."""
    mixed = int(sign_mode == MIXED)
    sign = -1 if sign_mode == INHIBITORY else 1
    clipped = np.clip(sign * weights, -256 * mixed, 255)
    k = 8 - num_weight_bits + mixed
    return np.asarray(sign * ((clipped >> k) << k), np.int64)


def sign_mode_of(projection: Projection) -> int:
    """Sign mode, guessed as Lava guesses it: from the whole matrix, before anything is split."""
    mode = scalar(projection, "sign_mode", AUTO)
    if mode != AUTO:
        return mode
    weight = projection.weight_q
    return EXCITATORY if (weight >= 0).all() else INHIBITORY if (weight <= 0).all() else MIXED


def heterogeneous(population: Population) -> bool:
    """Whether one Lava process cannot hold it: its neurons differ in more than their bias."""
    return any(np.unique(population.params.get(n, np.zeros(1))).size > 1 for n in shared(population))


def shared(population: Population) -> tuple[str, ...]:
    """Parameters of which a Lava process has one for all its neurons."""
    return tuple(n for n in RANGES.get(population.model, {}) if n not in PER_NEURON)


def geometry(projection: Projection) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], int]:
    """stride, padding, dilation (h, w) and groups of a convolution."""
    def pair(name: str, default: int) -> tuple[int, int]:
        values = np.broadcast_to(projection.params.get(name, np.int64(default)), (2,))
        return int(values[0]), int(values[1])

    return pair("stride", 1), pair("padding", 0), pair("dilation", 1), scalar(projection, "groups", 1)


def why_not_conv(program: Program, projection: Projection) -> str:
    """Why Lava's Conv cannot hold it, empty if it can."""
    source, target = program.populations[projection.source], program.populations[projection.target]
    for population in (source, target):
        if heterogeneous(population):
            return f"'{population.name}' has neurons with different parameters"
    if len(source.shape) != 3 or len(target.shape) != 3:
        return "one of its populations is not an image"
    stride, padding, dilation, groups = geometry(projection)
    padded = [n + 2 * p for n, p in zip(source.shape[1:], padding, strict=True)]
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, projection.weight_q.shape[2:], strict=True)]
    if max(*padded, *reach, *stride, groups) > INT8_MAX:
        return f"Lava's Conv computes its geometry in int8 and fails beyond {INT8_MAX} (padded size, kernel, groups)"
    return ""


def stays_conv(program: Program, projection: Projection) -> bool:
    """Whether a convolution is written as Lava's Conv."""
    return not why_not_conv(program, projection)


# Checks


def check(program: Program, registers: bool) -> None:
    """Refuse what Lava has no process for, then what it would compute otherwise; see `lava_graph.lower`."""
    unknown = [
        f"population '{p.name}': model '{p.model}' has no fixed-point process in Lava; known: {', '.join(MODELS)}"
        for p in program.populations.values()
        if p.model not in MODELS
    ]
    unknown += [
        f"projection '{p.name}': kind '{p.kind}' has no process in Lava; known: {', '.join(KINDS)}"
        for p in program.projections
        if p.kind not in KINDS
    ]
    for p in program.populations.values():
        lacking = [name for name in PARAMETERS.get(p.model, {}) if name not in p.params]
        if lacking:
            unknown.append(
                f"population '{p.name}' has no {', '.join(lacking)}: it is not in Lava's registers; compile the "
                "network for loihi2, or for loihi1 with preset lava"
            )
    if unknown:
        raise UnsupportedNode("this program cannot be written for Lava", unknown)
    bad: list[Violation] = []
    for projection in program.projections:
        bad += _bad_learning(program, projection) if learns(projection) else []
    for population in program.populations.values():
        if population.model != "input":
            bad += _bad_registers(population) if registers else _bad_threshold(population)
            bad += _bad_pair(population)
    for projection in program.projections:
        if projection.kind != "conv":
            bad += _bad_synapses(projection, registers)
        elif not stays_conv(program, projection):
            bad += _bad_conv(program, projection)
    if bad:
        raise DoesNotFit("this program cannot be written for Lava without changing its numbers", bad)


def _bad_registers(population: Population) -> list[Violation]:
    bad = []
    for name, (low, high) in RANGES[population.model].items():
        values = population.params.get(name, np.zeros(1, np.int64))
        if values.size and (values.min() < low or values.max() > high):
            wanted = f"{values.min()}..{values.max()}"
            bad.append(Violation(population.name, name, wanted, f"{low}..{high}", "Compile it again."))
    return bad


def _bad_threshold(population: Population) -> list[Violation]:
    """A neuron at rest must not fire, or the places that only fill up a vector would."""
    lowest = {"lif": ("vth",), "li": ("vth",), "lif_reset": ("vth",), "ternary_lif": ("vth_hi", "vth_lo")}
    needed = lowest.get(population.model, ())
    if population.model in ("rf", "rf_iz") and heterogeneous(population):
        needed = ("vth",)
    bad = []
    for name in needed:
        sign = -1 if name == "vth_lo" else 1
        least = int((sign * population.params.get(name, np.zeros(1, np.int64))).min()) * sign
        if least * sign < int(population.model.startswith("rf")):
            held = "at most 0" if sign < 0 else "above 0" if population.model.startswith("rf") else "at least 0"
            bad.append(Violation(population.name, name, least, held, "Compile it again."))
    return bad


def _bad_pair(population: Population) -> list[Violation]:
    """Lava refuses a lower threshold above the upper one."""
    if population.model != "ternary_lif":
        return []
    low, high = (population.params.get(n, np.zeros(1, np.int64)) for n in ("vth_lo", "vth_hi"))
    if (np.asarray(low) > np.asarray(high)).any():
        return [Violation(population.name, "vth_lo", "above vth_hi", "at most vth_hi", "Lava takes no such pair.")]
    return []


def _bad_synapses(projection: Projection, registers: bool) -> list[Violation]:
    bad = []
    bits, mode = scalar(projection, "num_weight_bits", 8), sign_mode_of(projection)
    exponent = scalar(projection, "weight_exp", 0)
    low, high = WEIGHT_EXP
    if registers and not low <= exponent <= high:
        bad.append(Violation(projection.name, "weight_exp", exponent, f"{low}..{high}", "Rescale the layer."))
    if mode not in SIGN_NAMES or not 1 <= bits <= 8:
        wanted = f"sign_mode {mode}, num_weight_bits {bits}"
        bad.append(Violation(projection.name, "weight format", wanted, "sign_mode 0..3, 1..8 bits", "Compile again."))
    if "delay_steps" in projection.params:
        delays = projection.params["delay_steps"]
        if delays.size and (delays.min() < 0 or delays.max() > MAX_DELAY):
            wanted = f"{delays.min()}..{delays.max()}"
            bad.append(Violation(projection.name, "delay_steps", wanted, f"0..{MAX_DELAY}", "Use a coarser dt."))
    if projection.kind == "sparse":
        pairs = np.stack([projection.params["row"], projection.params["col"]])
        double = pairs.shape[1] - np.unique(pairs, axis=1).shape[1]
        if double:
            bad.append(
                Violation(projection.name, "synapses between one pair", double + 1, 1, "Put them in two projections.")
            )
    return bad


def _bad_learning(program: Program, projection: Projection) -> list[Violation]:
    """Lava's learning connection sees one whole process at either end."""
    bad = []
    images = {end for p in program.projections if p.kind == "conv" for end in (p.source, p.target)}
    for end in (projection.source, projection.target):
        if heterogeneous(program.populations[end]):
            bad.append(Violation(projection.name, f"kinds of neurons in '{end}'", "several", 1, "Give them one kind."))
        if end in images:
            what = f"'{end}', next to a convolution"
            bad.append(Violation(projection.name, what, "an image", "a vector", "Relay it."))
    if not scalar(projection, "pre_mantissa", 0) and not scalar(projection, "post_mantissa", 0):
        bad.append(Violation(projection.name, "products of its rule", 0, "1 or 2", "Give pre or post a mantissa."))
    return bad


def _bad_conv(program: Program, projection: Projection) -> list[Violation]:
    """What keeps a convolution from being written as Sparse: Conv takes any weight and wraps at 24 bits."""
    source, target = program.populations[projection.source], program.populations[projection.target]
    why = why_not_conv(program, projection)
    if len(source.shape) != 3 or len(target.shape) != 3:
        return [Violation(projection.name, "shape of a convolution", "not an image", "(C, H, W)", "Reshape.")]
    largest = int(np.abs(projection.weight_q).max(initial=0))
    total = int(np.abs(projection.weight_q).reshape(len(projection.weight_q), -1).sum(axis=1).max(initial=0))
    bad = []
    if scalar(projection, "num_message_bits", 0) and graded(source):
        bad.append(
            Violation(projection.name, "graded messages", "unbounded sums", "24 bits", f"It must be Sparse ({why}).")
        )
    if largest > 255:
        bad.append(
            Violation(projection.name, "weight", largest, 255, f"It must be Sparse ({why}), which holds 8 bits.")
        )
    if total >= WRAP_24:
        bad.append(Violation(projection.name, "sum of weights", total, WRAP_24 - 1, f"It must be Sparse ({why})."))
    return bad
