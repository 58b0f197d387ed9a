"""TensorStore as a reader of single arrays: no code that knows checkpoints."""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import Any

import numpy as np
import tensorstore

from .server import Refused, Server
from .zarr_python import STOCK_FEATURES, shown


class TensorStore(Server):
    name, version = "tensorstore", version("tensorstore")
    features = STOCK_FEATURES

    def do_read_node(self, request: dict[str, Any]) -> dict[str, Any]:
        path, node = request["file"], "/".join(filter(None, [request.get("root", "tensors"), request["name"]]))
        if os.path.isdir(os.path.join(path, "packs")):
            raise Refused("unsupported", "layout:packed")
        if os.path.isdir(path):
            store: dict[str, Any] = {"driver": "file", "path": f"{path}/{node}/"}
        else:
            store = {"driver": "zip", "base": {"driver": "file", "path": path}, "path": f"{node}/"}
        spec = {"driver": "zarr3", "kvstore": store}
        array = tensorstore.open(spec, read=True, open=True).result()
        return {"value": shown(np.asarray(array.read().result()))}


if __name__ == "__main__":
    TensorStore().serve()
