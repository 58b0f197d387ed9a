"""Migrations of schemas: rules, patterns, containers and operators, and what comes out of them.

docs/spec/migrations.md.
"""

from __future__ import annotations

import struct
from typing import Any

from ..model import Tag, Tensor, tensor
from .migrating import (
    EXTERN,
    TURN,
    TURNED,
    A,
    B,
    C,
    D,
    Document,
    W,
    document,
    floats,
    ints,
    migrated,
    move,
    source,
    words,
)

# ---- moving: rules, patterns, containers

migrated(
    "migrate-move",
    "One tensor moves; a plain value stays; metadata stays.",
    "MIG-004 MIG-011",
    source({"a": W, "n": 7}, metadata={"step": 3, "config": {"heads": 2}}),
    [document(move("a", "b"))],
    {"b": W, "n": 7},
)
migrated(
    "migrate-move-loose",
    "One tensor moves in layout loose.",
    "MIG-004",
    source({"a": W, "n": 7}, layout="loose"),
    [document(move("a", "model/b"))],
    {"model": {"b": W}, "n": 7},
)
_TAGGED = {"size": Tag("torch.Size", None, (1, 2)), "odd": Tag("my.thing", {"a": [1]}, "text")}
for _layout in ("file", "loose"):
    migrated(
        f"migrate-tags-{_layout}",
        "Tags without tensors stay, unknown ones too, and move with what they stand on.",
        "MIG-021",
        source({"a": W, **_TAGGED, "kind": Tag("torch.dtype", None, "bfloat16")}, layout=_layout),
        [document(move("a", "b"), move("kind", "dtype"))],
        {"b": W, **_TAGGED, "dtype": Tag("torch.dtype", None, "bfloat16")},
    )
_PAIR = Tag("python.namedtuple", "m.Pair", {"x": A, "y": B})
_OVER = {
    "names": ("Tags over tensors stay where the names stay, whatever becomes of the elements.",
              {"odd": Tag("my.thing", {"a": [1]}, {"w": W, "n": 1}), "p": Tag("torch.Parameter", True, W)},
              [{"from": "odd/w", "with": [TURN], "to": "odd/w"}, {"from": "p", "with": [TURN], "to": "p"}],
              {"odd": Tag("my.thing", {"a": [1]}, {"w": TURNED, "n": 1}), "p": Tag("torch.Parameter", True, TURNED)}),
    "moved": ("A tag goes where all of what it stands over goes, under the same names.",
              {"old": {"pair": _PAIR}, "p": Tag("torch.Parameter", False, W)},
              [move("old/pair/{f}", "new/{f}"), move("p", "q/r")],
              {"new": _PAIR, "q": {"r": Tag("torch.Parameter", False, W)}}),
    "swapped": ("Two tagged nodes change places.",
                {"a": Tag("my.a", None, {"x": A}), "b": Tag("my.b", None, {"x": B})},
                [move("a/x", "b/x"), move("b/x", "a/x")],
                {"b": Tag("my.a", None, {"x": A}), "a": Tag("my.b", None, {"x": B})}),
    "left-out": ("A tag over tensors of which one gets another name is left out.",
                 {"pair": _PAIR, "w": W},
                 [move("pair/x", "pair/z"), move("w", "v")],
                 {"pair": {"z": A, "y": B}, "v": W}),
    "joined": ("A tag over a node that gets one leaf more is left out.",
               {"pair": _PAIR, "w": W},
               [move("w", "pair/w")],
               {"pair": {"x": A, "y": B, "w": W}}),
}  # fmt: skip
for _name, (_title, _tree, _rules, _result) in _OVER.items():
    migrated(
        f"migrate-tags-{_name}",
        _title,
        "MIG-021",
        source(_tree),
        [document(*_rules, rest="keep")],
        _result,
        level="must",
    )
migrated(
    "migrate-swap",
    "All rules apply at once: two tensors change places.",
    "MIG-005",
    source({"a": A, "b": B}),
    [document(move("a", "b"), move("b", "a"))],
    {"a": B, "b": A},
)

