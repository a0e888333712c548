"""Run a compiled program in SANA-FE: the same network, placement and input, by its own simulator.

SANA-FE is GPL and never a part of this project: it is imported where it is installed (`pip install sanafe==2.2.9`),
and only here, in tests and proofs. Populations must be integrate-and-fire (no leak, no current memory), weights
positive or negative integers without delay, so that its floats are exact and both simulators do the same thing.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from neuro import ir
from neuro.hardware import compile as compile_network
from neuro.hardware import estimate, simulate
from neuro.hardware.chip import CHIP_FOLDER, read_chip
from neuro.hardware.predict import predict

FORCED = {"reset": 0.0, "leak_decay": 1.0, "force_update": True}  # an integrate-and-fire neuron, updated every step
MESSAGE, EAST_WEST, NORTH_SOUTH = 111e-12, 3.0e-12, 4.2e-12  # joules in its arch/loihi.yaml, to take inputs out


def sanafe_version() -> str:
    """Raises ImportError where it is not installed."""
    from importlib.metadata import version

    import sanafe  # noqa: F401

    return version("sanafe")


def run_sanafe(program: Any, dense: Any, steps: int) -> dict[str, float]:
    """One sample, dense uint8[steps, n], in SANA-FE 2.2.9 with its own Loihi: what it counted, and its joules.

    Input neurons stand on a core of their own and cost nothing there; their messages, which a chip's estimate books
    as injected, are counted and priced apart.
    """
    found = loaded(program, dense, steps).sim(steps, timing_model="detailed", message_trace=True)
    return _sorted(found, program.input, int(dense.sum()))


def loaded(program: Any, dense: Any, steps: int) -> Any:
    """SANA-FE's chip with the program and one sample in it, ready to run once."""
    import sanafe

    arch = sanafe.load_loihi()
    cores = arch.cores()
    place = program.placement
    at = _core_at(program)
    net = sanafe.Network()
    groups: dict[str, Any] = {}
    for name, p in program.populations.items():
        if p.model == "input":
            groups[name] = _inputs(net, name, p.size, dense, steps, cores[-1])
            continue
        group = net.create_neuron_group(name, p.size, model_attributes=dict(FORCED), soma_hw_name="loihi_lif")
        threshold = np.broadcast_to(p.params["vth"], p.size)
        for i in range(p.size):
            group.neurons[i].set_attributes(model_attributes={"threshold": float(threshold[i]) * 64})
            group.neurons[i].map_to_core(cores[at[int(place.core_of[name][i])]])
        groups[name] = group
    for k in program.projections:
        scale = 64.0 * 2.0 ** int(k.params["weight_exp"])
        for j, i in np.argwhere(k.weight_q):
            groups[k.source].neurons[int(i)].connect_to_neuron(
                groups[k.target].neurons[int(j)], {"weight": float(k.weight_q[j, i]) * scale}
            )
    chip = sanafe.SpikingChip(arch)
    chip.load(net)
    return chip


def _sorted(result: Any, source: str, injected: int) -> dict[str, float]:
    found = dict.fromkeys(("packets", "hops_east_west", "hops_north_south", "in_packets", "in_joules"), 0.0)
    for step in result["message_trace"]:
        for m in step:
            if m["placeholder"]:
                continue
            x, y = abs(m["src_x"] - m["dest_x"]), abs(m["src_y"] - m["dest_y"])
            if m["src_neuron_group_id"] == source:
                found["in_packets"] += 1
                found["in_joules"] += MESSAGE + x * EAST_WEST + y * NORTH_SOUTH
            else:
                found["packets"] += 1
                found["hops_east_west"] += x
                found["hops_north_south"] += y
    energy = result["energy"]
    return found | {
        "synops": float(result["spikes"]),
        "updates": float(result["neurons_updated"] - injected),  # an input neuron is updated when it fires
        "spikes": float(result["neurons_fired"] - injected),
        "joules": float(energy["total"]) - found["in_joules"],
        "hops": found["hops_east_west"] + found["hops_north_south"],
        "joules_synapse": float(energy["synapse"]),
        "joules_soma": float(energy["soma"]),
        "seconds": float(result["sim_time"]),
    }


