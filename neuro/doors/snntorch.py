"""From snnTorch (Eshraghian et al. 2023, Proc. IEEE 111:1016; version 1.0.0 read and run).

Leaky            u[t] = beta u[t-1] + x[t] - theta s[t-1];  s[t] = u[t] > theta              ("subtract", its default)
                 u[t] = beta (1 - s[t-1]) u[t-1] + x[t]                                      ("zero")
Synaptic         i[t] = alpha i[t-1] + x[t];  u[t] = beta u[t-1] + i[t] - theta s[t-1]
Lapicque         u[t] = (1 - T / RC) u[t-1] + (T / C) x[t] - theta s[t-1], T = time_step
RLeaky           as Leaky with x[t] + V s[t-1]; RSynaptic as Synaptic with it
Alpha            e[t] = alpha e[t-1] + x[t];  h[t] = beta h[t-1] - x[t];  u[t] = k (e[t] + h[t]),
                 k = 1 + ln alpha / (ln beta - ln alpha)                                     ("none")
StateLeaky       u[t] = exp(-1 / tau) u[t-1] + x[t], tau = 1 / (1 - beta), never reset; LinearLeaky with a Linear in
                 front; all steps at once, as a sum over the past there and as a recursion here: equal but for rounding

beta and alpha are clamped to 0..1. The reset is late: the threshold leaves u one step after the spike and does not
decay in between, so u[t] here is ours plus -(1 - beta) theta s[t-1], a connection of each neuron to itself
(`neuro.doors.cell`). ``late_reset="ignore"`` leaves that connection out: then theta decays by beta before it counts,
as on chips that reset at once; it is no longer the same network. Leaky's "zero" is our hard reset to 0.

reset_delay=False with "zero": our hard reset. With "subtract": ours as long as no membrane is still above its threshold
after the threshold was taken off; there snnTorch lets the next spike wait for two thresholds, which nothing here does.
So it is refused unless ``overshoot="accept"``.
"none": a membrane that is only read, and compared.

What cannot be the same, and is refused by name: "zero" with a late reset in Synaptic, Lapicque, RLeaky, RSynaptic
(it throws away the input of the step after a spike; use "subtract"); Alpha with a reset; inhibition; state_quant;
RSynaptic with reset_delay=False (it fails in snnTorch 1.0.0 itself); kernel_truncation_steps; SLSTM, SConv2dLSTM
(gates), LeakyParallel (its membrane is cut at 0), AssociativeLeaky, DeltaLeaky.
A membrane that is returned is read here after the reset, in snnTorch before it: they differ at spikes.
A spike is s = (u > theta) in both.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor, nn

from neuro import ir
from neuro.doors.build import Door, Options, open_door
from neuro.doors.cell import Cell
from neuro.doors.layers import numbers
from neuro.errors import ConversionError
from neuro.ir import Array, Network, Node

LATE_RESETS = ("exact", "ignore")
OVERSHOOTS = ("refuse", "accept")
AT_ONCE = "reset_delay=False: equal to snnTorch while no membrane stays above its threshold after the reset"


def from_snntorch(
    module: nn.Module,
    sample: Any,
    *,
    dt: float = 1e-3,
    axes: str | None = None,
    readout: str | None = None,
    high: int = 1,
    discretisation: str = "euler",
    late_reset: str = "exact",
    overshoot: str = "refuse",
) -> Network:
    """A snnTorch module as a `Network` that fires the same spikes, step for step.

    Args:
        module: any nn.Module whose forward computes one step, or loops over steps. It is not changed.
        sample: an input it can take, array or tensor. axes: of the sample, "TB" (time, batch, ...), "BT" or "B" (one
            step, or the same in every step); None to find out from what the module does with it.
        dt: seconds per step; snnTorch has none. readout: how time becomes one score, see `neuro.ir.Output`; None:
            "count" of spikes, "sum" of a membrane. high: largest value of an input channel in a step.
        discretisation: how beta becomes a time constant: "euler", tau = dt / (1 - beta), as snnTorch writes NIR, or
            "exact", tau = -dt / ln(beta), as its documentation says. The steps are the same.
        late_reset: "exact" or "ignore"; overshoot: "refuse" or "accept"; see the module.

    Raises:
        UnsupportedLayer: every piece that has no counterpart, all of them.
        ConversionError: the sample does not suit the module, or its axes cannot be told.
        NetworkError: an argument out of range.
    """
    if late_reset not in LATE_RESETS:
        raise ConversionError(f"late_reset must be one of {LATE_RESETS}, got {late_reset!r}")
    if overshoot not in OVERSHOOTS:
        raise ConversionError(f"overshoot must be one of {OVERSHOOTS}, got {overshoot!r}")
    options = Options(dt, discretisation, late_reset=late_reset, overshoot=overshoot)
    return open_door(DOOR, module, sample, options=options, axes=axes, readout=readout, high=high)


ALL_STEPS = ("StateLeaky", "LinearLeaky")  # neurons that take all steps at once


def _clamped(tensor: Any) -> Array:
    return np.clip(numbers(tensor), 0.0, 1.0)


def _cell(module: Any, options: Options, beta: Array, **more: Any) -> Cell:
    """Threshold and reset, which all of them share."""
    bad = []
    if module.inhibition:
        bad.append("inhibition lets one neuron of a layer fire; set inhibition=False")
    if module.state_quant:
        bad.append("state_quant rounds the membrane; leave it out, chips round it anyway")
    threshold, reset = numbers(module.threshold), module.reset_mechanism
    delayed = getattr(module, "reset_delay", True)
    late, note = np.zeros(1), ""
    if reset == "zero" and delayed and type(module).__name__ != "Leaky" and not _subclass(module, "Leaky"):
        bad.append(
            "reset_mechanism='zero' with a late reset throws away the input of the step after a spike; "
            "use 'subtract', or reset_delay=False where the neuron has it"
        )
    if reset == "zero" and (threshold < 0).any():
        bad.append("reset_mechanism='zero' with a negative threshold; make it positive")
    if reset == "subtract" and delayed and options.late_reset == "exact":
        late = -(1.0 - beta) * threshold
    if reset == "subtract" and delayed and options.late_reset == "ignore":
        note = "late_reset='ignore': the threshold decays with the membrane, in snnTorch it does not"
    if reset == "subtract" and not delayed:
        note = AT_ONCE
        if options.overshoot == "refuse":
            bad.append(
                "reset_delay=False with 'subtract' makes a membrane that stays above its threshold wait for two; leave "
                "reset_delay=True, or say overshoot='accept' if no membrane gets that far"
            )
    if bad:
        raise ConversionError("; ".join(bad))
    kind = {"zero": "hard", "subtract": "subtract", "none": "none"}[reset]
    factor = numbers(getattr(module, "graded_spikes_factor", 1.0))
    return Cell(beta, threshold, kind, after=late, factor=factor, note=note, **more)


def _subclass(module: Any, name: str) -> bool:
    return any(cls.__name__ == name for cls in type(module).__mro__)


def _leaky(module: Any, options: Options) -> Cell:
    return _cell(module, options, _clamped(module.beta))


def _synaptic(module: Any, options: Options) -> Cell:
    return _cell(module, options, _clamped(module.beta), alpha=_clamped(module.alpha))


def _lapicque(module: Any, options: Options) -> Cell:
    r, c, step = numbers(module.R), numbers(module.C), numbers(module.time_step)
    return _cell(module, options, 1.0 - step / (r * c), gain=r * (1.0 / (r * c)) * step)


def _rleaky(module: Any, options: Options) -> Cell:
    beta = _clamped(module.beta)
    recurrent, bias = _recurrent(module)
    drive = np.zeros(1)
    if bias is not None and (beta < 1).all() and bias.ndim == 1 and not isinstance(recurrent, ir.Conv2d):
        drive, bias = bias, None
    return _cell(module, options, beta, recurrent=_biased(recurrent, bias), drive=drive)


def _rsynaptic(module: Any, options: Options) -> Cell:
    if not module.reset_delay:
        raise ConversionError("RSynaptic with reset_delay=False does not run in snnTorch 1.0.0; leave it out")
    recurrent = _biased(*_recurrent(module))
    return _cell(module, options, _clamped(module.beta), alpha=_clamped(module.alpha), recurrent=recurrent)


def _recurrent(module: Any) -> tuple[Node, Array | None]:
    """(weights, bias) of a layer's connections to itself."""
    layer = module.recurrent
    if isinstance(layer, nn.Linear):
        return ir.Linear(numbers(layer.weight)), None if layer.bias is None else numbers(layer.bias)
    if isinstance(layer, nn.Conv2d):
        bias = np.zeros(layer.out_channels) if layer.bias is None else numbers(layer.bias)
        return ir.Conv2d(numbers(layer.weight), layer.stride, layer.padding, layer.dilation, layer.groups, bias), None  # type: ignore[arg-type]
    weight = numbers(module.V)
    if weight.ndim == 1:
        return ir.Linear(np.diag(weight)), None
    return ir.Scale(weight), None


