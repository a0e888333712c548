"""IBM TrueNorth: how a `Network` becomes crossbar cores. The chip's data is chips/truenorth.toml.

An IF neuron is a neuron of the chip; its weights are put into four values (weights.py), its threshold, reset and
bias into registers (registers.py), so that nothing is lost where the network was trained for it. Neurons are copied
for every axon that they feed (cores.py). Every connection takes at least one tick; paths that skip layers are
delayed so that all arrives together, as `neuro.hardware.timing` says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from neuro import ir
from neuro.errors import ChipError, DoesNotFit, PrecisionLoss, UnsupportedNode, Violation
from neuro.extend import did_you_mean
from neuro.hardware.lowering import Lowered, lower
from neuro.hardware.program import Placement, Population, Program, Projection
from neuro.hardware.target import Target
from neuro.hardware.timing import Link, skews
from neuro.hardware.trace import Trace
from neuro.hardware.truenorth.bank import OVERFLOW
from neuro.hardware.truenorth.cores import Core, Packer, fed, lines_of, settle
from neuro.hardware.truenorth.image import Layout, arrange, write
from neuro.hardware.truenorth.layers import Notes, Starter, gather, group_of, wish_of
from neuro.hardware.truenorth.logical import Group
from neuro.hardware.truenorth.plain import ORACLE
from neuro.hardware.truenorth.registers import BETA, CHIP
from neuro.hardware.truenorth.relays import pass_on
from neuro.hardware.truenorth.split import split
from neuro.ir import Network

IntArray = NDArray[np.int64]
LEAKS = ("refuse", "linear")
NO_DECAY = "TrueNorth has no exponential decay"

SUPPORTS: dict[type[ir.Node], str] = {
    ir.Input: "packets into any number of axons, one tick to the first synapses",
    ir.Output: "reads one population of IF; spike counts only",
    ir.Linear: "crossbar; weights are sums of subsets of four 9-bit values per neuron, delays up to 15 ticks in all",
    ir.Affine: "as Linear; the bias is the neuron's leak",
    ir.Conv2d: "crossbars, one per block of pixels",
    ir.SumPool2d: "folded into the synapses behind it",
    ir.AvgPool2d: "folded into the synapses behind it",
    ir.Flatten: "no cost, row-major",
    ir.Scale: "folded into the synapses",
    ir.Delay: "delay of the synapses behind it; relay neurons where it is longer than 15 ticks",
    ir.IF: "a neuron and its copies, one for every axon that it feeds; both resets exact",
    ir.LIF: "only with leak='linear', which replaces the exponential decay",
}
REFUSES: dict[type[ir.Node], str] = dict.fromkeys(
    (ir.LI, ir.CubaLI), f"{NO_DECAY} and nothing reads a membrane out: end in IF and read its spike count"
) | {ir.CubaLIF: f"{NO_DECAY}: train with IF neurons (preset of truenorth)"}


@dataclass(frozen=True)
class Options:
    max_steps: int | None
    leak: str
    split_fan_in: bool
    chips: tuple[int, int]
    overflow: str

    def __post_init__(self) -> None:
        bad = []
        if self.max_steps is not None and (not isinstance(self.max_steps, (int, np.integer)) or self.max_steps < 1):
            bad.append(f"max_steps must be a positive integer or None, got {self.max_steps!r}")
        for name, value, known in (("leak", self.leak, LEAKS), ("overflow", self.overflow, OVERFLOW)):
            if value not in known:
                bad.append(f"{name} has no '{value}'. {did_you_mean(str(value), known)}")
        if not isinstance(self.split_fan_in, bool):
            bad.append(f"split_fan_in must be True or False, got {self.split_fan_in!r}")
        chips = self.chips
        if not (isinstance(chips, tuple) and len(chips) == 2 and all(isinstance(k, int) and k > 0 for k in chips)):
            bad.append(f"chips must be a pair of positive integers, got {chips!r}")
        if bad:
            raise ChipError("compile options cannot be used", bad)

    @property
    def mesh(self) -> tuple[int, int]:
        return CHIP.limit("mesh_width") * self.chips[0], CHIP.limit("mesh_height") * self.chips[1]


def compile_network(
    network: Network,
    *,
    strict: bool = False,
    max_steps: int | None = None,
    leak: str = "refuse",
    split_fan_in: bool = False,
    chips: tuple[int, int] = (1, 1),
    overflow: str = "saturate",
) -> Program:
    """A Network as TrueNorth cores.

    Args:
        strict: refuse every approximation but rounding.
        max_steps: longest sample, to show that no membrane leaves its range; None for any length.
        leak: "linear" replaces the exponential decay of LIF by a constant leak towards zero.
        split_fan_in: let neurons that add up parts of the inputs, and pass them on as spikes, stand in for a neuron
            with more inputs than a core has axons.
        chips: tiles of 64 x 64 cores, across and down. overflow: "saturate" or "wrap", what V does beyond 20 bits.

    Raises:
        UnsupportedNode: parts with no counterpart, all of them. DoesNotFit: limits exceeded, all of them.
        PrecisionLoss: ``strict`` and a substitution would be needed. ChipError: an option out of range.
    """
    options = Options(max_steps, leak, split_fan_in, chips, overflow)
    _refuse(network, options)
    lowered = lower(network)
    relayed: frozenset[str] = frozenset()
    divided: frozenset[str] = frozenset()
    while True:
        attempt = _attempt(network, lowered, options, relayed, divided)
        wide = {v.node for v in attempt.notes.wide} - divided
        if options.split_fan_in and wide:
            divided |= wide
            continue
        more = attempt.crowded - relayed
        if attempt.settled or not more:
            break
        relayed |= {max(sorted(more), key=lambda name: attempt.load[name])}
    return _program(network, lowered, options, attempt, strict)


def _refuse(network: Network, options: Options) -> None:
    bad = []
    for name in network.of(ir.LIF):
        if options.leak != "linear":
            bad.append(f"'{name}' is a LIF; {NO_DECAY}: train with IF neurons, or compile with leak='linear'")
    output = network.nodes[network.output]
    assert isinstance(output, ir.Output)
    if output.readout != "count":
        bad.append(
            f"'{network.output}' reads the {output.readout} of membranes; nothing reads a membrane out of {CHIP.name}: "
            "use Output('count') behind IF neurons"
        )
    if bad:
        raise UnsupportedNode(f"{CHIP.name} cannot hold this network", bad)


@dataclass(eq=False)
class _Attempt:
    """One way of laying a network out. crowded: populations that relays could help; load: their copies."""

    groups: list[Group | None]
    names: list[str]
    unit: dict[str, float]
    skew: dict[str, int]
    packers: list[Packer | None]
    cores: list[list[Core]]
    settled: bool
    crowded: frozenset[str]
    load: dict[str, int]
    notes: Notes


def _attempt(
    network: Network, lowered: Lowered, options: Options, relayed: frozenset[str], divided: frozenset[str]
) -> _Attempt:
    notes = Notes()
    skew = skews(lowered.populations, _links(lowered, relayed, divided))
    groups: list[Group | None] = []
    unit: dict[str, float] = {}
    depth = skew[lowered.output]
    starter = Starter(lowered.populations.index(network.input), math.prod(network.shapes[network.input]))
    for name in lowered.populations:
        if isinstance(network.nodes[name], ir.Input):
            groups.append(None)
            continue
        wish = wish_of(network, name, lowered.biases[name], skew[name], notes)
        reals = gather(network, lowered, name, skew, wish.gain, notes)
        ticks = None if options.max_steps is None else options.max_steps + depth
        group, units = group_of(network, name, reals, wish, ticks, None if name in divided else starter, notes)
        groups.append(group)
        unit[name] = float(np.median(units))
    names, taken = list(lowered.populations), set(lowered.populations) | set(network.nodes)
    for g, name in enumerate(lowered.populations):
        if name in divided:
            _divide(groups, names, skew, g, taken, notes)
    notes.violations.extend(v for v in notes.wide if v.node not in divided)
    longest = CHIP.limit("delay_steps")
    for g, name in enumerate(lowered.populations):
        if name in relayed:
            _named(groups, names, skew, pass_on(groups, g, 1, 2, taken), g, 1)
    g = 0
    while g < len(groups):  # relays of relays, until no delay is too long
        if groups[g] is not None:
            _named(groups, names, skew, pass_on(groups, g, longest, longest + 1, taken), g, longest)
        g += 1
    packers = [None if k is None else Packer(k, *_size(), BETA) for k in groups]
    output = lowered.populations.index(lowered.output)
    least = [
        np.full(starter.channel + 1 if group is None else group.size, int(k == output))
        for k, group in enumerate(groups)
    ]
    limit = options.mesh[0] * options.mesh[1]
    cores, settled = settle(packers, least, limit) if not notes.violations else ([[] for _ in packers], True)
    wanted = fed(packers, cores, least)
    crowded = {
        names[k]
        for k, p in enumerate(packers)
        if p is not None and wanted[k].max(initial=0) > 1 and names[k] in lowered.populations
    }
    load = {names[k]: int(w.sum()) for k, w in enumerate(wanted)}
    if not settled:
        notes.violations.append(_too_many(cores, names, limit))
    return _Attempt(groups, names, unit, skew, packers, cores, settled, frozenset(crowded), load, notes)


def _size() -> tuple[int, int]:
    return CHIP.limit("axons_per_core"), CHIP.limit("neurons_per_core")


def _named(
    groups: list[Group | None], names: list[str], skew: dict[str, int], new: int | None, g: int, ticks: int
) -> None:
    if new is not None:
        group = groups[new]
        assert group is not None
        names.append(group.name)
        skew[group.name] = skew[names[g]] + ticks


def _links(lowered: Lowered, relayed: frozenset[str], divided: frozenset[str]) -> list[Link]:
    """Constraints on the skews; a relay takes one more tick of whatever leaves its population, and parts one of
    whatever enters theirs."""
    links = []
    for s in lowered.synapses:
        used = s.map.weight != 0
        if used.any():
            least = int(np.broadcast_to(s.map.delay, used.shape)[used].min())
            taken = (s.source in relayed) + (s.target in divided)
            links.append(Link(s.source, s.target, least - (0 if s.feedback else taken), s.feedback))
    return links


def _divide(
    groups: list[Group | None], names: list[str], skew: dict[str, int], g: int, taken: set[str], notes: Notes
) -> None:
    """Put parts between a group and its inputs; what they take of the delay is on the skews already."""
    group, name = groups[g], f"{names[g]}:parts"
    assert group is not None
    while name in taken:
        name += "'"
    taken.add(name)
    if (group.wires.delay < 2).any():
        notes.substitutions.append(f"'{names[g]}': a loop has no tick to spare for parts of its inputs: one tick late")
    wires = replace(group.wires, delay=np.maximum(group.wires.delay - 1, 1))
    found = split(replace(group, wires=wires), len(groups), lines_of(wires).of_wire, name, _size()[0])
    groups[g] = found.whole
    notes.substitutions.append(
        f"'{names[g]}': its neurons have more inputs than a core has axons; {found.parts.size} neurons add up parts of "
        f"them and pass them on in lumps of up to {int(found.lump.max())} steps of its weights, one per tick and part"
    )
    groups.append(found.parts)
    names.append(name)
    skew[name] = skew[names[g]] - 1


def _too_many(cores: list[list[Core]], names: list[str], limit: int) -> Violation:
    largest = max(range(len(cores)), key=lambda k: len(cores[k]))
    return Violation(
        "network",
        f"cores ('{names[largest]}' alone: {len(cores[largest])})",
        f"over {limit}" if sum(map(len, cores)) > limit else "growing without end",
        limit,
        "A neuron is copied for every core that it feeds: use fewer or narrower layers, convolutions with fewer "
        "channels and larger strides, sparser recurrent weights, a Delay in loops (relays need a tick), or more "
        "chips=(across, down)",
    )


def _program(network: Network, lowered: Lowered, options: Options, done: _Attempt, strict: bool) -> Program:
    notes = done.notes
    if notes.violations:
        raise DoesNotFit(f"the network does not fit {CHIP.name}", notes.violations)
    substitutions = tuple(dict.fromkeys(notes.substitutions))
    if strict and substitutions:
        raise PrecisionLoss(f"{CHIP.name} needs approximations, which strict refuses", substitutions)
    total = sum(map(len, done.cores))
    xy = arrange(total, *options.mesh)
    output = lowered.populations.index(lowered.output)
    starter = math.prod(network.shapes[network.input])
    layout = write(done.packers, done.cores, done.names, output, xy, options.overflow, _size(), starter)
    return Program(
        chip=CHIP.name,
        dt=network.dt,
        populations=_populations(network, done),
        projections=_projections(network, lowered, done),
        input=network.input,
        output=lowered.output,
        skew=done.skew,
        scale={name: done.unit.get(name, 1.0) for name in done.names if name != network.input},
        readout="count",
        placement=_placement(layout, done, network.input),
        budget=tuple(notes.budget),
        substitutions=substitutions,
        image=layout.image,
    )


def _placement(layout: Layout, done: _Attempt, given: str) -> Placement:
    width = CHIP.limit("neurons_per_core")
    core_of = {name: layout.image[f"slot:{name}"].astype(np.int64) // width for name in done.names if name != given}
    return Placement(core_of, layout.image["xy"].astype(np.int64), layout.use)


def _populations(network: Network, done: _Attempt) -> dict[str, Population]:
    """Registers of every neuron, as the chip has them; s0..s3 are its values by axon type, "held" the ticks for which
    the host takes its leak back."""
    start = math.prod(network.shapes[network.input])
    found = {network.input: Population(network.input, network.input, "input", network.shapes[network.input])}
    for group in done.groups:
        if group is not None:
            values = {f"s{k}": group.values[:, k] for k in range(group.values.shape[1])}
            held = np.zeros(group.size, np.int64)
            by_host = _by_host(done, network.input, start, group)
            held[group.wires.row[by_host]] = group.wires.delay[by_host]
            params = {**group.registers, **values, "beta": np.array(BETA), "held": held}
            found[group.name] = Population(group.name, group.node, "truenorth", group.shape, params)
    return found


def _by_host(done: _Attempt, given: str, start: int, group: Group) -> NDArray[np.bool_]:
    """Wires by which the host takes a leak back; the first channel that is none of the network's."""
    found: NDArray[np.bool_] = (group.wires.source == done.names.index(given)) & (group.wires.neuron == start)
    return found


