"""Reading: `open`, the lazy `Checkpoint` and `Tensor`, and `load`. Opening reads the manifest only; bytes are fetched
when asked for."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from functools import cached_property, partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from . import manifest as manifests
from . import tree as trees
from .blocks import BlockReader
from .chunks import check_bools
from .dtypes import Array
from .errors import CkptError, CorruptError, fault
from .fetch import Fetcher
from .grid import select as normalise
from .layouts import Located, layout_of
from .manifest import Manifest, Schema
from .names import Key, Path, path_text
from .patterns import matches_any
from .storage import storage_for
from .target import MatchReport, flatten, match, rebuild
from .tree import OMITTED, Tree

if TYPE_CHECKING:
    import zarr

    from .verification import Progress, VerifyReport

MAX_MANIFEST = 1 << 30  # bytes [LIM-001]
Patterns = str | Iterable[str] | None


class Tensor:
    """A tensor that has not been read. Index it to read a part, `read()` it whole, or give it to `np.asarray`.

    Basic indexing as in NumPy (ints, slices with any step, Ellipsis) reads only the blocks that hold the wanted
    elements. Raises `bad-index`, and `CorruptError` (`block-digest`, `bad-chunk`, `missing-object`, `short-object`)
    for damage in what is read.
    """

    __slots__ = ("_checkpoint", "_index", "_view", "path")

    def __init__(self, checkpoint: Checkpoint, index: int, path: Path, view: np.dtype[Any] | None = None) -> None:
        self._checkpoint, self._index, self.path, self._view = checkpoint, index, path, view

    @property
    def name(self) -> str:
        """The path of the Zarr node under `tensors/`."""
        return self._checkpoint.manifest.names[self._index]

    @property
    def shape(self) -> tuple[int, ...]:
        return self._checkpoint.manifest.specs[self._index].shape

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=object))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of arrays read from it, in native byte order."""
        return self._view or self.stored_dtype

    @property
    def stored_dtype(self) -> np.dtype[Any]:
        """The in-memory dtype of the stored elements; `dtype` differs from it for a view (datetime64 of int64)."""
        return self._checkpoint.manifest.specs[self._index].dtype.numpy

    @property
    def dtype_name(self) -> str:
        """The logical dtype of SPEC.md section 3, such as "bfloat16"."""
        return self._checkpoint.manifest.specs[self._index].dtype.name

    @property
    def nbytes(self) -> int:
        """Bytes before compression, as stored."""
        return self._checkpoint.manifest.specs[self._index].nbytes

    @property
    def stored_bytes(self) -> int:
        """Bytes on storage."""
        table = self._checkpoint.manifest.table
        return sum(table.lengths[table.first_rows[self._index] : table.first_rows[self._index + 1]])

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return self._checkpoint.manifest.specs[self._index].chunks

    @property
    def codec(self) -> str:
        """ "raw" or the name of the compressor."""
        return self._checkpoint.manifest.specs[self._index].codec.name

    def __repr__(self) -> str:
        return f"<Tensor {path_text(self.path)!r} {self.dtype} {self.shape}>"

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a 0-d tensor")
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        selection = normalise(index, self.shape)
        values = self._checkpoint._fetcher.select(self._index, selection.axes, self._checkpoint.verifies)
        result = (values if self._view is None else values.view(self._view))[selection.finish]
        if result.ndim == 0 and not any(item is Ellipsis for item in (index if isinstance(index, tuple) else (index,))):
            return result[()]  # NumPy gives a scalar where ints alone index
        return result if result.flags.c_contiguous else result.copy()

    def read(self, out: Array | None = None) -> Array:
        """The whole tensor as an array of its own, or filled into `out` (same shape and dtype; raises `mismatch`)."""
        if out is None:
            array = self._checkpoint._fetcher.tensors([self._index], self._checkpoint.verifies, {})[self._index]
            return array if self._view is None else array.view(self._view)
        report = match(out, {(): self}, _is_tensor, cast=False)
        if not report.ok:
            raise fault(
                "mismatch",
                f"cannot read {path_text(self.path)!r} into the array: {report}",
                path=self._checkpoint.path,
                report=report,
            )
        self._checkpoint._fill({self._index: [_bits(out, self)]}, self._checkpoint.verifies)
        return out

    def view(self, dtype: np.dtype[Any]) -> Tensor:
        """The same stored elements read as another dtype of the same width."""
        return Tensor(self._checkpoint, self._index, self.path, dtype)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("a stored tensor cannot become an array without a copy")
        array = self.read()
        return array if dtype is None else array.astype(dtype, copy=False)


