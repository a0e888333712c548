"""SpiNNaker 2: how a `Network` becomes its populations and int8 synapses. The chip's data is chips/spinnaker2.toml.

No reference implementation is available here. Models, parameters and scales are those of py-spinnaker2 as it converts
NIR; what the chip does with them is written in contract.py and was compared with nobody else's account of it.

IF and LIF are "lif_no_delay" (8-bit weights), or "lif_conv2d" behind kernels; CubaLIF is "lif_curr_exp_no_delay". One
synapse with a delay beyond the step that every synapse takes makes it "lif" or "lif_curr_exp", whose weights have 4
bits and a sign. LI and CubaLI are the same with a threshold out of reach. Both resets exist on the chip.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from neuro import ir
from neuro.errors import ChipError, DoesNotFit, PrecisionLoss, UnsupportedNode, Violation
from neuro.hardware.lowering import Lowered, Synapses, lower
from neuro.hardware.place import Demand, Mesh, place
from neuro.hardware.program import Placement, Population, Program, Projection
from neuro.hardware.spinnaker2 import plain
from neuro.hardware.spinnaker2.contract import CHIP
from neuro.hardware.spinnaker2.fit import fit
from neuro.hardware.target import Oracle, Target
from neuro.hardware.timing import Link, skews
from neuro.hardware.trace import Trace
from neuro.ir import Network

SUPPORTS: dict[type[ir.Node], str] = {
    ir.Input: "spikes from outside, one step to the first synapses",
    ir.Output: "reads one population; spike counts, or sum, max, last of v",
    ir.Linear: "8-bit weights; with delays (up to 7 steps) 4 bits and a sign",
    ir.Affine: "as Linear; the bias becomes i_offset of the neuron",
    ir.Conv2d: "shared 8-bit kernels (lif_conv2d); a list of synapses where delays, groups, dilation or a synaptic "
    "current forbid it",
    ir.SumPool2d: "folded into the synapses behind it",
    ir.AvgPool2d: "folded into the synapses behind it",
    ir.Flatten: "no cost, row-major",
    ir.Scale: "folded into the synapses",
    ir.Delay: "delay of the synapses behind it, up to 7 steps",
    ir.IF: "lif_no_delay with alpha_decay 1; both resets",
    ir.LI: "lif_no_delay whose threshold is out of reach",
    ir.LIF: "lif_no_delay; both resets",
    ir.CubaLI: "lif_curr_exp_no_delay whose threshold is out of reach",
    ir.CubaLIF: "lif_curr_exp_no_delay; both resets",
}


def compile_network(network: Network, *, strict: bool = False, max_steps: int | None = None) -> Program:
    """A Network as SpiNNaker 2 holds it.

    Args:
        strict: refuse every approximation but rounding. max_steps: longest sample; float32 membranes need no bound,
            so it changes nothing.

    Raises:
        UnsupportedNode: parts with no counterpart, all of them. DoesNotFit: limits exceeded, all of them.
        PrecisionLoss: ``strict`` and a substitution would be needed. ChipError: an option out of range.
    """
    if max_steps is not None and (not isinstance(max_steps, (int, np.integer)) or max_steps < 1):
        raise ChipError(f"max_steps must be a positive integer or None, got {max_steps!r}")
    lowered = lower(network)
    _refuse_graded_sources(network, lowered)
    substitutions: list[str] = []
    skew = skews(lowered.populations, [k for s in lowered.synapses if (k := _link(s)) is not None])
    names = [n for n in lowered.populations if isinstance(network.nodes[n], ir.Neuron)]
    fitted = {n: fit(network, lowered, n, skew, substitutions) for n in names}
    source = network.input
    populations = {source: Population(source, source, "input", network.shapes[source])}
    populations |= {n: f.population for n, f in fitted.items()}
    projections = tuple(p for f in fitted.values() for p in f.projections)
    violations: list[Violation] = []
    placement = _limits(populations, projections, violations)
    if violations:
        raise DoesNotFit(f"the network does not fit {CHIP.name}", violations)
    if strict and substitutions:
        raise PrecisionLoss(f"{CHIP.name} needs approximations, which strict refuses", substitutions)
    output = network.nodes[network.output]
    assert isinstance(output, ir.Output)
    return Program(
        chip=CHIP.name,
        dt=network.dt,
        populations=populations,
        projections=projections,
        input=source,
        output=lowered.output,
        skew=skew,
        scale={n: f.scale for n, f in fitted.items()},
        readout=output.readout,
        placement=placement,
        budget=tuple(row for f in fitted.values() for row in f.budget),
        substitutions=tuple(dict.fromkeys(substitutions)),
    )


def _refuse_graded_sources(network: Network, lowered: Lowered) -> None:
    bad = [
        f"'{s.source}' ({type(network.nodes[s.source]).__name__}) sends its membrane to '{s.target}'; only spikes "
        "travel on the chip: use its spiking form, or read it out"
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


def _limits(
    populations: dict[str, Population], projections: tuple[Projection, ...], violations: list[Violation]
) -> Placement:
    """Place the neurons and collect every limit that is exceeded."""
    longest = CHIP.limit("delay_steps")
    for p in projections:
        steps = int(p.params["delay_steps"].max()) if "delay_steps" in p.params else 0
        if steps > longest:
            remedy = "Shorten the delay, use a longer dt, or pass it on through a relay population"
            violations.append(Violation(p.node, f"delay of '{p.name}' on the chip (steps)", steps, longest, remedy))
    cells = [p for p in populations.values() if p.model != "input"]
    demands = [_demand(p, [k for k in projections if k.target == p.name], populations) for p in cells]
    mesh = Mesh(CHIP.limit("mesh_width"), CHIP.limit("mesh_height"), CHIP.limit("cores_per_tile"))
    placement, too_large = place(demands, CHIP.limit("neurons_per_core"), 8 * CHIP.limit("synapse_memory"), mesh)
    violations += too_large
    inputs = next(p.size for p in populations.values() if p.model == "input")
    totals = {
        "cores": ("cores of one chip", placement.cores, "Use fewer or smaller layers, or pool more"),
        "routing_entries": (
            "routing entries (one per core and per 250 inputs)",
            placement.cores + -(-inputs // CHIP.limit("neurons_per_core")),
            "Use fewer inputs, or pool them",
        ),
    }
    violations += [
        Violation("network", said, wanted, CHIP.limit(name), remedy)
        for name, (said, wanted, remedy) in totals.items()
        if wanted > CHIP.limit(name)
    ]
    return placement


def _demand(population: Population, incoming: list[Projection], populations: dict[str, Population]) -> Demand:
    """Synapse memory. Of a list, its words and one entry for each source neuron; of a kernel, its channel's weights."""
    n = population.size
    own, channels = np.zeros(n, np.int64), population.shape[0] if population.model == "lif_conv2d" else 1
    shared = np.zeros(channels, np.int64)
    for p in incoming:
        if p.kind == "conv":
            shared += CHIP.limit("kernel_entry") * math.prod(p.weight_q.shape[1:])
            continue
        used = p.weight_q != 0
        count = used.sum(axis=1) if p.kind == "dense" else np.bincount(p.params["row"][used], minlength=n)
        own += CHIP.limit("synapse_word") * count
        shared += CHIP.limit("row_entry") * populations[p.source].size
    return Demand(population.name, own, np.arange(n) // (n // channels), shared)


def _run(
    program: Program,
    dense: NDArray[np.uint8],
    probes: tuple[tuple[str, str], ...] = (),
    record_spikes: bool = True,
) -> Trace:
    from neuro.hardware.spinnaker2.kernels import run  # numba loads with the first simulation, not with the compiler

    trace: Trace = run(program, dense, probes, record_spikes)
    return trace


TARGET = Target(
    chip=CHIP,
    compile=compile_network,
    run=_run,
    supports=SUPPORTS,
    oracles={"plain": Oracle(plain.TITLE, plain.run, plain.version)},
)
