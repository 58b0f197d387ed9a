"""What a stock Zarr reader must find, without any code that knows checkpoints. SPEC.md sections 5 and 9."""

from __future__ import annotations

from ..build import Checkpoint
from ..model import DTYPES, Tensor, tensor
from . import valid
from .codecs import compressed, gzip, gzip_stored, zstd, zstd_raw
from .names import ODD


def stored(source: Tensor) -> dict[str, object]:
    """The storage array of a tensor, as a value."""
    return Tensor(source.row.storage, source.storage_shape, source.data).value(None)


def node(identity: str, title: str, spec: str, checkpoint: Checkpoint, name: str, source: Tensor) -> None:
    valid(
        identity, title, spec, checkpoint, {"op": "read_node", "name": name}, {"value": stored(source)}, needs=("zarr",)
    )


for _dtype in DTYPES:
    _x = tensor(_dtype, (3, 5))
    node(
        f"zarr-{_dtype.replace('_', '-')}",
        f"A stock Zarr reader reads the storage elements of {_dtype}.",
        "ZARR-001 ZARR-012 ZARR-013 PACK-007",
        Checkpoint({"a": {"x": _x}}),
        "a/x",
        _x,
    )
for _layout in ("file", "loose"):
    _x = tensor("int16", (5, 7), "grid", grid=(2, 3))
    node(
        f"zarr-grid-{_layout}",
        f"Several chunks, layout {_layout}.",
        "ZARR-002 ZARR-003 ZARR-004",
        Checkpoint({"x": _x}, layout=_layout),
        "x",
        _x,
    )
    _y = tensor("float32", ())
    node(
        f"zarr-scalar-{_layout}",
        f"No axes, layout {_layout}.",
        "ZARR-003",
        Checkpoint({"x": _y}, layout=_layout),
        "x",
        _y,
    )
    _z = tensor("float32", (0, 3))
    node(
        f"zarr-empty-{_layout}",
        f"No elements, layout {_layout}.",
        "ZARR-003",
        Checkpoint({"x": _z}, layout=_layout),
        "x",
        _z,
    )
    node(
        f"zarr-root-{_layout}",
        f"The root is an array, layout {_layout}.",
        "NAME-005 ZARR-014",
        Checkpoint(_x, layout=_layout),
        "",
        _x,
    )
    for _codec, _chain, _encode in (("zstd", zstd(), zstd_raw), ("gzip", gzip(0), gzip_stored)):
        _c = compressed(tensor("int32", (5, 7), "hand", grid=(3, 4)), _chain, _encode)
        node(
            f"zarr-{_codec}-{_layout}",
            f"Chunks of {_codec}, layout {_layout}.",
            "ZARR-006 ZARR-016",
            Checkpoint({"x": _c}, layout=_layout),
            "x",
            _c,
        )
_odd = {key: tensor("uint8", (1,), key) for key in ODD}
for _key, _name in {
    "a/b": "a~2Fb",
    "": "~",
    "0": "~30",
    "é": "~C3~A9",
    "zarr.json": "~7Aarr.json",
    "...": "..~2E",
}.items():
    node(
        f"zarr-name-{ODD.index(_key)}",
        f"The key {_key!r} is the node {_name}.",
        "NAME-002 NAME-003 NAME-004 ZARR-001",
        Checkpoint(_odd),
        _name,
        _odd[_key],
    )
