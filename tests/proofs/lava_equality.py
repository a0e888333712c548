"""Proof: our Loihi 2 simulator and real Lava 0.10.0 agree on every state and every message, bit for bit.

    python tests/proofs/lava_equality.py [--quick] [--json OUT] [--network NET.nir ...]

Measured afresh, every value compared: random programs (raw weights, exponents -8..16, bits 1..8, all sign modes,
decays, biases, delays 0..63, wrap of u, clip of v, convolutions, sparse, recurrent; LIF, ternary, resetting,
sigma-delta and resonating neurons, graded messages) in Lava's process models; random learners, weights and traces
after each step; each rewriting of the exporter; netx files; every model and learning in Lava's real runtime, and there
whole recordings of Braille and N-MNIST through compiled networks. --network adds networks (say, of a trained run) on
the recordings that suit them.
Exits 1 where one value differs, where Lava is missing, or where the random programs did not reach what they must.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "oracle"), str(ROOT / "tests" / "unit")]

import test_loihi2_stdp  # noqa: E402
from lava_programs import spikes  # noqa: E402
from lava_random import random_program  # noqa: E402

from neuro import ir, nir  # noqa: E402
from neuro.datasets.source import load  # noqa: E402
from neuro.files import write_json  # noqa: E402
from neuro.hardware import compile as compile_network  # noqa: E402
from neuro.hardware import simulate  # noqa: E402
from neuro.hardware.certify import certify  # noqa: E402
from neuro.hardware.loihi2.learning import STDP  # noqa: E402
from neuro.hardware.loihi2.models import GRADED, MODELS, graded  # noqa: E402

LIMIT = (1 << 23) - 1
SAMPLES = 20


def extremes(program, dense, seen):
    """Count what random programs reach: spikes, wraps of u, v at its ends, delays, each kind of projection."""
    for p in program.populations.values():
        if p.model != "input":
            seen[f"neurons {p.model}"] = seen.get(f"neurons {p.model}", 0) + p.size
    names = [p.name for p in program.populations.values() if p.model in ("lif", "li")]
    probes = tuple((n, v) for n in names for v in ("u", "v", "a"))
    trace = simulate(program, dense, probes=probes)
    for name in names:
        u, v, a = (trace.probes[name, k].astype(np.int64) for k in ("u", "v", "a"))
        before = np.concatenate([np.zeros_like(u[:1]), u[:-1]])
        keep = 4095 - np.broadcast_to(program.populations[name].params["du"], u.shape[-1:])
        raw = np.sign(before) * (np.abs(before) * keep >> 12) + (a << 6)
        seen["wraps_of_u"] += int((raw != u).sum())
        seen["clips_of_v"] += int((np.abs(v) == LIMIT).sum())
        seen["spikes"] += int(trace.spikes[name].sum())
    for p in program.populations.values():
        if p.model in GRADED:
            seen["graded_messages"] += int((np.abs(trace.spikes[p.name]) > 1).sum())
            seen["negative_messages"] += int((trace.spikes[p.name] < 0).sum())
    for p in program.projections:
        seen[p.kind] = seen.get(p.kind, 0) + 1
        seen["delayed"] += int("delay_steps" in p.params)
        multiplies = graded(program.populations[p.source]) and "num_message_bits" in p.params
        seen[f"graded_{p.kind}"] = seen.get(f"graded_{p.kind}", 0) + int(multiplies)
        seen["right_shifts"] += int(p.kind != "conv" and int(p.params["weight_exp"]) < 0)


def fuzz(count):
    """Random programs in Lava's process models."""
    seen = dict.fromkeys(("spikes", "wraps_of_u", "clips_of_v", "delayed", "right_shifts"), 0)
    seen |= {"graded_messages": 0, "negative_messages": 0} | {f"neurons {model}": 0 for model in MODELS}
    compared = mismatches = 0
    failures = []
    began = time.perf_counter()
    for seed in range(count):
        rng = np.random.default_rng([2026, seed])
        program, dense = random_program(lambda low, high, rng=rng: int(rng.integers(low, high, endpoint=True)))
        certificate = certify(program, dense, oracle="lava-inprocess")
        compared, mismatches = compared + certificate.compared, mismatches + certificate.mismatches
        if not certificate.passed:
            failures.append(f"seed {seed}: {certificate}")
        extremes(program, dense, seen)
    unreached = [name for name, n in seen.items() if n == 0]
    return {
        "oracle": "lava-inprocess",
        "programs": count,
        "compared": compared,
        "mismatches": mismatches,
        "reached": seen,
        "failures": failures + [f"no program reached {name}" for name in unreached],
        "seconds": time.perf_counter() - began,
    }


