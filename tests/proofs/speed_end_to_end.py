"""Training to the same accuracy: ours in at most a third of snnTorch's and of SpikingJelly's time.

    python tests/proofs/speed_end_to_end.py [--quick] [--task NAME ...] [--seeds N] [--from SEED] [--epochs N]
        [--threads N] [--json OUT]

The result is written after every run; with --task or --from, other runs that are in it stay and are judged with it.

Three tasks on real recordings, each a whole training run in three frameworks, each in a process of its own, an epoch
at a time in turns:

- nmnist: the CNN of preset nmnist (three convolutions with batch norm, LIF), augmented anew in every epoch, 15 steps;
- braille: the recurrent network of preset braille (128 CubaLIF), signals varied anew in every epoch, 154 steps;
- digits: the network of preset digits (two layers of 256 LIF), voices varied anew in every epoch, 100 steps, validated
  on a speaker that is not in the training set.

The presets are taken without dropout (whose random numbers would differ), with the arctan surrogate that all three
have (braille with its fast sigmoid, which it needs to learn), and with torch's batch norm; braille without penalties
on its spikes. Initial weights, batches, order, optimiser, rates and loss are the same
(tests/bench/peer_train_epochs.py). Peers find each epoch's batches as dense float32
tensors ready in memory; ours draws, augments and bins them on the clock. All use two threads (or --threads). The clock
counts training, not validation.

The target was fixed beforehand: the lowest of the three final validation accuracies less MARGIN. A framework's time is
what it has trained when it first reaches that. Exits 1 where ours takes more than a third of the time of a peer, or
where final accuracies differ by more than SPREAD or the first loss and gradients by more than SAME (then something else
was trained). --quick: fewer and smaller epochs, one seed: too short for a ratio, so only what the first step computes
is judged, against the peers that are there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "bench")]

from axon_peers import OURS, PAUSE, TORCH_PEERS, Job, PeerFailed, Worker, machine  # noqa: E402
from peer_train_epochs import write_task  # noqa: E402

from neuro.files import write_json  # noqa: E402
from neuro.train.config import Config, load_config  # noqa: E402

SCRIPT = ROOT / "tests" / "bench" / "peer_train_epochs.py"
MARGIN = 0.02  # of accuracy, below the lowest final one
SPREAD = 0.06  # of final accuracy between frameworks: they part at spikes that fall on the other side of a threshold
# Relative, of the first loss and the norms of its gradients. In float64 ours equals the layers run one by one to seven
# digits; in float32 a sum in another order moves 15 of 280,000 spikes of nmnist, and with them a norm by 2.3 %. Set
# after that was seen; a wrong surrogate was off by a factor of a million.
SAME = 0.05
WANTED = 3.0
THREADS = 2
PEERS = ("spikingjelly", "snntorch")
EPOCHS = {"nmnist": 12, "braille": 10, "digits": 10}
QUICK_EPOCHS, QUICK_RECORDINGS = 2, 192


def config_of(task: str, seed: int, epochs: int, limit: int | None) -> Config:
    """The preset as all three frameworks can train it."""
    preset = load_config(task)
    layers = [dict(row) for row in preset.layers if row["type"] != "dropout"]
    for row in layers:
        if "surrogate" in row and "surrogate_alpha" not in row:
            row["surrogate"] = "atan"  # all three have it; braille's steepness is what lets it learn, and stays
        if row["type"] == "batch_norm":
            row["shift"] = True
    changes: dict[str, Any] = {
        "seed": seed,
        "layers": layers,
        "data.train_on": "train",
        "data.limit": limit,
        "optimiser.ema": 0.0,
        "train.epochs": epochs,
        "train.drop_last": True,
        "quantise": None,
        "loss.mean_spikes": 0.0,
        "loss.many": 0.0,
        "loss.few": 0.0,
    }
    return preset.with_changes(**changes)


def race(file: Path, epochs: int, threads: int) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """All train, an epoch each in turns: name -> loss, accuracy, seconds of all epochs; and who is absent."""
    found: dict[str, dict[str, Any]] = {}
    left_out: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        workers = {}
        for name in ("neuro", *PEERS):
            arguments = {"framework": name, "file": str(file)}
            job = Job(name, SCRIPT, OURS if name == "neuro" else TORCH_PEERS, arguments)
            try:
                workers[name] = stack.enter_context(Worker(job, threads)).ready()
            except PeerFailed as failure:
                left_out[name] = str(failure)
        for _ in range(epochs):
            for name, worker in workers.items():
                if name not in left_out:
                    try:
                        time.sleep(PAUSE)
                        worker.ask("go", 1)
                    except PeerFailed as failure:
                        left_out[name] = str(failure)
        for name, worker in workers.items():
            if name not in left_out:
                found[name] = worker.ask("check") | worker.said
    return found, left_out


def time_to(row: dict[str, Any], target: float) -> float | None:
    """Seconds of training until the accuracy after an epoch first is the target's."""
    spent = 0.0
    for seconds, accuracy in zip(row["seconds"], row["accuracy"], strict=True):
        spent += seconds
        if accuracy >= target - 1e-9:
            return spent
    return None


