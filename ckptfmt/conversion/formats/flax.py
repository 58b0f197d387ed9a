"""flax's msgpack (`flax.serialization.to_bytes`, and `save_checkpoint` without Orbax). flax itself is not needed.

    Ext 1 := msgpack (shape, dtype name, C-order bytes): an array        Ext 3 := the same: a NumPy scalar
    Ext 2 := msgpack (real, imaginary): a complex number
    an array above 2^30 bytes := {"__msgpack_chunked_array__": true, "shape": {"0": n, …}, "chunks": {"0": array, …}}

Also that of msgpack-numpy, as thinc and spaCy write it, whose keys are bytes:

    an array := {"nd": true, "type": dtype, "kind": "", "shape": [n, …], "data": C-order bytes}
    a scalar := {"nd": false, "type": dtype, "data": bytes}      a complex number := {"complex": true, "data": text}

Read by a small reader of msgpack that leaves the bytes of arrays where they are in the mapped file.
"""

from __future__ import annotations

import re
import struct
from itertools import accumulate
from math import prod
from typing import IO, Any

import msgpack
import numpy as np

from ...errors import fault
from ...format.dtypes import DTYPES, Array, dtype_of
from ...format.limits import VALUES
from ...format.tree import MAX_DEPTH, Tree
from ...layouts.foreign import is_map
from ..claims import factor, shape_of, shown
from ..fit import Holds, dtype_name
from ..probe import Probe
from ..source import (
    Advance,
    LazyArray,
    LeadingSlices,
    OpenedSource,
    SourceTensor,
    array_over,
    cut_off,
    elements,
    is_tensor,
    little_endian,
    mapped_file,
    nbytes,
)

ARRAY, COMPLEX, SCALAR = 1, 2, 3
CHUNKED = "__msgpack_chunked_array__"
CHUNK = 1 << 30  # bytes
EMPTY = b"\x80"  # a map
ND, DATA, COMPLEX_NUMBER = b"nd", b"data", b"complex"  # keys of msgpack-numpy
OF_NUMPY = {ND, DATA, COMPLEX_NUMBER, b"type", b"kind", b"shape"}


def _fits(value: Any) -> bool:
    """Whether msgpack has an int, and the table of dtypes a NumPy scalar."""
    if isinstance(value, np.generic):
        return dtype_of(value.dtype) is not None
    return type(value) is not int or -(1 << 63) <= value < 1 << 64


HOLDS = Holds(
    dtypes=frozenset(DTYPES),
    containers=(dict,),
    reserved=frozenset({CHUNKED}),
    values=(type(None), bool, int, float, complex, str, bytes, np.generic),
    fits=_fits,
)


def looks_like(probe: Probe) -> bool:
    """A map whose first key is a string, or an empty one, which is all of its file."""
    return probe.head == EMPTY or (bool(probe.head) and is_map(probe.head))


def read(path: str) -> OpenedSource:
    reader = _FlaxReader(mapped_file(path))
    tree = reader.value(0)
    if reader.at != reader.data.size:
        raise ValueError(f"there are bytes after the end at {reader.at}")
    return OpenedSource(tree)


