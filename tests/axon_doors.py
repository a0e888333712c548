"""Networks of other frameworks for the tests of the doors: the cases, built with the framework or as stand-ins.

A case is Linear(12, n) -> neuron -> Linear(n, 5) -> the framework's plain neuron, as data. `real` builds it with the
framework; `stand_in` makes objects with the same class names, packages and attributes, which is all that a door looks
at, so that a machine without the framework can open the door and compare with spikes that the framework fired.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

INPUTS, LAST = 12, 5
# (framework, name) -> (class, arguments)
CASES: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {
    ("norse", "lif"): ("LIFCell", {"tau_mem_inv": 100.0, "tau_syn_inv": 200.0}),
    ("norse", "lif_shifted"): (
        "LIFCell",
        {"tau_mem_inv": 100.0, "tau_syn_inv": 200.0, "v_leak": 0.25, "v_reset": -0.25, "v_th": 1.125},
    ),
    ("norse", "lif_box"): ("LIFBoxCell", {"tau_mem_inv": 100.0}),
    ("norse", "lif_box_subtract"): ("LIFBoxCell", {"tau_mem_inv": 100.0, "subtract": True}),
    ("norse", "iaf"): ("IAFCell", {"v_th": 1.0, "v_reset": 0.125}),
    ("norse", "lif_recurrent"): ("LIFRecurrentCell", {"tau_mem_inv": 100.0, "tau_syn_inv": 200.0}),
    ("spikingjelly", "if"): ("IFNode", {"v_reset": 0.0}),
    ("spikingjelly", "if_soft"): ("IFNode", {"v_reset": None}),
    ("spikingjelly", "lif"): ("LIFNode", {"tau": 3.0, "v_reset": 0.0}),
    ("spikingjelly", "lif_soft_whole_input"): ("LIFNode", {"tau": 3.0, "decay_input": False, "v_reset": None}),
    ("spikingjelly", "lif_to_below_zero"): ("LIFNode", {"tau": 3.0, "v_reset": -0.25}),
    ("spikingjelly", "parametric"): ("ParametricLIFNode", {"init_tau": 2.5, "v_reset": 0.0}),
    ("spikingjelly", "cuba"): ("CUBALIFNode", {"c_decay": 0.5, "v_decay": 0.75, "v_reset": 0.0}),
    ("sinabs", "iaf"): ("IAF", {}),
    ("sinabs", "lif"): ("LIF", {"tau_mem": 5.0}),
    ("sinabs", "lif_synapse"): ("LIF", {"tau_mem": 5.0, "tau_syn": 3.0}),
    ("sinabs", "iaf_synapse"): ("IAF", {"tau_syn": 3.0}),
    ("sinabs", "lif_reset"): ("LIF", {"tau_mem": 5.0, "norm_input": False, "reset": "MembraneReset"}),
    ("sinabs", "lif_takes_more"): ("LIF", {"tau_mem": 5.0, "norm_input": False, "subtract_value": 1.25}),
    ("sinabs", "lif_recurrent"): ("LIFRecurrent", {"tau_mem": 5.0}),
}
LAST_OF = {
    "norse": ("LIFBoxCell", {"tau_mem_inv": 200.0}),
    "spikingjelly": ("LIFNode", {"tau": 2.0, "v_reset": 0.0}),
    "sinabs": ("IAF", {}),
}


def weights(seed: int, n: int) -> dict[str, NDArray[np.float64]]:
    """Multiples of 1/64, so that they are the same in every float; first, second layer and recurrence."""
    rng = np.random.default_rng(seed)
    shapes = {"first": (n, INPUTS), "second": (LAST, n), "recurrent": (n, n)}
    scale = {"first": 1.5, "second": 6.0 / np.sqrt(n / 20), "recurrent": 1.0 / np.sqrt(n / 20)}
    return {k: np.round(rng.normal(0.05, 1, s) * scale[k] * 64) / 64
            for k, s in shapes.items()}  # fmt: skip


def spikes_in(seed: int, steps: int, batch: int) -> NDArray[np.uint8]:
    return (np.random.default_rng(seed).random((steps, batch, INPUTS)) < 0.4).astype(np.uint8)


# ---------------------------------------------------------------- with the framework


def real(framework: str, name: str, table: dict[str, NDArray[np.float64]], dtype: Any) -> Any:
    """The module, computing one step (norse, spikingjelly) or [batch, time, ...] (sinabs)."""
    import torch
    from torch import nn

    def linear(weight: NDArray[np.float64]) -> Any:
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        layer.weight = nn.Parameter(torch.from_numpy(weight))
        return layer

    kind, given = CASES[framework, name]
    n = len(table["first"])
    last = _REAL[framework](*LAST_OF[framework], table, dtype, LAST)
    first = _REAL[framework](kind, given, table, dtype, n)
    own_input = kind == "LIFRecurrentCell"
    layers = [*([] if own_input else [linear(table["first"])]), first, linear(table["second"]), last]
    if framework == "norse":
        import norse.torch as norse

        return norse.SequentialState(*layers).to(dtype)
    return nn.Sequential(*layers).to(dtype)


def _norse(kind: str, given: dict[str, Any], table: Any, dtype: Any, n: int) -> Any:
    import norse.torch as norse
    import torch
    from norse.torch.functional.reset import reset_subtract

    given = dict(given)
    more = {"reset_method": reset_subtract} if given.pop("subtract", False) else {}
    kinds = {"LIFCell": norse.LIFParameters, "LIFBoxCell": norse.LIFBoxParameters, "IAFCell": norse.IAFParameters,
             "LIFRecurrentCell": norse.LIFParameters}  # fmt: skip
    p = kinds[kind](**{k: torch.tensor(v, dtype=dtype) for k, v in given.items()}, **more)
    if kind != "LIFRecurrentCell":
        return getattr(norse, kind)(p)
    own = {"input_weights": table["first"], "recurrent_weights": table["recurrent"]}
    tensors = {k: torch.nn.Parameter(torch.from_numpy(v).to(dtype)) for k, v in own.items()}
    return norse.LIFRecurrentCell(INPUTS, n, p, autapses=True, **tensors)


def _jelly(kind: str, given: dict[str, Any], table: Any, dtype: Any, n: int) -> Any:
    from spikingjelly.activation_based import neuron, surrogate

    more = {"surrogate_function": surrogate.Sigmoid()} if kind == "CUBALIFNode" else {}
    return getattr(neuron, kind)(**given, **more)


def _sinabs(kind: str, given: dict[str, Any], table: Any, dtype: Any, n: int) -> Any:
    import torch
    from sinabs import activation, layers
    from torch import nn

    given = dict(given)
    value = given.pop("subtract_value", None)
    reset = activation.MembraneSubtract(value)
    if given.pop("reset", "") == "MembraneReset":
        reset = activation.MembraneReset()
    if kind == "LIFRecurrent":
        given["rec_connect"] = nn.Linear(n, n, bias=False)
        given["rec_connect"].weight = nn.Parameter(torch.from_numpy(table["recurrent"]))
    return getattr(layers, kind)(spike_fn=SingleSpike, reset_fn=reset, **given)


class SingleSpike:
    """sinabs.activation.SingleSpike, which returns float32 whatever it is given, in the precision of the membrane."""

    required_states = ("v_mem",)

    @staticmethod
    def apply(v_mem: Any, spike_threshold: Any, surrogate_grad_fn: Any) -> Any:
        return (v_mem - spike_threshold >= 0).to(v_mem.dtype)


_REAL = {"norse": _norse, "spikingjelly": _jelly, "sinabs": _sinabs}


def fired(framework: str, module: Any, x: NDArray[np.uint8], dtype: Any) -> list[NDArray[np.uint8]]:
    """Spikes [time, batch, ...] of both neurons, by the framework itself."""
    import torch

    dense = torch.from_numpy(x).to(dtype)
    seen: dict[int, list[Any]] = {}
    parts = list(module)

    def note(k: int) -> Any:
        def hook(part: Any, args: Any, out: Any) -> None:
            seen.setdefault(k, []).append((out[0] if isinstance(out, tuple) else out).detach().clone())

        return hook

    handles = [part.register_forward_hook(note(k)) for k, part in enumerate(parts)]
    with torch.no_grad():
        if framework == "sinabs":
            module(dense.transpose(0, 1))
        elif framework == "norse":
            state = None
            for step in dense:
                _, state = module(step, state)
        else:
            for step in dense:
                module(step)
    for handle in handles:
        handle.remove()
    neurons = [len(parts) - 3, len(parts) - 1]
    rows = [seen[k][0].transpose(0, 1) if framework == "sinabs" else torch.stack(seen[k]) for k in neurons]
    return [r.to(torch.uint8).numpy() for r in rows]


# ---------------------------------------------------------------- without it


def stand_in(framework: str, name: str, table: dict[str, NDArray[np.float64]]) -> Any:
    """A module of the same classes and attributes; it computes nothing, its spikes are zeros."""
    import torch
    from torch import nn

    kind, given = CASES[framework, name]
    n = len(table["first"])

    def linear(weight: NDArray[np.float64]) -> Any:
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=torch.float64)
        layer.weight = nn.Parameter(torch.from_numpy(weight))
        return layer

    first = fake(framework, kind, n, table, **given)
    last = fake(framework, LAST_OF[framework][0], LAST, table, **LAST_OF[framework][1])
    own_input = kind == "LIFRecurrentCell"
    layers = [*([] if own_input else [linear(table["first"])]), first, linear(table["second"]), last]
    if framework != "norse":
        return nn.Sequential(*layers)
    chain = nn.ModuleList(layers)

    class SequentialState(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for k, layer in enumerate(chain):
                self.add_module(str(k), layer)

        def forward(self, x: Any) -> Any:
            for layer in self.children():
                x = layer(x)
                x = x[0] if isinstance(x, tuple) else x
            return x

    SequentialState.__module__ = "norse.torch.module.sequential"
    return SequentialState()


def fake(framework: str, kind: str, n: int, table: Any = None, **given: Any) -> Any:
    """A neuron of this class name with the framework's attributes, its defaults where nothing is given."""
    import torch
    from torch import nn

    class Neuron(nn.Module):
        def forward(self, x: Any) -> Any:
            spikes = torch.zeros(*x.shape[:-1], n, dtype=torch.float64)
            return (spikes, torch.zeros_like(spikes)) if framework == "norse" else spikes

        def is_state_initialised(self) -> bool:
            return False

    Neuron.__name__ = Neuron.__qualname__ = kind
    Neuron.__module__ = {"spikingjelly": "spikingjelly.activation_based.neuron", "norse": "norse.torch.module",
                         "sinabs": "sinabs.layers"}[framework]  # fmt: skip
    neuron = Neuron()
    for key, value in _FAKE[framework](kind, given, table, n).items():
        setattr(neuron, key, value)
    return neuron


