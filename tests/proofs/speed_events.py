"""Proof: large sparse networks, event by event: ahead of Brian 2, near the limit of adding, with the same statistics.

    python tests/proofs/speed_events.py [--quick] [--json OUT] [--part NAME ...]

- `1e4`, `1e5`, `1e6`: that many neurons of 100 synapses each, 5 % of them firing in each step, each synapse with a
  weight of its own; `1e4 delays` with 16 delays; `1e4 equal weights` with one weight for all (reported, not judged).
  Brian 2 (cpp_standalone, -O3 -march=native, float32) without OpenMP and with two threads, whichever is faster; all
  in turns (tests/axon_peers.py); each by its own clock around the loop, nothing built or drawn in it.
  At least 5 times Brian 2 at 1e4 and 3 times at 1e5 and 1e6, in synaptic events per second; equally many spikes.
- at 1e4 and 1e5 at least 60 % of the scatter limit: a bare loop that adds the same weights to the same targets.
- `cuba`: Vogels and Abbott's network of 4,000 neurons; `brunel REGIME`: Brunel's of 12,500 in four. Over several
  seeds: mean rates and CV of intervals equal to Brian 2's within the spread of seeds (three standard errors of the
  difference), Kolmogorov-Smirnov distances of rates and intervals no larger than twice what two runs of one simulator
  differ by; Brunel's regimes regular or irregular, synchronous or not, as he says, and in the asynchronous one the
  rate of his diffusion approximation within 10 %.

NEURO_PEERS names the interpreter that has Brian 2. Without it what needs it is left out by name, and the proof fails
unless `--quick`. `--part` runs some and keeps the others of an earlier result. `--quick`: 1e4, and fewer seeds.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from axon_events import CUBA, REGIMES, brunel_arguments, brunel_rate_hz, circuit_of, distance, statistics_of  # noqa: E402
from axon_events import table_arguments as table  # noqa: E402
from axon_peers import SIMULATORS, Job, PeerFailed, Worker, machine, rounds  # noqa: E402

from neuro.engine.simulation import Simulation  # noqa: E402
from neuro.files import write_json  # noqa: E402

THREADS = 2
OURS_SCRIPT, PEER_SCRIPT = ROOT / "tests" / "bench" / "bench_events.py", ROOT / "tests" / "bench" / "peer_brian2.py"
# n, steps of ours, steps of Brian 2, rounds, least ratio (0: reported, not judged), delays
SIZES = {
    "1e4": (10_000, 1000, 1000, 7, 5.0, 1),
    "1e4 delays": (10_000, 600, 300, 5, 5.0, 16),
    "1e4 equal weights": (10_000, 1000, 1000, 5, 0.0, 1),
    "1e5": (100_000, 100, 100, 5, 3.0, 1),
    "1e6": (1_000_000, 20, 20, 2, 3.0, 1),
}
QUICK = {"1e4": (10_000, 400, 400, 3, 5.0, 1)}
SHARE_OF_LIMIT = 0.6
LIMITED = ("1e4", "1e5")
SETTLE_S = 0.2


def speed(name: str, quick: bool) -> dict[str, Any]:
    """One row of the table."""
    n, own_steps, peer_steps, count, least, delays = (QUICK if quick else SIZES)[name]
    arguments = table(n, 100, delays=delays, constant=name.endswith("equal weights"))
    jobs = [Job("axonport", OURS_SCRIPT, arguments=arguments | {"steps": own_steps})]
    if delays == 1:
        jobs.append(Job("scatter", OURS_SCRIPT, arguments=arguments | {"steps": own_steps, "scatter": True}))
    for key, openmp in (("brian2", 0), ("brian2 openmp", THREADS)):
        if not (quick and openmp):
            peer = arguments | {"steps": peer_steps, "openmp": openmp}
            jobs.append(Job(key, PEER_SCRIPT, SIMULATORS, peer))
    times, left_out = rounds(jobs, count=count, threads=THREADS, warm=0 if n > 100_000 else 1)
    found: dict[str, Any] = {"arguments": arguments, "least_ratio": least, "left_out": left_out}
    rates: dict[str, list[float]] = {}
    for key, timing in times.items():
        steps = peer_steps if "brian2" in key else own_steps
        events = timing.check.get("events") or 100 * timing.check["spikes"]["g"]
        rates[key] = [events / s for s in timing.seconds]
        row = {"events_per_second": float(np.median(rates[key])), "seconds": timing.seconds, "steps": steps}
        row["events_per_step"] = events / steps
        found[key] = row | {k: v for k, v in timing.said.items() if k != "settings"}
    peers = [key for key in rates if "brian2" in key]
    if peers:
        best = max(peers, key=lambda key: np.median(rates[key]))
        found |= {"fastest_peer": best, "ratio": float(np.median(np.divide(rates["axonport"], rates[best])))}
        per_step = [found[key]["events_per_step"] for key in ("axonport", best)]
        found["spikes_differ_by"] = abs(per_step[0] / per_step[1] - 1)
    if "scatter" in rates:
        found["share_of_scatter_limit"] = float(np.median(np.divide(rates["axonport"], rates["scatter"])))
    return found


def compare(arguments: dict[str, Any], seconds: float, seeds: int) -> dict[str, Any]:
    """Both simulators over seeds: statistics, and how far apart they are."""
    steps, settle, dt = round(seconds / arguments["dt"]), round(SETTLE_S / arguments["dt"]), arguments["dt"]
    own, theirs, busy = [], [], {"axonport": [], "brian2": []}
    sizes: dict[str, int] = {}
    for seed in range(seeds):
        circuit = circuit_of(arguments, seed)
        sizes = {name: p.size for name, p in circuit.populations.items()}
        got = Simulation(circuit).run(steps)
        own.append(statistics_of(got.spikes, sizes, dt, settle, steps))
        busy["axonport"].append(got.seconds)
    found: dict[str, Any] = {"arguments": arguments, "biological_seconds": seconds, "seeds": seeds}
    with tempfile.TemporaryDirectory() as folder:
        job = Job("brian2", PEER_SCRIPT, SIMULATORS, arguments | {"steps": steps, "openmp": 0, "out": folder})
        try:
            with Worker(job, THREADS) as worker:
                found["brian2_version"] = worker.ready().said["version"]
                for _ in range(seeds):
                    busy["brian2"].append(worker.ask("go", 1)["seconds"])
                    worker.ask("check")
                    trains = {}
                    for name in sizes:
                        with np.load(Path(folder) / f"{name}.npz") as file:
                            trains[name] = file["step"], file["neuron"]
                    theirs.append(statistics_of(trains, sizes, dt, settle, steps))
        except PeerFailed as failure:
            found["left_out"] = {"brian2": str(failure)}
    plain = [key for key, value in own[0].items() if isinstance(value, float)]
    found["axonport"] = {key: [s[key] for s in own] for key in plain} | {"seconds": busy["axonport"]}
    if theirs:
        found["brian2"] = {key: [s[key] for s in theirs] for key in plain} | {"seconds": busy["brian2"]}
        found["times_faster"] = float(np.median(busy["brian2"]) / np.median(busy["axonport"]))
        found["apart"] = {key: apart(found["axonport"][key], found["brian2"][key]) for key in plain if key != "fano"}
        found["distances"] = {what: distances(own, theirs, what) for what in ("rates", "gaps", "cvs")}
    return found


def apart(a: list[float], b: list[float]) -> float:
    """Difference of two means in standard errors of it. The spread is that of both, at least 0.5 % of the mean: a few
    seeds may agree by chance."""
    spread = math.sqrt((np.var(a, ddof=1) + np.var(b, ddof=1)) / 2)
    spread = max(spread, 0.005 * abs(float(np.mean(b))))
    return float(abs(np.mean(a) - np.mean(b)) / max(spread * math.sqrt(1 / len(a) + 1 / len(b)), 1e-12))


def distances(own: list[dict[str, Any]], theirs: list[dict[str, Any]], what: str) -> dict[str, float]:
    """Kolmogorov-Smirnov distances: median between the two simulators, largest between two runs of one."""
    across = [distance(a[what], b[what]) for a in own for b in theirs]
    within = [distance(g[i][what], g[j][what]) for g in (own, theirs) for i in range(len(g)) for j in range(i)]
    return {"across_median": float(np.median(across)), "within_largest": max(within)}


def brunel(regime: str, quick: bool) -> dict[str, Any]:
    seconds = 0.5 if quick else 0.3 if regime == "SR" else 0.6  # at 300 Hz Brian 2 takes its time
    found = compare(brunel_arguments(regime, 2500 if quick else 12_500), seconds, 3)
    return found | {"mean_field_rate_hz": brunel_rate_hz(regime)}


def same_statistics(name: str, row: dict[str, Any]) -> dict[str, bool]:
    if "apart" not in row:
        return {}
    found = {f"{name}: {key} as Brian 2's": value <= 3 for key, value in row["apart"].items()}
    for what, d in row["distances"].items():
        found[f"{name}: distribution of {what} as Brian 2's"] = d["across_median"] <= 2 * d["within_largest"]
    return found


def regimes(rows: dict[str, Any], quick: bool) -> dict[str, bool]:
    """What Brunel says of his figure 8."""
    mean = {r: {k: float(np.mean(v)) for k, v in row["axonport"].items()} for r, row in rows.items()}
    near = abs(mean["AI"]["rate_E_hz"] / rows["AI"]["mean_field_rate_hz"] - 1)
    found = {"brunel AI: rate of the diffusion approximation within 10 %": near < (0.2 if quick else 0.1)}
    if quick:
        return found
    return found | {
        "brunel SR: regular, near the highest rate": mean["SR"]["cv"] < 0.1 and mean["SR"]["rate_E_hz"] > 200,
        "brunel AI, SI: irregular": min(mean[r]["cv"] for r in ("AI", "SI fast", "SI slow")) > 0.35,
        "brunel SI slow: oscillates (activity varies more than in AI)": mean["SI slow"]["fano"]
        > 3 * mean["AI"]["fano"],
        "brunel: rates fall from SR over SI fast and AI to SI slow": mean["SR"]["rate_E_hz"]
        > mean["SI fast"]["rate_E_hz"]
        > mean["AI"]["rate_E_hz"]
        > mean["SI slow"]["rate_E_hz"],
    }


def checks_of(parts: dict[str, Any], quick: bool) -> dict[str, bool]:
    found: dict[str, bool] = {}
    for name in (QUICK if quick else SIZES) & parts.keys():
        row = parts[name]
        if "ratio" in row:
            least = 3.0 if quick else row["least_ratio"]
            if least > 0:
                found[f"{name}: at least {least:g} times Brian 2"] = row["ratio"] >= least
            found[f"{name}: as many spikes as Brian 2 within 2 %"] = row["spikes_differ_by"] < 0.02
        if name in LIMITED and "share_of_scatter_limit" in row:
            least = 0.4 if quick else SHARE_OF_LIMIT
            found[f"{name}: at least {least:.0%} of the scatter limit"] = row["share_of_scatter_limit"] >= least
    if "cuba" in parts:
        found |= same_statistics("cuba", parts["cuba"])
        mean = float(np.mean(parts["cuba"]["axonport"]["cv"]))
        found["cuba: irregular, CV of intervals above 0.5"] = mean > 0.5
    rows = {name.removeprefix("brunel "): row for name, row in parts.items() if name.startswith("brunel ")}
    for regime, row in rows.items():
        found |= same_statistics(f"brunel {regime}", row)
    if len(rows) == (1 if quick else len(REGIMES)):
        found |= regimes(rows, quick)
    if not quick and not os.environ.get(SIMULATORS):
        found[f"{SIMULATORS} names an interpreter with Brian 2"] = False
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1e4 and the smaller networks, under a minute")
    parser.add_argument("--json", type=Path, default=ROOT / "docs" / "results" / "speed_events.json")
    brunels = [f"brunel {regime}" for regime in REGIMES]
    names = [*SIZES, "cuba", *brunels]
    parser.add_argument("--part", nargs="+", choices=names, help="only these; others stay as they were")
    args = parser.parse_args()
    parts: dict[str, Any] = {}
    if args.part and args.json.exists():
        before = json.loads(args.json.read_text(encoding="utf-8"))
        parts = before["parts"] if before["quick"] == args.quick else {}
    for name in args.part or ([*QUICK, "cuba", "brunel AI"] if args.quick else names):
        if name == "cuba":
            parts[name] = compare(CUBA, 1.0 if args.quick else 2.0, 3 if args.quick else 6)
        elif name in brunels:
            parts[name] = brunel(name.removeprefix("brunel "), args.quick)
        else:
            parts[name] = speed(name, args.quick)
        parts[name]["machine"] = machine(THREADS)
    checks = checks_of(parts, args.quick)
    complete = args.quick or set(names) <= parts.keys()
    result = {"proof": "speed_events", "quick": args.quick, "threads": THREADS, "parts": parts, "checks": checks}
    result["passed"] = all(checks.values()) and complete
    write_json(args.json, result)
    print(json.dumps(result, indent=2))
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
