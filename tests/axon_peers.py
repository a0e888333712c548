"""Ours beside other people's, fairly: each in a process and an interpreter of its own, in turns, with the same threads.

A `Job` is a script that any interpreter can run. The script calls `serve(build)`; `build(arguments)` gets everything
ready and returns `Work`; every "go" then times one call of ``work.step``. `rounds` lets all jobs take turns (A B C,
A B C, ...), so that whatever else happens on the machine happens to all; `ratio` compares them; `memory` asks a fresh
process what one step costs. This module needs nothing but Python, so that a peer's interpreter can import it; the
other things are imported where they are used.

Where a peer's interpreter is: NEURO_PEERS (simulators) and NEURO_TORCH_PEERS (torch and JAX), both made by
`make peers`. A peer that is not there, or that fails, is left out by name and with the reason.

What `memory` counts. A fresh process imports everything, builds weights and input, runs a tiny problem once (which
loads code), compiles where the framework compiles, returns free memory to the system; then come ``steps`` whole
training steps. Reported is the highest resident size during them (the kernel's own mark, VmHWM, put back to the
present by /proc/self/clear_refs just before) less the resident size before. So activations, gradients, work space and
whatever is kept from step to step count; weights, input and code do not. kept_bytes: what a forward pass leaves for
the backward pass, nothing else. Every framework's allocator is told to give back freed blocks of 64 kB and more.
"""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import gc
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SIMULATORS, TORCH_PEERS, OURS = "NEURO_PEERS", "NEURO_TORCH_PEERS", ""
HERE = Path(__file__).resolve().parent
PAUSE = 0.03  # seconds between two turns: threads of the one before stop spinning


class PeerFailed(Exception):
    """A worker that could not start or whose step raised; the message ends with its traceback."""


@dataclass
class Work:
    """What `build` returns. step: one timed piece of work; what it returns is thrown away. check: numbers or lists to
    compare with other people's, computed outside the clock. tiny: loads code and compiles before memory is measured.
    said: versions and settings for the result file. reported: step returns its seconds itself (a simulator that has
    its own clock around the loop). forward: the forward pass alone; what it returns keeps alive what the backward pass
    needs, and `memory` says how much that is."""

    step: Callable[[], Any]
    check: Callable[[], dict[str, Any]] | None = None
    tiny: Callable[[], Any] | None = None
    said: dict[str, Any] = field(default_factory=dict)
    reported: bool = False
    forward: Callable[[], Any] | None = None


@dataclass(frozen=True)
class Job:
    """name: unique. script: what to run. interpreter: OURS, or the variable that names another. arguments: JSON."""

    name: str
    script: Path
    interpreter: str = OURS
    arguments: Mapping[str, Any] = field(default_factory=dict)
    path: tuple[str, ...] = ()  # put before everything else on the module path

    def python(self) -> str | None:
        """The interpreter, or None where its variable is not set."""
        return sys.executable if self.interpreter == OURS else os.environ.get(self.interpreter) or None


# ---- in the worker


def serve(build: Callable[[dict[str, Any]], Work]) -> None:
    """Answer the parent until it goes away; called by a worker script under ``if __name__ == "__main__"``."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not look like an answer

    def answer(said: dict[str, Any]) -> None:
        answers.write(json.dumps(said) + "\n")
        answers.flush()

    try:
        work = build(json.loads(sys.argv[1]))
        answer({"said": work.said})
        for line in sys.stdin:
            word, *rest = line.split()
            if word == "quit":
                break
            answer(_ACTIONS[word](work, *rest))
    except BaseException:  # the parent must hear of it, whatever it is
        answer({"error": traceback.format_exc()[-3000:]})
        raise


def _go(work: Work, repeat: str) -> dict[str, Any]:
    gc.collect()
    gc.disable()
    began, cpu = time.perf_counter(), time.process_time()
    last = None
    for _ in range(int(repeat)):
        last = work.step()
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    gc.enable()
    if work.reported:
        assert last is not None
        return {"seconds": float(last), "cpu_seconds": cpu / int(repeat)}
    return {"seconds": seconds / int(repeat), "cpu_seconds": cpu / int(repeat)}


def _check(work: Work) -> dict[str, Any]:
    return {} if work.check is None else work.check()


def _status(name: str) -> int:
    """A size of this process in bytes, e.g. VmRSS or VmHWM."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(text.split(name + ":", 1)[1].split()[0])


