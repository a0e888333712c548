"""Every Python block of README and docs runs as it stands; every `neuro` command in them is one, with options it has.

Blocks of a page run in their order in one namespace, where a small network, events and a program are given, and what
`axon_docs` has for the page: the reader's model or circuit. A page whose blocks train for long is marked slow.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main
from axon_docs import SHORTER, given

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
ELLIPSIS = re.compile(r"\(\.\.\.[,)]")
SLOW = {"continual", "doors", "engine", "tutorial"}


def blocks(page: Path, kind: str) -> list[str]:
    return [body for language, body in FENCE.findall(page.read_text(encoding="utf-8")) if language == kind]


def small(folder: Path) -> dict[str, Any]:
    """A small network, recordings for it, its program, a file of it."""
    import neuro
    from neuro import ir
    from neuro.events import EventSet
    from neuro.hardware import compile as compile_network

    rng = np.random.default_rng(0)
    nodes = {
        "in": ir.Input((12,)),
        "w": ir.Linear(rng.normal(0, 0.5, (16, 12))),
        "hidden": ir.LIF(tau_mem=np.full(16, 0.01), v_threshold=0.1),
        "r": ir.Linear(rng.normal(0, 0.5, (3, 16))),
        "out_n": ir.LIF(tau_mem=np.full(3, 0.01), v_threshold=0.1),
        "out": ir.Output("count"),
    }
    network = ir.chain(nodes, dt=1e-3)
    neuro.save(network, folder / "network.nir")
    neuro.save(network, folder / "net.nir")
    x = (rng.random((30, 8, 12)) < 0.2).astype(np.uint8)
    labels = rng.integers(0, 3, 8)
    from neuro.arrays import as_event_set

    data: EventSet = as_event_set((x, labels), 1e-3)
    return {
        "neuro": neuro, "network": network, "data": data, "events": x, "x": x, "labels": labels,
        "program": compile_network(network, "loihi2", max_steps=30),
    }  # fmt: skip


RUN = [p for p in PAGES if blocks(p, "python")]


@pytest.mark.parametrize(
    "page", [pytest.param(p, marks=[pytest.mark.slow] if p.stem in SLOW else [], id=p.stem) for p in RUN]
)
def test_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = small(tmp_path) | given(page.stem, tmp_path)
    bodies = blocks(page, "python")
    for words, fewer in SHORTER.get(page.stem, ()):
        assert any(words in body for body in bodies), f"{page.name} no longer says {words}"
        bodies = [body.replace(words, fewer) for body in bodies]
    for body in bodies:
        if ELLIPSIS.search(body):  # the shape of a thing, not a call
            compile(body, str(page), "exec")
            continue
        exec(compile(body, str(page), "exec"), names)


def commands() -> list[Any]:
    found = []
    for page in PAGES:
        for body in blocks(page, "sh"):
            for line in body.splitlines():
                text = line.split("#")[0].strip()
                if text.startswith("neuro "):
                    found.append(pytest.param(text, id=f"{page.stem}: {text[:60]}"))
    return found


@pytest.mark.parametrize("text", commands())
def test_commands_exist_with_these_options(text: str) -> None:
    from neuro.cli import app

    words = shlex.split(text)[1:]
    command: Any = typer.main.get_command(app)
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        name = words.pop(0)
        assert name in command.commands, f"neuro has no command '{name}'"
        command = command.commands[name]
    known = {option for parameter in command.params for option in parameter.opts}
    known |= {"--help", "-h"}
    for word in words:
        if word.startswith("-"):
            assert word.split("=")[0] in known, f"{word} is no option of neuro {command.name}: {sorted(known)}"


def test_tests_and_proofs_that_are_named_exist() -> None:
    sources = [*PAGES, ROOT / "docs" / "generated.py"]
    named = {
        path for page in sources for path in re.findall(r"tests/[a-z_0-9/]*\.py", page.read_text(encoding="utf-8"))
    }
    assert named
    assert not [path for path in sorted(named) if not (ROOT / path).is_file()]
