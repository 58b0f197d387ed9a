"""A ZIP directory that says other things than the manifest: another reader would see other bytes. The manifest holds,
and a verification finds the difference. [PACK-006] [FRM-001]"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from attack import OPENED, attempt, folder, verify

import ckptfmt


def honest(path: Path) -> None:
    assert ckptfmt.load(path)["w"].tolist() == [0, 1, 2, 3]


def main() -> None:
    with folder() as here:
        path = here / "x.ckpt"
        ckptfmt.save(path, {"w": np.arange(4), "v": np.arange(4) + 9}, durable=False)
        data = path.read_bytes()
        at = data.index(b"PK\1\2")
        swapped = data[at:].replace(b"tensors/w/c/0", b"tensors/?/c/0").replace(b"tensors/v/c/0", b"tensors/w/c/0")
        path.write_bytes(data[:at] + swapped.replace(b"tensors/?/c/0", b"tensors/v/c/0"))
        attempt("two members that exchanged their names", path, OPENED, actions=(honest,))
        attempt("two members that exchanged their names", path, "frame-digest", actions=(verify,))


if __name__ == "__main__":
    main()
