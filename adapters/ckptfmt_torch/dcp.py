"""torch.distributed.checkpoint over this format: `StorageWriter` and `StorageReader` for its `save`, `async_save` and
`load`.

What DCP saves becomes an ordinary checkpoint in layout `packed`: the nested state dict, as far as the planner tells how
its flattened names came about, else one dict of those names. DCP itself gathers the plans of all ranks and what they
wrote: every rank writes packs of its own, and the coordinator commits in `finish`. Nothing is visible before.

Values that are no tensors are stored as plain values where the tree has nodes for them. All others are the bytes that
DCP's planner makes of them (a pickle), tagged `torch.saved`. They are never unpickled here; DCP's own planner does that
when it loads them.
"""

from __future__ import annotations

import io
import itertools
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.distributed.checkpoint import storage
from torch.distributed.checkpoint._nested_dict import flatten_state_dict, unflatten_state_dict
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import (
    LoadItemType,
    LoadPlan,
    LoadPlanner,
    ReadItem,
    SavePlan,
    SavePlanner,
    WriteItem,
)
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from ckptfmt.errors import fault
from ckptfmt.format import tree as trees
from ckptfmt.format.arrays import ArraySpec
from ckptfmt.format.chunk_table import columns, first_chunks, rows_of_each
from ckptfmt.format.digests import digest_named
from ckptfmt.format.dtypes import Array, dtype_of
from ckptfmt.format.grid import Shape
from ckptfmt.format.manifest import BLOCK, Part
from ckptfmt.format.names import path_label
from ckptfmt.frameworks.sources import Shard, Sharded
from ckptfmt.layouts import packed
from ckptfmt.layouts.draft import Draft
from ckptfmt.layouts.encoding import Chunk
from ckptfmt.layouts.paging import decided_by_ranks
from ckptfmt.layouts.part_writer import PartOrder, PartWriter, part_numbers, room_for
from ckptfmt.parallel.plan import plan as plan_chunks
from ckptfmt.parallel.proposal import Boxes
from ckptfmt.progress import nothing
from ckptfmt.reading.checkpoint import StoredCheckpoint
from ckptfmt.reading.filling import TargetPlace, fill
from ckptfmt.reading.tensor import Tensor
from ckptfmt.storage import SharedAttempt, directory_attempt_for, join_attempt
from ckptfmt.writing.encoder import encode
from ckptfmt.writing.options import paged_asked
from ckptfmt.writing.request import request
from ckptfmt.writing.writer import drafted

from .adapter import RESTORES, Saved
from .checkpoint import PathLike
from .dtypes import TORCH, row_of
from .tensors import check, places, source_of

Entries = dict[str, Any]  # by DCP's flattened names: tensors as `Sharded` without shards, other values

DIGEST = "xxh3-128"
_OWN_BYTES = {"resolve_data", "transform_object"}  # what a planner overrides that makes bytes in its own way
_PLAIN = {type(None), bool, int, float, complex, str, bytes, torch.Size, torch.dtype, torch.device}


@dataclass(frozen=True, slots=True)
class WriteOrder:
    """What one rank has to write: parts (number, tensors and chunk numbers of their rows), and the tensors in them
    (DCP's name, node name, spec). `documents`: names and specs of all tensors, and the version, for the writer of part
    0. `is_paged`: whether the manifest will be."""

    token: str
    parts: tuple[tuple[int, Array, Array], ...]
    tensors: dict[int, tuple[str, str, ArraySpec]]
    documents: tuple[tuple[str, ...], tuple[ArraySpec, ...], tuple[int, int]] | None
    is_paged: bool


@dataclass(frozen=True, slots=True)
class Prospect:
    """The checkpoint that the coordinator will commit. `draft`: of which the values that are no tensors are not known
    yet; `paths`: that of each entry in the tree; `part_of_chunk`: the part that holds each chunk."""

    attempt: SharedAttempt
    draft: Draft
    entries: Entries
    paths: Mapping[str, tuple[Any, ...]]
    part_of_chunk: Array


