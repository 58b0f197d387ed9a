"""Saving: a request to a draft, the draft to a layout, the whole published at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Unpack

from ..brief import Brief
from ..errors import CkptError
from ..format.arrays import ArraySpec
from ..format.limits import uncollected
from ..format.manifest import BLOCK
from ..format.tree import Tree
from ..layouts import Layout, Written, layout_named
from ..layouts.draft import Draft
from ..progress import Progress, Report, counter
from ..storage import IN_FLIGHT, Attempt, Storage, attempt_for, place_of
from .nans import NanGuard, Nans, tell_nans
from .options import PublishOptions, RequestOptions, WatchOptions, paged_asked
from .request import Request, extra_keys, request, whole_specs

if TYPE_CHECKING:
    from ..layouts.sharing import Base
    from ..storage import Place

Check = Callable[[Storage], object]


class AloneOptions(PublishOptions, RequestOptions, WatchOptions, total=False):
    """What one process may say besides; see `ckptfmt.save`."""

    check: Check | None
    extra: Mapping[str, Any] | None
    paged: bool | None


@dataclass(frozen=True, slots=True, repr=False)
class SaveReport(Brief):
    """What `save` wrote: `bytes` in all, number of `tensors`, the manifest's sha256 (hex), and the groups of paths
    whose arrays overlap in memory without being the same tensor, which are therefore separate tensors now.
    [TREE-011]

    With `share_with`: `shared` are those of the bytes that were not written, as the earlier checkpoint has them;
    `not_shared` says why there are no more, if something kept it from that, such as a file system without links.

    `nan`: the labels of tensors with NaNs, and how many there are, where these were looked for."""

    path: str
    layout: str
    bytes: int
    tensors: int
    manifest_sha256: str
    copied_views: tuple[tuple[str, ...], ...]
    shared: int = 0
    not_shared: str | None = None
    nan: tuple[tuple[str, int], ...] = ()


def report_of(path: str, layout: str, written: Written, made: Request, tensors: int, nan: Nans) -> SaveReport:
    """The report of what was written; warns of NaNs in it, of which some tensors have so many."""
    tell_nans(path, nan)
    return SaveReport(
        path,
        layout,
        written.bytes,
        tensors,
        written.record.sha256.hex(),
        made.encoded.copied_views,
        written.shared,
        written.refused or None,
        tuple(nan),
    )


def save(
    path: Place,
    tree: Tree,
    *,
    layout: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    share_with: str | os.PathLike[str] | None = None,
    **more: Unpack[AloneOptions],
) -> SaveReport:
    """Save what one process holds; see `ckptfmt.save`. `check(storage)` is called with what was written, before it
    takes its name."""
    name = place_of(path, tree)
    options: dict[str, Any] = {**more}
    guard = NanGuard(name, options.pop("statistics", False), options.pop("on_nan", None))
    if share_with is None:
        return _save(name, tree, layout or "file", storage_options, None, guard, **options)
    from .sharing import layout_asked, opened_base

    layout = layout_asked(layout)
    with opened_base(share_with, storage_options) as base:
        there = base.chunks.manifest.layout
        layout = layout or ("packed" if there == "file" else there)
        return _save(name, tree, layout, storage_options, base, guard, **options)


def _save(
    name: str,
    tree: Tree,
    layout: str,
    storage_options: Mapping[str, Any] | None,
    base: Base | None,
    guard: NanGuard,
    *,
    overwrite: bool = False,
    durable: bool = True,
    progress: Progress | None = None,
    before_commit: Callable[[], Any] | None = None,
    check: Check | None = None,
    max_bytes_in_flight: int = IN_FLIGHT,
    extra: Mapping[str, Any] | None = None,
    paged: bool | None = None,
    **asked: Unpack[RequestOptions],
) -> SaveReport:
    try:
        module = layout_named(layout)
        paged = paged_asked(paged)
        with uncollected():
            made, further = request(tree, **asked), extra_keys(extra or {})
            specs = whole_specs(made, layout)
    except CkptError as error:
        error.path = error.path or name
        raise
    total = 0 if progress is None else sum(spec.chunks * spec.chunk_nbytes for spec in specs)
    report = counter(progress, total)
    draft = drafted(made, specs, report=report, extra=further)
    draft = replace(draft, paged=paged, base=base, watch=guard.watch)
    how: Any = {"overwrite": overwrite, "durable": durable, "in_flight": max_bytes_in_flight}
    is_directory, is_read = layout != "file", check is not None
    attempt = attempt_for(name, directory=is_directory, options=storage_options, is_read=is_read, **how)
    written = committed(module, draft, attempt, check, lambda: guard.check(made, before_commit))
    return report_of(name, layout, written, made, len(specs), guard.nan)


def committed(
    layout: Layout,
    draft: Draft,
    attempt: Attempt,
    check: Check | None = None,
    before_commit: Callable[[], Any] | None = None,
) -> Written:
    """Write a draft, and let it take its name; whatever fails leaves nothing of it. `check` and `before_commit` are
    those of `save`."""
    try:
        written = layout.write(draft, attempt)
        if check is not None:
            try:
                check(attempt.written())
            except CkptError as error:
                told = attempt.fault(error, "cannot read what was written")
                raise told from error if told is not error else error.__cause__
        if before_commit is not None:
            before_commit()
        attempt.publish()
    except BaseException:
        attempt.abort()  # [PUB-007]; also for KeyboardInterrupt
        raise
    return written


def drafted(
    made: Request, specs: tuple[ArraySpec, ...], *, block: int | None = None, report: Report, extra: Mapping[str, Any]
) -> Draft:
    """The draft of a process that stores all of every tensor, as `specs` say."""
    return Draft(
        sources=made.encoded.sources,
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
