"""Whole verification of every checkpoint in a folder, of a run or any other, one after the other.

What is no checkpoint is passed over, but for what should be one: empty files and zeros under the name of one. A
checkpoint that is removed or replaced meanwhile, as a manager prunes, is left out, or checked anew.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ..brief import Brief
from ..calls import takes
from ..errors import (
    CkptError,
    InputError,
    MissingError,
    NotACheckpointError,
    StorageError,
    UnsupportedError,
    fault,
)
from ..format.limits import DEFAULT, Limits
from ..layouts.foreign import HEAD
from ..progress import Progress
from ..reading.checkpoint import StoredCheckpoint
from ..storage import is_url, path_of
from .candidates import candidates_in
from .marks import Mark, keep, kept
from .verification import VerifyReport, checked, verify, verify_stored

FORM = "ckptfmt_verify_folder"
SUFFIX = ".ckpt"  # of the names that people and managers give to checkpoints


@dataclass(frozen=True, slots=True, repr=False)
class FolderReport(Brief):
    """What `verify_folder` found: a report for each checkpoint, by path, and the errors of those that could not be
    checked (newer formats, what the system refuses)."""

    path: str
    reports: tuple[VerifyReport, ...]
    errors: tuple[CkptError, ...]

    @property
    def ok(self) -> bool:
        """Whether every checkpoint was checked and is whole."""
        return not self.errors and all(report.ok for report in self.reports)


@takes()
def verify_folder(
    folder: str | os.PathLike[str],
    *,
    recursive: bool = False,
    executor: Executor | None = None,
    progress: Progress | None = None,
    resume: str | os.PathLike[str] | None = None,
    limits: Limits = DEFAULT,
    storage_options: Mapping[str, Any] | None = None,
    follow_links: bool = False,
) -> FolderReport:
    """Check every checkpoint in a folder, a path or a URL, and with `recursive` in those below, as `verify` does one.
    Hidden ones, which temporaries are, and links are passed over, but for links to files with `follow_links`, which is
    as in `open`; so are `limits` and `storage_options`.

    The report of a patch whose base is in the folder, too, has that of the base.

    `executor`: any `concurrent.futures.Executor` (of processes, of a cluster of Dask or Ray whose machines see the same
    paths), which checks them one by one; here they are checked one after another, each by several threads.
    `progress(done, total)` is called with bytes of all of them. `resume`, not with `executor`: a file that keeps which
    checkpoints were whole, and how far the one being checked has come (in a second file beside it), until all are
    checked. Raises `not-found` where there is no such folder, `bad-option` for a `resume` file of anything else, and
    `StorageError` for a folder that cannot be listed.
    """
    name = path_of(folder)
    looking: dict[str, Any] = {"storage_options": storage_options, "follow_links": follow_links}
    candidates = list(candidates_in(name, recursive=recursive, **looking))
    if executor is not None and resume is not None:
        raise fault("bad-option", "resume= keeps how far this process has come, and goes not with executor=", path=name)
    total, before = sum(candidate.size for candidate in candidates), 0
    known = None if resume is None else Known.at(path_of(resume), name)
    checks = _checks([candidate.path for candidate in candidates], known, {"limits": limits, **looking}, executor)
    reports: list[VerifyReport] = []
    errors: list[CkptError] = []
    for (path, size, _), check in zip(candidates, checks, strict=True):
        try:
            reports.append(check(_part_of(progress, before, size, total)))
        except NotACheckpointError as error:
            if _is_lost(path, size):
                errors.append(error)
        except MissingError:
            pass
        except (UnsupportedError, StorageError) as error:
            if known is not None and error.path == known.path:
                raise
            errors.append(error)
        before += size
        if progress is not None and total:
            progress(before, total)
    if known is not None:
        known.remove()
    return FolderReport(name, tuple(_with_bases(reports, looking)), tuple(errors))


def _with_bases(reports: list[VerifyReport], options: Mapping[str, Any]) -> list[VerifyReport]:
    """The reports, those of patches with those of their bases, which were checked, too."""
    if all(report.base is None for report in reports):
        return reports
    by_sha256: dict[str, VerifyReport] = {}
    for report in reports:
        with contextlib.suppress(CkptError), StoredCheckpoint(report.path, **options) as stored:
            by_sha256[stored.manifest_sha256] = report

    def joined(report: VerifyReport, left: int) -> VerifyReport:
        base = by_sha256.get(report.base or "") if left else None
        return report if base is None else replace(report, base_report=joined(base, left - 1))

    return [joined(report, DEFAULT.patches) for report in reports]


def _checks(
    paths: list[str], known: Known | None, options: dict[str, Any], executor: Executor | None
) -> list[Callable[[Progress], VerifyReport]]:
    """What verifies each checkpoint, or waits for who does."""
    if executor is None:
        return [partial(_verified, path, known, options) for path in paths]
    pending = [executor.submit(verify, path, **options) for path in paths]
    return [partial(_awaited, future) for future in pending]


def _awaited(future: Future[VerifyReport], _: Progress) -> VerifyReport:
    return future.result()


def _part_of(progress: Progress | None, before: int, size: int, total: int) -> Progress:
    """Progress of one checkpoint of `size` bytes, as that of all of them."""

    def within(done: int, whole: int) -> None:
        if progress is not None and whole:
            progress(before + size * done // whole, total)

    return within


def _is_lost(path: str, size: int) -> bool:
    """Whether a file has the name of a checkpoint, and nothing but zeros where one begins: what is left of one that was
    copied or flushed in part."""
    if not path.endswith(SUFFIX):
        return False
    if size == 0 or is_url(path) or os.path.isdir(path):
        return size == 0
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return not file.read(HEAD).strip(b"\0")
    return False


def _verified(path: str, known: Known | None, options: Mapping[str, Any], progress: Progress) -> VerifyReport:
    def check(checkpoint: StoredCheckpoint) -> VerifyReport:
        if known is None:
            return verify_stored(checkpoint, progress)
        sha256 = checkpoint.manifest_sha256
        report = known.report(path, sha256)
        if report is None:
            report = verify_stored(checkpoint, progress, known.begin(sha256))
            if report.ok:
                known.add(report, sha256)
        return report

    return checked(path, options, check)


# ---- how far it has come


class Known:
    """Which checkpoints of a folder were whole: a small file with what was said of each, by path."""

    def __init__(self, path: str, folder: str, whole: dict[str, Any]) -> None:
        self.path, self._folder, self._whole = path, folder, whole
        self._current = f"{path}.current"

    @classmethod
    def at(cls, path: str, folder: str) -> Known:
        """What the file at `path` says, or nothing if there is none; raises `bad-option` for any other file."""
        try:
            found = kept(path)
        except FileNotFoundError:
            return cls(path, folder, {})
        match found:
            case {"ckptfmt_verify_folder": 1, "folder": str(of), "whole": dict(whole)}:
                if of == folder:
                    return cls(path, folder, whole)
                raise fault("bad-option", "resume= belongs to another folder", path=path, found=of, expected=folder)
        raise fault("bad-option", "resume= is no file of a verification of a folder", path=path)

    def report(self, path: str, manifest: str) -> VerifyReport | None:
        match self._whole.get(path):
            case [str(of), int(tensors), int(blocks), int(size)] if of == manifest:
                return VerifyReport(path, (), tensors, blocks, size)
        return None

    def begin(self, manifest: str) -> str:
        """The file that keeps how far the verification of one checkpoint has come."""
        try:
            Mark.at(self._current, manifest)
        except InputError:  # it is of another one, which is gone
            os.unlink(self._current)
        return self._current

    def add(self, report: VerifyReport, manifest: str) -> None:
        """This one was whole, too; raises `StorageError`."""
        self._whole[report.path] = [manifest, report.tensors, report.blocks, report.bytes]
        keep(self.path, {FORM: 1, "folder": self._folder, "whole": self._whole})

    def remove(self) -> None:
        """All are checked."""
        for path in (self.path, self._current):
            with contextlib.suppress(OSError):
                os.unlink(path)