def run(task: str, seed: int, epochs: int, limit: int | None, threads: int, folder: Path) -> dict[str, Any]:
    file = folder / f"{task}{seed}.npz"
    sizes = write_task(file, config_of(task, seed, epochs, limit), epochs)
    rows, left_out = race(file, epochs, threads)
    file.unlink()
    target = min(row["accuracy"][-1] for row in rows.values()) - MARGIN
    for row in rows.values():
        row |= {"to_target_s": time_to(row, target), "epoch_s": statistics.median(row["seconds"])}
    about = {"task": task, "seed": seed, "epochs": epochs, "machine": machine(threads), "target": target, **sizes}
    return about | {"frameworks": rows, "left_out": left_out}


def judge(runs: list[dict[str, Any]], quick: bool) -> tuple[dict[str, Any], dict[str, bool]]:
    """Ratios per task and peer, the mean over seeds (geometric), and the checks."""
    summary: dict[str, Any] = {}
    checks: dict[str, bool] = {}
    for task in dict.fromkeys(r["task"] for r in runs):
        mine = [r for r in runs if r["task"] == task]
        summary[task] = {}
        checks[f"{task}: ours ran"] = all("neuro" in r["frameworks"] for r in mine)
        for peer in PEERS:
            both = [r["frameworks"] for r in mine if {peer, "neuro"} <= r["frameworks"].keys()]
            if not quick or TORCH_PEERS in os.environ:
                checks[f"{task}: {peer} ran"] = len(both) == len(mine)
            if not both:
                continue
            pairs = [(f[peer]["first"], f["neuro"]["first"]) for f in both]
            apart = max(abs(a - b) / abs(b) for one, other in pairs for a, b in zip(one, other, strict=True))
            checks[f"{task}: {peer} starts with the same loss and gradients"] = apart <= SAME
            per_epoch = statistics.geometric_mean([f[peer]["epoch_s"] / f["neuro"]["epoch_s"] for f in both])
            row = {"epoch_ratio": per_epoch, "first_difference": apart}
            if not quick:
                ratios = [f[peer]["to_target_s"] / f["neuro"]["to_target_s"] for f in both]
                row |= {"ratio": statistics.geometric_mean(ratios), "ratios": ratios}
                checks[f"{task}: {peer} takes {WANTED:g} times as long to the same accuracy"] = row["ratio"] >= WANTED
                finals = [abs(f[peer]["accuracy"][-1] - f["neuro"]["accuracy"][-1]) for f in both]
                row["final_difference"] = max(finals)
                checks[f"{task}: {peer} ends at the same accuracy"] = statistics.fmean(finals) <= SPREAD
            summary[task][peer] = row
    return summary, checks


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two short epochs of each task")
    parser.add_argument("--task", action="append", choices=sorted(EPOCHS), help="only this one; may be repeated")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--from", dest="first", type=int, default=0, help="the first seed")
    parser.add_argument("--epochs", type=int, help="of every task, instead of its own number")
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--json", type=Path, default=ROOT / "docs" / "results" / "speed_end_to_end.json")
    args = parser.parse_args()
    seeds = range(args.first, args.first + (1 if args.quick else args.seeds))
    pairs = [(task, seed) for seed in seeds for task in args.task or EPOCHS]
    runs = []
    if not args.quick and (args.task or args.first) and args.json.exists():
        runs = [r for r in json.loads(args.json.read_text())["runs"] if (r["task"], r["seed"]) not in pairs]
    with tempfile.TemporaryDirectory() as temporary:
        for task, seed in pairs:
            epochs, limit = (QUICK_EPOCHS, QUICK_RECORDINGS) if args.quick else (args.epochs or EPOCHS[task], None)
            found = run(task, seed, epochs, limit, args.threads, Path(temporary))
            runs.append(found)
            for name, row in found["frameworks"].items():
                took = "never" if row["to_target_s"] is None else f"{row['to_target_s']:.2f} s"
                last = f"accuracy {row['accuracy'][-1]:.3f}"
                print(f"{task} {seed} {name}: epoch {row['epoch_s']:.3f} s, to target {took}, {last}", flush=True)
            for name, reason in found["left_out"].items():
                print(f"{task} {seed} {name}: left out, {reason.strip().splitlines()[-1]}")
            summary, checks = judge(runs, args.quick)
            whole = args.quick or {r["task"] for r in runs} == set(EPOCHS)
            result = {"proof": "speed_end_to_end", "passed": all(checks.values()) and whole, "quick": args.quick}
            write_json(args.json, result | {"summary": summary, "checks": checks, "runs": runs})
    print(json.dumps(summary, indent=2))
    print(json.dumps(checks, indent=2))
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
