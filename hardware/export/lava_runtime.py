"""`run_lava`: an exported folder in real Lava, in a guarded process of its own.

Lava runs one operating-system process per Lava process and waits for ever if one of them fails. So the whole
of it runs in a session of its own (`lava_worker`), under a deadline, and is taken down with everything it
started when it is done, late, failed, or when this process dies, by whatever signal.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import neuro
from neuro.errors import OracleError
from neuro.hardware.export.lava_folder import LEARNED, LavaFolder, Values, load_folder, padded
from neuro.hardware.export.lava_shim import VERSION, available, import_lava
from neuro.hardware.program import Program

TIMEOUT_S = 600.0
STOP_S = 10.0  # for Lava's own shutdown, once all results are written
POLL_S = 0.05
MAX_PROCESSES = 150  # of Lava, each one of the operating system with two threads per channel
LOG_TAIL = 2000  # characters of a failed run's log that an error quotes




Sample = dict[tuple[str, str], NDArray[np.int32]]  # (population, variable) -> [steps + depth, n]


@dataclass(frozen=True, eq=False)
class LavaRun:
    """values: (population, "u" | "v" | "s") -> int32[steps + depth, batch, n]; the rest is how long it took."""

    values: Values
    startup_s: float
    run_s: float
    total_s: float
    version: str = VERSION


def run_lava(
    what: Program | Path | str,
    dense: NDArray[np.uint8],
    timeout_s: float = TIMEOUT_S,
    visit: Callable[[int, Sample], None] | None = None,
) -> LavaRun:
    """Run dense [steps, batch, n_inputs] in Lava's runtime, each sample from zero state.

    what: an exported folder, which is imported and run as it is, or a program, which is exported first.
    visit: called with the number and the values of each sample, one sample in memory at a time; ``values``
    of the result then stays empty.

    Raises:
        MissingExtra: lava-nc is not installed. FormatError: not an exported folder.
        OracleError: Lava failed or did not end in time, with the last lines of its log; or the graph needs more
            than MAX_PROCESSES processes, because its neurons are of many kinds.
        UnsupportedNode, DoesNotFit: the program cannot be exported.
    """
    if not available():
        import_lava()  # says what is missing
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="axonport-lava-", ignore_cleanup_errors=True) as name:
        job = Path(name)
        if isinstance(what, Program):
            from neuro.hardware.export.lava import write_graph
            from neuro.hardware.export.lava_graph import lower

            path = job / "folder"
            path.mkdir()
            write_graph(what, lower(what), path)
        else:
            path = Path(what).resolve()
        folder = load_folder(path)
        count = int(folder.manifest["processes"])
        if count > MAX_PROCESSES:
            raise OracleError(
                f"this graph needs {count} processes of the operating system, more than {MAX_PROCESSES}; give the "
                "neurons of a layer the same time constants and threshold, or use oracle 'lava-inprocess'"
            )
        padded(dense, folder.inputs, folder.depth, folder.low_high)  # complain here rather than in the worker
        dtype = np.uint8 if folder.low_high == (0, 1) else np.int32
        flat = np.asarray(dense, dtype).reshape(*np.shape(dense)[:2], -1)
        if folder.learning and flat.shape[1] > 1:
            return _one_by_one(path, flat, timeout_s, visit, began)
        np.save(job / "dense.npy", flat, allow_pickle=False)
        (job / "job.json").write_text(json.dumps({"folder": str(path)}), encoding="utf-8")
        result = _run(job, timeout_s)
        values = _collect(job, folder, int(result["steps"]), int(result["samples"]), visit)
    total = time.perf_counter() - began
    return LavaRun(values, float(result["startup_s"]), float(result["run_s"]), total)


def _one_by_one(
    path: Path, dense: NDArray[Any], timeout_s: float, visit: Callable[[int, Sample], None] | None, began: float
) -> LavaRun:
    """A run of Lava for each sample: what it has learned and drawn cannot be taken back between samples."""
    runs, samples = [], []
    for k in range(dense.shape[1]):
        runs.append(run_lava(path, dense[:, k : k + 1], timeout_s))
        sample = {key: values[:, 0] for key, values in runs[-1].values.items()}
        if visit is None:
            samples.append(sample)
        else:
            visit(k, sample)
    values = {key: np.stack([s[key] for s in samples], axis=1) for key in samples[0]} if samples else {}
    startup, run = sum(r.startup_s for r in runs), sum(r.run_s for r in runs)
    return LavaRun(values, startup, run, time.perf_counter() - began)


def _run(job: Path, timeout_s: float) -> dict[str, Any]:
    # Its folder is the job's, so that nothing lying about here is imported; ours is appended for a plain checkout.
    home = str(Path(neuro.__file__).parents[1])
    start = "from neuro.hardware.export.lava_worker import main; sys.exit(main())"
    code = f"import sys; sys.path.append({home!r}); {start}"
    command = [sys.executable, "-c", code, str(job), str(os.getpid())]
    deadline = time.monotonic() + timeout_s
    with open(job / "log.txt", "wb") as log:
        worker = subprocess.Popen(  # noqa: S603  # our own interpreter and module
            command, cwd=job, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        while worker.poll() is None and not (job / "result.json").exists():
            if time.monotonic() > deadline:
                raise OracleError(f"Lava did not end within {timeout_s:g} s ({_progress(job)}). {_tail(job)}")
            time.sleep(POLL_S)
        if not (job / "result.json").exists():
            raise OracleError(f"Lava failed with exit code {worker.returncode} ({_progress(job)}). {_tail(job)}")
        with contextlib.suppress(subprocess.TimeoutExpired):  # all results are there; only Lava's shutdown hangs
            worker.wait(STOP_S)
        return dict(json.loads((job / "result.json").read_text(encoding="utf-8")))
    finally:
        _end(worker)


def _collect(
    job: Path, folder: LavaFolder, steps: int, batch: int, visit: Callable[[int, Sample], None] | None
) -> Values:
    samples = []
    logs = {name: np.load(job / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in folder.processes}
    for k in range(batch):
        span = slice(k * steps, (k + 1) * steps)
        sample = folder.gather({name: log[span] for name, log in logs.items()})
        sample |= folder.gather_learned(
            {
                name: {v: np.load(job / f"{name}.{v}.npy", mmap_mode="r", allow_pickle=False) for v in LEARNED}
                for name in folder.learning
            }
        )
        if visit is None:
            samples.append(sample)
        else:
            visit(k, sample)
    if visit is not None:
        return {}
    return {key: np.stack([s[key] for s in samples], axis=1) for key in samples[0]}


def _progress(job: Path) -> str:
    try:
        at = json.loads((job / "progress.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "it had not started"
    if at["phase"] == "run":
        return f"in sample {at['sample'] + 1} of {at['samples']}"
    return f"while it was at: {at['phase']}"


def _tail(job: Path) -> str:
    text = (job / "log.txt").read_text(encoding="utf-8", errors="replace").strip()
    return f"The end of its log:\n{text[-LOG_TAIL:]}" if text else "Its log is empty."


# Taking it down


def members(group: int) -> list[int]:
    """Process ids of a process group that are still running, zombies not counted. Linux; elsewhere []."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] not in "ZX":
            found.append(int(entry.parent.name))
    return found


def _end(worker: subprocess.Popen[bytes]) -> None:
    """End the worker and everything it started. The kernel kills what it forked; stragglers get one second."""
    if worker.poll() is None:
        worker.kill()
    worker.wait()
    deadline = time.monotonic() + 1.0
    while members(worker.pid):
        # The resource tracker is the last to go: it removes the shared memory of all the others.
        if time.monotonic() > deadline:
            os.killpg(worker.pid, signal.SIGKILL)
            break
        time.sleep(POLL_S)
    if not Path("/proc").is_dir():
        try:
            os.killpg(worker.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
