"""The process that runs an exported folder in Lava's runtime. `lava_runtime` starts it: JOB PARENT_PID.

JOB holds job.json and dense.npy; the worker leaves one .npy per process with neurons (int32[steps, k, n], the
variables of `lava_folder.STATES`), weights and traces of those that learn, progress and result.json. Everything that
computes is Lava's: models are chosen as by Loihi2SimCfg(select_tag="fixed_pt"), those of neurons by a subclass of the
same model that copies state and messages out after each ``run_spk``. Between samples every state variable is set to
zero through Lava's own ``Var.set``; a LIFReset,
whose resets depend on the time, is told the time since its sample began.

Nothing survives its parent. The worker asks four times a second whether its parent is still the one that
started it; everything it forks asks the kernel to be killed with it (and watches too, where there is no such
call). Shared memory is then removed by multiprocessing's resource tracker, which is left alone for that.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

PR_SET_PDEATHSIG = 1
POLL_S = 0.25
STATE = ("u", "v", "sigma", "act", "residue", "error", "real", "imag", "a_buff", "a_buf")
_job: Path | None = None
_parent = [0]
_forker = [0]


def _watch(parent: int, farewell: Callable[[], None] = lambda: None) -> None:
    """A thread that ends this process once its parent is gone."""

    def loop() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_S)
        farewell()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=loop, daemon=True, name="parent watch").start()


def _remember_parent() -> None:
    """Before a fork: who forks. A child that asked for its parent's id could get that of its parent's heir."""
    _forker[0] = os.getpid()


def _die_with_parent() -> None:
    """After a fork: be killed when the parent is, or at once if that has happened already."""
    try:
        known = ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) == 0
    except (AttributeError, OSError):
        known = False
    if os.getppid() != _forker[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    if not known:
        _watch(_forker[0])


def _end(code: int) -> NoReturn:
    """End this process, unless its parent is gone: then the watching thread tidies up and ends it."""
    sys.stderr.flush()
    if os.getppid() != _parent[0]:
        threading.Event().wait()
    os._exit(code)


def _forget_job() -> None:
    """Remove the job's folder; once more where the main thread has just put something into it."""
    for _ in range(20):
        shutil.rmtree(sys.argv[1], ignore_errors=True)
        if not os.path.exists(sys.argv[1]):
            return
        time.sleep(POLL_S / 10)


def _say(**line: Any) -> None:
    assert _job is not None
    temporary = _job / "progress.part"
    temporary.write_text(json.dumps(line), encoding="utf-8")
    os.replace(temporary, _job / "progress.json")


def _recorder(model: Any, logs: dict[int, Any], variables: dict[int, tuple[str, ...]], steps: int) -> type:
    """One of Lava's neuron models, copying variables and what it sends out after each step."""

    class Recorded(model):  # type: ignore[misc]  # lava has no types
        time_step: int

        def run_spk(self) -> None:
            now = self.time_step
            send, heard = self.s_out.send, []

            def listening(data: Any) -> None:
                heard.append(np.array(data))
                send(data)

            self.s_out.send = listening
            self.time_step = (now - 1) % steps + 1
            super().run_spk()
            self.s_out.send, self.time_step = send, now
            for k, variable in enumerate(variables[self.model_id]):
                value = heard[0] if variable == "s" else getattr(self, variable)
                logs[self.model_id][now - 1][k] = value.ravel()

    return Recorded


def _learner(logs: dict[int, dict[str, Any]]) -> type:
    """Lava's learning connection, copying weights and traces out after each step, the learning phase included."""
    from lava.proc.dense.models import PyLearningDenseModelBitApproximate

    class Recorded(PyLearningDenseModelBitApproximate):  # type: ignore[misc]  # lava has no types
        model_id: int
        time_step: int

        def run_spk(self) -> None:
            super().run_spk()
            self.copy_out()

        def run_lrn(self) -> None:
            super().run_lrn()
            self.copy_out()

        def copy_out(self) -> None:
            for variable, log in logs[self.model_id].items():
                log[self.time_step - 1] = np.asarray(getattr(self, variable)).ravel()

    return Recorded


def _models() -> dict[Any, Any]:
    """Lava's process -> its fixed-point model, as Loihi2SimCfg(select_tag="fixed_pt") picks it; laws compare them
    with what the in-process oracle lets Lava's compiler pick."""
    from lava.proc.lif import models as lif
    from lava.proc.lif import process as lif_process
    from lava.proc.rf import models as rf
    from lava.proc.rf import process as rf_process
    from lava.proc.rf_iz import models as rf_iz
    from lava.proc.rf_iz import process as rf_iz_process
    from lava.proc.sdn import models as sdn
    from lava.proc.sdn import process as sdn_process

    return {
        lif_process.LIF: lif.PyLifModelBitAcc,
        lif_process.LIFReset: lif.PyLifResetModelBitAcc,
        lif_process.TernaryLIF: lif.PyTernLifModelFixed,
        sdn_process.Sigma: sdn.PySigmaModelFixed,
        sdn_process.Delta: sdn.PyDeltaModelFixed,
        sdn_process.SigmaDelta: sdn.PySigmaDeltaModelFixed,
        rf_process.RF: rf.PyRFModelFixed,
        rf_iz_process.RF_IZ: rf_iz.PyRF_IZModelFixed,
    }


