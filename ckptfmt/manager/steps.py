"""The steps of a run: their fixed names, and the listing of those that are committed.

A run directory holds one checkpoint for each step: `step-0000001000.ckpt`, ten digits or more, a file or a directory.

A name is no proof. A checkpoint of ours takes its name whole, by link or rename (PUB-003, PUB-004), but a copy made by
another program may be torn. So the end of a file, or the `COMMIT` of a directory, is read once: 255 bytes, and only
what holds a valid commit record is listed. What was seen is remembered for as long as inode, size and time of
modification stay, so that listing again opens nothing; finding the latest step opens one.
"""

from __future__ import annotations

import operator
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

from .. import commit
from .. import tree as trees
from ..encoder import encode
from ..errors import CkptError, CorruptError, fault, os_fault
from ..manifest import FORMAT
from ..reader import open_checkpoint
from ..storage.local import TEMPORARY_SUFFIX
from ..tree import Tree

RESERVED = "ckptfmt.run"  # key of a checkpoint's metadata under which its step and metrics stand
COMMIT = "COMMIT"

Number = Any  # int; in mode "flax" float, too


@dataclass(frozen=True)
class Step:
    """A committed step of a run. `time`: when it was written, in seconds since the epoch (time of modification).

    `metrics` and `metadata` are read from the manifest when they are first asked for; no tensor is touched.
    """

    step: Number
    path: str
    time: float
    identity: tuple[int, int, int]  # inode, time of modification (ns), bytes of the file or of COMMIT

    @cached_property
    def size(self) -> int:
        """Bytes on the disk."""
        if not os.path.isdir(self.path):
            return self.identity[2]
        return sum(
            os.stat(os.path.join(folder, name)).st_size for folder, _, names in os.walk(self.path) for name in names
        )

    @cached_property
    def metrics(self) -> Mapping[str, float]:
        """The metrics that it was saved with; none if its manifest is damaged. Raises `StorageError`."""
        try:
            found = self._stored_metadata
        except CorruptError:
            return {}
        entry = found.get(RESERVED) if isinstance(found, dict) else None
        metrics = entry.get("metrics") if isinstance(entry, dict) else None
        if not isinstance(metrics, dict):
            return {}
        return {name: value for name, value in metrics.items() if type(name) is str and type(value) is float}

    @cached_property
    def metadata(self) -> Tree:
        """The user's metadata. Raises what `open` raises."""
        found = self._stored_metadata
        if not isinstance(found, dict):
            return found
        return {key: value for key, value in found.items() if key != RESERVED} or None

    @cached_property
    def _stored_metadata(self) -> Tree:
        with open_checkpoint(self.path) as checkpoint:
            return checkpoint.metadata


def metadata_for(step: Number, metrics: Mapping[str, Any] | None, metadata: Mapping[str, Any] | None) -> Tree:
    """What is stored as a checkpoint's metadata; raises `bad-option`."""
    if metadata is not None and (not isinstance(metadata, Mapping) or RESERVED in metadata):
        raise fault(
            "bad-option", f"metadata= must be a dict without the key {RESERVED!r}", found=type(metadata).__name__
        )
    entry: dict[str, Any] = {"step": step}
    if metrics:
        entry["metrics"] = {_metric_name(name): _metric(name, value) for name, value in metrics.items()}
    node = encode({**(metadata or {}), RESERVED: entry}, allow_tensors=False).node  # checked now, and a copy
    return trees.decode(node, [].__getitem__)


def _metric_name(name: Any) -> str:
    if type(name) is not str:
        raise fault("bad-option", f"a metric's name is {name!r}", found=type(name).__name__, expected="str")
    return name


def _metric(name: str, value: Any) -> float:
    try:
        return float(value)  # numbers, and 0-d arrays of any framework
    except (TypeError, ValueError) as error:
        raise fault("bad-option", f"metric {name!r} is no number", found=type(value).__name__) from error


# ---- names


class Names(Protocol):
    """How the steps of a run are named and ordered."""

    def checked(self, step: Any) -> Number:
        """The step as a plain number; raises `bad-option`."""

    def name(self, step: Number) -> str: ...

    def step(self, name: str) -> Number | None:
        """The step that a name stands for, or None."""

    def key(self, step: Number) -> Any:
        """What steps are sorted by."""


_FIXED = re.compile(r"step-([0-9]{10,})\.ckpt").fullmatch


