"""Reading: `open`, the lazy `Checkpoint`, and `load`. Opening reads the manifest only; bytes are fetched
when asked for."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn, Self, Unpack, overload

from ..errors import CkptError, CorruptError, fault
from ..format import manifest as manifests
from ..format import tree as trees
from ..format.commit import CommitRecord
from ..format.digests import digest_named
from ..format.limits import DEFAULT, Limits, table
from ..format.manifest import Manifest, Schema
from ..format.names import Key, Path, PathIndex, path_label, path_text, value_at
from ..format.tags import CHILDREN
from ..format.tree import Tree
from ..layouts import Frame, Layout, Located, layout_of
from ..storage import IN_FLIGHT, Storage, path_of, storage_for
from .blocks import BlockReader
from .fetch import Fetcher
from .tensor import Tensor, is_tensor

if TYPE_CHECKING:
    import zarr

    from ..frameworks.adapter import Adapter
    from ..frameworks.target import MatchReport
    from ..maintenance.verification import VerifyReport
    from ..migration.options import MigrationOptions
    from ..migration.view import MigratedCheckpoint
    from ..patterns import Patterns
    from ..progress import Progress


REPLACED = 16  # times that a checkpoint is opened anew as another has taken its place; some systems always say so


class FirstPaths:
    """The first path at which each tensor stands, by its number."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest

    @cached_property
    def all(self) -> list[Path]:
        paths: list[Path] = [()] * len(self._manifest.names)
        for path, node in reversed(list(trees.leaves(self._manifest.tree))):
            if type(node) is list and node[0] == "tensor":
                paths[node[1]] = path  # the first path wins, as names are made from it
        return paths

    def __call__(self, tensor: int) -> Path:
        return self.all[tensor]


