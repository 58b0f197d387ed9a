"""Tensors as bytes of their storages: every bit, the order in memory, and what shares memory come back as they were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from ckptfmt.errors import fault

ALIGNED = 64  # bytes; a part of a storage begins at a multiple, as memory of loaded arrays does


class Seen(NamedTuple):
    """How a tensor sees the bytes of a part of a storage. `offset`: in bytes, of its first element."""

    dtype: torch.dtype
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    is_conj: bool
    is_neg: bool

    def of(self, raw: torch.Tensor) -> torch.Tensor:
        """The tensor that sees these bytes so."""
        itemsize = self.dtype.itemsize
        start = self.offset + raw.storage_offset()
        tensor = torch.empty(0, dtype=self.dtype, device=raw.device)
        tensor.set_(raw.untyped_storage(), start // itemsize, self.size, self.stride)
        tensor = tensor.conj() if self.is_conj else tensor
        return torch._neg_view(tensor) if self.is_neg else tensor

    def plain(self) -> list[Any]:
        """As values that a checkpoint has."""
        name = str(self.dtype).removeprefix("torch.")
        return [name, list(self.size), list(self.stride), self.offset, self.is_conj, self.is_neg]

    @classmethod
    def from_plain(cls, values: list[Any]) -> Seen:
        name, size, stride, *rest = values
        return cls(getattr(torch, name), tuple(size), tuple(stride), *rest)


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether the bytes of its storage are all there is to a tensor."""
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or tensor.layout != torch.strided:
        return False
    return not (tensor.is_quantized or tensor.is_nested or tensor.is_meta)


def span(tensor: torch.Tensor) -> tuple[int, int]:
    """The bytes of its storage from the first to the last that a tensor sees."""
    itemsize = tensor.element_size()
    start = int(tensor.storage_offset()) * itemsize
    if not tensor.numel():
        return start, start
    last = sum((side - 1) * step for side, step in zip(tensor.shape, tensor.stride(), strict=True))
    return start, start + int(last + 1) * itemsize


def seen(tensor: torch.Tensor, start: int) -> Seen:
    """How a tensor sees its storage from a byte on."""
    offset = int(tensor.storage_offset()) * tensor.element_size() - start
    return Seen(tensor.dtype, tuple(tensor.shape), tensor.stride(), offset, tensor.is_conj(), tensor.is_neg())


def part(tensor: torch.Tensor, start: int, end: int) -> torch.Tensor:
    """Bytes of a tensor's storage, without a copy."""
    raw = torch.empty(0, dtype=torch.uint8, device=tensor.device)
    raw.set_(tensor.untyped_storage(), start, (end - start,), (1,))
    return raw


def version(tensor: torch.Tensor) -> int:
    """How often a tensor, or what shares its memory, was changed in place."""
    return 0 if tensor.is_inference() else tensor._version


def memory_of(tensors: Sequence[torch.Tensor]) -> int:
    """Bytes that tensors see, counted once where they share them."""
    return sum(end - start for start, end in _spans(tensors).values())


def _key(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata if is_plain(tensor) else id(tensor)


def _spans(tensors: Sequence[torch.Tensor]) -> dict[int, tuple[int, int]]:
    found: dict[int, tuple[int, int]] = {}
    for tensor in tensors:
        start, end = span(tensor) if is_plain(tensor) else (0, tensor.numel() * tensor.element_size())
        low, high = found.get(_key(tensor), (start, end))
        found[_key(tensor)] = min(low, start // ALIGNED * ALIGNED), max(high, end)
    return found


def packed(tensors: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], list[list[Any]]]:
    """Tensors as the bytes of each storage, and as how each of them sees which bytes, in plain values."""
    for tensor in tensors:
        if not is_plain(tensor):
            name = f"{type(tensor).__module__}.{type(tensor).__qualname__}, {tensor.layout}"
            message = "of a state on the disk, tensors must be plain ones"
            raise fault("unsupported-leaf", message, found=name, advice="Give memory= alone")
    spans = _spans(tensors)
    places = {key: number for number, key in enumerate(spans)}
    parts: list[Any] = [None] * len(spans)
    about = []
    for tensor in tensors:
        key = _key(tensor)
        place, (start, end) = places[key], spans[key]
        parts[place] = part(tensor, start, end)
        about.append([place, str(tensor.device), *seen(tensor, start).plain()])
    return parts, about


def unpacked(parts: Sequence[torch.Tensor], about: list[list[Any]]) -> list[torch.Tensor]:
    """The tensors that were packed, each on its device."""
    there = list(parts)
    tensors = []
    for place, device, *plain in about:
        if str(there[place].device) != device:
            there[place] = there[place].to(device)
        tensors.append(Seen.from_plain(plain).of(there[place]))
    return tensors