def _report_dead_actors(actors: list[Any], busy: threading.Event) -> None:
    """An exception in a process model leaves Lava waiting for ever: say what happened and end instead."""

    def loop() -> None:
        while True:
            time.sleep(POLL_S)
            if not busy.is_set():
                continue
            for actor in actors:
                with contextlib.suppress(ValueError, OSError, AssertionError):
                    if actor.exception:
                        sys.stderr.write(f"a process model failed:\n{actor.exception[1]}\n")
                        _end(3)
                    if not actor.is_alive() and busy.is_set():
                        sys.stderr.write(f"a process of Lava ended with exit code {actor.exitcode}\n")
                        _end(4)

    threading.Thread(target=loop, daemon=True, name="actor watch").start()


def _zero(processes: dict[str, Any]) -> None:
    """Set the state of every process to zero, as it was before the first step."""
    for process in processes.values():
        for name in STATE:
            variable = getattr(process, name, None)
            if variable is not None:
                variable.set(np.zeros(variable.shape, np.int32))


def _learned_logs(job: Path, name: str, process: Any, steps: int) -> dict[str, Any]:
    from neuro.hardware.export.lava_folder import LEARNED

    sizes = {variable: int(np.prod(getattr(process, variable).shape)) for variable in LEARNED}
    return {
        variable: np.lib.format.open_memmap(job / f"{name}.{variable}.npy", "w+", np.int32, (steps, size))
        for variable, size in sizes.items()
    }


def work(job: Path) -> None:
    """Run all samples of a job one after the other."""
    from neuro.hardware.export.lava_folder import load_folder, padded
    from neuro.hardware.export.lava_shim import import_lava

    began = time.perf_counter()
    task = json.loads((job / "job.json").read_text(encoding="utf-8"))
    _say(phase="import")
    import_lava()
    multiprocessing.set_start_method("fork", force=True)  # Lava's runtime knows no other
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg

    folder = load_folder(task["folder"])
    dense = np.load(job / "dense.npy", allow_pickle=False)
    samples = padded(dense, folder.inputs, folder.depth, folder.low_high)
    steps, batch, inputs = samples.shape
    _say(phase="build")
    processes = folder.module.build(samples.transpose(1, 0, 2).reshape(batch * steps, inputs))
    logs, variables = {}, {}
    for name, known in folder.variables.items():
        size = len(folder.index[name])
        shape = (batch * steps, len(known), size)
        logs[processes[name].id] = np.lib.format.open_memmap(job / f"{name}.npy", "w+", np.int32, shape)
        variables[processes[name].id] = known
    used = {type(processes[name]) for name in folder.variables}
    recorded = {p: _recorder(m, logs, variables, steps) for p, m in _models().items() if p in used}
    if folder.learning:
        if batch > 1:
            raise ValueError("Lava's random numbers go on from sample to sample: run one at a time")
        from lava.proc.dense.process import LearningDense

        recorded[LearningDense] = _learner(
            {processes[name].id: _learned_logs(job, name, processes[name], steps) for name in folder.learning}
        )
    config = Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map=recorded)
    first = next(iter(processes.values()))
    busy = threading.Event()
    for k in range(batch):
        if k == 0:
            _say(phase="start")
            first.create_runtime(run_cfg=config)
            _report_dead_actors(first.runtime._messaging_infrastructure.actors, busy)
            started = time.perf_counter()
            busy.set()
        else:
            _zero(processes)
        _say(phase="run", sample=k, samples=batch)
        first.run(condition=RunSteps(num_steps=steps))
    busy.clear()
    result = {"startup_s": started - began, "run_s": time.perf_counter() - started, "samples": batch, "steps": steps}
    (job / "result.part").write_text(json.dumps(result), encoding="utf-8")
    os.replace(job / "result.part", job / "result.json")
    first.stop()


def main() -> int:
    """Guard first, work second."""
    global _job
    _job, parent = Path(sys.argv[1]), int(sys.argv[2])
    if os.getppid() != parent:
        _forget_job()
        return 5
    _parent[0] = parent
    _watch(parent, farewell=_forget_job)
    os.register_at_fork(before=_remember_parent, after_in_child=_die_with_parent)
    try:
        work(_job)
    except BaseException:  # the parent reads the log; nothing may be left hanging
        traceback.print_exc()
        _end(2)
    _end(0)  # not by returning: Lava leaves threads behind that would keep the interpreter from ending

