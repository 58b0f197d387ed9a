"""`compression="weights"`: every dtype comes back, the same bytes always, and stock readers read it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import zarr

import ckptfmt
from ckptfmt.errors import UnsupportedError
from ckptfmt.format.dtypes import DTYPES
from ckptfmt.format.spec_columns import chains_of
from ckptfmt.format.weights import CODECS, LEAST, codec_for
from ckptfmt.testing.strategies import filled
from tests import ranks

ROWS = 300
NAMES = sorted(DTYPES)


def weights(shape: tuple[int, ...], dtype: Any = ml_dtypes.bfloat16, seed: int = 0) -> Any:
    values = np.random.default_rng(seed).standard_normal(shape, np.float32) * np.float32(0.02)
    return values.astype(dtype)


@pytest.fixture(scope="module")
def every_dtype() -> dict[str, Any]:
    return {name: filled(DTYPES[name].numpy, (ROWS, 1001), 7) for name in NAMES}


@pytest.mark.parametrize("layout", ["file", "packed", "loose"])
def test_every_dtype_comes_back(tmp_path: Path, layout: str, every_dtype: dict[str, Any]) -> None:
    ckptfmt.save(tmp_path / "c", every_dtype, compression="weights", layout=layout)
    with ckptfmt.open(tmp_path / "c") as checkpoint:
        assert checkpoint.verify().ok
        for name, array in every_dtype.items():
            found = checkpoint[name]
            assert found.codec == ("blosc" if name in CODECS else "raw")
            assert found[()].tobytes() == array.tobytes()
            assert found[7:900:3, ::2].tobytes() == np.ascontiguousarray(array[7:900:3, ::2]).tobytes()


def test_what_has_little_to_gain_is_raw(tmp_path: Path) -> None:
    small, large = np.zeros(LEAST // 4 - 1, np.float32), np.zeros(LEAST // 4, np.float32)
    packed = np.zeros(1 << 18, ml_dtypes.int4)
    ckptfmt.save(tmp_path / "c", {"small": small, "large": large, "packed": packed}, compression="weights")
    with ckptfmt.open(tmp_path / "c") as checkpoint:
        assert [checkpoint[name].codec for name in ("small", "large", "packed")] == ["raw", "blosc", "raw"]


def test_the_codec_is_of_dtype_and_size_alone() -> None:
    assert {name for name in NAMES if codec_for(DTYPES[name].numpy, (1 << 22,)).name == "raw"} == NAMES_OF_PACKED
    assert codec_for(np.dtype(">f4"), (1 << 20,)) == codec_for(np.dtype("<f4"), (1 << 20,)) == CODECS["float32"]


NAMES_OF_PACKED = {"int1", "int2", "int4", "uint1", "uint2", "uint4", "float4_e2m1fn"}


def test_the_same_bytes_always(tmp_path: Path) -> None:  # [MAN-009]
    tree = {"a": weights((3000, 3000)), "b": [weights((500, 1000), np.float32, 1), np.arange(100_000)]}
    reports = [ckptfmt.save(tmp_path / str(n), tree, compression="weights") for n in range(3)]
    assert len({(tmp_path / str(n)).read_bytes() for n in range(3)}) == 1
    assert len({report.manifest_sha256 for report in reports}) == 1
    code = "import sys, ckptfmt; ckptfmt.save(sys.argv[2], ckptfmt.load(sys.argv[1]), compression='weights')"
    subprocess.run([sys.executable, "-c", code, tmp_path / "0", tmp_path / "other"], check=True)
    assert (tmp_path / "other").read_bytes() == (tmp_path / "0").read_bytes()


def test_zarr_reads_it(tmp_path: Path) -> None:
    array = weights((3000, 4000), np.float32)
    ckptfmt.save(tmp_path / "c", {"w": array, "v": weights((2000, 300))}, compression="weights")
    group = zarr.open_group(zarr.storage.ZipStore(tmp_path / "c", mode="r"), path="tensors", mode="r")
    assert (group["w"][:] == array).all()
    assert (group["v"][:] == weights((2000, 300)).view(np.uint16)).all()
    with zipfile.ZipFile(tmp_path / "c") as archive:
        assert archive.testzip() is None


def test_rules_take_it_by_path(tmp_path: Path) -> None:
    tree = {"model": {"w": weights((400, 400))}, "optimizer": {"v": np.zeros((400, 400), np.float32)}, "x": np.ones(9)}
    ckptfmt.save(tmp_path / "c", tree, compression={"model/**": "weights", "optimizer/**": "zstd"})
    with ckptfmt.open(tmp_path / "c") as checkpoint:
        assert [tensor.codec for tensor in checkpoint.tensors.values()] == ["blosc", "zstd", "raw"]


def test_a_chain_is_listed_once_however_it_was_asked_for(tmp_path: Path) -> None:  # [MAN-004]
    same = {"name": "blosc", "cname": "zstd", "clevel": 1, "shuffle": "shuffle", "blocksize": 2 << 17}
    tree = {"a": weights((400, 400)), "b": weights((400, 400), seed=1)}
    ckptfmt.save(tmp_path / "c", tree, compression={"a": "weights", "b": same})
    with ckptfmt.open(tmp_path / "c") as checkpoint:
        assert len(chains_of(checkpoint._view.stored.manifest.specs)[0]) == 1
        assert checkpoint.verify().ok


def test_views_transposes_and_other_byte_orders(tmp_path: Path) -> None:
    array = weights((600, 700), np.float32)
    tree = {"t": array.T, "every": array[::2, ::3], "big": array.astype(">f4"), "row": array[1]}
    ckptfmt.save(tmp_path / "c", tree, compression="weights")
    found = ckptfmt.load(tmp_path / "c")
    assert all(np.array_equal(found[name], tree[name]) for name in tree)
    target = {name: np.empty(value.shape, np.float32) for name, value in tree.items()}
    ckptfmt.load(tmp_path / "c", into=target)
    assert all(np.array_equal(target[name], tree[name]) for name in tree)


def _save_shards(folder: Path, coordinator: Any) -> None:
    tree = {"w": ranks.shard(weights((2048, 512)), coordinator.rank, coordinator.size)}
    ckptfmt.save(folder / "together", tree, coordinator=coordinator, compression="weights")


def test_ranks_agree_on_it(tmp_path: Path) -> None:
    ranks.run(_save_shards, tmp_path, 2)
    assert ckptfmt.load(tmp_path / "together")["w"].tobytes() == weights((2048, 512)).tobytes()
    with ckptfmt.open(tmp_path / "together") as checkpoint:
        assert checkpoint["w"].codec == "blosc"
        assert checkpoint["w"].stored_bytes < 0.7 * checkpoint["w"].nbytes


def test_a_manager_takes_it(tmp_path: Path) -> None:
    tree = {"w": weights((512, 512))}
    with ckptfmt.CheckpointManager(tmp_path, compression="weights") as manager:
        manager.save(1, tree, block=False)
    with ckptfmt.CheckpointManager(tmp_path) as manager:
        assert manager.restore(1)["w"].tobytes() == tree["w"].tobytes()


def test_a_missing_package_is_named_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(UnsupportedError, match="zstandard") as raised:
        ckptfmt.save(tmp_path / "c", {"w": weights((400, 400))}, compression="weights")
    assert raised.value.code == "missing-package"
    assert "ckptfmt[weights]" in str(raised.value.advice)
    assert not list(tmp_path.iterdir())


def test_reading_needs_no_package_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ckptfmt.save(tmp_path / "c", {"w": weights((400, 400))}, compression="weights")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert ckptfmt.load(tmp_path / "c")["w"].tobytes() == weights((400, 400)).tobytes()
