"""What logs the saves of a run: real trackers, of which one that fails harms no save, and the history in a file.

MLflow and Weights & Biases are tested where they are installed (the extra `trackers`); TensorBoard always.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peers import peer
from ranks import run as run_ranks
from ranks import save_logged
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import ckptfmt
from ckptfmt.manager import CheckpointManager, Last, LogTo, TrackedSave, TrackingWarning
from ckptfmt.manager.tracking import PREFIX, read_history

torch_tensorboard = peer("torch.utils.tensorboard")
tensorboardX = peer("tensorboardX")  # noqa: N816
lightning_loggers = peer("lightning.pytorch.loggers")
STEPS = (10, 20, 30)
NAMES = {f"{PREFIX}{name}" for name in ("bytes", "seconds", "kept", "metrics/loss")}


def train(folder: Path, *targets: Any, block: bool = True, steps: Sequence[int] = STEPS, **options: Any) -> Path:
    """A run of some steps, whose saves are logged."""
    run = folder / "run"
    with CheckpointManager(run, keep=Last(2), durable=False, on_commit=LogTo(*targets), **options) as manager:
        for step in steps:
            manager.save(step, {"w": np.ones(step)}, metrics={"loss": 1 / step}, block=block)
    return run


def sizes(run: Path) -> dict[int, int]:
    return {int(path.stem[5:]): path.stat().st_size for path in run.glob("step-*.ckpt")}


def check(found: dict[str, dict[int, float]], run: Path) -> None:
    """What a tracker has, by name and step, is what was logged."""
    assert set(found) >= NAMES
    assert found[f"{PREFIX}metrics/loss"] == pytest.approx({step: 1 / step for step in STEPS}, rel=1e-6)
    assert found[f"{PREFIX}kept"] == {10: 1, 20: 2, 30: 2}
    there = sizes(run)
    assert {step: found[f"{PREFIX}bytes"][step] for step in there} == there
    assert all(0 < seconds < 60 for seconds in found[f"{PREFIX}seconds"].values())


# ---- trackers


@pytest.mark.parametrize("package", ["torch", "tensorboardX"])
@pytest.mark.parametrize("block", [True, False], ids=["blocks", "background"])
def test_tensorboard(tmp_path: Path, package: str, block: bool) -> None:
    writer_of = {"torch": torch_tensorboard, "tensorboardX": tensorboardX}[package].SummaryWriter
    with writer_of(str(tmp_path / "events")) as writer:
        run = train(tmp_path, writer, block=block)
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    check({name: {e.step: e.value for e in events.Scalars(name)} for name in events.Tags()["scalars"]}, run)
    assert all(abs(e.wall_time - os.stat(run).st_mtime) < 300 for e in events.Scalars(f"{PREFIX}bytes"))


def test_a_logger_of_lightning(tmp_path: Path) -> None:
    logger = lightning_loggers.CSVLogger(tmp_path, name="csv")
    run = train(tmp_path, logger)
    logger.save()
    (path,) = tmp_path.rglob("metrics.csv")
    header, *lines = [line.split(",") for line in path.read_text().splitlines()]
    rows = [dict(zip(header, line, strict=True)) for line in lines]
    check({name: {int(row["step"]): float(row[name]) for row in rows} for name in header if name != "step"}, run)


MLFLOW = """
import sys, mlflow
from mlflow.tracking import MlflowClient
sys.path.insert(0, sys.argv[3])
from test_tracking import train
mlflow.set_tracking_uri(sys.argv[1])
with mlflow.start_run() as run:
    target = mlflow if sys.argv[2] == "module" else (MlflowClient(), run.info.run_id)
    from pathlib import Path
    train(Path(sys.argv[4]), target, block=False)
client = MlflowClient()
runs = client.search_runs([run.info.experiment_id])
assert len(runs) == 1, "no run was begun beside"
import json
names = runs[0].data.metrics
print(json.dumps({name: {m.step: m.value for m in client.get_metric_history(run.info.run_id, name)} for name in names}))
"""


@pytest.mark.parametrize("face", ["module", "client"])
def test_mlflow(tmp_path: Path, face: str) -> None:
    """From the manager's thread, on which no run is active. In a process of its own, for its settings are global."""
    if find_spec("mlflow") is None:
        pytest.skip("mlflow is not installed: pip install 'ckptfmt[trackers]'")
    environment = {**os.environ, "MLFLOW_ALLOW_FILE_STORE": "true"}
    done = python(MLFLOW, (tmp_path / "store").as_uri(), face, Path(__file__).parent, tmp_path, env=environment)
    found = json.loads(done.splitlines()[-1])
    check({name: {int(step): value for step, value in of.items()} for name, of in found.items()}, tmp_path / "run")


