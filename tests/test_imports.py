"""Import time, and living beside a foreign `datasets` package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def python(code: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **env}, cwd=ROOT, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def best_of(code: str, runs: int = 5) -> float:
    return min(
        float(python(f"import time; t = time.perf_counter(); {code}; print(time.perf_counter() - t)"))
        for _ in range(runs)
    )


def test_import_neuro_is_fast() -> None:
    assert best_of("import neuro") < 0.2


def test_help_is_fast() -> None:
    code = (
        "import sys, io, contextlib; sys.argv = ['neuro', '--help']\n"
        "with contextlib.redirect_stdout(io.StringIO()) as out:\n"
        "    from neuro.cli import main\n"
        "    try: main()\n"
        "    except SystemExit as stop: assert stop.code in (0, None)\n"
        "assert 'deploy' in out.getvalue()"
    )
    whole = f"import time; t = time.perf_counter()\n{code}\nprint(time.perf_counter() - t)"
    assert min(float(python(whole)) for _ in range(5)) < 0.5


def test_import_neuro_loads_nothing_heavy() -> None:
    loaded = python("import neuro, sys; print(' '.join(sys.modules))").split()
    assert not {"torch", "numba", "matplotlib", "h5py", "nir", "lava", "tonic", "snntorch"} & set(loaded)


def test_a_foreign_datasets_package_wins(tmp_path: Path) -> None:
    package = tmp_path / "datasets"
    package.mkdir()
    (package / "__init__.py").write_text("WHO = 'foreign'\n")
    code = "import datasets, neuro.datasets.source as ours; print(datasets.WHO, ours.__name__)"
    # even from inside the checkout, where a folder of that name lies in the working directory
    assert python(code, PYTHONPATH=str(tmp_path)) == "foreign neuro.datasets.source"
    late = f"import sys; sys.path.append({str(tmp_path)!r}); import datasets; print(datasets.WHO)"
    assert python(late) == "foreign"


def test_hardware_refuses_any_other_name() -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\ntry: import hardware\nexcept ImportError as e: print(e)"
    assert "neuro.hardware" in python(code)


def test_modules_run_without_optional_packages() -> None:
    """`neuro --help` and the core work where lava, tonic, snntorch and norse are absent."""
    code = (
        "import sys\n"
        "for name in ('lava', 'tonic', 'snntorch', 'norse'): sys.modules[name] = None\n"
        "import neuro, neuro.cli, neuro.hardware, neuro.train.loop, neuro.datasets.source\n"
        "print('ok')"
    )
    assert python(code) == "ok"
