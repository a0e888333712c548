"""Brian 2 (cpp_standalone) as a peer of `neuro.simulate`: run by the interpreter that has it, see bench_events.py.

Three circuits, each as Brian 2's own users write it: `table` (every neuron fires every 20 steps, whatever arrives),
`cuba` (Vogels & Abbott 2005 as in Brette et al. 2007, benchmark 2, with Brian 2's published example as the text) and
`brunel` (Brunel 2000, model A). -O3 -march=native -ffast-math, float32; OpenMP with as many threads as ``openmp``
says, 0: none. Seconds are its own clock's around the main loop, without building, compiling or drawing synapses.
Needs numpy and brian2 only.
"""

from __future__ import annotations

import atexit
import shutil
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from axon_peers import Work, serve


def device(arguments, folder):
    """Brian 2 with its best settings."""
    import brian2 as b

    b.prefs.codegen.cpp.extra_compile_args_gcc = ["-w", "-O3", "-march=native", "-ffast-math", "-std=c++17"]
    b.prefs.core.default_float_dtype = np.float32
    if arguments["openmp"]:
        b.prefs.devices.cpp_standalone.openmp_threads = arguments["openmp"]
    b.set_device("cpp_standalone", directory=folder, build_on_run=False)
    return b  # no seed: every run of the binary draws its own numbers


def table(b, arguments):
    """n neurons of ``degree`` targets each; weights too small to matter, so that 5 % fire in every step."""
    n, degree, delays, dt = arguments["n"], arguments["degree"], arguments["delays"], arguments["dt"]
    tau, drive = arguments["tau"], arguments["drive"]
    b.defaultclock.dt = dt * b.second
    group = b.NeuronGroup(
        n,
        "dv/dt = (drive - v) / tau : 1",
        threshold="v > 1",
        reset="v = 0",
        method="exact",
        namespace={"drive": drive, "tau": tau * b.second},
    )
    group.v = "rand()"
    if arguments["constant"]:
        synapses = b.Synapses(group, group, on_pre=f"v_post += {arguments['weight']}")
    else:
        synapses = b.Synapses(group, group, "w : 1", on_pre="v_post += w")
    synapses.connect(p=degree / n)
    if not arguments["constant"]:
        synapses.w = f"{arguments['weight']} * (2 * rand() - 1)"
    synapses.delay = f"{dt} * second * int(rand() * {delays})" if delays > 1 else 0 * b.second
    counts = b.SpikeMonitor(group, record=False)
    return b.Network(group, synapses, counts), {"g": counts}, {}


def cuba(b, arguments):
    n = arguments["n"]
    b.defaultclock.dt = arguments["dt"] * b.second
    equations = """dv/dt = (ge + gi - (v - El)) / taum : volt (unless refractory)
    dge/dt = -ge / taue : volt
    dgi/dt = -gi / taui : volt"""
    names = {"taum": 20 * b.ms, "taue": 5 * b.ms, "taui": 10 * b.ms, "El": -49 * b.mV}
    group = b.NeuronGroup(
        n, equations, threshold="v > -50*mV", reset="v = -60*mV", refractory=5 * b.ms, method="exact", namespace=names
    )
    group.v = "-60*mV + rand() * 10*mV"
    excitatory, inhibitory = group[: 4 * n // 5], group[4 * n // 5 :]
    made = [group]
    for source, key, weight in ((excitatory, "ge", arguments["we"]), (inhibitory, "gi", arguments["wi"])):
        synapses = b.Synapses(source, group, on_pre=f"{key} += {weight!r}*volt")
        synapses.connect(p=arguments["probability"])
        made.append(synapses)
    monitors = {"E": b.SpikeMonitor(excitatory), "I": b.SpikeMonitor(inhibitory)}
    return b.Network(*made, *monitors.values()), monitors, monitors


def brunel(b, arguments):
    n_e = arguments["n"] * 4 // 5
    n = n_e * 5 // 4
    b.defaultclock.dt = arguments["dt"] * b.second
    group = b.NeuronGroup(
        n,
        "dv/dt = -v / (20*ms) : volt (unless refractory)",
        threshold="v > 20*mV",
        reset="v = 10*mV",
        refractory=2 * b.ms,
        method="exact",
    )
    excitatory, inhibitory = group[:n_e], group[n_e:]
    j, g, delay = arguments["j"], arguments["g"], arguments["delay"] * b.second
    made = [group]
    for source, count, weight in ((excitatory, n_e // 10, j), (inhibitory, n_e // 40, -g * j)):
        synapses = b.Synapses(source, group, on_pre=f"v_post += {weight!r}*volt", delay=delay)
        rng = np.random.default_rng(int(weight < 0))  # fixed in-degree, as the paper
        synapses.connect(i=rng.integers(0, len(source), n * count), j=np.repeat(np.arange(n), count))
        made.append(synapses)
    outside = b.PoissonInput(group, "v", N=n_e // 10, rate=arguments["external"] * b.Hz, weight=j * b.volt)
    monitors = {"E": b.SpikeMonitor(excitatory), "I": b.SpikeMonitor(inhibitory)}
    return b.Network(*made, outside, *monitors.values()), monitors, monitors


CIRCUITS = {"table": table, "cuba": cuba, "brunel": brunel}


def build(arguments):
    """Compiled on building; every step runs the binary from its beginning, and returns the seconds of its loop."""
    folder = tempfile.mkdtemp(prefix="axonport-brian2-")
    b = device(arguments, folder)
    network, monitors, trains = CIRCUITS[arguments["circuit"]](b, arguments)
    network.run(arguments["steps"] * b.defaultclock.dt)
    began = time.perf_counter()
    b.device.build(directory=folder, compile=True, run=False, debug=False)
    compiled = time.perf_counter() - began

    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    ran = []

    def step():
        b.device.run(folder, with_output=False, run_args=[])
        ran.append(float(b.device._last_run_time))
        return ran[-1]

    def check():
        if not ran:
            step()
        said = {"spikes": {name: int(np.sum(m.count[:])) for name, m in monitors.items()}}
        for name, monitor in trains.items():
            path = Path(arguments["out"]) / f"{name}.npz"
            steps = np.rint(np.asarray(monitor.t[:]) / arguments["dt"]).astype(np.int64)
            np.savez(path, step=steps, neuron=np.asarray(monitor.i[:]).astype(np.int64))
        return said

    return Work(step, check, None, {"version": version("brian2"), "compile_seconds": compiled}, reported=True)


if __name__ == "__main__":
    serve(build)
