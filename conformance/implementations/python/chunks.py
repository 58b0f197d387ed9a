"""Where the chunks lie: chunk tables, parts and their placement (section 7)."""

import hashlib
import itertools
import math
import struct
from bisect import bisect_right
from collections.abc import Iterator
from typing import Any, NamedTuple

from faults import need
from manifest import DIGEST_SIZE, REFERENCE, TABLE, Tensor, decode, fits, is_path
from storage import Storage


class Extent(NamedTuple):
    """Where the stored bytes of a chunk lie; `object` is None in layout `loose`, where the name says it."""

    object: str | None
    offset: int
    length: int
    digests: bytes  # of its blocks, one after another


Number = tuple[int, int]  # a chunk: index of its tensor, and its number in C order of the grid


class Parts:
    """All chunks of a checkpoint. Part manifests are loaded when one of their chunks is wanted [CHK-006]."""

    def __init__(self, storage: Storage, manifest: dict[str, Any], tensors: list[Tensor]) -> None:
        self.storage, self.tensors = storage, tensors
        self.parts, self.layout = manifest["parts"], manifest["layout"]
        self.block, self.digest_size = manifest["block"], DIGEST_SIZE[manifest["digest"]]
        self.counts = [math.prod(tensor.chunk_counts) for tensor in tensors]
        self._loaded: dict[int, dict[Number, Extent]] = {}
        need(len(self.parts) == 1 if self.layout != "packed" else self.parts, "CHK-002", f"{len(self.parts)} parts")
        for part in self.parts:
            self._check(part)
        objects = {part["object"] for part in self.parts}
        need(len(objects) == len(self.parts), "LAY-004", "two parts have one object")
        self.runs = self._placement(manifest["placement"]) if self.layout == "packed" else []
        for number, part in enumerate(self.parts):
            if "path" not in part["chunks"]:
                self.load(number)

    def find(self, tensor: int, chunk: int) -> Extent:
        """The extent of a chunk; loads its part."""
        part = 0
        if self.layout == "packed":
            first = bisect_right(self.runs, (tensor, chunk, math.inf)) - 1
            _, start, _, base, step = self.runs[first]
            part = base + (chunk - start) * step
        return self.load(part)[tensor, chunk]

    def load(self, number: int) -> dict[Number, Extent]:
        """The chunk table of a part, checked."""
        if number not in self._loaded:
            part = self.parts[number]
            table = part["chunks"]
            if "path" in table:
                data = self.storage.read(table["path"], 0, table["length"] + 1)
                right = len(data) == table["length"] and hashlib.sha256(data).digest() == table["sha256"]
                need(right, "CHK-006", f"{table['path']} has another length or sha256", "manifest-digest")
                table = decode(data)
                need(fits(table, TABLE), "MAN-002", f"{table} is no chunk table")
            self._loaded[number] = self._extents(table, part["object"], part["size"], number)
        return self._loaded[number]

    def is_sound(self, number: int) -> bool:
        """Whether a part could be loaded."""
        return number in self._loaded

    def _check(self, part: dict[str, Any]) -> None:
        wanted = {"file": ("", None, None), "loose": (None, None, None)}
        if self.layout == "packed":
            right = isinstance(part["object"], str) and is_path(part["object"]) and part["size"] is not None
            right = right and part["frame"] is not None and len(part["frame"]) == self.digest_size
        else:
            right = (part["object"], part["size"], part["frame"]) == wanted[self.layout]
        need(right, "MAN-002", f"object, size or frame of a part do not fit layout {self.layout!r}")
        chunks = part["chunks"]
        if "path" in chunks:
            right = self.layout == "packed" and fits(chunks, REFERENCE)
            right = right and is_path(chunks["path"]) and len(chunks["sha256"]) == 32
            need(right, "CHK-007", "the reference to a part manifest does not fit")
            need(chunks["length"] <= 1 << 30, "LIM-001", "a part manifest above 1 GiB", "limit-exceeded")
        else:
            need(fits(chunks, TABLE), "MAN-002", "a chunk table lacks a column, or has one of another type")

    def _extents(self, table: dict[str, Any], name: str | None, size: int | None, part: int) -> dict[Number, Extent]:
        numbers = self._numbers(table, part)
        lengths = _column(table["length"], 8)
        need(len(lengths) == len(numbers), "CHK-001", f"{len(lengths)} lengths for {len(numbers)} chunks")
        need((table["offset"] is None) == (name is None), "MAN-002", "`offset` is nil exactly where `object` is")
        offsets = [0] * len(lengths) if name is None else _column(table["offset"], 8)
        need(len(offsets) == len(lengths), "CHK-001", f"{len(offsets)} offsets for {len(lengths)} chunks")
        limit = self.storage.record.offset if name == "" else size
        ends = [0, *itertools.accumulate(-(-length // self.block) * self.digest_size for length in lengths)]
        need(ends[-1] == len(table["digest"]), "CHK-001", "the digests are not one for each block")
        extents = {}
        for row, (number, offset, length) in enumerate(zip(numbers, offsets, lengths, strict=True)):
            tensor = self.tensors[number[0]]
            inside = length > 0 and (limit is None or offset + length <= limit)
            need(inside, "CHK-005", f"a chunk of {tensor.name!r} lies outside its object", "bad-extent")
            raw = len(tensor.chain) == 1
            right = not raw or length == tensor.chunk_size
            need(right, "ZARR-007", f"a raw chunk of {tensor.name!r} has {length} bytes", "bad-extent")
            extents[number] = Extent(name, offset, length, table["digest"][ends[row] : ends[row + 1]])
        if name is not None:
            sorted_ = sorted(extents.values(), key=lambda extent: extent.offset)
            apart = all(one.offset + one.length <= two.offset for one, two in itertools.pairwise(sorted_))
            need(apart, "CHK-005", "two chunks overlap", "bad-extent")
        return extents

    def _numbers(self, table: dict[str, Any], part: int) -> list[Number]:
        """Which chunks the rows are."""
        tensor, chunk = table["tensor"], table["chunk"]
        need((tensor is None) == (chunk is None), "MAN-002", "`tensor` and `chunk` are both nil or both bin")
        need(self.layout == "packed" or tensor is None, "CHK-002", "the one table lists every chunk")
        rows = len(table["length"]) // 8
        if tensor is None:
            need(rows == sum(self.counts), "CHK-002", f"{rows} rows for {sum(self.counts)} chunks")
            numbers = [(index, chunk) for index, count in enumerate(self.counts) for chunk in range(count)]
        else:
            tensors, chunks = _column(tensor, 4), _column(chunk, 8)
            need(len(tensors) == len(chunks) == rows, "CHK-001", "the columns differ in length")
            numbers = list(zip(tensors, chunks, strict=True))
            need(all(a < b for a, b in itertools.pairwise(numbers)), "CHK-003", "rows are not sorted")
            inside = all(index < len(self.counts) and number < self.counts[index] for index, number in numbers)
            need(inside, "CHK-004", "a row names a chunk that does not exist")
        if self.layout == "packed":
            placed = list(itertools.islice(self._placed(part), len(numbers) + 1))
            need(numbers == placed, "CHK-008", f"part {part} has other chunks than `placement` says")
        return numbers

    def _placement(self, columns: dict[str, bytes]) -> list[tuple[int, int, int, int, int]]:
        """The rows of `placement`: tensor, chunk, count, part, step."""
        widths = {"tensor": 4, "chunk": 8, "count": 8, "part": 4, "step": 4}
        values = [_column(columns[key], width) for key, width in widths.items()]
        need(len({len(column) for column in values}) == 1, "CHK-008", "the columns of `placement` differ in length")
        runs = list(zip(*values, strict=True))
        expected = ((index, count) for index, count in enumerate(self.counts) if count)
        at, left = 0, 0
        index = -1
        for tensor, chunk, count, part, step in runs:
            if left == 0:
                index, left = next(expected, (-1, 0))
                at = 0
            right = (tensor, chunk) == (index, at) and 1 <= count <= left
            need(right, "CHK-008", "`placement` does not cover every chunk once and in order")
            need(part + (count - 1) * step < len(self.parts), "CHK-008", "`placement` names a part that is not there")
            at, left = at + count, left - count
        need(left == 0 and next(expected, None) is None, "CHK-008", "`placement` does not cover every chunk")
        return runs

    def _placed(self, part: int) -> Iterator[Number]:
        """The chunks that `placement` gives to a part."""
        for tensor, chunk, count, base, step in self.runs:
            if step == 0 and base == part:
                yield from ((tensor, number) for number in range(chunk, chunk + count))
            elif step and part >= base and (part - base) % step == 0 and (part - base) // step < count:
                yield tensor, chunk + (part - base) // step


def _column(data: bytes, width: int) -> tuple[int, ...]:
    """A column of u32 or u64."""
    need(len(data) % width == 0, "CHK-001", f"a column of {len(data)} bytes")
    return struct.unpack(f"<{len(data) // width}{'I' if width == 4 else 'Q'}", data)
