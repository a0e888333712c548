"""Accuracy of the Braille and N-MNIST networks on every chip that can hold them, on recordings unseen in training.

    python tests/proofs/chips_accuracy.py [--quick] [--json OUT]

One network per data set goes as it is to Loihi 1 (three accounts of its arithmetic), Loihi 2, SpiNNaker 1 and 2.
TrueNorth and Akida cannot hold it: their refusal is recorded, and networks trained for them (presets NAME_truenorth,
NAME_akida) are judged on the same recordings. Braille: 3 seeds, trained on 32 of 40 repetitions, judged on the other
8. N-MNIST: 3 of 5 folds of the 800 embedded recordings, a seed each. `--quick`: one seed, one fold, N-MNIST trained
for 12 epochs only, so it is judged on agreement with its own float network alone, and every bound is 2 points wider:
one recording of a fold is 0.6 point.

Exits 1 where a chip misses its bound. Points below the mean of the float network: Loihi 1 and 2, SpiNNaker 1 and 2: 1;
TrueNorth: 3 (of the Braille or N-MNIST network, and of its own float); Akida: 1 (of its own float).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from neuro.datasets.compact import save_compact
from neuro.datasets.source import load as load_dataset
from neuro.datasets.source import source
from neuro.deployment import run_program, versions
from neuro.errors import ChipError
from neuro.events import EventSet
from neuro.files import write_json
from neuro.hardware import compile as compile_network
from neuro.results import Run
from neuro.train.config import load_config
from neuro.train.evaluate import evaluate
from neuro.train.loop import fit

ROOT = Path(__file__).parents[2]
FOLDS, SEEDS = 5, 3
QUICK_EPOCHS, QUICK_SLACK = 12, 0.02
Column = tuple[str, str, dict[str, Any]]  # title, chip, compile options
SAME: tuple[Column, ...] = (
    ("loihi1 lava", "loihi1", {"preset": "lava"}),
    ("loihi1 nengo", "loihi1", {"preset": "nengo"}),
    ("loihi1 brian2loihi", "loihi1", {"preset": "brian2loihi"}),
    ("loihi2", "loihi2", {}),
    ("spinnaker1", "spinnaker1", {}),
    ("spinnaker2", "spinnaker2", {}),
    ("truenorth", "truenorth", {}),
    ("akida1", "akida1", {}),
    ("akida2", "akida2", {}),
)
PLAN: dict[str, dict[str, tuple[Column, ...]]] = {
    "braille": {"braille": SAME, "braille_truenorth": (("truenorth", "truenorth", {}),)},
    "nmnist": {
        "nmnist": SAME,
        "nmnist_truenorth": (("truenorth", "truenorth", {}),),
        "nmnist_akida": (("akida1", "akida1", {}), ("akida2", "akida2", {})),
    },
}
POINTS = {"loihi1": 0.01, "loihi2": 0.01, "spinnaker1": 0.01, "spinnaker2": 0.01, "truenorth": 0.03}
AKIDA_POINTS = 0.01


def judged(run: Run, unseen: EventSet, columns: tuple[Column, ...]) -> dict[str, Any]:
    """Float accuracy of one trained run, and what each chip says of it."""
    steps = int(run.summary["steps"])
    result = evaluate(run, unseen)
    found: dict[str, Any] = {"samples": len(unseen), "float": result.accuracy, "chips": {}}
    for title, chip, options in columns:
        try:
            program = compile_network(run.network, chip, max_steps=steps, **options)
        except ChipError as refusal:
            found["chips"][title] = {"refused": f"{type(refusal).__name__}: {str(refusal)[:600]}"}
            continue
        answers = run_program(program, unseen, steps)
        found["chips"][title] = {
            "accuracy": float((answers.decision == unseen.labels).mean()),
            "same_decision": float((answers.decision == result.decided).mean()),
            "cores": program.placement.cores,
            "substitutions": list(program.substitutions),
            "synops": answers.counters["synops"],
        }
    return found


def trained(preset: str, folder: Path, name: str, epochs: int | None, **changes: Any) -> tuple[Run, float]:
    config = load_config(preset)
    if epochs is not None:
        changes["train.epochs"] = min(epochs, config.train.epochs)
    started = time.perf_counter()
    run = fit(config.with_changes(**changes), folder / f"{preset}-{name}")
    return run, time.perf_counter() - started


def braille(quick: bool, folder: Path) -> dict[str, list[dict[str, Any]]]:
    table: dict[str, list[dict[str, Any]]] = {}
    for preset, columns in PLAN["braille"].items():
        unseen = source("braille").load("valid", **load_config(preset).data.options)
        for seed in range(1 if quick else SEEDS):
            run, seconds = trained(preset, folder, str(seed), None, **{"data.train_on": "train", "seed": seed})
            row = {"seed": seed, "train_seconds": seconds, **judged(run, unseen, columns)}
            table.setdefault(preset, []).append(row)
            report(preset, row)
    return table


def nmnist(quick: bool, folder: Path) -> dict[str, list[dict[str, Any]]]:
    everything = load_dataset("nmnist", "all")
    fold_of = np.argsort(np.argsort(everything.groups)) % FOLDS
    table: dict[str, list[dict[str, Any]]] = {}
    for fold in range(1 if quick else SEEDS):
        held, kept = folder / f"held{fold}.events.xz", folder / f"kept{fold}.events.xz"
        save_compact(everything.subset(fold_of == fold), held)
        save_compact(everything.subset(fold_of != fold), kept)
        for preset, columns in PLAN["nmnist"].items():
            changes = {"data.path": str(kept), "data.train_on": "all", "seed": fold}
            run, seconds = trained(preset, folder, str(fold), QUICK_EPOCHS if quick else None, **changes)
            unseen = source("nmnist").load("all", held, **load_config(preset).data.options)
            row = {"fold": fold, "seed": fold, "train_seconds": seconds, **judged(run, unseen, columns)}
            table.setdefault(preset, []).append(row)
            report(preset, row)
    return table


def report(preset: str, row: dict[str, Any]) -> None:
    said = ", ".join(
        f"{title} {cell['accuracy']:.4f}" if "accuracy" in cell else f"{title} refused"
        for title, cell in row["chips"].items()
    )
    print(f"{preset} {row['seed']}: float {row['float']:.4f}, {said} ({row['train_seconds']:.0f} s)", flush=True)


def spread(values: list[float]) -> dict[str, float]:
    sd = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values), "min": min(values), "max": max(values), "sd": sd, "n": len(values)}


def summary(table: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Per preset: the float network and each chip, over seeds."""
    found: dict[str, Any] = {}
    for preset, rows in table.items():
        found[preset] = {"float": spread([r["float"] for r in rows])}
        for title in rows[0]["chips"]:
            cells = [r["chips"][title] for r in rows]
            if all("accuracy" in c for c in cells):
                found[preset][title] = spread([c["accuracy"] for c in cells])
            else:
                found[preset][title] = next(c["refused"] for c in cells if "refused" in c)
    return found


