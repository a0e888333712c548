"""One population on its way to SpiNNaker: reals into the words of IF_curr_exp or IF_curr_delta.

The Network's membrane (coefficients of neuro.discretise), v and thresholds in reals::

    i = alpha i + gain_syn x;   v = beta v + gain_mem i + drive

The machine's, in raw units of 2^-15, with decays D, A and the factor F that it makes of its words, r = 1::

    syn = A syn + F w x;        v = floor-ish( D v + (1 - D) (syn + i_offset + v_rest) )

so with one unit of reals being S raw units, w = S gain_mem gain_syn / ((1 - D) F), the bias alike, and v_rest =
S drive / (1 - D). The machine's v is rounded up, on average by half a unit; v_rest is lowered by 1/2 / (1 - D), which
makes that a rounding to the nearest. So a neuron without leak keeps its v exactly while |v| < 2^13 units: then S is
kept small enough for the threshold to lie in there, and its weights are whole units of v.

S is otherwise as large as the int32 registers allow in the worst case, every input firing in every step.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neuro.errors import Violation
from neuro.hardware.chip import NumberFormat
from neuro.hardware.program import QuantisationError
from neuro.hardware.quantise import error_of, geometric, grid_of
from neuro.hardware.spinnaker1.layer import Fitted, Gains, Int64, Layer, per_neuron
from neuro.hardware.spinnaker1.plain import quotient
from neuro.hardware.spinnaker1.registers import membrane, synapse
from neuro.hardware.spinnaker1.remarks import note, note_saturation, started
from neuro.ir import Array

ONE = 1 << 15
FULL = (1 << 16) - 1
HIGHEST = (1 << 31) - 1
ROOM = float((1 << 30) - (1 << 16))  # of what drives v, and of v: their distance still fits a register
MOST_SHIFT = 14  # 0xFFFF << 14 fits ROOM
WEIGHT = NumberFormat(17, True, -FULL, FULL)
SIGMA, RATE_HZ = 5.0, 30.0  # sPyNNaker's bound on what arrives in one step


def _gains(layer: Layer, step: int, max_steps: int | None) -> Gains:
    tau, decay = membrane(step, layer.c.beta)
    zero = np.zeros(layer.size)
    if not layer.exponential:
        per_step = quotient(ONE, step) / ONE
        return Gains(tau, decay, 1 - decay / ONE, tau, zero, np.full(layer.size, per_step), zero + per_step)
    tau_syn, decay_syn, factor = synapse(step, layer.c.alpha)
    kept, arrive = decay_syn / 2.0**32, factor / 2.0**32
    return Gains(tau, decay, 1 - decay / ONE, tau_syn, kept, arrive, arrive * geometric(kept, max_steps))


def fit(
    layer: Layer, step: int, ring: str, max_steps: int | None, substitutions: list[str], violations: list[Violation]
) -> Fitted:
    """Words and weights of a population. step: raw s16.15 ms. ring: "safe" or "spynnaker", see the compiler."""
    g = _gains(layer, step, max_steps)
    gain = layer.c.gain_mem * layer.c.gain_syn / (g.pull * g.arrive)
    real = [d.weight * gain[d.row] for d in layer.incoming]
    most = _most(layer, real)
    bias = sum((b.value for b in layer.biases), np.zeros(layer.size))
    bias = bias * layer.c.gain_mem * layer.c.gain_syn / (1 - layer.c.alpha) / g.pull
    rest = layer.c.drive / g.pull
    lead = _lead(layer, g, bias)
    steps = [w * (g.pull * g.arrive)[d.row] for d, w in zip(layer.incoming, real, strict=True)]
    steps += [bias * g.pull, per_neuron(layer, "v_reset", 0.0)]
    scale = _scale(layer, g, most, np.abs(bias) + np.abs(rest), np.abs(lead), np.concatenate(steps))
    shifts = _least_shifts(layer, g, scale, most) if ring == "safe" else _usual_shifts(layer, scale, real, step)
    if ring == "safe" and (layer.c.beta < 1).all():
        scale = _whole_words(real, scale, max(shifts))
    weights = _weights(real, scale, shifts)
    while (
        ring == "safe"
        and (over := [int(total.max(initial=0)) > FULL for total in _most(layer, weights)]) != [False] * 2
    ):
        shifts = [shift + more for shift, more in zip(shifts, over, strict=True)]  # rounding up was too much
        weights = _weights(real, scale, shifts)
    errors = _weight_errors(layer, real, weights, scale, shifts, violations)
    if ring == "spynnaker":
        note_saturation(layer, _most(layer, weights), substitutions)
    note(layer, g, scale, substitutions)
    offset = np.rint(scale * bias)
    down = np.rint(-0.5 / g.pull) + (layer.c.beta >= 1)  # without leak: v stays up to the threshold itself
    params = {
        "v_init": np.zeros(layer.size),
        "v_rest": np.rint(scale * rest) + down,
        "c_m": g.tau,
        "tau_m": g.tau,
        "i_offset": offset,
        "v_reset": np.rint(scale * per_neuron(layer, "v_reset", 0.0)),
        "t_refract": np.array(0),
        "refract_init": np.array(0),
        "time_step": np.array(step),
        "threshold": np.clip(np.floor(scale * per_neuron(layer, "v_threshold", np.inf)) + 1, -HIGHEST - 1, HIGHEST),
        "shift_exc": np.array(shifts[0]),
        "shift_inh": np.array(shifts[1]),
    }
    first = np.rint(scale * lead)
    params |= {"init_exc": np.maximum(-first, 0), "init_inh": np.maximum(first, 0)}
    if layer.exponential:
        params |= {"tau_exc": g.tau_syn, "tau_inh": g.tau_syn, "synapse_step": np.array(step)}
    else:
        params |= {"input_step": np.array(step)}
    errors += _state_errors(layer, g, scale, bias)
    kept = {name: _word(layer, name, values, violations) for name, values in params.items()}
    if bias.any() or rest.any():
        kept |= started(layer, g, kept)
    return Fitted(
        layer, "curr_exp" if layer.exponential else "curr_delta", kept, tuple(weights), 1 / scale, tuple(errors)
    )


def _word(layer: Layer, name: str, values: Array | Int64, violations: list[Violation]) -> Int64:
    largest = float(np.abs(values).max(initial=0.0))
    if largest > HIGHEST + 1:
        remedy = "Bring v_reset, v_leak and biases nearer to what the inputs can reach"
        violations.append(Violation(layer.name, f"{name} (units of 2^-15)", f"{largest:.3g}", HIGHEST, remedy))
        return np.zeros(np.shape(values), np.int64)
    return np.asarray(values).astype(np.int64)


def _most(layer: Layer, weights: Sequence[Array | Int64]) -> Array:
    """[2, n]: sums of the weights of either sign into each neuron, if every source fires at once."""
    total = np.zeros((2, layer.size))
    for d, weight in zip(layer.incoming, weights, strict=True):
        for kind, sign in enumerate((1, -1)):
            total[kind] += np.bincount(d.row, np.maximum(sign * weight, 0), layer.size)
    return total


def _lead(layer: Layer, g: Gains, bias: Array) -> Array:
    """Inhibition that a bias starts with: in front of a synapse it rises as 1 - alpha^(t + 1), while i_offset is
    there in full; the difference decays as the synapse does. It is loaded ``skew`` steps before the sample is there."""
    if not layer.exponential or not bias.any():
        return np.zeros(layer.size)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        lead = bias * np.power(g.decay_syn, 1.0 - layer.skew)
    return np.where(g.decay_syn > 1e-3, lead, 0.0)  # what decays faster than that is nothing


def _scale(layer: Layer, g: Gains, most: Array, constant: Array, lead: Array, steps: Array) -> float:
    """Raw units per real of v. steps: by what v can move at once."""
    worst = (np.maximum(most[0], most[1]) * g.hold + constant + lead).max(initial=0.0)
    worst = max(float(worst), float(np.abs(per_neuron(layer, "v_reset", 0.0)).max(initial=0.0)))
    scale = ROOM / worst if worst > 0 else float(ONE)
    if most.any():
        fan_in = sum((np.bincount(d.row, minlength=layer.size) for d in layer.incoming), np.zeros(layer.size)).max()
        capacity = max(FULL - 0.5 * fan_in, FULL / 2)  # half a unit lost or won by each rounded weight
        scale = min(scale, capacity * (1 << MOST_SHIFT) / most.max())
    if not (layer.c.beta < 1).all():
        threshold = np.abs(per_neuron(layer, "v_threshold", 0.0)).max(initial=0.0)
        if threshold > 0:
            scale = min(scale, 0.5 / g.pull.min() / threshold)
        grid = grid_of(steps, WEIGHT)
        if grid is not None and 1 / grid <= scale:
            return 1 / grid  # v moves in whole units, and is kept exactly while it is small
        scale = 2.0 ** np.floor(np.log2(scale))
    return float(scale)


def _least_shifts(layer: Layer, g: Gains, scale: float, most: Array) -> list[int]:
    """The smallest shifts at which the sums fit; without leak those at which weights are whole units of v."""
    whole = 0 if (layer.c.beta < 1).any() else round(float(np.log2(1 / g.pull.max())))
    return [max(whole, int(np.ceil(np.log2(max(scale * float(t.max(initial=0.0)), 1.0) / FULL)))) for t in most]


def _whole_words(real: list[Array], scale: float, shift: int) -> float:
    """A scale, at most halved, at which weights that lie on a grid are whole words and so lose nothing."""
    grid = grid_of(np.concatenate(real), WEIGHT) if real else None
    words = 0 if grid is None else int(scale * grid / 2.0**shift * (1 + 1e-9))
    return scale if not words or grid is None else words * 2.0**shift / grid


def _usual_shifts(layer: Layer, scale: float, real: list[Array], step: int) -> list[int]:
    """sPyNNaker's: a Poisson bound on what arrives in a step, mean + 5 standard deviations at 30 Hz per synapse."""
    found = []
    for sign in (1, -1):
        expected, variance, largest = np.zeros(layer.size), np.zeros(layer.size), 0.0
        for d, weight in zip(layer.incoming, real, strict=True):
            size = np.maximum(sign * weight, 0.0) * scale / ONE
            per_step = RATE_HZ * step / ONE / 1000
            expected += np.bincount(d.row, size, layer.size) * per_step
            variance += np.bincount(d.row, size**2, layer.size) * per_step
            largest = max(largest, float(size.max(initial=0.0)))
        bound = max(float((expected + SIGMA * np.sqrt(variance)).max(initial=0.0)), largest)
        shift = int(np.ceil(max(0.0, np.log2(bound)))) if bound > 0 else 0
        found.append(min(shift + (2.0**shift <= bound), 16))
    return found


