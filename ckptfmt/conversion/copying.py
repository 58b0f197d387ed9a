"""Tensors' bytes into a file, one after another. What lies on a disk as it shall lie here is carried by two threads, as
one can read and verify while the other writes."""

from __future__ import annotations

from itertools import accumulate
from typing import IO

from ..storage import disk as disks
from ..threads import Pool
from .equality import lies_plain
from .source import Advance, SourceTensor, elements, nbytes

THREADS = 2


def write_tensors(file: IO[bytes], tensors: list[SourceTensor], advance: Advance) -> None:
    """Write all elements of tensors, little-endian in C order, from the file's position on; raises what reading them
    does. `advance` is called from any thread."""
    file.flush()
    disk, fd, start = disks.current(), file.fileno(), file.tell()
    *begins, end = accumulate(map(nbytes, tensors), initial=start)
    disk.allocate(fd, end) if end > start else None  # which makes writing faster

    def write(tensor: SourceTensor, begin: int) -> None:
        for part in elements(tensor):
            disk.write_all(fd, part, begin)
            begin += len(part)
            advance(len(part))

    places = list(zip(tensors, begins, strict=True))
    with Pool(THREADS, "ckptfmt-convert") as pool:
        plain = [pool.submit(write, tensor, begin) for tensor, begin in places if lies_plain(tensor)]
        for made in plain:
            made.result()
    for tensor, begin in places:
        if not lies_plain(tensor):  # one after another, as decoding takes memory
            write(tensor, begin)
    file.seek(end)
