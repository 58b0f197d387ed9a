"""What is converted: a tree whose tensors are read when they are needed, and never all at once.

A tensor leaf is a NumPy array over a mapped file (raw bytes on disk), or a `LazyArray` (bytes that must be decoded).
Both have `shape` and `dtype`, and give a part when indexed. `slabs` cuts a tensor into such parts, `mapped_arrays`
makes NumPy arrays of all of them.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import prod
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np

from ..dtypes import Array
from ..errors import CkptError, fault, os_fault
from ..names import Key, Path, path_text
from ..sources import Lazy
from ..target import rebuild
from ..tree import MAX_DEPTH, Tree

SLAB = 16 << 20  # bytes of a tensor read at once
LEAVES = 1 << 22  # most leaves and containers of a source
EXPANSION = 2048  # most bytes of tensors for a byte of the source, unless asked for; DEFLATE reaches 1032
SMALL = 64 << 20  # bytes of tensors that any source may have
ALIGNMENT = 64

Index = tuple[Any, ...]  # a slice with step 1 for each of the first axes


@dataclass(frozen=True, slots=True, eq=False)
class LazyArray(Lazy):
    """A tensor that is decoded when it is read. `read` takes a slice with step 1 for each of the first axes.

    `rows` is the number of rows (items of the first axis) that are decoded together, or None where any part can be
    read for about its own cost. `stored` gives all elements, little-endian in C order, where they lie so: in small
    parts, each valid until the next is taken.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[Index], Array]
    rows: int | None = None
    stored: Callable[[], Iterator[memoryview]] | None = None

    def __getitem__(self, index: Any) -> Array:
        return self.read(index)


Tensor = Array | LazyArray
Advance = Callable[[int], None]  # told the bytes of tensors that were written


class Loss(NamedTuple):
    """Something that a conversion cannot keep: its `kind` ("alias", "dtype", "nesting", "value" or "metadata"), the
    path text of where it stands, and what happens to it."""

    kind: str
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind} of {self.path!r}: {self.message}"


@dataclass(slots=True)
class Source:
    """An open source: its tree, its metadata (plain values), what reading it leaves out, and what closing it closes.

    `mapped`, where a source has it, gives the same tree with every tensor as a mapped array.
    """

    tree: Tree
    metadata: Tree = None
    losses: tuple[Loss, ...] = ()
    mapped: Callable[[], Tree] | None = None
    resources: ExitStack = field(default_factory=ExitStack)
    format: str = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.resources.close()


def is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, np.ndarray | LazyArray)


def nbytes(tensor: Tensor) -> int:
    """Bytes of all elements in memory."""
    return prod(tensor.shape) * tensor.dtype.itemsize


@contextlib.contextmanager
def parsing(path: str) -> Iterator[None]:
    """Whatever goes wrong while bytes of another format are understood is a fault of those bytes: `bad-source`."""
    try:
        yield
    except CkptError as error:
        error.path = error.path or path
        raise
    except OSError as error:
        if error.errno is None:  # h5py's own errors
            raise fault("bad-source", str(error), path=path) from error
        raise os_fault(error, "cannot read the source", path) from error
    except (MemoryError, ImportError):
        raise
    except Exception as error:  # a parser of hostile bytes can fail in any way; none of them is the caller's fault
        raise fault("bad-source", f"{type(error).__name__}: {error}", path=path) from error


def mapped_file(path: str) -> Array:
    """All bytes of a file as an array (uint8), mapped and read-only."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:  # which cannot be mapped
            return np.empty(0, np.uint8)
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def array_over(data: Array, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """The C-contiguous array at byte `offset` of `data`; raises ValueError if it lies outside."""
    if offset < 0 or any(n < 0 for n in shape) or offset + prod(shape) * dtype.itemsize > data.size:
        raise ValueError(f"an array of shape {shape} and dtype {dtype} at byte {offset} lies outside the file")
    return np.ndarray(shape, dtype, data, offset) if prod(shape) else np.empty(shape, dtype)


def check_tree(tree: Tree, size: int, path: str, max_expansion: int) -> None:
    """Refuse a tree that no source of `size` bytes can honestly stand for: too deep (`too-deep`), too many leaves or
    tensors far larger than the file (`limit-exceeded`)."""
    total = 0
    for count, (where, leaf) in enumerate(walk(tree)):
        if count > LEAVES:
            raise fault("limit-exceeded", f"more than {LEAVES:,} leaves and containers", path=path)
        if is_tensor(leaf):
            total += nbytes(leaf)
        if total > max(SMALL, size * max_expansion):
            message = f"the tensors are more than {max_expansion:,} times as large as the source"
            raise fault("limit-exceeded", message, path=path, tensor=path_text(where), found=f"{total:,} bytes or more")


def walk(tree: Tree, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every leaf and every container, each with its path; raises `too-deep`."""
    if len(path) > MAX_DEPTH:
        raise fault("too-deep", f"containers nested deeper than {MAX_DEPTH} below {path_text(path[:8])!r}")
    yield path, tree
    if isinstance(tree, dict):
        for key, item in tree.items():
            yield from walk(item, (*path, key))
    elif isinstance(tree, list | tuple):
        for i, item in enumerate(tree):
            yield from walk(item, (*path, i))


