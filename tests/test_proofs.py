"""Every proof, in its quick form, holds and writes what it found. Whole ones: `make proofs`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROOFS = sorted((Path(__file__).parent / "proofs").glob("*.py"))


def test_the_proofs_are_there() -> None:
    known = {"lava_equality", "loihi_accuracy", "kill_resume", "bad_input", "energy_validation"}
    assert known <= {p.stem for p in PROOFS}


@pytest.mark.slow
@pytest.mark.parametrize("proof", PROOFS, ids=[p.stem for p in PROOFS])
def test_quick_proof(proof: Path, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    command = [sys.executable, str(proof), "--quick", "--json", str(out)]
    idle = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}  # torch's idle threads: on a busy machine spinning costs most
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500, env=idle)
    assert done.returncode == 0, (done.stdout[-3000:], done.stderr[-3000:])
    assert json.loads(out.read_text(encoding="utf-8"))