WANDB = """
import sys, wandb
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_tracking import train
folder = Path(sys.argv[3])
quiet = wandb.Settings(console="off", x_disable_stats=True)
with wandb.init(mode="offline", dir=folder, project="p", settings=quiet) as run:
    run.log({"mine": 1}, step=5)
    train(folder, run if sys.argv[1] == "run" else wandb, block=False)
    run.log({"mine": 2}, step=100)
"""
WANDB_FILE = """
import json, sys
from pathlib import Path
from wandb.proto import wandb_internal_pb2 as pb

(path,) = Path(sys.argv[1]).rglob("*.wandb")
data, place, held, rows, metrics = path.read_bytes(), 7, b"", [], []
while place + 7 <= len(data):  # the log format of LevelDB: blocks of 32 KiB, and 7 bytes before each part of a record
    if (1 << 15) - place % (1 << 15) < 7:
        place += (1 << 15) - place % (1 << 15)
        continue
    size, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
    held += data[place + 7 : place + 7 + size]
    place += 7 + size
    if kind in (2, 3):
        continue
    record, held = pb.Record.FromString(held), b""
    if record.WhichOneof("record_type") == "history":
        items = record.history.item
        rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
    elif record.WhichOneof("record_type") == "metric":
        metrics.append(record.metric.glob_name or record.metric.name)
print(json.dumps([rows, metrics]))
"""


@pytest.mark.parametrize("face", ["module", "run"])
def test_wandb_offline(tmp_path: Path, face: str) -> None:
    """Steps of the program's own stay as they are: saves have an axis of their own."""
    if find_spec("wandb") is None:
        pytest.skip("wandb is not installed: pip install 'ckptfmt[trackers]'")
    python(WANDB, face, Path(__file__).parent, tmp_path)
    rows, metrics = json.loads(python(WANDB_FILE, tmp_path).splitlines()[-1])  # once all of its processes have ended
    assert {f"{PREFIX}step", f"{PREFIX}*"} <= set(metrics)
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        for name, value in row.items():
            if f"{PREFIX}step" in row:
                found.setdefault(name, {})[row[f"{PREFIX}step"]] = value
    check(found, tmp_path / "run")
    assert [row["mine"] for row in rows if "mine" in row] == [1, 2]


def python(code: str, *arguments: object, env: dict[str, str] | None = None) -> str:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_none_of_them_is_imported() -> None:
    code = "import sys, ckptfmt.manager; ckptfmt.manager.LogTo('x.jsonl')"
    trackers = {"tensorboard", "tensorboardX", "mlflow", "wandb", "lightning", "torch"}
    assert not trackers & set(python(f"{code}; print(*sys.modules)").split())


# ---- a file, and a function


@pytest.mark.parametrize("options", [{}, {"background": "process"}], ids=["thread", "process"])
def test_a_history(tmp_path: Path, options: dict[str, Any]) -> None:
    run = train(tmp_path, tmp_path / "run" / "history.jsonl", block=False, **options)
    saves = read_history(run / "history.jsonl")
    assert [(save.step, save.kept, dict(save.metrics)) for save in saves] == [
        (step, kept, {"loss": 1 / step}) for step, kept in zip(STEPS, (1, 2, 2), strict=True)
    ]
    assert {save.step: save.bytes for save in saves if save.step in sizes(run)} == sizes(run)
    assert ckptfmt.manager.open_run(run).damaged() == []  # it is in nobody's way
    assert [row.name for row in ckptfmt.gc(run).found] == []
    assert (run / "history.jsonl").exists()


def test_a_history_goes_on(tmp_path: Path) -> None:
    """After a crash that has cut its last line off, and after the run went back."""
    run = train(tmp_path, tmp_path / "run" / "history.jsonl")
    history = run / "history.jsonl"
    with history.open("ab") as file:
        file.write(b'{"step": 40, "time": 1')
    train(tmp_path, history, steps=(50,))
    assert [save.step for save in read_history(history)] == [*STEPS, 50]
    with CheckpointManager(run, durable=False, on_commit=LogTo(history)) as manager:
        manager.save(25, {}, overwrite="later")
    assert [save.step for save in read_history(history)] == [10, 20, 25]


