"""Whole verification [BLK-007]: every block, every chunk, every part manifest, every frame (section 9)."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

from faults import Fault, Unsupported, need
from manifest import Tensor
from reader import Checkpoint
from stored import DIGESTS, Chunk


class Damage(list[Fault]):
    @contextmanager
    def collect(self) -> Iterator[None]:
        try:
            yield
        except Fault as fault:
            self.append(fault)


def verify(checkpoint: Checkpoint) -> Damage:
    """All damage of an open checkpoint; raises `Unsupported` if this reader cannot tell."""
    damage = Damage()
    for number, _ in enumerate(checkpoint.parts.parts):
        with damage.collect():
            checkpoint.parts.load(number)
    for tensor in checkpoint.tensors:
        for at in itertools.product(*map(range, tensor.chunk_counts)):
            damage += chunk_damage(checkpoint, tensor, at)
    damage += frame_damage(checkpoint)
    return damage


def chunk_damage(checkpoint: Checkpoint, tensor: Tensor, at: tuple[int, ...]) -> Damage:
    damage, storage = Damage(), checkpoint.storage
    try:
        chunk = Chunk(storage, checkpoint.parts, checkpoint.digest, tensor, at, verify=True)
    except Fault:
        return damage  # its part is damaged, which is said once
    for block in range(chunk.blocks):
        with damage.collect():
            chunk.block(block)
        if damage and damage[-1].code != "block-digest":
            return damage  # the whole object is missing, short or behind a link
    if chunk.extent.object is None and storage.size(chunk.object) > chunk.extent.length:
        damage.append(chunk.fault("bad-extent", f"{chunk.object} is longer than its chunk [LAY-003]"))
    if not damage:
        sides = zip(at, tensor.grid, tensor.storage_shape, strict=True)
        box = [range(i * side, min((i + 1) * side, end)) for i, side, end in sides]
        with damage.collect():
            checkpoint.gather(tensor, box or [range(1)], verify=True)
    return damage


def frame_damage(checkpoint: Checkpoint) -> Damage:
    damage, storage, record = Damage(), checkpoint.storage, checkpoint.storage.record
    if checkpoint.digest not in DIGESTS:
        raise Unsupported(f"digest:{checkpoint.digest}")
    digest = DIGESTS[checkpoint.digest]

    def check(data: bytes, wanted: bytes, name: str) -> None:
        need(digest(data) == wanted, "FRM-004", f"{name or 'the file'} has changed outside chunks", "frame-digest")

    with damage.collect():
        if record.layout == "file":  # [FRM-001]
            end = storage.size("") - record.size
            check(outside_chunks(checkpoint, 0, end, [(record.offset, record.length)]), record.frame, "")
        elif record.layout == "loose":  # [FRM-002]
            check(b"".join(node_documents(checkpoint)), record.frame, "a node document")
        else:  # [FRM-003]
            check(b"", record.frame, "COMMIT")
    for number, part in enumerate(checkpoint.parts.parts if record.layout == "packed" else []):
        with damage.collect():
            whole = storage.size(part["object"]) == part["size"]
            need(whole, "LAY-004", f"{part['object']} has not the size of its part", "bad-extent")
            if checkpoint.parts.is_sound(number):
                check(outside_chunks(checkpoint, number, part["size"], []), part["frame"], part["object"])
    return damage


def outside_chunks(checkpoint: Checkpoint, part: int, size: int, skipped: list[tuple[int, int]]) -> bytes:
    """The bytes of an object but for chunks and what is skipped besides, as (offset, length)."""
    name = checkpoint.parts.parts[part]["object"]
    extents = [(extent.offset, extent.length) for extent in checkpoint.parts.load(part).values()]
    pieces, position = [], 0
    for offset, length in sorted([*extents, *skipped, (size, 0)]):
        pieces.append(checkpoint.storage.read(name, position, offset - position))
        position = offset + length
    return b"".join(pieces)


def node_documents(checkpoint: Checkpoint) -> Iterator[bytes]:
    """The documents of arrays, the groups above them and the root, by path [ZARR-001]; one that is gone is empty."""
    names = {tensor.name for tensor in checkpoint.tensors} | {""}
    names |= {name[:at] for name in names for at, char in enumerate(name) if char == "/"}
    for path in sorted("/".join(("tensors", *filter(None, [name]), "zarr.json")) for name in names):
        try:
            yield checkpoint.storage.read(path, 0, checkpoint.storage.size(path))
        except Fault as fault:
            if fault.code != "missing-object":
                raise
