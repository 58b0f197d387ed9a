"""Dtypes: every one, whole, in part, without axes and without elements. SPEC.md section 3."""

from __future__ import annotations

import math

from ..build import Checkpoint
from ..model import DTYPES, Tensor, bytes_form, meaning, path_value, pattern, storage_shape, tensor
from . import chunk, edit, fault, valid


def sliced(source: Tensor, slices: list[tuple[int, int, int]]) -> dict[str, object]:
    """The value of a part of a tensor, worked out element by element."""
    if not slices:
        return source.value(None)
    row = source.row
    counts = [len(range(*cut)) for cut in slices]
    elements = []
    for number in range(math.prod(counts)):
        index, rest = [], number
        for count in reversed(counts):
            rest, i = divmod(rest, count)
            index.append(i)
        place = [cut[0] + i * cut[2] for cut, i in zip(slices, reversed(index), strict=True)]
        elements.append(_element(source, place))
    if row.per == 1:
        data = b"".join(elements)
    else:
        width, data = counts[-1], b""
        for start in range(0, len(elements), max(1, width)):
            bits = sum(e[0] << i * row.bits for i, e in enumerate(elements[start : start + width]))
            data += bits.to_bytes(storage_shape(row, (width,))[0], "little")
    return {
        "type": "tensor",
        "dtype": source.dtype,
        "shape": counts,
        **bytes_form(meaning(source.dtype, tuple(counts), data)),
    }


def _element(source: Tensor, place: list[int]) -> bytes:
    row = source.row
    last = place[-1] // row.per
    start = 0
    for i, n in zip([*place[:-1], last], source.storage_shape, strict=True):
        start = start * n + i
    raw = source.data[start * row.size : (start + 1) * row.size]
    if row.per == 1:
        return raw
    return bytes([raw[0] >> (place[-1] % row.per) * row.bits & (1 << row.bits) - 1])


def name(dtype: str) -> str:
    return dtype.replace("_", "-")


def slice_case(
    identity: str, title: str, spec: str, checkpoint: Checkpoint, path: list[object], slices: list[tuple[int, int, int]]
) -> None:
    """A checkpoint of which a part is read."""
    leaf = checkpoint.tree
    for key in path:
        leaf = leaf[key]
    operation = {"op": "read_slice", "path": path_value(path), "slices": [list(cut) for cut in slices]}
    valid(identity, title, spec, checkpoint, operation, {"value": sliced(leaf, slices)})


