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
from collections.abc import Callable, Container, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

import numpy as np

from ..errors import CkptError, fault, os_fault
from ..format.digests import Digest
from ..format.dtypes import Array, bytes_of
from ..format.manifest import Schema
from ..format.names import Key, Path, path_label
from ..format.node import Restore
from ..format.tags import child_of
from ..format.tree import MAX_DEPTH, Tree
from ..frameworks.adapter import Tagged
from ..frameworks.sources import FILE_PIECE, Buffers, InFile, Lazy
from ..frameworks.target import rebuild
from ..layouts.foreign import INCOMPLETE
from ..storage import disk as disks
from ..storage.local import fill_from
from .claims import EXPANSION as EXPANSION
from .entries import open_file, part_of
from .probe import CheckpointPlace

if TYPE_CHECKING:
    from ..reading.blocks import BlockReader

SLAB = 4 << 20  # bytes of a tensor read at once
LEAVES = 1 << 22  # most leaves and containers of a source
SMALL = 64 << 20  # bytes of tensors that any source may have
ALIGNMENT = 64
PROVENANCE = "provenance"  # key of the manifest: how a checkpoint was made [MIG-017]
LARGE = 1 << 20  # bytes of arrays that are read rather than looked at

LeadingSlices = tuple[Any, ...]  # a slice with step 1 for each of the first axes


