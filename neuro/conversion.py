"""`convert_model`: a trained network of any front end becomes spikes, with certificates, and a chip's network where one
can be made. Also ``neuro.convert_model``; the package `neuro.convert` holds the parts.

    found = convert_model(module, "mnist", levels=3, weight_bits=4, chip="loihi2")
    print(found)                        # accuracy over T, first T that is equal; the chip beside the quantised graph
    found.save("runs/converted")
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from neuro.conversion_chips import ChipCertificate, certify_on_chip, lower_for
from neuro.conversion_data import Samples, samples
from neuro.convert.certificate import AT, Certificate, certify
from neuro.convert.file import FORMAT, load
from neuro.convert.file import save as save_graph
from neuro.convert.graph import Graph
from neuro.convert.lower import Lowered, to_network
from neuro.convert.quantise import quantise
from neuro.convert.recipes import Can, Spiking, spike
from neuro.convert.tune import tune
from neuro.errors import ConversionError, FormatError
from neuro.files import write_json

if TYPE_CHECKING:
    from rich.console import Group

WEIGHT_BITS: Mapping[str, int | Literal["ternary"]] = {"truenorth": "ternary", "akida1": 4, "spinnaker2": 8}
CAN: Mapping[str, Can] = {
    "loihi2": Can(reset=False),
    **dict.fromkeys(("akida1", "akida2"), Can(signed=False, bursts=False, reset=False)),
    **dict.fromkeys(
        ("loihi1", "spinnaker1", "spinnaker2", "truenorth"), Can(signed=False, graded=False, bursts=False, reset=False)
    ),
}
CALIBRATE = 512  # samples that steps are fitted to and recipes compared on


@dataclass(frozen=True, eq=False)
class Converted:
    """What `convert_model` made.

    original: graph of the front end. quantised: with neurons; what spikes are to equal. spiking: recipe and dynamics.
    certificate: of the spikes, step by step. lowered: for chips, or None and ``refused`` says why.
    chips: chip -> certificate of its simulator.
    """

    original: Graph
    quantised: Graph
    spiking: Spiking
    certificate: Certificate
    lowered: Lowered | None
    refused: str
    chips: Mapping[str, ChipCertificate]
    data: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Every equality that was claimed was found: of the recipe, where it says so, and of every chip."""
        claims = self.spiking.recipe in EXACT
        return (self.certificate.exact or not claims) and all(c.holds for c in self.chips.values())

    def to_json(self) -> dict[str, Any]:
        """Plain data: both kinds of certificate."""
        return {
            "data": self.data,
            "options": dict(self.options),
            "recipe": self.spiking.recipe,
            "holds": self.holds,
            "refused": self.refused,
            "certificate": self.certificate.table(),
            "chips": {name: c.to_json() for name, c in self.chips.items()},
        }

    def save(self, folder: str | Path) -> tuple[Path, ...]:
        """certificate.json, quantised.safetensors, where there is a network network.nir, and certificate.png where
        matplotlib is; each appears whole or not at all. Returns what was written.

        Raises:
            OSError: as the system says.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        written = [folder / "quantised.safetensors"]
        save_graph(self.quantised, written[0])
        if self.lowered is not None:
            written.append(self.write(folder / "network.nir"))
        try:
            from neuro.convert.pictures import picture

            picture(self.certificate, folder / "certificate.png")
            written.append(folder / "certificate.png")
        except ImportError:
            pass  # a picture is an extra
        write_json(folder / "certificate.json", self.to_json())  # last: its presence means that the folder is whole
        return (*written, folder / "certificate.json")

    def write(self, path: str | Path) -> Path:
        """The network as .nir, or the quantised graph as .safetensors.

        Raises:
            ConversionError: .nir, and there is no network: why, and what to do. FormatError: another suffix.
        """
        path = Path(path)
        if path.suffix == ".safetensors":
            save_graph(self.quantised, path)
        elif path.suffix == ".nir":
            if self.lowered is None:
                raise ConversionError(
                    f"{path}: NIR has no nodes for this graph. Write .safetensors instead", [self.refused]
                )
            from neuro.nir import save

            save(self.lowered.network, path)
        else:
            raise FormatError(f"{path}: a network is written as .nir or .safetensors")
        return path

    def table(self) -> Group:
        """For rich: accuracy over T, and the chips."""
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        c = self.certificate
        what = "accuracy" if c.labels else "agreement with the original"
        title = f"{self.spiking.recipe} on {c.samples} samples of {self.data}: original {100 * c.original:.2f} %, "
        over = Table(box=box.SIMPLE_HEAD, title=title + f"quantised {100 * c.quantised:.2f} %", title_justify="left")
        for column in ("T", what, "decisions differ", "messages a sample"):
            over.add_column(column, justify="right")
        for t, score in c.scores.items():
            over.add_row(str(t), f"{100 * score:.2f} %", str(c.mismatches[t]), f"{c.messages[t]:.0f}")
        parts: list[Any] = [over, Text(_equality(c))]
        if self.chips:
            chips = Table(
                box=box.SIMPLE_HEAD, title="in chips' integers, beside the quantised graph", title_justify="left"
            )
            for column in (
                "chip",
                "form",
                "values differ",
                "decisions differ",
                "accuracy",
                "cores",
                "energy",
                "latency",
            ):
                chips.add_column(column, justify="left" if column in ("chip", "form") else "right")
            for row in self.chips.values():
                chips.add_row(*_row(row))
            parts.append(chips)
        if self.refused:
            parts.append(Text(f"no network for chips: {self.refused}"))
        return Group(*parts)

    def __str__(self) -> str:
        lines = [str(self.certificate), *map(str, self.chips.values())]
        return "\n".join(lines + ([f"no network for chips: {self.refused}"] if self.refused else []))

    def _repr_html_(self) -> str:
        c = self.certificate
        rows = "".join(
            f"<tr><td>{t}</td><td>{100 * s:.2f} %</td><td>{c.mismatches[t]}</td><td>{c.messages[t]:.0f}</td></tr>"
            for t, s in c.scores.items()
        )
        head = "<tr><th>T</th><th>accuracy</th><th>decisions differ</th><th>messages a sample</th></tr>"
        chips = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in _row(row)) + "</tr>"
            for row in self.chips.values()
        )
        names = ("chip", "form", "values differ", "decisions differ", "accuracy", "cores", "energy", "latency")
        titles = "<tr>" + "".join(f"<th>{n}</th>" for n in names) + "</tr>"
        said = html.escape(_equality(c) + (f" No network for chips: {self.refused}" if self.refused else ""))
        return f"<table>{head}{rows}</table><p>{said}</p>" + (f"<table>{titles}{chips}</table>" if chips else "")


EXACT = ("st_bif", "graded", "sigma_delta")  # recipes that are equal after settling, whatever the data


def convert_model(
    model: nn.Module | Graph | str | Path | Any,
    data: Any,
    *,
    levels: int = 4,
    steps: int = 16,
    recipe: str = "auto",
    chip: str | Sequence[str] | None = None,
    form: str | None = None,
    weight_bits: int | Literal["ternary"] | None = None,
    input_levels: int | None = None,
    epochs: int = 0,
    architecture: str | None = None,
    shape: tuple[int, ...] | None = None,
    test_samples: int | None = None,
    seed: int = 0,
) -> Converted:
    """Front end, quantisation, recipe, certificate, and the chips.

    Args:
        model: a torch module, a `Graph` (with neurons: it is taken as quantised), a torch ExportedProgram, or a path:
            .onnx, a graph's own .safetensors, or a state dict with ``architecture``.
        data: see `neuro.conversion_data.samples`. levels: of each population. steps: T of the certificate.
        recipe: a name of `neuro.convert.recipes`, "auto" chooses on calibration data by what the chips can do.
        chip: names of chips to certify on. form: as in `neuro.convert.lower.to_network`; None: that of the chip.
        weight_bits: with a chip by default what it holds; else weights stay real.
        input_levels: levels of the input; with a chip by default as many as ``levels`` (1 on TrueNorth).
        epochs: of training of the quantised graph (`neuro.convert.tune`) where there are labels; 0: none.
        test_samples: certify on the first so many only.

    Raises:
        ConversionError, UnsupportedLayer, FormatError: what cannot be read or converted.
        UnknownChip, DoesNotFit, UnsupportedNode: chips that were asked for and cannot hold the network.
    """
    chips = () if chip is None else (chip,) if isinstance(chip, str) else tuple(chip)
    bad = [] if steps >= 1 else [f"steps must be at least 1, got {steps}"]
    bad += [] if epochs >= 0 else [f"epochs must not be negative, got {epochs}"]
    bad += [] if test_samples is None or test_samples >= 1 else [f"test_samples must be at least 1, got {test_samples}"]
    if bad:
        raise ConversionError("cannot convert", bad)
    if chips:
        from neuro.hardware.target import load_target

        for name in chips:
            load_target(name)
        given = [WEIGHT_BITS.get(name, 8) for name in chips]
        smallest: int | Literal["ternary"] = (
            "ternary" if "ternary" in given else min(b for b in given if isinstance(b, int))
        )
        weight_bits = smallest if weight_bits is None else weight_bits
        input_levels = (1 if "truenorth" in chips else levels) if input_levels is None else input_levels
    held = samples(data, shape)
    if test_samples is not None:
        labels = None if held.test_y is None else held.test_y[:test_samples]
        held = replace(held, test_x=held.test_x[:test_samples], test_y=labels)
    original = graph_of(model, held, architecture).to(torch.float64)
    fit = held.x[:CALIBRATE]
    label = None if held.y is None else held.y[:CALIBRATE]
    quantised = original
    if not original.neurons:
        options = {"levels": levels, "weight_bits": weight_bits, "input_levels": input_levels}
        quantised = quantise(original, fit, **options)  # type: ignore[arg-type]
        if epochs and held.y is not None:
            quantised = tune(quantised, held.x, held.y, epochs=epochs, weight_bits=weight_bits, seed=seed)
    can = next((CAN[c] for c in chips if c in CAN and not CAN[c].graded), CAN.get(chips[0]) if chips else None)
    spiking = spike(quantised, fit, recipe=recipe, steps=steps, levels=levels, y=label, can=can, seed=seed)
    at = sorted({t for t in AT if t <= steps} | {steps})
    certificate = certify(original, spiking, held.test_x, y=held.test_y, at=at)
    lowered, refused, found = None, "", {}
    try:
        lowered = to_network(quantised, form or "thermometer")
    except ConversionError as cause:
        refused = str(cause)
    for name in chips:
        own = lower_for(quantised, name, **({} if form is None else {"form": form}))
        found[name] = certify_on_chip(own, name, held.test_x, held.test_y, graph=quantised)
    told = {
        "levels": levels,
        "steps": steps,
        "recipe": recipe,
        "weight_bits": weight_bits,
        "input_levels": input_levels,
    }
    told |= {"epochs": epochs, "seed": seed, "form": form}
    return Converted(original, quantised, spiking, certificate, lowered, refused, found, held.name, told)


def graph_of(model: Any, data: Samples, architecture: str | None = None) -> Graph:
    """The graph of anything that `convert_model` takes.

    Raises:
        ConversionError, FormatError: what it is not, and what it could be.
    """
    if isinstance(model, Graph):
        return model
    if isinstance(model, nn.Module):
        from neuro.convert.from_torch import from_torch

        dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
        return from_torch(model, data.x[:2].to(dtype))
    if isinstance(model, torch.export.ExportedProgram):
        from neuro.convert.from_exported import from_exported

        return from_exported(model)
    if not isinstance(model, (str, Path)):
        raise ConversionError(
            f"a torch module, a Graph, an ExportedProgram or a path is needed, got {type(model).__name__}"
        )
    return _from_file(Path(model), data, architecture)


def _from_file(path: Path, data: Samples, architecture: str | None) -> Graph:
    if not path.is_file():
        raise FormatError(f"{path} does not exist")
    if path.suffix == ".onnx":
        from neuro.convert.from_onnx import from_onnx

        return from_onnx(path)
    if path.suffix == ".pt2":
        from neuro.convert.from_exported import from_exported

        return from_exported(path)  # refuses, and says what to do instead
    if architecture is not None:
        from neuro.convert.from_state import from_state_dict

        return from_state_dict(path, architecture, sample=tuple(data.x.shape[1:]))
    if path.suffix == ".safetensors":
        return load(path)
    raise FormatError(
        f"{path}: .onnx, a graph of ours in .safetensors ({FORMAT}), or weights (.safetensors, .pt) with an "
        "architecture by name can be read"
    )


def _equality(c: Certificate) -> str:
    said = []
    for word, t in (("decisions", c.equal_decisions), ("values", c.equal_values)):
        said.append(f"All {word} equal " + (f"from T = {t} to {c.steps}." if t else f"at no T up to {c.steps}."))
    return " ".join(said)


def _row(c: ChipCertificate) -> tuple[str, ...]:
    from neuro.report import percent, si

    return (
        c.chip,
        c.form + ("" if c.holds else " (claimed equal)"),
        f"{c.differ:,} of {c.values:,}",
        f"{c.decisions} of {c.samples}",
        percent(c.accuracy),
        str(c.cores),
        si(c.energy_j.get("nominal"), "J"),
        si(c.latency_s.get("nominal"), "s"),
    )


__all__ = ["Converted", "Tensor", "convert_model", "graph_of"]
