"""Every example block of SPEC.md has a name, and is what it says: each is carried out by the suite's own writer, which
was made from the text alone."""

from __future__ import annotations

import json
import re
import struct

import msgpack
import pytest

from ckptfmt.migration.patterns import parse_patterns
from conformance import SPEC
from conformance.build import Checkpoint, node_document
from conformance.cases import flatten, read_cases
from conformance.model import Tensor

BLOCKS = dict(re.findall(r"^<!-- example: ([a-z-]+) -->\n```\n(.*?)^```$", SPEC.read_text(), re.MULTILINE | re.DOTALL))
W = Tensor("bfloat16", (2, 2), struct.pack("<4H", 0x3F80, 0x4000, 0x4040, 0x8000))
TREE = {"step": 7, "w": W}


def example(layout: str) -> dict[str, bytes]:
    """The worked example of section 18."""
    checkpoint = Checkpoint(TREE, layout=layout, digest="xxh3-128", block=4 << 20, generator="ckptfmt 1.0.0")
    return flatten(checkpoint.build())


def test_every_block_has_a_name_and_is_carried_out() -> None:
    assert SPEC.read_text().count("\n```\n") == 2 * len(BLOCKS)
    carried_out = {"node-documents", "layouts", "commit-record", "manifest", "file", "loose-commit-record"}
    assert BLOCKS.keys() == carried_out | {"pattern-grammar"}


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
    assert array.replace("\n", "").encode() == node_document(other, root=False)


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
    text = re.sub(r"h'([0-9a-f]*)'", r'{"bin": "\1"}', BLOCKS["manifest"])
    shown = json.loads(text, object_hook=lambda item: bytes.fromhex(item["bin"]) if item.keys() == {"bin"} else item)
    data = example("file")[""]
    offset, length = map(int, re.findall(rb"manifest=(\d+)\+(\d+) ", data)[-1])
    assert msgpack.unpackb(data[offset : offset + length]) == shown


def test_file() -> None:
    rows = [line[6:46].replace(" ", "") for line in BLOCKS["file"].splitlines()]
    assert bytes.fromhex("".join(rows)) == example("file")[""]


def test_loose_commit_record() -> None:
    assert BLOCKS["loose-commit-record"].encode() == example("loose")["COMMIT"]
