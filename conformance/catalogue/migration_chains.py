"""Migrations with parameters, of companions, in chains and backwards, and what a result records.

docs/spec/migrations.md.
"""

from __future__ import annotations

import struct
from typing import Any

from ..model import Tensor
from . import valid, value_of
from .migrating import (
    ONE,
    TURN,
    TURNED,
    TWO,
    WIDEN,
    A,
    B,
    C,
    Document,
    W,
    document,
    floats,
    ints,
    link,
    migrated,
    move,
    raw,
    refused,
    source,
    words,
)

# ---- parameters

_heads = {"op": "split", "axis": 0, "sizes": ["h", "4-h"]}
for _name, _title, _declared, _given, _value in (
    ("document", "A parameter's value in the document; `-` is from the left.", 1, None, 1),
    ("metadata", "A parameter's value in the metadata.", {"metadata": "config/heads"}, None, 3),
    ("given", "A value that is given goes before all others.", {"metadata": "config/heads"}, 2, 2),
):
    _made = document(move("w", ["a", "b"], _heads), parameters={"h": _declared})
    _asked: dict[str, Any] = {} if _given is None else {"parameters": {"h": _given}}
    migrated(
        f"migrate-parameter-{_name}",
        _title,
        "MIG-010 MIG-014",
        source({"w": ints(1, 2, 3, 4)}, metadata={"config": {"heads": 3}}),
        [_made],
        {"a": ints(*range(1, _value + 1)), "b": ints(*range(_value + 1, 5))},
        [link(_made, parameters={"h": _value})],
        **_asked,
    )
_sum = document(
    move("w", ["a", "b"], {"op": "split", "axis": 0, "sizes": ["2*n+1", "6/n-2+n*n/n-2"]}), parameters={"n": 2}
)
migrated(
    "migrate-parameter-arithmetic",
    "`*` and `/` bind closer, all from the left.",
    "MIG-010",
    source({"w": ints(*range(6))}),
    [_sum],
    {"a": ints(*range(5)), "b": ints(5)},
    [link(_sum, parameters={"n": 2})],
)

# ---- companions

_companions = document(
    move("a", "b", WIDEN, {"op": "pad", "axis": 0, "before": 0, "after": 1, "value": 9}),
    move("a", "n", {"op": "fill", "value": 5}),
    move("c", "c"),
    at="model",
    companions=["m", "none"],
)
migrated(
    "migrate-companions",
    "Moments follow the rules of their tensors: without casts, padded and filled with 0.",
    "MIG-016",
    source({"model": {"a": floats(1), "c": A}, "m": {"a": floats(2)}, "rng": B}),
    [_companions],
    {
        "model": {"b": floats(1, 9, dtype="float64"), "n": floats(5), "c": A},
        "m": {"b": floats(2, 0), "n": floats(0)},
        "rng": B,
    },
)

# ---- chains, backwards

migrated(
    "migrate-chain",
    "A chain of two; documents of other schemas and beside the way do not matter.",
    "MIG-012",
    source({"a": A}),
    [[TWO, ONE], {**ONE, "schema": "t"}, document(start="2", end="x"), document(start="2", end="1")],
    {"c": A},
    [link(ONE), link(TWO)],
    to="3",
)
migrated(
    "migrate-chain-loses",
    "The class of a chain is that of its worst step.",
    "MIG-014 MIG-012",
    source({"a": floats(1)}),
    [document(move("a", "b", {"op": "scale", "by": 2})), TWO],
    {"c": floats(2)},
    [link(document(move("a", "b", {"op": "scale", "by": 2})), "lossy"), link(TWO)],
    to="3",
    loss="lossy",
)
_there = document(
    move("e.{i:int}", "e", {"op": "stack", "axis": 0}),
    move(["q", "k"], "qk", {"op": "concat", "axis": 0, "sizes": [1, 2]}),
    move("t", "t", TURN),
    move("f", "f", WIDEN),
    move("n", "n", {"op": "neg"}),
    move("p", "p", {"op": "pad", "axis": 0, "before": 1, "after": 1}),
    move("s", "s2", {"op": "alias"}),
    move("s", "s"),
)
_old = {
    **{"e.0": A, "e.1": B, "q": ints(1), "k": ints(2, 3), "t": W, "p": ints(5), "s": C},
    **{"f": words(0x7F800001, 0xFFFFFFFF, 1), "n": words(0x7F800001, 0x80000000)},
}
_new = {
    **{"e": Tensor("int8", (2, 2), A.data + B.data), "qk": ints(1, 2, 3), "t": TURNED, "p": ints(0, 5, 0), "s": C},
    "s2": C,
    "n": words(0xFF800001, 0),
    "f": Tensor("float64", (3,), struct.pack("<3Q", 0x7FF << 52 | 1 << 29, 0xFFF << 52 | 0x7FFFFF << 29, 0x36A << 52)),
}
migrated(
    "migrate-exact-forwards",
    "Every exact operator.",
    "MIG-014",
    source(_old),
    [_there],
    _new,
)
migrated(
    "migrate-exact-backwards",
    "An exact chain backwards gives back every bit.",
    "MIG-014",
    source(_new, "2"),
    [_there],
    _old,
    [link(_there, inverse=True)],
    to="1",
    down=True,
)
_lossy = document(move("a", "b", {"op": "scale", "by": 4}))
migrated(
    "migrate-lossy-backwards",
    "A lossy chain backwards, if that is asked for.",
    "MIG-014",
    source({"b": floats(4, 8)}, "2"),
    [_lossy],
    {"a": floats(1, 2)},
    [link(_lossy, "lossy", inverse=True)],
    to="1",
    down=True,
    lossy=True,
    loss="lossy",
)