PATTERNS: dict[str, tuple[str, Any, list[Document], Any]] = {
    "literal": ("Dots within keys, and slashes between them.", {"a.b": A}, [move("a.b", "c/d.e")], {"c": {"d.e": A}}),
    "dot-is-no-slash": (
        "A dot in a pattern does not match a border between keys.",
        {"a": {"b": A}, "a.b": B},
        [move("a.b", "x")],
        {"a": {"b": A}, "x": B},
    ),
    "whole": (
        "A pattern matches whole paths, never a part.",
        {"a": A, "ab": B, "a.b": C},
        [move("a", "x")],
        {"x": A, "ab": B, "a.b": C},
    ),
    "int-key": (
        "A literal of digits alone is an int key.",
        {"a": {0: A, "0": B}},
        [move("a/0", "x")],
        {"x": A, "a": {"0": B}},
    ),
    "array": (
        "In an array of keys a str is a str, digits or not.",
        {"a": {0: A, "0": B}},
        [move([["a", "0"]], "x")],
        {"x": B, "a": {0: A}},
    ),
    "array-slash": (
        "In an array of keys a slash means itself.",
        {"a/b": {0: A, "n": 1}, "a": {"b": [B]}},
        [move([["a/b", 0]], "x")],
        {"a/b": {"n": 1}, "a": {"b": [B]}, "x": A},
    ),
    "name": (
        "A capture stands for one str segment.",
        {"q.w": A, "k.w": B, "k.v.w": C},
        [move("{name}.w", "{name}/k")],
        {"q": {"k": A}, "k": {"k": B}, "k.v.w": C},
    ),
    "one-of": (
        "A capture of one of several texts.",
        {"attn.w": A, "mlp.w": B, "moe.w": C},
        [move("{b:attn|mlp}.w", "{b}.k")],
        {"attn.k": A, "mlp.k": B, "moe.w": C},
    ),
    "int": (
        "Numbers within keys become positions; one with a leading zero is no number.",
        {"h.0.w": A, "h.1.w": B, "h.01.w": C},
        [move("h.{i:int}.w", "h/{i}/w")],
        {"h": [{"w": A}, {"w": B}], "h.01.w": C},
    ),
    "int-whole-key": (
        "A number that is a whole key is an int key, not a str of digits.",
        {"h": {5: A, "5": B}},
        [move("h/{i:int}", "n/{i}")],
        {"n": {5: A}, "h": {"5": B}},
    ),
    "digits": (
        "A number that is a str where it is a whole key.",
        {"h": {"5": A, 5: B}},
        [move("h/{i:digits}", "n/{i}")],
        {"n": {"5": A}, "h": {5: B}},
    ),
    "bounds": (
        "A number within bounds, both of which belong to it.",
        {"h.0": A, "h.1": B, "h.2": C},
        [move("h.{i:0..1}", "n.{i}")],
        {"n.0": A, "n.1": B, "h.2": C},
    ),
    "arithmetic": (
        "A target may be a function of a number.",
        {"h.0": A, "h.1": B},
        [move("h.{i:int}", "h.{2*i+1}")],
        {"h.1": A, "h.3": B},
    ),
    "arithmetic-source": (
        "A function of a number does not match where the number would not be whole, or negative.",
        {"h.0": A, "h.1": B, "h.2": C, "h.3": D},
        [move("h.{2*i+1:int}", "odd.{i}")],
        {"odd.0": B, "odd.1": D, "h.0": A, "h.2": C},
    ),
    "minus": (
        "A function may subtract.",
        {"h.1": A, "h.2": B, "h.0": C},
        [move("h.{i+1:int}", "n.{i}")],
        {"n.0": A, "n.1": B, "h.0": C},
    ),
    "literal-number": (
        "A number after a literal, in one segment.",
        {"Dense_0": {"kernel": A}, "Dense_1": {"kernel": B}, "Dense_": {"kernel": C}},
        [move("Dense_{i:int}/kernel", "dense/{i}/w")],
        {"dense": [{"w": A}, {"w": B}], "Dense_": {"kernel": C}},
    ),
    "rest": (
        "One or more segments, with what separates them.",
        {"a": {"b.c": {"w": A}, "w": B}, "x": C},
        [move("a/{rest:**}/w", "z/{rest}")],
        {"z": {"b.c": A}, "a": {"w": B}, "x": C},
    ),
    "rest-whole": (
        "`**` alone takes every path.",
        {"a": [A, {"b": B}]},
        [move("{rest:**}", "model/{rest}")],
        {"model": {"a": [A, {"b": B}]}},
    ),
    "braces": (
        "Doubled braces stand for themselves.",
        {"{x}": A, "x": B},
        [move("{{x}}", "y{{}}")],
        {"y{}": A, "x": B},
    ),
    "quoted": (
        "A key in quotes is a str key, read as in an array; one of digits alone is an int.",
        {"v": {"0": A, 0: B, "a/b": C, "x.y": D}},
        [move("v/'0'", 'w/"1"'), move("v/0", "w/1"), move("v/'a/b'", "v/'b/a'"), move("v/'x.{s}'", "'x/0'/{s}")],
        {"w": {"1": A, 1: B}, "v": {"b/a": C}, "x/0": {"y": D}},
    ),
    "root": ("The empty pattern is the root.", A, [move("", "x")], {"x": A}),
}
for _name, (_title, _tree, _rules, _result) in PATTERNS.items():
    migrated(
        f"migrate-pattern-{_name}",
        _title,
        "MIG-003 MIG-011",
        source(_tree),
        [document(*_rules, rest="keep")],
        _result,
    )

