"""Patches that break section 7.4 of SPEC.md, bases that are missing, others or damaged."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

from ..build import Checkpoint
from ..model import tensor
from ..patching import SAME, XOR
from . import chunk, edit, fault, msgpack, remove, valid, value_of, verified
from .patches import BASE, MADE, OF_BASE, PATCH, RESULT, read

OPEN = {"op": "open", "bases": ["patch-base"]}
FORMS = bytes(MADE[name].form if name in MADE else 0 for name in RESULT if name != "step")
SOURCES = [list(BASE).index(MADE[name].source) if name in MADE else 0xFFFFFFFF for name in RESULT if name != "step"]
AT = [name for name in RESULT if name != "step"].index


def sources(**changed: int) -> str:
    """The column `source` with other numbers, as the recipes have it."""
    found = list(SOURCES)
    for name, number in changed.items():
        found[AT(name)] = number
    return msgpack(struct.pack(f"<{len(found)}I", *found))


def forms(**changed: int) -> bytes:
    found = bytearray(FORMS)
    for name, form in changed.items():
        found[AT(name)] = form
    return bytes(found)


def wrong(identity: str, title: str, spec: str, steps: list[dict[str, Any]], codes: str = "bad-manifest") -> None:
    fault(f"patch-{identity}", title, spec, "patch-read", steps, codes, OPEN)


def column(pointer: str, item: str) -> list[dict[str, Any]]:
    return [{"do": "edit_manifest", "pointer": pointer, "msgpack": item}, {"do": "reseal"}]


# ---- what the manifest shows by itself

wrong("key-missing", "No key `patch`.", "PATCH-001", remove("/patch"))
wrong("key-no-map", "`patch` is no map.", "PATCH-001", edit("/patch", [1]))
for _key in ("base", "result", "generator", "form", "source"):
    wrong(f"{_key}-missing", f"`patch` without `{_key}`.", "PATCH-001", remove(f"/patch/{_key}"))
wrong("base-short", "A `base` of 31 bytes.", "PATCH-001", edit("/patch/base", bytes(31)))
wrong("base-text", "A `base` that is a text.", "PATCH-001", edit("/patch/base", "0" * 64))
wrong("result-long", "A `result` of 33 bytes.", "PATCH-001", edit("/patch/result", bytes(33)))
wrong("generator-number", "A `generator` that is a number.", "PATCH-001", edit("/patch/generator", 1))
wrong("requires-pages", "A patch that is paged, too.", "PATCH-001", edit("/requires", ["patch", "pages"]))
wrong(
    "requires-pages-first", "A paged manifest that is a patch, too.", "PATCH-001", edit("/requires", ["pages", "patch"])
)
wrong(
    "requires-unknown",
    "A patch that requires what nobody knows.",
    "MAN-006 PATCH-001",
    edit("/requires", ["patch", "no-such-feature"]),
    "unknown-feature",
)
wrong(
    "version",
    "A patch of version 1.0.",
    "PATCH-001",
    [
        {"do": "edit_manifest", "pointer": "/format", "msgpack": msgpack([1, 0])},
        {"do": "reseal", "version": "1.0"},
    ],
)
wrong("form-short", "One form too few.", "PATCH-002", edit("/patch/form", FORMS[:-1]))
wrong("source-short", "One source too few.", "PATCH-002", edit("/patch/source", bytes(4 * len(FORMS) - 4)))
wrong("source-odd", "Sources that end in the middle.", "PATCH-002", edit("/patch/source", bytes(4 * len(FORMS) - 1)))
wrong("form-3", "A form that there is not.", "PATCH-002", edit("/patch/form", forms(w=3)))
wrong("whole-with-source", "A whole tensor with a source.", "PATCH-002", column("/patch/source", sources(whole=0)))
wrong("xor-without-source", "Differences of nothing.", "PATCH-002", column("/patch/source", sources(w=0xFFFFFFFF)))
wrong("same-without-source", "The same as nothing.", "PATCH-002", column("/patch/source", sources(kept=0xFFFFFFFF)))
wrong("same-codec", "A tensor that is the same, and compressed.", "PATCH-003", edit(f"/tensors/codec/{AT('kept')}", 0))
wrong("same-grid", "A tensor that is the same, in two chunks.", "PATCH-003", edit(f"/tensors/grid/{AT('kept')}", [3]))
wrong("same-chunk", "A chunk of a tensor that is the same.", "PATCH-003 CHK-002", edit("/patch/form", forms(w=SAME)))
wrong("xor-no-chunk", "No chunk of differences.", "PATCH-003 CHK-002", column("/patch/form", msgpack(forms(kept=XOR))))
fault(
    "patch-loose",
    "A manifest of layout loose that requires `patch`.",
    "PATCH-001",
    "tree-base-loose",
    [
        {"do": "edit_manifest", "pointer": "/format", "msgpack": msgpack([1, 1])},
        {"do": "edit_manifest", "pointer": "/requires", "msgpack": msgpack(["patch"])},
        {"do": "reseal", "version": "1.1"},
    ],
    "bad-manifest",
    needs=("patch",),
)

# ---- the base

for _name in ("w", "kept", "grid", "q"):
    fault(
        f"patch-missing-base-{_name}",
        f"Without a base, {_name} cannot be read.",
        "PATCH-004",
        "patch-read",
        [],
        "missing-base",
        {"op": "read", "path": [_name]},
        still=[["whole"], ["step"]],
    )
fault(
    "patch-wrong-base",
    "Another checkpoint for the base.",
    "PATCH-004",
    "patch-read",
    [],
    "wrong-base",
    {"op": "open", "bases": ["patch-dtypes-base"]},
)
fault(
    "patch-wrong-base-itself",
    "The patch itself for its base.",
    "PATCH-004",
    "patch-read",
    [],
    "wrong-base",
    {"op": "open", "bases": ["patch-read"]},
)
valid(
    "patch-base-again",
    "The tree of the base, saved with other metadata: not the base.",
    "TREE-001 READ-003",
    replace(OF_BASE, metadata={"again": True}),
)
fault(
    "patch-wrong-base-again",
    "A checkpoint with the tree of the base, but another manifest.",
    "PATCH-004",
    "patch-read",
    [],
    "wrong-base",
    {"op": "open", "bases": ["patch-base-again"]},
)
for _title, _identity, _changed in (
    ("that the base does not have", "beyond", {"w": len(BASE)}),
    ("whose number is that of the base's tensors", "count", {"w": len(BASE) - 1}),  # of which "step" is none
    ("of another dtype", "dtype", {"w": list(BASE).index("old")}),
    ("of another shape", "shape", {"grid": list(BASE).index("old")}),
    ("of another dtype that is as wide", "width", {"new": list(BASE).index("w")}),
    ("of another dtype, the same", "same-dtype", {"kept": list(BASE).index("flags")}),
):
    fault(
        f"patch-source-{_identity}",
        f"A source {_title}.",
        "PATCH-005",
        "patch-read",
        column("/patch/source", sources(**_changed)),
        "bad-manifest",
        OPEN,
    )
    fault(
        f"patch-source-{_identity}-alone",
        f"A source {_title}, which without the base nobody sees.",
        "PATCH-005 PATCH-004",
        "patch-read",
        column("/patch/source", sources(**_changed)),
        {"value": value_of({"x": RESULT["whole"]})["items"][0][1]},
        {"op": "read", "path": ["whole"]},
    )
fault(
    "patch-base-damaged-manifest",
    "A base whose manifest is damaged.",
    "COM-003",
    "patch-base",
    [{"do": "flip_bit", "at": {"region": "manifest", "offset": 40}, "bit": 0}],
    "manifest-digest",
)
fault(
    "patch-of-damaged-manifest",
    "A patch whose base has a damaged manifest.",
    "PATCH-004 COM-003",
    "patch-read",
    [],
    "manifest-digest",
    {"op": "open", "bases": ["patch-base-damaged-manifest"]},
)
fault(
    "patch-base-damaged",
    "A base of which a tensor is damaged.",
    "BLK-004",
    "patch-base",
    [{"do": "flip_bit", "at": chunk(["w"], 0, 5), "bit": 3}],
    {"error": {"any_of": ["block-digest"], "tensor": "w", "chunk": 0, "block": 0}},
    read(["w"]) | {"bases": []},
)
for _name, _path, _readable in (("w", ["w"], [["kept"], ["grid"], ["whole"]]),):
    fault(
        f"patch-of-damaged-{_name}",
        "A patch whose base is damaged where differences need it.",
        "PATCH-007 PATCH-008 BLK-004",
        "patch-read",
        [],
        {"error": {"any_of": ["block-digest"], "tensor": "w", "chunk": 0, "block": 0}},
        read(_path, "patch-base-damaged"),
        still=_readable,
    )
fault(
    "patch-damaged",
    "Differences that are damaged.",
    "PATCH-007 PATCH-008 BLK-004",
    "patch-read",
    [{"do": "flip_bit", "at": chunk(["large"], 1, 30), "bit": 3}],
    {"error": {"any_of": ["block-digest"], "tensor": "large", "chunk": 1, "block": 0}},
    read(["large"], "patch-base"),
    still=[["kept"], ["w"], ["grid"]],
)
fault(
    "patch-bool-beyond",
    "A bool that is neither 0 nor 1 once it is put together.",
    "PATCH-006 DTYPE-005",
    "patch-read",
    [{"do": "flip_bit", "at": chunk(["flags"], 0, 16), "bit": 5}, {"do": "reseal", "digests": True}],
    "bad-chunk",
    read(["flags"], "patch-base"),
    still=[["w"]],
)
valid(
    "patch-verify",
    "A whole verification of a patch.",
    "PATCH-016 BLK-007",
    PATCH,
    {"op": "verify"},
    {"damage": []},
    needs=("verify",),
)
verified(
    "patch-verify-damaged",
    "A whole verification finds damaged differences.",
    "PATCH-016 BLK-007",
    "patch-read",
    [{"do": "flip_bit", "at": chunk(["w"], 0, 30), "bit": 3}],
    {"code": "block-digest", "tensor": "w", "chunk": 0, "block": 0},
    lacks=("reader",),
)
_OTHER = Checkpoint({"x": tensor("int8", (4,), "x")})
valid("patch-chain-other", "A base that is none of the chain.", "TREE-001 READ-003", _OTHER)
fault(
    "patch-chain-broken",
    "A chain without its first link.",
    "PATCH-009 PATCH-004",
    "patch-chain-2",
    [],
    "wrong-base",
    {"op": "open", "bases": ["patch-chain-1", "patch-chain-other"]},
)