class _Plain:
    def __init__(self, **given: Any) -> None:
        self.__dict__.update(given)


def _fake_norse(kind: str, given: dict[str, Any], table: Any, n: int) -> dict[str, Any]:
    import torch

    def reset_subtract() -> None: ...
    def reset_value() -> None: ...

    p = {"tau_mem_inv": 100.0, "tau_syn_inv": 200.0, "v_leak": 0.0, "v_th": 1.0, "v_reset": 0.0} | given
    subtract = p.pop("subtract", False)
    box = {"reset_method": reset_subtract if subtract else reset_value} if kind == "LIFBoxCell" else {}
    found = {"dt": 0.001, "p": _Plain(**{k: torch.tensor(v, dtype=torch.float64) for k, v in p.items()}, **box)}
    if kind == "LIFRecurrentCell":
        found |= {"input_weights": table["first"], "recurrent_weights": table["recurrent"]}
    return found


def _fake_jelly(kind: str, given: dict[str, Any], table: Any, n: int) -> dict[str, Any]:
    import torch

    found = {
        "v_threshold": 0.5 if kind == "CUBALIFNode" else 1.0,
        "v_reset": 0.0,
        "decay_input": True,
        "step_mode": "s",
    }
    found |= given
    if "init_tau" in given:
        found["w"] = torch.tensor(-np.log(given["init_tau"] - 1.0))  # float32, as a parameter of the framework is
    return found


