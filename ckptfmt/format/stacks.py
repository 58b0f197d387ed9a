"""Stacks (SPEC.md section 7.2): small tensors of a paged checkpoint that are alike, one after another in one array.

Pure. A stack is a matter of the frame: readers of checkpoints find each tensor by its own chunk, as ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from .arrays import ArraySpec, kinds_of
from .dtypes import Array
from .pack import LARGE
from .zarr_nodes import DOCUMENT, group_document, stack_document

CHUNK = 4 << 20  # bytes of a chunk of a stack, at most [STACK-003]
ROOT = "stacks/"


class TensorStack(NamedTuple):
    """Tensors that are alike, by their numbers, and how many of them stand in one chunk."""

    spec: ArraySpec
    tensors: Array
    rows: int

    @property
    def name(self) -> str:
        """The path of its node under `stacks/`. [STACK-002]"""
        return f"{self.spec.dtype.name}-{'x'.join(map(str, self.spec.shape)) or 'scalar'}"

    @property
    def chunks(self) -> int:
        return -(-len(self.tensors) // self.rows)

    def chunk_object(self, chunk: int) -> str:
        """The path of a chunk's member."""
        return f"{ROOT}{self.name}/c/{chunk}" + "/0" * len(self.spec.grid)

    def document(self, names: Sequence[str]) -> bytes:
        """The node document, with the names of its rows."""
        return stack_document(self.spec, len(self.tensors), self.rows, [names[n] for n in self.tensors.tolist()])


def is_stacked(spec: ArraySpec) -> bool:
    """Whether a tensor of a paged checkpoint is a row of a stack. [STACK-001]"""
    return spec.is_raw and spec.chunks == 1 and spec.chunk_nbytes < LARGE


def stacks_of(specs: Sequence[ArraySpec]) -> list[TensorStack]:
    """The stacks of a checkpoint whose tensors are so, in the order of their names."""
    kinds, column = kinds_of(specs)
    numbers = np.array(column, np.int64)
    ends = np.cumsum(np.bincount(numbers, minlength=len(kinds)))
    groups = np.split(np.argsort(numbers, kind="stable"), ends[:-1]) if kinds else []
    found = []
    for spec, tensors in zip(kinds, groups, strict=True):
        if is_stacked(spec):
            chunks = -(-len(tensors) * spec.chunk_nbytes // CHUNK)
            found.append(TensorStack(spec, tensors, -(-len(tensors) // chunks)))  # [STACK-003]
    return sorted(found, key=lambda stack: stack.name)


def stack_documents(stacks: Sequence[TensorStack], names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """(member name, canonical text) of the nodes of stacks, in C-string order."""
    if stacks:
        named = [(f"{ROOT}{stack.name}/{DOCUMENT}", stack.document(names)) for stack in stacks]
        yield from sorted([*named, (f"{ROOT}{DOCUMENT}", group_document())])
