"""Symbolic links inside a checkpoint that lead out of it, in the place of every object and folder.
[CHK-007] [SEC-003]"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from attack import attempt, folder

import ckptfmt


def main() -> None:
    with folder() as here:
        for layout in ("loose", "packed"):
            whole = here / f"{layout}.ckpt"
            ckptfmt.save(whole, {"a": np.arange(4), "b": np.arange(5)}, layout=layout, durable=False)
            for number, target in enumerate(sorted(whole.rglob("*"))):
                if target.name == "zarr.json":
                    continue  # which no value depends on
                path, away = here / f"{layout}-{number}.ckpt", here / f"away-{layout}-{number}"
                shutil.copytree(whole, path)
                inside = path / target.relative_to(whole)
                shutil.move(inside, away)  # outside lies what would be right: only that it is a link is wrong
                inside.symlink_to(away)
                name = target.relative_to(whole)
                codes = ("linked-object",)
                if name == Path("tensors/a") or name.parts[:2] == ("tensors", "b"):
                    codes = ("linked-object", "frame-digest")
                attempt(f"a link in the place of {layout} {name}", path, *codes, actions=(_load,))


def _load(path: Path) -> None:
    ckptfmt.load(path)


if __name__ == "__main__":
    main()
