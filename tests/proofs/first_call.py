"""Proof: what the first call costs, and the ones after it.

    python tests/proofs/first_call.py [--quick] [--json OUT]

- `neuro demo` with nothing compiled before: all compilation together under 20 s, listed by kernel, what a kernel's own
  pieces took booked to them and not to it;
- then, with what is on disk: `neuro simulate`, `evaluate` and `deploy` (without the oracle, which is another program)
  of a run, from starting Python to its end, each under 2 s, the least of three: imports, loading of kernels and the
  work itself. Nothing is compiled again. Python keeps its own bytecode, as it does unless it is told not to.

`--quick`: without the cold demo, on a run of one epoch, and judged by what is compiled again, which a busy machine
cannot change. Exits 1 where one of these falls short.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from neuro.datasets.npz import save_events_npz
from neuro.events import Events
from neuro.files import write_json

ROOT = Path(__file__).resolve().parents[2]
COMPILE_S, WARM_S = 20.0, 2.0

# the command line in a process that writes down what it compiles: [[kernel, seconds of its own], ...]
WATCHED = """
import json, sys, time
from numba.core import event

class Watch(event.Listener):
    def __init__(self):
        self.open, self.found = [], []
    def on_start(self, e):
        self.open.append([time.perf_counter(), 0.0])
    def on_end(self, e):
        began, inner = self.open.pop()
        whole = time.perf_counter() - began
        if self.open:
            self.open[-1][1] += whole
        f = e.data["dispatcher"].py_func
        self.found.append([f.__module__ + "." + f.__qualname__, whole - inner])

watch, out = Watch(), sys.argv[1]
event.register("numba:compile", watch)
del sys.argv[1]
from neuro.cli import main
try:
    main()
finally:
    with open(out, "w") as file:
        json.dump(watch.found, file)
"""


def surroundings(cache: Path, warm: bool) -> dict[str, str]:
    """The environment of a command. warm: bytecode is kept beside the kernels, for the next one."""
    kept = {k: v for k, v in os.environ.items() if k not in ("NUMBA_DISABLE_JIT", "PYTHONDONTWRITEBYTECODE")}
    told = {"PYTHONPYCACHEPREFIX": str(cache / "bytecode")} if warm else {"PYTHONDONTWRITEBYTECODE": "1"}
    return kept | {"NUMBA_CACHE_DIR": str(cache)} | told


def watched(arguments: list[str], folder: Path, cache: Path, warm: bool) -> tuple[float, list[tuple[str, float]]]:
    """(seconds of the whole process, what it compiled)."""
    said = folder / "compiled.json"
    began = time.perf_counter()
    command = [sys.executable, "-c", WATCHED, str(said), *arguments]
    done = subprocess.run(
        command, env=surroundings(cache, warm), cwd=folder, capture_output=True, text=True, timeout=1200
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"neuro {' '.join(arguments)}: {done.stderr[-2000:]}")
    return seconds, [(name, s) for name, s in json.loads(said.read_text())]


def plain(arguments: list[str], folder: Path, cache: Path) -> float:
    """Seconds of the command line as a user starts it."""
    command = [sys.executable, "-c", "from neuro.cli import main; main()", *arguments]
    began = time.perf_counter()
    subprocess.run(command, env=surroundings(cache, True), cwd=folder, capture_output=True, check=True, timeout=600)
    return time.perf_counter() - began


def by_kernel(compiled: list[tuple[str, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, seconds in compiled:
        found[name] = found.get(name, 0.0) + seconds
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def recordings(path: Path, shape: tuple[int, ...], steps: int, dt: float) -> None:
    """Eight random samples."""
    rng = np.random.default_rng(0)
    n = int(np.prod(shape))
    samples = []
    for _ in range(8):
        t, x = np.nonzero(rng.random((steps, n)) < 0.05)
        samples.append(Events(t=t, x=x, shape=shape, dt=dt, steps=steps))
    save_events_npz(path, samples, np.zeros(8, np.int64))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="without the cold demo")
    parser.add_argument("--json", type=Path, default=ROOT / "docs" / "results" / "first_call.json")
    args = parser.parse_args()
    result: dict[str, Any] = {"proof": "first_call", "quick": args.quick}
    failures = []
    with tempfile.TemporaryDirectory() as name:
        folder, cache = Path(name), Path(name) / "cache"
        if args.quick:
            config = (ROOT / "neuro" / "presets" / "braille.toml").read_text(encoding="utf-8")
            (folder / "short.toml").write_text(
                "".join(
                    "epochs = 1\n" if line.startswith("epochs") else line for line in config.splitlines(keepends=True)
                )
            )
            seconds, compiled = watched(["train", "short.toml", "--holdout", "--out", "demo/run"], folder, cache, False)
        else:
            seconds, compiled = watched(["demo", "--out", "demo"], folder, cache, False)
        total = sum(s for _, s in compiled)
        result["cold"] = {"seconds": seconds, "compile_seconds": total, "kernels": by_kernel(compiled)}
        print(f"cold: {seconds:.1f} s, of which {total:.1f} s compile {len(compiled)} kernels", flush=True)
        for kernel, s in list(by_kernel(compiled).items())[:12]:
            print(f"  {s:6.2f} s {kernel}")
        if total > COMPILE_S and not args.quick:
            failures.append(f"a cold start compiles for {total:.1f} s, more than {COMPILE_S:.0f}")
        recordings(folder / "events.npz", (72,), 154, 0.0125)
        commands = {
            "simulate": ["simulate", "demo/run", "events.npz", "--out", "trace.npz"],
            "evaluate": ["evaluate", "demo/run", "--chip", "loihi2"],
            "deploy": ["deploy", "demo/run", "--out", "deployed", "--certify", "0"],
        }
        result["warm"] = {}
        for word, arguments in commands.items():
            watched(arguments, folder, cache, True)  # what it needs beyond the demo
            _, again = watched(arguments, folder, cache, True)
            least = min(plain(arguments, folder, cache) for _ in range(3))
            result["warm"][word] = {"seconds": least, "compiled_again": len(again)}
            print(f"neuro {word}: {least:.2f} s warm, {len(again)} kernels compiled again", flush=True)
            if again or (least > WARM_S and not args.quick):
                failures.append(f"neuro {word}: {least:.2f} s, compiled again: {by_kernel(again)}")
    result |= {"passed": not failures, "failures": failures, "machine": {"load": os.getloadavg()[0]}}
    write_json(args.json, result)
    print("\n".join(["FAILED", *failures]) if failures else "the first call is cheap enough")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
