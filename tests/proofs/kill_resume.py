"""kill -9 at random moments, go on, and end with the same bits as a job that nobody disturbed.

Each row of `JOBS` is a command that can be started again with the same arguments, and a function that
reads what it left behind. For every job: run it once undisturbed; then again and again into another
folder, killing the whole process group at a random moment each time (every few kills inside the writing
of a checkpoint, which a hook makes slow), until it has been killed often enough and may finish. Then the
results must be equal bit for bit, no process of the group may be left, and no temporary file either.

    python tests/proofs/kill_resume.py [--quick] [--json OUT] [--kills N] [--seed S] [--only JOB]

Exits 1 where anything differs. Writes docs/results/kill_resume.json unless --quick or --json is given.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "docs" / "results" / "kill_resume.json"
PATIENCE_S = 900.0  # no run of these jobs takes as long; a hang is a failure


@dataclass(frozen=True)
class Job:
    """command: arguments -> argv for an output folder. read: folder -> name -> comparable content."""

    name: str
    command: Callable[[Path, bool], list[str]]
    read: Callable[[Path], dict[str, Any]]


# ---------------------------------------------------------------- jobs

TRAINING = """
import sys
from pathlib import Path
from neuro.train.config import Config
from neuro.train.loop import fit
{slow}
fit(Config.from_table({table!r}), Path(sys.argv[1]))
"""

# Sleeps between the files of a checkpoint, so that a kill lands there often.
SLOW = """
import neuro.files, neuro.results, neuro.train.checkpoint as checkpoint, os, time
real_replace = os.replace
def slow_replace(a, b):
    time.sleep(0.05)
    real_replace(a, b)
    time.sleep(0.05)
os.replace = slow_replace
"""

FORMATS = {
    "weight": {"bits": 8, "low": -256, "high": 254, "step": 2},
    "weight_conv": {"bits": 8, "low": -128, "high": 127},
    "decay": {"bits": 12, "signed": False, "low": 0, "high": 4095},
    "threshold": {"bits": 17, "signed": False, "low": 0, "high": 131071},
    "bias": {"bits": 13, "low": -4096, "high": 4095},
}


def small_training(epochs: int) -> dict[str, Any]:
    """Every kind of state: recurrence, batch norm, dropout, mean weights, best weights, integers at the end."""
    lif = {"type": "lif", "beta": 0.9, "surrogate": "atan", "learn": ["beta"], "each": True}
    cuba = {"type": "cuba_lif", "alpha": 0.8, "beta": 0.95, "recurrent": True, "detach": True, "surrogate_alpha": 5.0}
    return {
        "name": "kill_resume",
        "seed": 3,
        "data": {"dataset": "braille", "limit": 192, "steps": 77, "dt": 0.025, "vary": {"shift": 2.0, "noise": 0.7}},
        "layers": [
            {"type": "linear", "out": 32},
            {"type": "batch_norm", "start": 0.6},
            lif,
            {"type": "dropout", "p": 0.2},
            {"type": "linear", "out": 32, "init": 0.7},
            cuba,
            {"type": "linear", "out": 27, "init": 1.0},
            {"type": "li", "beta": 0.95},
        ],
        "loss": {"label_smoothing": 0.05, "mean_spikes": 1e-3, "few": 1e-2},
        "optimiser": {"lr": 5e-3, "weight_decay": 1e-3, "clip": 1.0, "ema": 0.9},
        "train": {"epochs": epochs, "batch_size": 32, "keep": "best", "recalibrate": 3, "threads": 1},
        "quantise": {**FORMATS, "start": 0.6},
    }


def training_command(out: Path, slow: bool) -> list[str]:
    code = TRAINING.format(table=small_training(8), slow=SLOW if slow else "")
    return [sys.executable, "-c", code, str(out)]


def training_result(out: Path) -> dict[str, Any]:
    """Weights bit for bit, the network file, every metric; opening the run verifies its digests."""
    from safetensors.numpy import load_file

    from neuro.results import METRICS, NETWORK, WEIGHTS, Run

    run = Run.open(out)
    found: dict[str, Any] = {
        f"weights.{n}": (str(w.dtype), w.shape, w.tobytes()) for n, w in load_file(out / WEIGHTS).items()
    }
    for name in (NETWORK, METRICS, "config.json"):
        found[name] = hashlib.sha256((out / name).read_bytes()).hexdigest()
    found["summary"] = dict(run.summary)
    return found


JOBS: tuple[Job, ...] = (Job("train", training_command, training_result),)


# ---------------------------------------------------------------- killing


def group_members(group: int) -> list[int]:
    """Living processes of a process group, zombies aside."""
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                members.append(int(entry.name))
    return members


def start(argv: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(  # a group of its own, so that children can be killed and counted
        argv, cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def run_whole(argv: list[str]) -> tuple[float, str | None]:
    """(seconds, what went wrong)."""
    began = time.monotonic()
    process = start(argv)
    try:
        _, errors = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return time.monotonic() - began, "hangs"
    left = group_members(process.pid)
    if left:
        os.killpg(process.pid, signal.SIGKILL)
        return time.monotonic() - began, f"left processes behind: {left}"
    return time.monotonic() - began, None if process.returncode == 0 else errors.strip()[-2000:]


def kill_after(argv: list[str], seconds: float) -> tuple[bool, list[int]]:
    """(whether it was killed before it finished, processes that survived the kill)."""
    process = start(argv)
    try:
        process.communicate(timeout=seconds)
        return False, group_members(process.pid)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    for _ in range(100):
        left = group_members(process.pid)
        if not left:
            break
        time.sleep(0.05)
    return True, left


def leftovers(folder: Path) -> list[str]:
    """Temporary files and folders."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.name.endswith((".part", ".tmp")))


