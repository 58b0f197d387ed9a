"""`FlaxCheckpointManager`: a manager with the rules of `flax.training.checkpoints`; see `flax_rules`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Unpack

from ..calls import takes
from ..format.tree import Tree
from .flax_rules import PREFIX, FlaxKeep, FlaxNames
from .manager import CheckpointManager
from .options import ManagerOptions
from .saving import Overwrite
from .steps import Given


class FlaxCheckpointManager(CheckpointManager):
    """The checkpoints of a training run, by the rules of `flax.training.checkpoints`. A run that began there goes on.

    StepNames are `{prefix}{step}`, steps int or float, in flax's natural order. `keep`: the last so many, 0 for all.
    `keep_every_n_steps`: of the older ones, oldest first, one is kept if it is so far from the one kept before it.
    `options` are those of `CheckpointManager`. Overwriting and deleting are atomic, which they are not in flax.

    Raises `InputError` (`bad-option`).
    """

    @takes(ManagerOptions)
    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        prefix: str = PREFIX,
        keep: int = 1,
        keep_every_n_steps: int | None = None,
        **options: Unpack[ManagerOptions],
    ) -> None:
        self._names = names = FlaxNames(prefix)
        super().__init__(directory, keep=FlaxKeep(names, keep, keep_every_n_steps), **options)

    @takes()
    def save(
        self,
        step: Given,
        tree: Tree,
        *,
        metrics: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        block: bool = True,
        overwrite: Overwrite = False,
        force: bool = False,
    ) -> bool:
        """Save `tree` as `step`, an int or a float, as `CheckpointManager.save` does. `overwrite` also deletes all that
        sorts after the step, as in flax. Raises what that raises."""
        rewinds: Overwrite = "later" if overwrite is True else overwrite
        return super().save(step, tree, metrics=metrics, metadata=metadata, block=block, overwrite=rewinds, force=force)
