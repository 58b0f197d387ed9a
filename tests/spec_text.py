"""The text of SPEC.md and its companions: statements, example blocks, and the parts that are generated.

`python tests/spec_text.py` makes the generated parts anew: error registries and worked examples.
"""

from __future__ import annotations

import json
import re
import tempfile
import zipfile
from collections import OrderedDict
from pathlib import Path
from threading import Thread
from typing import Any

import ml_dtypes
import msgpack
import numpy as np
import pytest

import ckptfmt
from ckptfmt.errors import CODES
from ckptfmt.frameworks.sources import Shard, Sharded
from ckptfmt.writing import request

ROOT = Path(__file__).parent.parent
SPEC = ROOT / "SPEC.md"
MIGRATIONS = ROOT / "docs" / "spec" / "migrations.md"
SIGNATURES = ROOT / "docs" / "spec" / "signatures.md"
DOCUMENTS = (SPEC, MIGRATIONS, SIGNATURES)
STATEMENT = re.compile(r"^- `\[([A-Z]{2,6}-[0-9]{3})\]` (.*(?:\n  .*)*)", re.MULTILINE)
PHASES = {**dict.fromkeys(("save", "recompute", "migrate", "convert"), MIGRATIONS), "sign": SIGNATURES}  # else in SPEC
_BLOCK = re.compile(r"^(<!-- example: ([a-z0-9-]+) -->\n```\n)(.*?)(^```$)", re.MULTILINE | re.DOTALL)
_REGISTRY = re.compile(r"(?<=errors.py -->\n).*?(?=\n<!-- end of registry)", re.DOTALL)


def blocks() -> dict[str, str]:
    """The example blocks of all documents by their names."""
    return {name: text for page in DOCUMENTS for _, name, text, _ in _BLOCK.findall(page.read_text())}


def registry(page: Path) -> str:
    """The table of error codes that belongs into a document."""
    rows = [
        f"| `{name}` | {code.phase} | {code.meaning} |"
        for name, code in CODES.items()
        if PHASES.get(code.phase, SPEC) == page
    ]
    return "\n".join(["| code | phase | meaning |", "|---|---|---|", *rows])


# ---- the worked examples. Their generator is fixed, as later versions of the package give the same bytes


def save_first(folder: Path, layout: str) -> Path:
    """The tree of section 18.1."""
    weights = np.array([[1, 2], [3, -0.0]], ml_dtypes.bfloat16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request, "__version__", "1.0.0")
        ckptfmt.save(folder / layout, {"step": 7, "w": weights}, layout=layout)
    return folder / layout


W = np.arange(8, dtype=np.float32).reshape(4, 2) / 2
Q = np.array([-8, 7, 1], ml_dtypes.int4)


def save_second(folder: Path) -> Path:
    """The tree of section 18.2, saved by two that take part."""
    (folder / "mail").mkdir()

    def save(rank: int) -> None:
        rows = Shard((2 * rank, 0), W[2 * rank : 2 * rank + 2])
        tree = {"model": OrderedDict(w=Sharded(W.shape, W.dtype, (rows,)), q=Q), "ema": {"q": Q}}
        options: dict[str, Any] = {"metadata": {"step": 7}, "schema": ("demo", "2"), "compression": {"model/w": "zstd"}}
        with ckptfmt.FileCoordinator(folder / "mail", rank, 2, timeout=30) as coordinator:
            ckptfmt.save(folder / "packed", tree, coordinator=coordinator, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request, "__version__", "1.0.0")
        ranks = [Thread(target=save, args=(rank,)) for rank in range(2)]
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join()
    return folder / "packed"


A, B = np.array([1, 2], np.float32), np.array([3, 4], np.float32)


def save_third(folder: Path) -> Path:
    """The tree of section 18.3."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request, "__version__", "1.1.0")
        ckptfmt.save(folder / "paged", {"b": B, "a": A, "step": 7}, paged=True)
    return folder / "paged"


def page_of(data: bytes) -> bytes:
    """The only page of a checkpoint."""
    pages = msgpack.unpackb(manifest_of(data))["pages"]
    return data[pages["offset"] : pages["offset"] + int.from_bytes(pages["length"], "little")]


def dump(data: bytes) -> str:
    """A hexadecimal dump: offset, sixteen bytes, and what is printable of them."""
    lines = []
    for start in range(0, len(data), 16):
        row = data[start : start + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{start:04x}  {row.hex(' ', 2):<39}  {text}\n")
    return "".join(lines)


def shown(value: object) -> str:
    """A msgpack value as the worked examples show it: JSON, but bin as h'…'."""
    if isinstance(value, bytes):
        return f"h'{value.hex()}'"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {shown(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(shown, value)) + "]"
    return json.dumps(value)


def value_of(text: str) -> Any:
    """The value that `shown` showed so."""
    marked = re.sub(r"h'([0-9a-f]*)'", r'{"bin": "\1"}', text)
    is_bin = {"bin"}
    return json.loads(marked, object_hook=lambda one: bytes.fromhex(one["bin"]) if one.keys() == is_bin else one)


def map_lines(raw: bytes) -> str:
    """A msgpack map, a line for each key."""
    return "{" + ",\n ".join(f'"{key}": {shown(item)}' for key, item in msgpack.unpackb(raw).items()) + "}\n"


def manifest_of(data: bytes) -> bytes:
    """The manifest of a checkpoint in layout `file`."""
    offset, length = map(int, re.findall(rb"manifest=(\d+)\+(\d+) ", data)[-1])
    return data[offset : offset + length]


def generated(folder: Path) -> dict[str, str]:
    """The example blocks that are what the writer writes, by their names."""
    file, loose, packed = save_first(folder, "file"), save_first(folder, "loose"), save_second(folder)
    paged = save_third(folder)
    with zipfile.ZipFile(paged) as members:
        stack = members.read("stacks/float32-2/zarr.json").decode()
    parts = [(packed / f"parts/{number:05}.msgpack").read_bytes() for number in range(2)]
    return {
        "manifest": map_lines(manifest_of(file.read_bytes())),
        "file": dump(file.read_bytes()),
        "loose-commit-record": (loose / "COMMIT").read_text(),
        "paged-stack": re.sub('(?<=,)(?="(data_type|codecs|attributes))', "\n", stack) + "\n",
        "page": map_lines(page_of(paged.read_bytes())),
        "paged-manifest": map_lines(manifest_of(paged.read_bytes())),
        "paged-file": dump(paged.read_bytes()),
        "packed-part-manifests": "".join(map(map_lines, parts)),
        "packed-manifest": map_lines((packed / "manifest.msgpack").read_bytes()),
        "packed-commit-record": (packed / "COMMIT").read_text(),
        **{f"pack-{number}": dump((packed / f"packs/{number:05}.zip").read_bytes()) for number in range(2)},
        **{f"part-manifest-{number}": dump(part) for number, part in enumerate(parts)},
    }


def rewrite() -> None:
    """Make the generated parts of all documents anew."""
    with tempfile.TemporaryDirectory() as name:
        made = generated(Path(name))
    for page in DOCUMENTS:
        text = _REGISTRY.sub(lambda _, page=page: registry(page), page.read_text())
        text = _BLOCK.sub(lambda match: match[1] + made.get(match[2], match[3]) + match[4], text)
        page.write_text(text)


if __name__ == "__main__":
    rewrite()
