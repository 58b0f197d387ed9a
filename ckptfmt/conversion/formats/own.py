"""Checkpoints of this format as a source: every block is verified as it is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from ...format import tree as trees
from ...format.arrays import SAME, ArraySpec
from ...format.commit import find
from ...format.dtypes import Array, bytes_of
from ...format.names import Path
from ...format.tags import NATIVE, child_of
from ...frameworks.adapter import KEPT
from ...frameworks.sources import FILE_PIECE, Buffers, InFile
from ...frameworks.target import rebuild
from ...reading.blocks import BlockReader
from ...reading.checkpoint import StoredCheckpoint
from ...reading.loading import Loader
from ...reading.tensor import Tensor
from ...storage import COMMIT, MANIFEST
from ..probe import Probe
from ..source import DigestedPart, LazyArray, OpenedSource, Ours, in_file, mapped_file

if TYPE_CHECKING:
    from ...reading.bases import PatchBase

PIECE = 1 << 20  # bytes that are still in the processor's cache when they are digested and written


def looks_like(probe: Probe) -> bool:
    if probe.is_directory:
        return bool(probe.entries & {COMMIT, MANIFEST})
    if not probe.head.startswith(b"PK\3\4"):
        return False
    return probe.head[30:38] == b"tensors/" or find(bytes(mapped_file(probe.path)[-512:])) is not None


def read(path: str, *, follow_links: bool = False, base: PatchBase = None) -> OpenedSource:
    checkpoint = StoredCheckpoint(path, follow_links=follow_links, base=base, beside=True)
    source = source_of(checkpoint)
    if checkpoint.base is not None:  # whose bytes are those of the patch, too
        source.size = _stored(checkpoint)
    return source


def on_store(url: str, storage_options: Mapping[str, Any] | None, base: PatchBase) -> tuple[OpenedSource, int]:
    """A checkpoint at a URL, and the bytes of its chunks."""
    checkpoint = StoredCheckpoint(url, storage_options=storage_options, base=base)
    return source_of(checkpoint), _stored(checkpoint)


def _stored(checkpoint: StoredCheckpoint) -> int:
    """Bytes of the chunks of a checkpoint, and of what it is read through."""
    blocks, specs = checkpoint.blocks, checkpoint.manifest.specs
    there = [tensor for tensor, spec in enumerate(specs) if spec.form != SAME]
    blocks.prepare((tensor, range(specs[tensor].chunks)) for tensor in there)
    own = sum(map(blocks.stored_bytes, there))
    return own if checkpoint.base is None else own + _stored(checkpoint.base)


def source_of(opened: StoredCheckpoint) -> OpenedSource:
    """An open checkpoint as a source, which closes it."""
    with ExitStack() as stack:
        checkpoint = stack.enter_context(opened)
        is_remote = checkpoint.blocks.storage.is_remote
        numbers = {name: number for number, name in enumerate(checkpoint.manifest.names)}
        buffers = Buffers(FILE_PIECE)
        lazy: dict[tuple[str, str], LazyArray] = {}  # aliases are one

        def leaf(_: Path, value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            key = (value.name, value.dtype.str)
            if key not in lazy:
                spec = checkpoint.manifest.specs[numbers[value.name]]
                is_plain = _is_plain(spec) and not is_remote  # small pieces are not for stores
                stored = StoredChunkBytes(checkpoint.blocks, numbers[value.name], buffers) if is_plain else None
                lazy[key] = _lazy(value, spec, stored, (checkpoint.blocks, numbers[value.name]))
            return lazy[key]

        ours = _ours(checkpoint)
        children = {name: child_of for found in ours.tags.values() for name, _ in found}
        plain = trees.decode(checkpoint.manifest.tree, checkpoint.handles.__getitem__, restores=children)
        can_be_mapped = not is_remote and all(spec.is_contiguous for spec in checkpoint.manifest.specs)
        mapped = Loader(checkpoint, mmap=True, verify=True, restores=children).load if can_be_mapped else None
        tree, resources = rebuild(plain, leaf), stack.pop_all()
        metadata = trees.decode(checkpoint.manifest.metadata, [].__getitem__, restores=KEPT)
        sha256 = checkpoint.located.record.sha256
        return OpenedSource(tree, metadata, mapped=mapped, resources=resources, ours=ours, manifest_sha256=sha256)


def _ours(checkpoint: StoredCheckpoint) -> Ours:
    tags: dict[Path, list[tuple[str, Any]]] = {}
    for path, name, param in trees.tags(checkpoint.manifest.tree):
        if name not in NATIVE:
            tags.setdefault(path, []).append((name, trees.decode(param, [].__getitem__)))
    return Ours(checkpoint.schema, tags, checkpoint.manifest.unknown)


def _lazy(
    tensor: Tensor, spec: ArraySpec, stored: StoredChunkBytes | None, origin: tuple[BlockReader, int]
) -> LazyArray:
    rows = None if spec.is_raw else spec.grid[0] if spec.grid else 1
    return LazyArray(
        tensor.shape,
        tensor.dtype,
        lambda index: tensor[(*index, ...)],
        rows,
        stored,
        unit=0,
        origin=origin,
    )


def _is_plain(spec: ArraySpec) -> bool:
    """Whether the stored bytes are the elements, which are any bits."""
    return spec.is_contiguous and spec.chunks == 1 and spec.dtype.bits % 8 == 0 and spec.dtype.name != "bool"


class StoredChunkBytes:
    """The stored bytes of a tensor of one chunk."""

    def __init__(self, blocks: BlockReader, tensor: int, buffers: Buffers) -> None:
        self._blocks, self._place, self._buffers = blocks, blocks.place(tensor, 0), buffers

    def pieces(self) -> Iterator[memoryview]:
        """As `StoredBytes` says."""
        for number in range(-(-self._place.extent.length // self._blocks.manifest.block)):
            yield from self._blocks.pieces(self._place, number, PIECE)

    def check(self) -> None:
        """As `StoredBytes` says."""
        for number in range(-(-self._place.extent.length // self._blocks.manifest.block)):
            self._blocks.read_block(self._place, number)

    def matches(self, array: Array, seen: DigestedPart | None = None) -> bool:
        """As `StoredBytes` says."""
        digest, block = self._blocks.digest, self._blocks.manifest.block
        found = in_file(array, self._buffers) if FILE_PIECE % block == 0 else array
        if seen is not None and seen.digests is not None and (seen.digest.name, seen.block) == (digest.name, block):
            digests = seen.digests
        elif isinstance(found, InFile):
            digests = b"".join(digest.of_blocks(bytes_of(piece), block) for piece in found.pieces())
        else:
            digests = digest.of_blocks(bytes_of(array), block)
        return array.nbytes == self._place.extent.length and digests == self._place.extent.digests
