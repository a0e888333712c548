"""SpiNNaker programs for tests: golden vectors as Programs, random networks with extreme registers."""

from __future__ import annotations

import hashlib
import sys

import numpy as np

from neuro.hardware.program import Placement, Population, Program
from neuro.hardware.spinnaker1.words import WORDS


def model_of(batch):
    """Whether the parameter words of a batch are those of exponential or of delta neurons."""
    return "curr_exp" if batch["params"].size == 1 + 15 * batch_size(batch) else "curr_delta"


def batch_size(batch):
    return int(batch["n"])


def words_of(batch):
    """name -> int64[n], as `neuro.hardware.spinnaker1.words` names them."""
    n, model = batch_size(batch), model_of(batch)
    rest, table = batch["params"][1:].astype(np.int64), []
    for columns in (9, 1, 5) if model == "curr_exp" else (9, 1, 1, 2):
        table.append(rest[: n * columns].reshape(n, columns))
        rest = rest[n * columns :]
    assert rest.size == 0
    return dict(zip(WORDS[model], np.concatenate(table, axis=1).T, strict=True))


def program_of(batch):
    """One core of n neurons; each row of the batch is one input."""
    n, rows = batch_size(batch), len(batch["row_len"])
    scalars = {
        "shift_exc": batch["shifts"][0],
        "shift_inh": batch["shifts"][1],
        "index_bits": batch["log_n"],
        "delay_bits": 4,
    }
    return Program(
        chip="spinnaker1",
        dt=1e-3,
        populations={
            "in": Population("in", "in", "input", (rows,)),
            "n": Population("n", "n", model_of(batch), (n,), words_of(batch) | scalars),
        },
        projections=(),
        input="in",
        output="n",
        skew={"in": 0, "n": 0},
        scale={"n": 2.0**-15},
        readout="count",
        placement=Placement({"n": np.zeros(n, np.int64)}, np.zeros((1, 2), np.int64)),
        image={
            "blocks": np.array([[0, 0, 0, 0, 0]]),
            "row_start": np.concatenate([[0], np.cumsum(batch["row_len"])]).astype(np.uint32),
            "words": batch["rows"].copy(),
            "relays": np.zeros((0, 4), np.int64),
        },
    )


def events_of(batch):
    """(rows in the order of their processing, where each step begins and ends)."""
    steps = int(batch["T"])
    order = np.argsort(batch["spk_step"], kind="stable")
    return batch["spk_row"][order].astype(np.int32), np.searchsorted(batch["spk_step"][order], np.arange(steps + 1))


INT32 = (-(1 << 31), (1 << 31) - 1)


def _extremes(rng, n, usual, least=INT32[0]):
    """Mostly usual values, some at the ends of the register, some anywhere."""
    values = rng.integers(*usual, n, endpoint=True)
    kind = rng.random(n)
    values = np.where(kind < 0.06, rng.choice([least, INT32[1], least + 1, INT32[1] - 1], n), values)
    return np.where(kind > 0.96, rng.integers(least, INT32[1], n), values)


def _divisors(rng, n, usual):
    values = _extremes(rng, n, usual)
    return np.where(values == 0, 1, values)


def _population(rng, name, extreme):
    model, n = rng.choice(["curr_exp", "curr_delta"]), int(rng.integers(1, 60))
    index_bits = max(1, int(n - 1).bit_length())
    volts = (-3_000_000, 3_000_000)
    usual = {
        "c_m": (2000, 100_000), "tau_m": (20_000, 2_000_000), "i_offset": (-60_000, 200_000),
        "t_refract": (-40_000, 200_000), "refract_init": (-2, 4), "time_step": (3277, 65_536),
        "tau_exc": (5000, 400_000), "tau_inh": (5000, 400_000), "synapse_step": (3277, 65_536),
        "input_step": (3277, 65_536), "init_exc": (0, 500_000), "init_inh": (0, 500_000),
        "threshold": (-1_800_000, 3_000_000),
    }  # fmt: skip
    positive = ("c_m", "tau_m", "time_step", "tau_exc", "tau_inh", "synapse_step", "input_step")
    params = {}
    for word in WORDS[model]:
        low, high = usual.get(word, volts)
        if not extreme:
            params[word] = rng.integers(low, high, n, endpoint=True)
        else:
            params[word] = (_divisors if word in positive else _extremes)(rng, n, (low, high))
    high_shift = 16 if extreme else 8
    params |= {"shift_exc": rng.integers(0, high_shift + 1), "shift_inh": rng.integers(0, high_shift + 1)}
    params |= {"index_bits": index_bits, "delay_bits": rng.integers(1, 5)}
    return Population(name, name, str(model), (n,), params)


