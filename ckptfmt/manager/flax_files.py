"""Checkpoints that flax itself wrote, for runs of mode "flax": its msgpack files, and directories of Orbax."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ..checkpoint import Checkpoint
from ..errors import CkptError
from ..storage.temporaries import folder_beside


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
def opened(path: str) -> Iterator[Checkpoint]:
    """What flax wrote, converted into a checkpoint in a temporary folder while the block runs. Raises what
    `ckptfmt.convert` raises."""
    from ..conversion import convert

    with folder_beside(path) as folder:
        target = os.path.join(folder, "converted.ckpt")
        convert(path, target, source_format=format_of(path), durable=False)
        with Checkpoint(target) as checkpoint:
            yield checkpoint
