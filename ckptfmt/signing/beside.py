"""Signature files beside checkpoints, wherever these are. [SIG-002]"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import Any

from ..errors import CkptError
from ..storage import attempt_for, options_at, storage_for
from .bundle import LARGEST, bad

SUFFIX = ".sig"  # behind the name of the checkpoint
NOT_THERE = ("not-found", "missing-object")


def beside(place: str) -> str:
    """Where the signature of a checkpoint is."""
    return place.rstrip("/") + SUFFIX


def read(where: str, options: Mapping[str, Any] | None) -> bytes | None:
    """The bytes of a signature file, None if there is none; raises `bad-signature` for a large one."""
    try:
        with closing(storage_for(where, options_at(where, options))) as storage:
            size = storage.size("")
            if size > LARGEST:
                raise bad(f"the signature file {where} has {size:,} bytes")
            return bytes(storage.read("", 0, size))
    except CkptError as error:
        if error.code in NOT_THERE:
            return None
        raise


def write(where: str, data: bytes, *, overwrite: bool, durable: bool, options: Mapping[str, Any] | None) -> None:
    """Make a signature file, whole or not at all."""
    given = options_at(where, options)
    attempt = attempt_for(where, directory=False, overwrite=overwrite, durable=durable, options=given)
    try:
        out = attempt.create("")
        out.write(0, data)
        out.finish(len(data))
        attempt.publish()
    except BaseException:
        attempt.abort()
        raise
