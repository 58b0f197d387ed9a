"""Saving and loading with torch's own values: trees of tensors, modules, optimizers and whatever else has a state."""

from __future__ import annotations

import os
from typing import Any

import torch

import ckptfmt
from ckptfmt import MatchReport, SaveReport

from .adapter import ADAPTER, TorchAdapter
from .coordinator import coordinator

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
    meta device are materialised on `map_location`. Differences raise `MismatchError`, before anything is written as
    far as they can be known then: see `load_into`.

    Other `options`, and errors, are those of `ckptfmt.load`.
    """
    return ckptfmt.load(path, into=into, framework=_adapter(map_location), **options)


def load_into(
    path: PathLike,
    module: torch.nn.Module,
    *,
    map_location: str | torch.device | None = None,
    **options: Any,
) -> MatchReport:
    """Fill a module from a checkpoint of its state, straight into its own memory where that is on the host.

    What has a say in its loading is loaded as torch's `load_state_dict` does it, part by part: submodules with hooks,
    a `_load_from_state_dict` of their own or extra state, and a module with a `load_state_dict` of its own. They decide
    what is missing and what is unexpected.

    Parameters stay the very objects that they are, and tied ones tied. Those on the meta device are replaced by new
    ones on `map_location` (the host), with the same `requires_grad`; they need no memory before. What is not in a
    checkpoint stays on the meta device: buffers that are not persistent, and with `strict=False` what is missing.

    `options` are those of `ckptfmt.load`: `strict=False` allows missing and unexpected entries, which the report
    names; `select` takes a part of the checkpoint. Raises `MismatchError` before anything is written; but what only
    the values tell a module's own code, is raised when that code is called.
    """
    reports: list[MatchReport] = []
    load(path, into=module, map_location=map_location, on_match=reports.append, **options)
    return reports[0]


def _adapter(map_location: str | torch.device | None) -> TorchAdapter:
    return ADAPTER if map_location is None else TorchAdapter(map_location)
