"""The manifest: its keys, types and columns; what a reader ignores, and what it refuses. SPEC.md sections 7 and 14."""

from __future__ import annotations

import struct
from typing import Any

from ..build import Checkpoint
from ..model import tensor
from ..packing import Literal, pack
from . import ENTRIES, edit, fault, place, plain, remove, valid

X, Y, Z = tensor("int32", (6,), "x", grid=(4,)), tensor("float32", (2, 2), "y"), tensor("int8", (3,), "z")
TREE = {"x": X, "y": Y, "z": Z}


def _later(document: dict[str, Any]) -> None:
    """What a later minor version may add."""
    document["zz-later"] = {"any": [1, {"thing": None}]}
    document["schema"]["later"] = 1
    document["tensors"]["later"] = [1, 2, 3]
    document["parts"][0]["later"] = b"\0"
    document["parts"][0]["chunks"]["later"] = b"\1"


valid(
    "manifest-base",
    "Three tensors and a schema.",
    "MAN-002 SCH-001 SCH-002",
    Checkpoint(TREE, schema=("llama", "3"), metadata={"a": 1}),
)
valid(
    "manifest-base-loose",
    "The same in plain files.",
    "MAN-002 LAY-002",
    Checkpoint(TREE, schema=("llama", "3"), layout="loose"),
)
valid(
    "manifest-schema",
    "Id and version of the schema are the user's.",
    "SCH-001",
    Checkpoint(TREE, schema=("my/schema ü", "2024-01-01+x")),
    {"op": "list"},
    {"tree": Checkpoint(TREE).values()[0], "schema": {"id": "my/schema ü", "version": "2024-01-01+x"}},
)
valid(
    "manifest-no-schema",
    "A schema is not needed.",
    "SCH-001",
    Checkpoint(TREE),
    {"op": "list"},
    {"tree": Checkpoint(TREE).values()[0], "schema": None},
)
valid(
    "manifest-unknown-keys",
    "Keys that a reader does not know are ignored, in every map.",
    "MAN-003 VER-001",
    Checkpoint(TREE, schema=("a", "1"), edit=_later),
)
valid(
    "manifest-later-minor",
    "A later minor version of a known major is read.",
    "VER-003 VER-001 MAN-003",
    Checkpoint(TREE, version=(1, 7), schema=("a", "1"), edit=_later),
)
valid("manifest-latest-minor", "Minor version 999.", "VER-003 COM-001", Checkpoint(TREE, version=(1, 999)))
valid(
    "manifest-chains-repeated",
    "Codec chains may be listed more than once.",
    "MAN-012",
    Checkpoint(
        TREE,
        edit=lambda document: (
            document["codecs"].append(document["codecs"][0]),
            document["tensors"].update(codec=[1, 0, 1]),
        ),
    ),
)
valid("manifest-blocks-large", "The largest block size.", "BLK-003 BLK-001", Checkpoint(TREE, block=1 << 30))
valid(
    "manifest-blocks-odd",
    "A block size that is no power of two.",
    "BLK-003",
    Checkpoint({"x": tensor("uint8", (30000,), "b")}, block=12288),
)

# ---- the msgpack document

fault(
    "manifest-bytes-after",
    "Bytes after the map.",
    "MAN-001",
    "manifest-base",
    [{"do": "insert", "at": place("directory", 0), "hex": "c0"}, {"do": "reseal"}],
    "bad-manifest",
)
DOCUMENTS: dict[str, tuple[str, Any]] = {
    "array": ("The manifest is an array.", []),
    "nil": ("The manifest is nil.", None),
    "string": ("The manifest is a string.", "manifest"),
    "number": ("The manifest is a number.", 5),
    "empty-map": ("The manifest is an empty map.", {}),
    "nothing-valid": ("The byte 0xC1, which msgpack never uses.", Literal(b"\xc1")),
    "cut-off": ("A map of which half is missing.", Literal(b"\x82\xa6format")),
    "huge-array": ("An array that claims 2³² − 1 items.", Literal(b"\xdd\xff\xff\xff\xff")),
    "huge-map": ("A map that claims 2³² − 1 items.", Literal(b"\xdf\xff\xff\xff\xff")),
    "huge-string": ("A string that claims 4 GiB.", Literal(b"\x81\xdb\xff\xff\xff\xff")),
    "huge-bin": ("A bin that claims 4 GiB.", Literal(b"\x81\xa1a\xc6\xff\xff\xff\xff")),
    "deep": ("Arrays nested 100,000 deep.", Literal(b"\x81\xa1a" + b"\x91" * 100_000 + b"\xc0")),
    "two-items": ("Two maps.", Literal(b"\x80\x80")),
    "int-keys": ("A map with a key that is a number.", Literal(b"\x81\x01\x02")),
}
for _name in ("array", "nil"):
    fault(
        f"manifest-document-{_name}-file",
        f"{DOCUMENTS[_name][0]} In layout file.",
        "MAN-001 ERR-001",
        "manifest-base",
        [{"do": "replace_manifest", "hex": pack(DOCUMENTS[_name][1]).hex()}, {"do": "reseal"}],
        "bad-manifest",
    )
