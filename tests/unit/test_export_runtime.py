"""The guard around Lava's runtime: nothing hangs, nothing is left behind, every failure has a name."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from lava_programs import FAIL_AT_5, HANG_AT_5, SLOW, needs_lava, spikes, spoil, two_layers

from neuro.errors import FormatError, OracleError, SimulationError
from neuro.hardware.export.lava import write_graph
from neuro.hardware.export.lava_graph import lower
from neuro.hardware.export.lava_runtime import members, run_lava

pytestmark = [pytest.mark.lava, needs_lava]

PARENT = """
import sys
import numpy as np
from neuro.hardware.export.lava_runtime import run_lava
run_lava(sys.argv[1], np.zeros((400, 1, 12), np.uint8), 300)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    program = two_layers(hidden=16)
    path = tmp_path / "exported"
    path.mkdir()
    write_graph(program, lower(program), path)
    return path


def orphaned_memory():
    """Shared memory segments that no running process has mapped."""
    names = {p.name for p in Path("/dev/shm").glob("psm_*")}
    for entry in Path("/proc").glob("[0-9]*/maps"):
        try:
            text = entry.read_text()
        except OSError:
            continue
        names -= {n for n in names if n in text}
    return names


def groups(folder):
    """Process groups of the workers whose job lies in a folder."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes()
            if b"lava_worker" in words and str(folder).encode() in words:
                found.add(os.getpgid(int(entry.name)))
        except OSError:
            continue
    return found


def about(of):
    """What is still running in some process groups: pid, state, parent, command, seconds of processor time."""
    lines = []
    for pid in (p for g in of for p in members(g)):
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")[-120:].decode()
        lines.append(f"{pid} {stat[0]} parent {stat[1]} threads {stat[17]} {command}")
    return "; ".join(lines)


def wait_until(true, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.05)
    return False


def test_a_failing_process_model_is_reported_with_its_traceback_and_not_waited_for(folder, tmp_path):
    spoil(folder, FAIL_AT_5)
    orphans, started = orphaned_memory(), time.monotonic()
    with pytest.raises(OracleError, match="injected failure"):
        run_lava(folder, np.zeros((20, 2, 12), np.uint8), 60)
    assert time.monotonic() - started < 30
    assert not groups(tmp_path)
    assert not list(tmp_path.glob("axonport-lava-*"))
    assert wait_until(lambda: orphaned_memory() <= orphans, 3)


def test_a_process_model_that_never_returns_is_cut_off_at_the_deadline(folder, tmp_path):
    spoil(folder, HANG_AT_5)
    orphans, started = orphaned_memory(), time.monotonic()
    with pytest.raises(OracleError, match=r"did not end within 6 s \("):
        run_lava(folder, np.zeros((20, 2, 12), np.uint8), 6)
    assert time.monotonic() - started < 20
    assert not groups(tmp_path)
    assert not list(tmp_path.glob("axonport-lava-*"))
    assert wait_until(lambda: orphaned_memory() <= orphans, 3)


@pytest.mark.parametrize(
    ("sent", "phase"), [(signal.SIGKILL, "start"), (signal.SIGKILL, "run"), (signal.SIGTERM, "run")]
)
def test_killing_the_parent_ends_every_process_of_lava_and_frees_its_memory(folder, tmp_path, sent, phase):
    spoil(folder, SLOW)
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    orphans = orphaned_memory()
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(folder)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    # While Lava starts, its processes come within a moment of each other: waiting for all of them misses the phase.
    enough = 2 if phase == "start" else 5

    def jobs():
        return list(tmp_path.glob("axonport-lava-*"))

    def running():
        texts = [p.read_text() for j in jobs() for p in j.glob("progress.json")]
        return any(json.loads(t)["phase"] == phase for t in texts) and len(started()) >= enough

    def started():
        return [pid for group in groups(tmp_path) for pid in members(group)]

    try:
        assert wait_until(running, 30), "Lava did not start"
        mine = groups(tmp_path)
        parent.send_signal(sent)
        assert parent.wait(10) == -sent
        assert wait_until(lambda: not any(members(g) for g in mine), 3), f"left behind: {about(mine)}"
        assert wait_until(lambda: orphaned_memory() <= orphans, 2), "shared memory was left behind"
        assert wait_until(lambda: not jobs(), 2), "the job's folder was left behind"
    finally:
        parent.kill()
        parent.wait()
        for group in groups(tmp_path):
            os.killpg(group, signal.SIGKILL)


def test_samples_do_not_see_each_other(folder):
    dense = spikes(np.random.default_rng(3), 25, 3, 12, 0.4)
    together = run_lava(folder, dense, 60)
    alone = run_lava(folder, dense[:, 2:], 60)
    assert together.values["hidden", "u"].shape == (27, 3, 16)
    assert together.values["hidden", "s"].any()
    for key, values in together.values.items():
        assert np.array_equal(values[:, 2:], alone.values[key]), key


def test_a_folder_that_is_not_whole_is_refused_before_anything_starts(folder):
    (folder / "weights.npz").unlink()
    with pytest.raises(FormatError, match="not a whole exported Lava folder"):
        run_lava(folder, np.zeros((5, 1, 12), np.uint8), 60)


@pytest.mark.parametrize(
    "dense", [np.zeros((5, 1, 11), np.uint8), np.full((5, 1, 12), 2), np.zeros((0, 1, 12), np.uint8)]
)
def test_input_that_does_not_suit_is_refused(folder, dense):
    with pytest.raises(SimulationError, match="dense must"):
        run_lava(folder, dense, 60)