@dataclass(frozen=True, slots=True, eq=False)
class LazyArray(Lazy):
    """A tensor that is decoded when it is read. `read` takes a slice with step 1 for each of the first axes.

    `rows` is the number of rows (items of the first axis) that are decoded together, or None where any part can be
    read for about its own cost. `unit`: the bytes that are decoded at once where this is not what these rows have, as
    chunks may be larger than their tensor. `stored` is there where the elements lie in a checkpoint as they are in
    memory. `octets`: where they lie in a mapped file, several in a byte, one row after another. `origin`: the
    checkpoint of this format, and the number of the tensor in it. `mapped` is there where all elements lie in a mapped
    file as they are in memory: it gives them as an array, once their checksum has been checked.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[LeadingSlices], Array]
    rows: int | None = None
    stored: StoredBytes | None = None
    identity: Hashable = None
    unit: int | None = None
    octets: Array | None = None
    origin: tuple[BlockReader, int] | None = None
    mapped: Callable[[], Array] | None = None

    @property
    def decoded_at_once(self) -> int:
        """Bytes that are decoded at once, whatever part is read."""
        if self.unit is not None:
            return self.unit
        return min(self.rows or 0, *self.shape[:1]) * prod(self.shape[1:]) * self.dtype.itemsize if self.shape else 0

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, index: Any) -> Array:
        return self.read(index)

    def view(self, dtype: np.dtype[Any]) -> LazyArray:
        """The same elements as another dtype of the same width."""
        read = partial(_viewed, self.read, dtype)
        identity = self.identity or id(self)
        return replace(self, dtype=dtype, read=read, stored=None, origin=None, identity=identity, mapped=None)


def _viewed(read: Callable[[LeadingSlices], Array], dtype: np.dtype[Any], index: LeadingSlices) -> Array:
    return read(index).view(dtype)


class StoredBytes(Protocol):
    """The stored bytes of a tensor: its elements, little-endian in C order, with the digests of their blocks."""

    def pieces(self) -> Iterator[memoryview]:
        """All of them, verified, in small parts, each valid until the next is taken. A damaged block raises when its
        last part has been read: what is made of the parts is not to be used before the end."""

    def check(self) -> None:
        """Read and verify all of them; raises `block-digest`, `short-object` or `missing-object`."""

    def matches(self, array: Array, seen: DigestedPart | None = None) -> bool:
        """Whether the memory of an array has their digests, which is looked at unless it is `seen`."""


SourceTensor = Array | LazyArray
Advance = Callable[[int], None]  # told the bytes of tensors that were written


# what a conversion can lose
KINDS = ("alias", "dtype", "nesting", "value", "metadata", "missing")


class Loss(NamedTuple):
    """Something that a conversion cannot keep: its `kind`, one of `KINDS` ("missing" for what the source says that
    there should be), the label of the path where it stands, and what happens to it."""

    kind: str
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind} of {self.path!r}: {self.message}"


class Ours(NamedTuple):
    """What only a checkpoint of this format holds beside tree and metadata: its schema, the tags whose values NumPy
    does not make (outermost first, name and param, by path), and further keys of its manifest."""

    schema: Schema | None
    tags: Mapping[Path, Sequence[tuple[str, Any]]]
    further: Mapping[str, Any]

    def losses(self, *, of_weights: bool) -> list[Loss]:
        """What is lost where none of it can be kept. That a tensor was a torch Parameter and how a checkpoint was made
        do not count; nor, in a format `of_weights`, which knows no tags at all, of which versions modules were."""
        uncounted = {"torch.Parameter", "torch.state_dict"} if of_weights else {"torch.Parameter"}
        lost = [Loss("metadata", "", f"the schema {' '.join(self.schema)} is left out")] if self.schema else []
        keys = [key for key in self.further if key != PROVENANCE]
        lost += [Loss("metadata", "", f"the key {key!r} of the manifest is left out") for key in keys]
        tags = ((path, name) for path, found in self.tags.items() for name, _ in found if name not in uncounted)
        return lost + [Loss("value", path_label(path), f"the tag {name} is left out") for path, name in tags]

    def without_names(self) -> tuple[Ours, Ours]:
        """What of it holds for a tree of other names, and the rest."""
        return Ours(None, {}, self.further), self._replace(further={})

    def divided(self, held: Container[str], *, has_schema: bool) -> tuple[Ours, Ours]:
        """What of it a format keeps that has tags, those `held`, and a schema, and the rest."""
        kept, left = (
            {path: [tag for tag in found if (tag[0] in held) is is_kept] for path, found in self.tags.items()}
            for is_kept in (True, False)
        )
        schema = self.schema if has_schema else None
        return Ours(schema, kept, {}), self._replace(schema=None if has_schema else self.schema, tags=left)

    def moved(self, place: Callable[[Path], Path]) -> Ours:
        """The same of a tree whose paths have changed."""
        return self._replace(tags={place(path): found for path, found in self.tags.items()})

    def tagged(self, tree: Tree, restores: Mapping[str, Restore] = MappingProxyType({}), path: Path = ()) -> Tree:
        """The same tree with its tags, whose values `restores` can make."""
        if isinstance(tree, dict):
            tree = type(tree)((key, self.tagged(item, restores, (*path, key))) for key, item in tree.items())
        elif type(tree) in (list, tuple):
            tree = type(tree)(self.tagged(item, restores, (*path, i)) for i, item in enumerate(tree))
        for name, param in reversed(self.tags.get(path, ())):
            tree = Tagged(name, param, tree, partial(restores.get(name, child_of), param))
        return tree


@dataclass(slots=True)
class OpenedSource:
    """An open source: its tree, its metadata (plain values), what reading it leaves out, and what closing it closes.

    `mapped`, where a source has it, gives the same tree with every tensor as a mapped array. `ours` is there where it
    has more than a tree and metadata, as checkpoints of this format have. `size`: the bytes of all its files, where
    these are not those at its path. `place`: where it lies, and its format. `left_out`: how many tensors, and bytes of
    them, lie in objects that cannot be read. `manifest_sha256`: what identifies a checkpoint of this format. `inner`:
    the format of what lies in an archive or a compressed file.
    """

    tree: Tree
    metadata: Tree = None
    losses: tuple[Loss, ...] = ()
    mapped: Callable[[], Tree] | None = None
    resources: ExitStack = field(default_factory=ExitStack)
    place: CheckpointPlace = field(default_factory=lambda: CheckpointPlace("", ""))
    ours: Ours | None = None
    size: int | None = None
    left_out: tuple[int, int] = (0, 0)
    manifest_sha256: bytes | None = None
    inner: str | None = None

    @property
    def format(self) -> str:
        """The name of the format that it was read as."""
        return self.inner or self.place.format

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.resources.close()


def is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, np.ndarray | LazyArray)


def nbytes(tensor: SourceTensor) -> int:
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
            raise fault("bad-source", said(error), path=path) from error
        raise os_fault(error, "cannot read the source", path) from error
    except MemoryError as error:
        raise fault("limit-exceeded", "reading it takes more memory than there is", path=path) from error
    except ImportError as error:
        raise fault("missing-package", said(error), path=path) from error
    except Exception as error:  # a parser of hostile bytes can fail in any way; none of them is the caller's fault
        raise fault("bad-source", f"{type(error).__name__}: {said(error)}", path=path) from error


def said(error: Exception) -> str:
    """What an error of a library says, in one line."""
    return " ".join(str(error)[:1000].split())


class SourceFile:
    """A mapped file that is also read. It is opened for each read, as a source may have many files."""

    def __init__(self, path: str, stat: os.stat_result) -> None:
        self.path, self._stat, self._disk = path, stat, disks.current()

    def read_into(self, offset: int, out: memoryview) -> None:
        """Fill `out` from `offset` on; raises `bad-source` where another file stands there now."""
        number = open_file(self.path)
        try:
            found = os.fstat(number)
            if not os.path.samestat(found, self._stat) or found.st_size != self._stat.st_size:
                raise fault("bad-source", "the file was replaced while it was read", path=self.path)
            fill_from(self._disk, number, offset, out, self.path)
        finally:
            os.close(number)


class FileMapping(mmap.mmap):
    """The bytes of a mapped file, which it knows."""

    file: SourceFile


def mapped_file(path: str, folder: str | None = None) -> Array:
    """All bytes of a file as an array (uint8), mapped and read-only; raises what `open_file` does."""
    with open(open_file(path, folder), "rb") as file:
        stat = os.fstat(file.fileno())
        if stat.st_size == 0:  # which cannot be mapped
            return np.empty(0, np.uint8)
        mapping = FileMapping(file.fileno(), 0, access=mmap.ACCESS_READ)
    mapping.file = SourceFile(path, stat)
    data = np.frombuffer(mapping, np.uint8)
    part = part_of(path)
    return data if part is None else data[part.offset : part.offset + part.size]


def mapping_of(array: Array) -> FileMapping | None:
    """The mapped file in which an array lies."""
    base: Any = array
    while isinstance(base, np.ndarray | memoryview):
        base = base.base if isinstance(base, np.ndarray) else base.obj
    return base if isinstance(base, FileMapping) else None


def place_in_file(array: Array) -> tuple[SourceFile, int] | None:
    """The mapped file in which an array lies, and where; None for one that lies in none."""
    base = mapping_of(array)
    if base is None:
        return None
    start = np.frombuffer(base, np.uint8).__array_interface__["data"][0]
    return base.file, array.__array_interface__["data"][0] - start


def in_file(leaf: Any, buffers: Buffers) -> Any:
    """A large array over a mapped file as a source that is read from the file; any other leaf as it is."""
    if not isinstance(leaf, np.ndarray) or not leaf.flags.c_contiguous or leaf.nbytes < LARGE:
        return leaf
    place = place_in_file(leaf)
    return leaf if place is None else InFile(leaf, place[0], place[1], buffers)


class DigestedPart(InFile):
    """A part of a file that is digested as it is read, so that what was read can be compared without reading it again.
    `digests` are those of its blocks; None until it has been read from beginning to end."""

    __slots__ = ("block", "digest", "digests")

    def __init__(self, source: InFile, digest: Digest, block: int) -> None:
        super().__init__(source.array, source.file, source.offset, source.buffers)
        self.digest, self.block = digest, block
        self.digests: bytes | None = None

    def pieces(self) -> Iterator[Array]:
        digests = []
        for piece in super().pieces():
            digests.append(self.digest.of_blocks(bytes_of(piece), self.block))
            yield piece
        self.digests = b"".join(digests)


def plain_text(value: Any) -> Tree:
    """Strings of other formats as nested lists of str, and of bytes where they are not UTF-8; one string alone as it
    is."""
    if isinstance(value, np.ndarray):
        return [plain_text(item) for item in value] if value.shape else plain_text(value[()])
    if not isinstance(value, bytes):
        return str(value)
    try:
        return bytes(value).decode("utf-8")
    except UnicodeDecodeError:
        return bytes(value)


def check_strings(shape: tuple[int, ...], dtype: np.dtype[Any], label: str) -> None:
    """Refuse more strings than a tree can have as plain values, before they are read; raises `limit-exceeded`."""
    if prod(shape) > LEAVES or prod(shape) * dtype.itemsize > SMALL:
        message = f"more than {LEAVES:,} strings, or {SMALL:,} bytes of them"
        raise fault("limit-exceeded", message, tensor=label, found=f"{prod(shape):,} of {dtype.itemsize:,} bytes")


def cut_off(held: int, due: int, *, or_more: bool = False, file: str = "the file") -> CkptError:
    """The error for a file of `held` bytes that was to have `due` of them, or more."""
    message = f"{file} is cut off: it holds {held:,} of {'at least ' if or_more else ''}{due:,} bytes"
    return fault("bad-source", message, advice=INCOMPLETE)


def array_over(data: Array, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """The C-contiguous array at byte `offset` of `data`; raises ValueError if it lies outside."""
    if offset < 0 or any(n < 0 for n in shape) or offset + prod(shape) * dtype.itemsize > data.size:
        raise ValueError(f"an array of shape {shape} and dtype {dtype} at byte {offset} lies outside the file")
    return np.ndarray(shape, dtype, data, offset) if prod(shape) else np.empty(shape, dtype)


def walk(tree: Tree, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every leaf and every container, each with its path; raises `too-deep`."""
    yield path, tree
    if not isinstance(tree, _CONTAINERS) or not tree:
        return
    if len(path) == MAX_DEPTH:
        raise fault("too-deep", f"containers nested deeper than {MAX_DEPTH} below {path_label(path[:8])!r}")
    for key, item in tree.items() if isinstance(tree, dict) else enumerate(tree):
        if isinstance(item, _CONTAINERS):
            yield from walk(item, (*path, key))
        else:
            yield (*path, key), item


