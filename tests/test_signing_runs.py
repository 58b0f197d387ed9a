"""Signatures of the steps of a run: made when a step is committed, copied with it, gone with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from signing import pair

import ckptfmt
from ckptfmt.manager import Last

TREE = {"w": np.arange(3000.0)}


def signatures(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.endswith(".sig"))


def signed_run(folder: Path | str, key: Path, steps: int, **options: Any) -> ckptfmt.CheckpointManager:
    def sign(step: Any, report: ckptfmt.SaveReport) -> None:
        ckptfmt.sign(report.path, key, overwrite=True)

    manager = ckptfmt.CheckpointManager(folder, digest="sha256", on_commit=sign, **options)
    for step in range(1, steps + 1):
        manager.save(step, TREE, block=step % 2 == 0)
    return manager


@pytest.mark.parametrize("layout", ["file", "loose"])
def test_steps_are_signed_restored_and_deleted(tmp_path: Path, layout: str) -> None:
    private, public = pair(tmp_path)
    with signed_run(tmp_path / "run", private, 5, keep=Last(2), layout=layout) as manager:
        manager.wait()
        assert manager.restore(trust=public)["w"][7] == 7
        names = [f"{Path(step.path).name}.sig" for step in manager.steps()]
    assert signatures(tmp_path / "run") == names
    assert len(names) == 2


def test_copies_carry_them(tmp_path: Path) -> None:
    private, public = pair(tmp_path)
    with signed_run(tmp_path / "run", private, 3, copy_to=tmp_path / "second"):
        pass
    assert signatures(tmp_path / "second") == signatures(tmp_path / "run")
    assert len(signatures(tmp_path / "second")) == 3
    with ckptfmt.CheckpointManager(tmp_path / "second") as manager:
        assert manager.restore(trust=public)["w"][5] == 5


def test_pruning_removes_them(tmp_path: Path) -> None:
    private, _ = pair(tmp_path)
    with signed_run(tmp_path / "run", private, 3):
        pass
    ckptfmt.prune(tmp_path / "run", keep=Last(1), delete=True)
    assert len(signatures(tmp_path / "run")) == 1


def test_on_a_store(tmp_path: Path) -> None:
    private, public = pair(tmp_path)
    url = "memory://signed/model.ckpt"
    ckptfmt.save(url, TREE, digest="sha256")
    with pytest.raises(ckptfmt.SignatureError, match="not-signed"):
        ckptfmt.load(url, trust=public)
    assert ckptfmt.sign(url, private).signature == f"{url}.sig"
    assert ckptfmt.load(url, trust=public)["w"][9] == 9
    with signed_run("memory://signed/run", private, 3, keep=Last(1)) as manager:
        manager.wait()
        assert manager.restore(trust=public)["w"][2] == 2
    found = fsspec.filesystem("memory").find("/signed/run")
    assert sum(name.endswith(".sig") for name in found) == 1
