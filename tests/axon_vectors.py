"""Golden vectors: where they are and how their batches are read."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

COMPARED: Counter[str] = Counter()  # values per test file, for tests/proofs/oracles.py
FOLDER = Path(os.environ.get("NEURO_VECTORS", Path(__file__).parent / "golden"))


def batches(name: str) -> list[Any]:
    """One pytest parameter per batch of a file such as "loihi/lava_lif_edge.npz": dict of key -> array.

    A file without batches is one batch. A missing file is one skipped parameter that names it.
    """
    path = FOLDER / name
    if not path.is_file():
        return [pytest.param(None, marks=pytest.mark.skip(reason=f"no {name} in {FOLDER}"), id="missing")]
    with np.load(path) as data:
        keys = {key: data[key] for key in data.files}
    found = []
    while any(key.startswith(f"b{len(found)}_") for key in keys):
        prefix = f"b{len(found)}_"
        batch = {key.removeprefix(prefix): value for key, value in keys.items() if key.startswith(prefix)}
        found.append(pytest.param(batch, id=f"b{len(found)}"))
    return found or [pytest.param(keys, id="all")]


def differences(name: str, ours: np.ndarray, theirs: np.ndarray) -> str:
    """What `assert not` shows: empty if equal, else how many values differ and the first of them."""
    test = os.environ.get("PYTEST_CURRENT_TEST", "")
    COMPARED[test.split("::")[0].rsplit("/", 1)[-1]] += np.size(theirs)
    if ours.shape != theirs.shape:
        return f"{name}: shape {ours.shape}, not {theirs.shape}"
    where = np.argwhere(ours != theirs)
    if len(where) == 0:
        return ""
    at = tuple(where[0])
    return f"{name}: {len(where)} of {ours.size} differ, first at {at}: ours {ours[at]}, theirs {theirs[at]}"