_CONTAINERS = (dict, list, tuple)


def slabs(tensor: SourceTensor) -> Iterator[LeadingSlices]:
    """Indices that cut a tensor into parts of about `SLAB` bytes, in C order; one for a tensor without elements."""
    rows = tensor.rows if isinstance(tensor, LazyArray) else None
    yield from _slabs(tensor.shape, tensor.dtype.itemsize, rows, ())


def _slabs(shape: tuple[int, ...], itemsize: int, rows: int | None, above: LeadingSlices) -> Iterator[LeadingSlices]:
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


def elements(tensor: SourceTensor) -> Iterator[memoryview]:
    """All elements, little-endian in C order, as bytes, in parts that are each valid until the next is taken."""
    if isinstance(tensor, LazyArray) and tensor.stored is not None:
        yield from tensor.stored.pieces()
    else:
        for index in slabs(tensor):
            yield little_endian(tensor[index])


def little_endian(part: Array) -> memoryview:
    """The elements of an array in C order, little-endian, as bytes."""
    native = np.ascontiguousarray(truths(part), part.dtype.newbyteorder("<"))
    flat: Any = native.reshape(-1).view(np.uint8)
    return memoryview(flat)


def truths(part: Array) -> Array:
    """The same array, with 1 for whatever stands for true in one of bools: files can have any byte. [DTYPE-005]"""
    return part.view(np.uint8) != 0 if part.dtype == bool else part


