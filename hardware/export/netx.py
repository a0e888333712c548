"""Exporter "netx": the HDF5 file that lava-dl's netx.hdf5.Network reads.

    layer/<n>/type            S10: input | conv | flatten | dense | dense_rec
    layer/<n>/shape           (C, H, W) or (n,)
    layer/<n>/weight          float32 (out, in) or (out, in / groups, ky, kx), cross-correlation
    layer/<n>/weight_rec, bias, delay (out, in)
    layer/<n>/{inFeatures, outFeatures | inChannels, outChannels, kernelSize, stride, padding, dilation, groups}
    layer/<n>/neuron/{type CUBA, iDecay, vDecay, vThMant, refDelay, gradedSpike}
    simulation/{Ts, tSample}

A file of this kind is a chain with one set of neuron parameters per layer and weights without an exponent. The
reader makes du = iDecay - 1, dv = vDecay, vth = vThMant, bias_exp = 6 and finds weight bits and exponent from the
matrix by itself (`reader_format`). Whatever would not come back as it is in the `Program` is refused by name.
Source of the rules: lava-dl 0.6, lava/lib/dl/netx/{hdf5,utils,blocks/process}.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.errors import DoesNotFit, UnsupportedNode, Violation
from neuro.files import atomic_path, hdf5_bytes
from neuro.hardware.export import Exporter
from neuro.hardware.export.lava_limits import (
    EXCITATORY,
    INHIBITORY,
    LIF_RANGES,
    MIXED,
    geometry,
    heterogeneous,
    scalar,
    sign_mode_of,
    truncated,
    why_not_conv,
)
from neuro.hardware.loihi2.learning import learns
from neuro.hardware.loihi2.models import graded
from neuro.hardware.program import Population, Program, Projection

IntArray = NDArray[np.int64]
BIAS_EXP = 6
MAX_DELAY = 62  # the reader cuts longer ones
LAVA = "Use `--to lava`, which holds it exactly."


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer of the file: a population, what feeds it, and what it feeds back to itself."""

    population: Population
    forward: Projection
    recurrent: Projection | None = None
    weight: IntArray = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    weight_rec: IntArray | None = None
    delay: IntArray | None = None
    bias: IntArray | None = None


def reader_format(weight: IntArray) -> tuple[IntArray, int, int, int] | None:
    """What the reader makes of a dense matrix: (weights, num_weight_bits, weight_exp, sign_mode as Lava guesses).

    It shifts the matrix left until it fills 8 bits, drops the low bits that no weight uses, and leaves the sign
    mode to Lava. None where that fails: an empty or all-zero matrix, or weights beyond 8 bits.
    """
    high, low = int(weight.max(initial=0)), int(weight.min(initial=0))
    if high == low == 0:
        return None
    all_negative = int(weight.max()) < 0
    signed = int(low < 0 and not all_negative)
    if signed:
        scale = min(127 / high if high > 0 else math.inf, -128 / low)
    else:
        scale = -256 / low if all_negative else 255 / high
    shift = math.floor(math.log2(scale)) + signed
    if shift < 0:
        return None
    unused = next((n for n in range(8, 0, -1) if not (weight % (1 << n)).any()), 0) - signed
    mode = EXCITATORY if low >= 0 else INHIBITORY if high <= 0 else MIXED
    return weight << shift, 8 - shift - unused, -shift, mode


def _survives(weight: IntArray) -> bool:
    """Whether Lava computes with the same numbers after the reader."""
    made = reader_format(weight)
    if made is None:
        return False
    shifted, bits, _, mode = made
    if 8 - bits + int(mode == MIXED) < 0:  # Lava would shift by a negative number of bits
        return False
    return bool((truncated(shifted, mode, bits) == shifted).all())


def layers_of(program: Program) -> list[Layer]:
    """The chain of layers, input to output.

    Raises:
        UnsupportedNode: the program is no chain, or holds what the format has no word for; all of it at once.
        DoesNotFit: numbers that would not come back as they are; all of them at once.
    """
    chain, no_words = _chain(program)
    if no_words:
        raise UnsupportedNode("netx cannot hold this program", no_words)
    bad: list[Violation] = []
    layers = [_numbers(program, layer, bad) for layer in chain]
    if bad:
        raise DoesNotFit("netx cannot hold this program exactly", bad)
    return layers


