"""`ckptfmt ls`: the steps of a run as people and programs see them."""

from __future__ import annotations

import json
import os
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from damage import LAYOUTS

from ckptfmt.cli import chart
from ckptfmt.cli.app import cli
from ckptfmt.manager import Best, CheckpointManager, Last

NOON = time.mktime((2026, 3, 1, 12, 0, 0, 0, 0, -1))


def ls(*args: object, code: int = 0) -> str:
    result = CliRunner().invoke(cli, ["ls", *map(str, args)])
    assert result.exit_code == code, result.output
    return result.stdout


def document(*args: object, code: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ls(*args, "--json", code=code))
    return found


@pytest.fixture(params=LAYOUTS)
def run(tmp_path: Path, request: pytest.FixtureRequest) -> CheckpointManager:
    manager = CheckpointManager(tmp_path / "run", keep=[Last(1), Best("loss")], layout=request.param)
    for step, loss in ((0, 3.0), (1000, 0.123456789), (2000, float("nan"))):
        metrics = {"loss": loss, "lr": 1e-4} if step else None
        manager.save(step, {"w": np.zeros(1000)}, metrics=metrics)
    for step in manager.steps():
        place = f"{step.path}/COMMIT" if os.path.isdir(step.path) else step.path
        os.utime(place, (NOON + step.step, NOON + step.step))
    return manager


def test_the_table(run: CheckpointManager) -> None:
    head, *rows, total = ls(run.directory).splitlines()
    assert head.split() == ["step", "time", "size", "metrics", "kept", "because"]
    sizes = [f"{step.size / 1024:.1f} KiB" for step in run.steps()]
    assert rows == [
        f"1000  2026-03-01 12:16:40  {sizes[0]}  loss=0.123457 lr=0.0001  best 1 by loss (min)",
        f"2000  2026-03-01 12:33:20  {sizes[1]}  loss=nan lr=0.0001       newest, last 1",
    ]
    assert total.startswith(f"{run.directory}: 2 steps, ")


def test_json(run: CheckpointManager) -> None:
    found = document(run.directory)
    assert found["path"] == run.directory
    first, second = found["steps"]
    assert first == {
        "step": 1000,
        "path": f"{run.directory}/step-0000001000.ckpt",
        "time": NOON + 1000,
        "size": run.steps()[0].size,
        "metrics": {"loss": 0.123456789, "lr": 0.0001},
        "error": None,
        "reasons": ["best 1 by loss (min)"],
    }
    assert second["metrics"]["loss"] == {"$float": "nan"}


def test_a_damaged_manifest_is_named(run: CheckpointManager) -> None:
    path = Path(run.latest().path)
    path = path / "manifest.msgpack" if path.is_dir() else path
    path.write_bytes(path.read_bytes().replace(b"loss", b"losz"))
    assert "  manifest-digest  " in ls(run.directory)
    assert [step["error"] for step in document(run.directory)["steps"]] == [None, "manifest-digest"]


def test_the_plot_in_the_terminal(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path, durable=False)
    for step in range(16):
        loss = float("nan") if step == 3 else float(step)
        manager.save(step, {}, metrics={"loss": loss, **({"acc": 1.0} if step > 13 else {})})
    plots = ls(tmp_path, "--plot").splitlines()[-2:]
    assert plots == ["loss  ▁▁▂·▃▃▄▄▅▅▆▆▇▇██  0 to 15", "acc   ··············▁▁  1 to 1"]


def test_a_long_plot_is_thinned() -> None:
    (line,) = chart.lines({"loss": [(step, float(step)) for step in range(10_000)]}, ascii_only=True)
    assert line == "loss  " + "".join(level * 9 for level in "_.-=+*#@") + "  0 to 9999"
    assert chart.lines({"x": [(1, float("inf"))]}, ascii_only=False) == ["x  ·  nan to nan"]
    assert chart.lines({}, ascii_only=False) == []


def test_the_plot_as_a_picture(run: CheckpointManager, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    png = tmp_path / "plot.png"
    ls(run.directory, "--png", png)
    assert png.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">2I", png.read_bytes()[16:24])
    assert (width, height) == (960, 600), "two metrics"
    assert document(tmp_path, "--png", png)["steps"] == []


def test_no_steps(tmp_path: Path) -> None:
    assert ls(tmp_path) == f"{tmp_path}: 0 steps, 0 B\n"
    assert document(tmp_path) == {"path": str(tmp_path), "steps": []}


def test_no_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert document(tmp_path / "none", code=2)["error"]["code"] == "not-found"
    assert document(tmp_path / "file", code=2)["error"]["code"] == "not-a-checkpoint"


def test_what_is_hostile_is_made_visible(tmp_path: Path) -> None:
    CheckpointManager(tmp_path).save(1, {}, metrics={"a\x1b[31m\nb": 1})
    (tmp_path / "kept.json").write_text(json.dumps({"step-0000000001.ckpt": ["\x1b[2J"]}))
    shown = ls(tmp_path)
    assert "\x1b" not in shown
    assert "a\\x1b[31m\\nb=1" in shown
    assert len(shown.splitlines()) == 3


def test_a_run_of_mode_flax(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path, mode="flax", keep=3)
    for step in (1, 1.5):
        manager.save(step, {})
    assert [step["step"] for step in document(tmp_path, "--prefix", "checkpoint_")["steps"]] == [1, 1.5]
    assert document(tmp_path)["steps"] == []
