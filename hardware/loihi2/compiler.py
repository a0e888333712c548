"""Intel Loihi 2: how a `Network` becomes its integers. The chip's data is chips/loihi2.toml.

Neurons: IF is dv = 0, du = 4095; LIF adds dv; CubaLIF adds du; LI and CubaLI are the same with the highest
threshold, which the chosen scale keeps out of reach. Gains of neuron and synapse fold into the weights, since
u on the chip stands for gain_mem * i::

    u[t] = alpha u[t-1] + gain_mem gain_syn W s[t];   v[t] = beta v[t-1] + u[t] + bias

What the chip cannot do exactly is replaced by the nearest it can, and every such `substitution` is listed in the
Program: reset by subtraction becomes reset to zero; a loop too tight for the chip's steps arrives late. What biases
and v_reset need at the start of a sample is given by a neuron that fires once, see `start`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuro import ir
from neuro.errors import ChipError, DoesNotFit, PrecisionLoss, UnsupportedNode, Violation
from neuro.hardware.arrange import Wanted, place_by
from neuro.hardware.chip import Chip
from neuro.hardware.loihi2 import start
from neuro.hardware.loihi2.beyond import Message, reads_of
from neuro.hardware.loihi2.layers import CHIP, Layer, Options, Settled, fit_layer, layer_of
from neuro.hardware.loihi2.oracles import ORACLES
from neuro.hardware.loihi2.registers import Fitted, Weights
from neuro.hardware.loihi2.start import START
from neuro.hardware.lowering import Lowered, Synapses, lower
from neuro.hardware.maps import Map
from neuro.hardware.place import Demand, Mesh
from neuro.hardware.program import Placement, Population, Program, Projection, QuantisationError
from neuro.hardware.target import Target
from neuro.hardware.timing import Link, skews
from neuro.hardware.trace import Trace
from neuro.ir import Network

IntArray = NDArray[np.int64]

SUPPORTS: dict[type[ir.Node], str] = {
    ir.Input: "spikes, or numbers up to 255, from outside; one step to the first synapses",
    ir.Output: "reads one population; spike counts, or sum, max, last of v",
    ir.Linear: "dense synapses, a list of them below a third of a matrix; 8-bit weights with a shared exponent, "
    "delays up to 62 steps",
    ir.Affine: "as Linear; the bias goes to the neuron's bias register",
    ir.Conv2d: "shared 8-bit kernels; a list of synapses where there are delays, or gains differ within a channel",
    ir.SumPool2d: "folded into the synapses behind it",
    ir.AvgPool2d: "folded into the synapses behind it",
    ir.Flatten: "no cost, row-major",
    ir.Scale: "folded into the synapses",
    ir.Delay: "delay of the synapses behind it, up to 62 steps",
    ir.IF: "LIF without leak; resets to zero",
    ir.LI: "LIF whose threshold is out of reach",
    ir.LIF: "LIF without synaptic current; resets to zero",
    ir.CubaLI: "LIF with synaptic current whose threshold is out of reach",
    ir.CubaLIF: "LIF with synaptic current; resets to zero",
    ir.TernaryLIF: "LIF with two thresholds; sends -1, 0, 1",
    ir.I: "sum of all it receives, sent in every step",
    ir.Delta: "delta encoder with graded messages",
    ir.SigmaDelta: "sigma-delta neuron with graded messages, ReLU or identity",
    ir.ResonateAndFire: "resonator of 24-bit real and imaginary part, 12-bit decays",
}


def compile_network(
    network: Network,
    *,
    strict: bool = False,
    start_up: bool = True,
    max_steps: int | None = None,
    readout_headroom: float = 1.0,
    placement: str = "contiguous",
) -> Program:
    """A Network as Loihi 2 integers.

    Args:
        strict: refuse every approximation but rounding.
        start_up: let a neuron that fires once set each population up when its sample arrives, where biases or
            v_reset need it (`start`). False: nothing is added, and what is wrong is listed.
        max_steps: longest sample, to bound sums that do not leak; None for any length.
        readout_headroom: share of the worst case that the membrane of a readout must hold. 1 guarantees that it
            never fires; less buys resolution, and the simulator reports it if it does fire.
        placement: "contiguous" slices of each population, or "traffic", which groups and places neurons so that
            messages cross fewer links (`neuro.hardware.arrange`); what is computed is the same.

    Raises:
        UnsupportedNode: parts with no counterpart, all of them. DoesNotFit: limits exceeded, all of them.
        PrecisionLoss: ``strict`` and a substitution would be needed. ChipError: an option out of range.
        MissingExtra: placement "traffic" without the extra ``place``.
    """
    options = Options(start_up, max_steps, readout_headroom)
    substitutions: list[str] = []
    violations: list[Violation] = []
    made = assemble(network, CHIP, options, substitutions, violations, lists=True)
    placed = _limits(made.populations, made.projections, violations, placement)
    return finish(network, CHIP, made, placed, substitutions, violations, strict)


@dataclass(frozen=True, eq=False)
class Assembled:
    """A network in integers, not placed yet; the fields of a `Program`."""

    populations: dict[str, Population]
    projections: tuple[Projection, ...]
    output: str
    skew: dict[str, int]
    scale: dict[str, float]
    budget: tuple[QuantisationError, ...]


def assemble(
    network: Network,
    chip: Chip,
    options: Options,
    substitutions: list[str],
    violations: list[Violation],
    *,
    kernels: bool = True,
    lists: bool = False,
) -> Assembled:
    """Populations and projections in the integers of a chip of this family.

    kernels: whether a convolution may stay a shared kernel; else it becomes a list of synapses. lists: whether a matrix
    with few synapses becomes a list of them, where that takes less memory.

    Raises:
        UnsupportedNode, ChipError: as `compile_network`. Whatever else is wrong goes to ``violations``.
    """
    if START in network.nodes:
        raise ChipError(f"'{START}' is the name of the neuron that starts samples on {chip.name}; rename that node")
    lowered = lower(network)
    _refuse_graded_sources(network, lowered, chip)
    skew = skews(lowered.populations, [k for s in lowered.synapses if (k := _link(s)) is not None])
    layers = {
        name: layer_of(network, lowered, name, skew, substitutions, kernels=kernels, lists=lists)
        for name in lowered.populations
        if isinstance(network.nodes[name], ir.Neuron)
    }
    messages = {network.input: Message(high=_high(network))}
    fitted = {}
    for name, layer in layers.items():  # sources first
        reads = _reads(name, layers, chip) if layer.node.graded else 1.0
        told = options, substitutions, violations, chip, messages
        fitted[name] = fit_layer(layer, lowered.biases[name], *told, reads)
        messages[name] = fitted[name].message
    populations, projections, budget = _build(network, fitted, skew)
    step = 1 << chip.limit("membrane_shift")
    scale = {name: f.registers.unit / step if f.scale is None else f.scale for name, f in fitted.items()}
    if START in populations:
        skew[START] = 0
    return Assembled(populations, projections, lowered.output, skew, scale, budget)


def finish(
    network: Network,
    chip: Chip,
    made: Assembled,
    placement: Placement,
    substitutions: list[str],
    violations: list[Violation],
    strict: bool,
) -> Program:
    """The Program, or the error that names everything that stands against it.

    Raises:
        DoesNotFit: violations. PrecisionLoss: ``strict``, and there are substitutions.
    """
    if violations:
        raise DoesNotFit(f"the network does not fit {chip.name}", violations)
    if strict and substitutions:
        raise PrecisionLoss(f"{chip.name} needs approximations, which strict refuses", substitutions)
    output = network.nodes[network.output]
    assert isinstance(output, ir.Output)
    return Program(
        chip=chip.name,
        dt=network.dt,
        populations=made.populations,
        projections=made.projections,
        input=network.input,
        output=made.output,
        skew=made.skew,
        scale=made.scale,
        readout=output.readout,
        placement=placement,
        budget=made.budget,
        substitutions=tuple(dict.fromkeys(substitutions)),
    )


def _high(network: Network) -> int:
    node = network.nodes[network.input]
    assert isinstance(node, ir.Input)
    return node.high


def _reads(name: str, layers: dict[str, Layer], chip: Chip) -> float:
    into: dict[str, list[Weights]] = {}
    for layer in layers.values():
        own = [d for d in layer.incoming if d.source == name]
        if own:  # everything that such a target adds up, so that what is left for this source is known
            into[layer.name] = [
                Weights(d.name, d.node, d.map.kind, d.map.weight, layer.size, d.map.row) for d in layer.incoming
            ]
    return reads_of(into, chip)


def _refuse_graded_sources(network: Network, lowered: Lowered, chip: Chip) -> None:
    order = {name: k for k, name in enumerate(lowered.populations)}
    bad = [
        f"'{s.source}' ({type(network.nodes[s.source]).__name__}) sends numbers back to '{s.target}', and "
        "nothing bounds what they add up to in a loop: send spikes back"
        for s in lowered.synapses
        if getattr(network.nodes[s.source], "graded", False)
        and not isinstance(network.nodes[s.source], ir.TernaryLIF)
        and order[s.source] >= order[s.target]
    ]
    bad += [
        f"'{s.source}' ({type(network.nodes[s.source]).__name__}) sends its membrane to '{s.target}'; only spikes "
        "travel on the chip: use its spiking form, or read it out"
        for s in lowered.synapses
        if not (isinstance(network.nodes[s.source], ir.Input) or _sends(network.nodes[s.source]))
    ]
    if bad:
        raise UnsupportedNode(f"{chip.name} cannot hold this network", list(dict.fromkeys(bad)))


def _sends(node: ir.Node) -> bool:
    return isinstance(node, ir.Neuron) and (node.spiking or node.graded)


def _link(s: Synapses) -> Link | None:
    """The constraint that a path puts on the skews; None for a path without weights."""
    used = s.map.weight != 0
    if not used.any():
        return None
    return Link(s.source, s.target, int(np.broadcast_to(s.map.delay, used.shape)[used].min()), s.feedback)


def _build(
    network: Network, fitted: dict[str, Settled], skew: dict[str, int]
) -> tuple[dict[str, Population], tuple[Projection, ...], tuple[QuantisationError, ...]]:
    source, bits = network.input, CHIP.formats["weight_mixed"].bits
    high = {"high": np.array(_high(network))} if _high(network) > 1 else {}
    populations = {source: Population(source, source, "input", network.shapes[source], high)}
    sends = {source: Message(high=_high(network))} | {name: f.message for name, f in fitted.items()}
    projections: list[Projection] = []
    budget: list[QuantisationError] = []
    if any(f.pulses for f in fitted.values()):
        populations[START] = start.population()
        projections.append(start.own_projection(bits))
    for name, f in fitted.items():
        kernels = [d.map.out_shape for d in f.layer.incoming if d.map.kind == "conv"]
        shape = kernels[0] if kernels else network.shapes[name]  # a flat population behind a kernel keeps its planes
        populations[name] = Population(name, name, f.model, shape, f.registers.params)
        for d, q in zip(f.layer.incoming, f.registers.fitted, strict=True):
            params = _conv_params(d.map) if d.map.kind == "conv" else _list_params(d.map, q, bits)
            if sends[d.source].bits:
                params["num_message_bits"] = np.array(sends[d.source].bits)
            projections.append(Projection(d.name, d.node, d.source, name, d.map.kind, q.weight_q, params))
        projections += start.projections(name, f.pulses, bits)
        budget += [*f.registers.budget, *f.budget]
    return populations, tuple(projections), tuple(budget)


def _conv_params(m: Map) -> dict[str, IntArray]:
    return {
        "stride": np.array(m.stride),
        "padding": np.array(m.padding),
        "dilation": np.array(m.dilation),
        "groups": np.array(m.groups),
    }


def _list_params(m: Map, q: Fitted, bits: int) -> dict[str, IntArray]:
    params = {
        "weight_exp": np.array(q.weight_exp),
        "num_weight_bits": np.array(bits),
        "sign_mode": np.array(q.sign_mode),
    }
    if m.kind == "sparse":
        assert m.row is not None
        assert m.col is not None
        params |= {"row": m.row, "col": m.col}
    delay = np.where(q.weight_q != 0, np.broadcast_to(m.delay, q.weight_q.shape), 0)  # no synapse, no delay
    return params | ({"delay_steps": delay} if delay.any() else {})


def _limits(
    populations: dict[str, Population], projections: tuple[Projection, ...], violations: list[Violation], how: str
) -> Placement:
    """Place the neurons and collect every limit that is exceeded."""
    longest = CHIP.limit("delay_steps")
    for p in projections:
        steps = int(p.params["delay_steps"].max()) if "delay_steps" in p.params else 0
        if steps > longest:
            violations.append(
                Violation(
                    p.node,
                    f"delay of '{p.name}' on the chip (steps)",
                    steps,
                    longest,
                    "Shorten the delay, use a longer dt, or pass it on through a relay population",
                )
            )
    demands = [
        _demand(p, [k for k in projections if k.target == p.name]) for p in populations.values() if p.model != "input"
    ]
    mesh = Mesh(CHIP.limit("mesh_width"), CHIP.limit("mesh_height"), CHIP.limit("cores_per_tile"))
    room = CHIP.limit("neurons_per_core"), 8 * CHIP.limit("core_memory")
    placement, too_large = place_by(how, Wanted(demands, populations, projections, *room, mesh))
    violations += too_large
    totals = {
        "cores": (placement.cores, "Use fewer or smaller layers, or pool more"),
        "neurons": (sum(d.size for d in demands), "Use fewer neurons"),
        "synapses": (sum(p.weight_q.size for p in projections), "Prune, pool or share kernels"),
    }
    violations += [
        Violation("network", f"{name} of one chip", wanted, CHIP.limit(name), remedy)
        for name, (wanted, remedy) in totals.items()
        if wanted > CHIP.limit(name)
    ]
    return placement


def _demand(population: Population, incoming: list[Projection]) -> Demand:
    n = population.size
    state = {"sigma_delta": "neuron_state_sigma_delta", "delta": "neuron_state_sigma_delta"}
    own = np.full(n, 8 * CHIP.limit(state.get(population.model, "neuron_state")), np.int64)
    channels = population.shape[0] if len(population.shape) == 3 else 1
    kernel_bits = np.zeros(channels, np.int64)
    for p in incoming:
        entry = CHIP.limit("synapse_entry") + ("delay_steps" in p.params) * CHIP.limit("delay_entry")
        if p.kind == "conv":
            kernel_bits += entry * math.prod(p.weight_q.shape[1:])
        elif p.kind == "dense":
            own += entry * p.weight_q.shape[1]
        else:
            own += (entry + CHIP.limit("index_entry")) * np.bincount(p.params["row"], minlength=n)
    return Demand(population.name, own, np.arange(n) // (n // channels), kernel_bits)


def _run(
    program: Program,
    dense: NDArray[np.uint8],
    probes: tuple[tuple[str, str], ...] = (),
    record_spikes: bool = True,
) -> Trace:
    from neuro.hardware.loihi2.kernels import run  # numba loads with the first simulation, not with the compiler

    trace: Trace = run(program, dense, probes, record_spikes)
    return trace


TARGET = Target(
    chip=CHIP,
    compile=compile_network,
    run=_run,
    supports=SUPPORTS,
    oracles=ORACLES,
    exporters=("lava",),
    high=255,
)
