"""Benchmark: how the cost of a training step grows with neurons, steps, rate and batch.

    python tests/bench/bench_curves.py [--only neurons|steps|rate|batch|delays] [--json OUT]

One Linear and LIF as a hidden layer (see bench_linear_lif.py), one quantity at a time; ours, SpikingJelly, Spyx and the
dense matrix products alone, in turns. Over the longest delay: the layer of bench_delays.py, ours, dcls (whose kernels
interpolate as ours, so they must compute the same) and one matrix product per step of delay.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent)]

import bench_delays  # noqa: E402
from training_rows import ROOT, machine, measure, merge, say  # noqa: E402

BASE = {"task": "linear_lif", "n": 512, "steps": 100, "batch": 16, "rate": 0.05, "input_gradient": True}
AXES = {
    "neurons": ("n", (128, 256, 512, 1024, 2048)),
    "steps": ("steps", (50, 100, 200, 400, 800)),
    "rate": ("rate", (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)),
    "batch": ("batch", (1, 4, 16, 64)),
}
DELAYS = (5, 11, 25, 51, 101)  # from 0 to the longest: so many; odd, as dcls rounds the middle of an even kernel down


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", choices=("", *AXES, "delays"), help="one curve")
    parser.add_argument("--quick", action="store_true", help="three rounds")
    parser.add_argument("--json", type=Path, default=ROOT / "docs" / "results" / "bench_curves.json")
    arguments = parser.parse_args()
    for axis, (key, values) in AXES.items():
        if arguments.only not in ("", axis):
            continue
        for value in values:
            peers, count = ("spikingjelly", "spyx"), 3 if arguments.quick else 5
            row = measure(BASE | {key: value}, peers=peers, count=count, check=False, loop=False)
            say(f"{axis} {value}", row)
            merge(arguments.json, {f"{axis} {value}": row | {"axis": axis, "value": value}}, limits=False)
    for value in DELAYS if arguments.only in ("", "delays") else ():
        what = bench_delays.ROWS["3 %"] | {"delays": value}
        row = bench_delays.measure(what, 3 if arguments.quick else 5, False, ("dcls_v1",)) | {"machine": machine(2)}
        assert not row["unequal"], row["differences"]
        others = ", ".join(f"{name} {r['ratio']:.1f}x" for name, r in row["ratios"].items())
        print(f"delays {value}: ours {row['frameworks']['neuro']['median_s'] * 1e3:.1f} ms, {others}", flush=True)
        merge(arguments.json, {f"delays {value}": row | {"axis": "delays", "value": value}}, limits=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
