"""Pages (SPEC.md section 7.1): runs of bytes to which a paged manifest refers, read when what stands in them is asked
for. Pure: how bytes are read is handed in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from threading import RLock
from typing import Any

import numpy as np

from ..errors import DAMAGED, CkptError, fault
from .digests import sha256
from .documents import bad
from .limits import DEFAULT, Budget

TOGETHER = 16 << 20  # bytes of pages that are read at once
_U64 = np.dtype("<u8")

OBJECT = "pages.bin"  # that of the pages in a directory, and their member in a file [PAGE-012]

ReadBytes = Callable[[str, int, int], bytes]  # the bytes of an object ("": the file) at an offset, so many


class Pages:
    """The pages of one checkpoint, one after another in an `object` from `offset` on. `memory`: bytes that the values
    of all of them may take together, `budget` what is left of it for those that are kept [LIM-007]; where they are in
    an object of their own, each that was read adds to both. `largest`: the most bytes of one page [LIM-011]."""

    def __init__(
        self,
        offset: int,
        lengths: list[int],
        sha256: bytes,
        read: ReadBytes,
        memory: int | None = None,
        largest: int = DEFAULT.manifest,
        object: str = "",
    ) -> None:
        self.object, self.offset, self.lengths = object, offset, lengths
        self._largest = largest
        self._sha256, self._read = sha256, read
        self._starts = list(accumulate(lengths, initial=offset))
        self.budget = Budget(DEFAULT.values(self.nbytes) if memory is None else memory)
        self._uncounted = set(range(len(lengths))) if object and memory is not None else set()  # not read yet
        self._counting = RLock()

    @property
    def memory(self) -> int:
        return self.budget.limit

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def end(self) -> int:
        return self._starts[-1]

    @property
    def nbytes(self) -> int:
        return self.end - self.offset

    def raw(self, number: int) -> bytes:
        """The bytes of a page; raises `manifest-digest`. [PAGE-003]"""
        return next(self.some(range(number, number + 1)))

    def some(self, numbers: range) -> Iterator[bytes]:
        """The bytes of consecutive pages, many read at once."""
        at = numbers.start
        while at < numbers.stop:
            stop = at + 1
            if self.lengths[at] > self._largest:
                message = f"page {at} of the manifest is too large [LIM-011]"
                raise fault("limit-exceeded", message, found=self.lengths[at], expected=f"at most {self._largest}")
            while stop < numbers.stop and self._starts[stop + 1] - self._starts[at] <= TOGETHER:
                stop += 1
            start = self._starts[at]
            together = memoryview(self._stored(start, self._starts[stop] - start))
            for number in range(at, stop):
                yield self._checked(number, together[self._starts[number] - start : self._starts[number + 1] - start])
            at = stop

    def _stored(self, start: int, length: int) -> bytes:
        """Bytes of the object, which what goes wrong names."""
        try:
            return self._read(self.object, start, length)
        except CkptError as error:
            error.object = self.object if error.object is None else error.object
            raise

    def damaged(self, numbers: range) -> dict[int, CkptError]:
        """What is wrong with each of these pages that does not match its sha256. [PAGE-003]"""
        found: dict[int, CkptError] = {}
        for number in numbers:
            try:
                self.raw(number)
            except DAMAGED as error:
                found[number] = error
        return found

    def _checked(self, number: int, raw: memoryview) -> bytes:
        if sha256(raw) != self._sha256[32 * number : 32 * number + 32]:
            message = f"page {number} of the manifest does not match its sha256 [PAGE-003]"
            raise fault("manifest-digest", message, offset=self._starts[number], object=self.object)
        with self._counting:
            if number in self._uncounted:
                self._uncounted.remove(number)
                self.budget.stored(len(raw))
        return bytes(raw)


def decode_pages(document: Any, layout: str, read: ReadBytes, memory: int | None, largest: int) -> Pages:
    """Parse and check the map of pages. [PAGE-002]"""
    match document:
        case {"offset": int(offset), "length": bytes(lengths), "sha256": bytes(sha256)} if type(offset) is int:
            pass
        case _:
            raise bad("`pages` lacks a key, or has one of another type [PAGE-002]")
    if len(lengths) % 8 or len(sha256) != len(lengths) * 4:
        raise bad("`pages` has columns that differ in length [PAGE-002]")
    sizes: list[int] = np.frombuffer(lengths, _U64).tolist()
    if 0 in sizes or offset < 0 or offset + sum(sizes) >= 1 << 63:
        raise fault("bad-extent", "a page is empty, or lies outside the file [PAGE-002]", offset=offset)
    if layout == "file":
        return Pages(offset, sizes, sha256, read, memory, largest)
    if offset:
        raise fault("bad-extent", f"the first page does not begin {OBJECT} [PAGE-002]", offset=offset)
    return Pages(offset, sizes, sha256, read, memory, largest, OBJECT)


def encode_pages(offset: int, pages: Iterable[bytes]) -> dict[str, Any]:
    """The map of pages that lie from `offset` on."""
    listed = list(pages)
    return {
        "offset": offset,
        "length": np.fromiter(map(len, listed), _U64, len(listed)).tobytes(),
        "sha256": b"".join([sha256(page) for page in listed]),
    }
