"""Raw tensors as private, copy-on-write mappings of the objects that hold them."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

from ..errors import fault
from ..format.dtypes import Array, settled
from .blocks import BlockReader, ChunkPlace, ReadJob

_POPULATE_READ = 22  # of madvise(2), Linux 5.14: what cannot be read is an error, where a look at it would be a signal


def mapped(blocks: BlockReader, wanted: Iterable[int], verify: bool) -> dict[int, Array]:
    """Those of the tensors that can be mapped."""
    arrays: dict[int, Array] = {}
    for index, (place, mapping) in _mappings(blocks, wanted):
        spec, offset = blocks.manifest.specs[index], place.extent.offset
        arrays[index] = _view(blocks, place, mapping)
        if verify:
            blocks.check_chunk(place, mapping[offset : offset + spec.nbytes])
            arrays[index] = blocks.decoded(place, partial(settled, arrays[index], spec.dtype))
    return arrays


class Views:
    """Those of the tensors that can be mapped, for whoever looks at no element before it was brought into memory, and
    verified. Where a system cannot bring it in there are none."""

    def __init__(self, blocks: BlockReader, wanted: Iterable[int], verify: bool) -> None:
        self._blocks, self._verify = blocks, verify
        able: dict[str, bool] = {}
        self._absent: dict[int, tuple[ChunkPlace, memoryview]] = {}
        self.arrays: dict[int, Array] = {}
        for index, (place, mapping) in _mappings(blocks, wanted):
            if place.object not in able:
                able[place.object] = _bring(mapping, place.extent.offset, 1)
            if able[place.object]:
                self.arrays[index] = _view(blocks, place, mapping)
                self._absent[index] = place, mapping

    def bring_in(self, wanted: Iterable[int]) -> None:
        """Bring those of the tensors that are here into memory, where that was not done before."""
        jobs: list[ReadJob] = [
            partial(self._bring_in, *self._absent.pop(index)) for index in wanted if index in self._absent
        ]
        self._blocks.run(jobs)

    def _bring_in(self, place: ChunkPlace, mapping: memoryview) -> None:
        """Check each block of a chunk while the processor's cache holds it."""
        blocks, size, (offset, length, *_) = self._blocks, self._blocks.manifest.block, place.extent
        for number, start in enumerate(range(0, length, size)):
            stop = min(start + size, length)
            if not _bring(mapping, offset + start, stop - start):
                blocks.chunk(place, self._verify)  # raises for what cannot be read
                text = blocks.describe(place.tensor)
                raise fault("io", f"tensor {text!r} cannot be mapped", path=blocks.storage.path, tensor=text)
            if self._verify:
                blocks.check(place, number, blocks.digest.of(mapping[offset + start : offset + stop]))
            blocks.count(stop - start)
        dtype = blocks.manifest.specs[place.tensor].dtype
        blocks.decoded(place, partial(settled, self.arrays[place.tensor], dtype))


def _mappings(blocks: BlockReader, wanted: Iterable[int]) -> Iterator[tuple[int, tuple[ChunkPlace, memoryview]]]:
    """The tensors that lie in one piece as they are in memory: where, and the object that holds them, mapped."""
    maps: dict[str, memoryview] = {}
    for index in wanted:
        spec = blocks.manifest.specs[index]
        if not (spec.is_contiguous and spec.chunks and spec.dtype.stored.isnative):
            continue
        place = blocks.place(index, 0)
        if place.object not in maps:
            maps[place.object] = blocks.map(place)
        if place.extent.offset + spec.nbytes > len(maps[place.object]):
            text = blocks.describe(index)
            raise fault(
                "short-object",
                f"{place.object or 'the file'} ends inside tensor {text!r}",
                path=blocks.storage.path,
                tensor=text,
            )
        yield index, (place, maps[place.object])


def _view(blocks: BlockReader, place: ChunkPlace, mapping: memoryview) -> Array:
    spec = blocks.manifest.specs[place.tensor]
    return np.ndarray(spec.shape, spec.dtype.numpy, mapping, place.extent.offset)


def _bring(mapping: memoryview, start: int, length: int) -> bool:
    """Bring a part of a mapping into memory; False where the system cannot, or what it is about cannot be read."""
    memory: Any = mapping.obj
    first = start // mmap.PAGESIZE * mmap.PAGESIZE
    try:
        if sys.platform == "linux":
            memory.madvise(_POPULATE_READ, first, start + length - first)
            return True
    except OSError:
        pass
    return False