class StorageWriter(storage.StorageWriter):
    """Writes what DCP saves as one checkpoint at `path`: all of it, or nothing.

    `overwrite`, `durable`, `metadata`, `schema`, `compression` and `paged` are those of `ckptfmt.save`; of `paged` that
    of the coordinator counts. DCP's `checkpoint_id=` takes the place of `path`, so that one writer serves many saves.
    Planners with `enable_plan_caching=True`, and `use_collectives=False`, are refused: the coordinator must see all
    plans of each save.
    """

    def __init__(
        self,
        path: PathLike,
        *,
        overwrite: bool = False,
        durable: bool = True,
        metadata: Any = None,
        schema: Any = None,
        compression: Any = None,
        paged: bool | None = None,
    ) -> None:
        super().__init__()
        self.paged = paged_asked(paged)
        self._prospect: Prospect | None = None
        self.checkpoint_id = os.fspath(path)
        self.overwrite, self.durable = overwrite, durable
        self.options = {"metadata": metadata, "schema": schema, "compression": compression}

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: PathLike) -> bool:
        return "://" not in os.fspath(checkpoint_id)

    def reset(self, checkpoint_id: PathLike | None = None) -> None:
        if checkpoint_id is not None:
            self.checkpoint_id = os.fspath(checkpoint_id)

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        self._abandon()
        if not kwargs.get("use_collectives", True):
            raise fault("bad-option", "with use_collectives=False each rank would make a checkpoint of its own")

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Decide which rank writes which chunk; raises what `ckptfmt.save` raises before it writes."""
        if not all(plan.usable for plan in plans):
            raise fault("bad-option", "enable_plan_caching=True hides the plans from the coordinator")
        entries = {item.index.fqn: _described(item) for plan in plans for item in plan.items}
        paths = _paths([plan.planner_data for plan in plans], list(entries))
        made = request(_nested(entries, paths), digest=DIGEST, **self.options)
        numbers = {source.identity: n for n, source in enumerate(made.encoded.sources)}  # type: ignore[attr-defined]
        rows = [
            (name, dtype_of(source.dtype).name, source.shape, codec)  # type: ignore[union-attr]
            for name, source, codec in zip(made.names, made.encoded.sources, made.codecs, strict=True)
        ]
        chunks = plan_chunks(rows, [_boxes(plan, numbers) for plan in plans])
        draft = decided_by_ranks(replace(drafted(made, chunks.specs, report=nothing, extra={}), paged=self.paged))
        attempt = directory_attempt_for(self.checkpoint_id, overwrite=self.overwrite, durable=self.durable)
        part_of_chunk = np.zeros(len(chunks.owners), np.int64)
        self._prospect = Prospect(attempt, draft, entries, paths, part_of_chunk)
        orders = _orders(self._prospect, chunks.owners, list(numbers), len(plans))
        return [replace(plan, storage_data=order) for plan, order in zip(plans, orders, strict=True)]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write this rank's parts. Results of entries that are no tensors carry their values; one more carries the
        parts."""
        order: WriteOrder = plan.storage_data
        attempt = self._prospect.attempt if self._prospect else None
        try:
            if attempt is None:
                attempt = join_attempt(self.checkpoint_id, order.token, durable=self.durable)
            results = [
                WriteResult(item.index, item.tensor_storage_size() or 0, _value(item, planner)) for item in plan.items
            ]
            parts = _written(order, attempt, plan.items, planner)
            attempt.flush()
        except BaseException:
            self._abandon()
            if attempt is not None:
                attempt.abort()
            raise
        future: Future[list[WriteResult]] = Future()
        future.set_result([*results, WriteResult(MetadataIndex(""), sum(part.size or 0 for part in parts), parts)])
        return future

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Commit what all ranks wrote."""
        prospect = self._prospect
        assert prospect is not None  # the coordinator has made the plan
        values = {result.index.fqn: result.storage_data for rank in results for result in rank[:-1]}
        entries = {n: entry if isinstance(entry, Sharded) else values[n] for n, entry in prospect.entries.items()}
        parts = [part for rank in results for part in rank[-1].storage_data]  # ranks have theirs in order
        draft = replace(prospect.draft, tree=encode(_nested(entries, prospect.paths)).node)
        try:
            packed.commit(draft, prospect.attempt, tuple(parts), prospect.part_of_chunk)
            prospect.attempt.publish()
        finally:
            self._abandon()

    def _abandon(self) -> None:
        """Remove what an unfinished save left; nothing is left of one that was published."""
        if self._prospect is not None:
            self._prospect.attempt.abort()
            self._prospect = None

    _is_finalizing = staticmethod(sys.is_finalizing)  # when the names that giving up needs may be gone

    def __del__(self) -> None:
        if hasattr(self, "_prospect") and not self._is_finalizing():
            self._abandon()  # of the other ranks' failures the coordinator's writer is not told


# ---- planning


def _described(item: WriteItem) -> Sharded | None:
    """A tensor of a plan, without its elements; None for what is no tensor."""
    if item.tensor_data is None:
        return None
    row = row_of(item.tensor_data.properties.dtype)
    return Sharded(_elements(item.tensor_data.size, row.per), row.numpy, (), item.index.fqn)


def _elements(sides: Sequence[int], per: int) -> Shape:
    """Sides or offsets counted in elements; torch counts bytes along the last axis where it packs elements."""
    return tuple(sides) if per == 1 else (*sides[:-1], sides[-1] * per)


def _paths(mappings: list[Any], names: list[str]) -> dict[str, tuple[Any, ...]]:
    """The path of each name in the tree: as the planners say, if that gives the name back by DCP's rule."""
    joined = {name: path for mapping in mappings if isinstance(mapping, dict) for name, path in mapping.items()}
    if all(name in joined and ".".join(map(str, joined[name])) == name for name in names):
        return {name: joined[name] for name in names}
    return {name: (name,) for name in names}


