"""Proof: simulated chips against Lava and SANA-FE, every counter equal, and against what the machine can add.

    python tests/proofs/speed_chips.py [--quick] [--json OUT] [--peers PYTHON]

- Loihi 2 against Lava in-process (tests/bench/bench_loihi2_vs_lava.py): u, v and spikes equal, at least 500 times its
  speed per sample on every network, two threads against Lava's own.
- Loihi 1 against SANA-FE (pip install sanafe==2.2.9 in PYTHON, default NEURO_PEERS, else this interpreter) on three
  layers spread over 64 cores: spikes, synaptic events, updates, packets and hops of a sample equal, and at least 100
  times its synaptic events per second: of a batch with two threads, and of one sample alone with one.
- Beside them the roofline: weights of 16 bits that one thread adds up in a bare loop, from cache; a chip's share of it.

`--quick`: fewer repeats and a fifth of the ratio, for a machine that is busy. Exits 1 where a value differs or a
ratio falls short.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "bench")]

import axon_sanafe as sanafe  # noqa: E402
import bench_loihi2_vs_lava as lava  # noqa: E402

from neuro.files import write_json  # noqa: E402
from neuro.hardware.loihi2 import kernels  # noqa: E402
from neuro.hardware.loihi2.delivery import scatter_rows  # noqa: E402

PEER = ROOT / "tests" / "bench" / "peer_sanafe.py"
CASE = {"chip": "loihi1", "sizes": [256, 512, 512, 64], "cores": 64, "steps": 100, "rate": 0.1, "seed": 11}
BATCH = 64
LAVA, SANAFE = 500, 100


def adds_per_second() -> float:
    """Weights that `scatter_rows` adds up per second, one thread: 128 rows of 256, which stay in cache."""
    rows, n, many = 128, 256, 4096
    rng = np.random.default_rng(0)
    weight = rng.integers(-100, 100, rows * n).astype(np.int16)
    events, sums = rng.integers(0, rows, many).astype(np.int32), np.zeros(n, np.int32)
    seconds = []
    for _ in range(30):
        began = time.perf_counter()
        scatter_rows(sums, 0, n, weight, 0, events, 0, many)
        seconds.append(time.perf_counter() - began)
    return many * n / min(seconds)


def timed(program: Any, dense: Any, threads: int, repeats: int) -> tuple[float, Any]:
    """(least seconds, trace) of a batch with so many threads."""
    before, kernels._threads = kernels._threads, lambda: threads
    try:
        seconds = []
        for _ in range(repeats + 1):
            began = time.perf_counter()
            trace = kernels.run(program, dense)
            seconds.append(time.perf_counter() - began)
    finally:
        kernels._threads = before
    return min(seconds[1:]), trace


def against_sanafe(python: str, repeats: int) -> dict[str, Any]:
    asked = [python, str(PEER), json.dumps(CASE)]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=600)
    if done.returncode:
        return {"not_run": (done.stderr.strip() or "no message").splitlines()[-1]}
    said = json.loads(done.stdout.strip().splitlines()[-1])
    program, dense = sanafe.case(CASE)
    counted, _, _ = sanafe.ours(program, dense)
    unequal = {n: (counted[n], said["counted"][n]) for n in sanafe.BOTH if counted[n] != said["counted"][n]}
    rng = np.random.default_rng(0)
    others = rng.random((len(dense), BATCH - 1, dense.shape[2])) < CASE["rate"]
    one_s, _ = timed(program, dense, 1, repeats)
    batch_s, trace = timed(program, np.concatenate([dense, others.astype(np.uint8)], axis=1), 2, repeats)
    theirs = said["counted"]["synops"] / min(said["seconds"])
    alone, together = counted["synops"] / one_s, trace.counters.totals()["synops"] * BATCH / batch_s
    return {
        "case": CASE,
        "version": said["version"],
        "counters": {n: counted[n] for n in sanafe.BOTH},
        "unequal": unequal,
        "sanafe_synops_per_second": theirs,
        "one_sample_one_thread": {"synops_per_second": alone, "ratio": alone / theirs},
        "batch_two_threads": {"batch": BATCH, "synops_per_second": together, "ratio": together / theirs},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    parser.add_argument("--json", type=Path, default=ROOT / "docs" / "results" / "speed_chips.json")
    parser.add_argument("--peers", default=os.environ.get("NEURO_PEERS", sys.executable), help="who has SANA-FE")
    args = parser.parse_args()
    failures, floor = [], adds_per_second()
    lava_wanted, sanafe_wanted = (LAVA / 5, SANAFE / 5) if args.quick else (LAVA, SANAFE)
    rows = {}
    for name, (make, samples, _) in lava.NETWORKS.items():
        row = rows[name] = lava.measure(make, samples, 1 if args.quick else 3) | {"target": lava_wanted}
        row["share_of_roofline"] = row["synops_per_cpu_s"] / floor
        print(
            f"{name}: {row['ratio']:.0f} times Lava, {row['mismatches']} of {row['compared']} values differ", flush=True
        )
        if row["mismatches"] or row["ratio"] < lava_wanted:
            failures.append(f"{name}: {row['ratio']:.0f} times Lava, {row['mismatches']} values differ")
    other = against_sanafe(args.peers, 3 if args.quick else 20)
    if "not_run" in other:
        print(f"SANA-FE: not run, {other['not_run']}")
    else:
        least = min(other[k]["ratio"] for k in ("one_sample_one_thread", "batch_two_threads"))
        print(f"SANA-FE: at least {least:.0f} times its synaptic events per second, unequal: {other['unequal']}")
        if other["unequal"] or least < sanafe_wanted:
            failures.append(f"SANA-FE: {least:.0f} times, unequal {other['unequal']}")
    result = {"proof": "speed_chips", "quick": args.quick, "passed": not failures, "failures": failures}
    machine = {"processors": os.cpu_count(), "load": os.getloadavg()[0]}
    result |= {"machine": machine, "adds_per_second_one_thread": floor, "lava": rows, "sanafe": other}
    write_json(args.json, result)
    print("\n".join(["FAILED", *failures]) if failures else "speed of the chips holds")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
