"""Bench: synaptic events per second of `neuro.simulate` against size, rate and delays, beside what adding alone takes.

    python tests/bench/bench_events.py [--quick] [--json OUT] [--threads N]

Rows of the circuit `table` (tests/axon_events.py). The scatter limit is measured with the same synapses and the same
spikes: a bare loop adds each weight to its target, no neurons, no delays.
Reported, not judged; tests/proofs/speed_events.py judges. As a worker of that proof it runs one circuit, timed.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from axon_events import circuit_of, table_arguments  # noqa: E402
from axon_peers import Work, serve  # noqa: E402
from numba import njit  # noqa: E402

from neuro.engine.simulation import Simulation  # noqa: E402

U = np.uintp
SETTLE = 60  # steps before anything counts: memory is touched, spikes are in the slots


@njit(nogil=True, error_model="numpy")
def bare(pointer, target, weight, sums, spikes, first, steps):
    """The bare loop: one part, rows of all spikes of all steps."""
    for t in range(steps):
        for e in range(U(first[t]), U(first[t + 1])):
            row = U(spikes[U(e)])
            for k in range(U(pointer[row]), U(pointer[row + U(1)])):
                sums[U(target[U(k)])] += weight[U(k)]


@njit(nogil=True, error_model="numpy")
def bare_constant(pointer, target, weight, sums, spikes, first, steps):
    """As `bare` where all weights are one number."""
    w = weight[0]
    for t in range(steps):
        for e in range(U(first[t]), U(first[t + 1])):
            row = U(spikes[U(e)])
            for k in range(U(pointer[row]), U(pointer[row + U(1)])):
                sums[U(target[U(k)])] += w


class Scatter:
    """The additions of some steps of a simulation with one lag, by themselves."""

    def __init__(self, made: Simulation, steps: int) -> None:
        net, pools = made._net, made.built.pools
        recorded = made.run(steps)
        when, self.spikes = recorded.spikes["g"]
        self.first = np.searchsorted(when, recorded.start + np.arange(steps + 1)).astype(np.int64)
        self.steps, self.events, self.threads = steps, recorded.events, made.threads
        size, self.parts = int(net.size[0]), []
        for part in range(net.parts):
            p, s, w = (int(a[0, part]) for a in (net.pointer_at, net.synapse_at, net.weight_at))
            pointer = pools.pointer[p : p + size + 1]
            n = int(pointer[-1])
            weight = pools.weight[w : w + n] if w >= 0 else net.weight
            self.parts.append((pointer, pools.target[s : s + n], weight, np.zeros(int(net.width[0]), np.float32)))
        self.loop = bare if net.weighs[0] else bare_constant

    def seconds(self) -> float:
        def share(thread: int) -> None:
            for part in self.parts[thread :: self.threads]:
                self.loop(*part, self.spikes, self.first, self.steps)

        began = time.perf_counter()
        others = [threading.Thread(target=share, args=(k,)) for k in range(1, self.threads)]
        for other in others:
            other.start()
        share(0)
        for other in others:
            other.join()
        return time.perf_counter() - began


def build(arguments: dict[str, Any]) -> Work:
    """A worker: one circuit (or, with ``scatter``, its additions alone), ``steps`` at a time."""
    began = time.perf_counter()
    made = Simulation(circuit_of(arguments, arguments.get("seed", 1)), threads=arguments["threads"])
    said = {"build_seconds": time.perf_counter() - began, "bytes_per_synapse": made.bytes_per_synapse}
    said |= {"synapses": sum(made.synapses), "threads": made.threads}
    steps = arguments["steps"]
    made.run(min(SETTLE, 2 * steps), record=False)
    if arguments.get("scatter"):
        scatter = Scatter(made, steps)
        scatter.seconds()
        return Work(scatter.seconds, lambda: {"events": scatter.events}, None, said, reported=True)
    counted: dict[str, Any] = {}

    def step() -> float:
        got = made.run(steps, record=False)
        counted.update(events=got.events, spikes=got.counts)
        return got.seconds

    def check() -> dict[str, Any]:
        step()
        return counted

    return Work(step, check, None, said, reported=True)


def row(threads: int, steps: int, tries: int, **table: Any) -> dict[str, Any]:
    """One circuit here and now: best of some tries."""
    made = Simulation(circuit_of(table_arguments(**table), 1), threads=threads)
    made.run(min(SETTLE, 2 * steps), record=False)
    runs = [made.run(steps, record=False) for _ in range(tries)]
    best = min(runs, key=lambda r: r.seconds / max(r.events, 1))
    found: dict[str, Any] = dict(table) | {"events_per_second": best.events / best.seconds}
    found |= {"seconds_per_step": best.seconds / steps, "spikes_per_step": best.counts["g"] / steps}
    found |= {"bytes_per_synapse": made.bytes_per_synapse, "pulled": not made.built.pushes}
    if table.get("delays", 1) == 1:
        scatter = Scatter(made, steps)
        found["scatter_limit"] = scatter.events / min(scatter.seconds() for _ in range(tries + 1))
    return found


def curve(quick: bool, threads: int) -> list[dict[str, Any]]:
    """Size, rate, delays and degree, one at a time around n = 1e4, 100 synapses each, 5 %."""
    tries = 2 if quick else 4
    sizes = (1000, 10_000) if quick else (1000, 10_000, 100_000, 1_000_000)
    rows = [row(threads, max(5, min(400, 4_000_000 // n)), tries, n=n, degree=100) for n in sizes]
    for rate in (0.01, 0.2) if quick else (0.001, 0.01, 0.2):
        rows.append(row(threads, 400, tries, n=10_000, degree=100, rate=rate))
    for delays in (4, 16, 64):
        rows.append(row(threads, 200, tries, n=10_000, degree=100, delays=delays))
    for delays in () if quick else (16, 64):
        rows.append(row(threads, 40, tries, n=10_000, degree=1000, delays=delays))
        rows.append(row(threads, 30, tries, n=100_000, degree=100, delays=delays))
    for degree in (10, 1000):
        rows.append(row(threads, 40 if degree == 1000 else 400, tries, n=10_000, degree=degree))
    rows.append(row(threads, 200, tries, n=10_000, degree=100, constant=True))
    return rows


def main() -> int:
    from axon_peers import machine

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path, default=ROOT / "docs" / "results" / "curve_events.json")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    from neuro.files import write_json

    rows = curve(args.quick, args.threads)
    result = {"bench": "events", "quick": args.quick, "threads": args.threads, "machine": machine(), "rows": rows}
    write_json(args.json, result)
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("{"):
        serve(build)
    else:
        sys.exit(main())
