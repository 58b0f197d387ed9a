"""Checkpoints of this format as a source: every block is verified as it is read."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any

from ..arrays import ArraySpec
from ..commit import find
from ..names import Path
from ..reader import Checkpoint, Tensor
from ..target import rebuild
from .probe import Probe
from .source import LazyArray, Source, mapped_file


def looks_like(probe: Probe) -> bool:
    if probe.is_directory:
        return bool(probe.entries & {"COMMIT", "manifest.msgpack"})
    if not probe.head.startswith(b"PK\3\4"):
        return False
    return probe.head[30:38] == b"tensors/" or find(bytes(mapped_file(probe.path)[-512:])) is not None


def read(path: str) -> Source:
    with ExitStack() as stack:
        checkpoint = stack.enter_context(Checkpoint(path))
        specs = dict(zip(checkpoint.manifest.names, checkpoint.manifest.specs, strict=True))
        lazy: dict[tuple[str, str], LazyArray] = {}  # aliases are one

        def leaf(_: Path, value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            return lazy.setdefault((value.name, value.dtype.str), _lazy(value, specs[value.name]))

        tree = rebuild(checkpoint.tree, leaf)
        mapped = partial(checkpoint.load, mmap=True, verify=True)
        can_be_mapped = all(spec.is_contiguous for spec in specs.values())
        return Source(tree, checkpoint.metadata, mapped=mapped if can_be_mapped else None, resources=stack.pop_all())


def _lazy(tensor: Tensor, spec: ArraySpec) -> LazyArray:
    rows = None if spec.is_raw else spec.grid[0] if spec.grid else 1
    return LazyArray(tensor.shape, tensor.dtype, lambda index: tensor[(*index, ...)], rows)
