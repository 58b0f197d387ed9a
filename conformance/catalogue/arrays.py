"""Arrays: grids, edges, slices, and the bounds of shapes. SPEC.md sections 5 and 12."""

from __future__ import annotations

from ..build import Checkpoint
from ..model import Tensor, pattern, tensor
from . import edit, fault, plain, valid
from .dtypes import slice_case

# ---- grids

GRIDS = {
    "one-chunk": ((4, 6), (4, 6)),
    "even": ((4, 6), (2, 3)),
    "uneven": ((5, 7), (2, 3)),
    "single-elements": ((3, 4), (1, 1)),
    "rows": ((5, 4), (1, 4)),
    "columns": ((5, 4), (5, 1)),
    "vector": ((10,), (3,)),
    "three-axes": ((3, 4, 5), (2, 3, 2)),
    "five-axes": ((2, 1, 3, 2, 2), (1, 1, 2, 2, 1)),
    "rank-64": ((1,) * 62 + (2, 2), (1,) * 63 + (2,)),
    "wide-last-chunk": ((3, 3), (3, 2)),
}
for _name, (_shape, _grid) in GRIDS.items():
    for _layout in ("file", "loose"):
        valid(
            f"grid-{_name}-{_layout}",
            f"Shape {list(_shape)[-5:]} in chunks of {list(_grid)[-5:]}, layout {_layout}.",
            "ZARR-002 ZARR-003 ZARR-004 READ-003" + (" LIM-002" if _name == "rank-64" else ""),
            Checkpoint({"x": tensor("int16", _shape, "grid", grid=_grid)}, layout=_layout),
        )
valid(
    "grid-padding",
    "What lies outside the array in a chunk at the edge is ignored.",
    "ZARR-004",
    Checkpoint({"x": tensor("int16", (5, 7), "grid", grid=(2, 3), padding=0xEE)}),
)
valid(
    "grid-packed-dtype",
    "The grid of a packed dtype counts storage elements.",
    "DTYPE-003 MAN-008",
    Checkpoint({"x": tensor("int4", (3, 9), "grid", grid=(2, 2)), "y": tensor("uint1", (20,), "grid", grid=(1,))}),
)
valid(
    "empty-tensors",
    "Tensors with an axis of length 0 have no chunks.",
    "ZARR-003 ZARR-002",
    Checkpoint([tensor("float32", (0,)), tensor("int8", (0, 3)), tensor("int4", (2, 0)), tensor("bool", (0, 0))]),
)
valid(
    "empty-tensor-huge",
    "The other axes of an empty tensor may be as long as they like: the checkpoint opens.",
    "LIM-002 LIM-004 LIM-010",
    Checkpoint({"x": Tensor("float64", (2**62, 0, 2**62), b"", grid=(2**62, 1, 2**62))}),
    {"op": "list"},
    {"tree": Checkpoint({"x": Tensor("float64", (2**62, 0, 2**62), b"")}).values()[0]},
)
valid(
    "empty-tensor-many-chunks",
    "An empty tensor has no chunks, however many its other axes would have.",
    "ZARR-003 SEC-002",
    Checkpoint({"x": Tensor("float64", (2**50, 0, 2**50), b"", grid=(1, 1, 1)), "y": tensor("int8", (3,))}),
    {"op": "read", "path": ["y"]},
)
valid(
    "empty-tensor-many-chunks-verify",
    "A whole verification of an empty tensor looks at none of them.",
    "ZARR-003 BLK-007 SEC-002",
    Checkpoint({"x": Tensor("float64", (2**50, 0, 2**50), b"", grid=(1, 1, 1)), "y": tensor("int8", (3,))}),
    {"op": "verify"},
    {"damage": []},
    needs=("reader", "verify"),
)
valid(
    "fill-values-stored",
    "Chunks of nothing but zeros are stored like others.",
    "ZARR-005",
    Checkpoint({"x": Tensor("float32", (4, 4), bytes(64), grid=(2, 2))}),
)
fault(
    "fill-value-chunk-missing",
    "A chunk of zeros that is left out is damage, not the fill value.",
    "ZARR-005 READ-005",
    "grid-even-loose",
    [{"do": "remove_object", "object": "tensors/x/c/1/1"}],
    {"error": {"any_of": ["missing-object"], "tensor": "x"}},
    {"op": "read", "path": ["x"]},
)

# ---- what a grid and a shape must be

