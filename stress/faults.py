"""A disk that fails: each call of every operation in turn, and each call of every way to read.

It ends in success or in one clear error with a code; what was there is whole, or what was to be there, and no temporary
stays where it could be removed. What is read is what was saved, or an error.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ckptfmt
from ckptfmt.storage import TEMPORARY_SUFFIX
from ckptfmt.storage.disk import Disk
from ckptfmt.testing import equal_trees, using_disk

from .crash_states import entries, recorded
from .operations import LAYOUTS, NEW, Operation, operations, save
from .result import Result

COUNT = 1 << 30  # faults of each operation: all
CODES = {errno.ENOSPC: "disk-full", errno.EIO: "io", errno.EINTR: "io"}
REMOVALS = ("unlink", "remove_directory")
READS = ("open", "open_below", "read", "map")
_COMPOSED = ("remove_tree",)  # of other calls


class FaultyDisk(Disk):
    """A disk at whose call number `at` (of those that read, or of the others) something happens: `fault`, which gets
    the call's name and arguments, may raise, or give what the call is to give, or None. `called`: the names so far."""

    def __init__(self, at: int, fault: Callable[..., Any], *, reads: bool = False) -> None:
        self._at, self._fault, self._reads = at, fault, reads
        self.called: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        call = super().__getattribute__(name)
        if name.startswith("_") or name == "called" or name in _COMPOSED or (name in READS) != self._reads:
            return call

        def counted(*arguments: Any, **keys: Any) -> Any:
            self.called.append(name)
            given = self._fault(name, *arguments) if len(self.called) == self._at + 1 else None
            return call(*arguments, **keys) if given is None else given

        return counted

    def flush(self, fd: int) -> None:
        """Not made, as it would only take time."""

    def flush_directory(self, path: str) -> None:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECTORY))


def failing(number: int) -> Callable[..., Any]:
    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def run(folder: Path, *, seed: int, count: int = COUNT) -> Result:
    """Each call of each operation and of each way to read; `count`: most faults of each, which `seed` then chooses."""
    bad: list[str] = []
    faults = 0
    for operation in operations():
        found = list(write_faults(operation, folder, seed=seed, count=count))
        faults += len(found)
        bad += [text for texts in found for text in texts]
        print(f"{operation.name}: {len(found)} faults", flush=True)
    for layout in LAYOUTS:
        found = list(read_faults(layout, folder, seed=seed, count=count))
        faults += len(found)
        bad += [text for texts in found for text in texts]
        print(f"read {layout}: {len(found)} faults", flush=True)
    return Result(f"{faults:,} faults", bad)


# ---- changing

FAULTS = ("ENOSPC", "EIO", "EINTR", "short", "vanished")


def write_faults(operation: Operation, folder: Path, *, seed: int, count: int) -> Iterator[list[str]]:
    """For each fault of an operation what is wrong with how it ended."""
    _, look = recorded(operation, folder / "work")
    work, gone = folder / "faults", folder / "vanished"

    def carried_out(disk: FaultyDisk) -> BaseException | None:
        work.mkdir()
        with using_disk(FaultyDisk(-1, failing(0))):
            operation.prepare(work)
        return _error(operation, work, disk)

    def clear() -> None:
        for path in (work, gone, folder / "faults-mail"):
            shutil.rmtree(path, ignore_errors=True)

    carried_out(calm := FaultyDisk(-1, failing(0)))
    clear()
    for at, fault in _places(len(calm.called), FAULTS, seed, count):
        error = carried_out(disk := FaultyDisk(at, _fault(fault, work, gone)))
        if at < len(disk.called):  # ranks in threads do not always make as many calls
            there, call = gone if gone.exists() else work, disk.called[at]
            texts = _problems(operation, there, look, error, fault, call)
            yield [f"{operation.name}, {fault} at call {at}, {call}: {text}" for text in texts]
        clear()


def _places(calls: int, faults: tuple[str, ...], seed: int, count: int) -> list[tuple[int, str]]:
    """Each call with each fault, or `count` of them."""
    places = [(at, fault) for at in range(calls) for fault in faults]
    return places if count >= len(places) else random.Random(seed).sample(places, count)