def prove(job: Job, kills: int, rng: random.Random, scratch: Path) -> dict[str, Any]:
    """Kill a job ``kills`` times, let it finish, compare."""
    whole, broken = scratch / f"{job.name}-whole", scratch / f"{job.name}-broken"
    problems: list[str] = []
    seconds, error = run_whole(job.command(whole, False))
    if error:
        return {"job": job.name, "passed": False, "problems": [f"undisturbed run: {error}"]}
    done = attempts = slow_kills = 0
    while done < kills and attempts < 4 * kills:
        attempts += 1
        slow = attempts % 2 == 0
        killed, left = kill_after(job.command(broken, slow), rng.uniform(0.15, 1.0) * seconds)
        if left:
            problems.append(f"attempt {attempts}: processes survived the kill: {left}")
        if not killed:  # it finished first: begin again in a new place
            problems += compare(job, whole, broken)
            broken = scratch / f"{job.name}-broken-{attempts}"
            continue
        done += 1
        slow_kills += slow
    _, error = run_whole(job.command(broken, False))
    problems += [f"after the last kill: {error}"] if error else compare(job, whole, broken)
    return {
        "job": job.name,
        "passed": not problems and done == kills,
        "kills": done,
        "kills_with_slow_writing": slow_kills,
        "undisturbed_s": round(seconds, 1),
        "compared": sorted(job.read(whole)),
        "problems": problems,
    }


def compare(job: Job, whole: Path, broken: Path) -> list[str]:
    """What differs between two folders."""
    try:
        expected, found = job.read(whole), job.read(broken)
    except Exception as error:  # whatever it is, the proof has failed
        return [f"results cannot be read: {type(error).__name__}: {error}"]
    problems = [f"'{n}' differs" for n in expected.keys() | found.keys() if expected.get(n) != found.get(n)]
    return problems + [f"temporary file left: {name}" for name in leftovers(broken)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 kills per job")
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=[job.name for job in JOBS])
    args = parser.parse_args()
    rng = random.Random(args.seed)
    rows = []
    with tempfile.TemporaryDirectory(prefix="kill-resume-") as scratch:
        for job in JOBS:
            if args.only in (None, job.name):
                rows.append(prove(job, 3 if args.quick else args.kills, rng, Path(scratch)))
                print(json.dumps(rows[-1], indent=2), flush=True)
    passed = all(row["passed"] for row in rows)
    target = args.json or (None if args.quick else RESULT)
    if target:
        from neuro.files import write_json

        write_json(target, {"proof": "kill_resume", "passed": passed, "seed": args.seed, "jobs": rows})
    print("passed" if passed else "FAILED")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
