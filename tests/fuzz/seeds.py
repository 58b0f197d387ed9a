"""The corpus: small valid checkpoints in all layouts, and files of other formats."""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import json
import lzma
import pickle
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import ml_dtypes
import numpy as np
import safetensors.numpy
from numcodecs.zstd import Zstd

import ckptfmt
from ckptfmt.conversion import convert
from ckptfmt.format import tensor_pages, tree_pages
from ckptfmt.writing import request, writer

from .bundles import LAYOUTS, bundle_of
from .wire import SMALL_MODEL

DATA = Path(__file__).parent.parent / "data"


def trees() -> dict[str, tuple[Any, dict[str, Any]]]:
    """Trees with the options that they are saved with."""
    tied = np.arange(3, dtype=np.float32)
    values = {
        "text": "ü\u202e", "bytes": b"\0\xff", "int": 1 << 80, "float": -0.0, "scalar": np.float32(2), -(1 << 70): 1,
        "complex": 1j, "none": None, "list": [1, (2.5, [])], "time": np.datetime64(5, "s"), "str": np.str_("x"),
        3: True,
    }  # fmt: skip
    kinds = {
        "i2": np.arange(6, dtype=np.int16).reshape(2, 3), "i4": np.array([1, -2, 3, -4, 5], ml_dtypes.int4),
        "bf": np.array([1.5, -0.0, np.nan], ml_dtypes.bfloat16), "b": np.array([True, False]), "0d": np.array(2.5),
        "none": np.zeros((0, 3), np.uint8), "when": np.array([1, 2], "M8[s]"), "tied": [tied, (tied, None)],
        "c": np.ones(2, np.complex64), "u1": np.ones((2, 9), ml_dtypes.uint2),
    }  # fmt: skip
    wide = np.arange(24, dtype=np.uint16).reshape(4, 6)
    return {
        "values": (values, {"metadata": {"step": 7, "nested": {"a": [None]}}}),
        "kinds": (kinds, {"schema": ("model", "1")}),
        "zstd": ({"a": np.zeros((9, 9), np.float32), "b": wide}, {"compression": "zstd"}),
        "gzip": ({"a": np.zeros((9, 9), np.float32), "b": wide}, {"compression": "gzip", "digest": "sha256"}),
        "blosc": ({"a": np.zeros((9, 9), np.float32), "b": [wide]}, {"compression": "blosc"}),
        "lz4": ({"a": wide.astype("f8")}, {"compression": {"name": "blosc", "cname": "lz4", "shuffle": "bitshuffle"}}),
        "chunks": ({"x": np.arange(3000), "y": {0: wide}}, {}),
        "one": (np.arange(5), {}),
        "nothing": ({}, {}),
    }


def checkpoints() -> Iterator[tuple[str, bytes]]:
    """Bundles, by name."""
    before, of_pages = (writer.BLOCK, request.LOOSE_CHUNK), (tensor_pages.ROWS, tree_pages.SIZE)
    writer.BLOCK, request.LOOSE_CHUNK = 4096, 8192
    request._array_spec.cache_clear()
    try:
        with tempfile.TemporaryDirectory() as folder:
            for layout in LAYOUTS:
                for name, (tree, options) in trees().items():
                    path = Path(folder) / f"{name}-{layout}"
                    ckptfmt.save(path, tree, layout=layout, durable=False, **options)
                    yield path.name, bundle_of(path).encode()
            for layout, (name, (tree, options)) in itertools.product(LAYOUTS, trees().items()):
                path = Path(folder) / f"{name}-paged-{layout}"
                tensor_pages.ROWS, tree_pages.SIZE = 3, 40  # so that there are some pages
                ckptfmt.save(path, tree, layout=layout, paged=True, durable=False, **options)
                tensor_pages.ROWS, tree_pages.SIZE = of_pages
                yield path.name, bundle_of(path).encode()
    finally:
        writer.BLOCK, request.LOOSE_CHUNK = before
        tensor_pages.ROWS, tree_pages.SIZE = of_pages
        request._array_spec.cache_clear()


