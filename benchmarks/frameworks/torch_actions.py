"""Torch: our adapter, `torch.save` and `torch.load`, and torch.distributed.checkpoint over our storage and its own."""

from __future__ import annotations

import os
from typing import Any

import ckptfmt_torch
import torch
from ckptfmt_torch.dcp import StorageReader, StorageWriter
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

import ckptfmt
from benchmarks.contenders.contender import as_uint16
from benchmarks.states import Array

from .place import Action, Call, Place


def _torch(array: Array) -> torch.Tensor:
    return torch.from_numpy(as_uint16(array)).view(torch.bfloat16)


def _key(name: str) -> str:
    return name.replace(".", "_")  # torch's modules want names without dots


def _arrays(place: Place) -> dict[str, Array]:
    state = place.state
    found: dict[str, Array] = place.keep("arrays", lambda: {_key(n): array for n, array in state.arrays().items()})
    return found


def _tensors(place: Place) -> dict[str, torch.Tensor]:
    return {name: _torch(array) for name, array in _arrays(place).items()}


def _module(place: Place, device: str) -> torch.nn.Module:
    module = torch.nn.Module()
    for name, shape in place.state.shapes.items():
        value = torch.zeros(shape, dtype=torch.bfloat16, device=device) + (device != "meta")  # pages that are there
        module.register_parameter(_key(name), torch.nn.Parameter(value))
    return module


# ---- one process, and no DCP


def save_numpy(path: str, place: Place) -> Call:
    arrays = _arrays(place)
    return lambda: ckptfmt.save(path, arrays, durable=False)


def save_torch(path: str, place: Place) -> Call:
    tensors = _tensors(place)
    return lambda: ckptfmt_torch.save(path, tensors, durable=False)


def torch_save(path: str, place: Place) -> Call:
    tensors = _tensors(place)
    return lambda: torch.save(tensors, path)


def load_numpy(path: str, place: Place) -> Call:
    return lambda: ckptfmt.load(path)


def load_torch(path: str, place: Place) -> Call:
    return lambda: ckptfmt_torch.load(path)


def load_into(path: str, place: Place) -> Call:
    module = place.keep("module", lambda: _module(place, "cpu"))
    return lambda: ckptfmt_torch.load_into(path, module)


def load_state_dict(path: str, place: Place) -> Call:
    module = place.keep("module", lambda: _module(place, "cpu"))
    return lambda: module.load_state_dict(torch.load(path, weights_only=True))


def _with_hooks(place: Place, *, each: bool) -> torch.nn.Module:
    """A module that has a say in its loading: at the root, or in each of its parts, which have a tensor each."""
    module = torch.nn.Module()
    for name, tensor in _module(place, "cpu").named_parameters():
        part = module
        if each:
            module.add_module(name, part := torch.nn.Module())
        part.register_parameter(name, torch.nn.Parameter(tensor))
        if each or not module._load_state_dict_pre_hooks:
            part.register_load_state_dict_pre_hook(lambda *_: None)  # type: ignore[no-untyped-call]
    return module


def _saved_by(path: str, module: torch.nn.Module, save: Any) -> None:
    if not os.path.exists(path):
        save(module.state_dict(), path)


def hooked(name: str, *, each: bool, ours: bool) -> Action:
    """Loads through a module's own code what a save of it wrote, which the first call makes."""

    def action(path: str, place: Place) -> Call:
        module = place.keep("hooked", lambda: _with_hooks(place, each=each))
        if ours:
            _saved_by(path, module, lambda state, at: ckptfmt_torch.save(at, state, durable=False))
            return lambda: ckptfmt_torch.load_into(path, module)
        _saved_by(path, module, torch.save)
        return lambda: module.load_state_dict(torch.load(path, weights_only=True, mmap=True))

    action.__name__ = name
    return action


def save_nothing(path: str, place: Place) -> Call:
    """For actions that save what they load."""
    return lambda: None


def load_into_meta(path: str, place: Place) -> Call:
    module = _module(place, "meta")
    return lambda: ckptfmt_torch.load_into(path, module)


def load_state_dict_meta(path: str, place: Place) -> Call:
    module = _module(place, "meta")
    return lambda: module.load_state_dict(torch.load(path, weights_only=True), assign=True)


# ---- DCP


def _sharded(place: Place, blank: bool) -> dict[str, Any]:
    """Tensors cut along their first axis over the ranks; plain ones in one process. `blank`: to be filled."""
    found: dict[str, Any] = place.keep("blank" if blank else "full", lambda: _shards(place, blank))
    return found


def _shards(place: Place, blank: bool) -> dict[str, Any]:
    if place.ranks == 1:
        tensors = _tensors(place)
        return {name: torch.zeros_like(t) + 1 for name, t in tensors.items()} if blank else tensors
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard

    mesh = init_device_mesh("cpu", (place.ranks,))
    found = {}
    for name, shape in place.state.shapes.items():
        rows = -(-shape[0] // place.ranks)
        local = _torch(place.state.array(name)[rows * place.rank : rows * (place.rank + 1)].copy())
        found[name] = DTensor.from_local(
            torch.zeros_like(local) + 1 if blank else local,
            mesh,
            [Shard(0)],
            run_check=False,
            shape=torch.Size(shape),
            stride=torch.empty(shape, device="meta").stride(),
        )
    return found


def _saving(writer: Any, place: Place) -> Call:
    tensors = _sharded(place, blank=False)
    return lambda: save(tensors, storage_writer=writer, no_dist=place.ranks == 1)


def _loading(reader: Any, place: Place) -> Call:
    tensors = _sharded(place, blank=True)
    return lambda: load(tensors, storage_reader=reader, no_dist=place.ranks == 1)


def dcp_save(path: str, place: Place) -> Call:
    return _saving(StorageWriter(path, durable=False), place)


def fs_save(path: str, place: Place) -> Call:
    return _saving(FileSystemWriter(path, sync_files=False), place)


def dcp_save_flushed(path: str, place: Place) -> Call:
    return _saving(StorageWriter(path), place)


def fs_save_flushed(path: str, place: Place) -> Call:
    return _saving(FileSystemWriter(path), place)


def dcp_load(path: str, place: Place) -> Call:
    return _loading(StorageReader(path), place)


def fs_load(path: str, place: Place) -> Call:
    return _loading(FileSystemReader(path), place)


ACTIONS: dict[str, Action] = {
    action.__name__: action
    for action in (
        *(save_numpy, save_torch, torch_save, load_numpy, load_torch),
        *(hooked(f"load_into_hook_{k}", each=k == "each", ours=True) for k in ("root", "each")),
        *(hooked(f"load_state_dict_hook_{k}", each=k == "each", ours=False) for k in ("root", "each")),
        save_nothing,
        *(load_into, load_into_meta, load_state_dict, load_state_dict_meta),
        *(dcp_save, fs_save, dcp_save_flushed, fs_save_flushed, dcp_load, fs_load),
    )
}