def _biased(recurrent: Node, bias: Array | None) -> Node:
    if bias is None or not bias.any():
        return recurrent
    assert isinstance(recurrent, ir.Linear)
    return ir.Affine(recurrent.weight, bias=bias)


def _alpha(module: Any, options: Options) -> Cell:
    if module.reset_mechanism != "none":
        raise ConversionError(
            f"Alpha with reset_mechanism={module.reset_mechanism!r} clears or cuts its synapses at a spike, which none "
            "here does; use reset_mechanism='none', or Synaptic"
        )
    alpha, beta = _clamped(module.alpha), _clamped(module.beta)
    with np.errstate(divide="ignore"):
        gain = np.log(alpha) / (np.log(beta) - np.log(alpha)) + 1
    return _cell(module, options, np.zeros(1), gain=gain, synapses=((alpha, 1.0), (beta, -1.0)))


def _state_leaky(module: Any, options: Options) -> Cell:
    if module.kernel_truncation_steps is not None:
        raise ConversionError("kernel_truncation_steps forgets all at once after so many steps; leave it None")
    if module.state_quant:
        raise ConversionError("state_quant rounds the membrane; leave it out, chips round it anyway")
    linear = getattr(module, "linear", None)
    given: dict[str, Any] = {}
    if linear is not None:
        weight = numbers(linear.weight)
        given["before"] = ir.Linear(weight) if linear.bias is None else ir.Affine(weight, bias=numbers(linear.bias))
    beta = np.exp(-1.0 / numbers(module.tau))
    if not module.output:
        return Cell(beta, **given)
    return Cell(beta, numbers(module.threshold), "none", factor=numbers(module.graded_spikes_factor), **given)


