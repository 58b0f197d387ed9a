"""Weights as a folder has them, in one file or in several of at most a given size, as Hugging Face's libraries write
them; and how they take the place of others there.

A folder that is new appears whole. In one that has other files, which stay, whoever reads finds the old weights or the
new ones, whenever the writer stops: what readers look for first changes last, and old files are removed after it.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from ..errors import CkptError, fault
from ..storage import COMMIT
from ..storage import disk as disks
from ..storage.attempt import LocalAttempt
from .entries import read_json
from .shards import distinct

SIZE = "5GB"  # most bytes of a file, unless said otherwise
INDEX = ".index.json"
STEM = "model"  # of the files of a folder
BEFORE = ".before-"  # what the name of a file begins with that an index needs until the new one is there
_UNITS = {f"{letter}{end}": base**n for end, base in (("B", 1000), ("IB", 1024)) for n, letter in enumerate("KMGT", 1)}
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?)\s*([KMGT]I?B)?\s*", re.IGNORECASE).fullmatch


def bytes_of(size: int | str) -> int:
    """A size as an int of bytes, or as text: "5GB" (of 10^9), "512MiB" (of 2^20), "1000". Raises `bad-option`."""
    if type(size) is int and size > 0:
        return size
    found = _SIZE(size) if isinstance(size, str) else None
    number = int(float(found[1]) * _UNITS.get((found[2] or "").upper(), 1)) if found is not None else 0
    if number <= 0:
        expected = "bytes, or text such as '5GB' or '512MiB'"
        raise fault("bad-option", "max_shard_size= is no size", found=repr(size)[:100], expected=expected)
    return number


@dataclass(frozen=True, slots=True)
class Shards:
    """The files of weights in a `folder`: the `stem` and `suffix` of their names, the most bytes of tensors in one,
    and whether there is an index even if one file is enough."""

    folder: str
    stem: str
    suffix: str
    limit: int
    has_index: bool = False

    @classmethod
    def at(cls, path: str, suffix: str, size: int | str | None) -> Shards | None:
        """What a target means: an index, a folder, or the name of a file that may become several, which it does only if
        a `size` is given. None where it is the path of one file."""
        limit = bytes_of(SIZE if size is None else size)
        folder, name = os.path.split(path)
        if name.endswith(f"{suffix}{INDEX}"):
            return cls(folder or ".", name.removesuffix(f"{suffix}{INDEX}") or STEM, suffix, limit, True)
        if not name or os.path.isdir(path):
            return cls(path, STEM, suffix, limit)
        if size is None:
            return None
        if name.endswith(suffix):
            return cls(folder or ".", name.removesuffix(suffix) or STEM, suffix, limit)
        return cls(path, STEM, suffix, limit)

    @property
    def whole(self) -> str:
        """The name of the file, where one is enough."""
        return f"{self.stem}{self.suffix}"

    @property
    def index(self) -> str:
        return f"{self.whole}{INDEX}"

    def is_mine(self, name: str) -> bool:
        """Whether a name is that of such a file, or of the index."""
        parts = re.escape(self.stem) + r"-[0-9]{5,}-of-[0-9]{5,}" + re.escape(self.suffix)
        is_part = re.fullmatch(f"({re.escape(BEFORE)})?{parts}", name) is not None
        return is_part or name in (self.whole, self.index)

    def divided(self, sizes: Mapping[str, int]) -> dict[str, list[str]]:
        """The names of tensors by the file that they go into, as `huggingface_hub` divides them: in their order, and a
        tensor that is too large for any file gets one of its own."""
        parts: list[list[str]] = []
        current: list[str] = []
        room = self.limit
        for name, size in sizes.items():
            if size > self.limit:
                parts.append([name])
                continue
            if size > room:
                parts.append(current)
                current, room = [], self.limit
            current.append(name)
            room -= size
        if current or not parts:
            parts.append(current)
        if len(parts) == 1 and not self.has_index:
            return {self.whole: parts[0]}
        names = (f"{self.stem}-{number:05}-of-{len(parts):05}{self.suffix}" for number in range(1, len(parts) + 1))
        return dict(zip(names, parts, strict=True))


class Staging:
    """A folder in which the files of `shards` are made."""

    def __init__(self, shards: Shards, attempt: LocalAttempt) -> None:
        self.shards, self._attempt = shards, attempt
        self.names: list[str] = []

    @property
    def folder(self) -> str:
        return self._attempt.temporary

    @contextmanager
    def file(self, name: str) -> Iterator[str]:
        """The path of a new empty file, which is complete at the end."""
        file = self._attempt.create(name)
        path = os.path.join(self.folder, name)
        yield path
        file.finish(os.path.getsize(path))
        self.names.append(name)


@contextmanager
def staged(shards: Shards, path: str, overwrite: bool, durable: bool) -> Iterator[Staging]:
    """Where the files are made that are at their place at the end; messages name the `path` that the caller gave.
    Raises `exists`, `not-replaceable` and what saving raises."""
    into = _is_there(shards, path, overwrite)
    place = os.path.join(shards.folder, shards.index) if into else os.path.normpath(shards.folder)
    attempt = LocalAttempt(place, directory=True, overwrite=overwrite or into, durable=durable)
    attempt.path = path
    staging = Staging(shards, attempt)
    try:
        yield staging
        if into:
            attempt.flush()
            _Replacement(staging, overwrite, durable, path).receive()
            attempt.abort()  # of which nothing is left but an empty folder
        else:
            attempt.publish()
    except BaseException as error:
        told = attempt.fault(error, "cannot write the target") if isinstance(error, OSError | CkptError) else error
        attempt.abort()
        if told is error:
            raise
        raise told from error


def _is_there(shards: Shards, path: str, overwrite: bool) -> bool:
    """Whether the folder is there, whose other files stay; raises `exists` where weights of that name are in it."""
    if not os.path.isdir(shards.folder):
        return False
    names = os.listdir(shards.folder)
    if COMMIT in names:
        raise fault("not-replaceable", "this folder is a checkpoint of its own", path=path)
    odd = list(filter(shards.is_mine, names))
    if odd and not overwrite:
        raise fault("exists", f"there are weights in this folder already: {min(odd)}", path=path)
    return True


class _Replacement:
    """A folder that is there, into which the files of a staging are moved."""

    def __init__(self, staging: Staging, overwrite: bool, durable: bool, path: str) -> None:
        self.staging, self.shards, self.path = staging, staging.shards, path
        self.overwrite, self.durable = overwrite, durable
        self.disk = disks.current()

    def receive(self) -> None:
        """The parts come first, then what names them, and the old files go."""
        *parts, last = self.staging.names
        if not self.overwrite:
            self._add([*parts, last])
            return
        if self.shards.index in os.listdir(self.shards.folder):
            self._set_aside({*parts})
        for name in parts:
            self._move(name, name)
        self._flush()
        self._move(last, last)
        self._flush()
        old = filter(self.shards.is_mine, os.listdir(self.shards.folder))
        for name in sorted(set(old) - {*parts, last}):
            self.disk.unlink(self._at(name))
        self._flush()

    def _add(self, names: list[str]) -> None:
        """Move the files to where none are; raises `exists` where another writer was first, and leaves its files."""
        moved: list[str] = []
        try:
            for name in names:
                self._flush() if name == names[-1] else None
                self.disk.rename_exclusive(os.path.join(self.staging.folder, name), self._at(name))
                moved.append(name)
        except OSError as error:
            for name in moved:
                self.disk.unlink(self._at(name))
            if error.errno == errno.EEXIST:
                message = f"another writer put {name} into this folder first"
                raise fault("exists", message, path=self.path) from error
            raise
        self._flush()

    def _set_aside(self, names: set[str]) -> None:
        """Give files of the old index whose names are needed other ones, and have it call them by these."""
        try:
            document = read_json(self._at(self.shards.index), distinct)
            weight_map = document["weight_map"]
            used = names.intersection(weight_map.values())
        except (AttributeError, CkptError, KeyError, TypeError, ValueError):
            return  # an index that nobody can read
        if not used:
            return
        for name in used:
            if os.path.lexists(self._at(BEFORE + name)):  # of an attempt that was stopped
                self.disk.unlink(self._at(BEFORE + name))
            if os.path.lexists(self._at(name)):
                self.disk.link(self._at(name), self._at(BEFORE + name))
        self._flush()
        aside = {tensor: BEFORE + file if file in used else file for tensor, file in weight_map.items()}
        with self.staging.file(BEFORE) as path, open(path, "w", encoding="utf-8") as index:
            json.dump({**document, "weight_map": aside}, index)
        self._move(BEFORE, self.shards.index)
        self._flush()

    def _move(self, name: str, target: str) -> None:
        self.disk.replace(os.path.join(self.staging.folder, name), self._at(target))

    def _at(self, name: str) -> str:
        return os.path.join(self.shards.folder, name)

    def _flush(self) -> None:
        if self.durable:
            self.disk.flush_directory(self.shards.folder)
