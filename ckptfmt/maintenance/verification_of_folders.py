"""Whole verification of every checkpoint in a folder, of a run or any other, one after the other.

What is no checkpoint is passed over. A checkpoint that is removed or replaced meanwhile, as a manager prunes, is left
out, or checked anew.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..errors import (
    CkptError,
    InputError,
    MissingError,
    NotACheckpointError,
    StorageError,
    UnsupportedError,
    fault,
    os_fault,
)
from ..format.limits import DEFAULT, Limits
from ..progress import Progress
from ..reading.reader import Checkpoint
from ..storage import COMMIT, MANIFEST, is_url, path_of
from ..storage.folders import entries_below
from .verification import Mark, VerifyReport, checked

FORM = "ckptfmt_verify_folder"


@dataclass(frozen=True, slots=True)
class FolderReport:
    """What `verify_folder` found: a report for each checkpoint, by path, and the errors of those that could not be
    checked (newer formats, what the system refuses)."""

    path: str
    reports: tuple[VerifyReport, ...]
    errors: tuple[CkptError, ...]

    @property
    def ok(self) -> bool:
        """Whether every checkpoint was checked and is whole."""
        return not self.errors and all(report.ok for report in self.reports)


class Candidate(NamedTuple):
    """What may be a checkpoint: its path, and its bytes on storage."""

    path: str
    size: int


def verify_folder(
    folder: str | os.PathLike[str],
    *,
    recursive: bool = False,
    progress: Progress | None = None,
    resume: str | os.PathLike[str] | None = None,
    limits: Limits = DEFAULT,
    storage_options: Mapping[str, Any] | None = None,
    follow_links: bool = False,
) -> FolderReport:
    """`verify` every checkpoint in a folder, a path or a URL, and with `recursive` in those below. Hidden ones, which
    temporaries are, and links are passed over, but for links to files with `follow_links`, which is as in `open`.

    `progress(done, total)` is called with bytes of all of them. `resume`: a file that keeps which checkpoints were
    whole, and how far the one being checked has come (in a second file beside it), until all are checked. Raises
    `not-found` where there is no such folder, `bad-option` for a `resume` file of anything else, and `StorageError` for
    a folder that cannot be listed.
    """
    name = path_of(folder)
    options = {"limits": limits, "storage_options": storage_options, "follow_links": follow_links}
    remote = is_url(name)
    listed = _on_store(name, recursive, storage_options) if remote else _on_disk(name, recursive, follow_links)
    candidates = list(listed)
    total, before = sum(candidate.size for candidate in candidates), 0
    known = None if resume is None else Known.at(path_of(resume), name)
    reports: list[VerifyReport] = []
    errors: list[CkptError] = []
    for path, size in candidates:

        def within(done: int, whole: int, before: int = before, size: int = size) -> None:
            if progress is not None and whole:
                progress(before + size * done // whole, total)

        try:
            reports.append(_verified(path, within, known, options))
        except (NotACheckpointError, MissingError):
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
    return FolderReport(name, tuple(reports), tuple(errors))


def _verified(path: str, progress: Progress, known: Known | None, options: Mapping[str, Any]) -> VerifyReport:
    def check(checkpoint: Checkpoint) -> VerifyReport:
        if known is None:
            return checkpoint.verify(progress=progress)
        sha256 = checkpoint.manifest_sha256
        report = known.report(path, sha256)
        if report is None:
            report = checkpoint.verify(progress=progress, resume=known.begin(sha256))
            if report.ok:
                known.add(report, sha256)
        return report

    return checked(path, options, check)


# ---- what is there


def _on_disk(folder: str, recursive: bool, follow_links: bool) -> Iterator[Candidate]:
    if not os.path.isdir(folder):
        raise fault("not-found", "there is no such folder", path=folder)
    waiting = _listed(folder)
    while waiting:
        entry = waiting.pop()
        if entry.name.startswith("."):
            continue
        if entry.is_file(follow_symlinks=follow_links):
            yield Candidate(entry.path, entry.stat(follow_symlinks=follow_links).st_size)
        elif entry.is_dir(follow_symlinks=False):
            if any(os.path.lexists(os.path.join(entry.path, name)) for name in (COMMIT, MANIFEST)):
                yield Candidate(entry.path, _size(entry.path))
            elif recursive:
                waiting += _listed(entry.path)


def _listed(folder: str) -> list[os.DirEntry[str]]:
    """What is in a folder, the last first."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name, reverse=True)
    except OSError as error:
        raise os_fault(error, "cannot list the folder", folder) from error


def _size(folder: str) -> int:
    """Bytes of all files in a folder, as far as they can be looked at."""
    total = 0
    with contextlib.suppress(OSError):
        for entry in entries_below(folder):
            total += 0 if entry.is_dir(follow_symlinks=False) else entry.stat(follow_symlinks=False).st_size
    return total


def _on_store(url: str, recursive: bool, options: Mapping[str, Any] | None) -> Iterator[Candidate]:
    from ..storage.engine import engine_for, storage_fault

    try:
        engine, key = engine_for(url, options or {})
        folder = key.rstrip("/")
        sizes = {entry.key.removeprefix(folder).lstrip("/"): entry.size for entry in engine.entries(folder)}
    except CkptError:
        raise
    except Exception as error:  # of client libraries
        raise storage_fault(error, "cannot list the folder", url) from error
    closed = {name.rpartition("/")[0] for name in sizes if name.rpartition("/")[2] in (COMMIT, MANIFEST)}
    found: dict[str, int] = {}
    for name, size in sizes.items():
        parts = name.split("/")
        above = next((top for end in range(1, len(parts)) if (top := "/".join(parts[:end])) in closed), name)
        is_hidden = any(part.startswith(".") for part in above.split("/"))
        if above and not is_hidden and (recursive or "/" not in above):
            found[above] = found.get(above, 0) + size
    return (Candidate(f"{url.rstrip('/')}/{name}", size) for name, size in sorted(found.items()))


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
            with open(path, encoding="utf-8") as file:
                found = json.load(file)
        except FileNotFoundError:
            return cls(path, folder, {})
        except OSError as error:
            raise os_fault(error, "cannot read how far the verification has come", path) from error
        except ValueError:
            found = None
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
        try:
            with open(f"{self.path}.new", "w", encoding="utf-8") as file:
                json.dump({FORM: 1, "folder": self._folder, "whole": self._whole}, file)
            os.replace(f"{self.path}.new", self.path)
        except OSError as error:
            raise os_fault(error, "cannot keep how far the verification has come", self.path) from error

    def remove(self) -> None:
        """All are checked."""
        for path in (self.path, self._current):
            with contextlib.suppress(OSError):
                os.unlink(path)
