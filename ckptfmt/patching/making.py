"""Making a patch: two checkpoints are compared, and what is different is published as a third."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Unpack

import numpy as np

from .._version import __version__
from ..brief import Brief
from ..errors import fault
from ..format.arrays import SAME, WHOLE, XOR
from ..format.codecs import RAW, Codec, codec_asked
from ..format.patch import Patch
from ..frameworks.sources import KeptTensor
from ..layouts import layout_named
from ..layouts.draft import Draft
from ..progress import counter, nothing
from ..reading.checkpoint import StoredCheckpoint
from ..reading.view import CheckpointView
from ..storage import Attempt
from ..writing.options import PublishOptions
from ..writing.writer import committed
from .difference import FormChooser, StoredForm
from .matching import matches
from .publishing import attempt_at
from .spool import Spool, spool_beside

COMPRESSION: Mapping[str, Any] = {"name": "blosc", "cname": "zstd", "clevel": 5, "shuffle": "shuffle"}


class FormTotal(NamedTuple):
    """What is stored in one form: the number of tensors, the bytes of their elements, and the bytes in the patch."""

    tensors: int
    bytes: int
    stored: int


@dataclass(frozen=True, slots=True, repr=False)
class PatchReport(Brief):
    """What `patch` or `fold` wrote: `bytes` in all, number of `tensors`, the sha256 (hex) of its manifest, of the
    `base`'s and, where there is one, of the `result`'s; and what is stored as the `same` tensor of the base, as bits
    that differ (`xor`) and `whole`."""

    path: str
    bytes: int
    tensors: int
    manifest_sha256: str
    base: str
    result: str | None
    same: FormTotal
    xor: FormTotal
    whole: FormTotal

    @property
    def ratio(self) -> float:
        """Bytes of the patch for each byte of the tensors of the result."""
        total = sum(form.bytes for form in (self.same, self.xor, self.whole))
        return self.bytes / total if total else 1.0


def made(
    base: CheckpointView[Any],
    new: StoredCheckpoint,
    target: str,
    *,
    compression: Mapping[str, Any] | str = COMPRESSION,
    verify: bool = True,
    storage_options: Mapping[str, Any] | None = None,
    attempt: Attempt | None = None,
    **options: Unpack[PublishOptions],
) -> PatchReport:
    """Save what makes `new` of `base`; see `ckptfmt.patch`. `attempt`: that at the target, if it was begun."""
    codec = _codec(compression, target)
    attempt = attempt or attempt_at(target, "file", options, storage_options)
    try:
        with spool_beside(target) as spool:
            total = sum(spec.nbytes for spec in new.manifest.specs)
            report = counter(options.get("progress"), total)
            chooser = FormChooser(base.stored.fetcher, new, codec, spool, report, verify=verify)
            stored = chooser.stored(matches(base, new))
            draft = _draft(base.stored, new, stored, spool)
            written = committed(layout_named("file"), draft, attempt, before_commit=options.get("before_commit"))
    except BaseException:
        attempt.abort()
        raise
    assert draft.patch is not None
    sha256, result = written.record.sha256.hex(), draft.patch.result
    totals = [_total(new, stored, form) for form in (SAME, XOR, WHOLE)]
    said = (base.stored.manifest_sha256, None if result is None else result.hex())
    return PatchReport(target, written.bytes, len(stored), sha256, *said, *totals)


def _codec(compression: Any, target: str) -> Codec:
    codec = codec_asked(compression)
    if codec == RAW:
        raise fault("bad-option", "compression=None: what differs is smaller only where it is compressed", path=target)
    return codec


def _draft(base: StoredCheckpoint, new: StoredCheckpoint, stored: list[StoredForm], spool: Spool) -> Draft:
    """The patch as it is written: all that the manifest of the result says, but where its tensors are."""
    manifest = new.manifest
    former = manifest.patch
    sources: list[Any] = []
    for tensor, found in zip(new.handles, stored, strict=True):
        if found.chunks is None:
            sources.append(tensor)
        else:
            chunks = list(map(spool.stored, found.chunks))
            sources.append(KeptTensor(tensor, chunks.__getitem__, None))
    return Draft(
        sources=sources,
        names=tuple(manifest.names),
        specs=tuple(found.spec for found in stored),
        tree=manifest.tree,
        metadata=manifest.metadata,
        schema=manifest.schema,
        digest=new.blocks.digest,
        block=manifest.block,
        generator=f"ckptfmt {__version__}",
        report=nothing,
        extra=dict(manifest.unknown),
        paged=False,
        patch=Patch(
            base.record.sha256,
            new.record.sha256 if former is None else former.result,
            manifest.generator if former is None else former.generator,
            np.array([found.source for found in stored], np.uint32),
        ),
    )


def _total(new: StoredCheckpoint, stored: list[StoredForm], form: int) -> FormTotal:
    rows = [(spec, found) for spec, found in zip(new.manifest.specs, stored, strict=True) if found.spec.form == form]
    return FormTotal(len(rows), sum(spec.nbytes for spec, _ in rows), sum(found.nbytes for _, found in rows))
