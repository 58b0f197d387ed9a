"""Manifests whose values take far more memory than their bytes: empty containers, small numbers, short strings, by the
million, in keys that nobody reads and in the tree; and sizes that are claimed and not there. [LIM-003] [LIM-007]"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgpack
import numpy as np
from attack import MIB, OPENED, attempt, folder, look

import ckptfmt
from ckptfmt.format import commit

COUNT = 2 * MIB
BOMBS = {
    "empty arrays": b"\xdd" + COUNT.to_bytes(4, "big") + b"\x90" * COUNT,
    "empty maps": b"\xdd" + COUNT.to_bytes(4, "big") + b"\x80" * COUNT,
    "arrays of arrays": b"\xdd" + (COUNT // 64).to_bytes(4, "big") + (b"\x91" * 63 + b"\x90") * (COUNT // 64),
    "negative numbers": b"\xdd" + COUNT.to_bytes(4, "big") + b"\xe0" * COUNT,
    "maps of one key": b"\xdd" + (COUNT // 4).to_bytes(4, "big") + b"\x81\xa1a\x90" * (COUNT // 4),
    "short strings": b"\xdd" + (COUNT // 3).to_bytes(4, "big") + b"\xa2ab" * (COUNT // 3),
    "wide strings": b"\xdd" + (COUNT // 8).to_bytes(4, "big") + b"\xa7abc\xf0\x9f\x98\x80" * (COUNT // 8),
    "one large map": b"\xdf" + (COUNT // 5).to_bytes(4, "big")
    + b"".join(b"\xa3%c%c%c\x90" % (i % 90 + 33, i // 90 % 90 + 33, i // 8100 % 90 + 33) for i in range(COUNT // 5)),
}  # fmt: skip
CLAIMS = {
    "an array of 4 thousand million": b"\xdd\xff\xff\xff\xff",
    "a map of 4 thousand million": b"\xdf\xff\xff\xff\xff",
    "a string of 4 GiB": b"\xdb\xff\xff\xff\xff",
    "a bin of 4 GiB": b"\xc6\xff\xff\xff\xff",
    "arrays of 4 thousand million, nested": b"\xdd\xff\xff\xff\xff" * 500,
}


def with_manifest(path: Path, raw: bytes, layout: str) -> Path:
    """A checkpoint with these bytes as manifest, and a commit record that fits."""
    line = commit.CommitRecord((1, 0), layout, 0, len(raw), hashlib.sha256(raw).digest(), bytes(16)).encode()
    if layout == "file":
        path.write_bytes(raw + line)
        return path
    path.mkdir()
    (path / "manifest.msgpack").write_bytes(raw)
    (path / "COMMIT").write_bytes(line)
    return path


def main() -> None:
    with folder() as here:
        ckptfmt.save(here / "whole", {"w": np.zeros((0, 3))}, layout="loose", durable=False)
        document = msgpack.unpackb((here / "whole" / "manifest.msgpack").read_bytes())
        document["parts"][0].update(object="")
        document["parts"][0]["chunks"]["offset"] = b""
        for layout in ("file", "loose"):
            if layout == "loose":
                document["parts"][0].update(object=None)
                document["parts"][0]["chunks"]["offset"] = None
            document["layout"] = layout
            raw = msgpack.packb(document)
            for number, (title, bomb) in enumerate({**BOMBS, **CLAIMS}.items()):
                if layout == "file" and title in BOMBS:
                    continue  # the same code reads them
                unknown = b"\x8d" + raw[1:] + b"\xa1z" + bomb
                path = with_manifest(here / f"{layout}-{number}-key.ckpt", unknown, layout)
                codes = (
                    (OPENED, "limit-exceeded", "frame-digest") if title in BOMBS else ("bad-manifest", "limit-exceeded")
                )
                attempt(f"{title} in a key that nobody reads, layout {layout}", path, *codes, actions=(look,))
                tree = msgpack.packb("tree") + b"\x92\xa4list" + bomb
                at = raw.index(msgpack.packb("tree"))
                end = raw.index(msgpack.packb("codecs"))
                path = with_manifest(here / f"{layout}-{number}-tree.ckpt", raw[:at] + tree + raw[end:], layout)
                attempt(
                    f"{title} in the tree, layout {layout}", path, "bad-manifest", "limit-exceeded", actions=(look,)
                )


if __name__ == "__main__":
    main()