def foreign(format: str) -> Iterator[tuple[str, bytes]]:
    """Files of another format, by name."""
    arrays = {"a.b": np.arange(6, dtype=np.float32).reshape(2, 3), "c": np.ones(2, np.int64), "e": np.zeros((0, 2))}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "source"
        if format == "safetensors":
            yield "small", safetensors.numpy.save(arrays, {"k": "v"})
        elif format == "npz":
            np.savez(path.with_suffix(".npz"), **arrays)
            yield "stored", path.with_suffix(".npz").read_bytes()
            np.savez_compressed(path.with_suffix(".npz"), **arrays)
            yield "compressed", path.with_suffix(".npz").read_bytes()
        elif format == "gguf":
            yield from _gguf()
        elif format == "onnx":
            yield "small", SMALL_MODEL
        elif format == "tflite":
            yield "small", (DATA / "tflite/small.tflite").read_bytes()
        elif format == "coreml":
            yield from ((path.stem, path.read_bytes()) for path in sorted((DATA / "coreml").rglob("*.mlmodel")))
        elif format == "paddle":
            yield from ((path.name, path.read_bytes()) for path in sorted((DATA / "paddle").iterdir()))
        elif format == "torch":
            yield from _torch(path)
        elif format == "npy":
            np.savez(path.with_suffix(".npz"), **arrays)
            with zipfile.ZipFile(path.with_suffix(".npz")) as archive:
                yield "a row", b"".join(map(archive.read, archive.namelist()))
        elif format == "tar":
            yield "small", _tar(safetensors.numpy.save(arrays))
        elif format == "compressed":
            small = safetensors.numpy.save(arrays)
            yield "gzip", gzip.compress(_tar(small))
            yield "bzip2", bz2.compress(small)
            yield "xz", lzma.compress(small)
            yield "zstd", bytes(Zstd().encode(small))
        elif format == "pickle":
            yield from _pickles(arrays, path)
        elif format == "skops":
            yield "small", _skops(arrays)
        elif format == "stable-baselines3":
            yield "small", (Path(__file__).parent.parent / "data/stable_baselines3.zip").read_bytes()
        elif format in PROGRAMS:
            yield "program", _program(format)
        elif format == "tensorflow":
            yield from _tensorflow()
        elif format == "flax":
            ckptfmt.save(path, {"params": arrays, "step": 3}, durable=False)
            convert(path, path.with_suffix(".msgpack"), target_format="flax")
            yield "small", path.with_suffix(".msgpack").read_bytes()


def _tar(data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in (("model.safetensors", data), ("config.json", b"{}")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


class Held:
    """An object of a class."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _pickles(arrays: dict[str, Any], path: Path) -> Iterator[tuple[str, bytes]]:
    tree = {**arrays, "held": Held([1, Held("x")]), "text": np.array(["a"]), "objects": np.array([None, 1], object)}
    for protocol in (2, 5):
        yield f"protocol {protocol}", pickle.dumps(tree, protocol)
    joblib.dump(tree, path)
    yield "joblib", path.read_bytes()


def _skops(arrays: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    about = {"__class__": "A", "__module__": "b"}
    nodes: list[Any] = [{**about, "__loader__": "ObjectNode", "content": None}]
    with zipfile.ZipFile(out, "w") as archive:
        for number, array in enumerate(arrays.values()):
            nodes.append({**about, "__loader__": "NdArrayNode", "type": "numpy", "file": f"{number}.npy"})
            with archive.open(f"{number}.npy", "w") as file:
                np.save(file, array)
        archive.writestr("schema.json", json.dumps({**about, "__loader__": "ListNode", "content": nodes}))
    return out.getvalue()


PROGRAMS = {"torchscript", "torch-export"}


def _program(format: str) -> bytes:
    """A small program of torch."""
    import torch

    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if format == "torchscript":
            torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 3), torch.ones(1, 2)), out)
        else:
            torch.export.save(torch.export.export(torch.nn.Linear(2, 3), (torch.ones(1, 2),)), out)
    return out.getvalue()


def _gguf() -> Iterator[tuple[str, bytes]]:
    def string(text: str) -> bytes:
        return len(text).to_bytes(8, "little") + text.encode()

    def u(value: int, width: int = 4) -> bytes:
        return value.to_bytes(width, "little")

    pairs = (
        string("general.alignment") + u(4) + u(32) + string("names") + u(9) + u(8) + u(2, 8) + string("x") + string("y")
    )
    infos = string("w") + u(2) + u(3, 8) + u(2, 8) + u(0) + u(0, 8) + string("q") + u(1) + u(32, 8) + u(2) + u(32, 8)
    head = b"GGUF" + u(3) + u(2, 8) + u(2, 8) + pairs + infos
    yield "small", head + bytes(-len(head) % 32) + bytes(64)


def _tensorflow() -> Iterator[tuple[str, bytes]]:
    """Indexes, whose tensors are zeros."""
    for index in sorted((Path(__file__).parent.parent / "data" / "tensorflow").rglob("*.index")):
        yield index.stem, index.read_bytes()


def _torch(path: Path) -> Iterator[tuple[str, bytes]]:
    import torch

    tree = {"w": torch.arange(6.0).reshape(2, 3), "n": [1, (2.5, "x")], "h": torch.ones(2, dtype=torch.bfloat16)}
    torch.save(tree, path)
    yield "zip", path.read_bytes()
    torch.save(tree, path, _use_new_zipfile_serialization=False)
    yield "legacy", path.read_bytes()
