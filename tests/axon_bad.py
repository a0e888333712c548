"""Inputs that must be refused: the table of their makers, and the judge of what happens to each.

A maker takes a seeded generator and a folder, makes something that is truly bad (and asserts that by
means of its own), and returns an `Attempt` to use it. The judge demands one `NeuroError`, in time, with a
message that names what is wrong. To cover a new entry point, write a maker under ``@category``.
"""

from __future__ import annotations

import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from neuro.errors import NeuroError

SEED = 20240
LIMIT_S = 30.0  # of one case; a first call may compile a kernel


@dataclass(frozen=True)
class Attempt:
    """What is bad, the call that must refuse it, and words of which one must be in the message.

    error: the family that the entry point promises.
    """

    what: str
    call: Callable[[], object]
    names: tuple[str, ...]
    error: type[NeuroError] = NeuroError


Maker = Callable[[np.random.Generator, Path], Attempt]
CATEGORIES: dict[str, Maker] = {}


def category(name: str) -> Callable[[Maker], Maker]:
    """Register a maker."""

    def register(maker: Maker) -> Maker:
        assert name not in CATEGORIES, name
        CATEGORIES[name] = maker
        return maker

    return register


@dataclass(frozen=True)
class Verdict:
    """What happened: ``failure`` is empty where the input was refused as it should be."""

    category: str
    seed: int
    what: str
    error: str
    seconds: float
    failure: str = ""


class _Hang(BaseException):
    """Not an Exception, so that no code under test can swallow it."""


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    def stop(_: int, frame: FrameType | None) -> None:
        raise _Hang(f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else "")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def judge(name: str, seed: int, folder: Path) -> Verdict:
    """Make the bad input of that number and see what becomes of it."""
    rng = np.random.default_rng([SEED, sum(map(ord, name)), seed])
    attempt = CATEGORIES[name](rng, folder)
    start = time.perf_counter()
    error, failure = "", ""
    try:
        with _within(LIMIT_S), warnings.catch_warnings():
            warnings.simplefilter("error")  # a RuntimeWarning of numpy is an error that was not foreseen
            result = attempt.call()
        failure = f"accepted: {result!r:.200}"
    except attempt.error as refusal:
        error = type(refusal).__name__
        if not any(word in str(refusal) for word in attempt.names):
            failure = f"the message names none of {attempt.names}: {refusal!s:.300}"
    except _Hang as where:
        failure = f"still busy after {LIMIT_S:g} s at {where}"
    except NeuroError as refusal:
        failure = f"{type(refusal).__name__} instead of {attempt.error.__name__}: {refusal!s:.300}"
    except BaseException as foreign:  # the point of the proof: whatever it is, it should not be here
        if isinstance(foreign, KeyboardInterrupt):
            raise
        failure = f"{type(foreign).__name__}: {foreign!s:.300}"
    return Verdict(name, seed, attempt.what, error, time.perf_counter() - start, failure)


def pick(rng: np.random.Generator, table: dict[str, Any]) -> tuple[str, Any]:
    """One row of a table."""
    names = sorted(table)
    name = names[int(rng.integers(len(names)))]
    return name, table[name]
