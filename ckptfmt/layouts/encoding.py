"""Chunks on their way to storage, of which those that are compressed are encoded ahead, on several threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from ..format.arrays import ArraySpec
from ..format.dtypes import Array
from ..frameworks.sources import KeptTensor, Source
from ..threads import Call, Pool
from .pieces import encoding

if TYPE_CHECKING:
    from .watch import ElementWatch

THREADS = max(2, min(8, os.cpu_count() or 2))
WAITING = 256  # chunks that may wait behind one that is being encoded


class Chunk(NamedTuple):
    """A chunk to be written: the tensor's name, spec and elements, and its number in the tensor."""

    name: str
    spec: ArraySpec
    source: Source
    chunk: int


def encoded(
    chunks: Iterable[Chunk], watch: ElementWatch | None = None
) -> Generator[tuple[Chunk, Array | None], None, None]:
    """Chunks in their order, with the stored bytes of those that are compressed here. Their elements are taken on this
    thread, where `watch` looks at them; of at most `THREADS` + 1 of them there is memory at a time. To be closed by who
    takes them: its threads end then, and at the end of the interpreter there are none to wait for."""
    waiting: deque[tuple[Chunk, Call[Array] | None]] = deque()
    pool: Pool | None = None
    begun = 0  # that are encoded, and have not been given
    with ExitStack() as stack:
        stack.callback(_cancel, waiting)
        for chunk in chunks:
            if not waiting and chunk.spec.is_raw:  # as almost always
                yield chunk, None
                continue
            call = None
            if not chunk.spec.is_raw and not isinstance(chunk.source, KeptTensor):
                pool = pool or stack.enter_context(Pool(THREADS, "ckptfmt-encode"))
                seen = None if watch is None else watch.of_elements(chunk.name, chunk.spec, chunk.chunk)
                call, begun = pool.submit(encoding(chunk.source, chunk.spec, chunk.chunk, seen)), begun + 1
            waiting.append((chunk, call))
            while waiting and (waiting[0][1] is None or begun > THREADS or len(waiting) > WAITING):
                given, call = waiting.popleft()
                begun -= call is not None
                yield given, None if call is None else call.result()
        while waiting:
            given, call = waiting.popleft()
            yield given, None if call is None else call.result()


def _cancel(waiting: Iterable[tuple[Chunk, Call[Array] | None]]) -> None:
    for _, call in waiting:
        if call is not None:
            call.cancel()
