"""One population on its way to Loihi 2: gains into weights, bias into its register, reset to the chip's.

Everything that the chip cannot do exactly is noted in ``substitutions``, everything it cannot do in ``violations``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from neuro import ir
from neuro.discretise import Coefficients, coefficients
from neuro.errors import ChipError, Violation
from neuro.hardware.chip import CHIP_FOLDER, Chip, read_chip
from neuro.hardware.loihi2 import start
from neuro.hardware.loihi2.beyond import Message, fit_beyond
from neuro.hardware.loihi2.registers import Registers, Wanted, Weights, fit
from neuro.hardware.loihi2.start import Silent, most_injected
from neuro.hardware.lowering import Bias, Lowered, Synapses
from neuro.hardware.maps import Map
from neuro.hardware.program import QuantisationError
from neuro.hardware.quantise import error_of, geometric
from neuro.ir import Array, Network

IntArray = NDArray[np.int64]

SPIKES = Message()
# share of a matrix: synapse_entry / (synapse_entry + index_entry) of the chip's file. Not read from there, so that a
# sweep over the two finds another memory for the same program
LIST_BELOW = 1 / 3
BEYOND = (ir.I, ir.Delta, ir.SigmaDelta, ir.ResonateAndFire)
CHIP: Chip = read_chip(CHIP_FOLDER / "loihi2.toml")


@dataclass(frozen=True)
class Options:
    start_up: bool
    max_steps: int | None
    readout_headroom: float

    def __post_init__(self) -> None:
        bad = []
        if not isinstance(self.start_up, bool):
            bad.append(f"start_up must be True or False, got {self.start_up!r}")
        if self.max_steps is not None and (not isinstance(self.max_steps, (int, np.integer)) or self.max_steps < 1):
            bad.append(f"max_steps must be a positive integer or None, got {self.max_steps!r}")
        if not 0 < self.readout_headroom <= 1:
            bad.append(f"readout_headroom must lie in (0, 1], got {self.readout_headroom!r}")
        if bad:
            raise ChipError("compile options cannot be used", bad)


@dataclass(frozen=True, eq=False)
class Incoming:
    """One projection in reals, its map with the gains and the delays on the chip."""

    name: str
    node: str
    source: str
    map: Map


@dataclass(frozen=True, eq=False)
class Settled:
    """A population in integers. pulses: chip step -> whole weights given once, see `start`. model: of the program.
    message: what it sends. scale: reals per integer of its membrane; None: a 64th of the registers' unit."""

    layer: Layer
    registers: Registers
    pulses: dict[int, IntArray]
    budget: tuple[QuantisationError, ...]
    model: str = "lif"
    message: Message = SPIKES
    scale: float | None = None


@dataclass(frozen=True, eq=False)
class Layer:
    """One population on its way to the chip."""

    name: str
    node: ir.Neuron
    gain: Array  # of the summed input, per neuron
    c: Coefficients
    incoming: tuple[Incoming, ...]
    skew: int
    dt: float

    @property
    def size(self) -> int:
        return self.gain.size


def layer_of(
    network: Network,
    lowered: Lowered,
    name: str,
    skew: dict[str, int],
    substitutions: list[str],
    *,
    kernels: bool = True,
    lists: bool = False,
) -> Layer:
    """A population in reals, gains folded into its weights. kernels: a convolution may stay a shared kernel.

    lists: a matrix of so few synapses that a list of them takes less memory becomes one.
    """
    node = network.nodes[name]
    assert isinstance(node, ir.Neuron)
    raw = coefficients(node, network.dt, network.discretisation)
    c = Coefficients(*(np.asarray(a, dtype=np.float64).reshape(-1) for a in raw))
    gain = c.gain_mem * c.gain_syn
    incoming = []
    for s in lowered.synapses:
        if s.target != name:
            continue
        delay = s.map.delay + skew[name] - skew[s.source] - 1
        used = np.broadcast_to(delay, s.map.weight.shape)[s.map.weight != 0]
        if used.size and used.min() < 0:
            substitutions.append(
                f"'{s.source}' -> '{name}' closes a loop with fewer steps of delay than projections: its spikes arrive "
                f"up to {-int(used.min())} step(s) late; add a Delay of that many steps to the loop to make it exact"
            )
        incoming.append(_with_gain(s, gain, np.maximum(delay, 0), kernels, lists))
    return Layer(name, node, gain, c, tuple(incoming), skew[name], network.dt)


