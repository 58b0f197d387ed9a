"""What a save sees of the elements that it writes: of the very bytes, as they pass, on a thread of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, Protocol

from ..format.arrays import ArraySpec
from ..format.dtypes import Array, DType
from ..format.measure import Measure, NanCount, count_nans, summaries
from ..format.summary import Summary
from ..frameworks.sources import Source
from .pieces import stored_parts

ElementsSeen = Callable[[Array], Any]


class ElementRun(Protocol):
    """One run of stored elements that come in order."""

    def add(self, data: Array) -> None: ...

    def summary(self, padding: int = 0) -> Summary: ...


class ElementWatch:
    """The summaries of chunks, by the name of the tensor and the number of the chunk: of NaNs alone, or `all_figures`,
    which are to be stored. May be used from several threads."""

    def __init__(self, *, all_figures: bool) -> None:
        self.all_figures = all_figures
        self.found: dict[tuple[str, int], Summary] = {}

    def of_stream(self, name: str, spec: ArraySpec, chunk: int) -> ChunkWatch | None:
        """What is to be told of the stored bytes of a chunk; None if they are not all there is to tell, or of a dtype
        without NaNs where these are looked for."""
        if not is_whole(spec, chunk) or not self._looks_at(spec):
            return None
        return ChunkWatch(self, name, spec, chunk)

    def of_elements(self, name: str, spec: ArraySpec, chunk: int) -> ElementsSeen | None:
        """What is called with all elements of a chunk, before they are compressed or filled up; None for others."""
        if is_whole(spec, chunk) or not self._looks_at(spec):
            return None

        def seen(data: Array) -> None:
            watch = ChunkWatch(self, name, spec, chunk)
            watch.add(data)
            watch.end()

        return seen

    def _looks_at(self, spec: ArraySpec) -> bool:
        return self.all_figures or may_be_nan(spec.dtype)

    def look(self, name: str, spec: ArraySpec, source: Source, chunk: int) -> None:
        """Look at a chunk that is in memory."""
        stream = self.of_stream(name, spec, chunk)
        for part in stored_parts(source, spec, chunk, self.of_elements(name, spec, chunk)):
            if stream is not None:
                stream.add(part)
        if stream is not None:
            stream.end()

    def add_all(self, keys: Sequence[tuple[str, int]], spec: ArraySpec, data: Array, sizes: Array) -> None:
        """Whole chunks of tensors of one dtype, and of one shape where an element is less than a byte: their bytes, one
        chunk after another."""
        if self.all_figures:
            rows = summaries(spec.dtype, data, sizes, padding_of(spec, 0))
        elif may_be_nan(spec.dtype):
            rows = [Summary(elements=count, nan=count) for count in count_nans(spec.dtype, data, sizes)]
        else:
            return
        self.found.update(zip(keys, rows, strict=True))

    def summary(self, name: str, spec: ArraySpec) -> Summary | None:
        """That of a tensor; None where a chunk of it was not seen."""
        whole = Summary()
        for chunk in range(spec.chunks):
            part = self.found.get((name, chunk))
            if part is None:
                return None
            whole = whole.joined(part)
        return whole

    def encode(self) -> list[Any]:
        """What was seen here, as plain values; where NaNs alone are looked for, only of what has some."""
        rows = self.found.items() if self.all_figures else ((key, one) for key, one in self.found.items() if one.nan)
        return [[*key, *one[:10], *_as_ratio(one.mean), one.std] for key, one in rows]

    def add_encoded(self, rows: list[Any]) -> None:
        """What was seen by another process."""
        for name, chunk, *figures, upper, lower, std in rows:
            mean = upper if lower is None else Fraction(int(upper), int(lower))
            self.found[name, chunk] = Summary._make((*figures, mean, std))

    def nans(self) -> dict[str, int]:
        """The names of tensors with NaNs, and how many there are."""
        counts: dict[str, int] = {}
        for (name, _), found in sorted(self.found.items()):
            if found.nan:
                counts[name] = counts.get(name, 0) + found.nan
        return counts


class ChunkWatch:
    """Looks at the bytes of one chunk."""

    def __init__(self, watch: ElementWatch, name: str, spec: ArraySpec, chunk: int) -> None:
        self._watch, self._key = watch, (name, chunk)
        self._run: ElementRun = (Measure if watch.all_figures else NanCount)(spec.dtype)
        self._padding = padding_of(spec, chunk)

    def add(self, data: Array) -> None:
        """Bytes of elements of the tensor (uint8), which nobody changes any more."""
        self._run.add(data)

    def end(self) -> None:
        """All of it was seen."""
        self._watch.found[self._key] = self._run.summary(self._padding)


def _as_ratio(mean: float | Fraction) -> tuple[Any, Any]:
    return (str(mean.numerator), str(mean.denominator)) if isinstance(mean, Fraction) else (mean, None)


def may_be_nan(dtype: DType) -> bool:
    """Whether a dtype has NaNs."""
    if dtype.range is None:
        return True
    return dtype.range.exponent > 0 and dtype.range.beyond != "nearest"


def padding_of(spec: ArraySpec, chunk: int) -> int:
    """How many elements of the last bytes of rows are none of the tensor, in a chunk."""
    if spec.dtype.per == 1 or not spec.shape:
        return spec.dtype.per - 1 if not spec.shape else 0
    shape = [axis.stop - axis.start for axis in spec.chunk_region(chunk)]
    rows: int = math.prod(shape[:-1])
    return rows * (-int(shape[-1]) % spec.dtype.per)


def is_whole(spec: ArraySpec, chunk: int) -> bool:
    """Whether the stored bytes of a chunk are elements of the tensor and nothing else: it is raw, and not filled up at
    the far edge. [ZARR-004]"""
    if not spec.is_raw:
        return False
    shape = tuple(axis.stop - axis.start for axis in spec.chunk_region(chunk))
    return spec.dtype.storage_shape(shape) == spec.grid
