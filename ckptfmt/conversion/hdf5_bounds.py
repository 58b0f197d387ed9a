"""What an HDF5 file may ask of its reader: groups reached by many paths, links that lead out of it, chunks that are
claimed or decompress to far more than there is, and strings of which many are the same bytes of the file."""

from __future__ import annotations

import re
import zlib
from math import prod
from typing import Any

from ..errors import fault
from ..format.dtypes import Array, bytes_of
from ..format.tree import Tree
from .claims import at_once, check_at_once

VISITS, NODE = 1024, 128  # groups and datasets in any case, and bytes of the file for each further one
CHUNKS, STORED = 4096, 64  # chunks that a dataset may have in any case, and bytes of the file for each further one
LINKS = 32  # soft links on the way to an object
HEAP = re.compile(rb"GCOL\x01\0\0\0").finditer  # what begins a collection of strings, before its size
DEFLATE, FLETCHER32 = 1, 3  # filters
EXPANSION = 1032  # bytes that one of DEFLATE stands for at most


class Bounds:
    """What one file may ask for; `data` are its bytes."""

    def __init__(self, h5py: Any, data: Array) -> None:
        self.h5py, self.data, self.size = h5py, data, data.size
        self._visits = 0
        self._read = 0
        self._longest: int | None = None

    def visit(self) -> None:
        """A group is looked at, of which there can be no more than the file has bytes for; hard links can make 2^40
        paths of 40 of them."""
        self._visits += 1
        if self._visits > VISITS + self.size // NODE:
            raise fault("limit-exceeded", f"more than {self._visits:,} groups in {self.size:,} bytes")

    # ---- chunks

    def check_chunks(self, dataset: Any, where: str) -> int | None:
        """Hold a dataset's chunks against the file; gives the bytes of one, None where it is not cut into chunks."""
        self.visit()
        if not dataset.chunks:
            return None
        nbytes: int = prod(dataset.chunks) * dataset.dtype.itemsize
        check_at_once(nbytes, self.size, f"a chunk of {where!r}")
        claimed = prod(-(-n // side) for n, side in zip(dataset.shape, dataset.chunks, strict=True))
        if claimed > CHUNKS + self.size // STORED:
            message = f"{where!r} would have {claimed:,} chunks, in {self.size:,} bytes"
            raise fault("limit-exceeded", message, tensor=where)
        filters = dataset.id.get_create_plist()
        codes = [filters.get_filter(number)[0] for number in range(filters.get_nfilters())]
        if DEFLATE in codes:
            dataset.id.chunk_iter(lambda chunk: self._check_inflated(chunk, codes, nbytes, where))
        return nbytes

    def _check_inflated(self, chunk: Any, codes: list[int], nbytes: int, where: str) -> None:
        """Refuse a chunk that inflates to more than it must be, which HDF5 notices after it has."""
        last = codes.index(DEFLATE)
        if chunk.size * EXPANSION <= at_once(self.size) or chunk.filter_mask >> last & 1:
            return
        if codes[last + 1 :] not in ([], [FLETCHER32]):
            raise fault("unsupported-source", f"{where!r} has filters after gzip", tensor=where)
        end = chunk.byte_offset + chunk.size - (4 if codes[last + 1 :] and not chunk.filter_mask >> last + 1 & 1 else 0)
        inflater, data, found = zlib.decompressobj(), self.data[chunk.byte_offset : end].tobytes(), 0
        while not inflater.eof and found <= nbytes + 4:  # a checksum may be inside
            try:
                piece = inflater.decompress(data, 1 << 20)
            except zlib.error:  # which HDF5 says, too
                return
            data, found = inflater.unconsumed_tail, found + len(piece)
            if not piece and not data:
                return
        if found > nbytes + 4:
            raise fault("bad-source", f"a chunk of {where!r} inflates to more than {nbytes:,} bytes", tensor=where)

    # ---- strings

    def strings(self, dataset: Any, where: str) -> Tree:
        """The strings of a dataset as nested lists of str, or of bytes where they are not UTF-8. As many are read at
        once as there is room for, however long they are."""
        longest = self._string(dataset.dtype)
        if not dataset.shape:
            return self._taken(dataset[()], where)
        if prod(dataset.shape) > self.size:
            raise fault("limit-exceeded", f"{where!r} would have {prod(dataset.shape):,} strings", tensor=where)
        row = prod(dataset.shape[1:])
        step = max(1, at_once(self.size) // (4 * longest * max(row, 1)))
        check_at_once(longest * row if row > 1 else 0, self.size, f"a row of strings of {where!r}")
        found: list[Tree] = []
        for start in range(0, dataset.shape[0], step):
            found += self._taken(dataset[start : start + step], where)
        return found

    def _taken(self, value: Any, where: str) -> Any:
        """Strings as nested lists, whose bytes are counted."""
        if hasattr(value, "tolist"):
            value = value.tolist()
        if isinstance(value, list):
            return [self._taken(item, where) for item in value]
        self._read += len(value)
        if self._read > at_once(self.size):
            raise fault("limit-exceeded", f"more than {at_once(self.size):,} bytes of strings", tensor=where)
        if not isinstance(value, bytes):
            return str(value)
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value

    def check_attribute(self, attributes: Any, name: str) -> None:
        """Refuse an attribute whose strings may take far more memory than there is."""
        self._read += 64
        attribute = attributes.get_id(name)
        if (
            attribute.shape
            and self.h5py.check_vlen_dtype(attribute.dtype) is None
            and (self.h5py.check_string_dtype(attribute.dtype) is None)
        ):
            return
        count = prod(attribute.shape or (1,))
        check_at_once(count * self._string(attribute.dtype), self.size, f"the attribute {name!r}")

    def _string(self, dtype: Any) -> int:
        """Bytes that a string can have, and the object that it becomes."""
        info = self.h5py.check_string_dtype(dtype)
        if info is not None and info.length is not None:
            return 64 + int(info.length)
        if self._longest is None:
            self._longest = self._longest_heap()
        return 64 + self._longest

    def _longest_heap(self) -> int:
        """The largest collection of strings in the file: none can be longer."""
        found = (self.data[at.end() : at.end() + 8].tobytes() for at in HEAP(bytes_of(self.data)))
        return min(self.size, max((int.from_bytes(size, "little") for size in found), default=0))


def leads_out(h5py: Any, root: Any, group: Any, name: str) -> bool:
    """Whether a link leads into another file, also on its way, without opening anything there."""
    places, steps, left = [group], [name], LINKS
    while steps:
        step, here = steps.pop(), places[-1]
        if step in ("", "."):
            continue
        if not isinstance(here, h5py.Group):
            return False  # it leads nowhere
        link = here.get(step, getlink=True)  # of one name, whose link is not followed
        if isinstance(link, h5py.ExternalLink):
            return True
        if isinstance(link, h5py.SoftLink):
            left -= 1
            if not left:
                return True
            if link.path.startswith("/"):
                places.append(root)
            steps += reversed(link.path.split("/"))
        elif link is None:
            return False
        else:
            places.append(here[step])
    return False
