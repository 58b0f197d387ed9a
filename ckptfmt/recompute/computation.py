"""What is recomputed: the face between a driver, which knows schedules, and whoever knows steps.

A driver never looks into a state. Others than plain functions (chains of modules, compiled scans) are driven through
the same few calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ..errors import CkptError, fault
from ..format.tree import Tree
from ..writing.encoder import EncodedTree, encode
from .states import Form, copied, fingerprint, form_of, orders_of, reordered, size_of, template_of

StepFunction = Callable[[Any, int], Any]
AdjointFunction = Callable[[Any, int, Any], Any]


class Packing(Protocol):
    """What a disk asks of snapshots."""

    def size(self, held: Any) -> int:
        """Bytes of memory of a snapshot."""

    def pack(self, held: Any) -> tuple[Tree, Tree]:
        """A snapshot as a tree that is saved, and plain values that are saved with it."""

    def unpack(self, load: Callable[[Tree], Tree], beside: Any) -> Any:
        """A snapshot from what `load(like)` gives, which loads the tree like a template (None: as it is), and from the
        plain values."""


class Computation(Packing, Protocol):
    """Steps, and their adjoints. The state before step `n` is the one "at" n."""

    def advance(self, state: Any, first: int, last: int) -> Any:
        """The state at `last` from that at `first`, which nobody needs any more."""

    def reverse(self, state: Any, number: int, adjoint: Any) -> Any:
        """The adjoint of the state at `number` from that of the next one. Nobody needs `state`, which is the one at
        `number`, nor `adjoint`, any more."""

    def hold(self, state: Any) -> Any:
        """A snapshot: what no later step changes."""

    def give(self, held: Any, *, last: bool) -> Any:
        """The state of a snapshot; if it is the last time, the snapshot's own memory may become the state's."""

    def fingerprint(self, state: Any) -> bytes:
        """A digest of every bit of a state."""


class PlainSteps:
    """Plain functions of Python on trees of NumPy arrays and plain values. They may change what they are given."""

    def __init__(self, step: StepFunction, adjoint: AdjointFunction, state: Tree) -> None:
        """`state` is the initial one, which all others are like."""
        self._step, self._adjoint = step, adjoint
        encoded = _encoded(state, 0)
        self._form: Form = form_of(encoded)
        self._size = size_of(encoded)
        self._template = template_of(state)

    def advance(self, state: Tree, first: int, last: int) -> Tree:
        for number in range(first, last):
            state = self._step(state, number)
        self._check_form(state, last)
        return state

    def _check_form(self, state: Tree, number: int) -> None:
        found = form_of(_encoded(state, number))
        if found == self._form:
            return
        before = "the tree of states changes between steps"
        if found.node != self._form.node:
            raise fault("state-changed", f"{before}: at {number} it has other containers, or other keys or tensors")
        pairs = zip(found.tensors, self._form.tensors, strict=True)
        there, wanted = next((there, wanted) for there, wanted in pairs if there != wanted)
        raise fault("state-changed", f"{before}, at {number}", found=_words(*there), expected=_words(*wanted))

    def reverse(self, state: Tree, number: int, adjoint: Any) -> Any:
        return self._adjoint(state, number, adjoint)

    def hold(self, state: Tree) -> Tree:
        return copied(state)

    def give(self, held: Tree, *, last: bool) -> Tree:
        return held if last else copied(held)

    def size(self, held: Tree) -> int:
        return self._size

    def fingerprint(self, state: Tree) -> bytes:
        return fingerprint(state)

    def pack(self, held: Tree) -> tuple[Tree, Tree]:
        return held, orders_of(held)

    def unpack(self, load: Callable[[Tree], Tree], beside: Any) -> Tree:
        return reordered(load(self._template), beside)


def _encoded(state: Tree, number: int) -> EncodedTree:
    try:
        return encode(state)
    except CkptError as error:
        error.add_note(f"in the state at {number}")
        raise


def _words(dtype: str, shape: tuple[int, ...]) -> str:
    return f"{dtype} {list(shape)}"
