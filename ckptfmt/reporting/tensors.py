"""The tensors of a source, read once: statistics, some elements of each, and what is damaged among them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..conversion.source import OpenedSource, SourceTensor, nbytes
from ..conversion.table import OWN
from ..errors import CkptError
from ..format.dtypes import Array, dtype_of
from ..format.names import Path, path_label
from ..maintenance.statistics import TensorStats, stats_of
from ..reading.checkpoint import StoredCheckpoint
from ..reading.tensor import Tensor
from ..storage import is_url
from ..storage.held import HeldPlace
from .sample import RUNS, most_of_each, runs_of, sample

SAMPLED = 5000  # tensors at most
COMPRESSED = 4  # runs of elements of one that is compressed, of which whole chunks are decoded
NONE = np.empty(0, np.float32)


@dataclass(frozen=True, slots=True)
class MeasuredTensor:
    """A tensor of a page: what it is, what its elements are like, some of them, or what keeps it from being read.
    `codec` and `stored`, bytes on the disk: where that is known."""

    path: Path
    label: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    codec: str = ""
    stored: int | None = None
    stats: TensorStats | None = None
    sample: Array = field(default_factory=lambda: NONE, repr=False)
    error: CkptError | None = None

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def finite(self) -> int:
        """How many elements are finite."""
        return 0 if self.stats is None else self.stats.elements - self.stats.nan - self.stats.inf

    @property
    def rms(self) -> float | None:
        """The root mean square of the finite elements."""
        return self.stats.norm / math.sqrt(self.finite) if self.stats is not None and self.finite else None


def measured(
    source: OpenedSource, tensors: Sequence[tuple[Path, SourceTensor]], options: Mapping[str, Any]
) -> list[MeasuredTensor]:
    """All of them, read and verified once, and some elements of each, at most of the largest, once more. What is
    damaged has its error, and the others are read. `options` are those of opening a checkpoint."""
    stats = _all_stats(tensors)
    sizes = sorted((nbytes(tensor) for _, tensor in tensors), reverse=True)
    least, most = ([*sizes[:SAMPLED], 0][-1] if len(sizes) > SAMPLED else 0), most_of_each(len(tensors))
    with _stored_in(source, options) as stored:
        return [
            _measured(path, tensor, stored.get(path), one, most if nbytes(tensor) >= least else 0)
            for (path, tensor), one in zip(tensors, stats, strict=True)
        ]


def _all_stats(tensors: Sequence[tuple[Path, SourceTensor]]) -> list[TensorStats | CkptError]:
    """The statistics of each, or what is wrong with it. Where something is, one after the other is read anew."""
    try:
        return [*stats_of(tensors)]
    except CkptError:
        return [_stats_or_error(*pair) for pair in tensors]


def _stats_or_error(path: Path, tensor: SourceTensor) -> TensorStats | CkptError:
    try:
        return stats_of([(path, tensor)])[0]
    except CkptError as error:
        return error


def _measured(
    path: Path, tensor: SourceTensor, stored: Tensor | None, found: TensorStats | CkptError, most: int
) -> MeasuredTensor:
    row, error = dtype_of(tensor.dtype), found if isinstance(found, CkptError) else None
    sampled = NONE
    if error is None and most:
        sampled = _sample(tensor, stored, most)
    return MeasuredTensor(
        path=path,
        label=path_label(path),
        dtype=str(tensor.dtype) if row is None else row.name,
        shape=tuple(tensor.shape),
        bytes=nbytes(tensor) if stored is None else stored.nbytes,
        codec="" if stored is None else stored.codec,
        stored=None if stored is None else stored.stored_bytes,
        stats=None if isinstance(found, CkptError) else found,
        sample=sampled,
        error=error,
    )


def _sample(tensor: SourceTensor, stored: Tensor | None, most: int) -> Array:
    if stored is None:
        return sample(tensor, most, runs_of(tensor))
    return sample(stored.verified(False), most, RUNS if stored.codec == "raw" else COMPRESSED)  # it was verified


@contextmanager
def _stored_in(source: OpenedSource, options: Mapping[str, Any]) -> Iterator[Mapping[Path, Tensor]]:
    """What a checkpoint of this format says of its tensors, by their paths; nothing of other formats."""
    if source.place.format != OWN or isinstance(source.place.path, HeldPlace) or is_url(source.place.path):
        yield {}
        return
    with StoredCheckpoint(source.place.path, beside=True, **options) as checkpoint:
        yield checkpoint.tensors