class Checkpoint:
    """An open checkpoint: its tree with lazy tensors, its metadata, and partial reads. Use it as a context manager, or
    `close` it."""

    def __init__(self, path: str | os.PathLike[str], *, verify: bool = True, max_manifest: int = MAX_MANIFEST) -> None:
        """Open the checkpoint at `path`; see `open`."""
        self.path = os.fspath(path)
        self.verifies = verify
        while not self._try_open(max_manifest):
            pass
        self.blocks = BlockReader(self._storage, self._layout, self.manifest, self._describe)
        self._fetcher = Fetcher(self.blocks)

    def _try_open(self, max_manifest: int) -> bool:
        """Open what is at the path now; False if it was replaced, and its files removed, meanwhile."""
        self._storage = storage_for(self.path)
        try:
            self._layout = layout_of(self._storage)
            self._located = self._layout.locate(self._storage, max_manifest)
            self.manifest = _read_manifest(self._located)
        except BaseException as error:
            replaced = isinstance(error, CkptError) and self._storage.was_replaced()
            self._storage.close()
            if replaced:
                return False
            if isinstance(error, CkptError):
                error.path = error.path or self.path
            raise
        return True

    # ---- what it says about itself

    @property
    def layout(self) -> str:
        return self.manifest.layout

    @property
    def format(self) -> tuple[int, int]:
        """(major, minor) of the specification that it follows."""
        return self.manifest.format

    @property
    def generator(self) -> str:
        """The program that wrote it."""
        return self.manifest.generator

    @property
    def schema(self) -> Schema | None:
        return self.manifest.schema

    @property
    def manifest_sha256(self) -> bytes:
        """The digest of the manifest, which is the identity of the checkpoint. [SEC-004]"""
        return self._located.record.sha256

    @cached_property
    def metadata(self) -> Tree:
        """The user's plain values."""
        return trees.decode(self.manifest.metadata, _no_tensor)

    @property
    def bytes_read(self) -> int:
        """Chunk bytes read from storage so far."""
        return self.blocks.bytes_read

    def __repr__(self) -> str:
        return f"<Checkpoint {self.path!r}: {len(self.manifest.names)} tensors, layout {self.layout}>"

    # ---- the tree

    @cached_property
    def tree(self) -> Tree:
        """The tree with a `Tensor` for each tensor leaf; aliases are one `Tensor`."""
        return trees.decode(self.manifest.tree, self._handles.__getitem__)

    @cached_property
    def tensors(self) -> dict[Path, Tensor]:
        """Every path at which a tensor stands, aliases included."""
        return {path: leaf for path, leaf in self._leaves.items() if isinstance(leaf, Tensor)}

    @cached_property
    def _handles(self) -> list[Tensor]:
        paths: list[Path] = [()] * len(self.manifest.names)
        for path, node in reversed(list(trees.leaves(self.manifest.tree))):
            if type(node) is list and node[0] == "tensor":
                paths[node[1]] = path  # the first path wins, as names are made from it
        return [Tensor(self, index, path) for index, path in enumerate(paths)]

    @cached_property
    def _leaves(self) -> dict[Path, Any]:
        return dict(flatten(self.tree))

    @cached_property
    def _paths(self) -> dict[str, list[Path]]:
        """Path text to the typed paths that it fits, containers included."""
        found: dict[str, list[Path]] = {}
        known: set[Path] = set()
        for path in self._leaves:
            for length in range(len(path), -1, -1):
                prefix = path[:length]
                if prefix in known:
                    break
                known.add(prefix)
                found.setdefault(path_text(prefix), []).append(prefix)
        return found

    def __getitem__(self, path: Key | Path) -> Any:
        """The `Tensor`, plain value or container at a path text ("model/wte") or an exact typed path ("model", 0)."""
        if isinstance(path, str):
            fits = self._paths.get(path, [])
            if len(fits) > 1:
                raise fault("ambiguous-path", f"{path!r} fits {' and '.join(map(repr, fits))}", path=self.path)
        else:
            exact = path if isinstance(path, tuple) else (path,)
            fits = [fit for fit in self._paths.get(path_text(exact), []) if fit == exact]
        if not fits:
            raise fault("no-such-path", f"there is no {path!r} in the tree", path=self.path)
        value = self.tree
        for key in fits[0]:
            value = value[key]
        return value

    def __contains__(self, path: Key | Path) -> bool:
        try:
            self[path]
        except CkptError as error:
            return error.code == "ambiguous-path"
        return True

    def __iter__(self) -> Iterator[str]:
        """The path texts of all tensors."""
        return (path_text(path) for path in self.tensors)

    def __len__(self) -> int:
        """Number of tensors, aliases counted once."""
        return len(self.manifest.names)

    def _describe(self, index: int) -> str:
        return path_text(self._handles[index].path)

    # ---- reading

    def load(
        self,
        *,
        select: Patterns = None,
        into: Tree = None,
        mmap: bool = False,
        verify: bool | None = None,
        strict: bool = True,
        cast: bool = False,
    ) -> Tree:
        """The tree, or the part of it that `select` names, with NumPy arrays; see `load`."""
        if into is not None and mmap:
            raise fault("bad-option", "into= and mmap=True exclude each other", path=self.path)
        verify = (self.verifies and not mmap) if verify is None else verify
        keep = self._keep(select)
        if into is not None:
            return self._load_into(into, keep, verify, strict, cast)
        node = self.manifest.tree
        wanted: Iterable[int] = range(len(self.manifest.names))
        if keep is not None:
            tensors = ((path, n[1]) for path, n in trees.leaves(node) if type(n) is list and n[0] == "tensor")
            wanted = sorted({index for path, index in tensors if keep(path)})
        arrays = self._mapped(wanted, verify) if mmap else self._fetcher.tensors(wanted, verify, {})
        tree = trees.decode(node, arrays.__getitem__, keep)
        if tree is OMITTED:
            raise fault("no-match", f"select={select!r} matches nothing", path=self.path)
        return tree

    def match(self, target: Tree, *, select: Patterns = None, cast: bool = False) -> MatchReport:
        """How a target tree differs from this checkpoint, without reading or writing anything."""
        keep = self._keep(select)
        return self._match(target, keep, cast)

    def verify(self, *, progress: Progress | None = None) -> VerifyReport:
        """Check every byte; see `ckptfmt.verify`."""
        from .verification import verify_blocks

        return verify_blocks(self.blocks, self._layout, self._located, progress)

    @property
    def zarr(self) -> zarr.Group | zarr.Array[Any]:
        """The tensors as a read-only `zarr.Group` (a `zarr.Array` if the tree is one tensor) over the same, verified
        bytes."""
        from .zarr_store import open_zarr

        return open_zarr(self)

    def _keep(self, select: Patterns) -> Any:
        if select is None:
            return None
        patterns = [select] if isinstance(select, str) else list(select)
        return lambda path: matches_any(patterns, path_text(path))

    def _match(self, target: Tree, keep: Any, cast: bool) -> MatchReport:
        stored = self._leaves if keep is None else {path: leaf for path, leaf in self._leaves.items() if keep(path)}
        return match(target, stored, _is_tensor, cast)

    def _load_into(self, target: Tree, keep: Any, verify: bool, strict: bool, cast: bool) -> Tree:
        report = self._match(target, keep, cast)
        if (strict and not report.ok) or report.shape or report.dtype or report.kind or report.readonly:
            raise fault("mismatch", str(report), path=self.path, report=report)  # [READ-006]
        stored = {path: leaf for path, leaf in self._leaves.items() if keep is None or keep(path)}
        targets: dict[int, list[Array]] = {}
        for path, leaf in flatten(target):
            found = stored.get(path)
            if isinstance(found, Tensor):
                targets.setdefault(found._index, []).append(_bits(leaf, found))
        self._fill(targets, verify)
        return rebuild(target, lambda path, leaf: leaf if isinstance(leaf, np.ndarray) else stored.get(path, leaf))

    def _fill(self, targets: dict[int, list[Array]], verify: bool) -> None:
        """Fill arrays with tensors: straight from storage where an array has the stored form, else through a copy."""
        direct: dict[int, Array] = {}
        for index, arrays in targets.items():
            plain = [array for array in arrays if _is_plain(array, self.manifest.specs[index].dtype.numpy)]
            if plain:
                direct[index] = plain[0]
        self._fetcher.tensors(direct, verify, direct)
        for index, arrays in targets.items():
            values = direct[index] if index in direct else self._fetcher.tensors([index], verify, {})[index]
            for array in arrays:
                if array is not values:
                    array[...] = values

    def _mapped(self, wanted: Iterable[int], verify: bool) -> dict[int, Array]:
        """Private mappings of raw tensors, which cost no read; other tensors are read."""
        maps: dict[str, memoryview] = {}
        arrays: dict[int, Array] = {}
        others = []
        for index in wanted:
            spec = self.manifest.specs[index]
            if not (spec.is_contiguous and spec.chunks and spec.dtype.stored.isnative):
                others.append(index)
                continue
            place = self.blocks.place(index, 0)
            mapping = maps.get(place.object)
            if mapping is None:
                mapping = maps[place.object] = self.blocks.map(place)
            offset = place.extent.offset
            if offset + spec.nbytes > len(mapping):
                text = self._describe(index)
                raise fault(
                    "short-object",
                    f"{place.object or 'the file'} ends inside tensor {text!r}",
                    path=self.path,
                    tensor=text,
                )
            arrays[index] = np.ndarray(spec.shape, spec.dtype.numpy, mapping, offset)
            if verify:
                self.blocks.check_chunk(place, mapping[offset : offset + spec.nbytes])
                self.blocks.decoded(place, partial(check_bools, arrays[index], spec))
        return arrays | self._fetcher.tensors(others, verify, {})

    # ---- closing

    def was_replaced(self) -> bool:
        """Whether the path no longer leads to this checkpoint, because another save replaced it or it was removed."""
        return self._storage.was_replaced()

    def close(self) -> None:
        """Close the file; arrays that were read stay valid, mapped ones too."""
        self._storage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_checkpoint(
    path: str | os.PathLike[str], *, verify: bool = True, max_manifest: int = MAX_MANIFEST
) -> Checkpoint:
    """Open the checkpoint at `path`: reads commit record and manifest only. [READ-001] [READ-002]

    `verify=False` reads exactly the wanted bytes, unchecked. `max_manifest` bounds the manifest's bytes. Raises
    `MissingError` (`not-found`), `NotACheckpointError`, `CorruptError` (`truncated`, `bad-record`, `manifest-digest`,
    `bad-manifest`, `bad-extent`), `UnsupportedError` (`newer-format`, `unknown-…`, `limit-exceeded`) and
    `StorageError`.
    """
    return Checkpoint(path, verify=verify, max_manifest=max_manifest)