def _chain(program: Program) -> tuple[list[Layer], list[str]]:
    bad: list[str] = []
    layers: list[Layer] = []
    before = program.populations[program.input]
    for population in program.populations.values():
        if population.model == "input":
            if population.name != program.input:
                bad.append(f"'{population.name}' is a second input; netx has one")
            elif graded(population):
                bad.append(f"'{population.name}' carries numbers; netx says nothing of their range. {LAVA}")
            continue
        if population.model not in ("lif", "li"):
            bad.append(f"'{population.name}': model '{population.model}' is no CUBA neuron")
        into = program.into(population.name)
        own = [p for p in into if p.source == population.name]
        forward = [p for p in into if p.source == before.name]
        other = [p.name for p in into if p not in own and p not in forward]
        if other:
            bad.append(
                f"'{population.name}' is also fed by {', '.join(other)}; a netx layer sees the layer before it and "
                f"itself, nothing else. {LAVA}"
            )
        if len(forward) != 1 or len(own) > 1:
            bad.append(
                f"'{population.name}' has {len(forward)} projections from '{before.name}' and {len(own)} from itself; "
                f"netx has one, and at most one recurrent. {LAVA}"
            )
        if forward:
            layers.append(Layer(population, forward[0], own[0] if own else None))
        bad += [line for p in (*forward, *own) for line in _no_word(program, p, recurrent=p in own)]
        before = population
    if before.name != program.output:
        bad.append(f"the output is '{program.output}', but the last layer is '{before.name}'; reorder the populations")
    return layers, bad


def _no_word(program: Program, projection: Projection, recurrent: bool) -> list[str]:
    """Why a projection has no place in the file, by itself."""
    name, kind = projection.name, projection.kind
    source, target = program.populations[projection.source], program.populations[projection.target]
    if kind not in ("dense", "sparse", "conv"):
        return [f"'{name}': kind '{kind}' has no netx layer"]
    if learns(projection):
        return [f"'{name}' learns, for which netx has no word. {LAVA}"]
    if recurrent and (kind == "conv" or "delay_steps" in projection.params):
        return [f"'{name}': netx has recurrent connections only as a dense matrix without delays. {LAVA}"]
    if recurrent and any(p.kind == "conv" for p in program.into(target.name)):
        return [f"'{name}': netx has no recurrent connections in a convolutional layer. {LAVA}"]
    if kind != "conv":
        return []
    bad = []
    if not (heterogeneous(source) or heterogeneous(target)) and (why := why_not_conv(program, projection)):
        bad.append(f"'{name}': {why}. {LAVA}")
    if source.model != "input" and not any(p.kind == "conv" for p in program.into(source.name)):
        bad.append(f"'{name}': netx has convolutions only behind the input or another convolution. {LAVA}")
    return bad


def _matrix(program: Program, projection: Projection, values: IntArray) -> IntArray:
    """[out, in] of a dense or sparse projection's values."""
    if projection.kind == "dense":
        return values
    ends = (program.populations[projection.target], program.populations[projection.source])
    full = np.zeros((ends[0].size, ends[1].size), np.int64)
    full[projection.params["row"], projection.params["col"]] = values
    return full


def _weights(program: Program, projection: Projection, bad: list[Violation]) -> IntArray:
    """Plain integers that act as the projection does: exponent and truncation worked in."""
    if projection.kind == "conv":
        return projection.weight_q
    mode, bits = sign_mode_of(projection), scalar(projection, "num_weight_bits", 8)
    exponent = scalar(projection, "weight_exp", 0)
    weight = _matrix(program, projection, truncated(projection.weight_q, mode, bits))
    if exponent < 0:
        lost = int((weight % (1 << -exponent) != 0).sum())
        if lost:
            bad.append(
                Violation(projection.name, f"weights that are no multiple of {1 << -exponent} (weight_exp {exponent})",
                          lost, 0, f"netx has no exponent. {LAVA}")
            )  # fmt: skip
            return weight
        weight >>= -exponent
    else:
        weight <<= exponent
    if not weight.any():
        bad.append(Violation(projection.name, "weights other than zero", 0, "at least 1", "The reader fails on it."))
    elif not _survives(weight):
        bad.append(
            Violation(projection.name, "weights with their exponent", f"{weight.min()}..{weight.max()}",
                      "what the reader fits into 8 bits (-256..254 mixed, 0..255, -255..-1)", LAVA)
        )  # fmt: skip
    return weight


def _numbers(program: Program, layer: Layer, bad: list[Violation]) -> Layer:
    population, forward, recurrent = layer.population, layer.forward, layer.recurrent
    for name in ("du", "dv", "vth"):
        values = np.unique(population.params[name])
        low, high = LIF_RANGES[name]
        if values.size > 1:
            bad.append(Violation(population.name, f"different {name} in a layer", values.size, 1, LAVA))
        elif not low <= values[0] <= high:
            bad.append(Violation(population.name, name, int(values[0]), f"{low}..{high}", "Compile it again."))
    weight = _weights(program, forward, bad)
    weight_rec = None
    if recurrent is not None:
        weight_rec = _weights(program, recurrent, bad)
        formats = [reader_format(w) for w in (weight, weight_rec)]
        if all(formats) and len({f[1:] for f in formats if f}) > 1:
            said = " and ".join(f"{f[1]} bits, exponent {f[2]}, sign mode {f[3]}" for f in formats if f)
            bad.append(
                Violation(recurrent.name, "weight format of a recurrent layer", said, "one for both matrices", LAVA)
            )
    delay = None
    if "delay_steps" in forward.params:
        delay = _matrix(program, forward, forward.params["delay_steps"])
        if delay.max(initial=0) > MAX_DELAY:
            bad.append(Violation(forward.name, "delay", int(delay.max()), MAX_DELAY, f"The reader cuts it. {LAVA}"))
    return Layer(population, forward, recurrent, weight, weight_rec, delay, _bias(population, bad))


