"""Logging the saves of a run: to TensorBoard, MLflow, Weights & Biases, a logger of Lightning, a file, or a function.

None of their packages is imported here: what a target is, its own methods say. What goes wrong in one is a warning, and
the save, which is committed, is none the worse for it.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..calls import takes
from ..errors import fault
from ..storage import is_url
from .steps import Number

HISTORY = "history.jsonl"  # the file of a run that `ckptfmt report` looks for
PREFIX = "checkpoint/"


class TrackingWarning(UserWarning):
    """A save is committed, and what logs the saves of a run could not be told of it. `code` is `tracking-failed`."""

    code = "tracking-failed"


class TrackedSave(NamedTuple):
    """A save that is committed: its `step`, when, in seconds since the epoch, how many `seconds` writing it took, the
    `bytes` of the checkpoint, how many steps are `kept` now (None where another process deletes), and its `metrics`."""

    step: Number
    time: float
    seconds: float
    bytes: int
    kept: int | None
    metrics: Mapping[str, float]


Log = Callable[[TrackedSave], object]


class LogTo:
    """What logs the saves of a run, as `on_commit=` of a manager: metrics, bytes, seconds, and how many steps are kept.

        CheckpointManager("runs/7", on_commit=LogTo(SummaryWriter(), "runs/7/history.jsonl"))

    `targets`, each of them one of

    - a `SummaryWriter` of torch or tensorboardX;
    - the module `mlflow`, whose run must be active now, or a pair of an `MlflowClient` and the id of a run;
    - the module `wandb`, or a run of it, whose steps are left alone: the axis is "checkpoint/step";
    - a logger of Lightning;
    - a path, of a file to which a line of JSON is added for each save; `ckptfmt report` looks for `history.jsonl`
      in the directory of the run;
    - a function, which is called with a `TrackedSave`.

    `prefix`: what names in a tracker begin with: "checkpoint/bytes", "checkpoint/metrics/loss".

    They are told from the thread that saves. What one raises becomes a `TrackingWarning` at the manager's next call,
    and the others are told all the same. Raises `InputError` (`bad-option`).
    """

    @takes()
    def __init__(self, *targets: Any, prefix: str = PREFIX) -> None:
        self.prefix = prefix
        self._logs = [(name, log(target, prefix)) for target in targets for name, log in [_kind_of(target)]]
        self._unsaid: deque[str] = deque()

    def tell(self, save: TrackedSave) -> None:
        """Tell all targets of a save; nothing is raised but what ends a program."""
        for name, log in self._logs:
            try:
                log(save)
            except Exception as error:
                what = f"{type(error).__name__}: {error}"
                self._unsaid.append(f"{name} could not be told of step {save.step}, which is saved: {what}")

    def take_report(self) -> list[str]:
        """Take what went wrong and was not said before."""
        found = []
        while self._unsaid:
            found.append(f"{self._unsaid.popleft()} [{TrackingWarning.code}]")
        return found


def scalars(save: TrackedSave, prefix: str) -> dict[str, float]:
    """A save as names and numbers: "checkpoint/bytes", "checkpoint/metrics/loss" …"""
    figures: dict[str, float | None] = {"seconds": save.seconds, "bytes": save.bytes, "kept": save.kept}
    figures |= {f"metrics/{name}": value for name, value in save.metrics.items()}
    return {f"{prefix}{name}": float(value) for name, value in figures.items() if value is not None}


# ---- the kinds of targets


class TrackerKind(NamedTuple):
    """A kind of target: its name in messages, whether something is one, and what tells it of a save."""

    name: str
    is_one: Callable[[Any], bool]
    log: Callable[[Any, str], Log]


def _has(*names: str) -> Callable[[Any], bool]:
    return lambda target: all(callable(getattr(target, name, None)) for name in names)


def _is_client(target: Any) -> bool:
    return isinstance(target, tuple) and len(target) == 2 and _has("log_batch", "log_metric")(target[0])


def _file(target: str | os.PathLike[str], _: str) -> Log:
    path = os.path.abspath(target)

    def log(save: TrackedSave) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "ab+") as file:
            if file.seek(0, os.SEEK_END) and file.seek(-1, os.SEEK_END) and file.read(1) != b"\n":
                file.write(b"\n")  # a crash has cut the last line off
            file.write(_line(save))

    return log


def _tensorboard(writer: Any, prefix: str) -> Log:
    def log(save: TrackedSave) -> None:
        for name, value in scalars(save, prefix).items():
            writer.add_scalar(name, value, save.step, save.time)

    return log


def _mlflow(module: Any, prefix: str) -> Log:
    """The run that is active on this thread: on that of a manager there is none, and one would begin."""
    run = module.active_run()
    if run is None:
        advice = "Call mlflow.start_run() before, or give (MlflowClient(), run_id)"
        raise fault("bad-option", "LogTo(mlflow): no run is active", advice=advice)
    return lambda save: module.log_metrics(_for_mlflow(save, prefix), step=save.step, run_id=run.info.run_id)


def _mlflow_client(target: tuple[Any, str], prefix: str) -> Log:
    client, run = target

    def log(save: TrackedSave) -> None:
        for name, value in _for_mlflow(save, prefix).items():
            client.log_metric(run, name, value, timestamp=int(save.time * 1000), step=save.step)

    return log


def _for_mlflow(save: TrackedSave, prefix: str) -> dict[str, float]:
    """Names as MLflow allows them."""
    return {re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII): value for name, value in scalars(save, prefix).items()}


def _wandb(run: Any, prefix: str) -> Log:
    axis = f"{prefix}step"
    run.define_metric(axis)
    run.define_metric(f"{prefix}*", step_metric=axis)
    return lambda save: run.log({axis: save.step, **scalars(save, prefix)})


def _lightning(logger: Any, prefix: str) -> Log:
    return lambda save: logger.log_metrics(scalars(save, prefix), save.step)


KINDS = (
    TrackerKind("the file", lambda target: isinstance(target, str | os.PathLike) and not is_url(target), _file),
    TrackerKind("TensorBoard", _has("add_scalar"), _tensorboard),
    TrackerKind("MLflow", _is_client, _mlflow_client),
    TrackerKind("MLflow", _has("log_metrics", "active_run"), _mlflow),
    TrackerKind("Weights & Biases", _has("log", "define_metric"), _wandb),
    TrackerKind("the logger", _has("log_metrics"), _lightning),
    TrackerKind("the function", callable, lambda target, _: target),
)


def _kind_of(target: Any) -> tuple[str, Callable[[Any, str], Log]]:
    kind = next((kind for kind in KINDS if kind.is_one(target)), None)
    if kind is None:
        expected = (
            "a SummaryWriter, mlflow, (MlflowClient, run id), wandb or a run of it, a logger, a path or a function"
        )
        raise fault("bad-option", "LogTo()", found=type(target).__name__, expected=expected)
    return kind.name, kind.log


# ---- the file


def _line(save: TrackedSave) -> bytes:
    entry = {**save._asdict(), "metrics": {name: _text_of_odd(value) for name, value in save.metrics.items()}}
    return json.dumps(entry).encode() + b"\n"


def _text_of_odd(value: float) -> float | str:
    """NaN and infinities, which JSON lacks, as text that float() reads."""
    return value if math.isfinite(value) else str(value)


def read_history(path: str | os.PathLike[str]) -> list[TrackedSave]:
    """The saves of which a file tells, by step; of a run that went back, what came after. Lines that cannot be read,
    such as one that a crash has cut off, are passed over; where there is no file, there are none."""
    found: list[TrackedSave] = []
    try:
        with open(path, "rb") as file:
            for line in file:
                save = _save_of(line)
                while save is not None and found and found[-1].step >= save.step:
                    found.pop()
                found += [] if save is None else [save]
    except OSError:
        return []
    return found


def _save_of(line: bytes) -> TrackedSave | None:
    try:
        entry = json.loads(line)
        metrics = {str(name): float(value) for name, value in entry["metrics"].items()}
        step, kept = entry["step"], entry["kept"]
        if type(step) not in (int, float) or not (kept is None or type(kept) is int) or type(entry["bytes"]) is not int:
            return None
        return TrackedSave(step, float(entry["time"]), float(entry["seconds"]), entry["bytes"], kept, metrics)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return None
