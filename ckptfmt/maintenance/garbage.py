"""Garbage: what saves, deletions and meetings of processes that died have left in a folder, and its removal. Here of a
disk; `garbage_on_store` is the same for stores.

Only what has a name that this package gives, and that no process can be at work on, is garbage:

- a temporary of a save or a deletion, `.NAME.<12 hex digits>.ckptfmt-tmp` [PUB-001]: a checkpoint that was not
  published, that was replaced, or that a manager was deleting;
- what ranks met through (`FileCoordinator`): `session-<16 hex digits>` that a rank has ended early, and
  `join-<16 hex digits>`, which nobody waits for any more;
- replicas of a run that a manager has kept in memory, `replicas-<16 hex digits>`, and that no manager uses.

Who is at work on something holds a lease on it (`storage.leases`), and a manager, while it saves or deletes, one on the
run: nothing is touched that is so held, however old a clock says that it is. Beside that it must not have changed for
the grace period: neither it nor, in a folder, anything in it, by mtime and ctime, so that a rename counts, too. Where
the file system has no locks that alone tells, and the period is no less than a day. What is taken gets another name
before anything of it goes, so that a save whose lease could not be seen fails before it commits. [PUB-020] No link is
followed, and none is removed.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..brief import Brief
from ..calls import takes
from ..errors import fault, os_fault
from ..parallel.files import LOST
from ..storage import COMMIT, MANIFEST, is_url, path_of
from ..storage.folders import entries_below
from ..storage.leases import claim
from ..storage.temporaries import is_temporary, take_away
from .candidates import check_folder

GRACE = 24 * 3600.0  # seconds
REPLICAS_MARK = "replicas-of.json"  # says of which run the replicas in a folder are


class GarbageKind(NamedTuple):
    """What garbage is called and what it is; whether it is a file, a folder, or (None) either; of a folder, what it may
    hold, and what it must."""

    name: Callable[[str], object]
    what: str
    is_folder: bool | None = None
    holds: Callable[[str], object] = bool
    mark: str = ""


_MESSAGE = re.compile(
    r"[0-9]+\.([0-9]+\.(message|reply|[0-9]+\.parcel)|here|left)|lost|split-[0-9]+|(session|join)-[0-9a-f]{16}|tmp-.*"
).fullmatch
KINDS: tuple[GarbageKind, ...] = (
    GarbageKind(is_temporary, "a save or a deletion that did not end"),
    GarbageKind(re.compile(r"\.kept\.json\.ckptfmt-tmp").fullmatch, "a note of a manager that was not written", False),
    GarbageKind(re.compile(r"replicas-[0-9a-f]{16}").fullmatch, "replicas of a run", True, mark=REPLICAS_MARK),
    GarbageKind(re.compile(r"session-[0-9a-f]{16}").fullmatch, "a meeting of ranks that failed", True, _MESSAGE, LOST),
    GarbageKind(re.compile(r"(tmp-)?join-[0-9a-f]{16}(\.[0-9a-f]{8})?").fullmatch, "a rank that met nobody", False),
)


@dataclass(frozen=True, slots=True)
class Garbage:
    """Something that was left: `what` it is, the `bytes` that its removal frees, its `age` in seconds, and whether it
    was `removed`, or `why` it stays."""

    path: str
    what: str
    bytes: int
    age: float
    removed: bool = False
    why: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class GarbageReport(Brief):
    """What `gc` found in a folder. `found` is what can be, or was, removed; `kept` what may still be in use."""

    path: str
    found: tuple[Garbage, ...]
    kept: tuple[Garbage, ...]

    @property
    def bytes(self) -> int:
        """Bytes of what was found."""
        return sum(garbage.bytes for garbage in self.found)


@takes()
def gc(
    folder: str | os.PathLike[str],
    *,
    delete: bool = False,
    grace: float = GRACE,
    recursive: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> GarbageReport:
    """Find, and with `delete=True` remove, what was left in a folder by processes that died: replicas in memory that no
    manager uses among it. Checkpoints and all other files are never touched; deletions that a manager did not end are
    ended.

    `grace`: seconds for which nothing may have changed, by the clock. A save that lives holds a lease, which keeps what
    it writes whatever a clock says; only where leases cannot be seen, from other machines or on file systems without
    locks (there it is a day at least), would one that writes nothing for so long lose its temporary, and fail with
    `temporary-lost`. On a store, which has no leases and whose own clock counts, it should be longer than the longest
    upload of one object. `recursive`: also in folders below that are no checkpoints. `folder` may be a URL, for which
    `storage_options` are handed to the client library. Raises `not-found`, `not-a-checkpoint` for a file, `bad-option`
    for a grace below 0, and `StorageError` for a folder that cannot be listed.
    """
    if not grace >= 0:
        raise fault("bad-option", "grace=", path=folder, found=grace, expected="seconds, 0 or more")
    name = path_of(folder)
    found: list[Garbage] = []
    kept: list[Garbage] = []
    for garbage in _left(name, delete, grace, recursive, storage_options):
        (kept if garbage.why else found).append(garbage)
    return GarbageReport(name, tuple(found), tuple(kept))


def _left(
    folder: str, delete: bool, grace: float, recursive: bool, options: Mapping[str, Any] | None
) -> Iterator[Garbage]:
    if is_url(folder):
        from .garbage_on_store import gc_on_store

        yield from gc_on_store(folder, options, delete, grace, recursive)
        return
    check_folder(folder)
    for place in _folders(folder, recursive):
        yield from _judged(place, delete, grace)


def _folders(folder: str, recursive: bool) -> Iterator[str]:
    """The folder, and those below that are neither checkpoints nor garbage nor links."""
    waiting = [folder]
    while waiting:
        yield (place := waiting.pop())
        waiting += [entry.path for entry in reversed(_entries(place)) if recursive and _is_plain(entry)]


def _is_plain(entry: os.DirEntry[str]) -> bool:
    is_visible = _kind(entry.name) is None and not entry.name.startswith(".")
    return is_visible and entry.is_dir(follow_symlinks=False) and not _is_checkpoint(entry.path)


def _is_checkpoint(path: str) -> bool:
    """Whether a folder is a checkpoint, or one without its commit record: nothing in it is ours to remove."""
    return any(os.path.lexists(os.path.join(path, name)) for name in (COMMIT, MANIFEST))


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        return []  # it went away meanwhile
    except OSError as error:
        raise os_fault(error, "cannot list the folder", folder) from error


def _kind(name: str) -> GarbageKind | None:
    return next((kind for kind in KINDS if kind.name(name)), None)


def _judged(folder: str, delete: bool, grace: float) -> Iterator[Garbage]:
    """What is garbage by its name, in one folder; what is old enough, and nobody's, is removed if `delete`."""
    for entry in _entries(folder):
        kind = _kind(entry.name)
        seen = None if kind is None else _seen(entry.path, kind)
        if kind is None or seen is None:
            continue  # not ours, or a link, a device, or with something else in it: nothing that we made
        size, changed = seen
        age = max(0.0, time.time() - changed)  # a clock that was set back makes nothing younger than new
        is_removed = False
        with contextlib.ExitStack() as held:
            why = "changed within the grace period" if age < grace else _held_by_others(held, folder, entry.path, age)
            if not os.path.lexists(entry.path):
                continue  # it went away by itself
            if delete and not why:
                is_removed = _seen(entry.path, kind) == seen
                why = "" if is_removed else "changed meanwhile"
            if is_removed:
                take_away(entry.path)
        yield Garbage(entry.path, kind.what, size, age, is_removed, why)


