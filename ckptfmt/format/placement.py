"""Placement (SPEC.md section 7): which part holds which chunk, in runs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import fault
from ..tuples import NamedTuple
from .chunk_table import columns
from .dtypes import Array

_U32, _U64 = np.dtype("<u4"), np.dtype("<u8")
_COLUMNS: tuple[tuple[str, np.dtype[Any]], ...] = (
    ("tensor", _U32),
    ("chunk", _U64),
    ("count", _U64),
    ("part", _U32),
    ("step", _U32),
)


class _Runs(NamedTuple):
    first: Array
    part: Array
    step: Array
    total: int


class Placement(_Runs):
    """Runs of chunks by number (see `chunk_table`): chunk `first[r]` + i lies in part `part[r]` + i · `step[r]`, for i
    below the next run's first. All int64; `total` is the number of chunks."""

    def parts_of(self, numbers: Array) -> Array:
        """The parts that hold chunks."""
        run = np.searchsorted(self.first, numbers, side="right") - 1
        parts: Array = self.part[run] + (numbers - self.first[run]) * self.step[run]
        return parts

    def chunks_in(self, part: int) -> int:
        """How many chunks a part holds."""
        return int(self._counts[part]) if part < len(self._counts) else 0

    @cached_property
    def _counts(self) -> Array:
        """For each part that is named, how many chunks it holds; for all parts at once, as each asks. [LIM-007]"""
        counts = np.diff(self.first, append=self.total)
        step_of = np.where(counts > 1, self.step, 0)  # that of one chunk means nothing, and may be any
        last = self.part + (counts - 1) * step_of
        found = np.zeros(int(last.max(initial=-1)) + 1, np.int64)
        order = np.argsort(step_of, kind="stable")
        steps, starts = np.unique(step_of[order], return_index=True)
        for step, start, stop in zip(steps.tolist(), starts, [*starts[1:], len(order)], strict=False):
            parts, lengths = self.part[order[start:stop]], counts[order[start:stop]]
            if step == 0:
                np.add.at(found, parts, lengths)
            elif int(lengths.sum()) <= len(found):
                before = np.cumsum(lengths) - lengths
                within = np.arange(int(lengths.sum())) - np.repeat(before, lengths)
                np.add.at(found, np.repeat(parts, lengths) + within * step, 1)
            else:  # one more from a run's first part on, one less after its last, summed up over every `step`-th part
                change = np.zeros((-(-len(found) // step) + 1) * step, np.int64)
                np.add.at(change, parts, 1)
                np.add.at(change, parts + lengths * step, -1)
                found += change.reshape(-1, step).cumsum(axis=0).reshape(-1)[: len(found)]
        return found

    def encode(self, first_chunks: Sequence[int]) -> dict[str, bytes]:
        """As the manifest holds it. [CHK-008]"""
        tensors, chunks = columns(self.first, first_chunks)
        counts = np.diff(self.first, append=self.total)
        values = (tensors, chunks, counts, self.part, self.step)
        return {name: column.astype(dtype).tobytes() for (name, dtype), column in zip(_COLUMNS, values, strict=True)}


def placement_of(parts: Array, first_chunks: Sequence[int]) -> Placement:
    """The placement of chunks that lie in `parts` (one entry for each chunk). A run ends where the step changes or is
    negative, and with its tensor."""
    firsts = np.asarray(first_chunks, np.int64)
    total = len(parts)
    if not total:
        empty = np.zeros(0, np.int64)
        return Placement(empty, empty, empty, 0)
    parts = parts.astype(np.int64)
    step = np.diff(parts)
    # chunk n begins a run if it does not go on with the step before it; pairs of equal steps lie in one run
    goes_on = np.zeros(total, bool)
    goes_on[2:] = (step[1:] == step[:-1]) & (step[1:] >= 0)
    goes_on[firsts[:-1][firsts[:-1] < total]] = False
    starts = np.flatnonzero(~goes_on)
    # a run of one chunk takes the next chunk in, if that follows with a step that is not negative in the same tensor
    tensor_starts = np.zeros(total + 1, bool)
    tensor_starts[firsts] = True
    keep: list[int] = []
    taken = -1
    for start in starts.tolist():
        if start == taken:
            taken = -1
            continue
        keep.append(start)
        follower = start + 1
        taken = follower if follower < total and not tensor_starts[follower] and step[start] >= 0 else -1
    first = np.array(keep, np.int64)
    lengths = np.diff(first, append=total)
    steps = np.where(lengths > 1, step[np.minimum(first, total - 2)] if total > 1 else 0, 0)
    return Placement(first, parts[first], steps, total)


def decode_placement(document: Any, first_chunks: Sequence[int], parts: int) -> Placement:
    """Parse and check; raises `bad-manifest`. [CHK-008]"""
    match document:
        case {
            "tensor": bytes(tensor),
            "chunk": bytes(chunk),
            "count": bytes(count),
            "part": bytes(part),
            "step": bytes(step),
        }:
            pass
        case _:
            raise _bad("`placement` lacks a column, or has one of another type [MAN-002]")
    raw = (tensor, chunk, count, part, step)
    if any(len(column) * 4 != len(tensor) * dtype.itemsize for column, (_, dtype) in zip(raw, _COLUMNS, strict=True)):
        raise _bad("the columns of `placement` differ in length [CHK-008]")
    values = [np.frombuffer(column, dtype).astype(np.uint64) for column, (_, dtype) in zip(raw, _COLUMNS, strict=True)]
    tensors, chunks, counts, first_parts, steps = values
    firsts = np.asarray(first_chunks, np.int64)
    if (tensors >= len(firsts) - 1).any():
        raise _bad("`placement` names a tensor that is not there [CHK-008]")
    chunks_there = np.diff(firsts).astype(np.uint64)[tensors]
    if ((counts == 0) | (counts > chunks_there)).any() or (chunks > chunks_there - counts).any():
        raise _bad("`placement` has an empty run, or names a chunk that is not there [CHK-008]")
    first = firsts[tensors] + chunks.astype(np.int64)
    ends = np.concatenate([[0], first + counts.astype(np.int64)])
    if not np.array_equal(first, ends[:-1]) or int(ends[-1]) != int(firsts[-1]):
        raise _bad("`placement` is not sorted, or does not cover every chunk once [CHK-008]")
    # a run that steps is no longer than there are parts, which keeps the product below 2^64
    if ((steps > 0) & (counts > parts)).any() or (first_parts + (counts - np.uint64(1)) * steps >= parts).any():
        raise _bad("`placement` names a part that is not there [CHK-008]")
    return Placement(first, first_parts.astype(np.int64), steps.astype(np.int64), int(firsts[-1]))


def _bad(message: str) -> Exception:
    return fault("bad-manifest", message)
