"""Reading: `open` and `load`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Unpack, overload

from ..errors import CkptError, CorruptError, fault
from ..format.limits import DEFAULT, Limits
from ..format.names import Key, Path
from ..format.tree import Tree
from ..storage import IN_FLIGHT
from .checkpoint import REPLACED, Checkpoint

if TYPE_CHECKING:
    from ..frameworks.adapter import Adapter
    from ..frameworks.target import MatchReport
    from ..migration.options import MigrationOptions
    from ..migration.view import MigratedCheckpoint
    from ..patterns import Patterns
    from ..progress import Progress
    from .tensors import FrameworkCheckpoint


@overload
def open_checkpoint(
    path: str | os.PathLike[str],
    *,
    framework: None = None,
    prefix: Key | Path | None = None,
    strip_prefix: str | Iterable[str] | None = None,
    add_prefix: str | None = None,
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
    framework: None = None,
    prefix: Key | Path | None = None,
    strip_prefix: str | Iterable[str] | None = None,
    add_prefix: str | None = None,
    verify: bool = True,
    limits: Limits = DEFAULT,
    storage_options: Mapping[str, Any] | None = None,
    follow_links: bool = False,
    **options: Unpack[MigrationOptions],
) -> MigratedCheckpoint: ...


@overload
def open_checkpoint(
    path: str | os.PathLike[str],
    *,
    schema: str | None = None,
    framework: str | Adapter,
    prefix: Key | Path | None = None,
    strip_prefix: str | Iterable[str] | None = None,
    add_prefix: str | None = None,
    verify: bool = True,
    limits: Limits = DEFAULT,
    storage_options: Mapping[str, Any] | None = None,
    follow_links: bool = False,
    **options: Unpack[MigrationOptions],
) -> FrameworkCheckpoint: ...


def open_checkpoint(
    path: str | os.PathLike[str],
    *,
    schema: str | None = None,
    framework: str | Adapter | None = None,
    prefix: Key | Path | None = None,
    strip_prefix: str | Iterable[str] | None = None,
    add_prefix: str | None = None,
    verify: bool = True,
    limits: Limits = DEFAULT,
    storage_options: Mapping[str, Any] | None = None,
    follow_links: bool = False,
    **options: Unpack[MigrationOptions],
) -> Checkpoint | MigratedCheckpoint | FrameworkCheckpoint:
    """Open the checkpoint at `path`: reads commit record and manifest only. [READ-001] [READ-002]

    `path`: a path, or a URL of any protocol that fsspec knows ("s3://bucket/model.ckpt"), for which `storage_options`
    are handed to fsspec, or with `{"engine": "obstore", ...}` the others to obstore. `verify=False` reads exactly the
    wanted bytes, unchecked. `limits` bounds the memory that an untrusted checkpoint may take. `follow_links`: also
    through symbolic links in a checkpoint's folder to files in it, or in `blobs` beside it or beside the `snapshots`
    above it, as a cache of Hugging Face has them. [CHK-010] `prefix`, `strip_prefix` and `add_prefix` change the names
    of the tensors as in `load`. `framework`: "torch", "jax" or another that has an adapter, or an adapter: slices and
    whole tensors are that framework's.

    With `schema`, a version of the checkpoint's schema: the checkpoint as it is there, planned on the manifest and read
    lazily. `migrations`: a `MigrationSet`, documents (as dicts), paths of JSON or msgpack files, or an iterable of
    these. `source_schema`: id and version of a checkpoint that does not say its own. `down`: against the edges, through
    exact migrations; `lossy` allows lossy ones. `parameters`: values for those of the documents. `externs`: the
    functions that they name.

    Raises `MissingError` (`not-found`), `NotACheckpointError`, `CorruptError` (`truncated`, `bad-record`,
    `manifest-digest`, `bad-manifest`, `bad-extent`), `UnsupportedError` (`newer-format`, `unknown-…`,
    `limit-exceeded`), `LinkedError` (`linked-object`) and `StorageError`; with `prefix` also `no-such-path`; with
    `schema` also `bad-migration`, `unknown-extern`, `no-migration`, `ambiguous-migration`, `irreversible-migration`,
    and `migration-mismatch` with all faults of the plan in `.report`.
    """
    if schema is None and options:
        message = (
            f"{', '.join(f'{name}=' for name in options)} needs schema=, the version that migrations should lead to"
        )
        raise fault("bad-option", message, path=path)
    stored = Checkpoint(path, verify=verify, limits=limits, storage_options=storage_options, follow_links=follow_links)
    try:
        named = stored.renamed(prefix, strip_prefix, add_prefix)
        found: Checkpoint | MigratedCheckpoint = named
        if schema is not None:
            from ..migration.view import migrated

            found = migrated(named, schema, **options)
        if framework is not None:
            from ..frameworks.adapter import adapter_named
            from .tensors import FrameworkCheckpoint

            adapter = adapter_named(framework) if isinstance(framework, str) else framework
            return FrameworkCheckpoint(found, adapter)
    except BaseException as error:
        stored.close()
        if isinstance(error, CkptError):
            error.path = error.path or stored.path
        raise
    return found


def load(
    path: str | os.PathLike[str],
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
    limits: Limits = DEFAULT,
    storage_options: Mapping[str, Any] | None = None,
    follow_links: bool = False,
    schema: str | None = None,
    **migrating: Unpack[MigrationOptions],
) -> Tree:
    """Load a checkpoint as the tree that was saved, with NumPy arrays.

    - `prefix`: only what stands at that path ("model", or its exact keys), or under names that begin with it
      ("model."), and without it. `strip_prefix`: a prefix, or several, that is taken off all names which begin with it:
      "module.", of DataParallel; those of torch.compile, FSDP and activation checkpointing ("_orig_mod.",
      "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.") wherever they stand; "model/" is a level at the top.
      `add_prefix` is put before the names at the top. In this order, before all else: migrations, too, see such names.
    - `select`: one or more globs over path texts ("model/**"); what they leave out is missing from dicts and `OMITTED`
      in lists and tuples; of a target or template it stays as it is, and is not missing.
    - `into`: a tree whose tensors (of any framework with an adapter) are filled in place; gives that tree with the
      checkpoint's plain values. Objects with `state_dict()` and `load_state_dict()` get their state as they load it
      themselves. Differences raise `MismatchError` before anything is written; `strict=False` allows missing and
      unexpected leaves, `cast=True` other dtypes of the same or a wider kind. `on_match(report)` is called at the end,
      for `like`, too, with the differences that were allowed.
    - `like`: a tree of tensors or descriptions of tensors (such as `jax.ShapeDtypeStruct` with a sharding): gives a new
      tree of the same containers, NamedTuples and dataclasses too, with such tensors. Differences raise as for `into`;
      the text of an int where the template has that int as a key or an index, and None for an empty container are none.
    - `framework`: "torch", "jax" or another that has an adapter, or an adapter: tensors and tagged values of that
      framework. A dtype that it lacks raises `framework-dtype`; `cast=True` takes another of its kind.
    - `mmap`: raw tensors are private, copy-on-write mappings of the file, which nothing verifies unless `verify=True`
      says so. With `into`, of modules: their parameters and buffers on the host become such mappings; what else is read
      for them is verified.
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
    options |= {"prefix": prefix, "strip_prefix": strip_prefix, "add_prefix": add_prefix}
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
