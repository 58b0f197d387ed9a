"""Garbage on object stores: directories whose save died, temporaries, leases, tombstones, and uploads in parts.

A store has no locks, and tells when an object was written, and, by an object that is written for that, what time it is:
the clock of this machine is not asked where anything is to go. What nobody has written to for the grace period is given
up.
A directory that a save has claimed and not committed is taken from it before anything goes: its claim is overwritten,
after which that save does not commit [PUB-013] [PUB-016], and if it has, everything stays [PUB-017].
"""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from ..errors import CkptError, fault
from ..storage import CLAIM, COMMIT, MANIFEST
from ..storage.engine import Engine, ListedObject, Unfinished, engine_for, storage_fault
from ..storage.exclusive import PROBE
from ..storage.marks import LEASE, LIFETIME, TOMBSTONE
from ..storage.remote_directory import is_claim, new_claim
from ..storage.temporaries import is_temporary
from .garbage import Garbage

_WRITTEN = re.compile(  # the objects of a directory that is being saved
    r"CLAIM|manifest\.msgpack|pages\.bin|packs/[0-9]{5,}\.zip|parts/[0-9]{5,}\.msgpack"
    r"|tensors/(?:[^/]+/)*(?:zarr\.json|c(?:/[0-9]+)*)"
).fullmatch
_TOMBSTONE = re.compile(rf"\.(.+){re.escape(TOMBSTONE)}").fullmatch
_UPLOAD = "an upload in parts that did not end"


class StoreGarbageKind(NamedTuple):
    """What an object is that has such a name, and the least grace period for it: a trial of a store ends within
    the time in which a lease is renewed."""

    name: Callable[[str], object]
    what: str
    least: float = 0.0


KINDS = (
    StoreGarbageKind(is_temporary, "a save that did not end"),
    StoreGarbageKind(re.compile(rf"\.[0-9a-f]{{16}}{re.escape(PROBE)}").fullmatch, "a trial of the store", LIFETIME),
    StoreGarbageKind(
        re.compile(rf"\..+\.[0-9a-f]{{12}}{re.escape(LEASE)}").fullmatch, "a lease of a reader that died", LIFETIME
    ),
    StoreGarbageKind(_TOMBSTONE, "a deletion that a manager did not end"),
)


def gc_on_store(
    url: str, options: Mapping[str, Any] | None, delete: bool, grace: float, recursive: bool
) -> Iterator[Garbage]:
    """What was left in a folder of a store; see `ckptfmt.gc`."""
    try:
        engine, key = engine_for(url, options or {})
        if not engine.writable:
            raise fault("bad-option", "what is here can be read alone", path=url, expected="a path or a store")
        folder = _ListedFolder(engine, key.rstrip("/"), url.rstrip("/"), delete, grace)
        yield from folder.left(recursive)
    except CkptError:
        raise
    except Exception as error:  # of client libraries
        raise storage_fault(error, "cannot collect", url) from error


