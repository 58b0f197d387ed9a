"""One flipped bit, anywhere in a checkpoint: loading raises an error with a code or gives exactly what was saved, and
verification finds it."""

from __future__ import annotations

import itertools
import os
import random
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

import ckptfmt
from ckptfmt.testing import equal_trees

from .result import Result

COUNT = 12_000
LAYOUTS = ("file", "packed", "loose")
DIGESTS = ("xxh3-128", "sha256", "blake3")
COMPRESSIONS = (None, "zstd", "gzip", "blosc")
METADATA = {"step": 7, "note": "before"}


def run(folder: Path, *, seed: int, count: int = COUNT) -> Result:
    """`count` flips, spread evenly over all layouts, digests and compressions, and paged manifests."""
    rng = random.Random(seed)
    kinds = [*itertools.product(LAYOUTS, DIGESTS, COMPRESSIONS, (False, True))]
    bad: list[str] = []
    flips = 0
    for number, (layout, digest, compression, paged) in enumerate(kinds):
        path = folder / f"{number}.ckpt"
        saved = tree()
        ckptfmt.save(
            path,
            saved,
            layout=layout,
            digest=digest,
            compression=compression,
            metadata=METADATA,
            paged=paged,
            durable=False,
        )
        files = [file for file in (sorted(path.rglob("*")) if path.is_dir() else [path]) if file.is_file()]
        sizes = [file.stat().st_size for file in files]
        for _ in range(count * (number + 1) // len(kinds) - count * number // len(kinds)):
            file = rng.choices(files, sizes)[0]
            offset, bit = rng.randrange(file.stat().st_size), rng.randrange(8)
            what = f"{layout}{', paged' if paged else ''}"
            place = f"{what}, {digest}, {compression}: bit {bit} of byte {offset} of {file.relative_to(folder)}"
            flip(file, offset, bit)
            bad += [f"{place}: {text}" for text in problems(path, saved)]
            flip(file, offset, bit)
            flips += 1
        if not ckptfmt.verify(path).ok:
            bad.append(f"{path.name} is not whole after all bits were flipped back")
    return Result(f"{flips:,} flips in {len(kinds)} checkpoints", bad)


def tree() -> dict[Any, Any]:
    """Small tensors of several kinds, tied ones, and plain values."""
    tied = np.arange(40, dtype=np.float32)
    return {
        "raw": np.arange(600, dtype=np.int16).reshape(20, 30),
        "zeros": np.zeros((8, 80), np.float32),
        "int4": np.array([1, -2, 3, -4, 5], ml_dtypes.int4),
        "bfloat16": np.array([1.5, -0.0, np.nan], ml_dtypes.bfloat16),
        "tied": [tied, (tied, None)],
        0: np.array([True, False]),
        "plain": {"text": "ü", "bytes": b"\0\xff", "int": 1 << 80, "float": -0.0},
    }


def flip(file: Path, offset: int, bit: int) -> None:
    fd = os.open(file, os.O_RDWR)
    try:
        (byte,) = os.pread(fd, 1, offset)
        os.pwrite(fd, bytes([byte ^ (1 << bit)]), offset)
    finally:
        os.close(fd)


def problems(path: Path, saved: Any) -> list[str]:
    """What is wrong with how a damaged checkpoint is read."""
    texts = []
    try:
        with ckptfmt.open(path) as checkpoint:
            if not equal_trees(checkpoint.load(), saved) or not equal_trees(checkpoint.metadata, METADATA):
                texts.append("silently wrong")
    except (ckptfmt.CorruptError, ckptfmt.UnsupportedError, ckptfmt.NotACheckpointError):
        pass
    except Exception as error:
        texts.append(f"loading raises {error!r}")
    try:
        if ckptfmt.verify(path).ok:
            texts.append("verification finds nothing")
    except (ckptfmt.UnsupportedError, ckptfmt.NotACheckpointError):
        pass  # a record that became one of a later version
    except Exception as error:
        texts.append(f"verification raises {error!r}")
    return texts
