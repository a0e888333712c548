"""Checkpoints: one folder per epoch, moved into place whole, verified when read.

A checkpoint holds plain files only: tensors as safetensors, the optimiser's state as a torch file that
loads with ``weights_only=True``, the rest as JSON. Reading one never runs code.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuro.errors import RunError
from neuro.files import sha256, write_json
from neuro.results import CHECKPOINT, check_files

DIGESTS = "files.json"  # written last inside the folder, before the folder is moved into place


@dataclass(frozen=True)
class Saved:
    """One checkpoint, read. tensors: set name ("model", "ema", "best") -> tensors by name."""

    state: Mapping[str, Any]
    tensors: Mapping[str, Mapping[str, Tensor]]
    optimiser: Mapping[str, Any]


def save(
    run: Path,
    epoch: int,
    state: Mapping[str, Any],
    tensors: Mapping[str, Mapping[str, Tensor]],
    optimiser: Mapping[str, Any],
) -> None:
    """Write the checkpoint of an epoch and remove older ones."""
    from safetensors.torch import save_file

    folder = run / CHECKPOINT
    folder.mkdir(exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=folder, prefix=".", suffix=".part"))
    try:
        for name, table in tensors.items():
            # safetensors refuses tensors that share memory; layers on a grid share theirs with nobody else
            save_file({k: v.detach().contiguous().clone() for k, v in table.items()}, part / f"{name}.safetensors")
        memory = io.BytesIO()  # torch's own writer answers a full disk with an error of its archive format
        torch.save(dict(optimiser), memory)
        (part / "optimiser.pt").write_bytes(memory.getbuffer())
        write_json(part / "state.json", dict(state))
        write_json(part / DIGESTS, {p.name: sha256(p) for p in sorted(part.iterdir())})
        os.replace(part, folder / f"epoch-{epoch:06d}")
    finally:
        shutil.rmtree(part, ignore_errors=True)
    for old in _found(folder)[:-1]:
        shutil.rmtree(old)


def _found(folder: Path) -> list[Path]:
    """Checkpoints, oldest first."""
    return sorted(p for p in folder.glob("epoch-*") if p.is_dir())


def latest(run: Path) -> Saved | None:
    """The newest checkpoint of a run, None if there is none; what a killed writer left is removed.

    Raises:
        ChecksumMismatch: its files are not as they were written. RunError: they cannot be read.
    """
    from safetensors.torch import load_file

    folder = run / CHECKPOINT
    for stale in folder.glob(".*.part"):
        shutil.rmtree(stale, ignore_errors=True)
    found = _found(folder)
    if not found:
        return None
    newest = found[-1]
    try:
        digests = json.loads((newest / DIGESTS).read_text(encoding="utf-8"))
        check_files(newest, digests)
        state = json.loads((newest / "state.json").read_text(encoding="utf-8"))
        tensors = {n.removesuffix(".safetensors"): load_file(newest / n) for n in digests if n.endswith(".safetensors")}
        optimiser = torch.load(newest / "optimiser.pt", weights_only=True)
    except (OSError, KeyError, json.JSONDecodeError) as cause:
        raise RunError(f"{newest} cannot be read ({type(cause).__name__}: {cause}); delete it to start anew") from cause
    return Saved(state, tensors, optimiser)


def remove(run: Path) -> None:
    """Delete all checkpoints of a run that is finished."""
    shutil.rmtree(run / CHECKPOINT, ignore_errors=True)
