"""What the values of tensors are like, of any format: parts are read, verified and counted on all cores, and joined in
their order, so that the same values give the same figures (docs/reference/statistics.md)."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from ..brief import Brief
from ..calls import takes
from ..conversion import open_source
from ..conversion.source import EXPANSION, LazyArray, SourceTensor, is_tensor, nbytes, slabs, walk
from ..errors import fault
from ..format.arrays import ArraySpec
from ..format.dtypes import DTYPES, Array, DType, dtype_of
from ..format.names import Path, path_label
from ..format.summary import Summary, first_difference
from ..packages import package
from ..patterns import Patterns, near_selection, selector
from ..progress import Progress, counter
from ..reading.blocks import BlockReader
from ..reading.measuring import Origin, is_measurable, measure_array, measure_jobs
from ..reading.stored_summaries import stored_summaries
from ..storage import path_of
from ..storage.ahead import in_order
from ..threads import Pool

if TYPE_CHECKING:
    from ..reading.bases import PatchBase

THREADS = max(1, min(16, os.cpu_count() or 1))


@dataclass(frozen=True, slots=True)
class TensorStats:
    """What the elements of a tensor are like: its typed `path` and `name` (the label of it), `dtype` and `shape`, and
    of its `elements` the least and greatest finite one (exact for integers; None where there is none), `mean`, `std`
    (of all, not of a sample) and `norm` (l2; inf beyond float64) of the finite ones, and how many are zero, subnormal,
    NaN, infinite, and `saturated`: of floats, at the greatest finite magnitude. Of complex numbers it is their absolute
    values, and one counts as NaN, infinite, subnormal or saturated if a part of it is.

    `effective_bits`: the bits of a significand that are in use (8 of the 24 of float32: it was bfloat16), the width of
    the narrowest integer that would do, 0 where all is 0. `stored`: whether these figures are
    what the writer has put into the checkpoint, and nothing was read for them.
    """

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
    saturated: int = 0
    effective_bits: int = 0
    stored: bool = False

    @property
    def inf(self) -> int:
        """How many are infinite."""
        return self.positive_inf + self.negative_inf


@dataclass(frozen=True, slots=True, repr=False)
class StatsReport(Brief):
    """What `stats` found: of each tensor, as they are stored; one at several paths stands at the first."""

    path: str
    tensors: tuple[TensorStats, ...]

    def to_pandas(self) -> Any:
        """Give the same as a `pandas.DataFrame`: a row for each tensor, by its name, and a column for each figure.

        Raises `missing-package`."""
        pandas = package("pandas", "to_pandas()")
        rows = [{**asdict(one), "path": one.path, "inf": one.inf} for one in self.tensors]
        names = [*TensorStats.__dataclass_fields__, "inf"]
        return pandas.DataFrame(rows, columns=names).set_index("name")


@takes()
def stats(
    path: str | os.PathLike[str],
    *,
    select: Patterns = None,
    stored: bool | Literal["check"] = False,
    progress: Progress | None = None,
    source_format: str | None = None,
    max_expansion: int = EXPANSION,
    storage_options: Mapping[str, Any] | None = None,
    follow_links: bool = False,
    dequantize: str | None = None,
    base: PatchBase = None,
) -> StatsReport:
    """Measure the values of a checkpoint at a path, or of any format that `convert` reads: all of them are read, and
    verified where they have digests. Memory is a few parts of 4 MiB, or what the source decodes at once, for each
    core.

    `stored=True` takes the figures that `save(statistics=True)` has put into the checkpoint, of tensors that have such
    and of which it is sure that they are theirs, and reads only the others; what they say is the writer's claim.
    `stored="check"` reads all, and compares: raises `bad-statistics` where they differ.

    `select`: patterns of paths, as in `load`; `progress(done, total)` is called with bytes now and then, from any
    thread; the other options are those of `convert`. Raises `no-match`, and what `convert` raises for a source: damage
    of what is read among it.
    """
    if stored not in (True, False, "check"):
        raise fault("bad-option", "stored=", found=stored, expected='True, False or "check"')
    name = path_of(path)
    options: Any = {"max_expansion": max_expansion, "storage_options": storage_options, "follow_links": follow_links}
    options |= {"dequantize": dequantize, "base": base}
    with open_source(name, source_format, **options) as source:
        return StatsReport(name, tuple(stats_of(chosen(name, source.tree, select), progress, stored=stored)))


def stats_of(
    tensors: Sequence[tuple[Path, SourceTensor]],
    progress: Progress | None = None,
    *,
    stored: bool | Literal["check"] = False,
) -> list[TensorStats]:
    """Those of tensors of one source; `stored` as in `stats`. Raises what reading them raises."""
    leaves = [leaf for _, leaf in tensors]
    known = stored_summaries([_origin(leaf) if stored else None for leaf in leaves])
    is_taken = [stored is True and one is not None for one in known]
    measured = iter(_measured([leaf for leaf, taken in zip(leaves, is_taken, strict=True) if not taken], progress))
    found = [one if taken and one else next(measured) for one, taken in zip(known, is_taken, strict=True)]
    if stored == "check":
        for (where, _), claimed, one in zip(tensors, known, found, strict=True):
            _check(where, claimed, one)
    rows = zip(tensors, found, is_taken, strict=True)
    return [_stats(*pair, one, taken) for pair, one, taken in rows]


def _check(where: Path, claimed: Summary | None, found: Summary) -> None:
    """Refuse stored statistics that are not those of the elements; raises `bad-statistics`."""
    figure = None if claimed is None else first_difference(claimed, found)
    if figure is not None:
        label = path_label(where)
        message = f"the stored statistics of tensor {label!r} are not those of its elements: {figure}"
        said, right = (getattr(one, figure) for one in (claimed, found))
        raise fault("bad-statistics", message, tensor=label, found=said, expected=right)


def chosen(name: str, tree: Any, select: Patterns) -> list[tuple[Path, SourceTensor]]:
    """The tensors that are asked for, each at its first path."""
    tensors = {where: leaf for where, leaf in walk(tree) if is_tensor(leaf)}
    wanted = tensors
    if select:
        is_selected = selector(select)
        wanted = {where: leaf for where, leaf in tensors.items() if is_selected(where)}
        if not wanted:
            patterns = [select] if isinstance(select, str) else list(select)
            words = ", ".join(map(repr, patterns))
            raise fault("no-match", f"no tensor matches {words}", path=name, hint=near_selection(patterns, tensors))
    first = {id(leaf): where for where, leaf in reversed(wanted.items())}
    return [(where, leaf) for where, leaf in wanted.items() if first[id(leaf)] == where]


def _stats(where: Path, leaf: SourceTensor, found: Summary, stored: bool) -> TensorStats:
    row = dtype_of(leaf.dtype)
    return TensorStats(
        path=where,
        name=path_label(where),
        dtype=str(leaf.dtype) if row is None else row.name,
        shape=tuple(leaf.shape),
        elements=found.elements,
        min=found.least,
        max=found.greatest,
        mean=float(found.mean) if found.finite else None,
        std=found.std if found.finite else None,
        norm=found.norm,
        zeros=found.zeros,
        subnormals=found.subnormals,
        nan=found.nan,
        positive_inf=found.positive_inf,
        negative_inf=found.negative_inf,
        saturated=found.saturated,
        effective_bits=found.bits,
        stored=stored,
    )


# ---- looking at all elements


class _Look(NamedTuple):
    """A call that gives summaries of parts of tensors, by where these are in the list, and bytes that it looks at."""

    bytes: int
    call: Callable[[], Iterable[tuple[int, Summary]]]


def _measured(leaves: list[SourceTensor], progress: Progress | None) -> list[Summary]:
    """The summary of each tensor, whose parts are joined in their order."""
    found = [Summary()] * len(leaves)
    report = counter(progress, sum(map(_nbytes, leaves)))
    threads = max([THREADS, *(origin[0].storage.readers for origin in map(_origin, leaves) if origin is not None)])
    with Pool(threads, "ckptfmt-stats") as pool:
        for bytes, parts in in_order(pool, (partial(_done, job) for job in _jobs(leaves)), 4 * threads):
            for number, one in parts:
                found[number] = found[number].joined(one)
            report(bytes)
    return found


def _nbytes(leaf: SourceTensor) -> int:
    """Bytes of all elements, or of decoded chunks."""
    origin = _origin(leaf)
    if origin is None or not is_measurable(_spec(origin)):
        return nbytes(leaf)
    return _spec(origin).chunks * _spec(origin).chunk_nbytes


def _spec(origin: Origin) -> ArraySpec:
    return origin[0].manifest.specs[origin[1]]


def _done(job: _Look) -> tuple[int, Iterable[tuple[int, Summary]]]:
    return job.bytes, job.call()


def _origin(leaf: SourceTensor) -> Origin | None:
    return leaf.origin if isinstance(leaf, LazyArray) else None


def _jobs(leaves: list[SourceTensor]) -> Iterator[_Look]:
    """Those of neighbours in a checkpoint of this format together, as small ones are read at once."""
    stored: dict[int, list[int]] = {}  # by the number of the tensor there: one may be seen as two dtypes
    blocks: BlockReader | None = None
    for number, leaf in enumerate(leaves):
        origin = _origin(leaf)
        if origin is None or not is_measurable(_spec(origin)):
            yield from _of_other(number, leaf)
            continue
        blocks = origin[0]  # of which a source has one
        stored.setdefault(origin[1], []).append(number)
    if blocks is not None:
        for bytes, call in measure_jobs(blocks, stored):
            yield _Look(bytes, partial(_renumbered, call, stored))


def _renumbered(
    call: Callable[[], list[tuple[int, Summary]]], numbers: Mapping[int, list[int]]
) -> list[tuple[int, Summary]]:
    return [(number, one) for tensor, one in call() for number in numbers[tensor]]


def _of_other(number: int, leaf: SourceTensor) -> Iterator[_Look]:
    """Slabs, which are looked at anywhere where they lie in memory or a mapped file; else they are read here, in their
    order, as some sources must be."""
    for index in slabs(leaf):
        part = partial(leaf.__getitem__, index) if isinstance(leaf, np.ndarray) else partial(_itself, leaf[index])
        sides = (axis.stop - axis.start for axis in index)
        size = math.prod((*sides, *leaf.shape[len(index) :])) * leaf.dtype.itemsize
        yield _Look(size, partial(_of_slab, number, part))


def _itself(part: Array) -> Array:
    return part


def _of_slab(number: int, part: Callable[[], Array]) -> list[tuple[int, Summary]]:
    return [(number, measure_array(*_known(np.asarray(part()))))]


def _known(part: Array) -> tuple[DType, Array]:
    """An array as one of a dtype of the table: times as integers, what no table has as float64."""
    if part.dtype.kind in "mM":
        part = part.astype(part.dtype.newbyteorder("=")).view(np.int64)
    row = dtype_of(part.dtype)
    if row is None:
        row = DTYPES["complex128" if part.dtype.kind == "c" else "float64"]
        part = part.astype(row.numpy)
    return row, part
