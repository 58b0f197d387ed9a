"""Every example block of SPEC.md and its companions has a name, and is what it says: each is carried out by the suite's
own writer, which was made from the text alone."""

from __future__ import annotations

import json
import re
import struct
from typing import Any

import msgpack
import pytest

from ckptfmt.migration.patterns import parse_patterns
from conformance import DOCUMENTS
from conformance.build import Checkpoint, node_document
from conformance.cases import flatten, read_cases
from conformance.model import Tag, Tensor
from conformance.packing import pack
from conformance.pages import Paging
from conformance.recipes import Mutation

BLOCKS: dict[str, str] = {}
for _page in DOCUMENTS:
    BLOCKS |= re.findall(
        r"^<!-- example: ([a-z0-9-]+) -->\n```\n(.*?)^```$", _page.read_text(), re.MULTILINE | re.DOTALL
    )
W = Tensor("bfloat16", (2, 2), struct.pack("<4H", 0x3F80, 0x4000, 0x4040, 0x8000))
TREE = {"step": 7, "w": W}


def example(layout: str) -> dict[str, bytes]:
    """The worked example of section 18.1."""
    checkpoint = Checkpoint(TREE, layout=layout, digest="xxh3-128", block=4 << 20, generator="ckptfmt 1.0.0")
    return flatten(checkpoint.build())


def second_example() -> dict[str, bytes]:
    """The worked example of section 18.2."""
    rows = {(n, 0): struct.pack("<4f", *(n * 2 + half / 2 for half in range(4))) for n in range(2)}
    w = Tensor("float32", (4, 2), b"".join(rows.values()), grid=(2, 2))
    w.chain = {"name": "zstd", "configuration": {"checksum": False, "level": 3}}
    w.stored = {position: bytes.fromhex("28b52ffd2010810000") + data for position, data in rows.items()}
    q = Tensor("int4", (3,), bytes([0x78, 0x01]))
    columns = {
        "tensor": ("I", 0, 1),
        "chunk": ("Q", 0, 0),
        "count": ("Q", 2, 1),
        "part": ("I", 0, 0),
        "step": ("I", 1, 0),
    }
    placement = {name: struct.pack(f"<2{code}", *values) for name, (code, *values) in columns.items()}
    checkpoint = Checkpoint(
        {"model": Tag("collections.OrderedDict", None, {"w": w, "q": q}), "ema": {"q": q}},
        metadata={"step": 7},
        layout="packed",
        digest="xxh3-128",
        block=4 << 20,
        schema=("demo", "2"),
        generator="ckptfmt 1.0.0",
        parts=lambda row: row % 2,
        inline=False,
        edit=lambda document: document.update(placement=placement),
    )
    return flatten(checkpoint.build())


def third_example() -> bytes:
    """The worked example of section 18.3."""
    a, b = (Tensor("float32", (2,), struct.pack("<2f", *values)) for values in ((1, 2), (3, 4)))
    tree = {"b": b, "a": a, "step": 7}
    options: dict[str, Any] = {"digest": "xxh3-128", "block": 4 << 20, "generator": "ckptfmt 1.1.0"}
    return flatten(Checkpoint(tree, paged=Paging(), **options).build())[""]


def dumped(name: str) -> bytes:
    """The bytes of a hexadecimal dump."""
    return bytes.fromhex("".join(line[6:46].replace(" ", "") for line in BLOCKS[name].splitlines()))


def value_of(text: str) -> Any:
    """The value of JSON with `h'…'` for bin."""
    text = re.sub(r"h'([0-9a-f]*)'", r'{"bin": "\1"}', text)
    return json.loads(text, object_hook=lambda item: bytes.fromhex(item["bin"]) if item.keys() == {"bin"} else item)


def test_every_block_has_a_name_and_is_carried_out() -> None:
    assert sum(page.read_text().count("\n```\n") for page in DOCUMENTS) == 2 * len(BLOCKS)
    carried_out = {"byte-map", "node-documents", "layouts", "commit-record", "manifest", "file", "loose-commit-record"}
    packed = {"pack-0", "pack-1", "part-manifest-0", "part-manifest-1", "packed-part-manifests", "packed-commit-record"}
    elsewhere = {"cddl"}  # tests/test_spec.py
    paged = {"paged-stack", "page", "paged-manifest", "paged-file"}
    assert BLOCKS.keys() == carried_out | packed | paged | elsewhere | {"packed-manifest", "pattern-grammar"}


def test_the_file_of_pages() -> None:
    """The file, and what is shown of it, come out byte for byte."""
    data = third_example()
    assert dumped("paged-file") == data
    made = Mutation({"": data})
    assert made.page(0) == value_of(BLOCKS["page"])
    assert made.document == value_of(BLOCKS["paged-manifest"])
    assert BLOCKS["paged-stack"].replace("\n", "").encode() in data


def test_byte_map() -> None:
    """What it draws stands in that order in the example of layout `file`, and under these names in the others."""
    data = example("file")[""]
    places = ["tensors/zarr.json", "tensors/w/c/0/0", "manifest.msgpack", "PK\1\2", "PK\5\6", "ckptfmt/1.0"]
    found = [data.index(place.encode()) for place in places]
    assert found == sorted(found)
    columns = [line[:33] for line in BLOCKS["byte-map"].splitlines()]
    drawn = ["node documents", "chunks", "manifest.msgpack", "ZIP directory, end record", "commit record"]
    lines = [next(n for n, line in enumerate(columns) if word in line) for word in drawn]
    assert lines == sorted(lines)
    assert set(re.findall(r"p\w+/\d{5}\.\w+", BLOCKS["byte-map"])) <= second_example().keys()


