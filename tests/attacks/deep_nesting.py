"""Values nested so deeply that a reader which recurses would overflow its stack. [TREE-012] [LIM-005]"""

from __future__ import annotations

from typing import Any

import msgpack
from attack import OPENED, attempt, folder, hostile
from manifest_bombs import with_manifest


def nested(depth: int, wrap: str) -> Any:
    node: Any = ["list", [["tensor", 0], ["tensor", 1]]]
    for _ in range(depth):
        node = {
            "list": ["list", [node]],
            "dict": ["dict", ["k"], [node]],
            "tag": ["tag", "t", None, node],
            "param": ["tag", "t", node if False else ["list", []], node],
        }[wrap]
    return node


def main() -> None:
    with folder() as here:
        for depth, code in ((255, OPENED), (256, "bad-manifest"), (400, "bad-manifest")):
            for wrap in ("list", "dict", "tag"):
                path = here / f"{wrap}-{depth}.ckpt"
                try:
                    hostile(path, lambda document, d=depth, w=wrap: document.update(tree=nested(d, w)), layout="loose")
                except ValueError:
                    continue  # deeper than msgpack for Python writes
                attempt(f"{depth} containers ({wrap}) around the tensors", path, code)
        param: Any = None
        for _ in range(300):
            param = ["tag", "t", param, None]
        path = hostile(here / "param.ckpt", lambda document: document.update(metadata=param), layout="loose")
        attempt("300 params in params", path, "bad-manifest")
        for depth in (1000, 100_000, 4_000_000):
            for byte, title in ((b"\x91", "arrays"), (b"\x81\xa1a", "maps")):
                raw = b"\x81\xa4tree" + byte * depth + b"\xc0"
                path = with_manifest(here / f"raw-{title}-{depth}.ckpt", raw, "loose")
                attempt(f"{depth:,} {title} of msgpack in each other", path, "bad-manifest", "limit-exceeded")
        mixed = msgpack.packb({"tree": [{"a": [{"a": [{}]}]}]}) + b"\x91" * 100_000
        attempt("values after the end", with_manifest(here / "after.ckpt", mixed, "loose"), "bad-manifest")


if __name__ == "__main__":
    main()