BAD = {
    "grid-zero": ("A side of 0.", "ZARR-002", "/tensors/grid/0", [0, 3]),
    "grid-too-wide": ("A side longer than its axis.", "ZARR-002", "/tensors/grid/0", [2, 7]),
    "grid-rank": ("A grid of another rank than the shape.", "MAN-008", "/tensors/grid/0", [2]),
    "grid-negative": ("A negative side.", "MAN-002", "/tensors/grid/0", [-2, 3]),
    "grid-float": ("A side that is a float.", "MAN-002", "/tensors/grid/0", [2.0, 3]),
    "grid-bool": ("A side that is a bool.", "MAN-002", "/tensors/grid/0", [True, 3]),
    "grid-nil": ("A grid that is nil.", "MAN-002", "/tensors/grid/0", None),
    "shape-negative": ("A negative length.", "MAN-002", "/tensors/shape/0", [-4, 6]),
    "shape-float": ("A length that is a float.", "MAN-002", "/tensors/shape/0", [4.0, 6]),
    "shape-other": ("A shape that fits neither grid nor chunks.", "CHK-004 MAN-008", "/tensors/shape/0", [4, 6, 1]),
    "shape-longer": ("A shape with more chunks than there are rows.", "CHK-001", "/tensors/shape/0", [6, 6]),
    "shape-shorter": ("A shape with fewer chunks than there are rows.", "CHK-001", "/tensors/shape/0", [2, 6]),
    "shape-huge": ("A shape of 2⁶³ and more.", "LIM-002 LIM-004", "/tensors/shape/0", [2**63, 6]),
    "shape-product": ("A product of lengths that is too large.", "LIM-004", "/tensors/shape/0", [2**31, 2**31]),
    "shape-overflow": (
        "A product that overflows 64 bits to a small one.",
        "LIM-004",
        "/tensors/shape/0",
        [2**62, 2**62],
    ),
    "shape-nil": ("A shape that is nil.", "MAN-002", "/tensors/shape/0", None),
    "codec-beyond": ("A codec chain that is not there.", "MAN-002", "/tensors/codec/0", 1),
    "codec-negative": ("A negative codec chain.", "MAN-002", "/tensors/codec/0", -1),
    "codec-nil": ("A codec index that is nil.", "MAN-002", "/tensors/codec/0", None),
}
for _name, (_title, _spec, _pointer, _item) in BAD.items():
    fault(f"array-{_name}", _title, f"{_spec} ERR-001", "grid-even-file", edit(_pointer, _item), "bad-manifest")
fault(
    "array-rank-65",
    "More than 64 axes.",
    "LIM-002",
    "grid-rank-64-file",
    [*edit("/tensors/shape/0", [1] * 63 + [2, 2])[:1], *edit("/tensors/grid/0", [1] * 65)],
    "limit-exceeded",
)
fault(
    "array-raw-chunk-length",
    "A raw chunk whose length is not that of its grid.",
    "ZARR-007 CHK-005",
    "grid-one-chunk-file",
    edit("/parts/0/chunks/length", (46).to_bytes(8, "little")),
    "bad-extent",
)
fault(
    "array-grid-product",
    "A chunk of 2⁶² bytes and more.",
    "LIM-004",
    "grid-one-chunk-file",
    [*edit("/tensors/shape/0", [2**40, 2**40])[:1], *edit("/tensors/grid/0", [2**40, 2**40])],
    "bad-manifest",
)

# ---- slices

X = tensor("int32", (7, 11), "slice", grid=(3, 4))
SLICES = {
    "all": [(0, 7, 1), (0, 11, 1)],
    "one-element": [(3, 4, 1), (7, 8, 1)],
    "first": [(0, 1, 1), (0, 1, 1)],
    "last": [(6, 7, 1), (10, 11, 1)],
    "within-a-chunk": [(1, 3, 1), (5, 7, 1)],
    "across-chunks": [(2, 4, 1), (3, 9, 1)],
    "row": [(4, 5, 1), (0, 11, 1)],
    "column": [(0, 7, 1), (9, 10, 1)],
    "steps": [(0, 7, 2), (1, 11, 3)],
    "step-beyond-chunks": [(0, 7, 4), (0, 11, 5)],
    "step-larger-than-axis": [(2, 7, 100), (10, 11, 100)],
    "empty": [(3, 3, 1), (0, 11, 1)],
    "empty-both": [(7, 7, 1), (11, 11, 1)],
    "aligned-chunk": [(3, 6, 1), (4, 8, 1)],
    "edge-chunk": [(6, 7, 1), (8, 11, 1)],
}
for _name, _cut in SLICES.items():
    slice_case(f"slice-{_name}", f"A slice: {_name.replace('-', ' ')}.", "READ-003", Checkpoint({"x": X}), ["x"], _cut)
