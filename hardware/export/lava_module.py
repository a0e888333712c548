"""The text of network.py: how a `LavaGraph` reads as a Python module that builds it."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.export.lava_graph import LavaGraph, Part, Synapses
from neuro.hardware.export.lava_limits import SIGN_NAMES
from neuro.hardware.export.lava_shim import VERSION
from neuro.hardware.program import Program

_HEAD = '''\
"""{title}

Written by axonport {version} for lava-nc {lava}. Integers only; u, v and spikes of every neuron in every step
are those of axonport's simulator, bit for bit. Time step t of Lava (from 1) is row t - 1 of the inputs.

    python network.py --check        run check.npz in real Lava and compare every spike
    python network.py EVENTS.npz     EVENTS.npz holds t (row) and x (channel) of each event, optionally steps

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
    """What the source holds: inputs, [steps, INPUTS] of 0 and 1, in Lava's shape with time last."""
    inputs = np.asarray(inputs)
    if inputs.ndim != 2 or inputs.shape[0] < 1 or inputs.shape[1] != INPUTS:
        raise ValueError(f"inputs must be [steps, {{INPUTS}}], got {{inputs.shape}}")
    if not np.isin(inputs, (0, 1)).all():
        raise ValueError("inputs must be 0 or 1: an event or none")
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
            spikes[table["name"]] = np.zeros((steps, table["size"]), np.uint8)
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
    inputs = np.zeros((steps, INPUTS), np.uint8)
    inputs[given["t"], given["x"]] = 1
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
    )
    kinds = {s.kind for s in graph.synapses}
    lines = []
    if "Conv" in kinds:
        lines.append("from lava.proc.conv.process import Conv")
    if dense := sorted(kinds & {"Dense", "DelayDense"}):
        lines.append(f"from lava.proc.dense.process import {', '.join(dense)}")
    lines += ["from lava.proc.io.source import RingBuffer", "from lava.proc.lif.process import LIF"]
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


def _part_lines(part: Part) -> list[str]:
    title = f"# {part.population!r}: {_count(part)}"
    if part.du is None:
        return [title, f'p["{part.name}"] = RingBuffer(data=source_data(inputs)["{part.name}"])', ""]
    biases = []
    for name in ("bias_mant", "bias_exp"):
        values = getattr(part, name)
        text = f"{int(values.flat[0])}" if uniform(values) else f'w["{part.name}.{name}"]'
        biases.append(f"{name}={text}")
    return [
        title,
        f'p["{part.name}"] = LIF(',
        f'    name="{part.name}", shape={part.shape}, du={part.du}, dv={part.dv}, vth={part.vth}, {", ".join(biases)}',
        ")",
        "",
    ]


def _count(part: Part) -> str:
    live = int((part.index >= 0).sum())
    what = "channels" if part.du is None else "neurons"
    padding = f" and {part.size - live} silent ones that fill up the vector" if live < part.size else ""
    image = f" as (width, height, channel) {part.shape}" if len(part.shape) == 3 else ""
    return f"{live} {what}{padding}{image}"


def _synapse_lines(synapses: Synapses, shapes: dict[str, tuple[int, ...]]) -> list[str]:
    name, options = synapses.name, synapses.options
    lines = [f"# {synapses.projection!r}: {' + '.join(synapses.sources)} -> {synapses.target}"]
    w = f'w["{name}.'
    target_shape = shapes[synapses.target]
    if synapses.kind == "Conv":
        rest = ", ".join(f"{k}={options[k]}" for k in ("input_shape", "stride", "padding", "dilation", "groups"))
        lines += [f'p["{name}"] = Conv(', f'    name="{name}", weight={w}weight"], {rest}', ")"]
    else:
        scale = f"weight_exp={options['weight_exp']}, num_weight_bits={options['num_weight_bits']}"
        scale += f", sign_mode=SignMode.{SIGN_NAMES[int(options['sign_mode'])]}"  # type: ignore[arg-type]
        weights, delays = f'{w}weights"]', f'{w}delays"]'
        if "Sparse" in synapses.kind:
            place = f'({w}row"], {w}col"])), shape={options["shape"]})'
            weights, delays = f"csr_matrix(({weights}, {place}", f"csr_matrix(({delays}, {place}"
        lines += [f'p["{name}"] = {synapses.kind}(', f'    name="{name}",', f"    weights={weights},"]
        if "delays" in synapses.arrays:
            lines.append(f"    delays={delays},")
        lines += [f"    {scale},", ")"]
    for source in synapses.sources:
        flat = ".flatten()" if synapses.kind != "Conv" and len(shapes[source]) > 1 else ""
        lines.append(f'p["{source}"].s_out{flat}.connect(p["{name}"].s_in)')
    image = f".reshape({target_shape})" if synapses.kind != "Conv" and len(target_shape) > 1 else ""
    lines += [f'p["{name}"].a_out{image}.connect(p["{synapses.target}"].a_in)', ""]
    return lines
