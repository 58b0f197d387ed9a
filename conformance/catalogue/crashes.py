"""Crash states: what a reader may find after a power loss, at every moment of a recorded commit. SPEC.md section 11."""

from __future__ import annotations

import json
from typing import Any

from ..build import Checkpoint
from ..cases import flatten
from ..model import tensor
from ..pages import Paging
from . import plain

OLD, NEW = {"step": 1, "w": tensor("int16", (4,), "old")}, {"step": 2, "w": tensor("int16", (4,), "new")}
TARGET, TEMPORARY = "model.ckpt", ".model.ckpt.00.ckptfmt-tmp"


def trace(layout: str, *, replaces: bool, flushed: bool = True, new: Any = NEW, paged: Paging | None = None) -> str:
    """A commit of `new` as PUB-002 wants it; without `flushed` as it does not."""
    files = flatten(Checkpoint(new, layout=layout, paged=paged).build())
    before = flatten(Checkpoint(OLD, layout=layout).build()) if replaces else None
    old = None if before is None else {name: data.hex() for name, data in before.items()}
    lines: list[dict[str, Any]] = [{"target": TARGET, "before": old}]
    folders = sorted(
        {"/".join([TEMPORARY, *name.split("/")[:i]]) for name in files for i in range(name.count("/") + 1)}
    )
    lines += [{"call": "mkdir", "path": folder} for folder in folders if layout != "file"]
    for name, data in files.items():
        path = f"{TEMPORARY}/{name}" if name else TEMPORARY
        lines.append({"call": "create", "path": path})
        for start in range(0, len(data), 512):
            lines.append({"call": "write", "path": path, "offset": start, "hex": data[start : start + 512].hex()})
        lines += [{"call": "flush", "path": path}] * flushed
    if layout != "file":
        lines += [{"call": "flush", "path": folder} for folder in reversed(folders)] * flushed
    if replaces:
        lines.append({"call": "rename" if layout == "file" else "exchange", "path": TEMPORARY, "to": TARGET})
    elif layout == "file":
        lines.append({"call": "link", "path": TEMPORARY, "to": TARGET})
    else:
        lines.append({"call": "rename", "path": TEMPORARY, "to": TARGET})
    lines.append({"call": "flush", "path": "."})
    return "".join(json.dumps(line) + "\n" for line in lines)


_TREES = {"previous": Checkpoint(OLD).values()[0], "new": Checkpoint(NEW).values()[0]}
for _layout in ("file", "loose"):
    for _replaces in (False, True):
        _kind = "replacing" if _replaces else "exclusive"
        plain(
            f"crash-{_kind}-{_layout}",
            f"A power loss at any moment of a {_kind} commit in layout {_layout}: nothing, the old or the new, whole.",
            "PUB-002 PUB-004 COM-005" if _replaces else "PUB-002 PUB-003 COM-005",
            None,
            {"op": "states", "trace": "trace.jsonl"},
            {
                "states": ["previous", "new"] if _replaces else ["absent", "new"],
                "absent": ["not-found"],
                "trees": _TREES if _replaces else {"new": _TREES["new"]},
            },
            needs=("reader", f"layout:{_layout}", "digest:sha256"),
            others={"trace.jsonl": trace(_layout, replaces=_replaces)},
        )
    plain(
        f"crash-unflushed-{_layout}",
        f"A writer that does not flush, in layout {_layout}: what is torn or cut off is refused, and never given.",
        "COM-004 COM-005 COM-003 BLK-004",
        None,
        {"op": "states", "trace": "trace.jsonl"},
        {
            "states": ["absent", "new"],
            "absent": [
                *("not-found", "not-a-checkpoint", "truncated", "bad-record", "manifest-digest"),
                *("missing-object", "short-object", "block-digest", "bad-manifest", "bad-extent"),
            ],
            "trees": {"new": _TREES["new"]},
        },
        needs=("reader", f"layout:{_layout}", "digest:sha256"),
        others={"trace.jsonl": trace(_layout, replaces=False, flushed=False)},
    )
