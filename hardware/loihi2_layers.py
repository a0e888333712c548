"""One population on its way to Loihi 2: gains into weights, bias into a register or a line, reset to the chip's.

Everything that the chip cannot do exactly is noted in ``substitutions``, everything it cannot do in ``violations``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from neuro import ir
from neuro.discretise import Coefficients, coefficients
from neuro.errors import ChipError, Violation
from neuro.hardware.chip import CHIP_FOLDER, Chip, read_chip
from neuro.hardware.loihi2_registers import Registers, Wanted, Weights, fit
from neuro.hardware.lowering import Bias, Lowered, Synapses
from neuro.hardware.maps import Map
from neuro.hardware.quantise import geometric, grid_of
from neuro.ir import Array, Network

IntArray = NDArray[np.int64]

CHIP: Chip = read_chip(CHIP_FOLDER / "loihi2.toml")
BIAS_MODES = ("auto", "register", "line")
LINE = "bias_line"  # one neuron that fires in every step, for biases that must start with the sample


@dataclass(frozen=True)
class Options:
    bias: str
    max_steps: int | None
    readout_headroom: float

    def __post_init__(self) -> None:
        bad = []
        if self.bias not in BIAS_MODES:
            bad.append(f"bias must be one of {BIAS_MODES}, got {self.bias!r}")
        if self.max_steps is not None and (not isinstance(self.max_steps, (int, np.integer)) or self.max_steps < 1):
            bad.append(f"max_steps must be a positive integer or None, got {self.max_steps!r}")
        if not 0 < self.readout_headroom <= 1:
            bad.append(f"readout_headroom must lie in (0, 1], got {self.readout_headroom!r}")
        if bad:
            raise ChipError("compile options cannot be used", bad)


@dataclass(frozen=True, eq=False)
class Incoming:
    """One projection in reals with its delays on the chip. delay: scalar or one per synapse."""

    name: str
    node: str
    source: str
    map: Map
    delay: IntArray


@dataclass(frozen=True, eq=False)
class Layer:
    """One population on its way to the chip."""

    name: str
    node: ir.Neuron
    gain: Array  # of the summed input, per neuron
    c: Coefficients
    incoming: tuple[Incoming, ...]
    skew: int

    @property
    def size(self) -> int:
        return self.gain.size


def layer_of(network: Network, lowered: Lowered, name: str, skew: dict[str, int], substitutions: list[str]) -> Layer:
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
        incoming.append(_with_gain(s, gain, np.maximum(delay, 0)))
    return Layer(name, node, gain, c, tuple(incoming), skew[name])


def _with_gain(s: Synapses, gain: Array, delay: IntArray) -> Incoming:
    """Gain folded into the weights; a kernel stays one only with no delay and one gain per channel."""
    m = replace(s.map, delay=np.asarray(delay))
    if m.kind == "diagonal" or (m.kind == "conv" and (delay.any() or _gain_per_channel(m, gain) is None)):
        m = m.as_sparse()
    if m.kind == "conv":
        channels = _gain_per_channel(m, gain)
        assert channels is not None
        weight = m.weight * channels[:, None, None, None]
    elif m.kind == "dense":
        weight = m.weight * gain[:, None]
    else:
        weight = m.weight * gain[m.row]
    return Incoming(s.name, s.node, s.source, replace(m, weight=weight), m.delay)


def _gain_per_channel(m: Map, gain: Array) -> Array | None:
    flat = gain.reshape(m.weight.shape[0], -1)
    return flat[:, 0] if (flat == flat[:, :1]).all() else None


def fit_layer(
    layer: Layer, biases: tuple[Bias, ...], options: Options, substitutions: list[str], violations: list[Violation]
) -> tuple[Layer, Registers]:
    """Registers of one population, its biases either in the register or as a line of synapses."""
    node, c = layer.node, layer.c
    reset = np.asarray(getattr(node, "v_reset", np.zeros(node.shape))).reshape(-1)
    threshold = np.asarray(node.v_threshold).reshape(-1) - reset if hasattr(node, "v_threshold") else None
    if threshold is not None and threshold.min() < 0:
        violations.append(
            Violation(
                layer.name,
                "v_threshold - v_reset",
                f"{threshold.min():g}",
                0,
                "The chip resets to zero below a threshold that is not negative: raise v_threshold or lower v_reset",
            )
        )
        threshold = np.maximum(threshold, 0.0)  # go on, to find what else does not fit
    _note_reset(layer, reset, threshold, substitutions)
    drive = c.drive - (1.0 - c.beta) * reset  # v' = v - v_reset obeys the same equation with this drive
    lines, register = _split_bias(layer, biases, drive)
    if lines and options.bias != "register":
        timed = replace(layer, incoming=(*layer.incoming, *lines))
        if options.bias == "line" or _on_grid(timed):
            found = fit(
                _wanted(timed, threshold, register),
                CHIP,
                max_steps=options.max_steps,
                readout_headroom=options.readout_headroom,
            )
            if options.bias == "line" or all(e.max_error < 1e-6 for e in found.budget if e.quantity == "weight"):
                _note_early(layer, register, 0, threshold, substitutions)
                violations += found.violations
                return timed, found
    held = register
    late = 0
    for b in biases:
        held = held + layer.gain / (1.0 - c.alpha) * b.value
        late = max(late, b.start)
    if not (c.alpha > 0).any():
        held = held + (drive - register)  # what the line would have carried
    if (c.alpha > 0).any() and any(b.value.any() for b in biases):
        whole = np.abs(sum((layer.gain / (1 - c.alpha) * b.value for b in biases), np.zeros(layer.size)))
        substitutions.append(
            f"'{layer.name}' takes its bias in full from the first step, where the Network's synapse takes "
            f"{1 / (1 - c.alpha.max()):.3g} steps to rise to it: up to {_share(whole, threshold)} too much in a step; "
            "compile with bias='line' to make it exact in time"
        )
    _note_early(layer, held, late, threshold, substitutions)
    found = fit(
        _wanted(layer, threshold, held), CHIP, max_steps=options.max_steps, readout_headroom=options.readout_headroom
    )
    violations += found.violations
    return layer, found


def _split_bias(layer: Layer, biases: tuple[Bias, ...], drive: Array) -> tuple[list[Incoming], Array]:
    """Constant inputs that synapses can carry, and the rest, which only the register can.

    With a synaptic current (alpha > 0) the drive enters v behind the current, where no synapse ends.
    """
    has_current = bool((layer.c.alpha > 0).any())
    total: dict[int, Array] = {}
    for b in biases:
        total[b.start] = total.get(b.start, np.zeros(layer.size)) + layer.gain * b.value
    register = drive
    if not has_current:
        total[0] = total.get(0, np.zeros(layer.size)) + drive
        register = np.zeros(layer.size)
    lines = []
    for k, (start, value) in enumerate(sorted(total.items())):
        if value.any():
            delay = np.where(value != 0, start + layer.skew - 1, 0)[:, None]
            one = np.asarray(delay) if delay.any() else np.zeros((), np.int64)
            m = Map("dense", value[:, None], one, (1,), (layer.size,))
            name = f"{LINE}->{layer.name}" + ("" if k == 0 else f"#{k + 1}")
            lines.append(Incoming(name, layer.name, LINE, m, one))
    return lines, register


def _on_grid(layer: Layer) -> bool:
    """Whether the weights of every projection lie on a grid that the chip holds."""
    return all(
        grid_of(d.map.weight, CHIP.formats["weight_conv" if d.map.kind == "conv" else "weight_mixed"]) is not None
        for d in layer.incoming
        if d.map.weight.any()
    )


def _wanted(layer: Layer, threshold: Array | None, bias: Array) -> Wanted:
    weights = tuple(Weights(d.name, d.node, d.map.kind, d.map.weight, layer.size, d.map.row) for d in layer.incoming)
    return Wanted(layer.name, layer.c.alpha, layer.c.beta, threshold, bias, weights)


def _share(values: Array, threshold: Array | None) -> str:
    if threshold is None or not threshold.any():
        return f"{np.abs(values).max():.3g} of v"
    return f"{float((np.abs(values) / np.where(threshold > 0, threshold, np.inf)).max()):.2g} of the threshold"


def _note_reset(layer: Layer, reset: Array, threshold: Array | None, substitutions: list[str]) -> None:
    if threshold is None:
        return
    if getattr(layer.node, "reset", "hard") == "subtract":
        substitutions.append(
            f"'{layer.name}' resets to zero instead of subtracting its threshold: what v exceeds the threshold by "
            "is lost with each spike; train with reset='hard' to make it exact"
        )
    if reset.any():
        size = _share(reset, threshold)
        substitutions.append(
            f"'{layer.name}' starts at v_reset instead of 0, {size} away, as the chip resets to its starting value"
        )
    if reset.min() != reset.max():
        substitutions.append(
            f"'{layer.name}' has several v_reset: its membrane on the chip counts from each neuron's own"
        )


def _note_early(layer: Layer, bias: Array, late: int, threshold: Array | None, substitutions: list[str]) -> None:
    """A bias register works from the chip's first step, when the sample has not reached the population yet."""
    early = layer.skew + late
    if bias.any() and early:
        off = np.abs(bias) * geometric(layer.c.beta, early)
        substitutions.append(
            f"'{layer.name}' has its bias from the chip's first step, {early} step(s) before the sample reaches it: v "
            f"starts up to {_share(off, threshold)} away; compile with bias='line' to make it exact in time"
        )
