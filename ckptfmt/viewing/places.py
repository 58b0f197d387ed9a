"""What is looked at: checkpoints by number, each at a place that was given or found in the folder that was given.

Nothing else can be asked for. Of a directory only the objects that checkpoints have, by their names, and no link is
followed on the way to one.
"""

from __future__ import annotations

import os
import re
import shlex
import threading
from math import isfinite
from typing import Any

from ..conversion import FORMATS
from ..conversion.opening import place_of
from ..conversion.table import OWN
from ..errors import CkptError, fault
from ..manager.listing import CheckpointRow, by_step, listed, step_in
from ..storage import COMMIT, MANIFEST, Options, Storage, is_url, path_of, storage_for

SHOWN = (OWN, "safetensors", "gguf")  # formats that the page reads
_OBJECT = re.compile(
    r"COMMIT|manifest\.msgpack|pages\.bin|(?:packs|parts|tensors)(?:/[A-Za-z0-9_.~-]+)+", re.ASCII
).fullmatch
_PERIODS = re.compile(r"(?:^|/)\.+(?:/|$)").search  # what a segment may not be


class ViewedPlace:
    """One checkpoint that can be asked for. It is opened when it is first asked for, and again once another has taken
    its name."""

    def __init__(self, path: str, *, follow_links: bool = False, options: Options | None = None) -> None:
        self.path, self._follow_links, self._options = path, follow_links, options
        self._storage: Storage | None = None
        self._lock = threading.Lock()

    def storage(self) -> Storage:
        """Where it lies; raises `not-found` and what else keeps it from being opened."""
        with self._lock:
            if self._storage is not None and not self._storage.is_remote and self._storage.was_replaced():
                self._storage.close()
                self._storage = None
            if self._storage is None:
                self._storage = storage_for(self.path, self._options, follow_links=self._follow_links)
            return self._storage

    def forget(self) -> bool:
        """Whether another checkpoint has taken its name, which is opened in its place the next time."""
        with self._lock:
            was_replaced = self._storage is not None and self._storage.was_replaced()
            if was_replaced:
                self._storage = None
            return was_replaced


def is_object(name: str) -> bool:
    """Whether a checkpoint in a directory may have an object of this name. [CHK-007]"""
    return _OBJECT(name) is not None and _PERIODS(name) is None


class ViewedPlaces:
    """Everything that can be asked for, by number: the checkpoint at `path`, or those of the folder there."""

    def __init__(self, path: str, place: ViewedPlace | None) -> None:
        self.path, self.is_folder = path, place is None
        self._places = [] if place is None else [place]
        self._lock = threading.Lock()

    def at(self, number: int) -> ViewedPlace | None:
        return self._places[number] if number < len(self._places) else None

    def number_of(self, path: str) -> int:
        """The number of a checkpoint of the folder, the same for as long as the server runs."""
        with self._lock:
            for number, place in enumerate(self._places):
                if place.path == path:
                    return number
            self._places.append(ViewedPlace(path))
            return len(self._places) - 1

    def index(self) -> dict[str, Any]:
        """What there is, as the page gets it: a new look at the folder."""
        if not self.is_folder:
            return {"path": self.path, "folder": False, "checkpoints": [_row_of(self.path, 0)]}
        rows = sorted(listed(self.path), key=by_step)
        return {"path": self.path, "folder": True, "checkpoints": [self._row(row) for row in rows]}

    def _row(self, row: CheckpointRow) -> dict[str, Any]:
        is_shown = row.format in SHOWN or (row.format is None and row.error is not None)
        return {
            "name": row.name,
            "format": row.format or OWN,
            "step": row.step if type(row.step) is int else None,
            "time": row.time,
            "size": row.size,
            "metrics": {name: value if isfinite(value) else str(value) for name, value in row.metrics.items()},
            "error": row.error,
            "kept": list(row.reasons),
            "directory": os.path.isdir(row.path),
            "at": f"at/{self.number_of(row.path)}" if is_shown else None,
            "advice": None if is_shown else convert_advice(row.path),
        }


def _row_of(path: str, number: int) -> dict[str, Any]:
    """The one checkpoint that was given."""
    name = os.path.basename(path.rstrip("/")) or path
    is_directory = os.path.isdir(path)
    facts: dict[str, Any] = {"name": name, "format": None, "step": step_in(name), "time": None, "size": None}
    more: dict[str, Any] = {
        "metrics": {},
        "error": None,
        "kept": [],
        "directory": is_directory,
        "at": f"at/{number}",
        "advice": None,
    }
    return facts | more


def convert_advice(path: str) -> str:
    """The command that makes something that can be looked at."""
    return f"ckptfmt convert {shlex.quote(path)} {shlex.quote(os.path.basename(path.rstrip('/')) + '.ckpt')}"


def places_at(
    path: str | os.PathLike[str], *, follow_links: bool = False, storage_options: Options | None = None
) -> ViewedPlaces:
    """What is at a path or a URL: a checkpoint, or the folder of some. Raises `not-found`, `temporary`, and
    `unsupported-source` for a format that the page does not read."""
    name = path_of(path)
    is_folder = not is_url(name) and os.path.isdir(name) and not _is_checkpoint(name)
    place = ViewedPlace(name, follow_links=follow_links, options=storage_options)
    if not is_folder:
        place.storage()  # raises where there is nothing
        if not is_url(name) and not os.path.isdir(name):
            _check_format(name)
        return ViewedPlaces(name, place)
    return ViewedPlaces(name, None)


def _is_checkpoint(folder: str) -> bool:
    return any(os.path.lexists(os.path.join(folder, name)) for name in (COMMIT, MANIFEST))


def _check_format(path: str) -> None:
    """Refuse a file of a format that the page does not read, and leave what none knows to the page, which says what is
    wrong with it."""
    try:
        format = place_of(path).format
    except CkptError:
        return
    if format not in SHOWN:
        title = FORMATS[format].title
        message = f"this is {title}; the page reads {', '.join(SHOWN)}"
        raise fault("unsupported-source", message, path=path, advice=f"Convert it: {convert_advice(path)}")
