"""Spikes of the NIR paper's Braille network in Norse, read by `norse.torch.from_nir`, on an input of ours.

    <interpreter with norse, nir, nirtorch> tests/golden/nir/make.py

writes braille_norse.npz: input uint8 [256, 4, 12], spikes of the hidden and the output layer as bits, versions.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import nir
import norse.torch as norse
import numpy as np
import torch

HERE = Path(__file__).parent


def main() -> None:
    x = (np.random.default_rng(0).random((256, 4, 12)) < 0.08).astype(np.uint8)
    graph = nir.read(HERE / "braille_noDelay_bias_zero.nir")
    module = norse.from_nir(graph, dt=1e-4).double()
    spikes: dict[str, list[Any]] = {"lif1_lif": [], "lif2": []}
    for name, part in module.named_modules():
        if name in spikes:
            part.register_forward_hook(lambda part, given, out, kept=spikes[name]: kept.append(out[0]))
    state = None
    with torch.no_grad():
        for step in torch.from_numpy(x).double():
            _, state = module(step, state)
    packed = {n: np.packbits(torch.stack(s).numpy().astype(np.uint8), axis=None) for n, s in spikes.items()}
    said = {n: np.array(version(n)) for n in ("norse", "nir", "nirtorch")}
    np.savez_compressed(HERE / "braille_norse.npz", input=x, **packed, **said)


if __name__ == "__main__":
    main()
