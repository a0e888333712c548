"""From Norse (Pehle & Pedersen 2021, Zenodo 4422025; version 1.1.0 read and run): explicit Euler, dt in seconds.

LIFCell, LIF        i[t] = (1 - dt / tau_syn) i[t-1] + x[t];  v[t] = v[t-1] + dt / tau_mem (v_leak - v[t-1] + i[t])
LIFRecurrentCell,   the same with x = W_in x[t] + W_rec z[t-1]
LIFRecurrent
LIFBoxCell          v[t] = v[t-1] + dt / tau_mem (v_leak - v[t-1] + x[t])
LICell, LI,         i, v as LIF, v is sent; LILinearCell with weights before it; LIBoxCell as LIFBoxCell
LILinearCell
IAFCell, IAF        v[t] = v[t-1] + x[t]

z = v > v_th, then v = v_reset (LIFBox also v - v_th). The current that the membrane sees is the one after the input has
come and before it decays, ours exactly; Norse's state holds it after the decay. A membrane starts at v_leak (IAF at
v_reset); ours starts at 0, so all potentials are counted from there, which changes no spike.

What cannot be the same, and is refused by name: v_leak other than 0 where the membrane itself is sent, or where the
threshold is taken off; two time steps of which one overshoots; adaptive, conductance-based, refractory, LSNN,
Izhikevich and AdEx neurons.

RecurrentSequential: x[t] + y[t-1] enters its first layer, y is what its layer ``output_modules`` sends. Where a module
computes one step, its state is handed from step to step here, as Norse's user does.
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
from neuro.ir import Array, Network


def from_norse(
    module: nn.Module,
    sample: Any,
    *,
    dt: float | None = None,
    axes: str | None = None,
    readout: str | None = None,
    high: int = 1,
) -> Network:
    """A Norse module as a `Network` that fires the same spikes, step for step.

    Args:
        module: SequentialState, Lift, or any nn.Module that computes one step or loops over steps. It is not changed.
        sample, axes, readout, high: as `neuro.from_snntorch`; layers with time (LIF, not LIFCell) take "TB".
        dt: seconds per step of the network; None for that of the module's first neuron. Where a neuron has another,
            its decay per step stays and its time constants move.

    Raises:
        UnsupportedLayer: every piece that has no counterpart, all of them.
        ConversionError: the sample does not suit the module, or its axes cannot be told.
    """
    if dt is None:
        steps: list[Any] = [m.dt for m in module.modules() if DOOR.neuron(m) and hasattr(m, "dt")]
        dt = float(steps[0]) if steps else 1e-3
    return open_door(DOOR, module, sample, options=Options(dt, "euler"), axes=axes, readout=readout, high=high)


def _kept(module: Any, inverse: Any) -> Array:
    return 1.0 - float(module.dt) * numbers(inverse)


def _spiking(module: Any, start: Any, **more: Any) -> Cell:
    """Threshold and reset, potentials counted from where the membrane starts."""
    p = module.p
    first, reset = numbers(start), numbers(p.v_reset)
    method = getattr(p, "reset_method", None)
    if method is not None and method.__name__ == "reset_subtract":
        if first.any():
            raise ConversionError("v_leak other than 0 with reset_subtract; set v_leak=0")
        return Cell(v_threshold=numbers(p.v_th), reset="subtract", **more)
    if method is not None and method.__name__ != "reset_value":
        raise ConversionError(f"reset_method {method.__name__}; known: reset_value, reset_subtract")
    return Cell(v_threshold=numbers(p.v_th) - first, v_reset=reset - first, **more)


def _lif(module: Any, options: Options) -> Cell:
    beta = _kept(module, module.p.tau_mem_inv)
    alpha = _kept(module, module.p.tau_syn_inv)
    return _spiking(module, module.p.v_leak, beta=beta, gain=1.0 - beta, alpha=alpha)


def _lif_recurrent(module: Any, options: Options) -> Cell:
    beta = _kept(module, module.p.tau_mem_inv)
    weights = {
        "before": ir.Linear(numbers(module.input_weights)),
        "recurrent": ir.Linear(numbers(module.recurrent_weights)),
    }
    alpha = _kept(module, module.p.tau_syn_inv)
    return _spiking(module, module.p.v_leak, beta=beta, gain=1.0 - beta, alpha=alpha, **weights)


def _lif_box(module: Any, options: Options) -> Cell:
    beta = _kept(module, module.p.tau_mem_inv)
    return _spiking(module, module.p.v_leak, beta=beta, gain=1.0 - beta)


def _li(module: Any, options: Options, synapse: bool = True) -> Cell:
    if numbers(module.p.v_leak).any():
        raise ConversionError("v_leak other than 0 of a membrane that is sent: it would start at 0; set v_leak=0")
    beta = _kept(module, module.p.tau_mem_inv)
    weights = getattr(module, "input_weights", None)
    return Cell(
        beta,
        gain=1.0 - beta,
        alpha=_kept(module, module.p.tau_syn_inv) if synapse else None,
        before=None if weights is None else ir.Linear(numbers(weights)),
    )


def _li_box(module: Any, options: Options) -> Cell:
    return _li(module, options, synapse=False)


def _iaf(module: Any, options: Options) -> Cell:
    return _spiking(module, module.p.v_reset, beta=np.ones(1))


def _outputs(module: Any, out: Any) -> list[tuple[str, Tensor]]:
    spikes, state = out
    names = getattr(state, "_fields", ())
    slots = {"v": "v", "z": ""}
    return [("", spikes), *((slots.get(n, "state"), getattr(state, n)) for n in names if n != "z")]


def _fresh(module: Any) -> None:
    """A RecurrentSequential of one step gets the state that it returned in the step before."""
    if type(module).__name__ != "RecurrentSequential":
        return
    last: list[Any] = []

    def give(part: Any, args: Any, kwargs: Any) -> Any:
        state = args[1] if len(args) > 1 else kwargs.get("state")
        return None if state is not None or not last else ((args[0], last[0]), {})

    def take(part: Any, args: Any, out: Any) -> None:
        last[:] = [out[1]]

    module.register_forward_pre_hook(give, with_kwargs=True)
    module.register_forward_hook(take)


TIMED = ("LIF", "LIFRecurrent", "LI", "IAF")
DOOR = Door(
    "Norse",
    ("norse",),
    {
        "LIFCell": _lif,
        "LIF": _lif,
        "LIFRecurrentCell": _lif_recurrent,
        "LIFRecurrent": _lif_recurrent,
        "LIFBoxCell": _lif_box,
        "LICell": _li,
        "LI": _li,
        "LILinearCell": _li,
        "LIBoxCell": _li_box,
        "IAFCell": _iaf,
        "IAF": _iaf,
    },
    _outputs,
    _fresh,
    lambda module: "TB" if type(module).__name__ in TIMED else None,
    inside=frozenset({"SequentialState", "Lift", "RecurrentSequential"}),
    loops=frozenset({"RecurrentSequential"}),
)
__all__ = ["from_norse"]