def learners(count):
    """Random learning rules, weights and spikes in Lava's learning process: weights and traces after each step."""
    compared = mismatches = moved = 0
    failures = []
    began = time.perf_counter()
    for seed in range(count):
        rng = np.random.default_rng([77, seed])
        impulses, taus = rng.integers(0, 127 * 256, 2) / 256, rng.integers(200, 60_000, 2) / 1000
        products = [(int(rng.integers(-8, 8)), int(rng.integers(-7, 4))) for _ in range(2)]
        if not products[0][0] and not products[1][0]:
            continue
        epoch = int(rng.choice([1, 1, 2, 4, 7, 20]))
        rule = STDP(*taus.tolist(), *impulses.tolist(), *products, t_epoch=epoch, seed=int(rng.integers(1 << 20)))
        sign, n_in, n = (int(rng.integers(1, 4)), *rng.integers(2, 12, 2).tolist())
        program = test_loihi2_stdp.learner(
            rule, sign=sign, exponent=int(rng.integers(-3, 3)), recurrent=sign == 1, n_in=n_in, n=n
        )
        dense = spikes(rng, 80, 2, n_in, float(rng.uniform(0.05, 0.6)))
        certificate = certify(program, dense, oracle="lava-inprocess")
        compared, mismatches = compared + certificate.compared, mismatches + certificate.mismatches
        if not certificate.passed:
            failures.append(f"seed {seed}: {certificate}")
        weights = simulate(program, dense, probes=[("learns", "weights")]).probes["learns", "weights"]
        moved += int((weights[1:] != weights[:-1]).sum())
    if moved == 0:
        failures.append("no weight changed")
    return {
        "oracle": "lava-inprocess",
        "programs": count,
        "compared": compared,
        "mismatches": mismatches,
        "reached": {"weight_changes": moved},
        "failures": failures,
        "seconds": time.perf_counter() - began,
    }


def row(certificate):
    """One line of the table from one certificate."""
    return {
        "oracle": certificate.oracle,
        "samples": certificate.samples,
        "steps": certificate.steps,
        "compared": certificate.compared,
        "mismatches": certificate.mismatches,
        "failures": [] if certificate.passed else [str(certificate)],
        "seconds": certificate.seconds,
        "oracle_seconds": certificate.oracle_seconds,
    }


def recurrent(shape, rng, hidden=128, classes=27):
    """The kind of network that reads Braille, weights drawn at a trained network's scale."""
    n_in = int(np.prod(shape))
    nodes = {
        "input": ir.Input(shape),
        "w_in": ir.Affine(rng.normal(0.1, 6 / np.sqrt(n_in), (hidden, n_in)), bias=rng.normal(0, 0.02, hidden)),
        "hidden": ir.CubaLIF(
            tau_mem=np.full(hidden, 0.1), tau_syn=np.full(hidden, 0.03), v_threshold=np.full(hidden, 0.3)
        ),
        "w_rec": ir.Linear(rng.normal(0, 0.5 / np.sqrt(hidden), (hidden, hidden))),
        "w_out": ir.Linear(rng.normal(0, 1 / np.sqrt(hidden), (classes, hidden))),
        "out": ir.LIF(tau_mem=np.full(classes, 0.1), v_threshold=np.full(classes, 0.1)),
        "output": ir.Output(),
    }
    edges = [("input", "w_in"), ("w_in", "hidden"), ("hidden", "w_rec"), ("w_rec", "hidden")]
    edges += [("hidden", "w_out"), ("w_out", "out"), ("out", "output")]
    return ir.Network(nodes, tuple(edges), dt=0.0125)


