"""The independent model of an Akida `Program`: the published equations in unbounded Python integers.

Written from the specification, not from the kernels: windows are gathered, not scattered; the scale is a floor
division of 2 p m + 2^e by 2^(e+1); a code is the ceiling of an exact ratio, where the kernel compares with a table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.program import Population, Program, Projection
from neuro.hardware.target import Oracle, Visit

Big = NDArray[np.object_]  # Python integers

EXACT_TO = (
    "exact to quantizeml's published Akida 2.0 reference arithmetic and to the published Akida 1.0 activation "
    "equation; not checked against the engine or silicon"
)
NOWHERE = -(10**40)  # minus infinity among integers


def big(values: Any, shape: tuple[int, ...]) -> Big:
    """Python integers, broadcast to a shape."""
    array: Big = np.broadcast_to(np.asarray(values), shape).astype(object)
    return array


def rounded(p: Big, m: Big, e: Big) -> Big:
    """floor(p m / 2^e + 1/2) = floor((2 p m + 2^e) / 2^(e + 1)), element by element."""
    down = 2 ** np.maximum(e, 0)
    up = 2 ** np.maximum(-e, 0)
    result: Big = (2 * p * m * up + down) // (2 * down)
    return result


def windows(x: Big, kernel: tuple[int, ...], stride: tuple[int, ...], pads: tuple[int, ...], pad: Big) -> list[Big]:
    """[channel, out_h, out_w] as each place of the kernel sees x [channel, h, w], padded per channel with ``pad``."""
    top, left, bottom, right = pads
    channels, height, width = x.shape
    padded: Big = np.empty((channels, height + top + bottom, width + left + right), object)
    padded[...] = pad[:, None, None]
    padded[:, top : top + height, left : left + width] = x
    rows = (padded.shape[1] - kernel[0]) // stride[0] + 1
    columns = (padded.shape[2] - kernel[1]) // stride[1] + 1
    seen = []
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            seen.append(padded[:, i :: stride[0], j :: stride[1]][:, :rows, :columns])
    return seen


def summed(projection: Projection, x: Big) -> Big:
    """What a projection adds, [out, h, w]; x is [channel, h, w]."""
    weight, params = projection.weight_q.astype(object), projection.params
    if projection.kind == "dense":
        flat: Big = weight.dot(x.reshape(-1))
        return flat.reshape(-1, 1, 1)
    groups, out = int(params["groups"]), len(weight)
    pad = big(params.get("pad_value", 0), (len(x),))
    geometry = [tuple(int(n) for n in params[name]) for name in ("stride", "pads")]
    seen = windows(x, weight.shape[2:], geometry[0], geometry[1], pad)
    shape = seen[0].shape[1:]
    total: Big = np.zeros((out, *shape), object)
    for g in range(groups):
        outs = slice(g * out // groups, (g + 1) * out // groups)
        ins = slice(g * len(x) // groups, (g + 1) * len(x) // groups)
        for place, image in enumerate(seen):
            kernel = weight[outs, :, place // weight.shape[3], place % weight.shape[3]]
            total[outs] += kernel.dot(image[ins].reshape(kernel.shape[1], -1)).reshape(-1, *shape)
    return total


def layer(population: Population, projections: tuple[Projection, ...], inputs: tuple[Big, ...]) -> tuple[Big, Big]:
    """(potentials, values) [channel, h, w] of one layer for inputs [channel, h, w]."""
    params = population.params
    acc = sum((summed(p, x) for p, x in zip(projections, inputs, strict=True)), start=np.zeros((1, 1, 1), object))

    def each(name: str, otherwise: int = 0) -> Big:
        return big(params.get(name, otherwise), (len(acc),))[:, None, None]

    acc = acc + each("bias") * 2 ** each("bias_shift")
    if "pool_kernel" in params:
        kernel, stride = (tuple(int(n) for n in params[name]) for name in ("pool_kernel", "pool_stride"))
        pads = tuple(int(n) for n in params.get("pool_pads", np.zeros(4, np.int64)))
        acc = np.maximum.reduce(windows(acc, kernel, stride, pads, big(NOWHERE, (len(acc),))))
    if params.get("relu", 0):
        acc = np.maximum(acc, 0)
    if "max_value" in params:
        acc = np.minimum(acc, each("max_value") * 2 ** each("max_shift"))
    if "lut" in params:
        index = np.clip(rounded(acc, each("m_act"), each("e_act")), -1024, 1023)
        acc = params["lut"].astype(object)[np.where(index < 0, index + 2048, index).astype(np.int64)]
    if params.get("gap", 0):
        acc = acc.reshape(len(acc), -1).sum(axis=1)[:, None, None]
    if population.model == "scaled":
        return acc, np.clip(rounded(acc, each("m"), each("e")), -128, 127)
    if population.model == "code":
        return acc, _codes(acc - each("threshold"), each("step_mantissa"), each("step_exponent"), params)
    return acc, acc


def _codes(above: Big, mantissa: Big, exponent: Big, params: Any) -> Big:
    """clip(ceil(above / step), 0, 2^bits - 1); the ceiling of a / b is -floor(-a / b)."""
    bits = int(params["act_bits"])
    exponent = exponent + (4 - bits)
    ratio = -((-above * 2 ** np.maximum(-exponent, 0)) // (mantissa * 2 ** np.maximum(exponent, 0)))
    codes: Big = np.clip(ratio, 0, 2**bits - 1)
    return codes


def frame(program: Program, pixels: NDArray[np.uint8]) -> dict[tuple[str, str], NDArray[np.int32]]:
    """One frame, [inputs], through a program: (population, "p" or "s") -> int32[n]."""
    source = program.populations[program.input]
    sent = {program.input: pixels.astype(object).reshape(_image(source))}
    found: dict[tuple[str, str], NDArray[np.int32]] = {}
    for name, population in program.populations.items():
        if population.model == "input":
            continue
        incoming = program.into(name)
        p, s = layer(population, incoming, tuple(sent[k.source] for k in incoming))
        sent[name] = s
        found[name, "p"], found[name, "s"] = p.reshape(-1).astype(np.int32), s.reshape(-1).astype(np.int32)
    return found


def _image(population: Population) -> tuple[int, int, int]:
    shape = population.shape
    return (shape[0], shape[1], shape[2]) if len(shape) == 3 else (population.size, 1, 1)


def _run(program: Program, dense: NDArray[np.uint8], visit: Visit, timeout_s: float, folder: Path | None) -> None:
    for k in range(dense.shape[1]):
        frames = [frame(program, pixels) for pixels in dense[:, k]]
        visit(k, {key: np.stack([f[key] for f in frames]) for key in frames[0]})


def _version() -> str:
    from importlib.metadata import version

    return f"axonport {version('axonport')}, plain integers"


ORACLES = {"plain": Oracle(f"independent integer model, {EXACT_TO}", _run, _version)}
