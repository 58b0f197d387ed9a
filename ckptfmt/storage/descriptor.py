"""An open file or directory that several threads read from."""

from __future__ import annotations

import os
import threading


class Descriptor:
    """An open file or directory, which stays open until it is closed and nobody reads from it any more: a read that is
    under way would go on in another file that was given its number."""

    def __init__(self, number: int) -> None:
        self._number: int | None = number
        self._readers = 0
        self._is_closed = False
        self._changing = threading.Lock()

    def take(self) -> int | None:
        """Its number, until it is given back; None if it was closed."""
        with self._changing:
            if self._is_closed:
                return None
            self._readers += 1
            return self._number

    def give_back(self, number: int) -> None:
        with self._changing:
            self._readers -= 1
            self._settle()

    def close(self) -> None:
        with self._changing:
            self._is_closed = True
            self._settle()

    def _settle(self) -> None:
        if self._is_closed and not self._readers and self._number is not None:
            os.close(self._number)
            self._number = None
