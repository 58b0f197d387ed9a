"""Tensors as sources of a save and places of a load: host memory as it is, all else in parts through the host."""

from __future__ import annotations

import math
import sys
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from ckptfmt.errors import fault
from ckptfmt.format.dtypes import Array, unpack
from ckptfmt.format.grid import Shape
from ckptfmt.format.memory import aligned
from ckptfmt.frameworks.adapter import SlotPart
from ckptfmt.frameworks.sources import Region, Source, whole

from .dtypes import NAMES, array_of, bits, row_of, tensor_of

STAGE = 32 << 20  # bytes of a part of a tensor that goes through the host, or into memory that is not contiguous


def is_dtensor(value: object) -> bool:
    """Whether a value is a DTensor; imports nothing, as there is none until its module was imported."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(value, module.DTensor)


def check(tensor: torch.Tensor) -> None:
    """Refuse what is no plain tensor of elements (`unsupported-leaf`, `unsupported-dtype`): subclasses, whose contents
    are their own affair, and layouts other than strided."""
    kind = type(tensor)
    if kind not in (torch.Tensor, torch.nn.Parameter) and not is_dtensor(tensor):
        name = f"{kind.__module__}.{kind.__qualname__}"
        sharded = kind.__name__ == "ShardedTensor"
        instead = "save it by ckptfmt_torch.dcp" if sharded else "give the plain tensors that it is made of"
        raise fault("unsupported-leaf", f"a {name} is a subclass of torch.Tensor; {instead}")
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested:
        what = "quantized" if tensor.is_quantized else "nested" if tensor.is_nested else str(tensor.layout)
        raise fault("unsupported-leaf", f"a {what} tensor has no encoding; give the plain tensors that it is made of")
    row_of(tensor.dtype)


def logical_shape(tensor: torch.Tensor) -> Shape:
    """The shape in elements; torch counts bytes where it packs elements."""
    per = row_of(tensor.dtype).per
    if per > 1 and not tensor.ndim:
        raise fault("unsupported-dtype", f"a {tensor.dtype} tensor without axes does not say how many elements it has")
    return tuple(tensor.shape) if per == 1 else (*tensor.shape[:-1], tensor.shape[-1] * per)


def identity(tensor: torch.Tensor) -> Hashable:
    """Equal for tensors that are one: the same memory seen in the same way, on any device. Keeps that memory alive."""
    seen = tensor.dtype, tensor.storage_offset(), tuple(tensor.shape), tensor.stride()
    return tensor.untyped_storage(), *seen, tensor.is_conj(), tensor.is_neg()


def in_host_memory(tensor: torch.Tensor) -> bool:
    """Whether an array can see the elements where they are."""
    plain = tensor.device.type == "cpu" and not tensor.is_conj() and not tensor.is_neg()
    return plain and row_of(tensor.dtype).per == 1


@dataclass(frozen=True, slots=True, eq=False)
class TensorSource:
    """A tensor whose elements are not in host memory as they are saved: on a device, conjugated lazily, packed.
    `stream`: that of CUDA on which its elements come about; they may be read on a thread that has another."""

    tensor: torch.Tensor
    shape: Shape
    dtype: np.dtype[Any]
    identity: Hashable
    stream: Any

    def __getitem__(self, region: Region, /) -> Array:
        with torch.cuda.stream(self.stream):
            return self._elements(region)

    def _elements(self, region: Region) -> Array:
        row = row_of(self.tensor.dtype)
        if row.per == 1:
            return array_of(_on_host(self.tensor[region]))
        last = region[-1]
        first = last.start // row.per
        packed = bits(_on_host(self.tensor[(*region[:-1], slice(first, -(-last.stop // row.per)))])).numpy()
        values = unpack(packed, row, last.stop - first * row.per)
        return values[..., last.start - first * row.per :]


class MetaTensor:
    """Stands for a tensor on the meta device in a template; as it has no elements, nothing stores it."""

    __slots__ = ("tensor",)
    unstorable = "a tensor on the meta device, which has no elements,"

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


def source_of(tensor: torch.Tensor) -> Source:
    """A detached, checked tensor as a save takes it; without a copy where it is in host memory."""
    if in_host_memory(tensor) and tensor.numel():
        return array_of(tensor)
    # empty arrays too, whose address would not tell which are aliases
    stream = torch.cuda.current_stream(tensor.device) if tensor.device.type == "cuda" else None
    return TensorSource(tensor, logical_shape(tensor), row_of(tensor.dtype).numpy, identity(tensor), stream)


def _on_host(part: torch.Tensor) -> torch.Tensor:
    """A part of a tensor in host memory; from a CUDA device through pinned memory, which torch keeps for the next."""
    part = part.resolve_conj().resolve_neg()
    if part.device.type != "cuda":
        return part.cpu()
    raw = bits(part)
    host = torch.empty(raw.shape, dtype=raw.dtype, pin_memory=True)
    host.copy_(raw, non_blocking=True)
    torch.cuda.current_stream(part.device).synchronize()
    return host.view(part.dtype)


def fill(target: torch.Tensor, values: Array) -> None:
    """Write elements into a tensor anywhere, bit for bit."""
    source = tensor_of(values)
    if target.is_conj() or target.is_neg():  # the pending operation is part of the value
        target.copy_(source)
    else:
        _upload(target, source)


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A copy of a host tensor on a device."""
    target = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
    for region in _slabs(whole(tuple(tensor.shape)), tensor.element_size()):
        _upload(target[region], tensor[region])
    return target


