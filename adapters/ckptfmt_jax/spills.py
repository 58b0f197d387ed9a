"""The host's side of a scan whose snapshots lie on a disk: what its callbacks do."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import weakref
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ckptfmt.errors import CkptError, fault
from ckptfmt.format.dtypes import Array
from ckptfmt.format.tree import Tree
from ckptfmt.recompute.snapshots import DiskTier, Traffic, closing, scratch

_OPEN: dict[int, Spill] = {}  # runs whose backward sweep has not ended
_NAMES = itertools.count(1)


class LeafSnapshot:
    """A snapshot as the list of its arrays."""

    def size(self, held: list[Array]) -> int:
        return sum(array.nbytes for array in held)

    def pack(self, held: list[Array]) -> tuple[Tree, Tree]:
        return held, None

    def unpack(self, load: Callable[[Tree], Tree], beside: Any) -> list[Array]:
        arrays: list[Array] = load(None)
        return arrays


class Spill:
    """The snapshots on the disk of one run, forward and back."""

    def __init__(self, folder: str, fetched: tuple[int, ...]) -> None:
        """`fetched`: numbers of what is asked for, in order."""
        self._stack = contextlib.ExitStack()
        place = self._stack.enter_context(scratch(folder))
        self._disk = DiskTier(place, LeafSnapshot(), os.path.basename(place), Traffic(), durable=False)
        self._stack.enter_context(closing(self._disk))
        self._fetched, self._next = fetched, 0

    def store(self, number: int, arrays: list[Array]) -> None:
        self.settle()  # before there is another copy
        if number in self._disk.sizes:
            raise _out_of_order()
        self._disk.store(number, [np.array(array) for array in arrays])  # whose memory is XLA's

    def fetch(self, number: int, *, last: bool) -> list[Array]:
        if self._next == len(self._fetched) or number != self._fetched[self._next]:
            raise _out_of_order()
        try:
            arrays: list[Array] = self._disk.take(number)
        except CkptError:
            self.settle()  # a save that failed is what is wrong, then
            raise
        if last:
            self._disk.drop(number)
        self._next += 1
        if self._next < len(self._fetched):
            self._disk.read_ahead(self._fetched[self._next])
        return arrays

    def settle(self) -> None:
        """Until all is written."""
        self._disk.settle()

    def close(self) -> None:
        """Remove all of it; raises what a save has raised that nobody asked for."""
        self._stack.close()


def _out_of_order() -> CkptError:
    message = "the snapshots of this scan are asked for in another order than its schedule has"
    return fault("missing-object", message, advice="Have each forward pass followed by one backward pass of its own")


def begin(folder: str, fetched: tuple[int, ...]) -> int:
    """Begin a run; gives its name, which all other calls take."""
    name = next(_NAMES)
    _OPEN[name] = Spill(folder, fetched)
    return name


def store(name: int, number: int, arrays: list[Array]) -> None:
    spill = _open(name)
    with _given_up_on_error(name):
        spill.store(number, arrays)


def fetch(name: int, number: int, *, last: bool) -> list[Array]:
    spill = _open(name)
    with _given_up_on_error(name):
        return spill.fetch(number, last=last)


def end(name: int) -> None:
    _open(name)
    _OPEN.pop(name).close()


def _open(name: int) -> Spill:
    """A run that goes on; raises `missing-object`."""
    spill = _OPEN.get(name)
    if spill is None:
        message = "the snapshots of this scan are gone: its backward pass ran before, or an error has ended it"
        raise fault("missing-object", message, advice="Call it again from its forward pass on")
    return spill


@contextlib.contextmanager
def _given_up_on_error(name: int) -> Any:
    try:
        yield
    except BaseException:
        give_up(name)
        raise


def given_up_with(name: Any) -> None:
    """Remove a run once nobody has its name any more, an array of JAX: then nobody can go back. Under jit, where it is
    no array yet, this is for the end of the process."""
    if not isinstance(name, jax.core.Tracer):
        weakref.finalize(name, give_up, int(name)).atexit = False


def give_up(name: int) -> None:
    """Remove what a run has left that nobody goes on with."""
    spill = _OPEN.pop(name, None)
    if spill is not None:
        with contextlib.suppress(Exception):  # another error is on its way
            spill.close()


def open_runs() -> list[int]:
    """The names of runs whose backward pass has not ended."""
    return list(_OPEN)


def give_up_all() -> None:
    for name in open_runs():
        give_up(name)


atexit.register(give_up_all)
