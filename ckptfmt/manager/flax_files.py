"""Checkpoints that flax itself wrote, in runs with its names: its msgpack files, and directories of Orbax."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Unpack

from ..checkpoint import Checkpoint
from ..errors import CkptError
from ..format.tree import Tree
from ..options import OpenOptions
from ..storage.temporaries import folder_beside
from .run_on_disk import RunOnDisk
from .steps import Step


class FlaxRunOnDisk(RunOnDisk):
    """A directory of this machine in which what flax wrote counts as a step, too, one without a commit record."""

    def _record_at(self, path: str, place: str, status: os.stat_result) -> bytes | None:
        record = super()._record_at(path, place, status)
        return b"" if record is None and format_of(path) else record

    def opened(self, step: Step, **options: Unpack[OpenOptions]) -> AbstractContextManager[Checkpoint]:
        return super().opened(step, **options) if step.record else converted(step.path, **options)

    def load(self, step: Step, call: Callable[..., Tree], options: dict[str, Any]) -> Tree:
        if step.record:
            return super().load(step, call, options)
        with self.opened(step) as checkpoint:
            return call(checkpoint.path, **options)


def format_of(path: str) -> str | None:
    """The format (of `ckptfmt.conversion`) of what flax wrote at a path; None for anything else."""
    from ..conversion.formats import flax, orbax
    from ..conversion.probe import Probe

    try:
        probe = Probe.of(path)
    except CkptError:
        return None
    return "orbax" if orbax.looks_like(probe) else "flax" if not probe.is_directory and flax.looks_like(probe) else None


@contextmanager
def converted(path: str, **options: Unpack[OpenOptions]) -> Iterator[Checkpoint]:
    """What flax wrote, converted into a checkpoint in a temporary folder while the block runs. Raises what
    `ckptfmt.convert` raises."""
    from ..conversion import convert

    with folder_beside(path) as folder:
        target = os.path.join(folder, "converted.ckpt")
        convert(path, target, source_format=format_of(path), durable=False)
        with Checkpoint(target, **options) as checkpoint:
            yield checkpoint