def load(
    path: str | os.PathLike[str],
    *,
    select: Patterns = None,
    into: Tree = None,
    mmap: bool = False,
    verify: bool | None = None,
    strict: bool = True,
    cast: bool = False,
) -> Tree:
    """Load a checkpoint as the tree that was saved, with NumPy arrays.

    `select`: one or more globs over path texts ("model/**"); what they leave out is missing from dicts and `OMITTED`
    in lists and tuples. `into`: a tree whose arrays are filled in place; gives that tree with the checkpoint's plain
    values. Differences raise `MismatchError` before anything is written; `strict=False` allows missing and unexpected
    leaves, `cast=True` other dtypes of the same or a wider kind. `mmap`: raw tensors are private, copy-on-write
    mappings of the file, which nothing verifies unless `verify=True` says so. `verify`: check every block's digest;
    True unless mapped. Raises what `open` raises, and `CorruptError` for damage in what is read.
    """
    while True:
        with Checkpoint(path) as checkpoint:
            try:
                return checkpoint.load(select=select, into=into, mmap=mmap, verify=verify, strict=strict, cast=cast)
            except CorruptError:
                if not checkpoint.was_replaced():  # a directory's files go away when another takes its place
                    raise


def _read_manifest(located: Located) -> Manifest:
    record, raw = located.record, located.manifest
    if hashlib.sha256(raw).digest() != record.sha256:  # [COM-003]
        raise fault("manifest-digest", "the manifest's bytes do not match their sha256 [COM-003]", offset=record.offset)
    if record.format[0] == manifests.FORMAT[0]:
        manifest = manifests.decode(raw)
    else:  # an earlier one: commit.decode refuses later ones
        from .migration.formats import decode_older

        manifest = decode_older(raw, record.format)
    if manifest.format != record.format or manifest.layout != record.layout:  # [MAN-005] [LAY-006]
        raise fault("bad-manifest", "format or layout differ from those of the commit record [MAN-005] [LAY-006]")
    if len(record.frame) != manifest.table.digest_size:  # [COM-001]
        raise fault("bad-manifest", "the commit record's frame digest is not of the manifest's algorithm [COM-001]")
    manifest.table.check_extents(record.offset)
    return manifest


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, Tensor)


def _bits(array: Array, tensor: Tensor) -> Array:
    """A target as the dtype that is stored, where the tensor is a view of it (datetime64 of int64)."""
    if tensor._view is None:
        return array
    return array.view(tensor.stored_dtype.newbyteorder(array.dtype.byteorder))


def _is_plain(array: Array, dtype: np.dtype[Any]) -> bool:
    """Whether an array can be filled with stored elements without conversion."""
    return array.dtype == dtype and array.dtype.isnative and array.flags.c_contiguous


def _no_tensor(index: int) -> Any:
    raise fault("bad-manifest", f"metadata refers to tensor {index} [TREE-014]")
