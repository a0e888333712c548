"""Benchmark: by events or by a matrix product, both ways at rates of 1 to 50 %, and what `neuro.nn.crossover` chooses.

    python tests/bench/bench_crossover.py [--quick] [--threads 2 1] [--json OUT]

In turns in one process, float32, on spikes of given rates: a training step of a Linear and LIF (``layer``), and of a
Linear in front of neurons that listen to each other, forwards (``gather``) and backwards (``scatter``) by themselves.
``cost``: time of the way that is chosen over that of the faster one. Where both are nearly as fast, which one is faster
changes from run to run; ``lost_s`` of all points together over the time of the faster ways, ``lost``, does not.
``crossing``: the rate at which both take the same time; null where events are faster at all of them. The constants were
fitted by hand to such runs; results of training depend on them in their last bits, so they never follow a clock.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests")]

import torch  # noqa: E402
from axon_peers import machine  # noqa: E402
from torch import nn  # noqa: E402

from neuro.files import write_json  # noqa: E402
from neuro.nn import LIF, Recurrent, SpikingNetwork, crossover  # noqa: E402
from neuro.nn.spikes import Spikes  # noqa: E402

RATES = (0.01, 0.03, 0.06, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
SQUARE = (64, 128, 256, 512, 1024, 2048, 4096)
SHAPES = (*((n, n) for n in SQUARE), (700, 256), (1024, 128), (2048, 256), (256, 2048))
LAYERS = {
    "LIF": (("layer",), lambda n: LIF(0.9, detach=True, surrogate="atan")),
    "recurrent LIF": (("gather", "scatter"), lambda n: Recurrent(LIF(0.9, surrogate="atan"), n)),
}
STEPS, BATCH, WORK = 100, 16, 2e9  # fewer steps where a dense product of all would take more flops
CONSTANTS = ("R", "S", "G", "C", "NEAR")


@contextmanager
def forced(way):
    """Both ways whatever the rate."""
    before = {name: getattr(crossover, name) for name in ("layer", "gather", "scatter")}
    for name in before:
        setattr(crossover, name, lambda *_: way == "events")
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(crossover, name, function)


def seconds(net, x):
    """(forwards, backwards)."""
    net.zero_grad(set_to_none=True)
    x.grad = None
    began = time.perf_counter()
    y = net(x).sum()
    half = time.perf_counter()
    y.backward()
    return half - began, time.perf_counter() - half


def sweep(kind, sources, n, count):
    """Rows of points, one for each choice: seconds of both ways at each rate."""
    choices, make = LAYERS[kind]
    torch.manual_seed(0)
    net = SpikingNetwork({"w": nn.Linear(sources, n, bias=False), "n": make(n)}, input_shape=(sources,), dt=1e-3)
    steps = max(20, min(STEPS, int(WORK / (2 * BATCH * sources * n))))
    rows = {choice: [] for choice in choices}
    for rate in RATES:
        with torch.no_grad():  # some 5 % of the neurons fire, whatever comes in
            net.layer("w").weight.normal_(0, 0.25 / math.sqrt(sources * rate))
            for parameter in net.layer("n").parameters():  # what the neurons hear of each other is not swept
                parameter.zero_().requires_grad_(False)
        fired = torch.rand(steps, BATCH, sources, generator=torch.Generator().manual_seed(1)) < rate
        x = Spikes.pack(fired.to(torch.uint8), torch.float32).requires_grad_()
        taken = {"events": [], "dense": []}
        for turn in range(count + 1):
            for way, found in taken.items():
                with forced(way):
                    found.append(seconds(net, x))
                if not turn:  # the first compiles
                    found.clear()
        for k, choice in enumerate(choices):
            whole = (sum, lambda pair: pair[0], lambda pair: pair[1])[0 if choice == "layer" else 1 + k]
            both = {way: statistics.median(map(whole, found)) for way, found in taken.items()}
            chosen = "events" if chooses(choice, fired, sources, n) else "dense"
            faster = min(both.values())
            rows[choice].append(
                {"rate": rate, "events_s": both["events"], "dense_s": both["dense"], "chosen": chosen}
                | {"cost": both[chosen] / faster, "lost_s": both[chosen] - faster}
            )
    return {
        f"{choice}, {sources} to {n}": {"steps": steps, "batch": BATCH, "crossing": crossing(points), "points": points}
        for choice, points in rows.items()
    }


def chooses(choice, fired, sources, n):
    events, rows = int(fired.sum()), fired.shape[0] * fired.shape[1]
    if choice == "layer":  # counts its lists, filled up to multiples of four
        padded = int(((fired.sum(-1) + 3) // 4 * 4).sum())
        return crossover.layer(padded, rows, sources + 4)
    return getattr(crossover, choice)(events, rows, sources, n)


def crossing(points):
    """The first rate at which events stop being faster, between two of the sweep by a straight line."""
    before = None
    for point in points:
        now = (point["rate"], math.log(point["events_s"] / point["dense_s"]))
        if now[1] > 0:
            if before is None:
                return now[0]
            return before[0] + (now[0] - before[0]) * -before[1] / (now[1] - before[1])
        before = now
    return None


def judged(rows):
    """choice -> how its points came out."""
    found = {}
    for choice in ("layer", "gather", "scatter"):
        points = [p for name, row in rows.items() if name.startswith(choice) for p in row["points"]]
        cost = sorted(p["cost"] for p in points)
        faster = sum(min(p["events_s"], p["dense_s"]) for p in points)
        found[choice] = {
            "points": len(points),
            "lost": sum(p["lost_s"] for p in points) / faster,
            "mean_cost": statistics.geometric_mean(cost),
            "within_10_percent": sum(c <= 1.1 for c in cost) / len(cost),
            "worst": cost[-1],
            "always_events": sum(p["events_s"] for p in points) / faster - 1,
            "always_dense": sum(p["dense_s"] for p in points) / faster - 1,
        }
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="sizes up to 512, one turn")
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 1])
    parser.add_argument("--json", type=Path, default=ROOT / "docs" / "results" / "bench_crossover.json")
    arguments = parser.parse_args()
    shapes = [s for s in SHAPES if max(s) <= 512 or not arguments.quick]
    result = {"machine": machine(max(arguments.threads)), "constants": {k: getattr(crossover, k) for k in CONSTANTS}}
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        rows = {}
        for kind in LAYERS:
            for sources, n in shapes:
                large = sources * n > 1 << 22
                if large and kind != "LIF":  # such recurrent layers nobody trains
                    continue
                found = sweep(kind, sources, n, 1 if arguments.quick else 3 if large else 5)
                rows |= found
                for name, row in found.items():
                    shown = ", ".join(f"{p['rate']:g}: {p['events_s'] / p['dense_s']:.2f}" for p in row["points"])
                    worst = max(p["cost"] for p in row["points"])
                    print(f"{threads} threads, {name}: events over dense {shown}; worst cost {worst:.2f}", flush=True)
        result[f"threads_{threads}"] = {"rows": rows, "judged": judged(rows)}
        for choice, row in judged(rows).items():
            print(f"{threads} threads, {choice}:", ", ".join(f"{k} {v:.3g}" for k, v in row.items()), flush=True)
    write_json(arguments.json, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