def _nested(entries: Entries, paths: Mapping[str, tuple[Any, ...]]) -> Any:
    return unflatten_state_dict(entries, dict(paths))


def _boxes(plan: SavePlan, numbers: Mapping[Any, int]) -> Boxes:
    """What of the tensors one rank's plan holds, without empty shards."""
    items = [(item.index.fqn, item.tensor_data) for item in plan.items if item.tensor_data is not None]
    held = [(numbers[name], data) for name, data in items if 0 not in data.chunk.sizes]
    axes = max((len(data.size) for _, data in held), default=0)
    start, extent = np.zeros((len(held), axes), np.int64), np.zeros((len(held), axes), np.int64)
    for row, (_, data) in enumerate(held):
        per = row_of(data.properties.dtype).per
        start[row, : len(data.size)] = _elements(data.chunk.offsets, per)
        extent[row, : len(data.size)] = _elements(data.chunk.sizes, per)
    return Boxes(np.array([number for number, _ in held], np.int64), start, extent)


def _orders(prospect: Prospect, owners: Array, entries: list[Any], ranks: int) -> Iterator[WriteOrder]:
    """What each rank has to write; fills `part_of_chunk`. There is a part 0 even if there is nothing to write."""
    draft = prospect.draft
    specs, names = draft.specs, draft.names
    tensors, chunks = columns(np.arange(len(owners)), first_chunks(specs))
    sizes = np.array([spec.chunk_nbytes for spec in specs], np.int64)[tensors]
    token = prospect.attempt.share(packed.folders(draft))
    count = 0
    for rank, rows in enumerate(rows_of_each(owners, ranks)):
        packs = part_numbers(sizes[rows], packed.PACK_BYTES)
        parts = []
        for pack in range(max(int(packs.max(initial=-1)) + 1, 1 if rank == 0 else 0)):
            mine = rows[packs == pack]
            prospect.part_of_chunk[mine] = count
            parts.append((count, tensors[mine], chunks[mine]))
            count += 1
        used = {tensor: (entries[tensor], names[tensor], specs[tensor]) for tensor in np.unique(tensors[rows]).tolist()}
        yield WriteOrder(token, tuple(parts), used, draft.documents if rank == 0 else None, draft.paged is True)


# ---- writing


