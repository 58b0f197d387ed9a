"""torch.save and torch.distributed.checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import disk
from benchmarks.contenders.contender import ONLY_LOADS, Contender, SliceCode, as_uint16
from benchmarks.states import Array


class TorchContender(Contender):
    """Takes and gives torch tensors."""

    def adopt(self, arrays: Mapping[str, Array]) -> Any:
        import torch

        tensors = {name: torch.from_numpy(as_uint16(array)) for name, array in arrays.items()}
        return {name: t.view(torch.bfloat16) if t.dtype == torch.uint16 else t for name, t in tensors.items()}

    def as_numpy(self, tensor: Any) -> Array:
        import torch

        data: Array = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
        return data


PART_OF_TENSOR = "part.view(torch.uint16).numpy()"


class TorchSave(TorchContender):
    """PyTorch's own file."""

    name, peer = "torch.save", "torch.save"
    note = "`torch.save`; `torch.load(weights_only=True)`, for the mapped load and the slice with `mmap=True`."
    requires = ("torch",)
    faces = frozenset({"map"})
    slice: SliceCode | None = SliceCode(
        "import torch",
        "part = torch.load(path, mmap=True, weights_only=True)[name][start:stop].clone()",
        PART_OF_TENSOR,
    )

    def save(self, path: Path, tree: Any) -> None:
        import torch

        torch.save(tree, path)

    def load(self, path: Path) -> Mapping[str, Any]:
        import torch

        tree: Mapping[str, Any] = torch.load(path, weights_only=True)
        return tree

    def map(self, path: Path) -> Mapping[str, Any]:
        import torch

        tree: Mapping[str, Any] = torch.load(path, mmap=True, weights_only=True)
        return tree


class TorchSaveMapped(TorchSave):
    """Its file mapped, and each tensor copied, which is faster than its own reading."""

    name = "torch.save mmap"
    note = "`torch.load(mmap=True)` and a `clone` of each tensor. Only its loads are new."
    faces = frozenset()
    slice = None
    omits = ONLY_LOADS

    def load(self, path: Path) -> Mapping[str, Any]:
        return {name: tensor.clone() for name, tensor in self.map(path).items()}


class TorchDcp(TorchContender):
    """torch.distributed.checkpoint in one process."""

    name, peer = "torch DCP", "torch DCP"
    note = (
        "one process (`no_dist`), defaults; not durable: `sync_files=False`. "
        "The load allocates the tensors that DCP fills, from the checkpoint's own metadata."
    )
    requires = ("torch",)
    slow = True

    def _save(self, path: Path, tree: Any, *, sync: bool) -> None:
        from torch.distributed.checkpoint.filesystem import FileSystemWriter
        from torch.distributed.checkpoint.state_dict_saver import save

        save(tree, storage_writer=FileSystemWriter(path, sync_files=sync), no_dist=True)

    def save(self, path: Path, tree: Any) -> None:
        self._save(path, tree, sync=False)

    def save_durable(self, path: Path, tree: Any) -> None:
        self._save(path, tree, sync=True)
        disk.fsync(path)

    def load(self, path: Path) -> Mapping[str, Any]:
        import torch
        from torch.distributed.checkpoint.filesystem import FileSystemReader
        from torch.distributed.checkpoint.state_dict_loader import load

        reader = FileSystemReader(path)
        entries: Mapping[str, Any] = reader.read_metadata().state_dict_metadata
        tree = {name: torch.empty(entry.size, dtype=entry.properties.dtype) for name, entry in entries.items()}
        load(tree, storage_reader=reader, no_dist=True)
        return tree
