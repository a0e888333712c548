"""Train on tactile events, compile to Loihi 2, prove every bit against Lava, export.

Expect: float above 0.90 after 6 short epochs, the chip within 2 points of it, 0 mismatches (or "not run" where
lava-nc is missing); under a minute on two cores. The files lie in runs/example01.
"""

import sys
from pathlib import Path

import neuro
from neuro.train.config import load_config

OUT = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/example01")


def main() -> dict[str, float]:
    config = load_config("braille").with_changes(**{"train.epochs": 6, "data.train_on": "train"})
    run = neuro.fit(config, OUT / "run")
    unseen = neuro.load_dataset("braille", "valid")
    report = neuro.deploy(run.network, unseen, chips="loihi2", out=OUT / "deploy", certify_samples=5)
    chip = report.chips["loihi2"]
    print(
        f"float {report.float_accuracy:.3f}, Loihi 2 {chip.accuracy:.3f}, certificate: {chip.matches['status']}, "
        f"{chip.matches['mismatches']} of {chip.matches['compared']} values differ"
    )
    print(
        f"event energy {chip.energy_j['nominal'] * 1e6:.2f} uJ per sample "
        f"({chip.energy_j['low'] * 1e6:.2f} .. {chip.energy_j['high'] * 1e6:.2f}), files in {OUT / 'deploy'}"
    )
    return {"float": report.float_accuracy, "loihi2": chip.accuracy, "mismatches": chip.matches["mismatches"]}


if __name__ == "__main__":
    main()
