"""zarr-python as a reader of single arrays: no code that knows checkpoints."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore, ZipStore

from ..model import bytes_form
from .server import Refused, Server

# digests are not looked at
STOCK_FEATURES = ["zarr", "sparse", "layout:file", "layout:loose", "codec:zstd", "codec:gzip", "codec:blosc"]
STOCK_FEATURES += ["digest:sha256", "digest:xxh3-128", "digest:blake3", "pages", "patch"]


def shown(array: Any) -> dict[str, Any]:
    """A storage array as a tensor value."""
    data = array.astype(array.dtype.newbyteorder("<")).tobytes()
    return {"type": "tensor", "dtype": array.dtype.name, "shape": list(array.shape), **bytes_form(data)}


class ZarrPython(Server):
    name, version = "zarr-python", zarr.__version__
    features = STOCK_FEATURES

    def do_read_node(self, request: dict[str, Any]) -> dict[str, Any]:
        path, node = request["file"], "/".join([request.get("root", "tensors"), request["name"]]).rstrip("/")
        if os.path.isdir(os.path.join(path, "packs")):
            raise Refused("unsupported", "layout:packed")
        store = LocalStore(path, read_only=True) if os.path.isdir(path) else ZipStore(path, mode="r")
        try:
            array = zarr.open_array(store, path=node, mode="r")
            return {"value": shown(np.asarray(array[...]))}
        finally:
            store.close()


if __name__ == "__main__":
    ZarrPython().serve()
