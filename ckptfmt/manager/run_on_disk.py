"""A run directory on a local disk.

A step that is deleted takes the name of a temporary, which every reader refuses; that of a directory is flushed before
its bytes go. Where a directory cannot be renamed, its `COMMIT` goes first. Leases are locks (`leases`). Temporaries of
saves that still run are known by the lease that a save holds on the run directory: while there is one, nothing is
swept.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Unpack

from ..errors import CkptError, StorageError, fault, os_fault
from ..format import commit
from ..options import OpenOptions
from ..signing.beside import beside as signature_of
from ..storage import COMMIT, TEMPORARY_SUFFIX, leases
from ..storage import disk as disks
from ..storage.attempt import LocalAttempt, make_directories
from ..storage.folders import entries_below
from ..storage.temporaries import beside, destroy, take_away
from .run import REASONS, Listing, RunDirectory, record_in
from .steps import Number, Step, StepNames


class RunOnDisk(RunDirectory):
    """A directory of this machine."""

    def __init__(
        self, path: str | os.PathLike[str], names: StepNames, options: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(os.fspath(path).removeprefix("file://"), names)
        if options:
            raise fault("bad-option", "storage_options= are for URLs", path=path, found=sorted(options))

    def temporary_of(self, name: str) -> str:
        """A new name for what is no step any more; like those of saves, so that readers refuse it. [PUB-001]"""
        return beside(os.path.join(self.path, name))

    # ---- finding

    def find(self, step: Number) -> Step | None:
        return self._look(step, self.names.name(step))

    def _list(self) -> Listing:
        """Entries are names."""
        try:
            listed = os.listdir(self.path)
        except (FileNotFoundError, NotADirectoryError):
            listed = []
        except OSError as error:
            raise os_fault(error, "cannot list the steps", self.path) from error
        named, temporaries = [], []
        for name in listed:
            number = self.names.step(name)
            if number is not None:
                named.append((number, name))
            elif name.endswith(TEMPORARY_SUFFIX) and self._is_temporary(name):
                temporaries.append(name)
        named.sort(key=lambda item: self.names.key(item[0]))
        return Listing(named, temporaries)

    def _is_temporary(self, name: str) -> bool:
        stem = name[1 : -len(TEMPORARY_SUFFIX)].rpartition(".")[0]
        return name.startswith(".") and (self.names.step(stem) is not None or stem == REASONS)

    def _look(self, number: Number, entry: str) -> Step | None:
        path = os.path.join(self.path, entry)
        try:
            return self._judged(number, self._seen(number, path))
        except (FileNotFoundError, NotADirectoryError):
            return self._judged(number, None)
        except OSError as error:  # which may pass, so the next look is a new one
            return self._judged(number, os_fault(error, "cannot look at the step", path))

    def _seen(self, number: Number, path: str) -> Step | CkptError:
        status = os.stat(path)
        is_directory = stat.S_ISDIR(status.st_mode)
        place = os.path.join(path, COMMIT) if is_directory else path
        if is_directory:
            with contextlib.suppress(FileNotFoundError):  # other libraries write none
                status = os.stat(place)
        identity = (status.st_ino, status.st_mtime_ns, status.st_size)

        def record() -> bytes | None:
            return self._record_at(path, place, status)

        return self._seen_as(number, identity, status.st_mtime, is_directory, record)

    def _record_at(self, path: str, place: str, status: os.stat_result) -> bytes | None:
        """The commit record of a step, which stands at `place`, a file of such a status."""
        return _record(place, status.st_size, place != path) if stat.S_ISREG(status.st_mode) else None

    # ---- one step

    def size_of(self, step: Step) -> int:
        try:
            files = [os.path.join(step.path, name) if name else step.path for name in self.objects_of(step)]
            return sum(os.stat(file).st_size for file in files)
        except OSError as error:
            raise os_fault(error, "cannot look at the step", step.path) from error

    def objects_of(self, step: Step) -> list[str]:
        if not os.path.isdir(step.path):
            return [""]
        found = [os.path.relpath(entry.path, step.path) for entry in entries_below(step.path) if not entry.is_dir()]
        return sorted(found, key=lambda name: (name == COMMIT, name))

    def fault_of(self, step: Step, **options: Unpack[OpenOptions]) -> CkptError | None:
        try:
            return super().fault_of(step, **options)
        except StorageError as error:  # a disk that cannot read it now will hardly do so later
            return error

    def _lease(self, step: Step) -> AbstractContextManager[None]:
        return leases.lease(step.path)

    def _current(self, step: Step) -> Step:
        return self.find(step.step) or step

    def is_leased(self, step: Step) -> bool:
        return leases.is_leased(step.path)

    # ---- changing

    def saving(self, step: Number) -> AbstractContextManager[None]:
        try:
            make_directories(self.path)
        except (FileExistsError, NotADirectoryError) as error:
            raise fault("exists", "there is a file where the run directory should be", path=self.path) from error
        except OSError as error:
            raise os_fault(error, "cannot make the run directory", self.path) from error
        return leases.lease(self.path)

    def set_aside(self, step: Number) -> bool:
        """It gets a name that ends in `.damaged`, after it was looked at once more."""
        path = self.path_of(step)
        if self.find(step) is not None or not os.path.lexists(path):
            return False
        disk = disks.current()
        try:
            disk.replace(path, f"{path}.{os.urandom(6).hex()}.damaged")
            disk.flush_directory(self.path)
        except OSError as error:
            message = "something damaged cannot be moved out of the way"
            if error.errno == errno.EXDEV:
                raise fault("not-replaceable", message, path=path) from error
            raise os_fault(error, message, path) from error
        return False

    def delete(self, steps: Sequence[Step], *, even_if_read: bool = False, for_good: bool = False) -> None:
        if not steps:
            return
        with leases.lease(self.path):
            for step in steps:
                if even_if_read:
                    hidden = self._hide(step, for_good=True)
                    with leases.claim(hidden) as is_mine:
                        if is_mine:
                            destroy(hidden)
                            destroy(signature_of(step.path))
                else:
                    with leases.claim(step.path) as is_mine:
                        if is_mine:
                            destroy(self._hide(step, for_good=for_good))
                            destroy(signature_of(step.path))

    def _hide(self, step: Step, *, for_good: bool = False) -> str:
        """Give a step the name of a temporary; gives its new path. `for_good`: after a power loss, too."""
        hidden = self.temporary_of(os.path.basename(step.path))
        disk = disks.current()
        try:
            try:
                disk.replace(step.path, hidden)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                hidden = step.path  # a directory in a lower layer of overlayfs: it can be removed, and not renamed
                disk.unlink(os.path.join(hidden, COMMIT))
                disk.flush_directory(hidden)
            if for_good or os.path.isdir(hidden):
                disk.flush_directory(self.path)  # else a directory's name may come back without the bytes
        except FileNotFoundError:
            pass  # somebody else was faster
        except OSError as error:
            raise os_fault(error, "cannot delete the step", step.path) from error
        return hidden

    def sweep(self, leftovers: Sequence[str]) -> list[str]:
        removed: list[str] = []
        if not leftovers:
            return removed
        with leases.claim(self.path) as nobody_saves:
            for name in leftovers if nobody_saves else ():
                path = os.path.join(self.path, name)
                with leases.claim(path, without_locks=False) as is_dead:  # else `gc` removes it when it is old
                    if is_dead:
                        take_away(path)
                        removed.append(name)
        return removed

    def read_note(self, name: str) -> str | None:
        try:
            with open(os.path.join(self.path, name), encoding="utf-8") as file:
                return file.read()
        except (OSError, ValueError):
            return None

    def write_note(self, name: str, text: str | None) -> None:
        path = os.path.join(self.path, name)
        if text is None:
            try:
                with contextlib.suppress(FileNotFoundError):
                    disks.current().unlink(path)
            except OSError as error:
                raise os_fault(error, f"cannot remove {name}", self.path) from error
            return
        data = text.encode()
        attempt = LocalAttempt(path, directory=False, overwrite=True, durable=False)
        try:
            file = attempt.create("")
            file.write(0, data)
            file.finish(len(data))
            attempt.publish()
        except BaseException:
            attempt.abort()
            raise


def _record(path: str, size: int, is_directory: bool) -> bytes | None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        tail = os.pread(fd, commit.MAX_LENGTH + 1, max(0, size - commit.MAX_LENGTH))
    finally:
        os.close(fd)
    return record_in(tail, size, is_directory=is_directory)