def slabs(tensor: Tensor) -> Iterator[Index]:
    """Indices that cut a tensor into parts of about `SLAB` bytes, in C order; one for a tensor without elements."""
    rows = tensor.rows if isinstance(tensor, LazyArray) else None
    yield from _slabs(tensor.shape, tensor.dtype.itemsize, rows, ())


def _slabs(shape: tuple[int, ...], itemsize: int, rows: int | None, above: Index) -> Iterator[Index]:
    row = itemsize * prod(shape[1:])
    if not shape or not row or shape[0] * row <= SLAB:
        yield above
    elif row > SLAB and rows is None:
        for i in range(shape[0]):
            yield from _slabs(shape[1:], itemsize, None, (*above, slice(i, i + 1)))
    else:
        step = max(1, SLAB // row)
        step = -(-step // (rows or 1)) * (rows or 1)
        for start in range(0, shape[0], step):
            yield (*above, slice(start, min(start + step, shape[0])))


def elements(tensor: Tensor) -> Iterator[memoryview]:
    """All elements, little-endian in C order, as bytes, in parts that are each valid until the next is taken."""
    if isinstance(tensor, LazyArray) and tensor.stored is not None:
        yield from tensor.stored()
    else:
        for index in slabs(tensor):
            yield little_endian(tensor[index])


def little_endian(part: Array) -> memoryview:
    """The elements of an array in C order, little-endian, as bytes."""
    native = np.ascontiguousarray(part, part.dtype.newbyteorder("<"))
    flat: Any = native.reshape(-1).view(np.uint8)
    return memoryview(flat)


def mapped_arrays(tree: Tree, folder: str) -> Tree:
    """The same tree with a NumPy array for every tensor. What must be decoded goes, slab by slab, into one unnamed
    temporary file in `folder`, which is mapped: memory stays bounded."""
    lazy = {id(leaf): leaf for _, leaf in walk(tree) if isinstance(leaf, LazyArray)}
    total, places = 0, {}
    for key, leaf in lazy.items():
        places[key] = total
        total += -(-nbytes(leaf) // ALIGNMENT) * ALIGNMENT
    arrays: dict[int, Array] = {}
    if total:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.truncate(total)
            data = np.frombuffer(mmap.mmap(file.fileno(), total), np.uint8)
    else:
        data = np.empty(0, np.uint8)
    for key, leaf in lazy.items():
        array = arrays[key] = array_over(data, places[key], leaf.dtype.newbyteorder("="), leaf.shape)
        for index in slabs(leaf):
            array[(*index, ...)] = leaf[index]
    return rebuild(tree, lambda _, leaf: arrays[id(leaf)] if isinstance(leaf, LazyArray) else leaf)


def unflatten(leaves: dict[Path, Any]) -> Tree:
    """The containers above leaves: keys that are the ints from 0 on make a list, others a dict. Raises ValueError
    where one leaf stands above another."""
    if () in leaves:
        if len(leaves) > 1:
            raise ValueError("a leaf stands above another")
        return leaves[()]
    groups: dict[Key, dict[Path, Any]] = {}
    for path, leaf in leaves.items():
        groups.setdefault(path[0], {})[path[1:]] = leaf
    items = {key: unflatten(group) for key, group in groups.items()}
    if items and all(type(key) is int for key in items) and set(items) == set(range(len(items))):
        return [items[i] for i in range(len(items))]
    return items
