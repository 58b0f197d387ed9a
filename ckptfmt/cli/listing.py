"""What `ckptfmt ls` lists: the steps of a run, and every other checkpoint in a folder."""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from .. import open as open_checkpoint
from ..conversion import FORMATS
from ..conversion.entries import folder_size
from ..conversion.formats import OWN, place_of
from ..errors import CkptError, MissingError, NotACheckpointError
from ..maintenance.candidates import Candidate, candidates_in
from ..manager.flax_rules import FlaxNames
from ..manager.retention import read_reasons
from ..manager.run import DamagedStep, run_at
from ..manager.steps import RESERVED, FixedNames, Step
from ..storage import is_url

STEPS = ("step", "global_step", "iteration", "epoch")  # keys of metadata, and words in names, the best first
_AT_END = re.compile(r"(?:^|ckpt|checkpoint|save|model)[-_=.]?([0-9]{1,18})$", re.IGNORECASE)
_NUMBER = re.compile(r"([0-9]+)")


class Row(NamedTuple):
    """One checkpoint: its name below the folder, what is known of it, the code of what keeps it from being read, and
    why its manager kept it."""

    name: str
    format: str | None
    step: Any
    path: str
    time: float | None
    size: int | None
    metrics: dict[str, float]
    error: str | None = None
    reasons: tuple[str, ...] = ()


def listed(folder: str, *, prefix: str | None = None, recursive: bool = False) -> list[Row]:
    """The checkpoints in a folder, a path or a URL; `prefix`: that of the names of a run of mode "flax"."""
    run = run_at(folder, FixedNames() if prefix is None else FlaxNames(prefix))
    reasons = read_reasons(run)
    rows: dict[str, Row] = {}
    found: list[Step | DamagedStep] = [*run.scan().steps, *run.damaged]
    for step in found:
        name = os.path.basename(step.path)
        rows[name] = _of_run(name, step, reasons.get(name, ()))
    for candidate in candidates_in(folder, recursive=recursive):
        name = candidate.path[len(folder.rstrip("/")) + 1 :]
        if name not in rows and (row := _looked_at(name, candidate)) is not None:
            rows[name] = row
    rows |= {} if is_url(folder) else {row.name: row for row in _directories(folder, rows)}
    return list(rows.values())


def by_step(row: Row) -> Any:
    """The order of steps; what has none comes last, by name."""
    return (row.step is None, row.step if row.step is not None else 0, natural(row.name))


def natural(name: str) -> list[Any]:
    """The order of names in which epoch_2 comes before epoch_10."""
    return [int(part) if place % 2 else part for place, part in enumerate(_NUMBER.split(name))]


def _of_run(name: str, step: Step | DamagedStep, reasons: tuple[str, ...]) -> Row:
    if isinstance(step, DamagedStep):
        return Row(name, None, step.step, step.path, None, None, {}, step.error.code)
    form = OWN if step.record else "flax"
    row = Row(name, form, step.step, step.path, step.time, step.size, {}, reasons=reasons)
    try:
        _ = step.metadata  # raises what `metrics` hides
    except CkptError as error:
        return row._replace(error=error.code)
    return row._replace(metrics=dict(step.metrics))


def _looked_at(name: str, candidate: Candidate) -> Row | None:
    """What is at a path, if it is a checkpoint or named like one."""
    path, size, time = candidate
    row = Row(name, OWN, step_in(name), path, time, size, {})
    try:
        with open_checkpoint(path) as checkpoint:
            return row._replace(**_told(checkpoint.metadata, row.step))
    except MissingError:
        return None  # it was removed meanwhile
    except NotACheckpointError as error:
        code = error.code
    except CkptError as error:
        return row._replace(error=error.code)
    form = None if is_url(path) else _format(path)
    if form is not None:
        return row._replace(format=form)
    return row._replace(format=None, error=code) if name.endswith(FORMATS[OWN].suffixes) else None


def _format(path: str) -> str | None:
    try:
        place = place_of(path)
        return place.format if place.path == path else None  # else it is a folder with one
    except CkptError:
        return None


def _directories(folder: str, known: Container[str]) -> Iterator[Row]:
    """Directories that are checkpoints of other formats."""
    with os.scandir(folder) as entries:
        found = [entry for entry in entries if entry.is_dir(follow_symlinks=False) and entry.name[:1] != "."]
    for entry in found:
        form = None if entry.name in known else _format(entry.path)
        if form is not None:
            size, time = folder_size(entry.path), entry.stat().st_mtime
            yield Row(entry.name, form, step_in(entry.name), entry.path, time, size, {})


def _told(metadata: Any, step: Any) -> dict[str, Any]:
    """Step and metrics as metadata have them: as a manager stores them, or any numbers."""
    if not isinstance(metadata, dict):
        return {}
    entry = metadata.get(RESERVED)
    if isinstance(entry, dict):
        return {"step": _steps(entry, ("step",), step), "metrics": _numbers(entry.get("metrics"))}
    of_step = next((key for key in STEPS if _number(metadata.get(key)) is not None), None)
    numbers = {key: value for key, value in _numbers(metadata).items() if key != of_step}
    return {"step": _steps(metadata, STEPS, step), "metrics": numbers | _numbers(metadata.get("metrics"))}


def _steps(metadata: dict[Any, Any], keys: Iterable[str], otherwise: Any) -> Any:
    """The first of the keys that is a number."""
    found = (_number(metadata.get(key)) for key in keys)
    return next((step for step in found if step is not None), otherwise)


def _numbers(found: Any) -> dict[str, float]:
    if not isinstance(found, dict):
        return {}
    numbers = {key: _number(value) for key, value in found.items() if type(key) is str}
    return {key: float(number) for key, number in numbers.items() if number is not None}


def _number(value: Any) -> int | float | None:
    """A number as people count, also one of NumPy: no bool, and no int that a float cannot come near to."""
    value = value.item() if isinstance(value, np.generic) else value
    return value if type(value) is float or (type(value) is int and value.bit_length() <= 64) else None


def step_in(name: str) -> int | None:
    """The step that a name says."""
    stem = os.path.basename(name)
    for suffix in (suffix for format in FORMATS.values() for suffix in format.suffixes):
        stem = stem.removesuffix(suffix)
    for word in STEPS:
        found = re.search(rf"{word}[-_=.]?([0-9]{{1,18}})(?![0-9])", stem, re.IGNORECASE)
        if found:
            return int(found[1])
    at_end = _AT_END.search(stem)
    return int(at_end[1]) if at_end else None
