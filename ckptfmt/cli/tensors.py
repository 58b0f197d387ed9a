"""Tensors as the command line shows them: those of checkpoints, and of other formats."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from .. import Tensor
from ..conversion.source import OpenedSource
from ..conversion.source import is_tensor as is_foreign
from ..format.dtypes import dtype_of
from ..format.names import Path, path_label
from ..format.tree import Tree
from ..frameworks.target import rebuild


@dataclass(frozen=True, slots=True)
class Foreign:
    """A tensor of another format, of which nothing is read but what it is; how it is stored is not known."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    codec: str = ""
    stored_bytes: None = None
    chunks: None = None

    @property
    def name(self) -> str:
        return path_label(self.path)

    @property
    def dtype_name(self) -> str:
        row = dtype_of(self.dtype)
        return str(self.dtype) if row is None else row.name

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize


def is_tensor(value: Any) -> TypeGuard[Tensor | Foreign]:
    return isinstance(value, Tensor | Foreign)


def tree_of(source: OpenedSource) -> Tree:
    """The tree of an open source with what its tensors are; one at several places is one."""
    known: dict[int, Foreign] = {}

    def shown(path: Path, leaf: Any) -> Any:
        return known.setdefault(id(leaf), Foreign(path, leaf.shape, leaf.dtype)) if is_foreign(leaf) else leaf

    return rebuild(source.tree, shown)
