"""Benchmark: seconds per sample of our Loihi 2 simulator and of real Lava's process models, and their ratio.

    python tests/bench/bench_loihi2_vs_lava.py [--quick] [--json OUT]

Lava is run in-process: its own PyLifModelBitAcc, PyDenseModelBitAcc, PyConvModelFixed stepped one by one with
channels in memory (neuro.hardware.export.lava_inprocess), compiled before the clock starts. Its full runtime,
with a process each and shared memory, is slower still. Both compute the same samples, and every u, v and spike
is compared first: a ratio of two different computations would mean nothing.

``ratio`` compares seconds on the clock, ours as `run` is used: all spikes recorded, samples in as many threads as
there are processors; other work on the machine spoils it. ``cpu_ratio`` compares processor seconds of one thread
each, which other work hardly touches. Best of several runs each. Exits 1 if a value differs or if a ``ratio`` is
under its target.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from neuro import nir
from neuro.datasets.source import load
from neuro.files import write_json
from neuro.hardware import compile as compile_network
from neuro.hardware.export.lava import write_graph
from neuro.hardware.export.lava_graph import lower
from neuro.hardware.export.lava_inprocess import prepare
from neuro.hardware.loihi2 import kernels as loihi2_kernels
from neuro.hardware.program import Placement, Population, Program, Projection

ROOT = Path(__file__).resolve().parents[2]
MATRIX = {"weight_exp": 0, "num_weight_bits": 8, "sign_mode": 1}


def population(name, shape, model="lif", dv=200, vth=300):
    registers = {"du": 4095, "dv": dv, "vth": vth, "bias_mant": 0, "bias_exp": 0}
    return Population(name, name, model, shape, {} if model == "input" else registers)


def program(populations, projections, readout):
    """512 neurons per core, cores in rows of eight."""
    core_of, cores = {}, 0
    for p in populations[1:]:
        core_of[p.name] = cores + np.arange(p.size) // 512
        cores = int(core_of[p.name][-1]) + 1
    xy = np.stack([np.arange(cores) % 8, np.arange(cores) // 8], axis=1)
    names = [p.name for p in populations]
    skew = {name: k for k, name in enumerate(names)}
    table = {p.name: p for p in populations}
    placement = Placement(core_of, xy)
    return Program("loihi2", 1e-2, table, tuple(projections), names[0], names[-1], skew, {}, readout, placement)


def cnn():
    """34 x 34 x 2 -conv 5 x 5 / 2-> 16 x 17 x 17 -conv 3 x 3 / 2-> 32 x 9 x 9 -dense-> 10; 30 steps, 3 % input."""
    rng = np.random.default_rng(0)

    def conv(name, source, target, shape, pad):
        params = {"stride": (2, 2), "padding": (pad, pad), "dilation": (1, 1), "groups": 1}
        return Projection(name, name, source, target, "conv", 2 * rng.integers(-60, 61, shape), params)

    populations = [
        population("in", (2, 34, 34), "input"),
        population("conv1", (16, 17, 17)),
        population("conv2", (32, 9, 9), vth=800),
        population("out", (10,), "li", dv=100, vth=131071),
    ]
    dense = Projection("fc", "fc", "conv2", "out", "dense", 2 * rng.integers(-60, 61, (10, 2592)), MATRIX)
    projections = [
        conv("k1", "in", "conv1", (16, 2, 5, 5), 2),
        conv("k2", "conv1", "conv2", (32, 16, 3, 3), 1),
        dense,
    ]
    return program(populations, projections, "sum"), (rng.random((30, 64, 2312)) < 0.03).astype(np.uint8)


def dense():
    """256 -> 256 -> 256, all to all; 100 steps, 5 % input."""
    rng = np.random.default_rng(0)
    populations = [population(f"l{k}", (256,), "lif" if k else "input", vth=600) for k in range(3)]
    projections = [
        Projection(f"w{k}", f"w{k}", f"l{k}", f"l{k + 1}", "dense", 2 * rng.integers(-60, 61, (256, 256)), MATRIX)
        for k in range(2)
    ]
    return program(populations, projections, "count"), (rng.random((100, 256, 256)) < 0.05).astype(np.uint8)


def sinabs():
    """cnn_sinabs.nir, a spiking CNN trained by others on N-MNIST, on embedded recordings; 300 steps of 1 ms."""
    network = nir.load(ROOT / "tests" / "golden" / "nir" / "cnn_sinabs.nir", dt=1e-3)
    data = load("nmnist", "train")
    return compile_network(network), data.batch(range(16), 1e-3, 300).reshape(300, 16, -1)


def best(function, repeats):
    """(shortest processor seconds, shortest seconds on the clock, last result)."""
    cpu_s, wall_s, result = [], [], None
    for _ in range(repeats):
        began = time.process_time(), time.perf_counter()
        result = function()
        cpu_s.append(time.process_time() - began[0])
        wall_s.append(time.perf_counter() - began[1])
    return min(cpu_s), min(wall_s), result


def differing(compiled, lava_values, samples):
    """(values compared, values that differ) over u, v and spikes."""
    names = [n for n, p in compiled.populations.items() if p.model != "input"]
    trace = loihi2_kernels.run(compiled, samples, tuple((n, v) for n in names for v in "uv"))
    compared = wrong = 0
    for (name, variable), theirs in lava_values.items():
        ours = trace.spikes[name] if variable == "s" else trace.probes[name, variable]
        compared, wrong = compared + theirs.size, wrong + int((ours != theirs).sum())
    return compared, wrong


def measure(make, lava_samples, repeats):
    compiled, samples = make()
    with tempfile.TemporaryDirectory() as folder:
        write_graph(compiled, lower(compiled, registers=False), Path(folder))
        lava = prepare(folder)
        lava_cpu_s, lava_wall_s, values = best(lambda: lava.run(samples[:, :lava_samples]), repeats)
    compared, wrong = differing(compiled, values, samples[:, :lava_samples])
    batch, threads = samples.shape[1], loihi2_kernels._threads
    cpu_s, _, trace = best(lambda: _run(compiled, samples, lambda: 1), 8 * repeats)
    _, wall_s, _ = best(lambda: _run(compiled, samples, threads), 8 * repeats)
    totals = trace.counters.totals()
    row = {
        "compared": compared,
        "mismatches": wrong,
        "threads": threads(),
        "lava_wall_s_per_sample": lava_wall_s / lava_samples,
        "ours_wall_s_per_sample": wall_s / batch,
        "ratio": lava_wall_s / lava_samples / (wall_s / batch),
        "lava_cpu_s_per_sample": lava_cpu_s / lava_samples,
        "ours_cpu_s_per_sample": cpu_s / batch,
        "cpu_ratio": lava_cpu_s / lava_samples / (cpu_s / batch),
    }
    for name in ("synops", "updates"):
        row |= {f"{name}_per_cpu_s": totals[name] * batch / cpu_s, f"{name}_per_wall_s": totals[name] * batch / wall_s}
    return row | {"firing": _firing(trace)}


def _run(compiled, samples, threads):
    before, loihi2_kernels._threads = loihi2_kernels._threads, threads
    try:
        return loihi2_kernels.run(compiled, samples)
    finally:
        loihi2_kernels._threads = before


def _firing(trace):
    return {name: float(spikes.mean()) for name, spikes in trace.spikes.items()}


# name -> (what, samples for Lava, the least ratio that is not a disappointment)
NETWORKS = {"cnn": (cnn, 2, 500), "dense 2 x 256": (dense, 4, 500), "cnn_sinabs on nmnist": (sinabs, 1, 500)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="each thing once")
    parser.add_argument("--json", type=Path, default=ROOT / "docs" / "results" / "loihi2_vs_lava.json")
    arguments = parser.parse_args()
    rows, failures = {}, []
    for name, (make, lava_samples, target) in NETWORKS.items():
        row = rows[name] = measure(make, lava_samples, 1 if arguments.quick else 4) | {"target": target}
        print(f"{name}: Lava {row['lava_wall_s_per_sample'] * 1e3:.2f} ms per sample,", end=" ")
        print(f"ours {row['ours_wall_s_per_sample'] * 1e3:.3f} with {row['threads']} threads:", end=" ")
        print(f"ratio {row['ratio']:.0f} (target {target}), one thread each {row['cpu_ratio']:.0f};", end=" ")
        print(f"{row['mismatches']} of {row['compared']} values differ", flush=True)
        if row["mismatches"]:
            failures.append(f"{name}: {row['mismatches']} values differ")
        if row["ratio"] < target:
            failures.append(f"{name}: ratio {row['ratio']:.0f} is under {target}")
    machine = {"processors": os.cpu_count(), "machine": platform.machine(), "load": os.getloadavg()[0]}
    write_json(arguments.json, {"passed": not failures, "machine": machine, "networks": rows})
    print(json.dumps({name: round(row["ratio"]) for name, row in rows.items()}))
    for line in failures:
        print("FAILED", line)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
