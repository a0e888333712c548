"""Who may import whom. Read from the AST, so a lazy import inside a function counts too."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("neuro", "hardware", "datasets")

# module prefix -> what it may never import, anywhere, however lazily
FORBIDDEN = {
    "neuro.hardware": ("torch", "neuro.nn", "neuro.train", "neuro.convert", "neuro.datasets", "neuro.cli"),
    "neuro.nn": ("neuro.hardware", "neuro.datasets", "neuro.learn", "neuro.train", "neuro.cli"),
    "neuro.learn": ("neuro.hardware", "neuro.datasets", "neuro.train", "neuro.cli"),
    "neuro.train": ("neuro.hardware", "neuro.cli"),
    "neuro.convert": ("neuro.hardware", "neuro.cli"),
    "neuro.doors": ("neuro.hardware", "neuro.train", "neuro.cli", "snntorch", "norse", "spikingjelly", "sinabs"),
    "neuro.datasets": ("neuro.hardware", "neuro.nn", "neuro.train", "neuro.ir", "neuro.cli"),
    "neuro.engine": ("torch", "neuro.nn", "neuro.train", "neuro.datasets", "neuro.cli"),
    "neuro.plasticity": (
        "torch",
        "neuro.hardware",
        "neuro.nn",
        "neuro.learn",
        "neuro.train",
        "neuro.datasets",
        "neuro.cli",
    ),
    "neuro.page": ("neuro.hardware", "neuro.nn", "neuro.train", "neuro.datasets", "neuro.convert", "torch", "numba"),
    "neuro.report": ("neuro.hardware", "neuro.nn", "neuro.train", "neuro.datasets", "torch", "numba"),
}
# the foundation: numpy and the standard library only
FOUNDATION = ("errors", "extend", "ir", "node", "stateless", "neuron", "shapes", "discretise", "events", "reference",
              "html_tables")  # fmt: skip
# heavy packages load where they are used: never at import time of these layers
LAZY = ("torch", "numba", "lava", "nir", "h5py", "tonic", "snntorch", "norse", "matplotlib", "scipy", "pooch")
EAGER_TORCH = (  # torch is what these are about
    *("neuro.nn", "neuro.learn", "neuro.train", "neuro.convert", "neuro.doors"),
    *("neuro.conversion", "neuro.conversion_chips", "neuro.conversion_data"),
)
EAGER_NUMBA = ("neuro.jit", "neuro.hardware", "neuro.datasets", "neuro.engine", "neuro.plasticity", *EAGER_TORCH)


def modules() -> list[tuple[str, Path]]:
    found = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if any((ROOT / "neuro" / link) in path.parents for link in ("hardware", "datasets")):
                continue  # the links; their targets are walked by their own name
            parts = list(path.relative_to(ROOT).with_suffix("").parts)
            if parts[0] != "neuro":
                parts.insert(0, "neuro")
            if parts[-1] == "__init__":
                parts.pop()
            found.append((".".join(parts), path))
    return found


def imports(tree: ast.Module, *, top_level: bool) -> set[str]:
    """Full module names imported; at top level only, or anywhere."""
    nodes = _outside_functions(tree) if top_level else list(ast.walk(tree))
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, "relative imports hide the layer"
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _outside_functions(tree: ast.Module) -> list[ast.AST]:
    found: list[ast.AST] = []
    todo: list[ast.AST] = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            todo += node.orelse
            continue
        found.append(node)
        todo += list(ast.iter_child_nodes(node))
    return found


def inside(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == p or name.startswith(p + ".") for p in prefixes)


MODULES = modules()


def test_every_module_is_seen() -> None:
    names = {name for name, _ in MODULES}
    assert {"neuro.ir", "neuro.hardware.program", "neuro.datasets.source", "neuro.nn.layers"} <= names


@pytest.mark.parametrize(("name", "path"), MODULES, ids=[n for n, _ in MODULES])
def test_layers(name: str, path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    anywhere, at_import = imports(tree, top_level=False), imports(tree, top_level=True)
    for layer, never in FORBIDDEN.items():
        if inside(name, (layer,)):
            found = {i for i in anywhere if inside(i, never)}
            assert not found, f"{name} may not import {found}"
    if name in {f"neuro.{m}" for m in FOUNDATION}:
        allowed = {"numpy", *(f"neuro.{m}" for m in FOUNDATION), "neuro"}
        foreign = {
            i for i in anywhere if i.split(".")[0] not in sys.stdlib_module_names and not inside(i, tuple(allowed))
        }
        assert not foreign, f"{name} is the foundation: numpy and the standard library only, not {foreign}"
    heavy = set(LAZY)
    if inside(name, EAGER_TORCH):
        heavy -= {"torch"}
    if inside(name, EAGER_NUMBA):
        heavy -= {"numba"}
    found = {i for i in at_import if i.split(".")[0] in heavy}
    assert not found, f"{name} imports {found} at import time; do it inside the function that needs it"


def test_the_detector_detects() -> None:
    tree = ast.parse("import torch\ndef f():\n    from neuro.hardware import chip\n")
    assert imports(tree, top_level=True) == {"torch"}
    assert "neuro.hardware.chip" in imports(tree, top_level=False)
