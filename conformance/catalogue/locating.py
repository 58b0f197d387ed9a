"""What is at a path: checkpoints, things that are none, and links. SPEC.md sections 8, 10, 11 and 17."""

from __future__ import annotations

from typing import Any

from ..build import Checkpoint, sealed
from ..model import tensor
from . import fault, plain, valid, verified

OPEN = {"op": "open"}


def nothing(
    identity: str, title: str, spec: str, disk: list[dict[str, Any]], codes: str, name: str = "input.ckpt"
) -> None:
    """Something on the disk that is no checkpoint."""
    source: dict[str, Any] = {"generated": True, "disk": disk, "name": name}
    plain(identity, title, spec, source, OPEN, {"error": {"any_of": codes.split()}})


def file(data: bytes, at: str = "") -> dict[str, Any]:
    return {"kind": "file", "at": at, "hex": data.hex()}


nothing("locate-nothing", "Nothing at the path.", "ERR-001", [], "not-found")
nothing("locate-empty-file", "An empty file.", "COM-004 COM-005", [file(b"")], "not-a-checkpoint")
nothing("locate-text", "A text file.", "COM-004 COM-005", [file(b"hello\n" * 100)], "not-a-checkpoint")
nothing("locate-one-byte", "A file of one byte.", "COM-004", [file(b"P")], "not-a-checkpoint")
nothing(
    "locate-other-zip",
    "A ZIP of another kind.",
    "COM-004",
    [file(b"PK\3\4" + bytes(22) + b"\5\0\0\0a.npy" + bytes(300))],
    "not-a-checkpoint",
)
nothing(
    "locate-empty-directory",
    "An empty directory.",
    "COM-004 LAY-002",
    [{"kind": "directory", "at": ""}],
    "not-a-checkpoint",
)
nothing(
    "locate-directory-without-commit",
    "A directory with a manifest and without a COMMIT.",
    "COM-004 COM-005 LAY-002",
    [file(b"\x80", "manifest.msgpack"), file(b"{}", "tensors/zarr.json")],
    "not-a-checkpoint",
)
nothing(
    "locate-pipe",
    "A pipe: refused at once, without waiting for a writer.",
    "COM-004",
    [{"kind": "pipe", "at": ""}],
    "not-a-checkpoint",
)
nothing(
    "locate-temporary-name",
    "A name that ends as those of temporaries do.",
    "PUB-021",
    [file(b"anything")],
    "temporary",
    ".model.ckpt.0a1b.ckptfmt-tmp",
)
nothing(
    "locate-temporary-directory",
    "A directory of such a name.",
    "PUB-021",
    [{"kind": "directory", "at": ""}],
    "temporary",
    "x.ckptfmt-tmp",
)
nothing(
    "locate-mention-of-name",
    "A text that mentions the name of the format, without a version.",
    "COM-004",
    [file(b"this is about ckptfmt/formats and no checkpoint\n")],
    "not-a-checkpoint",
)
nothing(
    "locate-record-too-early",
    "A record more than 255 bytes before the end.",
    "COM-004 COM-005",
    [file(b"x" * 100 + b"ckptfmt/1.0 file " + b"y" * 300)],
    "not-a-checkpoint",
)
fault(
    "locate-temporary-whole",
    "A whole checkpoint under a temporary's name.",
    "PUB-021",
    "tree-base",
    [],
    "temporary",
    name="model.ckptfmt-tmp",
    generated=True,
)
for _name, _offset, _title in (
    ("before-record", -100, "within the record"),
    ("in-directory", -500, "in the central directory"),
    ("in-manifest", -900, "in the manifest"),
    ("in-documents", 200, "in the node documents"),
    ("after-first-header", 60, "after the first header"),
):
    fault(
        f"truncated-{_name}",
        f"A file that breaks off {_title}.",
        "COM-004 COM-005",
        "tree-base",
        [{"do": "truncate", "at": {"offset": _offset}}],
        "bad-record" if _name == "before-record" else "truncated",
    )
