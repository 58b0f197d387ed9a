"""Shapes and grids that say far more than is stored: elements, chunks, chunk bytes, and sides of empty tensors.
[LIM-003] [LIM-004] [LIM-006]"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from attack import OPENED, attempt, folder, hostile, load, look, verify

import ckptfmt


def resized(shape: list[int], grid: list[int], length: int | None = None, block: int = 1 << 30) -> Any:
    """Give the first tensor another shape and grid, and its chunk a length with as many digests as that needs."""

    def change(document: dict[str, Any]) -> None:
        document["tensors"]["shape"][0], document["tensors"]["grid"][0] = shape, grid
        document["block"] = block
        table = document["parts"][0]["chunks"]
        if length is not None:
            table["length"] = struct.pack("<Q", length) + table["length"][8:]
            table["digest"] = bytes(16 * -(-length // block)) + table["digest"][16:]

    return change


def small_slice(path: Path) -> None:
    with ckptfmt.open(path) as checkpoint:
        tensor = checkpoint["w"]
        tensor[(slice(0, 1),) * tensor.ndim]


def main() -> None:
    refused = ("bad-extent", "bad-manifest", "limit-exceeded", "short-object", "bad-chunk", "missing-object")
    with folder() as here:
        huge = 1 << 40
        cases = {
            "2^40 float64 over 96 bytes": resized([huge], [huge]),
            "2^40 float64, and a length that says so": resized([huge], [huge], 8 * huge),
            "2^40 chunks of one element": resized([huge], [1]),
            "2^58 float64": resized([1 << 58], [1 << 58]),
            "2^58 float64 in one chunk of many axes": resized([1 << 29, 1 << 29], [1 << 29, 1 << 29]),
            "2^59 chunks": resized([1 << 29, 1 << 29], [1, 2]),
            "a chunk larger than the tensor": resized([12], [1 << 50]),
            "64 axes": resized([2] * 50 + [1] * 14, [1] * 64),
            "65 axes": resized([1] * 65, [1] * 65),
        }
        for layout in ("file", "packed", "loose"):
            for codec in (None, "zstd", "gzip", "blosc"):
                for number, (title, change) in enumerate(cases.items()):
                    path = here / f"{layout}-{codec}-{number}.ckpt"
                    try:
                        hostile(path, change, layout=layout, compression={"w": codec})
                    except (KeyError, TypeError):
                        continue  # the table of a pack stands elsewhere
                    attempt(f"{title}, {codec or 'raw'}, layout {layout}", path, *refused, actions=(load, small_slice))
                    attempt(f"{title}, {codec or 'raw'}, layout {layout}", path, *refused, actions=(verify,))
        sums = [[1 << 59], [1 << 59], [1 << 59]] * 5

        def many(document: dict[str, Any]) -> None:
            tensors = document["tensors"]
            tensors.update(
                name=[f"t{i}" for i in range(15)], dtype=["uint8"] * 15, shape=sums, grid=[[1]] * 15, codec=[0] * 15
            )
            document["tree"] = ["list", [["tensor", i] for i in range(15)]]

        attempt("15 times 2^59 chunks: more than 2^63", hostile(here / "sum.ckpt", many), "bad-manifest")

        def empty(document: dict[str, Any]) -> None:
            document["tensors"]["shape"][0] = [0, (1 << 63) - 1, (1 << 63) - 1]
            document["tensors"]["grid"][0] = [1, 1, 1]
            table = document["parts"][0]["chunks"]
            table.update({key: table[key][8:] for key in ("offset", "length")}, digest=table["digest"][16:])

        path = hostile(here / "empty.ckpt", empty)
        attempt("an empty tensor with sides of 2^63", path, "limit-exceeded", actions=(load,))
        attempt("an empty tensor with sides of 2^63", path, OPENED, actions=(look, small_slice))


if __name__ == "__main__":
    main()
