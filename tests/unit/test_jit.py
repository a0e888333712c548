"""The cache of compiled kernels must not outlive the code it was made of."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from neuro import jit

HELPER = """from neuro.jit import piece
@piece
def step(x):
    return x + {}
"""
KERNEL = """from neuro.jit import kernel
from helper import step
@kernel
def run(x):
    return step(x)
"""
MAIN = """import sys
from pathlib import Path
from neuro import jit
folder = Path(sys.argv[1])
original = jit.fingerprint
jit.fingerprint = lambda _: original(folder)
sys.path.insert(0, str(folder))
from main import run
print(run(1), sum(run._cache_hits.values()))
"""


def ask(folder: Path) -> list[str]:
    """(run(1), cache hits) in a process of its own."""
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_DISABLE_JIT"}
    command = [sys.executable, "-c", MAIN, str(folder)]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, timeout=120
    ).stdout.split()


def test_a_change_in_another_file_is_compiled_in(tmp_path):
    (tmp_path / "main.py").write_text(KERNEL)
    helper = tmp_path / "helper.py"
    helper.write_text(HELPER.format(1))
    assert ask(tmp_path) == ["2", "0"]
    assert ask(tmp_path) == ["2", "1"]
    stamp = helper.stat()
    helper.write_text(HELPER.format(5))
    os.utime(helper, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # the same time, the same length
    assert ask(tmp_path) == ["6", "0"]
    kept = list((tmp_path / "__pycache__").glob("main.run-*.nb[ci]"))
    assert len(kept) == 2, "one index, one kernel: what was compiled from old code is deleted"


def test_two_processes_that_compile_two_variants_at_once_do_not_mix_them_up(tmp_path):
    one, other = (jit._File(str(tmp_path), "kernel", 1) for _ in range(2))
    other._load_index = dict  # it looked before the first one wrote
    write = one._save_index

    def meanwhile(index):
        write(index)
        other.save("for integers", b"integers")

    one._save_index = meanwhile
    one.save("for floats", b"floats")
    reader = jit._File(str(tmp_path), "kernel", 1)
    assert reader.load("for integers") == b"integers"
    assert reader.load("for floats") in (None, b"floats"), "at worst it is compiled again"


def test_the_fingerprint_covers_kernel_files_only(tmp_path):
    (tmp_path / "a.py").write_text(KERNEL)
    before = jit.fingerprint(tmp_path)
    (tmp_path / "b.py").write_text("x = 1")
    jit.fingerprint.cache_clear()
    assert jit.fingerprint(tmp_path) == before
    (tmp_path / "a.py").write_text(KERNEL + "\n")
    jit.fingerprint.cache_clear()
    assert jit.fingerprint(tmp_path) != before


def test_disjoint_tells_the_compiler_that_arrays_do_not_overlap(monkeypatch):
    def nowhere(_):
        raise RuntimeError("no folder")  # one function compiled in two ways must not meet itself on disk

    monkeypatch.setattr(jit, "_Cache", nowhere)

    def add(a, b):
        for i in range(a.size):
            a[i] += b[i]

    a, b = np.arange(100, dtype=np.int32), np.arange(100, dtype=np.int32)
    texts = []
    for decorate in (jit.kernel, jit.disjoint):
        compiled = decorate(add)
        compiled(a, b)
        if compiled is add:
            pytest.skip("needs the compiler (NUMBA_DISABLE_JIT is set)")
        texts.append(next(iter(compiled.inspect_llvm().values())))
    data = [re.search(r"ptr noalias[^,]*%arg.a.4", text) for text in texts]
    assert not data[0]
    assert data[1]
    np.testing.assert_array_equal(a, 3 * b)


def test_a_kernel_inside_a_piece_is_not_forced_into_its_caller(monkeypatch):
    made = []

    class Piece(jit._Piece):
        def __init__(self, codegen, name):
            made.append(name)
            super().__init__(codegen, name)

    def nowhere(_):
        raise RuntimeError("no folder")

    monkeypatch.setattr(jit, "_Cache", nowhere)
    monkeypatch.setattr(jit, "_Piece", Piece)
    inner = jit.kernel(lambda x: x + 1)
    middle = jit.piece(lambda x: inner(x) + 1)
    outer = jit.kernel(lambda x: middle(x) + 1)
    assert outer(1) == 4
    if not hasattr(outer, "py_func"):
        pytest.skip("needs the compiler (NUMBA_DISABLE_JIT is set)")
    assert len(made) == 1


@pytest.mark.parametrize("kind", [np.int32, np.uint32])
def test_places_are_those_of_the_ones_and_nothing_beside_them_is_written(kind, monkeypatch):
    def nowhere(_):
        raise RuntimeError("no folder")

    monkeypatch.setattr(jit, "_Cache", nowhere)

    def put(words, first, out):
        for k in range(words.size):
            jit.places(words[np.uintp(k)], first, out, np.uintp(100 * k + 3))

    rng = np.random.default_rng(0)
    bits = rng.random((200, 64)) < rng.random((200, 1))
    bits[:3] = [[False], [True], [False]]
    bits[2, [0, 63]] = True
    words = np.packbits(bits, axis=1, bitorder="little").view(np.uint64).ravel()
    for first in (0, 5 * 64, 1 << 30):
        expected = np.full((200, 100), 7, kind)
        for row, of in zip(expected, bits, strict=True):
            found = np.flatnonzero(of)
            row[3 : 3 + found.size] = first + found
        for function in (jit.kernel(put), put):
            out = np.full(expected.size, 7, kind)
            function(words, first, out)
            np.testing.assert_array_equal(out.reshape(expected.shape), expected)


def folders():
    root = Path(jit.__file__).parent
    return sorted({p.parent for top in (root, root / "hardware", root / "datasets") for p in top.rglob("*.py")})


def test_whatever_is_compiled_in_takes_part_in_the_fingerprint():
    """Kernels, and the pieces and constants that files with kernels import: from their own folder, or shared."""
    seen = 0
    for path in (p for folder in folders() for p in folder.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        if path.name == "jit.py" or not re.search(r"^@(kernel|disjoint|piece|routine)\b", text, re.M):
            continue
        seen += 1
        assert jit.MARK.decode() in text
        compiled = [f for f in tree.body if isinstance(f, ast.FunctionDef) and f.decorator_list]
        bodies = [statement for f in compiled for statement in f.body]
        used = {n.id for s in bodies for n in ast.walk(s) if isinstance(n, ast.Name)}
        for node in ast.walk(tree):
            if not (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("neuro.")):
                continue
            names = [alias.name for alias in node.names if (alias.asname or alias.name) in used]
            if not names:
                continue
            source = Path(jit.__file__).parent.joinpath(*node.module.split(".")[1:]).with_suffix(".py")
            if source in jit.SHARED:
                continue
            assert source.parent.resolve() == path.parent.resolve(), f"{path} compiles {names} of another folder in"
            assert jit.MARK in source.read_bytes(), f"{path.name} compiles {names} of {source.name} in"
    assert seen > 5


def test_nothing_is_compiled_past_jit():
    found = {p.name for folder in folders() for p in folder.glob("*.py") if b"njit" in p.read_bytes()}
    assert found == {"jit.py"}
