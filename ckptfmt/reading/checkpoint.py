"""The lazy `Checkpoint`: opening it reads the manifest only; bytes are fetched when asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn, Self

from ..errors import CkptError, fault
from ..format import tree as trees
from ..format.commit import CommitRecord
from ..format.limits import DEFAULT, Limits, table
from ..format.manifest import Manifest, Schema
from ..format.names import Key, Path, PathIndex, path_label
from ..format.renaming import Renaming
from ..format.tags import CHILDREN, TIMES
from ..format.tree import Tree
from ..layouts import Frame, Layout, Located, layout_of
from ..storage import IN_FLIGHT, Storage, path_of, storage_for
from .blocks import BlockReader
from .fetch import Fetcher
from .located import read_manifest
from .lookup import Lookup
from .tensor import Tensor, is_tensor

if TYPE_CHECKING:
    import zarr

    from ..frameworks.adapter import Adapter
    from ..frameworks.target import MatchReport
    from ..maintenance.verification import VerifyReport
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


class Checkpoint(Lookup[Tensor]):
    """An open checkpoint: its tree with lazy tensors, its metadata, and partial reads. Use it as a context manager, or
    `close` it; when nobody holds it or its tensors any more it closes itself, at once, as they hold it in no circle."""

    _numbers: Sequence[int] | None = None  # of the tensors in the tree, where these are not all that are stored

    renaming = Renaming()  # how its names came about, from those that are stored

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
        self.manifest = read_manifest(self._located, self.limits)
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
        from ..frameworks.registry import RESTORES

        return trees.decode(self.manifest.metadata, _no_tensor, restores=RESTORES)

    @property
    def bytes_read(self) -> int:
        """Chunk bytes read from storage so far."""
        return self.blocks.bytes_read

    def __repr__(self) -> str:
        tensors = len(self)
        return f"<Checkpoint {self.path!r}: {tensors} tensor{'s' * (tensors != 1)}, layout {self.layout}>"

    def __reduce__(self) -> NoReturn:
        self.fetcher.__reduce__()

    # ---- the tree

    @cached_property
    def _paths(self) -> PathIndex:
        return PathIndex(path for path, _ in trees.leaves(self.manifest.tree))

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
    def times(self) -> list[Path]:
        """The places of NumPy's times."""
        return [path for path, name, _ in trees.tags(self.manifest.tree) if name in TIMES]

    def __len__(self) -> int:
        """Number of tensors, aliases counted once."""
        return len(self.numbers)

    @property
    def numbers(self) -> Sequence[int]:
        """The numbers of the tensors in the tree, ascending."""
        return range(len(self.manifest.names)) if self._numbers is None else self._numbers

    def path_of(self, index: int) -> Path:
        """The first path at which a tensor stands, by its number."""
        return self._first_paths(index)

    def describe(self, index: int) -> str:
        """The label of a tensor's path, by its number."""
        return path_label(self.path_of(index))

    def renamed(
        self,
        prefix: Key | Path | None = None,
        strip_prefix: str | Iterable[str] | None = None,
        add_prefix: str | None = None,
    ) -> Checkpoint:
        """The same checkpoint, with other names for its tensors; see `load`. Its Zarr hierarchies keep the stored ones.
        Closing one closes both."""
        renaming = Renaming.of(prefix, strip_prefix, add_prefix)
        if renaming == Renaming():
            return self
        other = type(self).__new__(type(self))
        for name in ("path", "verifies", "limits", "_storage_options", "_storage", "_layout", "_located", "fetcher"):
            setattr(other, name, getattr(self, name))
        other.blocks = self.blocks
        other.manifest = self.manifest._replace(tree=renaming.node(self.manifest.tree, self.path))
        tensors = (node for _, node in trees.leaves(other.manifest.tree) if type(node) is list and node[0] == "tensor")
        other.renaming = renaming
        other._numbers = sorted({index for _, index in tensors})
        other._first_paths = FirstPaths(other.manifest)
        return other

    # ---- reading

    def load(
        self,
        *,
        prefix: Key | Path | None = None,
        strip_prefix: str | Iterable[str] | None = None,
        add_prefix: str | None = None,
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
            self.renamed(prefix, strip_prefix, add_prefix),
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

    def match(
        self,
        target: Tree,
        *,
        prefix: Key | Path | None = None,
        strip_prefix: str | Iterable[str] | None = None,
        add_prefix: str | None = None,
        select: Patterns = None,
        cast: bool = False,
    ) -> MatchReport:
        """How a target tree differs from this checkpoint, without reading or writing anything. What an object loads
        through its own code, only that code can compare."""
        from .loading import Loader

        named = self.renamed(prefix, strip_prefix, add_prefix)
        return Loader(named, into=target, select=select, cast=cast).match()

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


def _no_tensor(index: int) -> Any:
    raise fault("bad-manifest", f"metadata refers to tensor {index} [TREE-014]")
