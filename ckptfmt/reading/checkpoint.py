"""A stored checkpoint that is open: opening it reads the manifest only; bytes are fetched when asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn, Self

from ..errors import CkptError, fault
from ..format import tree as trees
from ..format.commit import CommitRecord
from ..format.limits import DEFAULT, Limits, table
from ..format.manifest import Manifest, Schema
from ..format.names import Key, Path, PathIndex, name_of, path_label, path_text, unescape
from ..format.node import PagedNode
from ..layouts import Frame, Layout, Located, layout_of
from ..storage import Storage, place_of, storage_for
from .blocks import BlockReader
from .fetch import Fetcher
from .located import read_manifest
from .tensor import Tensor, is_tensor
from .view import CheckpointView

if TYPE_CHECKING:
    import zarr

    from ..format.renaming import Renaming
    from ..format.tree import Tags, Tree
    from ..storage import Place
    from .bases import Bases, PatchBase
    from .supply import Reads, StoredSupply


MISSING: Any = object()
TIMES_OF = frozenset({"int64"})  # dtypes over whose tensors a tag may stand that makes others of them: TIMES
REPLACED = 16  # times that a checkpoint is opened anew as another has taken its place; some systems always say so


class FirstPaths:
    """The first path at which each tensor stands, by its number."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._are_names = manifest.pages is not None and isinstance(manifest.root, PagedNode)

    @cached_property
    def all(self) -> list[Path]:
        if self._are_names:  # [PAGE-005]
            return list(map(unescape, self._manifest.names))
        paths: list[Path] = [()] * len(self._manifest.names)
        for path, node in reversed(list(trees.leaves(self._manifest.tree))):
            if type(node) is list and node[0] == "tensor":
                paths[node[1]] = path  # the first path wins, as names are made from it
        return paths

    def __call__(self, tensor: int) -> Path:
        return unescape(self._manifest.names[tensor]) if self._are_names else self.all[tensor]