class Checkpoint:
    """An open checkpoint: its tree with lazy tensors, its metadata, and partial reads. Use it as a context manager, or
    `close` it; when nobody holds it or its tensors any more it closes itself, at once, as they hold it in no circle."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        verify: bool = True,
        limits: Limits = DEFAULT,
        storage_options: Mapping[str, Any] | None = None,
        follow_links: bool = False,
    ) -> None:
        """Open the checkpoint at `path`; see `open`."""
        self.path = path_of(path)
        self.verifies = verify
        self._storage_options, self._follow_links = storage_options, follow_links
        self.limits = limits
        openings = 0
        while not self._try_open(final=openings == REPLACED):
            openings += 1

    @classmethod
    def over(
        cls, storage: Storage, layout: Layout, manifest: Manifest, sha256: bytes, path: str, limits: Limits
    ) -> Self:
        """A checkpoint without a commit record that holds, for those who salvage what is whole of it. `sha256` is that
        of its manifest."""
        checkpoint = cls.__new__(cls)
        checkpoint.path, checkpoint.verifies, checkpoint.limits = path, True, limits
        checkpoint._storage_options = None
        checkpoint._storage, checkpoint._layout, checkpoint.manifest = storage, layout, manifest
        record = CommitRecord(manifest.format, manifest.layout, 0, 0, sha256, b"")
        checkpoint._located = Located(record, b"", b"")
        checkpoint._first_paths = FirstPaths(manifest)
        checkpoint.blocks = BlockReader(storage, manifest, checkpoint._first_paths, limits)
        checkpoint.fetcher = Fetcher(checkpoint.blocks)
        return checkpoint

    @classmethod
    def within(cls, storage: Storage, limits: Limits = DEFAULT) -> Self:
        """The checkpoint that a storage reads, which it closes."""
        checkpoint = cls.__new__(cls)
        checkpoint.path, checkpoint.verifies, checkpoint.limits = storage.path, True, limits
        checkpoint._storage, checkpoint._storage_options = storage, None
        try:
            checkpoint._read()
        except BaseException:
            storage.close()
            raise
        return checkpoint

    def _read(self) -> None:
        self._layout = layout_of(self._storage)
        self._located = self._layout.locate(self._storage, self.limits)
        self.manifest = _read_manifest(self._located, self.limits)
        self._first_paths = FirstPaths(self.manifest)
        self.blocks = BlockReader(self._storage, self.manifest, self._first_paths, self.limits)
        self.fetcher = Fetcher(self.blocks)

    def _try_open(self, *, final: bool) -> bool:
        """Open what is at the path now; False if it was replaced, and its files removed, meanwhile. The `final` time
        what is wrong is raised."""
        self._storage = storage_for(self.path, self._storage_options, follow_links=self._follow_links)
        try:
            self._read()
        except BaseException as error:
            replaced = not final and isinstance(error, CkptError) and self._storage.was_replaced()
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
    def record(self) -> CommitRecord:
        """The commit record that makes it exist."""
        return self._located.record

    @property
    def manifest_sha256(self) -> str:
        """What identifies the checkpoint: two with the same one hold the same values. Hexadecimal. [SEC-004]"""
        return self.record.sha256.hex()

    @property
    def schema(self) -> Schema | None:
        return self.manifest.schema

    @cached_property
    def metadata(self) -> Tree:
        """The user's plain values."""
        return trees.decode(self.manifest.metadata, _no_tensor)

    @property
    def bytes_read(self) -> int:
        """Chunk bytes read from storage so far."""
        return self.blocks.bytes_read

    def __repr__(self) -> str:
        tensors = len(self.manifest.names)
        return f"<Checkpoint {self.path!r}: {tensors} tensor{'s' * (tensors != 1)}, layout {self.layout}>"

    def __reduce__(self) -> NoReturn:
        self.fetcher.__reduce__()

    # ---- the tree

    @cached_property
    def tree(self) -> Tree:
        """The tree with a `Tensor` for each tensor leaf; aliases are one `Tensor`."""
        return trees.decode(self.manifest.tree, self.handles.__getitem__, restores=CHILDREN)

    @cached_property
    def tensors(self) -> dict[Path, Tensor]:
        """Every path at which a tensor stands, aliases included."""
        return {path: leaf for path, leaf in self.leaves.items() if isinstance(leaf, Tensor)}

    @cached_property
    def handles(self) -> list[Tensor]:
        """The tensors in their order in the manifest, each once."""
        return [Tensor(self.fetcher, index, path, self.verifies) for index, path in enumerate(self._first_paths.all)]

    @cached_property
    def leaves(self) -> dict[Path, Any]:
        """Every leaf of the tree by its path; an empty container is a leaf."""
        from ..frameworks.target import flatten

        return table(flatten(self.tree, is_tensor))

    @cached_property
    def _paths(self) -> PathIndex:
        return PathIndex(path for path, _ in trees.leaves(self.manifest.tree))

    def __getitem__(self, path: Key | Path) -> Any:
        """The `Tensor`, plain value or container at a path text ("model/wte"), as messages name it ("model/'0'" is the
        str key "0"), or at an exact typed path ("model", 0)."""
        return value_at(self.tree, self._paths.find(path, self.path))

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

    def path_of(self, index: int) -> Path:
        """The first path at which a tensor stands, by its number."""
        return self._first_paths(index)

    def describe(self, index: int) -> str:
        """The label of a tensor's path, by its number."""
        return path_label(self.path_of(index))

    # ---- reading

    def load(
        self,
        *,
        select: Patterns = None,
        into: Tree = None,
        like: Tree = None,
        framework: str | Adapter | None = None,
        mmap: bool = False,
        verify: bool | None = None,
        strict: bool = True,
        cast: bool = False,
        progress: Progress | None = None,
        max_bytes_in_flight: int = IN_FLIGHT,
        on_match: Callable[[MatchReport], None] | None = None,
    ) -> Tree:
        """The tree, or the part of it that `select` names, with NumPy arrays; see `load`."""
        from .loading import Loader  # here, as reading a slice needs none of it

        loader = Loader(
            self,
            select=select,
            into=into,
            like=like,
            framework=framework,
            mmap=mmap,
            verify=verify,
            strict=strict,
            cast=cast,
            progress=progress,
            max_bytes_in_flight=max_bytes_in_flight,
            on_match=on_match,
        )
        return loader.load()

    def match(self, target: Tree, *, select: Patterns = None, cast: bool = False) -> MatchReport:
        """How a target tree differs from this checkpoint, without reading or writing anything. What an object loads
        through its own code, only that code can compare."""
        from .loading import Loader

        return Loader(self, into=target, select=select, cast=cast).match()

    def verify(self, *, progress: Progress | None = None, resume: str | os.PathLike[str] | None = None) -> VerifyReport:
        """Check every byte; see `ckptfmt.verify`."""
        from ..maintenance.verification import verify_blocks

        return verify_blocks(self.blocks, self._layout, self._located, progress, resume)

    def frames(self) -> Iterator[Frame]:
        """The frames, which are read as their parts are taken, with the digests that they must have."""
        return self._layout.frames(self._storage, self._located, self.blocks.index)

    @property
    def typed_zarr(self) -> zarr.Group | zarr.Array[Any]:
        """As `zarr`, with logical shapes and dtypes: bfloat16, the float8 kinds and packed integers are those of
        ml_dtypes. Registers the data types of these names that zarr-python lacks, for all of the process."""
        from .zarr_typed import open_typed

        return open_typed(self)

    @property
    def zarr(self) -> zarr.Group | zarr.Array[Any]:
        """The tensors as a read-only `zarr.Group` (a `zarr.Array` if the tree is one tensor) over the same, verified
        bytes: as stock Zarr readers see them, bfloat16 as uint16."""
        from .zarr_store import open_zarr

        return open_zarr(self)

    # ---- closing

    def was_replaced(self) -> bool:
        """Whether the path no longer leads to this checkpoint, because another save replaced it or it was removed."""
        return self._storage.was_replaced()

    def close(self) -> None:
        """Close the file; arrays that were read stay valid, mapped ones too."""
        self._storage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@overload
