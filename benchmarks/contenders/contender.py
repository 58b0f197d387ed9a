"""The one protocol behind which every library stands."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchmarks import disk
from benchmarks.states import Array

# What those omit whose saves are another's.
ONLY_LOADS = frozenset({"save", "save_durable", "small_save"})


@dataclass(frozen=True, slots=True)
class SliceCode:
    """What a user would write to read rows `start:stop` of tensor `name` in a program of its own.

    `read` leaves the rows in `part`; `data` turns them into an object with the buffer protocol.
    """

    imports: str
    read: str
    data: str = "part.tobytes()"


class Contender(ABC):
    """One library's way to save and load a flat tree of tensors.

    Imports happen inside the methods, so that a process pays only for the library it measures.
    """

    name: str
    # The library, where it has several faces that take part.
    peer: str = ""
    note: str
    requires: ClassVar[tuple[str, ...]]
    # Operations beyond save and eager load that the library has a natural face for.
    faces: frozenset[str] = frozenset()
    slice: SliceCode | None = None
    # Runs in fewer rounds.
    slow: bool = False
    # Operations that would show nothing of its own, with the reason in `note`.
    omits: frozenset[str] = frozenset()
    # Minutes a round on 20,000 tensors: takes part in the small state of a quick run alone.
    tedious: ClassVar[bool] = False

    @property
    def library(self) -> str:
        return self.peer or self.name

    def adopt(self, arrays: Mapping[str, Array]) -> Any:
        """The state as the library wants it, sharing the arrays' memory; never timed."""
        return dict(arrays)

    @abstractmethod
    def save(self, path: Path, tree: Any) -> None:
        """Save without waiting for the disk, as far as the library allows that."""

    def save_durable(self, path: Path, tree: Any) -> None:
        """Save and wait for the disk."""
        self.save(path, tree)
        disk.fsync(path)

    @abstractmethod
    def load(self, path: Path) -> Mapping[str, Any]:
        """Every byte of every tensor in private memory."""

    def map(self, path: Path) -> Mapping[str, Any]:
        """Every tensor in hand, its bytes still in the file."""
        raise NotImplementedError(path)

    def open(self, path: Path) -> Collection[str]:
        """The names of the tensors, and nothing else read."""
        raise NotImplementedError(path)

    def as_numpy(self, tensor: Any) -> Array:
        """A loaded tensor as an array, for the check."""
        return np.asarray(tensor)

    def can(self, action: str) -> bool:
        """Whether the library has this operation."""
        return action in {"save", "save_durable", "load"} or action in self.faces


def as_uint16(array: Array) -> Array:
    """The same bytes in a type that every format knows."""
    return array.view(np.uint16) if array.dtype.name == "bfloat16" else array
