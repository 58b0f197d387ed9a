"""Many files with an index (`*.index.json` of Hugging Face): the files' tensors as one tree."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from ..errors import fault
from .probe import Probe
from .source import Loss, Source


def index_of(probe: Probe, name: str) -> str | None:
    """The path of the index: the path itself, or in a directory the file `name` or, for another model name, the only
    one that ends like it."""
    suffix = name[name.index(".") :]
    if not probe.is_directory:
        return probe.path if probe.path.endswith(suffix) else None
    fits = [entry for entry in sorted(probe.entries) if entry.endswith(suffix)]
    chosen = name if name in fits else fits[0] if len(fits) == 1 else None
    return None if chosen is None else os.path.join(probe.path, chosen)


def read(index: str, read_one: Callable[[str], Source]) -> Source:
    """All files that an index names. Each must hold exactly the tensors that the index says."""
    with open(index, encoding="utf-8") as file:
        document = json.load(file)
    names: dict[str, list[str]] = {}
    for name, shard in document["weight_map"].items():
        names.setdefault(shard, []).append(name)
    tree: dict[str, Any] = {}
    losses: list[Loss] = []
    with ExitStack() as stack:
        metadata = None
        for shard, expected in names.items():
            if shard != os.path.basename(shard) or shard in ("", ".", ".."):
                raise fault("unsafe-source", f"the index names {shard!r}, which is not beside it")
            source = stack.enter_context(read_one(os.path.join(os.path.dirname(index), shard)))
            if set(source.tree) != set(expected):
                odd = sorted(set(source.tree) ^ set(expected), key=str)[0]
                raise ValueError(f"{shard} and the index differ about the tensor {odd!r}")
            tree.update(source.tree)
            losses += source.losses
            if metadata is None:
                metadata = source.metadata
            elif source.metadata not in (None, metadata):
                losses.append(Loss("metadata", "", f"that of {shard} differs from that of the first file"))
        ordered = {name: tree[name] for name in document["weight_map"]}
        return Source(ordered, metadata, tuple(losses), resources=stack.pop_all())
