"""How far a verification has come, in a small file, so that the next one goes on there."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import fault, os_fault

if TYPE_CHECKING:
    from .verification import Damage

PAUSE = 1.0  # seconds between two times that it is kept

ChunkKey = tuple[int, int]  # tensor, chunk


class Done(NamedTuple):
    """What was checked: which chunks are done with it, how many stored bytes, what is damaged, and in which chunks."""

    rows: list[ChunkKey]
    bytes: int
    damage: list[Damage]
    damaged: list[ChunkKey]


def kept(path: str) -> Any:
    """What such a file holds, None if it is no JSON; raises `FileNotFoundError` and `StorageError`."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise os_fault(error, "cannot read how far the verification has come", path) from error
    except ValueError:
        return None


def keep(path: str, document: dict[str, Any]) -> None:
    """Replace the file; raises `StorageError`."""
    try:
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            json.dump(document, file)
        os.replace(f"{path}.new", path)
    except OSError as error:
        raise os_fault(error, "cannot keep how far the verification has come", path) from error


class Mark:
    """How far a verification has come: a small file with the manifest's sha256, the number of chunks that were checked,
    in the order of the tables, and those of them that were damaged, which are checked again."""

    def __init__(self, path: str, manifest: str, checked: int, damaged: list[ChunkKey]) -> None:
        self.path, self.manifest, self.checked, self.damaged = path, manifest, checked, damaged
        self.again = list(damaged)
        self._begun: list[ChunkKey] = []  # damaged, in a chunk of which other parts are still to be checked
        self._written = time.monotonic()

    @classmethod
    def at(cls, path: str, manifest: str) -> Mark:
        """What the file at `path` says, or a new mark if there is none; raises `bad-option` for any other file."""
        try:
            found = kept(path)
        except FileNotFoundError:
            return cls(path, manifest, 0, [])
        match found:
            case {"ckptfmt_verify": 1, "manifest": str(of), "checked": int(checked), "damaged": list(damaged)}:
                if of == manifest:
                    return cls(path, manifest, checked, [(int(tensor), int(chunk)) for tensor, chunk in damaged])
                message = "resume= belongs to another checkpoint"
                raise fault("bad-option", message, path=path, found=of, expected=manifest)
        raise fault("bad-option", "resume= is no file of a verification", path=path)

    def rest(self, batches: Iterator[list[ChunkKey]]) -> Iterator[list[ChunkKey]]:
        """The batches that were not checked yet."""
        before = self.checked
        for batch in batches:
            skipped = min(before, len(batch))
            before -= skipped
            if skipped < len(batch):
                yield batch[skipped:]

    def move(self, done: Done) -> None:
        """These chunks were checked, too."""
        if done.rows is self.again:
            self.damaged = done.damaged
        else:
            self.checked += len(done.rows)
            self._begun += done.damaged
            if done.rows:
                self.damaged += dict.fromkeys(self._begun)
                self._begun = []
        if time.monotonic() - self._written > PAUSE:
            self.write()

    def write(self) -> None:
        """Keep it; raises `StorageError`."""
        self._written = time.monotonic()
        document = {
            "ckptfmt_verify": 1,
            "manifest": self.manifest,
            "checked": self.checked,
            "damaged": self.damaged,
        }
        keep(self.path, document)

    def remove(self) -> None:
        """The verification has ended."""
        with contextlib.suppress(OSError):
            os.unlink(self.path)
