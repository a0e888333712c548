"""A network with fewer bits, fewer synapses or another step, for exploring designs. No training: what is lost is lost.

    weight_bits b   w' = s round(w / s), s = max |w| / (2^(b - 1) - 1), for each matrix and kernel by itself
    sparsity f      the fraction f of each matrix and kernel that is smallest in magnitude becomes zero
    dt              seconds per step; time constants and delays keep their seconds (delays to the nearest step),
                    weights their values

Biases, thresholds and gains stay as they are. A chip then rounds to its own format in any case.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from neuro.errors import NetworkError
from neuro.ir import Affine, Array, Conv2d, Delay, Linear, Network, Node

WEIGHTED = (Linear, Affine, Conv2d)


def quantised(weight: Array, bits: int) -> Array:
    """The nearest of 2^bits - 1 evenly spaced values, symmetric about zero, that reach to the largest magnitude."""
    most = (1 << (bits - 1)) - 1
    largest = float(np.abs(weight).max(initial=0.0))
    if largest == 0.0:
        return weight.copy()
    step = largest / most
    return np.asarray(step * np.rint(weight / step))


def pruned(weight: Array, fraction: float) -> Array:
    """The weight with floor(fraction * size) entries of least magnitude, the first of equal ones, set to zero."""
    found = weight.copy().ravel()
    order = np.argsort(np.abs(found), kind="stable")
    found[order[: math.floor(fraction * found.size + 1e-9)]] = 0.0
    return found.reshape(weight.shape)


def problems(parameter: str, value: Any) -> list[str]:
    """What is wrong with a value of weight_bits, sparsity or dt."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if parameter == "weight_bits" and not (isinstance(value, int) and number and 2 <= value <= 32):
        return [f"network.weight_bits must be an integer from 2 to 32, got {value!r}"]
    if parameter == "sparsity" and not (number and 0 <= value < 1):
        return [f"network.sparsity must be at least 0 and below 1, got {value!r}"]
    if parameter == "dt" and not (number and value > 0):
        return [f"network.dt must be seconds above 0, got {value!r}"]
    return []


def variant(
    network: Network, *, weight_bits: int | None = None, sparsity: float | None = None, dt: float | None = None
) -> Network:
    """The network with any of these changed; pruned first, then rounded.

    Raises:
        NetworkError: a value out of range; a node whose steps cannot be carried over to another dt.
    """
    given = {"weight_bits": weight_bits, "sparsity": sparsity, "dt": dt}
    bad = [line for name, value in given.items() if value is not None for line in problems(name, value)]
    if bad:
        raise NetworkError("no such variant", bad)
    nodes: dict[str, Node] = {}
    for name, node in network.nodes.items():
        changes: dict[str, Any] = {}
        if isinstance(node, WEIGHTED):
            weight = node.weight
            if sparsity is not None:
                weight = pruned(weight, sparsity)
            if weight_bits is not None:
                weight = quantised(weight, weight_bits)
            changes["weight"] = weight
        if dt is not None:
            changes |= _steps(name, node, network.dt / dt)
        nodes[name] = dataclasses.replace(node, **changes) if changes else node
    return Network(nodes, network.edges, network.dt if dt is None else dt, network.discretisation, network.metadata)


def _steps(name: str, node: Node, ratio: float) -> dict[str, Any]:
    """Fields that count steps, in steps of the new length."""
    known = {Linear: "delay_steps", Affine: "delay_steps", Delay: "steps"}.get(type(node))
    others = [f.name for f in dataclasses.fields(node) if "steps" in f.name and f.name != known]
    if others:
        raise NetworkError(
            f"'{name}' ({type(node).__name__}) counts steps in {', '.join(others)}; its dt cannot change"
        )
    value = None if known is None else getattr(node, known)
    return {} if value is None else {str(known): np.rint(value * ratio).astype(np.int64)}