class FixedNames:
    """`step-0000001000.ckpt`: one name for each step, which sorts as its number does."""

    def checked(self, step: Any) -> int:
        try:
            number = operator.index(step)
        except TypeError as error:
            raise fault("bad-option", f"step {step!r} is no int", found=type(step).__name__, expected="int") from error
        if isinstance(step, bool) or number < 0:
            raise fault("bad-option", "a step is negative or a bool", found=step, expected="0 or more")
        return number

    def name(self, step: Number) -> str:
        return f"step-{step:010d}.ckpt"

    def step(self, name: str) -> int | None:
        found = _FIXED(name)
        return int(found[1]) if found is not None and self.name(int(found[1])) == name else None

    def key(self, step: Number) -> int:
        return int(step)


# ---- listing


class Scan(NamedTuple):
    """What a run directory holds: committed steps in order, and the names of temporaries of saves and deletions."""

    steps: list[Step]
    temporaries: list[str]


class RunDirectory:
    """A directory of checkpoints by step. Nothing is made or changed here; a directory that does not exist is empty."""

    def __init__(self, path: str | os.PathLike[str], names: Names) -> None:
        self.path = os.fspath(path)
        self.names = names
        self._known: dict[str, tuple[tuple[int, int, int], Step | None]] = {}

    def path_of(self, step: Number) -> str:
        return os.path.join(self.path, self.names.name(step))

    def temporary_of(self, name: str) -> str:
        """A new name for what is no step any more; like those of saves, so that readers refuse it. [PUB-001]"""
        return os.path.join(self.path, f".{name}.{os.urandom(6).hex()}{TEMPORARY_SUFFIX}")

    def scan(self) -> Scan:
        """Everything there is. Raises `StorageError`."""
        named, temporaries = self._names()
        steps = [step for name, number in named if (step := self._look(name, number)) is not None]
        self._known = {name: self._known[name] for name, _ in named if name in self._known}
        return Scan(steps, temporaries)

    def latest(self) -> Step | None:
        """The last committed step; looks at names, and at no checkpoint but the last."""
        return next(self.backwards(), None)

    def backwards(self) -> Iterator[Step]:
        """Committed steps from the last on."""
        for name, number in reversed(self._names()[0]):
            step = self._look(name, number)
            if step is not None:
                yield step

    def find(self, step: Number) -> Step | None:
        return self._look(self.names.name(step), step)

    def _names(self) -> tuple[list[tuple[str, Number]], list[str]]:
        """(name, step) of what is named like a step, in order; names of temporaries of such."""
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
                named.append((name, number))
            elif name.endswith(TEMPORARY_SUFFIX) and self._is_temporary(name):
                temporaries.append(name)
        named.sort(key=lambda item: self.names.key(item[1]))
        return named, temporaries

    def _is_temporary(self, name: str) -> bool:
        stem = name[1 : -len(TEMPORARY_SUFFIX)].rpartition(".")[0]
        return name.startswith(".") and self.names.step(stem) is not None

    def _look(self, name: str, number: Number) -> Step | None:
        """The step under a name if it is committed."""
        path = os.path.join(self.path, name)
        try:
            status = os.stat(path)
            is_directory = stat.S_ISDIR(status.st_mode)
            record = os.path.join(path, COMMIT) if is_directory else path
            if is_directory:
                status = os.stat(record)
            identity = (status.st_ino, status.st_mtime_ns, status.st_size)
            seen, step = self._known.get(name, (None, None))
            if seen != identity:
                committed = stat.S_ISREG(status.st_mode) and _has_record(record, status.st_size, is_directory)
                step = Step(number, path, status.st_mtime, identity) if committed else None
                self._known[name] = (identity, step)
            return step
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise os_fault(error, "cannot look at the step", path) from error


def _has_record(path: str, size: int, is_directory: bool) -> bool:
    """Whether a file ends with a commit record, or is one. [COM-002] [COM-004]"""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        tail = os.pread(fd, commit.MAX_LENGTH + 1, max(0, size - commit.MAX_LENGTH))
    finally:
        os.close(fd)
    line = tail if is_directory else commit.find(tail)
    if line is None:
        return False
    try:
        record = commit.decode(line, FORMAT[0])
    except CkptError as error:
        return error.code == "newer-format"  # a checkpoint, though not for this reader [VER-002]
    if is_directory:
        return record.layout != "file"
    return record.layout == "file" and record.offset + record.length <= size
