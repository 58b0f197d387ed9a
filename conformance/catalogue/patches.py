"""Patches that every reader with that feature has to read. SPEC.md section 7.4."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..build import Checkpoint
from ..model import FIRST, Tensor, path_value, tensor
from ..packing import pack_long
from ..patching import SAME, XOR, Made, Patching, flipped
from . import valid
from .codecs import blosc, blosc_copied, compressed, gzip, gzip_stored, zstd, zstd_raw


def read(path: list[Any], *bases: str, **more: Any) -> dict[str, Any]:
    """A request about a path of a patch."""
    op = "read_slice" if "slices" in more else "read"
    return {"op": op, "path": path_value(path), "bases": list(bases), **more}


BASE: dict[str, Any] = {
    "w": tensor("float32", (4, 3), "w"),
    "kept": tensor("bfloat16", (5,), "kept"),
    "old": tensor("int32", (6,), "old"),
    "flags": Tensor("bool", (9,), bytes([0, 1, 0, 1, 1, 0, 0, 1, 1])),
    "q": tensor("int4", (2, 3), "q"),
    "empty": tensor("int8", (0, 3)),
    "scalar": tensor("float16", (), "scalar"),
    "grid": tensor("int32", (5, 7), "grid", grid=(3, 4)),
    "large": tensor("uint8", (3, 5000), "large"),
    "step": 7,
}
RESULT: dict[str, Any] = {
    "w": flipped(BASE["w"], (0, 5, 47)),
    "kept": BASE["kept"],
    "new": BASE["old"],
    "flags": flipped(BASE["flags"], (1, 8)),
    "q": flipped(BASE["q"]),
    "empty": BASE["empty"],
    "scalar": flipped(BASE["scalar"]),
    "grid": flipped(BASE["grid"], (3, 139)),
    "large": flipped(BASE["large"], (0, 4999, 14_999)),
    "whole": tensor("uint16", (3,), "whole"),
    "step": 8,
}
MADE = {
    "w": Made(XOR, "w", gzip(0), gzip_stored),
    "kept": Made(SAME, "kept"),
    "new": Made(SAME, "old"),
    "flags": Made(XOR, "flags", gzip(0), gzip_stored),
    "q": Made(XOR, "q", gzip(0), gzip_stored),
    "empty": Made(SAME, "empty"),
    "scalar": Made(XOR, "scalar", gzip(0), gzip_stored),
    "grid": Made(XOR, "grid", gzip(0), gzip_stored, (2, 7)),
    "large": Made(XOR, "large", gzip(0), gzip_stored, (1, 5000)),
}
OF_BASE = Checkpoint(BASE)
PATCH = Checkpoint(RESULT, metadata={"a": 1}, schema=("llama", "3"), patch=Patching(OF_BASE, MADE, bytes(32)))

valid("patch-base", "A checkpoint of which others are made.", "TREE-001 READ-003", OF_BASE)
valid(
    "patch-read",
    "Tensors that are the same, one under another name; that differ, in chunks of another grid; and a whole one.",
    "PATCH-001 PATCH-002 PATCH-003 PATCH-005 PATCH-006",
    PATCH,
    read([], "patch-base"),
)
valid(
    "patch-list",
    "Without a base, a patch says what its result is.",
    "PATCH-004 PATCH-012 SCH-002",
    PATCH,
    {"op": "list"},
    {
        "tree": PATCH.values()[0],
        "metadata": PATCH.values()[1],
        "schema": {"id": "llama", "version": "3"},
    },
)
valid("patch-whole-alone", "Without a base, whole tensors are read.", "PATCH-004", PATCH, read(["whole"]))
valid("patch-plain-alone", "Without a base, plain values are read.", "PATCH-004", PATCH, read(["step"]))
for _name, _slices in {
    "grid": [[1, 5, 3], [2, 7, 2]],
    "large": [[1, 3, 1], [4990, 5000, 3]],
    "q": [[0, 2, 1], [1, 3, 1]],
    "kept": [[1, 5, 2]],
}.items():
    _source = RESULT[_name]
    _picked = [range(*one) for one in _slices]
    if _name != "q":
        _size = _source.row.size
        _rows = [[i] for i in _picked[0]] if len(_picked) == 1 else [[i, j] for i in _picked[0] for j in _picked[1]]
        _flat = [row[0] if len(row) == 1 else row[0] * _source.shape[1] + row[1] for row in _rows]
        _data = b"".join(_source.data[i * _size : (i + 1) * _size] for i in _flat)
    else:  # two rows of three elements of four bits, of which the last two are taken
        _data = bytes(((_source.data[2 * i] >> 4) | ((_source.data[2 * i + 1] & 15) << 4)) for i in range(2))
    _slice = Tensor(_source.dtype, tuple(map(len, _picked)), _data)
    valid(
        f"patch-slice-{_name}",
        f"A slice of {_name}, through the base.",
        "PATCH-006 READ-003",
        PATCH,
        read([_name], "patch-base", slices=_slices),
        {"value": _slice.value(None)},
    )
_DTYPES: dict[str, Any] = {}
for _dtype in FIRST:
    _source = tensor(_dtype, (3, 5), "dtype")
    if _dtype == "bool":
        _source = replace(_source, data=bytes(i % 2 for i in range(15)))
    _DTYPES[_dtype] = _source
_OF_DTYPES = Checkpoint(_DTYPES)
valid("patch-dtypes-base", "A tensor of each dtype.", "TREE-001 READ-003", _OF_DTYPES)
valid(
    "patch-dtypes",
    "Every dtype, with bits that differ.",
    "PATCH-006 DTYPE-010",
    Checkpoint(
        {name: flipped(source, (0, len(source.data) - 1)) for name, source in _DTYPES.items()},
        patch=Patching(_OF_DTYPES, {name: Made(XOR, name, gzip(0), gzip_stored) for name in _DTYPES}),
    ),
    read([], "patch-dtypes-base"),
)
_LATER = {"x": tensor("float8_e5m3fnu", (3, 5), "later")}
_OF_LATER = Checkpoint(_LATER)
valid("patch-later-dtype-base", "A tensor of a dtype that a later version brought.", "TREE-001 READ-003", _OF_LATER)
valid(
    "patch-later-dtype",
    "A patch of a tensor of a dtype that a later version brought.",
    "PATCH-001 PATCH-006 DTYPE-001",
    Checkpoint(
        {"x": flipped(_LATER["x"], (0, 14))},
        patch=Patching(_OF_LATER, {"x": Made(XOR, "x", gzip(0), gzip_stored)}),
    ),
    read([], "patch-later-dtype-base"),
)
_X = tensor("int32", (5, 7), "codecs")
_OF_CODECS = Checkpoint({"x": compressed(tensor("int32", (5, 7), "codecs", grid=(3, 4)), gzip(0), gzip_stored)})
valid("patch-codecs-base", "A compressed base.", "TREE-001 READ-003", _OF_CODECS)
for _codec, _chain, _encode in (
    ("zstd", zstd(), zstd_raw),
    ("gzip", gzip(0), gzip_stored),
    ("blosc", blosc(), blosc_copied),
    ("raw", None, None),
):
    valid(
        f"patch-codec-{_codec}",
        f"Differences that are {_codec}, of a base that is compressed in other chunks.",
        "PATCH-006 ZARR-006",
        Checkpoint(
            {"x": flipped(_X, (7, 8)), "y": _X},
            patch=Patching(_OF_CODECS, {"x": Made(XOR, "x", _chain, _encode, (2, 7)), "y": Made(SAME, "x")}),
        ),
        read([], "patch-codecs-base"),
    )
_SEVERAL = Checkpoint(
    [flipped(_X, ()), flipped(_X), flipped(_X, (9,)), flipped(_X, ())],
    patch=Patching(
        _OF_CODECS,
        {
            "0": Made(SAME, "x"),
            "1": Made(XOR, "x", gzip(0), gzip_stored),
            "2": Made(XOR, "x", gzip(0), gzip_stored),
            "3": Made(SAME, "x"),
        },
    ),
)
valid(
    "patch-one-source",
    "Several tensors of one source.",
    "PATCH-005 PATCH-006",
    _SEVERAL,
    read([], "patch-codecs-base"),
)
valid(
    "patch-among-others",
    "The base among other checkpoints.",
    "PATCH-004",
    _SEVERAL,
    read([], "patch-base", "patch-dtypes-base", "patch-codecs-base"),
)
valid(
    "patch-longest-forms",
    "A manifest in the longest forms of msgpack.",
    "PATCH-001 MAN-012",
    replace(_SEVERAL, pack=pack_long),
    read([], "patch-codecs-base"),
)
valid(
    "patch-further-keys",
    "Keys that nobody knows, in the manifest and in `patch`.",
    "PATCH-001 MAN-003",
    replace(_SEVERAL, edit=lambda document: [one.update(more=1) for one in (document, document["patch"])]),
    read([], "patch-codecs-base"),
)
_TIED = flipped(_X)
valid(
    "patch-aliases",
    "Aliases of a tensor that differs.",
    "PATCH-012 TREE-010",
    Checkpoint(
        {"a": _TIED, "b": flipped(_X, ()), "c": [_TIED]},
        patch=Patching(_OF_CODECS, {"a": Made(XOR, "x", gzip(0), gzip_stored), "b": Made(SAME, "x")}),
    ),
    read([], "patch-codecs-base"),
)
_ROOT = tensor("float32", (6,), "root")
valid("patch-root-base", "A base that is one tensor.", "TREE-001 READ-003", Checkpoint(_ROOT))
for _name, _result, _how in (
    ("xor", flipped(_ROOT), Made(XOR, "", gzip(0), gzip_stored)),
    ("same", flipped(_ROOT, ()), Made(SAME, "")),
):
    valid(
        f"patch-root-{_name}",
        f"A patch whose tree is one tensor: {_name}.",
        "PATCH-006 PATCH-010 NAME-005",
        Checkpoint(_result, patch=Patching(Checkpoint(_ROOT), {"": _how})),
        read([], "patch-root-base"),
    )
valid(
    "patch-no-tensors",
    "A patch without tensors.",
    "PATCH-002",
    Checkpoint({"step": 9}, patch=Patching(OF_BASE, {})),
    read([], "patch-base"),
)

# ---- chains

_links = [Checkpoint({"x": _X, "y": tensor("int8", (3,), "y")})]
valid("patch-chain-0", "The base of a chain.", "TREE-001 READ-003", _links[0])
for _number in range(1, 9):
    _before = _links[-1].tree
    _links.append(
        Checkpoint(
            {"x": flipped(_before["x"], (_number,)), "y": flipped(_before["y"], ())},
            patch=Patching(_links[-1], {"x": Made(XOR, "x", gzip(0), gzip_stored), "y": Made(SAME, "y")}),
        )
    )
    valid(
        f"patch-chain-{_number}",
        f"A chain of {_number} patches.",
        "PATCH-009",
        _links[-1],
        read([], *(f"patch-chain-{below}" for below in range(_number))),
        level="must" if _number < 3 else "should",
    )

# ---- stock Zarr readers

valid(
    "patch-zarr-whole",
    "A stock Zarr reader finds a whole tensor where it always is.",
    "PATCH-010 ZARR-001",
    PATCH,
    {"op": "read_node", "name": "whole"},
    {"value": RESULT["whole"].value(None)},
    needs=("zarr",),
)
for _name in ("w", "flags", "grid"):
    _row = RESULT[_name].row
    _bits = bytes(a ^ b for a, b in zip(RESULT[_name].data, BASE[_name].data, strict=True))
    valid(
        f"patch-zarr-xor-{_name}",
        f"A stock Zarr reader finds the differences of {_name} apart, as unsigned integers.",
        "PATCH-010",
        PATCH,
        {"op": "read_node", "name": _name, "root": "xor"},
        {"value": Tensor(f"uint{8 * _row.size}", RESULT[_name].shape, _bits).value(None)},
        needs=("zarr",),
    )
