"""What every registered chip must do with what it does not know: refuse it by name, never ignore it."""

from __future__ import annotations

import numpy as np
import pytest

from neuro import ir
from neuro.errors import ChipError, UnsupportedNode
from neuro.hardware import compile as compile_network
from neuro.hardware.target import load_target, targets

LEVELS = (ir.QuantisedReLU, ir.MaxPool2d)


def spiking(high: int) -> ir.Network:
    """A network that most chips hold, but for an input that counts."""
    nodes = {"in": ir.Input((4,), high), "w": ir.Linear(np.eye(4)), "n": ir.IF(1.5), "out": ir.Output("count")}
    return ir.chain(nodes, dt=1e-3)


def levels() -> ir.Network:
    """A layer that sends levels and a max-pool."""
    nodes = {
        "in": ir.Input((1, 4, 4)),
        "conv": ir.Conv2d(np.ones((1, 1, 3, 3)), padding=1),
        "relu": ir.QuantisedReLU(1.0, 3),
        "pool": ir.MaxPool2d(2, 2),
        "flat": ir.Flatten(),
        "read": ir.Linear(np.ones((2, 4))),
        "out": ir.Output("sum"),
    }
    return ir.chain(nodes, dt=1e-3)


@pytest.mark.parametrize("chip", targets())
def test_a_count_beyond_what_the_chip_takes_is_refused_by_name(chip: str) -> None:
    most = load_target(chip).high
    if most >= ir.MAX_HIGH:
        held = ir.QuantisedReLU in load_target(chip).supports
        network = levels().replace_nodes({"in": ir.Input((1, 4, 4), 3)}) if held else spiking(3)
        assert compile_network(network, chip).high == 3
        return
    with pytest.raises(UnsupportedNode, match=rf"'in' counts up to {most + 1} in a step, {chip} takes"):
        compile_network(spiking(most + 1), chip)
    assert compile_network(spiking(most), chip).high == most


@pytest.mark.parametrize("chip", targets())
def test_levels_are_held_or_refused_by_name(chip: str) -> None:
    target = load_target(chip)
    missing = [kind.__name__ for kind in LEVELS if kind not in target.supports]
    if not missing:
        assert compile_network(levels(), chip).chip == chip
        return
    with pytest.raises(UnsupportedNode) as caught:
        compile_network(levels(), chip)
    assert all(name in str(caught.value) for name in missing)


@pytest.mark.parametrize("chip", targets())
def test_every_refusal_with_a_reason_is_of_a_node_that_is_not_held(chip: str) -> None:
    target = load_target(chip)
    assert not set(target.refuses) & set(target.supports)
    for kind, why in target.refuses.items():
        assert kind in ir.NODE_TYPES.values()
        assert why


@pytest.mark.parametrize("chip", targets())
def test_compile_takes_the_options_that_all_share(chip: str) -> None:
    network = levels() if ir.QuantisedReLU in load_target(chip).supports else spiking(1)
    program = compile_network(network, chip, strict=False, max_steps=5)
    assert program.chip == chip
    with pytest.raises(ChipError, match="no such compile option"):
        compile_network(network, chip, nonsense=1)
