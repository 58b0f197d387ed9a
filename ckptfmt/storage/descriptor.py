"""An open file or directory that several threads use."""

from __future__ import annotations

import os
import sys
from _thread import RLock


class Descriptor:
    """An open file or directory, which stays open until it is closed and nobody reads or writes any more: what is under
    way would go on in another file that was given its number."""

    # while the interpreter ends its modules are emptied, and the system closes what is open
    _is_finalizing = staticmethod(sys.is_finalizing)

    def __init__(self, number: int) -> None:
        self._number: int | None = number
        self._users = 0
        self._is_closed = False
        self._changing = RLock()  # which a signal handler may need, too

    @property
    def number(self) -> int | None:
        """Its number; None once it is closed."""
        return None if self._is_closed else self._number

    def take(self) -> int | None:
        """Its number, until it is given back; None if it was closed."""
        with self._changing:
            if self._is_closed:
                return None
            self._users += 1
            return self._number

    def give_back(self, number: int) -> None:
        with self._changing:
            self._users -= 1
            self._settle()

    def detach(self) -> int | None:
        """Its number, for one who closes it himself, as nobody uses it any more; None if it was closed."""
        with self._changing:
            self._is_closed = True
            number, self._number = self._number, None
        return number

    def close(self) -> None:
        if self._is_finalizing():
            return
        with self._changing:
            self._is_closed = True
            self._settle()

    def _settle(self) -> None:
        if self._is_closed and not self._users and self._number is not None:
            number, self._number = self._number, None  # before, so that an interrupt has nothing closed twice
            os.close(number)
