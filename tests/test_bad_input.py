"""Every kind of wrong input has a code of its own, and one clear message: where, what, and what to do. [ERR-001]
Files of other formats are in test_foreign.py."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from damage import LAYOUTS, exit_code, flipped, rewrite_manifest, use_disk, zones

import ckptfmt
from ckptfmt.errors import CODES
from ckptfmt.testing import assert_same_tree

TREE = {"model": {"w": np.arange(30.0)}, "step": 3}


def check_message(error: ckptfmt.CkptError, code: str, path: Path) -> None:
    """`PATH: what happened. What to do [code]`, on one line."""
    assert error.code == code, error
    assert type(error) is CODES[code].error
    text = str(error)
    assert text.startswith(f"{path}: ")
    assert text.endswith(f". {error.advice} [{code}]")
    assert "\n" not in text
    assert "Errno" not in text
    assert 20 < len(text.replace(os.path.dirname(path), "")) < 300


# ---- reading


def nothing(path: Path) -> None:
    path.unlink()


def write(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data) and None


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 300)


def cut_record(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "manifest.msgpack").write_bytes(b"")


def record(**fields: Any) -> Callable[[Path], None]:
    return lambda path: rewrite_manifest(path, lambda document: None, **fields)


def manifest(*keys: Any, value: Any) -> Callable[[Path], None]:
    """Set a value deep in the manifest."""

    def change(document: Any) -> None:
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return lambda path: rewrite_manifest(path, change)


def damaged(where: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        zone = next(zone for zone in zones(path) if zone.where == where)
        data = bytearray(path.read_bytes())
        data[(zone.start + zone.stop) // 2] ^= 1
        path.write_bytes(data)

    return change


BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
READING: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "nothing there": ("not-found", nothing, "No such file"),
    "directory without COMMIT": ("not-a-checkpoint", directory, "a directory without a COMMIT file"),
    "empty file": ("not-a-checkpoint", write(b""), "an empty file"),
    "random bytes": ("not-a-checkpoint", write(np.random.default_rng(0).bytes(5000)), "a file of another kind"),
    "safetensors": ("not-a-checkpoint", write(safetensors.numpy.save({"a": np.zeros(3)})), "ckptfmt convert"),
    "truncated": ("truncated", cut, "no commit record at its end"),
    "truncated record": ("bad-record", cut_record, "does not match its grammar"),
    "newer version": ("newer-format", record(format=(2, 0)), "format version 2"),
    "another layout": ("bad-record", record(layout="loose"), "does not fit the file"),
    "manifest beyond the file": ("bad-record", record(offset=1 << 40), "does not fit the file"),
    "damaged manifest": ("manifest-digest", damaged("manifest"), "sha256"),
    "damaged block": ("block-digest", damaged("block"), "'model/w'"),
    "required feature": ("unknown-feature", manifest("requires", value=["telepathy"]), "'telepathy'"),
    "dtype": ("unknown-dtype", manifest("tensors", "dtype", value=["float128"]), "'float128'"),
    "codec": ("unknown-codec", manifest("codecs", 0, value=[BYTES, {"name": "lzma"}]), "lzma"),
    "digest": ("unknown-digest", manifest("digest", value="md5"), "'md5'"),
    "broken manifest": ("bad-manifest", manifest("tensors", "shape", value=[[-1]]), "shape"),
    "version of the manifest": ("bad-manifest", manifest("format", value=[1, 7]), "format"),
    "chunk outside": ("bad-extent", manifest("parts", 0, "chunks", "offset", value=b"\xff" * 8), "[CHK-005]"),
    "chunk too long": (
        "bad-extent",
        manifest("parts", 0, "chunks", "length", value=bytes([99, *bytes(7)])),
        "[CHK-005]",
    ),
}


@pytest.mark.parametrize(("code", "change", "words"), READING.values(), ids=READING)
def test_reading(tmp_path: Path, code: str, change: Callable[[Path], None], words: str) -> None:
    path = tmp_path / "model.ckpt"
    ckptfmt.save(path, TREE, durable=False)
    change(path)
    with pytest.raises(ckptfmt.CkptError) as caught:
        ckptfmt.load(path)
    check_message(caught.value, code, path)
    assert words in str(caught.value)


def test_a_manifest_above_the_limit(tmp_path: Path) -> None:
    """[LIM-001]"""
    for layout in LAYOUTS:
        path = tmp_path / layout
        ckptfmt.save(path, TREE, layout=layout, durable=False)
        with pytest.raises(ckptfmt.UnsupportedError) as caught:
            ckptfmt.open(path, limits=ckptfmt.Limits(manifest=100))
        check_message(caught.value, "limit-exceeded", path)
        assert caught.value.expected == "at most 100"
        with ckptfmt.open(path, limits=ckptfmt.Limits(manifest=10_000)) as checkpoint:
            assert_same_tree(checkpoint.load(), TREE)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_damaged_tensor_is_named(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "model.ckpt"
    ckptfmt.save(path, TREE, layout=layout, durable=False)
    zone = next(zone for zone in zones(path) if zone.where == "block")
    with flipped(zone.file, zone.start, 1), pytest.raises(ckptfmt.CorruptError) as caught:
        ckptfmt.load(path)
    check_message(caught.value, "block-digest", path)
    error = caught.value
    assert (error.tensor, error.chunk, error.block, error.offset) == ("model/w", 0, 0, zone.start)
    assert f"240 bytes at byte {zone.start:,} of {zone.object or 'the file'}" in str(error)


# ---- saving

SAVING: dict[str, tuple[str, Any, dict[str, Any], str]] = {
    "object": ("unsupported-leaf", {"a": [object()]}, {}, "object at 'a/0'"),
    "set": ("unsupported-leaf", {"a": {object()}}, {}, "object at 'a/0'"),
    "surrogate": ("unsupported-leaf", {"a": "\ud800"}, {}, "lone surrogates"),
    "array in metadata": ("unsupported-leaf", {}, {"metadata": {"m": np.zeros(1)}}, "at 'm'"),
    "float key": ("unsupported-key", {"a": {1.5: 0}}, {}, "the key 1.5 of type float"),
    "bool key": ("unsupported-key", {True: 0}, {}, "the key True of type bool"),
    "object array": ("unsupported-dtype", {"a": np.array([None])}, {}, "dtype object at 'a'"),
    "string array": ("unsupported-dtype", {"a": np.array(["x"])}, {}, "at 'a'"),
    "structured array": ("unsupported-dtype", {"a": np.zeros(1, "i4,f4")}, {}, "at 'a'"),
    "layout": ("bad-option", {}, {"layout": "zip"}, "'zip'"),
    "compression": ("bad-option", {}, {"compression": "lzma"}, "found lzma"),
    "level": ("bad-option", {}, {"compression": {"name": "gzip", "level": 99}}, "gzip"),
    "digest": ("bad-option", {}, {"digest": "md5"}, "'md5'"),
    "schema": ("bad-option", {}, {"schema": ("", "1")}, "schema="),
}


def cyclic() -> list[Any]:
    tree: list[Any] = []
    tree.append(tree)
    return tree


@pytest.mark.parametrize(("code", "tree", "options", "words"), SAVING.values(), ids=SAVING)
def test_saving(tmp_path: Path, code: str, tree: Any, options: dict[str, Any], words: str) -> None:
    path = tmp_path / "model.ckpt"
    with pytest.raises(ckptfmt.InputError) as caught:
        ckptfmt.save(path, tree, **options)
    check_message(caught.value, code, path)
    assert words in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_tree_that_contains_itself(tmp_path: Path) -> None:
    with pytest.raises(ckptfmt.InputError) as caught:
        ckptfmt.save(tmp_path / "model.ckpt", cyclic())
    check_message(caught.value, "too-deep", tmp_path / "model.ckpt")


def test_targets(tmp_path: Path) -> None:
    path, folder = tmp_path / "model.ckpt", tmp_path / "folder"
    ckptfmt.save(path, TREE, durable=False)
    folder.mkdir()
    for target, options, code in (
        (path, {}, "exists"),
        (folder, {"overwrite": True}, "not-replaceable"),
        (tmp_path / "no" / "folder", {}, "not-found"),
        (tmp_path / "x.ckptfmt-tmp", {}, "bad-option"),
    ):
        with pytest.raises(ckptfmt.CkptError) as caught:
            ckptfmt.save(target, TREE, **options)
        check_message(caught.value, code, target)


@pytest.fixture
def failing_disk() -> Iterator[Callable[[int], None]]:
    """Makes every write fail with an error number."""
    disks = []

    def start(number: int) -> None:
        def fail(name: str, arguments: Any) -> None:
            if name == "write":
                raise OSError(number, os.strerror(number))

        disks.append(use_disk(fail))

    yield start
    for disk in disks:
        disk.undo()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, "disk-full"),
        (errno.EDQUOT, "disk-full"),
        (errno.EFBIG, "disk-full"),
        (errno.EIO, "io"),
        (errno.EROFS, "permission"),
        (errno.EACCES, "permission"),
    ],
    ids=lambda value: errno.errorcode.get(value, value),
)
def test_a_disk_that_fails(
    tmp_path: Path, failing_disk: Callable[[int], None], layout: str, number: int, code: str
) -> None:
    path = tmp_path / "model.ckpt"
    failing_disk(number)
    with pytest.raises(ckptfmt.StorageError) as caught:
        ckptfmt.save(path, TREE, layout=layout)
    check_message(caught.value, code, path)
    assert caught.value.errno == number
    assert isinstance(caught.value, OSError)
    assert list(tmp_path.iterdir()) == []


# ---- full disks

LARGE = {"x": np.zeros(40 << 20, np.uint8), "y": np.random.default_rng(1).integers(0, 256, 1 << 20, np.uint8)}


def save_beyond_a_limit(path: Path, layout: str, compression: str | None) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))
    with pytest.raises(ckptfmt.StorageError) as caught:
        ckptfmt.save(path, LARGE, layout=layout, compression=compression, overwrite=True)
    assert caught.value.code == "disk-full"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_files_may_not_grow_so_large(tmp_path: Path, layout: str, compression: str | None) -> None:
    path = tmp_path / "x.ckpt"
    ckptfmt.save(path, TREE, layout=layout, durable=False)
    assert exit_code(save_beyond_a_limit, path, layout, compression) == 0
    assert_same_tree(ckptfmt.load(path), TREE)
    assert os.listdir(tmp_path) == ["x.ckpt"]


ON_A_SMALL_DISK = """
import os, sys
import numpy as np
import ckptfmt
folder, layout = sys.argv[1:]
path = os.path.join(folder, "x.ckpt")
ckptfmt.save(path, {"small": np.arange(3)}, layout=layout)
free = os.statvfs(folder).f_bfree
for compression in (None, "gzip"):
    for size in (3 << 20, 30 << 20):
        tree = {"x": np.random.default_rng(1).integers(0, 256, size, np.uint8), "more": [np.zeros(9)] * 3}
        try:
            ckptfmt.save(path, tree, layout=layout, overwrite=True, compression=compression)
        except ckptfmt.StorageError as error:
            assert error.code == "disk-full", error
        else:
            raise AssertionError("it should not fit")
        assert os.listdir(folder) == ["x.ckpt"], os.listdir(folder)
        assert os.statvfs(folder).f_bfree == free, "no space is lost"
        assert ckptfmt.load(path)["small"].tolist() == [0, 1, 2]
        assert ckptfmt.verify(path).ok
"""
MOUNT = 'mount -t tmpfs -o size=2m tmpfs "$0" && exec "$@"'  # in a mount namespace of its own, so it goes by itself


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_full_disk(tmp_path: Path, layout: str) -> None:
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", MOUNT, tmp_path]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    subprocess.run([*command, sys.executable, "-c", ON_A_SMALL_DISK, tmp_path, layout], check=True)


# ---- elsewhere


def test_urls_of_no_known_kind(tmp_path: Path) -> None:
    for call in (ckptfmt.open, ckptfmt.load, ckptfmt.verify, lambda url: ckptfmt.save(url, TREE)):
        with pytest.raises(ckptfmt.InputError) as caught:
            call("nothing://bucket/model.ckpt")
        check_message(caught.value, "bad-option", "nothing://bucket/model.ckpt")  # type: ignore[arg-type]


def test_options_for_urls_at_a_path(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    for call in (ckptfmt.open, ckptfmt.load, ckptfmt.verify, partial(ckptfmt.save, tree=TREE)):
        with pytest.raises(ckptfmt.InputError) as caught:
            call(path, storage_options={"key": "x"})
        check_message(caught.value, "bad-option", path)
