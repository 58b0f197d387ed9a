"""Trees: every value, its legal encodings, and what is no node. SPEC.md section 2."""

from __future__ import annotations

import math
import struct
from typing import Any

from ..build import Checkpoint
from ..model import Form, FormKey, Scalar, tensor
from ..packing import Literal, pack, pack_long
from . import edit, fault, remove, valid


def _float(bits: int) -> float:
    return float(struct.unpack(">d", struct.pack(">Q", bits))[0])


def _nested(depth: int, kind: Any = list) -> Any:
    tree: Any = kind()
    for _ in range(depth):
        tree = kind([tree])
    return tree


W = tensor("bfloat16", (2, 2))
B = tensor("bfloat16", (2,), "b")

# ---- plain values

VALUES: dict[str, tuple[str, str, Any]] = {
    "none-and-bools": ("None, true and false.", "TREE-001", {"none": None, "true": True, "false": False}),
    "ints": (
        "Integers of every msgpack form, and their limits.",
        "TREE-001",
        [
            0,
            1,
            -1,
            127,
            128,
            255,
            256,
            65535,
            65536,
            2**32 - 1,
            2**32,
            2**63,
            2**64 - 1,
            -32,
            -33,
            -128,
            -129,
            -32768,
            -32769,
            -(2**31),
            -(2**31) - 1,
            -(2**63),
        ],
    ),
    "large-ints": (
        "Integers beyond 64 bits, of both signs.",
        "TREE-001 TREE-003",
        [2**64, -(2**63) - 1, 2**127, -(2**127), 2**127 - 1, 10**100, -(10**100), 255 << 64, -(255 << 64)],
    ),
    "int-not-shortest": (
        "An `int` node need not be as short as it can be.",
        "TREE-003",
        [
            Form(["int", b"\x05"], 5),
            Form(["int", b"\x00\x00\x05"], 5),
            Form(["int", b"\xff\xff"], -1),
            Form(["int", b"\x00"], 0),
            Form(["int", b"\x80"], -128),
            Form(["int", b"\x00\x80"], 128),
        ],
    ),
    "floats": (
        "Floats keep all 64 bits: signed zeros, infinities, subnormals, NaN payloads.",
        "TREE-001",
        [
            0.0,
            -0.0,
            1.5,
            -math.pi,
            math.inf,
            -math.inf,
            5e-324,
            1.7976931348623157e308,
            _float(9221120237041090560),
            _float(18444492273895866369),
            _float(9222785842252087296),
        ],
    ),
    "complex-numbers": (
        "Complex numbers, with the signs of zeros and NaN.",
        "TREE-001 TREE-005",
        [1 + 2j, complex(-0.0, 0.0), complex(0.0, -0.0), complex(math.inf, math.nan)],
    ),
    "strings": (
        "Strings: empty, long, of every plane, with zeros and line feeds.",
        "TREE-001 TREE-015",
        ["", "a", "ü", "漢字", "😀", "\0", "line\nfeed", '"\\', "x" * 31, "x" * 32, "x" * 255, "x" * 256, "é" * 40000],
    ),
    "byte-strings": (
        "Bytes, which are not strings.",
        "TREE-001",
        [b"", b"\0", b"abc", bytes(range(256)), b"\xff" * 70000],
    ),
    "containers": (
        "Dict, list and tuple differ, also when they are empty, and nest.",
        "TREE-001 TREE-008",
        [{}, [], (), [[], ()], ({}, [{}]), {"a": {"b": ({"c": [1, (2,)]},)}}],
    ),
    "dict-order": (
        "A dict keeps its own order, not that of the alphabet.",
        "TREE-008",
        {"z": 1, "a": 2, "m": {"9": 0, "10": 1, "": 2}, "A": 3},
    ),
    "dict-int-keys": (
        "Integer keys and string keys are distinct.",
        "TREE-006 TREE-007",
        {0: "int", "0": "str", -1: "int", "-1": "str", 2**63: "a", 2**64: "b", -(2**80): "c", "": "empty"},
    ),
    "dict-key-not-shortest": (
        'A key `["int", bin]` need not be one that msgpack cannot hold.',
        "TREE-003 TREE-007",
        {FormKey(["int", b"\x05"], 5): "five", FormKey(["int", b"\x00\x00"], 0): "zero"},
    ),
    "many-keys": ("A dict of more than 65,535 bytes of keys.", "TREE-001", {f"key-{i:05}": i for i in range(3000)}),
    "deepest-list": ("Lists nested as deeply as is allowed.", "TREE-012", _nested(255)),
    "deepest-tuple": ("Tuples nested as deeply as is allowed.", "TREE-012", _nested(255, tuple)),
    "scalars": (
        "Scalars of dtypes whose elements fill bytes.",
        "TREE-001 TREE-005",
        {
            "bool": [Scalar("bool", b"\0"), Scalar("bool", b"\1")],
            "float32": Scalar("float32", struct.pack("<f", -0.0)),
            "int64": Scalar("int64", struct.pack("<q", -(2**63))),
            "complex128": Scalar("complex128", struct.pack("<2d", 1.0, -0.0)),
            "bfloat16": Scalar("bfloat16", b"\xc1\x7f"),
            "int4": Scalar("int4", b"\x0f"),
            "uint1": Scalar("uint1", b"\x01"),
        },
    ),
}
for _name, (_title, _spec, _tree) in VALUES.items():
    valid(f"tree-{_name}", _title, _spec, Checkpoint(_tree))
