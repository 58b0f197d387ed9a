"""Checkpoints of TensorFlow, made by hand: also such as it never writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from ckptfmt.conversion import crc32c


def masked(data: bytes) -> bytes:
    return crc32c.masked(google_crc32c.value(data)).to_bytes(4, "little")


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value % (1 << 64))


def message(field: int, value: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(value)) + value


def block(entries: list[tuple[bytes, bytes]], compression: int = 0) -> bytes:
    data = b"".join(b"\0" + varint(len(key)) + varint(len(value)) + key + value for key, value in entries)
    data += bytes(4) + (1).to_bytes(4, "little")
    return data + bytes([compression]) + masked(data + bytes([compression]))


def index_of(entries: list[tuple[bytes, bytes]], compression: int = 0, times: int = 1) -> bytes:
    """An index with its entries in one block, of which there seem to be several."""
    data = block(entries, compression)
    handle = varint(0) + varint(len(data) - 5)
    listed = block([(b"~" * (i + 1), handle) for i in range(times)])
    footer = handle + varint(len(data)) + varint(len(listed) - 5)
    return data + listed + footer.ljust(40, b"\0") + 0xDB4775248B80FB57.to_bytes(8, "little")


HEADER = (b"", number(1, 1) + message(3, number(1, 1)))


def entry(
    data: bytes,
    dtype: int = 4,
    shape: tuple[int, ...] | None = None,
    offset: int = 0,
    size: int | None = None,
    **more: int,
) -> bytes:
    sides = b"".join(message(2, number(1, side)) for side in ((len(data),) if shape is None else shape))
    found = number(1, dtype) + message(2, sides) + number(3, more.get("shard", 0)) + number(4, offset)
    return found + number(5, len(data) if size is None else size) + b"\x35" + masked(data)


def bundle(tmp_path: Path, data: bytes, *entries: tuple[bytes, bytes], **options: Any) -> Path:
    (tmp_path / "x.data-00000-of-00001").write_bytes(data)
    (tmp_path / "x.index").write_bytes(index_of([HEADER, *entries], **options))
    return tmp_path / "x.index"


def strings(*items: bytes) -> tuple[bytes, bytes]:
    """The bytes of strings, and what their checksum is of."""
    lengths = b"".join(len(item).to_bytes(4, "little") for item in items)
    stored = b"".join(varint(len(item)) for item in items) + masked(lengths)
    return stored + b"".join(items), lengths + masked(lengths) + b"".join(items)


def graph_of(graph: bytes, *keys: bytes) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """The bytes and entries of a checkpoint with a graph of objects, and some empty tensors."""
    data, checked = strings(graph)
    about = entry(checked, 7, (), size=len(data))
    return data, sorted([(b"_CHECKPOINTABLE_OBJECT_GRAPH", about), *((key, entry(b"")) for key in keys)])


def save(path: Path, arrays: dict[str, np.ndarray[Any, Any]], unknown: tuple[str, ...] = ()) -> None:
    """An index at a path, and beside it its file of tensors, of float32, int64, float16 or int8; those of some names
    are said to be of a type that there is not."""
    codes, entries = {"float32": 1, "int64": 9, "float16": 19, "int8": 6}, []
    with open(f"{path}.data-00000-of-00001", "wb") as file:
        for name, array in sorted(arrays.items()):
            raw = array.tobytes()
            code = 99 if name in unknown else codes[array.dtype.name]
            entries.append((name.encode(), entry(raw, code, array.shape, offset=file.tell())))
            file.write(raw)
    path.write_bytes(index_of([HEADER, *entries]))
