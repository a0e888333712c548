"""kill -9 at random moments, go on, and end with the same bits as a job that nobody disturbed.

Each row of `JOBS` is a command that can be started again with the same arguments, and a function that
reads what it left behind. For every job: run it once undisturbed; then again and again into another
folder, killing its process at a random moment each time (every few kills inside the writing
of a checkpoint, which a hook makes slow), until it has been killed often enough and may finish. Then the
results must be equal bit for bit, no process that the job started may be left, and no temporary file either.

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
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "docs" / "results" / "kill_resume.json"
GRACE_S = 10.0  # for what a killed job has started to notice and end
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


DEPLOYING = """
import sys
from pathlib import Path
import numpy as np
from neuro import chain, deploy, load_dataset
from neuro.ir import LIF, LI, Input, Linear, Output
{slow}
rng = np.random.default_rng(0)
nodes = dict(
    events=Input((72,)), first=Linear(rng.normal(0, 0.3, (64, 72))), hidden=LIF(tau_mem=0.2, v_threshold=1.0, r=8.0),
    second=Linear(rng.normal(0, 0.1, (27, 64))), readout=LI(tau_mem=0.2), out=Output("sum"),
)
data = load_dataset("braille", "valid").subset(range(40))
deploy(chain(nodes, dt=0.0125), data, out=Path(sys.argv[1]), certify_samples={certify})
"""


def deploying_command(certify: int) -> Callable[[Path, bool], list[str]]:
    def command(out: Path, slow: bool) -> list[str]:
        return [sys.executable, "-c", DEPLOYING.format(slow=SLOW if slow else "", certify=certify), str(out)]

    return command


def deploying_result(out: Path) -> dict[str, Any]:
    """report.json without what a clock says, and the digest of every file that it names."""
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    chip = report["chips"]["loihi2"]
    for clock in ("seconds", "oracle_seconds"):
        chip["matches"].pop(clock, None)
    found: dict[str, Any] = {"report": report}
    for place in chip["files"].values():
        whole = out / place
        for path in sorted(whole.rglob("*")) if whole.is_dir() else [whole]:
            if path.is_file() and path.name != "certificate.json":
                found[str(path.relative_to(out))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


JOBS: tuple[Job, ...] = (
    Job("train", training_command, training_result),
    Job("deploy", deploying_command(0), deploying_result),
    Job("lava", deploying_command(20), deploying_result),  # nearly all of its time is Lava's run
)


# ---------------------------------------------------------------- killing


TOKEN = "KILL_RESUME_JOB"  # in the environment of a job and, inherited, of every process that it starts


def members(token: str) -> list[int]:
    """Living processes that descend from a job, whatever session or group they moved to; zombies aside."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if state != "Z" and f"{TOKEN}={token}".encode() in environment.split(b"\0"):
                found.append(int(entry.name))
    return found


def remaining(token: str, seconds: float) -> list[int]:
    """What is still there after some seconds of grace: a watchdog may need one or two."""
    end = time.monotonic() + seconds
    while (left := members(token)) and time.monotonic() < end:
        time.sleep(0.1)
    for process in left:
        os.kill(process, signal.SIGKILL)
    return left


def start(argv: list[str]) -> tuple[subprocess.Popen[str], str]:
    token = uuid.uuid4().hex
    process = subprocess.Popen(
        argv, cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**os.environ, TOKEN: token},
    )  # fmt: skip
    return process, token


def run_whole(argv: list[str]) -> tuple[float, str | None]:
    """(seconds, what went wrong)."""
    began = time.monotonic()
    process, token = start(argv)
    try:
        _, errors = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        remaining(token, 0)
        return time.monotonic() - began, "hangs"
    seconds = time.monotonic() - began
    left = remaining(token, GRACE_S)
    if left:
        return seconds, f"left processes behind: {left}"
    return seconds, None if process.returncode == 0 else errors.strip()[-2000:]


def kill_after(argv: list[str], seconds: float) -> tuple[bool, list[int]]:
    """(whether it was killed before it finished, processes that survived). Only the job's own process is
    killed, as a user or the system would: what it started must notice and go by itself."""
    process, token = start(argv)
    try:
        process.wait(timeout=seconds)
        killed = False
    except subprocess.TimeoutExpired:
        process.kill()
        killed = True
    left = remaining(token, GRACE_S)
    process.communicate()
    return killed, left


def leftovers(folder: Path) -> list[str]:
    """Temporary files and folders."""
    unfinished = (".part", ".partial", ".tmp")
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.name.endswith(unfinished))


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
    parser.add_argument("--kills", type=int, default=8)
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
