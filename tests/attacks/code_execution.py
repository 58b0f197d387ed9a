"""A checkpoint that names code: tags of modules and functions, and a pickle that would run a command. Nothing of it is
imported, looked up or run. [SEC-001] [TAG-002]"""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path
from typing import Any

from attack import OPENED, attempt, folder, hostile, load, look

import ckptfmt

MARKER = "ckptfmt-was-here"
NAMES = ("os.system", "builtins.eval", "__import__('os').system('touch x')", "antigravity", "collections.abc")


class Call:
    """Pickles as a call of the shell."""

    def __reduce__(self) -> Any:
        return os.system, (f"touch {MARKER}",)


def nothing_ran(path: Path) -> None:
    look(path)
    load(path)
    ckptfmt.verify(path)
    assert not os.path.exists(MARKER), "a command was run"
    assert "antigravity" not in sys.modules, "a module was imported"


def main() -> None:
    with folder() as here:
        os.chdir(here)
        for number, name in enumerate(NAMES):
            for kind in (name, "python.dataclass", "python.namedtuple", "jax.pytree"):
                param = f"touch {MARKER}" if kind == name else name
                node = ["tag", kind, param, ["dict", ["f", "w", "x"], ["v", ["tensor", 0], ["tensor", 1]]]]
                path = here / f"{number}-{kind[:8].replace('/', '_')}.ckpt"
                if not path.exists():
                    hostile(path, lambda document, node=node: document.update(tree=node))
                attempt(f"tag {kind} of {param}", path, OPENED, actions=(nothing_ran,))
        pickled = ["tag", "torch.saved", None, pickle.dumps(Call())]
        items = [pickled, ["tensor", 0], ["tensor", 1]]
        path = hostile(here / "p.ckpt", lambda document: document.update(tree=["list", items], metadata=pickled))
        attempt("a pickle in torch.saved", path, OPENED, actions=(nothing_ran,))


if __name__ == "__main__":
    main()