fault(
    "truncated-one-byte",
    "A file without its last byte.",
    "COM-001 COM-005",
    "tree-base",
    [{"do": "truncate", "at": {"offset": -1}}],
    "bad-record",
)
_TAIL = tensor("uint8", (64,), "tail")
_TAIL.data = b"ckptfmt/9.9 file manifest=1+1 ".ljust(64, b"x")
valid(
    "locate-last-record",
    "A metadata string that looks like a record is none: the last one counts.",
    "COM-004",
    Checkpoint({"x": _TAIL, "note": "ckptfmt/9.9 file"}, generator="ckptfmt/9.9 file"),
)
valid(
    "locate-other-objects",
    "Other files beside those of a checkpoint do not matter.",
    "ZARR-001 LAY-002",
    Checkpoint(
        {"x": tensor("int8", (3,))}, layout="loose", foreign=[("notes.txt", b"hello"), ("tensors/other/c/0", b"x")]
    ),
)

# ---- links

valid(
    "link-base",
    "Two tensors in plain files.",
    "LAY-003",
    Checkpoint({"a": tensor("int8", (3,), "a"), "b": tensor("int8", (3,), "b")}, layout="loose"),
)
fault(
    "link-chunk",
    "A chunk that is a symbolic link out of the checkpoint is not followed, also if what it leads to is right.",
    "CHK-007 SEC-003",
    "link-base",
    [{"do": "link_object", "object": "tensors/a/c/0", "target": "outside/0"}],
    {"error": {"any_of": ["linked-object"], "tensor": "a"}},
    {"op": "read", "path": ["a"]},
    generated=True,
    still=[["b"]],
)
fault(
    "link-directory",
    "A directory of chunks that is a symbolic link.",
    "CHK-007 SEC-003",
    "link-base",
    [{"do": "link_object", "object": "tensors/a", "target": "outside"}],
    {"error": {"any_of": ["linked-object"], "tensor": "a"}},
    {"op": "read", "path": ["a"]},
    generated=True,
    still=[["b"]],
)
fault(
    "link-manifest",
    "A manifest that is a symbolic link.",
    "CHK-007 SEC-003",
    "link-base",
    [{"do": "link_object", "object": "manifest.msgpack", "target": "outside/manifest"}],
    "linked-object",
    generated=True,
)
fault(
    "link-commit",
    "A COMMIT that is a symbolic link.",
    "CHK-007 SEC-003",
    "link-base",
    [{"do": "link_object", "object": "COMMIT", "target": "outside/COMMIT"}],
    "linked-object",
    generated=True,
)
verified(
    "link-verify",
    "A whole verification reports a linked chunk.",
    "CHK-007 BLK-007",
    "link-base",
    [{"do": "link_object", "object": "tensors/a/c/0", "target": "outside/0"}],
    {"code": "linked-object", "tensor": "a"},
    generated=True,
)

verified(
    "link-verify-node-document",
    "A whole verification reports a linked node document, also if what it leads to is right.",
    "CHK-007 BLK-007 FRM-002",
    "link-base",
    [{"do": "link_object", "object": "tensors/a/zarr.json", "target": "outside/zarr.json"}],
    {"code": "linked-object"},
    generated=True,
)

# ---- limits

_HUGE = sealed(f"ckptfmt/1.0 file manifest=64+{2 << 30} sha256={'0' * 64} frame={'0' * 64} ".encode())
plain(
    "limit-manifest",
    "A manifest of 2 GiB is refused before it is read.",
    "LIM-001 LIM-003",
    {
        "generated": True,
        "disk": [{"kind": "sparse", "at": "", "head": b"PK\3\4".hex(), "size": (2 << 30) + 4096, "tail": _HUGE.hex()}],
    },
    OPEN,
    {"error": {"any_of": ["limit-exceeded"]}, "budget": {"bytes": 64 << 20}},
    needs=("reader", "layout:file", "sparse"),
    large=True,
)