# first byte -> (kind, bytes of the length); those not here are single values
_SIZED = {0xC4: ("bin", 1), 0xC5: ("bin", 2), 0xC6: ("bin", 4), 0xC7: ("ext", 1), 0xC8: ("ext", 2), 0xC9: ("ext", 4)}
_SIZED |= {0xD9: ("str", 1), 0xDA: ("str", 2), 0xDB: ("str", 4), 0xDC: ("array", 2), 0xDD: ("array", 4)}
_SIZED |= {0xDE: ("map", 2), 0xDF: ("map", 4)}
_NUMBERS = {0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q"}
_NUMBERS |= {0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}


_LIST, _ITEM, _MAP, _ENTRY = 64, 8, 72, 110  # bytes of memory


class _FlaxReader:
    """Reads msgpack values; `bin` and arrays are parts of `data` (uint8)."""

    def __init__(self, data: Array, *, is_file: bool = True) -> None:
        self.data, self.at, self.is_file = data, 0, is_file
        self.left = VALUES + factor() * data.size

    def take(self, count: int) -> Array:
        if count > self.data.size - self.at:
            raise self.short(count, "bytes")
        self.at += count
        return self.data[self.at - count : self.at]

    def short(self, count: int, what: str) -> Exception:
        """The error for more than there is: in a file, which was cut off, or in a value that has its own length."""
        if self.is_file:
            return cut_off(self.data.size, self.at + count, or_more=True)
        return ValueError(f"{count:,} {what} reach over the end of their value, which has {self.data.size:,} bytes")

    def number(self, form: str) -> Any:
        return struct.unpack(form, bytes(self.take(struct.calcsize(form))))[0]

    def head(self) -> tuple[str, Any]:
        """The kind of the next value, and its length or itself."""
        first = int(self.take(1)[0])
        if first in _SIZED:
            kind, width = _SIZED[first]
            return kind, int.from_bytes(bytes(self.take(width)), "big")
        if first in _NUMBERS:
            return "plain", self.number(_NUMBERS[first])
        if first in _CONSTANTS:
            return "plain", _CONSTANTS[first]
        if 0xD4 <= first <= 0xD8:
            return "ext", 1 << (first - 0xD4)
        for low, high, kind in ((0x80, 0x8F, "map"), (0x90, 0x9F, "array"), (0xA0, 0xBF, "str")):
            if low <= first <= high:
                return kind, first - low
        if first == 0xC1:
            raise ValueError("the byte C1 is no msgpack")
        return "plain", first if first < 0x80 else first - 0x100

    def value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise fault("too-deep", f"containers nested deeper than {MAX_DEPTH}")
        kind, found = self.head()
        match kind:
            case "plain":
                return found
            case "str":
                return bytes(self.take(found)).decode("utf-8")
            case "bin":
                return bytes(self.take(found))
            case "array":
                self.spend(_LIST + _ITEM * found)
                return [self.value(depth + 1) for _ in range(self.count(found))]
            case "map":
                return self.map(self.count(found), depth)
        code = self.number(">b")
        inner = _FlaxReader(self.take(found), is_file=False)
        if code == COMPLEX:
            real, imaginary = inner.value(depth)
            return complex(real, imaginary)
        if code not in (ARRAY, SCALAR):
            raise fault("unsupported-source", f"the extension type {code}")
        array = inner.array()
        return array if code == ARRAY else array[()]

    def spend(self, cost: int) -> None:
        """Memory for what a container takes beside its items."""
        self.left -= cost
        if self.left < 0:
            raise fault("limit-exceeded", "the values take far more memory than the file has bytes")

    def count(self, items: int) -> int:
        if items > self.data.size - self.at:  # each takes a byte at least
            raise self.short(items, "items")
        return items

    def map(self, count: int, depth: int) -> Any:
        found: dict[Any, Any] = {}
        self.spend(_MAP + _ENTRY * count)
        for _ in range(count):
            key = self.value(depth + 1)
            if type(key) not in (str, int) and not (type(key) is bytes and key in OF_NUMPY):
                raise fault("unsupported-source", f"a key that is a {type(key).__name__}")
            if key in found:
                raise ValueError(f"the key {shown(key)} stands twice")
            found[key] = self.octets() if key == DATA and ND in found else self.value(depth + 1)
        if CHUNKED in found:
            return _unchunked(found)
        return found if OF_NUMPY.isdisjoint(found) else _of_numpy(found)

    def octets(self) -> Array:
        """The next value, which is `bin`, where it lies."""
        kind, size = self.head()
        if kind != "bin":
            raise ValueError("an array of msgpack-numpy has no bytes")
        return self.take(size)

    def array(self) -> Array:
        """The (shape, dtype name, bytes) of an array."""
        kind, items = self.head()
        shape = shape_of(self.value(0))
        name = self.value(0)
        form, size = self.head()
        if (kind, items, form) != ("array", 3, "bin"):
            raise ValueError("an array is not (shape, dtype, bytes)")
        dtype = _dtype(name.decode("ascii") if isinstance(name, bytes) else name)
        if prod(shape) * dtype.itemsize != size:
            raise ValueError(f"an array has {size} bytes, which is wrong for {dtype} of shape {shape}")
        return array_over(self.take(size), 0, dtype, shape)


def _dtype(name: str) -> np.dtype[Any]:
    if name not in DTYPES:
        raise fault("unsupported-source", f"arrays of the dtype {name!r}")
    return DTYPES[name].numpy.newbyteorder("<")


def _of_numpy(found: dict[Any, Any]) -> Any:
    """What a map of msgpack-numpy stands for."""
    match found:
        case {b"complex": True, b"data": str(text), **rest} if not rest:
            return complex(text)
        case {b"nd": False, b"type": kind, b"data": np.ndarray() as octets, **rest} if not rest:
            return array_over(octets, 0, _numpy_dtype(kind, octets.size, ()), ())[()]
        case {
            b"nd": True,
            b"type": kind,
            b"kind": b"",
            b"shape": list(sides),
            b"data": np.ndarray() as octets,
            **rest,
        } if not rest:
            shape = shape_of(sides)
            return array_over(octets, 0, _numpy_dtype(kind, octets.size, shape), shape)
    raise fault("unsupported-source", "an array of msgpack-numpy with fields, of objects, or in another form")


def _numpy_dtype(kind: Any, size: int, shape: tuple[int, ...]) -> np.dtype[Any]:
    text = kind.decode("ascii") if isinstance(kind, bytes) else kind
    if not (isinstance(text, str) and _NUMPY_DTYPE(text)):
        raise fault("unsupported-source", f"an array of msgpack-numpy of the dtype {shown(text)}")
    dtype = np.dtype(text)
    if prod(shape) * dtype.itemsize != size:
        raise ValueError(f"an array has {size} bytes, which is wrong for {dtype} of shape {shape}")
    return dtype


_NUMPY_DTYPE = re.compile(r"[<>|](b1|[iu][1248]|f[248]|c8|c16)").fullmatch


def _unchunked(found: dict[str, Any]) -> SourceTensor:
    """One tensor of an array that was cut into flat pieces."""
    pieces = [found["chunks"][str(i)] for i in range(len(found["chunks"]))]
    shape = shape_of(found["shape"][str(i)] for i in range(len(found["shape"])))
    if not all(isinstance(piece, np.ndarray) for piece in pieces):
        raise ValueError("the pieces of a chunked array are no arrays")
    if any(type(n) is not int or not 0 <= n < 1 << 63 for n in shape):
        raise ValueError(f"a chunked array has the shape {shape}")
    ends = list(accumulate(piece.size for piece in pieces))
    dtype = pieces[0].dtype
    if not ends or ends[-1] != prod(shape) or any(piece.dtype != dtype or piece.ndim != 1 for piece in pieces):
        raise ValueError("the pieces of a chunked array do not make up its shape")

    def flat(first: int, last: int) -> Array:
        starts = [0, *ends]
        parts = [piece[max(0, first - at) : max(0, last - at)] for at, piece in zip(starts, pieces, strict=False)]
        parts = [part for part in parts if part.size]
        return parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else np.empty(0, dtype)

    def part(index: LeadingSlices) -> Array:
        rows = index[0] if index else slice(0, shape[0])
        row = prod(shape[1:])
        first, last, _ = rows.indices(shape[0])
        return flat(first * row, last * row).reshape(last - first, *shape[1:])[(slice(None), *index[1:])]

    return LazyArray(shape, dtype, part) if shape else pieces[0].reshape(())


# ---- writing


def write(path: str, tree: Tree, metadata: Tree, advance: Advance) -> None:
    with open(path, "r+b") as file:
        _write(file, tree, advance)


def _write(file: IO[bytes], value: Any, advance: Advance) -> None:
    if isinstance(value, dict):
        file.write(msgpack.Packer().pack_map_header(len(value)))
        for key, item in value.items():
            file.write(msgpack.packb(key))
            _write(file, item, advance)
    elif is_tensor(value) and nbytes(value) > CHUNK:
        _write_chunked(file, value, advance)
    elif is_tensor(value):
        _write_array(file, ARRAY, value.shape, value.dtype, nbytes(value))
        for part in elements(value):
            file.write(part)
            advance(len(part))
    elif isinstance(value, np.generic):
        data = little_endian(np.asarray(value))
        _write_array(file, SCALAR, (), value.dtype, len(data))
        file.write(data)
    elif isinstance(value, complex):
        file.write(msgpack.packb(msgpack.ExtType(COMPLEX, msgpack.packb((value.real, value.imag)))))
    else:
        file.write(msgpack.packb(value))


def _write_array(file: IO[bytes], code: int, shape: tuple[int, ...], dtype: np.dtype[Any], size: int) -> None:
    """All of an array but its bytes."""
    described = b"\x93" + msgpack.packb(shape) + msgpack.packb(dtype_name(dtype)) + struct.pack(">BI", 0xC6, size)
    file.write(struct.pack(">BIb", 0xC9, len(described) + size, code) + described)


def _write_chunked(file: IO[bytes], tensor: SourceTensor, advance: Advance) -> None:
    itemsize = tensor.dtype.itemsize
    per = CHUNK // itemsize
    count = prod(tensor.shape)
    shape = {str(i): n for i, n in enumerate(tensor.shape)}
    pieces = [min(per, count - start) for start in range(0, count, per)]
    file.write(b"\x83" + b"".join(map(msgpack.packb, (CHUNKED, True, "shape", shape, "chunks"))))
    file.write(msgpack.Packer().pack_map_header(len(pieces)))
    number, left = 0, 0
    for part in elements(tensor):
        data = part
        while data:
            if not left:
                left = pieces[number] * itemsize
                file.write(msgpack.packb(str(number)))
                _write_array(file, ARRAY, (pieces[number],), tensor.dtype, left)
                number += 1
            written = file.write(data[:left])
            advance(written)
            data, left = data[written:], left - written