for _name, (_title, _document) in DOCUMENTS.items():
    fault(
        f"manifest-document-{_name}",
        _title,
        "MAN-001 ERR-001" + (" SEC-002 LIM-003" if "huge" in _name or _name == "deep" else ""),
        "manifest-base-loose",
        [{"do": "replace_manifest", "hex": pack(_document).hex()}, {"do": "reseal"}],
        "bad-manifest",
    )

ITEMS: dict[str, tuple[str, str, str, Any]] = {
    "extension": ("An extension type.", "MAN-001", "/tree/2/0", Literal(b"\xd4\x05\x00")),
    "timestamp": ("The extension type of timestamps.", "MAN-001", "/tree/2/0", Literal(b"\xd6\xff\0\0\0\0")),
    "timestamp-generator": (
        "A timestamp where a string is wanted.",
        "MAN-001",
        "/generator",
        Literal(b"\xd6\xff\0\0\0\0"),
    ),
    "repeated-key": ("A map that repeats a key.", "MAN-001", "/schema", Literal(b"\x82\xa2id\xa1a\xa2id\xa1b")),
    "int-key-inside": ("A map with an integer key, inside.", "MAN-001", "/schema", Literal(b"\x81\x01\xa1a")),
    "format-string": ("`format` is a string.", "MAN-002 ERR-003", "/format", "1.0"),
    "format-three": ("`format` has three numbers.", "MAN-002", "/format", [1, 0, 0]),
    "format-bool": ("`format` holds bools.", "MAN-002", "/format", [True, False]),
    "format-other": ("`format` is not that of the commit record.", "MAN-005", "/format", [1, 1]),
    "format-other-major": ("`format` has another major version than the commit record.", "MAN-005", "/format", [2, 0]),
    "layout-number": ("`layout` is a number.", "MAN-002", "/layout", 1),
    "layout-other": ("`layout` is not that of the commit record.", "LAY-006", "/layout", "loose"),
    "layout-unknown": ("An unknown layout.", "LAY-006", "/layout", "striped"),
    "requires-nil": ("`requires` is nil.", "MAN-002", "/requires", None),
    "requires-number": ("`requires` holds a number.", "MAN-002", "/requires", [1]),
    "generator-nil": ("`generator` is nil.", "MAN-002", "/generator", None),
    "digest-number": ("`digest` is a number.", "MAN-002", "/digest", 5),
    "block-string": ("`block` is a string.", "MAN-002", "/block", "4096"),
    "block-bool": ("`block` is a bool.", "MAN-002", "/block", True),
    "block-float": ("`block` is a float.", "MAN-002", "/block", 4096.0),
    "block-0": ("Blocks of 0 bytes.", "BLK-003", "/block", 0),
    "block-4095": ("Blocks of 4095 bytes.", "BLK-003", "/block", 4095),
    "block-6000": ("Blocks of 6000 bytes.", "BLK-003", "/block", 6000),
    "block-negative": ("Blocks of a negative size.", "BLK-003", "/block", -4096),
    "block-beyond": ("Blocks larger than 2³⁰ bytes.", "BLK-003", "/block", (1 << 30) + 4096),
    "schema-string": ("`schema` is a string.", "SCH-001", "/schema", "llama"),
    "schema-id-empty": ("An empty schema id.", "SCH-001", "/schema/id", ""),
    "schema-version-empty": ("An empty schema version.", "SCH-001", "/schema/version", ""),
    "schema-id-number": ("A schema id that is a number.", "SCH-001", "/schema/id", 1),
    "schema-version-number": ("A schema version that is a number.", "SCH-001", "/schema/version", 1),
    "schema-fingerprint": (
        "A fingerprint that is not that of the tensors.",
        "SCH-002",
        "/schema/fingerprint",
        bytes(32),
    ),
    "schema-fingerprint-short": ("A fingerprint of 31 bytes.", "SCH-002", "/schema/fingerprint", bytes(31)),
    "codecs-nil": ("`codecs` is nil.", "MAN-002", "/codecs", None),
    "tensors-array": ("`tensors` is an array.", "MAN-002", "/tensors", []),
    "names-short": ("Fewer names than tensors.", "MAN-007", "/tensors/name", ["x", "y"]),
    "names-long": ("More names than tensors.", "MAN-007", "/tensors/name", ["x", "y", "z", "zz"]),
    "dtypes-short": ("Fewer dtypes than tensors.", "MAN-007", "/tensors/dtype", ["int32", "float32"]),
    "shapes-short": ("Fewer shapes than tensors.", "MAN-007", "/tensors/shape", [[6], [2, 2]]),
    "grids-short": ("Fewer grids than tensors.", "MAN-007", "/tensors/grid", [[4], [2, 2]]),
    "codecs-short": ("Fewer codec indices than tensors.", "MAN-007", "/tensors/codec", [0, 0]),
    "parts-none": ("No part.", "CHK-002", "/parts", []),
    "parts-nil": ("`parts` is nil.", "MAN-002", "/parts", None),
    "part-object-nil": ("In layout `file` the object is the file itself, not nil.", "CHK-002", "/parts/0/object", None),
    "part-object-named": ("In layout `file` the object has no name.", "CHK-002", "/parts/0/object", "a.zip"),
    "part-object-upwards": (
        "An object outside the checkpoint.",
        "CHK-002 CHK-007 SEC-003",
        "/parts/0/object",
        "../a.zip",
    ),
    "part-size": ("A part with a size, in layout `file`.", "MAN-002", "/parts/0/size", 5),
    "part-frame": ("A part with a frame digest, in layout `file`.", "MAN-002", "/parts/0/frame", bytes(32)),
    "chunks-array": ("A chunk table that is an array.", "MAN-002", "/parts/0/chunks", []),
    "chunks-reference": (
        "A part manifest in layout `file`.",
        "CHK-002",
        "/parts/0/chunks",
        {"path": "parts/00000.msgpack", "length": 5, "sha256": bytes(32)},
    ),
    "table-tensor-bin": (
        "A table with tensor indices, in layout `file`.",
        "CHK-002",
        "/parts/0/chunks/tensor",
        struct.pack("<4I", 0, 0, 1, 2),
    ),
    "table-tensor-array": ("A column that is an array.", "MAN-002", "/parts/0/chunks/length", [16, 16, 16, 3]),
    "table-offset-nil": (
        "A table without offsets, in layout `file`.",
        "CHK-002 MAN-002",
        "/parts/0/chunks/offset",
        None,
    ),
    "table-length-nil": ("A table without lengths.", "MAN-002", "/parts/0/chunks/length", None),
    "table-digest-nil": ("A table without digests.", "MAN-002", "/parts/0/chunks/digest", None),
    "table-length-short": (
        "A column of lengths that is too short.",
        "CHK-001 CHK-004",
        "/parts/0/chunks/length",
        struct.pack("<3Q", 16, 16, 16),
    ),
    "table-length-long": (
        "A column of lengths that is too long.",
        "CHK-001 CHK-004",
        "/parts/0/chunks/length",
        struct.pack("<5Q", 16, 16, 16, 3, 3),
    ),
    "table-length-odd": (
        "A column of lengths that breaks off.",
        "CHK-001",
        "/parts/0/chunks/length",
        struct.pack("<4Q", 16, 16, 16, 3)[:-1],
    ),
    "table-digest-short": ("A digest too few.", "CHK-001", "/parts/0/chunks/digest", bytes(96)),
    "table-digest-long": ("A digest too many.", "CHK-001", "/parts/0/chunks/digest", bytes(160)),
    "table-digest-odd": ("Digests that break off.", "CHK-001", "/parts/0/chunks/digest", bytes(127)),
}
for _name, (_title, _spec, _pointer, _item) in ITEMS.items():
    fault(f"manifest-{_name}", _title, f"{_spec} ERR-001", "manifest-base", edit(_pointer, _item), "bad-manifest")
