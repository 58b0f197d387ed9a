"""Folders where one checkpoint is wanted: what lies in them, and the commands that see it."""

from __future__ import annotations

import os
import shlex
from itertools import islice

import click

from ..conversion.opening import NO_CHECKPOINT
from ..errors import CkptError
from ..storage import is_url
from .text import count

LOOKED_AT = 1000  # most files that a hint costs


def is_folder(path: str, error: CkptError) -> bool:
    """Whether an error says that there is no one checkpoint at a path, which may be a folder of some."""
    return error.code in NO_CHECKPOINT and (is_url(path) or os.path.isdir(path))


def hinted(error: CkptError, command: click.Command | None) -> CkptError:
    """The error of a command, with what lies in the folder that it is about."""
    path = error.path
    if path is not None and not error.hint and not is_url(path) and is_folder(path, error):
        error.hint = _hint(path, command is not None and any(option.name == "recursive" for option in command.params))
    return error


def _hint(folder: str, goes_below: bool) -> str:
    quoted = shlex.quote(folder)
    if here := _number_of_ours(folder, recursive=False):
        return f"; it is a folder with {count(here, 'checkpoint')}: `ckptfmt ls {quoted}` lists them"
    if below := _number_of_ours(folder, recursive=True):
        advice = "-r looks there" if goes_below else f"`ckptfmt ls -r {quoted}` lists them"
        return f"; {count(below, 'checkpoint')} in the folders below it: {advice}"
    return ""


def _number_of_ours(folder: str, *, recursive: bool) -> int:
    """How many checkpoints are among the first files of a folder."""
    from ..conversion.formats import own
    from ..conversion.probe import Probe
    from ..maintenance.candidates import candidates_in

    number = 0
    try:
        for candidate in islice(candidates_in(folder, recursive=recursive), LOOKED_AT):
            number += own.looks_like(Probe.of(candidate.path))
    except CkptError:  # a hint is no place for another error
        pass
    return number
