"""From lava-dl: the HDF5 file that its ``export_hdf5`` writes and lava.lib.dl.netx reads (format: lava-dl 0.6).

CUBA, per step and in units of a weight, as Loihi has it with its factor 64 taken out:

    i[t] = (4096 - du) / 4096 i[t-1] + w s[t];  v[t] = (4096 - vDecay) / 4096 v[t-1] + i[t] + bias
    s[t] = v[t] > vThMant, then v = 0,  du = iDecay - 1

The reader sets du = iDecay - 1, and Lava's LIF decays by 4096 - du - 1 of 4096 under DECAY_OFFSET, so what is kept is
(4096 - iDecay) / 4096; vDecay has no such offset. Delays in steps of each synapse; recurrent weights one step late.

What cannot be the same: Loihi cuts both states to integers in every step, towards zero, and lets a spike travel a step
from layer to layer. A `Network` keeps real numbers and feed-forward paths cost no step: layer k here is k steps ahead,
and a membrane within the cut of its threshold may decide otherwise. Refused by name: other neurons (sigma-delta, RF,
adaptive), graded spikes, refractory delays other than 1, average pooling, files of the older "LOIHI" type.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from neuro import ir
from neuro.errors import FormatError, NeuroError, UnsupportedLayer
from neuro.ir import Network, Node
from neuro.nir_file import read_tree
from neuro.nir_hdf5 import MAX_BYTES

FULL = 4096
MAX_NEURONS = 1 << 26  # of a layer; a size is refused before memory is taken for it


def from_lavadl(path: Path | str, *, dt: float = 1e-3, readout: str = "count", max_bytes: int = MAX_BYTES) -> Network:
    """A netx file as a `Network`.

    Args:
        dt: seconds per step; the format has none. readout: of the output. max_bytes: of all arrays in the file.

    Raises:
        FormatError: not a netx file, damaged or too large.
        UnsupportedLayer: every layer that has no counterpart, all of them.
        NetworkError: layers that do not fit each other.
    """
    try:
        return _network(path, _layers(path, max_bytes), dt, readout)
    except NeuroError as problem:
        if str(path) in problem.title:
            raise
        raise type(problem)(f"{path}: {problem.title}", problem.violations) from problem
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, MemoryError) as problem:
        raise FormatError(f"{path}: fields of this netx file contradict each other ({problem})") from problem


def _network(path: Path | str, layers: list[dict[str, Any]], dt: float, readout: str) -> Network:
    nodes: dict[str, Node] = {}
    edges: list[tuple[str, str]] = []
    bad: list[str] = []
    last = ""
    for n, layer in enumerate(layers):
        kind = _text(layer.get("type"))
        if n == 0:
            shape = _ints(layer, "shape") if kind == "input" else _ints(layer, "inFeatures")
            nodes["input"], last = ir.Input(shape), "input"
        if kind == "input":
            if "neuron" in layer:
                bad.append(f"layer {n} (input): a neuron before the first layer; export without it")
            continue
        if kind == "flatten":
            nodes[f"flatten_{n}"] = ir.Flatten()
            edges.append((last, f"flatten_{n}"))
            last = f"flatten_{n}"
            continue
        if kind not in ("dense", "dense_rec", "conv"):
            bad.append(f"layer {n}: type {kind!r}; known: input, flatten, dense, dense_rec, conv")
            continue
        try:
            neuron = _neuron(layer, dt)
            weight = _conv(layer) if kind == "conv" else _dense(layer)
        except (FormatError, KeyError) as problem:
            bad.append(f"layer {n} ({kind}): {problem}")
            continue
        nodes[f"weight_{n}"], nodes[f"neuron_{n}"] = weight, neuron
        edges += [(last, f"weight_{n}"), (f"weight_{n}", f"neuron_{n}")]
        last = f"neuron_{n}"
        if kind == "dense_rec":
            nodes[f"recurrent_{n}"] = ir.Linear(_array(layer, "weight_rec"))
            edges += [(last, f"recurrent_{n}"), (f"recurrent_{n}", last)]
    if bad:
        raise UnsupportedLayer(f"{path}: cannot become a Network", bad)
    if not edges:
        raise FormatError(f"{path}: no layer in this netx file")
    nodes["output"] = ir.Output(readout)
    edges.append((last, "output"))
    return Network(nodes, tuple(edges), dt, "euler", {"door": "lava-dl"})


def _layers(path: Path | str, max_bytes: int) -> list[dict[str, Any]]:
    table = read_tree(path, max_bytes=max_bytes, root="layer")
    if sorted(table, key=_number) != [str(n) for n in range(len(table))]:
        raise FormatError(f"{path}: not a netx file, it has no numbered group 'layer'")
    layers = [table[str(n)] for n in range(len(table))]
    if not all(isinstance(layer, dict) and "type" in layer for layer in layers):
        raise FormatError(f"{path}: not a netx file, a layer has no type")
    return layers


def _number(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdigit() else (1 << 30, name)


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)


def _array(layer: dict[str, Any], name: str) -> Any:
    value = layer.get(name)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iufb":
        raise FormatError(f"'{name}' is missing, or holds no numbers")
    return value


def _ints(layer: dict[str, Any], name: str) -> tuple[int, ...]:
    values = tuple(int(n) for n in np.atleast_1d(_array(layer, name)).ravel())
    if name in ("shape", "inFeatures") and (min(values, default=0) < 1 or math.prod(values) > MAX_NEURONS):
        raise FormatError(f"'{name}' {str(values)[:60]}: sizes of 1 and more, at most {MAX_NEURONS:,} neurons")
    return values


def _neuron(layer: dict[str, Any], dt: float) -> Node:
    table = layer.get("neuron")
    if not isinstance(table, dict):
        raise FormatError("it has no neuron")
    kind = _text(table.get("type"))
    if kind != "CUBA":
        raise FormatError(f"neuron type {kind!r}; known: CUBA")
    if "gradedSpike" in table and bool(np.asarray(_number_of(table["gradedSpike"])).any()):
        raise FormatError("graded spikes; export a network of binary ones")
    if "refDelay" in table and _ints(table, "refDelay") != (1,):
        raise FormatError(f"refDelay {_ints(table, 'refDelay')}; only 1")
    current, voltage, threshold = (float(_array(table, n).item()) for n in ("iDecay", "vDecay", "vThMant"))
    alpha, beta = 1.0 - current / FULL, 1.0 - voltage / FULL
    if not (0 <= alpha <= 1 and 0 <= beta <= 1):
        raise FormatError(f"decays must lie in 0..{FULL}, got {current:g} and {voltage:g}")
    shape = _ints(layer, "shape")
    return _cuba(alpha, beta, threshold, shape, dt)


def _number_of(value: Any) -> Any:
    text = _text(value)
    return {"True": 1, "False": 0}.get(text, 1 if text not in ("0", "0.0") else 0)


def _cuba(alpha: float, beta: float, threshold: float, shape: tuple[int, ...], dt: float) -> Node:
    if alpha == 1:
        raise FormatError("iDecay 0, a current that never decays")
    full = np.full(shape, threshold)
    if alpha == 0:
        if beta == 1:
            return ir.IF(v_threshold=full)
        return ir.LIF(tau_mem=np.full(shape, dt / (1 - beta)), v_threshold=full, r=np.array(1 / (1 - beta)))
    if beta == 1:
        raise FormatError("vDecay 0 behind a current that decays")
    return ir.CubaLIF(
        tau_syn=np.full(shape, dt / (1 - alpha)), tau_mem=np.full(shape, dt / (1 - beta)), v_threshold=full,
        r=np.array(1 / (1 - beta)), w_in=np.array(1 / (1 - alpha)),
    )  # fmt: skip


def _dense(layer: dict[str, Any]) -> Node:
    weight = _array(layer, "weight")
    delay = np.asarray(layer["delay"]) if "delay" in layer else None
    steps = None if delay is None else np.array(np.broadcast_to(delay, weight.shape)).astype(np.int64)
    if "bias" in layer:
        return ir.Affine(weight, steps, bias=np.broadcast_to(_array(layer, "bias").ravel(), weight.shape[:1]))
    return ir.Linear(weight, steps)


def _conv(layer: dict[str, Any]) -> Node:
    weight = _array(layer, "weight")
    weight = weight[..., 0] if weight.ndim == 5 else weight
    pairs = {n: _ints(layer, n) if n in layer else given for n, given in
             (("stride", (1, 1)), ("padding", (0, 0)), ("dilation", (1, 1)))}  # fmt: skip
    groups = int(_array(layer, "groups").item()) if "groups" in layer else 1
    bias = _array(layer, "bias") if "bias" in layer else np.zeros(weight.shape[0])
    return ir.Conv2d(weight, groups=groups, bias=bias, **pairs)  # type: ignore[arg-type]


__all__ = ["from_lavadl"]
