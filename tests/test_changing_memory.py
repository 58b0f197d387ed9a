"""Memory that changes while it is saved gives a checkpoint that can be read, whose tensors hold old and new values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stores import Store, endpoint, store  # noqa: F401

import ckptfmt
from ckptfmt.frameworks.sources import Lazy
from ckptfmt.storage.disk import Disk
from ckptfmt.testing import using_disk
from stress import changes


def test_what_a_thread_and_a_process_change(tmp_path: Path) -> None:
    assert changes.run(tmp_path, seed=0, count=2).bad == []


class Interfering(Disk):
    """A disk at each of whose writes an array changes before the bytes leave."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def write(self, fd: int, data: memoryview, offset: int) -> int:
        self.array += 1
        return super().write(fd, data, offset)


@pytest.mark.parametrize("compression", [None, "zstd"])
@pytest.mark.parametrize("layout", ["file", "packed", "loose"])
@pytest.mark.parametrize("size", [1000, 300_000, 3_000_000])
def test_a_change_between_the_digest_and_the_write(
    tmp_path: Path, layout: str, compression: str | None, size: int
) -> None:  # [BLK-008]
    array = np.zeros(size, np.uint32)
    path = tmp_path / "x.ckpt"
    with using_disk(Interfering(array)):
        ckptfmt.save(path, {"a": array}, layout=layout, compression=compression)
    assert ckptfmt.verify(path).ok
    found = ckptfmt.load(path)["a"]
    assert found.max() <= array.max()


class Restless(Lazy):
    """A tensor whose elements are others each time that it is read."""

    shape, dtype = (600_000,), np.dtype(np.uint32)

    def __init__(self) -> None:
        self.value = 0

    def __getitem__(self, region: Any, /) -> Any:
        self.value += 1
        return np.full(self.shape, self.value, self.dtype)[region]


@pytest.mark.parametrize("layout", ["file", "packed", "loose"])
def test_a_change_while_it_is_sent_to_a_store(store: Store, layout: str) -> None:  # noqa: F811
    """Stores take bytes from front to back, and the crc32 comes first: what changes is read once and held."""
    tree = {"a": Restless(), "b": np.arange(10)}
    ckptfmt.save(store.url, tree, layout=layout, storage_options=store.options)
    assert ckptfmt.verify(store.url, storage_options=store.options).ok
    found = ckptfmt.load(store.url, storage_options=store.options)
    assert len(set(found["a"].tolist())) == 1
    np.testing.assert_array_equal(found["b"], np.arange(10))


def test_no_room_to_hold_what_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error that says so, and nothing is there."""

    class Full:
        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def write(self, _: Any) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", Full)
    with pytest.raises(ckptfmt.CkptError, match="changes while it is saved") as raised:
        ckptfmt.save("memory://changing/full.ckpt", {"a": Restless()})
    assert raised.value.code == "disk-full"
    with pytest.raises(ckptfmt.CkptError, match="nothing"):
        ckptfmt.open("memory://changing/full.ckpt")