slice_case(
    "slice-loose",
    "A slice in plain files.",
    "READ-003 LAY-003",
    Checkpoint({"x": X}, layout="loose"),
    ["x"],
    [(2, 7, 2), (3, 10, 2)],
)
slice_case(
    "slice-no-axes", "A slice of a tensor without axes.", "READ-003", Checkpoint({"x": tensor("int16", ())}), ["x"], []
)
slice_case(
    "slice-rank-5",
    "A slice over five axes.",
    "READ-003",
    Checkpoint({"x": tensor("uint8", (3, 2, 4, 3, 5), "rank", grid=(2, 1, 3, 2, 2))}),
    ["x"],
    [(0, 3, 2), (1, 2, 1), (0, 4, 3), (1, 3, 1), (0, 5, 2)],
)
slice_case(
    "slice-packed-offset",
    "A slice of a packed dtype that begins inside a storage element.",
    "DTYPE-004 READ-003",
    Checkpoint({"x": tensor("int4", (2, 9), "slice")}),
    ["x"],
    [(0, 2, 1), (3, 8, 1)],
)
slice_case(
    "slice-nested-path",
    "A slice of a tensor deep in the tree.",
    "READ-003",
    Checkpoint({"a": [0, ({"b": X},)]}),
    ["a", 1, 0, "b"],
    [(1, 3, 1), (2, 4, 1)],
)
_ALL = [[0, 7, 1], [0, 11, 1]]
for _name, _bad in {
    "rank": [[0, 7, 1]],
    "extra-axis": [*_ALL, [0, 1, 1]],
    "stop-beyond": [[0, 8, 1], [0, 11, 1]],
    "start-beyond": [[0, 7, 1], [12, 12, 1]],
    "start-after-stop": [[3, 2, 1], [0, 11, 1]],
}.items():
    fault(
        f"slice-bad-{_name}",
        f"A slice that does not fit the tensor: {_name.replace('-', ' ')}.",
        "ERR-001 READ-011",
        "slice-all",
        [],
        "bad-index",
        {"op": "read_slice", "path": ["x"], "slices": _bad},
    )

# ---- what a slice costs

SLACK = 2 << 20  # bytes that a program may read for itself, such as code that it loads at its first slice
plain(
    "budget-slice",
    "A verified slice reads the blocks that hold it, not the tensor.",
    "READ-004",
    {"build": "wide", "generated": True},
    {"op": "read_slice", "path": ["x"], "slices": [[5000, 5001, 1], [0, 4096, 1]]},
    {
        "value": Tensor("uint8", (1, 4096), pattern(4096, "row-5000")).value(None),
        "budget": {"bytes": SLACK},
    },
    needs=("reader", "layout:file", "digest:sha256"),
    level="should",
)
plain(
    "budget-slice-steps",
    "A verified slice with large steps reads no blocks between those that it needs.",
    "READ-004",
    {"build": "wide", "generated": True},
    {"op": "read_slice", "path": ["x"], "slices": [[0, 8192, 4096], [7, 8, 1]]},
    {
        "value": Tensor("uint8", (2, 1), pattern(8, "row-0")[7:] + pattern(8, "row-4096")[7:]).value(None),
        "budget": {"bytes": SLACK},
    },
    needs=("reader", "layout:file", "digest:sha256"),
    level="should",
)
plain(
    "budget-open",
    "Opening reads no chunks.",
    "READ-002",
    {"build": "wide", "generated": True},
    {"op": "open"},
    {"accept": True, "budget": {"bytes": SLACK}},
    needs=("reader", "layout:file", "digest:sha256"),
)
plain(
    "budget-list",
    "Listing the tree reads no chunks.",
    "READ-002",
    {"build": "wide", "generated": True},
    {"op": "list"},
    {
        "tree": {
            "type": "dict",
            "items": [["x", {"type": "tensor", "index": 0, "dtype": "uint8", "shape": [8192, 4096]}]],
        },
        "budget": {"bytes": SLACK},
    },
    needs=("reader", "layout:file", "digest:sha256"),
)
plain(
    "budget-slice-unverified",
    "A slice without verification reads no more.",
    "READ-004 BLK-006",
    {"build": "wide", "generated": True},
    {"op": "read_slice", "path": ["x"], "slices": [[0, 8192, 4096], [7, 8, 1]], "verify": False},
    {
        "value": Tensor("uint8", (2, 1), pattern(8, "row-0")[7:] + pattern(8, "row-4096")[7:]).value(None),
        "budget": {"bytes": SLACK},
    },
    needs=("reader", "unverified", "layout:file", "digest:sha256"),
    level="should",
)
