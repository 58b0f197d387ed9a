"""Archives of tar, also NeMo's (.nemo): the one checkpoint that lies in them.

The only file that looks like weights is read where it lies in the archive. Else everything is unpacked into a temporary
folder, of which the checkpoint is taken as of any folder.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from typing import NamedTuple

from ...errors import CkptError, fault
from ...format.dtypes import Array
from ..archive import PIECE, Window
from ..claims import shown
from ..entries import FilePart, reading_part
from ..folders import FORMS
from ..opening import open_inner
from ..probe import Probe
from ..source import OpenedSource, cut_off, mapped_file
from ..unpacking import told_of, unpacking

MEMBERS = 1 << 16
MAGIC, AT = b"ustar", 257
# what is read from mapped bytes alone
IN_PLACE = {"safetensors", "torchscript", "torch-export", "stable-baselines3", "torch", "pickle", "skops"}
IN_PLACE |= {"npz", "npy", "flax"}
CONFIGURATION = "model_config.yaml"  # of NeMo
TEXT = 1 << 20  # most bytes of it


class TarMember(NamedTuple):
    """A file in an archive."""

    name: str
    offset: int
    size: int


def looks_like(probe: Probe) -> bool:
    return probe.head[AT : AT + len(MAGIC)] == MAGIC


def read(path: str) -> OpenedSource:
    data = mapped_file(path)
    members = {member.name: member for member in _members(data)}
    weights = [name for name in members if name.endswith(FORMS)]
    source = None
    if len(weights) == 1:
        source = _in_place(path, members[weights[0]], tuple(name for name in members if name != weights[0]))
    if source is None:
        source = _unpacked(path, data, members)
    if (about := members.get(CONFIGURATION)) is not None and about.size <= TEXT:
        text = data[about.offset : about.offset + about.size].tobytes().decode("utf-8")
        source.metadata = {**(source.metadata or {}), "nemo.model_config": text}
    return source


def _members(data: Array) -> Iterator[TarMember]:
    """The files of an archive. Raises `unsafe-source` for what is neither a file nor a folder, and for names that lead
    out of it."""
    seen: set[str] = set()
    with tarfile.open(fileobj=Window(data), mode="r:", errorlevel=2) as archive:
        before = -1
        while (found := archive.next()) is not None:
            name = os.path.normpath(found.name)
            vars(archive)["members"] = []  # which it would keep
            if found.offset <= before or len(seen) == MEMBERS:
                raise fault("limit-exceeded", f"the archive goes in circles, or has more than {MEMBERS:,} members")
            before = found.offset
            if os.path.isabs(found.name) or ".." in found.name.split("/") or "\0" in found.name:
                raise fault("unsafe-source", f"the archive has the name {shown(found.name)}, which leads out of it")
            if found.isdir():
                continue
            if not found.isreg() or found.issparse():
                what = "a link" if found.islnk() or found.issym() else "neither a file nor a folder"
                raise fault("unsafe-source", f"{shown(name)} in the archive is {what}")
            if name in seen:
                raise ValueError(f"{shown(name)} stands twice in the archive")
            seen.add(name)
            end = found.offset_data + found.size
            if end > data.size:
                raise cut_off(data.size, end, or_more=True)
            yield TarMember(name, found.offset_data, found.size)


def _in_place(path: str, member: TarMember, others: tuple[str, ...]) -> OpenedSource | None:
    """The member where it lies; None if it is of no format that can be read so."""
    with reading_part(FilePart(path, member.offset, member.size)):
        try:
            source = open_inner(path, IN_PLACE)
        except CkptError as error:
            if error.code == "unknown-format":
                return None
            error.message = f"in {member.name!r} of it: {error.message}"
            raise
    source.place = source.place._replace(passed_over=others)
    return source


def _unpacked(path: str, data: Array, members: dict[str, TarMember]) -> OpenedSource:
    with unpacking(data.size) as unpacked, told_of(path, unpacked.folder):
        for name, member in members.items():
            unpacked.write(name, _pieces(data, member))
        return unpacked.kept(open_inner(unpacked.folder))


def _pieces(data: Array, member: TarMember) -> Iterator[bytes]:
    end = member.offset + member.size
    for at in range(member.offset, end, PIECE):
        yield data[at : min(at + PIECE, end)].tobytes()