def _written(order: WriteOrder, attempt: SharedAttempt, items: Sequence[WriteItem], planner: SavePlanner) -> list[Part]:
    """The parts of an order, which are now on the disk."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()  # the planner is asked on threads that have other streams than this one
    orders = []
    for number, tensors, chunks in order.parts:
        cells = partial(_chunks, order, tensors, chunks, items, planner)
        room = room_for(order.tensors[tensor][2] for tensor in tensors.tolist())
        orders.append(PartOrder(number, tensors, chunks, cells, room, order.documents if number == 0 else None))
    return PartWriter(attempt, digest_named(DIGEST), BLOCK, nothing, is_paged=order.is_paged).write(orders)


def _chunks(
    order: WriteOrder, tensors: Array, chunks: Array, items: Sequence[WriteItem], planner: SavePlanner
) -> Iterator[Chunk]:
    """The chunks of a part. The data of one tensor is resolved at a time, as a planner may have to make it."""
    by_name: dict[str, list[WriteItem]] = {}
    for item in items:
        by_name.setdefault(item.index.fqn, []).append(item)
    for tensor, rows in itertools.groupby(zip(tensors.tolist(), chunks.tolist(), strict=True), key=lambda row: row[0]):
        entry, name, spec = order.tensors[tensor]
        shards = tuple(_shard(item, spec, planner) for item in by_name[entry])
        source = Sharded(spec.shape, spec.dtype.numpy, shards)
        for _, chunk in rows:
            yield Chunk(name, spec, source, chunk)


def _shard(item: WriteItem, spec: ArraySpec, planner: SavePlanner) -> Shard:
    assert item.tensor_data is not None  # it was planned as a part of a tensor
    tensor = planner.resolve_data(item)
    assert isinstance(tensor, torch.Tensor)
    check(tensor)
    source, chunk = source_of(tensor.detach()), item.tensor_data.chunk
    planned = spec.dtype.numpy, _elements(chunk.sizes, spec.dtype.per)
    if (source.dtype, tuple(source.shape)) != planned:
        raise fault(
            "unsupported-leaf",
            f"the planner gave other data for {item.index.fqn!r} than it had planned",
            tensor=item.index.fqn,
            found=f"{source.dtype} {tuple(source.shape)}",
            expected=f"{planned[0]} {planned[1]}",
        )
    return Shard(_elements(chunk.offsets, spec.dtype.per), source)


def _value(item: WriteItem, planner: SavePlanner) -> Any:
    """A value that is no tensor: itself, if it is plain and the planner would but pickle it, else what the planner
    gives. None for a tensor."""
    if item.tensor_data is not None:
        return None
    if isinstance(planner, DefaultSavePlanner) and not _OWN_BYTES & _overridden(type(planner)):
        value = planner.lookup_object(item.index)
        if _is_plain(value):
            return value
    data = planner.resolve_data(item)
    assert isinstance(data, io.BytesIO)
    return Saved(data.getvalue())


def _overridden(kind: type[DefaultSavePlanner]) -> set[str]:
    """Names that a planner's class defines anew."""
    return {name for base in kind.__mro__ if base not in DefaultSavePlanner.__mro__ for name in vars(base)}


def _is_plain(value: Any) -> bool:
    """Whether a value comes back from a tree as it was."""
    if type(value) in (list, tuple):
        return all(map(_is_plain, value))
    if type(value) is str:
        return value.isascii() or value.encode(errors="replace").decode() == value
    return type(value) in _PLAIN


# ---- reading


