"""Spikes that Norse, SpikingJelly and sinabs fire, for the tests of the doors.

    PYTHONPATH=<repository>:<repository>/tests <interpreter with the frameworks> tests/golden/doors/make.py

writes norse.npz, spikingjelly.npz and sinabs.npz beside this file: input, weights (multiples of 1/64), spikes of both
neurons of every case of tests/axon_doors.py, computed in float64, and the framework's version. Frameworks that are
not installed are left out. With ``--networks OUT --steps T --batch B --n N`` it writes instead, for the proof, the
Network that the door makes of the framework's own module (OUT/<framework>_<case>.nir) and the spikes in float64 and
float32 (.npz).
"""

from __future__ import annotations

import argparse
import importlib
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from axon_doors import CASES, fired, real, spikes_in, weights

HERE = Path(__file__).parent


def golden() -> None:
    for framework in dict.fromkeys(f for f, _ in CASES):
        if not _there(framework):
            continue
        x, table = spikes_in(1, 60, 4), weights(2, 20)
        found = {"input": x, "version": np.array(_version(framework)), **table}
        for case, name in CASES:
            if case == framework:
                for k, spikes in enumerate(
                    fired(framework, real(framework, name, table, torch.float64), x, torch.float64)
                ):
                    found[f"{name}_{k}"] = np.packbits(spikes, axis=None)
        np.savez_compressed(HERE / f"{framework}.npz", **found)
        print(framework, _version(framework), (HERE / f"{framework}.npz").stat().st_size, "bytes")


def networks(out: Path, steps: int, batch: int, n: int) -> None:
    import neuro

    out.mkdir(parents=True, exist_ok=True)
    x, table = spikes_in(3, steps, batch), weights(4, n)
    for framework, name in CASES:
        if not _there(framework):
            continue
        door = getattr(neuro, f"from_{framework}")
        sample = torch.from_numpy(x[:3]).double()
        given = sample.transpose(0, 1) if framework == "sinabs" else sample[0]
        for dtype, said in ((torch.float64, "float64"), (torch.float32, "float32")):
            module = real(framework, name, table, dtype)
            if dtype == torch.float64:
                network = door(module, given, axes="BT" if framework == "sinabs" else "B")
                neuro.save(network, out / f"{framework}_{name}.nir")
                found = {"version": np.array(_version(framework)), "input": x}
            for k, spikes in enumerate(fired(framework, real(framework, name, table, dtype), x, dtype)):
                found[f"{said}_{k}"] = spikes
        np.savez_compressed(out / f"{framework}_{name}.npz", **found)


def _there(framework: str) -> bool:
    try:
        importlib.import_module({"spikingjelly": "spikingjelly.activation_based"}.get(framework, framework))
    except ImportError as cause:
        print(f"{framework} is left out: {cause}", file=sys.stderr)
        return False
    return True


def _version(framework: str) -> str:
    try:
        return version(framework)
    except PackageNotFoundError:
        return str(importlib.import_module(framework).__version__)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--n", type=int, default=32)
    arguments = parser.parse_args()
    if arguments.networks:
        networks(arguments.networks, arguments.steps, arguments.batch, arguments.n)
    else:
        golden()