for _dtype in DTYPES:
    _whole = tensor(_dtype, (3, 5))
    _spec = "DTYPE-001 DTYPE-002" + (" DTYPE-003 DTYPE-004" if DTYPES[_dtype].per > 1 else "")
    valid(
        f"dtype-{name(_dtype)}",
        f"Tensors of {_dtype}: a matrix, one without axes, and empty ones.",
        f"{_spec} ZARR-003",
        Checkpoint(
            {
                "matrix": _whole,
                "scalar": tensor(_dtype, (), "0"),
                "empty": [tensor(_dtype, (0,)), tensor(_dtype, (3, 0, 2))],
            }
        ),
    )
    slice_case(
        f"dtype-{name(_dtype)}-slice",
        f"Part of a tensor of {_dtype}, over several chunks, with steps.",
        f"{_spec} READ-003",
        Checkpoint({"x": tensor(_dtype, (6, 19), "slice", grid=(4, min(2, -(-19 // DTYPES[_dtype].per))))}),
        ["x"],
        [(1, 6, 2), (3, 18, 3)],
    )

for _dtype in ("int4", "int2", "uint1"):
    _per = DTYPES[_dtype].per
    for _name, _grid in (("one-chunk", -(-19 // _per)), ("chunks", 2)):
        slice_case(
            f"dtype-{_dtype}-slice-end-{_name}",
            f"Part of a tensor of {_dtype} that ends with its last element.",
            "DTYPE-003 DTYPE-004 READ-003",
            Checkpoint({"x": tensor(_dtype, (3, 19), "end", grid=(2, _grid))}),
            ["x"],
            [(1, 3, 1), (5, 19, 1)],
        )
PACKED = [dtype for dtype, row in DTYPES.items() if row.per > 1]
for _dtype in PACKED:
    _row = DTYPES[_dtype]
    _shape = (2, _row.per + 1)
    _data = b"\xff" * math.prod(storage_shape(_row, _shape))
    valid(
        f"dtype-{name(_dtype)}-unused-bits",
        f"Unused high bits of {_dtype} are ignored.",
        "DTYPE-004 DTYPE-010",
        Checkpoint({"x": Tensor(_dtype, _shape, _data), "s": Tensor(_dtype, (), b"\xff")}),
    )
for _dtype in ("float6_e2m3fn", "float6_e3m2fn"):
    valid(
        f"dtype-{name(_dtype)}-high-bits",
        f"The two high bits of {_dtype} mean nothing.",
        "DTYPE-010",
        Checkpoint({"x": Tensor(_dtype, (64,), bytes(range(3, 256, 4)))}),
    )
    valid(
        f"dtype-{name(_dtype)}-high-bits-slice",
        f"The two high bits of a part of a tensor of {_dtype} mean nothing.",
        "DTYPE-010",
        Checkpoint({"x": Tensor(_dtype, (8, 8), bytes(range(3, 256, 4)), grid=(3, 5))}),
        {"op": "read_slice", "path": ["x"], "slices": [[1, 7, 2], [2, 8, 1]]},
        {"value": sliced(Tensor(_dtype, (8, 8), bytes(range(3, 256, 4))), [(1, 7, 2), (2, 8, 1)])},
    )
valid(
    "dtype-nan-payloads",
    "NaN payloads, signed zeros and subnormals of every float survive.",
    "DTYPE-002",
    Checkpoint(
        {
            "float16": Tensor("float16", (6,), bytes.fromhex("007e01fc00800100ff7fff7b")),
            "bfloat16": Tensor("bfloat16", (5,), bytes.fromhex("c07f81ff008001008180")),
            "float32": Tensor("float32", (4,), bytes.fromhex("0000c07f0100807f0000008001000080")),
            "float64": Tensor("float64", (3,), bytes.fromhex("010000000000f07f0000000000000080efbeadde0000f8ff")),
            "complex64": Tensor("complex64", (1,), bytes.fromhex("0000c07f00000080")),
        }
    ),
)
valid(
    "dtype-little-endian",
    "Stored elements are little-endian, on every machine.",
    "DTYPE-002",
    Checkpoint(
        {"x": Tensor("uint32", (2,), bytes.fromhex("0102030405060708")), "y": Tensor("int16", (1,), b"\xfe\xff")}
    ),
)
valid("dtype-bools", "Bools are the bytes 0 and 1.", "DTYPE-005", Checkpoint({"x": Tensor("bool", (4,), b"\1\0\1\1")}))
fault(
    "dtype-bool-2",
    "A bool that is neither 0 nor 1 is damage, also where its digest is right.",
    "DTYPE-005",
    "dtype-bools",
    [{"do": "overwrite", "at": chunk(["x"], 0, 2), "hex": "02"}, {"do": "reseal", "digests": True}],
    {"error": {"any_of": ["bad-chunk"], "tensor": "x"}},
    {"op": "read", "path": ["x"]},
)
fault(
    "dtype-bool-255",
    "A bool that is 255.",
    "DTYPE-005",
    "dtype-bools",
    [{"do": "overwrite", "at": chunk(["x"], 0, 0), "hex": "ff"}, {"do": "reseal", "digests": True}],
    {"error": {"any_of": ["bad-chunk"], "tensor": "x"}},
    {"op": "read_slice", "path": ["x"], "slices": [[0, 1, 1]]},
)
_BOOLS = bytes(number % 3 == 0 for number in range(20))
for _name, _sides in (("loose", (5, 4)), ("loose-rows", (2, 4)), ("loose-blocks", (2, 3))):
    valid(
        f"dtype-bools-{_name}",
        f"Bools in layout loose, in chunks of {_sides}.",
        "DTYPE-005 LAY-003",
        Checkpoint({"x": Tensor("bool", (5, 4), _BOOLS, grid=_sides)}, layout="loose"),
    )
    fault(
        f"dtype-bool-2-{_name}",
        f"A bool that is neither 0 nor 1, in layout loose, in chunks of {_sides}.",
        "DTYPE-005",
        f"dtype-bools-{_name}",
        [{"do": "overwrite", "at": chunk(["x"], 0, 1), "hex": "02"}, {"do": "reseal", "digests": True}],
        {"error": {"any_of": ["bad-chunk"], "tensor": "x"}},
        {"op": "read", "path": ["x"]},
    )
valid(
    "dtype-bool-padding",
    "Padding of a bool chunk may hold any byte.",
    "DTYPE-005 ZARR-004",
    Checkpoint({"x": Tensor("bool", (3, 3), b"\1\0\1\0\1\0\1\1\0", grid=(2, 2), padding=0xEE)}),
)
for _index, _name in enumerate(
    ("float128", "Float32", "float8", "uint4 ", "", "bfloat16\0", "object", "numpy.float32", "<f4")
):
    fault(
        f"dtype-unknown-{_index + 1}",
        f"The dtype {_name!r} is refused by name.",
        "DTYPE-001 ERR-001",
        "tree-base",
        edit("/tensors/dtype/0", _name),
        "unknown-dtype",
    )
fault(
    "dtype-number",
    "A dtype that is a number.",
    "MAN-002",
    "tree-base",
    edit("/tensors/dtype/0", 16),
    "bad-manifest",
)
_LONG = Tensor("uint8", (1 << 12,), pattern(1 << 12, "long"))
valid("dtype-long", "A tensor whose value is compared by its sha256.", "DTYPE-002", Checkpoint({"x": _LONG}))