class StorageReader(storage.StorageReader):
    """Reads any checkpoint at `path` into what DCP loads: each rank just the bytes that it needs, verified, straight
    into the tensors' own memory where that is on the host and contiguous.

    Keys are those that DCP makes of a nested state dict. A dtype that differs from the target's is an error
    (`mismatch`) unless `cast=True`. `bytes_read` counts the chunk bytes that were read.

    **Entries tagged `torch.saved` are unpickled by DCP's default planner, without restriction**: load checkpoints that
    have such entries only from people you trust. `ckptfmt.load` gives the bytes.
    """

    def __init__(self, path: PathLike, *, cast: bool = False, verify: bool = True) -> None:
        super().__init__()
        self.checkpoint_id = os.fspath(path)
        self.cast, self.verify = cast, verify
        self.bytes_read = 0
        self._checkpoint: StoredCheckpoint | None = None
        self._entries: dict[str, Any] = {}

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: PathLike) -> bool:
        return StorageWriter.validate_checkpoint_id(checkpoint_id)

    def reset(self, checkpoint_id: PathLike | None = None) -> None:
        self._close()
        if checkpoint_id is not None:
            self.checkpoint_id = os.fspath(checkpoint_id)

    def read_metadata(self, *args: Any, **options: Any) -> Metadata:
        """What the checkpoint holds, one chunk for each tensor: which bytes a part of it needs is our affair."""
        self._close()
        checkpoint = self._checkpoint = StoredCheckpoint(self.checkpoint_id, verify=self.verify, beside=True)
        handles = {tensor.index: tensor for tensor in checkpoint.tensors.values()}
        described = {
            index: torch.empty(_packed(tensor), dtype=TORCH[tensor.dtype_name], device="meta")
            for index, tensor in handles.items()
            if tensor.dtype_name in TORCH
        }
        restores = {**RESTORES, "torch.Parameter": lambda _, tensor: tensor}
        tree = trees.decode(checkpoint.manifest.tree, lambda index: described.get(index, _LACKING), None, restores)
        if not isinstance(tree, dict):
            raise fault("mismatch", "DCP loads dicts", path=self.checkpoint_id, found=type(tree).__name__)
        flat, paths = flatten_state_dict(tree)
        by_id = {id(tensor): handles[index] for index, tensor in described.items()}
        self._entries = {name: by_id.get(id(entry), entry) for name, entry in flat.items() if entry is not _LACKING}
        return Metadata(
            {name: _metadata(flat[name]) for name in self._entries},
            planner_data={name: paths[name] for name in self._entries},
        )

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **options: Any) -> None:
        pass

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        try:
            filled: list[tuple[ReadItem, torch.Tensor]] = []
            wanted: list[TargetPlace] = []
            for item in plan.items:
                entry = self._entries[item.storage_index.fqn]
                if item.type == LoadItemType.BYTE_IO:
                    planner.load_bytes(item, _bytes(entry))
                else:
                    target = planner.resolve_tensor(item).detach()
                    filled.append((item, target))
                    wanted += self._places(entry, item, target)
            if wanted:
                assert self._checkpoint is not None  # the entries are its tensors
                fill(self._checkpoint.fetcher, wanted, self.verify)
            for item, target in filled:
                planner.commit_tensor(item, target)
        finally:
            self._close()
        future: Future[None] = Future()
        future.set_result(None)
        return future

    def _places(self, tensor: Tensor, item: ReadItem, target: torch.Tensor) -> Iterator[TargetPlace]:
        """Where the elements go that an item of a plan asks for."""
        wanted = row_of(target.dtype)
        if wanted.numpy != tensor.dtype and not self.cast:
            raise fault(
                "mismatch",
                f"cannot load {item.storage_index.fqn!r} into a tensor of another dtype",
                path=self.checkpoint_id,
                tensor=path_label(tensor.path),
                found=tensor.dtype,
                expected=f"{wanted.name}, or cast=True",
            )
        for part in places(target, _elements(item.storage_offsets, wanted.per)):
            yield TargetPlace(tensor, part, wanted.numpy)

    def _close(self) -> None:
        if self._checkpoint is not None:
            self.bytes_read += self._checkpoint.bytes_read
            self._checkpoint.close()
            self._checkpoint = None

    def __del__(self) -> None:
        if hasattr(self, "_checkpoint"):
            self._close()


_LACKING = object()  # in the place of a tensor of a dtype that torch has not: DCP misses it if it asks for it


def _packed(tensor: Tensor) -> Shape:
    """The shape of a stored tensor as torch counts it."""
    per = row_of(TORCH[tensor.dtype_name]).per
    return tensor.shape if per == 1 else (*tensor.shape[:-1], -(-tensor.shape[-1] // per))


def _metadata(entry: Any) -> TensorStorageMetadata | BytesStorageMetadata:
    if not isinstance(entry, torch.Tensor):
        return BytesStorageMetadata()
    everything = ChunkStorageMetadata(torch.Size([0] * entry.ndim), entry.size())
    return TensorStorageMetadata(TensorProperties(entry.dtype), entry.size(), [everything])


def _bytes(value: Any) -> io.BytesIO:
    """A value as planners expect it: bytes for `torch.load`."""
    if isinstance(value, Saved):
        return io.BytesIO(value.data)
    data = io.BytesIO()
    torch.save(value, data)
    data.seek(0)
    return data
