"""ckptfmt itself, in the ways it is offered."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from benchmarks.contenders.contender import Contender, SliceCode

SLICE = SliceCode("import ckptfmt", "with ckptfmt.open(path) as ckpt: part = ckpt[name][start:stop]")


class Ckptfmt(Contender):
    """Verified by default, as a user gets it."""

    requires = ("ckptfmt",)
    faces = frozenset({"map", "open"})
    slice = SLICE

    def __init__(
        self, name: str, note: str, *, layout: str = "file", compression: str | None = None, slow: bool = False
    ) -> None:
        self.name, self.note, self.slow = name, note, slow
        self._options: dict[str, Any] = {"layout": layout, "compression": compression}
        if compression:
            self.faces = frozenset({"open"})

    def save(self, path: Path, tree: Any) -> None:
        import ckptfmt

        ckptfmt.save(path, tree, durable=False, **self._options)

    def save_durable(self, path: Path, tree: Any) -> None:
        import ckptfmt

        ckptfmt.save(path, tree, durable=True, **self._options)

    def load(self, path: Path) -> Mapping[str, Any]:
        import ckptfmt

        tree: Mapping[str, Any] = ckptfmt.load(path, verify=True)
        return tree

    def map(self, path: Path) -> Mapping[str, Any]:
        import ckptfmt

        tree: Mapping[str, Any] = ckptfmt.load(path, mmap=True)
        return tree

    def open(self, path: Path) -> Collection[str]:
        import ckptfmt

        with ckptfmt.open(path) as checkpoint:
            return ["/".join(map(str, key)) for key in checkpoint.tensors]
