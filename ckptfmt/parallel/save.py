"""A save by many processes, in rounds (SPEC.md section 11): outlines and boxes, then the plan, then the parts, and at
last the commit by rank 0. A failure of any rank in any round fails all, and nothing is committed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from types import MappingProxyType
from typing import Any, Unpack, cast

import msgpack
import numpy as np

from ..errors import CkptError, fault
from ..format import commit
from ..format.arrays import ArraySpec
from ..format.chunk_table import ChunkTable, columns, first_chunks, rows_of_each
from ..format.dtypes import DTYPES, Array
from ..format.manifest import BLOCK, FORMAT, Part, PartReference
from ..format.tree import Tree
from ..frameworks.sources import Source
from ..layouts import Written, packed
from ..layouts.draft import Draft
from ..layouts.encoding import Chunk
from ..layouts.paging import decided_by_ranks
from ..layouts.part_writer import PartOrder, PartWriter, part_numbers, room_for
from ..layouts.shared_packs import SharedPacks, Sought, link_packs, packs_to_share
from ..layouts.sharing import Base, HeldChunks, equal_chunks, why_nothing
from ..progress import Progress, counter, nothing
from ..storage import IN_FLIGHT, Options, SharedAttempt, directory_attempt_for, join_attempt, path_of
from ..writing.nans import NanGuard, Nans
from ..writing.options import OnNan, RequestOptions, paged_asked
from ..writing.request import Request, request
from ..writing.sharing import opened_base
from ..writing.writer import SaveReport, report_of
from .coordinator import Coordinator, Rounds, refuse_different
from .plan import plan
from .proposal import (
    Boxes,
    Outline,
    boxes_of,
    decode_column,
    encode_column,
    joined,
    outline_of,
    refuse_different_metadata,
)

_OfTensors = dict[int, tuple[str, ArraySpec, Source]]  # names, specs and elements of tensors, by number


class ParallelSave:
    """One save on one rank. Those options must be the same on every rank that say what is saved, and how: not those of
    its storage and progress."""

    def __init__(
        self,
        path: str,
        coordinator: Coordinator,
        *,
        layout: str,
        overwrite: bool,
        durable: bool,
        progress: Progress | None,
        options: Options | None = None,
        in_flight: int = IN_FLIGHT,
        statistics: bool = False,
        on_nan: OnNan | None = None,
        paged: bool | None = None,
        share_with: str | os.PathLike[str] | None = None,
    ) -> None:
        self.statistics, self.on_nan, self.paged = statistics, on_nan, paged
        self.nan: Nans = ()  # of the whole checkpoint
        self.share_with = share_with
        self.base: Base | None = None  # what is there, which each rank opens
        self._opened = ExitStack()
        self._mine: set[tuple[int, int]] = set()  # chunks that this rank writes, unless they are linked
        self.path, self.rounds, self.storage_options, self.in_flight = path, Rounds(coordinator), options, in_flight
        self.layout, self.overwrite, self.durable, self.progress = layout, overwrite, durable, progress
        self.tensors = 0  # of the whole checkpoint
        self._attempt: SharedAttempt | None = None
        self._draft: Draft | None = None  # of the whole checkpoint, on rank 0
        self._digests: list[bytes] = []  # of each rank's outline, on rank 0
        self._part_of_chunk: Array = np.zeros(0, np.int32)
        self._owners: Array = np.zeros(0, np.int32)  # the rank of each chunk, on rank 0
        self._shared: SharedPacks | None = None  # on rank 0

    def save(self, asked: Callable[[], Request]) -> tuple[Written, Request]:
        """Take part; gives, on every rank, what was written by all. `asked` makes this rank's request: if that fails,
        all ranks fail."""
        size, line, self.tensors, nan, shared, refused = self._all_rounds(asked)
        self.nan = [(name, count) for name, count in nan]
        return Written(size, commit.decode(line, FORMAT[0]), shared, refused), self.request

    def _all_rounds(self, asked: Callable[[], Request]) -> list[Any]:
        """What `_commit` told this rank."""
        try:
            wanted = self._round("begin", lambda: self._propose(asked()), self._compare)
            order = self._round("plan", lambda: self._send(wanted), self._plan)
            if self.base is not None:
                order[2] = self._round("share", lambda: self._same(*order[1:3]), self._link)
            return cast(list[Any], self._round("commit", lambda: self._write(order), self._commit))
        except BaseException:
            if self._attempt is not None:
                self._attempt.abort()  # [PUB-007]
            raise
        finally:
            self._opened.close()

    def _round(self, name: str, work: Callable[[], Any], answer: Callable[[list[Any]], list[Any]]) -> Any:
        return self.rounds.round(f"{self._call} ({name})", work, answer)

    @property
    def _call(self) -> str:
        """What all ranks do, in messages."""
        return f"save({self.path!r})"

    # ---- round 1: who has which tree

    def _propose(self, request: Request) -> list[Any]:
        self.request = request
        self._guard = NanGuard(self.path, self.statistics, self.on_nan)
        self.outline = outline_of(request)
        if self.share_with is not None:
            self.base = self._opened.enter_context(opened_base(self.share_with, self.storage_options))
        self.paged = paged_asked(self.paged)
        options = {
            "the program that writes": request.generator,  # first, as others may have other options
            "layout=": self.layout,
            "overwrite=": self.overwrite,
            "durable=": self.durable,
            "statistics=": self.statistics,
            "on_nan=": self.on_nan,
            "paged=": self.paged,
            "share_with=": None if self.base is None else self.base.sha256,
            "digest=": request.digest.name,
            "schema=": None if request.schema is None else list(request.schema),
        }
        return [self.outline.digest, [*map(list, options.items())], request.metadata]

    def _compare(self, proposals: list[Any]) -> list[bool]:
        """Ask one rank for each different outline."""
        refuse_different([options for _, options, _ in proposals])
        refuse_different_metadata([metadata for _, _, metadata in proposals])
        if self.layout != "packed":
            raise fault("bad-option", f"many processes save in layout 'packed', not {self.layout!r}", found=self.layout)
        self._digests = [digest for digest, _, _ in proposals]
        first = {digest: rank for rank, digest in reversed([*enumerate(self._digests)])}
        return [first[digest] == rank for rank, digest in enumerate(self._digests)]

    # ---- round 2: boxes, and the plan

    def _send(self, asked: bool) -> list[Any]:
        return [self.outline.raw if asked else None, boxes_of(self.request.encoded.sources).encode()]

    def _plan(self, messages: list[Any]) -> list[Any]:
        outlines = {rank: Outline.decode(raw) for rank, (raw, _) in enumerate(messages) if raw is not None}
        by_digest = {self._digests[rank]: outline for rank, outline in outlines.items()}
        node, tensors = joined(outlines)
        index = {tensor[0]: number for number, tensor in enumerate(tensors)}
        numbering = {
            digest: np.array([index[tensor[0]] for tensor in outline.tensors], np.uint32)
            for digest, outline in by_digest.items()
        }
        held = []
        for digest, (_, document) in zip(self._digests, messages, strict=True):
            boxes = Boxes.decode(document)
            held.append(Boxes(numbering[digest][boxes.tensor], boxes.start, boxes.extent))
        made = plan(tensors, held)
        self._draft = decided_by_ranks(
            Draft(
                sources=[],
                names=tuple(tensor[0] for tensor in tensors),
                specs=made.specs,
                tree=node,
                metadata=self.request.metadata,
                schema=self.request.schema,
                digest=self.request.digest,
                block=BLOCK,
                generator=self.request.generator,
                report=nothing,
                paged=self.paged,
                watch=self._guard.watch,
            )
        )
        token = self._begin()
        grids = {  # ranks with one outline get the same bytes
            digest: bytes(msgpack.packb([numbers.tolist(), [made.specs[number].grid for number in numbers]]))
            for digest, numbers in numbering.items()
        }
        share_out = self._share_out if self.base is None else self._owned
        parts = share_out(made.owners, len(messages))
        is_paged = self._draft.paged
        return [[token, grids[digest], mine, is_paged] for digest, mine in zip(self._digests, parts, strict=True)]

    def _owned(self, owners: Array, ranks: int) -> Iterator[list[Any]]:
        """For each rank the first columns of a table of the chunks that it writes, unless they are linked."""
        assert self._draft is not None
        self._owners = owners
        cells = columns(np.arange(len(owners)), first_chunks(self._draft.specs))
        yield from ([encode_column(column[mine]) for column in cells] for mine in rows_of_each(owners, ranks))

    def _share_out(self, owners: Array, ranks: int) -> Iterator[list[Any]]:
        """For each rank the parts that it has to write: their numbers, and the first columns of their tables."""
        assert self._draft is not None
        tensors, chunks = columns(np.arange(len(owners)), first_chunks(self._draft.specs))
        sizes = np.array([spec.chunk_nbytes for spec in self._draft.specs], np.int64)
        self._part_of_chunk = np.zeros(len(owners), np.int32)
        number = 0
        for rank, rows in enumerate(rows_of_each(owners, ranks)):
            packs = part_numbers(sizes[tensors[rows]], packed.PACK_BYTES)
            parts = []
            for pack in range(max(int(packs.max(initial=-1)) + 1, 1 if rank == 0 else 0)):
                mine = rows[packs == pack]
                self._part_of_chunk[mine] = number
                parts.append([number, encode_column(tensors[mine]), encode_column(chunks[mine])])
                number += 1
            yield parts

    def _begin(self) -> str:
        """Begin to write, on rank 0; gives the word by which the others join."""
        assert self._draft is not None
        how: Any = {"overwrite": self.overwrite, "durable": self.durable, "in_flight": self.in_flight}
        self._attempt = directory_attempt_for(self.path, options=self.storage_options, **how)
        return self._attempt.share(packed.folders(self._draft))

    def _join(self, token: str) -> SharedAttempt:
        how: Any = {"durable": self.durable, "in_flight": self.in_flight}
        return join_attempt(self.path, token, options=self.storage_options, **how)

    # ---- between them, where a base is shared: which chunks are the same

    def _same(self, grids: bytes, mine: list[list[Any]]) -> list[Any]:
        """Which of the chunks that this rank is to write, by their place among them, are which of the base's."""
        assert self.base is not None
        held = self._held(*msgpack.unpackb(grids))
        if why := why_nothing(self.base, "packed", self.request.digest, BLOCK):
            return [encode_column(np.zeros(0, np.int64))] * 2 + [why]
        self._mine = _cells(*mine)
        tensors, chunks = map(decode_column, mine)  # in order
        begins = np.flatnonzero(np.diff(tensors.astype(np.int64), prepend=-1))
        numbers = [tensors[begin].item() for begin in begins]
        of_tensors = np.split(chunks.astype(np.int64), begins[1:])
        own = [HeldChunks(*held[number], of_one) for number, of_one in zip(numbers, of_tensors, strict=False)]
        found = equal_chunks(own, self.base, self.request.digest, BLOCK)
        same = np.concatenate(found) if found else np.zeros(0, np.int64)
        places = np.flatnonzero(same >= 0)
        return [encode_column(places), encode_column(same[places]), ""]

    def _look_at_linked(self, held: _OfTensors, parts: list[list[Any]]) -> None:
        """Look at the elements of those of its chunks that this rank need not write."""
        if (watch := self._guard.watch) is not None:
            written = [_cells(*cells) for _, *cells in parts]
            for tensor, chunk in sorted(self._mine.difference(*written)):
                name, spec, source = held[tensor]
                watch.look(name, spec, source, chunk)

    def _link(self, messages: list[Any]) -> list[Any]:
        """Link the packs of all ranks; gives each the parts that it has to write."""
        assert self._draft is not None
        assert self._attempt is not None
        assert self.base is not None
        specs = self._draft.specs
        cells = columns(np.arange(len(self._owners)), first_chunks(specs))
        same = np.full(len(self._owners), -1, np.int64)
        for mine, (places, numbers, _) in zip(rows_of_each(self._owners, len(messages)), messages, strict=True):
            same[mine[decode_column(places)]] = decode_column(numbers)
        sizes = np.array([spec.chunk_nbytes for spec in specs], np.int64)[cells[0]]
        packs = packs_to_share(same, cells[0], self._draft.names, self.base)
        sought, refused = Sought(same, sizes, self._owners), next((why for *_, why in messages if why), "")
        self._part_of_chunk, self._shared = link_packs(
            self._attempt, self.base, packs, sought, self._draft.digest, refused
        )
        parts: list[list[Any]] = [[] for _ in messages]
        for number, rows in enumerate(rows_of_each(self._part_of_chunk, self._shared.first)):
            rank = int(self._owners[rows[0]]) if len(rows) else 0
            parts[rank].append([number, *(encode_column(column[rows]) for column in cells)])
        return parts

    # ---- round 3: packs, and the commit

    def _write(self, order: list[Any]) -> list[Any]:
        token, grids, parts, is_paged = order
        attempt = self._attempt
        if attempt is None:
            attempt = self._attempt = self._join(token)
        held = self._held(*msgpack.unpackb(grids))
        self._look_at_linked(held, parts)
        tables = [(number, decode_column(tensors), decode_column(chunks)) for number, tensors, chunks in parts]
        total = sum(held[tensor][1].chunk_nbytes for _, tensors, _ in tables for tensor in tensors.tolist())
        orders = []

        def chunks_of(cells: list[tuple[int, int]]) -> Iterator[Chunk]:
            return (Chunk(*held[tensor], chunk) for tensor, chunk in cells)

        for number, tensors, chunks in tables:
            cells = partial(chunks_of, list(zip(tensors.tolist(), chunks.tolist(), strict=True)))
            room = room_for(held[tensor][1] for tensor in tensors.tolist())
            documents = self._draft.documents if self._draft is not None and number == 0 else None
            orders.append(PartOrder(number, tensors, chunks, cells, room, documents))
        report, watch = counter(self.progress, total), self._guard.watch
        parts = PartWriter(attempt, self.request.digest, BLOCK, report, watch, is_paged=is_paged).write(orders)
        attempt.flush()
        rows = [_row(order.number, part) for order, part in zip(orders, parts, strict=True)]
        return [rows, [] if watch is None else watch.encode()]

    def _held(self, numbers: list[int], grids: list[list[int]]) -> _OfTensors:
        """This rank's tensors by their number in the whole checkpoint."""
        sources = self.request.encoded.sources
        held = {}
        for number, grid, source, tensor in zip(numbers, grids, sources, self.outline.tensors, strict=True):
            name, dtype, shape, codec = tensor
            itemsize = DTYPES[dtype].stored.itemsize
            spec = ArraySpec(DTYPES[dtype], shape, tuple(grid), codec.for_itemsize(itemsize))
            held[number] = name, spec, source
        return held

    def _commit(self, messages: list[Any]) -> list[Any]:
        assert self._draft is not None
        assert self._attempt is not None
        rows = sorted(row for found, _ in messages for row in found)
        parts = tuple(_part(row, self._draft) for row in rows)
        nan = self._joined([seen for _, seen in messages])
        shared = self._shared
        if shared is not None:
            cells = columns(np.arange(len(self._owners)), first_chunks(self._draft.specs))
            parts += tuple(shared.parts(self._attempt, cells, is_paged=self._draft.paged is True))
        written = packed.commit(self._draft, self._attempt, parts, self._part_of_chunk)
        self._publish(self._attempt)
        told = [0, ""] if shared is None else [shared.bytes, shared.refused]
        return [[written.bytes, written.record.encode(), len(self._draft.names), nan, *told]] * len(messages)

    def _joined(self, seen: list[Any]) -> Nans:
        """What all ranks have seen, on rank 0; gives which tensors have NaNs, or refuses them."""
        if self._guard.watch is None or self._draft is None:
            return ()
        for message in seen:
            self._guard.watch.add_encoded(message)
        self._guard.refuse(dict(zip(self._draft.names, self._draft.names, strict=True)))
        return self._guard.nan

    def _publish(self, attempt: SharedAttempt) -> None:
        attempt.publish()


