"""One tensor out of many: what is read of a source for it, in bytes. The kernel counts what system calls have read, and
mapped pages that were touched, around each of which it maps up to 15 others that are in memory.
"""

from __future__ import annotations

import gc
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensor_bundles
from peers import peer

import ckptfmt
from ckptfmt.conversion import open_source
from ckptfmt.conversion.checked import with_arrays
from ckptfmt.conversion.source import is_tensor, walk

torch = peer("torch")

COUNT, SIDE = 16, 512  # tensors of a MiB
MIB = 1 << 20
PAGE = 4096
ROOM = COUNT * MIB // 8  # for names and headers, and the pages around them: of each tensor two

Arrays = dict[str, np.ndarray[Any, Any]]


def state() -> Arrays:
    draw = np.random.default_rng(0)
    return {f"t{i:02}": draw.standard_normal((SIDE, SIDE)).astype(np.float32) for i in range(COUNT)}


def tensors_of(arrays: Arrays) -> dict[str, Any]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


class Module:
    """Makes torch modules with these tensors."""

    def __new__(cls, arrays: Arrays) -> Any:
        module = torch.nn.Module()
        for name, tensor in tensors_of(arrays).items():
            module.register_parameter(name, torch.nn.Parameter(tensor))
        return module


def converted(format: str) -> Callable[[Path, Arrays], None]:
    def make(path: Path, arrays: Arrays) -> None:
        ckptfmt.save(path.parents[1] / "made.ckpt", arrays)
        ckptfmt.convert(path.parents[1] / "made.ckpt", path, target_format=format)

    return make


def script(path: Path, arrays: Arrays) -> None:
    torch.jit.save(torch.jit.script(Module(arrays)), path)


def exported(path: Path, arrays: Arrays) -> None:
    class Summed(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.held = Module(arrays)

        def forward(self, x: Any) -> Any:
            return x + sum(getattr(self.held, name) for name in arrays)

    torch.export.save(torch.export.export(Summed(), (torch.ones(()),)), path)


def zero(path: Path, arrays: Arrays) -> None:
    """As ZeRO 2 of one process writes it: weights and both moments are one array each."""
    flat = torch.from_numpy(np.concatenate([array.reshape(-1) for array in arrays.values()]))
    shapes = OrderedDict((name, torch.Size(array.shape)) for name, array in arrays.items())
    path.mkdir()
    module = {name: tensor.bfloat16() for name, tensor in tensors_of(arrays).items()}
    model = {"module": module, "param_shapes": [shapes], "dp_world_size": 1, "ds_version": "0.19.8"}
    groups = [{"lr": 0.1, "params": [0]}]
    base = {"state": {0: {"exp_avg": flat + 1, "exp_avg_sq": flat + 2}}, "param_groups": groups}
    of = {"partition_count": [1], "single_partition_of_fp32_groups": [flat], "base_optimizer_state": base}
    torch.save(model, path / "mp_rank_00_model_states.pt")
    torch.save({"optimizer_state_dict": of, "ds_version": "0.19.8"}, path / "zero_pp_rank_0_mp_rank_00_optim_states.pt")


def universal(path: Path, arrays: Arrays) -> None:
    shapes = OrderedDict((name, torch.Size(array.shape)) for name, array in arrays.items())
    module = {name: tensor.bfloat16() for name, tensor in tensors_of(arrays).items()}
    for name, tensor in tensors_of(arrays).items():
        (path / "zero" / name).mkdir(parents=True)
        for kind in ("fp32", "exp_avg", "exp_avg_sq"):
            torch.save({"param": tensor}, path / "zero" / name / f"{kind}.pt")
    torch.save({"param_groups": [{"lr": 0.1, "params": [0]}]}, path / "zero" / "optimizer_state.pt")
    torch.save({"module": module, "param_shapes": [shapes]}, path / "mp_rank_00_model_states.pt")


def skops_archive(path: Path, arrays: Arrays) -> None:
    import skops.io

    skops.io.dump(arrays, path, compression=zipfile.ZIP_STORED)


def onnx_model(path: Path, arrays: Arrays) -> None:
    onnx = pytest.importorskip("onnx")
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    onnx.save_model(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], tensors)), path)


