"""One population on its way to SpiNNaker 2: int8 weights at a scale of their own, everything else in float32.

As py-spinnaker2 converts NIR: the membrane counts in units of the weights, so gains of neuron and synapse go to the
threshold, not to the weights::

    v_unit = unit |gain|                          reals of the Network per unit of v; unit: of a weight
    threshold = v_threshold / v_unit,  v_reset likewise
    i_offset = (drive + gain bias / (1 - alpha)) / v_unit

unit is max |w| / 127, or / 15 where synapses have delays; weights that already lie on a grid which the format holds
keep it, and are exact. Different from there: weights are rounded to the nearest, and v_init is chosen such that v is 0
when the sample arrives, where i_offset has moved it before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from neuro import ir
from neuro.discretise import Coefficients, coefficients
from neuro.hardware.lowering import Bias, Lowered
from neuro.hardware.maps import Map
from neuro.hardware.program import Population, Projection, QuantisationError
from neuro.hardware.quantise import error_of, grid_of, smallest_unit, to_format
from neuro.hardware.spinnaker2.contract import BY_SUBTRACTION, CHIP, TO_V_RESET, bits
from neuro.ir import Array, Network

IntArray = NDArray[np.int64]
OUT_OF_REACH = np.finfo(np.float32).max  # threshold of a population that never fires
COARSE = 0.25  # of the largest integer of a weight: a path that reaches no higher has lost two bits to another
NEAR = 1e-3  # of the threshold: how far from 0 v may start without a word


@dataclass(frozen=True, eq=False)
class Incoming:
    """One projection in reals. map: of kind "dense", "sparse" or "conv", its delays those on the chip."""

    name: str
    node: str
    source: str
    map: Map


@dataclass(frozen=True, eq=False)
class Fitted:
    """A population as the chip holds it. scale: reals of the Network per whole number of its variable "v"."""

    population: Population
    projections: tuple[Projection, ...]
    scale: float
    budget: tuple[QuantisationError, ...]


def fit(network: Network, lowered: Lowered, name: str, skew: dict[str, int], substitutions: list[str]) -> Fitted:
    """Parameters and weights of one population."""
    node = network.nodes[name]
    assert isinstance(node, ir.Neuron)
    raw = coefficients(node, network.dt, network.discretisation)
    c = Coefficients(*(np.asarray(a, dtype=np.float64).reshape(-1) for a in raw))
    gain = c.gain_mem * c.gain_syn
    cuba = isinstance(node, (ir.CubaLI, ir.CubaLIF))
    incoming = _incoming(lowered, name, np.sign(gain), skew, substitutions, kernels=not cuba)
    delayed = any(_delays(d.map).any() for d in incoming)
    fmt = CHIP.formats["weight_delayed" if delayed else "weight"]
    every = np.concatenate([np.zeros(0), *(d.map.weight.reshape(-1) for d in incoming)])
    unit = (grid_of(every, fmt) or smallest_unit(every, fmt) or 1.0) if every.size else 1.0
    v_unit = unit * np.where(gain == 0, 1.0, np.abs(gain))
    weights = [to_format(d.map.weight, unit, fmt) for d in incoming]
    _note_coarse(name, incoming, weights, unit, fmt.high, bool((c.beta == 1.0).all()), substitutions)
    model = _model(cuba, delayed, [d.map.kind for d in incoming])
    params = _params(node, c, gain, v_unit, lowered.biases[name], cuba)
    _start(name, params, c, skew[name], substitutions)
    _note_biases(name, lowered.biases[name], c, substitutions)
    kernels = [d.map.out_shape for d in incoming if d.map.kind == "conv"]
    shape = kernels[0] if kernels else network.shapes[name]
    projections = tuple(
        Projection(d.name, d.node, d.source, name, d.map.kind, w, _synapse_params(d.map, w))
        for d, w in zip(incoming, weights, strict=True)
    )
    held = {n: (v if n == "reset" else bits(v)).astype(np.int64) for n, v in params.items()}
    held["v_unit"] = bits(v_unit).astype(np.int64)
    budget = tuple(
        error_of(d.node, "weight", d.map.weight, w * unit, unit, f"{fmt.bits}-bit weights of '{d.name}'")
        for d, w in zip(incoming, weights, strict=True)
    )
    scale = _scale(node, unit, gain, every, c)
    return Fitted(Population(name, name, model, shape, held), projections, scale, budget)


def _model(cuba: bool, delayed: bool, kinds: list[str]) -> str:
    if kinds and all(kind == "conv" for kind in kinds):
        return "lif_conv2d"
    return ("lif_curr_exp" if cuba else "lif") + ("" if delayed else "_no_delay")


def _incoming(
    lowered: Lowered, name: str, sign: Array, skew: dict[str, int], substitutions: list[str], kernels: bool
) -> tuple[Incoming, ...]:
    """Paths into a population, delays on the chip, rows of neurons with a negative gain turned round."""
    found = []
    for s in lowered.synapses:
        if s.target != name:
            continue
        delay = np.asarray(s.map.delay + skew[name] - skew[s.source] - 1)
        used = np.broadcast_to(delay, s.map.weight.shape)[s.map.weight != 0]
        if used.size and used.min() < 0:
            substitutions.append(
                f"'{s.source}' -> '{name}' closes a loop with fewer steps of delay than projections: its spikes arrive "
                f"up to {-int(used.min())} step(s) late; add a Delay of that many steps to the loop to make it exact"
            )
        found.append(Incoming(s.name, s.node, s.source, replace(s.map, delay=np.maximum(delay, 0))))
    shared = kernels and (sign > 0).all() and all(_is_kernel(d.map) for d in found)
    return tuple(d if shared else replace(d, map=_listed(d.map, sign)) for d in found)


def _is_kernel(m: Map) -> bool:
    return m.kind == "conv" and m.groups == 1 and m.dilation == (1, 1) and not m.delay.any()


def _listed(m: Map, sign: Array) -> Map:
    m = m if m.kind == "dense" else m.as_sparse()
    factor = sign[:, None] if m.kind == "dense" else sign[m.row]
    return replace(m, weight=m.weight * factor)


def _delays(m: Map) -> IntArray:
    """Delay of each synapse that has a weight."""
    found: IntArray = np.broadcast_to(m.delay, m.weight.shape)[m.weight != 0]
    return found


def _synapse_params(m: Map, weight_q: IntArray) -> dict[str, IntArray]:
    if m.kind == "conv":
        return {
            "stride": np.array(m.stride),
            "padding": np.array(m.padding),
            "dilation": np.array(m.dilation),
            "groups": np.array(m.groups),
        }
    params = {}
    if m.kind == "sparse":
        assert m.row is not None
        assert m.col is not None
        params = {"row": m.row, "col": m.col}
    delay = np.where(weight_q != 0, np.broadcast_to(m.delay, weight_q.shape), 0)  # no synapse, no delay
    return params | ({"delay_steps": delay} if delay.any() else {})


def _params(
    node: ir.Neuron, c: Coefficients, gain: Array, v_unit: Array, biases: tuple[Bias, ...], cuba: bool
) -> dict[str, Array]:
    """The model's parameters in its own units."""
    n = gain.size
    full = sum((b.value for b in biases), np.zeros(n)) * gain / (1.0 - c.alpha)  # what a bias drives v with at last
    table: dict[str, Array] = {
        "alpha_decay": c.beta,
        "i_offset": (c.drive + full) / v_unit,
        "threshold": np.full(n, OUT_OF_REACH),
        "v_reset": np.zeros(n),
        "v_init": np.zeros(n),
        "reset": np.array(TO_V_RESET),
    }
    if node.spiking:
        table["threshold"] = np.asarray(node.v_threshold).reshape(-1) / v_unit  # type: ignore[attr-defined]
        table["v_reset"] = np.asarray(node.v_reset).reshape(-1) / v_unit  # type: ignore[attr-defined]
        table["reset"] = np.array(BY_SUBTRACTION if node.reset == "subtract" else TO_V_RESET)  # type: ignore[attr-defined]
    if cuba:
        table |= {"exc_decay": c.alpha, "inh_decay": c.alpha}
    return table


