"""Where a tensor stands among layers, by its name alone: its stack, its layer, and its kind within that.

Of "model/layers.3.mlp.experts.7.up" the stack is "model.layers", the layer "model.layers.3", and the kind
"mlp.experts.*.up": the first number counts layers, any other is one of many that are alike. No model's names are known
here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from ..manager.listing import natural

PARTS = 32  # most parts of a name that are told apart
_SEPARATOR = re.compile(r"[/.]")
_NUMBERED = re.compile(r"(.*?[A-Za-z])([-_]?)([0-9]{1,9})").fullmatch  # block_3, layer3


class LayerPlace(NamedTuple):
    """Where one tensor stands; `stack` and `layer` are empty where nothing in its name is numbered."""

    stack: str
    layer: str
    kind: str


def parts(label: str) -> list[str]:
    """The parts of a name, which slashes and periods divide; without the quotes of digits that are text."""
    found = _SEPARATOR.split(label, PARTS - 1)
    return [part[1:-1] if part[:1] == part[-1:] == "'" and part[1:] else part for part in found]


def layer_place(label: str) -> LayerPlace:
    """Where the tensor of a name stands."""
    found = parts(label)
    at = next((i for i, part in enumerate(found) if part.isdecimal()), None)
    if at is None:
        at = next((i for i, part in enumerate(found) if _NUMBERED(part) and i < len(found) - 1), None)
    if at is None:
        return LayerPlace("", "", ".".join(found))
    numbered = _NUMBERED(found[at])
    head = found[: at + 1]
    above = [*map(_starred, found[:at]), *([] if found[at].isdecimal() else [f"{numbered[1]}{numbered[2]}*"])]  # type: ignore[index]
    rest = ["*" if part.isdecimal() else part for part in found[at + 1 :]]
    return LayerPlace(".".join(above) or "(root)", ".".join(head), ".".join(rest) or "(itself)")


def _starred(part: str) -> str:
    found = _NUMBERED(part)
    return part if found is None else f"{found[1]}{found[2]}*"


def stacks(places: Iterable[LayerPlace]) -> dict[str, tuple[list[str], list[str]]]:
    """The stacks with more than one layer, the one with most tensors first: their layers in order, and the kinds in
    them as they come."""
    layers: dict[str, dict[str, None]] = {}
    kinds: dict[str, dict[str, None]] = {}
    count: dict[str, int] = {}
    for place in places:
        if place.stack:
            layers.setdefault(place.stack, {})[place.layer] = None
            kinds.setdefault(place.stack, {})[place.kind] = None
            count[place.stack] = count.get(place.stack, 0) + 1
    found = sorted((stack for stack in layers if len(layers[stack]) > 1), key=lambda stack: -count[stack])
    return {stack: (sorted(layers[stack], key=natural), list(kinds[stack])) for stack in found}
