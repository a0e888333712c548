"""Writes docs/speed.md and its pictures from docs/results; computes nothing new.

python tests/bench/speed_page.py
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
NAMES = {
    "neuro": "axonport",
    "spikingjelly": "SpikingJelly 2",
    "spikingjelly 0.0.0.0.14": "SpikingJelly 0.0.0.0.14",
    "spyx": "Spyx",
    "spyx_hoisted": "Spyx by hand",
    "snntorch": "snnTorch",
    "norse": "Norse",
    "torch_loop": "a plain torch loop",
    "dcls_v1": "dcls",
    "torch": "a product per step of delay",
    "floor": "the dense products alone",
}
# Okabe and Ito's colours, told apart with every kind of colour vision; each line has a mark of its own too
COLOURS = {
    "neuro": "#0072B2",
    "spikingjelly": "#D55E00",
    "spikingjelly 0.0.0.0.14": "#CC79A7",
    "spyx": "#009E73",
    "spyx_hoisted": "#56B4E9",
    "snntorch": "#E69F00",
    "norse": "#000000",
    "torch_loop": "#B0B0B0",
    "dcls_v1": "#D55E00",
    "torch": "#B0B0B0",
    "floor": "#707070",
}
MARKS = {"neuro": "o", "spikingjelly": "s", "spyx": "^", "spyx_hoisted": "v", "dcls_v1": "D", "torch": "x", "floor": ""}
BARS = [n for n in NAMES if n not in ("neuro", "floor", "torch_loop", "dcls_v1", "torch")]
INTRO = """# Speed of training

Written by `tests/bench/speed_page.py` from `docs/results`; measured by `tests/proofs/speed_training.py` and the benches
in `tests/bench`, whose first lines say what each does. `make peers` sets the others up, `make bench` measures.

Everything runs side by side in one run: each framework in a process of its own, with the same threads, in turns of one
step, or, where steps are short, of four that follow each other as in training; a ratio is the median over the turns of
the ratio within a turn, in brackets the middle 95 % of that median (bootstrap).
Every framework gets the same weights and the same input, is checked against a plain torch loop with its own conventions
(loss and all gradients), and is used with care: one matrix product over all steps, then the neurons over time, whole
time in one call where there is such a thing. Spyx is there twice: as its documentation has it, and rewritten by hand
with the products out of its loop over time, which no documentation shows. Forward and backward pass, float32, no
optimiser.
"""


def load(name):
    """A result file, or nothing."""
    path = DOCS / "results" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def ms(seconds):
    return f"{seconds * 1e3:.3g} ms"


def where(machine):
    """Machine and date in words."""
    return (
        f"{machine['processor']} ({machine['vectors']}), {machine['processors']} processors, "
        f"{machine['threads']} threads, Python {machine['python']}, {machine['date']}"
    )


def versions(parts):
    """Everybody's version, from what the workers said."""
    found = {}
    for part in parts.values():
        for name, row in part.get("frameworks", {}).items():
            said = row.get("said", row)
            if "version" in said and name in NAMES and name not in ("floor", "torch_loop", "spyx_hoisted"):
                found[NAMES[name].split(" 0")[0]] = said["version"]
    return ", ".join(f"{name} {v}" for name, v in found.items())


def ordered(parts, kind):
    """Parts of a kind in the order of the benches, whenever they were measured."""
    found = [(k, r) for k, r in parts.items() if k.startswith(kind)]
    size = ["n 256", "n 1024", "n 4096"]
    how = ["spikes, as a hidden", "real numbers", "spikes, as the first"]

    def place(item):
        ranks = [next((i for i, word in enumerate(words) if word in item[0]), len(words)) for words in (how, size)]
        return (ranks[0] == len(how), *ranks)

    return sorted(found, key=place)


