"""Adds the golden checkpoints of the version of `ckptfmt` that is installed: `python -m conformance.golden`. What is
there already is never written again."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from .__main__ import implementation
from .catalogue import value_of
from .catalogue.golden import GOLDEN, METADATA, OPTIONS, PATCHES, TREES
from .model import Tensor


def full(tree: Any) -> dict[str, Any]:
    """A tree as `write` wants it: the bytes of long tensors in full."""
    known: dict[str, str] = {}
    _collect(tree, known)
    text = json.dumps(value_of(tree))
    for sha256, data in known.items():
        text = text.replace(f'"sha256": "{sha256}"', f'"hex": "{data}"')
    found: dict[str, Any] = json.loads(text)
    return found


def _collect(tree: Any, known: dict[str, str]) -> None:
    if isinstance(tree, Tensor) and "sha256" in tree.value(None):
        known[tree.value(None)["sha256"]] = tree.data.hex()
    for item in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list | tuple) else ():
        _collect(item, known)


def main() -> int:
    with implementation("ckptfmt", 60) as writer:
        writer.start()
        folder = GOLDEN / writer.version
        folder.mkdir(parents=True, exist_ok=True)
        for name, tree in TREES.items():
            if (folder / f"{name}.ckpt").exists():
                print(name, "is there already")
                continue
            with tempfile.TemporaryDirectory() as scratch:
                file = Path(scratch) / "whole.ckpt" if name in PATCHES else folder / f"{name}.ckpt"
                request = {"op": "write", "file": str(file), "tree": full(tree)}
                reply = writer.ask({**request, "metadata": value_of(METADATA), "options": OPTIONS[name]})
                if name in PATCHES:
                    places = (folder / f"{PATCHES[name]}.ckpt", file, folder / f"{name}.ckpt")
                    subprocess.run([sys.executable, "-m", "ckptfmt", "patch", *map(str, places)], check=True)
            print(name, reply.kind)
    return 0


if __name__ == "__main__":
    sys.exit(main())
