"""Saving and loading with torch's own values: trees of tensors, modules, optimizers and whatever else has a state."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

import ckptfmt
from ckptfmt import MatchReport, SaveReport
from ckptfmt.format import tree as trees
from ckptfmt.format.names import Path, path_label
from ckptfmt.frameworks.memory import aligned
from ckptfmt.frameworks.target import flatten

from .adapter import ADAPTER, RESTORES, TorchAdapter, is_stateful
from .coordinator import coordinator
from .dtypes import tensor_of
from .int_keys import with_int_keys
from .tensors import blank_like

PathLike = str | os.PathLike[str]


def save(path: PathLike, tree: Any, **options: Any) -> SaveReport:
    """Save a tree in which tensors, Parameters, modules, optimizers and other objects with `state_dict()` may stand;
    an object is stored as its state. Host memory is written as it is, without a copy.

    Where torch.distributed runs with more than one rank, all ranks call this together, and what they hold, DTensors
    among it, becomes one checkpoint in layout "packed"; with `coordinator=None` a rank saves alone. `options` and
    errors are those of `ckptfmt.save`.
    """
    if "coordinator" not in options:
        options["coordinator"] = coordinator()
    return ckptfmt.save(path, tree, **options)


def load(path: PathLike, *, into: Any = None, map_location: str | torch.device | None = None, **options: Any) -> Any:
    """Load a checkpoint as torch tensors, on the host or on the device `map_location`.

    With `into`, a tree like the one that was saved: its tensors and modules are filled in place, other objects get
    their state by `load_state_dict()`, and the same tree is given with the checkpoint's plain values. Modules on the
    meta device are materialised on `map_location`. Objects are found in dicts, lists and tuples. Differences raise
    `MismatchError` before anything is written.

    Other `options`, and errors, are those of `ckptfmt.load`.
    """
    if into is None:
        return ckptfmt.load(path, framework=_adapter(map_location), **options)
    return _fill(path, into, map_location, **options)[0]


def load_into(
    path: PathLike,
    module: torch.nn.Module,
    *,
    strict: bool = True,
    select: str | list[str] | None = None,
    map_location: str | torch.device | None = None,
    **options: Any,
) -> MatchReport:
    """Fill a module from a checkpoint of its state, straight into its own memory where that is on the host.

    Parameters stay the very objects that they are, and tied ones tied. Those on the meta device are replaced by new
    ones on `map_location` (the host), with the same `requires_grad`; they need no memory before. What is not in a
    checkpoint stays on the meta device: buffers that are not persistent, and with `strict=False` what is missing.

    `strict=False` allows missing and unexpected entries, which the report names; `select` takes a part of the
    checkpoint. Other `options` are those of `ckptfmt.load`. Raises `MismatchError` before anything is written.
    """
    return _fill(path, module, map_location, strict=strict, select=select, **options)[1]


def _adapter(map_location: str | torch.device | None) -> TorchAdapter:
    return ADAPTER if map_location is None else TorchAdapter(map_location)


def _fill(
    path: PathLike,
    into: Any,
    map_location: str | torch.device | None,
    *,
    strict: bool = True,
    select: str | list[str] | None = None,
    cast: bool = False,
    **options: Any,
) -> tuple[Any, MatchReport]:
    objects = [(at, leaf) for at, leaf in flatten(into, is_stateful) if is_stateful(leaf)]
    modules = [(at, leaf) for at, leaf in objects if isinstance(leaf, torch.nn.Module)]
    with ckptfmt.open(path) as checkpoint, _materialised(modules, _adapter(map_location).device) as materialised:
        target = _target(into, (), checkpoint)
        report = checkpoint.match(target, select=select, cast=cast)
        found = checkpoint.load(into=target, strict=strict, select=select, cast=cast, **options)
        materialised.keep(set(report.missing))
    return _given(into, found), report


# ---- targets


def _target(tree: Any, path: Path, checkpoint: ckptfmt.Checkpoint) -> Any:
    """The tree to be filled: a module as its state, another object as the state that the checkpoint has for it."""
    if is_stateful(tree):
        state = None if isinstance(tree, torch.nn.Module) else _stored_state(checkpoint, path)
        return tree.state_dict() if state is None else state
    if type(tree) in (dict, OrderedDict):
        return type(tree)((key, _target(item, (*path, key), checkpoint)) for key, item in tree.items())
    if type(tree) in (list, tuple):
        return type(tree)(_target(item, (*path, i), checkpoint) for i, item in enumerate(tree))
    return tree


def _stored_state(checkpoint: ckptfmt.Checkpoint, path: Path) -> Any:
    """The state at a path of the checkpoint, with tensors that are still to be filled; None if there is none."""
    specs = checkpoint.manifest.specs
    made: dict[int, torch.Tensor] = {}

    def tensor(index: int) -> torch.Tensor:
        if index not in made:
            made[index] = tensor_of(aligned(specs[index].shape, specs[index].dtype.numpy))
        return made[index]

    state = trees.decode(checkpoint.manifest.tree, tensor, lambda at: at[: len(path)] == path, RESTORES)
    try:
        for key in path:
            state = state[key]
    except (KeyError, IndexError, TypeError):
        return None
    return None if state is trees.OMITTED else state


def _given(tree: Any, found: Any) -> Any:
    """The tree with its own objects, which get their state, and otherwise what was found."""
    if isinstance(tree, torch.nn.Module):
        _set_extra_state(tree, found)
        return tree
    if is_stateful(tree):
        tree.load_state_dict(with_int_keys(found, tree.state_dict()))
        return tree
    if type(tree) in (dict, OrderedDict):
        return type(tree)((key, _given(item, found[key])) for key, item in tree.items())
    if type(tree) in (list, tuple):
        return type(tree)(_given(item, found[i]) for i, item in enumerate(tree))
    return found


def _set_extra_state(module: torch.nn.Module, state: dict[str, Any]) -> None:
    """What parts of a module keep beside tensors. Their tensors were filled with all others."""
    for prefix, part in module.named_modules():
        key = f"{prefix}.{_EXTRA_STATE}" if prefix else _EXTRA_STATE
        if key in state:
            part.set_extra_state(state[key])


_EXTRA_STATE = "_extra_state"  # the key that torch.nn.Module gives to what get_extra_state() gives


# ---- modules on the meta device


class _Entry(NamedTuple):
    """A parameter or buffer that took the place of one on the meta device: `table[name]`."""

    table: dict[str, Any]
    name: str
    before: torch.Tensor


class _Materialised(NamedTuple):
    """The tensors of modules that were materialised."""

    modules: list[tuple[Path, torch.nn.Module]]
    entries: list[_Entry]

    def keep(self, missing: set[str]) -> None:
        """Put back all that have no path but those in `missing`."""
        if missing and self.entries:
            filled = {
                id(value)
                for path, module in self.modules
                for key, value in module.state_dict(keep_vars=True).items()
                if path_label((*path, key)) not in missing
            }
            self.put_back(filled)

    def put_back(self, filled: set[int]) -> None:
        for table, name, before in self.entries:
            if id(table[name]) not in filled:
                table[name] = before


@contextmanager
def _materialised(modules: list[tuple[Path, torch.nn.Module]], device: torch.device) -> Iterator[_Materialised]:
    """Give tensors on the meta device memory, which is not touched yet; put them back if the load fails."""
    made: dict[int, torch.Tensor] = {}  # tied tensors stay tied
    entries: list[_Entry] = []
    for part in (part for _, module in modules for part in module.modules()):
        tables: list[tuple[dict[str, Any], set[str]]] = [
            (part._parameters, set(part._parameters)),
            (part._buffers, set(part._buffers) - part._non_persistent_buffers_set),
        ]
        for table, names in tables:
            for name in sorted(names):
                value = table[name]
                if value is not None and value.is_meta:
                    if id(value) not in made:
                        made[id(value)] = _with_memory(value, device)
                    entries.append(_Entry(table, name, value))
                    table[name] = made[id(value)]
    materialised = _Materialised(modules, entries)
    try:
        yield materialised
    except BaseException:
        materialised.put_back(set())
        raise


def _with_memory(value: torch.Tensor, device: torch.device) -> torch.Tensor:
    empty = blank_like(value.detach(), device)
    if isinstance(value, torch.nn.Parameter):
        return torch.nn.Parameter(empty, value.requires_grad)
    return empty.requires_grad_(value.requires_grad)
