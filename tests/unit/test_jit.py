"""The cache of compiled kernels must not outlive the code it was made of."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

from neuro.hardware import jit

HELPER = """from neuro.hardware.jit import piece
@piece
def step(x):
    return x + {}
"""
KERNEL = """from neuro.hardware.jit import kernel
from helper import step
@kernel
def run(x):
    return step(x)
"""
MAIN = """import sys
from pathlib import Path
from neuro.hardware import jit
folder = Path(sys.argv[1])
original = jit.fingerprint
jit.fingerprint = lambda: original(folder)
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


def test_the_fingerprint_covers_kernel_files_only(tmp_path):
    (tmp_path / "a.py").write_text(KERNEL)
    before = jit.fingerprint(tmp_path)
    (tmp_path / "b.py").write_text("x = 1")
    jit.fingerprint.cache_clear()
    assert jit.fingerprint(tmp_path) == before
    (tmp_path / "a.py").write_text(KERNEL + "\n")
    jit.fingerprint.cache_clear()
    assert jit.fingerprint(tmp_path) != before


def test_whatever_is_compiled_in_takes_part_in_the_fingerprint():
    """Kernels, and the constants that files with kernels import."""
    folder = Path(jit.__file__).parent
    for path in folder.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        if "@kernel" not in text and "@piece" not in text:
            continue
        assert jit.MARK.decode() in text
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("neuro.hardware."):
                constants = [alias.name for alias in node.names if alias.name.isupper()]
                source = folder / f"{node.module.rsplit('.', 1)[1]}.py"
                assert not constants or jit.MARK in source.read_bytes(), f"{path.name} compiles {constants} in"


def test_nothing_is_compiled_past_jit():
    folder = Path(jit.__file__).parent
    assert [p.name for p in folder.rglob("*.py") if b"njit" in p.read_bytes()] == ["jit.py"]