def convolutional(rng):
    """A small N-MNIST network of integrate-and-fire neurons."""
    nodes = {
        "input": ir.Input((2, 34, 34)),
        "k1": ir.Conv2d(rng.normal(0.1, 0.3, (6, 2, 5, 5)), stride=(2, 2)),
        "a": ir.IF(v_threshold=np.full((6, 15, 15), 1.0)),
        "k2": ir.Conv2d(rng.normal(0.05, 0.2, (12, 6, 5, 5)), stride=(2, 2)),
        "b": ir.IF(v_threshold=np.full((12, 6, 6), 1.0)),
        "flat": ir.Flatten(),
        "w": ir.Linear(rng.normal(0, 0.1, (10, 432))),
        "out": ir.LI(tau_mem=np.full(10, 0.05)),
        "output": ir.Output("max"),
    }
    names = list(nodes)
    return ir.Network(nodes, tuple(itertools.pairwise(names)), dt=0.005)


def whole_samples(network, name, count, steps=None):
    """Recordings of one data set through one network: exported, run in Lava's runtime, compared."""
    data = load(name, "train")
    steps = steps or max(1, round(data.duration / network.dt))
    chosen = np.linspace(0, len(data) - 1, count).astype(np.int64)
    dense = data.batch(chosen, network.dt, steps).reshape(steps, count, -1)
    program = compile_network(network, "loihi2")
    made = row(certify(program, dense))
    made["firing"] = {n: float(s.mean()) for n, s in simulate(program, dense).spikes.items()}
    quiet = [n for n, share in made["firing"].items() if share == 0 and program.populations[n].model == "lif"]
    made["failures"] += [f"'{n}' never fired: nothing was proven about what it feeds" for n in quiet]
    return made


def networks(paths):
    """Networks given on the command line, on the first embedded data set whose recordings suit them."""
    table = {}
    for path in paths:
        network = nir.load(path)
        for name in ("braille", "nmnist"):
            if load(name, "train").shape == network.shapes[network.input]:
                table[f"{path.name} on {name}"] = whole_samples(network, name, SAMPLES)
                break
        else:
            table[path.name] = {"failures": [f"no embedded data set has steps of {network.shapes[network.input]}"]}
    return table


def measure(quick, paths):
    """All parts by name."""
    import test_export_netx
    import test_lava_inprocess
    import test_lava_runtime

    table = {"random programs": fuzz(100 if quick else 1500), "random learners": learners(15 if quick else 150)}
    dense = test_lava_runtime.numbers(4)
    table["runtime: every neuron model"] = row(certify(test_lava_runtime.every_model(), dense))
    dense = spikes(np.random.default_rng(5), 40, 2, 7, 0.35)
    table["runtime: learning"] = row(certify(test_loihi2_stdp.learner(STDP(t_epoch=4, seed=9)), dense))
    for name, (program, _) in test_lava_inprocess.PROGRAMS.items():
        dense = spikes(np.random.default_rng(1), 60, 4, program.populations["input"].size, 0.3)
        table[f"rewriting: {name}"] = row(certify(program, dense, oracle="lava-inprocess"))
    dense = spikes(np.random.default_rng(2), 60, 4, 84, 0.3)
    table["netx: every kind of layer"] = row(certify(test_export_netx.image_net(), dense, oracle="netx"))
    rng = np.random.default_rng(3)
    table["runtime: recurrent on braille"] = whole_samples(
        recurrent(load("braille", "train").shape, rng), "braille", 4 if quick else SAMPLES
    )
    table["runtime: convolutional on nmnist"] = whole_samples(convolutional(rng), "nmnist", 2 if quick else SAMPLES)
    return table | networks(paths)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer programs and samples, under two minutes")
    parser.add_argument("--json", type=Path, default=ROOT / "docs" / "results" / "lava_equality.json")
    parser.add_argument("--network", type=Path, nargs="*", default=[], help="NIR files to run whole recordings through")
    arguments = parser.parse_args()
    began = time.perf_counter()
    parts = measure(arguments.quick, arguments.network)
    failures = [f"{name}: {line}" for name, part in parts.items() for line in part["failures"]]
    result = {
        "proof": "lava_equality",
        "passed": not failures,
        "compared": sum(p.get("compared", 0) for p in parts.values()),
        "mismatches": sum(p.get("mismatches", 0) for p in parts.values()),
        "quick": arguments.quick,
        "seconds": time.perf_counter() - began,
        "parts": parts,
    }
    write_json(arguments.json, result)
    for name, part in parts.items():
        said = f"{part.get('compared', 0)} compared, {part.get('mismatches', '?')} differ"
        print(f"{name}: {said}, {part.get('seconds', 0):.1f} s")
    print(json.dumps({k: v for k, v in result.items() if k != "parts"}))
    for line in failures:
        print("FAILED", line)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
