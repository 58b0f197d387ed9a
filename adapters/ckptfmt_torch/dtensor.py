"""DTensors: which regions of the whole this process holds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from ckptfmt.errors import fault
from ckptfmt.format.grid import Shape
from ckptfmt.frameworks.sources import Shard, Sharded

from .dtypes import row_of
from .tensors import identity, source_of


def local_parts(value: Any) -> Iterator[tuple[Shape, torch.Tensor]]:
    """The parts of a DTensor here: where each begins in the whole, and its elements, which share the DTensor's memory.

    One part, but for strided shards (of FSDP over tensor parallelism) whose rows do not follow each other. Raises
    `unsupported-leaf` for partial sums.
    """
    from torch.distributed.tensor import Partial
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
    from torch.distributed.tensor.placement_types import _StridedShard

    placements = value.placements
    if any(isinstance(placement, Partial) for placement in placements):
        raise fault("unsupported-leaf", "a DTensor of partial sums has no value yet; redistribute it first")
    if row_of(value.dtype).per > 1:
        raise fault("unsupported-dtype", f"a DTensor of {value.dtype} has no encoding; give its plain tensors")
    local = value.to_local().detach()
    if value.device_mesh.get_coordinate() is None or not local.numel():
        return
    _, offset = compute_local_shape_and_global_offset(value.shape, value.device_mesh, placements)
    strided = {placement.dim for placement in placements if isinstance(placement, _StridedShard)}
    runs = [
        _runs(value, axis) if axis in strided else [(low, 0, length)]
        for axis, (low, length) in enumerate(zip(offset, local.shape, strict=True))
    ]
    for cell in itertools.product(*runs):
        yield tuple(low for low, _, _ in cell), local[tuple(slice(at, at + length) for _, at, length in cell)]


def _runs(value: Any, axis: int) -> list[tuple[int, int, int]]:
    """The indices of an axis that are here, as runs: (first index in the whole, first in the part, length)."""
    from torch.distributed.tensor import Replicate, distribute_tensor

    along = [
        _along_first_axis(placement)
        if placement.is_shard(axis) or getattr(placement, "dim", None) == axis
        else Replicate()
        for placement in value.placements
    ]
    numbers = torch.arange(value.shape[axis], device=value.device)
    here = distribute_tensor(numbers, value.device_mesh, along, src_data_rank=None).to_local().cpu().numpy()
    borders = [0, *(np.flatnonzero(np.diff(here) != 1) + 1).tolist(), len(here)]
    return [(int(here[low]), low, high - low) for low, high in itertools.pairwise(borders)]


def _along_first_axis(placement: Any) -> Any:
    from torch.distributed.tensor import Shard as ShardPlacement
    from torch.distributed.tensor.placement_types import _StridedShard

    if isinstance(placement, _StridedShard):
        return _StridedShard(0, split_factor=placement.split_factor)
    return ShardPlacement(0)


def sharded(value: Any) -> Sharded:
    """A DTensor as a save takes it: what is here. Replicas are the same elements on several processes, which a save by
    many shares out."""
    parts = tuple(Shard(start, source_of(part)) for start, part in local_parts(value))
    return Sharded(tuple(value.shape), row_of(value.dtype).numpy, parts, identity(value.to_local().detach()))
