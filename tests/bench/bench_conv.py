"""Benchmark: a training step of the N-MNIST network (three convolutions, batch norm, LIF), ours beside the others.

    python tests/bench/bench_conv.py [--quick] [--memory] [--json OUT]

Forward and backward of 15 steps x 32 samples at 7 % input (`peer_conv`). Seconds in turns, every framework checked
against a plain loop in float64, beside the dense convolutions alone; --memory: the peak of a step too. Exits 1 where
somebody computes something else or ours is less than 3 times as fast as the fastest of the others.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

from axon_peers import OURS, TORCH_PEERS, Job, PeerFailed, machine, memory, ratio, rounds  # noqa: E402
from training_rows import ROOT, differences, merge  # noqa: E402

SCRIPT = Path(__file__).with_name("peer_conv.py")
ROWS = {
    "N-MNIST CNN, 7 %": {"steps": 15, "batch": 32, "rate": 0.07},
    "N-MNIST CNN, 20 %": {"steps": 15, "batch": 32, "rate": 0.2},
}
PEERS = ("spikingjelly", "snntorch")
# A spike in a million falls on the other side of the threshold when sums are rounded otherwise, and what comes after
# it follows: nobody may be further from the float64 loop than so many times the float32 loop is.
TOLERANCE = 4.0
WANTED = 3.0


def job(name, what):
    mine = name not in PEERS
    return Job(name, SCRIPT, OURS if mine else TORCH_PEERS, {**what, "framework": name})


def measure(what, count, threads):
    """One row: seconds, ratios, checks, who was left out and why."""
    times, left_out = rounds([job(n, what) for n in ("neuro", *PEERS, "torch_loop", "floor")], count=count,
                             threads=threads)  # fmt: skip
    ours = times["neuro"]
    others = [n for n in times if n not in ("neuro", "floor")]
    exact = Job("exact", SCRIPT, OURS, {**what, "framework": "torch_loop", "double": True})
    truth = rounds([exact], count=0, warm=0, threads=threads)[0]["exact"].check
    found = {n: differences(times[n].check, truth) for n in times if n != "floor"}
    allowed = TOLERANCE * max(found["torch_loop"]["gradients"])
    return {
        "what": what,
        "machine": machine(threads),
        "ours_s": ours.median,
        "floor_s": times["floor"].median,
        "of_floor": ours.median / times["floor"].median,
        "frameworks": {n: t.row() for n, t in times.items()},
        "ratios": {n: ratio(times[n], ours) for n in others},
        "left_out": left_out,
        "differences": found,
        "unequal": [n for n, d in found.items() if max(d["loss"], *d["gradients"]) > allowed],
    }


def peaks(what, threads):
    found = {}
    for name in ("neuro", *PEERS, "torch_loop"):
        try:
            found[name] = memory(job(name, what), threads=threads)
        except PeerFailed as failure:
            found[name] = {"left_out": str(failure)}
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three rounds, the first row")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, default=ROOT / "docs" / "results" / "bench_conv.json")
    arguments = parser.parse_args()
    good = True
    for name, what in list(ROWS.items())[: 1 if arguments.quick else None]:
        row = measure(what, 3 if arguments.quick else 9, arguments.threads)
        if arguments.memory:
            row["memory"] = peaks(what, arguments.threads)
        print(f"{name}: ours {row['ours_s'] * 1e3:.1f} ms ({row['of_floor']:.2f} of the dense convolutions alone)")
        for n, r in row["ratios"].items():
            print(f"  {n} {r['ratio']:.2f}x [{r['low']:.2f}, {r['high']:.2f}]")
        for n, m in row.get("memory", {}).items():
            print(f"  {n}: {m['peak_bytes'] / 1e6:.0f} MB" if "peak_bytes" in m else f"  {n}: {m}")
        for n, why in row["left_out"].items():
            print(f"  left out: {n}: {why.splitlines()[-1]}")
        for n in row["unequal"]:
            print(f"  computes something else: {n}: {row['differences'][n]}")
        merge(arguments.json, {name: row}, limits=False)
        good &= not row["unequal"]
        if name == next(iter(ROWS)):
            good &= all(r["ratio"] >= WANTED for n, r in row["ratios"].items() if n in PEERS)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
