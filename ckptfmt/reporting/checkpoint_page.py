"""What a page shows of one checkpoint."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..conversion.source import OpenedSource, SourceTensor
from ..errors import CkptError
from ..format.names import Path
from ..maintenance.statistics import chosen
from .facts import facts_of, metadata_of
from .layers import LayerPlace, layer_place, stacks
from .sample import ends_of, histogram, together
from .spectrum import refusal, spectrum
from .tensors import MeasuredTensor, measured
from .tree_map import tree_map
from .words import cut, label, number

ROWS = 20_000  # of the table of tensors: the largest
DRAWN = 2_000  # tensors with a histogram of their own: the largest
LAYERS, KINDS, STACKS = 256, 120, 12  # that one drawing has, and drawings
SPECTRA = 24
COLUMNS = ("name", "dtype", "shape", "elements", "bytes", "stored", "codec", "min", "max", "mean", "std", "norm", "rms",
           "zeros", "subnormals", "nan", "inf", "error")  # fmt: skip


def checkpoint_data(source: OpenedSource, select: Any, spectra: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """The data of a page: facts, damage, tree map, layers, tensors, and the spectra that are asked for."""
    tensors = chosen(source.place.path, source.tree, select)
    wanted = chosen(source.place.path, source.tree, spectra)[:SPECTRA] if spectra else []
    found = measured(source, tensors, options)
    largest = sorted(found, key=lambda one: -one.bytes)
    shown = largest[:ROWS]
    return {
        "kind": "checkpoint",
        "path": cut(source.place.path),
        "facts": facts_of(source, options),
        "metadata": metadata_of(source),
        "totals": totals(found),
        "damage": [
            [cut(one.label), one.error.code, cut(str(one.error), 600)] for one in found if one.error is not None
        ],
        "map": tree_map((one.label, one.dtype, one.bytes) for one in found),
        "stacks": [_stack(name, *rows, found) for name, rows in list(stacks(places(found).values()).items())[:STACKS]],
        "columns": COLUMNS,
        "tensors": [_row(one) for one in shown],
        "histograms": [_drawn(one) for one in shown[:DRAWN]],
        "left": len(found) - len(shown),
        "spectra": [_spectrum(path, tensor) for path, tensor in wanted],
    }


def totals(found: Sequence[MeasuredTensor]) -> dict[str, Any]:
    """How many tensors, elements and bytes, also by dtype."""
    by_dtype: dict[str, list[int]] = {}
    for one in found:
        counts = by_dtype.setdefault(one.dtype, [0, 0, 0])
        for place, value in enumerate((1, one.elements, one.bytes)):
            counts[place] += value
    return {
        "tensors": len(found),
        "elements": number(sum(one.elements for one in found)),
        "bytes": number(sum(one.bytes for one in found)),
        "nan": number(sum(one.stats.nan for one in found if one.stats)),
        "inf": number(sum(one.stats.inf for one in found if one.stats)),
        "dtypes": sorted(([name, *map(number, row)] for name, row in by_dtype.items()), key=lambda row: -int(row[3])),
    }


def places(found: Iterable[MeasuredTensor]) -> dict[str, LayerPlace]:
    """Where each tensor stands among layers, by its label."""
    return {one.label: layer_place(one.label) for one in found}


def _row(one: MeasuredTensor) -> list[Any]:
    head = [cut(one.label), one.dtype, list(one.shape), number(one.elements), number(one.bytes), one.stored, one.codec]
    stats = one.stats
    if stats is None:
        return [*head, *[None] * 10, None if one.error is None else one.error.code]
    figures = (stats.min, stats.max, stats.mean, stats.std, stats.norm, one.rms)
    counts = (stats.zeros, stats.subnormals, stats.nan, stats.inf)
    return [*head, *map(number, (*figures, *counts)), None]


def _drawn(one: MeasuredTensor) -> list[Any] | None:
    ends = ends_of(one.sample)
    if ends is None:
        return None
    drawn = histogram(one.sample, ends)
    return [number(drawn.low), number(drawn.high), drawn.shares]


# ---- layers


def _stack(name: str, layers: Sequence[str], kinds: Sequence[str], found: Sequence[MeasuredTensor]) -> dict[str, Any]:
    """The layers of a stack: of each layer and kind the figures, and of each layer the distribution of its elements."""
    rows, columns = ({name: i for i, name in enumerate(names)} for names in (layers[:LAYERS], kinds[:KINDS]))
    cells: dict[tuple[int, int], list[MeasuredTensor]] = {}
    by_layer: dict[int, list[MeasuredTensor]] = {}
    for one in found:
        place = layer_place(one.label)
        if place.stack == name and place.layer in rows:
            by_layer.setdefault(rows[place.layer], []).append(one)
            if place.kind in columns:
                cells.setdefault((rows[place.layer], columns[place.kind]), []).append(one)
    return {
        "name": cut(name),
        "layers": [cut(layer) for layer in rows],
        "kinds": [cut(kind) for kind in columns],
        "left": [max(0, len(layers) - LAYERS), max(0, len(kinds) - KINDS)],
        "cells": [[*place, *_figures(ones)] for place, ones in sorted(cells.items())],
        "distributions": _distributions([by_layer.get(row, []) for row in range(len(rows))]),
    }


def _figures(ones: Sequence[MeasuredTensor]) -> list[Any]:
    """Of several tensors as one: root mean square, norm, greatest magnitude, share of zeros, and how many elements are
    NaN or infinite; None where none was read."""
    there = [(one, one.stats) for one in ones if one.stats is not None]
    finite = sum(one.finite for one, _ in there)
    if not finite:
        return [None] * 4 + [number(sum(stats.nan + stats.inf for _, stats in there))]
    norm = math.hypot(*(stats.norm for _, stats in there))
    greatest = max(float(abs(end)) for _, stats in there for end in (stats.min, stats.max) if end is not None)
    zeros = sum(stats.zeros for _, stats in there) / finite
    odd = sum(stats.nan + stats.inf for _, stats in there)
    return [number(value) for value in (norm / math.sqrt(finite), norm, greatest, zeros, odd)]


def _distributions(layers: Sequence[Sequence[MeasuredTensor]]) -> dict[str, Any] | None:
    """A histogram of each layer, all of them between the same ends."""
    samples = [together([(one.sample, one.finite) for one in ones]) for ones in layers]
    ends = ends_of(*map(np.concatenate, zip(*samples, strict=True)))
    if ends is None:
        return None
    drawn = [histogram(values, ends, weights).shares if values.size else None for values, weights in samples]
    return {"low": number(ends[0]), "high": number(ends[1]), "layers": drawn}


# ---- spectra


def _spectrum(path: Path, tensor: SourceTensor) -> dict[str, Any]:
    head = {"name": label(path), "shape": list(tensor.shape)}
    why = refusal(tensor.shape, tensor.dtype)
    if why is not None:
        return {**head, "refused": why}
    try:
        found = spectrum(np.asarray(tensor[()]))
    except CkptError as error:
        return {**head, "refused": error.code}
    return {**head, **(found or {"refused": "not all of its elements are finite"})}
