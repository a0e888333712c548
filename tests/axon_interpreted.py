"""A helper of the tests as a script, in a process of its own where nothing is compiled: kernels as plain Python."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numba

TESTS = Path(__file__).parent
# registers wrap; without the compiler NumPy says so each time, in every thread
QUIET = ("-W", "error", "-W", "ignore:overflow encountered:RuntimeWarning")
START = (
    "import runpy, sys, numba; assert numba.config.DISABLE_JIT, 'compiled'; "
    "del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
)


def interpreted(script: str, *arguments: object, timeout: float = 1200) -> list[str]:
    """The lines that tests/<script> prints with NUMBA_DISABLE_JIT=1, which takes the whole call graph."""
    assert not numba.config.DISABLE_JIT, "this process compiles nothing, so there is nothing to compare with"
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    # Python runs one thread at a time: more of them would only take turns
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "NUMBA_NUM_THREADS": "1", "PYTHONPATH": path}
    command = [sys.executable, *QUIET, "-c", START, str(TESTS / script), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()
