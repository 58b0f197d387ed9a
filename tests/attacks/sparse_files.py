"""A file of 64 GiB that takes no disk: one tensor, all of it a hole. Opening and slices cost what they always do; a
load is refused by the system before anything is read, as the tensor truly has that size."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from attack import OPENED, attempt, folder, hostile, load, look

import ckptfmt

SIZE = 64 << 30
BLOCK = 1 << 30


def slices(path: Path) -> None:
    with ckptfmt.open(path, verify=False) as checkpoint:
        for start in range(0, SIZE, SIZE // 16):
            checkpoint["w"][start : start + 5]


def main() -> None:
    digest = xxhash.xxh3_128_digest(bytes(BLOCK))

    def enlarge(document: dict[str, Any]) -> None:
        document["tensors"].update(shape=[[SIZE]], grid=[[SIZE]])
        document["block"] = BLOCK
        document["parts"][0]["chunks"].update(length=struct.pack("<Q", SIZE), digest=digest * (SIZE // BLOCK))

    with folder() as here:
        path = hostile(here / "sparse.ckpt", enlarge, {"w": np.zeros(8, np.uint8)}, layout="loose")
        os.truncate(path / "tensors" / "w" / "c" / "0", SIZE)
        size = sum(file.stat().st_blocks * 512 for file in path.rglob("*"))
        attempt("64 GiB of holes", path, OPENED, actions=(look, slices), size=size)
        attempt("64 GiB of holes", path, "out-of-memory", "limit-exceeded", actions=(load,), size=size)


if __name__ == "__main__":
    main()
