"""Saving and loading with torch's own values: trees of tensors, modules, optimizers and whatever else has a state."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Unpack

import torch

import ckptfmt
from ckptfmt.calls import takes
from ckptfmt.errors import fault

from .adapter import ADAPTER, TorchAdapter

if TYPE_CHECKING:
    from ckptfmt import Checkpoint, LoadOptions, MatchReport, OpenOptions, SaveOptions, SaveReport
    from ckptfmt.options import FillOptions
    from ckptfmt.storage import Place

PathLike = str | os.PathLike[str]
Device = str | int | torch.device | None


@takes("ckptfmt.save_options.SaveOptions")
def save(path: Place, tree: Any, **options: Unpack[SaveOptions]) -> SaveReport:
    """Save a tree in which tensors, Parameters, modules, optimizers and other objects with `state_dict()` may stand;
    an object is stored as its state. Host memory is written as it is, without a copy.

    Where torch.distributed runs with more than one rank, all ranks call this together, and what they hold, DTensors
    among it, becomes one checkpoint in layout "packed"; with `coordinator=None` a rank saves alone. `options` and
    errors are those of `ckptfmt.save`.
    """
    if "coordinator" not in options:
        from .coordinator import coordinator  # here, as loading needs none

        options["coordinator"] = coordinator()
    return ckptfmt.save(path, tree, **options)


@takes("ckptfmt.options.OpenOptions")
def open(path: Place, *, device: Device = None, **options: Unpack[OpenOptions]) -> Checkpoint:
    """Open a checkpoint, whose slices and whole tensors are torch's, on the host or on `device`: `ckpt["w"][:2]`,
    `ckpt["w"].read()`, `ckpt["w"].read(out=tensor)`. `options` and errors are those of `ckptfmt.open`."""
    return ckptfmt.open(path, **_for_torch(device, None, options))


@takes("ckptfmt.options.LoadOptions")
def load(
    path: Place,
    *,
    device: Device = None,
    map_location: Device = None,
    weights_only: bool = True,
    **options: Unpack[LoadOptions],
) -> Any:
    """Load a checkpoint as torch tensors, on the host or on `device`, which torch calls `map_location`.

    With `into`, a tree like the one that was saved: its tensors and modules are filled in place, other objects get
    their state by `load_state_dict()`, and the same tree is given with the checkpoint's plain values. Modules on the
    meta device are materialised on `device`. Differences raise `MismatchError`, before anything is written as
    far as they can be known then: see `load_into`.

    `weights_only` is always True: nothing in a checkpoint is code. Other `options`, and errors, are those of
    `ckptfmt.load`.
    """
    if not weights_only:
        message = "weights_only=False: nothing in a checkpoint is code that could be run"
        raise fault("bad-option", message, path=path, advice="Leave it out; ckptfmt.convert reads files of torch.save")
    return ckptfmt.load(path, **_for_torch(device, map_location, options))


@takes("ckptfmt.options.FillOptions")
def load_into(
    path: Place,
    module: torch.nn.Module,
    *,
    device: Device = None,
    map_location: Device = None,
    weights_only: bool = True,
    **options: Unpack[FillOptions],
) -> MatchReport:
    """Fill a module from a checkpoint of its state, straight into its own memory where that is on the host.

    What has a say in its loading is loaded as torch's `load_state_dict` does it, part by part: submodules with hooks,
    a `_load_from_state_dict` of their own or extra state, and a module with a `load_state_dict` of its own. They decide
    what is missing and what is unexpected.

    Parameters stay the very objects that they are, and tied ones tied. Those on the meta device are replaced by new
    ones on `device`, or `map_location` (the host), with the same `requires_grad`; they need no memory before. What is
    not in a checkpoint stays on the meta device, and is in the report's `meta`: buffers that are not persistent, and
    with `strict=False` what is missing.

    `weights_only` is always True. `options` are those of `ckptfmt.load`: `prefix="model"` takes the part of a
    checkpoint that is the module's, and `strip_prefix="module."` what a wrapper put before the names; `strict=False`
    allows missing and unexpected entries, which the report names, but not that nothing matches; `mismatched="skip"`
    leaves plain parameters of other shapes as they are, a head for other classes, and the report's `skipped` names
    them; on the meta device they stay there. With `mmap=True`
    parameters and buffers on the host become private mappings of the file, as with torch's `assign=True` but that they
    stay the objects that they are: nothing is read until it is used, what is changed stays in memory, and `verify=True`
    checks it before.

    Raises `MismatchError` before anything is written; but what only the values tell a module's own code, is raised
    when that code is called.
    """
    reports: list[MatchReport] = []
    also = options.pop("on_match", None)

    def on_match(report: MatchReport) -> None:
        reports.append(report)
        if also is not None:
            also(report)

    asked: dict[str, Any] = {**options, "into": module, "on_match": on_match}
    load(path, device=device, map_location=map_location, weights_only=weights_only, **asked)
    return reports[0]


def _for_torch(device: Device, map_location: Device, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with the adapter for a device; raises `bad-option` for what names none."""
    return {**options, "framework": _adapter(device, map_location, options)}


def _adapter(device: Device, map_location: Device, options: Mapping[str, Any]) -> TorchAdapter:
    if "framework" in options:
        raise fault("bad-option", "framework= is torch here", advice="Use ckptfmt.load for another framework")
    if device is not None and map_location is not None:
        raise fault("bad-option", "device= and map_location= are one option", advice="Give one of them")
    option, place = ("map_location", map_location) if device is None else ("device", device)
    if place is None:
        return ADAPTER
    try:
        where = torch.device(place)
        torch.empty(0, device=where)
        return TorchAdapter(where)
    except (AssertionError, RuntimeError, TypeError) as error:
        why = f"a {type(place).__name__}" if isinstance(error, TypeError) else str(error).splitlines()[0]
        advice = "Give a device that is there, such as 'cpu'; a checkpoint does not say where its tensors were"
        raise fault("bad-option", f"{option}={place!r:.100}: {why}", advice=advice) from error
