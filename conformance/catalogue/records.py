"""The commit record, and its agreement with what it stands in. SPEC.md sections 8, 10 and 15."""

from __future__ import annotations

from typing import Any

from ..cases import flatten
from ..recipes import Mutation
from . import ENTRIES, edit, fault, place, verified

RESEAL = {"do": "reseal"}


def _text(**fields: str) -> str:
    """A record's text up to its crc32, with some parts changed."""
    parts = {
        "version": "ckptfmt/1.0",
        "layout": "file",
        "manifest": "manifest=694+353",
        "sha256": f"sha256={'0' * 64}",
        "frame": f"frame={'0' * 64}",
    }
    return " ".join({**parts, **fields}.values()) + " "


GRAMMAR: dict[str, tuple[str, str]] = {
    "leading-zero-offset": ("An offset with a leading zero.", _text(manifest="manifest=0694+353")),
    "leading-zero-length": ("A length with a leading zero.", _text(manifest="manifest=694+0353")),
    "negative-offset": ("A negative offset.", _text(manifest="manifest=-694+353")),
    "huge-offset": ("An offset of 20 digits.", _text(manifest="manifest=99999999999999999999+353")),
    "offset-2-63": ("An offset of 2⁶³.", _text(manifest=f"manifest={1 << 63}+353")),
    "length-2-63": ("A length of 2⁶³.", _text(manifest=f"manifest=694+{1 << 63}")),
    "sum-2-63": (
        "Offset and length that together reach 2⁶³.",
        _text(manifest=f"manifest={(1 << 63) - 1}+{(1 << 63) - 1}"),
    ),
    "upper-case-sha256": ("Upper-case digits in the sha256.", _text(sha256=f"sha256={'A' * 64}")),
    "short-sha256": ("A sha256 of 63 digits.", _text(sha256=f"sha256={'0' * 63}")),
    "frame-33": ("A frame digest of 33 digits.", _text(frame=f"frame={'0' * 33}")),
    "frame-48": ("A frame digest of 48 digits.", _text(frame=f"frame={'0' * 48}")),
    "frame-upper": ("Upper-case digits in the frame digest.", _text(frame=f"frame={'F' * 64}")),
    "two-blanks": ("Two blanks.", _text(layout="file ")),
    "tab": ("A tab in place of a blank.", _text().replace(" file", "\tfile")),
    "layout-upper": ("The layout in upper case.", _text(layout="FILE")),
    "layout-unknown": ("An unknown layout.", _text(layout="striped")),
    "major-leading-zero": ("A major version with a leading zero.", _text(version="ckptfmt/02.0")),
    "minor-missing": ("A version without a minor part.", _text(version="ckptfmt/1.")),
    "minor-leading-zero": ("A minor version with a leading zero.", _text(version="ckptfmt/1.00")),
    "minor-1000": ("A minor version of 1000.", _text(version="ckptfmt/1.1000")),
    "patch": ("A version of three parts.", _text(version="ckptfmt/1.0.0")),
    "swapped": ("Two fields in each other's place.", _text(sha256=f"frame={'0' * 64}", frame=f"sha256={'0' * 64}")),
    "missing-field": ("A field that is missing.", _text().replace(f"frame={'0' * 64} ", "")),
    "extra-field": ("A field too many.", _text() + "extra=1 "),
    "decimal-comma": ("Another sign between offset and length.", _text(manifest="manifest=694,353")),
}
for _name, (_title, _line) in GRAMMAR.items():
    fault(f"record-{_name}", _title, "COM-001", "tree-base", [{**RESEAL, "text": _line}], "bad-record")

BYTES: dict[str, tuple[str, dict[str, Any]]] = {
    "crc32": (
        "A crc32 with a letter that is no hexadecimal digit.",
        {"do": "overwrite", "at": place("record", -2), "hex": "67"},
    ),
    "crc32-upper": (
        "A record that does not end with its line feed.",
        {"do": "overwrite", "at": place("record", -1), "hex": "20"},
    ),
    "bit-in-sha256": ("A flipped bit in the sha256.", {"do": "flip_bit", "at": place("record", 60), "bit": 0}),
    "bit-in-offset": ("A flipped bit in the offset.", {"do": "flip_bit", "at": place("record", 26), "bit": 0}),
    "bit-in-layout": ("A flipped bit in the layout.", {"do": "flip_bit", "at": place("record", 13), "bit": 2}),
}
for _name, (_title, _step) in BYTES.items():
    fault(f"record-{_name}", _title, "COM-001 COM-005", "tree-base", [_step], "bad-record")


def _other_digit(base: str, offset: int) -> dict[str, Any]:
    """A step that puts another digit in the place of one of the record, which matches the grammar still."""
    made = Mutation(flatten(ENTRIES[base].files or {}))
    name, start = ("", made.record_at) if made.is_file else ("COMMIT", 0)
    found = chr(made.files[name][start:][offset])
    new = next(digit for digit in "123" if digit != found)
    return {"do": "overwrite", "at": place("record", offset), "hex": new.encode().hex()}