for _key in (
    "format",
    "layout",
    "requires",
    "generator",
    "digest",
    "block",
    "schema",
    "metadata",
    "codecs",
    "tensors",
    "parts",
):
    fault(
        f"manifest-without-{_key}",
        f"`{_key}` is missing.",
        "MAN-002",
        "manifest-base",
        remove(f"/{_key}"),
        "bad-manifest",
    )
for _key in ("name", "dtype", "shape", "grid", "codec"):
    fault(
        f"manifest-without-tensors-{_key}",
        f"The column `{_key}` is missing.",
        "MAN-002",
        "manifest-base",
        remove(f"/tensors/{_key}"),
        "bad-manifest",
    )
for _key in ("object", "size", "frame", "chunks"):
    fault(
        f"manifest-without-part-{_key}",
        f"`{_key}` of a part is missing.",
        "MAN-002",
        "manifest-base",
        remove(f"/parts/0/{_key}"),
        "bad-manifest",
    )
for _key in ("tensor", "chunk", "offset", "length", "digest"):
    fault(
        f"manifest-without-column-{_key}",
        f"The column `{_key}` of the chunk table is missing.",
        "MAN-002",
        "manifest-base",
        remove(f"/parts/0/chunks/{_key}"),
        "bad-manifest",
    )
for _key in ("id", "version", "fingerprint"):
    fault(
        f"manifest-without-schema-{_key}",
        f"`{_key}` of the schema is missing.",
        "SCH-001 MAN-002",
        "manifest-base",
        remove(f"/schema/{_key}"),
        "bad-manifest",
    )