FIELDS = {"step": 1, "time": 1, "seconds": 1, "bytes": 1, "kept": 1, "metrics": {}}
BAD = [
    {"step": "1"},
    {"step": True},
    {"bytes": 1.5},
    {"kept": "1"},
    {"metrics": [1]},
    {"time": 10**400},
    {"time": None},
]
LINES = ["", "[]", "null", "{}", "\0\xff", "[" * 5000, *(json.dumps(FIELDS | bad) for bad in BAD)]


def test_a_history_with_anything_in_it(tmp_path: Path) -> None:
    (tmp_path / "h.jsonl").write_text("\n".join([*LINES, json.dumps(SAVE._asdict()), "x"]), errors="surrogateescape")
    assert read_history(tmp_path / "h.jsonl") == [SAVE]
    assert read_history(tmp_path / "none.jsonl") == []
    assert read_history(tmp_path) == []


SAVE = TrackedSave(3, 1000.0, 0.5, 7, None, {"loss": 0.25})


def test_odd_metrics(tmp_path: Path) -> None:
    log = LogTo(tmp_path / "h.jsonl")
    log.tell(SAVE._replace(metrics={"a": math.nan, "b": math.inf, "c/\n": -math.inf}))
    assert log.take_report() == []
    ((a, b, c),) = (save.metrics.values() for save in read_history(tmp_path / "h.jsonl"))
    assert (math.isnan(a), b, c) == (True, math.inf, -math.inf)


def test_a_function_and_a_prefix(tmp_path: Path) -> None:
    saves: list[TrackedSave] = []
    train(tmp_path, saves.append)
    assert [(save.step, save.kept) for save in saves] == [(10, 1), (20, 2), (30, 2)]

    class Writer:
        seen: dict[str, float] = {}  # noqa: RUF012

        def add_scalar(self, name: str, value: float, step: int, time: float) -> None:
            self.seen[name] = value

    LogTo(Writer(), prefix="mine/").tell(SAVE)
    assert Writer.seen == {"mine/seconds": 0.5, "mine/bytes": 7, "mine/metrics/loss": 0.25}


# ---- what goes wrong


def failing(save: TrackedSave) -> None:
    raise OSError(f"no route at {save.step}")


@pytest.mark.parametrize("block", [True, False], ids=["blocks", "background"])
def test_a_tracker_that_fails_harms_no_save(tmp_path: Path, block: bool) -> None:
    """It is a warning at the next call, from the line of the program; the others are told."""
    saves: list[TrackedSave] = []
    manager = CheckpointManager(tmp_path, durable=False, on_commit=LogTo(failing, saves.append))
    manager.save(1, {"w": np.ones(1)}, block=block)
    with pytest.warns(TrackingWarning) as caught:
        manager.wait()
    (message,) = {str(warning.message) for warning in caught}
    assert (
        message == "the function could not be told of step 1, which is saved: OSError: no route at 1 [tracking-failed]"
    )
    assert caught[0].filename == __file__
    assert [save.step for save in saves] == [1]
    assert [step.step for step in manager.steps()] == [1]
    manager.close()


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    manager = CheckpointManager(tmp_path / "run", durable=False, on_commit=LogTo(tmp_path / "file" / "h.jsonl"))
    manager.save(1, {})
    with pytest.warns(TrackingWarning, match="the file could not be told of step 1, which is saved: .*Error"):
        manager.close()
    assert ckptfmt.manager.open_run(tmp_path / "run").latest() is not None


def test_what_ends_a_program_is_raised(tmp_path: Path) -> None:
    def interrupted(_: TrackedSave) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, interrupted)


class Idle:
    """Has the methods of the module of MLflow, and no run."""

    def active_run(self) -> None:
        return None

    def log_metrics(self, *_: Any, **__: Any) -> None:
        raise AssertionError


@pytest.mark.parametrize("target", [None, 5, "s3://bucket/h.jsonl", object(), Idle(), (1, 2)])
def test_what_nothing_can_be_logged_to(target: Any) -> None:
    with pytest.raises(ckptfmt.InputError) as caught:
        LogTo(target)
    assert (caught.value.code, "LogTo(" in caught.value.message) == ("bad-option", True)


def test_one_process_of_a_group_logs(tmp_path: Path) -> None:
    """Of those that save together the one that deletes, whoever has a tracker."""
    assert run_ranks(save_logged, tmp_path, 2) == [[1], []]