DIGITS = {"crc32": -2, "crc32-first": -9, "offset": 26, "length": 29, "sha256": 60, "frame": -17}
for _of, _suffix in (("tree-base", ""), ("tree-base-loose", "-loose")):
    for _name, _offset in DIGITS.items():
        if _name != "offset" or not _suffix:
            fault(
                f"record-digit-in-{_name}{_suffix}",
                f"Another digit in the {_name.removesuffix('-first')}: the crc32 alone tells.",
                "COM-006",
                _of,
                [_other_digit(_of, _offset)],
                "bad-record",
            )
    fault(
        f"record-frame-size{_suffix}",
        "A frame digest of 16 bytes, where digests are of 32.",
        "COM-007",
        _of,
        [{**RESEAL, "frame": "0" * 32}],
        "bad-manifest",
    )
fault(
    "record-bytes-after",
    "A byte after the record: it is not the last of the file.",
    "COM-002 COM-001",
    "tree-base",
    [{"do": "append", "hex": "00"}],
    "bad-record",
)
fault(
    "record-line-after",
    "A line after COMMIT's record.",
    "COM-002",
    "tree-base-loose",
    [{"do": "append", "object": "COMMIT", "hex": b"x\n".hex()}],
    "bad-record",
)
fault(
    "record-commit-long",
    "A COMMIT of far more than 255 bytes.",
    "COM-001 SEC-002",
    "tree-base-loose",
    [{"do": "append", "object": "COMMIT", "hex": (b" " * 5000).hex()}],
    "bad-record",
)
fault(
    "record-commit-empty",
    "An empty COMMIT.",
    "COM-004 COM-005",
    "tree-base-loose",
    [{"do": "add_object", "object": "COMMIT", "hex": ""}],
    "bad-record",
)
fault(
    "record-commit-other",
    "A COMMIT that holds something else.",
    "COM-004 COM-005",
    "tree-base-loose",
    [{"do": "add_object", "object": "COMMIT", "hex": b"yes\n".hex()}],
    "bad-record",
)
fault(
    "record-commit-cut",
    "A COMMIT that breaks off.",
    "COM-001 COM-005",
    "tree-base-loose",
    [{"do": "truncate", "at": {"object": "COMMIT", "offset": -3}}],
    "bad-record",
)

# ---- versions

LATER = {"next": "2.0", "ninety-nine": "99.0", "largest": "999.999", "thousand": "1000.0", "long": f"{10**22 + 7}.0"}
for _name, _version in LATER.items():
    fault(
        f"version-{_name}",
        f"Version {_version} is refused by its number.",
        "VER-002",
        "tree-base",
        [{**RESEAL, "version": _version}],
        "newer-format",
    )
fault(
    "version-next-other-grammar",
    "The record of a later major version need not have our grammar.",
    "VER-002 COM-001",
    "tree-base",
    [{"do": "replace_record", "hex": b"ckptfmt/2.0 all else is new\n".hex()}],
    "newer-format",
)
fault(
    "version-next-directory",
    "A later major version in a directory.",
    "VER-002",
    "tree-base-loose",
    [{"do": "add_object", "object": "COMMIT", "hex": b"ckptfmt/7.3 all else is new\n".hex()}],
    "newer-format",
)
fault(
    "version-next-before-manifest",
    "The version is looked at first: the manifest may be gone.",
    "VER-002 READ-001 ERR-002",
    "tree-base-loose",
    [
        {"do": "remove_object", "object": "manifest.msgpack"},
        {"do": "add_object", "object": "COMMIT", "hex": b"ckptfmt/2.0 x\n".hex()},
    ],
    "newer-format",
)
for _name, _of, _line in (
    ("no-point", "tree-base", "ckptfmt/2 file manifest=0+9\n"),
    ("no-point-directory", "tree-base-loose", "ckptfmt/2 loose manifest=0+9\n"),
    ("number-alone", "tree-base-loose", "ckptfmt/2"),
    ("comma", "tree-base", "ckptfmt/2,0 file manifest=0+9\n"),
):
    fault(
        f"version-{_name}",
        "What has no `.` after its number has no version.",
        "VER-002",
        _of,
        [{"do": "replace_record", "hex": _line.encode().hex()}],
        "bad-record",
    )
fault(
    "version-0",
    "A record of the draft version 0.9, before a manifest of 1.0.",
    "VER-002 MAN-005",
    "tree-base",
    [{**RESEAL, "version": "0.9"}],
    "older-format bad-manifest",
)

# ---- layouts and extents