_STATES = {"Leaky": ("v",), "Lapicque": ("v",), "RLeaky": ("v",), "Synaptic": ("state", "v"),
           "RSynaptic": ("state", "v")}  # fmt: skip


def _outputs(module: Any, out: Any) -> list[tuple[str, Tensor]]:
    if type(module).__name__ in ALL_STEPS:
        return [("", out)] if isinstance(out, Tensor) else [("", out[0]), ("v", out[1])]
    if isinstance(out, Tensor):
        return [("", out), ("v", module.mem)]
    return [("", out[0]), *(("state", t) for t in out[1:-1]), ("v", out[-1])]


def _fresh(module: Any) -> None:
    if hasattr(module, "reset_mem"):
        module.reset_mem()


_REFUSED = {
    "SLSTM": "gates multiply states, no neuron here does; use Leaky or Synaptic",
    "SConv2dLSTM": "gates multiply states, no neuron here does; use Leaky or Synaptic",
    "LeakyParallel": "its membrane is cut at 0 (a ReLU), and no neuron here has a floor; use StateLeaky or Leaky",
    "AssociativeLeaky": "its state is a matrix of keys and values; use StateLeaky or Leaky",
    "DeltaLeaky": "it fires where its membrane changed by so much in either direction; use Leaky, or train "
    "neuro.nn.SigmaDelta",
}
DOOR = Door(
    "snnTorch",
    ("snntorch",),
    {
        "Leaky": _leaky,
        "Synaptic": _synaptic,
        "Lapicque": _lapicque,
        "RLeaky": _rleaky,
        "RSynaptic": _rsynaptic,
        "Alpha": _alpha,
        "StateLeaky": _state_leaky,
        "LinearLeaky": _state_leaky,
    },
    _outputs,
    _fresh,
    lambda module: "TB" if type(module).__name__ in ALL_STEPS else None,
    refused=_REFUSED,
)
__all__ = ["from_snntorch"]
