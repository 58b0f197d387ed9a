"""What a page shows of two checkpoints: what was added, removed, renamed and changed, and how far."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..conversion.comparison import Change, DiffReport
from ..conversion.source import OpenedSource, SourceTensor, is_tensor, nbytes, walk
from ..format.names import path_label
from .checkpoint_page import KINDS, LAYERS, STACKS
from .facts import facts_of
from .layers import layer_place, stacks
from .words import VALUE, cut, number

ROWS = 20_000  # of each table
MOVERS = 20
COLUMNS = ("name", "kind", "before", "after", "elements", "different", "nan", "max_difference", "max_relative",
           "change", "norm", "moved")  # fmt: skip


def comparison_data(
    report: DiffReport, one: OpenedSource, other: OpenedSource, options: Mapping[str, Any]
) -> dict[str, Any]:
    """The data of a page; `options` are those of opening a checkpoint."""
    before, after = labelled(one), labelled(other)
    tensors = [change for change in report.changed if change.elements is not None]
    movers = sorted(
        (change for change in tensors if change.relative_change), key=lambda one: -(one.relative_change or 0)
    )
    changed = sorted(report.changed, key=lambda change: -(change.relative_change or 0))
    return {
        "kind": "comparison",
        "paths": [cut(report.source), cut(report.target)],
        "facts": [facts_of(source, options) for source in (one, other)],
        "equal": report.equal,
        "totals": {
            "same": report.same,
            "bytes": [number(sum(map(nbytes, found.values()))) for found in (before, after)],
            **{name: len(getattr(report, name)) for name in ("added", "removed", "renamed", "changed")},
        },
        "added": [_tensor(name, after.get(name)) for name in report.added[:ROWS]],
        "removed": [_tensor(name, before.get(name)) for name in report.removed[:ROWS]],
        "renamed": [[cut(old), cut(new)] for old, new in report.renamed[:ROWS]],
        "columns": COLUMNS,
        "changed": [_row(change) for change in changed[:ROWS]],
        "movers": [[cut(change.path), number(change.relative_change)] for change in movers[:MOVERS]],
        "stacks": list(_stacks([name for name in before if name in after], report.changed)),
        "metadata": [[cut(one.path), one.kind, _text(one.before), _text(one.after)] for one in report.metadata_changes],
    }


def labelled(source: OpenedSource) -> dict[str, SourceTensor]:
    """The tensors of a source by their labels."""
    return {path_label(path): leaf for path, leaf in walk(source.tree) if is_tensor(leaf)}


def _tensor(name: str, tensor: SourceTensor | None) -> list[Any]:
    if tensor is None:
        return [cut(name), "plain value", None, None]
    return [cut(name), tensor.dtype.name, list(tensor.shape), number(nbytes(tensor))]


def _text(text: str | None) -> str | None:
    return None if text is None else cut(text, VALUE)


def _row(change: Change) -> list[Any]:
    figures = (change.max_difference, change.max_relative, change.relative_change, change.norm, change.moved)
    counts = (change.elements, change.different, change.nan)
    return [cut(change.path), change.kind, _text(change.before), _text(change.after), *map(number, (*counts, *figures))]


def _stacks(names: Sequence[str], changed: Iterable[Change]) -> Iterable[dict[str, Any]]:
    """How far each layer and kind has gone: the l2 norm of all differences over that of what was before."""
    by_name = {change.path: change for change in changed}
    places = {name: layer_place(name) for name in names}
    for stack, (layers, kinds) in list(stacks(places.values()).items())[:STACKS]:
        rows, columns = ({name: i for i, name in enumerate(one)} for one in (layers[:LAYERS], kinds[:KINDS]))
        cells: dict[tuple[int, int], list[Change | None]] = {}
        for name, place in places.items():
            if place.stack == stack and place.layer in rows and place.kind in columns:
                cells.setdefault((rows[place.layer], columns[place.kind]), []).append(by_name.get(name))
        yield {
            "name": cut(stack),
            "layers": [cut(name) for name in rows],
            "kinds": [cut(name) for name in columns],
            "left": [max(0, len(layers) - LAYERS), max(0, len(kinds) - KINDS)],
            "cells": [[*at, *_together(found)] for at, found in sorted(cells.items())],
        }


def _together(found: Sequence[Change | None]) -> list[Any]:
    """The relative change of several tensors as one, and what else changed than values; None where shapes differ."""
    there = [change for change in found if change is not None]
    kinds = sorted({change.kind for change in there} - {"values"})
    if any(change.moved is None or change.norm is None for change in there):
        return [None, ", ".join(kinds)]
    moved = math.hypot(*(change.moved or 0.0 for change in there))
    norm = math.hypot(*(change.norm or 0.0 for change in there))
    return [number(moved / norm if norm else math.inf if moved else 0.0), ", ".join(kinds)]
