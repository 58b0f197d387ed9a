"""Objects that take a state: whatever has `state_dict()` and `load_state_dict()`.

In a tree such an object is saved as its state. As a target of a load it decides how that state comes in: what it takes
through its own code is handed to it, loaded (`StatePart`); what is but memory of its own is filled in place (`direct`).
An adapter knows the objects of its framework; all others get their whole state by `load_state_dict()`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

from ..errors import fault
from ..format.dtypes import Array
from ..format.names import Path, path_label
from ..format.tree import Tree
from .adapter import Adapter, adapters, nothing
from .own_dicts import with_own_dicts
from .target import MatchReport, flatten, is_empty

# what code raises that is given a state which is not its own; not subclasses, such as that for memory which ran out
_REFUSALS = (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError)


class StatePart(NamedTuple):
    """What an object takes through its own code: the leaves at `paths`, as they stand in its state. `take` is given
    that state, in memory that nobody else uses, and says what the object missed in it and did not know; it raises
    `mismatch` for what the object refuses. `kept`: the object keeps what it is given, so it is read before anything is
    written; else parts are read one after another, when they are taken. `copied`: tensors of which the object as a
    rule copies the elements, so that private mappings of the file will do."""

    paths: frozenset[Path]
    take: Callable[[Tree], MatchReport]
    kept: bool = False
    copied: frozenset[Path] = frozenset()


class Adopt(NamedTuple):
    """What gives a tensor of an object the memory of an array; equal `owner`s are one tensor."""

    owner: Hashable
    take: Callable[[Array], None]


@dataclass(frozen=True, slots=True)
class Intake:
    """How an object is filled from a checkpoint. `direct`: its own tensors, by their paths in the checkpoint, which are
    compared with it and filled in place, then `filled` is called; then the `parts` are taken in their order. `report`:
    what is known not to fit before anything is read; `names`: how many names, besides those in `direct`, it and the
    parts may call missing. `adopt()`: those of `direct` that can have the memory of a mapping in place of their own.
    `skip` is told which of `direct` are not filled after all; `after`, called at the end, gives what the report of the
    load says besides.

    `parameters`: the owners of a module's parameters, in its order, by their paths in the checkpoint. `numbered`: of an
    optimizer whose state has their numbers and not their names, the owners of its parameters."""

    direct: Mapping[Path, Any] = field(default_factory=dict)
    parts: tuple[StatePart, ...] = ()
    report: MatchReport = field(default_factory=MatchReport)
    filled: Callable[[], None] = nothing
    names: int = 0
    adopt: Callable[[], Mapping[Path, Adopt]] = dict
    skip: Callable[[Collection[Path]], None] = lambda paths: None
    after: Callable[[], MatchReport] = MatchReport
    parameters: Mapping[Path, Hashable] = field(default_factory=dict)
    numbered: Collection[Hashable] = ()


def everything(_: Path) -> bool:
    """What is asked for where nothing is selected."""
    return True


class StoredState(NamedTuple):
    """What a checkpoint has for an object at the path `at`: the leaves there (tensors that have not been read, and
    plain values), and the params of the tags over them all, by name. `wanted` says which paths are asked for, in the
    object, too: what is not is neither filled nor missing."""

    at: Path
    leaves: Mapping[Path, Any]
    tags: Mapping[str, Any]
    wanted: Callable[[Path], bool] = everything


class Receiver(Protocol):
    """An object of a target. `intake` is given the options `strict` and `cast` of the load; it changes nothing."""

    def intake(self, stored: StoredState, strict: bool, cast: bool) -> Intake: ...


@runtime_checkable
class Receiving(Protocol):
    """What an adapter offers besides, if its framework has such objects."""

    def receiver(self, value: Any) -> Receiver | None:
        """How such an object of this framework is filled; None for any other."""


class Whole:
    """An object that gets its whole state by its `load_state_dict()`."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def intake(self, stored: StoredState, strict: bool, cast: bool) -> Intake:
        if not stored.leaves:
            leaves = flatten(self.value.state_dict(), path=stored.at)
            missing = tuple(path_label(path) for path, leaf in leaves if not is_empty(leaf) and stored.wanted(path))
            return Intake(report=MatchReport(missing=missing), names=len(missing))
        report = MatchReport()
        if stored.at in stored.leaves and not is_empty(stored.leaves[stored.at]) and self._has_dict():
            here, there = f"the state of the {type(self.value).__qualname__}", stored.leaves[stored.at]
            report = MatchReport(kind=((path_label(stored.at), type(there).__name__, here),))
        # one name that is never missing: it has its state
        return Intake(
            parts=(StatePart(frozenset(stored.leaves), self._taker(stored.at), kept=True),), report=report, names=1
        )

    def _has_dict(self) -> bool:
        with suppress(Exception):  # an object need not have a state before it is given one
            return isinstance(self.value.state_dict(), dict)
        return False

    def _taker(self, at: Path) -> Callable[[Tree], MatchReport]:
        def take(state: Tree) -> MatchReport:
            with refusals(self.value, at):
                self.value.load_state_dict(self.given(state))
            return MatchReport()

        return take

    def given(self, state: Tree) -> Tree:
        """The state as the object is given it."""
        with suppress(Exception):  # an object need not have a state before it is given one
            return with_own_dicts(state, self.value.state_dict())
        return state


@contextmanager
def refusals(value: Any, at: Path, report: Callable[[], MatchReport] = MatchReport) -> Iterator[None]:
    """Raise `mismatch` for what an object's own code raises about its state; `report` gives what it said besides."""
    try:
        yield
    except _REFUSALS as error:
        if type(error) not in _REFUSALS:
            raise
        kind, label = type(value).__qualname__, path_label(at)
        where = f"the {kind} at {label!r}" if label else f"the {kind}"
        cause = str(error) if type(error) is RuntimeError else f"{type(error).__name__}: {error}"
        said = report()
        if said.ok:
            said = MatchReport(kind=((label, "another state", f"a state that the {kind} takes"),))
        raise fault("mismatch", f"{where} refuses its state: {cause}", tensor=label or None, report=said) from error


def receiver(value: Any, preferred: Adapter | None) -> tuple[Receiver, Adapter | None]:
    """How a stateful object is filled, and the adapter whose tensors it gets (None: NumPy arrays): the one that knows
    the object, else `preferred`, else one that knows such objects."""
    all_known: list[Any] = [preferred, *adapters()]
    known: list[Any] = [adapter for adapter in all_known if isinstance(adapter, Receiving)]
    for adapter in known:
        found = adapter.receiver(value)
        if found is not None:
            return found, adapter
    return Whole(value), preferred or next(iter(known), None)
