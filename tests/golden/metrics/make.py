"""NeuroBench's metrics of two networks, by the neurobench package itself.

    PYTHONPATH=<repository>:<repository>/tests <interpreter with neurobench, snntorch, torch, numba> \
        tests/golden/metrics/make.py

writes neurobench.json beside this file: the networks are those of `nets`, made of multiples of 1/64; workload metrics
are of the snnTorch module, static ones of the torch module that we make of its Network.
"""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

HERE = Path(__file__).parent
STEPS, SAMPLES = 12, 3


def _weights(layer: Any, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for p in layer.parameters():
            values = np.round(rng.normal(0.2, 0.6, tuple(p.shape)) * 64) / 64
            values[rng.random(tuple(p.shape)) < 0.3] = 0
            p.copy_(torch.from_numpy(values))
    return layer


class Chain(nn.Sequential):
    """Returns (spikes, nothing), as NeuroBench's wrapper of snnTorch wants."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x), None


def nets() -> dict[str, tuple[Any, np.ndarray[Any, Any]]]:
    """name -> (snnTorch module of one step, input [time, sample, ...])."""
    import snntorch as snn

    def lif() -> Any:
        return snn.Leaky(beta=0.75, reset_mechanism="zero", init_hidden=True)

    dense = Chain(_weights(nn.Linear(20, 16), 1), lif(), _weights(nn.Linear(16, 4), 2), lif())
    image = Chain(
        _weights(nn.Conv2d(2, 4, 3, padding=1), 3), lif(), nn.AvgPool2d(2), _weights(nn.Conv2d(4, 3, 2, stride=2), 4),
        lif(), nn.Flatten(), _weights(nn.Linear(12, 5), 5), lif(),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    return {
        "dense": (dense, (rng.random((STEPS, SAMPLES, 20)) < 0.3).astype(np.uint8)),
        "image": (image, (rng.random((STEPS, SAMPLES, 2, 8, 8)) < 0.3).astype(np.uint8)),
    }


def main() -> None:
    import neurobench
    from neurobench.metrics.static import ConnectionSparsity, Footprint
    from neurobench.metrics.workload import ActivationSparsity, SynapticOperations
    from neurobench.models import SNNTorchModel, TorchModel

    from neuro import from_snntorch
    from neuro.nn.bridge import to_module

    try:
        said = version("neurobench")
    except PackageNotFoundError:
        said = neurobench.__version__
    found: dict[str, Any] = {"neurobench": said}
    for name, (module, x) in nets().items():
        ours = TorchModel(to_module(from_snntorch(module, x[0], axes="B")))
        model = SNNTorchModel(module)
        model.register_hooks()
        data = torch.from_numpy(x).float().transpose(0, 1)
        with torch.no_grad():
            answers = model(data)
        operations = SynapticOperations()
        found[name] = {
            "Footprint": Footprint()(ours),
            "ConnectionSparsity": ConnectionSparsity()(ours),
            "ActivationSparsity": ActivationSparsity()(model, answers, (data, None)),
            "SynapticOperations": operations(model, answers, (data, None)),
        }
    (HERE / "neurobench.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
