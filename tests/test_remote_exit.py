"""Saves to object stores as a process ends: a thread that is there goes on, and none begins any more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import s3
from stores import LARGE, Store, endpoint, load, objects, s3_store

from ckptfmt.manager import CheckpointManager
from ckptfmt.storage import obstore_engine as module
from ckptfmt.storage.engine import engine_for

__all__ = ["endpoint", "s3_store"]  # fixtures

ROOT = Path(__file__).parents[1]
HEAD = """
import atexit, json, sys, ckptfmt
from ckptfmt.manager import CheckpointManager
from stores import LARGE, Failing

url, options = sys.argv[1], json.loads(sys.argv[2])
ckptfmt.save(url + ".before", {"w": 1}, storage_options=options)  # a library that is first imported at the end refuses
"""


def ended(store: Store, program: str) -> str:
    """What a process of its own says on stderr."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in ("", "adapters", "tests"))}
    command = [sys.executable, "-c", HEAD + program, store.url, json.dumps(store.options)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=True).stderr


def obstore_at(endpoint: str, folder: str) -> Store:
    return Store(f"s3://bucket/{folder}/model.ckpt", s3.options("obstore", endpoint), endpoint)


@pytest.mark.parametrize("options", ["", "overwrite=True", "layout='packed'"])
def test_large_objects_in_atexit(endpoint: str, options: str) -> None:
    """Of obstore alone: the thread of fsspec's clients has ended by then."""
    store = obstore_at(endpoint, f"atexit-{len(options)}")
    save = f"ckptfmt.save(url, {{'w': LARGE}}, storage_options=options, {options})"
    assert ended(store, f"atexit.register(lambda: {save})") == ""
    assert (load(store)["w"] == LARGE).all()
    assert not [key for key in objects(store) if key.endswith(".ckptfmt-tmp")]
    assert s3.unfinished(endpoint, f"atexit-{len(options)}") == []


def test_a_save_that_fails_in_atexit_leaves_nothing(endpoint: str) -> None:
    store = obstore_at(endpoint, "atexit-fails")
    told = ended(store, "atexit.register(lambda: ckptfmt.save(url, {'w': Failing()}, storage_options=options))")
    assert "RuntimeError: gone" in told
    assert objects(store) == ["model.ckpt.before"]
    assert s3.unfinished(endpoint, "atexit-fails") == []


def test_saves_in_the_background_are_waited_for(s3_store: Store) -> None:
    """Python 3.12.0 to 3.12.2 begin no thread while they wait."""
    run = s3_store.at("run")
    program = """
run = CheckpointManager(url, storage_options=options)
for step in range(2):
    run.save(step, {"w": LARGE + step}, block=False)
"""
    assert ended(run, program) == ""
    again = CheckpointManager(run.url, storage_options=run.options)
    assert [step.step for step in again.steps()] == [0, 1]
    assert (again.restore()["w"] == LARGE + 1).all()


@pytest.mark.parametrize("exclusive", [True, False])
def test_without_a_thread_a_request_that_failed_is_made_again(
    endpoint: str, monkeypatch: pytest.MonkeyPatch, exclusive: bool
) -> None:
    """As `Upload.complete` promises; and an object that was sent is not sent twice."""

    class NoThread:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def submit(self, *_: Any) -> None:
            raise RuntimeError("can't create new thread at interpreter shutdown")

    calls: list[str] = []

    def fails_at_first(name: str) -> Any:
        real = getattr(module.obstore, name)

        def call(*arguments: Any, **more: Any) -> Any:
            calls.append(name)
            if calls.count(name) == 1:
                raise OSError("lost on the way")
            return real(*arguments, **more)

        return call

    store = obstore_at(endpoint, f"again-{exclusive}")
    engine, key = engine_for(store.url, store.options)
    monkeypatch.setattr(module, "ThreadPoolExecutor", NoThread)
    for name in ("put", "copy"):
        monkeypatch.setattr(module.obstore, name, fails_at_first(name))
    upload = engine.upload(key, 5 << 20, 8, exclusive=exclusive)
    data = LARGE.tobytes()
    for start in range(0, len(data), 5 << 20):
        upload.write(memoryview(data)[start : start + (5 << 20)])
    for _ in range(1 + exclusive):
        with pytest.raises(OSError, match="lost on the way"):
            upload.complete()
    upload.complete()
    upload.discard()
    assert calls == ["put", "put", *(["copy", "copy"] if exclusive else [])]
    assert engine.tail(key, len(data))[1] == data
    assert objects(store) == ["model.ckpt"]
