"""The folder of a pipeline of diffusers: models in folders of their own, which `model_index.json` names.

    {"_class_name": "DDPMPipeline", "scheduler": ["diffusers", "DDPMScheduler"], "unet": ["diffusers", "UNet2DModel"]}

Each model is what lies in its folder, of any format; its tree stands under its name, and its metadata do. Components
without weights, as schedulers and tokenizers are, are passed over; [null, null] is one that the pipeline does without.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Any

from ...errors import CkptError, fault
from ...format.names import Path
from ..claims import shown
from ..entries import check_inside, read_json
from ..opening import open_source, place_of
from ..probe import Probe
from ..shards import distinct
from ..source import Loss, OpenedSource, Ours

INDEX = "model_index.json"
NAME = "diffusers"


def looks_like(probe: Probe) -> bool:
    return probe.is_directory and INDEX in probe.entries


def read(path: str) -> OpenedSource:
    tree: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    losses: list[Loss] = []
    tags: dict[Path, Any] = {}
    with ExitStack() as stack:
        for name in _components(path):
            if not os.path.isdir(os.path.join(path, name)):
                losses.append(Loss("missing", name, f"{INDEX} names it, and there is no such folder"))
                continue
            source = _model(path, name)
            if source is None:
                continue
            stack.enter_context(source)
            tree[name] = source.tree
            losses += (loss._replace(path=f"{name}/{loss.path}".rstrip("/")) for loss in source.losses)
            if source.metadata is not None:
                metadata[name] = source.metadata
            if source.ours is not None:
                tags |= {(name, *at): found for at, found in source.ours.tags.items()}
        if not tree:
            raise fault("unknown-format", f"none of the components that {INDEX} names has weights")
        ours = Ours(None, tags, {}) if tags else None
        return OpenedSource(tree, metadata or None, tuple(losses), resources=stack.pop_all(), ours=ours)


def _components(path: str) -> list[str]:
    """The names of components that a pipeline has; raises `unsafe-source`."""
    document = read_json(os.path.join(path, INDEX), distinct, path)
    found = [name for name, value in document.items() if not name.startswith("_") and type(value) is list]
    for name in found:
        if name != os.path.basename(name) or name in ("", ".", ".."):
            raise fault("unsafe-source", f"{INDEX} names {shown(name)}, which is no folder beside it")
    return [name for name in found if any(part is not None for part in document[name])]


def _model(path: str, name: str) -> OpenedSource | None:
    """The weights of a component; None if it has none."""
    folder = os.path.join(path, name)
    check_inside(folder, path)
    try:
        place = place_of(folder)
    except CkptError as error:
        if error.code == "unknown-format" and error.path == folder:
            return None
        raise
    if place.format == NAME:
        raise ValueError(f"{name!r} is a pipeline itself")
    return open_source(place.path, place.format)