def _held_by_others(held: contextlib.ExitStack, folder: str, path: str, age: float) -> str:
    """Why something stays that others hold; else this process holds it, until the stack is closed."""
    with claim(folder) as nobody_saves:  # not for longer: who wants to save there would wait
        if not nobody_saves:
            return "a manager saves or deletes here"
        is_mine = held.enter_context(claim(path, without_locks=age >= GRACE))
        return "" if is_mine else "in use"


def _seen(path: str, kind: GarbageKind) -> tuple[int, float] | None:
    """Bytes of what is at a path, and when it last changed; None for what cannot be garbage of that kind."""
    try:
        top = os.lstat(path)
        is_folder = stat.S_ISDIR(top.st_mode)
        if not (is_folder or stat.S_ISREG(top.st_mode)) or kind.is_folder not in (None, is_folder):
            return None
        if not is_folder:
            return top.st_size, max(top.st_mtime, top.st_ctime)
        if kind.mark and not os.path.lexists(os.path.join(path, kind.mark)):
            return None
        size, changed = 0, max(top.st_mtime, top.st_ctime)
        for entry in entries_below(path):
            status = entry.stat(follow_symlinks=False)
            if status.st_dev != top.st_dev or not kind.holds(entry.name):
                return None  # another file system is mounted there, or it is no meeting of ranks
            size += status.st_size if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 else 0
            changed = max(changed, status.st_mtime, status.st_ctime)
        return size, changed
    except FileNotFoundError:
        return None  # it goes away by itself
    except OSError as error:
        raise os_fault(error, "cannot look at what was left", path) from error