valid("tree-root-none", "The tree may be a plain value alone.", "TREE-001 ZARR-001", Checkpoint(None))
valid("tree-root-int", "The tree may be one integer.", "TREE-001", Checkpoint(42))
valid("tree-root-empty-dict", "The tree may be an empty dict.", "TREE-001", Checkpoint({}))
valid("tree-root-tensor", "The tree may be one tensor.", "TREE-001 NAME-005 ZARR-001", Checkpoint(W))
valid("tree-root-tensor-loose", "One tensor alone, in plain files.", "NAME-005 LAY-003", Checkpoint(W, layout="loose"))
valid(
    "tree-scalar-unused-bits",
    "Unused bits of a scalar below eight bits mean nothing.",
    "TREE-005 DTYPE-010",
    Checkpoint({"s": Form(["scalar", "int4", b"\xf7"], Scalar("int4", b"\x07")), "t": Scalar("uint2", b"\x02")}),
)
valid(
    "tree-scalar-high-bits",
    "The two high bits of a scalar of six bits mean nothing.",
    "DTYPE-010",
    Checkpoint(
        {name: Form(["scalar", name, b"\xc3"], Scalar(name, b"\x03")) for name in ("float6_e2m3fn", "float6_e3m2fn")}
    ),
)

# ---- tensors in the tree

TIED = tensor("float32", (3,), "tied")
valid(
    "tree-aliases",
    "Two nodes of one index are the same tensor.",
    "TREE-010",
    Checkpoint({"in": TIED, "mid": [TIED, (TIED, None)], "out": tensor("float32", (3,), "tied")}),
)
valid(
    "tree-aliases-list",
    "Aliases are seen without reading a tensor.",
    "TREE-010",
    Checkpoint({"in": TIED, "out": TIED, "other": tensor("float32", (3,), "tied")}),
    {"op": "list"},
    {"tree": Checkpoint({"in": TIED, "out": TIED, "other": tensor("float32", (3,), "tied")}).values()[0]},
)
_A, _B = tensor("int16", (3,), "a"), tensor("int32", (2,), "b")
valid(
    "tree-index-order",
    "Tensors may be numbered in any order.",
    "TREE-017 TREE-009",
    Checkpoint({"a": _A, "b": _B}, numbering=[_B, _A]),
)
_META = {"step": 7, "loss": 0.25, "note": "ü", "tuple": (1, [2]), "scalar": Scalar("float32", b"\0\0\x80?")}
valid(
    "tree-metadata",
    "Metadata is a tree of plain values of its own.",
    "TREE-014 MAN-002",
    Checkpoint({"w": W}, metadata=_META),
    {"op": "list"},
    {"tree": Checkpoint({"w": W}).values()[0], "metadata": Checkpoint(_META).values()[0]},
)
valid(
    "tree-paths-ambiguous",
    "Typed paths tell apart what one path text fits.",
    "TREE-006",
    Checkpoint({"a/b": 1, "a": {"b": 2}, "c": {0: tensor("int8", (1,), "x"), "0": tensor("int8", (1,), "y")}}),
)
for _key, _title in ((0, "int"), ("0", "str")):
    valid(
        f"tree-path-{_title}-key",
        f"A typed path with the {_title} key of two that look alike.",
        "TREE-006",
        Checkpoint({"c": {0: tensor("int8", (1,), "x"), "0": tensor("int8", (1,), "y")}}),
        {"op": "read", "path": ["c", "0" if _title == "str" else {"int": "0"}]},
    )
valid("tree-base", "A tree of values and two tensors.", "TREE-001", Checkpoint({"step": 7, "w": W, "b": B}))
valid(
    "tree-base-loose",
    "The same in plain files.",
    "TREE-001 LAY-002",
    Checkpoint({"step": 7, "w": W, "b": B}, layout="loose"),
)
fault(
    "tree-no-such-path",
    "A path that the tree does not have.",
    "ERR-001",
    "tree-base",
    [],
    "no-such-path",
    {"op": "read", "path": ["missing"]},
)
fault(
    "tree-no-such-typed-path",
    "An int key where the tree has none.",
    "ERR-001",
    "tree-base",
    [],
    "no-such-path",
    {"op": "read", "path": [{"int": "0"}]},
)