def _fake_sinabs(kind: str, given: dict[str, Any], table: Any, n: int) -> dict[str, Any]:
    import torch
    from torch import nn

    def decay(tau: float | None) -> Any:
        # tau is a float32 parameter that becomes a double one with the module
        return None if tau is None else torch.exp(-1.0 / torch.tensor(tau, dtype=torch.float64))

    resets = {
        "MembraneSubtract": {"subtract_value": given.get("subtract_value")},
        "MembraneReset": {"reset_value": 0.0},
    }
    name = given.get("reset", "MembraneSubtract")
    reset = type(name, (_Plain,), {})(**resets[name])
    found: dict[str, Any] = {
        "alpha_mem_calculated": torch.tensor(1.0) if kind.startswith("IAF") else decay(given["tau_mem"]),
        "alpha_syn_calculated": decay(given.get("tau_syn")),
        "norm_input": given.get("norm_input", True) and not kind.startswith("IAF"),
        "spike_threshold": torch.tensor(1.0),
        "spike_fn": SingleSpike,
        "reset_fn": reset,
        "min_v_mem": None,
    }
    if kind == "LIFRecurrent":
        found["rec_connect"] = nn.Linear(n, n, bias=False)
        found["rec_connect"].weight = nn.Parameter(torch.from_numpy(table["recurrent"]))
    return found


_FAKE = {"norse": _fake_norse, "spikingjelly": _fake_jelly, "sinabs": _fake_sinabs}