def _core_at(program: Any) -> list[int]:
    """Our cores as SANA-FE numbers them: its tiles count along y first, four cores each."""
    seen: dict[tuple[int, int], int] = {}
    found = []
    for x, y in program.placement.xy.tolist():
        nth = seen.get((x, y), 0)
        seen[(x, y)] = nth + 1
        found.append((x * 4 + y) * 4 + nth)
    return found


def _inputs(net: Any, name: str, n: int, dense: Any, steps: int, core: Any) -> Any:
    group = net.create_neuron_group(name, n, soma_hw_name="loihi_inputs[0]")
    for i in range(n):
        train = [bool(x) for x in dense[:, i]] + [False] * (steps - len(dense))
        group.neurons[i].set_attributes(soma_hw_name=f"loihi_inputs[{i}]", model_attributes={"spikes": train})
        group.neurons[i].map_to_core(core)
    return group


def spread_out(program: Any, cores: int, rng: Any) -> Any:
    """The same program with its neurons spread at random over the first cores of the chip, so that messages travel."""
    fabric_xy = np.array([(c // 4 % 8, c // 4 // 8) for c in range(cores)], dtype=np.int64)
    core_of = {n: rng.integers(0, cores, len(c)).astype(np.int64) for n, c in program.placement.core_of.items()}
    return replace(program, placement=replace(program.placement, core_of=core_of, xy=fabric_xy, utilisation=()))


def integer_network(sizes: Any, rng: Any, low: int = -20, high: int = 40) -> ir.Network:
    """Integrate-and-fire layers with even integer weights, which the chip holds exactly; a quarter are zero."""
    nodes: dict[str, Any] = {"in": ir.Input((sizes[0],))}
    chain = ["in"]
    for k, (into, out) in enumerate(itertools.pairwise(sizes)):
        w = rng.integers(low, high, (out, into)) * 2.0 * (rng.random((out, into)) < 0.75)
        nodes[f"w{k}"], nodes[f"n{k}"] = ir.Linear(w), ir.IF(v_threshold=np.full(out, 12.0 * into))
        chain += [f"w{k}", f"n{k}"]
    nodes["out"] = ir.Output("count")
    return ir.Network(nodes, tuple(zip(chain, [*chain[1:], "out"], strict=True)), 1e-3)


BOTH = ("synops", "updates", "spikes", "packets", "hops")


def case(described: Mapping[str, Any]) -> tuple[Any, Any]:
    """A recorded case again: the program, spread over cores, and dense uint8[steps, 1, n]."""
    rng = np.random.default_rng(described["seed"])
    program = compile_network(integer_network(described["sizes"], rng), described["chip"])
    program = spread_out(program, described["cores"], rng)
    dense = (rng.random((described["steps"], 1, described["sizes"][0])) < described["rate"]).astype(np.uint8)
    return program, dense


def ours(program: Any, dense: Any) -> tuple[dict[str, float], float, float]:
    """Counters of one sample, its event energy with SANA-FE's constants, and the same with one price for all hops."""
    trace = simulate(program, dense)
    totals = trace.counters.totals()
    counters = {n: totals[n] for n in BOTH}
    x, y = _directions(program, trace)
    apart = {n: v for n, v in counters.items() if n != "hops"} | {"hops_east_west": x, "hops_north_south": y}
    found = predict("loihi1", apart, constants="sanafe").energy_j
    chip = read_chip(CHIP_FOLDER / "loihi1.toml")
    single = estimate(trace, program, chip=chip, constants="sanafe")
    assert found is not None
    assert single.energy_j is not None
    injected = single.causes["injection"].nominal if "injection" in single.causes else 0.0
    return counters | {"steps": trace.steps}, found.nominal, single.energy_j.nominal - injected


def _directions(program: Any, trace: Any) -> tuple[float, float]:
    """Links that the messages cross along x and along y: each spike goes to every core that holds a target of it."""
    xy, found = program.placement.xy, np.zeros(2)
    for k in program.projections:
        if k.source == program.input:
            continue
        source, target = program.placement.core_of[k.source], program.placement.core_of[k.target]
        fired = trace.spikes[k.source][:, 0].astype(np.int64).sum(axis=0)
        for i in np.flatnonzero(fired):
            cores = np.unique(target[np.flatnonzero(k.weight_q[:, i])])
            found += fired[i] * np.abs(xy[cores] - xy[source[i]]).sum(axis=0)
    return float(found[0]), float(found[1])
