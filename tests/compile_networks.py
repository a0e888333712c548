"""Random networks whose every number lies on Loihi 2's grid, so that the chip must equal the float reference."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from neuro import ir, reference
from neuro.hardware import compile as compile_network
from neuro.hardware.loihi2.kernels import run
from neuro.hardware.program import Program

Spikes = dict[str, NDArray[np.uint8]]
STEP = 1 / 64  # a power of two: sums of weights are exact in float64


def on_grid(rng: np.random.Generator, shape: tuple[int, ...], most: int = 100) -> NDArray[np.float64]:
    """Random multiples of STEP, at most ``most`` of them, about a third of them zero."""
    whole = rng.integers(-most, most + 1, shape) * (rng.random(shape) > 0.3)
    return whole * STEP


def threshold(rng: np.random.Generator) -> float:
    """A multiple of STEP: membranes often meet it exactly, and must not fire there."""
    return float(rng.integers(20, 120)) * STEP


def if_nodes(rng: np.random.Generator, n: int) -> ir.IF:
    return ir.IF(v_threshold=np.full(n, threshold(rng)))


def dense_graph(seed: int, *, delays: bool = True, bias: bool = False, feedback: bool = True) -> ir.Network:
    """IF populations in a random graph: skip connections, self-loops, delays, forked and joined paths."""
    rng = np.random.default_rng(seed)
    sizes = [int(n) for n in rng.integers(2, 7, rng.integers(2, 5))]
    nodes: dict[str, ir.Node] = {"in": ir.Input((sizes[0],))}
    edges = []
    names, widths = ["in"], [sizes[0]]

    def weights(k: int, out: int, into: int, prefix: str = "w") -> ir.Linear:
        steps = rng.integers(0, 5, (out, into)) if delays and rng.random() < 0.5 else None
        if bias and rng.random() < 0.7:
            return ir.Affine(on_grid(rng, (out, into)), delay_steps=steps, bias=on_grid(rng, (out,), 20))
        return ir.Linear(on_grid(rng, (out, into)), delay_steps=steps)

    for layer, n in enumerate([*sizes[1:], 3]):
        name = f"p{layer}"
        chosen = sorted({len(names) - 1, *(int(k) for k in rng.integers(0, len(names), 2))})
        for k in chosen:
            w = f"w{layer}_{k}"
            nodes[w] = weights(layer, n, widths[k])
            edges += [(names[k], w), (w, name)]
            if delays and rng.random() < 0.3:
                d = f"d{layer}_{k}"
                nodes[d] = ir.Delay(rng.integers(0, 4, n))
                edges[-1] = (w, d)
                edges.append((d, name))
        nodes[name] = if_nodes(rng, n)
        names.append(name)
        widths.append(n)
        if feedback and rng.random() < 0.5:
            r = f"r{layer}"
            nodes[r] = weights(layer, n, n)
            edges += [(name, r), (r, name)]
    nodes["out"] = ir.Output("count")
    edges.append((names[-1], "out"))
    return ir.Network(nodes, tuple(edges), dt=1e-3)


def image_graph(seed: int) -> ir.Network:
    """Convolutions and pools of random geometry between IF populations, then Flatten and Linear."""
    rng = np.random.default_rng(seed)
    height, width = (int(n) for n in rng.integers(6, 12, 2))
    nodes: dict[str, ir.Node] = {"in": ir.Input((2, height, width))}
    shape = (2, height, width)
    for layer in range(int(rng.integers(1, 3))):
        if rng.random() < 0.6 and min(shape[1:]) >= 4:
            kernel = tuple(int(n) for n in rng.integers(1, 3, 2))
            nodes[f"pool{layer}"] = ir.SumPool2d(kernel, kernel)
            shape = (shape[0], shape[1] // kernel[0], shape[2] // kernel[1])
        groups = int(rng.choice([1, 2])) if shape[0] % 2 == 0 else 1
        out = 2 * int(rng.integers(1, 3))
        k = tuple(int(min(n, m)) for n, m in zip(rng.integers(1, 4, 2), shape[1:], strict=True))
        stride, padding = (tuple(int(n) for n in rng.integers(low, 3, 2)) for low in (1, 0))
        conv = ir.Conv2d(on_grid(rng, (out, shape[0] // groups, *k), 60), stride, padding, 1, groups)
        nodes[f"conv{layer}"] = conv
        sides = [(shape[1 + a] + 2 * padding[a] - k[a]) // stride[a] + 1 for a in (0, 1)]
        shape = (out, *sides)
        nodes[f"p{layer}"] = ir.IF(v_threshold=np.full(shape, threshold(rng)))
    if rng.random() < 0.5:
        nodes["pool"] = ir.SumPool2d(1, 1) if min(shape[1:]) < 2 else ir.SumPool2d(2, 2)
        if min(shape[1:]) >= 2:
            shape = (shape[0], shape[1] // 2, shape[2] // 2)
    nodes["flat"] = ir.Flatten()
    nodes["w"] = ir.Linear(on_grid(rng, (3, int(np.prod(shape))), 60))
    nodes["p"] = if_nodes(rng, 3)
    nodes["out"] = ir.Output("count")
    return ir.chain(nodes, dt=1e-3)


def events(seed: int, network: ir.Network, steps: int = 24, batch: int = 3, rate: float = 0.3) -> NDArray[np.uint8]:
    shape = network.shapes[network.input]
    return (np.random.default_rng(seed).random((steps, batch, *shape)) < rate).astype(np.uint8)


def on_chip(program: Program, dense: NDArray[np.uint8]) -> Spikes:
    """Spikes per population over the sample's own steps: each population's lag taken off."""
    steps, batch = dense.shape[:2]
    trace = run(program, dense.reshape(steps, batch, -1))
    return {
        name: spikes[program.skew[name] : program.skew[name] + steps]
        for name, spikes in trace.spikes.items()
        if program.skew[name] + steps <= len(spikes)
    }


def in_float(network: ir.Network, dense: NDArray[np.uint8]) -> Spikes:
    record = reference.run(network, dense, record=("spikes",))
    return {name: s.reshape(*s.shape[:2], -1) for name, s in record.spikes.items()}


def compare(network: ir.Network, dense: NDArray[np.uint8], **options: object) -> Program:
    """Compile, run both, and assert that every spike of every population is the same."""
    program = compile_network(network, **options)
    chip, wanted = on_chip(program, dense), in_float(network, dense)
    for name in wanted:
        if name in chip:
            np.testing.assert_array_equal(chip[name], wanted[name], err_msg=f"population {name}")
    assert program.output in chip
    return program
