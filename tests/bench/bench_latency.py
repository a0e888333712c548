"""Benchmark: one sample through 700-256-256-20, 100 steps, inference, ours beside the others.

    python tests/bench/bench_latency.py [--quick] [--json OUT]

Ours is one call of `neuro.simulate`, Python included, in float64 (which gives the bits of neuro.reference) and in
float32; the others run the same weights in torch.inference_mode, as in peer_training.py. Exits 1 where a sum of
membranes differs, no peer is there, or ours is under 60 times SpikingJelly's fastest release at 3 % input.

--quick: three rounds.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parent)]

from training_rows import OLDER, ROOT, Job  # noqa: E402
from training_rows import job as training_job  # noqa: E402

from neuro.files import write_json  # noqa: E402

sys.path[:0] = [str(ROOT / "tests")]

from axon_peers import OURS, machine, ratio, rounds  # noqa: E402

SCRIPT = Path(__file__).with_name("peer_latency.py")
PEERS = ("spikingjelly", OLDER, "norse", "snntorch", "torch_loop")
OUR_NAMES = ("neuro", "neuro_float32")
RATES = {"1 %": 0.01, "3 %": 0.03, "10 %": 0.1}
TARGET, JUDGED = 60.0, "3 %"
TOLERANCE = 2e-3  # relative, of the sums over time: float32 may see a spike on the other side of a threshold


def job(name, arguments):
    if name in OUR_NAMES:
        return Job(name, SCRIPT, OURS, dict(arguments) | {"framework": name})
    there = training_job(name, arguments)
    return Job(name, SCRIPT, there.interpreter, there.arguments, there.path)


def measure(rate, count):
    arguments = {"steps": 100, "rate": rate, "n": 0}
    repeat = dict.fromkeys(PEERS, 5) | dict.fromkeys(OUR_NAMES, 100)
    jobs = [job(name, arguments) for name in (*OUR_NAMES, *PEERS)]
    times, left_out = rounds(jobs, count=count, warm=3, threads=2, repeat=repeat)
    expected = np.array(times["neuro"].check["sums"])
    scale = np.linalg.norm(expected)
    apart = {n: float(np.linalg.norm(np.array(t.check["sums"]) - expected) / scale) for n, t in times.items()}
    return {
        "what": arguments,
        "rates": times["neuro"].check["rates"],
        "frameworks": {name: t.row() for name, t in times.items()},
        "ratios": {ours: {n: ratio(times[n], times[ours]) for n in times if n not in OUR_NAMES} for ours in OUR_NAMES},
        "differences": apart,
        "unequal": [name for name, d in apart.items() if not d < TOLERANCE and name != "norse"],
        "left_out": left_out,
    }


def short(row):
    """What of a row is not good enough."""
    lines = [f"{name} computes something else: {row['differences'][name]:.2g}" for name in row["unequal"]]
    for ours, ratios in row["ratios"].items():
        found = [r["ratio"] for name, r in ratios.items() if name.startswith("spikingjelly")]
        if not found:
            lines.append(f"SpikingJelly was not there to compare with (make peers): {row['left_out']}")
        elif min(found) < TARGET:
            lines.append(f"{ours}: {min(found):.1f} times SpikingJelly, target {TARGET:g}")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three rounds")
    parser.add_argument("--json", type=Path, default=ROOT / "docs" / "results" / "bench_latency.json")
    arguments = parser.parse_args()
    rows = {}
    for name, rate in RATES.items():
        row = rows[name] = measure(rate, 3 if arguments.quick else 9)
        for ours in OUR_NAMES:
            parts = [f"{n} {r['ratio']:.0f}x" for n, r in row["ratios"][ours].items()]
            print(f"{name}: {ours} {row['frameworks'][ours]['median_s'] * 1e3:.3f} ms; {', '.join(parts)}", flush=True)
        for who, why in row["left_out"].items():
            print(f"  left out: {who}: {why.splitlines()[-1]}", flush=True)
    failures = short(rows[JUDGED])
    write_json(arguments.json, {"machine": machine(2), "rows": rows, "target": TARGET, "short": failures})
    for line in failures:
        print("SHORT:", line)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
