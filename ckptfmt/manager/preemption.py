"""Preemption: a signal sets a flag that the training loop polls."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from types import FrameType
from typing import Any

from ..errors import fault


class Preemption:
    """Whether one of the signals has come. While it is installed it takes the place of their handlers."""

    def __init__(self) -> None:
        self.received: bool = False
        self._previous: dict[int, Any] = {}

    def install(self, signals: Iterable[int]) -> None:
        """Watch for signals; main thread only, else raises `bad-option`."""
        for number in signals:
            try:
                previous = signal.signal(number, self._receive)
            except (ValueError, OSError) as error:
                raise fault("bad-option", f"cannot handle signal {number}: {error}") from error
            self._previous.setdefault(number, previous)

    def uninstall(self) -> None:
        """Give the signals back to their former handlers."""
        while self._previous:
            number, handler = self._previous.popitem()
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = True
