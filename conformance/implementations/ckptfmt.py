"""The package `ckptfmt`, by its public interface. Run as `python -m conformance.implementations.ckptfmt`."""

from __future__ import annotations

import json
import os
import struct
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import IO, Any, ClassVar

import ml_dtypes
import numpy as np
import zarr
import zarr.storage

import ckptfmt
from ckptfmt.format.tags import CHILDREN, TAGS
from ckptfmt.frameworks.values import parts_of
from ckptfmt.migration import LossClass
from ckptfmt.storage.disk import Disk
from ckptfmt.testing import using_disk

from ..model import DTYPES, bytes_form, meaning, storage_shape
from .server import Refused, Server

Value = dict[str, Any]
LAYOUTS = ("file", "loose", "packed")


EXTERNS = {  # the one function that PROTOCOL.md asks for
    "conformance.reverse@1": ckptfmt.Extern(
        inputs=1,
        rule=lambda one: (one,),
        call=lambda one: (one[::-1],),
        inverse="conformance.reverse@1",
        loss=LossClass.EXACT,
    )
}


class Opaque:
    """Stands for what has no encoding."""


class Adapter(Server):
    name, version = "ckptfmt", ckptfmt.__version__
    features: ClassVar[list[str]] = [
        *("reader", "unverified", "verify", "into", "write", "trace", "zarr", "sparse", "canonical"),
        *("layout:file", "layout:loose", "layout:packed", "digest:xxh3-128", "digest:sha256", "digest:blake3"),
        *(
            "codec:zstd",
            "codec:gzip",
            "codec:blosc",
            "tag:collections.OrderedDict",
            "tag:numpy",
            "tag:torch",
            "tag:jax",
            "tag:python",
            "tag:values",
        ),
        *("pages", "patch", "migrate", "extern", "upgrade", "format:0.9"),
    ]

    def __init__(self) -> None:
        self.checkpoint: ckptfmt.Checkpoint | None = None
        self.verifies = True
        self.file = ""
        self.bases: list[str] | None = None

    def refusal(self, error: Exception) -> Refused | None:
        if not isinstance(error, ckptfmt.CkptError):
            return super().refusal(error)
        found = {"code": error.code, "message": str(error)}
        places = {key: getattr(error, key) for key in ("tensor", "chunk", "block", "object", "offset")}
        return Refused("error", {**found, **{key: value for key, value in places.items() if value is not None}})

    # ---- reading

    def do_open(self, request: dict[str, Any]) -> dict[str, Any]:
        if self.checkpoint is not None:
            self.checkpoint.close()
            self.checkpoint = None
        self.file, self.verifies, self.bases = request["file"], True, request.get("bases")
        self.checkpoint = ckptfmt.open(self.file, base=self.bases)
        return {}

    def opened(self, request: dict[str, Any]) -> ckptfmt.Checkpoint:
        """The open checkpoint, or one that does not verify, if that is asked for."""
        assert self.checkpoint is not None
        if request.get("verify", True) == self.verifies:
            return self.checkpoint
        self.checkpoint.close()
        self.verifies = request.get("verify", True)
        self.checkpoint = ckptfmt.open(self.file, verify=self.verifies, base=self.bases)
        return self.checkpoint

    def do_list(self, request: dict[str, Any]) -> dict[str, Any]:
        checkpoint = self.opened(request)
        with unknown_tags() as tags:
            tree, metadata = checkpoint.tree, checkpoint.metadata
        schema = checkpoint.schema
        return {
            "tree": self.show(tree, read=False),
            "metadata": self.show(metadata, read=False),
            "schema": None if schema is None else {"id": schema.id, "version": schema.version},
            "unknown_tags": tags,
            "plain_tags": list(CHILDREN),
        }

    def do_read(self, request: dict[str, Any]) -> dict[str, Any]:
        checkpoint = self.opened(request)
        with unknown_tags() as tags:
            found = checkpoint[typed(request["path"])] if request["path"] else checkpoint.load()
        plain = [name for name in CHILDREN if request["path"] or TAGS[name].restore is None]
        return {"value": self.show(found, read=True), "unknown_tags": tags, "plain_tags": plain}

    def do_read_slice(self, request: dict[str, Any]) -> dict[str, Any]:
        tensor = self.opened(request)[typed(request["path"])]
        if not isinstance(tensor, ckptfmt.Tensor):
            raise Refused("error", {"code": "bad-index", "message": "no tensor"})
        if len(request["slices"]) != tensor.ndim:
            raise Refused("error", {"code": "bad-index", "message": "another rank"})
        lengths = zip(request["slices"], tensor.shape, strict=True)
        if not all(0 <= start <= stop <= length and step >= 1 for (start, stop, step), length in lengths):
            raise Refused("error", {"code": "bad-index", "message": "beyond the tensor"})
        values = tensor[tuple(slice(*cut) for cut in request["slices"])]
        return {"value": shown_array(np.asarray(values).reshape(np.shape(values)), tensor.dtype_name)}

    def do_read_into(self, request: dict[str, Any]) -> dict[str, Any]:
        target = self.make(request["target"], {})
        arrays = list(arrays_of(target))
        try:
            found = self.opened(request).load(into=target)
        except ckptfmt.MismatchError as error:
            report = error.report
            names = {key: [difference[0] for difference in getattr(report, key)] for key in ("shape", "dtype")}
            found = {"missing": list(report.missing), "unexpected": list(report.unexpected), **names}
            touched = any(array.any() for array in arrays)
            raise Refused("error", {"code": error.code}, report=found, touched=touched) from error
        return {"value": self.show(found, read=True)}

    def do_verify(self, request: dict[str, Any]) -> dict[str, Any]:
        report = ckptfmt.verify(request["file"])
        keys = ("code", "tensor", "chunk", "block", "object", "message")
        found = [{key: getattr(damage, key) for key in keys} for damage in report.damage]
        return {"damage": [{k: v for k, v in entry.items() if v is not None} for entry in found]}

    def do_read_node(self, request: dict[str, Any]) -> dict[str, Any]:
        with ckptfmt.open(request["file"]) as checkpoint:
            is_patch = checkpoint.is_patch
        if "root" in request or is_patch:  # which is for stock readers [STACK-004] [PATCH-010]
            with zarr.storage.ZipStore(request["file"], mode="r") as store:
                path = f"{request.get('root', 'tensors')}/{request['name']}"
                array = np.asarray(zarr.open_array(store, path=path, mode="r")[...])
            return {"value": shown_array(array, array.dtype.name)}
        with ckptfmt.open(request["file"]) as checkpoint:
            node: Any = checkpoint.zarr
            array = np.asarray((node[request["name"]] if request["name"] else node)[...])
        return {"value": shown_array(array, array.dtype.name)}

    # ---- writing

    def do_write(self, request: dict[str, Any]) -> dict[str, Any]:
        known: dict[Any, Any] = {}
        tree = self.make(request["tree"], known)
        metadata = self.make(request["metadata"], known) if "metadata" in request else None
        options = dict(request.get("options", {}))
        if options.get("schema"):
            options["schema"] = tuple(options["schema"])
        report = ckptfmt.save(request["file"], tree, metadata=metadata, **options)
        return {"overlaps": [list(group) for group in report.copied_views]}

    def do_commit(self, request: dict[str, Any]) -> dict[str, Any]:
        root = os.path.dirname(request["file"])
        with open(request["trace"], "w") as trace, using_disk(RecordingDisk(trace, root)):
            return self.do_write(request)

    # ---- migrating

    def do_migrate(self, request: dict[str, Any]) -> dict[str, Any]:
        options = {key: request[key] for key in ("down", "lossy", "parameters") if key in request}
        try:
            report = ckptfmt.migrate(
                request["file"],
                request["target"],
                request["migrations"],
                schema=request["to"],
                externs=EXTERNS,
                **options,
            )
        except ckptfmt.CkptError as error:
            faults = list(error.report) if error.code == "migration-mismatch" else []
            raise Refused("error", {"code": error.code, "message": str(error)}, faults=faults) from error
        return {"class": str(report.plan.loss)}

    def do_upgrade(self, request: dict[str, Any]) -> dict[str, Any]:
        ckptfmt.upgrade(request["file"], request["target"])
        return {}

    # ---- values

    def show(self, value: Any, *, read: bool) -> Value:
        """A value of the protocol; tensors with their bytes if `read`."""
        kind = type(value)
        if kind is ckptfmt.Tensor:
            return self.show_tensor(value, read)
        if kind is np.ndarray:
            return self.show_array(value)
        if kind is dict or kind is OrderedDict:
            items = {"type": "dict", "items": [[key_form(k), self.show(v, read=read)] for k, v in value.items()]}
            return items if kind is dict else tag("collections.OrderedDict", {"type": "none"}, items)
        if kind is list or kind is tuple:
            return {"type": kind.__name__, "items": [self.show(item, read=read) for item in value]}
        parts = parts_of(value)
        if parts is not None:
            return tag(parts.tag, self.show(parts.param, read=read), self.show(parts.child, read=read))
        if isinstance(value, np.str_):  # join, as NumPy's own conversions drop zeros at the end
            return tag("numpy.str_", {"type": "none"}, {"type": "str", "value": "".join([value])})
        if isinstance(value, np.bytes_):
            return tag("numpy.bytes_", {"type": "none"}, {"type": "bytes", "hex": b"".join([value]).hex()})
        if isinstance(value, np.datetime64 | np.timedelta64):
            child = {"type": "scalar", "dtype": "int64", "hex": value.view(np.int64).tobytes().hex()}
            return tag(f"numpy.{kind.__name__}", {"type": "str", "value": unit(value.dtype)}, child)
        if isinstance(value, np.generic):
            shown = shown_array(np.asarray(value), value.dtype.name)
            return {"type": "scalar", "dtype": shown["dtype"], "hex": shown["hex"]}
        return _LEAVES[kind](value)

    def show_tensor(self, tensor: ckptfmt.Tensor, read: bool) -> Value:
        shown: Value = {"type": "tensor", "dtype": tensor.dtype_name, "shape": list(tensor.shape)}
        if tensor.dtype != tensor.stored_dtype:
            plain = {**shown, "index": tensor.name}
            if read:
                plain |= shown_array(tensor.read().view(np.int64), "int64")
            return tag(f"numpy.{tensor.dtype.type.__name__}", {"type": "str", "value": unit(tensor.dtype)}, plain)
        if read:
            shown = shown_array(tensor.read(), tensor.dtype_name)
        return {**shown, "index": str(id(tensor))}

    def show_array(self, array: Any) -> Value:
        if array.dtype.kind not in "mM":
            return {**shown_array(array, array.dtype.name), "index": str(id(array))}
        child = {**shown_array(array.view(np.int64), "int64"), "index": str(id(array.base))}
        return tag(f"numpy.{array.dtype.type.__name__}", {"type": "str", "value": unit(array.dtype)}, child)

    def make(self, value: Value, known: dict[Any, Any]) -> Any:
        """The Python value of a value of the protocol; tensors of one index are one array."""
        match value:
            case {"type": "opaque"}:
                return Opaque()
            case {"type": "dict", "items": items}:
                return {made_key(key): self.make(item, known) for key, item in items}
            case {"type": "list", "items": items}:
                return [self.make(item, known) for item in items]
            case {"type": "tuple", "items": items}:
                return tuple(self.make(item, known) for item in items)
            case {"type": "tensor", "view": [index, start], "shape": [length]}:
                return known[index][start : start + length]
            case {"type": "tensor"}:
                return known.setdefault(value.get("index", len(known) + 1 << 32), made_array(value))
            case {"type": "scalar"}:
                return made_array({**value, "shape": [1]})[0]
            case {"type": "tag"}:
                return self.made_tag(value, known)
        return _MAKERS[value["type"]](value)

    def made_tag(self, value: Value, known: dict[Any, Any]) -> Any:
        child = self.make(value["child"], known)
        match value["name"]:
            case "collections.OrderedDict":
                return OrderedDict(child)
            case "numpy.str_" | "numpy.bytes_":
                return getattr(np, value["name"].partition(".")[2])(child)
        kind = "M8" if "datetime" in value["name"] else "m8"
        asked = value["param"]["value"]
        return child.view(kind if asked == "generic" else f"{kind}[{asked}]")


