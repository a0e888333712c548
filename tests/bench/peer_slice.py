"""A slice of a full TrueNorth in another simulator: run by the interpreter that has it, see tests/proofs/scale.py.

    PYTHON peer_slice.py brian2|sanafe NETWORK.npz STEPS

NETWORK.npz: pre, post int32, weight float32 (one synapse each), leak, alpha [n], core [n]. Prints JSON: version,
spikes and synops of the run, and its seconds without building or compiling. Needs numpy and the simulator only.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from importlib.metadata import version

import numpy as np


def brian2(net, steps):
    """cpp_standalone, one thread. Thresholds, then resets, then synapses without delay: what a spike of step t adds
    is there at the thresholds of t + 1, as on the chip with a delay of one tick."""
    import brian2 as b

    with tempfile.TemporaryDirectory() as folder:
        b.set_device("cpp_standalone", directory=folder, build_on_run=False)
        b.defaultclock.dt = 1 * b.ms
        n = len(net["leak"])
        group = b.NeuronGroup(
            n, "v : 1\nleak : 1 (constant)\nalpha : 1 (constant)", threshold="v >= alpha", reset="v = 0"
        )
        group.leak, group.alpha = net["leak"], net["alpha"]
        group.run_regularly("v += leak", when="groups")
        synapses = b.Synapses(group, group, "w : 1 (constant)", on_pre="v_post += w")
        synapses.connect(i=net["pre"], j=net["post"])
        synapses.w = net["weight"]
        count = b.SpikeMonitor(group, record=False)
        made = b.Network(group, synapses, count)
        made.schedule = ["start", "groups", "thresholds", "resets", "synapses", "end"]
        made.run(steps * b.ms)
        b.device.build(directory=folder, compile=True, run=True, debug=False)
        counts = np.asarray(count.count)
        return counts, float(b.device._last_run_time)


def sanafe(net, steps):
    """Its own Loihi, one soma model; a threshold half a unit lower, since it fires above and the chip at it."""
    import sanafe as s

    arch = s.load_loihi()
    cores = arch.cores()
    made = s.Network()
    n = len(net["leak"])
    fixed = {"reset": 0.0, "leak_decay": 1.0, "force_update": True}
    group = made.create_neuron_group("g", n, model_attributes=fixed, soma_hw_name="loihi_lif", log_spikes=True)
    neurons = [group.neurons[i] for i in range(n)]
    for i, neuron in enumerate(neurons):
        own = {"bias": float(net["leak"][i]), "threshold": float(net["alpha"][i]) - 0.5}
        neuron.set_attributes(model_attributes=own)
        neuron.map_to_core(cores[int(net["core"][i])])
    for i, j, w in zip(net["pre"].tolist(), net["post"].tolist(), net["weight"].tolist(), strict=True):
        neurons[i].connect_to_neuron(neurons[j], {"weight": w})
    chip = s.SpikingChip(arch)
    chip.load(made)
    began = time.perf_counter()
    result = chip.sim(steps, timing_model="simple")
    seconds = time.perf_counter() - began
    return np.array([int(result["neurons_fired"])]), seconds, int(result["spikes"])


def main():
    name, path, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with np.load(path) as file:
        net = {key: file[key] for key in file.files}
    counts, seconds, *synops = {"brian2": brian2, "sanafe": sanafe}[name](net, steps)
    if not synops:
        synops = [int((counts * np.bincount(net["pre"], minlength=len(counts))).sum())]
    said = {"version": version(name), "spikes": int(counts.sum()), "synops": synops[0], "seconds": seconds}
    print(json.dumps(said))


if __name__ == "__main__":
    main()
