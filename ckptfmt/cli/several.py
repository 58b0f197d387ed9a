"""Commands that take several checkpoints, and folders of them: each is looked at by itself, and errors come last."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click

from ..errors import CkptError, CorruptError
from ..manager.listing import CheckpointRow, listed, natural
from . import DAMAGED, FAILED
from .console import print_json, problem
from .folders import hinted, is_folder
from .spelling import speller


def look_at(
    paths: tuple[str, ...], recursive: bool, look: Callable[[str], dict[str, Any] | None], *, as_json: bool
) -> int:
    """Look at the checkpoint at each path, or at each in the folder there; gives the exit code. With `as_json`, what
    `look` gives is printed: by itself for one checkpoint, else in a list. Raises what is wrong where one path is given.
    """
    found: list[dict[str, Any] | None] = []
    errors: list[CkptError] = []
    is_one = len(paths) == 1
    for path in paths:
        rows: list[CheckpointRow] = []
        try:
            found.append(look(path))
        except CkptError as error:
            rows = listed(path, recursive=recursive) if is_folder(path, error) else []
            if not rows and is_one:
                raise
            errors += [] if rows else [error]
        is_one = is_one and not rows
        for row in sorted(rows, key=lambda row: natural(row.name)):
            try:
                found.append(look(row.path))
            except CkptError as error:
                errors.append(error)
    if as_json:
        head = {"path": paths[0]} if len(paths) == 1 else {"paths": list(paths)}
        print_json(found[0] or {} if is_one else {**head, "checkpoints": found, "errors": documents(errors)})
    tell(errors)
    return DAMAGED if any(isinstance(error, CorruptError) for error in errors) else FAILED if errors else 0


def tell(errors: Iterable[CkptError]) -> None:
    """One line on stderr for each, in the words of the command that runs."""
    command = click.get_current_context().command
    for error in errors:
        problem("error", hinted(error, command).text(speller(command)), "bold red")


def documents(errors: Iterable[CkptError]) -> list[dict[str, Any]]:
    """The same for --json."""
    command = click.get_current_context().command
    spelled = speller(command)
    return [
        {"path": error.path, "code": error.code, "message": spelled(error.message) + hinted(error, command).hint}
        for error in errors
    ]
