"""HDF5 files that reach out, go in circles, or claim far more than they hold. All are what h5py itself writes."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from attack import AS_SOURCE, MIB, attempt, folder
from mutants import asked


def hard_links(file: Any, depth: int) -> None:
    """Groups with two hard links each: 2^depth paths."""
    group = file
    for _ in range(depth):
        below = group.create_group("a")
        group["b"] = below
        group = below
    group["x"] = np.zeros(2)


def soft_links(file: Any, target: str) -> None:
    file.create_group("here")
    file["here/out"] = h5py.ExternalLink(target, "/")
    file["soft"] = h5py.SoftLink("/here/out/x")
    file["below/soft"] = h5py.SoftLink("../here/out")
    file["twice"] = h5py.SoftLink("/soft")


def soft_circle(file: Any) -> None:
    file["a"], file["b"] = h5py.SoftLink("/b/x"), h5py.SoftLink("/a/x")
    file["self"] = h5py.SoftLink("/self")


def strings(file: Any, count: int, length: int) -> None:
    """Strings of any length, all of which are the same bytes of the file."""
    dataset = file.create_dataset("s", (count,), h5py.string_dtype())
    dataset[0] = "x" * length
    raw = h5py.h5d.DatasetID(dataset.id.id)
    del raw


def again(path: Path, count: int) -> None:
    """Make each string of a dataset the first: references of 16 bytes, into the one collection of strings."""
    data = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        at = file["s"].id.get_offset()
    data[at : at + 16 * count] = bytes(data[at : at + 16]) * count
    path.write_bytes(data)


def deflated_zeros(size: int) -> bytes:
    """So many MiB, as zlib packs them: what it makes of one, again and again."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    return b"\x78\xda" + piece * (size // MIB) + packer.flush() + struct.pack(">I", size % 65521 << 16 | 1)


def attributes(file: Any, count: int) -> None:
    for number in range(count):
        file.attrs[f"a{number}"] = np.zeros(1000, np.uint8)


CASES: dict[str, Callable[[Any], Any]] = {
    **{f"2^{depth} paths": lambda file, depth=depth: hard_links(file, depth) for depth in (4, 9, 14, 40, 120)},
    "a link into a pipe": lambda file: file.__setitem__("a", h5py.ExternalLink("pipe", "/")),
    "soft links into a pipe": lambda file: soft_links(file, "pipe"),
    "soft links into a file": lambda file: soft_links(file, "other.h5"),
    "soft links in a circle": soft_circle,
    "a group in itself": lambda file: file.__setitem__("a", file["/"]),
    "2^40 elements in chunks": lambda file: file.create_dataset("a", (1 << 40,), "f4", chunks=(1024,)),
    "a million chunks that are not there": lambda file: file.create_dataset("a", (1_000_000,), "u1", chunks=(1,)),
    "a chunk of 1 GiB": lambda file: file.create_dataset("a", (8,), "f4", chunks=(1 << 28,), maxshape=(None,)),
    "1 GiB of zeros": lambda file: file.create_dataset(
        "a", (1 << 27,), "f8", chunks=(1 << 27,), compression="gzip"
    ).id.write_direct_chunk((0,), deflated_zeros(1 << 30)),
    "32 MiB of zeros": lambda file: file.create_dataset(
        "a", data=np.zeros(1 << 22), chunks=(1 << 20,), compression="gzip"
    ),
    "32 MiB of zeros in a chunk": lambda file: file.create_dataset(
        "a", data=np.zeros(1 << 22), chunks=(1 << 22,), compression="gzip"
    ),
    "400 attributes": lambda file: attributes(file, 400),
    "an attribute of 1,000 strings": lambda file: file.attrs.__setitem__("a", ["x" * 40] * 1000),
    "4,000 groups": lambda file: [file.create_group(str(number)) for number in range(4000)] and None,
    "400 small datasets": lambda file: [file.create_dataset(str(n), data=np.zeros(3)) for n in range(400)] and None,
}


def main() -> None:
    with folder() as here:
        os.mkfifo(here / "pipe")
        with h5py.File(here / "other.h5", "w") as other:
            other["x"] = np.zeros(2)
        for title, fill in CASES.items():
            path = here / "source.h5"
            with h5py.File(path, "w") as file:
                fill(file)
            attempt(title, path, actions=AS_SOURCE)
        for count, length in asked(((c, n) for c in (1, 100, 10_000, 200_000) for n in (10, 10_000, 1_000_000)), 5):
            path = here / "source.h5"
            with h5py.File(path, "w") as file:
                strings(file, count, length)
            again(path, count)
            attempt(f"{count:,} strings that are one of {length:,} bytes", path, actions=AS_SOURCE)


if __name__ == "__main__":
    main()
