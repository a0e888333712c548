"""SANA-FE on a layered network of a Loihi 1: what it counts, and its seconds; see tests/proofs/speed_chips.py.

    PYTHON peer_sanafe.py CASE

CASE: JSON as in tests/golden/sanafe/loihi.json (sizes, cores, steps, rate, seed, chip). One run with every message
written down, for the counters; then timed runs with SANA-FE's quickest timing model and nothing written down. Prints
JSON. Needs SANA-FE, NumPy and this source tree.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import axon_sanafe as sanafe  # noqa: E402


def main() -> None:
    described = json.loads(sys.argv[1])
    program, dense = sanafe.case(described)
    steps = described["steps"] + program.depth
    counted = sanafe.run_sanafe(program, dense[:, 0], steps)
    seconds = []
    for _ in range(3):
        chip = sanafe.loaded(program, dense[:, 0], steps)
        began = time.perf_counter()
        chip.sim(steps, timing_model="simple")
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"version": sanafe.sanafe_version(), "counted": counted, "seconds": seconds}))


if __name__ == "__main__":
    main()
