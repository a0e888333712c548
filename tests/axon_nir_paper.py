"""The networks of the NIR paper and what came with them (tests/golden/nir): who agrees with whom, and we with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).parent / "golden" / "nir"
BRAILLE = FOLDER / "braille_noDelay_bias_zero.nir"
LAGS = (0, 1, -1, 2, -2)
DT = 1e-4  # of the paper's Braille networks


def activities(kind: str) -> dict[str, NDArray[np.uint8]]:
    """Spikes [256, neurons] of the Braille network's hidden layer, by simulator. kind: bias_zero, noBias_subtract."""
    with np.load(FOLDER / "paper.npz") as file:
        names = [n for n in file.files if n.startswith(f"{kind}.") and not n.endswith("accuracy")]
        return {n.partition(".")[2]: file[n] for n in names}


def accuracies(kind: str) -> dict[str, float]:
    """As the paper has them. kind: cnn, bias_zero, noBias_subtract."""
    with np.load(FOLDER / "paper.npz") as file:
        names = [n for n in file.files if n.startswith(f"{kind}.") and n.endswith("accuracy")]
        return {n.split(".")[1]: float(file[n]) for n in names}


def between(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> dict[str, int]:
    """Neuron-steps at which one fires and the other does not; b read ``lag`` steps later, at its best."""
    found = []
    for lag in LAGS:
        x, y = (a[: len(a) - lag], b[lag:]) if lag >= 0 else (a[-lag:], b[:lag])
        found.append({"differ": int((x != y).sum()), "lag": lag})
    return min(found, key=lambda row: row["differ"])


def simulators(kind: str) -> dict[str, Any]:
    """Of every simulator: its spikes, and how many differ from each other's."""
    table = activities(kind)
    return {
        name: {"spikes": int(own.sum()), "of": own.size, **{other: between(own, its) for other, its in table.items()}}
        for name, own in table.items()
    }


def braille(start: str) -> dict[str, Any]:
    """Neuron-steps at which our Network and today's Norse differ, on an input of ours, hidden and output layer.

    start: "file", the recurrent bias acts from the first step on, as a weight layer's does; "nirtorch", from the second
    on: nirtorch begins a loop with zeros behind its weights, not before them.
    """
    from neuro import ir, reference
    from neuro.ir import Network
    from neuro.nir import load

    with np.load(FOLDER / "braille_norse.npz") as file:
        golden = dict(file)
    x = golden["input"].astype(np.float64)
    network = load(BRAILLE, dt=DT)
    hidden, last = network.nodes["lif1.lif"], network.nodes["lif2"]
    first, recurrent = network.nodes["fc1"], network.nodes["lif1.w_rec"]
    assert isinstance(first, ir.Affine)
    assert isinstance(recurrent, ir.Affine)
    if start == "file":
        run = reference.run(network, golden["input"])
        ours = [run.spikes["lif1.lif"], run.spikes["lif2"]]
    else:
        bias = np.broadcast_to(recurrent.bias, (*x.shape[:2], len(recurrent.bias))).copy()
        bias[0] = 0.0
        nodes = {"in": ir.Input((len(recurrent.bias),)), "one": ir.Linear(np.eye(len(recurrent.bias))), "h": hidden,
                 "r": ir.Linear(recurrent.weight), "w": network.nodes["fc2"], "o": last,
                 "out": ir.Output()}  # fmt: skip
        edges = (("in", "one"), ("one", "h"), ("h", "r"), ("r", "h"), ("h", "w"), ("w", "o"), ("o", "out"))
        run = reference.run(Network(nodes, edges, DT, "euler"), x @ first.weight.T + first.bias + bias)
        ours = [run.spikes["h"], run.spikes["o"]]
    theirs = [
        np.unpackbits(golden[n], count=s.size).reshape(s.shape) for n, s in zip(("lif1_lif", "lif2"), ours, strict=True)
    ]
    return {
        "spikes": [int(s.sum()) for s in theirs],
        "of": [s.size for s in theirs],
        "differ": [int((a != b).sum()) for a, b in zip(ours, theirs, strict=True)],
        "norse": str(golden["norse"]),
    }


def cnn(recordings: int) -> dict[str, Any]:
    """Our accuracy of the sinabs CNN, and its first layer beside Speck's: spikes per recording, and how alike maps are.

    Speck's recordings are not here (the first of each digit in N-MNIST's test split), so maps are compared as means
    over ours of that digit; alike: correlation over channel, row, column, mean over digits. shuffled: the same with
    Speck's channels in another order, what no likeness gives. floor: the layer once more as sinabs and Speck have it,
    membranes never below -v_threshold (min_v_mem) and several spikes in a step, of which NIR's IF says nothing.
    """
    import torch

    from neuro import ir
    from neuro.datasets.source import load as load_dataset
    from neuro.datasets.transforms import batch
    from neuro.ir import Network
    from neuro.nir import load
    from neuro.nn.bridge import to_module

    with np.load(FOLDER / "paper.npz") as file:
        speck = file["cnn.speck"].astype(np.float64)
    data = load_dataset("nmnist", "all")
    data = data.subset(np.arange(min(recordings, len(data))))
    network = load(FOLDER / "cnn_sinabs.nir", dt=1e-3, reset="subtract")
    whole = to_module(network)
    counted = {**{n: network.nodes[n] for n in ("input", "0", "1")}, "out": ir.Output("count")}
    front = to_module(Network(counted, (("input", "0"), ("0", "1"), ("1", "out")), network.dt, network.discretisation))
    right, maps, floored = 0, np.zeros((10, *speck.shape[1:])), np.zeros((10, *speck.shape[1:]))
    for begin in range(0, len(data), 25):
        chosen = np.arange(begin, min(begin + 25, len(data)))
        x = torch.from_numpy(batch(data, chosen, 1e-3, 300)).float()
        with torch.no_grad():
            right += int((whole(x).sum(0).argmax(-1).numpy() == data.labels[chosen]).sum())
            np.add.at(maps, data.labels[chosen], front(x).sum(0).numpy().reshape(-1, *speck.shape[1:]))
            np.add.at(floored, data.labels[chosen], _with_a_floor(network, x))
    here = np.bincount(data.labels, minlength=10)
    for counts in (maps, floored):
        counts /= np.maximum(here, 1)[:, None, None, None]
    digits = [k for k in range(10) if here[k]]

    def alike(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
        return float(np.mean([np.corrcoef(ours[k].ravel(), theirs[k].ravel())[0, 1] for k in digits]))

    return {
        "recordings": len(data),
        "accuracy": right / len(data),
        "spikes_per_recording": float(maps[digits].sum((1, 2, 3)).mean()),
        "speck_spikes_per_recording": float(speck[digits].sum((1, 2, 3)).mean()),
        "alike": alike(maps, speck),
        "shuffled": alike(maps, np.roll(speck, 5, axis=1)),
        "floor": {
            "spikes_per_recording": float(floored[digits].sum((1, 2, 3)).mean()),
            "alike": alike(floored, speck),
            "shuffled": alike(floored, np.roll(speck, 5, axis=1)),
        },
        "paper_accuracy": accuracies("cnn"),
    }


def _with_a_floor(network: Any, x: Any) -> NDArray[np.float64]:
    """Spikes of the first layer, summed over time, in sinabs' IAF with min_v_mem = -1 and a threshold of 1."""
    import torch

    conv = network.nodes["0"]
    weight = torch.tensor(conv.weight, dtype=x.dtype)
    v, count = torch.zeros(1), torch.zeros(1)
    for step in x:
        v = v + torch.nn.functional.conv2d(step, weight, None, conv.stride, conv.padding)
        spikes = torch.floor(v).clamp(min=0)
        v, count = (v - spikes).clamp(min=-1.0), count + spikes
    return np.asarray(count.double().numpy())


def networks(recordings: int) -> dict[str, Any]:
    """All of it."""
    kinds = ("bias_zero", "noBias_subtract")
    return {
        "braille": {kind: {"simulators": simulators(kind), "paper_accuracy": accuracies(kind)} for kind in kinds},
        "norse_today": {start: braille(start) for start in ("file", "nirtorch")},
        "cnn": cnn(recordings),
    }
