"""Child processes, which begin fast as they are forks of one that has imported everything."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
PRELOAD = ["stress.sigkill", "stress.races", "stress.gc", "stress.changes", "stress.recompute"]
CONTEXT.set_forkserver_preload(PRELOAD)
PATIENCE = 120  # seconds


def child(target: Callable[..., Any], *arguments: Any) -> Any:
    """A started child process that runs a function of a module."""
    process = CONTEXT.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process
