"""Proof: whole chips in memory, and what an event costs.

    python tests/proofs/scale.py [--quick] [--json OUT] [--peers PYTHON]

- a full TrueNorth: 4,096 cores of 256 x 256 (1,048,576 neurons, 268,435,456 crosspoints, half of them set), 20 Hz and
  128 active synapses per neuron, in under 8 GiB;
- a 48-chip SpiNNaker board with the cortical microcircuit of Potjans and Diesmann (77,169 neurons, 0.3 G synapses),
  in NEST's mean rates;
- cost against events, processor time of one thread: TrueNorth cores added at 20 Hz (a straight line), and rates of 2.5
  to 160 Hz in the same cores (less than a straight line: what a busy core shares is paid once);
- the same slice of a TrueNorth in brian2 (cpp_standalone) and SANA-FE, one thread each, every spike counted equal:
  in PYTHON (default: NEURO_PEERS, else this interpreter) where it has them.

Two threads but where said. `--quick`: 512 cores, a third of the microcircuit, fewer steps, a small slice.
Exits 1 where memory, rates, spike counts or the straight line fall short. Speeds are reported, not judged.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from axon_full_truenorth import TICK, full, sliced, synapses_of  # noqa: E402
from axon_microcircuit import CORES_PER_CHIP, DT, NAMES, RATES, microcircuit  # noqa: E402

from neuro.files import write_json  # noqa: E402
from neuro.hardware.spinnaker1.machine import Machine  # noqa: E402
from neuro.hardware.trace import Counters  # noqa: E402
from neuro.hardware.truenorth.bank import Bank  # noqa: E402
from neuro.hardware.truenorth.run import net_of, start, step_many  # noqa: E402

THREADS = 2
MEMORY = 8 << 30
PEER = ROOT / "tests" / "bench" / "peer_slice.py"
RATES_HZ = (2.5, 5, 10, 20, 40, 80, 160)
RATE_ERROR_HZ, RATE_ERROR = 0.5, 0.25  # of a population's mean rate: whichever is larger
ROW = {name: k for k, name in enumerate(Counters.NAMES)}


def peak_bytes() -> int:
    """Largest memory this process has held."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def truenorth(cores: int, steps: int) -> dict[str, Any]:
    bank = full(cores)
    crosspoints = int(bank.crossbar.size * 64)
    net, state = net_of(bank), start(bank, THREADS)
    del bank
    step_many(net, state, 50)  # compile, and leave the first phases behind
    began = time.perf_counter()
    done = step_many(net, state, steps)
    seconds = time.perf_counter() - began
    synops, spikes, updates = (int(done.per_core[ROW[k]].sum()) for k in ("synops", "spikes", "updates"))
    return {
        "cores": cores,
        "neurons": cores * 256,
        "crosspoints": crosspoints,
        "biological_seconds": steps * TICK,
        "rate_hz": spikes / updates / TICK,
        "synapses_per_spike": synops / spikes,
        "seconds": seconds,
        "real_time_factor": steps * TICK / seconds,
        "synaptic_events_per_second": synops / seconds,
        "peak_memory_bytes": peak_bytes(),
    }


