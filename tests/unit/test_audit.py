"""The audit is red where a hole is known, and says what it could not ask."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

AUDIT = Path(__file__).parents[1] / "audit.py"
KNOWN = {"name": "a", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"]}]}
SOUND = {"name": "b", "version": "2.0", "vulns": []}
SILENT = {"name": "c", "version": "3.0", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("rows", "code", "said"),
    [
        ([KNOWN, SOUND, SILENT], 1, "2 packages asked about, 1 known holes; 1 could not be asked about"),
        ([SOUND, SILENT], 0, "1 packages asked about, 0 known holes; 1 could not be asked about"),
        (None, 0, "0 packages asked about, 0 known holes; 1 could not be asked about"),
    ],
)
def test_audit(
    rows: list[dict[str, object]] | None,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    package = tmp_path / "thing-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: thing\nVersion: 1.0\nLicense: MIT\n")
    answer = SimpleNamespace(stdout="" if rows is None else json.dumps({"dependencies": rows}))
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: answer)
    monkeypatch.setattr(sys, "argv", ["audit.py", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(AUDIT), run_name="__main__")
    assert end.value.code == code
    out = capsys.readouterr().out
    assert said in out
    assert "1  MIT" in out
    assert ("PYSEC-1" in out) == bool(code)