def checks_of(base: str, means: dict[str, Any], quick: bool) -> dict[str, bool]:
    """The bounds, each with its name."""
    found: dict[str, bool] = {}
    own = means[base]["float"]["mean"]
    slack = QUICK_SLACK if quick else 0.0
    for title, chip, _ in SAME:
        cell = means[base][title]
        if chip in ("truenorth", "akida1", "akida2"):
            found[f"{base} on {title}: refused by name"] = isinstance(cell, str) and "UnsupportedNode" in cell
        else:
            points = POINTS[chip] + slack
            close = isinstance(cell, dict) and own - cell["mean"] <= points + 1e-9
            found[f"{base} on {title}: within {100 * points:g} point(s) of float"] = close
    for preset, cells in means.items():
        for title, cell in cells.items() if preset != base else ():
            if title == "float":
                continue
            points = POINTS.get(title, AKIDA_POINTS) + slack
            near = isinstance(cell, dict) and cells["float"]["mean"] - cell["mean"] <= points + 1e-9
            found[f"{preset} on {title}: within {100 * points:g} point(s) of its own float"] = near
            if title == "truenorth" and not (quick and base == "nmnist"):
                whole = isinstance(cell, dict) and own - cell["mean"] <= points + 1e-9
                found[f"{preset} on {title}: within {100 * points:g} point(s) of {base}'s float"] = whole
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed, one fold, short training of N-MNIST")
    parser.add_argument("--json", type=Path, default=ROOT / "docs" / "results" / "chips_accuracy.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rows = {"braille": braille(args.quick, folder), "nmnist": nmnist(args.quick, folder)}
    means = {base: summary(table) for base, table in rows.items()}
    checks: dict[str, bool] = {}
    for base, table in means.items():
        checks |= checks_of(base, table, args.quick)
    result = {"proof": "chips_accuracy", "passed": all(checks.values()), "quick": args.quick, "versions": versions()}
    write_json(args.json, result | {"accuracy": means, "checks": checks, "runs": rows})
    print(json.dumps(checks, indent=2))
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
