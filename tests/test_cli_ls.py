"""`ckptfmt ls`: the steps of a run as people and programs see them."""

from __future__ import annotations

import json
import os
import struct
import time
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from click.testing import CliRunner
from damage import LAYOUTS
from peers import peer
from rich.text import Text
from safetensors.numpy import save_file

import ckptfmt
from ckptfmt.cli import chart
from ckptfmt.cli.app import cli
from ckptfmt.manager import Best, CheckpointManager, FlaxCheckpointManager, Last
from ckptfmt.manager.listing import step_in

torch = peer("torch")
dcp = peer("torch.distributed.checkpoint")

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
    assert head.split() == ["name", "step", "time", "size", "metrics", "kept", "because"]
    sizes = [f"{step.size / 1024:.1f} KiB" for step in run.steps()]
    assert rows == [
        f"step-0000001000.ckpt  1000  2026-03-01 12:16:40  {sizes[0]}  loss=0.123457 lr=0.0001  best 1 by loss (min)",
        f"step-0000002000.ckpt  2000  2026-03-01 12:33:20  {sizes[1]}  loss=nan lr=0.0001       newest, last 1",
    ]
    assert total.startswith(f"{run.directory}: 2 checkpoints, ")


def test_json(run: CheckpointManager) -> None:
    found = document(run.directory)
    assert found["path"] == run.directory
    first, second = found["steps"]
    assert first == {
        "name": "step-0000001000.ckpt",
        "format": "ckptfmt",
        "step": 1000,
        "path": f"{run.directory}/step-0000001000.ckpt",
        "time": NOON + 1000,
        "size": run.steps()[0].size,
        "metrics": {"loss": 0.123456789, "lr": 0.0001},
        "error": None,
        "reasons": ["best 1 by loss (min)"],
        "manifest_sha256": run.steps()[0].sha256.hex(),
        "base": None,
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
    assert ls(tmp_path) == f"{tmp_path}: 0 checkpoints, 0 B\n"
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


def test_a_run_by_the_rules_of_flax(tmp_path: Path) -> None:
    manager = FlaxCheckpointManager(tmp_path, keep=3)
    for step in (1, 1.5):
        manager.save(step, {})
    assert [step["step"] for step in document(tmp_path, "--prefix", "checkpoint_")["steps"]] == [1, 1.5]
    assert [step["step"] for step in document(tmp_path)["steps"]] == [1, 1.5], "as the manager stored them"


# ---- folders that no manager keeps


@pytest.fixture
def epochs(tmp_path: Path) -> Path:
    """Checkpoints of a loop that somebody wrote, the third the best, and what else lies in such a folder."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for epoch, loss in enumerate((3.0, 2.0, 0.5, float("nan"))):
        path = folder / f"epoch_{epoch * 4}.ckpt"
        ckptfmt.save(path, {"w": np.zeros(epoch)}, metadata={"loss": loss, "note": "x", "ok": True}, durable=False)
        os.utime(path, (NOON - epoch, NOON - epoch))
    (folder / "notes.txt").write_text("not a checkpoint")
    (folder / "below").mkdir()
    ckptfmt.save(folder / "below" / "loose.ckpt", {"w": np.zeros(3)}, layout="loose", durable=False)
    return folder


def names(*args: object) -> list[str]:
    return [row["name"] for row in document(*args)["steps"]]


def test_any_folder(epochs: Path) -> None:
    head, *rows, total = ls(epochs).splitlines()
    assert head.split() == ["name", "step", "time", "size", "metrics"]
    assert [row.split()[:2] for row in rows] == [[f"epoch_{n}.ckpt", str(n)] for n in (0, 4, 8, 12)]
    assert [row.split()[-1] for row in rows] == ["loss=3", "loss=2", "loss=0.5", "loss=nan"]
    assert total.startswith(f"{epochs}: 4 checkpoints, ")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], [0, 4, 8, 12]),
        (["--reverse"], [12, 8, 4, 0]),
        (["--sort", "name"], [0, 4, 8, 12]),
        (["--sort", "time"], [12, 8, 4, 0]),
        (["--sort", "size"], [0, 4, 8, 12]),
        (["--sort", "loss"], [8, 4, 0, 12]),
        (["--sort", "loss", "--reverse"], [0, 4, 8, 12]),
    ],
    ids=str,
)
def test_sorted(epochs: Path, options: list[str], expected: list[int]) -> None:
    assert names(epochs, *options) == [f"epoch_{n}.ckpt" for n in expected], "and a NaN comes last"


def test_a_key_that_is_not_there(epochs: Path) -> None:
    found = document(epochs, "--sort", "los", code=2)["error"]
    assert found["message"] == "--sort: there is no 'los' here; did you mean 'loss'?"
    found = document(epochs, "--sort", "xyz", code=2)["error"]
    assert found["message"] == "--sort: there is no 'xyz' here; there are step, name, time, size, loss"


def test_folders_below(epochs: Path) -> None:
    assert names(epochs, "-r")[-1] == "below/loose.ckpt"
    assert names(epochs.parent) == []
    assert len(names(epochs.parent, "--recursive")) == 5


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_what_is_not_ours(epochs: Path) -> None:
    torch.save({"w": torch.zeros(3)}, epochs / "epoch=3-step=400.ckpt")
    save_file({"w": np.zeros(3)}, epochs / "model.safetensors")
    (epochs / "torn.ckpt").write_bytes((epochs / "epoch_0.ckpt").read_bytes()[:200])
    (epochs / "text.ckpt").write_text("text")
    dcp.save({"w": torch.zeros(3)}, checkpoint_id=epochs / "dcp")
    found = {row["name"]: (row["format"], row["step"], row["error"]) for row in document(epochs)["steps"]}
    assert found["epoch=3-step=400.ckpt"] == ("torch", 400, None)
    assert found["model.safetensors"] == ("safetensors", None, None)
    assert found["dcp"] == ("torch-dcp", None, None)
    assert found["torn.ckpt"] == ("ckptfmt", None, "truncated")
    assert found["text.ckpt"] == (None, None, "not-a-checkpoint")
    assert "notes.txt" not in found
    assert ls(epochs).splitlines()[-1].startswith(f"{epochs}: 7 checkpoints, 2 damaged or not readable, ")


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("epoch_012.ckpt", 12),
        ("step-0000001000.ckpt", 1000),
        ("epoch=3-step=400.pt", 400),
        ("model_epoch7_loss0.31.pt", 7),
        ("global_step500", 500),
        ("checkpoint-500", 500),
        ("0100.ckpt", 100),
        ("model_3.npz", 3),
        ("llama-2-7b.safetensors", None),
        ("resnet50.pt", None),
        ("best.ckpt", None),
    ],
)
def test_the_step_that_a_name_says(name: str, step: int | None) -> None:
    assert step_in(name) == step


def test_metadata_of_strangers(tmp_path: Path) -> None:
    for number, metadata in enumerate(
        [
            {"ckptfmt.run": {"step": ["x"], "metrics": {"a": "b", 1: 2.0, "c": 1.0}}},
            {"step": 1 << 8000, "loss": 1 << 8000, "metrics": {"acc": 0.5}},
            {"epoch": True, "metrics": [1]},
            [1, 2],
        ]
    ):
        ckptfmt.save(tmp_path / f"epoch{number}.ckpt", {}, metadata=metadata, durable=False)
    found = [(row["step"], row["metrics"]) for row in document(tmp_path)["steps"]]
    assert found == [(0, {"c": 1.0}), (1, {"acc": 0.5}), (2, {}), (3, {})]


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    for epoch, kind in enumerate((np.float32, np.float64, ml_dtypes.bfloat16)):
        metadata = {"loss": kind(3 - epoch), "epoch": np.int64(epoch + 5), "on": np.bool_(True), "c": np.complex64(1)}
        metadata["metrics"] = {"acc": np.float16(epoch)}
        ckptfmt.save(tmp_path / f"{'zyx'[epoch]}.ckpt", {}, metadata=metadata, durable=False)
    rows = document(tmp_path, "--sort", "loss")["steps"]
    assert [(row["step"], row["metrics"]) for row in rows] == [
        (7, {"loss": 1.0, "acc": 2.0}),
        (6, {"loss": 2.0, "acc": 1.0}),
        (5, {"loss": 3.0, "acc": 0.0}),
    ]
    assert type(rows[0]["step"]) is int


def test_steps_of_other_formats(tmp_path: Path) -> None:
    for name in ("step-100.safetensors", "checkpoint-5.safetensors", "epoch=3-step=100.safetensors"):
        save_file({"w": np.zeros(3)}, tmp_path / name)
    torch.save({"w": torch.zeros(3)}, tmp_path / "epoch_4.pt")
    (tmp_path / "checkpoint-500").mkdir()
    save_file({"w": np.zeros(3)}, tmp_path / "checkpoint-500" / "model.safetensors")
    torch.save({}, tmp_path / "checkpoint-500" / "optimizer.pt")
    (tmp_path / "other").mkdir()
    save_file({"w": np.zeros(3)}, tmp_path / "other" / "model.safetensors")
    found = {row["name"]: (row["format"], row["step"]) for row in document(tmp_path)["steps"]}
    assert found == {
        "checkpoint-5.safetensors": ("safetensors", 5),
        "checkpoint-500": ("safetensors", 500),
        "epoch=3-step=100.safetensors": ("safetensors", 100),
        "epoch_4.pt": ("torch", 4),
        "step-100.safetensors": ("safetensors", 100),
    }


def test_a_model_in_several_files_is_one_row(tmp_path: Path) -> None:
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for number, name in enumerate(names):
        save_file({f"w{number}": np.ones(3, np.float32)}, tmp_path / name)
    index = {"weight_map": {"w0": names[0], "w1": names[1]}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (row,) = document(tmp_path)["steps"]
    assert row["name"] == "model.safetensors.index.json"
    assert row["size"] == sum(path.stat().st_size for path in tmp_path.iterdir())


def test_a_folder_on_a_store(tmp_path: Path) -> None:
    for epoch in (2, 10):
        ckptfmt.save(f"memory://ls/epoch_{epoch}.ckpt", {"w": np.zeros(2)}, metadata={"loss": 1.0 / epoch})
    found = document("memory://ls", "--sort", "loss")["steps"]
    assert [(row["name"], row["step"], row["metrics"]["loss"]) for row in found] == [
        ("epoch_10.ckpt", 10, 0.1),
        ("epoch_2.ckpt", 2, 0.5),
    ]


def test_a_terminal_shows_one_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And says which: the one of --sort, else the first. A pipe gets the table alone."""
    manager = CheckpointManager(tmp_path, durable=False)
    for step in range(8):
        manager.save(step, {}, metrics={"loss": float(7 - step), "acc": float(step)})
    assert "▁" not in ls(tmp_path)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert Text.from_ansi(ls(tmp_path)).plain.splitlines()[-1] == "loss  █▇▆▅▄▃▂▁  0 to 7"
    assert Text.from_ansi(ls(tmp_path, "--sort", "acc")).plain.splitlines()[-1] == "acc  ▁▂▃▄▅▆▇█  0 to 7"