# ---- files of migrations

_text = document(move("a", "b"), description="ü")
_json = '{"ckptfmt_migration": 1, "schema": "s", "from": "1", "to": "2", "rules": [{"from": "a", "to": "b"}], '
_json += '"description": "\u00fc"}'
_packed = bytes.fromhex(
    "86 b1 636b7074666d745f6d6967726174696f6e 01 a6 736368656d61 a1 73 a4 66726f6d a1 31 a2 746f a1 32"
    "a5 72756c6573 91 82 a4 66726f6d a1 61 a2 746f a1 62 ab 6465736372697074696f6e a2 c3bc"
)
for _name, _title, _file in (
    ("json-space", "A file of JSON may begin with white space.", raw(f" \r\n\t{_json}\n")),
    ("json-array", "An array of documents in JSON.", raw(f"[{_json}]")),
    ("msgpack", "A file of msgpack.", raw(_packed)),
    ("msgpack-array", "An array of documents in msgpack.", raw(b"\x91" + _packed)),
):
    migrated(
        f"migrate-file-{_name}",
        f"{_title} Its digest is that of the same document anywhere.",
        "MIG-002",
        source({"a": A}),
        [_file],
        {"b": A},
        [link(_text)],
    )
for _name, _title, _file in (
    ("empty", "An empty file.", raw("")),
    ("text", "Words.", raw("rename a to b")),
    ("number", "A number.", raw("[1]")),
    ("json-repeat", "JSON that repeats a key.", raw(_json.replace('"from": "a"', '"from": "x", "from": "a"'))),
    ("json-after", "JSON with something after it.", raw(_json + "x")),
    ("json-comma", "JSON with one comma too many.", raw(f"[{_json},]")),
    ("json-nan", "NaN is no JSON.", raw(_json.replace('"b"', '["b"], "with": [{"op": "add", "value": NaN}]'))),
    ("msgpack-repeat", "msgpack that repeats a key.", raw(b"\x87\xa6schema\xa1s" + _packed[1:])),
    ("msgpack-after", "msgpack with something after it.", raw(_packed + b"\xc0")),
    ("msgpack-cut", "msgpack that breaks off.", raw(_packed[:-1])),
    ("array-in-array", "An array of arrays of documents.", raw(f"[[{_json}]]")),
):
    refused(f"migrate-bad-file-{_name}", _title, "MIG-002", [_file], "bad-migration")


# ---- where results come from


def _earlier(manifest: Document) -> None:
    manifest["provenance"] = [{"operation": "import", "generator": "elsewhere", "n": 1}]
    manifest["x-own"] = {"kept": True}


migrated(
    "migrate-provenance",
    "The records of the source stand before the new one; keys that nobody knows are kept.",
    "MIG-017 MAN-003",
    source({"a": A}, metadata={"step": 1}, edit=_earlier),
    [document(move("a", "b"))],
    {"b": A},
)
valid(
    "migrate-provenance-ignored",
    "Readers ignore where a checkpoint comes from: it is no plain value of the user's.",
    "MIG-017 MAN-003",
    source({"b": A}, edit=lambda manifest: manifest.update(provenance=[{"operation": "migrate", "n": 1}, 3])),
    {"op": "list"},
    {"tree": source({"b": A}).values()[0], "metadata": value_of(None)},
)