def spinnaker(scale: float, milliseconds: int) -> dict[str, Any]:
    began = time.perf_counter()
    program, synapses = microcircuit(scale)
    built = time.perf_counter() - began
    machine = Machine(program, threads_used=THREADS)
    machine.advance(round(100 / DT))  # 100 ms to settle
    began = time.perf_counter()
    spikes = np.zeros(len(NAMES), np.int64)
    totals: dict[str, int] = {}
    for _ in range(milliseconds // 50):
        stretch = machine.advance(round(50 / DT))
        spikes += np.bincount(stretch.spikes[:, 1] - 1, minlength=len(NAMES))
        for name, values in stretch.counters.items():
            totals[name] = totals.get(name, 0) + int(values.sum())
    seconds = time.perf_counter() - began
    sizes = [program.populations[name].size for name in NAMES]
    rates = spikes / sizes / (milliseconds * 1e-3)
    return {
        "scale": scale,
        "neurons": sum(sizes),
        "synapses": synapses,
        "cores": program.placement.cores,
        "chips": -(-program.placement.cores // CORES_PER_CHIP),
        "biological_seconds": milliseconds * 1e-3,
        "rates_hz": dict(zip(NAMES, rates.tolist(), strict=True)),
        "nest_rates_hz": dict(zip(NAMES, RATES, strict=True)),
        "saturations": totals["saturated"],
        "build_seconds": built,
        "seconds": seconds,
        "real_time_factor": milliseconds * 1e-3 / seconds,
        "synaptic_events_per_second": totals["synops"] / seconds,
        "peak_memory_bytes": peak_bytes(),
    }


def cost_of(banks: Iterable[Bank], steps: int) -> dict[str, Any]:
    """Processor time of one thread per tick against synaptic events per tick, least of three runs of each bank."""
    events, cost = [], []
    for bank in banks:
        net, state = net_of(bank), start(bank, 1)
        step_many(net, state, 100)
        tries = []
        for _ in range(3):
            began = time.process_time()
            done = step_many(net, state, steps)
            tries.append((time.process_time() - began) / steps)
            count = int(done.per_core[ROW["synops"]].sum()) / steps
        events.append(count)
        cost.append(min(tries))
    x, y = np.array(events), np.array(cost)
    slope, base = np.polyfit(x, y, 1)
    residual = y - (slope * x + base)
    return {
        "events_per_tick": events,
        "seconds_per_tick": cost,
        "seconds_per_event": float(slope),
        "seconds_per_tick_without_events": float(base),
        "r_squared": float(1 - (residual**2).sum() / ((y - y.mean()) ** 2).sum()),
        "exponent": float(np.polyfit(np.log(x), np.log(y), 1)[0]),
    }


def linear(quick: bool) -> dict[str, Any]:
    """More events by more cores, at 20 Hz; and by higher rates, in the same cores."""
    steps, few = (200, 32) if quick else (400, 256)
    cores = (16, 32, 48, 64) if quick else (128, 256, 384, 512, 768, 1024)
    return {
        "by_size": {"cores": list(cores), **cost_of((full(n) for n in cores), steps)},
        "by_rate": {"cores": few, "rates_hz": list(RATES_HZ), **cost_of((full(few, r) for r in RATES_HZ), steps)},
    }


def peers(python: str, cores: int, steps: int) -> dict[str, Any]:
    """One slice in every simulator that is there: seconds, and that all of them spike equally often."""
    bank = sliced(cores)
    net = net_of(bank)
    step_many(net, start(bank, 1), 2)
    tries = []
    for _ in range(3):
        state = start(bank, 1)
        began = time.perf_counter()
        done = step_many(net, state, steps)
        tries.append(time.perf_counter() - began)
    own = {"spikes": int(done.per_core[ROW["spikes"]].sum()), "synops": int(done.per_core[ROW["synops"]].sum())}
    found: dict[str, Any] = {"cores": cores, "steps": steps, "ours": own | {"seconds": min(tries)}}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slice.npz"
        np.savez(path, **synapses_of(bank))
        for name in ("brian2", "sanafe"):
            done_ = subprocess.run([python, str(PEER), name, str(path), str(steps)], capture_output=True, text=True)
            if done_.returncode:
                reason = (done_.stderr.strip() or "no message").splitlines()[-1]
                found[name] = {"not_run": reason}
                continue
            said = json.loads(done_.stdout.strip().splitlines()[-1])
            per_event = said["seconds"] / said["synops"]
            said["times_slower_than_ours"] = per_event / (min(tries) / own["synops"])
            found[name] = said
    return found


def draw(cost: dict[str, Any], path: Path) -> None:
    """Both ways to more events as a picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from neuro.plots import save

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    size, rate = cost["by_size"], cost["by_rate"]
    titles = (
        f"more cores, {size['cores'][0]} to {size['cores'][-1]}, at 20 Hz",
        f"higher rates, {RATES_HZ[0]:g} to {RATES_HZ[-1]:g} Hz, in {rate['cores']} cores",
    )
    for axes, row, title in zip(figure.subplots(1, 2), (size, rate), titles, strict=True):
        x, y = np.array(row["events_per_tick"]) / 1e6, np.array(row["seconds_per_tick"]) * 1e3
        fit = row["seconds_per_event"] * x * 1e9 + row["seconds_per_tick_without_events"] * 1e3
        axes.plot(x, y, "o", label="measured, one thread")
        axes.plot(x, fit, "-", label=f"{row['seconds_per_event'] * 1e9:.2f} ns an event, R² = {row['r_squared']:.3f}")
        axes.set_xlabel("synaptic events per tick (millions)")
        axes.set_ylabel("processor time per tick (ms)")
        axes.set_title(title)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend()
    save(figure, path)


def checks_of(result: dict[str, Any], quick: bool) -> dict[str, bool]:
    chip, board, line, other = (result[k] for k in ("truenorth", "spinnaker", "linear", "peers"))
    found = {
        "truenorth: 20 Hz within 5 %": abs(chip["rate_hz"] - 20) <= 1,
        "truenorth: 128 synapses per spike within 1 %": abs(chip["synapses_per_spike"] - 128) <= 1.28,
        "truenorth: under 8 GiB": chip["peak_memory_bytes"] < MEMORY,
        "spinnaker: one board": board["chips"] <= 48,
        "cost: linear in events as cores are added, R^2 >= 0.98": line["by_size"]["r_squared"] >= 0.98,
        "cost: grows no faster than events as rates rise, exponent <= 1": line["by_rate"]["exponent"] <= 1.0,
    }
    if quick:  # fewer neurons have other correlations: only that all populations are alive
        found["spinnaker: every population fires"] = min(board["rates_hz"].values()) > 0.05
    else:
        found["truenorth: 2^20 neurons, 2^28 crosspoints"] = (
            chip["neurons"] == 1 << 20 and chip["crosspoints"] == 1 << 28
        )
        found["spinnaker: 77,169 neurons and 0.3 G synapses"] = board["neurons"] == 77169 and board["synapses"] > 2.9e8
        off = {n: abs(r - board["nest_rates_hz"][n]) for n, r in board["rates_hz"].items()}
        near = all(d <= max(RATE_ERROR_HZ, RATE_ERROR * board["nest_rates_hz"][n]) for n, d in off.items())
        found["spinnaker: mean rates as NEST's (0.5 Hz or 25 %)"] = near
    for name in ("brian2", "sanafe"):
        if "spikes" in other[name]:
            found[f"{name}: spikes as often as we do"] = other[name]["spikes"] == other["ours"]["spikes"]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="parts of the chips, under a minute")
    parser.add_argument("--json", type=Path, default=ROOT / "docs" / "results" / "scale.json")
    parser.add_argument(
        "--peers", default=os.environ.get("NEURO_PEERS", sys.executable), help="interpreter of the peers"
    )
    args = parser.parse_args()
    result: dict[str, Any] = {"proof": "scale", "quick": args.quick, "threads": THREADS}
    result["truenorth"] = truenorth(512 if args.quick else 4096, 100 if args.quick else 1000)
    result["linear"] = linear(args.quick)
    result["peers"] = peers(args.peers, 2 if args.quick else 64, 300 if args.quick else 1000)
    result["spinnaker"] = spinnaker(0.3 if args.quick else 1.0, 100 if args.quick else 1000)
    checks = checks_of(result, args.quick)
    result |= {"checks": checks, "passed": all(checks.values())}
    write_json(args.json, result)
    draw(result["linear"], args.json.with_name("scale_linear.png"))
    print(json.dumps(result, indent=2))
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
