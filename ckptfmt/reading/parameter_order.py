"""Optimizers that number their state by the order of parameters, beside modules that have those in another order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any

from ..errors import ParameterOrderWarning
from ..format.names import Path, path_label
from ..frameworks.receiving import Intake
from ..warning import warn
from .tensor import Tensor


def warn_of_order(
    objects: Iterable[tuple[Path, Intake]],
    leaves: Mapping[Path, Any],
    origin: Callable[[Any], Tensor | None],
    saved: Callable[[], Mapping[Path, Any]],
) -> None:
    """Warn where an optimizer is filled by numbers, and its parameters stand in another order in a module of the same
    load than in the checkpoint. `leaves`: what is loaded, by its path in the target; `saved`: all of the checkpoint,
    as it was saved, in which `origin` finds them."""
    intakes = list(objects)
    numbered = [(at, intake.numbered) for at, intake in intakes if intake.numbered]
    modules = [(at, intake.parameters) for at, intake in intakes if intake.parameters] if numbered else []
    if not modules:
        return
    places: dict[int, tuple[int, Path]] = {}
    for n, (path, leaf) in enumerate(saved().items()):
        if isinstance(leaf, Tensor):
            places.setdefault(leaf.index, (n, path))
    for optimizer, own in numbered:
        for module, parameters in modules:
            tensors = [origin(leaves.get(path)) for path, owner in parameters.items() if owner in own]
            found = [places[tensor.index] for tensor in tensors if tensor is not None and tensor.index in places]
            for (here, before), (there, after) in pairwise(found):
                if there < here:
                    warn(_said(optimizer, module, path_label(after), path_label(before)), ParameterOrderWarning)
                    break


def _said(optimizer: Path, module: Path, first: str, second: str) -> str:
    here, there = path_label(optimizer), path_label(module)
    return (
        f"the state of the optimizer at {here!r} is numbered by the order of parameters, and the module at {there!r} "
        f"has them in another order than the checkpoint, where {first!r} stands before {second!r}: it may go to other "
        "parameters. Begin with a new optimizer"
    )
