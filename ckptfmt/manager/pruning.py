"""Pruning: the checkpoints of any folder that no policy keeps, and their removal.

What goes is a checkpoint of this format, whole as far as its manifest says, in the folder itself, with a step that its
metadata or its name says. Everything else stays: what is no checkpoint, is damaged, of another format or of no step,
what a link in the folder leads to, what patches that stay are read through, and what somebody reads or saves now, as
far as leases tell. What is removed first
gets another name, as in `garbage`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, cast

from ..brief import Brief
from ..calls import takes
from ..conversion.table import OWN
from ..errors import CkptError, fault
from ..maintenance.candidates import check_folder
from ..maintenance.usage import usage_of
from ..signing.beside import beside as signature_of
from ..storage import COMMIT, MANIFEST, is_url, path_of
from ..storage.leases import claim, is_leased, lease
from ..storage.temporaries import destroy, take_away
from .listing import CheckpointRow, by_step, listed
from .policies import Policy, policies_asked, reasons_to_keep
from .steps import Step

BEING_READ, CHANGED = "being read", "changed meanwhile"


@dataclass(frozen=True, slots=True)
class Pruned:
    """A checkpoint that `prune` looked at: what is known of it (`step` and `metrics` as `ckptfmt ls` shows them, `time`
    in seconds since the epoch, `bytes` stored), `why` it stays or goes, and whether it was `removed`."""

    path: str
    step: Any
    time: float | None
    bytes: int
    metrics: dict[str, float]
    why: str
    removed: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class PruneReport(Brief):
    """What `prune` found in a folder, by step. `found` is what can be, or was, removed; `kept` what stays. `freed`:
    bytes that this frees or has freed; files that are one with those of others stay."""

    path: str
    found: tuple[Pruned, ...]
    kept: tuple[Pruned, ...]
    freed: int = 0

    @property
    def bytes(self) -> int:
        """Bytes of what was found, as if nothing were shared."""
        return sum(one.bytes for one in self.found)


@takes()
def prune(
    folder: str | os.PathLike[str], keep: int | Policy | Sequence[Policy], *, delete: bool = False
) -> PruneReport:
    """Find, and with `delete=True` remove, the checkpoints in a folder that no policy keeps.

    `keep`: a number, for the last so many, or policies of `ckptfmt.manager` (`Last`, `Best`, `Every`, `EveryTime`,
    `Where`, …), of which one is enough to keep a checkpoint; the newest is kept whatever they say. Steps and metrics
    are those that a manager stored, else the numbers in the metadata; a step else is that of the name: `epoch_12.ckpt`.

    What is no checkpoint of this format is never touched, nor what is damaged, has no step, is the target of a link in
    the folder, or the base of a patch that stays, or is read or saved now; folders below are not looked into. Raises
    `bad-option` for a URL and for what is no policy, `not-found` and `not-a-checkpoint` where there is no folder, and
    `StorageError` for what cannot be listed or removed.
    """
    name = path_of(folder)
    policies = policies_asked(keep)
    _check(name)
    judged = _judged(name, policies)
    found = {row.path: Pruned(row.path, row.step, row.time, row.size or 0, row.metrics, why) for row, why, _ in judged}
    going = [row for row, _, goes in judged if goes]
    freed = 0 if delete else usage_of(row.path for row in going).own
    needed = {row.base for row, _, goes in judged if not goes}
    for row in _patches_first(going) if delete else ():
        own = usage_of([row.path]).own
        is_base = row.manifest_sha256 in needed - {None}  # of one that somebody began to read
        one = replace(found[row.path], why=BEING_READ) if is_base else _removed(name, row, found[row.path])
        found[row.path] = one
        freed += own if one.removed else 0
        needed |= set() if one.removed else {row.base}
    gone = {row.path for row in going if not delete or found[row.path].removed}
    removed, kept = (tuple(one for path, one in found.items() if (path in gone) is goes) for goes in (True, False))
    return PruneReport(name, removed, kept, freed)


def _check(folder: str) -> None:
    if is_url(folder):
        expected = "a path; a manager prunes runs on stores"
        raise fault("bad-option", "the folder is on a store", path=folder, found="a URL", expected=expected)
    check_folder(folder)
    if any(os.path.lexists(os.path.join(folder, name)) for name in (COMMIT, MANIFEST)):
        expected = "the folder that it lies in"
        raise fault("bad-option", "this is a checkpoint, and no folder of them", path=folder, expected=expected)


def _patches_first(rows: Sequence[CheckpointRow]) -> list[CheckpointRow]:
    """Rows in an order in which each comes before what it is read through."""
    bases = {row.manifest_sha256: row.base for row in rows}

    def depth(row: CheckpointRow) -> int:
        base, found = row.base, 0
        while base is not None and found < len(bases):
            base, found = bases.get(base), found + 1
        return found

    return sorted(rows, key=depth, reverse=True)


def _judged(folder: str, policies: Sequence[Policy]) -> list[tuple[CheckpointRow, str, bool]]:
    """Each checkpoint, by step, with the reason for which it stays or goes, and whether it goes."""
    linked = set(_link_targets(folder))
    rows = sorted(listed(folder), key=by_step)
    reasons = {row.name: _apart(row, linked) for row in rows}
    judged = [row for row in rows if not reasons[row.name]]
    # a row has what policies ask of a step: its number, time and metrics
    kept = reasons_to_keep(cast("Sequence[Step]", judged), policies)
    none = f"kept by none of: {', '.join(map(str, policies))}"
    for row in rows:
        reasons[row.name] = reasons[row.name] or ", ".join(kept.get(row.step, ()))
        if not reasons[row.name] and _is_read(row.path):
            reasons[row.name] = BEING_READ
    reasons |= _bases(rows, reasons)
    return [(row, reasons[row.name] or none, not reasons[row.name]) for row in rows]


def _bases(rows: Sequence[CheckpointRow], reasons: Mapping[str, str]) -> dict[str, str]:
    """Why those stay that others which stay are read through."""
    by_sha256 = {row.manifest_sha256: row for row in rows}
    found: dict[str, str] = {}
    waiting = [row for row in rows if reasons[row.name]]
    while waiting:
        row = waiting.pop()
        base = None if row.base is None else by_sha256.get(row.base)
        if base is not None and not reasons[base.name] and base.name not in found:
            found[base.name] = f"base of {row.name}"
            waiting.append(base)
    return found


def _apart(row: CheckpointRow, linked: set[str]) -> str:
    """Why a row is none that policies judge; "" if it is one."""
    if row.error is not None:
        return f"damaged or not readable: {row.error}"
    if row.format != OWN:
        return f"of another format: {row.format}"
    if os.path.islink(row.path):
        return "a link"
    if os.path.realpath(row.path) in linked:
        return "a link leads to it"
    return "no step is known of it" if row.step is None else ""


def _link_targets(folder: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        yield from (os.path.realpath(entry.path) for entry in entries if entry.is_symlink())


def _is_read(path: str) -> bool:
    with suppress(CkptError):
        return is_leased(path)
    return False


def _removed(folder: str, row: CheckpointRow, one: Pruned) -> Pruned:
    """Remove a checkpoint that is what it was when it was listed, and that nobody holds."""
    with lease(folder), claim(row.path) as is_mine:  # as a manager does, so that none sweeps meanwhile
        if not is_mine:
            return replace(one, why=BEING_READ)
        if not _is_as_listed(row):
            return replace(one, why=CHANGED)
        take_away(row.path)
        destroy(signature_of(row.path))
    return replace(one, removed=True)


def _is_as_listed(row: CheckpointRow) -> bool:
    place = os.path.join(row.path, COMMIT) if os.path.isdir(row.path) else row.path
    with suppress(OSError):
        status = os.stat(place)
        return status.st_mtime == row.time and (place != row.path or status.st_size == row.size)
    return False
