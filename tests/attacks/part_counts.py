"""Thousands of parts, and as many runs of chunks: work that grows with the product of both. [LIM-007]"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from attack import OPENED, attempt, folder, hostile

COUNT = 8_000


def main() -> None:
    empty = {"tensor": b"", "chunk": b"", "offset": b"", "length": b"", "digest": b""}
    with folder() as here:

        def multiply(document: dict[str, Any], steps: bool = False) -> None:
            part = document["parts"][0]
            more = [{"object": f"p/{n}", "size": 0, "frame": part["frame"], "chunks": empty} for n in range(COUNT)]
            document["parts"] = [part, *more]
            count = 2 if steps else 1
            chunks = COUNT * count
            document["tensors"].update(shape=[[chunks], [5]], grid=[[1], [5]])
            rows = range(COUNT)
            document["placement"] = {
                "tensor": struct.pack(f"<{COUNT + 1}I", *[0] * COUNT, 1),
                "chunk": struct.pack(f"<{COUNT + 1}Q", *[count * row for row in rows], 0),
                "count": struct.pack(f"<{COUNT + 1}Q", *[count] * COUNT, 1),
                "part": bytes(4 * (COUNT + 1)),
                "step": struct.pack(f"<{COUNT + 1}I", *[row * steps for row in rows], 0),
            }

        codes = (OPENED, "bad-manifest", "manifest-digest", "missing-object", "frame-digest", "bad-extent")
        path = hostile(here / "parts.ckpt", multiply, layout="packed")
        attempt(f"{COUNT:,} parts and runs", path, *codes)
        path = hostile(here / "steps.ckpt", lambda document: multiply(document, True), layout="packed")
        attempt(f"{COUNT:,} parts and runs with steps of every length", path, *codes)

        def vast(document: dict[str, Any]) -> None:
            document["tensors"].update(shape=[[1 << 61], [5]], grid=[[1], [5]], dtype=["uint8", "int64"])
            document["placement"].update(count=struct.pack("<2Q", 1 << 61, 1))

        def leap(document: dict[str, Any]) -> None:
            document["placement"].update(step=struct.pack("<2I", *[(1 << 32) - 1] * 2))

        path = hostile(here / "leap.ckpt", leap, {"w": np.zeros(8, np.uint8), "x": np.arange(5)}, layout="packed")
        attempt("steps of 2^32 - 1 in runs of one chunk", path, *codes)

        path = hostile(here / "vast.ckpt", vast, {"w": np.zeros(8, np.uint8), "x": np.arange(5)}, layout="packed")
        attempt("2^61 chunks in one run", path, *codes)


if __name__ == "__main__":
    main()
