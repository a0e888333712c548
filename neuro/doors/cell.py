"""`Cell`: a foreign neuron in coefficients per step, and `piece`, the nodes of a `Network` that fire as it does.

Per step, before anything is compared with the threshold:

    i[t] = alpha i[t-1] + gain_syn x[t]                (x itself without a synapse)
    v[t] = beta v[t-1] + gain i[t] + drive + after s[t-1]

s[t] = v[t] > v_threshold, strictly. Then ``reset``: "hard" sets v = v_reset, "subtract" takes v_threshold off v, "none"
leaves v alone. Every door writes its neuron in this form; time constants are made of it here and nowhere else.

What a node of `neuro.ir` has no field for is built of nodes:

* ``after``, a spike's effect on v one step later, is a connection of each neuron to itself. A framework that takes the
  threshold off one step late, v[t] = beta v[t-1] + x[t] - theta s[t-1], is "subtract" with after = -(1 - beta) theta.
  Through a synapse two such connections are needed, the second, a step later, taking back what the synapse would keep.
* "none" is an integrator whose membrane a neuron without memory (beta = 0) compares with the threshold.
* a synapse before a membrane that does not leak is an integrator before an IF.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from neuro import ir
from neuro.errors import ConversionError
from neuro.ir import Array, Node, Shape

DENSE_FEEDBACK = 2048  # neurons; a matrix that connects each to itself is not larger than this squared
PRECISIONS = ("float64", "float32")


@dataclass(frozen=True)
class Cell:
    """A neuron per step, see the module. Arrays broadcast to the neuron's shape as torch broadcasts.

    v_threshold: None for an integrator. recurrent: a node without state that returns its spikes one step late. before:
    weights that belong to the neuron. synapses: (decay, gain) of synapses whose currents are summed, in place of alpha.
    factor: of what is sent for a spike. note: what the user should know, kept as metadata.
    """

    beta: ArrayLike
    v_threshold: ArrayLike | None = None
    reset: str = "hard"
    gain: ArrayLike = 1.0
    drive: ArrayLike = 0.0
    alpha: ArrayLike | None = None
    gain_syn: ArrayLike = 1.0
    synapses: tuple[tuple[ArrayLike, ArrayLike], ...] = ()
    after: ArrayLike = 0.0
    v_reset: ArrayLike = 0.0
    recurrent: Node | None = None
    before: Node | None = None
    factor: ArrayLike = 1.0
    note: str = ""


@dataclass
class Piece:
    """Nodes that compute a cell. Names are suffixes, "" for the neuron itself. edges: (source, target, steps late).

    enters: where input goes. fires: what sends the spikes, or the membrane where there are none. membrane: whose v is
    the membrane.
    """

    nodes: dict[str, Node] = field(default_factory=dict)
    edges: list[tuple[str, str, int]] = field(default_factory=list)
    enters: str = ""
    fires: str = ""
    membrane: str = ""
    note: str = ""


def below(threshold: ArrayLike, precision: str = "float64") -> Array:
    """The next number below: v > below(theta) is v >= theta in this precision.

    Raises:
        ConversionError: another precision.
    """
    if precision not in PRECISIONS:
        raise ConversionError(f"precision must be one of {PRECISIONS}, got {precision!r}")
    kind: Any = np.float64 if precision == "float64" else np.float32
    return np.asarray(np.nextafter(np.asarray(threshold, kind), kind(-np.inf)), np.float64)


def piece(cell: Cell, shape: Shape, dt: float, rule: str) -> Piece:
    """The nodes of a cell. shape: of its population. dt: seconds. rule: "euler" or "exact".

    Raises:
        ConversionError: decays outside of [0, 1]; some neurons of a layer leak and others do not; a decay of 0 under
            "exact"; a synapse that never decays.
    """
    c = {n: _full(getattr(cell, n), shape, n) for n in ("beta", "gain", "drive", "gain_syn", "after")}
    found = Piece(note=cell.note)
    threshold = None if cell.v_threshold is None else _full(cell.v_threshold, shape, "threshold")
    alpha = None if cell.alpha is None else _full(cell.alpha, shape, "alpha")
    if alpha is not None and not alpha.any():  # a synapse that forgets at once only scales
        c["gain"], alpha = c["gain"] * c["gain_syn"], None
    integrates = _no_leak(c["beta"])
    if integrates and c["drive"].any():
        raise ConversionError("a constant drive of a neuron without leak; put it into the bias of the layer before")
    if alpha is not None and integrates:
        tau, left = _tau(alpha, dt, rule)
        found.nodes["_syn"] = ir.LI(tau_mem=tau, r=c["gain_syn"] / left)
        found.edges.append(("_syn", "", 0))
        found.enters, alpha = "_syn", None
    for k, (decay, gain) in enumerate(cell.synapses):
        _side_by_side(found, f"_syn{k}", _full(decay, shape, "decay"), _full(gain, shape, "gain"), dt, rule)
    resets = threshold is not None and cell.reset != "none"
    spike: dict[str, Any] = {"v_threshold": threshold, "reset": cell.reset} if resets else {}
    if resets and cell.reset == "hard":
        spike["v_reset"] = _full(cell.v_reset, shape, "v_reset")
    if integrates:
        found.nodes[""] = ir.IF(r=c["gain"], **spike) if resets else ir.I(r=c["gain"])
    else:
        tau, left = _tau(c["beta"], dt, rule)
        given: dict[str, Any] = {"tau_mem": tau, "r": c["gain"] / left, "v_leak": c["drive"] / left, **spike}
        if alpha is not None:
            given["tau_syn"], rest = _tau(alpha, dt, rule)
            given["w_in"] = c["gain_syn"] / rest
            found.nodes[""] = ir.CubaLIF(**given) if resets else ir.CubaLI(**given)
        else:
            found.nodes[""] = ir.LIF(**given) if resets else ir.LI(**given)
    if threshold is not None and not resets:
        _compare(found, threshold, dt, rule)
    _close(found, cell, c, alpha, shape)
    if cell.before is not None:
        found.nodes["_input"] = cell.before
        found.edges.append(("_input", found.enters, 0))
        found.enters = "_input"
    if np.asarray(cell.factor).size != 1 or float(np.asarray(cell.factor).item()) != 1.0:
        found.nodes["_factor"] = ir.Scale(_full(cell.factor, shape, "factor"))
        found.edges.append((found.fires, "_factor", 0))
        found.fires = "_factor"
    return found


def _side_by_side(found: Piece, name: str, decay: Array, gain: Array, dt: float, rule: str) -> None:
    """One of several synapses that hear the same input."""
    if _no_leak(decay):
        found.nodes[name] = ir.I(r=gain)
    else:
        tau, left = _tau(decay, dt, rule)
        found.nodes[name] = ir.LI(tau_mem=tau, r=gain / left)
    found.nodes["_in"] = ir.Scale(np.ones(decay.shape))
    found.edges += [("_in", name, 0), (name, "", 0)]
    found.enters = "_in"


def _compare(found: Piece, threshold: Array, dt: float, rule: str) -> None:
    """Spikes of a membrane that is not reset: a neuron of decay 0 sees it and fires."""
    if rule != "euler":
        raise ConversionError("a neuron that is never reset needs a decay of 0; use discretisation='euler'")
    found.nodes["_spikes"] = ir.LIF(tau_mem=np.full(threshold.shape, dt), v_threshold=threshold)
    found.edges.append(("", "_spikes", 0))
    found.fires = "_spikes"


def _close(found: Piece, cell: Cell, c: dict[str, Array], alpha: Array | None, shape: Shape) -> None:
    """Connections of the neurons to themselves and to each other."""
    weight = np.divide(c["after"], c["gain"] * (c["gain_syn"] if alpha is not None else 1.0))
    recurrent = cell.recurrent
    mixed = found.enters != "" and weight.any()
    if mixed and recurrent is not None:
        raise ConversionError("a synapse, a membrane without leak, a late reset and recurrent weights at once")
    if weight.any():
        if isinstance(recurrent, ir.Linear) and not isinstance(recurrent, ir.Affine) and alpha is None:
            recurrent = ir.Linear(recurrent.weight + np.diag(weight.ravel()))
        elif recurrent is None and alpha is None and not mixed:
            recurrent = _own(weight, shape, 0)
        else:
            found.nodes["_late"] = _own(weight if not mixed else c["after"] / c["gain"], shape, 0)
            found.edges += [(found.fires, "_late", 0), ("_late", "" if mixed else found.enters, 1)]
            if alpha is not None:
                found.nodes["_back"] = _own(-alpha * weight, shape, 1)
                if not isinstance(found.nodes["_back"], ir.Linear):
                    found.nodes["_wait"] = ir.Delay(np.array(1))
                    found.edges += [("_back", "_wait", 0), ("_wait", found.enters, 1)]
                else:
                    found.edges.append(("_back", found.enters, 1))
                found.edges.append((found.fires, "_back", 0))
    if recurrent is not None:
        found.nodes["_recurrent"] = recurrent
        found.edges += [(found.fires, "_recurrent", 0), ("_recurrent", found.enters, 1)]


def _own(weight: Array, shape: Shape, late: int) -> Node:
    """Each neuron to itself: a matrix, which chips and kernels know, or a factor for each where it is too large."""
    if len(shape) == 1 and weight.size <= DENSE_FEEDBACK:
        return ir.Linear(np.diag(weight), np.full((weight.size, weight.size), late) if late else None)
    return ir.Scale(weight)


def _no_leak(beta: Array) -> bool:
    if (beta < 0).any() or (beta > 1).any():
        raise ConversionError(f"a decay per step must lie in 0..1, found {beta.min():g}..{beta.max():g}")
    whole = beta == 1
    if whole.any() and not whole.all():
        raise ConversionError("some neurons of the layer leak and others do not; put them into two layers")
    return bool(whole.any())


def _tau(decay: Array, dt: float, rule: str) -> tuple[Array, Array]:
    """(time constant, 1 - the decay that it gives back)."""
    from neuro import discretise

    if (decay < 0).any() or (decay >= 1).any():
        raise ConversionError(f"a synapse's decay per step must lie in 0..1, below 1; found {decay.max():g}")
    if rule == "euler":
        tau = dt / (1.0 - decay)
    elif (decay == 0).any():
        raise ConversionError("a decay of 0 is no exponential; use discretisation='euler'")
    else:
        tau = -dt / np.log(decay)
    return tau, 1.0 - discretise.decay(tau, dt, rule)


def _full(value: ArrayLike, shape: Shape, name: str) -> Array:
    """float64 of the whole shape, by torch's rule of trailing axes, which is the foreign framework's."""
    array = np.asarray(value, np.float64)
    while array.ndim > len(shape) and array.shape[0] == 1:
        array = array[0]
    try:
        return np.array(np.broadcast_to(array, shape))
    except ValueError as cause:
        raise ConversionError(f"{name} has shape {array.shape}, the layer {shape}") from cause
