"""Benchmark: a training step of one Linear and LIF, ours beside SpikingJelly, Spyx, snnTorch and Norse.

    python tests/bench/bench_linear_lif.py [--only SUBSTRING] [--quick] [--json OUT]

n neurons to n, 16 samples, forward and backward, in float32. Input: spikes (5 % of the channels in a step) or real
numbers. Rows "as a hidden layer" compute the gradient of the input too, those "as the first layer" do not; the same for
all. Rows join those that the result file has; `make peers` gets the others. Exits 1 where somebody computes
something else.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent)]

from training_rows import OLDER, PEERS, ROOT, measure, merge, say  # noqa: E402

STEPS_IN_A_TURN = 4  # of rows whose step is short: see `training_rows.measure`
SIZES = {"n 256, T 500": (256, 500), "n 1024, T 200": (1024, 200), "n 4096, T 100": (4096, 100)}
KINDS = {
    "spikes, as a hidden layer": {"rate": 0.05, "input_gradient": True},
    "real numbers, as a hidden layer": {"rate": None, "input_gradient": True},
    "spikes, as the first layer": {"rate": 0.05, "input_gradient": False},
}
ROWS = {
    f"{size}, {kind}": {"task": "linear_lif", "n": n, "steps": steps, "batch": 16, **how}
    for size, (n, steps) in SIZES.items()
    for kind, how in KINDS.items()
}


def run(arguments, quick=False):
    """One row; rounds such that it takes about a minute, SpikingJelly's older release where it does not take it all."""
    big = arguments["n"] >= 4096
    peers = PEERS if arguments["n"] <= 256 else [name for name in PEERS if name != OLDER]
    turns, warm = 3 if quick else 5 if big else 9, 1 if quick or big else 2
    return measure(arguments, peers=peers, count=turns, warm=warm, repeat=1 if big else STEPS_IN_A_TURN)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows whose name holds this")
    parser.add_argument("--quick", action="store_true", help="three rounds")
    parser.add_argument("--json", type=Path, default=ROOT / "docs" / "results" / "bench_linear_lif.json")
    arguments = parser.parse_args()
    unequal = False
    for name, what in ROWS.items():
        if arguments.only in name:
            row = run(what, arguments.quick)
            say(name, row)
            merge(arguments.json, {name: row})
            unequal |= bool(row["unequal"])
    return 1 if unequal else 0


if __name__ == "__main__":
    sys.exit(main())