def _bias(population: Population, bad: list[Violation]) -> IntArray | None:
    """Mantissa for the reader's fixed exponent 6, one per neuron; None if there is no bias."""
    mant, exponent = (
        np.broadcast_to(population.params.get(n, np.int64(0)), (population.size,)) for n in ("bias_mant", "bias_exp")
    )
    bias = np.where(exponent >= 0, mant << np.maximum(exponent, 0), mant >> np.maximum(-exponent, 0))
    if not bias.any():
        return None
    lost = int((bias % (1 << BIAS_EXP) != 0).sum())
    if lost:
        bad.append(
            Violation(population.name, f"biases that are no multiple of {1 << BIAS_EXP}", lost, 0,
                      f"The reader sets bias_exp = {BIAS_EXP}. {LAVA}")
        )  # fmt: skip
    found = bias >> BIAS_EXP
    low, high = LIF_RANGES["bias_mant"]
    if found.min() < low or found.max() > high:
        wanted = f"{found.min()}..{found.max()}"
        bad.append(Violation(population.name, f"bias / {1 << BIAS_EXP}", wanted, f"{low}..{high}", LAVA))
    return np.asarray(found, np.int64)


def write(program: Program, path: Path | str, *, steps: int = 0) -> Path:
    """Write one HDF5 file. steps: of a sample, stored as simulation/tSample for readers that look at it.

    Raises:
        UnsupportedNode, DoesNotFit: see `layers_of`.
    """
    path = Path(path)
    layers = layers_of(program)
    image_bytes: list[bytes] = []
    with hdf5_bytes(image_bytes) as file:
        n = 0
        if layers and layers[0].forward.kind == "conv":
            group = file.create_group("layer/0")
            group["type"] = np.array([b"input"], "S10")
            group["shape"] = np.array(program.populations[program.input].shape)
            n = 1
        image = n == 1
        for layer in layers:
            if image and layer.forward.kind != "conv":
                group = file.create_group(f"layer/{n}")
                group["type"] = np.array([b"flatten"], "S10")
                group["shape"] = np.array([program.populations[layer.forward.source].size])
                n, image = n + 1, False
            _write_layer(file.create_group(f"layer/{n}"), layer)
            n += 1
        file["simulation/Ts"], file["simulation/tSample"] = 1, steps
    with atomic_path(path) as temporary:
        temporary.write_bytes(image_bytes[0])
    return path


def _write_layer(group: Any, layer: Layer) -> None:
    table: dict[str, Any] = {}
    population, params = layer.population, layer.population.params
    if layer.forward.kind == "conv":
        stride, padding, dilation, groups = geometry(layer.forward)
        out_channels, per_group, *kernel = layer.weight.shape
        table |= {"type": b"conv", "shape": population.shape}
        table |= {"inChannels": per_group * groups, "outChannels": out_channels, "kernelSize": kernel}
        table |= {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    else:
        kind = b"dense_rec" if layer.weight_rec is not None else b"dense"
        table |= {"type": kind, "shape": [population.size]}
        table |= {"inFeatures": layer.weight.shape[1], "outFeatures": layer.weight.shape[0]}
    table["weight"] = layer.weight.astype(np.float32)
    if layer.weight_rec is not None:
        table["weight_rec"] = layer.weight_rec.astype(np.float32)
    if layer.delay is not None:
        table["delay"] = layer.delay.astype(np.float32)  # always 2-D: one axis could mean inputs or outputs
    if layer.bias is not None:
        table["bias"] = _bias_as_read(layer).astype(np.float32)
    for name, value in table.items():
        group[name] = np.array([value], "S10") if name == "type" else value
    du, dv, vth = (int(params[n].flat[0]) for n in ("du", "dv", "vth"))
    neuron = {"type": "CUBA", "iDecay": du + 1, "vDecay": dv, "vThMant": vth, "refDelay": 1, "gradedSpike": False}
    for name, value in neuron.items():
        group[f"neuron/{name}"] = np.bytes_(value) if name == "type" else value


def _bias_as_read(layer: Layer) -> IntArray:
    """One per neuron of a dense layer; of an image one per channel if that says it, else (width, height, channel)."""
    assert layer.bias is not None
    if layer.forward.kind != "conv":
        return layer.bias
    image = layer.bias.reshape(layer.population.shape)
    channels = image[:, 0, 0]
    if (image == channels[:, None, None]).all():
        return channels
    return image.transpose(2, 1, 0)


EXPORTER = Exporter(
    "netx",
    "HDF5 for lava-dl's netx: a chain of CUBA layers in one file",
    "program",
    write,
    chips=("loihi2",),
    compile_options={"start_up": False},  # a chain has no place for the neuron that starts samples
)
