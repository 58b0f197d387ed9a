"""Ints of millions of digits, as values and as keys: to compare and to hash them is cheap, to write them out is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from attack import EVERYTHING, OPENED, attempt, folder, hostile

import ckptfmt


def describe(path: Path) -> None:
    with ckptfmt.open(path) as checkpoint:
        repr(checkpoint)
        for leaf in checkpoint.leaves.values():
            type(leaf)
        for name in checkpoint:
            len(name)


def command_line(path: Path) -> None:
    for command in (["inspect"], ["inspect", "--json"], ["get", "--json"], ["verify"]):
        done = subprocess.run(
            [sys.executable, "-m", "ckptfmt", *command, path], capture_output=True, timeout=60, check=False
        )
        assert b"Traceback" not in done.stderr, done.stderr[-2000:]


def main() -> None:
    digits = (1 << 23) - 1
    big = ["int", digits.to_bytes(3, "big") * 700_000]
    with folder() as here:

        def enlarge(document: dict[str, Any]) -> None:
            document["tree"] = ["dict", [big, "w", "x"], [big, ["tensor", 0], ["tuple", [["tensor", 1], big]]]]
            document["metadata"] = ["dict", [big], [big]]

        path = hostile(here / "big.ckpt", enlarge, layout="loose")
        attempt("ints of 17 million bits", path, OPENED, actions=(*EVERYTHING, describe))
        path = hostile(
            here / "path.ckpt",
            lambda document: document.update(tree=["dict", [big], [["list", [["tensor", 0], ["tensor", 1]]]]]),
            layout="loose",
        )
        attempt("an int key of 17 million bits above tensors", path, OPENED, actions=(*EVERYTHING, describe))
        small = ["int", digits.to_bytes(3, "big") * 3000]
        path = hostile(
            here / "cli.ckpt",
            lambda document: document.update(tree=["dict", [small], [["list", [["tensor", 0], ["tensor", 1], small]]]]),
            layout="loose",
        )
        attempt("an int key of 72,000 bits on the command line", path, OPENED, actions=(command_line,))


if __name__ == "__main__":
    main()