def _trim() -> None:
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _memory(work: Work, steps: str) -> dict[str, Any]:
    if work.tiny is not None:
        work.tiny()
    _trim()
    time.sleep(0.05)
    before, file_before = _status("VmRSS"), _status("RssFile")
    sampled, stop = [before], threading.Event()

    def sample() -> None:
        while not stop.wait(0.001):
            sampled.append(_status("VmRSS"))

    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        exact = True
    except OSError:  # a system without it: samples, every millisecond, must do
        exact = False
    watcher = threading.Thread(target=sample, daemon=True)
    if not exact:
        watcher.start()
    for _ in range(int(steps)):
        work.step()
    stop.set()
    if not exact:
        watcher.join()
    found = {
        "peak_bytes": (_status("VmHWM") if exact else max(sampled)) - before,
        "resident_before_bytes": before,
        "file_bytes": _status("RssFile") - file_before,
        "maxrss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "how": "VmHWM" if exact else "sampled every millisecond",
        "kept_bytes": None,
    }
    if work.forward is not None:  # last: a module may hold on to what a forward pass without a backward pass left
        _trim()
        before = _status("VmRSS")
        alive = work.forward()
        _trim()
        found["kept_bytes"] = _status("VmRSS") - before
        del alive
    return found


_ACTIONS: dict[str, Callable[..., dict[str, Any]]] = {"go": _go, "check": _check, "memory": _memory}


# ---- in the parent


