"""Migrations of schemas: documents, patterns, operators, plans, and what comes out of them. SPEC.md section 20.

What a migration gives is worked out here, from the values of its source.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

from ..build import Checkpoint
from ..cases import INPUT, Case
from ..model import Tensor, tensor
from ..provenance import document_digest
from . import FORMAT, SINCE, Entry, add, edit, plain, valid, value_of

Document = dict[str, Any]
RESULT = "MIG-017 MIG-018 MIG-019"  # what is checked of every result
EXTERN = "conformance.reverse@1"


def ints(*values: int, shape: tuple[int, ...] | None = None, dtype: str = "int32") -> Tensor:
    code = {"int8": "b", "int32": "i", "uint16": "H", "bfloat16": "H"}[dtype]
    return Tensor(dtype, shape or (len(values),), struct.pack(f"<{len(values)}{code}", *values))


def floats(*values: float, dtype: str = "float32") -> Tensor:
    return Tensor(dtype, (len(values),), struct.pack(f"<{len(values)}{'f' if dtype == 'float32' else 'd'}", *values))


def words(*values: int) -> Tensor:
    """Elements of float32 by their bits."""
    return Tensor("float32", (len(values),), struct.pack(f"<{len(values)}I", *values))


def move(source: Any, target: Any, *operators: Document, **more: Any) -> Document:
    """A rule."""
    return {"from": source, **({"with": list(operators)} if operators else {}), "to": target, **more}


def document(*rules: Document, start: str = "1", end: str = "2", **more: Any) -> Document:
    return {"ckptfmt_migration": 1, "schema": "s", "from": start, "to": end, "rules": list(rules), **more}


def raw(text: str | bytes) -> Document:
    """A file of migrations that is written as it stands."""
    return {"hex": (text.encode() if isinstance(text, str) else text).hex()}


def link(
    made: Document, loss: str = "exact", *, inverse: bool = False, parameters: dict[str, int] | None = None
) -> Document:
    """One step of the chain that a result records. [MIG-017]"""
    start, end = (made["to"], made["from"]) if inverse else (made["from"], made["to"])
    record = {"from": start, "to": end, "document": document_digest(made).hex(), "inverse": inverse, "class": loss}
    return {**record, "parameters": parameters or {}}


def migrated(
    identity: str,
    title: str,
    spec: str,
    source: Checkpoint,
    documents: list[Any],
    result: Any,
    chain: list[Document] | None = None,
    *,
    needs: Iterable[str] = (),
    level: str = "must",
    to: str = "2",
    loss: str = "exact",
    ordered: bool = False,
    **options: Any,
) -> None:
    """A checkpoint that is migrated. `result`: the tree that comes out; `chain`: the steps that it records, by default
    all documents; `loss`: the class of the chain."""
    operation = {"op": "migrate", "migrations": documents, "to": to, **options}
    chain = [link(one, loss) for one in documents] if chain is None else chain
    expect: dict[str, Any] = {"tree": value_of(result), "metadata": source.values()[1]}
    expect |= {"schema": {"id": "s", "version": to}, "class": loss, "chain": chain}
    if ordered:
        expect["ordered"] = True
    features = ["migrate", *needs, *source.features()]
    statements = list(dict.fromkeys(f"{spec} {RESULT}".split()))
    case = Case(identity, title, statements, level, features, SINCE, FORMAT, {"path": INPUT}, operation, expect)
    add(Entry(case, source.build()))


def refused(
    identity: str,
    title: str,
    spec: str,
    documents: list[Any],
    codes: str,
    *,
    base: str = "migrate-move",
    steps: Iterable[Document] = (),
    faults: int | None = None,
    needs: Iterable[str] = (),
    to: str = "2",
    **options: Any,
) -> None:
    """A migration of the input of the case `base` that must be refused, without leaving anything. `faults`: how many
    have to be reported together, at least."""
    expect: dict[str, Any] = {"error": {"any_of": codes.split()}} | ({} if faults is None else {"faults": faults})
    source = {"mutation": {"base": base, "steps": list(steps)}, "generated": True}
    operation = {"op": "migrate", "migrations": documents, "to": to, **options}
    needs = ["migrate", *needs, "layout:file", "digest:sha256"]
    plain(identity, title, f"{spec} MIG-019", source, operation, expect, needs=needs)


def source(tree: Any, version: str = "1", **options: Any) -> Checkpoint:
    return Checkpoint(tree, schema=("s", version), **options)


A, B, C, D = (tensor("int8", (2,), seed) for seed in "abcd")
W = ints(1, 2, 3, 4, 5, 6, shape=(2, 3))

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
_turn = {"op": "rearrange", "pattern": "a b -> b a"}
_turned = ints(1, 4, 2, 5, 3, 6, shape=(3, 2))
migrated(
    "migrate-aliases",
    "Aliases stay aliases where they pass through the same operators; a copy is a tensor of its own.",
    "MIG-015",
    source({"wte": W, "head": W, "z": A}),
    [
        document(
            move("{name:wte|head}", "{name}.w", _turn),
            move("z", "z"),
            move("z", "y", {"op": "alias"}),
            move("z", "x", {"op": "copy"}),
        )
    ],
    {"wte.w": _turned, "head.w": _turned, "z": A, "y": A, "x": tensor("int8", (2,), "a")},
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
    "rearrange-transpose": ("A transpose.", "MIG-007", {"w": W}, [move("w", "w", _turn)], {"w": _turned}, "exact"),
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

_up = {"op": "cast", "from": "float32", "dtype": "float64"}
_companions = document(
    move("a", "b", _up, {"op": "pad", "axis": 0, "before": 0, "after": 1, "value": 9}),
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

_one, _two = document(move("a", "b")), document(move("b", "c"), start="2", end="3")
migrated(
    "migrate-chain",
    "A chain of two; documents of other schemas and beside the way do not matter.",
    "MIG-012",
    source({"a": A}),
    [[_two, _one], {**_one, "schema": "t"}, document(start="2", end="x"), document(start="2", end="1")],
    {"c": A},
    [link(_one), link(_two)],
    to="3",
)
migrated(
    "migrate-chain-loses",
    "The class of a chain is that of its worst step.",
    "MIG-014 MIG-012",
    source({"a": floats(1)}),
    [document(move("a", "b", {"op": "scale", "by": 2})), _two],
    {"c": floats(2)},
    [link(document(move("a", "b", {"op": "scale", "by": 2})), "lossy"), link(_two)],
    to="3",
    loss="lossy",
)
_there = document(
    move("e.{i:int}", "e", {"op": "stack", "axis": 0}),
    move(["q", "k"], "qk", {"op": "concat", "axis": 0, "sizes": [1, 2]}),
    move("t", "t", _turn),
    move("f", "f", _up),
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
    **{"e": Tensor("int8", (2, 2), A.data + B.data), "qk": ints(1, 2, 3), "t": _turned, "p": ints(0, 5, 0), "s": C},
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

# ---- documents that break the specification

_rule = move("a", "b")
DOCUMENTS: dict[str, tuple[str, str, Any]] = {
    "version": ("A version of the form that is not 1.", "MIG-001", {**document(_rule), "ckptfmt_migration": 2}),
    "version-missing": (
        "Without the version of the form.",
        "MIG-001",
        {k: v for k, v in document(_rule).items() if k != "ckptfmt_migration"},
    ),
    "no-rules": ("Without rules.", "MIG-001", {k: v for k, v in document(_rule).items() if k != "rules"}),
    "no-schema": ("Without a schema.", "MIG-001", {k: v for k, v in document(_rule).items() if k != "schema"}),
    "further-key": ("A key that the table does not have.", "MIG-001", document(_rule, author="x")),
    "same-versions": ("Two versions that do not differ.", "MIG-001", document(_rule, end="1")),
    "empty-schema": ("An empty schema.", "MIG-001", {**document(_rule), "schema": ""}),
    "empty-version": ("An empty version.", "MIG-001", document(_rule, start="")),
    "version-number": ("A version that is a number.", "MIG-001", {**document(_rule), "to": 2}),
    "rules-map": ("Rules that are a map.", "MIG-001", {**document(), "rules": {"a": "b"}}),
    "rest": ("Another word for the rest.", "MIG-001", document(_rule, rest="drop")),
    "companions": ("Companions that are a text.", "MIG-001", document(_rule, companions="m")),
    "companions-capture": ("A companion with a capture.", "MIG-001", document(_rule, companions=["{m}"])),
    "at-capture": ("An `at` with a capture.", "MIG-001", document(_rule, at="{model}")),
    "parameter-negative": ("A negative parameter.", "MIG-001", document(_rule, parameters={"n": -1})),
    "parameter-text": ("A parameter that is a text.", "MIG-001", document(_rule, parameters={"n": "2"})),
    "parameter-map": ("A parameter with a further key.", "MIG-001", document(_rule, parameters={"n": {"env": "N"}})),
    "rule-text": ("A rule that is a text.", "MIG-004", document("a")),  # type: ignore[arg-type]
    "rule-no-to": ("A rule without `to`.", "MIG-004", document({"from": "a"})),
    "rule-key": ("A rule with a further key.", "MIG-004", document({**_rule, "via": "c"})),
    "rule-number": ("A source that is a number.", "MIG-004", document(move(3, "b"))),
    "rule-with": ("Operators that are a map.", "MIG-004", document({**_rule, "with": {"op": "neg"}})),
    "rule-optional": ("`optional` that is a number.", "MIG-004", document({**_rule, "optional": 1})),
    "operator-unknown": ("An unknown operator.", "MIG-004", document(move("a", "b", {"op": "exec"}))),
    "operator-none": ("A map without `op`.", "MIG-004", document(move("a", "b", {}))),
    "operator-key": ("An operator with a further key.", "MIG-004", document(move("a", "b", {"op": "neg", "axis": 0}))),
    "operator-key-missing": ("An operator without a key.", "MIG-004", document(move("a", "b", {"op": "stack"}))),
    "operator-axis": ("A negative axis.", "MIG-004", document(move("a", "b", {"op": "unstack", "axis": -1}))),
    "operator-dtype": ("An unknown dtype.", "MIG-004", document(move("a", "b", {"op": "cast", "dtype": "float12"}))),
    "operator-scale": ("A scale of 0.", "MIG-004", document(move("a", "b", {"op": "scale", "by": 0}))),
    "operator-size": (
        "A size that is a float.",
        "MIG-004",
        document(move("a", ["b"], {"op": "split", "axis": 0, "sizes": [1.5]})),
    ),
    "operator-size-text": (
        "A size that calls a function.",
        "MIG-004",
        document(move("a", ["b"], {"op": "split", "axis": 0, "sizes": ["len(x)"]})),
    ),
    "pattern-brace": ("A brace that is not closed.", "MIG-003", document(move("{a", "b"))),
    "pattern-closing": ("A closing brace alone.", "MIG-003", document(move("a}", "b"))),
    "pattern-beside": ("A capture with a literal after it.", "MIG-003", document(move("{a}b", "{a}"))),
    "pattern-text-number": ("A text capture after a literal.", "MIG-003", document(move("x{a}", "{a}"))),
    "pattern-upper": ("A capture in upper case.", "MIG-003", document(move("{A}", "{A}"))),
    "pattern-repeat": ("A capture twice in a pattern.", "MIG-003", document(move("{a}.{a}", "{a}.{a}"))),
    "pattern-kinds": ("A capture declared in two ways.", "MIG-003", document(move("a.{i:int}", "b.{i:digits}"))),
    "pattern-two-rests": ("Two `**`.", "MIG-003", document(move("{a:**}.{b:**}", "{a}.{b}"))),
    "pattern-float": ("A key that is a float.", "MIG-003", document(move([["a", 1.5]], "b"))),
    "capture-missing": ("A target lacks a capture.", "MIG-006", document(move("l.{name}", "m"))),
    "capture-two-numbers": (
        "Two further numbers in a source.",
        "MIG-006",
        document(move("l.{i:int}.{j:int}", "m", {"op": "stack", "axis": 0})),
    ),
    "capture-one-side": (
        "A source lacks a capture that tells instances apart.",
        "MIG-006",
        document(move(["l.{i:int}.q", "k"], "l.{i}.qk", {"op": "concat", "axis": 0, "sizes": [1, 1]})),
    ),
    "rearrange-lost": (
        "An axis on one side alone.",
        "MIG-007",
        document(move("a", "b", {"op": "rearrange", "pattern": "x y -> x"})),
    ),
    "rearrange-twice": (
        "An axis twice.",
        "MIG-007",
        document(move("a", "b", {"op": "rearrange", "pattern": "x x -> x x"})),
    ),
    "rearrange-open": (
        "A parenthesis that is not closed.",
        "MIG-007",
        document(move("a", "b", {"op": "rearrange", "pattern": "x (y -> x y"})),
    ),
    "rearrange-axes": (
        "The size of an axis that is not there.",
        "MIG-007",
        document(move("a", "b", {"op": "rearrange", "pattern": "x y -> y x", "axes": {"z": 1}})),
    ),
    "rearrange-name": (
        "An axis that begins with a digit.",
        "MIG-007",
        document(move("a", "b", {"op": "rearrange", "pattern": "1x y -> y 1x"})),
    ),
    "copy-late": (
        "A copy that does not stand first.",
        "MIG-008",
        document(move("a", "b", {"op": "neg"}, {"op": "copy"})),
    ),
    "no-source": ("A rule without sources that does not fill.", "MIG-008", document(move([], "b", {"op": "neg"}))),
    "no-target": ("A rule without targets that does not drop.", "MIG-008", document(move("a", []))),
    "drop-target": ("A drop with a target.", "MIG-008", document(move("a", "b", {"op": "drop"}))),
    "drop-early": (
        "A drop that does not stand last.",
        "MIG-008",
        document(move("a", [], {"op": "drop"}, {"op": "neg"})),
    ),
}
for _name, (_title, _spec, _made) in DOCUMENTS.items():
    refused(f"migrate-bad-{_name}", _title, _spec, [_made], "bad-migration")
for _name in ("os.system", "builtins.eval", "numpy.load", "conformance.reverse@2"):
    refused(
        f"migrate-bad-extern-{_name.replace('.', '-').replace('@', '-')}",
        f"{_name} is no function that the program registered: nothing is looked up.",
        "MIG-009 SEC-001",
        [document(move("a", "b", {"op": "extern", "name": _name}))],
        "unknown-extern",
    )
refused(
    "migrate-bad-items",
    "Two items and one target.",
    "MIG-004",
    [document(move("a", "b", {"op": "split", "axis": 1, "sizes": [1, 2]}))],
    "bad-migration migration-mismatch",
)

# ---- faults of plans

_also = move("a", "d", {"op": "alias"})
FAULTS: dict[str, tuple[str, str, list[Document], dict[str, Any], int]] = {
    "left": ("A tensor that no rule takes.", "MIG-011", [], {}, 1),
    "no-match": ("A rule that matches nothing.", "MIG-011", [move("a", "b"), move("x", "y")], {}, 1),
    "consumed-twice": ("A tensor that two rules take.", "MIG-011", [move("a", "b"), move("{n:a}", "c.{n}")], {}, 1),
    "produced-twice": (
        "A path that two rules produce.",
        "MIG-011",
        [move("a", "b"), move("a", "b", {"op": "copy"})],
        {},
        1,
    ),
    "below": (
        "A target below another.",
        "MIG-011",
        [move("a", "b"), move("a", "b/c", {"op": "copy"})],
        {},
        1,
    ),
    "produced-and-kept": (
        "A target where a plain value stays.",
        "MIG-011",
        [move("a", "n")],
        {},
        1,
    ),
    "parameter": ("A parameter without value.", "MIG-010", [move("a", "b")], {"parameters": {"n": None}}, 1),
    "parameter-metadata": (
        "A parameter whose metadata are no unsigned int.",
        "MIG-010",
        [move("a", "b")],
        {"parameters": {"n": {"metadata": "config"}}},
        1,
    ),
    "cast": ("A cast from another dtype.", "MIG-013", [move("a", "b", _up)], {}, 1),
    "axis": (
        "An axis that is not there.",
        "MIG-013",
        [move("a", "b", {"op": "slice", "axis": 2, "before": 1, "after": 0})],
        {},
        1,
    ),
    "slice": (
        "A slice of more than there is.",
        "MIG-013",
        [move("a", "b", {"op": "slice", "axis": 0, "before": 2, "after": 1})],
        {},
        1,
    ),
    "sizes": (
        "Sizes whose sum is not the axis.",
        "MIG-013",
        [move("a", ["b", "c"], {"op": "split", "axis": 1, "sizes": [1, 1]})],
        {},
        1,
    ),
    "division": (
        "A division with a remainder.",
        "MIG-010",
        [move("a", ["b", "c"], {"op": "split", "axis": 1, "sizes": ["3/2", 2]})],
        {},
        1,
    ),
    "rearrange": (
        "A pattern of another rank.",
        "MIG-007",
        [move("a", "b", {"op": "rearrange", "pattern": "x -> x"})],
        {},
        1,
    ),
    "rearrange-sizes": (
        "Two sizes in one axis that cannot be told.",
        "MIG-007",
        [move("a", "b", {"op": "rearrange", "pattern": "(x y) z -> x y z"})],
        {},
        1,
    ),
    "neg-ints": ("The sign bit of ints.", "MIG-013", [move("a", "b", {"op": "neg"})], {}, 1),
    "plain": ("An operator for a plain value.", "MIG-011", [move("a", "a"), move("n", "m", {"op": "neg"})], {}, 1),
    "together": (
        "Faults are reported all together.",
        "MIG-013",
        [move("x", "y"), move("a", "b", {"op": "rearrange", "pattern": "x -> x"})],
        {"parameters": {"n": None}},
        3,
    ),
}
for _name, (_title, _spec, _rules, _more, _count) in FAULTS.items():
    refused(
        f"migrate-fault-{_name}",
        _title,
        _spec,
        [document(*_rules, **_more)],
        "migration-mismatch",
        faults=_count,
    )
refused(
    "migrate-fault-gap",
    "Numbers with a gap cannot be gathered.",
    "MIG-006",
    [document(move("h.{i:int}", "h", {"op": "stack", "axis": 0}), rest="keep")],
    "migration-mismatch",
    base="migrate-pattern-minus",
    steps=edit("/tree/1/2", "h.7"),
    faults=1,
)
refused(
    "migrate-fault-companion",
    "An operator that has no form for companions.",
    "MIG-016",
    [document(move("a", "a", {"op": "neg"}), move("c", "c"), at="model", companions=["m"])],
    "migration-mismatch",
    base="migrate-companions",
    faults=1,
)
refused(
    "migrate-fault-first-document",
    "Of a chain, the first document that does not fit is reported.",
    "MIG-013 MIG-012",
    [document(move("a", "b")), document(move("x", "y"), move("b", "b"), start="2", end="3")],
    "migration-mismatch",
    to="3",
    faults=1,
)
refused(
    "migrate-fault-before-reading",
    "A plan's faults are found before any tensor is read, damaged ones too.",
    "MIG-013",
    [document(move("x", "y"), move("a", "b"))],
    "migration-mismatch",
    steps=[{"do": "flip_bit", "at": {"region": {"tensor": ["a"], "chunk": 0}, "offset": 3}, "bit": 0}],
    faults=1,
)
refused(
    "migrate-damaged",
    "Damage is no migration: nothing is written.",
    "BLK-004 PUB-007",
    [document(move("a", "b"))],
    "block-digest",
    steps=[{"do": "flip_bit", "at": {"region": {"tensor": ["a"], "chunk": 0}, "offset": 3}, "bit": 0}],
)

# ---- chains that are refused

CHAINS: dict[str, tuple[str, str, list[Document], str, dict[str, Any]]] = {
    "none": ("No chain leads there.", "MIG-012", [_one], "no-migration", {"to": "3"}),
    "no-documents-of-schema": (
        "Documents of another schema.",
        "MIG-012",
        [{**_one, "schema": "t"}],
        "no-migration",
        {},
    ),
    "against-the-edge": (
        "An edge in the other direction.",
        "MIG-012",
        [document(start="2", end="1")],
        "no-migration",
        {},
    ),
    "two": (
        "Two chains lead there.",
        "MIG-012",
        [_one, document(start="1", end="3"), _two],
        "ambiguous-migration",
        {"to": "3"},
    ),
    "two-documents": (
        "Two documents for one step.",
        "MIG-012",
        [_one, document(move("a", "c"))],
        "ambiguous-migration",
        {},
    ),
}
for _name, (_title, _spec, _documents, _code, _more) in CHAINS.items():
    refused(f"migrate-chain-{_name}", _title, _spec, list(_documents), _code, **_more)
refused(
    "migrate-chain-no-schema",
    "A checkpoint without a schema has no version to start from.",
    "MIG-012",
    [_one],
    "no-migration",
    base="tree-base",
)
BACKWARDS: tuple[tuple[str, str, Document, Any, dict[str, Any]], ...] = (
    ("lossy", "A lossy chain backwards, unasked.", {"op": "scale", "by": 4}, "a", {}),
    ("irreversible", "A chain that drops something has no way back.", {"op": "drop"}, [], {"lossy": True}),
    ("cast", "A cast without `from` has no way back.", {"op": "cast", "dtype": "int8"}, "a", {"lossy": True}),
)
for _name, _title, _operator, _target, _options in BACKWARDS:
    refused(
        f"migrate-backwards-{_name}",
        _title,
        "MIG-014",
        [document(move("a", _target, _operator), start="0", end="1")],
        "irreversible-migration",
        to="0",
        down=True,
        **_options,
    )

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
