"""Checkpoints that flax itself wrote, for runs of mode "flax": its msgpack files, and directories of Orbax."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import CkptError
from ..reading.reader import Checkpoint, open_checkpoint
from ..storage import leases


def format_of(path: str) -> str | None:
    """The format (of `ckptfmt.conversion`) of what flax wrote at a path; None for anything else."""
    from ..conversion import flax, orbax
    from ..conversion.probe import Probe

    try:
        probe = Probe.of(path)
    except CkptError:
        return None
    return "orbax" if orbax.looks_like(probe) else "flax" if not probe.is_directory and flax.looks_like(probe) else None


@contextmanager
def opened(path: str, temporary: str) -> Iterator[Checkpoint]:
    """What flax wrote, converted into a checkpoint at a temporary path while the block runs. Raises what
    `ckptfmt.convert` raises."""
    from ..conversion import convert

    os.mkdir(temporary)
    try:
        with leases.lease(temporary):  # so that nobody sweeps it
            target = os.path.join(temporary, "converted.ckpt")
            convert(path, target, source_format=format_of(path), durable=False)
            with open_checkpoint(target) as checkpoint:
                yield checkpoint
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
