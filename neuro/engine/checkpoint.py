"""The state of a run as a file: npz of plain arrays, no pickle; the synapses are drawn again from the circuit."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.engine.circuit import Circuit
from neuro.engine.kernels import Net, State
from neuro.errors import FormatError, RunError
from neuro.files import atomic_path

VERSION = 1
HELD = ("values", "held", "inbox")


def digest(circuit: Circuit) -> str:
    """SHA-256 over everything a circuit says."""
    found = hashlib.sha256()
    _add(found, circuit)
    return found.hexdigest()


def _add(found: Any, value: Any) -> None:
    if is_dataclass(value):
        found.update(type(value).__name__.encode() + b"(")
        for field in fields(value):
            found.update(field.name.encode() + b"=")
            _add(found, getattr(value, field.name))
    elif isinstance(value, str) or value is None:
        found.update(repr(value).encode())
    elif hasattr(value, "items"):
        for key, item in value.items():
            found.update(repr(key).encode() + b":")
            _add(found, item)
    elif isinstance(value, tuple) and value and is_dataclass(value[0]):
        for item in value:
            _add(found, item)
    else:
        array = np.asarray(value)
        if array.dtype.kind in "iub":
            array = array.astype(np.int64) if array.ndim or array.dtype.kind != "u" else array.astype(np.uint64)
        found.update(f"{array.dtype.str}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    found.update(b";")


def save(path: Path, circuit: Circuit, step: int, state: State, net: Net, longest: int) -> None:
    """Write the state before ``step``, and the spikes that are still to be pulled."""
    steps, neurons, populations = _recent(state, net, step, longest)
    content = {name: getattr(state, name) for name in HELD}
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(
            file,
            version=np.array(VERSION),
            circuit=np.array(digest(circuit)),
            step=np.array(step),
            spike_step=steps,
            spike_population=populations,
            spike_neuron=neurons,
            **content,
        )


def _recent(state: State, net: Net, step: int, longest: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    found: list[tuple[int, int, NDArray[Any]]] = []
    for t in range(max(0, step - longest), step):
        for p in range(net.kind.size):
            for q in range(net.parts):
                n = int(state.counted[q, t % net.slots, p])
                at = int(net.first[p] + q * net.width[p])
                found.append((t, p, state.fired[t % net.slots, at : at + n].astype(np.int64)))
    sizes = [len(n) for _, _, n in found]
    return (
        np.repeat(np.array([t for t, _, _ in found], np.int64), sizes),
        np.concatenate([np.zeros(0, np.int64), *(n for _, _, n in found)]),
        np.repeat(np.array([p for _, p, _ in found], np.int64), sizes),
    )


def load(path: Path, circuit: Circuit, state: State, net: Net) -> int:
    """Put a saved state in place; the step it goes on with. Nothing is changed if it cannot be used.

    Raises:
        FormatError: not such a file. RunError: of another circuit.
    """
    try:
        with open(path, "rb") as handle, np.load(handle, allow_pickle=False) as file:
            held = {name: file[name] for name in file.files}
        version, circuit_of, step = int(held["version"]), str(held["circuit"]), int(held["step"])
        steps, populations, neurons = (held[f"spike_{n}"] for n in ("step", "population", "neuron"))
        arrays = [held[name] for name in HELD]
    except FileNotFoundError:
        raise FormatError(f"there is no file {path}") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, TypeError) as cause:
        raise FormatError(f"{path} is not the state of a circuit: {cause}") from cause
    if version != VERSION:
        raise FormatError(f"{path} is of version {version}, this reads {VERSION}")
    if circuit_of != digest(circuit):
        raise RunError(f"{path} is the state of another circuit; give the one it was saved with")
    for name, array in zip(HELD, arrays, strict=True):
        own = getattr(state, name)
        if array.shape != own.shape or array.dtype != own.dtype:
            raise FormatError(f"{path}: '{name}' is {array.dtype}{list(array.shape)}, not {own.dtype}{list(own.shape)}")
    _check_spikes(path, step, steps, populations, neurons, net)
    for name, array in zip(HELD, arrays, strict=True):
        getattr(state, name)[...] = array
    state.counted[...] = 0
    for p in range(net.kind.size):
        for q in range(net.parts):
            mine = (populations == p) & (neurons // net.width[p] == q)
            when, which = steps[mine], neurons[mine]
            order = np.lexsort((which, when))
            cuts = np.flatnonzero(np.diff(when[order])) + 1
            at = int(net.first[p] + q * net.width[p])
            for piece in np.split(order, cuts) if order.size else []:
                slot = int(when[piece[0]]) % net.slots
                state.fired[slot, at : at + piece.size] = which[piece]
                state.counted[q, slot, p] = piece.size
    return step


def _check_spikes(
    path: Path, step: int, steps: NDArray[Any], populations: NDArray[Any], neurons: NDArray[Any], net: Net
) -> None:
    whole = all(a.dtype.kind == "i" and a.ndim == 1 and a.size == steps.size for a in (steps, populations, neurons))
    if not whole or step < 0:
        raise FormatError(f"{path}: its spikes are not three lists of integers of one length")
    if steps.size:
        in_time = max(0, step - net.slots + 1) <= steps.min() and steps.max() < step
        if not in_time or populations.min() < 0 or populations.max() >= net.kind.size:
            raise FormatError(f"{path}: spikes of steps or populations that cannot be")
        if neurons.min() < 0 or (neurons >= net.size[populations]).any():
            raise FormatError(f"{path}: spikes of neurons that are not there")
        key = np.stack([steps, populations, neurons])
        if np.unique(key, axis=1).shape[1] != steps.size:
            raise FormatError(f"{path}: a spike is listed twice")
