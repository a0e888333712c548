"""Benchmark: a training step of 700-256-256-20, 100 steps, 128 samples, 3 % input, ours beside the others.

    python tests/bench/bench_net.py [--quick] [--json OUT]

Two layers of LIF, a layer of leaky integrators, cross-entropy of what they add up over time. Forward and backward, no
gradient of the input. Ours gets the input as uint8 and packs it within the clock; the others find it as float32.
Exits 1 where somebody computes something else.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent)]

from bench_linear_lif import STEPS_IN_A_TURN  # noqa: E402
from training_rows import ROOT, measure, merge, say  # noqa: E402

ROWS = {
    "700-256-256-20, 3 %": {"task": "net", "steps": 100, "batch": 128, "rate": 0.03, "input_gradient": False},
}


def run(what, count=9):
    """One row."""
    return measure(what, count=count, repeat=STEPS_IN_A_TURN)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three rounds")
    parser.add_argument("--json", type=Path, default=ROOT / "docs" / "results" / "bench_net.json")
    arguments = parser.parse_args()
    unequal = False
    for name, what in ROWS.items():
        row = run(what, 3 if arguments.quick else 9)
        say(name, row)
        merge(arguments.json, {name: row})
        unequal |= bool(row["unequal"])
    return 1 if unequal else 0


if __name__ == "__main__":
    sys.exit(main())
