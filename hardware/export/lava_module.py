"""The text of network.py: how a `LavaGraph` reads as a Python module that builds it."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.export.lava_graph import PROCESS, LavaGraph, Part, Synapses
from neuro.hardware.export.lava_limits import SIGN_NAMES
from neuro.hardware.export.lava_shim import VERSION
from neuro.hardware.loihi2.learning import FRACTION, THOUSANDTHS
from neuro.hardware.loihi2.models import input_range
from neuro.hardware.program import Program

_HEAD = '''\
"""{title}

Written by axonport {version} for lava-nc {lava}. Integers only; the state of every neuron and what it sends in
every step are those of axonport's simulator, bit for bit. Time step t of Lava (from 1) is row t - 1 of the inputs.

    python network.py --check        run check.npz in real Lava and compare every spike
    python network.py EVENTS.npz     EVENTS.npz holds t (row) and x (channel) of each event, optionally steps{values}

{listing}
"""

import dataclasses
import functools
import importlib
import json
import pathlib
import sys

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
INPUTS = {inputs}  # channels
DEPTH = {depth}  # steps that the output lags behind the input: silence to run after a sample
OUTPUT = {output!r}


def import_lava():
    """Make lava-nc {lava} importable on Python >= 3.11 and NumPy >= 2.4; on older ones nothing changes."""
    name = "lava.magma.compiler.var_model"
    try:
        importlib.import_module(name)
    except ValueError:  # Python >= 3.11 wants the defaults of this module's dataclasses to be hashable
        plain = dataclasses.dataclass
        dataclasses.dataclass = functools.partial(plain, unsafe_hash=True)
        try:
            importlib.import_module(name)
        finally:
            dataclasses.dataclass = plain
    from lava.magma.core.process.ports.ports import ReshapePort

    # NumPy >= 2.4 has no reshape(newshape=), which Lava's reshaped ports call
    ReshapePort.get_transform_func_fwd = lambda self: functools.partial(_reshaped, shape=self.shape)
    ReshapePort.get_transform_func_bwd = lambda self: functools.partial(_reshaped, shape=self.old_shape)


def _reshaped(data, shape):
    return data.reshape(shape)


def source_data(inputs):
    """What the source holds: inputs, [steps, INPUTS] of {low}..{high}, in Lava's shape with time last."""
    inputs = np.asarray(inputs)
    if inputs.ndim != 2 or inputs.shape[0] < 1 or inputs.shape[1] != INPUTS:
        raise ValueError(f"inputs must be [steps, {{INPUTS}}], got {{inputs.shape}}")
    if not ({low} <= inputs.min() and inputs.max() <= {high} and (inputs == inputs.astype(int)).all()):
        raise ValueError("inputs must be integers in {low}..{high}")
    data = {order}
    return {{{source!r}: np.ascontiguousarray(data.reshape(*{shape}, len(inputs)), dtype=np.int32)}}


def build(inputs):
    """The process graph, reading inputs[t] in time step t + 1. Returns name -> process."""
    import_lava()
'''

_TAIL = '''\
    return p


