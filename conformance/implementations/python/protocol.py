"""Speaks the protocol of the conformance suite (PROTOCOL.md): JSON lines on standard input and output."""

import hashlib
import json
import struct
import sys
from typing import Any

from faults import Fault, Unsupported, need
from manifest import DTYPES, Tensor
from reader import Checkpoint, path_text, repack
from tree import Scalar
from verify import verify

FEATURES = [
    "reader",
    "unverified",
    "verify",
    "layout:file",
    "layout:loose",
    "layout:packed",
    "digest:xxh3-128",
    "digest:sha256",
    "codec:gzip",
]
INLINE = 1024  # bytes of a tensor that are given as hex


class Session:
    """Answers requests; methods are named for them."""

    checkpoint: Checkpoint

    def hello(self, **_: Any) -> dict[str, Any]:
        return {"name": "ckptfmt-python", "version": "1.0.0", "features": FEATURES}

    def open(self, file: str, **_: Any) -> dict[str, Any]:
        if hasattr(self, "checkpoint"):
            self.checkpoint.close()
            del self.checkpoint
        self.checkpoint = Checkpoint(file)
        return {}

    def list(self, **_: Any) -> dict[str, Any]:
        schema = self.checkpoint.schema
        return {
            "tree": self.describe(self.checkpoint.tree, None),
            "metadata": self.describe(self.checkpoint.metadata, None),
            "schema": schema and {"id": schema["id"], "version": schema["version"]},
            "unknown_tags": self.checkpoint.unknown_tags,
        }

    def read(self, path: Any, verify: bool = True, **_: Any) -> dict[str, Any]:
        value = self.checkpoint.at(tuple(_key(key) for key in path))
        return {"value": self.describe(value, verify), "unknown_tags": self.checkpoint.unknown_tags}

    def read_slice(self, path: Any, slices: Any, verify: bool = True, **_: Any) -> dict[str, Any]:
        tensor = self.checkpoint.at(tuple(_key(key) for key in path))
        good = isinstance(tensor, Tensor) and len(slices) == len(tensor.shape)
        good = good and all(0 <= a <= b <= n and c >= 1 for (a, b, c), n in zip(slices, tensor.shape, strict=True))
        need(good, "PROTOCOL.md", f"slices {slices}", "bad-index")
        data = self.checkpoint.read(tensor, [slice(*one) for one in slices], verify)
        shape = [len(range(*one)) for one in slices]
        return {"value": {"type": "tensor", "dtype": tensor.dtype, "shape": shape, **_bytes(data)}}

    def verify(self, file: str, **_: Any) -> dict[str, Any]:
        self.open(file)
        return {"damage": [self.error(fault) for fault in verify(self.checkpoint)]}

    def describe(self, value: Any, verify: bool | None) -> dict[str, Any]:
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
            case Tensor():
                found = {"type": "tensor", "index": value.index, "dtype": value.dtype, "shape": value.shape}
                return found if verify is None else {**found, **_bytes(self.checkpoint.read(value, verify=verify))}
            case dict():
                pairs = []
                for key, item in value.items():
                    pairs.append([key if isinstance(key, str) else _integer(key), self.describe(item, verify)])
                return {"type": "dict", "items": pairs}
        return {"type": type(value).__name__, "items": [self.describe(item, verify) for item in value]}

    def error(self, fault: Fault) -> dict[str, Any]:
        where = dict(fault.where)
        if "tensor" in where:
            paths = {tensor.name: self.checkpoint.paths[tensor.index] for tensor in self.checkpoint.tensors}
            where["tensor"] = path_text(paths[str(where["tensor"])])
        return {"code": fault.code, "message": str(fault), **where}


def _key(key: Any) -> str | int:
    return key if isinstance(key, str) else int(key["int"])


def _integer(key: int) -> dict[str, str]:
    return {"int": str(key)}


def _bytes(data: bytes) -> dict[str, str]:
    return {"hex": data.hex()} if len(data) <= INLINE else {"sha256": hashlib.sha256(data).hexdigest()}


def main() -> None:
    sys.setrecursionlimit(5000)  # JSON of the deepest tree takes more than the default
    sys.set_int_max_str_digits(0)
    session = Session()
    for line in sys.stdin:
        request = json.loads(line)
        op = request.pop("op")
        reply: dict[str, Any] = {"id": request.pop("id")}
        if op == "bye":
            return
        try:
            if op in ("hello", "open", "list", "read", "read_slice", "verify"):
                reply["ok"] = getattr(session, op)(**request)
            else:
                reply["unsupported"] = op
        except Fault as fault:
            reply["error"] = session.error(fault)
        except Unsupported as lacking:
            reply["unsupported"] = lacking.feature
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