def _weights(real: list[Array], scale: float, shifts: list[int]) -> list[Int64]:
    return [np.rint(w * scale / np.where(w >= 0, 2.0 ** shifts[0], 2.0 ** shifts[1])).astype(np.int64) for w in real]


def _weight_errors(
    layer: Layer, real: list[Array], weights: list[Int64], scale: float, shifts: list[int], violations: list[Violation]
) -> list[QuantisationError]:
    errors = []
    for d, weight, word in zip(layer.incoming, real, weights, strict=True):
        if np.abs(word).max(initial=0) > FULL:
            remedy = "Compile with ring='safe': its scale holds every weight"
            violations.append(
                Violation(d.node, f"weight of '{d.name}' (16 bits)", int(np.abs(word).max()), FULL, remedy)
            )
        unit = np.where(weight >= 0, 2.0 ** shifts[0], 2.0 ** shifts[1]) / scale
        errors.append(error_of(d.node, f"weight of '{d.name}'", weight, word * unit, float(unit.min(initial=1.0))))
    return errors


def _state_errors(layer: Layer, g: Gains, scale: float, bias: Array) -> list[QuantisationError]:
    errors = [error_of(layer.name, "decay of v", layer.c.beta, g.decay / ONE, 1 / ONE)]
    if layer.exponential:
        errors.append(error_of(layer.name, "decay of i", layer.c.alpha, g.decay_syn, 2.0**-32))
    if bias.any():
        kept = np.rint(scale * bias) / scale
        if not (layer.c.beta < 1).all():  # what a step adds to v is rounded, and nothing forgets it
            kept = np.where(layer.c.beta < 1, kept, np.rint(scale * bias * g.pull) / g.pull / scale)
        errors.append(error_of(layer.name, "bias", bias, kept, 1 / scale))
    threshold = per_neuron(layer, "v_threshold", 0.0)
    if layer.node.spiking:
        errors.append(error_of(layer.name, "threshold", threshold, np.floor(scale * threshold) / scale, 1 / scale))
    return errors