# how a source of each format is made
MADE: dict[str, Callable[[Path, Arrays], None]] = {
    **{name: converted(name) for name in ("safetensors", "torch", "torch-dcp", "npz", "flax", "orbax")},
    **{name: converted(name) for name in ("hdf5", "gguf", "zarr")},
    **{"torchscript": script, "torch-export": exported, "deepspeed": universal, "skops": skops_archive},
    **{"onnx": onnx_model, "tensorflow": tensor_bundles.save},
}


def into_small_pages(source: Path) -> None:
    """Write all files again in pieces of a page, as what was written at once lies in huge ones, which are mapped at a
    touch."""
    for file in [file for file in (source, *source.rglob("*")) if file.is_file()]:
        data = file.read_bytes()
        file.unlink()
        with file.open("wb", buffering=0) as out:
            for at in range(0, len(data), PAGE):
                out.write(data[at : at + PAGE])


def pages_of(folder: Path) -> int:
    """Bytes of the files in a folder that this process has mapped and touched."""
    total, is_there = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if line.startswith("Rss:") and is_there:
            total += int(line.split()[1]) << 10
        elif "-" in line.partition(" ")[0]:
            is_there = str(folder) in line
    return total


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


def leaf_of(tree: Any, name: str) -> Any:
    """The first tensor at a path that ends so: of a trained model the weight."""
    return next(leaf for path, leaf in walk(tree) if is_tensor(leaf) and str(path[-1]).endswith(name))


def read_for_one(path: Path, arrays: Arrays) -> int:
    """Bytes that are read to open a source and to look at one tensor of it, which is what it was made of."""

    def one(is_counted: bool) -> int:
        before = bytes_read()
        with open_source(str(path)) as source:
            found = leaf_of(source.tree, "t13")[()].tobytes()
            read = bytes_read() - before
            read += pages_of(path) if is_counted else 0
        assert found == arrays["t13"].tobytes()
        gc.collect()
        return read

    one(False)  # what is imported is no part of the source
    into_small_pages(path)
    return one(True)


pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the kernel tells of no pages"),
    pytest.mark.filterwarnings("ignore"),  # of what frameworks import
]


@pytest.mark.parametrize("name", MADE)
def test_a_tensor_is_read_alone(tmp_path: Path, name: str) -> None:
    arrays = state()
    path = tmp_path / "source" / "model"
    path.parent.mkdir()
    MADE[name](path, arrays)
    files = 3 if name == "deepspeed" else 1  # for each tensor
    assert MIB // 2 < read_for_one(path, arrays) < MIB + files * ROOM  # some are compressed by a tenth


def test_of_a_partition_the_whole_is_read(tmp_path: Path) -> None:
    """Its checksum is that of all parameters together; the moments of the optimizer, and the model, are left alone."""
    arrays = state()
    zero(tmp_path / "step", arrays)
    assert COUNT * MIB <= read_for_one(tmp_path / "step", arrays) < COUNT * MIB + ROOM


@pytest.mark.parametrize("name", ["torch", "torch-dcp", "npz", "torchscript", "torch-export", "tensorflow", "skops"])
def test_what_is_asked_for_is_checked(tmp_path: Path, name: str) -> None:
    """Damage of another tensor is found when that is read, and in a conversion of all."""
    arrays = state()
    path = tmp_path / "source" / "model"
    path.parent.mkdir()
    MADE[name](path, arrays)
    needle = arrays["t15"].tobytes()[:64]
    (file,) = [file for file in path.parent.rglob("*") if file.is_file() and needle in file.read_bytes()]
    raw = bytearray(file.read_bytes())
    raw[raw.index(needle) + MIB // 2] ^= 1
    file.write_bytes(raw)
    with open_source(str(path)) as source:
        assert leaf_of(source.tree, "t13")[()].tobytes() == arrays["t13"].tobytes()
        for read in (lambda leaf: leaf[:1], lambda leaf: leaf[()], with_arrays):
            with pytest.raises(ckptfmt.CkptError) as caught:
                read(leaf_of(source.tree, "t15"))
            assert (caught.value.code, caught.value.path) == ("bad-source", str(path))
    with pytest.raises(ckptfmt.CkptError) as caught:
        ckptfmt.convert(path, tmp_path / "all.ckpt", allow_loss=True)
    assert caught.value.code == "bad-source"
    assert not (tmp_path / "all.ckpt").exists()
    ckptfmt.convert(path, tmp_path / "part.ckpt", select=["**t0*", "**t13"], allow_loss=True)
