"""Models of transformers in checkpoints (`from_pretrained`, `save_pretrained`), and checkpoints of a Hugging Face
`Trainer` through a checkpoint manager. Requires the package transformers.

    with CheckpointManager("runs/7", schedule=100, keep=[Last(2), Best("eval_loss")]) as manager:
        manager.on_preemption()
        callback = CkptfmtCallback(manager)
        trainer = Trainer(model, args, callbacks=[callback], ...)  # TrainingArguments(save_strategy="no")
        trainer.train(resume_from_checkpoint=callback.resume_from("resume"))

The manager decides when to save and what to keep, saves in the background, and ends the training when it was preempted.
Model, optimizer, scheduler, random generators and the Trainer's own state are saved, so that a run goes on to the bit.
For one process, or for several that all hold everything (DDP); of those, rank 0 saves, and its generators are kept.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
from typing import Any

import numpy as np
import torch

from ckptfmt import CheckpointManager
from ckptfmt.errors import fault
from ckptfmt.packages import required_by
from ckptfmt.storage import path_of

with required_by("ckptfmt_torch.transformers"):
    from transformers import TrainerCallback

    from .model_card import write_model_card as write_model_card
    from .pretrained import from_pretrained as from_pretrained
    from .pretrained import save_pretrained as save_pretrained

_FILES = {"model": "pytorch_model.bin", "optimizer": "optimizer.pt", "scheduler": "scheduler.pt"}


class CkptfmtCallback(TrainerCallback):  # type: ignore[misc]  # not typed where transformers is not installed
    """Offers every step to a manager, and saves it before the next one begins: with the metrics that were logged for
    it, those of its evaluation among them, or else the latest."""

    def __init__(self, manager: CheckpointManager) -> None:
        self.manager = manager
        self._due: int | None = None  # a step that is to be saved once it was logged and evaluated
        self._random: dict[str, Any] = {}  # the generators before the next batch is drawn

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Raises `bad-option` where rank 0 holds but a part: it would wait for the others, which save nothing."""
        from accelerate import PartialState  # which a Trainer needs, and models alone do not
        from accelerate.utils import DistributedType

        kind = PartialState().distributed_type
        if kind in (DistributedType.FSDP, DistributedType.DEEPSPEED):
            message = f"rank 0 saves what it holds, and with {kind.value} that is a part of the model"
            advice = (
                "Let the Trainer save itself (save_strategy), and ckptfmt.convert read that: a folder of DCP, or ZeRO"
            )
            raise fault("bad-option", message, found=kind.value, expected="one process, or DDP", advice=advice)

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        if state.is_world_process_zero and self.manager.should_save(state.global_step):
            self._due = state.global_step
        if self.manager.preempted:
            control.should_training_stop = True
        self._random = _generators()

    def on_log(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self._random = _generators()

    def on_evaluate(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self._random = _generators()

    def on_step_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self._save(state, **more)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self._save(state, **more)

    def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """All is committed when `train` returns."""
        self._save(state, **more)
        self.manager.wait()

    def _save(self, state: Any, *, model: Any, optimizer: Any, lr_scheduler: Any, **_: Any) -> None:
        if self._due is None:
            return
        step, self._due = self._due, None
        tree = {
            "model": model,
            "optimizer": optimizer.state_dict(),
            "scheduler": lr_scheduler.state_dict(),
            "rng": self._random,
            "trainer_state": json.dumps(dataclasses.asdict(state)),
        }
        self.manager.save(step, tree, metrics=_metrics(state), block=False, force=True)

    def resume_from(self, directory: str | os.PathLike[str], which: Any = "latest") -> str | None:
        """Write a step into `directory`, which is replaced, as the Trainer's own files, and give it for
        `Trainer.train(resume_from_checkpoint=)`; None if the run has no checkpoint yet.

        Walks back to the newest step that is whole. Raises what `CheckpointManager.restore` raises.
        """
        if which == "latest" and self.manager.latest() is None:
            return None
        tree = self.manager.restore(which, fallback=True, framework="torch")
        directory = path_of(directory)
        shutil.rmtree(directory, ignore_errors=True)
        os.makedirs(directory)
        for name, target in _FILES.items():
            torch.save(tree[name], os.path.join(directory, target))
        torch.save(_as_they_were(tree["rng"]), os.path.join(directory, "rng_state.pth"))
        with open(os.path.join(directory, "trainer_state.json"), "w", encoding="utf-8") as state:
            state.write(tree["trainer_state"])
        return directory


def _generators() -> dict[str, Any]:
    states = {"python": random.getstate(), "numpy": np.random.get_state(), "cpu": torch.random.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.random.get_rng_state()
    return states


def _as_they_were(states: dict[str, Any]) -> dict[str, Any]:
    """Loaded for torch, NumPy's state has a tensor for its array."""
    kind, keys, *rest = states["numpy"]
    return {**states, "numpy": (kind, np.asarray(keys), *rest)}


def _metrics(state: Any) -> dict[str, float]:
    """The last value of everything that was logged as a number."""
    latest: dict[str, Any] = {}
    for entry in state.log_history:
        latest |= entry
    return {name: float(value) for name, value in latest.items() if isinstance(value, int | float) and name != "step"}
