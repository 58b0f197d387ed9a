"""What is closed with the graph that it belongs to, whether or not anybody went back through that."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

from ckptfmt.threads import start_thread

THREADS = "ckptfmt-recompute"  # how the names of threads begin that a close waits for


def closed_with(owner: Any, close: Callable[[], Any]) -> weakref.finalize[Any, Any]:
    """Call `close` once `owner` is gone, or the program ends. What is returned does it earlier."""
    return weakref.finalize(owner, _closed, close, os.getpid())


def _closed(close: Callable[[], Any], process: int) -> None:
    if process != os.getpid():
        return  # a fork, which has none of the threads, and does not own the files
    if threading.current_thread().name.startswith(THREADS):  # which collected garbage, and cannot wait for itself
        start_thread("ckptfmt-close", close)
    else:
        close()
