"""`simulate`: one door to every engine that runs something; the type of what is run decides which."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from neuro.errors import SimulationError

if TYPE_CHECKING:
    from neuro.ir import Network

# full name of a type -> module:function that runs it; loaded when it is needed, so that this file stays light
RUNS: dict[str, str] = {
    "neuro.ir.Network": "neuro.engine.network_run:simulate",
    "neuro.engine.network_run.Plan": "neuro.engine.network_run:simulate",
    "neuro.engine.circuit.Circuit": "neuro.engine.simulation:simulate",
    "neuro.plasticity.simulation.Plastic": "neuro.plasticity.simulation:simulate",
    "neuro.hardware.program.Program": "neuro.hardware.simulate:simulate",
}


def simulate(model: Any, *inputs: Any, chip: str | None = None, **options: Any) -> Any:
    """Run a model event by event.

    ============================== ========================================================= =================
    model                          inputs and options of                                     returns
    ============================== ========================================================= =================
    `neuro.ir.Network`             `neuro.engine.network_run.Plan.run`; dtype                `Record`
    its `Plan`, for many calls     `neuro.engine.network_run.Plan.run`                       `Record`
    `neuro.ir.Network` with chip=  `neuro.hardware.simulate`, the network compiled before it `Trace`
    `neuro.engine.circuit.Circuit` `neuro.engine.simulation.Simulation.run`; threads          `Recording`
    `neuro.plasticity` `Plastic`   `Plastic.run`, from where it stands                       `Learnt`
    `neuro.hardware` `Program`     `neuro.hardware.simulate`                                 `Trace`
    ============================== ========================================================= =================

    Args:
        chip: run a `Network` in this chip's integers instead of floats.

    Raises:
        SimulationError: nothing here runs such a model; with ``chip``, it is no `Network`. Else as the engine.
    """
    if chip is not None:
        return _on_chip(model, chip, *inputs, **options)
    for kind in type(model).__mro__:
        home = RUNS.get(f"{kind.__module__}.{kind.__qualname__}")
        if home is not None:
            module, _, name = home.partition(":")
            return getattr(import_module(module), name)(model, *inputs, **options)
    known = ", ".join(name.rpartition(".")[2] for name in RUNS)
    raise SimulationError(f"a {type(model).__name__} cannot be simulated; these can: {known}, and a Network with chip=")


def _on_chip(network: Network, chip: str, *inputs: Any, **options: Any) -> Any:
    from neuro.hardware.compile import compile as compile_network
    from neuro.hardware.simulate import simulate as run
    from neuro.ir import Network

    if not isinstance(network, Network):
        raise SimulationError(f"chip= takes a Network, got a {type(network).__name__}")
    return run(compile_network(network, chip), *inputs, **options)