class Rows:
    """Tensors to be saved, which happens in parts of any height: what decodes rows together keeps the last that it
    decoded, of one tensor at a time. With a `digest` of blocks, what is read from a file is digested: `seen`, by the
    identity of its array."""

    def __init__(self, digest: Digest | None = None, block: int = FILE_PIECE) -> None:
        self.seen: dict[int, DigestedPart] = {}
        self._digest, self._block = digest, block
        self._buffers = Buffers(FILE_PIECE)
        self._kept: dict[tuple[int, int], Array] = {}  # by tensor and number of the group of rows

    def source(self, leaf: Any) -> Any:
        """A leaf as it is to be saved."""
        if not isinstance(leaf, LazyArray) or not leaf.rows or not leaf.shape:
            source = in_file(leaf, self._buffers)
            if not isinstance(source, InFile) or self._digest is None or FILE_PIECE % self._block:
                return source
            return self.seen.setdefault(id(leaf), DigestedPart(source, self._digest, self._block))
        size = leaf.rows * prod(leaf.shape[1:]) * leaf.dtype.itemsize
        rows = leaf.rows * max(1, SLAB // size if size else 1)  # a call for each row of a few bytes would take minutes
        return replace(leaf, read=partial(self._read, leaf, rows), identity=leaf.identity or id(leaf))

    def _read(self, leaf: LazyArray, rows: int, index: LeadingSlices) -> Array:
        first, last = index[0].start, index[0].stop
        groups = range(first // rows * rows, last, rows)
        self._kept = {key: part for key, part in self._kept.items() if key[0] == id(leaf) and key[1] in groups}
        parts = []
        for start in groups:
            if (id(leaf), start) not in self._kept:
                self._kept[id(leaf), start] = leaf.read((slice(start, min(start + rows, leaf.shape[0])),))
            parts.append(self._kept[id(leaf), start][max(0, first - start) : last - start])
        part = parts[0] if len(parts) == 1 else np.concatenate(parts)
        result: Array = part[(slice(None), *index[1:])]
        return result


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
