"""The built wheel holds hardware, datasets and their data, and works without the checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("setuptools", reason="needs setuptools to build without the network")
    out = tmp_path_factory.mktemp("wheel")
    # a copy, so that building leaves nothing in the checkout and finds nothing stale there
    source = out / "source"
    ignore = shutil.ignore_patterns(".git", ".venv", "runs", "build", "*.egg-info", "__pycache__", ".*_cache", "golden")
    shutil.copytree(ROOT, source, symlinks=True, ignore=ignore)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*command, "-w", str(out), str(source)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return next(out.glob("axonport-*.whl"))


def test_wheel_holds_everything(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in (
        "hardware/program.py",
        "hardware/chips/loihi2.toml",
        "hardware/references.bib",
        "hardware/cmos45.toml",
        "datasets/source.py",
    ):
        assert f"neuro/{path}" in names
    assert any(n.startswith("neuro/presets/") and n.endswith(".toml") for n in names)
    assert any(n.startswith("neuro/datasets/data/braille/") for n in names)
    assert any(n.startswith("neuro/datasets/data/nmnist/") for n in names)
    top = {n.split("/")[0] for n in names}
    assert top == {"neuro", next(t for t in top if t.endswith(".dist-info"))}, f"stray top level: {top}"


def test_wheel_works_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(target)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import neuro, neuro.hardware.chip as chip, neuro.datasets.braille as braille\n"
        "assert neuro.__file__.startswith(sys.argv[1]), neuro.__file__\n"
        "print(chip.read_chip(chip.CHIP_FOLDER / 'loihi2.toml').name, len(braille.SOURCE.load('all')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(target)], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["loihi2", "1080"]
