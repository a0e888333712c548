"""Benchmark: every chip's simulator on batches, on sparse and dense input, and in two threads. Ratios, no seconds.

    python tests/bench/bench_chips.py [--quick] [--chips loihi1 akida2 ...] [--json OUT]

Networks: "small" 64-64-10, "medium" 700-256-20 (TrueNorth, whose cores have 256 axons: 120-256-20), "conv"
2 x 16 x 16 - 3 x 3 - 8 x 16 x 16 - 10. Integrate and fire (Akida: quantised ReLU), random weights, thresholds at which
some 5 % of the hidden neurons fire at 5 % of input; 100 steps. Columns, medians over turns in which all of a row's
cases follow each other:

    batch    seconds per sample of 64 samples over those of one sample alone, one thread, 5 % input
    1 %, 30 %, 100 %   seconds of 16 samples at that input rate over those at 5 %, one thread
    threads  seconds of 64 samples in one thread over those in two
    us       microseconds per sample and step of the batch at 5 %, one thread: which rows are large at all
    ns       nanoseconds per synaptic event beyond those of a silent input, 100 % input: what an event costs

Scores and counters of the batch are compared with those of its samples alone and in two threads; exits 1 where one
differs. Spikes are not recorded, as where accuracy and energy are counted. hidden: share of neurons that fire at 5 %.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import numba
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests")]

from axon_peers import machine  # noqa: E402

from neuro import ir  # noqa: E402
from neuro.files import write_json  # noqa: E402
from neuro.hardware import compile as compile_network  # noqa: E402
from neuro.hardware import simulate  # noqa: E402
from neuro.hardware.trace import Counters  # noqa: E402

STEPS, BATCH, SOME = 100, 64, 16
NETS = ("small", "medium", "conv")
RATES = (0.01, 0.05, 0.3, 1.0)
CHIPS = {
    "loihi1": ("loihi1", {"preset": "nengo"}),
    "loihi1 brian2loihi": ("loihi1", {"preset": "brian2loihi"}),
    "loihi2": ("loihi2", {}),
    "truenorth": ("truenorth", {}),
    "spinnaker1": ("spinnaker1", {}),
    "spinnaker2": ("spinnaker2", {}),
    "akida1": ("akida1", {}),
    "akida2": ("akida2", {}),
}


def neurons(chip, shape, fan):
    """Of a layer with so many inputs each."""
    if chip.startswith("akida"):
        return ir.QuantisedReLU(2.0, 15)
    return ir.IF(np.full(shape, np.ceil(4 * 1.6 * 0.8 * np.sqrt(0.05 * fan)) / 4))


def weights(rng, shape):
    """-1, 0, 1 of a quarter, which every chip holds exactly (TrueNorth: with few axons)."""
    return rng.integers(-1, 2, shape) * 1.0


def network(chip, name):
    rng = np.random.default_rng(0)
    if name == "conv":
        nodes = {
            "in": ir.Input((2, 16, 16)),
            "k": ir.Conv2d(weights(rng, (8, 2, 3, 3)), padding=1),
            "a": neurons(chip, (8, 16, 16), 18),
            "flat": ir.Flatten(),
            "w": ir.Linear(weights(rng, (10, 2048)) * (rng.random((10, 2048)) < 0.05)),
        }
    else:
        inputs, hidden, out = {"small": (64, 64, 10), "medium": (120 if chip == "truenorth" else 700, 256, 20)}[name]
        nodes = {
            "in": ir.Input((inputs,)),
            "k": ir.Linear(weights(rng, (hidden, inputs))),
            "a": neurons(chip, (hidden,), inputs),
            "w": ir.Linear(weights(rng, (out, hidden))),
        }
    if not chip.startswith("akida"):
        nodes["b"] = neurons(chip, (nodes["w"].weight.shape[0],), 64)
    return ir.chain({**nodes, "out": ir.Output("sum" if chip.startswith("akida") else "count")}, dt=1e-3)


def samples(program, rate, count):
    n = program.populations[program.input].size
    return (np.random.default_rng(1).random((STEPS, count, n)) < rate).astype(np.uint8)


def run(program, dense, threads=1):
    before, numba.config.NUMBA_NUM_THREADS = numba.config.NUMBA_NUM_THREADS, threads
    try:
        return simulate(program, dense, record_spikes=False)
    finally:
        numba.config.NUMBA_NUM_THREADS = before


def said(trace):
    """All that a trace without spikes says."""
    return [trace.scores, trace.counters.injected, *(getattr(trace.counters, n) for n in Counters.NAMES)]


def same(trace, other, many=None):
    return all(np.array_equal(a[:many], b[:many]) for a, b in zip(said(trace), said(other), strict=True))


def measure(program, turns):
    cases = {f"rate {r:g}": (samples(program, r, SOME), 1) for r in (0.0, *RATES)}
    whole = samples(program, 0.05, BATCH)
    cases |= {"one": (whole[:, :1], 1), "batch": (whole, 1), "two": (whole, 2)}
    traces = {name: run(program, *case) for name, case in cases.items()}  # compiles
    seconds = {name: [] for name in cases}
    for _ in range(turns):
        for name, case in cases.items():
            repeats = 8 if name == "one" else 1
            began = time.perf_counter()
            for _ in range(repeats):
                run(program, *case)
            seconds[name].append((time.perf_counter() - began) / repeats)

    def ratio(a, b):
        return statistics.median(x / y for x, y in zip(seconds[a], seconds[b], strict=True))

    full, silent = traces["rate 1"], statistics.median(seconds["rate 0"])
    events = float(full.counters.synops.sum())
    alone = [run(program, whole[:, k : k + 1]) for k in (0, BATCH - 1)]
    last = [np.array_equal(a[-1:], b) for a, b in zip(said(traces["batch"]), said(alone[1]), strict=True)]
    row = {
        "batch": ratio("batch", "one") / BATCH,
        **{f"{r:g}": ratio(f"rate {r:g}", "rate 0.05") for r in RATES if r != 0.05},
        "threads": ratio("batch", "two"),
        "us_per_step": statistics.median(seconds["batch"]) / BATCH / STEPS * 1e6,
        "ns_per_event": (statistics.median(seconds["rate 1"]) - silent) / events * 1e9,
        "hidden_rate": float(traces["rate 0.05"].counters.spikes.sum())
        / SOME / STEPS / sum(p.size for p in program.populations.values() if p.model != "input"),
        "same": bool(all(last)) and same(traces["batch"], alone[0], 1) and same(traces["batch"], traces["two"]),
    }  # fmt: skip
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer turns")
    parser.add_argument("--chips", nargs="*", default=list(CHIPS), choices=list(CHIPS))
    parser.add_argument("--nets", nargs="*", default=list(NETS), choices=NETS)
    parser.add_argument("--json", type=Path, help="by default docs/results/bench_chips.json where nothing is left out")
    args = parser.parse_args()
    rows, bad = {}, 0
    print(f"{'':28}  batch    1 %   30 %  100 %  threads      us      ns  hidden")
    for title in args.chips:
        chip, options = CHIPS[title]
        for name in args.nets:
            program = compile_network(network(chip, name), chip, **options)
            row = rows[f"{title} {name}"] = measure(program, 3 if args.quick else 15)
            bad += not row["same"]
            print(
                f"{title + ' ' + name:28} {row['batch']:6.2f} {row['0.01']:6.2f} {row['0.3']:6.2f} {row['1']:6.2f} "
                f"{row['threads']:8.2f} {row['us_per_step']:7.2f} {row['ns_per_event']:7.3f} {row['hidden_rate']:7.3f}"
                f"{'' if row['same'] else '  DIFFERS'}",
                flush=True,
            )
    whole = not args.quick and len(rows) == len(CHIPS) * len(NETS)
    if args.json or whole:
        write_json(args.json or ROOT / "docs" / "results" / "bench_chips.json", {"machine": machine(2), "rows": rows})
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
