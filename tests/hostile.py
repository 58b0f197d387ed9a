"""What the tests of hostile sources share."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptfmt

MATRIX = np.arange(12, dtype=np.float32).reshape(3, 4)


def refused(path: Path, code: str, words: str = "", *, inside: str = "", **options: Any) -> None:
    """Converting what is at a path fails with a code, for what is at that path or `inside`, and leaves nothing."""
    before = sorted(path.parent.iterdir())
    with pytest.raises(ckptfmt.CkptError) as raised:
        ckptfmt.convert(path, path.parent / "never.ckpt", **options)
    assert raised.value.code == code, str(raised.value)
    assert raised.value.path == str(path / inside if inside else path)
    assert words in str(raised.value)
    assert sorted(path.parent.iterdir()) == before


class Call:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def torch_zip(path: Path, pickled: bytes, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", pickled)
        for name, data in members.items():
            archive.writestr(f"x/data/{name}", data)


MARKER = "ckptfmt-was-here"


def storage_pickle(size: str, stride: str, offset: int = 0, count: int = 4) -> bytes:
    """A pickle of one float32 tensor in storage 0; size and stride are the items of pickled tuples."""
    key, location = "X\x01\x00\x00\x000", "X\x03\x00\x00\x00cpu"
    storage = f"(X\x07\x00\x00\x00storagectorch\nFloatStorage\n{key}{location}I{count}\ntQ"
    hooks = "I00\nccollections\nOrderedDict\n)R"
    return f"ctorch._utils\n_rebuild_tensor_v2\n({storage}I{offset}\n({size}t({stride}t{hooks}tR.".encode()
