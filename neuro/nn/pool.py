"""`pool`: threads that run compiled loops; and meanwhile torch's idle OpenMP threads sleep, whoever was imported first.

A thread of GNU's OpenMP that has nothing to do looks for work for milliseconds before it sleeps, on a core that the
threads of our kernels want: a training step of the N-MNIST network took 1.6 times as long (33 and 20 ms on two cores,
measured). OMP_WAIT_POLICY forbids that, but is read when torch is loaded, and most programs import torch first.

What still helps then: OpenMP looks for next to no time where it has more threads than there are cores. Those it has
are counted per thread that ever ran a parallel loop. So a thread that runs one, and then sleeps for as long as the
process lives, makes all others sleep in time. It computes nothing and changes no result. Other runtimes (LLVM's,
Intel's) do not count so, and nothing changes.
"""

from __future__ import annotations

import atexit
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch

import neuro

PARALLEL = 1 << 17  # elements; torch shares out an addition of so many


@cache
def pool(threads: int) -> ThreadPoolExecutor:
    """Of so many threads; one for each number, for as long as the process lives."""
    calm()  # before the first thread of ours wants a core
    return ThreadPoolExecutor(threads, thread_name_prefix="neuro.nn")


@cache
def calm() -> bool:
    """Start the thread that makes the others sleep, where it is needed. Whether it was."""
    if not neuro.TORCH_CAME_FIRST or torch.get_num_threads() < 2:
        return False
    done, over = threading.Event(), threading.Event()

    def sleep() -> None:
        torch.zeros(PARALLEL).add_(1.0)
        done.set()
        over.wait()

    def end() -> None:  # who is still there when the interpreter goes may take the process down with it
        over.set()
        thread.join(10.0)

    thread = threading.Thread(target=sleep, name="neuro-calm", daemon=True)
    atexit.register(end)
    thread.start()
    return done.wait(10.0)
