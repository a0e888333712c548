"""Benchmark: peak memory of one training step, each row of bench_linear_lif.py and bench_net.py.

    python tests/bench/bench_memory.py [--only SUBSTRING] [--quick] [--json OUT]

Each framework in a fresh process; tests/axon_peers.py says what is counted: activations, gradients and work space,
without weights, input and code. ``gradient_bytes`` are the gradients that a step leaves behind, dense in every
framework: nobody can have less than those. ``kept_bytes_per_neuron_step``: what our forward pass leaves for the
backward pass.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent)]

import bench_linear_lif  # noqa: E402
import bench_net  # noqa: E402
from peer_training import SIZES  # noqa: E402
from training_rows import HOISTED, PEERS, ROOT, machine, merge, peak  # noqa: E402

ROWS = bench_linear_lif.ROWS | bench_net.ROWS


def gradient_bytes(what):
    """float32 gradients of weights and, where they are wanted, of the input."""
    sizes = SIZES if what["task"] == "net" else (what["n"], what["n"])
    weights = sum(a * b for a, b in itertools.pairwise(sizes))
    return 4 * (weights + what["input_gradient"] * what["steps"] * what["batch"] * sizes[0])


def neuron_steps(what):
    """How often a neuron is updated in a forward pass."""
    neurons = sum(SIZES[1:]) if what["task"] == "net" else what["n"]
    return what["steps"] * what["batch"] * neurons


def measure(what, peers=PEERS, threads=2):
    """One row: bytes of each, and ours over SpikingJelly's present release: all, and without the gradients."""
    found, left_out = peak(what, peers=peers, threads=threads)
    row = {"what": what, "machine": machine(threads), "gradient_bytes": gradient_bytes(what), "left_out": left_out}
    row["frameworks"] = found
    ours = row["ours_bytes"] = found["neuro"]["peak_bytes"]
    row["kept_bytes_per_neuron_step"] = found["neuro"]["kept_bytes"] / neuron_steps(what)
    if "spikingjelly" in found:
        theirs = found["spikingjelly"]["peak_bytes"]
        row["of_spikingjelly"] = ours / theirs
        row["gradients_of_spikingjelly"] = row["gradient_bytes"] / theirs
        row["rest_of_spikingjelly"] = (ours - row["gradient_bytes"]) / (theirs - row["gradient_bytes"])
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows whose name holds this")
    parser.add_argument("--quick", action="store_true", help="without the slow ones: SpikingJelly and Spyx only")
    parser.add_argument("--json", type=Path, default=ROOT / "docs" / "results" / "bench_memory.json")
    arguments = parser.parse_args()
    peers = ("spikingjelly", "spyx", HOISTED) if arguments.quick else PEERS
    for name, what in ROWS.items():
        if arguments.only in name:
            row = measure(what, peers)
            said = ", ".join(f"{n} {f['peak_bytes'] / 1e6:.1f}" for n, f in row["frameworks"].items())
            print(
                f"{name}: MB {said}; gradients alone {row['gradient_bytes'] / 1e6:.1f};",
                f"ours keeps {row['kept_bytes_per_neuron_step']:.2f} bytes per neuron and step",
                flush=True,
            )
            for who, why in row["left_out"].items():
                print(f"  left out: {who}: {why.splitlines()[-1]}")
            merge(arguments.json, {name: row}, limits=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