def save_together(
    path: str | os.PathLike[str],
    tree: Tree,
    coordinator: Coordinator,
    *,
    layout: str | None = None,
    overwrite: bool = False,
    durable: bool = True,
    progress: Progress | None = None,
    storage_options: Options | None = None,
    max_bytes_in_flight: int = IN_FLIGHT,
    statistics: bool = False,
    on_nan: OnNan | None = None,
    paged: bool | None = None,
    share_with: str | os.PathLike[str] | None = None,
    alone: Mapping[str, object] = MappingProxyType({}),
    **asked: Unpack[RequestOptions],
) -> SaveReport:
    """Save what many processes hold; see `ckptfmt.save`. `alone` are options that only one process can have."""
    name = path_of(path, tree)
    job = ParallelSave(
        name,
        coordinator,
        layout=layout or "packed",
        overwrite=overwrite,
        durable=durable,
        progress=progress,
        options=storage_options,
        in_flight=max_bytes_in_flight,
        statistics=statistics,
        on_nan=on_nan,
        paged=paged,
        share_with=share_with,
    )
    try:
        written, made = job.save(lambda: _request(tree, alone, **asked))
    except CkptError as error:
        error.path = error.path or name
        raise
    return report_of(name, "packed", written, made, job.tensors, job.nan)


