"""The folder of a run that can be resumed: what run it is of, how far it has come, and its snapshots.

| file | |
|---|---|
| `run.ckpt` | what was asked for; the first file that is written, and the last that is removed |
| `snapshot-00000012.ckpt` | the state at 12 |
| `turn.ckpt` | the end of the forward sweep: the number of steps, and the final state |
| `journal.ckpt` | the adjoint at some number, replaced now and then |

All are ordinary checkpoints, durable, and have the word of their run in their metadata. Whatever moment a process is
killed at, what is there is enough: a snapshot that is missing is computed again from an older one.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from ..api import save
from ..checkpoint import Checkpoint
from ..errors import CkptError, UnknownTagWarning, fault, os_fault
from ..format.tree import Tree
from ..storage.attempt import make_directories
from ..storage.leases import claim
from ..storage.temporaries import destroy, is_temporary, take_away
from ..warning import warn
from ..writing.encoder import encode
from .computation import Computation
from .snapshots import DiskTier, SnapshotWarning, loaded
from .states import form_of, orders_of, reordered

T = TypeVar("T")
RUN, TURN_FILE, JOURNAL = "run.ckpt", "turn.ckpt", "journal.ckpt"


class Turned(NamedTuple):
    """The end of a forward sweep."""

    steps: int
    final: Tree


class Noted(NamedTuple):
    """An adjoint, and how many steps it had gone back over."""

    reversed: int
    adjoint: Any


class RunFolder:
    """A folder that one process at a time works in."""

    def __init__(self, path: str, *, durable: bool) -> None:
        self.path, self._durable = path, durable
        self.run = ""

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Have the folder for oneself while the block runs; raises `exists` where another process has it."""
        try:
            make_directories(self.path)
        except OSError as error:
            raise os_fault(error, "cannot make the folder of the run", self.path) from error
        with claim(self.path) as is_ours:
            if not is_ours:
                advice = "Wait until it ends, or give another folder"
                raise fault("exists", "another process is at work in this folder", path=self.path, advice=advice)
            self._sweep()
            yield

    def _sweep(self) -> None:
        """Remove the temporaries of saves that were killed; what locks cannot tell of, `gc` removes when it is old."""
        for name in filter(is_temporary, os.listdir(self.path)):
            with claim(self.file(name), without_locks=False) as is_dead:
                if is_dead:
                    take_away(self.file(name))

    def file(self, name: str) -> str:
        return os.path.join(self.path, name)

    # ---- what run it is

    def begin(self, asked: Mapping[str, Any], choose: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        """Note what a run is asked for, and what it chose itself, or, if one was begun here, check that it was asked
        for the same; gives what was noted. Raises `bad-option` where it was something else, and `exists` where there
        are other checkpoints."""
        if not os.path.exists(self.file(RUN)):
            if any(name.endswith(".ckpt") for name in os.listdir(self.path)):
                advice = "Give a folder of its own"
                raise fault("exists", "there are checkpoints that are of no run", path=self.path, advice=advice)
            noted = {**asked, **choose()}
            self.run = secrets.token_hex(8)
            save(self.file(RUN), noted, metadata={"run": self.run}, durable=self._durable)
            return noted
        with Checkpoint(self.file(RUN)) as checkpoint:
            there: Any = checkpoint.load()
            about: Any = checkpoint.metadata
        self.run = about["run"]
        advice = "Call it as before, or give another folder; to give up the run that is there, remove its folder"
        for name, value in asked.items():
            if there[name] != value:
                message = f"the folder is that of another run, with another {name.replace('_', ' ')}"
                told = {"found": _told(there[name]), "expected": _told(value)}
                raise fault("bad-option", message, path=self.path, advice=advice, **told)
        return there  # type: ignore[no-any-return]

    # ---- how far it has come

    def turned(self, computation: Computation) -> Turned | None:
        """The end of the forward sweep, if that was reached."""

        def read(checkpoint: Checkpoint, about: Any) -> Turned:
            held = computation.unpack(lambda like: loaded(checkpoint, like), about["beside"])
            return Turned(about["steps"], computation.give(held, last=True))

        return self._read(TURN_FILE, read)

    def adjoint(self, seed: Any) -> Noted | None:
        """The adjoint as it was last noted. What the seed is like in its form is made like it."""

        def read(checkpoint: Checkpoint, about: Any) -> Noted:
            like = seed if about["form"] == str(form_of(encode(seed))) else None
            return Noted(about["reversed"], reordered(loaded(checkpoint, like), about["orders"]))

        return self._read(JOURNAL, read)

    def _read(self, name: str, read: Callable[[Checkpoint, Any], T]) -> T | None:
        """What a file tells; None, with a warning, if it is damaged: then what it tells of is done again."""
        path = self.file(name)
        if not os.path.exists(path):
            return None
        try:
            with warnings.catch_warnings(), Checkpoint(path) as checkpoint:
                warnings.simplefilter("error", UnknownTagWarning)  # as that would not be what was noted
                about: Any = checkpoint.metadata
                return read(checkpoint, about) if about["run"] == self.run else None
        except (CkptError, UnknownTagWarning) as error:
            warn(f"{name} cannot be used, and what it tells of is done again: {error}", SnapshotWarning)
            return None

    # ---- the end

    def remove(self, disk: DiskTier) -> None:
        """Remove all that is the run's, and the folder if nothing else is in it."""
        for number in list(disk.numbers()):
            destroy(disk.path(number))
        for name in (JOURNAL, TURN_FILE, RUN):
            destroy(self.file(name))
        with contextlib.suppress(OSError):  # something else is in it
            os.rmdir(self.path)


class Journal:
    """Notes how far a run has come, through the thread that writes its snapshots."""

    def __init__(self, folder: RunFolder, disk: DiskTier, every: float) -> None:
        """`every`: seconds between two notes of the adjoint."""
        self._folder, self._disk, self._every = folder, disk, every
        self._last = time.monotonic()

    def note_turn(self, steps: int, packed: tuple[Tree, Tree]) -> None:
        tree, beside = packed
        self._disk.in_background(self._folder.file(TURN_FILE), tree, {"steps": steps, "beside": beside})

    def is_due(self) -> bool:
        return time.monotonic() - self._last >= self._every

    def note_adjoint(self, count: int, adjoint: Tree) -> None:
        """`adjoint` is a copy that nobody changes."""
        about = {"reversed": count, "form": str(form_of(encode(adjoint))), "orders": orders_of(adjoint)}
        self._disk.in_background(self._folder.file(JOURNAL), adjoint, about)
        self._last = time.monotonic()


def _told(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value
