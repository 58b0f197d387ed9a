"""NumPy's .npz: a ZIP of .npy members, stored or compressed. Arrays of objects are refused, as they are pickles."""

from __future__ import annotations

import zipfile
from collections.abc import Collection
from math import prod
from typing import Any

import numpy as np
from numpy.lib import format as npy

from ...errors import fault
from ...format.dtypes import Array
from ...format.tree import Tree
from ..archive import Archive
from ..claims import check_at_once
from ..fit import CORE, Holds
from ..npy_records import HEADER, header_of
from ..probe import Probe
from ..source import Advance, LazyArray, OpenedSource, SourceTensor, array_over, elements, mapped_file

SUFFIX = ".npy"  # of members, which NumPy leaves out of the names
LONGEST = (1 << 16) - 1  # bytes of a member's name


def check_name(name: str, beside: Collection[str]) -> None:
    """Refuse names that ZIP or NumPy cannot give back; raises `unsupported-key` and `name-collision`."""
    if "\0" in name or len(f"{name}{SUFFIX}".encode()) > LONGEST:
        raise fault("unsupported-key", f"a ZIP archive has no members with the name {name[:80]!r}")
    if f"{name}{SUFFIX}" in beside:
        raise fault("name-collision", f"NumPy takes {name + SUFFIX!r} for {name!r}, which stands beside it")


HOLDS = Holds(dtypes=CORE | {"datetime64", "timedelta64"}, separator="/", check_name=check_name)


def looks_like(probe: Probe) -> bool:
    if probe.head.startswith(b"PK\5\6"):  # an archive without members
        return probe.path.endswith(".npz")
    if not probe.head.startswith(b"PK\3\4"):
        return False
    members = Archive(mapped_file(probe.path)).members
    return bool(members) and all(name.endswith(".npy") for name in members)


def read(path: str) -> OpenedSource:
    archive = Archive(mapped_file(path))
    tree: dict[str, Any] = {}
    for member in archive.members:
        name = member.removesuffix(SUFFIX)
        if name in tree:
            raise fault("bad-source", f"two members are the array {name!r}", tensor=name)
        tensor = _tensor(archive, member)
        tree[name] = tensor[()].tolist() if tensor.dtype.kind in "SU" else tensor
    return OpenedSource(tree)


def _tensor(archive: Archive, name: str) -> SourceTensor:
    label, size = name.removesuffix(SUFFIX), archive.members[name].file_size
    header = header_of(archive.head(name, HEADER), f"member {name!r}", label)
    shape, fortran, dtype, begin = header
    if begin + prod(shape) * dtype.itemsize != size:
        raise ValueError(f"member {name!r} has {size} bytes, which is wrong for {dtype} of shape {shape}")
    order = header.order
    if archive.is_stored(name):
        array = array_over(archive.stored(name), begin, dtype, order)
        return array.T if fortran else array

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


def write(path: str, tree: Tree, metadata: Tree, advance: Advance) -> None:
    """Write a flat dict of tensors, stored as `np.savez` does."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, tensor in tree.items():
            dtype = tensor.dtype.newbyteorder("<")
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                descr = npy.dtype_to_descr(dtype)
                npy.write_array_header_2_0(file, {"descr": descr, "fortran_order": False, "shape": tensor.shape})
                for part in elements(tensor):
                    file.write(part)
                    advance(len(part))
