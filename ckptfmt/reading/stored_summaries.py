"""The statistics that a checkpoint has in its manifest, of those tensors of which it is sure that they are theirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..errors import DAMAGED, StorageError
from ..format.manifest import Manifest
from ..format.stored_statistics import binding, binding_of, decode_statistics
from ..format.summary import Summary
from .measuring import Origin

_Claims = list[Summary | None] | None


def stored_summaries(origins: Sequence[Origin | None]) -> list[Summary | None]:
    """That of each tensor; None for those that have none, or whose statistics are of others, or break a rule.
    [STAT-004]"""
    found: list[Summary | None] = []
    known: dict[int, _Claims] = {}  # by page, or 0 for all
    for origin in origins:
        if origin is None:
            found.append(None)
            continue
        blocks, tensor = origin
        page, row, read = _place(blocks.manifest, tensor)
        if page not in known:
            known[page] = read()
        rows = known[page]
        found.append(None if rows is None else rows[row])
    return found


def _place(manifest: Manifest, tensor: int) -> tuple[int, int, Callable[[], _Claims]]:
    """Where a tensor stands: the page, the row there, and what reads it."""
    if manifest.pages is None:
        return 0, tensor, lambda: _of_manifest(manifest)
    at, row = manifest.pages.position(tensor)
    return at, row, lambda: _of_page(manifest, at)


def _of_manifest(manifest: Manifest) -> _Claims:
    if manifest.statistics is None:
        return None
    return decode_statistics(manifest.statistics, manifest.specs, binding_of(manifest))


def _of_page(manifest: Manifest, at: int) -> _Claims:
    assert manifest.pages is not None
    try:
        page = manifest.pages.page(at)
    except (*DAMAGED, StorageError):  # which reading the tensors tells
        return None
    if page.statistics is None:
        return None
    return decode_statistics(page.statistics, page.specs, binding(page.names, page.specs, [page.table.digest]))
