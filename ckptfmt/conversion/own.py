"""Checkpoints of this format as a source: every block is verified as it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

from ..arrays import ArraySpec
from ..blocks import BlockReader
from ..commit import find
from ..names import Path
from ..reader import Checkpoint
from ..target import rebuild
from ..tensor import Tensor
from .probe import Probe
from .source import LazyArray, Source, mapped_file

PIECE = 256 << 10  # bytes that are still in the processor's cache when they are digested


def looks_like(probe: Probe) -> bool:
    if probe.is_directory:
        return bool(probe.entries & {"COMMIT", "manifest.msgpack"})
    if not probe.head.startswith(b"PK\3\4"):
        return False
    return probe.head[30:38] == b"tensors/" or find(bytes(mapped_file(probe.path)[-512:])) is not None


def read(path: str) -> Source:
    with ExitStack() as stack:
        checkpoint = stack.enter_context(Checkpoint(path))
        numbers = {name: number for number, name in enumerate(checkpoint.manifest.names)}
        lazy: dict[tuple[str, str], LazyArray] = {}  # aliases are one

        def leaf(_: Path, value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            key = (value.name, value.dtype.str)
            if key not in lazy:
                spec = checkpoint.manifest.specs[numbers[value.name]]
                stored = partial(_stored, checkpoint.blocks, numbers[value.name]) if _is_plain(spec) else None
                lazy[key] = _lazy(value, spec, stored)
            return lazy[key]

        tree = rebuild(checkpoint.tree, leaf)
        mapped = partial(checkpoint.load, mmap=True, verify=True)
        can_be_mapped = all(spec.is_contiguous for spec in checkpoint.manifest.specs)
        return Source(tree, checkpoint.metadata, mapped=mapped if can_be_mapped else None, resources=stack.pop_all())


def _lazy(tensor: Tensor, spec: ArraySpec, stored: Callable[[], Iterator[memoryview]] | None) -> LazyArray:
    rows = None if spec.is_raw else spec.grid[0] if spec.grid else 1
    return LazyArray(tensor.shape, tensor.dtype, lambda index: tensor[(*index, ...)], rows, stored)


def _is_plain(spec: ArraySpec) -> bool:
    """Whether the stored bytes are the elements, which are any bits."""
    return spec.is_contiguous and spec.dtype.bits % 8 == 0 and spec.dtype.name != "bool"


def _stored(blocks: BlockReader, tensor: int) -> Iterator[memoryview]:
    """The stored bytes of a tensor of one chunk, in pieces. The digest of a block is compared when its last piece has
    been read: what is made of the pieces is not to be used before the end."""
    if not blocks.manifest.specs[tensor].chunks:
        return
    place = blocks.place(tensor, 0)
    buffer = memoryview(bytearray(min(PIECE, place.extent.length)))
    for number, begin in enumerate(range(0, place.extent.length, blocks.manifest.block)):
        end = min(begin + blocks.manifest.block, place.extent.length)
        hasher = blocks.digest.stream()
        for start in range(begin, end, PIECE):
            piece = buffer[: end - start]
            blocks.read(place.object, place.extent.offset + start, piece)
            hasher.update(piece)
            yield piece
        blocks.check(place, number, hasher.digest())
