"""Files of frameworks that are slow to import or warn, written by the frameworks themselves in a process of their own.

Run as a program: `python foreign_writers.py FOLDER`. Then the tests need neither jax nor flax nor Orbax.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

MATRIX = np.arange(12, dtype=np.float32).reshape(3, 4)
ORBAX_KINDS = {"ocdbt-zarr2": (True, False), "ocdbt-zarr3": (True, True), "plain-zarr2": (False, False)}


def flax(folder: Path) -> None:
    import flax.serialization as serialization
    import jax.numpy as jnp

    tree = {
        "params": {"w": MATRIX, "b": jnp.ones(3, jnp.bfloat16)},
        "layers": [MATRIX[0], (MATRIX[1],)],
        "step": 3,
        "lr": 0.5,
        "z": 1 + 2j,
        "scale": np.float32(2),
        "name": "x",
        "none": None,
    }
    (folder / "flax.msgpack").write_bytes(serialization.to_bytes(tree))
    serialization.MAX_CHUNK_SIZE = 16
    (folder / "flax-chunked.msgpack").write_bytes(serialization.msgpack_serialize(serialization.to_state_dict(tree)))


def flax_read(path: str, out: str) -> None:
    """Restore with flax what a conversion wrote, as an .npz of its leaves."""
    import flax.serialization as serialization
    import flax.traverse_util as traverse

    leaves = traverse.flatten_dict(serialization.msgpack_restore(Path(path).read_bytes()), sep="/")
    np.savez(out, **{name: np.asarray(leaf, np.float32) for name, leaf in leaves.items() if not isinstance(leaf, str)})


def orbax(folder: Path) -> None:
    import jax.numpy as jnp
    import orbax.checkpoint as ocp

    tree: dict[str, Any] = {
        "params": {"w": jnp.asarray(MATRIX), "b": jnp.ones(3, jnp.bfloat16)},
        "layers": [jnp.asarray(MATRIX[0]), (jnp.asarray(MATRIX[1]),)],
        "step": 3,
        "lr": 2.5,
        "empty": {},
        "host": MATRIX,
    }
    for name, (ocdbt, zarr3) in ORBAX_KINDS.items():
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=ocdbt, use_zarr3=zarr3)) as checkpointer:
            checkpointer.save(folder / f"orbax-{name}", tree)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "orbax-standard", tree)


def orbax_tree(folder: Path, name: str) -> None:
    """The arrays of `tree.npz`, as one of the kinds."""
    import orbax.checkpoint as ocp

    ocdbt, zarr3 = ORBAX_KINDS[name]
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=ocdbt, use_zarr3=zarr3)) as checkpointer:
        checkpointer.save(folder / name, dict(np.load(folder / "tree.npz")))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["flax-read", path, out]:
            flax_read(path, out)
        case ["orbax-tree", folder, name]:
            orbax_tree(Path(folder), name)
        case [kind, folder]:
            {"flax": flax, "orbax": orbax}[kind](Path(folder))
