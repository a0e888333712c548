"""SpiNNaker 1: how a `Network` becomes a machine of sPyNNaker 7.4.1. The chip's data is chips/spinnaker1.toml.

LIF, IF and LI become IF_curr_delta, CubaLIF and CubaLI IF_curr_exp (`fit`); whatever has no leak gets the longest
time constant, whatever does not spike a threshold out of reach. Everything between populations is folded into lists
of synapses, one row per source neuron and target core (`layout`). A synapse costs at least one step, so populations
lag as on Loihi 2 (neuro.hardware.timing).

What the chip cannot do exactly is replaced by the nearest it can, and every such `substitution` is listed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neuro import ir
from neuro.discretise import Coefficients, coefficients
from neuro.errors import ChipError, DoesNotFit, PrecisionLoss, UnsupportedNode, Violation
from neuro.hardware.lowering import Lowered, Synapses, lower
from neuro.hardware.program import Population, Program, Projection
from neuro.hardware.spinnaker1.fit import fit
from neuro.hardware.spinnaker1.layer import Fitted, Incoming, Layer
from neuro.hardware.spinnaker1.layout import CHIP, check, lay, machine, shape_of
from neuro.hardware.spinnaker1.traffic import messages
from neuro.hardware.target import Oracle, Target, Visit
from neuro.hardware.timing import Link, skews
from neuro.hardware.trace import Trace
from neuro.ir import Network

RINGS = ("safe", "spynnaker")
ONE = 1 << 15

SUPPORTS: dict[type[ir.Node], str] = {
    ir.Input: "spike sources, one step to the first synapses",
    ir.Output: "reads one population; spike counts, or sum, max, last of v",
    ir.Linear: "a list of synapses, 16-bit weights, any delay (delay extensions beyond the slots of a ring buffer)",
    ir.Affine: "as Linear; the bias becomes a constant current",
    ir.Conv2d: "a list of synapses",
    ir.SumPool2d: "folded into the synapses behind it",
    ir.AvgPool2d: "folded into the synapses behind it",
    ir.Flatten: "no cost, row-major",
    ir.Scale: "folded into the synapses",
    ir.Delay: "delay of the synapses behind it",
    ir.IF: "IF_curr_delta with the longest time constant; resets to v_reset",
    ir.LI: "IF_curr_delta whose threshold is out of reach",
    ir.LIF: "IF_curr_delta; resets to v_reset",
    ir.CubaLI: "IF_curr_exp whose threshold is out of reach",
    ir.CubaLIF: "IF_curr_exp; resets to v_reset",
}

_VALUES = "packets carry no value here; use a spiking form, one of IF, LIF, CubaLIF"
REFUSES: dict[type[ir.Node], str] = {
    ir.I: "what neither leaks nor resets outgrows the registers; use an LI with a long tau_mem",
    ir.Delta: _VALUES,
    ir.SigmaDelta: _VALUES,
    ir.TernaryLIF: "a packet has no sign; use two LIF populations, one for either sign",
    ir.ResonateAndFire: "IF_curr_exp and IF_curr_delta have one state variable behind the synapse; use a CubaLIF",
    ir.AdaptiveLIF: "IF_curr_exp and IF_curr_delta do not adapt; use a CubaLIF",
    ir.QuantisedReLU: _VALUES,
    ir.MaxPool2d: "synapses add; use a SumPool2d or AvgPool2d, or a stride",
}


@dataclass(frozen=True)
class _Options:
    max_steps: int | None
    timestep_ms: float
    ring: str
    neurons_per_core: int
    cores_per_chip: int

    def __post_init__(self) -> None:
        bad = []
        if self.max_steps is not None and (not isinstance(self.max_steps, (int, np.integer)) or self.max_steps < 1):
            bad.append(f"max_steps must be a positive integer or None, got {self.max_steps!r}")
        if not isinstance(self.timestep_ms, (int, float)) or not 0.1 <= self.timestep_ms <= 1000:
            bad.append(f"timestep_ms must lie in 0.1..1000, got {self.timestep_ms!r}")
        if self.ring not in RINGS:
            bad.append(f"ring must be one of {RINGS}, got {self.ring!r}")
        for name in ("neurons_per_core", "cores_per_chip"):
            value, most = getattr(self, name), CHIP.limit(name)
            if not isinstance(value, (int, np.integer)) or not 1 <= value <= most:
                bad.append(f"{name} must lie in 1..{most}, got {value!r}")
        if bad:
            raise ChipError("compile options cannot be used", bad)


def compile_network(
    network: Network,
    *,
    strict: bool = False,
    max_steps: int | None = None,
    timestep_ms: float = 1.0,
    ring: str = "safe",
    boards: int = 1,
    neurons_per_core: int = 256,
    cores_per_chip: int = 17,
) -> Program:
    """A Network as a SpiNNaker machine.

    Args:
        strict: refuse every approximation but rounding.
        max_steps: longest sample, to bound synaptic currents that hardly decay; None for any length.
        timestep_ms: length of a step on the machine, whatever the network's dt; time constants scale with it.
        ring: how many bits of its weights a population keeps. "safe": as many as rule out that its 16-bit ring buffers
            saturate. "spynnaker": by sPyNNaker's bound (30 Hz per synapse, 5 standard deviations), which may be more;
            then neurons that can lose input are listed.
        boards: 1, or a multiple of 3. neurons_per_core: most neurons on a core. cores_per_chip: cores used on a chip.

    Raises:
        UnsupportedNode: parts with no counterpart, all of them. DoesNotFit: limits exceeded, all of them.
        PrecisionLoss: ``strict`` and a substitution would be needed. ChipError: an option out of range.
    """
    options = _Options(max_steps, timestep_ms, ring, neurons_per_core, cores_per_chip)
    fabric = machine(boards, cores_per_chip)
    lowered = lower(network)
    _refuse_graded_sources(network, lowered)
    substitutions: list[str] = []
    violations: list[Violation] = []
    skew = skews(lowered.populations, [k for s in lowered.synapses if (k := _link(s)) is not None])
    step = round(timestep_ms * ONE)
    fitted = [
        fit(_layer(network, lowered, name, skew, substitutions), step, ring, max_steps, substitutions, violations)
        for name in lowered.populations
        if isinstance(network.nodes[name], ir.Neuron)
    ]
    populations, projections = _built(network, fitted, options.neurons_per_core)
    laid = lay(populations, projections, network.input, options.neurons_per_core, fabric, violations)
    output = network.nodes[network.output]
    assert isinstance(output, ir.Output)
    program = Program(
        chip=CHIP.name,
        dt=network.dt,
        populations=populations,
        projections=projections,
        input=network.input,
        output=lowered.output,
        skew=skew,
        scale={f.layer.name: f.unit for f in fitted},
        readout=output.readout,
        placement=laid.placement,
        budget=tuple(row for f in fitted for row in f.budget),
        substitutions=tuple(dict.fromkeys(substitutions)),
        image=laid.image,
    )
    check(program, boards, options.neurons_per_core, violations)
    if violations:
        raise DoesNotFit(f"the network does not fit {CHIP.name}", violations)
    if strict and substitutions:
        raise PrecisionLoss(f"{CHIP.name} needs approximations, which strict refuses", substitutions)
    return program


def _refuse_graded_sources(network: Network, lowered: Lowered) -> None:
    bad = [
        f"'{s.source}' ({type(network.nodes[s.source]).__name__}) sends its membrane to '{s.target}'; only spikes "
        "travel on the machine: use its spiking form, or read it out"
        for s in lowered.synapses
        if not isinstance(network.nodes[s.source], ir.Input) and not getattr(network.nodes[s.source], "spiking", False)
    ]
    if bad:
        raise UnsupportedNode(f"{CHIP.name} cannot hold this network", list(dict.fromkeys(bad)))


def _link(s: Synapses) -> Link | None:
    """The constraint that a path puts on the skews; None for a path without weights."""
    used = s.map.weight != 0
    if not used.any():
        return None
    return Link(s.source, s.target, int(np.broadcast_to(s.map.delay, used.shape)[used].min()), s.feedback)


def _layer(network: Network, lowered: Lowered, name: str, skew: dict[str, int], substitutions: list[str]) -> Layer:
    node = network.nodes[name]
    assert isinstance(node, ir.Neuron)
    raw = coefficients(node, network.dt, network.discretisation)
    c = Coefficients(*(np.asarray(a, dtype=np.float64).reshape(-1) for a in raw))
    incoming = []
    for s in lowered.synapses:
        if s.target != name:
            continue
        found = s.map.coordinates()
        there = found.value != 0
        delay = found.delay[there] + skew[name] - skew[s.source]
        if delay.size and delay.min() < 1:
            substitutions.append(
                f"'{s.source}' -> '{name}' closes a loop with fewer steps of delay than projections: its spikes arrive "
                f"up to {1 - int(delay.min())} step(s) late; add a Delay of that length to the loop to make it exact"
            )
        row, col = found.row[there].astype(np.int64), found.col[there].astype(np.int64)
        incoming.append(Incoming(s.name, s.node, s.source, row, col, found.value[there], np.maximum(delay, 1)))
    return Layer(name, node, c, tuple(incoming), lowered.biases[name], skew[name])


def _built(
    network: Network, fitted: list[Fitted], per_core: int
) -> tuple[dict[str, Population], tuple[Projection, ...]]:
    source = network.input
    populations = {source: Population(source, source, "input", network.shapes[source])}
    projections = []
    for f in fitted:
        name = f.layer.name
        layout = shape_of(f.layer.size, per_core).layout
        fields = {"index_bits": np.array(layout.index_bits), "delay_bits": np.array(layout.delay_bits)}
        populations[name] = Population(name, name, f.model, network.shapes[name], f.params | fields)
        for d, word in zip(f.layer.incoming, f.weights, strict=True):
            there = word != 0
            params = {"row": d.row[there], "col": d.col[there], "delay_steps": d.delay[there]}
            projections.append(Projection(d.name, d.node, d.source, name, "sparse", word[there], params))
    return populations, tuple(projections)


def _run(
    program: Program,
    dense: NDArray[np.uint8],
    probes: tuple[tuple[str, str], ...] = (),
    record_spikes: bool = True,
) -> Trace:
    from neuro.hardware.spinnaker1.batch import run  # numba loads with the first simulation, not with the compiler

    return run(program, dense, probes, record_spikes)


def _plain(program: Program, dense: NDArray[np.uint8], visit: Visit, timeout_s: float, folder: Path | None) -> None:
    from neuro.hardware.spinnaker1.plain import run

    run(program, dense, visit, timeout_s, folder)


def _version() -> str:
    from importlib.metadata import version

    return f"axonport {version('axonport')}"


ORACLES = {
    "plain": Oracle(
        "independent integer model, itself equal to the golden vectors of the sPyNNaker 7.4.1 kernels", _plain, _version
    )
}

TARGET = Target(
    chip=CHIP,
    compile=compile_network,
    run=_run,
    supports=SUPPORTS,
    refuses=REFUSES,
    oracles=ORACLES,
    exporters=("pynn",),
    messages=messages,
)
