"""ZIP archives of Stable-Baselines3: files of `torch.save`, and JSON, in which pickles stand as text and stay that."""

from __future__ import annotations

from typing import Any

from ..archive import Archive
from ..claims import json_document
from ..probe import Probe
from ..source import OpenedSource, mapped_file
from ..torch_archive import Together, read_archive
from ..torch_pickle import LEFT

DATA, SUFFIX = "data", ".pth"
_NAME = "stable_baselines3"
# what else an archive says, by its key in the metadata
_TEXTS = {f"{_NAME}.version": f"_{_NAME}_version", f"{_NAME}.system_info": "system_info.txt"}


def looks_like(probe: Probe) -> bool:
    if not probe.head.startswith(b"PK\3\4"):
        return False
    members = Archive(mapped_file(probe.path)).members
    return DATA in members and any(name.endswith(SUFFIX) and "/" not in name for name in members)


def read(path: str) -> OpenedSource:
    """A tree with the value of each file of torch under its name."""
    archive = Archive(mapped_file(path))
    together = Together()
    tree: dict[str, Any] = {}
    for member in archive.members:
        if member.endswith(SUFFIX):
            name = member.removesuffix(SUFFIX)
            value = together.add(read_archive(archive.stored(member), (name,)))
            if value is not LEFT:
                tree[name] = value
    if not tree:
        raise ValueError(f"the archive has no {SUFFIX} files with weights")
    together.metadata |= {key: together.text(archive, name) for key, name in _TEXTS.items() if name in archive.members}
    if DATA in archive.members and (text := together.text(archive, DATA)) is not None:
        together.metadata[f"{_NAME}.data"] = json_document(text.encode() if isinstance(text, str) else text)
    return together.source(tree)
