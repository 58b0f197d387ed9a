"""Packs of an earlier checkpoint that a save takes over, as they are (SPEC.md section 9, LAY-008).

A pack is linked whole. What of it is no chunk of the new checkpoint is dead, and of the frame; a pack with more than a
share of that is not linked, and what is still the same in it goes into a pack of its own, apart from what has changed.
So what keeps changing and what does not lie in different packs after two saves.

Linked packs stand behind the new ones, in their old order: of several members of one name, the first is the chunk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..errors import DAMAGED, StorageError
from ..format.chunk_table import ChunkTable, rows_by, rows_of_each
from ..format.digests import Digest
from ..format.dtypes import Array
from ..format.manifest import Part, PartReference
from ..format.pack import LARGE, LARGE_ALIGNMENT, SMALL_ALIGNMENT
from . import bytes_between
from .part_writer import pack_name, part_numbers, put_table
from .sharing import Base, HeldChunks, equal_chunks, rows_of, why_nothing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..storage import Attempt
    from .draft import Draft

PACK_BYTES = 4 << 30  # of packs that are to be shared: a store copies no object of 5 GiB and more in one request
MOST_DEAD = 0.25  # of a linked pack, by bytes
MOST_LINKED = 32  # packs; what is left of the smallest others is written together
HEADERS = 30 + 46 + 6 + 2 * 24  # bytes of a member besides payload, twice its tensor's name, and alignment, about


class SharedPack(NamedTuple):
    """A pack to be linked: the number of its part in the base, and the chunks that are taken: their numbers in the
    new checkpoint (ascending), and their rows in the base's table. `frame`: its digest with what is dead. [FRM-003]"""

    part: int
    numbers: Array
    rows: Array
    frame: bytes = b""


class SharedPacks(NamedTuple):
    """Packs that are linked, as the parts from number `first` on; see `Written` for `bytes` and `refused`."""

    base: Base
    first: int
    packs: Sequence[SharedPack]
    refused: str

    @property
    def bytes(self) -> int:
        return sum(self._part(shared).size or 0 for shared in self.packs)

    def _part(self, shared: SharedPack) -> Part:
        return self.base.chunks.manifest.parts[shared.part]

    def parts(self, attempt: Attempt, cells: tuple[Array, Array], *, is_paged: bool = False) -> list[Part]:
        """Write their part manifests, unless the manifest is paged; `cells`: the first columns of a table of all
        chunks."""
        parts = []
        for number, shared in enumerate(self.packs, self.first):
            table: ChunkTable | PartReference
            table = self.base.chunks.table(shared.part).of_rows(shared.rows, shared.numbers)
            if not is_paged:
                table = put_table(attempt, number, table, *(column[shared.numbers] for column in cells))
            parts.append(Part(pack_name(number), table, self._part(shared).size, shared.frame))
        return parts


def share(
    draft: Draft, base: Base, attempt: Attempt, cells: tuple[Array, Array], sizes: Array
) -> tuple[Array, SharedPacks]:
    """Link what a draft can share with `base`; gives the part of each chunk, and what is linked. `sizes`: bytes of
    each chunk."""
    same, refused = np.full(len(sizes), -1, np.int64), why_nothing(base, "packed", draft.digest, draft.block)
    if not refused and len(sizes):
        tensors = zip(draft.names, draft.specs, draft.sources, strict=True)
        held = [HeldChunks(*tensor, np.arange(tensor[1].chunks)) for tensor in tensors]
        same = np.concatenate(equal_chunks(held, base, draft.digest, draft.block))
    sought = Sought(same, sizes, np.zeros(len(sizes), np.int32))
    packs = packs_to_share(same, cells[0], draft.names, base)
    numbers, shared = link_packs(attempt, base, packs, sought, draft.digest, refused)
    draft.report(int(sizes[numbers >= shared.first].sum()))
    return numbers, shared


class Sought(NamedTuple):
    """Of each chunk of a checkpoint that is written: the number of that of the base that is the same, or -1, its bytes,
    and the rank that has it."""

    same: Array
    sizes: Array
    owners: Array