def _start(name: str, params: dict[str, Array], c: Coefficients, skew: int, substitutions: list[str]) -> None:
    """Choose v_init so that v is 0 after the steps before the sample arrives; say so where that cannot be."""
    offset = params["i_offset"]
    if not offset.any() or not skew:
        return
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        wanted = -offset * sum((c.beta ** -float(k) for k in range(1, skew + 1)), np.zeros(offset.size))
    wanted = np.where(np.isfinite(wanted) & (np.abs(wanted) < OUT_OF_REACH), wanted, 0.0)
    best, left, fired = np.zeros(offset.size), *_before(np.zeros(offset.size), params, skew)
    after, early = _before(wanted, params, skew)
    better = (early < fired) | ((early == fired) & (np.abs(after) < np.abs(left)))
    params["v_init"] = np.where(better, wanted, best)
    left, fired = np.where(better, after, left), np.where(better, early, fired)
    size = np.where(params["threshold"] < OUT_OF_REACH, np.abs(params["threshold"]), np.abs(offset))
    off = np.abs(left) / np.where(size > 0, size, 1.0)
    if (off > NEAR).any() or fired.any():
        substitutions.append(
            f"{int(((off > NEAR) | (fired > 0)).sum())} neuron(s) of '{name}' cannot be held at 0 in the {skew} "
            f"step(s) before the sample reaches them: v starts up to {off.max():.2g} of the threshold away, "
            f"{int(fired.sum())} spike(s) too early; make the bias smaller or the path to it shorter"
        )


