"""Law: whatever the network, Akida's compilers refuse it by name or give a program that its oracle agrees with."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from neuro import ir, reference
from neuro.errors import DoesNotFit, NetworkError, UnsupportedNode
from neuro.hardware import compile as compile_network
from neuro.hardware import simulate
from neuro.hardware.certify import certify


class Draft:
    """A chain that grows as long as its shapes agree."""

    def __init__(self, source: ir.Input) -> None:
        self.nodes: dict[str, ir.Node] = {"in": source}
        self.shape = source.shape

    def add(self, node: ir.Node) -> None:
        name = f"n{len(self.nodes)}"
        grown = self.nodes | {name: node}
        self.shape = ir.chain(grown | {"out": ir.Output("sum")}, dt=1.0).shapes[name]
        self.nodes = grown


def network_of(seed: int) -> ir.Network:
    """One to three convolutions of any kind, with activations, pools, scales; often a matrix behind.

    Raises:
        NetworkError: a window came out larger than its image.
    """
    rng = np.random.default_rng(seed)
    size = int(rng.integers(5, 15))
    high = int(rng.choice([1, 3, 15, 255]))
    draft = Draft(ir.Input((int(rng.choice([1, 2, 3, 4])), size, size), high))
    for _ in range(int(rng.integers(1, 4))):
        out, groups = int(rng.integers(1, 7)), 1
        side, stride = int(rng.choice([1, 2, 3, 4, 5])), int(rng.choice([1, 1, 2, 3]))
        if rng.random() < 0.2:
            groups = out = draft.shape[0]
        shape = (out, draft.shape[0] // groups, side, side)
        weight = rng.integers(-7, 8, shape) * rng.uniform(0.01, 1) if rng.random() < 0.7 else rng.normal(size=shape)
        bias = rng.normal(size=out) * rng.choice([0, 3])
        padding, dilation = int(rng.choice([0, side // 2])), int(rng.choice([1, 1, 1, 2]))
        draft.add(ir.Conv2d(weight, stride, padding, dilation, groups, bias=bias))
        between = rng.random()
        if between < 0.15:
            draft.add(ir.MaxPool2d(2, int(rng.choice([1, 2]))))
        elif between < 0.25:
            draft.add(ir.AvgPool2d(draft.shape[1:], 1))
        elif between < 0.3:
            draft.add(ir.Scale(rng.uniform(0.1, 2)))
        if rng.random() < 0.9:
            size_of_sums = np.abs(weight).reshape(out, -1).sum(1).mean() * np.sqrt(high) / 4 + 0.1
            step = size_of_sums * rng.uniform(0.05, 0.5, () if rng.random() < 0.7 else (out, 1, 1))
            draft.add(ir.QuantisedReLU(step, int(rng.choice([1, 3, 7, 15, 15, 15, 127]))))
        behind = rng.random()
        if behind < 0.4:
            draft.add(ir.MaxPool2d(2, 2) if behind < 0.25 else ir.AvgPool2d(2, 2))
    if rng.random() < 0.8:
        draft.add(ir.Flatten())
        draft.add(ir.Linear(rng.integers(-7, 8, (4, *draft.shape)) * 0.1))
    return ir.chain(draft.nodes | {"out": ir.Output("sum")}, dt=1.0)


def check(network: ir.Network, chip: str) -> str:
    """What became of it: the name of the error, or that it was certified."""
    try:
        program = compile_network(network, chip)
    except (DoesNotFit, UnsupportedNode) as refusal:
        return type(refusal).__name__ if refusal.violations else "refused without a reason"
    node = network.nodes["in"]
    x = np.random.default_rng(0).integers(0, node.high + 1, (1, 2, *node.shape)).astype(np.uint8)
    assert certify(program, x.reshape(1, 2, -1)).passed
    first = list(program.populations)[1]
    relu = network.nodes[first]
    weights = next(row for row in program.budget if row.quantity == "weight")
    if isinstance(relu, ir.QuantisedReLU) and weights.max_error < 1e-6 and not program.substitutions:
        sent = simulate(program, x).spikes[first][0]
        (behind,) = network.targets(first)
        pooled = isinstance(network.nodes[behind], ir.MaxPool2d)
        wanted = reference.run(network, x, record=("sent",)).sent[behind if pooled else first]
        step = relu.step[:, :1, :1] if pooled else relu.step
        unit = weights.scale / float(relu.step.min())  # levels that one potential is worth
        assert np.abs(sent - (wanted / step)[0].reshape(2, -1)).max() <= np.ceil(max(unit, 1.0)) + 0.02 * relu.levels
    return "certified"


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_a_network_is_refused_by_name_or_certified(first: int) -> None:
    found: Counter[str] = Counter()
    for seed in range(first, first + 50):
        try:
            network = network_of(seed)
        except NetworkError:
            continue
        for chip in ("akida1", "akida2"):
            found[check(network, chip)] += 1
    assert set(found) == {"certified", "DoesNotFit", "UnsupportedNode"}, found
