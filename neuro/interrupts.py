"""Ctrl-C that Python loses: what meets a weak reference's callback or a ``__del__`` is only printed.

`keep` has it raised anew in the main thread, a moment later.
"""

from __future__ import annotations

import _thread
import signal
import sys
import threading
import time
from typing import Any

PAUSE_S = 0.01  # from the end of the hook: by then the callback has returned


def keep() -> None:
    """From now on an interrupt that met such a callback is sent again."""
    sys.unraisablehook = _again


def _again(lost: Any) -> None:
    if lost.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(lost)
        return
    state = {"left": False}  # an interrupt that meets this hook is lost as well, and on a busy machine it may take long
    threading.Thread(target=_later, args=(state,), daemon=True).start()
    state["left"] = True  # nothing after this looks for signals until the callback is over


def _later(state: dict[str, bool]) -> None:
    while not state["left"]:
        time.sleep(PAUSE_S)
    time.sleep(PAUSE_S)
    _send()


def _send() -> None:
    if hasattr(signal, "pthread_kill"):  # wakes a sleep or a read as well
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        _thread.interrupt_main()