class _ListedFolder:
    """A folder of a store, as it was listed."""

    def __init__(self, engine: Engine, key: str, url: str, delete: bool, grace: float) -> None:
        self._engine, self._key, self._url, self._delete, self._grace = engine, key, url, delete, grace
        self._entries = self._listed("")
        self._uploads = {self._relative(upload.key): upload for upload in engine.unfinished(key)}
        if not self._entries and not self._uploads:
            raise fault("not-found", "there is nothing", path=url)
        names = [name.rpartition("/") for name in self._entries]
        self._claimed = {parent for parent, _, name in names if name == CLAIM}
        self._checkpoints = {parent for parent, _, name in names if name in (COMMIT, MANIFEST)} | self._claimed
        beside = key.rpartition("/")[0] if "" in self._checkpoints else key
        self._now = clock_of(engine, beside, url) if delete else time.time()

    def left(self, recursive: bool) -> Iterator[Garbage]:
        deepest = 1 << 30 if recursive else 0
        for parent in sorted(self._claimed):
            is_near = parent == "" or parent.count("/") <= deepest
            if is_near and f"{parent}/{COMMIT}".lstrip("/") not in self._entries and not self._is_inside(parent):
                yield from self._directory(parent)
        for name, entry in self._entries.items():
            parent, _, last = name.rpartition("/")
            kind = next((kind for kind in KINDS if kind.name(last)), None)
            if kind is None or name.count("/") > deepest or self._is_inside(name):
                continue
            why = self._waiting(entry.changed, kind.least) or self._wanted(parent, last)
            yield self._judged(name, kind.what, entry.size, entry.changed, why, partial(self._remove, entry.key))
        for name, upload in self._uploads.items():
            if name.count("/") > deepest or self._is_inside(name):
                continue
            is_ours = KINDS[0].name(name.rpartition("/")[2])
            why = self._waiting(upload.changed) or ("" if is_ours else "nobody can tell whose it is")
            yield self._judged(name, _UPLOAD, 0, upload.changed, why, upload.abandon)

    # ---- one thing that was left

    def _judged(
        self, name: str, what: str, size: int, changed: float | None, why: str, remove: Callable[[], str | None]
    ) -> Garbage:
        """Remove it, if that is asked for and nothing speaks against it; what `remove` gives speaks against it, too."""
        removed = False
        if self._delete and not why:
            why = remove() or ""
            removed = not why
        age = self._age(changed or 0.0)
        return Garbage(f"{self._url}/{name}".rstrip("/"), what, size, age, removed, why)

    def _waiting(self, changed: float | None, least: float = 0.0) -> str:
        if changed is None:
            return "the store does not say when it was written"
        return "changed within the grace period" if self._age(changed) < max(self._grace, least) else ""

    def _age(self, changed: float) -> float:
        return max(0.0, self._now - changed)

    def _wanted(self, parent: str, name: str) -> str:
        """Why a tombstone stays: it takes a step that is still there out of its run."""
        mark = _TOMBSTONE(name)
        if mark is None:
            return ""
        place = f"{parent}/{mark[1]}".lstrip("/")
        is_there = any(found == place or found.startswith(f"{place}/") for found in self._entries)
        return "the next manager of this run ends it" if is_there else ""

    def _is_inside(self, name: str) -> bool:
        """Whether something lies in a checkpoint, or in what may become one: nothing there is looked at by itself."""
        parts = name.split("/")[:-1]
        if name and "" in self._checkpoints:
            return True
        return any("/".join(parts[:count]) in self._checkpoints for count in range(1, len(parts) + 1))

    def _remove(self, key: str) -> None:
        try:
            self._engine.delete(key)
        except FileNotFoundError:
            return

    # ---- a directory that was claimed and not committed

    def _directory(self, parent: str) -> Iterator[Garbage]:
        inside = f"{parent}/" if parent else ""
        seen = {name: entry for name, entry in self._entries.items() if name.startswith(inside)}
        if not is_claim(self._claim(seen[f"{inside}{CLAIM}"].key)):
            return  # the save has ended, or it has this name by chance
        uploads = [upload for name, upload in self._uploads.items() if name.startswith(inside)]
        times = [*(entry.changed for entry in seen.values()), *(upload.changed for upload in uploads)]
        changed = None if None in times else max(time for time in times if time is not None)
        foreign = [name for name in seen if not _WRITTEN(name.removeprefix(inside))]
        why = self._waiting(changed) or (f"{foreign[0]} was not written by a save" if foreign else "")
        size = sum(entry.size for entry in seen.values())
        what = "a save into a directory that did not end"
        yield self._judged(parent, what, size, changed, why, partial(self._take_away, parent, seen, uploads))

    def _take_away(self, parent: str, seen: dict[str, ListedObject], uploads: list[Unfinished]) -> str:
        """Take the directory from its save, and remove it; gives why it stays. [PUB-017]"""
        if self._listed(parent) != seen:
            return "changed meanwhile"
        inside = f"{parent}/" if parent else ""
        mine, place = new_claim(), seen[f"{inside}{CLAIM}"].key
        self._engine.put(place, mine, exclusive=False)
        if f"{inside}{COMMIT}" in self._listed(parent):
            return "it was committed meanwhile"
        for upload in uploads:
            upload.abandon()
        for entry in seen.values():
            if entry.key != place:
                self._remove(entry.key)
        if set(self._listed(parent)) != {f"{inside}{CLAIM}"} or self._claim(place) != mine:
            return "somebody writes there"
        self._remove(place)
        return ""

    def _claim(self, key: str) -> bytes:
        try:
            return self._engine.tail(key, 255)[1]
        except FileNotFoundError:
            return b""

    def _listed(self, parent: str) -> dict[str, ListedObject]:
        """All objects below a folder of this one, by their names in this one."""
        folder = f"{self._key}/{parent}".rstrip("/")
        return {self._relative(entry.key): entry for entry in self._engine.entries(folder)}

    def _relative(self, key: str) -> str:
        return key.removeprefix(self._key).lstrip("/")


def clock_of(engine: Engine, folder: str, path: str) -> float:
    """What time it is at a store, in seconds since the epoch; by this machine's clock if it does not say."""
    probe = f"{folder}/.{secrets.token_hex(8)}{PROBE}".lstrip("/")
    try:
        engine.put(probe, b"", exclusive=False)
        return engine.head(probe).changed or time.time()
    except Exception as error:
        raise storage_fault(error, "cannot find out what time it is at the store", path) from error
    finally:
        with contextlib.suppress(Exception):  # it may never have been there
            engine.delete(probe)
