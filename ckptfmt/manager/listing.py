"""The checkpoints of a folder, with what is known of each: the steps of a run, and every other one."""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..conversion import FORMATS
from ..conversion.entries import folder_size
from ..conversion.folders import INDEX, index_of
from ..conversion.opening import place_of
from ..conversion.probe import CheckpointPlace
from ..conversion.shards import numbered
from ..conversion.table import OWN
from ..errors import CkptError, MissingError, NotACheckpointError
from ..format.dtypes import dtype_of
from ..format.manifest import OF_RUN
from ..maintenance.candidates import Candidate, candidates_in
from ..maintenance.usage import usage_of
from ..reading.checkpoint import StoredCheckpoint
from ..storage import is_url
from .flax_rules import FlaxNames
from .retention import read_reasons
from .run import DamagedStep, run_at
from .steps import FixedNames, Step

STEPS = ("step", "global_step", "iteration", "epoch")  # keys of metadata, and words in names, the best first
_AT_END = re.compile(r"(?:^|ckpt|checkpoint|save|model)[-_=.]?([0-9]{1,18})$", re.IGNORECASE)
_NUMBER = re.compile(r"([0-9]+)")


class CheckpointRow(NamedTuple):
    """One checkpoint: its name below the folder, what is known of it, the code of what keeps it from being read, why
    its manager kept it, and the sha256 (hexadecimal) of its manifest, and of that of its base if it is a patch."""

    name: str
    format: str | None
    step: Any
    path: str
    time: float | None
    size: int | None
    metrics: dict[str, float]
    error: str | None = None
    reasons: tuple[str, ...] = ()
    manifest_sha256: str | None = None
    base: str | None = None


def on_disk(rows: Iterable[CheckpointRow]) -> int:
    """Bytes of all, those of a file that several have once."""
    rows = list(rows)
    stored = sum(row.size or 0 for row in rows if is_url(row.path))
    return stored + usage_of(row.path for row in rows).on_disk


def listed(folder: str, *, prefix: str | None = None, recursive: bool = False) -> list[CheckpointRow]:
    """The checkpoints in a folder, a path or a URL; `prefix`: that of the names of a run of flax."""
    run = run_at(folder, FixedNames() if prefix is None else FlaxNames(prefix))
    reasons = read_reasons(run)
    rows: dict[str, CheckpointRow] = {}
    found: list[Step | DamagedStep] = [*run.scan().steps, *run.damaged]
    for step in found:
        name = os.path.basename(step.path)
        rows[name] = _of_run(name, step, reasons.get(name, ()))
    for candidate in candidates_in(folder, recursive=recursive):
        name = candidate.path[len(folder.rstrip("/")) + 1 :]
        if name not in rows and (row := _looked_at(name, candidate)) is not None:
            rows[name] = row
    rows |= {} if is_url(folder) else {row.name: row for row in _directories(folder, rows, recursive)}
    return list(_joined(rows))


def _joined(rows: Mapping[str, CheckpointRow]) -> Iterator[CheckpointRow]:
    """The rows, with those of a model in several files as the one of their index."""
    parts: dict[str, list[CheckpointRow]] = {}
    for name, row in rows.items():
        part, index = numbered(name), index_of(name) or ""
        if part is not None:
            index = re.sub(r"-[0-9]+-of-[0-9]+(?=\.\w+$)", "", name) + INDEX
        parts.setdefault(index if index in rows else name, []).append(row)
    for name, found in parts.items():
        sizes = [row.size for row in found if row.size is not None]
        times = [row.time for row in found if row.time is not None]
        yield rows[name]._replace(size=sum(sizes) if sizes else None, time=max(times, default=None))


def by_step(row: CheckpointRow) -> Any:
    """The order of steps; what has none comes last, by name."""
    return (row.step is None, row.step if row.step is not None else 0, natural(row.name))


def natural(name: str) -> list[Any]:
    """The order of names in which epoch_2 comes before epoch_10."""
    return [int(part) if place % 2 else part for place, part in enumerate(_NUMBER.split(name))]


def _of_run(name: str, step: Step | DamagedStep, reasons: tuple[str, ...]) -> CheckpointRow:
    if isinstance(step, DamagedStep):
        return CheckpointRow(name, None, step.step, step.path, None, None, {}, step.error.code)
    form = OWN if step.record else "flax"
    row = CheckpointRow(name, form, step.step, step.path, step.time, step.size, {}, reasons=reasons)
    try:
        _ = step.metadata  # raises what `metrics` hides
    except CkptError as error:
        return row._replace(error=error.code)
    sha256, base = (None if found is None else found.hex() for found in (step.sha256, step.base))
    return row._replace(metrics=dict(step.metrics), manifest_sha256=sha256, base=base)


def _looked_at(name: str, candidate: Candidate) -> CheckpointRow | None:
    """What is at a path, if it is a checkpoint or named like one."""
    path, size, time = candidate
    row = CheckpointRow(name, OWN, step_in(name), path, time, size, {})
    try:
        with StoredCheckpoint(path) as stored:
            patch = stored.manifest.patch
            row = row._replace(manifest_sha256=stored.manifest_sha256, base=None if patch is None else patch.base.hex())
            return row._replace(**_told(stored.metadata, row.step))
    except MissingError:
        return None  # it was removed meanwhile
    except NotACheckpointError as error:
        code = error.code
    except CkptError as error:
        return row._replace(error=error.code)
    place = None if is_url(path) else _place(path)
    if place is not None and place.path == path:  # else it is a folder with one
        return row._replace(format=place.format)
    return row._replace(format=None, error=code) if name.endswith(FORMATS[OWN].suffixes) else None


def _place(path: str) -> CheckpointPlace | None:
    try:
        return place_of(path)
    except CkptError:
        return None


def _directories(folder: str, known: Container[str], recursive: bool) -> Iterator[CheckpointRow]:
    """Directories that are checkpoints of other formats, or that are called as a step and hold the one checkpoint of
    it, as those of a Trainer."""
    with os.scandir(folder) as entries:
        found = [entry for entry in entries if entry.is_dir(follow_symlinks=False) and entry.name[:1] != "."]
    for entry in found:
        place = None if entry.name in known else _place(entry.path)
        step = step_in(entry.name)
        if place is not None and (place.path == entry.path or (step is not None and not recursive)):
            size, time = folder_size(entry.path), entry.stat().st_mtime
            yield CheckpointRow(entry.name, place.format, step, place.path, time, size, {})


def _told(metadata: Any, step: Any) -> dict[str, Any]:
    """Step and metrics as metadata have them: as a manager stores them, or any numbers."""
    if not isinstance(metadata, dict):
        return {}
    entry = metadata.get(OF_RUN)
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
    numbers = ((key, _number(value)) for key, value in found.items() if type(key) is str)
    return {key: float(number) for key, number in numbers if number is not None}


def _number(value: Any) -> int | float | None:
    """A value that is a number as people count: no bool, and no int that a float cannot come near to."""
    if isinstance(value, np.generic):
        row = dtype_of(value.dtype)
        is_real = row is not None and row.range is not None and row.name != "bool"
        value = (value.item() if value.dtype.kind in "iu" else float(value)) if is_real else None
    is_number = type(value) is float or (type(value) is int and value.bit_length() <= 64)
    return value if is_number else None


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