fault(
    "record-layout-in-file",
    "A file whose record says `loose`.",
    "LAY-006 COM-002",
    "tree-base",
    [{**RESEAL, "layout": "loose"}],
    "bad-record",
)
fault(
    "record-layout-in-directory",
    "A directory whose record says `file`.",
    "LAY-006",
    "tree-base-loose",
    [{**RESEAL, "layout": "file"}],
    "bad-record",
)
fault(
    "record-offset-in-directory",
    "A directory whose manifest does not begin at 0.",
    "COM-002",
    "tree-base-loose",
    [{**RESEAL, "offset": 1}],
    "bad-record",
)
fault(
    "record-extent-beyond",
    "A manifest that reaches into the record.",
    "COM-002 LIM-003",
    "tree-base",
    [{**RESEAL, "length": 10_000}],
    "bad-record",
)
_base = Mutation(flatten(ENTRIES["tree-base"].files or {}))
for _name, _title, _more, _code in (
    (
        "to-record",
        "A manifest that ends where the record begins lies inside the file: its sha256 is wrong.",
        0,
        "manifest-digest",
    ),
    ("one-too-many", "A manifest that ends one byte after the record's first.", 1, "bad-record"),
):
    fault(
        f"record-extent-{_name}",
        _title,
        "COM-002 COM-003",
        "tree-base",
        [{**RESEAL, "length": _base.record_at - _base.start + _more}],
        _code,
    )
fault(
    "record-extent-far",
    "A manifest far beyond the end of the file.",
    "COM-002 LIM-003 SEC-002",
    "tree-base",
    [{**RESEAL, "offset": 1 << 50}],
    "bad-record",
)
fault(
    "record-length-shorter-file",
    "A record that names less than the manifest.",
    "COM-003",
    "tree-base",
    [{**RESEAL, "length": 40}],
    "manifest-digest",
)
fault(
    "record-length-longer-directory",
    "A record that names more than the manifest of a directory.",
    "COM-002 COM-003",
    "tree-base-loose",
    [{**RESEAL, "length": 10_000}],
    "bad-record manifest-digest",
)
fault(
    "record-length-shorter-directory",
    "A record that names less than the manifest of a directory.",
    "COM-003",
    "tree-base-loose",
    [{**RESEAL, "length": 40}],
    "bad-record manifest-digest",
)
fault(
    "record-sha256",
    "A record with another sha256, and a right crc32.",
    "COM-003",
    "tree-base",
    [{**RESEAL, "sha256": "0" * 64}],
    "manifest-digest",
)
fault(
    "record-sha256-directory",
    "The same in a directory.",
    "COM-003",
    "tree-base-loose",
    [{**RESEAL, "sha256": "0" * 64}],
    "manifest-digest",
)
fault(
    "manifest-bit",
    "A flipped bit in the manifest.",
    "COM-003",
    "tree-base",
    [{"do": "flip_bit", "at": place("manifest", 100), "bit": 3}],
    "manifest-digest",
)
fault(
    "manifest-bit-last",
    "A flipped bit in the last byte of the manifest.",
    "COM-003",
    "tree-base-loose",
    [{"do": "flip_bit", "at": {"object": "manifest.msgpack", "offset": -1}, "bit": 7}],
    "manifest-digest",
)
fault(
    "manifest-bit-before-decoding",
    "The sha256 is checked before the manifest is decoded: one that is no msgpack at all.",
    "COM-003 READ-001",
    "tree-base",
    [{"do": "overwrite", "at": place("manifest", 0), "hex": "c1"}],
    "manifest-digest",
)
for _name, _steps, _code in (
    ("record", [{"do": "overwrite", "at": place("record", -2), "hex": "67"}], "bad-record"),
    ("manifest", [{"do": "flip_bit", "at": place("manifest", 100), "bit": 3}], "manifest-digest"),
):
    verified(
        f"verify-damaged-{_name}",
        f"A whole verification of what cannot be opened, as its {_name} is damaged, tells that alone.",
        "BLK-010",
        "tree-base",
        _steps,
        {"code": _code},
    )
fault(
    "manifest-missing",
    "A directory without a manifest.",
    "COM-003",
    "tree-base-loose",
    [{"do": "remove_object", "object": "manifest.msgpack"}],
    "missing-object",
)
fault(
    "manifest-longer-than-record",
    "Bytes after the manifest of a directory.",
    "COM-003",
    "tree-base-loose",
    [{"do": "append", "object": "manifest.msgpack", "hex": "c0"}],
    "manifest-digest",
)

# ---- two faults: the earlier phase is reported

fault(
    "order-record-before-manifest",
    "A broken record and a broken manifest: the record is reported.",
    "ERR-002 READ-001",
    "tree-base",
    [
        {"do": "flip_bit", "at": place("manifest", 100), "bit": 3},
        {"do": "overwrite", "at": place("record", -2), "hex": "67"},
    ],
    "bad-record",
)
fault(
    "order-version-before-record",
    "A later version and a broken record: the version is reported.",
    "VER-002 READ-001",
    "tree-base",
    [{"do": "replace_record", "hex": b"ckptfmt/3.0 file manifest=x\n".hex()}],
    "newer-format",
)
fault(
    "order-manifest-before-chunk",
    "A broken manifest and a broken chunk: the manifest is reported.",
    "ERR-002 READ-001",
    "tree-base",
    [*edit("/block", 5), {"do": "flip_bit", "at": place({"tensor": ["w"], "chunk": 0}, 0), "bit": 0}],
    "bad-manifest",
)
