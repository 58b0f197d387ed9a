"""Warnings point at the line of the program that called."""

from __future__ import annotations

import ast
import inspect
import shutil
import threading
import warnings
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from migrations import document

import ckptfmt
from ckptfmt.manager import CheckpointManager

ROOT = Path(__file__).parents[1]


def test_one_place_warns() -> None:
    for module in [*ROOT.glob("ckptfmt/**/*.py"), *ROOT.glob("adapters/**/*.py")]:
        calls = [node.func for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, ast.Call)]
        names = {ast.unparse(call) for call in calls}
        assert module.name == "warning.py" or not names & {"warnings.warn", "warnings.warn_explicit"}, module


def points_here(category: type[Warning], call: Callable[[], Any]) -> None:
    """One warning, at the line of the call in this file."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    found = [one for one in caught if issubclass(one.category, category)]
    assert found
    lines, start = inspect.getsourcelines(call)
    for one in found:
        assert one.filename == __file__
        assert start <= one.lineno < start + len(lines)


Pair = namedtuple("Pair", "a b")  # as programs have them


@pytest.fixture
def path(tmp_path: Path) -> str:
    tree = {"big": np.array([1e9]), "pair": Pair(np.ones(1), 2)}
    ckptfmt.save(tmp_path / "c.ckpt", tree, schema=("s", "1"))
    return str(tmp_path / "c.ckpt")


def half() -> dict[str, Any]:
    return {"big": np.zeros(1, np.float16)}


def test_casts(path: str) -> None:
    points_here(ckptfmt.CastWarning, lambda: ckptfmt.load(path, into=half(), select="big", cast=True))
    points_here(ckptfmt.CastWarning, lambda: ckptfmt.load(path, like=half(), select="big", cast=True))
    with ckptfmt.open(path) as checkpoint:
        points_here(ckptfmt.CastWarning, lambda: checkpoint.load(into=half(), select="big", cast=True))
        points_here(ckptfmt.CastWarning, lambda: checkpoint["big"].astype(np.dtype(np.float16))[:])
        points_here(ckptfmt.CastWarning, lambda: np.asarray(checkpoint["big"], np.float16))


def test_tags(path: str) -> None:
    points_here(ckptfmt.UnknownTagWarning, lambda: ckptfmt.load(path))
    same: dict[str, Any] = {"schema": "2", "migrations": document(rest="keep")}
    points_here(ckptfmt.UnknownTagWarning, lambda: ckptfmt.load(path, **same))
    other: dict[str, Any] = {"schema": "2", "migrations": document({"from": "pair/a", "to": "pair/c"}, rest="keep")}
    points_here(ckptfmt.UnknownTagWarning, lambda: ckptfmt.open(path, **other).close())
    points_here(ckptfmt.UnknownTagWarning, lambda: ckptfmt.migrate(path, path + "2", other["migrations"], schema="2"))


def test_adapters(path: str) -> None:
    torch, ckptfmt_torch = pytest.importorskip("torch"), pytest.importorskip("ckptfmt_torch")
    jax, ckptfmt_jax = pytest.importorskip("jax"), pytest.importorskip("ckptfmt_jax")
    points_here(ckptfmt.UnknownTagWarning, lambda: ckptfmt_torch.load(path))
    module = torch.nn.ParameterDict({"big": torch.zeros(1, dtype=torch.float16)})
    points_here(ckptfmt.CastWarning, lambda: ckptfmt_torch.load_into(path, module, select="big", cast=True))
    like = {"big": jax.ShapeDtypeStruct((1,), np.float16)}
    points_here(ckptfmt.CastWarning, lambda: ckptfmt_jax.load(path, like, select="big", cast=True))


def test_dcp(tmp_path: Path) -> None:
    torch, _ = pytest.importorskip("torch"), pytest.importorskip("ckptfmt_torch")
    import torch.distributed.checkpoint as dcp
    from ckptfmt_torch.dcp import StorageReader

    ckptfmt.save(tmp_path / "c.ckpt", {"big": np.array([1e9])})
    reader = StorageReader(tmp_path / "c.ckpt", cast=True)
    state = {"big": torch.zeros(1, dtype=torch.float16)}
    points_here(ckptfmt.CastWarning, lambda: dcp.load(state, storage_reader=reader, no_dist=True))


def test_managers(tmp_path: Path) -> None:
    with CheckpointManager(tmp_path / "run") as manager:
        for step in (1, 2):
            manager.save(step, {"w": np.ones(3)})
        last = manager.latest()
        assert last is not None
        file = Path(last.path)
        data = bytearray(file.read_bytes())
        data[data.index(np.ones(3).tobytes())] ^= 1
        file.write_bytes(data)
        points_here(ckptfmt.manager.FallbackWarning, lambda: manager.restore(fallback=True))
        file.write_bytes(b"nothing")
        points_here(ckptfmt.manager.FallbackWarning, lambda: manager.latest())
        shutil.rmtree(tmp_path / "run")


def test_a_thread_of_ours_has_no_caller(path: str) -> None:
    def load() -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            thread = threading.Thread(target=ckptfmt.load, args=(path,))
            thread.start()
            thread.join()
        assert [one.category for one in caught] == [ckptfmt.UnknownTagWarning]

    load()