CONTAINERS: dict[str, tuple[str, Any, list[Document], Any]] = {
    "tuple": (
        "A tuple stays one where its keys allow.",
        {"a": (A, B), "b": (C, D)},
        [move("a/{i:int}", "a/{i+0}"), move("b/0", "b/0"), move("b/1", "b/x")],
        {"a": (A, B), "b": {0: C, "x": D}},
    ),
    "list": (
        "Keys 0, 1, 2 … of a new container make a list, others a dict.",
        {"a.0": A, "a.1": B, "b.1": C, "b.2": D},
        [move("a.{i:int}", "a/{i}"), move("b.{i:int}", "b/{i}")],
        {"a": [A, B], "b": {1: C, 2: D}},
    ),
    "dict": (
        "A dict with int keys stays a dict.",
        {"a": {0: A, 1: B}},
        [move("a/{i:int}", "a/{i+0}")],
        {"a": {0: A, 1: B}},
    ),
    "emptied": (
        "A container that has lost all its leaves is gone; one that was empty stays.",
        {"a": {"b": [A]}, "empty": [{}, ()], "c": (B,)},
        [move("a/b/0", "x"), move("c/0", "c/0")],
        {"x": A, "empty": [{}, ()], "c": (B,)},
    ),
    "plain": (
        "Plain values are moved, aliased and dropped, and stay where no rule takes them.",
        {"a": A, "moved": 1, "copied": "x", "dropped": None, "stays": [2.5, (True,)]},
        [
            move("a", "a"),
            move("moved", "to/here"),
            move("copied", "again", {"op": "alias"}),
            move("dropped", [], {"op": "drop"}),
        ],
        {"a": A, "to": {"here": 1}, "copied": "x", "again": "x", "stays": [2.5, (True,)]},
    ),
}
for _name, (_title, _tree, _rules, _result) in CONTAINERS.items():
    migrated(
        f"migrate-container-{_name}",
        _title,
        "MIG-015 MIG-011",
        source(_tree),
        [document(*_rules)],
        _result,
        loss="irreversible" if _name == "plain" else "exact",
    )
migrated(
    "migrate-order",
    "Leaves stand in the order of their first sources.",
    "MIG-015",
    source({"z": A, "y": B, "a": C}),
    [document(move("a", "m"), move("z", "n"), move("y", "o"))],
    {"n": A, "o": B, "m": C},
    level="should",
    ordered=True,
)
migrated(
    "migrate-aliases",
    "Aliases stay aliases where they pass through the same operators; a copy is a tensor of its own.",
    "MIG-015",
    source({"wte": W, "head": W, "z": A}),
    [
        document(
            move("{name:wte|head}", "{name}.w", TURN),
            move("z", "z"),
            move("z", "y", {"op": "alias"}),
            move("z", "x", {"op": "copy"}),
        )
    ],
    {"wte.w": TURNED, "head.w": TURNED, "z": A, "y": A, "x": tensor("int8", (2,), "a")},
)
migrated(
    "migrate-at",
    "Paths are relative to `at`; what lies outside stays.",
    "MIG-011",
    source({"model": {"a": A}, "a": B}),
    [document(move("a", "b"), at="model")],
    {"model": {"b": A}, "a": B},
)
migrated(
    "migrate-optional",
    "A rule that may match nothing.",
    "MIG-004",
    source({"a": A}),
    [document(move("a", "b"), move("bias", "beta", optional=True))],
    {"b": A},
)

