"""The earlier checkpoint with which a save shares what has not changed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..errors import fault
from ..layouts.sharing import Base
from ..reading.checkpoint import StoredCheckpoint
from ..storage import options_at, path_of


def layout_asked(layout: str | None) -> str | None:
    """Refuse a layout in which nothing can be shared; raises `bad-option`."""
    if layout == "file":
        advice = "Leave layout= out, or name one of these"
        message = "what is shared are whole objects, of which a file is one"
        raise fault("bad-option", message, found="layout='file'", expected="'packed' or 'loose'", advice=advice)
    return layout


@contextmanager
def opened_base(path: str | os.PathLike[str], options: Mapping[str, Any] | None) -> Iterator[Base]:
    """The checkpoint at `path`, while the block runs; raises what opening it raises."""
    name = path_of(path)
    with StoredCheckpoint(name, storage_options=options_at(name, options)) as checkpoint:
        yield Base(checkpoint.blocks.storage, checkpoint.blocks.index, checkpoint.located.record.sha256)
