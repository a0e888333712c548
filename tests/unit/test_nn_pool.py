"""Idle threads of torch's OpenMP sleep, whoever was imported first (`neuro.nn.pool`)."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# processor time of 40 short additions with pauses between them, in which idle threads have nothing to do but to spin
PROGRAM = """
import os, time, torch
torch.set_num_threads(2)
x = torch.zeros(1 << 17)
x.add_(1.0)
if {neuro}:
    from neuro.nn.pool import pool
    pool(2)
    pool(3)
x.add_(1.0)
before = time.process_time()
for _ in range(40):
    x.add_(1.0)
    time.sleep(0.01)
print(time.process_time() - before, sum(t.name == "neuro-calm" for t in __import__("threading").enumerate()))
"""


def run(neuro: bool, **environment: str) -> tuple[float, int]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))} | environment
    made = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(neuro=neuro)], env=kept, capture_output=True, text=True, check=True
    )
    seconds, threads = made.stdout.split()
    return float(seconds), int(threads)


@pytest.mark.skipif(
    sys.platform != "linux" or (os.cpu_count() or 1) != 2, reason="two threads of GNU's OpenMP on two cores"
)
def test_they_do_not_spin_where_torch_came_first() -> None:
    spinning = run(neuro=False)[0]
    calm, threads = run(neuro=True)
    assert threads == 1
    assert calm < spinning / 3, f"{calm:.3f} s of {spinning:.3f} s"


def test_what_the_user_has_set_stays() -> None:
    assert run(neuro=True, OMP_WAIT_POLICY="ACTIVE")[1] == 0
