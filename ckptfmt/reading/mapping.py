"""Raw tensors as private, copy-on-write mappings of the objects that hold them."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np

from ..errors import fault
from ..format.chunks import check_bools
from ..format.dtypes import Array
from .blocks import BlockReader, ChunkPlace, Job

# of madvise(2); with the second, of Linux 5.14, what cannot be read is an error, where a look at it would be a signal
_ADVICE = {"MADV_WILLNEED": 3, "MADV_POPULATE_READ": 22}


def mapped(blocks: BlockReader, wanted: Iterable[int], verify: bool, *, present: bool = False) -> dict[int, Array]:
    """Those of the tensors that can be mapped. `present`: only those whose bytes are then in memory, so that no look at
    them fails; a system that cannot say this maps none."""
    maps: dict[str, memoryview] = {}
    arrays: dict[int, Array] = {}
    jobs: list[Job] = []
    for index in wanted:
        spec = blocks.manifest.specs[index]
        if not (spec.is_contiguous and spec.chunks and spec.dtype.stored.isnative):
            continue
        place = blocks.place(index, 0)
        if place.object not in maps:
            maps[place.object] = blocks.map(place)
        mapping, offset = maps[place.object], place.extent.offset
        if offset + spec.nbytes > len(mapping):
            text = blocks.describe(index)
            raise fault(
                "short-object",
                f"{place.object or 'the file'} ends inside tensor {text!r}",
                path=blocks.storage.path,
                tensor=text,
            )
        arrays[index] = np.ndarray(spec.shape, spec.dtype.numpy, mapping, offset)
        if present:
            jobs.append(partial(_bring_in, blocks, place, mapping, verify, arrays))
        elif verify:
            blocks.check_chunk(place, mapping[offset : offset + spec.nbytes])
            blocks.decoded(place, partial(check_bools, arrays[index], spec))
    blocks.run(jobs)
    return arrays


def _bring_in(
    blocks: BlockReader, place: ChunkPlace, mapping: memoryview, verify: bool, arrays: dict[int, Array]
) -> None:
    """Bring the blocks of a mapped chunk into memory, and check each while the processor's cache holds it; leave the
    array out where that is impossible."""
    memory, size, (offset, length, *_) = mapping.obj, blocks.manifest.block, place.extent
    try:
        _advise(memory, "MADV_WILLNEED", offset, length)
        for number, start in enumerate(range(0, length, size)):
            stop = min(start + size, length)
            _advise(memory, "MADV_POPULATE_READ", offset + start, stop - start)
            if verify:
                blocks.check(place, number, blocks.digest.of(mapping[offset + start : offset + stop]))
            blocks.count(stop - start)
    except OSError:  # of a kernel of before; what cannot be read either, fails and is told as usual
        del arrays[place.tensor]
        return
    blocks.decoded(place, partial(check_bools, arrays[place.tensor], blocks.manifest.specs[place.tensor]))


def _advise(memory: Any, advice: str, start: int, length: int) -> None:
    """Raises OSError where the system has no such advice, or finds that what it is about cannot be read."""
    if sys.platform != "linux":
        raise OSError(f"no {advice} here")
    first = start // mmap.PAGESIZE * mmap.PAGESIZE
    memory.madvise(_ADVICE[advice], first, start + length - first)
