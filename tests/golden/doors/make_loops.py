"""Spikes of wrappers that feed back: Norse's RecurrentSequential, SpikingJelly's ElementWiseRecurrentContainer.

    PYTHONPATH=<repository>/tests <interpreter with the frameworks> tests/golden/doors/make_loops.py

writes loops.npz beside this file: input, weights (multiples of 1/64), spikes in float64 as bits, versions.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import norse.torch as norse
import numpy as np
import torch
from spikingjelly.activation_based import layer, neuron

N = 16


def linear(weight: Any) -> torch.nn.Linear:
    made = torch.nn.Linear(N, N, bias=False)
    made.weight = torch.nn.Parameter(torch.from_numpy(weight))
    return made


def main() -> None:
    rng = np.random.default_rng(5)
    x = (rng.random((80, 4, N)) < 0.3).astype(np.uint8)
    weight = np.round(rng.normal(0.05, 0.9, (N, N)) * 64) / 64
    steps = torch.from_numpy(x).double()
    looped = norse.RecurrentSequential(
        linear(weight), norse.LIFCell(norse.LIFParameters(v_th=torch.tensor(0.5)))
    ).double()
    container = layer.ElementWiseRecurrentContainer(
        torch.nn.Sequential(linear(weight), neuron.LIFNode(tau=2.0)), lambda a, b: a + b
    ).double()
    found: dict[str, list[Any]] = {"norse": [], "spikingjelly": []}
    state = None
    with torch.no_grad():
        for step in steps:
            spikes, state = looped(step, state)
            found["norse"].append(spikes)
            found["spikingjelly"].append(container(step))
    bits = {n: np.packbits(torch.stack(s).numpy().astype(np.uint8), axis=None) for n, s in found.items()}
    said = {f"{n}_version": np.array(version(n)) for n in found}
    np.savez_compressed(Path(__file__).with_name("loops.npz"), input=x, weight=weight, **bits, **said)
    print({n: float(torch.stack(s).mean()) for n, s in found.items()})


if __name__ == "__main__":
    main()