def random_program(seed):
    """(program, dense): populations on several cores, all-to-some synapses with delays beyond the slots."""
    from neuro.hardware.fabric import HexTorus
    from neuro.hardware.spinnaker1.contract import layout_of
    from neuro.hardware.spinnaker1.rows import Rows

    rng = np.random.default_rng(seed)
    extreme = bool(rng.random() < 0.6)
    inputs = int(rng.integers(1, 40))
    populations = {"in": Population("in", "in", "input", (inputs,))}
    for k in range(int(rng.integers(1, 4))):
        populations[f"p{k}"] = _population(rng, f"p{k}", extreme)
    names = list(populations)
    cores, core_of, slices = 0, {}, {}
    for name in names[1:]:
        n = populations[name].size
        cuts = np.unique([0, *rng.integers(0, n + 1, rng.integers(0, 3)), n])
        core_of[name] = np.repeat(np.arange(cores, cores + len(cuts) - 1), np.diff(cuts))
        slices[name] = list(
            zip(range(cores, cores + len(cuts) - 1), cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)
        )
        cores += len(cuts) - 1
    rows, late = Rows([populations[n].size for n in names]), set()
    for target in names[1:]:
        layout = layout_of(populations[target])
        for core, lo, hi in slices[target]:
            for source, name in enumerate(names):
                count = int(rng.integers(0, 6 * (hi - lo) + 1)) * int(rng.random() < 0.8)
                delay = rng.integers(1, (3 if rng.random() < 0.4 else 1) * layout.slots + 1, count)
                weight = np.where(
                    rng.random(count) < 0.2, rng.choice([0, 1, 0x7FFF, 0xFFFF], count), rng.integers(0, 9000, count)
                )
                pre = rng.integers(0, populations[name].size, count)
                rows.add(
                    core, source, layout, pre, rng.integers(0, hi - lo, count), weight, delay, rng.integers(0, 2, count)
                )
                if (delay > layout.slots).any():
                    late.add(source)
    relays = []
    for source in sorted(late):
        relays.append([cores, source, 0, populations[names[source]].size])
        cores += 1
    fabric = HexTorus(8, 8, 2)
    program = Program(
        chip="spinnaker1", dt=1e-3, populations=populations, projections=(), input="in", output=names[-1],
        skew=dict.fromkeys(names, 0) | {names[-1]: 2}, scale=dict.fromkeys(names[1:], 2.0**-15),
        readout=str(rng.choice(["count", "sum", "max", "last"])),
        placement=Placement(core_of, fabric.xy(cores), (), fabric), image=rows.image(relays),
    )  # fmt: skip
    steps, batch = int(rng.integers(5, 40)), int(rng.integers(1, 4))
    return program, (rng.random((steps, batch, inputs)) < rng.choice([0.05, 0.3, 0.9])).astype(np.uint8)


def probes_of(program):
    stateful = [n for n, p in program.populations.items() if p.model != "input"]
    return tuple((name, variable) for name in stateful for variable in ("v", "refract", "exc", "inh"))


def compiled_results(program, dense):
    """name -> array: everything the compiled machine says of a batch."""
    from neuro.hardware.spinnaker1.batch import run, saturations

    trace = run(program, dense, probes_of(program))
    found = {f"{name}.{variable}": values for (name, variable), values in trace.probes.items()}
    found |= {f"{name}.s": values for name, values in trace.spikes.items()}
    counters = trace.counters
    found |= {name: getattr(counters, name).sum(axis=(1, 2)) for name in counters.NAMES}
    return found | {"scores": trace.scores, "saturated": saturations(program, dense), "injected": counters.injected}


def plain_results(program, dense):
    """The same of the plain model, as far as it knows."""
    from neuro.hardware.spinnaker1.plain import Plain

    steps, batch = dense.shape[0] + program.depth, dense.shape[1]
    found = {f"{n}.{v}": np.zeros((steps, batch, program.populations[n].size), np.int64) for n, v in probes_of(program)}
    found |= {f"{n}.s": np.zeros((steps, batch, p.size), np.int64) for n, p in program.populations.items()}
    found |= {"synops": np.zeros(batch, np.int64), "saturated": np.zeros(batch, np.int64)}
    for b in range(batch):
        machine = Plain(program)
        for t in range(steps):
            events = np.flatnonzero(dense[t, b]) if t < len(dense) else np.zeros(0, np.int64)
            done = machine.step(events)
            for (name, variable), values in done.values.items():
                found[f"{name}.{variable}"][t, b] = values
            for name, who in done.spikes.items():
                found[f"{name}.s"][t, b, who] = 1
        machine.flush()
        found["synops"][b], found["saturated"][b] = machine.processed, machine.saturated
    return found | {"scores": _scores(program, found)}


def _scores(program, found):
    out, since = program.output, program.depth
    if program.readout == "count":
        return found[f"{out}.s"][since:].sum(axis=0)
    v = found[f"{out}.v"][since:]
    return {"sum": v.sum(axis=0), "max": v.max(axis=0), "last": v[-1]}[program.readout]


def digest(results):
    """A digest of everything, names included."""
    whole = hashlib.sha256()
    for key in sorted(results):
        whole.update(f"{key} {results[key].shape}".encode() + np.ascontiguousarray(results[key], np.int64).tobytes())
    return whole.hexdigest()


if __name__ == "__main__":  # results of some seeds as one line each, for a process without the compiler
    for argument in sys.argv[1:]:
        print(argument, digest(compiled_results(*random_program(int(argument)))))
