"""NumPy's .npy, and files of several such records in a row, as Equinox writes the leaves of a model (.eqx).

The tree of one record is its array, that of several a list. Before them there may be a line of JSON, as Equinox's
documents put the hyperparameters of a model there.
"""

from __future__ import annotations

from ...errors import fault
from ...format.dtypes import Array
from ...format.names import path_label
from ...format.tree import Tree
from ..claims import json_document
from ..npy_records import MAGIC, record_at
from ..probe import Probe
from ..source import LEAVES, OpenedSource, mapped_file

LINE = 1 << 20  # most bytes of a line of JSON
HYPERPARAMETERS = "equinox.hyperparameters"  # metadata: that line


def looks_like(probe: Probe) -> bool:
    if probe.is_directory or not probe.head.startswith(b"{"):
        return probe.head.startswith(MAGIC)
    line, end, after = probe.head.partition(b"\n")
    if not end:
        line, end, after = probe.read(0, LINE + len(MAGIC)).partition(b"\n")
    return after.startswith(MAGIC) or (bool(end) and probe.read(len(line) + 1, len(MAGIC)) == MAGIC)


def read(path: str) -> OpenedSource:
    data = mapped_file(path)
    metadata, at = _line(data)
    found: list[Tree] = []
    while at < data.size:
        if len(found) == LEAVES:
            raise fault("limit-exceeded", f"more than {LEAVES:,} arrays")
        number = len(found)
        array, at = record_at(data, at, f"array {number}", path_label((number,)) if number else "")
        found.append(array.tolist() if array.dtype.kind in "SU" else array)
    if not found:
        raise ValueError("there is no array in the file")
    return OpenedSource(found[0] if len(found) == 1 else found, metadata)


def _line(data: Array) -> tuple[Tree, int]:
    """What the line of JSON before the records says, and where it ends."""
    if bytes(data[:1]) != b"{":
        return None, 0
    line, end, _ = bytes(data[: LINE + 1]).partition(b"\n")
    if not end:
        raise fault("limit-exceeded", f"a line of more than {LINE:,} bytes before the arrays")
    return {HYPERPARAMETERS: json_document(line)}, len(line) + 1