def open_checkpoint(
    path: str | os.PathLike[str],
    *,
    verify: bool = True,
    limits: Limits = DEFAULT,
    storage_options: Mapping[str, Any] | None = None,
    follow_links: bool = False,
) -> Checkpoint: ...


@overload
def open_checkpoint(
    path: str | os.PathLike[str],
    *,
    schema: str,
    verify: bool = True,
    limits: Limits = DEFAULT,
    storage_options: Mapping[str, Any] | None = None,
    follow_links: bool = False,
    **options: Unpack[MigrationOptions],
) -> MigratedCheckpoint: ...


def open_checkpoint(
    path: str | os.PathLike[str], *, schema: str | None = None, **options: Any
) -> Checkpoint | MigratedCheckpoint:
    """Open the checkpoint at `path`: reads commit record and manifest only. [READ-001] [READ-002]

    `path`: a path, or a URL of any protocol that fsspec knows ("s3://bucket/model.ckpt"), for which `storage_options`
    are handed to fsspec, or with `{"engine": "obstore", ...}` the others to obstore. `verify=False` reads exactly the
    wanted bytes, unchecked. `limits` bounds the memory that an untrusted checkpoint may take. `follow_links`: also
    through symbolic links in a checkpoint's folder to files in it, or in `blobs` beside it or beside the `snapshots`
    above it, as a cache of Hugging Face has them. [CHK-010]

    With `schema`, a version of the checkpoint's schema: the checkpoint as it is there, planned on the manifest and read
    lazily. `migrations`: a `MigrationSet`, documents (as dicts), paths of JSON or msgpack files, or an iterable of
    these. `source_schema`: id and version of a checkpoint that does not say its own. `down`: against the edges, through
    exact migrations; `lossy` allows lossy ones. `parameters`: values for those of the documents. `externs`: the
    functions that they name.

    Raises `MissingError` (`not-found`), `NotACheckpointError`, `CorruptError` (`truncated`, `bad-record`,
    `manifest-digest`, `bad-manifest`, `bad-extent`), `UnsupportedError` (`newer-format`, `unknown-…`,
    `limit-exceeded`), `LinkedError` (`linked-object`) and `StorageError`; with `schema` also `bad-migration`,
    `unknown-extern`, `no-migration`, `ambiguous-migration`, `irreversible-migration`, and `migration-mismatch` with all
    faults of the plan in `.report`.
    """
    if schema is None:
        if "migrations" in options:
            message = "migrations= needs schema=, the version that they should lead to"
            raise fault("bad-option", message, path=os.fspath(path))
        return Checkpoint(path, **options)
    from ..migration.view import open_migrated

    return open_migrated(path, schema=schema, **options)


