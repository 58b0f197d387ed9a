"""Damage to files of other formats: whatever is done to their bytes, only a `CkptError` may come of it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ckptfmt import CkptError
from ckptfmt.conversion import open_source
from ckptfmt.conversion.source import is_tensor, walk


def read_all(path: Path, format: str | None = None) -> int:
    """Read a source whole; the number of its tensors."""
    with open_source(str(path), format) as source:
        return sum(1 for _, leaf in walk(source.tree) if is_tensor(leaf) and leaf[()] is not None)


def cuts(data: bytes, most: int = 16) -> Iterator[bytes]:
    """The first bytes of a file, up to many places."""
    yield from (data[: len(data) * part // most] for part in range(1, most))
    yield data[:-1]


def flips(data: bytes, most: int = 50) -> Iterator[bytes]:
    """A file with one byte changed, at places that are drawn."""
    draw = random.Random(len(data))
    for _ in range(most):
        at = draw.randrange(len(data))
        yield data[:at] + bytes([data[at] ^ draw.randrange(1, 256)]) + data[at + 1 :]


def only_errors(path: Path, format: str | None = None) -> None:
    """Cut a file off, and change its bytes: each time it is refused with an error that has a code, or read."""
    data = path.read_bytes()
    before = set(path.parent.iterdir())
    assert read_all(path, format)
    for mangled in (*cuts(data), *flips(data)):
        path.write_bytes(mangled)
        with np.errstate(all="ignore"):
            try:
                read_all(path, format)
            except CkptError as error:
                assert str(error)
    path.write_bytes(data)
    assert set(path.parent.iterdir()) == before