def _with_gain(s: Synapses, gain: Array, delay: IntArray, kernels: bool, lists: bool) -> Incoming:
    """Gain folded into the weights; a kernel stays one only with no delay and one gain per channel."""
    m = replace(s.map, delay=np.asarray(delay))
    if lists and m.kind == "dense" and _list_is_smaller(m):
        m = m.as_sparse()
    shared = kernels and not delay.any() and m.kind == "conv" and _gain_per_channel(m, gain) is not None
    if m.kind in ("diagonal", "conv") and not shared:
        m = m.as_sparse()
    if m.kind == "conv":
        channels = _gain_per_channel(m, gain)
        assert channels is not None
        weight = m.weight * channels[:, None, None, None]
    elif m.kind == "dense":
        weight = m.weight * gain[:, None]
    else:
        weight = m.weight * gain[m.row]
    return Incoming(s.name, s.node, s.source, replace(m, weight=weight))


def _list_is_smaller(m: Map) -> bool:
    """Whether the synapses of a matrix take less memory one by one; one without any stays a matrix."""
    return 0 < int(np.count_nonzero(m.weight)) < LIST_BELOW * m.weight.size


def _gain_per_channel(m: Map, gain: Array) -> Array | None:
    flat = gain.reshape(m.weight.shape[0], -1)
    return flat[:, 0] if (flat == flat[:, :1]).all() else None


def fit_layer(
    layer: Layer,
    biases: tuple[Bias, ...],
    options: Options,
    substitutions: list[str],
    violations: list[Violation],
    chip: Chip = CHIP,
    messages: Mapping[str, Message] | None = None,
    reads: float = 1.0,
) -> Settled:
    """Registers of one population, and what it is given once when a sample reaches it.

    messages: what each source sends, where that is more than spikes. reads: the most weight integers that any
    target adds up for one unit of what this population sends.
    """
    node, c = layer.node, layer.c
    told = messages or {}
    weights = tuple(_weights(d, layer.size, told.get(d.source, SPIKES)) for d in layer.incoming)
    if isinstance(node, BEYOND):
        return _fit_beyond(layer, weights, told, biases, reads, options, substitutions, violations, chip)
    ternary = isinstance(node, ir.TernaryLIF)
    if ternary and (node.v_threshold_low.reshape(-1) > np.asarray(node.v_reset).reshape(-1)).any():  # type: ignore[attr-defined]
        remedy = "The chip resets to zero above a lower threshold that is not positive: lower v_threshold_low"
        violations.append(Violation(layer.name, "v_threshold_low - v_reset", "positive", "at most 0", remedy))
    reset = np.asarray(getattr(node, "v_reset", np.zeros(node.shape))).reshape(-1)
    threshold = np.asarray(node.v_threshold).reshape(-1) - reset if hasattr(node, "v_threshold") else None
    if threshold is not None and threshold.min() < 0:
        remedy = "The chip resets to zero below a threshold that is not negative: raise v_threshold or lower v_reset"
        violations.append(Violation(layer.name, "v_threshold - v_reset", f"{threshold.min():g}", 0, remedy))
        threshold = np.maximum(threshold, 0.0)  # go on, to find what else does not fit
    if getattr(node, "reset", "hard") == "subtract":
        substitutions.append(
            f"'{layer.name}' resets to zero instead of subtracting its threshold: what v exceeds the threshold by "
            "is lost with each spike; train with reset='hard' to make it exact"
        )
    settled = [Bias(layer.gain / (1.0 - c.alpha) * b.value, b.start) for b in biases]  # current they end at
    full = sum((b.value for b in settled), np.zeros(layer.size))
    register = c.drive - (1.0 - c.beta) * reset + full  # v' = v - v_reset obeys the same equation with this drive
    given = most_injected(layer.skew, c.beta, register, reset, full) if options.start_up else np.zeros(layer.size)
    wanted = Wanted(layer.name, c.alpha, c.beta, threshold, register, weights, given)
    registers = fit(wanted, chip, max_steps=options.max_steps, readout_headroom=options.readout_headroom)
    violations += registers.violations
    model, message = ("lif" if node.spiking else "li"), SPIKES
    if ternary:
        registers, message = _two_thresholds(layer, registers, chip), Message(low=-1)
        if register.any() or reset.any():  # a start-up neuron knows of one threshold only
            _note_no_start(layer, register, reset, True, threshold, substitutions, " (a TernaryLIF is not corrected)")
        return Settled(layer, registers, {}, (), "ternary_lif", message)
    if not register.any() and not reset.any():
        return Settled(layer, registers, {}, (), model)
    if not options.start_up:
        _note_no_start(layer, register, reset, any(b.start for b in settled), threshold, substitutions)
        return Settled(layer, registers, {}, (), model)
    silent = _silent(layer, registers, reset, settled)
    pulses, fired, error = start.pulses(silent)
    if fired.any():
        substitutions.append(
            f"{int((fired > 0).sum())} neuron(s) of '{layer.name}' fire in the {layer.skew} step(s) before the sample "
            "reaches them, as their bias alone lifts them over the threshold"
        )
    return Settled(layer, registers, pulses, (error,), model)