class unknown_tags:  # noqa: N801
    """Collects the names of tags that are read as their child."""

    def __enter__(self) -> list[str]:
        self._catcher = warnings.catch_warnings(record=True)
        self._caught = self._catcher.__enter__()
        warnings.simplefilter("always")
        self.names: list[str] = []
        return self.names

    def __exit__(self, *exception: Any) -> None:
        self._catcher.__exit__(*exception)
        for caught in self._caught or []:
            if issubclass(caught.category, ckptfmt.UnknownTagWarning):
                text = str(caught.message).split("'")[1]
                name = first if (first := text.partition(" ")[0]) in TAGS else text  # beside the class that it names
                self.names += [] if name in self.names else [name]


def typed(path: list[Any]) -> tuple[Any, ...]:
    return tuple(key if isinstance(key, str) else int(key["int"]) for key in path)


def key_form(key: Any) -> Any:
    return key if isinstance(key, str) else {"int": str(key)}


def made_key(key: Any) -> Any:
    if isinstance(key, dict):
        return int(key["int"]) if "int" in key else 0.5
    return key


def unit(dtype: np.dtype[Any]) -> str:
    name, count = np.datetime_data(dtype)
    return name if count == 1 else f"{count}{name}"


def tag(name: str, param: Value, child: Value) -> Value:
    return {"type": "tag", "name": name, "param": param, "child": child}


