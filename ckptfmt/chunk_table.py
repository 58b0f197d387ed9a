"""Chunk tables (SPEC.md section 7): where the bytes of each chunk lie and what their digests are, in columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from .arrays import ArraySpec
from .digests import Digest
from .dtypes import Array
from .errors import fault

_U64 = np.dtype("<u8")


class Extent(NamedTuple):
    """Where one chunk lies, and the digests of its blocks one after another."""

    offset: int
    length: int
    digests: bytes


@dataclass(frozen=True)
class ChunkTable:
    """A table of every chunk of every tensor, in order [CHK-002]. `offset` is None where every chunk is an object of
    its own.

    `offset`, `length`: uint64 of shape (rows,). `digest`: the blocks' digests, `digest_size` bytes each.
    `first_rows[t]` is the row of tensor t's first chunk; the last entry is the number of rows.
    """

    offset: Array | None
    length: Array
    digest: bytes
    digest_size: int
    block: int
    first_rows: tuple[int, ...]

    @cached_property
    def first_blocks(self) -> list[int]:
        """For each row the number of blocks before it; one more entry, the total, at the end."""
        return [0, *np.cumsum(-(-self.length.astype(np.int64) // self.block)).tolist()]

    @cached_property
    def offsets(self) -> list[int]:
        offsets: list[int] = [0] * len(self.length) if self.offset is None else self.offset.tolist()
        return offsets

    @cached_property
    def lengths(self) -> list[int]:
        lengths: list[int] = self.length.tolist()
        return lengths

    @property
    def blocks(self) -> int:
        return self.first_blocks[-1]

    def extent(self, tensor: int, chunk: int) -> Extent:
        """Where chunk number `chunk` of a tensor lies."""
        row = self.first_rows[tensor] + chunk
        size = self.digest_size
        digests = self.digest[self.first_blocks[row] * size : self.first_blocks[row + 1] * size]
        return Extent(self.offsets[row], self.lengths[row], digests)

    def tensor_of(self, row: int) -> tuple[int, int]:
        """The tensor and chunk number of a row."""
        tensor = int(np.searchsorted(np.asarray(self.first_rows), row, side="right")) - 1
        return tensor, row - self.first_rows[tensor]

    def encode(self) -> dict[str, Any]:
        """The table as the manifest holds it."""
        offset = None if self.offset is None else self.offset.astype(_U64).tobytes()
        return {
            "tensor": None,
            "chunk": None,
            "offset": offset,
            "length": self.length.astype(_U64).tobytes(),
            "digest": self.digest,
        }

    def check_extents(self, end: int) -> None:
        """Refuse extents that do not lie in [0, `end`) or overlap. [CHK-005]"""
        if self.offset is None or not len(self.length):
            return
        beyond = (self.offset > end) | (self.length > np.uint64(end) - np.minimum(self.offset, np.uint64(end)))
        if beyond.any():
            row = int(beyond.argmax())
            raise fault(
                "bad-extent", f"chunk row {row} reaches beyond byte {end} [CHK-005]", offset=int(self.offset[row])
            )
        order = np.argsort(self.offset, kind="stable")
        starts, ends = self.offset[order][1:], (self.offset + self.length)[order][:-1]
        if (starts < ends).any():
            raise fault("bad-extent", f"two chunks overlap at byte {int(starts[(starts < ends).argmax()])} [CHK-005]")


def first_rows(specs: Sequence[ArraySpec]) -> tuple[int, ...]:
    """The row of each tensor's first chunk, and the number of rows at the end."""
    return tuple(accumulate((spec.chunks for spec in specs), initial=0))


def decode_table(document: Any, specs: Sequence[ArraySpec], digest: Digest, block: int) -> ChunkTable:
    """Parse and check a table against the tensors that it serves; raises `bad-manifest` or `bad-extent`."""
    match document:
        case {
            "tensor": None,
            "chunk": None,
            "offset": (bytes() | None) as offsets,
            "length": bytes(lengths),
            "digest": bytes(digests),
        }:
            pass
        case _:
            raise fault("bad-manifest", "a chunk table lacks a column, or has one of another type [CHK-002]")
    firsts = first_rows(specs)
    for column in (offsets, lengths):
        if column is not None and len(column) != 8 * firsts[-1]:
            raise fault(
                "bad-manifest",
                "a chunk table has another number of rows than the tensors have chunks [CHK-001]",
                found=len(column) / 8,
                expected=firsts[-1],
            )
    length = np.frombuffer(lengths, _U64)
    expected = np.repeat(
        np.array([s.chunk_nbytes if s.is_raw and s.chunks else 0 for s in specs], _U64), [s.chunks for s in specs]
    )
    wrong = ((length != expected) & (expected != 0)) | (length == 0) | (length >= np.uint64(1 << 62))
    if wrong.any():
        row = int(wrong.argmax())
        raise fault(
            "bad-extent",
            f"chunk row {row} has the wrong length [CHK-005]",
            found=int(length[row]),
            expected=int(expected[row]),
        )
    offset = None if offsets is None else np.frombuffer(offsets, _U64)
    table = ChunkTable(offset, length, digests, digest.size, block, firsts)
    if len(digests) != table.blocks * digest.size:
        raise fault(
            "bad-manifest",
            "a chunk table has another number of digests than blocks [CHK-001]",
            found=len(digests) / digest.size,
            expected=table.blocks,
        )
    return table
