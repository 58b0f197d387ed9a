"""Records of .npy that are members of ZIP archives, stored or compressed."""

from __future__ import annotations

from math import prod

import numpy as np

from ..format.dtypes import Array
from .archive import Archive
from .checked import checked
from .claims import check_at_once
from .npy_records import HEADER, header_of
from .source import LazyArray, SourceTensor, array_over


def npy_member(archive: Archive, name: str, label: str, *, with_fields: bool = False) -> SourceTensor:
    """The array of a member, which may be of records only `with_fields`. Its `label` is told in errors."""
    size = archive.members[name].file_size
    header = header_of(archive.head(name, HEADER), f"member {name!r}", label, with_fields=with_fields)
    shape, fortran, dtype, begin = header
    if begin + prod(shape) * dtype.itemsize != size:
        raise ValueError(f"member {name!r} has {size} bytes, which is wrong for {dtype} of shape {shape}")
    order = header.order
    if archive.is_stored(name):
        octets = archive.unchecked(name)
        array = array_over(octets.data, begin, dtype, order)
        return checked(array.T if fortran else array, octets.check)

    stream, row = _MemberStream(archive, name), prod(shape[1:]) * dtype.itemsize

    def decoded(index: tuple[slice, ...]) -> Array:
        if fortran or not index:
            data = stream.read(begin, size)
            return np.ndarray(order, dtype, data).T[index] if fortran else np.ndarray(order, dtype, data)
        first, last, _ = index[0].indices(shape[0])
        part = stream.read(begin + first * row, begin + last * row)
        return np.ndarray((last - first, *shape[1:]), dtype, part)[(slice(None), *index[1:])]

    if dtype.kind in "SU":
        check_at_once(size, archive.data.size, f"member {name!r}")
    return LazyArray(shape, dtype, decoded, rows=shape[0] if fortran and shape else 1)


class _MemberStream:
    """The bytes of a compressed member, which are decoded in their order; for what lies before, from the beginning."""

    def __init__(self, archive: Archive, name: str) -> None:
        self._archive, self._name = archive, name
        self._pieces, self._at, self._rest = archive.pieces(name), 0, b""

    def read(self, low: int, high: int) -> Array:
        """Bytes [low, high). Reading up to the end checks them all."""
        if low < self._at:
            self._pieces, self._at, self._rest = self._archive.pieces(self._name), 0, b""
        found = np.empty(high - low, np.uint8)
        while self._at < high:
            if not self._rest:
                self._rest = next(self._pieces)
            skip = min(len(self._rest), max(0, low - self._at))
            take = min(len(self._rest) - skip, high - self._at - skip)
            at = self._at + skip - low
            if take:
                found[at : at + take] = np.frombuffer(self._rest, np.uint8, take, skip)
            self._at, self._rest = self._at + skip + take, self._rest[skip + take :]
        if high == self._archive.members[self._name].file_size and next(self._pieces, None) is not None:
            raise ValueError(f"member {self._name!r} has not the size that its header says")
        return found
