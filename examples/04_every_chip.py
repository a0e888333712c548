"""One network on every chip: who holds it, what it answers there, what it costs, and who refuses it and why.

Expect: Loihi 1 and 2 and SpiNNaker 1 and 2 within 2 points of float, each certified; TrueNorth and Akida refuse a
network with exponential decays and say what would run instead; under a minute on two cores. Files in runs/example04.
"""

import sys
from pathlib import Path

import neuro
from neuro.report import si
from neuro.train.config import load_config

OUT = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/example04")


def main() -> dict[str, float | None]:
    config = load_config("braille").with_changes(**{"train.epochs": 6, "data.train_on": "train"})
    run = neuro.fit(config, OUT / "run")
    unseen = neuro.load_dataset("braille", "valid")
    report = neuro.deploy(run.network, unseen, chips="all", out=OUT / "deploy", certify_samples=2)
    print(f"float: {report.float_accuracy:.3f} on {report.samples} recordings it has not seen")
    for name, chip in report.chips.items():
        if not chip.fits:
            print(f"{name}: does not fit. {chip.violations[0]['message']}")
            continue
        print(
            f"{name}: {chip.accuracy:.3f}, certificate {chip.matches['status']} "
            f"({chip.matches['mismatches']} of {chip.matches['compared']} values differ), "
            f"events {si(chip.energy_j['nominal'], 'J')}, {si(chip.latency_s['nominal'], 's')} "
            f"({chip.estimate['regime']})"
        )
    return {"float": report.float_accuracy, **{name: chip.accuracy for name, chip in report.chips.items()}}


if __name__ == "__main__":
    main()