def time_table(parts):
    lines = [
        "| work | axonport | of the floor | fastest peer | times as fast | against Spyx by hand | against each |",
        "|---|---|---|---|---|---|---|",
    ]
    for key, row in ordered(parts, "time: "):
        if "ratio" not in row:
            continue
        own, ratios = row["fastest_peer"], row["ratios"]
        each = ", ".join(f"{NAMES[n]} {r['ratio']:.2g}" for n, r in ratios.items())
        best, theirs = ratios[own], ms(row["frameworks"][own]["median_s"])
        by_hand = f"{ratios['spyx_hoisted']['ratio']:.2f}" if "spyx_hoisted" in ratios else "-"
        times = f"**{best['ratio']:.2f}** [{best['low']:.2f}, {best['high']:.2f}]"
        cells = (key[6:], ms(row["ours_s"]), f"{row['of_floor']:.2f}", f"{NAMES[own]} {theirs}", times, by_hand, each)
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def memory_table(parts):
    lines = [
        "| work | axonport | SpikingJelly 2 | share | share without gradients | others | gradients | kept bytes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for key, row in ordered(parts, "memory: "):
        if "of_spikingjelly" not in row:
            continue
        peaks = {n: f["peak_bytes"] / 1e6 for n, f in row["frameworks"].items()}
        others = ", ".join(f"{NAMES[n]} {v:.0f}" for n, v in peaks.items() if n not in ("neuro", "spikingjelly"))
        cells = (
            key[8:],
            f"{peaks['neuro']:.1f} MB",
            f"{peaks['spikingjelly']:.1f} MB",
            f"**{row['of_spikingjelly']:.2f}**",
            f"{row['rest_of_spikingjelly']:.2f}",
            others,
            f"{row['gradient_bytes'] / 1e6:.1f} MB",
            f"{row['kept_bytes_per_neuron_step']:.2f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def ratios_picture(parts, path):
    """Bars: how many times longer than ours each takes, and the dense floor beside them."""
    import matplotlib.pyplot as plt

    rows = {k[6:]: r for k, r in ordered(parts, "time: ") if "ratio" in r}
    figure, axes = plt.subplots(figsize=(8.6, 0.95 * len(rows) + 1.1), layout="constrained")
    high = 0.84 / (len(BARS) + 1)
    for k, row in enumerate(rows.values()):
        for j, name in enumerate(BARS):
            if name in row["ratios"]:
                r, y = row["ratios"][name], k - 0.42 + (j + 0.5) * high
                label = NAMES[name] if k == 0 else None
                axes.barh(y, r["ratio"], high * 0.92, color=COLOURS[name], label=label)
                axes.plot([r["low"], r["high"]], [y, y], color="#333333", lw=0.8)
                axes.text(r["high"] * 1.03, y, f"{r['ratio']:.1f}", va="center", fontsize=6, color="#333333")
        label = "dense matrix products alone" if k == 0 else None
        y = k - 0.42 + (len(BARS) + 0.5) * high
        axes.barh(y, 1 / row["of_floor"], high * 0.92, color="white", edgecolor="#707070", hatch="////", label=label)
    axes.axvline(1, color=COLOURS["neuro"], lw=1.4)
    axes.set_yticks(range(len(rows)), [name.replace(", ", "\n", 2) for name in rows], fontsize=7)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xscale("log")
    ticks = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks], fontsize=7)
    axes.minorticks_off()
    axes.set_xlabel("time of a training step, axonport = 1 (blue line)", fontsize=8)
    axes.legend(fontsize=7, frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.4, 1.0))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


AXES = {
    "neurons": "neurons n",
    "steps": "time steps T",
    "rate": "share of channels that spike in a step",
    "batch": "samples in a batch",
    "delays": "steps of delay, 700 to 256",
}


