"""`build_netx`: the processes that lava-dl's reader makes of a netx file, for the certificate of that file.

lava-dl is archived and needs an old torch; its reader is short. This is a reading of the same rules (see
`netx`) from the file alone, with Lava's own processes at the end of it. No line of it knows a `Program`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.errors import FormatError
from neuro.hardware.export.lava_folder import VARIABLES, Values, padded
from neuro.hardware.export.lava_inprocess import Compiled, compile_graph
from neuro.hardware.export.lava_shim import import_lava
from neuro.hardware.export.netx import BIAS_EXP, MAX_DELAY, reader_format

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class NetxGraph:
    """A netx file in Lava. layers: names of the LIF processes in order. inputs: shape of the source, as Lava has it."""

    compiled: Compiled
    layers: tuple[str, ...]
    shapes: tuple[Shape, ...]
    inputs: Shape

    def run(self, dense: NDArray[np.uint8], silent: int) -> Values:
        """dense: uint8[steps, batch, n_inputs]; ``silent`` steps follow. Layer k is population str(k)."""
        samples = padded(dense, int(np.prod(self.inputs)), silent)
        runs = []
        for k in range(samples.shape[1]):
            sample = samples[:, k].astype(np.int32)
            if len(self.inputs) == 3:
                sample = sample.reshape(len(sample), *self.inputs[::-1]).transpose(3, 2, 1, 0)
            else:
                sample = sample.T
            logs = self.compiled.run({"input": np.ascontiguousarray(sample)})
            found = {}
            for n, (name, shape) in enumerate(zip(self.layers, self.shapes, strict=True)):
                log = logs[name].reshape(len(logs[name]), len(VARIABLES), *shape)
                if len(shape) == 3:  # (width, height, channel) to (channel, height, width)
                    log = log.transpose(0, 1, 4, 3, 2)
                flat = log.reshape(len(log), len(VARIABLES), -1)
                found.update({(str(n), v): flat[:, i] for i, v in enumerate(VARIABLES)})
            runs.append(found)
        return {key: np.stack([r[key] for r in runs], axis=1) for key in runs[0]}


def build_netx(path: Path | str) -> NetxGraph:
    """Read a netx file and let Lava compile what it describes.

    Raises:
        FormatError: not a netx file, or one with a layer that netx does not implement.
        MissingExtra: lava-nc is not installed.
    """
    import h5py

    import_lava()
    try:
        with h5py.File(path, "r") as file:
            table = [_layer(file[f"layer/{n}"]) for n in range(len(file["layer"]))]
    except (OSError, KeyError, ValueError) as cause:
        raise FormatError(f"{path} is not a netx file: {cause}") from cause
    return _build(table, Path(path))


def _layer(group: Any) -> dict[str, Any]:
    values = {name: group[name][()] for name in group if name != "neuron"}
    values["type"] = bytes(values["type"][0]).decode("ascii")
    if "neuron" in group:
        values["neuron"] = {name: group["neuron"][name][()] for name in group["neuron"]}
    return values


def _build(table: list[dict[str, Any]], path: Path) -> NetxGraph:
    from lava.proc.io.source import RingBuffer

    shape: Shape = ()
    if table and table[0]["type"] == "input":
        shape = tuple(int(n) for n in table[0]["shape"][::-1])  # (width, height, channel)
    elif table:
        shape = (int(table[0]["inFeatures"]),)
    inputs = shape
    processes: dict[str, Any] = {"input": RingBuffer(data=np.zeros((*shape, 1), np.int32))}
    out, flatten = processes["input"].s_out, False
    names: list[str] = []
    shapes: list[Shape] = []
    for n, layer in enumerate(table):
        kind = layer["type"]
        if kind == "flatten":
            flatten = True
        elif kind in ("dense", "dense_rec", "conv"):
            if flatten:
                out, flatten = out.transpose([2, 1, 0]).flatten(), False
            shape = _conv(processes, n, layer, shape, out) if kind == "conv" else _dense(processes, n, layer, out)
            out = processes[f"neuron_{n}"].s_out
            names.append(f"neuron_{n}")
            shapes.append(shape)
        elif kind != "input" or n:
            raise FormatError(f"{path}: layer {n} is '{kind}', which netx does not implement")
    return NetxGraph(compile_graph(processes), tuple(names), tuple(shapes), inputs)


def _lif(shape: Shape, layer: Mapping[str, Any]) -> Any:
    from lava.proc.lif.process import LIF

    neuron = layer["neuron"]
    bias = np.zeros(shape, np.int32)
    if "bias" in layer:
        bias[...] = layer["bias"].astype(np.int32)  # per neuron, or per channel, which is last
    du, dv, vth = int(neuron["iDecay"]) - 1, int(neuron["vDecay"]), int(neuron["vThMant"])
    return LIF(shape=shape, du=du, dv=dv, vth=vth, bias_mant=bias, bias_exp=BIAS_EXP)


def _dense(processes: dict[str, Any], n: int, layer: Mapping[str, Any], out: Any) -> Shape:
    from lava.proc.dense.process import DelayDense, Dense

    made = reader_format(layer["weight"].astype(np.int64))
    if made is None:
        raise FormatError(f"layer {n}: the reader cannot fit its weights into 8 bits")
    weights, bits, exponent, _ = made
    options = {"num_weight_bits": bits, "weight_exp": exponent}  # no sign mode: Lava guesses it
    if "delay" in layer:
        delays = np.minimum(layer["delay"].astype(int), MAX_DELAY)
        synapse = DelayDense(weights=weights, delays=delays, max_delay=MAX_DELAY, **options)
    else:
        synapse = Dense(weights=weights, **options)
    shape = (int(np.prod(layer["shape"])),)
    neuron = _lif(shape, layer)
    out.connect(synapse.s_in)
    synapse.a_out.connect(neuron.a_in)
    processes |= {f"synapse_{n}": synapse, f"neuron_{n}": neuron}
    if layer["type"] == "dense_rec":
        again = reader_format(layer["weight_rec"].astype(np.int64))
        if again is None:
            raise FormatError(f"layer {n}: the reader cannot fit its recurrent weights into 8 bits")
        back = Dense(weights=again[0], **options)  # the reader gives both matrices the format of the first
        neuron.s_out.connect(back.s_in)
        back.a_out.connect(neuron.a_in)
        processes[f"recurrent_{n}"] = back
    return shape


def _conv(processes: dict[str, Any], n: int, layer: Mapping[str, Any], input_shape: Shape, out: Any) -> Shape:
    from lava.proc.conv.process import Conv

    weight = layer["weight"].astype(np.int32)[:, :, ::-1, ::-1].transpose(0, 3, 2, 1)
    pairs = {
        k: tuple(int(x) for x in np.broadcast_to(layer[k], (2,))[::-1]) for k in ("stride", "padding", "dilation")
    }
    synapse = Conv(weight=np.ascontiguousarray(weight), input_shape=input_shape, groups=int(layer["groups"]), **pairs)
    shape = tuple(int(k) for k in layer["shape"][::-1])
    if tuple(synapse.output_shape) != shape:
        raise FormatError(f"layer {n}: shape {shape} does not follow from its kernel ({synapse.output_shape})")
    neuron = _lif(shape, layer)
    out.connect(synapse.s_in)
    synapse.a_out.connect(neuron.a_in)
    processes |= {f"synapse_{n}": synapse, f"neuron_{n}": neuron}
    return shape
