"""The harness that times other people's code: turns, who is missing, what memory means."""

from __future__ import annotations

from pathlib import Path

import axon_peers
import pytest
from axon_peers import Job, PeerFailed, Timing, memory, ratio, rounds

WORKER = """
import sys, time
from axon_peers import Work, serve

def build(a):
    if a.get("fail") == "build":
        raise ValueError("no such layer")
    print("noise on standard output")
    turns = []
    kept = []
    def step():
        turns.append(1)
        if a.get("fail") == "step" and len(turns) > 2:
            raise ValueError("diverged")
        time.sleep(a.get("sleep", 0))
        block = bytearray(a.get("mb", 0) << 20)
        for k in range(0, len(block), 4096):
            block[k] = 1
        if a.get("leak"):
            kept.append(block)
        return a.get("own_clock")
    def forward():
        return bytearray(b"1") * (a["kept_mb"] << 20)
    return Work(step, lambda: {"x": 1}, said={"version": "7"}, reported="own_clock" in a,
                forward=forward if "kept_mb" in a else None)

serve(build)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "worker.py"
    path.write_text(WORKER, encoding="utf-8")
    return path


def test_jobs_take_turns_and_those_that_cannot_are_left_out_by_name(
    script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(axon_peers.TORCH_PEERS, raising=False)
    jobs = [
        Job("slow", script, arguments={"sleep": 0.02}),
        Job("fast", script, arguments={"sleep": 0.005}),
        Job("own", script, arguments={"own_clock": 0.25}),
        Job("absent", script, axon_peers.TORCH_PEERS),
        Job("unbuilt", script, arguments={"fail": "build"}),
        Job("diverging", script, arguments={"fail": "step"}),
    ]
    times, left_out = rounds(jobs, count=3, warm=1, threads=1)
    assert list(times) == ["slow", "fast", "own"]
    assert all(len(t.seconds) == 3 and t.check == {"x": 1} and t.said == {"version": "7"} for t in times.values())
    assert times["own"].seconds == [0.25] * 3
    assert min(times["slow"].seconds) >= 0.02
    assert min(times["fast"].seconds) >= 0.005
    assert set(left_out) == {"absent", "unbuilt", "diverging"}
    assert "NEURO_TORCH_PEERS is not set" in left_out["absent"]
    assert "no such layer" in left_out["unbuilt"]
    assert "diverged" in left_out["diverging"]


def test_a_ratio_is_taken_within_a_turn() -> None:
    slow, fast = (Timing(s, s, {}, {}) for s in ([2.0, 20.0, 4.0], [1.0, 10.0, 2.0]))
    assert ratio(slow, fast) == {"ratio": 2.0, "low": 2.0, "high": 2.0}  # the machine was slower in the second
    uneven = ratio(Timing([1.0, 2.0, 9.0], [], {}, {}), Timing([1.0] * 3, [], {}, {}))
    assert uneven["low"] <= uneven["ratio"] == 2.0 <= uneven["high"]
    assert uneven["low"] < uneven["high"]


@pytest.mark.parametrize("leak", [False, True])
def test_memory_is_the_peak_of_whole_steps_above_what_was_there(script: Path, leak: bool) -> None:
    found = memory(Job("m", script, arguments={"mb": 48, "leak": leak, "kept_mb": 24}), threads=1)
    expected = 96 if leak else 48  # two steps
    assert expected - 1 < found["peak_bytes"] / 2**20 < expected + 3
    assert 23 < found["kept_bytes"] / 2**20 < 25


def test_a_worker_that_cannot_be_built_says_why(script: Path) -> None:
    with pytest.raises(PeerFailed, match="no such layer"):
        memory(Job("m", script, arguments={"fail": "build"}), threads=1)
