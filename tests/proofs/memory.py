"""Proof: rules that are local in time train in memory that does not grow with the sample, and train as well.

    python tests/proofs/memory.py [--quick] [--resume] [--fold N] [--epochs N] [--threads N] [--json OUT]

Two questions, each answered in fresh processes (`tests/axon_peers.py` says what is counted: the highest resident size
during training steps less that before, so activations, gradients and work space; not weights, input and code).

flat: a 700-256-256-20 network, batch 32, 3 % input, T = 10 to 1000, under every rule, beside BPTT whole and in pieces.
A rule is flat where T = 1000 takes at most 1.25 times what T = 10 takes, and 4 MB: what is kept of the output, and the
allocator's grain. DSR, whose one gradient needs the output's trace of all steps, a few times over, is shown and not
judged. e-prop's own share, 4 numbers per synapse and sample, does not depend on T.

nmnist: the shape of the "nmnist" preset (three convolutions, without norms, whose statistics would differ between
stretches; leaks of a millisecond step) on recordings of 300 steps of 1 ms. SLTT and BPTT with the same folds, seeds,
epochs and weights to begin with: accuracy on recordings that neither saw, and the peak memory of training steps on
such recordings. Also shown, not judged: where BPTT's memory lies, truncated BPTT, and the seconds of a step.

Exits 1 where it falls short of: local rules flat; SLTT at least as accurate as BPTT less 1 point (mean over folds)
at less than a third of its peak memory at T = 300. --quick: three rules, T of 10 and 300, memory of N-MNIST steps, one
epoch of one fold on 64 recordings, whose accuracy is not judged. What has been measured is written at once; --resume
keeps what the file holds of the same sources, threads and epochs, so that all of it comes from one state of the code.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # this tree is measured

from axon_peers import Job, Work, machine, memory, serve  # noqa: E402

from neuro.files import write_json  # noqa: E402

RULES = {
    "bptt": {},
    "bptt in pieces of 10": {"truncate": 10},
    "sltt": {"stretch": 10},
    "sltt, 100 of the steps": {"stretch": 10, "steps": 100},
    "ottt": {"stretch": 10},
    "eprop": {"stretch": 10, "feedback": "random"},
    "decolle": {"stretch": 10},
    "dsr": {"stretch": 10},
}
QUICK = ("bptt", "sltt", "ottt")
LENGTHS = (10, 30, 100, 300, 1000)
TIMES, PLUS = 1.25, 4e6  # what counts as flat
POINT, THIRD = 0.01, 1 / 3
FOLDS = 5
STEPS = 300
ON_NMNIST = {"bptt": {}, "bptt in pieces of 30": {"truncate": 30}, "sltt": {"stretch": 30}}
SIZES, BATCH, RATE = (700, 256, 256, 20), 32, 0.03


# ---- in a worker


def build(given):
    """A training step of a rule, on the network of `flat` or on that of `nmnist`."""
    import torch

    from neuro.learn import rule

    torch.set_num_threads(given["threads"])
    which = rule(given["rule"], **given["options"])
    if given["task"] == "flat":
        model, x, labels = dense(given["steps"])
        tiny = x[:10, :1]
    else:
        model, x, labels = recordings(given["steps"])
        tiny = x[:10, :1]
    generator = torch.Generator().manual_seed(0)

    def step(given=x, answers=labels):
        model.zero_grad()

        def loss_of(trace, spikes):
            return torch.nn.functional.cross_entropy(trace.mean(0), answers), torch.zeros(())

        return which.backward(model, given, loss_of, rng=generator).loss

    keeps = given["rule"] == "bptt" and not given["options"]  # what a forward pass leaves for the backward pass
    return Work(step=step, tiny=lambda: step(tiny, labels[:1]), forward=(lambda: model(x)) if keeps else None)


def dense(steps):
    """(network, input, labels): the input is packed, as a data loader hands it out."""
    import torch
    from torch import nn

    from neuro.nn import LI, LIF, SpikingNetwork
    from neuro.nn.spikes import Spikes

    generator = torch.Generator().manual_seed(1)
    layers = {}
    for k, (a, b) in enumerate(itertools.pairwise(SIZES[:-1])):
        layers |= {f"w{k}": nn.Linear(a, b, bias=False), f"n{k}": LIF(0.9, reset="subtract")}
    layers |= {"w": nn.Linear(SIZES[-2], SIZES[-1], bias=False), "out": LI(0.9)}
    model = SpikingNetwork(layers, input_shape=(SIZES[0],), dt=1e-3, readout="sum")
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 2.0 / p.shape[1] ** 0.5)
    x = (torch.rand((steps, BATCH, SIZES[0]), generator=generator) < RATE).to(torch.uint8)
    return model.train(), Spikes.pack(x, torch.float32), torch.arange(BATCH) % SIZES[-1]


def recordings(steps):
    """(network, input, labels) of the first batch of N-MNIST recordings."""
    import torch

    from neuro.nn.spikes import Spikes
    from neuro.train.build import build as network
    from neuro.train.data import Recordings

    made = configuration({"kind": "bptt"}, None, 0, 1)
    data = Recordings(made.data, 0)
    events = data.train(0)
    x, labels = next(iter(data.batches(events, made.train, 0, 1)))
    model = network(made.layers, events.shape, data.dt, made.readout, 0, 10, made.data.high)
    return model.train(), Spikes.pack(x[:steps], torch.float32), labels


# ---- what is trained


def configuration(rule, path, seed, epochs, train_on="all"):
    """The "nmnist" preset at 300 steps, without norms and dropout, in real numbers."""
    from neuro.train.config import load_config

    preset = load_config("nmnist")
    layers = []
    for layer in preset.to_table()["layers"]:
        if layer["type"] == "conv":
            layers.append({**layer, "out": layer["out"] // 2, "init": INIT})
        elif layer["type"] == "lif":
            layers.append({**layer, "beta": BETA, "reset": "subtract"})
        elif layer["type"] not in ("batch_norm", "dropout"):
            layers.append(layer)
    changes = {
        "layers": layers,
        "quantise": None,
        "rule": rule,
        "seed": seed,
        "data.path": path,
        "data.train_on": train_on,
        "data.steps": STEPS,
        "data.dt": 1e-3,
        "data.augment": {"shift": 1.5, "rotation": 10.0, "scale": 0.08},
        "loss.scale": SCALE,
        "optimiser.lr": RATE_OF_LEARNING,
        "optimiser.ema": 0.9,
        "train.epochs": epochs,
        "train.recalibrate": 0,
    }
    return preset.with_changes(**changes)


INIT, BETA, SCALE, RATE_OF_LEARNING = 3.0, 0.9, 0.3, 3e-3


def kind(name):
    return name.split(",")[0].split()[0]


def flat(name, lengths, threads):
    """T -> bytes."""
    row, options = {}, RULES[name]
    for steps in lengths:
        given = {"task": "flat", "rule": kind(name), "options": dict(options), "steps": steps}
        if options.get("steps"):
            given["options"]["steps"] = min(options["steps"], steps)
        row[str(steps)] = peak(f"{name}, T {steps}", given, threads)["peak_bytes"]
    print("flat", name, {k: f"{v / 1e6:.1f} MB" for k, v in row.items()}, flush=True)
    return row


def peak(name, given, threads):
    return memory(Job(name, Path(__file__).resolve(), arguments=given), threads=threads)


def steps_of_nmnist(name, threads):
    """What `axon_peers.memory` says of training steps on N-MNIST."""
    given = {"task": "nmnist", "rule": kind(name), "options": ON_NMNIST[name], "steps": STEPS}
    found = peak(name, given, threads)
    kept = found["kept_bytes"]
    said = "" if kept is None else f", of it kept from forward to backward {kept / 1e6:.1f}"
    print("nmnist", name, f"{found['peak_bytes'] / 1e6:.1f} MB{said}", flush=True)
    return found


def trained(name, fold, epochs, limit):
    """Accuracy of a rule on a fold, on recordings not seen."""
    import numpy as np

    from neuro.datasets.compact import save_compact
    from neuro.datasets.source import load as load_dataset
    from neuro.datasets.source import source
    from neuro.train.evaluate import evaluate
    from neuro.train.loop import fit

    everything = load_dataset("nmnist", "all")
    fold_of = np.argsort(np.argsort(everything.groups)) % FOLDS
    chosen = np.flatnonzero(fold_of != fold)[:limit]
    with tempfile.TemporaryDirectory() as given:
        folder = Path(given)
        held, kept = folder / "held.events.xz", folder / "kept.events.xz"
        save_compact(everything.subset(np.flatnonzero(fold_of == fold)[:limit]), held)
        save_compact(everything.subset(chosen), kept)
        config = configuration({"kind": name, **ON_NMNIST[name]}, str(kept), fold, epochs)
        started = time.perf_counter()
        run = fit(config, folder / "run", on_epoch=lambda row: print(name, dict(row), flush=True))
        seconds = time.perf_counter() - started
        unseen = source("nmnist").load("all", held, **config.data.options)
        accuracy = evaluate(run, unseen, steps=STEPS).accuracy
    row = {"rule": name, "fold": fold, "seed": fold, "accuracy": accuracy, "epochs": epochs,
           "samples": len(unseen), "trained_on": len(chosen), "train_seconds": seconds,
           "train_accuracy": run.summary["accuracy"]}  # fmt: skip
    print("trained", row, flush=True)
    return row


def state():
    """A digest of the sources that were measured, and of this file."""
    total = hashlib.sha256()
    for path in [*sorted((ROOT / "neuro").rglob("*.py")), Path(__file__).resolve()]:
        total.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


# ---- verdict


def verdict(table, quick):
    """Everything that is short, and what was judged."""
    lines = []
    for name in QUICK if quick else RULES:
        row = table.get("flat", {}).get(name)
        if row is None:
            lines.append(f"flat: {name} not measured")
        elif name not in ("bptt", "dsr"):
            longest = max(row, key=int)
            if row[longest] > TIMES * row["10"] + PLUS:
                lines.append(
                    f"flat: {name} takes {row[longest] / 1e6:.1f} MB at T = {longest}, {row['10'] / 1e6:.1f} at 10"
                )
    steps = table.get("nmnist_memory")
    if steps is None:
        lines.append("N-MNIST: memory not measured")
    elif steps["sltt"]["peak_bytes"] >= THIRD * steps["bptt"]["peak_bytes"]:
        share = steps["sltt"]["peak_bytes"] / steps["bptt"]["peak_bytes"]
        lines.append(f"N-MNIST: SLTT's peak memory is {share:.2f} of BPTT's")
    rows = list(table.get("nmnist_accuracy", {}).values())
    if not rows:
        lines.append("N-MNIST: accuracy not measured")
    elif not quick:
        mean = {r: statistics.fmean(x["accuracy"] for x in rows if x["rule"] == r) for r in ("bptt", "sltt")}
        table["nmnist_mean"] = {**mean, "folds": len({x["fold"] for x in rows})}
        if len({x["fold"] for x in rows}) < 2:
            lines.append("N-MNIST: fewer than two folds")
        if mean["sltt"] < mean["bptt"] - POINT:
            lines.append(f"N-MNIST: SLTT {mean['sltt']:.4f}, BPTT {mean['bptt']:.4f}")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--fold", type=int, action="append", default=None, help="default 0 and 1")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="default docs/results/memory.json, with --quick none")
    arguments = parser.parse_args()
    quick, threads = arguments.quick, arguments.threads
    folds, epochs, limit = ([0], 1, 64) if quick else (arguments.fold or [0, 1], arguments.epochs, None)
    same = {"quick": quick, "sources": state(), "threads": threads, "epochs": epochs}
    target = arguments.json or (None if quick else ROOT / "docs" / "results" / "memory.json")
    found = arguments.resume and target is not None and target.is_file()
    table = json.loads(target.read_text(encoding="utf-8")) if found else {}
    if {k: table.get(k) for k in same} != same:
        table = dict(same)
    table |= {"machine": machine(threads), "short": ["not finished"]}

    def store():
        if target is not None:
            write_json(target, table)

    def fill(part, name, measure):
        rows = table.setdefault(part, {})
        if name not in rows:
            rows[name] = measure()
            store()

    for name in QUICK if quick else RULES:
        fill("flat", name, lambda n=name: flat(n, (10, 300) if quick else LENGTHS, threads))
    for name in ("bptt", "sltt") if quick else ON_NMNIST:
        fill("nmnist_memory", name, lambda n=name: steps_of_nmnist(n, threads))
    for fold, name in itertools.product(folds, ("bptt", "sltt")):
        fill("nmnist_accuracy", f"{name}, fold {fold}", lambda n=name, f=fold: trained(n, f, epochs, limit))
    table["short"] = verdict(table, quick)
    store()
    print("\n".join(table["short"]) or "all that was asked for")
    return 1 if table["short"] else 0


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1].startswith("{"):
        serve(build)
    else:
        sys.exit(main())
