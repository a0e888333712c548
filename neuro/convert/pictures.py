"""A certificate as a picture: accuracy over T, distance over T, and the parts of each layer's error."""

from __future__ import annotations

from pathlib import Path

from neuro.convert.certificate import PARTS, Certificate
from neuro.files import atomic_path

COLOURS = {"weights": "#8c8c8c", "clipping": "#dd8452", "quantisation": "#4c72b0", "unevenness": "#c44e52"}


def picture(certificate: Certificate, path: str | Path, title: str = "") -> None:
    """Writes a PNG.

    Raises:
        ImportError: without matplotlib.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    c, steps = certificate, list(certificate.scores)
    figure = Figure(figsize=(13, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3)
    left.plot(steps, [100 * c.scores[t] for t in steps], "o-", color="#c44e52", label=f"spikes ({c.recipe})")
    left.axhline(100 * c.quantised, color="#4c72b0", label="quantised")
    left.axhline(100 * c.original, color="black", ls=":", label="original")
    if c.equal_decisions is not None:
        left.axvline(c.equal_decisions, color="#55a868", ls="--", label=f"decisions equal from T = {c.equal_decisions}")
    left.set_ylabel(f"{'accuracy' if c.labels else 'agreement with the original'}, %")
    left.set_title(f"{c.samples} samples", fontsize=10)
    left.legend(fontsize=8)
    for name, found in c.layers.items():
        middle.plot(steps, [found[t].mean for t in steps], "o-", ms=3, label=name)
    if c.equal_values is not None:
        middle.axvline(c.equal_values, color="#55a868", ls="--", label=f"values equal from T = {c.equal_values}")
    # linear below what rounding may be, so that 0 can be drawn
    middle.set_yscale("symlog", linthresh=1e-4)
    middle.set_ylim(bottom=0)
    middle.set_ylabel("mean |quantised - spikes|")
    middle.set_title("distance of each layer", fontsize=10)
    middle.legend(fontsize=7, ncols=1 + len(c.layers) // 8)
    for axis in (left, middle):
        axis.set_xscale("log", base=2)
        axis.set_xticks(steps, [str(t) for t in steps])
        axis.set_xlabel("T")
    last, names = steps[-1], list(c.layers)
    under = [0.0] * len(names)
    for part in PARTS:
        sizes = [c.layers[name][last].parts[part][1] for name in names]
        right.barh(names, sizes, left=under, color=COLOURS[part], label=part)
        under = [a + b for a, b in zip(under, sizes, strict=True)]
    right.invert_yaxis()
    right.tick_params(axis="y", labelsize=7)
    right.set_xlabel(f"mean size of each part of the error, T = {last}")
    right.set_title("spikes - original", fontsize=10)
    right.legend(fontsize=8)
    if title:
        figure.suptitle(title)
    with atomic_path(Path(path)) as part_file:
        figure.savefig(part_file, format="png", dpi=110)