def _request(tree: Tree, alone: Mapping[str, object], **asked: Unpack[RequestOptions]) -> Request:
    for option, value in alone.items():
        if value:
            raise fault("bad-option", f"{option}= is not for saves by many processes")
    return request(tree, **asked)


def _cells(tensors: list[Any], chunks: list[Any]) -> set[tuple[int, int]]:
    """The chunks in two encoded columns."""
    return set(zip(decode_column(tensors).tolist(), decode_column(chunks).tolist(), strict=True))


def _row(number: int, part: Part) -> list[Any]:
    """A part as it is told to rank 0: with the columns of its table, where that is to stand in pages."""
    chunks = part.chunks
    if isinstance(chunks, PartReference):
        return [number, part.object, part.size, part.frame, *chunks]
    assert chunks.offset is not None
    return [number, part.object, part.size, part.frame, chunks.offset.tobytes(), chunks.length.tobytes(), chunks.digest]


def _part(row: list[Any], draft: Draft) -> Part:
    """What `_row` tells of."""
    _, name, size, frame, *told = row
    if not draft.paged:
        return Part(name, PartReference(*told), size, frame)
    offset, length = (np.frombuffer(column, np.uint64) for column in told[:2])
    return Part(name, ChunkTable(offset, length, told[2], draft.digest.size, draft.block), size, frame)
