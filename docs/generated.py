"""Pages made from the code itself: what each chip holds, each data set, each learning rule."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

from neuro.datasets.source import source, sources
from neuro.hardware.target import load_target, targets
from neuro.ir import NODE_TYPES
from neuro.learn.rule import RULES

# where each rule is held against something that is not ours; a rule without a row here has no page, which fails
PROOFS = {
    "bptt": "`tests/unit/test_nn_carry.py`, `tests/proofs/memory.py`",
    "sltt": "`tests/unit/test_learn_sltt.py`, `tests/proofs/memory.py`",
    "ottt": "`tests/unit/test_learn_ottt.py`, `tests/proofs/memory.py`",
    "eprop": "`tests/unit/test_learn_eprop.py`, `tests/proofs/memory.py`",
    "decolle": "`tests/unit/test_learn_ottt.py`, `tests/proofs/memory.py`",
    "dsr": "`tests/unit/test_learn_dsr.py`",
    "eventprop": "`tests/unit/test_learn_eventprop.py`, `tests/proofs/eventprop.py`",
}


def support() -> str:
    """One row per node, one column per chip, from the lowering tables."""
    chips = {name: {kind.__name__: how for kind, how in load_target(name).supports.items()} for name in targets()}
    lines = ["# What each chip holds", "", "Generated from the lowering tables. A dash: refused by name.", ""]
    lines += [f"| node | {' | '.join(chips)} |", f"|---{'|---' * len(chips)}|"]
    for node in NODE_TYPES:
        cells = [rows.get(node, "-") or "yes" for rows in chips.values()]
        lines.append(f"| `{node}` | {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join([*lines, ""])


def dataset(name: str) -> str:
    """A data set: what it is, whose it is, how it is read."""
    one = source(name)
    module = inspect.getmodule(one.reader)
    rows = {
        "licence": one.licence,
        "citation": one.citation,
        "where": one.url,
        "shape of a step": one.shape,
        "classes": len(one.classes) if one.classes else "as in the files",
        "step": f"{one.dt:g} s, {one.steps} steps",
        "embedded": "yes" if one.embedded else "no: give a path, or let tonic fetch it",
    }
    lines = [f"# Data set `{name}`", "", one.title, "", "| | |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in rows.items()]
    lines += [
        "",
        "```python",
        "import neuro",
        f'data = neuro.load_dataset("{name}", "all")  # or a path as third',
        "```",
    ]
    return "\n".join([*lines, "", inspect.cleandoc(getattr(module, "__doc__", "") or ""), ""])


def rule(name: str) -> str:
    """A learning rule: its equation and source as its module says them, its options, its proof."""
    module, _, cls = RULES[name].partition(":")
    loaded = importlib.import_module(module)
    kind = getattr(loaded, cls)
    lines = [f"# Learning rule `{name}`", "", inspect.cleandoc(loaded.__doc__ or ""), "", "## Options", ""]
    lines += [inspect.cleandoc(kind.__doc__ or ""), "", "```toml", "[rule]", f'kind = "{name}"', "```", ""]
    return "\n".join([*lines, "## Held against", "", PROOFS[name], ""])


def write(folder: Path) -> None:
    """All of them."""
    (folder / "support.md").write_text(support(), encoding="utf-8")
    for name in sources():
        (folder / f"dataset_{name}.md").write_text(dataset(name), encoding="utf-8")
    for name in RULES:
        (folder / f"rule_{name}.md").write_text(rule(name), encoding="utf-8")
