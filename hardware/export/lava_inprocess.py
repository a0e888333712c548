"""`run_inprocess`: an exported graph in Lava's own process models, stepped one by one in this process.

Everything that computes is Lava's. Its compiler chooses the models (Loihi2SimCfg, fixed point), its builders
make them, their ``run_spk`` do all arithmetic, their ports add what arrives. Only the transport is replaced:
channels through shared memory become queues. For fuzzing, and as the yardstick of the speed benchmark.

A step has three passes, since a connection sends what it holds before it receives:
1. every connection runs until it receives, and is stopped there;
2. sources and neurons run;
3. every connection runs whole. What it sends again must be what it sent in the first pass.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.errors import OracleError
from neuro.hardware.export.lava_folder import LEARNED, VARIABLES, LavaFolder, Log, Values, load_folder, padded
from neuro.hardware.export.lava_shim import import_lava
from neuro.hardware.program import Program


class _Stop(Exception):  # not an error: it ends the first pass of a connection
    """Raised by a connection's input in the first pass."""


class _Queue:
    """Both ends of one channel: holds one message of the channel's type and shape."""

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.shape, self.dtype = tuple(shape), dtype
        self.message: NDArray[Any] | None = None
        self.sent: NDArray[Any] | None = None
        self.again = False

    def send(self, data: NDArray[Any]) -> None:
        if data.shape != self.shape:
            raise OracleError(f"Lava sends {data.shape} through a channel of {self.shape}")
        message = np.array(data, dtype=self.dtype)  # a copy in the channel's type, as through shared memory
        if self.again and (self.sent is None or not np.array_equal(message, self.sent)):
            raise OracleError("a connection of Lava sent two different messages in one step")
        self.message = self.sent = message

    def recv(self) -> NDArray[Any]:
        if self.message is None:
            raise _Stop
        message, self.message = self.message, None
        return message


class _End:
    """One end of a channel, an object of its own: Lava keys transformations by the receiving end."""

    def __init__(self, name: str, queue: _Queue) -> None:
        self.name, self.send, self.recv = name, queue.send, queue.recv


@dataclass(frozen=True, eq=False)
class Compiled:
    """A graph of processes compiled by Lava, its channels replaced. Made by `compile_graph`."""

    builders: Mapping[str, Any]
    queues: Sequence[_Queue]

    def run(
        self,
        data: Mapping[str, NDArray[Any]],
        variables: Mapping[str, tuple[str, ...]] | None = None,
        learned: Mapping[str, dict[str, NDArray[np.int32]]] | None = None,
    ) -> dict[str, Log]:
        """One run from zero state. data: source process -> [..., steps]. Returns of every process with neurons its
        ``variables``, by default u, v, s of each that has an input a_in. learned: process that learns -> a table to be
        filled with its `LEARNED` [steps, n]."""
        models = {name: builder.build() for name, builder in self.builders.items()}
        for queue in self.queues:
            queue.message = None
        for name, values in data.items():
            models[name].data = values
        steps = next(iter(data.values())).shape[-1]
        connections = [m for m in models.values() if getattr(m, "a_out", None) is not None]  # of Sigma it is None
        others = [m for m in models.values() if getattr(m, "a_out", None) is None]
        if variables is None:
            variables = {name: VARIABLES for name, m in models.items() if hasattr(m, "a_in")}
        sent = {name: _listen(models[name]) for name in variables}
        sizes = {name: int(np.prod(models[name].s_out.shape)) for name in variables}
        logs = {name: np.zeros((steps, len(v), sizes[name]), np.int32) for name, v in variables.items()}
        for t in range(steps):
            for model in models.values():
                model.time_step = t + 1
            self._again(False)
            for model in connections:
                try:
                    model.run_spk()
                except _Stop:
                    continue
                raise OracleError(f"{type(model).__name__} did not wait for its input")
            for model in others:
                model.run_spk()
            self._again(True)
            for model in connections:
                model.run_spk()
            for queue in self.queues:
                queue.message = None  # what the third pass sent was received in the second
            for name, table in (learned or {}).items():
                model = models[name]
                if model.lrn_guard():
                    model.run_lrn()
                for variable in LEARNED:
                    values = np.asarray(getattr(model, variable)).ravel()
                    table.setdefault(variable, np.zeros((steps, values.size), np.int32))[t] = values
            for name, known in variables.items():
                for k, variable in enumerate(known):
                    log = sent[name].pop() if variable == "s" else getattr(models[name], variable)
                    logs[name][t, k] = log.ravel()
        return logs

    def _again(self, again: bool) -> None:
        for queue in self.queues:
            queue.again = again


