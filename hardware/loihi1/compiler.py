"""Intel Loihi 1: how a `Network` becomes its integers. The chip's data is chips/loihi1.toml.

The registers are those of Loihi 2 without a synapse memory shared by a convolution (`neuro.hardware.loihi2.compiler`
says what each node becomes). Three published accounts of the chip's arithmetic differ; ``preset`` says whose is meant:

- "lava": as Lava's bit-accurate process models, which simulate and certify it;
- "nengo": nengo-loihi's emulator: the sum of a step wraps to 22 bits, currents to 24, and v saturates;
- "brian2loihi": brian2-loihi's: no limits of width, no bias.

Weights keep exponents of 0 and more, where the three agree on what a spike adds to the current.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neuro import ir
from neuro.errors import ChipError, UnsupportedNode, Violation
from neuro.extend import did_you_mean
from neuro.hardware.chip import CHIP_FOLDER, Chip, read_chip
from neuro.hardware.loihi1.contract import BRIAN2LOIHI, LAVA, NENGO, PRESETS, effective, preset_of
from neuro.hardware.loihi1.cores import place_cores
from neuro.hardware.loihi2 import oracles as lava
from neuro.hardware.loihi2.compiler import Assembled, assemble, finish
from neuro.hardware.loihi2.layers import Options
from neuro.hardware.program import IntArray, Population, Program, Projection
from neuro.hardware.target import Oracle, Target, Visit
from neuro.hardware.trace import Trace
from neuro.ir import Network

CHIP: Chip = read_chip(CHIP_FOLDER / "loihi1.toml")
LIMIT = (1 << 23) - 1

SUPPORTS: dict[type[ir.Node], str] = {
    ir.Input: "spikes from outside, one step to the first synapses",
    ir.Output: "reads one population; spike counts, or sum, max, last of v",
    ir.Linear: "synapses with 8-bit weights and a shared exponent, delays up to 62 steps",
    ir.Affine: "as Linear; the bias goes to the neuron's bias register (not with preset brian2loihi)",
    ir.Conv2d: "a list of synapses",
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
}


def compile_network(
    network: Network,
    *,
    preset: str = "lava",
    strict: bool = False,
    start_up: bool = True,
    max_steps: int | None = None,
    readout_headroom: float = 1.0,
) -> Program:
    """A Network as Loihi 1 integers.

    Args:
        preset: "lava", "nengo" or "brian2loihi", see above. The others: as for Loihi 2
            (`neuro.hardware.loihi2.compiler.compile_network`).

    Raises:
        UnsupportedNode: parts with no counterpart, all of them. DoesNotFit: limits exceeded, all of them.
        PrecisionLoss: ``strict`` and a substitution would be needed. ChipError: an option out of range.
    """
    if preset not in PRESETS:
        raise ChipError(f"unknown preset '{preset}' of {CHIP.name}. {did_you_mean(preset, PRESETS)}")
    substitutions: list[str] = []
    violations: list[Violation] = []
    options = Options(start_up, max_steps, readout_headroom)
    made = assemble(network, CHIP, options, substitutions, violations, kernels=False)
    if PRESETS[preset] != LAVA:
        made = _translated(made, PRESETS[preset], substitutions)
    _delays(made.projections, violations)
    placement, too_much = place_cores(made.populations, made.projections, CHIP)
    violations += too_much
    if placement.cores > CHIP.limit("cores"):
        remedy = "Use fewer or smaller layers, or pool more"
        violations.append(Violation("network", "cores of one chip", placement.cores, CHIP.limit("cores"), remedy))
    return finish(network, CHIP, made, placement, substitutions, violations, strict)


def _delays(projections: tuple[Projection, ...], violations: list[Violation]) -> None:
    longest = CHIP.limit("delay_steps")
    for p in projections:
        steps = int(p.params["delay_steps"].max(initial=0)) if "delay_steps" in p.params else 0
        if steps > longest:
            remedy = "Shorten the delay, use a longer dt, or pass it on through a relay population"
            violations.append(Violation(p.node, f"delay of '{p.name}' on the chip (steps)", steps, longest, remedy))


def _translated(made: Assembled, preset: int, substitutions: list[str]) -> Assembled:
    """The same network in the registers of another account of the chip."""
    populations = {n: _population(p, preset) for n, p in made.populations.items()}
    projections = tuple(_listed(p) for p in made.projections)
    for p in projections:
        meant, kept = p.weight_q << (6 + p.params["weight_exp"]), effective(p, preset)
        if (meant != kept).any():
            off = int(np.abs(meant - kept).max())
            substitutions.append(
                f"{int((meant != kept).sum())} weight(s) of '{p.name}' are beyond the range of this preset and "
                f"saturate, the worst by {off} of {int(np.abs(meant).max())} units of u"
            )
    if preset == NENGO:
        _note_wrap(populations, projections, substitutions)
    return Assembled(populations, projections, made.output, made.skew, made.scale, made.budget)


def _population(population: Population, preset: int) -> Population:
    if population.model == "input":
        return population
    p = population.params
    bias = p["bias_mant"] << p["bias_exp"]
    if preset == BRIAN2LOIHI and bias.any():
        raise UnsupportedNode(
            f"'{population.name}' has a bias (or v_leak), and preset brian2loihi has no bias register: use preset lava "
            "or nengo, or train without biases"
        )
    params = {
        "preset": np.array(preset),
        "decay_u": p["du"] + (preset == BRIAN2LOIHI),
        "decay_v": p["dv"],
        "threshold": p["vth"] << CHIP.limit("membrane_shift"),
        "bias": bias,
        "refractory": np.array(1),
        "v_min": np.array(-LIMIT),
        "v_max": np.array(LIMIT),
    }
    return Population(population.name, population.node, population.model, population.shape, params)


def _listed(p: Projection) -> Projection:
    """A matrix as a list of its synapses."""
    if p.kind == "sparse":
        return p
    row, col = np.nonzero(p.weight_q)
    params = {k: v for k, v in p.params.items() if k != "delay_steps"} | {"row": row, "col": col}
    if "delay_steps" in p.params:
        params["delay_steps"] = np.broadcast_to(p.params["delay_steps"], p.weight_q.shape)[row, col]
    return Projection(p.name, p.node, p.source, p.target, "sparse", p.weight_q[row, col], params)


def _note_wrap(
    populations: dict[str, Population], projections: tuple[Projection, ...], substitutions: list[str]
) -> None:
    """nengo's 22 bits hold less than the compiler made room for: say where a full step could wrap."""
    room = 1 << (CHIP.limit("input_bits") - 1)
    for population in populations.values():
        most: IntArray = np.zeros(population.size, np.int64)
        for p in projections:
            if p.target == population.name:
                most += np.bincount(p.params["row"], np.abs(effective(p, NENGO)), population.size).astype(np.int64)
        if most.max(initial=0) >= room:
            substitutions.append(
                f"'{population.name}' may receive up to {int(most.max())} units of u in one step if all its inputs "
                f"fire together; preset nengo wraps beyond {room - 1}"
            )


