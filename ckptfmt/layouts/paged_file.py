"""Layout `file` with a paged manifest (SPEC.md section 7.1): small tensors in stacks, names in order, then pages."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..format.arrays import ArraySpec
from ..format.chunk_table import ChunkTable, first_chunks, joined_tables
from ..format.digests import Digest
from ..format.dtypes import Array, bytes_of
from ..format.limits import uncollected
from ..format.manifest import Manifest
from ..format.paged_manifest import paged
from ..format.pages import OBJECT
from ..format.stacks import TensorStack, stack_documents, stacks_of
from ..format.zarr_nodes import node_members
from ..frameworks.sources import KeptTensor, Source, are_arrays
from . import chunk_object
from .draft import Draft
from .encoding import Chunk
from .pack_writer import PackWriter
from .paging import in_order
from .pieces import stored_bytes

if TYPE_CHECKING:
    from .framing import Framing

Sources = Sequence[Source]


def add(writer: PackWriter, draft: Draft) -> bytes:
    """Write node documents, chunks and pages; gives the manifest. [PAGE-009]"""
    with uncollected():
        draft, _ = in_order(draft)
        stacks = stacks_of(draft.specs)
    writer.add_documents(_documents(draft.names, draft.specs, stacks, draft.format))
    table = _add_tensors(writer, draft, stacks)
    with uncollected():
        manifest = paged(draft.manifest("file", ()), table, found=draft.statistics())
    member = writer.add_member(OBJECT.encode(), b"".join(manifest.pages), aligned=False)
    return manifest.encode(member.payload)


def lay_out(framing: Framing, manifest: Manifest) -> None:
    """The members of a file up to its pages, as `add` writes them."""
    names, specs, pages = list(manifest.names), list(manifest.specs), manifest.pages
    stacks, firsts, offsets = stacks_of(specs), manifest.first_chunks, manifest.table.offsets
    framing.add_documents(_documents(names, specs, stacks, manifest.format))
    for stack in stacks:
        size = stack.rows * stack.spec.chunk_nbytes
        for chunk in range(stack.chunks):
            tensors = stack.tensors[chunk * stack.rows : (chunk + 1) * stack.rows].tolist()
            padding = size - len(tensors) * stack.spec.chunk_nbytes
            framing.add(stack.chunk_object(chunk), offsets[firsts[tensors[0]]], size, padding=padding)
    for number in _alone(len(specs), stacks):
        for chunk in range(specs[number].chunks):
            row = firsts[number] + chunk
            framing.add(chunk_object(names[number], specs[number], chunk), offsets[row], manifest.table.lengths[row])
    assert pages is not None
    framing.add(OBJECT, *pages.extent, is_aligned=False)


def _alone(count: int, stacks: list[TensorStack]) -> list[int]:
    """Which of so many tensors stand in no stack."""
    is_alone = np.ones(count, np.bool_)
    for stack in stacks:
        is_alone[stack.tensors] = False
    found: list[int] = np.flatnonzero(is_alone).tolist()
    return found


def _documents(
    names: Sequence[str], specs: Sequence[ArraySpec], stacks: list[TensorStack], version: tuple[int, int]
) -> Iterator[tuple[str, bytes]]:
    """The node documents of the stacks, and of what stands in none."""
    alone = _alone(len(specs), stacks)
    root, *others = node_members(tuple([names[n] for n in alone]), [specs[n] for n in alone], version)
    yield root
    yield from stack_documents(stacks, names)
    yield from others


def _add_tensors(writer: PackWriter, draft: Draft, stacks: list[TensorStack]) -> ChunkTable:
    """Write the stacks, then all other chunks; gives the table of all."""
    firsts = np.array(first_chunks(draft.specs), np.int64)
    tables: list[ChunkTable] = []
    numbers = [firsts[:0]]  # of the rows of these tables
    for stack in stacks:
        for chunk in range(stack.chunks):
            tensors = stack.tensors[chunk * stack.rows : (chunk + 1) * stack.rows]
            tables.append(_add_rows(writer, draft, stack, chunk, tensors.tolist()))
            numbers.append(firsts[tensors])
            draft.report(stack.spec.chunk_nbytes * len(tensors))
    others = _alone(len(draft.specs), stacks)
    begun = len(writer.members)
    writer.add_chunks(
        Chunk(draft.names[number], draft.specs[number], draft.sources[number], chunk)
        for number in others
        for chunk in range(draft.specs[number].chunks)
    )
    tables.append(writer.table(begun=begun))
    numbers += [np.arange(firsts[number], firsts[number + 1]) for number in others]
    order = np.argsort(np.concatenate(numbers))
    return joined_tables(tables, draft.digest.size, draft.block).of_rows(order, None)


def _add_rows(writer: PackWriter, draft: Draft, stack: TensorStack, chunk: int, tensors: list[int]) -> ChunkTable:
    """Write a chunk of a stack, with the rows of these tensors; gives their table."""
    size, sources = stack.spec.chunk_nbytes, [draft.sources[tensor] for tensor in tensors]
    taken = len(sources) * size
    has_kept = any(issubclass(kind, KeptTensor) for kind in set(map(type, sources)))
    data = writer.memory(stack.rows * size)
    data[taken:] = 0  # [ZARR-004]
    fill_rows(data[:taken], stack.spec, sources)
    if writer.watch is not None and not has_kept:
        keys = [(draft.names[tensor], 0) for tensor in tensors]
        writer.watch.add_all(keys, stack.spec, data[:taken], np.full(len(sources), size))
    digests = _digests(data[:taken].reshape(-1, size), writer.digest, writer.block)
    for row, source in enumerate(sources) if has_kept else ():
        if isinstance(source, KeptTensor):  # damage stays damage [MIG-020]
            digests[row] = source.chunk(0).digests
    name = stack.chunk_object(chunk).encode()
    payload = writer.add_member(name, data, aligned=True, framed=data[taken:].tobytes()).payload
    offset = np.uint64(payload) + np.arange(len(tensors), dtype=np.uint64) * np.uint64(size)
    length = np.full(len(tensors), size, np.uint64)
    return ChunkTable(offset, length, b"".join(digests), writer.digest.size, writer.block)


def _digests(rows: Array, digest: Digest, block: int) -> list[bytes]:
    """Those of the blocks of each row."""
    if rows.shape[1] <= block:
        return list(map(digest.of, rows))
    return [digest.of_blocks(bytes_of(row), block) for row in rows]


def fill_rows(out: Array, spec: ArraySpec, sources: Sources) -> None:
    """Fill bytes with the stored ones of tensors that are alike, one after another."""
    is_plain = spec.dtype.bits % 8 == 0 and spec.dtype.name != "bool" and spec.shape and sys.byteorder == "little"
    if is_plain and are_arrays(sources):
        arrays: Any = sources
        shape = (len(sources) * spec.shape[0], *spec.shape[1:])
        np.concatenate(arrays, out=out.view(spec.dtype.numpy).reshape(shape), casting="equiv")
    else:
        out[:] = np.frombuffer(b"".join([_stored_row(source, spec) for source in sources]), np.uint8)


def _stored_row(source: Source, spec: ArraySpec) -> bytes:
    if isinstance(source, KeptTensor):
        chunk = source.chunk(0)
        return bytes(chunk.storage.read(chunk.object, chunk.offset, chunk.length))
    return stored_bytes(source, spec, 0)
