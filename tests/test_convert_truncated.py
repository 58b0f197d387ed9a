"""Files of other formats that are cut off, as a download leaves them, are told as that: how many bytes they hold of
how many, and that they are to be fetched again."""

from __future__ import annotations

import re
from pathlib import Path

import flax.serialization
import gguf
import h5py
import msgpack
import numpy as np
import pytest
import safetensors.numpy
from peers import peer

import ckptfmt

torch = peer("torch")
dcp = peer("torch.distributed.checkpoint")

ARRAYS = {"w": np.arange(1000, dtype=np.float32), "v": np.arange(999.0)}
HELD = re.compile(r"is cut off: it holds ([\d,]+) of (at least )?([\d,]+) bytes$").search


def gguf_file(path: Path) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_array("tokenizer.ggml.tokens", [f"token {i}" for i in range(50)])
    for name, array in ARRAYS.items():
        writer.add_tensor(name, array)
    writer.add_tensor("q", np.zeros((4, 34), np.uint8), raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def old_torch(path: Path) -> None:
    tensors = {name: torch.from_numpy(array) for name, array in ARRAYS.items()}
    torch.save(tensors, path, _use_new_zipfile_serialization=False)


def hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.update(ARRAYS)


WRITERS = {
    "model.gguf": gguf_file,
    "model.msgpack": lambda path: path.write_bytes(flax.serialization.to_bytes(ARRAYS)),
    "model.bin": old_torch,
    "model.safetensors": lambda path: safetensors.numpy.save_file(ARRAYS, path),
    "model.h5": hdf5,
}
BEGINS = {"model.safetensors": 300, "model.h5": 60}  # before that there is nothing yet that says how much there is


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_cut_off_anywhere(tmp_path: Path, name: str) -> None:
    whole, cut = tmp_path / f"whole-{name}", tmp_path / name
    WRITERS[name](whole)
    data = whole.read_bytes()
    needed = len(data) - (24 if name.endswith("gguf") else 0)  # the last tensor is filled up to 32 bytes
    first = BEGINS.get(name, 24)
    for size in sorted({*range(first, min(1200, needed), 37), *range(first, needed, 1201), needed - 1}):
        cut.write_bytes(data[:size])
        with pytest.raises(ckptfmt.CkptError) as raised:
            ckptfmt.convert(cut, tmp_path / "model.ckpt")
        assert raised.value.code == "bad-source"
        assert "fetch it again" in raised.value.advice
        held = HELD(raised.value.message)
        assert held is not None, raised.value.message
        assert held[1] == f"{size:,}"
        due = int(held[3].replace(",", ""))
        assert size < due <= needed
        assert held[2] or due == needed
    cut.write_bytes(data[:needed])
    assert ckptfmt.convert(cut, tmp_path / "model.ckpt").tensors >= 2


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize("file", [".metadata", "__0_0.distcp"])
def test_a_file_of_dcp(tmp_path: Path, file: str) -> None:
    dcp.save({"w": torch.arange(1000.0)}, checkpoint_id=tmp_path / "step")
    data = (tmp_path / "step" / file).read_bytes()
    (tmp_path / "step" / file).write_bytes(data[: len(data) // 2])
    with pytest.raises(ckptfmt.CkptError, match=f"{file} is cut off: it holds") as raised:
        ckptfmt.convert(tmp_path / "step", tmp_path / "model.ckpt")
    assert raised.value.code == "bad-source"
    assert "fetch it again" in raised.value.advice


def test_a_value_within_a_whole_file_is_not_cut_off(tmp_path: Path) -> None:
    """An array of flax that claims more than the extension type that it stands in."""
    array = b"\x93" + msgpack.packb((40,)) + msgpack.packb("float32") + b"\xc4\xa0" + bytes(16)
    (tmp_path / "model.msgpack").write_bytes(msgpack.packb({"w": msgpack.ExtType(1, array), "text": "x" * 999}))
    with pytest.raises(ckptfmt.CkptError, match="reach over the end of their value"):
        ckptfmt.convert(tmp_path / "model.msgpack", tmp_path / "model.ckpt")