@pytest.mark.parametrize(
    "written", ["a.b", "{name}", "{i:int}", "{i:digits}", "{i:0..15}", "{rest:**}", "{side:left|right}", "x{{y}}"]
)
def test_kinds_of_the_pattern_grammar(written: str) -> None:
    """Every kind is one that the grammar names."""
    for kind in re.findall(r":([a-z.*|0-9]+)}", written):
        word = re.sub("[0-9]|left|right", "", kind)
        assert f'"{word}"' in BLOCKS["pattern-grammar"]
    assert parse_patterns([written])
    with pytest.raises(ValueError, match="braces"):
        parse_patterns([written + "{"])


def test_node_documents() -> None:
    group, array = re.findall(
        r"^\{.*?\}(?=\n\{|\n\Z)", BLOCKS["node-documents"].replace("\n[", "["), re.MULTILINE | re.DOTALL
    )
    assert json.loads(group) == {"zarr_format": 3, "node_type": "group", "attributes": {}}
    other = Tensor("bfloat16", (4, 2), bytes(16))
    assert array.replace("\n", "").encode() == node_document(other)


def test_layouts() -> None:
    drawn = BLOCKS["layouts"]
    for name in example("file"):
        assert name == ""
    for member in ("tensors/zarr.json", "manifest.msgpack"):
        assert member in drawn
        assert member.encode() in example("file")[""]
    assert {"COMMIT", "manifest.msgpack", "tensors/zarr.json"} <= example("loose").keys()
    assert {"packs/00000.zip", "COMMIT", "manifest.msgpack"} == example("packed").keys()
    assert all(word in drawn for word in ("packs/00000.zip", "parts/00000.msgpack", "COMMIT"))


_CORE = {"SP": " ", "LF": r"\n", "DIGIT": "[0-9]", "%x31-39": "[1-9]", "*18DIGIT": "[0-9]{0,18}", "%x61-66": "[a-f]"}


def grammar() -> re.Pattern[bytes]:
    """The grammar of the commit record as a regular expression, made from the block's ABNF."""
    rules = dict(_CORE)
    for line in BLOCKS["commit-record"].splitlines():
        name, _, body = line.partition("=")
        rules[name.strip()] = body.partition(" ;")[0].strip()
    return re.compile(_expanded("record", rules).encode())


def _expanded(name: str, rules: dict[str, str]) -> str:
    out = ""
    for word in re.findall(r'"[^"]*"|[()/]|[^\s()/]+', rules[name]):
        if word in "()":
            out += {"(": "(?:", ")": ")"}[word]
        elif word == "/":
            out += "|"
        elif word.startswith('"'):
            out += re.escape(word[1:-1])
        elif word.endswith("HEX") and word != "HEX":
            out += f"(?:{_expanded('HEX', rules)}){{{word[:-3]}}}"
        elif word in _CORE:
            out += _CORE[word]
        else:
            out += f"(?:{_expanded(word, rules)})"
    return out


@pytest.mark.parametrize("layout", ["file", "loose", "packed"])
def test_the_grammar_fits_records(layout: str) -> None:
    files = example(layout)
    line = files[""][files[""].rindex(b"ckptfmt/1.0") :] if layout == "file" else files["COMMIT"]
    assert grammar().fullmatch(line)
    assert not grammar().fullmatch(line + b"\n")


def test_the_grammar_refuses_what_the_cases_call_wrong() -> None:
    refused = 0
    for case in read_cases(["record-"]):
        step = ((case.input or {}).get("mutation") or {"steps": []})["steps"][-1]
        if "text" in step and not re.search(
            "2-63|minor-1000", case.id
        ):  # bounds that the grammar leaves to its comments
            refused += 1
            assert not grammar().fullmatch(f"{step['text']}crc32=00000000\n".encode()), case.id
    assert refused > 10


def test_manifest() -> None:
    data = example("file")[""]
    offset, length = map(int, re.findall(rb"manifest=(\d+)\+(\d+) ", data)[-1])
    assert msgpack.unpackb(data[offset : offset + length]) == value_of(BLOCKS["manifest"])


def test_file() -> None:
    assert dumped("file") == example("file")[""]


def test_packed() -> None:
    """Two writers, made apart from each other, give each byte of the second example."""
    files = second_example()
    parts = value_of(f"[{BLOCKS['packed-part-manifests'].replace('}', '},', 1)}]")
    for number in range(2):
        assert dumped(f"pack-{number}") == files[f"packs/{number:05}.zip"]
        assert dumped(f"part-manifest-{number}") == files[f"parts/{number:05}.msgpack"] == pack(parts[number])
    assert pack(value_of(BLOCKS["packed-manifest"])) == files["manifest.msgpack"]
    assert BLOCKS["packed-commit-record"].encode() == files["COMMIT"]


def test_loose_commit_record() -> None:
    assert BLOCKS["loose-commit-record"].encode() == example("loose")["COMMIT"]
