"""Accuracy of a quantised CNN on N-MNIST, float and in the integers of Akida 1 and 2, on recordings it has not seen.

    python tests/proofs/akida_accuracy.py [--quick] [--json OUT]

The preset nmnist_akida (4-bit weights and activations, one frame of counted events per recording) in five folds of
the 800 embedded recordings, each judged by a network trained on the other four (640). `--quick` trains one fold and
asks of its 160 recordings 0.95 less three binomial standard errors (0.898). On each chip 4 recordings are certified
against the independent integer model. Nothing of the akida engine or of silicon is run.

Exits 1 where it falls short of: float >= 0.95 (mean over folds), each chip within 1 point, every certificate passed.
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
from neuro.deployment import run_program, spread_over_classes, versions
from neuro.events import EventSet
from neuro.files import write_json
from neuro.hardware import compile as compile_network
from neuro.hardware.certify import certify
from neuro.results import Run
from neuro.train.config import load_config
from neuro.train.evaluate import evaluate
from neuro.train.loop import fit

ROOT = Path(__file__).parents[2]
CHIPS = ("akida1", "akida2")
FOLDS = 5
CERTIFIED = 4


def judged(run: Run, unseen: EventSet) -> dict[str, Any]:
    """Float and chip accuracy of one trained run."""
    steps, network = int(run.summary["steps"]), run.network
    result = evaluate(run, unseen)
    row: dict[str, Any] = {"samples": len(unseen), "float": result.accuracy}
    for chip in CHIPS:
        program = compile_network(network, chip, strict=True, weight_bits=4)
        answers = run_program(program, unseen, steps)
        chosen = spread_over_classes(unseen.labels, CERTIFIED)
        dense = unseen.batch(chosen, network.dt, steps, program.high)
        certificate = certify(program, dense.reshape(*dense.shape[:2], -1))
        row[chip] = float((answers.decision == unseen.labels).mean())
        row[f"{chip}_same_decision"] = float((answers.decision == result.decided).mean())
        row[f"{chip}_certificate"] = certificate.status
        row[f"{chip}_compared"] = certificate.compared
        row[f"{chip}_synops"] = answers.counters["synops"]
        row[f"{chip}_nps"] = program.placement.cores
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one fold")
    parser.add_argument("--json", type=Path, default=None, help="default docs/results/akida_accuracy.json")
    args = parser.parse_args()
    config = load_config("nmnist_akida")
    everything = load_dataset("nmnist", "all")
    fold_of = np.argsort(np.argsort(everything.groups)) % FOLDS
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for fold in range(1 if args.quick else FOLDS):
            held, kept = folder / f"held{fold}.events.xz", folder / f"kept{fold}.events.xz"
            save_compact(everything.subset(fold_of == fold), held)
            save_compact(everything.subset(fold_of != fold), kept)
            started = time.perf_counter()
            changed = config.with_changes(**{"data.path": str(kept), "seed": fold, "train.threads": 1})
            run = fit(changed, folder / f"run{fold}")
            spent = time.perf_counter() - started
            unseen = source("nmnist").load("all", held, **config.data.options)
            rows.append({"fold": fold, "train_seconds": spent, **judged(run, unseen)})
            print(rows[-1], flush=True)
    mean = {key: statistics.fmean(row[key] for row in rows) for key in ("float", *CHIPS)}
    enough = 0.95 - (3 * (0.95 * 0.05 / 160) ** 0.5 if args.quick else 0.0)
    checks = {
        f"float >= {enough:.3g}": mean["float"] >= enough,
        **{f"{chip} within 1 point": mean["float"] - mean[chip] <= 0.01 for chip in CHIPS},
        "every certificate passed": all(row[f"{chip}_certificate"] == "passed" for row in rows for chip in CHIPS),
    }
    table = {"quick": args.quick, "versions": versions(), "folds": rows, "mean": mean, "checks": checks}
    write_json(args.json or ROOT / "docs" / "results" / "akida_accuracy.json", table)
    print(json.dumps({"mean": mean, "checks": checks}, indent=2))
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