for _name in ("md5", "xxh3", "SHA256", "", "crc32"):
    fault(
        f"manifest-digest-{_name.lower() or 'empty'}",
        f"The digest {_name!r} is refused by name.",
        "BLK-002",
        "manifest-base",
        edit("/digest", _name),
        "unknown-digest",
    )
fault(
    "manifest-loose-object",
    "In layout `loose` a part has no object.",
    "CHK-002",
    "manifest-base-loose",
    edit("/parts/0/object", ""),
    "bad-manifest",
)
fault(
    "manifest-loose-offset",
    "In layout `loose` a table has no offsets.",
    "CHK-002",
    "manifest-base-loose",
    edit("/parts/0/chunks/offset", bytes(32)),
    "bad-manifest",
)
fault(
    "manifest-two-parts",
    "Two parts, in layout `file`.",
    "CHK-002",
    "manifest-base",
    edit("/parts/-", {"object": "", "size": None, "frame": None, "chunks": {}}),
    "bad-manifest",
)

# ---- requires

for _name, _requires in {"one": ["sparse-tensors"], "two": ["sparse-tensors", "more"], "empty-name": [""]}.items():
    fault(
        f"requires-{_name}",
        "A feature that no reader knows is refused by name.",
        "MAN-006 VER-001",
        "manifest-base",
        edit("/requires", _requires),
        "unknown-feature",
    )
fault(
    "requires-first",
    "`requires` is looked at before any other key: what a feature changes is not judged.",
    "MAN-006 READ-001",
    "manifest-base",
    [*edit("/tree", {"new": "form"})[:1], *edit("/digest", 5)[:1], *edit("/requires", ["sparse-tensors"])],
    "unknown-feature",
)
fault(
    "requires-first-missing-keys",
    "Keys may be missing where a feature is required that nobody knows.",
    "MAN-006 READ-001",
    "manifest-base",
    [*remove("/tensors")[:1], *remove("/block")[:1], *edit("/requires", ["sparse-tensors"])],
    "unknown-feature",
)
for _name, _title, _new in (
    ("extension", "an extension type", Literal(b"\xc7\x05\x07hello")),
    ("repeated-key", "a map that repeats a key", Literal(b"\x82\xa1a\x01\xa1a\x02")),
    ("number-as-key", "a map whose key is a number", Literal(b"\x81\x01\x02")),
):
    fault(
        f"requires-first-{_name}",
        f"What a required feature nobody knows uses is not judged: {_title}.",
        "MAN-006 MAN-001 READ-001",
        "manifest-base",
        [*edit("/metadata", _new)[:1], *edit("/requires", ["sparse-tensors"])],
        "unknown-feature",
    )