def _listen(model: Any) -> list[NDArray[Any]]:
    """A list to which everything is appended that a process model sends."""
    heard: list[NDArray[Any]] = []
    send = model.s_out.send

    def listening(data: NDArray[Any]) -> None:
        heard.append(np.array(data))
        send(data)

    model.s_out.send = listening
    return heard


def compile_graph(processes: Mapping[str, Any]) -> Compiled:
    """Let Lava compile processes (name -> process, all connected) and replace its channels by queues."""
    import_lava()
    from lava.magma.compiler.compiler import Compiler
    from lava.magma.core.process.ports.ports import create_port_id
    from lava.magma.core.run_configs import Loihi2SimCfg

    log = logging.getLogger("lava.magma.compiler.compiler")
    before = list(log.handlers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lava warns about modules of its own that it cannot import
        executable = Compiler().compile(next(iter(processes.values())), Loihi2SimCfg(select_tag="fixed_pt"))
    log.handlers[:] = before  # every Compiler adds one
    builders = executable.proc_builders
    left = [name for name, process in processes.items() if process not in builders]
    if left:
        raise OracleError(f"Lava did not compile {', '.join(left)}: not connected to the rest")
    queues = []
    for channel in executable.channel_builders:
        source, target = channel.src_port_initializer, channel.dst_port_initializer
        queue = _Queue(source.shape, source.d_type)
        end = _End(target.name, queue)
        builders[channel.src_process].set_csp_ports([_End(source.name, queue)])
        builders[channel.dst_process].set_csp_ports([end])
        builders[channel.dst_process].add_csp_port_mapping(create_port_id(channel.src_process.id, source.name), end)
        queues.append(queue)
    return Compiled({name: builders[process] for name, process in processes.items()}, queues)


@dataclass(frozen=True, eq=False)
class InProcess:
    """An exported folder, compiled by Lava. Made by `prepare`."""

    folder: LavaFolder
    compiled: Compiled

    def run(self, dense: NDArray[np.uint8]) -> Values:
        """dense: [steps, batch, n_inputs] -> (population, variable or "s") -> int32[steps + depth, batch, n]."""
        samples = padded(dense, self.folder.inputs, self.folder.depth, self.folder.low_high)
        runs = []
        for k in range(samples.shape[1]):
            learned: dict[str, dict[str, NDArray[np.int32]]] = {name: {} for name in self.folder.learning}
            data = self.folder.module.source_data(samples[:, k])
            logs = self.compiled.run(data, self.folder.variables, learned)
            runs.append(self.folder.gather(logs) | self.folder.gather_learned(learned))
        return {key: np.stack([r[key] for r in runs], axis=1) for key in runs[0]}


def prepare(what: Program | Path | str) -> InProcess:
    """Compile an exported folder, or a program, in this process; `InProcess.run` then takes samples.

    Of a program, numbers beyond the chip's registers are passed on to Lava as they are.

    Raises:
        MissingExtra: lava-nc is not installed. FormatError: not an exported folder. OracleError: Lava fails.
        UnsupportedNode, DoesNotFit: Lava cannot hold the program.
    """
    import_lava()
    if isinstance(what, Program):
        from neuro.hardware.export.lava import write_graph
        from neuro.hardware.export.lava_graph import lower

        with tempfile.TemporaryDirectory(prefix="axonport-lava-") as folder:
            write_graph(what, lower(what, registers=False), Path(folder))
            return prepare(folder)
    loaded = load_folder(what)
    processes = loaded.module.build(np.full((1, loaded.inputs), max(loaded.low_high[0], 0)))
    return InProcess(loaded, compile_graph(processes))


def run_inprocess(
    program: Program, dense: NDArray[np.uint8], probes: Sequence[tuple[str, str]] | None = None
) -> Values:
    """Lava's answer to dense [steps, batch, n_inputs], each sample from zero state.

    Returns (population, variable or "s") -> int32[steps + depth, batch, n], variables as `lava_folder.STATES` has
    them, v after reset; all of them, or those in ``probes``. Raises what `prepare` does.
    """
    values = prepare(program).run(dense)
    return values if probes is None else {key: values[key] for key in probes}
