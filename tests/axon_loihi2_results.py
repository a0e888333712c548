"""Everything a run computes, under one set of names: of the kernel, and run as a script without the compiler.

    NUMBA_DISABLE_JIT=1 python axon_loihi2_results.py 30 3 7 11

prints a digest of the results of the programs that `axon_loihi2_programs.from_seed` makes of the seeds 3, 7 and 11,
most being 30.
"""

from __future__ import annotations

import hashlib
import sys

import numpy as np

from neuro.hardware.loihi2.kernels import run
from neuro.hardware.loihi2.models import VARIABLES
from neuro.hardware.program import Program

COUNTERS = ("synops", "updates", "spikes", "packets", "hops", "injected")


def results(program: Program, dense: np.ndarray) -> dict[object, np.ndarray]:
    """(variable | "spikes", population), "scores" and the counters -> array, as axon_pyint_loihi2 has them."""
    stateful = [(name, p.model) for name, p in program.populations.items() if p.model != "input"]
    trace = run(program, dense, tuple((name, variable) for name, model in stateful for variable in VARIABLES[model]))
    found: dict[object, np.ndarray] = {(variable, name): values for (name, variable), values in trace.probes.items()}
    found |= {("spikes", name): values for name, values in trace.spikes.items()}
    found |= {name: getattr(trace.counters, name) for name in COUNTERS}
    return found | {"scores": trace.scores}


def digest(found: dict[object, np.ndarray]) -> str:
    text = hashlib.sha256()
    for key in sorted(found, key=str):
        text.update(f"{key} {found[key].shape}".encode() + np.ascontiguousarray(found[key], np.int64).tobytes())
    return text.hexdigest()


if __name__ == "__main__":
    from axon_loihi2_programs import from_seed

    most, *seeds = map(int, sys.argv[1:])
    for seed in seeds:
        print(seed, digest(results(*from_seed(seed, most))))