def in_memory(name: str) -> np.dtype[Any]:
    """The NumPy dtype of a logical dtype."""
    return np.dtype(name) if DTYPES[name].storage == name else np.dtype(getattr(ml_dtypes, name))


def shown_array(array: Any, dtype: str) -> Value:
    """An array as a tensor value: its elements put into storage elements here, not by the package."""
    row = DTYPES[dtype]
    data = np.ascontiguousarray(array)
    if row.per > 1 and data.size:
        data = data.view(np.uint8) & (2**row.bits - 1)
        width = storage_shape(row, array.shape)[-1] if array.ndim else 1
        cells = np.zeros((data.size // max(1, array.shape[-1] if array.ndim else 1), width * row.per), np.uint8)
        cells[:, : array.shape[-1] if array.ndim else 1] = data.reshape(cells.shape[0], -1)
        shifts = np.arange(row.per, dtype=np.uint8) * np.uint8(row.bits)
        data = np.bitwise_or.reduce(cells.reshape(-1, row.per) << shifts, axis=-1)
    raw = data if sys.byteorder == "little" else data.byteswap()
    form = bytes_form(meaning(dtype, array.shape, raw.tobytes()))
    return {"type": "tensor", "dtype": dtype, "shape": list(array.shape), **form}


def made_array(value: Value) -> Any:
    if value["dtype"] == {"type": "opaque"}:
        return np.zeros(value["shape"], [("a", "<i4"), ("b", "<f8")])
    row, shape, dtype = DTYPES[value["dtype"]], tuple(value["shape"]), in_memory(value["dtype"])
    if "hex" not in value and "repeat" not in value:
        return np.zeros(shape, dtype)
    size = int(np.prod(storage_shape(row, shape), dtype=np.int64)) * row.size
    unit = bytes.fromhex(value["hex"] if "hex" in value else value["repeat"])
    stored = np.frombuffer(bytearray((unit * (size // max(1, len(unit)) + 1))[:size]), np.uint8)
    if row.per == 1:
        return stored.view(dtype).reshape(shape)
    length = shape[-1] if shape else 1
    if not size:
        return np.zeros(shape, dtype)
    shifts = np.arange(row.per, dtype=np.uint8) * np.uint8(row.bits)
    cells = (stored[:, None] >> shifts) & np.uint8(2**row.bits - 1)
    rows = cells.reshape(-1, max(1, -(-length // row.per)) * row.per)[:, :length]
    return np.ascontiguousarray(rows).view(dtype).reshape(shape)


def arrays_of(tree: Any) -> Any:
    if isinstance(tree, np.ndarray):
        yield tree
    elif isinstance(tree, dict | list | tuple):
        for item in tree.values() if isinstance(tree, dict) else tree:
            yield from arrays_of(item)


def _float(bits: str) -> float:
    return float(struct.unpack(">d", bytes.fromhex(bits))[0])


_LEAVES: dict[type, Callable[[Any], Value]] = {
    type(None): lambda _: {"type": "none"},
    bool: lambda value: {"type": "bool", "value": value},
    int: lambda value: {"type": "int", "value": str(value)},
    float: lambda value: {"type": "float", "bits": struct.pack(">d", value).hex()},
    complex: lambda value: {"type": "complex", "bits": struct.pack(">dd", value.real, value.imag).hex()},
    str: lambda value: {"type": "str", "value": value},
    bytes: lambda value: {"type": "bytes", "hex": value.hex()},
}
_MAKERS: dict[str, Callable[[Value], Any]] = {
    "none": lambda _: None,
    "bool": lambda value: value["value"],
    "int": lambda value: int(value["value"]),
    "float": lambda value: _float(value["bits"]),
    "complex": lambda value: complex(_float(value["bits"][:16]), _float(value["bits"][16:])),
    "str": lambda value: value["value"],
    "bytes": lambda value: bytes.fromhex(value["hex"]),
}


class RecordingDisk(Disk):
    """A disk that writes into a trace what changes it."""

    def __init__(self, trace: IO[str], root: str) -> None:
        self.trace, self.root = trace, root

    def note(self, call: str, path: str, **keys: Any) -> None:
        relative = {key: os.path.relpath(value, self.root) if key == "to" else value for key, value in keys.items()}
        line = {"call": call, "path": os.path.relpath(path, self.root), **relative}
        self.trace.write(json.dumps(line) + "\n")

    def create(self, path: str) -> int:
        fd = super().create(path)
        self.note("create", path)
        return fd

    def make_directory(self, path: str, mode: int = 0o777) -> None:
        super().make_directory(path, mode)
        self.note("mkdir", path)

    def write(self, fd: int, data: memoryview, offset: int) -> int:
        count = super().write(fd, data, offset)
        self.note("write", path_of(fd), offset=offset, length=count)
        return count

    def flush(self, fd: int) -> None:
        super().flush(fd)
        self.note("flush", path_of(fd))

    def flush_directory(self, path: str) -> None:
        super().flush_directory(path)
        self.note("flush", path)

    def link(self, source: str, target: str) -> None:
        super().link(source, target)
        self.note("link", source, to=target)

    def replace(self, source: str, target: str) -> None:
        super().replace(source, target)
        self.note("rename", source, to=target, replace=True)

    def rename_exclusive(self, source: str, target: str) -> None:
        super().rename_exclusive(source, target)
        self.note("rename", source, to=target, replace=False)

    def exchange(self, source: str, target: str) -> None:
        super().exchange(source, target)
        self.note("exchange", source, to=target)

    def unlink(self, path: str, *, folder: int | None = None) -> None:
        super().unlink(path, folder=folder)
        self.note("unlink", path_of(folder, path))

    def remove_directory(self, path: str, *, folder: int | None = None) -> None:
        super().remove_directory(path, folder=folder)
        self.note("rmdir", path_of(folder, path))


def path_of(fd: int | None, name: str = "") -> str:
    """The path of an open file, or of a name in an open directory."""
    return name if fd is None else os.path.join(os.readlink(f"/proc/self/fd/{fd}"), name).rstrip("/")


if __name__ == "__main__":
    Adapter().serve()