def blank_like(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor like a detached one, on a device, whose elements are not set yet."""
    if device.type == "cpu" and not is_dtensor(tensor) and tensor.is_contiguous() and tensor.dtype in NAMES:
        row = row_of(tensor.dtype)
        if row.per == 1:  # torch takes small pages, which take longer to get than to fill
            return tensor_of(aligned(tuple(tensor.shape), row.numpy))
    return torch.empty_like(tensor, device=device)


def _upload(target: torch.Tensor, source: torch.Tensor) -> None:
    """Copy from host memory; to a CUDA device through pinned memory, so that the copy runs on beside the next read."""
    on_cuda = target.device.type == "cuda"
    raw = bits(source)
    bits(target).copy_(raw.pin_memory() if on_cuda else raw, non_blocking=on_cuda)


def places(tensor: torch.Tensor, origin: Shape) -> Iterator[SlotPart]:
    """Where a detached tensor, which begins at `origin` of the whole, is filled: its own memory where that is on the
    host and contiguous, else part by part."""
    host = in_host_memory(tensor)
    if not tensor.numel():
        return
    if host and tensor.is_contiguous():
        yield SlotPart(_moved(whole(tuple(tensor.shape)), origin), array_of(tensor))
        return
    per = row_of(tensor.dtype).per
    for region in _slabs(whole(tuple(tensor.shape)), tensor.element_size()):
        part = tensor[region]
        elements = region if per == 1 else (*region[:-1], slice(region[-1].start * per, region[-1].stop * per))
        if host:
            yield SlotPart(_moved(elements, origin), array_of(part))
        else:
            yield SlotPart(_moved(elements, origin), None, partial(fill, part), identity(part))


def _moved(region: Region, origin: Shape) -> Region:
    return tuple(slice(axis.start + low, axis.stop + low) for axis, low in zip(region, origin, strict=True))


def _slabs(region: Region, itemsize: int, axis: int = 0) -> Iterator[Region]:
    """`region` cut along its first axes into parts of at most STAGE bytes."""
    row = itemsize * math.prod(side.stop - side.start for side in region[axis + 1 :])
    if axis == len(region) or row * (region[axis].stop - region[axis].start) <= STAGE:
        yield region
        return
    rows = max(1, STAGE // max(1, row))
    for start in range(region[axis].start, region[axis].stop, rows):
        part = (*region[:axis], slice(start, min(start + rows, region[axis].stop)), *region[axis + 1 :])
        yield from _slabs(part, itemsize, axis + 1) if row > STAGE else (part,)
