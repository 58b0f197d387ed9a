"""`convert_each`: every checkpoint of a folder, by whatever executor the caller has."""

from __future__ import annotations

import os
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Unpack

from ..calls import takes
from ..errors import CkptError, fault, os_fault
from ..progress import Progress
from ..reading.bases import bases_given
from ..storage import is_url, path_of
from .converter import ConvertReport, convert
from .folders import index_of
from .opening import place_of
from .options import EachOptions
from .table import FORMATS, Format
from .table import target_format as format_of_target
from .template import format_of


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one checkpoint: its report, or the error that kept it from being converted."""

    source: str
    target: str
    report: ConvertReport | None = None
    error: CkptError | None = None


@takes(EachOptions, former={"to": "target_format"})
def convert_each(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    executor: Executor | None = None,
    target_format: str | None = None,
    progress: Progress | None = None,
    **options: Unpack[EachOptions],
) -> tuple[Outcome, ...]:
    """Convert every checkpoint that lies in the folder `source`, a file or a directory, into the folder `target`, which
    is made if it is missing. What looks like no known format is passed over.

    `executor`: any `concurrent.futures.Executor` (of threads, of processes, of a Dask or Ray cluster, whose machines
    see the same paths); without one they are converted here, one after another. `target_format`: the name of the format
    of all targets, this format by default; they are called like their sources, with its suffix. `progress(done, total)`
    is told numbers of checkpoints. `options` are those of `ckptfmt.convert`. Outcomes come in the order of the names;
    one that fails does not keep the others from being converted.

    Raises `unknown-format`, `not-found`, `bad-option` for a URL, and `name-collision` where two targets would have one
    name.
    """
    here, there = path_of(source), path_of(target)
    model = options.get("template")
    format = format_of_target("", target_format, None if model is None else format_of(path_of(model)))
    for folder in (here, there):
        if is_url(folder):
            raise fault("bad-option", "folders of checkpoints are converted on disks alone", path=folder)
    pairs = _pairs(here, there, format)
    _make_folder(there)
    asked: dict[str, Any] = {**options, "target_format": format.name}
    asked["base"] = bases_given(options.get("base")) or None
    started = [] if executor is None else [executor.submit(convert, *pair, **asked) for pair in pairs]
    outcomes: list[Outcome] = []
    for number, pair in enumerate(pairs):
        try:
            report = started[number].result() if started else convert(*pair, **asked)
            outcomes.append(Outcome(*pair, report))
        except CkptError as error:
            outcomes.append(Outcome(*pair, error=_bare(error)))
        if progress is not None:
            progress(len(outcomes), len(pairs))
    return tuple(outcomes)


def _bare(error: CkptError) -> CkptError:
    """An error as it was raised: Ray gives one that is of its own class, too, and has that as its cause."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, CkptError) else error


def _make_folder(path: str) -> None:
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise os_fault(error, "cannot make the folder of targets", path) from error


def _pairs(source: str, target: str, format: Format) -> list[tuple[str, str]]:
    """Paths of sources and targets."""
    try:
        names = sorted(name for name in os.listdir(source) if not name.startswith("."))
    except OSError as error:
        raise os_fault(error, "cannot list the folder of sources", source) from error
    suffix = format.suffixes[0]
    pairs: list[tuple[str, str]] = []
    taken: dict[str, str] = {}  # names of targets, and those of their sources
    for name in names:
        if index_of(name) in names:  # which is one checkpoint with the files that it names
            continue
        path = os.path.join(source, name)
        try:
            found = FORMATS[place_of(path).format]
        except CkptError as error:
            if error.code != "unknown-format":
                pairs.append((path, os.path.join(target, name)))  # converting it says what is wrong
            continue
        stem = next((name[: -len(s)] for s in _suffixes(found) if name.lower().endswith(s) and name != s), name)
        made = stem + suffix
        if made in taken:
            message = f"{name!r} and {taken[made]!r} would both become {made!r}"
            raise fault("name-collision", message, path=source, advice="Rename one of them")
        taken[made] = name
        pairs.append((path, os.path.join(target, made)))
    return pairs


def _suffixes(format: Format) -> tuple[str, ...]:
    """Suffixes that a checkpoint of a format may have; directories often have those of files."""
    return format.suffixes or tuple(suffix for other in FORMATS.values() for suffix in other.suffixes)
