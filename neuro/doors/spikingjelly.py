"""From SpikingJelly (Fang et al. 2023, Science Advances 9:eadi1480; version 2.0.0 read and run): tau in steps.

LIFNode        v[t] = v[t-1] + (x[t] - (v[t-1] - v_reset)) / tau                              (decay_input=True)
               v[t] = v[t-1] - (v[t-1] - v_reset) / tau + x[t]                                (decay_input=False)
ParametricLIFNode  the same, 1 / tau = sigmoid(w);  IFNode  v[t] = v[t-1] + x[t]
CUBALIFNode    c[t] = c_decay c[t-1] + x[t];  v[t] = v_decay v[t-1] + c[t]
NonSpikingIFNode, NonSpikingLIFNode with a decode

s = v >= v_threshold, then v = v_reset, or v - v_threshold where v_reset is None. Explicit Euler: beta = 1 - 1 / tau,
although another framework's tau in steps means exp(-1 / tau) (sinabs). A spike needs v >= theta here and v > theta in a
`Network`, so theta becomes the next number below it: of float64, or with ``precision="float32"`` of float32, for a
network that will run in that (there the float64 neighbour is theta itself, and a membrane exactly at theta would not
fire). A membrane starts at v_reset; ours starts at 0, so potentials are counted from there, which changes no spike.

step_mode "s" and "m" both work, also inside of SeqToANNContainer and MultiStepContainer. What cannot be the same is
refused by name: every other neuron, LinearRecurrentContainer, SynapseFilter; cuda back ends mean the same.
ElementWiseRecurrentContainer is a loop where its function is a sum: x[t] + y[t-1] enters, y is what it sends.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor, nn

from neuro.doors.build import Door, Options, open_door
from neuro.doors.cell import Cell, below
from neuro.doors.layers import numbers
from neuro.errors import ConversionError
from neuro.ir import Array, Network

DECODES = {"last_mem": "last", "max-mem": "max", "mean-mem": "sum"}


def from_spikingjelly(
    module: nn.Module,
    sample: Any,
    *,
    dt: float = 1e-3,
    axes: str | None = None,
    readout: str | None = None,
    high: int = 1,
    precision: str = "float64",
) -> Network:
    """A SpikingJelly module as a `Network` that fires the same spikes, step for step.

    Args:
        module: in step mode "s" (one step, or a loop) or "m" (all steps at once). It is not changed.
        sample, axes, readout, high: as `neuro.from_snntorch`; neurons in step mode "m" take "TB".
        dt: seconds per step; SpikingJelly has none. precision: "float64" or "float32", see the module.

    Raises:
        UnsupportedLayer: every piece that has no counterpart, all of them.
        ConversionError: the sample does not suit the module, or its axes cannot be told.
    """
    options = Options(dt, "euler", precision)
    return open_door(DOOR, module, sample, options=options, axes=axes, readout=readout, high=high)


def _cell(module: Any, options: Options, beta: Array, **more: Any) -> Cell:
    threshold = float(module.v_threshold)
    if module.v_reset is None:
        return Cell(beta, below(threshold, options.precision), "subtract", **more)
    rest = float(module.v_reset)
    return Cell(beta, below(threshold - rest, options.precision), **more)


def _if(module: Any, options: Options) -> Cell:
    return _cell(module, options, np.ones(1))


def _lif(module: Any, options: Options) -> Cell:
    kept = 1.0 / float(module.tau)
    return _cell(module, options, np.asarray(1.0 - kept), gain=kept if module.decay_input else 1.0)


def _plif(module: Any, options: Options) -> Cell:
    kept = 1.0 / (1.0 + np.exp(-numbers(module.w)))
    return _cell(module, options, 1.0 - kept, gain=kept if module.decay_input else 1.0)


def _cuba(module: Any, options: Options) -> Cell:
    if module.v_reset:
        raise ConversionError("v_reset other than 0: its leak goes to 0, not to v_reset; set v_reset=0. or None")
    return _cell(module, options, np.asarray(float(module.v_decay)), alpha=float(module.c_decay))


def _silent(module: Any, options: Options) -> Cell:
    if module.decode not in DECODES:
        raise ConversionError(f"decode must be one of {', '.join(DECODES)}, got {module.decode!r}")
    tau = getattr(module, "tau", None)
    return Cell(np.ones(1)) if tau is None else Cell(np.asarray(1.0 - 1.0 / tau), gain=1.0 / tau)


def _outputs(module: Any, out: Any) -> list[tuple[str, Tensor]]:
    spikes = out[0] if isinstance(out, (tuple, list)) else out
    membrane = getattr(module, "v", None)
    return [("", spikes), *([("v", membrane)] if isinstance(membrane, Tensor) and membrane is not spikes else [])]


def _fresh(module: Any) -> None:
    if hasattr(module, "reset"):
        module.reset()


def _whole(module: Any) -> str | None:
    return "TB" if getattr(module, "step_mode", "m") == "m" else None


DOOR = Door(
    "SpikingJelly",
    ("spikingjelly",),
    {
        "IFNode": _if,
        "LIFNode": _lif,
        "ParametricLIFNode": _plif,
        "CUBALIFNode": _cuba,
        "NonSpikingIFNode": _silent,
        "NonSpikingLIFNode": _silent,
    },
    _outputs,
    _fresh,
    _whole,
    inside=frozenset({"MultiStepContainer", "SeqToANNContainer", "StepModeContainer", "ElementWiseRecurrentContainer"}),
    loops=frozenset({"ElementWiseRecurrentContainer"}),
)
__all__ = ["from_spikingjelly"]