def _projections(network: Network, lowered: Lowered, done: _Attempt) -> tuple[Projection, ...]:
    """The network in effective integer weights; delay_steps counts ticks from spike to synapse, 1 or more."""
    nodes = {(s.source, s.target): s.node for s in lowered.synapses}
    start = math.prod(network.shapes[network.input])
    found = []
    for group in done.groups:
        if group is None:
            continue
        for g in np.unique(group.wires.source).tolist():
            mine = (group.wires.source == g) & ~_by_host(done, network.input, start, group)
            wires = group.wires.take(mine)
            name, node = done.names[g], nodes.get((done.names[g], group.name), group.name)
            params = {"row": wires.row, "col": wires.neuron, "delay_steps": wires.delay}
            projection = Projection(f"{name}->{group.name}", node, name, group.name, "sparse", wires.weight, params)
            found.append(projection)
    return tuple(found)


def _run(
    program: Program,
    dense: NDArray[np.uint8],
    probes: tuple[tuple[str, str], ...] = (),
    record_spikes: bool = True,
) -> Trace:
    from neuro.hardware.truenorth.run import run  # numba loads with the first simulation, not with the compiler

    return run(program, dense, probes, record_spikes)


TARGET = Target(
    chip=CHIP,
    compile=compile_network,
    run=_run,
    supports=SUPPORTS,
    oracles={"plain": ORACLE},
    refuses=REFUSES,
    exporters=("ranc",),
)
