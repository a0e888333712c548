"""`compile`: one network to one chip's integers. Knows no chip: finds the target, checks, hands over."""

from __future__ import annotations

import inspect
from typing import Any

from neuro.errors import ChipError, UnsupportedNode
from neuro.extend import did_you_mean
from neuro.hardware.chip import Chip
from neuro.hardware.program import Program
from neuro.hardware.target import Target, load_target
from neuro.ir import Input, Network


def compile(network: Network, chip: str = "loihi2", **options: Any) -> Program:  # the public name
    """A network as the integers of a chip.

    Args:
        chip: a registered target. options: passed to the target; every target knows ``strict``.

    Raises:
        UnknownChip: no such chip. ChipError: an option it does not have, or out of range.
        UnsupportedNode: nodes it cannot hold, all at once. DoesNotFit: limits exceeded, all at once.
        PrecisionLoss: ``strict`` and an approximation would be needed.
    """
    target = load_target(chip)
    _check_options(target, options)
    _check_nodes(target, network)
    return target.compile(network, **options)


def load_chip(name: str) -> Chip:
    """Limits, number formats, energies and times of a registered chip.

    Raises:
        UnknownChip: with the nearest known name.
    """
    return load_target(name).chip


def _check_options(target: Target, options: dict[str, Any]) -> None:
    known = [
        p.name
        for p in inspect.signature(target.compile).parameters.values()
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    unknown = [f"'{name}': {did_you_mean(name, known)}" for name in options if name not in known]
    if unknown:
        raise ChipError(f"{target.name} has no such compile option", unknown)


def _check_nodes(target: Target, network: Network) -> None:
    bad = [
        f"'{name}' is a {type(node).__name__}, which {target.name} cannot hold"
        + (
            f": {target.refuses[type(node)]}"
            if type(node) in target.refuses
            else "; it holds " + ", ".join(sorted(kind.__name__ for kind in target.supports))
        )
        for name, node in network.nodes.items()
        if type(node) not in target.supports
    ]
    bad += [
        f"'{name}' counts up to {node.high} in a step, {target.name} takes "
        + ("spikes, 0 or 1: use a shorter dt and high=1" if target.high == 1 else f"at most {target.high}: lower high")
        for name, node in network.nodes.items()
        if isinstance(node, Input) and node.high > target.high
    ]
    if bad:
        raise UnsupportedNode(f"{target.name} cannot hold this network", bad)
