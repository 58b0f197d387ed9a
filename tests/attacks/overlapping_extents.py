"""Chunks that share bytes, lie in the manifest, or outside of the file: one byte would stand for many. [CHK-005]"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from attack import attempt, folder, hostile


def main() -> None:
    tree = {f"t{number:03}": np.arange(8192, dtype=np.int64) for number in range(200)}
    with folder() as here:

        def placed(*offsets: int) -> Any:
            def change(document: dict[str, Any]) -> None:
                table = document["parts"][0]["chunks"]
                count = len(table["offset"]) // 8
                chosen = [*offsets, *[offsets[-1]] * count][:count]
                table["offset"] = struct.pack(f"<{count}Q", *[offset % (1 << 64) for offset in chosen])

            return change

        cases = {
            "all at one place": placed(4096),
            "one byte apart": placed(*range(4096, 4296)),
            "at the end of the file": placed(13 << 20),
            "at 2^63": placed(1 << 63),
            "at 2^64 - 1, so that the end wraps": placed((1 << 64) - 1),
        }
        for number, (title, change) in enumerate(cases.items()):
            path = hostile(here / f"{number}.ckpt", change, tree)
            attempt(f"200 tensors {title}", path, "bad-extent")


if __name__ == "__main__":
    main()
