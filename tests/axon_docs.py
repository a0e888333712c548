"""What the code of the docs takes for granted: the reader's model, data, circuit, by page; and what is made shorter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Names = dict[str, Any]

# (words of a page, the same for fewer rounds): the block runs as written but for these
SHORTER: dict[str, tuple[tuple[str, str], ...]] = {
    "conversion": (("epochs=6", "epochs=1"), ('chip=("loihi2", "spinnaker2")', 'chip="loihi2"')),
    "continual": (("permuted_digits(3)", "permuted_digits(2)"),),
    "exploration": (('Converted(data="fashion")', "problem"), ("trials=64", "trials=4")),
    "README": (('load_dataset("nmnist", "valid")', 'load_dataset("nmnist", "valid").subset(range(12))'),),
}


def given(page: str, folder: Path) -> Names:
    """Names of a page beyond those that all pages have."""
    return GIVEN[page](folder) if page in GIVEN else {}


def _conversion(folder: Path) -> Names:
    import torch
    from torch import nn

    from neuro.datasets.images import images

    torch.manual_seed(0)
    pool = images("valid")
    some = pool.subset(np.arange(60))
    x = np.asarray(some.images, np.float32).reshape(60, 1, 28, 28) / np.float32(255)
    y = np.asarray(some.labels)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 10)
    )  # fmt: skip
    batch = torch.as_tensor(x)
    return {"model": model, "x": batch, "y": torch.as_tensor(y), "x_test": batch[:8], "y_test": torch.as_tensor(y[:8])}


def _recipes(folder: Path) -> Names:
    import torch
    from torch import nn

    torch.manual_seed(0)
    x = torch.rand(40, 6, dtype=torch.float64)
    y = torch.arange(40) % 3
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    return {"module": module, "x": x, "labels": y, "test": x[:10], "test_labels": y[:10]}


def _front_ends(folder: Path) -> Names:
    import torch
    from torch import nn

    return {
        "torch": torch,
        "model": nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 30 * 30, 5)),
    }


def _continual(folder: Path) -> Names:
    from torch import nn

    from neuro.nn import LI, LIF, SpikingNetwork

    layers = {
        "a": nn.Linear(784, 300, bias=False), "n": LIF(beta=0.9), "b": nn.Linear(300, 300, bias=False),
        "m": LIF(beta=0.9), "c": nn.Linear(300, 10, bias=False), "out": LI(beta=0.9),
    }  # fmt: skip
    return {"network": SpikingNetwork(layers, input_shape=(784,), dt=1e-3)}


def _plasticity(folder: Path) -> Names:
    from neuro.engine.circuit import LIF, Circuit, Exponential, FixedProbability, Poisson, Population, Projection

    rng = np.random.default_rng(0)
    cell = LIF(tau_mem=10e-3, v_threshold=1.0, receptors={"fast": Exponential(3e-3)}, r_mem=2.0)
    drive = Projection("in", "out", FixedProbability(0.5), 0.4, 2e-3, "fast")
    circuit = Circuit({"in": Population(20, Poisson(80.0)), "out": Population(12, cell)}, (drive,), dt=1e-3)
    return {
        "pre": (rng.random((50, 4)) < 0.2).astype(np.uint8),
        "post": (rng.random((50, 3)) < 0.2).astype(np.uint8),
        "weights": rng.random((4, 3)),
        "circuit": circuit,
        "paid": np.zeros(1000),
    }


def _neurons(folder: Path) -> Names:
    return {"x": np.random.default_rng(0).integers(0, 2, (1, 2, 64))}


def _readme(folder: Path) -> Names:
    import neuro
    from neuro import ir

    rng = np.random.default_rng(0)
    nodes = {
        "in": ir.Input((2, 34, 34)), "f": ir.Flatten(), "w": ir.Linear(rng.normal(0, 0.3, (10, 2312))),
        "n": ir.IF(v_threshold=np.ones(10)), "out": ir.Output("count"),
    }  # fmt: skip
    neuro.save(ir.chain(nodes, dt=6e-3), folder / "network.nir")
    return {}


def _exploration(folder: Path) -> Names:
    from axon_search import Toy

    return {"problem": Toy()}


def _doors(folder: Path) -> Names:
    """A module of snnTorch, a NIR file and a netx file."""
    import nir
    import snntorch
    import torch
    from torch import nn

    from neuro import ir
    from neuro.hardware import compile as compile_network
    from neuro.hardware.export import export

    rng = np.random.default_rng(0)
    graph = nir.NIRGraph.from_list(
        nir.Affine(rng.normal(0, 0.5, (4, 6)), np.zeros(4)),
        nir.LIF(np.full(4, 0.02), np.ones(4), np.zeros(4), np.full(4, 0.5)),
    )
    nir.write(folder / "net.nir", graph)
    nodes = {
        "in": ir.Input((6,)),
        "w": ir.Linear(np.eye(6)),
        "n": ir.IF(v_threshold=np.full(6, 0.5)),
        "out": ir.Output("count"),
    }
    export(compile_network(ir.chain(nodes, dt=1e-3), "loihi2"), folder / "net.net", to="netx")
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.lif = nn.Linear(6, 4), snntorch.Leaky(beta=0.9)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mem, record = self.lif.init_leaky(), []
            for step in range(len(x)):
                spikes, mem = self.lif(self.fc(x[step]), mem)
                record.append(spikes)
            return torch.stack(record)

    x = (rng.random((20, 6, 6)) < 0.3).astype(np.uint8)
    return {
        "module": Net(),
        "sample": torch.as_tensor(x, dtype=torch.float32),
        "x": x,
        "labels": rng.integers(0, 4, 6),
    }


def _loihi2(folder: Path) -> Names:
    from lava_programs import dense, population, program

    parts = [
        population("input", 4, "input"),
        population("pre", 4, du=4095, dv=4095, vth=1),
        population("post", 3, vth=90),
    ]
    edges = [
        dense("relay", "input", "pre", 2 * np.eye(4, dtype=int)),
        dense("pre->post", "pre", "post", np.full((3, 4), 30)),
    ]
    events = (np.random.default_rng(0).random((20, 2, 4)) < 0.3).astype(np.uint8)
    return {"program": program(parts, edges, depth=2), "events": events}


GIVEN: dict[str, Callable[[Path], Names]] = {
    "conversion": _conversion,
    "recipes": _recipes,
    "front_ends": _front_ends,
    "continual": _continual,
    "plasticity": _plasticity,
    "neurons": _neurons,
    "README": _readme,
    "exploration": _exploration,
    "doors": _doors,
    "loihi2": _loihi2,
}
