"""Run folders without training: claims, locks, differences, versions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from neuro import results
from neuro.errors import ChecksumMismatch, RunError


def test_the_first_claim_writes_the_configuration(tmp_path: Path) -> None:
    results.claim(tmp_path, {"seed": 1, "data": {"steps": 3, "list": (1, 2)}}, resume=True)
    assert json.loads((tmp_path / results.CONFIG).read_text()) == {"seed": 1, "data": {"steps": 3, "list": [1, 2]}}
    results.claim(tmp_path, {"seed": 1, "data": {"steps": 3, "list": (1, 2)}}, resume=True)


def test_another_configuration_is_refused_with_what_differs(tmp_path: Path) -> None:
    results.claim(tmp_path, {"seed": 1, "data": {"steps": 3}, "gone": 1}, resume=True)
    with pytest.raises(RunError) as caught:
        results.claim(tmp_path, {"seed": 2, "data": {"steps": 4}, "new": 5}, resume=True)
    assert [str(v).split(" is ")[0] for v in caught.value.violations] == ["data.steps", "gone", "new", "seed"]


def test_resume_has_to_be_wanted(tmp_path: Path) -> None:
    results.claim(tmp_path, {"seed": 1}, resume=False)
    with pytest.raises(RunError, match="already holds"):
        results.claim(tmp_path, {"seed": 1}, resume=False)


def test_a_configuration_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / results.CONFIG).write_text("{")
    with pytest.raises(RunError, match="cannot be read"):
        results.claim(tmp_path, {}, resume=True)


def test_the_lock_removes_what_a_killed_writer_left(tmp_path: Path) -> None:
    (tmp_path / ".network.nir.abc.part").write_text("half")
    (tmp_path / "kept.part").write_text("not ours")
    with results.locked(tmp_path):
        assert sorted(p.name for p in tmp_path.iterdir()) == [results.LOCK, "kept.part"]


def test_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    """Held by a living process it refuses; after kill -9 it is free."""
    code = (
        "import sys, time; from pathlib import Path; from neuro.results import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(RunError, match="another process"), results.locked(tmp_path):
            pass
        child.kill()
    with results.locked(tmp_path):
        pass


def test_lines_round_trip_and_refuse_nan(tmp_path: Path) -> None:
    rows = [{"epoch": 0, "loss": 0.1 + 0.2}, {"epoch": 1, "loss": 1e-300}]
    results.write_lines(tmp_path / "m.jsonl", rows)
    assert results.read_lines(tmp_path / "m.jsonl") == tuple(rows)
    with pytest.raises(ValueError, match="JSON"):
        results.write_lines(tmp_path / "m.jsonl", [{"loss": float("nan")}])
    assert results.read_lines(tmp_path / "m.jsonl") == tuple(rows), "the old file stays"
    assert [p.name for p in tmp_path.iterdir()] == ["m.jsonl"]


def test_files_are_checked_all_at_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    digest = results.sha256(tmp_path / "a")
    results.check_files(tmp_path, {"a": digest})
    with pytest.raises(ChecksumMismatch) as caught:
        results.check_files(tmp_path, {"a": digest[::-1], "b": digest})
    assert len(caught.value.violations) == 2


def test_versions_name_python_packages_and_commit() -> None:
    found = results.versions()
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert all(found[name] for name in ("axonport", "numpy", "torch"))
    commit = found["commit"]
    assert commit is None or len(commit.rstrip("+")) == 40


def test_no_commit_outside_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "__file__", str(tmp_path / "neuro" / "results.py"))
    assert results.commit() is None
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", os.devnull)
    assert results.commit() is None
