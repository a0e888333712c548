"""A converted CNN in the integers of seven chips, each held against the quantised network: values, scores, decisions.

    python tests/proofs/conversion_chips.py [--quick] [--json OUT]

Three networks are trained on the embedded MNIST digits (7,000; the best epoch on 1,000 others), and judged on the 2,000
test digits: "small", 4-bit weights and 3 levels (threshold units on Loihi 2 and SpiNNaker 1 and 2, levels on Akida 1
and 2, for which scales are rounded to the chip's own numbers first); "trinary", weights -1, 0, 1 and one level, fan-in
128 at most (TrueNorth, and Loihi 1 and 2 beside it); "graded", rectifiers without levels, weights of 4 bits and no
biases (Loihi 2's graded messages). `--quick` trains little and takes 60 digits.

Exits 1 unless: every value of every population, every score and every decision of every chip is that of the quantised
network; a threshold of 1.1 times, and one weight of another sign, are each found by the certificate.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as fn
from torch import Tensor, nn

from neuro import ir
from neuro.conversion_chips import ChipCertificate, certify_on_chip, lower_for
from neuro.convert.from_torch import from_torch
from neuro.convert.graph import Graph
from neuro.convert.lower import Lowered
from neuro.convert.quantise import quantise, rounded
from neuro.convert.regrid import in_levels, whole_steps
from neuro.convert.tune import tune
from neuro.datasets.images import images
from neuro.deployment import versions
from neuro.files import write_json

ROOT = Path(__file__).parents[2]
SEED = 0


class Small(nn.Module):
    """Two convolutions and a matrix."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 12, 3, 2, 1, bias=bias)
        self.second = nn.Conv2d(12, 24, 3, 2, 1, bias=bias)
        self.last = nn.Linear(24 * 49, 10, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(fn.relu(self.second(fn.relu(self.first(x)))).flatten(1))  # type: ignore[no-any-return]


class Trinary(nn.Module):
    """At most 128 inputs to a neuron; 32 neurons vote for each class."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 16, 5, 2, 2)
        self.second = nn.Conv2d(16, 32, 3, 2, 1, groups=2)
        self.third = nn.Conv2d(32, 64, 3, 2, 1, groups=4)
        self.votes = nn.Conv2d(64, 320, 4, groups=8)

    def forward(self, x: Tensor) -> Tensor:
        x = fn.relu(self.third(fn.relu(self.second(fn.relu(self.first(x))))))
        return 8 * fn.relu(self.votes(x)).reshape(-1, 32, 10).mean(1)


def trained(model: nn.Module, x: Tensor, y: Tensor, epochs: int, lr: float = 2e-3) -> nn.Module:
    """The float network, by Adam."""
    rng = torch.Generator().manual_seed(SEED)
    optimiser = torch.optim.Adam(model.parameters(), lr)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    for _ in range(epochs):
        for chosen in torch.split(torch.randperm(len(x), generator=rng), 64):
            loss = fn.cross_entropy(model(x[chosen]), y[chosen])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        decay.step()
    return model.eval()


def tensors(split: str) -> tuple[Tensor, Tensor]:
    held = images(split)
    return torch.as_tensor(held.images.astype(np.float32) / 255)[:, None], torch.as_tensor(held.labels)


def accuracy(graph: Graph, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((graph.run(x.to(torch.float64)).argmax(1) == y).double().mean())


def broken(lowered: Lowered, name: str, how: str) -> Lowered:
    """With one population's thresholds 1.1 times as high, or the largest weight in front of it of another sign."""
    if how == "threshold x 1.1":
        node: Any = lowered.network.nodes[name]
        changed = {name: replace(node, v_threshold=1.1 * node.v_threshold)}
    else:
        front = f"{name}.weights"
        node = lowered.network.nodes[front]
        weight = np.array(node.weight)
        weight[np.unravel_index(np.abs(weight).argmax(), weight.shape)] *= -1
        changed = {front: replace(node, weight=weight)}
    return replace(lowered, network=lowered.network.replace_nodes(changed))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="little training, 60 digits")
    parser.add_argument("--json", type=Path, default=None, help="default docs/results/conversion_chips.json")
    args = parser.parse_args()
    torch.manual_seed(SEED)
    fit, valid, test = tensors("train"), tensors("valid"), tensors("test")
    if args.quick:
        fit, valid, test = ((x[:n], y[:n]) for (x, y), n in ((fit, 1000), (valid, 200), (test, 60)))
    epochs, tuned = (1, 1) if args.quick else (16, 10)
    x, y = test[0].to(torch.float64), test[1]
    graphs, networks = {}, {}
    for name, model, options in (
        ("small", Small(), {"levels": 3, "weight_bits": 4, "input_levels": 3}),
        ("trinary", Trinary(), {"levels": 1, "weight_bits": "ternary", "input_levels": 1}),
    ):
        started = time.perf_counter()
        original = from_torch(trained(model, *fit, epochs), fit[0][:2]).to(torch.float64)
        graph = quantise(original, fit[0][:500].to(torch.float64), **options)
        several = tuned if name == "small" else 3 * tuned
        graphs[name] = tune(graph, *fit, epochs=several, weight_bits=options["weight_bits"], valid=valid, seed=SEED)  # type: ignore[arg-type]
        networks[name] = {
            "float": accuracy(original, x, y),
            "quantised": accuracy(graphs[name], x, y),
            "seconds": time.perf_counter() - started,
        }
        print(name, networks[name], flush=True)
    graded = from_torch(trained(Small(bias=False), *fit, epochs), fit[0][:2]).to(torch.float64)
    networks["graded"] = {"float": accuracy(graded, x, y)}
    graded = graded.replace(rounded(graded, 4))
    chips: list[tuple[str, str, Graph, str, dict[str, Any], dict[str, Any]]] = [
        ("small", "loihi2", graphs["small"], "loihi2", {}, {}),
        ("small", "spinnaker1", graphs["small"], "spinnaker1", {}, {}),
        ("small", "spinnaker2", graphs["small"], "spinnaker2", {}, {}),
        ("small", "akida1", whole_steps(graphs["small"]), "akida1", {}, {"weight_bits": 4}),
        ("small", "akida2", in_levels(graphs["small"]), "akida2", {}, {"weight_bits": 4}),
        ("trinary", "truenorth", graphs["trinary"], "truenorth", {}, {}),
        ("trinary", "loihi2", graphs["trinary"], "loihi2", {"readout": "spikes"}, {}),
        ("trinary", "loihi1", graphs["trinary"], "loihi1", {"readout": "spikes"}, {}),
        ("graded", "loihi2", graded, "loihi2", {"form": "graded", "input_levels": 3}, {"readout_headroom": 0.02}),
    ]
    rows, certificates = [], {}
    for net, label, graph, chip, lowering, compiling in chips:
        started = time.perf_counter()
        lowered = lower_for(graph, chip, **lowering)
        found = certify_on_chip(lowered, chip, x, y, **compiling)
        certificates[net, label] = found
        rows.append(row_of(net, found, time.perf_counter() - started))
        print(json.dumps(rows[-1]), flush=True)
    caught = {}
    sound = lower_for(graphs["small"], "loihi2")
    for how in ("threshold x 1.1", "one weight flipped"):
        wrong = certify_on_chip(broken(sound, last(sound), how), "loihi2", x[:40])
        caught[how] = {"values": wrong.values, "differ": wrong.differ, "holds": wrong.holds}
    print(json.dumps(caught), flush=True)
    checks = {
        **{f"{net} on {c}: equal": found.equal for (net, c), found in certificates.items()},
        **{f"found: {how}": not row["holds"] for how, row in caught.items()},
    }
    table = {
        "quick": args.quick,
        "versions": versions(),
        "test_samples": len(y),
        "networks": networks,
        "rows": rows,
        "broken": caught,
        "checks": checks,
    }
    write_json(args.json or ROOT / "docs" / "results" / "conversion_chips.json", table)
    print(json.dumps(checks, indent=1))
    return 0 if all(checks.values()) else 1


def last(lowered: Lowered) -> str:
    """The last population with thresholds."""
    kinds = (ir.LIF, ir.IF)
    return [n for n in lowered.node.values() if isinstance(lowered.network.nodes[n], kinds)][-1]


def row_of(net: str, c: ChipCertificate, seconds: float) -> dict[str, Any]:
    """What is kept of a certificate."""
    keys: tuple[str, ...] = (
        "chip",
        "form",
        "samples",
        "values",
        "differ",
        "decisions",
        "scores",
        "accuracy",
        "quantised_accuracy",
    )
    keys += ("cores", "neurons", "weight_bits", "energy_j", "latency_s", "rounded", "off_whole", "claim")
    whole = c.to_json()
    return {"network": net, **{k: whole[k] for k in keys}, "substitutions": list(c.substitutions), "seconds": seconds}


if __name__ == "__main__":
    sys.exit(main())
