"""The verb: what lies at a path, or at two, becomes a page."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Unpack

from ..calls import takes
from ..checkpoint import Checkpoint
from ..conversion.comparison import diff
from ..conversion.opening import NO_CHECKPOINT, open_source, place_for
from ..conversion.options import SourceOptions
from ..errors import CkptError, fault
from ..manager.listing import listed, on_disk
from ..manager.tracking import HISTORY, read_history
from ..patterns import Patterns
from ..reading.bases import bases_given
from ..storage import is_url, path_of
from .checkpoint_page import checkpoint_data
from .comparison_page import comparison_data
from .page import HtmlReport, page_of
from .run_page import run_data

OF_OWN = ("storage_options", "follow_links", "base")  # options of opening a checkpoint of this format


@takes(SourceOptions)
def report(
    path: str | os.PathLike[str],
    other: str | os.PathLike[str] | None = None,
    *,
    select: Patterns = None,
    spectrum: Patterns = None,
    source_format: str | None = None,
    target_format: str | None = None,
    **options: Unpack[SourceOptions],
) -> HtmlReport:
    """Make a page about what is at `path`, one HTML file that asks for nothing from elsewhere:

    - a checkpoint, of any format that `convert` reads: its tree by bytes and dtypes, its layers, and statistics and
      histograms of its tensors. All of it is read once, and verified; what is damaged is told, and the rest is shown.
    - two, with `other`: what was added, removed, renamed and changed, and how far, by layer and kind.
    - a run, or another folder of checkpoints: metrics over steps, what is kept and why, bytes, times, pauses, and what
      is damaged. Manifests alone are read, and `history.jsonl`, if `LogTo` writes one there.

    `select`: patterns of the paths of tensors, as in `load`, of one checkpoint. `spectrum`: patterns of matrices whose
    singular values are shown. `source_format`, `target_format`: of `path` and `other`, where their bytes leave doubt.
    The other options are those of `convert`: `max_expansion`, `dequantize`, `storage_options`, `follow_links`, `base`.

    Raises `bad-option` for options that the page has no use for, `not-a-checkpoint` for a folder with no checkpoint,
    `no-match`, and what `convert` raises for a source.
    """
    place = path_of(path)
    given: dict[str, Any] = {**options, "base": bases_given(options.get("base")) or None}
    own = {name: option for name, option in given.items() if name in OF_OWN}
    if other is not None:
        _refuse({"select": select, "spectrum": spectrum}, "of two checkpoints")
        return _of_two(place, path_of(other), (source_format, target_format), given, own)
    _refuse({"target_format": target_format}, "of one checkpoint")
    checkpoint = place if source_format is not None else _checkpoint_at(place, own)
    if checkpoint is None:
        _refuse({"select": select, "spectrum": spectrum}, "of a run")
        return _of_run(place)
    with open_source(checkpoint, source_format, **given) as source:
        data = checkpoint_data(source, select, spectrum, own)
    return page_of(_title(place), data)


def _refuse(given: Mapping[str, Any], what: str) -> None:
    for name, value in given.items():
        if value is not None:
            raise fault("bad-option", f"a page {what} has no use for {name}=", found=value)


def _checkpoint_at(path: str, own: Mapping[str, Any]) -> str | None:
    """Where the one checkpoint at a path lies, or None where that is a folder which may have several."""
    try:
        if is_url(path):
            Checkpoint(path, **own).close()
        elif os.path.isdir(path):
            return place_for(path, recursive=False).path
        return path
    except CkptError as error:
        if error.code not in (*NO_CHECKPOINT, "not-found") or (is_url(path) and not listed(path)):
            raise
        return None


def _of_two(
    path: str,
    other: str,
    formats: tuple[str | None, str | None],
    options: Mapping[str, Any],
    own: Mapping[str, Any],
) -> HtmlReport:
    found = diff(path, other, source_format=formats[0], target_format=formats[1], **options)
    with open_source(path, formats[0], **options) as one, open_source(other, formats[1], **options) as two:
        data = comparison_data(found, one, two, own)
    return page_of(f"{_title(path)} → {_title(other)}", data)


def _of_run(path: str) -> HtmlReport:
    rows = listed(path)
    if not rows:
        raise fault("not-a-checkpoint", "there is no checkpoint in this folder", path=path)
    return page_of(_title(path), run_data(path, rows, on_disk(rows), read_history(os.path.join(path, HISTORY))))


def _title(path: str) -> str:
    """The last two names of a path."""
    return "/".join(path.rstrip("/").split("/")[-2:])