def run(inputs):
    """Run real Lava (Loihi 2, fixed point) on inputs [steps, INPUTS]. Returns population -> spikes [steps, n]."""
    import_lava()
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg
    from lava.proc.io.sink import RingBuffer as Sink

    p = build(inputs)
    steps = len(inputs)
    populations = json.loads((HERE / "manifest.json").read_text())["populations"]
    sinks = {}
    for table in populations:
        for part in table["parts"] if table["model"] != "input" else ():
            process = p[part["process"]]
            sinks[part["process"]] = Sink(shape=process.s_out.shape, buffer=steps)
            process.s_out.connect(sinks[part["process"]].a_in)
    first = next(iter(p.values()))
    first.run(condition=RunSteps(num_steps=steps), run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
    spikes = {}
    with np.load(HERE / "weights.npz", allow_pickle=False) as w:
        for table in populations:
            if table["model"] == "input":
                continue
            spikes[table["name"]] = np.zeros((steps, table["size"]), np.int32)
            for part in table["parts"]:
                sent = sinks[part["process"]].data.get().reshape(-1, steps).T
                order = w[part["index"]] if part["index"] else np.arange(table["size"])
                spikes[table["name"]][:, order[order >= 0]] = sent[:, order >= 0]
    first.stop()
    return spikes


def main(arguments):
    if len(arguments) != 1 or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if arguments in (["-h"], ["--help"]) else 2
    with np.load(HERE / "check.npz" if arguments[0] == "--check" else arguments[0], allow_pickle=False) as file:
        given = {name: file[name] for name in file.files}
    steps = int(given.get("steps", given["t"].max(initial=0) + 1)) + DEPTH
    inputs = np.zeros((steps, INPUTS), np.int32)
    inputs[given["t"], given["x"]] = given.get("value", 1)
    spikes = run(inputs)
    if arguments[0] != "--check":
        print("spikes of", OUTPUT, "per neuron:", spikes[OUTPUT].sum(axis=0).tolist())
        return 0
    compared = sum(s.size for s in spikes.values())
    differ = sum(int((spikes[name] != given["spikes." + name]).sum()) for name in spikes)
    print(f"{compared} spikes of {len(spikes)} populations compared, {differ} differ")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
'''


def identity(part: Part) -> bool:
    """Whether a process holds a whole population in our own order."""
    return part.size == part.of and np.array_equal(part.index, np.arange(part.size))


def uniform(values: NDArray[np.int64]) -> bool:
    """Whether one number says it all."""
    return bool(values.size == 0 or (values == values.flat[0]).all())


def title(program: Program) -> str:
    """One line: what it is and for which chip."""
    return f"{program.neurons} neurons in {len(program.populations) - 1} populations for {program.chip}."


def listing(program: Program) -> str:
    """Projections, one a line, safe inside a docstring whatever the names are."""
    lines = [f"    {p.name!r}: {p.source!r} -> {p.target!r} ({p.kind})" for p in program.projections]
    return "\n".join(line.replace("\\", "/").replace('"', "'") for line in lines)


def module_text(program: Program, graph: LavaGraph) -> str:
    """The source of network.py."""
    (source,) = graph.of(program.input)
    low, high = input_range(program.populations[program.input])
    image = f"inputs.reshape(-1, {', '.join(map(str, source.shape[::-1]))}).transpose(3, 2, 1, 0)"
    head = _HEAD.format(
        title=title(program),
        source=source.name,
        shape=source.shape,
        order="inputs.T" if identity(source) else f"{image}  # (channel, height, width) to (width, height, channel)",
        version=version("axonport"),
        lava=VERSION,
        listing=listing(program),
        inputs=program.populations[program.input].size,
        depth=program.depth,
        output=program.output,
        low=low,
        high=high,
        values="" if (low, high) == (0, 1) else " and value",
    )
    kinds = {s.kind for s in graph.synapses}
    lines = []
    if "Conv" in kinds:
        lines.append("from lava.proc.conv.process import Conv")
    if dense := sorted(kinds & {"Dense", "DelayDense", "LearningDense"}):
        lines.append(f"from lava.proc.dense.process import {', '.join(dense)}")
    if "LearningDense" in kinds:
        lines.insert(0, "from lava.magma.core.learning.learning_rule import Loihi2FLearningRule")
    lines.append("from lava.proc.io.source import RingBuffer")
    used = {PROCESS[p.model] for p in graph.parts if p.model != "input"}
    if any(p.model == "sigma_delta" for p in graph.parts):
        used.add("ActivationMode")
    for module, names in _MODULES.items():
        if here := sorted(used & set(names)):
            lines.append(f"from lava.proc.{module}.process import {', '.join(here)}")
    if sparse := sorted(kinds & {"Sparse", "DelaySparse"}):
        lines.append(f"from lava.proc.sparse.process import {', '.join(sparse)}")
    if kinds - {"Conv"}:
        lines.append("from lava.utils.weightutils import SignMode")
    if sparse:
        lines.append("from scipy.sparse import csr_matrix")
    lines += ["", 'with np.load(HERE / "weights.npz", allow_pickle=False) as file:']
    lines += ["    w = {name: file[name] for name in file.files}", "p = {}", ""]
    for part in graph.parts:
        lines += _part_lines(part)
    shapes = {p.name: p.shape for p in graph.parts}
    for synapses in graph.synapses:
        lines += _synapse_lines(synapses, shapes)
    return head + "".join(f"    {line}".rstrip() + "\n" for line in lines) + _TAIL


_MODULES = {
    "lif": ("LIF", "LIFReset", "TernaryLIF"),
    "rf": ("RF",),
    "rf_iz": ("RF_IZ",),
    "sdn": ("ActivationMode", "Delta", "Sigma", "SigmaDelta"),
}


def _part_lines(part: Part) -> list[str]:
    title = f"# {part.population!r}: {_count(part)}"
    if part.model == "input":
        return [title, f'p["{part.name}"] = RingBuffer(data=source_data(inputs)["{part.name}"])', ""]
    options, after = _PARAMETERS.get(part.model, _lif)(part)
    text = ", ".join([f"shape={part.shape}", *(f"{k}={v}" for k, v in options.items())])
    place = f'p["{part.name}"]'
    return [title, f"{place} = {PROCESS[part.model]}(", f"    {text}", ")", *(f"{place}{a}" for a in after), ""]


def _value(part: Part, name: str) -> str:
    """One number, or an array of weights.npz."""
    if name in part.scalars:
        return str(part.scalars[name])
    values = part.arrays[name]
    return f"{int(values.flat[0])}" if uniform(values) else f'w["{part.name}.{name}"]'


def _lif(part: Part) -> tuple[dict[str, str], list[str]]:
    return {"name": f'"{part.name}"'} | {n: _value(part, n) for n in (*part.scalars, *part.arrays)}, []


def _sigma(part: Part) -> tuple[dict[str, str], list[str]]:
    return {}, []


def _delta(part: Part) -> tuple[dict[str, str], list[str]]:
    """What the process multiplies by 2^(spike_exp + state_exp) is divided by it here, exactly."""
    factor = f"{1 << (part.scalars['spike_exp'] + part.scalars['state_exp'])}"
    options = {n: _value(part, n) for n in ("spike_exp", "state_exp")}
    options |= {n: f"{_value(part, n)} / {factor}" for n in ("vth", "bias") if n in part.scalars or n in part.arrays}
    options["cum_error"] = str(bool(part.scalars["cum_error"]))
    if part.model == "sigma_delta":
        options["act_mode"] = f"ActivationMode.{'RELU' if part.scalars['relu'] else 'UNIT'}"
    return options, []


def _resonator(part: Part) -> tuple[dict[str, str], list[str]]:
    """The process makes its decays of a period in reals; the integers are set as they are."""
    state, decays = part.scalars["state_exp"], ("sin_decay", "cos_decay")
    vth = f"{part.scalars['vth']}" + (f" / {1 << state}" if state else "")
    options = {"name": f'"{part.name}"', "period": "1", "alpha": "0", "state_exp": str(state)}
    options |= {"decay_bits": str(part.scalars["decay_bits"]), "vth": vth}
    return options, [f".{n}.init = {part.scalars[n]}" for n in decays]


_PARAMETERS = {"sigma": _sigma, "delta": _delta, "sigma_delta": _delta, "rf": _resonator, "rf_iz": _resonator}


def _count(part: Part) -> str:
    live = int((part.index >= 0).sum())
    what = "channels" if part.model == "input" else "neurons"
    padding = f" and {part.size - live} silent ones that fill up the vector" if live < part.size else ""
    image = f" as (width, height, channel) {part.shape}" if len(part.shape) == 3 else ""
    return f"{live} {what}{padding}{image}"


def _synapse_lines(synapses: Synapses, shapes: dict[str, tuple[int, ...]]) -> list[str]:
    name, options = synapses.name, synapses.options
    lines = [f"# {synapses.projection!r}: {' + '.join(synapses.sources)} -> {synapses.target}"]
    w = f'w["{name}.'
    target_shape = shapes[synapses.target]
    if synapses.kind == "Conv":
        given = ("input_shape", "stride", "padding", "dilation", "groups", "num_message_bits")
        rest = ", ".join(f"{k}={options[k]}" for k in given if k in options)
        lines += [f'p["{name}"] = Conv(', f'    name="{name}", weight={w}weight"], {rest}', ")"]
    else:
        scale = f"weight_exp={options['weight_exp']}, num_weight_bits={options['num_weight_bits']}"
        scale += f", sign_mode=SignMode.{SIGN_NAMES[int(options['sign_mode'])]}"  # type: ignore[arg-type]
        if "num_message_bits" in options:
            scale += f", num_message_bits={options['num_message_bits']}"
        weights, delays = f'{w}weights"]', f'{w}delays"]'
        if "Sparse" in synapses.kind:
            place = f'({w}row"], {w}col"])), shape={options["shape"]})'
            weights, delays = f"csr_matrix(({weights}, {place}", f"csr_matrix(({delays}, {place}"
        lines += [f'p["{name}"] = {synapses.kind}(', f'    name="{name}",', f"    weights={weights},"]
        if "delays" in synapses.arrays:
            lines.append(f"    delays={delays},")
        lines.append(f"    {scale},")
        if synapses.kind == "LearningDense":
            lines += _rule_lines(synapses)
        lines.append(")")
    for source in synapses.sources:
        flat = ".flatten()" if synapses.kind != "Conv" and len(shapes[source]) > 1 else ""
        lines.append(f'p["{source}"].s_out{flat}.connect(p["{name}"].s_in)')
    if synapses.kind == "LearningDense":
        lines.append(f'p["{synapses.target}"].s_out.connect(p["{name}"].s_in_bap)')
    image = f".reshape({target_shape})" if synapses.kind != "Conv" and len(target_shape) > 1 else ""
    lines += [f'p["{name}"].a_out{image}.connect(p["{synapses.target}"].{synapses.port})', ""]
    return lines


def _rule_lines(synapses: Synapses) -> list[str]:
    """The learning rule of a LearningDense. Its seed is given: Lava's own default is a random one."""
    q = {name: int(value) for name, value in synapses.options.items() if isinstance(value, int)}
    products = [
        f"({q[f'{name}_mantissa']}) * 2 ^ {q[f'{name}_exponent']} * {factors}"
        for name, factors in (("pre", "x0 * y1"), ("post", "y0 * x1"))
        if q[f"{name}_mantissa"]
    ]
    traces = [
        f"{n}_impulse={q[f'{n}_impulse']} / {FRACTION}, {n}_tau={q[f'{n}_tau']} / {THOUSANDTHS}," for n in ("x1", "y1")
    ]
    return [
        "    learning_rule=Loihi2FLearningRule(",
        f'        dw="{" + ".join(products)}",',
        *(f"        {line}" for line in traces),
        f"        t_epoch={q['t_epoch']}, rng_seed={q['rng_seed']},",
        "    ),",
    ]
