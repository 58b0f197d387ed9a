"""What checkpoints take on a disk, where several share files: `ls --usage`, and what `prune` and `gc` say they free."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import ckptfmt
from ckptfmt.cli.app import cli
from ckptfmt.maintenance.usage import DiskUsage, usage_of
from ckptfmt.manager import CheckpointManager
from ckptfmt.storage.temporaries import beside


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Three steps of 400,000 bytes and a bit each, which share those."""
    with CheckpointManager(tmp_path / "run", share=True, durable=False) as manager:
        for step in range(3):
            manager.save(step, {"frozen": np.arange(50_000), "adapter": np.full(100, step)})
    return tmp_path / "run"


def steps(run: Path) -> list[Path]:
    return sorted(path for path in run.iterdir() if path.is_dir())


def on_disk(folder: Path) -> int:
    files = {file.stat().st_ino: file.stat().st_size for file in folder.rglob("*") if file.is_file()}
    return sum(files.values())


def command(*args: object) -> Any:
    result = CliRunner().invoke(cli, [*map(str, args)])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout) if "--json" in args else result.stdout


def test_own_bytes_are_those_that_go(run: Path) -> None:
    for step in steps(run):
        before, usage = on_disk(run), usage_of([str(step)])
        assert usage.on_disk == on_disk(step)
        shutil.rmtree(step)
        assert before - on_disk(run) == usage.own
    assert usage.shared == 0


def test_several_are_counted_together(run: Path, tmp_path: Path) -> None:
    first, second, third = map(str, steps(run))
    assert usage_of([first, second, third]) == DiskUsage(
        sum(usage_of([p]).own for p in (first, second, third)) + usage_of([third]).shared, 0
    )
    assert usage_of([first, second]).shared == usage_of([third]).shared > 400_000
    assert usage_of([str(tmp_path / "gone"), "memory://bucket/x"]) == DiskUsage(0, 0)
    ckptfmt.save(tmp_path / "one.ckpt", {"a": 1})
    assert usage_of([str(tmp_path / "one.ckpt")]) == DiskUsage(os.stat(tmp_path / "one.ckpt").st_size, 0)


def test_ls_says_what_each_step_costs(run: Path) -> None:
    document = command("ls", run, "--usage", "--json")
    assert document["on_disk"] == usage_of(map(str, steps(run))).on_disk
    for row in document["steps"]:
        assert row["own"] + row["shared"] == row["size"]
        assert row["own"] < 10_000 < 400_000 < row["shared"]
    text = command("ls", run, "--usage")
    assert {"own", "shared"} <= set(text.splitlines()[0].split())
    assert text.splitlines()[-1].endswith(" on the disk")
    assert "own" not in command("ls", run).splitlines()[0]
    assert not {"own", "on_disk"} & {*command("ls", run, "--json"), *command("ls", run, "--json")["steps"][0]}


def test_prune_says_what_it_frees(run: Path) -> None:
    before = on_disk(run)
    planned = command("prune", run, "--keep-last", 1, "--json")
    done = command("prune", run, "--keep-last", 1, "--delete", "--json")
    assert planned["freed"] == done["freed"] == before - on_disk(run) < 20_000 < 800_000 < done["bytes"]


def test_gc_says_what_it_frees(run: Path) -> None:
    last = steps(run)[-1]
    last.rename(beside(str(last)))
    before = on_disk(run)
    report = ckptfmt.gc(run, delete=True, grace=0)
    assert [one.removed for one in report.found] == [True]
    assert report.bytes == before - on_disk(run) < 10_000