def _weights(d: Incoming, size: int, message: Message) -> Weights:
    value = d.map.weight if message.unit == 1.0 else d.map.weight * message.unit
    return Weights(d.name, d.node, d.map.kind, value, size, d.map.row, message.low, message.high)


def _two_thresholds(layer: Layer, registers: Registers, chip: Chip) -> Registers:
    """Registers of a LIF, with its threshold as the upper one and the lower one beside it."""
    node = layer.node
    assert isinstance(node, ir.TernaryLIF)
    wanted = np.minimum(node.v_threshold_low.reshape(-1) - np.asarray(node.v_reset).reshape(-1), 0.0)
    low = np.maximum(np.rint(wanted / registers.unit), -chip.formats["threshold"].high).astype(np.int64)
    params = {n: a for n, a in registers.params.items() if n != "vth"}
    params |= {"vth_hi": registers.params["vth"], "vth_lo": low}
    error = error_of(layer.name, "lower threshold", wanted, low * registers.unit, registers.unit)
    return replace(registers, params=params, budget=(*registers.budget, error))


def _fit_beyond(
    layer: Layer,
    weights: tuple[Weights, ...],
    told: Mapping[str, Message],
    biases: tuple[Bias, ...],
    reads: float,
    options: Options,
    substitutions: list[str],
    violations: list[Violation],
    chip: Chip,
) -> Settled:
    if biases:
        what, remedy = "constant input", "It has no register for it: use a Linear; a SigmaDelta has a bias of its own"
        violations.append(Violation(layer.name, what, "a bias in front", "none", remedy))
    made = fit_beyond(
        layer.name,
        layer.node,
        weights,
        tuple(told.get(d.source, SPIKES) for d in layer.incoming),
        layer.dt,
        layer.c.beta,
        reads,
        chip,
        options.max_steps,
        options.readout_headroom,
        substitutions,
    )
    violations += made.registers.violations
    if np.asarray(getattr(layer.node, "bias", 0.0)).any() and layer.skew > 0:
        substitutions.append(
            f"'{layer.name}' sends its bias in the chip's first step, {layer.skew} step(s) before the sample reaches "
            "it; what it stands for afterwards is the same but for the threshold"
        )
    return Settled(layer, made.registers, {}, (), made.model, made.message, made.registers.unit)


def _silent(layer: Layer, registers: Registers, reset: Array, settled: list[Bias]) -> Silent:
    params = {n: np.broadcast_to(a, (layer.size,)) for n, a in registers.params.items()}
    one = registers.unit / (1 << CHIP.limit("membrane_shift"))
    return Silent(
        layer.name,
        layer.skew,
        alpha=(4095 - params["du"]) / 4096,
        keep=4096 - params["dv"],
        bias=params["bias_mant"] << params["bias_exp"],
        vth=params["vth"],
        reset=reset / one,
        biases=tuple(Bias(b.value / one, b.start) for b in settled),
    )


def _note_no_start(
    layer: Layer,
    register: Array,
    reset: Array,
    held_back: bool,
    threshold: Array | None,
    substitutions: list[str],
    remedy: str = ". Compile with start_up=True to correct it",
) -> None:
    """What is wrong at the start of a sample without `start`."""
    off = np.abs(register) * geometric(layer.c.beta, layer.skew) + np.abs(reset)
    if threshold is None or not threshold.any():
        size = f"{off.max():.3g} of v"
    else:
        size = f"{float((off / np.where(threshold > 0, threshold, np.inf)).max()):.2g} of the threshold"
    ramp = (
        " and in full at once, where a synapse or a Delay would hold it back"
        if held_back or layer.c.alpha.any()
        else ""
    )
    substitutions.append(
        f"'{layer.name}' has its bias from the chip's first step, {layer.skew} step(s) before the sample reaches "
        f"it{ramp}; v starts up to {size} away{remedy}"
    )
