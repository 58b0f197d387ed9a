"""A checkpoint as a Zarr group: chunks that are claimed and not there, compressed bombs, and names without end.
[LIM-003] [LIM-008]"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import zarr.core.sync
from attack import MIB, OPENED, attempt, folder, hostile
from compression_bombs import chunk, gzip_zeros, zstd_zeros

import ckptfmt


def members(path: Path) -> Any:
    """Open the group, and look at every node."""
    with ckptfmt.open(path) as checkpoint:
        return [(name, node.metadata) for name, node in checkpoint.zarr.members(max_depth=None)]  # type: ignore[union-attr]


def keys(path: Path) -> Any:
    """List all keys of the store."""
    with ckptfmt.open(path) as checkpoint:
        store = checkpoint.zarr.store
        count = zarr.core.sync.sync(_count(store))
        assert count < 1 << 16


async def _count(store: Any) -> int:
    return sum([1 async for _ in store.list()])


def elements(path: Path) -> Any:
    """One element, and then all of them."""
    with ckptfmt.open(path) as checkpoint:
        array: Any = checkpoint.zarr["w"]  # type: ignore[index]
        array[(0,) * array.ndim]
        array[...]


FACES = (members, keys, elements)
ABSENT = ("bad-manifest", "missing-object", "short-object", "limit-exceeded", "manifest-digest", "bad-extent")


def main() -> None:
    small = {"w": np.zeros(8, np.uint8), "x": np.arange(5)}
    with folder() as here:
        for chunks in (5_000_000, 1 << 40, 1 << 61):

            def claim(document: dict[str, Any], chunks: int = chunks) -> None:
                document["tensors"].update(shape=[[chunks], [5]], grid=[[1], [5]])
                document["placement"].update(count=struct.pack("<2Q", chunks, 1))

            path = hostile(here / f"{chunks}.ckpt", claim, small, layout="packed")
            attempt(f"{chunks:,} chunks that are not there", path, *ABSENT, actions=FACES)
        for codec, bomb in (("zstd", zstd_zeros(1 << 30)), ("gzip", gzip_zeros(256 * MIB))):
            path = chunk(here / f"{codec}.ckpt", codec, bomb, 1 << 10, "loose")
            attempt(f"a chunk of {codec} zeros that is too large", path, "bad-chunk", actions=(elements,))
        names = {f"t{number}": np.zeros(0, np.uint8) for number in range(20_000)}
        path = hostile(here / "names.ckpt", lambda document: None, names)
        attempt("20,000 tensors", path, OPENED, actions=(_first,))


def _first(path: Path) -> Any:
    """Open the group, and one array."""
    with ckptfmt.open(path) as checkpoint:
        return checkpoint.zarr["t7"]  # type: ignore[index]


if __name__ == "__main__":
    main()
