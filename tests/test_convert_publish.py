"""A conversion that fails leaves what was there, byte for byte, and nothing beside it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import h5py
import msgpack
import numpy as np
import pytest
import safetensors.numpy
from peers import peer
from stores import Store, endpoint, s3_store, store

import ckptfmt
from ckptfmt.conversion import Loss, converter, open_source
from ckptfmt.conversion.source import LazyArray
from ckptfmt.testing import assert_same_tree

torch = peer("torch")

__all__ = ["endpoint", "s3_store", "store"]  # fixtures

OLD = {"precious": np.arange(3.0)}
TREE = {"a": np.arange(12.0).reshape(3, 4), "b": np.array([True, False])}


def bytes_below(folder: Path) -> dict[str, str]:
    """What is in a folder, hidden or not, by name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


TARGETS = ["file.ckpt", "packed", "loose", "x.safetensors", "x.pt", "x.npz", "x.h5", "x.msgpack"]


def options(target: str) -> dict[str, Any]:
    return {"layout": target.partition(".")[0]} if target.partition(".")[0] in ("file", "packed", "loose") else {}


def changed_between(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Has a source change between the writing and the comparison."""
    honest = converter.compare

    def late(*arguments: Any, **more: Any) -> None:
        with path.open("r+b") as file:
            file.seek(-8, 2)
            file.write(b"\x17" * 8)
        honest(*arguments, **more)

    monkeypatch.setattr(converter, "compare", late)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("overwrite", [True, False])
def test_a_source_that_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, overwrite: bool) -> None:
    source, place = tmp_path / "source.safetensors", tmp_path / "there" / target
    place.parent.mkdir()
    safetensors.numpy.save_file({"a": np.arange(12.0)}, source)
    if overwrite:
        ckptfmt.save(tmp_path / "old.ckpt", OLD)
        ckptfmt.convert(tmp_path / "old.ckpt", place, **options(target))
    before = bytes_below(place.parent)
    changed_between(monkeypatch, source)
    with pytest.raises(ckptfmt.CorruptError) as raised:
        ckptfmt.convert(source, place, overwrite=overwrite, **options(target))
    assert (raised.value.code, raised.value.tensor, raised.value.path) == ("not-equal", "a", str(place))
    assert "the source" in str(raised.value)
    assert bytes_below(place.parent) == before


@pytest.mark.parametrize("layout", ["file", "packed", "loose"])
def test_a_source_that_changes_on_the_way_to_a_store(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    source = tmp_path / "source.safetensors"
    safetensors.numpy.save_file({"a": np.arange(12.0)}, source)
    options: dict[str, Any] = {"layout": layout, "storage_options": store.options}
    if layout == "file":
        ckptfmt.save(store.url, OLD, storage_options=store.options)
        options["overwrite"] = True
    changed_between(monkeypatch, source)
    with pytest.raises(ckptfmt.CorruptError) as raised:
        ckptfmt.convert(source, store.url, **options)
    assert raised.value.code == "not-equal"
    if layout == "file":
        assert_same_tree(ckptfmt.load(store.url, storage_options=store.options), OLD)
    else:
        ckptfmt.save(store.url, OLD, layout=layout, storage_options=store.options)  # nothing is in the way


@pytest.mark.parametrize("layout", ["file", "packed", "loose"])
def test_what_goes_to_a_store_is_compared_first(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    safetensors.numpy.save_file(TREE, tmp_path / "x.safetensors")
    honest, there = converter.compare, []

    def looking(*arguments: Any) -> None:
        try:
            ckptfmt.open(store.url, storage_options=store.options).close()
            there.append(True)
        except ckptfmt.CkptError:
            there.append(False)
        honest(*arguments)

    monkeypatch.setattr(converter, "compare", looking)
    ckptfmt.convert(tmp_path / "x.safetensors", store.url, layout=layout, storage_options=store.options)
    assert there == [False]
    assert_same_tree(ckptfmt.load(store.url, storage_options=store.options), TREE)


def test_each_of_many_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("from", "to"):
        (tmp_path / name).mkdir()
    safetensors.numpy.save_file({"a": np.arange(12.0)}, tmp_path / "from/x.safetensors")
    ckptfmt.save(tmp_path / "to/x.ckpt", OLD)
    before = bytes_below(tmp_path / "to")
    changed_between(monkeypatch, tmp_path / "from/x.safetensors")
    (outcome,) = ckptfmt.convert_each(tmp_path / "from", tmp_path / "to", overwrite=True)
    assert outcome.error is not None
    assert outcome.error.code == "not-equal"
    assert bytes_below(tmp_path / "to") == before


# ---- bools of any byte


def write_bools(path: Path, array: np.ndarray[Any, Any]) -> None:
    """A file of a format with bytes of bools that are neither 0 nor 1."""
    match path.suffix:
        case ".npz":
            np.savez(path, a=array)
        case ".safetensors":
            safetensors.numpy.save_file({"a": array}, path)
        case ".pt":
            torch.save({"a": torch.from_numpy(array.view(np.uint8)).view(torch.bool)}, path)
        case ".msgpack":
            path.write_bytes(pytest.importorskip("flax.serialization").msgpack_serialize({"a": array}))
        case ".h5":
            with h5py.File(path, "w") as file:
                dataset = file.create_dataset("a", array.shape, bool)
                dataset[...] = array != 0
                at = dataset.id.get_offset()
            with path.open("r+b") as raw:
                raw.seek(at)
                raw.write(array.tobytes())


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pt", ".msgpack", ".h5"])
@pytest.mark.parametrize("size", [3, 1 << 21])
@pytest.mark.parametrize("verify", [True, False])
def test_bools_of_any_byte_are_truths(tmp_path: Path, suffix: str, size: int, verify: bool) -> None:
    array = np.resize(np.array([0, 1, 5], np.uint8), size).view(bool)
    write_bools(tmp_path / f"x{suffix}", array)
    truths = array.view(np.uint8) != 0
    for target in TARGETS if size == 3 else ["file.ckpt", "x.safetensors"]:
        place = tmp_path / f"y-{target}"
        ckptfmt.convert(tmp_path / f"x{suffix}", place, verify=verify, durable=False, **options(target))
        with open_source(str(place)) as source:
            assert source.tree["a"][()].view(np.uint8).tobytes() == truths.tobytes()
        assert ckptfmt.diff(tmp_path / f"x{suffix}", place).equal


# ---- shapes


def chunked(shape: Any) -> bytes:
    piece = msgpack.ExtType(1, msgpack.packb(((0,), "float32", b"")))
    lengths = {str(i): n for i, n in enumerate(shape)}
    return msgpack.packb({"a": {"__msgpack_chunked_array__": True, "shape": lengths, "chunks": {"0": piece}}})


@pytest.mark.parametrize("shape", [(0, 1 << 63), (0, True), (0, -1), (0, 1.0)])
@pytest.mark.parametrize("verify", [True, False])
def test_shapes_that_nobody_can_have(tmp_path: Path, shape: Any, verify: bool) -> None:
    (tmp_path / "x.msgpack").write_bytes(chunked(shape))
    ckptfmt.save(tmp_path / "y.ckpt", OLD)
    for target in ("y.ckpt", "y.safetensors"):
        before = bytes_below(tmp_path)
        with pytest.raises(ckptfmt.CorruptError) as raised:
            ckptfmt.convert(tmp_path / "x.msgpack", tmp_path / target, verify=verify, overwrite=True)
        assert raised.value.code == "bad-source"
        assert bytes_below(tmp_path) == before


@pytest.mark.parametrize("shape", [(0, 1 << 63), (True, 2), (1 << 61,)])
def test_no_shape_is_saved_that_no_manifest_can_say(tmp_path: Path, shape: Any) -> None:
    lazy = LazyArray(shape, np.dtype("f4"), lambda index: np.empty(0, "f4"))
    with pytest.raises(ckptfmt.InputError) as raised:
        ckptfmt.save(tmp_path / "x.ckpt", {"a": lazy})
    assert raised.value.code == "unsupported-dtype"
    assert not list(tmp_path.iterdir())


# ---- the seam


@pytest.mark.parametrize("layout", ["file", "packed", "loose"])
def test_a_save_can_be_checked_before_it_takes_its_name(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "there" / "x"
    path.parent.mkdir()
    ckptfmt.save(path, OLD, layout=layout)
    before = bytes_below(path.parent)

    class Refused(Exception): ...

    def check(checkpoint: ckptfmt.Checkpoint) -> None:
        assert_same_tree(checkpoint.load(), TREE)
        assert_same_tree(ckptfmt.load(path), OLD)
        assert checkpoint.path == str(path)
        raise Refused

    with pytest.raises(Refused):
        ckptfmt.save(path, TREE, layout=layout, overwrite=True, check=check)
    assert bytes_below(path.parent) == before


# ---- names


@pytest.mark.parametrize(
    ("target", "tree"),
    [
        ("x.safetensors", {"__metadata__": np.ones(2)}),
        ("x.msgpack", {"a": {"__msgpack_chunked_array__": np.ones(2)}}),
        ("x.msgpack", {"a": 1 << 64}),
    ],
)
@pytest.mark.parametrize("verify", [True, False])
def test_what_a_target_cannot_hold_is_found_before(tmp_path: Path, target: str, tree: Any, verify: bool) -> None:
    ckptfmt.save(tmp_path / "source.ckpt", tree)
    with pytest.raises(ckptfmt.InputError) as raised:
        ckptfmt.convert(tmp_path / "source.ckpt", tmp_path / target, verify=verify)
    assert raised.value.code in ("unsupported-key", "lossy")
    assert [path.name for path in tmp_path.iterdir()] == ["source.ckpt"]


def test_losses_have_places() -> None:
    assert str(Loss("missing", "w", "is not there")) == "missing of 'w': is not there"
