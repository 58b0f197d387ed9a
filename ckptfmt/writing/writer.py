"""Saving: a request to a draft, the draft to a layout, the whole published at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..brief import Brief
from ..errors import CkptError, fault
from ..format.arrays import ArraySpec
from ..format.digests import DIGEST
from ..format.manifest import BLOCK, Schema
from ..format.tree import Tree
from ..layouts import Written, layout_named
from ..layouts.draft import Draft
from ..patterns import Patterns
from ..progress import Progress, Report, counter
from ..storage import IN_FLIGHT, attempt_for, path_of
from .request import Compression, Request, extra_keys, request, whole_specs

if TYPE_CHECKING:
    from ..parallel.coordinator import Coordinator
    from ..reading.checkpoint import Checkpoint

    Check = Callable[[Checkpoint], object]


@dataclass(frozen=True, slots=True, repr=False)
class SaveReport(Brief):
    """What `save` wrote: `bytes` in all, number of `tensors`, the manifest's sha256 (hex), and the groups of paths
    whose arrays overlap in memory without being the same tensor, which are therefore separate tensors now.
    [TREE-011]"""

    path: str
    layout: str
    bytes: int
    tensors: int
    manifest_sha256: str
    copied_views: tuple[tuple[str, ...], ...]


def save(
    path: str | os.PathLike[str],
    tree: Tree,
    *,
    layout: str | None = None,
    overwrite: bool = False,
    compression: Compression | Mapping[str, Compression] = None,
    schema: Schema | tuple[str, str] | None = None,
    metadata: Tree = None,
    durable: bool = True,
    digest: str = DIGEST,
    progress: Progress | None = None,
    before_commit: Callable[[], Any] | None = None,
    coordinator: Coordinator | None = None,
    storage_options: Mapping[str, Any] | None = None,
    max_bytes_in_flight: int = IN_FLIGHT,
    extra: Mapping[str, Any] | None = None,
    check: Check | None = None,
    skip: Patterns = None,
) -> SaveReport:
    """Save `tree` as one checkpoint at `path`: all of it, or nothing.

    - `tree`: nested dict / list / tuple of NumPy arrays (any shape, byte order and strides), NumPy scalars, None, bool,
      int, float, complex, str and bytes; other plain values of Python (docs/guide.md has the table), Enum members,
      NamedTuples, dataclasses, and what the adapters of imported frameworks know.
    - `skip`: patterns of paths, as `select` of `load` takes them: the entries of dicts, and of objects that are stored
      as such, that are left out. Items of lists and tuples keep their places.
    - `layout`: "file" (one file, the default), "packed" (a directory of packs) or "loose" (one of plain Zarr chunks).
    - `path`: a path, or a URL of any protocol that fsspec can write ("s3://bucket/model.ckpt"); then
      `storage_options` are handed to fsspec, or with `{"engine": "obstore", ...}` the others to obstore.
    - `overwrite=False` never touches what exists; True replaces it atomically: a file, or a directory that is a
      checkpoint with all that is in it. Permissions are those that the umask gives to new files.
    - `compression`: None (raw, can be mapped), "zstd", "gzip", "blosc", a map of `name` and its options, or rules
      {pattern: one of these}, of which the first that matches a tensor's path counts.
    - `schema`: id and version of the parameter layout. `metadata`: a tree of plain values.
    - `durable`: flush to the disk before publishing. `digest`: "xxh3-128", "sha256" or "blake3".
    - `progress(done, total)` is called with bytes now and then, `before_commit()` once all is written. What they raise
      ends the save, and nothing is committed.
    - `coordinator`: save together with other processes (`ckptfmt.parallel`), all of which call this with the same path
      and options and with the parts of tensors that they hold; the layout is "packed".
    - `max_bytes_in_flight`: bounds the memory of uploads, of each process, but for eight parts of 5 MiB, or larger
      ones where the checkpoint would need more than 9,000 of them.
    - `extra`: further keys of the manifest, which readers ignore [MAN-003].
    - `check(checkpoint)`: called with what was written, opened, before it takes its name. What it raises is raised, and
      what was there before stays. A file for a store is made on this machine first. None of `extra`, `check` and
      `before_commit` goes together with `coordinator`.

    Raises `InputError` (codes `unsupported-…`, `too-deep`, `bad-option`, `name-…`, `shards-…`, `ranks-differ`) before
    anything is committed, `ExistsError` (`exists`, `not-replaceable`), `MissingError` (no directory to save into) and
    `StorageError` (`disk-full`, `permission`, `io`, `rank-failed`, `rank-lost`). SPEC.md section 11.
    """
    name = path_of(path, tree)

    def asked() -> Request:
        if coordinator is not None and extra:
            raise fault("bad-option", "extra= is not for saves by many processes", found=sorted(extra))
        if coordinator is not None and check is not None:
            raise fault("bad-option", "check= is not for saves by many processes")
        if coordinator is not None and before_commit is not None:
            raise fault("bad-option", "before_commit= is not for saves by many processes")
        return request(tree, compression=compression, schema=schema, metadata=metadata, digest=digest, skip=skip)

    try:
        if coordinator is not None:
            from ..parallel.save import ParallelSave

            job = ParallelSave(
                name,
                coordinator,
                layout=layout or "packed",
                overwrite=overwrite,
                durable=durable,
                progress=progress,
                options=storage_options,
                in_flight=max_bytes_in_flight,
            )
            written, made = job.save(asked)
            return _report(name, "packed", written, made, job.tensors)
        layout = layout or "file"
        module = layout_named(layout)
        made, further = asked(), extra_keys(extra or {})
        specs = whole_specs(made, layout)
    except CkptError as error:
        error.path = error.path or name
        raise
    draft = drafted(
        made,
        specs,
        report=counter(progress, sum(spec.chunks * spec.chunk_nbytes for spec in specs)),
        extra=further,
    )
    directory = layout != "file"
    attempt = attempt_for(
        name,
        directory=directory,
        overwrite=overwrite,
        durable=durable,
        options=storage_options,
        in_flight=max_bytes_in_flight,
        is_read=check is not None,
    )
    try:
        written = module.write(draft, attempt)
        if check is not None:
            from ..reading.checkpoint import Checkpoint  # here, as saving needs no reader

            try:
                with Checkpoint.within(attempt.written()) as checkpoint:
                    check(checkpoint)
            except CkptError as error:
                told = attempt.fault(error, "cannot read what was written")
                raise told from error if told is not error else error.__cause__
        if before_commit is not None:
            before_commit()
        attempt.publish()
    except BaseException:
        attempt.abort()  # [PUB-007]; also for KeyboardInterrupt
        raise
    return _report(name, layout, written, made, len(specs))


def drafted(
    made: Request, specs: tuple[ArraySpec, ...], *, block: int | None = None, report: Report, extra: Mapping[str, Any]
) -> Draft:
    """The draft of a process that stores all of every tensor, as `specs` say."""
    return Draft(
        sources=[leaf.source for leaf in made.encoded.tensors],
        names=made.names,
        specs=specs,
        tree=made.encoded.node,
        metadata=made.metadata,
        schema=made.schema,
        digest=made.digest,
        block=BLOCK if block is None else block,
        generator=made.generator,
        report=report,
        extra=dict(extra),
    )


def _report(path: str, layout: str, written: Written, made: Request, tensors: int) -> SaveReport:
    digest = written.record.sha256.hex()
    return SaveReport(path, layout, written.bytes, tensors, digest, made.encoded.copied_views)
