"""SpiNNaker 2 programs once more, in NumPy's float32, written from contract.py and not from the kernels.

Every projection becomes one integer matrix per delay and sign, every population a few vectors. This is the oracle of a
certificate where no other is at hand: that it agrees proves that we are consistent, nothing about the chip.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.program import Population, Program, Projection
from neuro.hardware.target import Visit

Float32 = NDArray[np.float32]
Matrix = NDArray[np.int64]
TITLE = (
    "a second model of our own, in NumPy's float32: no reference implementation of SpiNNaker 2 available here, "
    "so this proves our consistency only"
)


def matrices(p: Projection, source: Population, target: Population) -> dict[tuple[int, int], Matrix]:
    """(delay, sign) -> magnitudes [out, in]."""
    full = np.zeros((target.size, source.size), np.int64)
    delay = np.zeros((target.size, source.size), np.int64)
    found: dict[tuple[int, int], Matrix] = {}
    if p.kind == "dense":
        full, delay = p.weight_q, np.broadcast_to(p.params.get("delay_steps", np.array(0)), p.weight_q.shape)
    elif p.kind == "conv":
        full = _unrolled(p, source.shape, target.shape)
    else:
        steps = np.broadcast_to(p.params.get("delay_steps", np.array(0)), p.weight_q.shape)
        for row, col, weight, late in zip(p.params["row"], p.params["col"], p.weight_q, steps, strict=True):
            m = found.setdefault((int(late), int(np.sign(weight))), np.zeros((target.size, source.size), np.int64))
            m[row, col] += abs(weight)
        return {key: m for key, m in found.items() if key[1]}
    for late in np.unique(delay):
        for sign in (1, -1):
            m = np.where((delay == late) & (np.sign(full) == sign), np.abs(full), 0)
            if m.any():
                found[int(late), sign] = m
    return found


def _unrolled(p: Projection, source: tuple[int, ...], target: tuple[int, ...]) -> Matrix:
    """A kernel as a matrix: each output position reads its window, what lies outside is zero."""
    (sy, sx), (py, px), (dy, dx) = (p.params[n].tolist() for n in ("stride", "padding", "dilation"))
    full = np.zeros((*target, *source), np.int64)
    for y in range(target[1]):
        for x in range(target[2]):
            for a in range(p.weight_q.shape[2]):
                for b in range(p.weight_q.shape[3]):
                    row, column = y * sy - py + a * dy, x * sx - px + b * dx
                    if 0 <= row < source[1] and 0 <= column < source[2]:
                        full[:, y, x, :, row, column] += p.weight_q[:, :, a, b]
    return full.reshape(np.prod(target), np.prod(source))


def _vector(population: Population, name: str) -> Float32:
    """A parameter from its bit patterns."""
    raw = population.params.get(name, np.zeros((), np.int64)).astype("<i4")
    return np.frombuffer(np.broadcast_to(raw, population.size).tobytes(), "<f4").astype(np.float32)


def simulate(program: Program, dense: NDArray[np.uint8]) -> dict[tuple[str, str], NDArray[np.int32]]:
    """One sample uint8[steps, inputs]: (population, "s" | "v_bits" | "exc_bits" | "inh_bits") -> int32[steps, n]."""
    steps = len(dense) + program.depth
    cells = {n: p for n, p in program.populations.items() if p.model != "input"}
    sent = {n: np.zeros((steps, p.size), np.int64) for n, p in program.populations.items()}
    sent[program.input][: len(dense)] = dense
    paths = {
        n: [(p.source, matrices(p, program.populations[p.source], cells[n])) for p in program.into(n)] for n in cells
    }
    v = {n: _vector(p, "v_init") for n, p in cells.items()}
    current = {n: [np.zeros(p.size, np.float32) for _ in (0, 1)] for n, p in cells.items()}
    made: dict[tuple[str, str], NDArray[np.int32]] = {
        (n, k): np.zeros((steps, p.size), np.int32)
        for n, p in cells.items()
        for k in ("s", "v_bits", "exc_bits", "inh_bits")
    }
    with np.errstate(over="ignore", invalid="ignore"):
        for t in range(steps):
            for n, p in cells.items():
                arrived = {1: np.zeros(p.size, np.int64), -1: np.zeros(p.size, np.int64)}
                for source, maps in paths[n]:
                    for (late, sign), m in maps.items():
                        if t - 1 - late >= 0:
                            arrived[sign] += m @ sent[source][t - 1 - late]
                exc, inh = (arrived[sign].astype(np.float32) for sign in (1, -1))
                if "curr_exp" in p.model:
                    exc = _vector(p, "exc_decay") * current[n][0] + exc
                    inh = _vector(p, "inh_decay") * current[n][1] + inh
                    current[n] = [exc, inh]
                threshold = _vector(p, "threshold")
                v[n] = (_vector(p, "alpha_decay") * v[n] + _vector(p, "i_offset")) + (exc - inh)
                fired = v[n] > threshold
                after = np.where(p.params["reset"] == 1, v[n] - threshold, _vector(p, "v_reset"))
                v[n] = np.where(fired, after, v[n])
                sent[n][t] = fired
                made[n, "s"][t], made[n, "v_bits"][t] = fired, v[n].view(np.int32)
                for k, name in enumerate(("exc_bits", "inh_bits")):
                    made[n, name][t] = current[n][k].view(np.int32)
    return made


def run(program: Program, dense: NDArray[np.uint8], visit: Visit, timeout_s: float, folder: Path | None) -> None:
    """As `neuro.hardware.target.Oracle` asks."""
    for k in range(dense.shape[1]):
        visit(k, simulate(program, dense[:, k]))


def version() -> str:
    return f"NumPy {np.__version__}"
