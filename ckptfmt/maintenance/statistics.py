"""What the values of tensors are like, of any format: read part by part in order, and counted on all cores."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from ..brief import Brief
from ..calls import takes
from ..conversion import open_source
from ..conversion.source import EXPANSION, SourceTensor, is_tensor, slabs, walk
from ..errors import fault
from ..format.dtypes import DTYPES, Array, dtype_of
from ..format.names import Path, path_label
from ..patterns import Patterns, near_selection, selector
from ..storage import path_of
from ..threads import Call, Pool

COUNTS = ("zeros", "subnormals", "nan", "positive_inf", "negative_inf")
THREADS = max(1, min(16, os.cpu_count() or 1))


@dataclass(frozen=True, slots=True)
class TensorStats:
    """What the elements of a tensor are like: its typed `path` and `name` (the label of it), `dtype` and `shape`, and
    of its `elements` the least and greatest finite one (exact for integers; None where there is none), `mean`, `std`
    (of all, not of a sample) and `norm` (l2) of the finite ones, and how many are zero, subnormal, NaN and infinite. Of
    complex numbers it is their absolute values; those with a subnormal part count as subnormal."""

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    elements: int
    min: float | int | None
    max: float | int | None
    mean: float | None
    std: float | None
    norm: float
    zeros: int
    subnormals: int
    nan: int
    positive_inf: int
    negative_inf: int

    @property
    def inf(self) -> int:
        """How many are infinite."""
        return self.positive_inf + self.negative_inf


@dataclass(frozen=True, slots=True, repr=False)
class StatsReport(Brief):
    """What `stats` found: of each tensor, as they are stored; one at several paths stands at the first."""

    path: str
    tensors: tuple[TensorStats, ...]


@takes()
def stats(
    path: str | os.PathLike[str],
    *,
    select: Patterns = None,
    source_format: str | None = None,
    max_expansion: int = EXPANSION,
    storage_options: Mapping[str, Any] | None = None,
    follow_links: bool = False,
    dequantize: str | None = None,
) -> StatsReport:
    """Measure the values of a checkpoint at a path, or of any format that `convert` reads: all of them are read, and
    verified where they have digests. Memory is a few parts of 4 MiB, or what the source decodes at once, for each
    core.

    `select`: patterns of paths, as in `load`; the other options are those of `convert`. Raises `no-match`, and what
    `convert` raises for a source.
    """
    name = path_of(path)
    options: Any = {"max_expansion": max_expansion, "storage_options": storage_options, "follow_links": follow_links}
    options["dequantize"] = dequantize
    with open_source(name, source_format, **options) as source, Pool(THREADS, "ckptfmt-stats") as pool:
        found = [_stats(where, leaf, summary(leaf, pool)) for where, leaf in _chosen(name, source.tree, select)]
    return StatsReport(name, tuple(found))


def _chosen(name: str, tree: Any, select: Patterns) -> list[tuple[Path, SourceTensor]]:
    """The tensors that are asked for, each at its first path."""
    tensors = {where: leaf for where, leaf in walk(tree) if is_tensor(leaf)}
    chosen = tensors
    if select:
        is_selected = selector(select)
        chosen = {where: leaf for where, leaf in tensors.items() if is_selected(where)}
        if not chosen:
            patterns = [select] if isinstance(select, str) else list(select)
            words = ", ".join(map(repr, patterns))
            raise fault("no-match", f"no tensor matches {words}", path=name, hint=near_selection(patterns, tensors))
    first = {id(leaf): where for where, leaf in reversed(chosen.items())}
    return [(where, leaf) for where, leaf in chosen.items() if first[id(leaf)] == where]


def _stats(where: Path, leaf: SourceTensor, found: Summary) -> TensorStats:
    row = dtype_of(leaf.dtype)
    dtype = str(leaf.dtype) if row is None else row.name
    told = {name: getattr(found, name) for name in ("elements", "min", "max", *COUNTS, "norm")}
    told |= {"mean": None, "std": None}
    if found.finite:
        told |= {"mean": found.mean, "std": math.sqrt(found.squares / found.finite)}
    return TensorStats(path=where, name=path_label(where), dtype=dtype, shape=tuple(leaf.shape), **told)


class Summary(NamedTuple):
    """What is known of some elements: how many, and how many are finite; of those the least, the greatest, the mean,
    the sum of squares of their distances from it, and the l2 norm; and counts."""

    elements: int = 0
    finite: int = 0
    min: float | int | None = None
    max: float | int | None = None
    mean: float = 0.0
    squares: float = 0.0
    norm: float = 0.0
    zeros: int = 0
    subnormals: int = 0
    nan: int = 0
    positive_inf: int = 0
    negative_inf: int = 0

    def joined(self, other: Summary) -> Summary:
        """That of both, which loses no digits (Chan, Golub and LeVeque 1979)."""
        if not self.finite or not other.finite:
            filled = self if self.finite else other
            middle = filled[1:7]
        else:
            finite, delta = self.finite + other.finite, other.mean - self.mean
            mean = self.mean + delta * other.finite / finite
            squares = self.squares + other.squares + delta * delta * self.finite * other.finite / finite
            least, greatest = min(self.min, other.min), max(self.max, other.max)  # type: ignore[type-var]
            middle = (finite, least, greatest, mean, squares, math.hypot(self.norm, other.norm))
        counts = (here + there for here, there in zip(self[7:], other[7:], strict=True))
        return Summary(self.elements + other.elements, *middle, *counts)


def summary(tensor: SourceTensor, pool: Pool) -> Summary:
    """That of a tensor: parts are read one after the other, as some sources must be, and counted by the pool, of which
    a few wait at a time."""
    found, waiting = Summary(), deque[Call[Summary]]()
    for index in slabs(tensor):
        waiting.append(pool.submit(_of, np.asarray(tensor[index])))
        if len(waiting) > THREADS:
            found = found.joined(waiting.popleft().result())
    for call in waiting:
        found = found.joined(call.result())
    return found


def _of(part: Array) -> Summary:
    part = part.view(np.int64) if part.dtype.kind in "mM" else part
    is_complex = part.dtype.kind == "c" or "complex" in part.dtype.name
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        wide = part.reshape(-1).astype(np.complex128 if is_complex else np.float64)
        values = np.abs(wide) if is_complex else wide
        is_finite = np.isfinite(values)
        kept = values if is_finite.all() else values[is_finite]
        odd = values[~is_finite] if kept is not values else kept[:0]
        counts: tuple[Any, ...] = (
            *(np.count_nonzero(values == 0), _subnormals(wide, _least_normal(part.dtype))),
            *(np.count_nonzero(odd != odd), np.count_nonzero(odd == np.inf), np.count_nonzero(odd == -np.inf)),
        )
        if not kept.size:
            return Summary(part.size, *Summary()[1:7], *map(int, counts))
        exact = part if part.dtype.kind in "biu" else kept
        least, greatest = exact.min().item(), exact.max().item()
        mean = float(kept.mean())
        scale = float(max(abs(least), abs(greatest)))
        middle = (kept.size, least, greatest, mean, _squares(kept - mean), _norm(kept, scale))
    return Summary(part.size, *middle, *map(int, counts))


def _squares(values: Array) -> float:
    return float(np.dot(values, values))


def _norm(values: Array, scale: float) -> float:
    """The l2 norm of values of which the greatest is `scale`, where squares may have no place in a float64."""
    if 1e-100 < scale < 1e100:
        return math.sqrt(_squares(values))
    return scale * math.sqrt(_squares(values / scale)) if scale else 0.0


def _subnormals(values: Array, least: float | None) -> int:
    """How many are nearer to 0 than the least normal number, and not 0."""
    if least is None:
        return 0
    if values.dtype.kind == "c":
        near = [(side != 0) & (np.abs(side) < least) for side in (values.real, values.imag)]
        return int(np.count_nonzero(near[0] | near[1]))
    return int(np.count_nonzero(np.abs(values) < least) - np.count_nonzero(values == 0))


def _least_normal(dtype: np.dtype[Any]) -> float | None:
    """The least positive number of a dtype that is normal; None for integers."""
    row = dtype_of(dtype)
    name = "" if row is None else (row.part or row.name)
    if "float" not in name:
        return None
    return float(ml_dtypes.finfo(DTYPES[name].numpy).smallest_normal)  # type: ignore[no-untyped-call]
