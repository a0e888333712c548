"""IF_curr_exp and IF_curr_delta against the sPyNNaker 7.4.1 kernels, compiled for ARM and run under emulation."""

from __future__ import annotations

import numpy as np
import pytest
from axon_spinnaker1 import batch_size, events_of, model_of, program_of
from axon_vectors import batches, differences

from neuro.hardware.spinnaker1.machine import Machine
from neuro.hardware.spinnaker1.packed import pack

FILES = ("lif_curr_exp", "lif_curr_delta", "edge_lif_curr_exp", "edge_lif_curr_delta")
ALL = [case for name in FILES for case in batches(f"spinnaker/{name}.npz")]
VARIABLES = ("v", "refract", "exc", "inh")


@pytest.mark.parametrize("batch", ALL)
def test_constants(batch):
    """What the machine computes from its words when it starts."""
    c = pack(program_of(batch))[0].constants
    fract = [getattr(c, name).astype(np.int32) for name in ("decay_exc", "init_exc", "decay_inh", "init_inh")]
    if model_of(batch) == "curr_delta":
        fract = [fract[1], *(np.zeros_like(fract[0]),) * 3]
    ours = np.stack([c.r, c.exp_tc, c.t_refract, *fract], axis=1)
    assert not differences("constants", ours, batch["const"])


@pytest.mark.parametrize("batch", ALL)
def test_states_spikes_and_saturations(batch):
    program = program_of(batch)
    steps, n = int(batch["T"]), batch_size(batch)
    events, ends = events_of(batch)
    machine = Machine(program, inputs_per_step=int(np.diff(ends).max()))
    probes = tuple(("n", name) for name in VARIABLES)
    injected = batch.get("i_inj")
    parts = []
    for begin, end in ((0, steps // 3), (steps // 3, steps)):  # a run may be stopped and go on
        current = None if injected is None else injected[begin:end]
        parts.append(machine.advance(end - begin, events, ends[begin : end + 1], injected=current, probes=probes))
    ours = np.zeros((steps, n, 5), np.int32)
    for k, name in enumerate(VARIABLES):
        ours[:, :, k] = np.concatenate([p.probes["n", name] for p in parts])
    spikes = np.concatenate([p.spikes for p in parts])
    ours[spikes[:, 0], spikes[:, 2], 4] = 1
    for k, name in enumerate((*VARIABLES, "spike")):
        assert not differences(name, ours[:, :, k], batch["state"][:, :, k])
    assert sum(int(p.counters["saturated"].sum()) for p in parts) == int(batch["sat"])
    assert sum(int(p.injected.sum()) for p in parts) == len(events)


def replay_plain(batch):
    from neuro.hardware.spinnaker1.plain import Plain

    program, n = program_of(batch), batch_size(batch)
    machine = Plain(program)
    steps = int(batch["T"])
    events, ends = events_of(batch)
    ours = np.zeros((steps, n, 5), np.int64)
    for t in range(steps):
        injected = {"n": batch["i_inj"][t].astype(object)} if "i_inj" in batch else None
        done = machine.step(events[ends[t] : ends[t + 1]].astype(np.int64), injected)
        for k, name in enumerate(VARIABLES):
            ours[t, :, k] = done.values["n", name]
        ours[t, done.spikes["n"], 4] = 1
    machine.flush()
    return machine, ours


@pytest.mark.parametrize("batch", ALL)
def test_plain_model(batch):
    """The certificate's oracle must itself equal the kernels."""
    machine, ours = replay_plain(batch)
    for k, name in enumerate((*VARIABLES, "spike")):
        assert not differences(name, ours[:, :, k], batch["state"][:, :, k].astype(np.int64))
    assert machine.saturated == int(batch["sat"])
    c = machine.neurons["n"].c
    fract = [c.decay_exc, c.factor_exc, c.decay_inh, c.factor_inh]
    if model_of(batch) == "curr_delta":
        fract = [c.factor_exc, *(np.zeros_like(c.r),) * 3]
    table = np.stack([c.r, c.decay, c.t_refract, *fract], axis=1).astype(np.int64).astype(np.int32)
    assert not differences("constants", table, batch["const"])
