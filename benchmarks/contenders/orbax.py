"""Orbax, as a JAX program would use it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.contenders.contender import Contender


class Orbax(Contender):
    """The synchronous PyTree checkpointer with its defaults."""

    name = "Orbax"
    note = (
        "`PyTreeCheckpointer` with its defaults (OCDBT, zstd) over NumPy arrays, restored without a target. "
        "It offers no switch for the data files' fsync, so its save that is not durable has it too."
    )
    requires = ("orbax.checkpoint", "jax")
    slow = True

    def save(self, path: Path, tree: Any) -> None:
        import orbax.checkpoint as ocp

        with ocp.PyTreeCheckpointer() as checkpointer:
            checkpointer.save(path.absolute(), tree)

    def load(self, path: Path) -> Mapping[str, Any]:
        import orbax.checkpoint as ocp

        with ocp.PyTreeCheckpointer() as checkpointer:
            tree: Mapping[str, Any] = checkpointer.restore(path.absolute())
        return tree