def environment(threads: int, path: Iterable[str] = ()) -> dict[str, str]:
    """The environment of a worker: every library the same number of threads."""
    names = ("OMP", "MKL", "OPENBLAS", "NUMBA", "VECLIB", "NUMEXPR")
    found = dict(os.environ) | {f"{n}_NUM_THREADS": str(threads) for n in names}
    found["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'}"
    found["JAX_PLATFORMS"] = "cpu"
    found.pop("OMP_WAIT_POLICY", None)  # ours sets its own when it is imported; others keep their default
    found["MALLOC_MMAP_THRESHOLD_"] = found["MALLOC_TRIM_THRESHOLD_"] = str(1 << 16)
    found["PYTHONPATH"] = os.pathsep.join([*path, str(HERE)])
    return found


class Worker:
    """A running job; a context manager. threads: also the number of processors it may use."""

    def __init__(self, job: Job, threads: int = 2, *, allocator: bool = False) -> None:
        python = job.python()
        if python is None:
            raise PeerFailed(f"{job.interpreter} is not set (make peers)")
        env = environment(threads, job.path)
        if not allocator:  # glibc's own settings where time counts
            del env["MALLOC_MMAP_THRESHOLD_"], env["MALLOC_TRIM_THRESHOLD_"]
        processors = sorted(os.sched_getaffinity(0))[:threads]
        self.job = job
        self.process = subprocess.Popen(
            [python, str(job.script), json.dumps(dict(job.arguments) | {"threads": threads})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=env,
            preexec_fn=lambda: os.sched_setaffinity(0, processors),  # XLA counts processors
        )
        self.said: dict[str, Any] = {}

    def ready(self) -> Worker:
        """Wait until it is built."""
        self.said = self._read()["said"]
        return self

    def ask(self, *words: str | int) -> dict[str, Any]:
        """Say a word, wait for the answer."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(" ".join(map(str, words)) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise PeerFailed(f"{self.job.name} is gone") from None
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise PeerFailed(f"{self.job.name} ended with {self.process.wait()} before it answered")
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise PeerFailed(f"{self.job.name}: {found['error']}")
        return found

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(PeerFailed, OSError, ValueError):
            assert self.process.stdin is not None
            self.process.stdin.write("quit\n")
            self.process.stdin.flush()
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):  # what a worker that is gone never read
                assert pipe is not None
                pipe.close()


@dataclass
class Timing:
    """Seconds of each round; index k of two jobs of one run was measured side by side."""

    seconds: list[float]
    cpu_seconds: list[float]
    said: dict[str, Any]
    check: dict[str, Any]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def row(self) -> dict[str, Any]:
        """For the result file."""
        return {
            "median_s": self.median,
            "best_s": min(self.seconds),
            "seconds": self.seconds,
            "cpu_s": statistics.median(self.cpu_seconds),
            **self.said,
        }


def rounds(
    jobs: Iterable[Job],
    *,
    count: int = 7,
    threads: int = 2,
    warm: int = 2,
    repeat: int | Mapping[str, int] = 1,
    check: bool = True,
) -> tuple[dict[str, Timing], dict[str, str]]:
    """Time jobs in turns.

    Args:
        count: rounds. warm: turns before the first that counts. repeat: calls in one turn, for all or by name; the
            seconds are those of one call. check: ask each for its numbers, which `Timing.check` then holds.

    Returns:
        name -> Timing, and name -> why it was left out.
    """
    times: dict[str, Timing] = {}
    left_out: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        workers = {}
        for job in jobs:  # all import and build at once: no clock is running
            try:
                workers[job.name] = stack.enter_context(Worker(job, threads))
            except PeerFailed as failure:
                left_out[job.name] = str(failure)
        for name, worker in workers.items():
            try:
                worker.ready()
                times[name] = Timing([], [], worker.said, worker.ask("check") if check else {})
            except PeerFailed as failure:
                left_out[name] = str(failure)
        for name, worker in workers.items():
            try:
                for _ in range(warm if name not in left_out else 0):
                    worker.ask("go", 1)
            except PeerFailed as failure:
                left_out[name] = str(failure)
        for _ in range(count):
            for name, worker in workers.items():
                if name not in left_out:
                    try:
                        time.sleep(PAUSE)
                        got = worker.ask("go", repeat if isinstance(repeat, int) else repeat.get(name, 1))
                        times[name].seconds.append(got["seconds"])
                        times[name].cpu_seconds.append(got["cpu_seconds"])
                    except PeerFailed as failure:
                        left_out[name] = str(failure)
    return {n: t for n, t in times.items() if n not in left_out}, left_out


def ratio(slow: Timing, fast: Timing, seed: int = 0) -> dict[str, float]:
    """How many times longer ``slow`` takes: the median over rounds of the ratio within a round, and the middle 95 %
    of that median when rounds are drawn anew (bootstrap)."""
    pairs = [a / b for a, b in zip(slow.seconds, fast.seconds, strict=True)]
    rng = random.Random(seed)
    drawn = sorted(statistics.median(rng.choices(pairs, k=len(pairs))) for _ in range(1000))
    return {"ratio": statistics.median(pairs), "low": drawn[25], "high": drawn[974]}


def memory(job: Job, *, threads: int = 2, steps: int = 2) -> dict[str, Any]:
    """What a step costs in a fresh process; see the top of this file.

    Raises:
        PeerFailed: it is not there, or failed.
    """
    with Worker(job, threads, allocator=True) as worker:
        worker.ready()
        return worker.ask("memory", steps) | {"said": worker.said}


def machine(threads: int = 2) -> dict[str, Any]:
    """Where and when."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace") if Path("/proc/cpuinfo").exists() else ""
    model = next((line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")), "")
    flags = next((line.split(":", 1)[1].split() for line in text.splitlines() if line.startswith("flags")), [])
    simd = next((name for name in ("avx512f", "avx2", "avx", "asimd") if name in flags), "unknown")
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": model or platform.processor() or platform.machine(),
        "processors": os.cpu_count(),
        "threads": min(threads, len(os.sched_getaffinity(0))),
        "vectors": simd,
        "load": os.getloadavg()[0],
        "system": platform.system(),
        "python": platform.python_version(),
    }


# ---- the machine's own limits


def roofline(threads: int = 2, targets: Iterable[int] = (10_000, 100_000), count: int = 5) -> dict[str, Any]:
    """What the machine can do, measured now, the best of ``count``:

    sgemm_gflops: torch's float32 matrix product of 2048 x 2048. triad_gbs: a = b + s c over arrays of 64 MB, three
    arrays' bytes counted. scatter_m: {n: millions of w[index[k]] additions into n float32 a second}, in one thread and
    with random indices, which is what a synaptic event costs at least where the weights stream past.
    """
    job = Job("roofline", Path(__file__), OURS, {"targets": list(targets), "count": count})
    with Worker(job, threads) as worker:
        worker.ready()
        return worker.ask("check")


def _roofline(arguments: dict[str, Any]) -> Work:
    import numba
    import numpy as np
    import torch

    torch.set_num_threads(arguments["threads"])
    count = arguments["count"]

    @numba.njit(nogil=True)  # type: ignore[untyped-decorator]
    def scatter(out: Any, index: Any, weight: Any) -> None:
        for k in range(index.size):
            out[index[k]] += weight[k]

    def best(function: Callable[[], Any], repeat: int = 1) -> float:
        function()
        found = []
        for _ in range(count):
            began = time.perf_counter()
            for _ in range(repeat):
                function()
            found.append((time.perf_counter() - began) / repeat)
        return min(found)

    def check() -> dict[str, Any]:
        rng = np.random.default_rng(0)
        n = 2048
        a, b = (torch.from_numpy(rng.standard_normal((n, n), np.float32)) for _ in range(2))
        c = torch.empty_like(a)
        gemm = best(lambda: torch.mm(a, b, out=c), 3)
        x, y, z = (torch.zeros(1 << 24) for _ in range(3))
        triad = best(lambda: torch.add(x, y, alpha=2.0, out=z), 3)
        events = 1 << 22
        scattered = {}
        for targets in arguments["targets"]:
            index = rng.integers(0, targets, events, np.uint32)
            weight, out = np.ones(events, np.float32), np.zeros(targets, np.float32)
            scattered[str(targets)] = events / best(lambda i=index, w=weight, o=out: scatter(o, i, w)) / 1e6  # type: ignore[misc]
        return {
            "sgemm_gflops": 2 * n**3 / gemm / 1e9,
            "triad_gbs": 3 * 4 * (1 << 24) / triad / 1e9,
            "scatter_m": scattered,
            "threads": arguments["threads"],
        }

    return Work(lambda: None, check)


if __name__ == "__main__":
    serve(_roofline)
