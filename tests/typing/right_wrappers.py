"""Calls of programs that hand options on, typed by the sets of ckptfmt. Checked, never run."""

from pathlib import Path
from typing import Any, Unpack

import ckptfmt
from ckptfmt import LoadOptions, OpenOptions, ReadOptions, SaveOptions
from ckptfmt.manager import CheckpointManager, RestoreOptions, StepOptions

FOLDER = Path("checkpoints")


def restore(name: str, **options: Unpack[LoadOptions]) -> Any:
    options.setdefault("framework", "torch")
    return ckptfmt.load(FOLDER / name, **options)


def look(name: str, **options: Unpack[OpenOptions]) -> ckptfmt.Checkpoint:
    return ckptfmt.open(FOLDER / name, **options)


def part(checkpoint: ckptfmt.Checkpoint, **options: Unpack[ReadOptions]) -> Any:
    return checkpoint.load(**options)


def store(name: str, tree: Any, **options: Unpack[SaveOptions]) -> int:
    quick: SaveOptions = {"durable": False, "compression": None, **options}
    return ckptfmt.save(FOLDER / name, tree, **quick).bytes


def manager(name: str, **options: Unpack[StepOptions]) -> CheckpointManager:
    return CheckpointManager(FOLDER / name, keep=3, **options)


def resume(run: CheckpointManager, **options: Unpack[RestoreOptions]) -> Any:
    return run.restore("latest", **options)


restore("a.ckpt", select="model/**", cast=True)
look("a.ckpt", prefix="model", schema="2")
store("a.ckpt", {}, overwrite=True, digest="blake3")
resume(manager("run", layout="loose"), into={}, strict=False)