def _run(
    program: Program,
    dense: NDArray[np.uint8],
    probes: tuple[tuple[str, str], ...] = (),
    record_spikes: bool = True,
) -> Trace:
    if preset_of(program) == LAVA:
        from neuro.hardware.loihi2.kernels import run as run_lava

        trace: Trace = run_lava(program, dense, probes, record_spikes)
        return trace
    from neuro.hardware.loihi1.kernels import run

    return run(program, dense, probes, record_spikes)


PLAIN = "independent model in unbounded integers, itself equal to the golden vectors of {}"


def _oracle(
    program: Program, dense: NDArray[np.uint8], visit: Visit, timeout_s: float, folder: Path | None
) -> str | None:
    """Lava itself for its own preset; for the others the model that equals what their tools recorded."""
    preset = preset_of(program)
    if preset == LAVA:
        asked = lava.ORACLES["lava"]
        return f"{asked.run(program, dense, visit, timeout_s, folder) or asked.title} ({asked.version()})"
    from neuro.hardware.loihi1.plain import simulate

    for k in range(dense.shape[1]):
        visit(k, simulate(program, dense[:, k], preset == NENGO))
    return PLAIN.format("nengo-loihi" if preset == NENGO else "brian2-loihi")


TARGET = Target(
    chip=CHIP,
    compile=compile_network,
    run=_run,
    supports=SUPPORTS,
    oracles={"preset": Oracle("what the program's preset imitates", _oracle, lambda: "")},
    exporters=("lava",),
)