class StoredCheckpoint(CheckpointView[Tensor]):
    """A checkpoint as it is stored, with all that this package knows of it; `ckptfmt.Checkpoint` shows what its users
    need. When nobody holds it or its tensors any more it closes itself, at once, as they hold it in no circle."""

    path = ""
    is_trusted = False  # whether somebody who is trusted has signed it, so that nothing of it is read unverified
    _numbers: Sequence[int] | None = None  # of the tensors in the tree, where these are not all that are stored
    base: StoredCheckpoint | None = None  # what a patch is read through, where it was given
    _closes_base = False

    def __init__(
        self,
        path: Place,
        *,
        verify: bool | None = None,
        limits: Limits = DEFAULT,
        storage_options: Mapping[str, Any] | None = None,
        follow_links: bool = False,
        base: PatchBase | Bases = None,
        beside: bool = False,
    ) -> None:
        """Open the checkpoint at `path`; see `ckptfmt.open`. `beside`: look there for a base that is not given."""
        self.path = place_of(path)
        self.verifies = verify is not False
        self._storage_options, self._follow_links = storage_options, follow_links
        self.limits = limits
        openings = 0
        while not self._try_open(final=openings == REPLACED):
            openings += 1
        if self.manifest.patch is not None and (beside or base is not None):
            self._take_base(base)

    def require_verification(self) -> None:
        """Have nothing of it read unverified, as it is trusted for a signature; raises `bad-option`. [SIG-010]"""
        self.is_trusted = True
        if not self.verifies:
            self.verification(False)

    def verification(self, verify: bool | None) -> bool | None:
        """What `verify=` of a read comes to; raises `bad-option` where it contradicts `trust=`. [SIG-010]"""
        if self.is_trusted and verify is False:
            message = "what is read because of a signature has to be verified"
            raise fault("bad-option", message, path=self.path, found="verify=False", expected="trust= without it")
        return True if self.is_trusted else verify

    @classmethod
    def over(
        cls, storage: Storage, layout: Layout, manifest: Manifest, sha256: bytes, path: str, limits: Limits
    ) -> Self:
        """A checkpoint without a commit record that holds, for those who salvage what is whole of it. `sha256` is that
        of its manifest."""
        checkpoint = cls.__new__(cls)
        checkpoint.path, checkpoint.verifies, checkpoint.limits = path, True, limits
        checkpoint._storage_options = None
        checkpoint._storage, checkpoint.rules, checkpoint.manifest = storage, layout, manifest
        record = CommitRecord(manifest.format, manifest.layout, 0, 0, sha256, b"")
        checkpoint.located = Located(record, b"", b"")
        checkpoint._first_paths = FirstPaths(manifest)
        checkpoint.blocks = BlockReader(storage, manifest, checkpoint._first_paths, limits)
        checkpoint.fetcher = checkpoint._fetcher()
        return checkpoint

    def with_manifest(self, manifest: Manifest) -> StoredCheckpoint:
        """What a manifest tells of, in the same storage, which is closed with this one."""
        assert self._storage is not None
        sha256 = self.located.record.sha256
        return StoredCheckpoint.over(self._storage, self.rules, manifest, sha256, self.path, self.limits)

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
        self.rules = layout_of(self._storage)
        self.located = self.rules.locate(self._storage, self.limits)
        self.manifest = read_manifest(self.located, self.limits, self._storage.read)
        self._first_paths = FirstPaths(self.manifest)
        self.blocks = BlockReader(self._storage, self.manifest, self._first_paths, self.limits)
        self.fetcher = self._fetcher()

    def _fetcher(self) -> Fetcher:
        if self.manifest.patch is None:
            return Fetcher(self.blocks)
        from .patched import PatchFetcher  # here, as most are no patches

        return PatchFetcher(self.blocks, self.manifest.patch, None if self.base is None else self.base.fetcher)

    def _take_base(self, given: PatchBase | Bases) -> None:
        """Read through the base that is among what is given; raises `wrong-base`, and what opening it raises."""
        from .bases import Bases

        try:
            known = Bases.of(given, self, self._storage_options, follow_links=self._follow_links)
            self.base, self._closes_base = known.base_of(self)
        except BaseException:
            self._storage.close()
            raise
        self.fetcher = self._fetcher()

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
        return self.located.record

    @property
    def manifest_sha256(self) -> str:
        """What identifies the checkpoint: two with the same one hold the same values. Hexadecimal. [SEC-004]"""
        return self.record.sha256.hex()

    @property
    def stored(self) -> Self:
        return self

    @property
    def schema(self) -> Schema | None:
        return self.manifest.schema

    @cached_property
    def metadata(self) -> Tree:
        from ..frameworks.registry import RESTORES

        return trees.decode(self.manifest.metadata, _no_tensor, restores=RESTORES)

    @property
    def bytes_read(self) -> int:
        """Chunk bytes read from storage so far."""
        return self.blocks.total.value

    def __repr__(self) -> str:
        tensors = len(self)
        return f"<StoredCheckpoint {self.path!r}: {tensors} tensor{'s' * (tensors != 1)}, layout {self.layout}>"

    def __reduce__(self) -> NoReturn:
        self.fetcher.__reduce__()

    # ---- the tree

    @cached_property
    def paths(self) -> PathIndex:
        return PathIndex(path for path, _ in trees.leaves(self.manifest.tree))

    @cached_property
    def tree(self) -> Tree:
        return trees.decode(self.manifest.tree, self.handles.__getitem__, restores=None)

    @cached_property
    def tensors(self) -> dict[Path, Tensor]:
        return {path: leaf for path, leaf in self.leaves.items() if isinstance(leaf, Tensor)}

    @cached_property
    def handles(self) -> list[Tensor]:
        """The tensors in their order in the manifest, each once."""
        made = [Tensor(self.fetcher, index, path, self.verifies) for index, path in enumerate(self._first_paths.all)]
        for index, found in self._handles.items():
            made[index] = found
        return made

    @cached_property
    def _handles(self) -> dict[int, Tensor]:
        """Those that were looked up one by one."""
        return {}

    @cached_property
    def leaves(self) -> dict[Path, Any]:
        from ..frameworks.target import flatten

        return table(flatten(self.tree, is_tensor))

    @property
    def tags(self) -> Tags:
        return trees.tags_of(self.manifest.tree)

    @cached_property
    def times(self) -> list[Path]:
        """The places of NumPy's times."""
        from ..format.tags import TIMES

        return [path for path, name, _ in trees.tags(self.manifest.tree) if name in TIMES]

    def __len__(self) -> int:
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

    @cached_property
    def renaming(self) -> Renaming:
        """How its names came about, from those that are stored."""
        from ..format.renaming import Renaming  # here, as most checkpoints keep their names

        return Renaming()

    def renamed(self, renaming: Renaming) -> Self:
        """Its Zarr hierarchies keep the stored names."""
        if renaming == type(renaming)():
            return self
        other = type(self).__new__(type(self))
        for name in (
            "path",
            "verifies",
            "is_trusted",
            "limits",
            "_storage_options",
            "_storage",
            "rules",
            "located",
            "fetcher",
        ):
            setattr(other, name, getattr(self, name))
        other.base, other._closes_base = self.base, self._closes_base
        other.blocks = self.blocks
        other.manifest = self.manifest._replace(root=renaming.node(self.manifest.tree, self.path))
        tensors = (node for _, node in trees.leaves(other.manifest.tree) if type(node) is list and node[0] == "tensor")
        other.renaming = renaming
        other._numbers = sorted({index for _, index in tensors})
        other._first_paths = FirstPaths(other.manifest)
        return other

    # ---- what stands at a path, without a look at the rest of the tree: of a paged one, through few pages

    def __getitem__(self, path: Key | Path) -> Any:
        found = self._found(path)
        return super().__getitem__(path) if found is MISSING else found

    def __contains__(self, path: Key | Path) -> bool:
        return self._found(path) is not MISSING or super().__contains__(path)

    def __iter__(self) -> Iterator[str | Path]:
        names = None if "leaves" in self.__dict__ else self._plain_names()
        return super().__iter__() if names is None else iter(names)

    def _plain_names(self) -> list[str] | None:
        """The path texts of all tensors, where surely none fits two values; None where that is not sure, or there are
        tagged values that are one leaf whatever they are made of."""
        names = []
        for path, node in trees.leaves(self.manifest.tree) if self._has_plain_keys else ():
            if type(node) is list and node[0] == "tag":
                return None
            if type(node) is list and node[0] == "tensor":
                names.append(path_text(path))
        return names if self._has_plain_keys else None

    def _found(self, path: Key | Path) -> Any:
        """The tensor or plain value at a path; `MISSING` where all of the tree has to be looked through."""
        if "tree" in self.__dict__:
            return MISSING
        root, pages = self.manifest.root, self.manifest.pages
        is_paged = isinstance(root, PagedNode)
        exact = root.exact(path) if is_paged else trees.exact_in(path, self._has_plain_keys)
        if exact is None:
            return MISSING
        index = None
        if is_paged and pages is not None:
            with suppress(CkptError, UnicodeError):  # no tensor has such a path, or its page is damaged: it shows below
                index = pages.find(name_of(exact))
        if index is not None and self.manifest.specs[index].dtype.name not in TIMES_OF:
            return self._handle(index)
        node = root.leaf(exact) if is_paged else trees.leaf_at(root, exact)
        return MISSING if node is None else trees.decode(node, self._handle, restores=None)

    @cached_property
    def _has_plain_keys(self) -> bool:
        return trees.has_plain_keys(self.manifest.tree)

    def _handle(self, index: int) -> Tensor:
        if index not in self._handles:
            is_first = self.manifest.pages is None and self.blocks.path_of is self._first_paths  # which takes all paths
            path = None if is_first else self._first_paths(index)
            self._handles[index] = Tensor(self.fetcher, index, path, self.verifies)
        return self._handles[index]

    # ---- reading

    def supply(self, reads: Reads) -> StoredSupply:
        from .supply import StoredSupply  # here, as reading a slice needs none of it

        return StoredSupply(self)

    def frames(self) -> Iterator[Frame]:
        """The frames, which are read as their parts are taken, with the digests that they must have."""
        return self.rules.frames(self._storage, self.located, self.blocks.index)

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
        """Close the file, and a base that was opened for it; arrays that were read stay valid, mapped ones too."""
        self._storage.close()
        if self._closes_base and self.base is not None:
            self.base.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _no_tensor(index: int) -> Any:
    raise fault("bad-manifest", f"metadata refers to tensor {index} [TREE-014]")
