"""An exported Lava folder as its runners see it: the module, and which process holds which neuron.

Nothing here imports Lava or anything of axonport but its errors: a folder is run as it was written.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.errors import FormatError, SimulationError

VARIABLES = ("u", "v", "s")
# what is read of each model in every step: its state in Lava's names, then "s", what it sends
STATES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("lif", "li", "lif_reset", "ternary_lif"), VARIABLES),
    "sigma": ("sigma", "s"),
    "delta": ("act", "residue", "error", "s"),
    "sigma_delta": ("sigma", "act", "residue", "error", "s"),
    **dict.fromkeys(("rf", "rf_iz"), ("real", "imag", "s")),
}
LEARNED = ("weights", "x1", "y1")  # of a process that learns
Log = NDArray[np.int32]  # [steps, k, n], the k variables of one process
Values = dict[tuple[str, str], NDArray[np.int32]]  # (population, variable) -> [steps, batch, n]

_names = itertools.count()


@dataclass(frozen=True, eq=False)
class LavaFolder:
    """path: of the folder. module: its network.py. index: process -> our neuron at each flat place, or -1."""

    path: Path
    module: ModuleType
    manifest: Mapping[str, Any]
    index: Mapping[str, NDArray[np.int64]]

    @property
    def inputs(self) -> int:
        return int(self.module.INPUTS)

    @property
    def depth(self) -> int:
        return int(self.manifest["depth"])

    @property
    def populations(self) -> dict[str, list[str]]:
        """Population -> processes that hold its neurons; without the input."""
        return {
            p["name"]: [q["process"] for q in p["parts"]] for p in self.manifest["populations"] if p["model"] != "input"
        }

    @property
    def variables(self) -> dict[str, tuple[str, ...]]:
        """Process with neurons -> its variables, as `STATES`."""
        model = {p["name"]: p["model"] for p in self.manifest["populations"]}
        return {q: STATES[model[name]] for name, parts in self.populations.items() for q in parts}

    @property
    def low_high(self) -> tuple[int, int]:
        """The least and the largest value of an input channel."""
        low, high = self.manifest.get("values", (0, 1))
        return int(low), int(high)

    @property
    def processes(self) -> list[str]:
        """All processes with neurons."""
        return [q for parts in self.populations.values() for q in parts]

    @property
    def learning(self) -> dict[str, str]:
        """Process that learns -> our projection."""
        return {entry["process"]: entry["projection"] for entry in self.manifest.get("learning", [])}

    def gather_learned(self, logs: Mapping[str, Mapping[str, NDArray[np.int32]]]) -> dict[tuple[str, str], Log]:
        """What the processes that learn have logged, by (projection, variable)."""
        return {(self.learning[q], name): values for q, table in logs.items() for name, values in table.items()}

    def gather(self, logs: Mapping[str, Log]) -> dict[tuple[str, str], Log]:
        """Process logs as (population, variable) -> int32[steps, n] in our order of neurons."""
        sizes = {p["name"]: int(p["size"]) for p in self.manifest["populations"]}
        found = {}
        for population, parts in self.populations.items():
            steps, variables = len(logs[parts[0]]), self.variables[parts[0]]
            values = np.zeros((len(variables), steps, sizes[population]), np.int32)
            for process in parts:
                index = self.index[process]
                live = index >= 0
                values[:, :, index[live]] = logs[process].transpose(1, 0, 2)[:, :, live]
            found.update({(population, name): values[k] for k, name in enumerate(variables)})
        return found


def load_folder(path: Path | str) -> LavaFolder:
    """Import network.py of an exported folder.

    Raises:
        FormatError: it is not an exported folder, or not whole.
    """
    path = Path(path)
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        index = {}
        with np.load(path / "weights.npz", allow_pickle=False) as weights:
            for population in manifest["populations"]:
                for part in population["parts"]:
                    key = part["index"]
                    index[part["process"]] = np.asarray(weights[key] if key else np.arange(int(population["size"])))
        module = _import(path / "network.py")
    except (OSError, KeyError, TypeError, ValueError, SyntaxError) as cause:
        raise FormatError(f"{path} is not a whole exported Lava folder: {cause}") from cause
    return LavaFolder(path, module, manifest, index)


def _import(path: Path) -> ModuleType:
    name = f"axonport_exported_{next(_names)}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise OSError(f"no module at {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def padded(
    dense: NDArray[Any], inputs: int, depth: int, between: tuple[int, int] = (0, 1)
) -> NDArray[np.int32] | NDArray[np.uint8]:
    """[steps + depth, batch, inputs]: samples followed by the silence in which the pipeline drains; uint8 of 0 and 1,
    int32 where ``between`` says that channels carry more.

    Raises:
        SimulationError: not [steps, batch, ...] of such values with ``inputs`` values in a step.
    """
    array, (low, high) = np.asarray(dense), between
    if array.ndim < 3 or 0 in array.shape or array[0, 0].size != inputs:
        raise SimulationError(f"dense must be [steps, batch, {inputs}] and not empty, got shape {array.shape}")
    if array.dtype.kind not in "bui" or int(array.min()) < low or int(array.max()) > high:
        held = "0 and 1" if between == (0, 1) else f"{low}..{high}"
        raise SimulationError(f"dense must hold {held}, got {array.dtype} {array.min()}..{array.max()}")
    dtype = np.uint8 if between == (0, 1) else np.int32
    flat = array.reshape(*array.shape[:2], inputs).astype(dtype)
    return np.concatenate([flat, np.zeros((depth, *flat.shape[1:]), dtype)])