# ---- what is no node

BAD_NODES: dict[str, tuple[str, str, Any]] = {
    "array-empty": ("An empty array is no node.", "TREE-001", []),
    "array-unknown": ("An array that begins with an unknown word.", "TREE-001", ["set", [1]]),
    "array-no-word": ("An array that begins with a number.", "TREE-001", [1, 2]),
    "map": ("A map is no node.", "TREE-001", {"a": 1}),
    "int-extra": ("An `int` node of three elements.", "TREE-001", ["int", b"\x05", None]),
    "int-str": ("An `int` node with a string.", "TREE-001", ["int", "5"]),
    "int-empty": ("An `int` node with an empty bin.", "TREE-003", ["int", b""]),
    "int-missing": ("An `int` node without its bin.", "TREE-001", ["int"]),
    "complex-short": ("A `complex` of 15 bytes.", "TREE-005", ["complex", bytes(15)]),
    "complex-long": ("A `complex` of 17 bytes.", "TREE-005", ["complex", bytes(17)]),
    "complex-two": ("A `complex` of two numbers.", "TREE-001", ["complex", 1.0, 2.0]),
    "scalar-short": ("A `float32` scalar of 3 bytes.", "TREE-005", ["scalar", "float32", bytes(3)]),
    "scalar-long": ("A `float32` scalar of 5 bytes.", "TREE-005", ["scalar", "float32", bytes(5)]),
    "scalar-bool-2": ("A `bool` scalar that is 2.", "TREE-005", ["scalar", "bool", b"\2"]),
    "scalar-no-dtype": ("A scalar without a dtype.", "TREE-001", ["scalar", b"\0\0"]),
    "dict-lengths": ("A dict of two keys and one item.", "TREE-006", ["dict", ["a", "b"], [1]]),
    "dict-lengths-items": ("A dict of one key and two items.", "TREE-006", ["dict", ["a"], [1, 2]]),
    "dict-repeat": ("A dict that repeats a key.", "TREE-006", ["dict", ["a", "a"], [1, 2]]),
    "dict-repeat-int": (
        "Keys are compared by value, so 5 and its long form repeat.",
        "TREE-006",
        ["dict", [5, ["int", b"\x05"]], [1, 2]],
    ),
    "dict-repeat-long-int": (
        "Two long forms of one integer repeat a key.",
        "TREE-006",
        ["dict", [["int", b"\x05"], ["int", b"\x00\x05"]], [1, 2]],
    ),
    "dict-key-bool": ("A bool as key.", "TREE-007", ["dict", [True], [1]]),
    "dict-key-false-zero": ("A bool is no integer key, also beside 0.", "TREE-007", ["dict", [0, False], [1, 2]]),
    "dict-key-float": ("A float as key.", "TREE-007", ["dict", [1.0], [1]]),
    "dict-key-nil": ("nil as key.", "TREE-007", ["dict", [None], [1]]),
    "dict-key-bin": ("Bytes as key.", "TREE-007", ["dict", [b"a"], [1]]),
    "dict-key-int-empty": ("An empty long int as key.", "TREE-003", ["dict", [["int", b""]], [1]]),
    "dict-one-array": ("A dict of one array.", "TREE-001", ["dict", ["a"]]),
    "dict-extra": ("A dict of four elements.", "TREE-001", ["dict", ["a"], [1], None]),
    "list-no-array": ("A list whose items are no array.", "TREE-001", ["list", 1]),
    "list-extra": ("A list of three elements.", "TREE-001", ["list", [], []]),
    "tuple-extra": ("A tuple of three elements.", "TREE-001", ["tuple", [], 1]),
    "tuple-none": ("A tuple without items.", "TREE-001", ["tuple"]),
    "tag-short": ("A tag without a child.", "TREE-001", ["tag", "x", None]),
    "tag-long": ("A tag of five elements.", "TREE-001", ["tag", "x", None, 1, 2]),
    "tag-name-int": ("A tag whose name is a number.", "TREE-001", ["tag", 1, None, 1]),
    "tensor-str": ("A tensor index that is a string.", "TREE-001", ["tensor", "0"]),
    "tensor-extra": ("A tensor node of three elements.", "TREE-001", ["tensor", 0, 0]),
    "tensor-negative": ("A negative tensor index.", "TREE-009", ["tensor", -1]),
    "tensor-beyond": ("A tensor index that is the number of tensors.", "TREE-009", ["tensor", 2]),
    "tensor-true": ("A bool is no tensor index.", "TREE-001", ["tensor", True]),
    "too-deep": ("A list one deeper than is allowed, behind a tensor's dict.", "TREE-012", None),
    "tag-too-deep": ("A tag one deeper than is allowed.", "TREE-012", None),
    "param-too-deep": ("The param of a tag one deeper than is allowed.", "TREE-012", None),
    "far-too-deep": ("Nested ten thousand deep: refused, and no crash.", "TREE-012 SEC-002", None),
    "tag-param-tensor": ("A tensor in the param of a tag.", "TREE-014", ["tag", "x", ["tensor", 0], 1]),
    "invalid-utf8": ("A string that is no UTF-8.", "TREE-015", Literal(b"\xa2\xc3\x28")),
    "surrogate": ("A string with a lone surrogate.", "TREE-015", Literal(b"\xa3\xed\xa0\x80")),
    "overlong-utf8": ("A string with an overlong form.", "TREE-015", Literal(b"\xa2\xc0\x80")),
    "key-invalid-utf8": ("A key that is no UTF-8.", "TREE-015", ["dict", [Literal(b"\xa1\xff")], [1]]),
    "dict-key-tag": ("A tagged string as key.", "TREE-007", ["dict", [["tag", "x", None, "a"]], [1]]),
    "dict-key-tagged-int": ("A tagged integer as key.", "TREE-007", ["dict", [["tag", "x", None, 1]], [1]]),
    "int-nested-key": ("A key that is a list.", "TREE-007", ["dict", [["list", []]], [1]]),
}