def curves_picture(rows, path):
    """Milliseconds of a step against size, one panel per quantity."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter, NullLocator

    figure, panels = plt.subplots(1, len(AXES), figsize=(12.6, 3.0), layout="constrained")
    for axes, (axis, label) in zip(panels, AXES.items(), strict=True):
        own = sorted((r for r in rows.values() if r["axis"] == axis), key=lambda r: r["value"])
        for name, mark in MARKS.items():
            points = [(r["value"], r["frameworks"][name]["median_s"] * 1e3) for r in own if name in r["frameworks"]]
            style = {"color": COLOURS[name], "marker": mark, "ms": 3.5, "lw": 1.3}
            if points:
                x, y = zip(*points, strict=True)
                axes.plot(x, y, label=NAMES[name], ls=(0, (2, 2)) if name == "floor" else "-", **style)
        if not own:
            axes.set_visible(False)
            continue
        axes.set_xscale("log")
        axes.set_yscale("log")
        values = sorted(r["value"] for r in own)
        axes.set_xticks(values, [f"{v:g}" for v in values])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter("{x:g}")
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, 10 ** math.floor(math.log10(high))), high)  # a power of ten to read
        axes.set_xlabel(label, fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(color="#e6e6e6", lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("a training step, ms", fontsize=8)
    found = {label: handle for p in panels for handle, label in zip(*p.get_legend_handles_labels(), strict=True)}
    figure.legend([*found.values()], [*found], fontsize=7, frameon=False, ncols=6, loc="outside upper center")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def to_accuracy(result):
    """Lines about whole training runs to the same accuracy (tests/proofs/speed_end_to_end.py)."""
    lines = [
        "## Training to the same accuracy",
        "",
        "`tests/proofs/speed_end_to_end.py`: the same networks, batches, initial weights and optimiser, two threads;",
        "ours draws and augments its batches on the clock, the others find theirs ready. Seconds to the target of the",
        "first seed; ratios of all seeds, and the ratio of an epoch, which does not depend on when a run reaches it.",
        "",
        "| task | axonport | peer | peer's time | ratio of each seed | mean | of an epoch |",
        "|---|---|---|---|---|---|---|",
    ]
    for task, peers in result["summary"].items():
        first = next(r["frameworks"] for r in result["runs"] if r["task"] == task)
        for peer, row in peers.items():
            each = ", ".join(f"{x:.2f}" for x in row["ratios"])
            ours, theirs = (first[n]["to_target_s"] for n in ("neuro", peer))
            lines.append(
                f"| {task} | {ours:.2f} s | {NAMES[peer]} | {theirs:.1f} s | {each} | **{row['ratio']:.2f}** | "
                f"{row['epoch_ratio']:.2f} |"
            )
    short = [name for name, good in result["checks"].items() if not good]
    return [*lines, "", f"Short of the target: {'; '.join(short)}." if short else "Every target of it is met.", ""]


def page(training, curves):
    """The text of docs/speed.md."""
    parts, limit = training["parts"], training["roofline"]
    lines = [INTRO, f"Measured on {where(training['machine'])}. {versions(parts)}.", ""]
    lines += ["## Time of a training step", "", *time_table(parts), ""]
    lines += [
        "Of the floor: our time over that of the dense matrix products that the row would need, alone, in the same",
        "run; less than 1 means that events saved more than the neurons cost.",
        "",
        "![How many times longer a training step takes elsewhere](pictures/speed_ratios.png)",
        "",
        f"The machine's own limits in that run: {limit['sgemm_gflops']:.0f} GFlop/s in float32 matrix products, "
        f"{limit['triad_gbs']:.0f} GB/s from memory, "
        + " and ".join(f"{v:.0f} M scattered additions a second into {int(n):,}" for n, v in limit["scatter_m"].items())
        + " targets in one thread.",
        "",
        "## Peak memory of a training step",
        "",
        *memory_table(parts),
        "",
        "Counted are activations, gradients and work space, not weights, input and code; `tests/axon_peers.py` says",
        "how. Weight and input gradients are dense in every framework, so no step can do with less than those.",
        "Kept bytes: what our forward pass leaves for the backward pass, per neuron and step.",
        "",
    ]
    for name, title in (("bench_latency", "Latency of one sample"), ("bench_delays", "Delays")):
        if parts.get(name, {}).get("said"):
            lines += [f"## {title}", "", f"`tests/bench/{name}.py` said:", "", "```text"]
            lines += [line for line in parts[name]["said"].strip().splitlines() if not line.startswith("{")]
            lines += ["```", ""]
    if curves:
        lines += [
            "## Cost against size",
            "",
            "![Milliseconds of a step against neurons, steps, rate, batch and delays](pictures/speed_curves.png)",
            "",
            "One Linear and LIF as a hidden layer; what is not on the axis: 512 neurons, 100 steps, 16 samples,",
            "5 % of the channels spiking. Over delays: a layer with a learnt delay per synapse, 700 to 256 neurons,",
            f"100 steps, 32 samples, 3 % input (bench_delays.py). {where(curves['machine'])}.",
            "",
        ]
    short = training["short"]
    whole = load("speed_end_to_end")
    if whole.get("summary") and not whole.get("quick"):
        lines += to_accuracy(whole)
    lines += ["## Targets", ""]
    lines += ["Every target of the proof is met." if not short else "Short of the proof's targets:", ""]
    lines += [f"- {line.splitlines()[0][:300]}" for line in short]
    return "\n".join(lines).rstrip() + "\n"


def main():
    import matplotlib as mpl

    mpl.use("Agg")
    training, curves = load("speed_training"), load("bench_curves")
    if not training.get("parts") or training.get("quick"):
        print("docs/results/speed_training.json is not there: run tests/proofs/speed_training.py first")
        return 1
    ratios_picture(training["parts"], DOCS / "pictures" / "speed_ratios.png")
    if curves:
        curves_picture(curves["rows"], DOCS / "pictures" / "speed_curves.png")
    (DOCS / "speed.md").write_text(page(training, curves), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
