"""The weights of a model, name by name, as engines that serve models take them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import torch

from ckptfmt.errors import fault
from ckptfmt.format.names import path_text
from ckptfmt.frameworks.target import flatten
from ckptfmt.storage import COMMIT, is_url, path_of

from .checkpoint import PathLike, load

WEIGHTS = "model.ckpt"  # in a folder


def weights_at(path: PathLike) -> str:
    """The checkpoint of a model that a path means: itself, or in a folder `model.ckpt`, or the only one; raises
    `not-found`."""
    place = path_of(path)
    if is_url(place) or not os.path.isdir(place) or os.path.exists(os.path.join(place, COMMIT)):
        return place
    names = [name for name in sorted(os.listdir(place)) if name.endswith(".ckpt")]
    if WEIGHTS not in names and len(names) != 1:
        found = ", ".join(names[:4]) or "none"
        raise fault("not-found", f"this folder has no {WEIGHTS}, nor one other checkpoint", path=place, found=found)
    return os.path.join(place, WEIGHTS if WEIGHTS in names else names[0])


def weights(path: PathLike, *, prefix: str = "", verify: bool = True) -> Iterator[tuple[str, torch.Tensor]]:
    """The names and tensors of a model's checkpoint, for `model.load_weights` of vLLM and SGLang: in the order of the
    file, tied ones once, by the first of their names; keys of nested dicts joined with ".".

    On the host they are private mappings of the file: all processes that serve a model share the pages that they read,
    and no tensor is in memory before it is looked at. `prefix`: the part of a larger checkpoint that is the model's.
    `verify` checks all bytes before the first tensor is given, which of several processes one may do for all. Raises
    what `ckptfmt.load` does.
    """
    place = weights_at(path)
    more = {"prefix": prefix} if prefix else {}
    tree = load(place, mmap=not is_url(place), verify=verify, **more)  # type: ignore[arg-type]
    found = [(at, leaf.detach()) for at, leaf in flatten(tree) if isinstance(leaf, torch.Tensor)]
    seen: set[tuple[int, torch.Size, torch.dtype]] = set()
    once = []
    for at, tensor in found:
        key = (tensor.data_ptr(), tensor.shape, tensor.dtype)
        if not tensor.numel() or key not in seen:
            seen.add(key)
            once.append((".".join(path_text((part,)) for part in at), tensor))
    yield from sorted(once, key=lambda pair: pair[1].data_ptr())
