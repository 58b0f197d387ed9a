"""The public `Checkpoint`: one face for a checkpoint as it is stored, for one seen at another version of its schema,
and for tensors of any framework."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, Self, Unpack

from .calls import takes
from .errors import CkptError, fault
from .format.limits import DEFAULT
from .format.names import path_label
from .format.tree import tags_of
from .reading.checkpoint import StoredCheckpoint
from .reading.lookup import Lookup
from .reading.tensor import ArrayLike

if TYPE_CHECKING:
    import os

    import zarr

    from .format.manifest import Schema
    from .format.names import Key, Path, PathIndex
    from .format.tree import Tags, Tree
    from .frameworks.adapter import Adapter
    from .frameworks.target import MatchReport
    from .maintenance.verification import VerifyReport
    from .migration.plan import MigrationPlan
    from .options import MatchOptions, OpenOptions, ReadOptions
    from .progress import Progress
    from .reading.framework_tensor import FrameworkTensor
    from .reading.view import CheckpointView
    from .storage import Place, Storage

    AnyTensor = ArrayLike | FrameworkTensor
else:
    from .reading.tensor import ArrayLike as AnyTensor  # as a text in its place would be compiled


LISTED = 20_000  # tensors, beyond which a notebook lists none


class Checkpoint(Lookup[AnyTensor]):
    """An open checkpoint: its tree with tensors that have not been read, its metadata, and partial reads. It is a
    mapping of its tensors, with `keys()`, `values()`, `items()`, `get()`, `in`, `len()` and indexing.

    `path` and `options` are those of `ckptfmt.open`. Use it as a context manager, or `close` it; when nobody holds it
    or its tensors any more it closes itself, at once. May be used from several threads; each load has a progress and a
    bound of memory of its own. Indexing raises `no-such-path` and `ambiguous-path`.
    """

    _adapter: Adapter | None = None
    _plan: MigrationPlan | None = None

    @takes("ckptfmt.options.OpenOptions")
    def __init__(self, path: Place, **options: Unpack[OpenOptions]) -> None:
        """Open the checkpoint at `path`; see `ckptfmt.open`."""
        self._view: CheckpointView[Any]
        if options:
            self._open_as_asked(path, dict(options))
        else:  # which needs less to be imported
            self._view = StoredCheckpoint(path, beside=True)

    def _open_as_asked(self, path: Place, found: dict[str, Any]) -> None:
        from .reading.options import StoredOptions, taken_names
        from .storage import place_of

        schema, framework = found.pop("schema", None), found.pop("framework", None)
        trust = found.pop("trust", None)
        renaming = taken_names(found, place_of(path))
        opening = {name: found.pop(name) for name in StoredOptions.__annotations__ if name in found}
        if schema is None and found:
            message = f"{', '.join(f'{name}=' for name in found)} requires schema=, the version that migrations lead to"
            raise fault("bad-option", message, path=path)
        stored = StoredCheckpoint(path, beside=True, **opening)
        try:
            if trust is not None:
                stored.require_verification()
                from .signing.signature import check

                check(stored, trust, storage_options=opening.get("storage_options"))
            self._view = stored.renamed(renaming)
            if schema is not None:
                from .migration.view import migrated

                view = migrated(stored.renamed(renaming), schema, **found)
                self._view, self._plan = view, view.plan
            if framework is not None:
                from .frameworks.adapter import adapter_named

                self._adapter = adapter_named(framework) if isinstance(framework, str) else framework
        except BaseException as error:
            stored.close()
            if isinstance(error, CkptError):
                error.path = error.path or stored.path
            raise

    @classmethod
    def _over(cls, view: CheckpointView[Any]) -> Self:
        checkpoint = cls.__new__(cls)
        checkpoint._view = view
        return checkpoint

    # ---- what it says about itself

    @property
    def path(self) -> str:
        """The path or URL at which it was opened."""
        return self._view.path

    @property
    def layout(self) -> str:
        """How it is stored: "file", "packed" or "loose"."""
        return self._view.stored.layout

    @property
    def format(self) -> tuple[int, int]:
        """(major, minor) of the specification that it follows."""
        return self._view.stored.format

    @property
    def generator(self) -> str:
        """The program that wrote it."""
        return self._view.stored.generator

    @property
    def manifest_sha256(self) -> str:
        """What identifies the checkpoint, in hexadecimal: two with the same one hold the same values. [SEC-004]"""
        return self._view.stored.manifest_sha256

    @property
    def schema(self) -> Schema | None:
        """Id and version of its parameter layout: of the version at which it is seen."""
        return self._view.schema

    @property
    def plan(self) -> MigrationPlan | None:
        """What the migrations make of it, where it is seen at another version."""
        return self._plan

    @property
    def is_patch(self) -> bool:
        """Whether some of its tensors are made of those of another checkpoint, its base."""
        return self._view.stored.manifest.patch is not None

    @property
    def metadata(self) -> Tree:
        """The user's plain values."""
        return self._view.metadata

    @property
    def provenance(self) -> list[dict[str, Any]]:
        """What migrations, upgrades and repairs made it from what, the oldest first. [MIG-017]"""
        from .migration.apply import provenance

        return provenance(self._view.stored)

    @property
    def bytes_read(self) -> int:
        """Bytes of chunks read from storage so far."""
        return self._view.stored.bytes_read

    def __repr__(self) -> str:
        count = f"{len(self)} tensor{'s' * (len(self) != 1)}"
        at = f", at {self.schema.id} {self.schema.version}" if self.plan is not None and self.schema else ""
        of = f", for {self._adapter.framework}" if self._adapter is not None else ""
        return f"<Checkpoint {self.path!r}: {count}, layout {self.layout}{at}{of}>"

    def _repr_html_(self) -> str:
        from .markup import ROWS, facts, heading, table  # here, as notebooks alone ask for it

        count, version = len(self), ".".join(map(str, self.format))
        pairs: list[tuple[str, Any]] = [("tensors", count), ("layout", f"{self.layout}, format {version}")]
        pairs += [] if self.schema is None else [("schema", f"{self.schema.id} {self.schema.version}")]
        pairs += [] if self.metadata is None else [("metadata", self.metadata)]
        page = heading("Checkpoint", self.path) + facts(pairs)
        if not 0 < count <= LISTED:
            return page
        first = islice(self._view.tensors.items(), ROWS)
        rows = ((path_label(path), one.dtype.name, str(list(one.shape)), one.nbytes) for path, one in first)
        return page + table(("name", "dtype", "shape", "bytes"), rows, len(self._view.tensors))

    # ---- its tree

    @property
    def paths(self) -> PathIndex:
        """The paths of all leaves, to be looked up."""
        return self._view.paths

    @property
    def tree(self) -> Tree:
        """The tree with a tensor that has not been read for each tensor leaf; aliases are one."""
        return self._seen(self._view.tree)

    @property
    def tensors(self) -> Mapping[Path, AnyTensor]:
        """Every path at which a tensor stands, aliases included."""
        if self._adapter is None:
            return self._view.tensors
        return {path: self._seen(tensor) for path, tensor in self._view.tensors.items()}

    @property
    def leaves(self) -> Mapping[Path, Any]:
        """Every leaf of the tree by its path; an empty container is a leaf."""
        if self._adapter is None:
            return self._view.leaves
        return {path: self._seen(leaf) for path, leaf in self._view.leaves.items()}

    @property
    def tags(self) -> Tags:
        """The tags over the values of the tree: by path their names and params, the outermost first. [TAG-001]"""
        return self._view.tags

    @property
    def metadata_tags(self) -> Tags:
        """The same of the metadata."""
        return tags_of(self._view.stored.manifest.metadata)

    def __getitem__(self, path: Key | Path) -> Any:
        return self._seen(self._view[path])

    def __contains__(self, path: Key | Path) -> bool:
        return path in self._view

    def __iter__(self) -> Iterator[str | Path]:
        """What finds each tensor: its path text; where that fits more than one value, its exact path."""
        return iter(self._view)

    def __len__(self) -> int:
        """Number of tensors, aliases counted once."""
        return len(self._view)

    @cached_property
    def _of_framework(self) -> dict[int, FrameworkTensor]:
        return {}

    def _seen(self, value: Any) -> Any:
        """A value with tensors of the framework."""
        if self._adapter is None:
            return value
        if isinstance(value, ArrayLike):
            from .reading.framework_tensor import FrameworkTensor

            return self._of_framework.setdefault(id(value), FrameworkTensor(value, self._adapter))
        if isinstance(value, dict):
            items = ((key, self._seen(item)) for key, item in value.items())
            return OrderedDict(items) if isinstance(value, OrderedDict) else dict(items)
        return type(value)(map(self._seen, value)) if type(value) in (list, tuple) else value

    # ---- reading

    @takes("ckptfmt.options.ReadOptions")
    def load(self, **options: Unpack[ReadOptions]) -> Tree:
        """Load the tree, or the part of it that `select` names, with NumPy arrays or the framework's tensors, or `into`
        a target; options and errors are those of `ckptfmt.load`. Names are those under which it was opened."""
        from .reading.options import taken_names

        found: dict[str, Any] = {"framework": self._adapter, **options}
        return self._view.renamed(taken_names(found, self.path)).loader(**found).load()

    @takes("ckptfmt.options.MatchOptions")
    def match(self, target: Tree, **options: Unpack[MatchOptions]) -> MatchReport:
        """Compare a target tree with this checkpoint, without reading a tensor or writing anything. What an object
        loads through its own code, only that code can compare. Options are those of `ckptfmt.load`. Raises
        `SelectionError` and `bad-option`."""
        from .reading.options import taken_names

        found: dict[str, Any] = dict(options)
        return self._view.renamed(taken_names(found, self.path)).loader(into=target, **found).match()

    @takes()
    def verify(self, *, progress: Progress | None = None, resume: str | os.PathLike[str] | None = None) -> VerifyReport:
        """Check every byte that is stored, of a base that was given or found, too; `progress`, `resume` and errors are
        those of `ckptfmt.verify`."""
        from .maintenance.verification import verify_stored

        return verify_stored(self._view.stored, progress, resume)

    @property
    def typed_zarr(self) -> zarr.Group | zarr.Array[Any]:
        """As `zarr`, with logical shapes and dtypes: bfloat16, the float8 kinds and packed integers are those of
        ml_dtypes. Registers the data types of these names that zarr-python lacks, for all of the process."""
        from .reading.zarr_typed import open_typed

        return open_typed(self._as_stored("typed_zarr"))

    @property
    def zarr(self) -> zarr.Group | zarr.Array[Any]:
        """The tensors as a read-only `zarr.Group` (a `zarr.Array` if the tree is one tensor) over the same, verified
        bytes: as stock Zarr readers see them, bfloat16 as uint16. Requires zarr (`missing-package`)."""
        from .reading.zarr_store import open_zarr

        return open_zarr(self._as_stored("zarr"))

    def _as_stored(self, name: str) -> StoredCheckpoint:
        if self.plan is not None:
            advice = "Open it without schema=, or write it out with ckptfmt.migrate"
            raise fault(
                "bad-option", f"{name}: tensors at another version are not stored", path=self.path, advice=advice
            )
        if self.is_patch:
            message, advice = f"{name}: not all tensors of a patch are stored", "Write it out with ckptfmt.apply"
            raise fault("bad-option", message, path=self.path, advice=advice)
        return self._view.stored

    # ---- closing

    def was_replaced(self) -> bool:
        """Tell whether the path no longer leads to this checkpoint, because another save replaced it or it was
        removed."""
        return self._view.stored.was_replaced()

    def close(self) -> None:
        """Close the checkpoint; arrays that were read stay valid, mapped ones too."""
        self._view.stored.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def within(storage: Storage) -> Iterator[Checkpoint]:
    """The checkpoint that a storage reads, while the block runs."""
    with StoredCheckpoint.within(storage, DEFAULT) as stored:
        yield Checkpoint._over(stored)
