"""Runs of a manager on stores: an empty directory on each, steps, and what lies there."""

from __future__ import annotations

import re
from typing import Any

import fsspec
import numpy as np
import pytest
import s3

from ckptfmt.manager import CheckpointManager
from ckptfmt.storage.engine import Engine, engine_for


@pytest.fixture(params=["memory", "s3-fsspec", "s3-obstore"])
def store(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Directory and options of a manager, at a place where nothing is."""
    if request.param == "memory":
        fsspec.filesystem("memory").store.clear()
        return {"directory": "memory://folder/run"}
    folder = re.sub(r"\W", "_", request.node.name)
    endpoint = request.getfixturevalue("endpoint")
    options = s3.options(request.param.removeprefix("s3-"), endpoint)
    return {"directory": f"s3://bucket/{folder}/run", "storage_options": options}


def tree(step: int) -> dict[str, Any]:
    return {"step": step, "w": np.full(50, step, np.float32)}


def numbers(manager: CheckpointManager) -> list[Any]:
    return [step.step for step in manager.steps()]


def place(manager: CheckpointManager, step: int) -> tuple[Engine, str]:
    """The engine and the key of a step."""
    return engine_for(manager._run.path_of(step), manager._run.options or {})


def objects(manager: CheckpointManager) -> list[str]:
    engine, key = engine_for(manager.directory, manager._run.options or {})
    return [entry.key.removeprefix(key).lstrip("/") for entry in engine.entries(key)]


def damage(manager: CheckpointManager, step: int) -> None:
    """Flip a bit of a tensor."""
    engine, key = place(manager, step)
    data = bytearray(engine.tail(key, 1 << 20)[1])
    data[data.index(np.full(50, step, np.float32).tobytes())] ^= 1
    engine.put(key, bytes(data), exclusive=False)