def link_packs(
    attempt: Attempt, base: Base, wanted: Sequence[SharedPack], sought: Sought, digest: Digest, refused: str
) -> tuple[Array, SharedPacks]:
    """Link the packs that are wanted, as far as they are sound and can be; gives the part of each chunk, those of new
    packs first, and what is linked."""
    packs = []
    for shared in wanted:
        frame = shared_frame(shared, base, digest)
        if frame is None:
            refused = f"{base.chunks.manifest.parts[shared.part].object} of the earlier checkpoint is damaged"
        else:
            packs.append(shared._replace(frame=frame))
    while True:
        numbers, first = _numbered(sought, packs)
        failed = _link_all(attempt, base, packs, first)
        if not failed:
            return numbers, SharedPacks(base, first, packs, refused)
        refused = next(iter(failed.values()))
        packs = [shared for shared in packs if shared.part not in failed]


def _numbered(sought: Sought, packs: Sequence[SharedPack]) -> tuple[Array, int]:
    """The part of each chunk if these packs are linked: for each rank what changed, then what is the same and must be
    written, each in packs of its own; and the number of the first linked one."""
    same, sizes, owners = sought
    numbers = np.full(len(same), -1, np.int64)
    for shared in packs:
        numbers[shared.numbers] = len(same)
    is_new, first = numbers < 0, 0
    for of_rank in rows_of_each(owners, int(owners.max(initial=0)) + 1):
        mine = of_rank[is_new[of_rank]]
        for rows in (mine[same[mine] < 0], mine[same[mine] >= 0]):
            if len(rows):
                numbers[rows] = first + part_numbers(sizes[rows], PACK_BYTES)
                first = int(numbers[rows].max()) + 1
        first = max(first, 1)  # with the node documents, by rank 0 [LAY-005]
    for number, shared in enumerate(packs, first):
        numbers[shared.numbers] = number
    return numbers, first


def packs_to_share(same: Array, tensors: Array, names: Sequence[str], base: Base) -> list[SharedPack]:
    """The packs that are worth being linked, in the order of the base. `same`: for each chunk that of the base that is
    equal, or -1; `tensors`: the tensor of each chunk."""
    numbers = np.flatnonzero(same >= 0)
    manifest = base.chunks.manifest
    parts = manifest.parts_of(same[numbers]) if len(numbers) else None
    if parts is None:
        return []
    lengths = np.fromiter(map(len, names), np.int64, len(names))
    worth = []
    for part, of_part in rows_by(parts):
        taken = numbers[of_part]
        table = base.chunks.table(part)
        rows = rows_of(table, same[taken])
        payloads = table.length[rows].astype(np.int64)
        gaps = np.where(payloads >= LARGE, LARGE_ALIGNMENT, SMALL_ALIGNMENT)
        used = int((payloads + gaps + 2 * lengths[tensors[taken]] + HEADERS).sum())
        if used >= (manifest.parts[part].size or 0) * (1 - MOST_DEAD):
            worth.append((used, SharedPack(part, taken, rows)))
    largest = sorted(worth, key=lambda pair: -pair[0])[:MOST_LINKED]
    return sorted((shared for _, shared in largest), key=lambda shared: shared.part)


def _link_all(attempt: Attempt, base: Base, packs: Sequence[SharedPack], first: int) -> dict[int, str]:
    """Make the packs objects of an attempt, as its parts from number `first` on; gives for each part of the base that
    cannot be linked why. Then there is none of them."""
    refused: dict[int, str] = {}
    made: list[str] = []
    for number, shared in enumerate(packs, first):
        part, name = base.chunks.manifest.parts[shared.part], pack_name(number)
        why = attempt.link(name, base.storage, part.object or "", part.size or 0)
        if why:
            refused[shared.part] = why
        else:
            made.append(name)
    for name in made if refused else ():
        attempt.remove(name)
    return refused


def shared_frame(shared: SharedPack, base: Base, digest: Digest) -> bytes | None:
    """The digest of the frame of a pack of which so much is taken; None if the pack is damaged. If that is less than
    the base took, what is between is read, with the old frame, whose digest is checked. [FRM-003]"""
    part, table = base.chunks.manifest.parts[shared.part], base.chunks.table(shared.part)
    if len(shared.rows) == len(table.length):
        return part.frame
    extents = [*zip(table.offsets, table.lengths, strict=True)]
    try:
        if _frame(base, part, extents, digest) != part.frame:
            return None
        return _frame(base, part, [extents[row] for row in shared.rows.tolist()], digest)
    except (*DAMAGED, StorageError):
        return None


def _frame(base: Base, part: Part, taken: list[tuple[int, int]], digest: Digest) -> bytes:
    stream = digest.stream()
    for data in bytes_between(base.storage, part.object or "", taken, part.size or 0):
        stream.update(data)
    return stream.digest()
