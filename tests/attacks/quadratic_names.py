"""Names whose containers' names take the square of their length: 65,000 bytes with 32,000 segments. [LIM-007]"""

from __future__ import annotations

from typing import Any

import numpy as np
from attack import OPENED, attempt, folder, hostile


def main() -> None:
    with folder() as here:
        for count, segment, codes in (
            (1, "a", ("limit-exceeded",)),
            (40, "a", ("limit-exceeded",)),
            (400, "abcdefghijklmnop" * 10, ("limit-exceeded",)),
            (1, "abcdefghijklmnop" * 200, (OPENED, "frame-digest", "missing-object")),
        ):
            ends = [f"t{number:05}" for number in range(count)]
            names = [f"{segment}/" * ((65_000 - 7) // (len(segment) + 1)) + end for end in ends]

            def rename(document: dict[str, Any], names: list[str] = names) -> None:
                document["tensors"]["name"] = names

            for layout in ("file", "loose"):
                path = here / f"{count}-{len(segment)}-{layout}.ckpt"
                hostile(path, rename, dict.fromkeys(ends) | {end: np.zeros((0, 1)) for end in ends}, layout)
                title = f"{count} names with segments of {len(segment)}, layout {layout}"
                attempt(title, path, *codes)
        tree = {f"t{number}": np.zeros((0, number + 1)) for number in range(5000)}
        path = hostile(here / "beneath.ckpt", lambda document: document["tensors"]["name"].__setitem__(0, "t1/x"), tree)
        attempt("a tensor beneath another among 5,000", path, "bad-manifest")


if __name__ == "__main__":
    main()
