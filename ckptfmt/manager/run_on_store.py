"""A run directory on an object store, or another remote file system.

Stores have neither locks nor renaming. So what is to be deleted first gets a **tombstone**, an empty object beside it
that takes it out of the listing; then its bytes go, of a directory `COMMIT` first; then the tombstone. A lease is an
empty object, too, which is renewed while it is held and counts for `LIFETIME` after. Who reads puts a lease and then
looks for a tombstone; who deletes puts a tombstone and then looks for leases: on a store that shows what was written,
one of them sees the other, and gives way. Where one may not write, one has no lease.

    .step-0000001000.ckpt.ckptfmt-deleted          .step-0000001000.ckpt.0123456789ab.ckptfmt-lease

One manager at a time may write to such a run; any number may read.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from ..errors import DAMAGED, CkptError, StorageError, fault
from ..format import commit
from ..signing.beside import beside as signature_of
from ..storage import COMMIT
from ..storage.engine import Child, engine_for, storage_fault
from ..storage.marks import LEASE, LIFETIME, TOMBSTONE
from ..storage.remote import READERS
from ..threads import Bell, Pool, start_thread
from .run import Listing, RunDirectory, record_in
from .steps import Number, Step, StepNames

NOTE = 1 << 20  # most bytes of a note
_MARK = re.compile(rf"\.(.+?)(\.[0-9a-f]{{12}}{re.escape(LEASE)}|{re.escape(TOMBSTONE)})").fullmatch


class _LeaseEnd(Bell):
    """Rings when a lease is given up."""

    is_over = False


class RunOnStore(RunDirectory):
    """A directory at a URL."""

    def __init__(self, path: str, names: StepNames, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(path.rstrip("/"), names, options)
        self._engine, root = engine_for(self.path, options or {})
        self._root = root.rstrip("/")
        # as of the last listing: what each name is, when it was deleted, and when its leases were renewed
        self._entries: dict[str, Child] = {}
        self._tombstones: dict[str, float] = {}
        self._leases: dict[str, list[tuple[str, float]]] = {}

    # ---- finding

    def find(self, step: Number) -> Step | None:
        return next((self._look(number, entry) for number, entry in self._list().named if number == step), None)

    def _list(self) -> Listing:
        """Entries are what the store says about an object or folder. One request for a thousand names."""
        with self._told("cannot list the steps"):
            entries = {child.name: child for child in self._engine.children(self._root)}
        tombstones: dict[str, float] = {}
        leases: dict[str, list[tuple[str, float]]] = {}
        for name, entry in entries.items():
            mark = _MARK(name)
            if mark is not None and mark[2] == TOMBSTONE:
                tombstones[mark[1]] = _time(entry)
            elif mark is not None:
                leases.setdefault(mark[1], []).append((name, _time(entry)))
        numbers = ((self.names.step(name), name) for name in entries if name not in tombstones)
        named = [(number, entries[name]) for number, name in numbers if number is not None]
        named.sort(key=lambda item: self.names.key(item[0]))
        # only now, and whole: another thread, which deletes, must not see a listing without its leases
        self._entries, self._tombstones, self._leases = entries, tombstones, leases
        return Listing(named, [name for name in tombstones if self.names.step(name) is not None])

    def _look_all(self, named: Sequence[tuple[Number, Any]]) -> Iterator[Step | None]:
        with Pool(READERS, "ckptfmt-look") as pool:
            yield from pool.map(self._look, *zip(*named, strict=True)) if named else ()

    def _look(self, number: Number, entry: Child) -> Step | None:
        place = self._place(number, "" if entry.seen else COMMIT)
        try:
            with self._told("cannot look at the step"):
                return self._judged(number, self._seen_at(number, place, entry))
        except StorageError as error:
            if error.code != "permission":  # what a store cannot give now it may give a moment later
                raise
            return self._judged(number, error)

    def _seen_at(self, number: Number, place: str, entry: Child) -> Step | CkptError | None:
        def record() -> bytes | None:
            tail = self._engine.tail(place, commit.MAX_LENGTH + 1)[1]
            return record_in(tail, seen.size, is_directory=entry.seen is None)

        try:
            seen = entry.seen or self._engine.head(place)
            return self._seen_as(number, seen.identity, seen.changed or 0.0, entry.seen is None, record)
        except FileNotFoundError:  # it was deleted, or a save has not committed it yet
            return None

    def _place(self, step: Number, name: str = "") -> str:
        return "/".join([self._root, self.names.name(step), *([name] if name else [])])

    # ---- one step

    def size_of(self, step: Step) -> int:
        with self._told("cannot look at the step"):
            place = self._place(step.step)
            found = self._engine.entries(place)
            return sum(entry.size for entry in found) if found else self._engine.head(place).size

    def objects_of(self, step: Step) -> list[str]:
        place = self._place(step.step)
        with self._told("cannot look at the step"):
            names = [entry.key.removeprefix(place).lstrip("/") for entry in self._engine.entries(place)]
        return sorted(names, key=lambda name: (name == COMMIT, name)) or [""]

    @contextlib.contextmanager
    def _lease(self, step: Step) -> Iterator[None]:
        name = self.names.name(step.step)
        mark = f"{self._root}/.{name}.{os.urandom(6).hex()}{LEASE}"
        is_held = False
        with contextlib.suppress(CkptError):  # we may not write here, or cannot: then nothing is protected
            self._put(mark)
            is_held = True
        if not is_held:
            yield
            return
        done = _LeaseEnd()
        try:
            self._list()
            if name in self._tombstones or name not in self._entries:
                raise fault("not-found", "the step was deleted", path=step.path)
            start_thread("ckptfmt-lease", partial(self._renew, mark, done))
            yield
        finally:
            done.is_over = True
            done.ring()
            with contextlib.suppress(CkptError):
                self._remove(mark)

    def _renew(self, mark: str, done: _LeaseEnd) -> None:
        while not done.wait_for(lambda: done.is_over, LIFETIME / 4):
            with contextlib.suppress(CkptError):
                self._put(mark)
                if done.is_over:
                    self._remove(mark)

    def is_leased(self, step: Step) -> bool:
        return self._is_held(self.names.name(step.step), time.time())

    def _is_held(self, name: str, now: float) -> bool:
        return any(renewed > now - LIFETIME for _, renewed in self._leases.get(name, ()))

    # ---- changing

    @contextlib.contextmanager
    def saving(self, step: Number) -> Iterator[None]:
        """An upload is seen when it is complete, so there is nothing to protect."""
        self._list()
        if self.names.name(step) in self._tombstones:
            self._destroy(self.names.name(step))
        yield

    def set_aside(self, step: Number) -> bool:
        """Nothing can be renamed here."""
        found = None if self.find(step) is not None else self._damaged.get(step)
        return found is not None and isinstance(found.error, DAMAGED)

    def delete(self, steps: Sequence[Step], *, even_if_read: bool = False, for_good: bool = False) -> None:
        names = [self.names.name(step.step) for step in steps]
        for name in names:
            self._put(self._tombstone(name))
        if names:
            self._list()
        for name in names:
            if not self._is_held(name, self._tombstones.get(name, time.time())):  # by the store's own clock
                self._destroy(name)
            elif not even_if_read:
                self._remove(self._tombstone(name))

    def sweep(self, leftovers: Sequence[str]) -> list[str]:
        """Tombstones are named by what they stand for. Where there are leases, too, one is written anew, to have the
        time by the store's own clock."""
        leased = [name for name in leftovers if name in self._leases]
        for name in leased:
            self._put(self._tombstone(name))
        if leased:
            self._list()
        removed = [name for name in leftovers if not self._is_held(name, self._tombstones.get(name, 0.0))]
        for name in removed:
            self._destroy(name)
        return removed

    def _tombstone(self, name: str) -> str:
        return f"{self._root}/.{name}{TOMBSTONE}"

    def _destroy(self, name: str) -> None:
        """Remove what has a tombstone, its leases, and the tombstone."""
        place, entry = f"{self._root}/{name}", self._entries.get(name)
        if entry is not None and entry.seen is None:
            self._remove(f"{place}/{COMMIT}")
            with self._told("cannot delete the step"):
                rest = [found.key for found in self._engine.entries(place)]
            with Pool(READERS, "ckptfmt-delete") as pool:
                for _ in pool.map(self._remove, rest):
                    pass
        elif entry is not None:
            self._remove(place)
        self._remove(signature_of(place))
        for lease, _ in self._leases.get(name, ()):
            self._remove(f"{self._root}/{lease}")
        self._remove(self._tombstone(name))

    def _put(self, place: str, data: bytes = b"") -> None:
        with self._told("cannot write"):
            self._engine.put(place, data, exclusive=False)

    def _remove(self, place: str) -> None:
        with self._told("cannot delete"), contextlib.suppress(FileNotFoundError):
            self._engine.delete(place)

    def read_note(self, name: str) -> str | None:
        try:
            return self._engine.tail(f"{self._root}/{name}", NOTE)[1].decode()
        except Exception:
            return None

    def write_note(self, name: str, text: str | None) -> None:
        if text is None:
            self._remove(f"{self._root}/{name}")
        else:
            self._put(f"{self._root}/{name}", text.encode())

    @contextlib.contextmanager
    def _told(self, message: str) -> Iterator[None]:
        """Whatever the store raises, as a `StorageError`."""
        try:
            yield
        except Exception as error:
            raise storage_fault(error, message, self.path) from error


def _time(entry: Child) -> float:
    """Seconds since the epoch at which an object was last written; 0 if the store does not say."""
    return 0.0 if entry.seen is None else entry.seen.changed or 0.0