def _before(start: Array, params: dict[str, Array], skew: int) -> tuple[Array, IntArray]:
    """v and spikes after so many silent steps, in the chip's float32."""
    v = start.astype(np.float32)
    alpha, offset, threshold, reset = (
        params[n].astype(np.float32) for n in ("alpha_decay", "i_offset", "threshold", "v_reset")
    )
    fired = np.zeros(v.size, np.int64)
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(skew):
            v = alpha * v + offset
            over = v > threshold
            fired += over
            v = np.where(over, v - threshold if params["reset"] == BY_SUBTRACTION else reset, v)
    return np.nan_to_num(v.astype(np.float64)), fired


def _note_coarse(
    name: str,
    incoming: tuple[Incoming, ...],
    weights: list[IntArray],
    unit: float,
    high: int,
    keeps: bool,
    substitutions: list[str],
) -> None:
    """Say where more is lost than rounding to the format's bits: another path's large weights set the unit.

    A path that rounds to nothing; and, where neurons have no leak, so that what is rounded adds up over a sample, one
    that is rounded and left with COARSE of the range or less.
    """
    for d, w in zip(incoming, weights, strict=True):
        most = int(np.abs(w).max(initial=0))
        rounded = d.map.weight.any() and not np.array_equal(w * unit, d.map.weight)
        if not rounded or (most and not (keeps and most <= COARSE * high)):
            continue
        largest = max(zip(incoming, weights, strict=True), key=lambda pair: int(np.abs(pair[1]).max(initial=0)))[0]
        left = f"no weight above {most}" if most else "no weight at all"
        why = f"; '{name}' has no leak, what is rounded adds up" if keeps and most else ""
        substitutions.append(
            f"'{d.name}' is left with {left} of the {high} that the chip holds, because '{largest.name}', with larger "
            f"weights, shares its unit{why}; bring the weights of both closer together"
        )


def _note_biases(name: str, biases: tuple[Bias, ...], c: Coefficients, substitutions: list[str]) -> None:
    if any(b.start for b in biases):
        substitutions.append(
            f"a bias into '{name}' acts from the first step on, where a Delay would hold it back by "
            f"{max(b.start for b in biases)} step(s)"
        )
    if biases and (c.alpha > 0).any():
        substitutions.append(
            f"the bias of '{name}' acts on the membrane in full from the first step on, where the synapse would bring "
            "it in with its time constant (i_offset has no synapse)"
        )


def _scale(node: ir.Neuron, unit: float, gain: Array, weights: Array, c: Coefficients) -> float:
    """Size of one in the whole-numbered variable "v": 2^-20 of the largest threshold, or of a readout's reach."""
    if node.spiking:
        size = float(np.abs(np.asarray(node.v_threshold)).max())  # type: ignore[attr-defined]
    else:
        size = float(np.abs(weights).max(initial=unit)) * float(np.abs(gain).max(initial=1.0)) + float(
            np.abs(c.drive).max()
        )
    return (size or 1.0) / (1 << 20)