for _name, _title, _new in (
    ("nested", "an array nested 1024 deep within the map", Literal(b"\x91" * 1024 + b"\x90")),
    ("utf-8", "a string that is not UTF-8", Literal(b"\xa1\xff")),
):
    fault(
        f"requires-first-{_name}",
        f"A decoder may judge nesting and UTF-8 before anyone looks at `requires`: {_title}.",
        "MAN-006",
        "manifest-base",
        [*edit("/metadata", _new)[:1], *edit("/requires", ["sparse-tensors"])],
        "unknown-feature bad-manifest",
    )

# ---- extents


def _offsets(change: Any) -> list[dict[str, Any]]:
    """Steps that set offsets of the base's four chunks."""
    return edit("/parts/0/chunks/offset", struct.pack("<4Q", *change))


_BASE = Checkpoint(TREE, schema=("llama", "3"), metadata={"a": 1}).build()[""]


def _found() -> list[int]:
    """The offsets of the base's chunks."""
    from ..recipes import Mutation

    mutation = Mutation({"": b"".join(piece for piece in _BASE if isinstance(piece, bytes))})
    return list(struct.unpack("<4Q", mutation.document["parts"][0]["chunks"]["offset"]))


AT = _found()
EXTENTS: dict[str, tuple[str, list[int]]] = {
    "beyond-file": ("An extent beyond the end of the file.", [AT[0], AT[1], AT[2], 1 << 40]),
    "overflow": ("An offset that overflows when the length is added.", [AT[0], AT[1], AT[2], (1 << 64) - 1]),
    "overflow-63": ("An offset of 2⁶³ − 1.", [AT[0], AT[1], AT[2], (1 << 63) - 1]),
    "overlap": ("Two extents that overlap by one byte.", [AT[0], AT[0] + 15, AT[2], AT[3]]),
    "same": ("Two extents at one place.", [AT[0], AT[0], AT[2], AT[3]]),
    "into-manifest": ("An extent that reaches into the manifest.", [AT[0], AT[1], AT[2], AT[3] + 62]),
    "overlap-unsorted": ("Extents that overlap, in another order.", [AT[2] + 8, AT[1], AT[2], AT[3]]),
}
for _name, (_title, _change) in EXTENTS.items():
    fault(f"extent-{_name}", _title, "CHK-005 SEC-002", "manifest-base", _offsets(_change), "bad-extent")
fault(
    "extent-empty",
    "A chunk of 0 bytes.",
    "CHK-005 BLK-001",
    "manifest-base",
    [
        *edit("/parts/0/chunks/length", struct.pack("<4Q", 16, 16, 16, 0))[:1],
        *edit("/parts/0/chunks/digest", bytes(96)),
    ],
    "bad-extent bad-manifest",
)
fault(
    "extent-long",
    "A raw chunk longer than its grid.",
    "CHK-005 ZARR-007",
    "manifest-base",
    edit("/parts/0/chunks/length", struct.pack("<4Q", 16, 16, 17, 3)),
    "bad-extent",
)
fault(
    "extent-huge-length",
    "A length of 2⁶⁴ − 1.",
    "CHK-005 SEC-002 LIM-003",
    "manifest-base",
    edit("/parts/0/chunks/length", struct.pack("<4Q", 16, 16, 16, (1 << 64) - 1)),
    "bad-extent bad-manifest",
)


# ---- depth

DEEPEST = 1024
for _depth, _name in ((DEEPEST, "deepest"), (DEEPEST + 1, "too-deep"), (20_000, "far-too-deep")):
    _arrays = _depth - 1  # the manifest is a map itself
    _steps: list[dict[str, Any]] = [
        {"do": "edit_manifest", "pointer": "/x-deep", "msgpack": "91" * _arrays + "c0"},
        {"do": "reseal"},
    ]
    _title = f"Arrays and a map {_depth} deep in a key that nobody knows."
    if _depth > DEEPEST:
        fault(f"manifest-nested-{_name}", _title, "LIM-005 SEC-002", "tree-base", _steps, "bad-manifest")
        _maps = [{**_steps[0], "msgpack": "81a161" * _arrays + "c0"}, _steps[1]]
        fault(
            f"manifest-nested-{_name}-maps",
            _title.replace("Arrays and a map", "Maps"),
            "LIM-005 SEC-002",
            "tree-base",
            _maps,
            "bad-manifest",
        )
    else:
        plain(
            f"manifest-nested-{_name}",
            _title,
            "LIM-005 MAN-003",
            {"generated": True, "mutation": {"base": "tree-base", "steps": _steps}},
            {"op": "open"},
            {"accept": True},
            needs=ENTRIES["tree-base"].case.features,
        )
