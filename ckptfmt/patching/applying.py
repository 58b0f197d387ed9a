"""Applying a patch: what it makes of its base, written out as a checkpoint that needs neither."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Unpack

from ..brief import Brief
from ..errors import CkptError, fault
from ..format.arrays import ArraySpec
from ..format.digests import Digest, digest_named
from ..format.manifest import Manifest
from ..frameworks.sources import Source
from ..layouts import layout_named
from ..migration.keep import Keeper, keeper
from ..progress import counter
from ..reading.checkpoint import StoredCheckpoint
from ..storage import Attempt
from ..threads import Pool
from ..writing.encoder import EncodedTree
from ..writing.options import PublishOptions
from ..writing.request import Compression, Request, codecs_for, whole_specs
from ..writing.writer import SaveReport, committed, drafted, report_of
from .difference import THREADS
from .matching import whole_one
from .publishing import attempt_at
from .stream import Stream, can_stream


@dataclass(frozen=True, slots=True, repr=False)
class ApplyReport(Brief):
    """What `apply` wrote: `saved`, and whether it is, byte for byte, the checkpoint that the patch was made from
    (`identical`); None where the patch does not say which that was. Whatever this is, the tensors are the same."""

    saved: SaveReport
    identical: bool | None


def applied(
    patch: StoredCheckpoint,
    target: str,
    *,
    layout: str | None = None,
    compression: Compression | Mapping[str, Compression] = None,
    digest: str | None = None,
    verify: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    attempt: Attempt | None = None,
    **options: Unpack[PublishOptions],
) -> ApplyReport:
    """Save the tensors of a patch that is open with its base; see `ckptfmt.apply`. `attempt`: that at the target, if it
    was begun."""
    layout, manifest = layout or "file", patch.manifest
    found = manifest.patch
    if found is None:
        raise fault("bad-option", "this is no patch: it needs no base", path=patch.path)
    _check_base(patch)
    try:
        module = layout_named(layout)
        made = _request(patch, compression, digest or manifest.digest)
        specs = whole_specs(made, layout)
    except CkptError as error:
        error.path = error.path or target
        raise
    report = counter(options.get("progress"), sum(spec.chunks * spec.chunk_nbytes for spec in specs))
    draft = drafted(made, specs, block=manifest.block, report=report, extra=manifest.unknown)
    attempt = attempt or attempt_at(target, layout, options, storage_options)
    try:
        with Pool(THREADS, "ckptfmt-apply") as pool:
            sources = _sources(patch, specs, layout, made.digest, pool, verify=verify)
            written = committed(module, replace(draft, sources=sources), attempt, None, options.get("before_commit"))
    except BaseException:
        attempt.abort()
        raise
    saved = report_of(target, layout, written, made, len(specs), [])
    return ApplyReport(saved, None if found.result is None else found.result.hex() == saved.manifest_sha256)


def _check_base(patch: StoredCheckpoint) -> None:
    """Refuse a patch, or one that it is read through, without its base, before anything is written."""
    link: StoredCheckpoint | None = patch
    while link is not None and link.manifest.patch is not None:
        if link.base is None:
            expected = f"the checkpoint whose manifest has the sha256 {link.manifest.patch.base.hex()}"
            raise fault("missing-base", "the patch's base was not given", path=link.path, expected=expected)
        link = link.base


def _request(patch: StoredCheckpoint, compression: Any, digest: str) -> Request:
    """The result, as it was saved: its nodes are taken over as they are, with tags and all."""
    manifest: Manifest = patch.manifest
    paths, sources = [handle.path for handle in patch.handles], list[Source](patch.handles)
    assert manifest.patch is not None
    return Request(
        encoded=EncodedTree(manifest.tree, paths, sources, ()),
        names=tuple(manifest.names),
        codecs=codecs_for(paths, sources, compression),
        metadata=manifest.metadata,
        schema=manifest.schema,
        digest=digest_named(digest),
        generator=manifest.patch.generator,
    )


def _sources(
    patch: StoredCheckpoint, specs: tuple[ArraySpec, ...], layout: str, digest: Digest, pool: Pool, *, verify: bool
) -> list[Source]:
    """Where the elements come from: copied as they are stored, made ahead, or read when they are written."""
    keepers: dict[int, Keeper | None] = {}
    sources: list[Any] = []
    streamed: list[int] = []
    for number, spec in enumerate(specs):
        kept = None if verify else _kept(patch, number, spec, layout, digest, keepers)
        if kept is None and spec.is_raw and spec.chunks == 1 and can_stream(spec):
            streamed.append(number)
        sources.append(kept or patch.handles[number])
    stream = Stream(patch, streamed, pool, THREADS + 1)
    for number in streamed:
        sources[number] = stream.source(number)
    return sources


def _kept(
    patch: StoredCheckpoint,
    number: int,
    spec: ArraySpec,
    layout: str,
    digest: Digest,
    keepers: dict[int, Keeper | None],
) -> Any:
    """A tensor that is stored somewhere as the result stores it, to be copied by the system; None for any other."""
    found = whole_one(patch, number)
    if found is None or not spec.chunks or found[0].manifest.specs[found[1]] != spec:
        return None
    holder, tensor = found
    if id(holder) not in keepers:
        keepers[id(holder)] = keeper(holder, layout, digest.name)
    keep = keepers[id(holder)]
    return None if keep is None else keep.keep(holder.handles[tensor], (id(holder), tensor, number))