# ---- operators

_bf16 = {0x3F808000: 0x3F80, 0x3F818000: 0x3F82, 0x3F808001: 0x3F81, 0x7F7FFFFF: 0x7F80, 0x80000000: 0x8000}
_bf16 |= {0x7FC12345: 0x7FC1, 0xFF812345: 0xFF81, 0x7F800001: 0x7FC0, 0x7F800000: 0x7F80}
OPERATORS: dict[str, tuple[str, str, Any, list[Document], Any, str]] = {
    "stack": (
        "Tensors that are gathered become one with a new axis.",
        "MIG-006",
        {"e.0": A, "e.1": B},
        [move("e.{i:int}", "e", {"op": "stack", "axis": 0})],
        {"e": Tensor("int8", (2, 2), A.data + B.data)},
        "exact",
    ),
    "stack-axis-1": (
        "A new axis may come last; tensors are gathered by number, not by place.",
        "MIG-006",
        {"l.0.e.10": ints(7, 8), "l.0.e.2": ints(3, 4), **{f"l.0.e.{i}": ints(i, -i) for i in (0, 1, *range(3, 10))}},
        [move("l.{l:int}.e.{i:int}", "l.{l}.e", {"op": "stack", "axis": 1})],
        {"l.0.e": ints(*(0, 1, 3, 3, 4, 5, 6, 7, 8, 9, 7), *(0, -1, 4, -3, -4, -5, -6, -7, -8, -9, 8), shape=(2, 11))},
        "exact",
    ),
    "unstack": (
        "A tensor is scattered.",
        "MIG-006",
        {"e": W},
        [move("e", "e.{i:int}", {"op": "unstack", "axis": 1})],
        {"e.0": ints(1, 4), "e.1": ints(2, 5), "e.2": ints(3, 6)},
        "exact",
    ),
    "gather-scatter": (
        "A list passes through an operator for each of its tensors.",
        "MIG-006",
        {"e.0": floats(1, -2), "e.1": floats(3, 0)},
        [move("e.{i:int}", "f.{j:int}", {"op": "neg"})],
        {"f.0": floats(-1, 2), "f.1": floats(-3, -0.0)},
        "exact",
    ),
    "concat": (
        "Tensors joined along axis 1.",
        "MIG-004",
        {"q": ints(1, 2, shape=(2, 1)), "kv": ints(3, 4, 5, 6, shape=(2, 2))},
        [move(["q", "kv"], "qkv", {"op": "concat", "axis": 1, "sizes": [1, 2]})],
        {"qkv": ints(1, 3, 4, 2, 5, 6, shape=(2, 3))},
        "exact",
    ),
    "split": (
        "A tensor cut along axis 1.",
        "MIG-004",
        {"qkv": W},
        [move("qkv", ["q", "kv"], {"op": "split", "axis": 1, "sizes": [1, 2]})],
        {"q": ints(1, 4, shape=(2, 1)), "kv": ints(2, 3, 5, 6, shape=(2, 2))},
        "exact",
    ),
    "rearrange-transpose": ("A transpose.", "MIG-007", {"w": W}, [move("w", "w", TURN)], {"w": TURNED}, "exact"),
    "rearrange-heads": (
        "Axes are split, ordered and joined, as for rotary embeddings.",
        "MIG-007",
        {"w": ints(*range(8))},
        [move("w", "w", {"op": "rearrange", "pattern": "(h two d) -> (h d two)", "axes": {"h": 2, "two": 2}})],
        {"w": ints(0, 2, 1, 3, 4, 6, 5, 7)},
        "exact",
    ),
    "cast-bfloat16": (
        "float32 to bfloat16: ties to even; NaNs keep their sign and the high bits of their payload.",
        "MIG-004",
        {"w": words(*_bf16)},
        [move("w", "w", {"op": "cast", "from": "float32", "dtype": "bfloat16"})],
        {"w": ints(*_bf16.values(), dtype="bfloat16")},
        "lossy",
    ),
    "cast-float64": (
        "float32 to float64 is exact.",
        "MIG-014",
        {"w": words(0x3F800000, 0x80000000, 0x7F800001, 0xFFC12345)},
        [move("w", "w", {"op": "cast", "from": "float32", "dtype": "float64"})],
        {
            "w": Tensor(
                "float64",
                (4,),
                struct.pack("<4Q", 0x3FF << 52, 1 << 63, 0x7FF << 52 | 1 << 29, 0xFFF << 52 | 0x412345 << 29),
            )
        },
        "exact",
    ),
    "cast-wraps": (
        "Ints wrap; without `from` a cast cannot be run backwards.",
        "MIG-014",
        {"w": ints(300, -129, 127)},
        [move("w", "w", {"op": "cast", "dtype": "int8"})],
        {"w": ints(44, 127, 127, dtype="int8")},
        "irreversible",
    ),
    "cast-ints": (
        "From an int type to one that holds all its values.",
        "MIG-014",
        {"w": ints(-128, 127, dtype="int8")},
        [move("w", "w", {"op": "cast", "from": "int8", "dtype": "int32"})],
        {"w": ints(-128, 127)},
        "exact",
    ),
    "slice": (
        "An axis without its first and last elements.",
        "MIG-014",
        {"w": W},
        [move("w", "w", {"op": "slice", "axis": 1, "before": 1, "after": 1})],
        {"w": ints(2, 5, shape=(2, 1))},
        "irreversible",
    ),
    "pad": (
        "An axis with further elements.",
        "MIG-014",
        {"w": W},
        [move("w", "w", {"op": "pad", "axis": 0, "before": 1, "after": 0, "value": -7})],
        {"w": ints(-7, -7, -7, 1, 2, 3, 4, 5, 6, shape=(3, 3))},
        "exact",
    ),
    "neg": (
        "The other sign bit, also of zeros and NaNs.",
        "MIG-014",
        {"w": words(0x3F800000, 0x00000000, 0x7F800001, 0xFF800000)},
        [move("w", "w", {"op": "neg"})],
        {"w": words(0xBF800000, 0x80000000, 0xFF800001, 0x7F800000)},
        "exact",
    ),
    "scale-add": (
        "Floats are scaled and added to in binary64.",
        "MIG-014",
        {"w": floats(1, -3)},
        [move("w", "w", {"op": "scale", "by": 0.5}, {"op": "add", "value": 0.25})],
        {"w": floats(0.75, -1.25)},
        "lossy",
    ),
    "fill": (
        "A new tensor of one value; one like another, which is kept.",
        "MIG-008",
        {"w": W},
        [
            move("w", "w"),
            move("w", "like", {"op": "fill", "value": 9}),
            move([], "new", {"op": "fill", "value": 0.5, "shape": [2, 1], "dtype": "float32"}),
        ],
        {"w": W, "like": ints(*[9] * 6, shape=(2, 3)), "new": Tensor("float32", (2, 1), struct.pack("<2f", 0.5, 0.5))},
        "exact",
    ),
    "drop": (
        "A tensor is dropped.",
        "MIG-008",
        {"a": A, "b": B},
        [move("a", "a"), move("b", [], {"op": "drop"})],
        {"a": A},
        "irreversible",
    ),
    "on": (
        "An operator for one of the items alone.",
        "MIG-004",
        {"a": floats(1), "b": floats(2)},
        [move(["a", "b"], "c", {"op": "neg", "on": [1]}, {"op": "concat", "axis": 0, "sizes": [1, 1]})],
        {"c": floats(1, -2)},
        "exact",
    ),
}
for _name, (_title, _spec, _tree, _rules, _result, _loss) in OPERATORS.items():
    migrated(f"migrate-op-{_name}", _title, _spec, source(_tree), [document(*_rules)], _result, loss=_loss)
migrated(
    "migrate-extern",
    "A function that the program registers.",
    "MIG-009",
    source({"w": W}),
    [document(move("w", "w", {"op": "extern", "name": EXTERN}))],
    {"w": ints(4, 5, 6, 1, 2, 3, shape=(2, 3))},
    needs=["extern"],
)
