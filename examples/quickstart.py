"""The quick tour: save, load, open, slice, select, read into arrays, map, verify.

python examples/quickstart.py [FILE]
"""

from __future__ import annotations

import sys

import ml_dtypes
import numpy as np

import ckptfmt


def main(path: str = "model.ckpt") -> None:
    wte = np.random.default_rng(0).standard_normal((20_000, 128), np.float32)
    layers = [{"weight": np.full((64, 64), i, ml_dtypes.bfloat16), "bias": np.zeros(64, np.float32)} for i in range(2)]
    tree = {
        "model": {"wte": wte, "layers": layers, "head": wte},  # tied weights are stored once
        "optimizer": {"step": 1000, "betas": (0.9, 0.95)},  # ints, floats, strings, tuples … come back as they were
    }

    report = ckptfmt.save(path, tree, overwrite=True, metadata={"loss": 2.31})  # all of it, or nothing
    print(f"saved {report.tensors} tensors in {report.bytes:,} bytes")

    loaded = ckptfmt.load(path)  # NumPy arrays; every block is checked against its digest
    print("tied weights stay tied:", loaded["model"]["head"] is loaded["model"]["wte"])
    print("a tuple stays a tuple:", loaded["optimizer"]["betas"])

    with ckptfmt.open(path) as ckpt:  # reads the manifest only
        print("metadata:", ckpt.metadata)
        print("a tensor:", ckpt["model/layers/0/weight"])
        rows = ckpt["model/wte"][1000:1010]  # reads just the blocks that hold these rows
        print(f"a slice: {rows.shape}, {ckpt.bytes_read:,} bytes read of {report.bytes:,}")

    part = ckptfmt.load(path, select="model/layers/**")  # only what the pattern names
    print("selected:", list(part["model"]))

    head = np.empty_like(wte)
    ckptfmt.load(path, select="model/head", into={"model": {"head": head}})  # strict about names, shapes and dtypes
    print("filled in place:", np.array_equal(head, wte))

    mapped = ckptfmt.load(path, mmap=True)  # no copy: private pages of the file, read when touched
    print("mapped:", mapped["model"]["wte"].shape)

    print("verified:", ckptfmt.verify(path).ok)  # every byte of the file


if __name__ == "__main__":
    main(*sys.argv[1:])
