"""The plain-Python reader as an implementation. Run as `python -m conformance.implementations.python.protocol`."""

from __future__ import annotations

import hashlib
import struct
import sys
from typing import Any, ClassVar

from ..server import Refused, Server
from .faults import Fault, need
from .manifest import DTYPES, Tensor
from .reader import Checkpoint, repack
from .tree import Scalar

INLINE = 1024  # bytes of a tensor that are given as hex
Value = dict[str, Any]


class PythonReader(Server):
    name, version = "ckptfmt-python", "1.0.0"
    features: ClassVar[list[str]] = [
        *(
            "reader",
            "unverified",
            "layout:file",
            "layout:loose",
            "digest:xxh3-128",
            "digest:sha256",
            "codec:gzip",
            "pages",
            "patch",
        ),
    ]
    checkpoint: Checkpoint

    def refusal(self, error: Exception) -> Refused | None:
        if not isinstance(error, Fault):
            return super().refusal(error)
        where = dict(error.where)
        if "label" in where:  # of a tensor of the base
            where["tensor"] = where.pop("label")
        elif "tensor" in where:
            where["tensor"] = self.checkpoint.label(str(where["tensor"]))
        return Refused("error", {"code": error.code, "message": str(error), **where})

    def do_open(self, request: Value) -> Value:
        self.checkpoint = Checkpoint(request["file"], bases=request.get("bases", ()))
        return {}

    def do_list(self, request: Value) -> Value:
        schema = self.checkpoint.schema
        return {
            "tree": self.describe(self.checkpoint.tree, None),
            "metadata": self.describe(self.checkpoint.metadata, None),
            "schema": schema and {"id": schema["id"], "version": schema["version"]},
            "unknown_tags": self.checkpoint.unknown_tags,
        }

    def do_read(self, request: Value) -> Value:
        value = self.describe(self.at(request["path"]), request.get("verify", True))
        return {"value": value, "unknown_tags": self.checkpoint.unknown_tags}

    def do_read_slice(self, request: Value) -> Value:
        tensor, slices = self.at(request["path"]), request["slices"]
        need(all(start <= stop and step > 0 for start, stop, step in slices), f"slices {slices}", "bad-index")
        box = [range(*one) for one in slices]
        good = isinstance(tensor, Tensor) and len(box) == len(tensor.shape)
        good = good and all(axis.stop <= side for axis, side in zip(box, tensor.shape, strict=True))
        need(good, f"slices {box}", "bad-index")
        data = self.checkpoint.read(tensor, box, request.get("verify", True))
        return {"value": {"type": "tensor", "dtype": tensor.dtype, "shape": list(map(len, box)), **content(data)}}

    def at(self, path: list[Any]) -> Any:
        """The value at a path of the protocol."""
        return self.checkpoint.at(tuple(key if isinstance(key, str) else int(key["int"]) for key in path))

    def describe(self, value: Any, verify: bool | None) -> Value:
        """A value as the protocol has it; tensors without bytes if `verify` is None."""
        match value:
            case None:
                return {"type": "none"}
            case bool():
                return {"type": "bool", "value": value}
            case int():
                return {"type": "int", "value": str(value)}
            case float():
                return {"type": "float", "bits": struct.pack(">d", value).hex()}
            case complex():
                return {"type": "complex", "bits": struct.pack(">2d", value.real, value.imag).hex()}
            case str():
                return {"type": "str", "value": value}
            case bytes():
                return {"type": "bytes", "hex": value.hex()}
            case Scalar(dtype, data):
                bits = DTYPES[dtype].bits
                data = repack(data, bits, slice(None), 1) if bits < 8 else data
                return {"type": "scalar", "dtype": dtype, "hex": data.hex()}
            case Tensor(number, _, dtype, shape):
                found = {"type": "tensor", "index": number, "dtype": dtype, "shape": shape}
                return found if verify is None else {**found, **content(self.checkpoint.read(value, verify=verify))}
            case dict():
                keys = [key if isinstance(key, str) else {"int": str(key)} for key in value]
                items = [self.describe(item, verify) for item in value.values()]
                return {"type": "dict", "items": list(map(list, zip(keys, items, strict=True)))}
        return {"type": type(value).__name__, "items": [self.describe(item, verify) for item in value]}


def content(data: bytes) -> dict[str, str]:
    return {"hex": data.hex()} if len(data) <= INLINE else {"sha256": hashlib.sha256(data).hexdigest()}


if __name__ == "__main__":
    sys.setrecursionlimit(5000)  # JSON of the deepest tree takes more than the default
    sys.set_int_max_str_digits(0)
    PythonReader().serve()
