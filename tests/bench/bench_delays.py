"""Benchmark: a layer with learnt delays, 700 -> 256, 100 steps, 32 samples, 25 delays, ours beside dcls.

    python tests/bench/bench_delays.py [--quick] [--json OUT]

Forward and backward; time and peak memory of a step. dcls_v1 interpolates as ours does and must give the same loss and
gradients; dcls_gauss is the kernel that is usually trained with. Exits 1 where they differ, where dcls is not there, or
where ours is under 12 times the faster one at 3 % input, 5 times at 10 %, or takes more than a fifth of its memory.

--quick: three rounds, no memory.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).resolve().parent), str(ROOT / "tests")]

from axon_peers import OURS, TORCH_PEERS, Job, PeerFailed, machine, memory, ratio, rounds  # noqa: E402
from training_rows import differences  # noqa: E402

from neuro.files import write_json  # noqa: E402

SCRIPT = Path(__file__).with_name("peer_delays.py")
SIZES = {"steps": 100, "batch": 32, "delays": 25, "input_gradient": False}
ROWS = {
    "3 %": SIZES | {"rate": 0.03},
    "10 %": SIZES | {"rate": 0.1},
    "3 %, gradient of the input too": SIZES | {"rate": 0.03, "input_gradient": True},
}
TARGETS = {"3 %": 12.0, "10 %": 5.0}
LEANER = 5.0
PEERS = ("dcls_v1", "dcls_gauss")
SAME = ("dcls_v1", "torch")  # that compute what ours does
TOLERANCE = 1e-3


def job(name, arguments):
    return Job(name, SCRIPT, TORCH_PEERS if name in PEERS else OURS, dict(arguments) | {"framework": name})


def measure(arguments, count, with_memory, peers=PEERS):
    names = ("neuro", *peers, "torch")
    times, left_out = rounds([job(n, arguments) for n in names], count=count, warm=1, threads=2)
    if "neuro" not in times:
        raise PeerFailed(left_out["neuro"])
    apart = {n: differences(times[n].check, times["neuro"].check) for n in SAME if n in times}
    row = {
        "what": arguments,
        "frameworks": {name: t.row() for name, t in times.items()},
        "ratios": {name: ratio(t, times["neuro"]) for name, t in times.items() if name != "neuro"},
        "differences": apart,
        "unequal": [n for n, d in apart.items() if not max(d["loss"], *d["gradients"]) < TOLERANCE],
        "left_out": left_out,
    }
    if with_memory:
        row["memory"] = {n: memory(job(n, arguments)) for n in names if n in times}
        ours = row["memory"]["neuro"]["peak_bytes"]
        row["leaner"] = {n: row["memory"][n]["peak_bytes"] / ours for n in row["memory"] if n != "neuro"}
    return row


def short(rows):
    """What is not good enough."""
    lines = []
    for name, row in rows.items():
        lines += [f"{name}: {who} computes something else: {row['differences'][who]}" for who in row["unequal"]]
        there = [n for n in PEERS if n in row["ratios"]]
        if not there:
            lines.append(f"{name}: dcls was not there to compare with (make peers): {row['left_out']}")
        elif name in TARGETS:
            found = min(row["ratios"][n]["ratio"] for n in there)
            if found < TARGETS[name]:
                lines.append(f"{name}: {found:.1f} times dcls, target {TARGETS[name]:g}")
            if "leaner" in row and min(row["leaner"][n] for n in there) < LEANER:
                lines.append(f"{name}: dcls takes {min(row['leaner'][n] for n in there):.1f} times our memory")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three rounds, no memory")
    parser.add_argument("--json", type=Path, default=ROOT / "docs" / "results" / "bench_delays.json")
    arguments = parser.parse_args()
    rows = {}
    for name, what in ROWS.items():
        row = rows[name] = measure(what, 3 if arguments.quick else 7, not arguments.quick)
        parts = [f"{n} {r['ratio']:.1f}x" for n, r in row["ratios"].items()]
        parts += [f"{n} {times:.1f}x our memory" for n, times in row.get("leaner", {}).items()]
        ours = row["frameworks"]["neuro"]["median_s"]
        print(f"{name}: ours {ours * 1e3:.1f} ms; {', '.join(parts)}", flush=True)
        for who, why in row["left_out"].items():
            print(f"  left out: {who}: {why.splitlines()[-1]}", flush=True)
    failures = short(rows)
    write_json(arguments.json, {"machine": machine(2), "rows": rows, "targets": TARGETS, "short": failures})
    for line in failures:
        print("SHORT:", line)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
