"""safetensors in its faces: NumPy and torch, each with both of its backends."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.contenders.contender import ONLY_LOADS, Contender, SliceCode
from benchmarks.contenders.torch import PART_OF_TENSOR, TorchContender


class Safetensors(Contender):
    """What the faces share: `framework` is what `safe_open` calls it."""

    peer = "safetensors"
    faces = frozenset({"open"})
    framework: str

    def open(self, path: Path) -> Collection[str]:
        from safetensors import safe_open

        with safe_open(path, framework=self.framework) as file:
            names: list[str] = list(file.keys())
        return names


class SafetensorsNumpy(Safetensors):
    """Reads into private memory by itself, from the mapped file."""

    name = "safetensors.numpy"
    note = (
        '`save_file`, `load_file` (private memory); open and slice by `safe_open(framework="np")`. For bfloat16 it '
        "needs ml_dtypes to be imported."
    )
    requires = ("safetensors",)
    framework = "np"
    slice: SliceCode | None = SliceCode(
        "import ml_dtypes\nfrom safetensors import safe_open",
        'with safe_open(path, framework="np") as file: part = file.get_slice(name)[start:stop]',
    )

    def save(self, path: Path, tree: Any) -> None:
        from safetensors.numpy import save_file

        save_file(tree, path)

    def load(self, path: Path) -> Mapping[str, Any]:
        from safetensors.numpy import load_file

        tree: Mapping[str, Any] = load_file(path)
        return tree


class SafetensorsTorch(Safetensors, TorchContender):
    """Maps; the eager load copies each tensor."""

    name = "safetensors.torch"
    note = 'Eager: `load_file`, which maps, and a `clone` of each tensor. Mapped: `load_file`. Open, slice: "pt".'
    requires: ClassVar[tuple[str, ...]] = ("safetensors", "torch")
    framework = "pt"
    faces = frozenset({"map", "open"})
    slice: SliceCode | None = SliceCode(
        "import torch\nfrom safetensors import safe_open",
        'with safe_open(path, framework="pt") as file: part = file.get_slice(name)[start:stop]',
        PART_OF_TENSOR,
    )

    def save(self, path: Path, tree: Any) -> None:
        from safetensors.torch import save_file

        save_file(tree, path)

    def load(self, path: Path) -> Mapping[str, Any]:
        from safetensors.torch import load_file

        return {name: tensor.clone() for name, tensor in load_file(path).items()}

    def map(self, path: Path) -> Mapping[str, Any]:
        from safetensors.torch import load_file

        tree: Mapping[str, Any] = load_file(path)
        return tree


class SafetensorsNumpyPread(SafetensorsNumpy):
    """The other backend of safetensors 0.8."""

    name = "safetensors.numpy pread"
    note = '`load_file(backend="pread")`. Only its loads are new.'
    faces = frozenset()
    slice = None
    omits = ONLY_LOADS

    def load(self, path: Path) -> Mapping[str, Any]:
        from safetensors.numpy import load_file

        tree: Mapping[str, Any] = load_file(path, backend="pread")
        return tree


class SafetensorsTorchPread(SafetensorsTorch):
    """The other backend of safetensors 0.8, which needs no clone."""

    name = "safetensors.torch pread"
    note = '`load_file(backend="pread")`: private memory without a clone. Only its loads are new.'
    faces = frozenset()
    slice = None
    omits = ONLY_LOADS

    def load(self, path: Path) -> Mapping[str, Any]:
        from safetensors.torch import load_file

        tree: Mapping[str, Any] = load_file(path, backend="pread")
        return tree