def _fault(name: str, work: Path, gone: Path) -> Callable[..., Any]:
    def short(call: str, *arguments: Any) -> Any:
        if call == "write":
            fd, data, offset = arguments
            return os.pwrite(fd, data[: max(1, len(data) // 3)], offset)

    def vanish(*_: Any) -> None:
        work.rename(gone)

    return {"short": short, "vanished": vanish}.get(name) or failing(getattr(errno, name))


def _error(operation: Operation, work: Path, disk: Disk) -> BaseException | None:
    try:
        with using_disk(disk):
            operation.act(work)
    except Exception as error:
        return error
    return None


def _problems(
    operation: Operation, there: Path, look: Any, error: BaseException | None, fault: str, call: str
) -> list[str]:
    texts = []
    if error is not None and not isinstance(error, ckptfmt.CkptError):
        texts.append(f"raises {error!r}")
    elif isinstance(error, ckptfmt.CkptError) and (call, error.code) == ("lock", "temporary-lost"):
        pass  # a collection took what nothing kept it from
    elif isinstance(error, ckptfmt.CkptError) and fault in ("ENOSPC", "EIO", "EINTR"):
        number = getattr(errno, fault)
        if (error.code, error.errno, error.path is None) != (CODES[number], number, False):
            texts.append(f"raises {error!r} with errno {error.errno} at {error.path}")
    elif error is not None and fault == "short":
        texts.append(f"raises {error!r}")
    found, more = entries(there, look)
    allowed = operation.after if error is None else operation.during
    if fault == "vanished" and error is None:
        allowed = operation.during  # the manager makes a run directory anew, elsewhere
    if found not in allowed:
        texts.append(f"ends with {error!r}, and there is {found or 'nothing'}")
    left = [path.name for path in there.iterdir() if path.name.endswith(TEMPORARY_SUFFIX)]
    # a removal that fails, and what was replaced if the new one is not sure to stay, leave one; in runs the next save
    # sweeps it
    if left and not operation.removes and fault != "vanished" and call not in (*REMOVALS, "flush_directory"):
        texts.append(f"{left} stays")
    return texts + more


# ---- reading


@dataclass(frozen=True)
class Way:
    """A way to read: `read(path)` gives what must equal that of a disk that does not fail."""

    name: str
    read: Callable[[Path], Any]
    may_be_cut: bool = True  # not where the file is mapped: then the process would die


def ways() -> Iterator[Way]:
    def metadata(path: Path) -> Any:
        with ckptfmt.open(path) as checkpoint:
            return [checkpoint.metadata, *map(str, checkpoint.tensors)]

    def piece(path: Path, verify: bool) -> Any:
        with ckptfmt.open(path, verify=verify) as checkpoint:
            return checkpoint["large"][1:3, 5:90]

    yield Way("open", metadata)
    yield Way("load", ckptfmt.load)
    yield Way("load, unverified", partial(ckptfmt.load, verify=False))
    yield Way("load, mapped", partial(ckptfmt.load, mmap=True), False)
    yield Way("slice", partial(piece, verify=True))
    yield Way("slice, unverified", partial(piece, verify=False))
    yield Way("verify", lambda path: [ckptfmt.verify(path).ok])


def read_faults(layout: str, folder: Path, *, seed: int, count: int) -> Iterator[list[str]]:
    """For each fault of each way to read what is wrong with how it ended."""
    path = folder / "read.ckpt"
    for way in ways():
        save(NEW, folder, path=path.name, layout=layout, durable=False, overwrite=True)
        with using_disk(calm := FaultyDisk(-1, failing(0), reads=True)):
            wanted = way.read(path)
        faults = ("EIO", "EINTR", "short", "cut") if way.may_be_cut else ("EIO", "EINTR", "short")
        for at, fault in _places(len(calm.called), faults, seed, count):
            disk = FaultyDisk(at, _read_fault(fault, path), reads=True)
            texts = _read_problems(way, path, wanted, fault, disk)
            if fault == "cut":
                save(NEW, folder, path=path.name, layout=layout, durable=False, overwrite=True)
            yield [f"{way.name} {layout}, {fault} at call {at} of {disk.called}: {text}" for text in texts]


def _read_problems(way: Way, path: Path, wanted: Any, fault: str, disk: FaultyDisk) -> list[str]:
    try:
        with using_disk(disk):
            found = way.read(path)
    except ckptfmt.CkptError as error:
        is_right = error.code == "io" if fault in ("EIO", "EINTR") else fault == "cut"
        return [] if is_right else [f"raises {error!r}"]
    except Exception as error:
        return [f"raises {error!r}"]
    if type(found) is list and found == [False]:  # of verification
        return []
    texts = [] if equal_trees(found, wanted) else ["silently wrong"]
    return [*texts, *(["the error is not told"] if fault in ("EIO", "EINTR") else [])]


def _read_fault(name: str, path: Path) -> Callable[..., Any]:
    def short(call: str, *arguments: Any) -> Any:
        if call == "read":
            fd, out, offset = arguments
            return os.preadv(fd, [out[: max(1, len(out) // 3)]], offset)

    def cut(*_: Any) -> None:
        """All files lose their second half."""
        for file in [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]:
            os.truncate(file, file.stat().st_size // 2)

    return {"short": short, "cut": cut}.get(name) or failing(getattr(errno, name))
