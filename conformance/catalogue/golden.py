"""Golden checkpoints: what released versions of the package `ckptfmt` wrote, to be read forever. `golden/` holds them;
`python -m conformance.golden` adds those of a new version."""

from __future__ import annotations

import struct
from typing import Any

from .. import HERE
from ..build import Files
from ..cases import INPUT, Case, read_flat
from ..model import FIRST, Scalar, Tag, Tensor, tensor
from ..patching import flipped
from . import FORMAT, SINCE, Entry, add, value_of
from .trees import VALUES

GOLDEN = HERE / "golden"
METADATA = {"step": 7, "note": "ü"}
_TIED = tensor("float32", (3,), "tied")
_W = Tensor("bfloat16", (2, 2), bytes.fromhex("803f004040400080"))
_DRAFT = {
    "model": {
        "w": _W,
        "tied": _W,
        "layers": [
            {"b": Tensor("int32", (300,), struct.pack("<300i", *range(300)))},
            {"b": Tensor("float64", (0, 3), b"")},
        ],
        7: (None, True, 2**70, -0.5, 1j, b"\0", "ü"),
    },
    "step": Scalar("int64", struct.pack("<q", 7)),
    "seen": Tag("numpy.datetime64", "D", Tensor("int64", (1,), struct.pack("<q", 19_782))),  # 29 February 2024
    "order": Tag("collections.OrderedDict", None, {"z": 1, "a": 2}),
    "packed": Tensor("int4", (3,), bytes.fromhex("e103")),
}
_OF_BASE: dict[str, Any] = {
    "w": tensor("bfloat16", (50, 90), "w"),
    "old": tensor("float64", (30,), "old"),
    "kept": tensor("uint8", (3, 100), "kept"),
    "q": tensor("int4", (80, 60), "q"),
    "gone": Scalar("int64", struct.pack("<q", 7)),
}
_IN_DIRECTORY = {
    "layers": [{"w": tensor("bfloat16", (2, 3), str(i)), "b": tensor("bool", (9,), str(i))} for i in range(3)],
    "tied": [_TIED, (_TIED, None)],
    "empty": tensor("float64", (0, 3)),
    "a/b": tensor("int4", (3,)),
    "step": 7,
}
PATCHES = {"patch": "patch-base"}  # and what each is made against
# what the version of today is asked to write, by name
TREES: dict[str, Any] = {
    "file": {
        "values": {name: VALUES[name][2] for name in ("ints", "large-ints", "floats", "complex-numbers", "containers")},
        "dtypes": {dtype: tensor(dtype, (3, 5)) for dtype in FIRST},
        "tied": [_TIED, (_TIED, None)],
        0: tensor("float64", ()),
        "0": tensor("int8", (0, 3)),
    },
    "loose": {"a/b": tensor("int32", (20, 30), "a"), "tied": [_TIED, _TIED], "scalar": tensor("bfloat16", ())},
    "zstd": {"x": tensor("int32", (20, 30), "c"), "y": tensor("bool", (9,))},
    "packed": {"x": tensor("int32", (20, 30), "p"), "tied": [_TIED, _TIED], "y": tensor("uint2", (9,))},
    "paged": {
        "layers": [{"w": tensor("bfloat16", (2, 3), str(i)), "b": tensor("bool", (9,), str(i))} for i in range(3)],
        "large": tensor("int32", (130, 130), "l"),
        "tied": [_TIED, (_TIED, None)],
        "scalar": tensor("float64", ()),
        "history": [f"{i}: {'x' * 900}" for i in range(80)],
        "a/b": tensor("int4", (3,)),
    },
    "paged-packed": _IN_DIRECTORY,
    "paged-loose": _IN_DIRECTORY,
    "patch-base": _OF_BASE,
    "patch": {
        "renamed": _OF_BASE["old"],
        "w": flipped(_OF_BASE["w"], range(0, 9000, 70)),
        "kept": _OF_BASE["kept"],
        "tied": [_OF_BASE["kept"]],
        "q": flipped(_OF_BASE["q"], (7, 2000)),
        "new": tensor("int32", (20, 30), "new"),
        "plain": (None, "ü", -0.5),
    },
}
OPTIONS: dict[str, dict[str, Any]] = {
    "file": {"schema": ["golden", "1"]},
    "loose": {"layout": "loose"},
    "zstd": {"compression": "zstd", "digest": "sha256"},
    "packed": {"layout": "packed"},
    "paged": {"paged": True, "schema": ["golden", "1"]},
    "paged-packed": {"paged": True, "layout": "packed", "schema": ["golden", "1"]},
    "paged-loose": {"paged": True, "layout": "loose", "digest": "sha256"},
    "patch-base": {},
    "patch": {"schema": ["golden", "1"]},
}
_NEEDS = {
    "file": ["layout:file", "digest:xxh3-128"],
    "loose": ["layout:loose", "digest:xxh3-128"],
    "zstd": ["layout:file", "digest:sha256", "codec:zstd"],
    "packed": ["layout:packed", "digest:xxh3-128"],
    "paged": ["layout:file", "digest:xxh3-128", "pages"],
    "paged-packed": ["layout:packed", "digest:xxh3-128", "pages"],
    "paged-loose": ["layout:loose", "digest:sha256", "pages"],
    "patch-base": ["layout:file", "digest:xxh3-128"],
    "patch": ["layout:file", "digest:xxh3-128", "codec:blosc", "patch"],
}
OLDER = {"0.9.0": (_DRAFT, ["format:0.9", "codec:gzip"])}  # trees and needs of versions that wrote something else

for _path in sorted(GOLDEN.glob("*/*.ckpt")):
    _version, _name = _path.parent.name, _path.stem
    _tree, _more = OLDER.get(_version, (TREES[_name], []))
    _files: Files = {name: [data] for name, data in read_flat(_path).items()}
    _of_version = f"golden-{_version.replace('.', '-')}-"
    _bases = {"bases": [_of_version + PATCHES[_name]]} if _name in PATCHES else {}
    _case = Case(
        f"{_of_version}{_name}",
        f"What version {_version} of ckptfmt wrote: {_name}.",
        ["VER-003", "READ-001", *(["FMT-005"] if _more else ["FMT-001"]), *(["PATCH-004"] if _bases else [])],
        "must",
        ["reader", *_NEEDS[_name], *_more],
        SINCE,
        FORMAT,
        {"path": INPUT},
        {"op": "read", "path": [], **_bases},
        {"value": value_of(_tree)},
    )
    add(Entry(_case, _files))
