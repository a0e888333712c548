"""The script that exporter "pynn" writes: one file that needs PyNN and NumPy, nothing of axonport."""

from __future__ import annotations

SCRIPT = '''\
"""__TITLE__

    python network.py                                   sPyNNaker, on the machine that ~/.spynnaker.cfg names
    python network.py --backend brian2                  another PyNN back end: brian2, nest, neuron, mock
    python network.py --backend mock EVENTS.npz         other events: int arrays t (step) and x (channel)

Written by axonport for sPyNNaker 7.4.1. Weights, delays and parameters are in network.npz, in PyNN's units, and are
exact in the machine's numbers. Without EVENTS.npz the events of check.npz are run, and the spikes of every population
are compared with those that axonport's simulator computed.

On another back end the same network is solved in floating point: an IF_curr_delta weight becomes the jump of v that
it makes on the machine, where it is added before the leak of a step, not after; a spike that the machine uses in step
t + d is used by others one step later, so delays are one step shorter there.
"""

import argparse
import importlib
import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
INFO = json.loads((HERE / "manifest.json").read_text())
STEP = INFO["timestep_ms"]


def cell(sim, p, data, exact):
    """The cell type of a population, and its initial values."""
    word = {k: data[p["name"] + "." + k] for k in p["parameters"]}
    threshold = word["v_thresh"] if exact else word["v_thresh"] - 2.0**-16  # there "above", here "at or above"
    parameters = dict(word, v_thresh=threshold)
    initial = {"v": parameters.pop("v_init")}
    start = {k: parameters.pop(k) for k in ("isyn_exc", "isyn_inh") if k in parameters}
    if exact:
        initial.update(start)
    if not hasattr(sim, p["cell"]):
        raise SystemExit("%s has no %s; take another --backend" % (sim.__name__, p["cell"]))
    return getattr(sim, p["cell"])(**parameters), initial


def jump(p, data, weight, post):
    """mV by which a weight of IF_curr_delta moves v on the machine, divided by the leak that follows elsewhere."""
    tau, cm = (np.broadcast_to(data[p["name"] + "." + k], p["size"])[post] for k in ("tau_m", "cm"))
    keep = np.exp(-STEP / tau)
    return weight * (1.0 - keep) * tau / cm / STEP / keep


def build(sim, spike_times, backend="spiNNaker"):
    """Populations by name. spike_times: ms, one list per input channel."""
    exact = backend == "spiNNaker"
    data = dict(np.load(HERE / "network.npz", allow_pickle=False))
    if backend == "brian2":
        import brian2

        brian2.prefs.codegen.target = "numpy"  # no compiler needed
        brian2.defaultclock.dt = STEP * brian2.ms  # spike sources keep the network's clock
        sim.setup(timestep=STEP)
        # what arrives in the step of a spike outlasts the reset on the machine; nothing here is ever refractory
        sim.simulator.state.network.schedule = ["start", "groups", "thresholds", "resets", "synapses", "end"]
        sim.IF_curr_delta.eqs["v"].flags.clear()  # "unless refractory"
    elif exact:
        sim.setup(timestep=STEP)
        for name in sorted({p["cell"] for p in INFO["populations"][1:]}):
            sim.set_number_of_neurons_per_core(getattr(sim, name), INFO["neurons_per_core"])
    else:
        sim.setup(timestep=STEP, min_delay=STEP)
    made, tables = {}, {p["name"]: p for p in INFO["populations"]}
    for p in INFO["populations"]:
        if p["cell"] == "SpikeSourceArray":
            made[p["name"]] = sim.Population(p["size"], sim.SpikeSourceArray(spike_times=spike_times), label=p["name"])
            continue
        celltype, initial = cell(sim, p, data, exact)
        extra = {}
        if exact:  # the shift of its ring buffers, which sPyNNaker would choose by its own estimate of rates
            extra["additional_parameters"] = {"max_expected_summed_weight": p["max_expected_summed_weight"]}
        made[p["name"]] = sim.Population(p["size"], celltype, label=p["name"], **extra)
        made[p["name"]].initialize(**initial)
    for c in INFO["projections"]:
        pre, post, weight, steps = (data[c["name"] + "." + k] for k in ("pre", "post", "weight", "delay_steps"))
        if not exact:
            if tables[c["target"]]["cell"] == "IF_curr_delta":
                weight = jump(tables[c["target"]], data, weight, post)
            steps = np.maximum(steps - 1, 0 if backend == "brian2" else 1)
        rows = list(zip(pre.tolist(), post.tolist(), weight.tolist(), (steps * STEP).tolist()))
        sim.Projection(
            made[c["source"]],
            made[c["target"]],
            sim.FromListConnector(rows, column_names=["weight", "delay"]),
            sim.StaticSynapse(),
            receptor_type=c["receptor_type"],
            label=c["name"],
        )
    return made


def run(t, x, steps, backend="spiNNaker"):
    """Population -> (steps, neurons) of its spikes, after ``steps`` steps and the depth of the network."""
    sim = importlib.import_module("pyNN." + backend)
    channels = INFO["populations"][0]["size"]
    made = build(sim, [sorted((t[x == k] * STEP).tolist()) for k in range(channels)], backend)
    recorded = [p["name"] for p in INFO["populations"][1:]]
    for name in recorded:
        made[name].record(["spikes"])
    sim.run((steps + INFO["depth"]) * STEP)
    found = {}
    for name in recorded:
        trains = made[name].get_data("spikes").segments[0].spiketrains
        times = [np.rint(np.asarray(s.rescale("ms").magnitude) / STEP).astype(int) for s in trains]
        who = np.repeat(np.arange(len(times)), [len(s) for s in times])
        found[name] = np.concatenate([*times, np.zeros(0, int)]), who
    sim.end()
    return found


def compare(found, check):
    """Spikes in the same step, per population; back ends that stamp spikes at the end of a step lag by one."""
    differ = 0
    for name, (step, neuron) in found.items():
        wanted = set(zip(check[name + ".t"].tolist(), check[name + ".x"].tolist()))
        best = max((-1, 0, 1), key=lambda lag: len(wanted & set(zip((step + lag).tolist(), neuron.tolist()))))
        ours = set(zip((step + best).tolist(), neuron.tolist()))
        differ += len(ours ^ wanted)
        print(
            "%s: %d spikes, axonport has %d, the same step: %d (stamped %+d)"
            % (name, len(ours), len(wanted), len(ours & wanted), -best)
        )
    print("%d spikes differ" % differ)
    return differ


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("events", nargs="?", help="npz with t, x and, if there is silence at the end, steps")
    parser.add_argument("--backend", default="spiNNaker", help="a module of pyNN (default: spiNNaker)")
    given = parser.parse_args()
    check = dict(np.load(given.events or HERE / "check.npz", allow_pickle=False))
    steps = int(check["steps"]) if "steps" in check else int(check["t"].max(initial=-1)) + 1
    found = run(check["t"], check["x"], steps, given.backend)
    if given.events:
        for name, (step, neuron) in found.items():
            print("%s: %d spikes" % (name, len(step)))
        return 0
    return 1 if compare(found, check) and given.backend == "spiNNaker" else 0


if __name__ == "__main__":
    sys.exit(main())
'''
