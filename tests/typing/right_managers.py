"""What training programs do with managers, and the types of what they get. Checked, never run."""

from pathlib import Path
from typing import Any, assert_type

import numpy as np

import ckptfmt
from ckptfmt.manager import (
    All,
    Background,
    Best,
    CheckpointManager,
    CopyTo,
    DamagedStep,
    Every,
    EveryTime,
    FlaxCheckpointManager,
    Last,
    Pinned,
    RetentionPlan,
    RunReader,
    Schedule,
    Step,
    Where,
    open_flax_run,
    open_run,
)


def training(folder: Path) -> None:
    keep = [
        Last(3),
        Best("loss", 2, "max"),
        Every(1000),
        EveryTime(6 * 3600),
        Pinned([7]),
        Where(lambda step: step.time > 0),
    ]
    with CheckpointManager(
        folder,
        schedule=Schedule(steps=100, seconds=600),
        keep=keep,
        background=Background(2, when_full="skip", at_exit="abort"),
        on_commit=lambda step, report: print(step, report.bytes),
        on_error=lambda step, error: print(step, error),
        copy_to=CopyTo("s3://bucket/run", keep=All(), storage_options={"anon": True}),
        compression="zstd",
        skip=["tmp/**"],
        check=lambda checkpoint: print(checkpoint.layout),
    ) as manager:
        assert_type(manager, CheckpointManager)
        tree: dict[str, Any] = manager.restore(select="model/**", fallback=True)
        for step in range(3):
            saved = manager.save(
                step, tree, metrics={"loss": 0.5}, metadata={"epoch": 1}, block=False, overwrite="later"
            )
            assert_type(saved, bool)
        manager.save(np.int64(3), tree, force=True)
        assert_type(manager.should_save(3), bool)
        assert_type(manager.steps(), list[Step])
        assert_type(manager.latest(), Step | None)
        assert_type(manager.best("loss", "min"), Step | None)
        assert_type(manager.damaged(), list[DamagedStep])
        assert_type(manager.plan(), RetentionPlan)
        manager.wait()
        with manager.open("best", framework="torch") as checkpoint, manager.lease(3) as step_held:
            assert_type(checkpoint, ckptfmt.Checkpoint)
            assert_type(step_held.metrics["loss"], float)
            assert_type(step_held.path, str)
            assert_type(step_held.time, float)
    CheckpointManager("run", background="process")
    FlaxCheckpointManager("run", background=Background(by="process", nice=5))
    CheckpointManager("run", keep=3, schedule=100, per_process=True, layout="loose", schema=("gpt", "1"))


def reading(folder: Path) -> None:
    run = open_run(folder, best=Best("loss"), second="copy", follow_links=True)
    assert_type(run, RunReader)
    with run.open(verify=False) as checkpoint:
        assert_type(checkpoint, ckptfmt.Checkpoint)
    run.restore("latest", into={}, prefix="model", strict=False)
    with FlaxCheckpointManager(folder, keep=2, keep_every_n_steps=100, prefix="ckpt_", durable=False) as manager:
        manager.save(7.5, {}, overwrite=True)
    assert_type(open_flax_run(folder, prefix="ckpt_", best=Best("loss")), RunReader)
    pruned = ckptfmt.prune(folder, [Last(2), Best("loss")], delete=True)
    assert_type([one.metrics for one in pruned.kept], list[dict[str, float]])