def _deep(item: Any, levels: int) -> Any:
    for _ in range(levels):
        item = ["list", [item]]
    return item


BAD_NODES["too-deep"] = (*BAD_NODES["too-deep"][:2], _deep(["list", []], 255))
BAD_NODES["tag-too-deep"] = (*BAD_NODES["tag-too-deep"][:2], _deep(["tag", "x", None, 1], 255))
BAD_NODES["param-too-deep"] = (*BAD_NODES["param-too-deep"][:2], _deep(["tag", "x", ["list", []], 1], 254))
BAD_NODES["far-too-deep"] = (*BAD_NODES["far-too-deep"][:2], Literal(b"\x92\xa4list\x91" * 10_000 + b"\xc0"))
for _name, (_title, _spec, _node) in BAD_NODES.items():
    fault(f"node-{_name}", _title, f"{_spec} ERR-001", "tree-base", edit("/tree/2/0", _node), "bad-manifest")

fault(
    "node-unknown-scalar-dtype",
    "A scalar of an unknown dtype is refused by that name.",
    "DTYPE-001",
    "tree-base",
    edit("/tree/2/0", ["scalar", "float128", bytes(16)]),
    "unknown-dtype",
)
valid(
    "scalar-float8-e5m3fnu",
    "Scalars of a dtype that a later version brought: in the tree, and in the metadata.",
    "TREE-001 DTYPE-001",
    Checkpoint(
        [Scalar("float8_e5m3fnu", bytes([code])) for code in (0, 8, 0xFE, 0xFF)],
        metadata=Scalar("float8_e5m3fnu", b"\x78"),
    ),
)
fault(
    "node-tensor-unused",
    "A tensor that stands nowhere in the tree.",
    "TREE-009",
    "tree-base",
    edit("/tree/2/1", ["tensor", 1]),
    "bad-manifest",
)
fault(
    "metadata-tensor",
    "A tensor in the metadata.",
    "TREE-014",
    "tree-base",
    edit("/metadata", ["tensor", 0]),
    "bad-manifest",
)
fault(
    "metadata-no-node",
    "Metadata that is no node.",
    "TREE-001 TREE-014",
    "tree-base",
    edit("/metadata", {"step": 1}),
    "bad-manifest",
)
fault("tree-missing", "A manifest without a tree.", "MAN-002", "tree-base", remove("/tree"), "bad-manifest")

# ---- legal encodings of the manifest


def _reversed(item: Any) -> Any:
    """Maps in reverse order of their keys."""
    if isinstance(item, dict):
        return {key: _reversed(item[key]) for key in reversed(item)}
    if isinstance(item, list):
        return [_reversed(value) for value in item]
    return item


valid(
    "manifest-long-forms",
    "The longest msgpack form of every item is as good as the shortest.",
    "MAN-012",
    Checkpoint({"step": 7, -5: [1, "ü", b"\0", 2.5], "w": W, "big": 2**64 - 1}, pack=pack_long),
)
valid(
    "manifest-key-order",
    "The keys of the manifest's maps may stand in any order.",
    "MAN-012",
    Checkpoint({"step": 7, "w": W}, pack=lambda item: pack(_reversed(item))),
)
valid(
    "manifest-float32",
    "A reader accepts any msgpack encoding of a value, `float 32` among them.",
    "MAN-012",
    Checkpoint({"x": Form(Literal(b"\xca\x3f\xc0\x00\x00"), 1.5), "y": 2.5}),
)
