"""In from every door: networks of other frameworks fire the same spikes here, step for step.

    python tests/proofs/doors.py [--quick] [--traces] [--json OUT]

For every neuron of snnTorch (in this interpreter), Norse, SpikingJelly and sinabs (NEURO_TORCH_PEERS, an interpreter
that has them and numpy, torch, h5py): a random network Linear -> neuron -> Linear -> neuron, at least 1e5 neuron-steps,
run by the framework in float64 and in float32; beside it the `Network` that the door makes of the framework's own
module, run by `neuro.reference` and, in float64, by `neuro.nn.bridge.to_module`.

Target, set before the first run: in float64 not one spike differs, in both. After it, since SpikingJelly divides where
we multiply: spikes may differ if not one does once all thresholds are 1e-12 higher, or lower. Frameworks compute in
float32 by habit: for those spikes the number that differ is counted, and the first of each neuron must lie within 1e-4
of its threshold (what follows the first differs because it did).

Then the golden spikes of tests/golden/doors, and what came with the NIR paper, simulator by simulator: who agrees with
whom. The traces of its LIF network (docs/results/nir_traces.json); the activities of its Braille networks, those of its
CNN, and the Braille network in today's Norse beside ours (docs/results/nir_networks.json); --traces: nothing but these.
Targets there: Norse's trace of the LIF to 1e-6; not one spike of Norse's Braille network differs. --quick: 1e4
neuron-steps, golden spikes instead of the peers'. Exits 1 where a target falls short. Peers that are missing are named.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]
RESULT = ROOT / "docs" / "results" / "doors.json"
TRACES = RESULT.with_name("nir_traces.json")
NETWORKS = RESULT.with_name("nir_networks.json")
WITHIN = 1e-4
ROUNDING = 1e-12  # of thresholds, relative
PEERS = "NEURO_TORCH_PEERS"


def agreement(network: Any, x: NDArray[Any], spikes: dict[str, list[NDArray[np.uint8]]]) -> dict[str, Any]:
    """One case. spikes: "float64", "float32" -> of both neurons, by the framework."""
    import torch

    from neuro import reference
    from neuro.nn.bridge import to_module

    run = reference.run(network, x)
    names = [n for n in network.order if getattr(network.nodes[n], "spiking", False)]
    ours = [run.spikes[n] for n in names]
    row: dict[str, Any] = {
        "neuron_steps": int(sum(s.size for s in ours)),
        "rate": float(np.mean([s.mean() for s in ours])),
        "float64_differ": int(sum((a != b).sum() for a, b in zip(ours, spikes["float64"], strict=True))),
    }
    with torch.no_grad():
        answers = to_module(network, torch.float64)(torch.from_numpy(x).double())
    row["module_differ"] = int((np.asarray(answers) != spikes["float64"][-1]).sum())
    if row["float64_differ"]:
        row["float64_nudged"] = min(_nudged(network, x, names, spikes["float64"], by) for by in (ROUNDING, -ROUNDING))
    row["float32_differ"], row["float32_first_gap"] = _first(network, names, ours, run, spikes["float32"])
    return row


def _nudged(network: Any, x: NDArray[Any], names: list[str], theirs: Any, by: float) -> int:
    """Spikes that differ where all thresholds are ``by`` (relative) higher."""
    from dataclasses import replace

    from neuro import reference

    moved = {n: replace(network.nodes[n], v_threshold=network.nodes[n].v_threshold * (1 + by)) for n in names}
    run = reference.run(network.replace_nodes(moved), x)
    return int(sum((run.spikes[n] != other).sum() for n, other in zip(names, theirs, strict=True)))


def _first(network: Any, names: list[str], ours: Any, run: Any, theirs: Any) -> tuple[int, float]:
    """Spikes that differ, and how far the membranes were from the threshold where a neuron's first did.

    Only of the first layer: the second sees different spikes from then on.
    """
    differ = ours[0] != theirs[0]
    count = int(sum((a != b).sum() for a, b in zip(ours, theirs, strict=True)))
    gap = 0.0
    closes = any(target == names[0] for _, target in network.feedback)
    if differ.any():
        node = network.nodes[names[0]]
        before = run.v[names[0]] + np.where(ours[0] > 0, node.v_threshold, 0.0)
        if node.reset == "hard":  # what was above the threshold is gone: only neurons that fired in float32 alone
            before = np.where(ours[0] > 0, np.nan, run.v[names[0]])
        first = differ.argmax(axis=0)
        at = np.take_along_axis(before, first[None], axis=0)[0]
        gaps = np.abs(at - node.v_threshold)[differ.any(axis=0)]
        if closes:  # neurons that are connected differ after the first of them; judge that one
            order = first[differ.any(axis=0)]
            gaps = gaps[order == order.min()]
        gap = float(np.nanmax(gaps)) if np.isfinite(gaps).any() else 0.0
    return count, gap


# ---------------------------------------------------------------- snnTorch, here


def snntorch_rows(steps: int, batch: int, n: int) -> dict[str, dict[str, Any]]:
    import snntorch as snn
    import torch
    from axon_doors import spikes_in, weights
    from torch import nn

    import neuro

    table, x = weights(4, n), spikes_in(3, steps, batch)
    kinds: dict[str, Any] = {
        "Leaky": lambda **k: snn.Leaky(beta=torch.linspace(0.5, 0.95, n), **k),
        "Leaky beta 1": lambda **k: snn.Leaky(beta=1.0, **k),
        "Synaptic": lambda **k: snn.Synaptic(alpha=0.7, beta=0.9, **k),
        "Lapicque": lambda **k: snn.Lapicque(R=5.0, C=2.0, time_step=1.0, **k),
        "RLeaky": lambda **k: snn.RLeaky(beta=0.8, linear_features=n, **k),
        "RSynaptic": lambda **k: snn.RSynaptic(alpha=0.6, beta=0.8, linear_features=n, **k),
    }
    resets = {"Leaky": ("subtract", "zero", "none")}
    rows = {}
    for kind, make in kinds.items():
        for reset in resets.get(kind, ("subtract", "none")):
            more: dict[str, Any] = {"spike_grad": lambda v: (v > 0).to(v.dtype), "init_hidden": True}
            torch.manual_seed(0)
            net = nn.Sequential(
                nn.Linear(12, n, bias=False), make(reset_mechanism=reset, **more), nn.Linear(n, 5, bias=False),
                snn.Leaky(beta=0.7, **more),
            )  # fmt: skip
            for at, name in ((0, "first"), (2, "second")):
                net[at].weight = nn.Parameter(torch.from_numpy(table[name]).float())
            spikes = {}
            network = neuro.from_snntorch(copy.deepcopy(net).double(), torch.zeros(1, 12))
            for said, dtype in (("float64", torch.float64), ("float32", torch.float32)):
                run = copy.deepcopy(net).to(dtype)  # not utils.reset, which leaves states of some neurons as they are
                kept = []
                with torch.no_grad():
                    for step in torch.from_numpy(x).to(dtype):
                        inner = run[1](run[0](step))
                        kept.append((inner, run[3](run[2](inner))))
                spikes[said] = [torch.stack(s).to(torch.uint8).numpy() for s in zip(*kept, strict=True)]
            rows[f"snntorch {snn.__version__} {kind} {reset}"] = agreement(network, x, spikes)
    return rows


# ---------------------------------------------------------------- the peers


def peer_rows(python: str, steps: int, batch: int, n: int) -> dict[str, dict[str, Any]]:
    import neuro

    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])
        size = ["--steps", str(steps), "--batch", str(batch), "--n", str(n)]
        script = [python, "-W", "ignore", str(ROOT / "tests" / "golden" / "doors" / "make.py"), "--networks", folder]
        done = subprocess.run([*script, *size], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
        print(done.stderr[-2000:] if done.returncode else "\n".join(
            line for line in done.stderr.splitlines() if "left out" in line), file=sys.stderr)  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{python} failed on {script[3]}")
        for file in sorted(Path(folder).glob("*.npz")):
            with np.load(file) as found:
                spikes = {d: [found[f"{d}_{k}"] for k in (0, 1)] for d in ("float64", "float32")}
                framework, _, name = file.stem.partition("_")
                network = neuro.load(file.with_suffix(".nir"))
                rows[f"{framework} {found['version']} {name}"] = agreement(network, found["input"], spikes)
    return rows


def golden_rows() -> dict[str, dict[str, Any]]:
    import torch
    from axon_doors import CASES, stand_in

    import neuro

    rows = {}
    for framework, name in CASES:
        with np.load(ROOT / "tests" / "golden" / "doors" / f"{framework}.npz") as file:
            golden = dict(file)
        x, table = golden["input"], {k: golden[k] for k in ("first", "second", "recurrent")}
        sample = torch.zeros(*((4, 3) if framework == "sinabs" else (4,)), 12, dtype=torch.float64)
        door = getattr(neuro, f"from_{framework}")
        network = door(stand_in(framework, name, table), sample, axes="BT" if framework == "sinabs" else "B")
        shapes = [(*x.shape[:2], n) for n in (20, 5)]
        spikes = [np.unpackbits(golden[f"{name}_{k}"], count=int(np.prod(s))).reshape(s) for k, s in enumerate(shapes)]
        row = agreement(network, x, {"float64": spikes, "float32": spikes})
        rows[f"{framework} {golden['version']} {name}"] = {k: v for k, v in row.items() if "float32" not in k}
    return rows


# ---------------------------------------------------------------- the NIR paper's traces


def traces() -> dict[str, Any]:
    """Membrane and spikes of lif_norse.nir as six simulators and we have them; mean_abs_v in parts of the largest."""
    from neuro import reference
    from neuro.nir import load

    folder = ROOT / "tests" / "golden" / "nir"
    table: dict[str, tuple[NDArray[np.float64], NDArray[np.bool_]]] = {}
    dense = None
    for file in sorted(folder.glob("lif_*.csv")):
        rows = np.genfromtxt(file, delimiter=",")
        table[file.stem.removeprefix("lif_")] = (rows[:, 1], rows[:, 2] > 0)
        dense = rows[:, 0] if file.stem == "lif_norse" else dense
    assert dense is not None
    for rule, reset in itertools.product(("euler", "exact"), ("hard", "subtract")):
        network = load(folder / "lif_norse.nir", discretisation=rule, reset=reset)
        (name,) = [n for n in network.order if getattr(network.nodes[n], "spiking", False)]
        run = reference.run(network, dense[:, None, None])
        table[f"axonport, {rule}, {reset}"] = (run.v[name][:, 0, 0], run.spikes[name][:, 0, 0] > 0)
    return {a: {b: _compared(table[a], table[b]) for b in table} for a in table}


def _compared(a: tuple[NDArray[Any], NDArray[Any]], b: tuple[NDArray[Any], NDArray[Any]]) -> dict[str, Any]:
    """Spikes that differ, mean |v - factor w|; b read ``lag`` steps later; factor: of their units, least squares."""
    best = None
    for lag in (0, 1, -1):
        mine, its = (slice(None, -lag or None), slice(lag, None)) if lag >= 0 else (slice(-lag, None), slice(None, lag))
        differ = int((a[1][mine] != b[1][its]).sum())
        if best is None or differ < best["spikes_differ"]:
            va, vb = a[0][mine], b[0][its]
            factor = float(va @ vb / (vb @ vb))
            gap = float(np.abs(va - factor * vb).mean() / np.abs(va).max())
            best = {"spikes": int(a[1].sum()), "spikes_differ": differ, "lag": lag, "factor": factor, "mean_abs_v": gap}
    assert best is not None
    return best


def measure(quick: bool) -> dict[str, Any]:
    from axon_nir_paper import networks

    steps, batch, n = (60, 5, 32) if quick else (200, 16, 32)
    found: dict[str, Any] = {"rows": {}, "golden": golden_rows(), "traces": traces(), "left_out": []}
    found["networks"] = networks(25 if quick else 200)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found["rows"] |= snntorch_rows(steps, batch, n)
    except ImportError as cause:
        found["left_out"].append(f"snntorch: {cause}")
    python = os.environ.get(PEERS)
    if python and not quick:
        found["rows"] |= peer_rows(python, steps, batch, n)
    else:
        found["left_out"].append(f"norse, spikingjelly, sinabs: {'--quick' if quick else PEERS + ' is not set'}")
    return found


def short(found: dict[str, Any], quick: bool) -> list[str]:
    bad = []
    for name, row in (found["rows"] | {f"golden {k}": v for k, v in found["golden"].items()}).items():
        if (row["float64_differ"] or row["module_differ"]) and row.get("float64_nudged", 1):
            bad.append(f"{name}: {row['float64_differ']} spikes differ, in the module {row['module_differ']}")
        if row.get("float32_first_gap", 0) > WITHIN:
            bad.append(f"{name}: a spike differs in float32 {row['float32_first_gap']:.2e} from the threshold")
        if not 0 < row["rate"] < 1:
            bad.append(f"{name}: rate {row['rate']}, nothing is compared")
        if not quick and not name.startswith("golden") and row["neuron_steps"] < 100_000:
            bad.append(f"{name}: {row['neuron_steps']} neuron-steps, 1e5 wanted")
    braille = found["networks"]["norse_today"]["nirtorch"]
    if any(braille["differ"]):
        bad.append(f"the Braille network in Norse: {braille['differ']} spikes differ of {braille['of']}")
    agreed = found["traces"]["axonport, euler, hard"]["norse"]
    if agreed["spikes_differ"] or agreed["lag"] or agreed["mean_abs_v"] > 1e-6:
        bad.append(f"Norse's trace of the NIR paper: {agreed}")
    return bad


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--traces", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    from axon_nir_paper import networks

    from neuro.files import write_json

    if arguments.traces:
        found = {"rows": {}, "golden": {}, "traces": traces(), "networks": networks(200)}
        write_json(arguments.json or TRACES, found["traces"])
        if arguments.json is None:
            write_json(NETWORKS, found["networks"])
        print("\n".join(short(found, quick=True)) or "proven")
        return int(bool(short(found, quick=True)))
    found = measure(arguments.quick)
    for name, row in found["rows"].items():
        print(f"{name:45s} {row['neuron_steps']:7d} neuron-steps, rate {row['rate']:.2f}: float64 "
              f"{row['float64_differ']} differ, module {row['module_differ']}; float32 {row['float32_differ']}, first "
              f"within {row['float32_first_gap']:.1e}")  # fmt: skip
    print(f"golden: {len(found['golden'])} cases, "
          f"{sum(r['neuron_steps'] for r in found['golden'].values())} neuron-steps, "
          f"{sum(r['float64_differ'] for r in found['golden'].values())} differ")  # fmt: skip
    for name, others in found["traces"].items():
        print(f"{name:28s} " + ", ".join(f"{o} {r['spikes_differ']}/{r['mean_abs_v']:.1e}" for o, r in others.items()))
    print("NIR paper:", {k: v for k, v in found["networks"].items() if k != "braille"})
    for line in found["left_out"]:
        print("left out:", line)
    bad = short(found, arguments.quick)
    print("\n".join(bad) or "proven")
    if arguments.json is None:
        write_json(TRACES, found["traces"])
        write_json(NETWORKS, found.pop("networks"))
    write_json(arguments.json or RESULT, {"quick": arguments.quick, **found, "short": bad})
    return int(bool(bad))


if __name__ == "__main__":
    raise SystemExit(main())
