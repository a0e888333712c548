"""Benchmark: from which share of inputs that fire a dense product is faster than going by events.

    python tests/bench/bench_crossover.py [--quick] [--json OUT]

A training step (forward, gradients of weights and input, float32) of one layer on spikes, both ways in turns in one
process: a Linear and LIF (`neuro.nn.dense.CROSSOVER`), and a Linear in front of neurons that listen to each other
(`neuro.nn.recurrent.MANY`). ``crossing``: the rate at which both take the same time, between two rates of the sweep by
a straight line; null where events are faster everywhere. The constants are set by hand from these; results of training
depend on them, so they never follow a clock.
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
from neuro.nn import LIF, Recurrent, SpikingNetwork, dense, recurrent  # noqa: E402
from neuro.nn.spikes import Spikes  # noqa: E402

RATES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6)
LAYERS = {
    "Linear and LIF": (dense, "CROSSOVER", lambda n: LIF(0.9, detach=True, surrogate="atan")),
    "Linear and recurrent LIF": (recurrent, "MANY", lambda n: Recurrent(LIF(0.9, surrogate="atan"), n)),
}
SIZES = {"Linear and LIF": (256, 512, 1024, 2048), "Linear and recurrent LIF": (256, 512, 1024)}
STEPS, BATCH, WORK = 100, 16, 2e9  # fewer steps where a dense product of all would take more flops


@contextmanager
def setting(module, name, value):
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def seconds(net, x):
    net.zero_grad(set_to_none=True)
    x.grad = None
    began = time.perf_counter()
    net(x).sum().backward()
    return time.perf_counter() - began


def sweep(layer, n, count):
    """One row: milliseconds of both ways at each rate, and where they cross."""
    module, constant, make = LAYERS[layer]
    torch.manual_seed(0)
    net = SpikingNetwork({"w": nn.Linear(n, n, bias=False), "n": make(n)}, input_shape=(n,), dt=1e-3)
    steps = max(20, min(STEPS, int(WORK / (2 * BATCH * n * n))))
    points = []
    for rate in RATES:
        with torch.no_grad():  # some 5 % of the neurons fire, whatever comes in
            net.layer("w").weight.normal_(0, 0.25 / math.sqrt(n * rate))
            for parameter in net.layer("n").parameters():  # what the neurons hear of each other is not swept
                parameter.zero_().requires_grad_(False)
        fired = torch.rand(steps, BATCH, n, generator=torch.Generator().manual_seed(1)) < rate
        x = Spikes.pack(fired.to(torch.uint8), torch.float32).requires_grad_()
        taken = {"events": [], "dense": []}
        for turn in range(count + 1):
            for way, value in (("events", 2.0), ("dense", -1.0)):
                with setting(module, constant, value):
                    found = seconds(net, x)
                if turn:  # the first compiles
                    taken[way].append(found)
        points.append({"rate": rate} | {f"{way}_s": statistics.median(t) for way, t in taken.items()})
    return {"n": n, "steps": steps, "batch": BATCH, "points": points, "crossing": crossing(points)}


def crossing(points):
    """The first rate at which events stop being faster."""
    before = None
    for point in points:
        now = (point["rate"], math.log(point["events_s"] / point["dense_s"]))
        if now[1] > 0:
            if before is None:
                return now[0]
            return before[0] + (now[0] - before[0]) * -before[1] / (now[1] - before[1])
        before = now
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three turns")
    parser.add_argument("--json", type=Path, default=ROOT / "docs" / "results" / "bench_crossover.json")
    arguments = parser.parse_args()
    rows = {}
    for layer, sizes in SIZES.items():
        for n in sizes:
            row = rows[f"{layer}, n {n}"] = sweep(layer, n, 3 if arguments.quick else 7)
            shown = ", ".join(f"{p['rate']:g}: {p['events_s'] / p['dense_s']:.2f}" for p in row["points"])
            print(f"{layer}, n {n}: events over dense at {shown}; crossing {row['crossing']}", flush=True)
    constants = {"CROSSOVER": dense.CROSSOVER, "MANY": recurrent.MANY}
    write_json(arguments.json, {"machine": machine(torch.get_num_threads()), "rows": rows, "constants": constants})
    return 0


if __name__ == "__main__":
    sys.exit(main())
