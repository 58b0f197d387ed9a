"""Checkpoints without a path: in memory, in open files of all kinds, and through pipes."""

from __future__ import annotations

import gzip
import io
import mmap
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from conversions import in_order

import ckptfmt
from ckptfmt.testing import equal_trees

TREE = {"model": {"w": np.arange(12.0).reshape(3, 4), "b": np.arange(300_000, dtype=np.int16)}, "step": 7}


@pytest.fixture(scope="module")
def raw() -> bytes:
    file = io.BytesIO()
    report = ckptfmt.save(file, TREE)
    assert report.path == "<BytesIO>"
    assert report.bytes == len(file.getvalue())
    return file.getvalue()


class Unseekable(io.RawIOBase):
    """A pipe, which is read and written a little at a time."""

    def __init__(self, data: bytes = b"") -> None:
        self.data, self.given = io.BytesIO(data), bytearray()

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def readinto(self, out: Any) -> int:
        return self.data.readinto(memoryview(out)[:1000])

    def write(self, data: Any) -> int:
        taken = bytes(data[:70_000])
        self.given += taken
        return len(taken)


def holders(raw: bytes, folder: Path) -> Iterator[Any]:
    (folder / "x.ckpt").write_bytes(raw)
    (folder / "later").write_bytes(b"before" + raw)
    (folder / "x.gz").write_bytes(gzip.compress(raw))
    yield from (raw, bytearray(raw), memoryview(raw), io.BytesIO(raw), Unseekable(raw))
    for buffering in (-1, 0):
        with open(folder / "x.ckpt", "rb", buffering=buffering) as file:
            yield file
        with open(folder / "later", "rb", buffering=buffering) as file:
            file.read(6)
            yield file
    with open(folder / "x.ckpt", "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapping:
        yield mapping
    with gzip.open(folder / "x.gz") as packed:
        yield packed
    with tempfile.SpooledTemporaryFile() as spooled:
        spooled.write(raw)
        spooled.seek(0)
        yield spooled


def test_whatever_holds_a_checkpoint_is_opened_and_loaded(raw: bytes, tmp_path: Path) -> None:
    kinds = 0
    for number, holder in enumerate(holders(raw, tmp_path)):
        if number % 2:
            assert equal_trees(ckptfmt.load(holder), TREE)
        else:
            with ckptfmt.open(holder) as checkpoint:
                np.testing.assert_array_equal(checkpoint["model/w"][1:], TREE["model"]["w"][1:])
                assert equal_trees(checkpoint.load(), TREE)
                assert checkpoint.verify().ok
        kinds += 1
    assert kinds == 12


def test_mapped_arrays_are_private(raw: bytes) -> None:
    data = bytearray(raw)
    for holder in (data, io.BytesIO(raw)):
        tree = ckptfmt.load(holder, mmap=True)
        tree["model"]["w"][:] = 0
        assert equal_trees(ckptfmt.load(holder), TREE)


def test_many_threads_read_one_open_file(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").write_bytes(raw)
    bad: list[int] = []
    with open(tmp_path / "x.ckpt", "rb") as real:
        for file in (real, io.BytesIO(raw)):
            with ckptfmt.open(file) as checkpoint:

                def read(number: int, tensor: Any = checkpoint["model/b"]) -> None:
                    found = tensor[number * 1000 : number * 1000 + 500]
                    if not np.array_equal(found, TREE["model"]["b"][number * 1000 : number * 1000 + 500]):
                        bad.append(number)

                threads = [threading.Thread(target=read, args=(number,)) for number in range(16)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
    assert bad == []


def test_saving_into_files_and_pipes(raw: bytes, tmp_path: Path) -> None:
    with open(tmp_path / "x.ckpt", "wb") as file:
        ckptfmt.save(file, TREE)
    assert equal_trees(ckptfmt.load(tmp_path / "x.ckpt"), TREE)
    with open(tmp_path / "later", "w+b", buffering=0) as file:
        file.write(b"before")
        ckptfmt.save(file, TREE, durable=False)
        file.seek(6)
        assert equal_trees(ckptfmt.load(file), TREE)
    pipe = Unseekable()
    ckptfmt.save(pipe, TREE)
    assert bytes(pipe.given) == raw
    file = io.BytesIO()
    ckptfmt.save(file, TREE)
    with pytest.raises(ckptfmt.InputError, match=r"stands at its end.*seek\(0\)"):
        ckptfmt.load(file)
    file.seek(0)
    assert equal_trees(ckptfmt.load(file), TREE)
    assert equal_trees(ckptfmt.load(file), TREE)  # it stands where it stood


def test_a_pipe_between_two_processes_or_threads(tmp_path: Path) -> None:
    out, into = os.pipe()
    found: list[Any] = []
    with open(out, "rb") as reader, open(into, "wb") as writer:
        thread = threading.Thread(target=lambda: found.append(ckptfmt.load(reader)))
        thread.start()
        ckptfmt.save(writer, TREE)
        writer.close()
        thread.join()
    assert equal_trees(found[0], TREE)


def test_a_save_that_fails_gives_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    file = io.BytesIO()

    def refuse(_: Any) -> None:
        raise ValueError("no")

    for options in ({"before_commit": lambda: refuse(0)}, {"check": refuse}, {"progress": lambda *_: refuse(0)}):
        with pytest.raises(ValueError, match="no"):
            ckptfmt.save(file, TREE, **options)
    assert file.getvalue() == b""
    assert list(tmp_path.iterdir()) == []
    seen: list[Any] = []
    ckptfmt.save(file, TREE, check=lambda checkpoint: seen.append(checkpoint.load()))
    assert equal_trees(seen[0], TREE)
    assert list(tmp_path.iterdir()) == []


def test_what_is_wrong_is_said(raw: bytes, tmp_path: Path) -> None:
    def code(call: Any, *arguments: Any, **options: Any) -> tuple[str, str]:
        with pytest.raises(ckptfmt.CkptError) as raised:
            call(*arguments, **options)
        return raised.value.code, str(raised.value)

    closed = io.BytesIO(raw)
    closed.close()
    with open(tmp_path / "text", "w+") as text, open(tmp_path / "write", "wb") as write:
        assert code(ckptfmt.load, text)[0] == "bad-option"
        assert code(ckptfmt.load, write)[0] == "bad-option"
        assert code(ckptfmt.load, closed)[0] == "bad-option"
        assert code(ckptfmt.save, text, TREE)[0] == "bad-option"
        assert code(ckptfmt.save, closed, TREE)[0] == "bad-option"
        assert code(ckptfmt.save, b"", TREE)[0] == "bad-option"
        assert code(ckptfmt.save, write, TREE, layout="loose")[0] == "bad-option"
    assert code(ckptfmt.load, raw[:-300])[0] == "truncated"
    assert code(ckptfmt.load, b"")[0] == "not-a-checkpoint"
    damaged = bytearray(raw)
    damaged[raw.index(TREE["model"]["w"].tobytes()) + 5] ^= 1
    found, message = code(ckptfmt.load, damaged)
    assert found == "block-digest"
    assert message.startswith("<bytearray of ")
    assert "model/w" in message
    assert not ckptfmt.verify(damaged).ok
    with ckptfmt.open(io.BytesIO(raw)) as checkpoint:
        pass
    assert code(checkpoint["model/w"].read)[0] == "bad-option"
    for call in (ckptfmt.gc, ckptfmt.verify_folder, ckptfmt.CheckpointManager):
        assert code(call, raw)[0] == "bad-option"


def test_conversions_take_and_give_them(raw: bytes, tmp_path: Path) -> None:
    weights = {"w": np.arange(12.0).reshape(3, 4), "b": np.ones(3, np.float32)}
    data = safetensors.numpy.save(weights)
    for source in (data, io.BytesIO(data), Unseekable(data)):
        report = ckptfmt.convert(source, tmp_path / "x.ckpt", overwrite=True)
        assert (report.source_format, report.verified) == ("safetensors", True)
        assert report.source.startswith("<")
        assert equal_trees(ckptfmt.load(tmp_path / "x.ckpt"), weights)
    out = io.BytesIO()
    ckptfmt.convert(tmp_path / "x.ckpt", out)
    assert equal_trees(ckptfmt.load(out.getvalue()), weights)
    out = io.BytesIO()
    ckptfmt.convert(raw, out, root="model", target_format="safetensors")
    assert equal_trees(in_order(safetensors.numpy.load(out.getvalue()), TREE["model"]), TREE["model"])
    assert ckptfmt.diff(raw, io.BytesIO(raw)).equal
    with pytest.raises(ckptfmt.InputError, match="bad-option"):
        ckptfmt.convert(raw, io.BytesIO(), target_format="zarr")
    with pytest.raises(ckptfmt.InputError, match="<bytes of 9 bytes>"):
        ckptfmt.convert(b"no format", tmp_path / "y.ckpt")


def test_the_command_reads_and_writes_streams(tmp_path: Path) -> None:
    weights = {"w": np.arange(12.0).reshape(3, 4)}
    command = [sys.executable, "-m", "ckptfmt", "convert"]
    data = safetensors.numpy.save(weights)
    subprocess.run([*command, "-", tmp_path / "x.ckpt"], input=data, capture_output=True, check=True)
    assert equal_trees(ckptfmt.load(tmp_path / "x.ckpt"), weights)
    out = subprocess.run(
        [*command, tmp_path / "x.ckpt", "-", "--to", "safetensors", "--json"], capture_output=True, check=True
    )
    assert equal_trees(safetensors.numpy.load(out.stdout), weights)
