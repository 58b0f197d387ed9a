"""Any other source that is compressed as a whole: it is decompressed into a temporary file, and read as what it is."""

from __future__ import annotations

import os

from ..claims import unpacked_by
from ..opening import open_inner
from ..probe import Probe
from ..source import OpenedSource, mapped_file
from ..unpacking import compression_of, decompressed, told_of, unpacking

SUFFIXES = {".tgz": ".tar", ".tbz2": ".tar", ".txz": ".tar"}  # and what such a file is without them
_HEAD = 4096


def looks_like(probe: Probe) -> bool:
    return compression_of(probe.head) is not None


def read(path: str) -> OpenedSource:
    data = mapped_file(path)
    kind = compression_of(data[:_HEAD].tobytes())
    if kind is None:
        raise ValueError("this is compressed in no way that can be read")
    with unpacking(data.size) as unpacked, told_of(path, unpacked.folder):
        stem, suffix = os.path.splitext(os.path.basename(path))
        inner = unpacked.write((stem or "content") + SUFFIXES.get(suffix.lower(), ""), decompressed(data, kind))
        with unpacked_by(unpacked.ratio):
            return unpacked.kept(open_inner(inner))
