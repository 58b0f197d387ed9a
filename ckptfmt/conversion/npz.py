"""NumPy's .npz: a ZIP of .npy members, stored or compressed. Arrays of objects are refused, as they are pickles."""

from __future__ import annotations

import io
import zipfile
from math import prod
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from ..errors import fault
from ..format.dtypes import Array
from ..format.tree import Tree
from .archive import Archive
from .fit import CORE, Holds
from .probe import Probe
from .source import Advance, LazyArray, Source, Tensor, array_over, elements, mapped_file

HEADER = 1 << 16  # bytes in which the header of a member must end

HOLDS = Holds(dtypes=CORE | {"datetime64", "timedelta64"}, separator="/")


def looks_like(probe: Probe) -> bool:
    if not probe.head.startswith(b"PK\3\4"):
        return False
    members = Archive(mapped_file(probe.path)).members
    return bool(members) and all(name.endswith(".npy") for name in members)


def read(path: str) -> Source:
    archive = Archive(mapped_file(path))
    return Source({name.removesuffix(".npy"): _tensor(archive, name) for name in archive.members})


def _tensor(archive: Archive, name: str) -> Tensor:
    head = io.BytesIO(archive.head(name, HEADER))
    shape, fortran, dtype = _header(head)
    if dtype.hasobject:
        raise fault("unsafe-source", f"member {name!r} is an array of objects, which is a pickle", tensor=name)
    if dtype.kind == "V":
        raise fault(
            "unsupported-source", f"member {name!r} has the dtype {dtype}: NumPy kept the bits alone", tensor=name
        )
    size = archive.members[name].file_size
    if head.tell() + prod(shape) * dtype.itemsize != size:
        raise ValueError(f"member {name!r} has {size} bytes, which is wrong for {dtype} of shape {shape}")
    order = shape[::-1] if fortran else shape
    if archive.is_stored(name):
        array = array_over(archive.stored(name), head.tell(), dtype, order)
        return array.T if fortran else array

    def decoded(index: tuple[slice, ...]) -> Array:
        data = np.empty(size, np.uint8)
        at = 0
        for piece in archive.pieces(name):
            data[at : at + len(piece)] = np.frombuffer(piece, np.uint8)
            at += len(piece)
        array = array_over(data, head.tell(), dtype, order)
        return (array.T if fortran else array)[index]

    return LazyArray(shape, dtype, decoded, rows=shape[0] if shape else 1)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f".npy of version {version}")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    return read(file, max_header_size=HEADER)


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
