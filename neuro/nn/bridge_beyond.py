"""`neuro.nn.bridge` for the neurons beyond integrate-and-fire, one row per layer type and per node type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from neuro import discretise, ir
from neuro.errors import ConversionError
from neuro.ir import Array, Edge, Network, Node
from neuro.nn.integer import IntegerLIF
from neuro.nn.parallel import ParallelLIF
from neuro.nn.resonate import ResonateAndFire
from neuro.nn.sigma_delta import Delta, I, SigmaDelta
from neuro.nn.ternary import TernaryLIF


class Draft(Protocol):
    """What of the network being written a row needs. sends: of a layer that is two nodes, the one whose spikes leave
    it; inner: edges inside of a layer."""

    dt: float
    rule: str
    nodes: dict[str, Node]
    inner: dict[str, list[Edge]]
    sends: dict[str, str]


def array(tensor: Tensor) -> Array:
    """float64 values of a tensor."""
    values: Array = tensor.detach().double().numpy()
    return values


def constant(decay: Array, dt: float, rule: str) -> tuple[Array, Array]:
    """(tau, 1 - the decay that tau gives back) of a decay per step."""
    if (decay >= 1.0).any():
        raise ConversionError("a decay of 1 has no time constant; use an IF")
    if rule == "exact":
        # exp(-1000) is 0 in float64: a decay of 0 is a time constant far below the step
        with np.errstate(divide="ignore"):
            tau = np.where(decay > 0.0, -dt / np.log(decay), dt / 1000.0)
    else:
        tau = dt / (1.0 - decay)
    return tau, 1.0 - discretise.decay(tau, dt, rule)


def _resonate(draft: Draft, name: str, layer: ResonateAndFire) -> None:
    period, tau = array(layer.value("period")) * draft.dt, constant(array(layer.value("beta")), draft.dt, draft.rule)
    draft.nodes[name] = ir.ResonateAndFire(tau[0], period, array(layer.value("v_threshold")), layer.resets)


def _delta(draft: Draft, name: str, layer: Delta) -> None:
    theta = array(layer.value("v_threshold"))
    if isinstance(layer, SigmaDelta):
        bias = array(layer.value("bias"))
        draft.nodes[name] = ir.SigmaDelta(theta, bias, layer.activation, layer.cumulative)
    else:
        draft.nodes[name] = ir.Delta(theta, layer.cumulative)


def _integrator(draft: Draft, name: str, layer: I) -> None:
    draft.nodes[name] = ir.I(array(layer.value("gain")))


def _ternary(draft: Draft, name: str, layer: TernaryLIF) -> None:
    names = ("beta", "gain", "drive", "v_threshold", "v_threshold_low", "v_reset")
    beta, gain, drive, *rest = (array(layer.value(n)) for n in names)
    tau, left = constant(beta, draft.dt, draft.rule)
    draft.nodes[name] = ir.TernaryLIF(tau, rest[0], rest[1], gain / left, drive / left, rest[2])


def _parallel(draft: Draft, name: str, layer: ParallelLIF) -> None:
    """An LI, and a LIF that keeps nothing from step to step: it compares."""
    c = {n: array(layer.value(n)) for n in ("beta", "gain", "drive", "v_threshold")}
    tau, left = constant(c["beta"], draft.dt, draft.rule)
    draft.nodes[name] = ir.LI(tau, c["gain"] / left, c["drive"] / left)
    fires = f"{name}_fires"
    draft.nodes[fires] = ir.LIF(constant(np.array(0.0), draft.dt, draft.rule)[0], c["v_threshold"])
    draft.sends[name], draft.inner[name] = fires, [(name, fires)]


def _integer(draft: Draft, name: str, layer: IntegerLIF) -> None:
    raise ConversionError("it sends integers; neuro.nn.unfold.unfold writes it as neurons that send spikes")


def uniform(**given: Array) -> dict[str, Any]:
    """One number where all neurons share it."""
    return {n: v.flat[0] if (v == v.flat[0]).all() else v for n, v in given.items()}


def _firing(options: dict[str, Any], *names: str) -> dict[str, Any]:
    """Of the options for every neuron, those that a kind of neuron takes."""
    return {n: options[n] for n in names if n in options}


def _import_resonate(
    node: ir.ResonateAndFire, network: Network, dtype: torch.dtype, options: dict[str, Any]
) -> nn.Module:
    beta = discretise.coefficients(node, network.dt, network.discretisation).beta
    given = uniform(period=node.period / network.dt, beta=beta, v_threshold=node.v_threshold)
    return ResonateAndFire(**given, resets=node.resets, **_firing(options, "surrogate", "detach"))


def _import_ternary(node: ir.TernaryLIF, network: Network, dtype: torch.dtype, options: dict[str, Any]) -> nn.Module:
    c = discretise.coefficients(node, network.dt, network.discretisation)
    given = uniform(
        beta=c.beta, gain=c.gain_mem, drive=c.drive, v_threshold=node.v_threshold,
        v_threshold_low=node.v_threshold_low, v_reset=node.v_reset,
    )  # fmt: skip
    return TernaryLIF(**given, **_firing(options, "surrogate", "detach"))


def _import_delta(node: ir.Delta | ir.SigmaDelta, *_: Any) -> nn.Module:
    if isinstance(node, ir.Delta):
        return Delta(**uniform(v_threshold=node.v_threshold), cumulative=node.cumulative)
    given = uniform(v_threshold=node.v_threshold, bias=node.bias)
    return SigmaDelta(**given, activation=node.activation, cumulative=node.cumulative)


EXPORT: dict[type[nn.Module], Callable[[Any, str, Any], None]] = {
    ResonateAndFire: _resonate,
    Delta: _delta,
    I: _integrator,
    TernaryLIF: _ternary,
    ParallelLIF: _parallel,
    IntegerLIF: _integer,
}
IMPORT: dict[type[Node], Callable[..., Any]] = {
    ir.ResonateAndFire: _import_resonate,
    ir.TernaryLIF: _import_ternary,
    ir.Delta: _import_delta,
    ir.SigmaDelta: _import_delta,
    ir.I: lambda node, *_: I(**uniform(gain=node.r)),
}
