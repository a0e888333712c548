"""From sinabs (SynSense, Apache-2.0; version 3.1.3 read and run): time constants in steps, exact exponentials.

LIF          i[t] = a (i[t-1] + x[t]), a = exp(-1 / tau_syn)       (x[t] where tau_syn is None)
             v[t] = b v[t-1] + (1 - b) i[t], b = exp(-1 / tau_mem)  (norm_input=False: without the factor 1 - b)
IAF          b = 1, without the factor;  ExpLeak  the membrane of LIF is sent
LIFRecurrent, IAFRecurrent  x[t] + rec_connect(s[t-1]), rec_connect a Linear or Linear between Flatten and Unflatten
...Squeeze   the same, batch and time in one axis (sample and axes="B" then hold batch * time)

s = v >= theta with SingleSpike (and MaxSpike(1)); MembraneSubtract takes theta off, MembraneReset sets v = 0. A spike
needs v > theta in a `Network`, so theta becomes the next number below it, see `neuro.doors.spikingjelly`. tau in steps
is an exponential here and Euler's in SpikingJelly: LIF(tau_mem=2) keeps 0.607, LIFNode(tau=2.) 0.5.

What cannot be the same, and is refused by name: MultiSpike, sinabs' default, which fires several spikes in a step (set
spike_fn=SingleSpike); min_v_mem, a floor under the membrane; MembraneReset(reset_value) other than 0, which sinabs adds
to neurons that did not fire as well; ALIF; SpikingMaxPooling2dLayer; recurrent biases through a synapse are kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor, nn

from neuro import ir
from neuro.doors.build import Door, Options, open_door
from neuro.doors.cell import Cell, below
from neuro.doors.layers import numbers
from neuro.errors import ConversionError
from neuro.ir import Network, Node


def from_sinabs(
    module: nn.Module,
    sample: Any,
    *,
    dt: float = 1e-3,
    axes: str | None = None,
    readout: str | None = None,
    high: int = 1,
    precision: str = "float64",
) -> Network:
    """A sinabs module (or the ``spiking_model`` of its Network) as a `Network` that fires the same spikes.

    Args:
        module: it is not changed. sample, axes, readout, high: as `neuro.from_snntorch`; layers take "BT" (batch,
            time, ...), squeezed ones "B" with batch and time in one axis.
        dt: seconds per step; sinabs has none. precision: "float64" or "float32", see `neuro.doors.spikingjelly`.

    Raises:
        UnsupportedLayer: every piece that has no counterpart, all of them.
        ConversionError: the sample does not suit the module, or its axes cannot be told.
    """
    rule = "exact"
    spiking = getattr(module, "spiking_model", None)
    module = spiking if isinstance(spiking, nn.Module) else module
    options = Options(dt, rule, precision)
    return open_door(DOOR, module, sample, options=options, axes=axes, readout=readout, high=high)


def _cell(module: Any, options: Options) -> Cell:
    bad = []
    beta = numbers(module.alpha_mem_calculated)
    given: dict[str, Any] = {"gain": 1.0 - beta if module.norm_input else 1.0}
    if module.alpha_syn_calculated is not None:
        given["alpha"] = given["gain_syn"] = numbers(module.alpha_syn_calculated)
    if module.min_v_mem is not None:
        bad.append("min_v_mem is a floor under the membrane, which nothing here has; set min_v_mem=None")
    if module.spike_fn is None:
        if bad:
            raise ConversionError("; ".join(bad))
        return Cell(beta, **given)
    kind = getattr(module.spike_fn, "__name__", type(module.spike_fn).__name__)
    if not (kind == "SingleSpike" or (kind == "MaxSpike" and module.spike_fn.max_num_spikes_per_bin == 1)):
        bad.append(f"spike_fn {kind} fires several spikes in a step; set spike_fn=sinabs.activation.SingleSpike")
    threshold = numbers(module.spike_threshold)
    reset, late = type(module.reset_fn).__name__, np.zeros(1)
    if reset == "MembraneSubtract":
        if module.reset_fn.subtract_value is not None:
            late = beta * (threshold - float(module.reset_fn.subtract_value))
    elif reset != "MembraneReset" or module.reset_fn.reset_value != 0:
        bad.append(f"reset_fn {module.reset_fn}; known: MembraneSubtract() and MembraneReset(0.)")
    if hasattr(module, "rec_connect"):
        given["recurrent"] = _recurrent(module.rec_connect)
    if bad:
        raise ConversionError("; ".join(bad))
    kind = "subtract" if reset == "MembraneSubtract" else "hard"
    return Cell(beta, below(threshold, options.precision), kind, after=late, **given)


def _recurrent(module: nn.Module) -> Node:
    parts = [m for m in module.modules() if not isinstance(m, (nn.Sequential, nn.Flatten, nn.Unflatten, nn.Identity))]
    if len(parts) != 1 or not isinstance(parts[0], nn.Linear):
        raise ConversionError("rec_connect must be one Linear")
    weight, bias = numbers(parts[0].weight), parts[0].bias
    return ir.Linear(weight) if bias is None else ir.Affine(weight, bias=numbers(bias))


def _outputs(module: Any, out: Any) -> list[tuple[str, Tensor]]:
    return [("", out)]


def _fresh(module: Any) -> None:
    if module.is_state_initialised():
        module.reset_states()


def _whole(module: Any) -> str:
    return "flat" if type(module).__name__.endswith("Squeeze") else "BT"


DOOR = Door(
    "sinabs",
    ("sinabs",),
    dict.fromkeys(
        (
            *("IAF", "LIF", "ExpLeak", "IAFRecurrent", "LIFRecurrent"),
            *("IAFSqueeze", "LIFSqueeze", "ExpLeakSqueeze"),
        ),
        _cell,
    ),
    _outputs,
    _fresh,
    _whole,
    inside=frozenset({"Repeat", "FlattenTime", "UnflattenTime", "Merge", "Network"}),
)
__all__ = ["from_sinabs"]