def load(
    path: str | os.PathLike[str],
    *,
    select: Patterns = None,
    into: Tree = None,
    like: Tree = None,
    framework: str | Adapter | None = None,
    mmap: bool = False,
    verify: bool | None = None,
    strict: bool = True,
    cast: bool = False,
    progress: Progress | None = None,
    max_bytes_in_flight: int = IN_FLIGHT,
    on_match: Callable[[MatchReport], None] | None = None,
    limits: Limits = DEFAULT,
    storage_options: Mapping[str, Any] | None = None,
    follow_links: bool = False,
    schema: str | None = None,
    **migrating: Unpack[MigrationOptions],
) -> Tree:
    """Load a checkpoint as the tree that was saved, with NumPy arrays.

    - `select`: one or more globs over path texts ("model/**"); what they leave out is missing from dicts and `OMITTED`
      in lists and tuples.
    - `into`: a tree whose tensors (of any framework with an adapter) are filled in place; gives that tree with the
      checkpoint's plain values. Objects with `state_dict()` and `load_state_dict()` get their state as they load it
      themselves. Differences raise `MismatchError` before anything is written; `strict=False` allows missing and
      unexpected leaves, `cast=True` other dtypes of the same or a wider kind. `on_match(report)` is called once the
      target is filled, with the differences that were allowed.
    - `like`: a tree of tensors or descriptions of tensors (such as `jax.ShapeDtypeStruct` with a sharding): gives a new
      tree of the same containers, NamedTuples and dataclasses too, with such tensors. Differences raise as for `into`;
      the text of an int where the template has that int as a key or an index, and None for an empty container are none.
    - `framework`: "torch", "jax" or another that has an adapter, or an adapter: tensors and tagged values of that
      framework. A dtype that it lacks raises `framework-dtype`; `cast=True` takes another of its kind.
    - `mmap`: raw tensors are private, copy-on-write mappings of the file, which nothing verifies unless `verify=True`
      says so.
    - `verify`: check every block's digest; True unless mapped.
    - `progress(done, total)` is called with bytes now and then, from any thread. `max_bytes_in_flight` bounds the host
      memory of tensors on their way to a device, but for the largest one, and of network buffers, but for one block.
    - `limits`: how much memory it may take beyond what is stored; see `Limits`.
    - `storage_options`: for URLs, handed to fsspec, or with `{"engine": "obstore", ...}` the others to obstore.
    - `follow_links`: also through symbolic links in its folder, as `open` says.
    - `schema`, with `migrations` and the other options of `open`: the tree as it is at that version.

    Raises what `open` raises, and `CorruptError` for damage in what is read.
    """
    options: dict[str, Any] = {"schema": schema, "limits": limits, **migrating}
    options |= {"storage_options": storage_options, "follow_links": follow_links}
    for attempts_left in reversed(range(REPLACED + 1)):
        with open_checkpoint(path, **options) as checkpoint:
            try:
                return checkpoint.load(
                    select=select,
                    into=into,
                    like=like,
                    framework=framework,
                    mmap=mmap,
                    verify=verify,
                    strict=strict,
                    cast=cast,
                    progress=progress,
                    max_bytes_in_flight=max_bytes_in_flight,
                    on_match=on_match,
                )
            except CorruptError:
                # a directory's files go away when another takes its place
                if not attempts_left or not checkpoint.was_replaced():
                    raise
    raise AssertionError("the last attempt gives or raises")


def _read_manifest(located: Located, limits: Limits) -> Manifest:
    record, raw = located.record, located.manifest
    memory = limits.values(max(located.size, len(raw)))
    if hashlib.sha256(raw).digest() != record.sha256:  # [COM-003]
        raise fault("manifest-digest", "the manifest's bytes do not match their sha256 [COM-003]", offset=record.offset)
    if record.format[0] == manifests.FORMAT[0]:
        manifest = manifests.decode(raw, memory)
    else:  # an earlier one: commit.decode refuses later ones
        from ..migration.formats import decode_older

        manifest = decode_older(raw, record.format, memory)
    if manifest.format != record.format or manifest.layout != record.layout:  # [MAN-005] [LAY-006]
        raise fault("bad-manifest", "format or layout differ from those of the commit record [MAN-005] [LAY-006]")
    if len(record.frame) != digest_named(manifest.digest).size:  # [COM-001]
        raise fault("bad-manifest", "the commit record's frame digest is not of the manifest's algorithm [COM-001]")
    if manifest.layout == "file":
        manifest.table.check_extents(record.offset)
    return manifest


def _no_tensor(index: int) -> Any:
    raise fault("bad-manifest", f"metadata refers to tensor {index} [TREE-014]")
