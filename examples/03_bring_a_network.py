"""Deploy a network nobody here trained: the sinabs CNN of the NIR paper, on 40 N-MNIST recordings.

Expect: float and Loihi 2 both above 0.9, five substitutions listed (the chip resets to zero, the network
subtracts); about half a minute.
"""

import sys
from pathlib import Path

import numpy as np

import neuro

NET = Path(__file__).parents[1] / "tests" / "golden" / "nir" / "cnn_sinabs.nir"


def main(path: Path = NET) -> dict[str, float]:
    network = neuro.load(path, dt=1e-3, reset="subtract")
    data = neuro.load_dataset("nmnist", "valid").subset(np.arange(40))
    report = neuro.deploy(network, data, chips="loihi2", steps=300, certify_samples=0)
    chip = report.chips["loihi2"]
    print(f"float {report.float_accuracy:.3f}, Loihi 2 {chip.accuracy:.3f} on {chip.utilisation['cores']} cores")
    for line in chip.substitutions:
        print("  approximated:", line)
    return {"float": report.float_accuracy, "loihi2": chip.accuracy, "substitutions": len(chip.substitutions)}


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else NET)
