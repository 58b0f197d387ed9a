"""Checkpoints on a POSIX file system: kinds of paths and targets, links, permissions, full disks, descriptors.
[PUB-001] [PUB-003] [PUB-004] [PUB-005] [CHK-007] [NAME-007] [READ-005]"""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401  children that give up root may not be able to import it later
import contextlib
import gc
import os
import pickle
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import LAYOUTS, exit_code, save_varied, varied_tree, zones

import ckptfmt
from ckptfmt.storage.attempt import LocalAttempt
from ckptfmt.storage.local import LocalStorage
from ckptfmt.testing import assert_same_tree

TREE = {"x": np.arange(3), "deep": {"y": [np.zeros(2)]}}
each_layout = pytest.mark.parametrize("layout", LAYOUTS)


def save(path: Any, layout: str, **options: Any) -> None:
    ckptfmt.save(path, TREE, layout=layout, durable=False, **options)


def refused(path: Any, layout: str, **options: Any) -> ckptfmt.CkptError:
    """The error of a save that must fail."""
    with pytest.raises(ckptfmt.CkptError) as caught:
        save(path, layout, **options)
    assert caught.value.path is not None
    return caught.value


# ---- paths


@each_layout
def test_kinds_of_paths(tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Somewhere:
        def __fspath__(self) -> str:
            return "pathlike.ckpt"

    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    for path in (
        "relative.ckpt",
        "./dot.ckpt",
        "sub/../up.ckpt",
        Path("sub") / "x.ckpt",
        Somewhere(),
        str(tmp_path / "a"),
    ):
        save(path, layout)
        assert_same_tree(ckptfmt.load(path), TREE)
        with ckptfmt.open(path) as checkpoint:
            assert checkpoint.path == os.fspath(path)
        assert ckptfmt.verify(path).ok
    assert sorted(os.listdir()) == ["a", "dot.ckpt", "pathlike.ckpt", "relative.ckpt", "sub", "up.ckpt"]


@each_layout
@pytest.mark.parametrize(
    "name",
    ["ünïcode ☃.ckpt", "with space", "-dash", "new\nline", ".hidden", "x" * 255, "ü" * 127, "☃" * 85, "a'b\"c", "100%"],
    ids=lambda name: ascii(name[:8]),
)
def test_names_of_checkpoints(tmp_path: Path, layout: str, name: str) -> None:
    save(tmp_path / name, layout)
    save(tmp_path / name, layout, overwrite=True)
    assert_same_tree(ckptfmt.load(tmp_path / name), TREE)
    assert os.listdir(tmp_path) == [name]


@each_layout
def test_a_name_that_no_file_can_have(tmp_path: Path, layout: str) -> None:
    assert refused(tmp_path / ("x" * 256), layout).code == "name-too-long"
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ckptfmt.MissingError) as caught:
        ckptfmt.open(tmp_path / ("x" * 256))
    assert caught.value.code == "not-found"


@each_layout
@pytest.mark.parametrize("path", ["", "a\0b", "\ud800"], ids=ascii)
def test_a_path_that_no_file_can_have(tmp_path: Path, layout: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert refused(path, layout, overwrite=True).code == "not-found"
    with pytest.raises(ckptfmt.MissingError) as caught:
        ckptfmt.load(path)
    str(caught.value).encode()
    assert os.listdir() == []


def test_a_path_that_ends_in_a_slash(tmp_path: Path) -> None:
    """A directory, for saving as for loading."""
    for layout in ("loose", "packed"):
        save(f"{tmp_path}/{layout}/", layout)
        assert_same_tree(ckptfmt.load(f"{tmp_path}/{layout}/"), TREE)
    assert refused(f"{tmp_path}/file/", "file").code == "bad-option"
    assert sorted(os.listdir(tmp_path)) == ["loose", "packed"]


@each_layout
def test_a_path_up_from_a_link(tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`..` after a link is above what the link leads to, for saving as for loading."""
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "link").symlink_to("far/away")
    monkeypatch.chdir(tmp_path)
    save("link/../x.ckpt", layout)
    assert_same_tree(ckptfmt.load("link/../x.ckpt"), TREE)
    assert sorted(os.listdir()) == ["far", "link"]


@each_layout
def test_a_working_directory_that_changes(tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    save("x.ckpt", layout)
    with ckptfmt.open("x.ckpt") as checkpoint:
        os.chdir("other")
        assert_same_tree(checkpoint.load(), TREE)
        assert checkpoint.verify().ok
        assert not checkpoint.was_replaced()
        save("../x.ckpt", layout, overwrite=True)
        assert checkpoint.was_replaced()


@each_layout
def test_a_working_directory_that_was_removed(tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert refused("x.ckpt", layout).code == "not-found"
    save(tmp_path / "x.ckpt", layout)
    assert_same_tree(ckptfmt.load(tmp_path / "x.ckpt"), TREE)


@each_layout
def test_names_of_temporaries_are_reserved(tmp_path: Path, layout: str) -> None:
    assert refused(tmp_path / "x.ckptfmt-tmp", layout).code == "bad-option"
    path = tmp_path / "x.ckpt"
    save(path, layout)
    path.rename(tmp_path / "x.ckptfmt-tmp")
    for text in (tmp_path / "x.ckptfmt-tmp", f"{tmp_path}/x.ckptfmt-tmp/"):
        with pytest.raises(ckptfmt.NotACheckpointError) as caught:
            ckptfmt.open(text)
        assert caught.value.code == "temporary"


@each_layout
def test_no_directory_to_save_into(tmp_path: Path, layout: str) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "missing" / "x.ckpt", tmp_path / "file" / "x.ckpt"):
        assert refused(path, layout).code == "not-found"
    assert os.listdir(tmp_path) == ["file"]


def test_a_path_through_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ckptfmt.MissingError):
        ckptfmt.open(tmp_path / "file" / "x.ckpt")


@pytest.mark.parametrize("key", ["x" * 256, "ü" * 50])
def test_keys_that_no_file_name_can_hold(tmp_path: Path, key: str) -> None:
    tree = {key: np.zeros(1), "y": np.zeros(1)}
    with pytest.raises(ckptfmt.InputError) as caught:
        ckptfmt.save(tmp_path / "x.ckpt", tree, layout="loose")
    assert caught.value.code == "name-too-long"
    assert "tensors/" in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    ckptfmt.save(tmp_path / "x.ckpt", tree, layout="file")
    assert_same_tree(ckptfmt.load(tmp_path / "x.ckpt"), tree)


# ---- targets


def make_target(path: Path, kind: str) -> None:
    match kind:
        case "file" | "loose":
            ckptfmt.save(path, {"old": np.zeros(5)}, layout=kind, durable=False)
        case "other file":
            path.write_bytes(b"mine")
        case "empty directory":
            path.mkdir()
        case "directory":
            path.mkdir()
            (path / "mine").write_bytes(b"mine")
        case "directory with a COMMIT of its own":
            path.mkdir()
            (path / "mine").write_bytes(b"mine")
            (path / "COMMIT").write_bytes(b"what we agreed on")
        case "directory with a pipe":
            path.mkdir()
            os.mkfifo(path / "COMMIT")
        case "link":
            ckptfmt.save(path.with_name("linked"), {"old": np.zeros(5)}, durable=False)
            path.symlink_to("linked")
        case "dangling link":
            path.symlink_to("nowhere")
        case "link to a directory":
            path.with_name("linked").mkdir()
            path.symlink_to("linked")
        case "pipe":
            os.mkfifo(path)


KINDS = [
    "file",
    "loose",
    "other file",
    "empty directory",
    "directory",
    "directory with a COMMIT of its own",
    "directory with a pipe",
    "link",
    "dangling link",
    "link to a directory",
    "pipe",
]


@each_layout
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_replaced_unasked(tmp_path: Path, layout: str, kind: str) -> None:
    path = tmp_path / "x.ckpt"
    make_target(path, kind)
    if kind == "empty directory" and layout != "file":
        save(path, layout)  # as good as nothing [PUB-005]
        assert_same_tree(ckptfmt.load(path), TREE)
        return

    def there() -> list[tuple[Path, Any]]:
        """All but when it was looked at last, as following a link does."""
        found = [(file, file.lstat()) for file in sorted(tmp_path.rglob("*"))]
        return [(file, (now.st_mode, now.st_ino, now.st_nlink, now.st_size, now.st_mtime_ns)) for file, now in found]

    before = there()
    error = refused(path, layout)
    assert isinstance(error, ckptfmt.ExistsError)
    assert error.code == "exists"
    assert there() == before


@each_layout
@pytest.mark.parametrize("kind", KINDS)
def test_replacing(tmp_path: Path, layout: str, kind: str) -> None:
    """Any file or link gives way, and any checkpoint, whatever its layout; directories of other things do not."""
    path = tmp_path / "x.ckpt"
    make_target(path, kind)
    gives_way = "link" in kind or "directory" not in kind or (kind == "empty directory" and layout != "file")
    if not gives_way:
        assert refused(path, layout, overwrite=True).code == "not-replaceable"  # [PUB-005]
        assert (path / "mine").exists() == (kind in ("directory", "directory with a COMMIT of its own"))
    else:
        save(path, layout, overwrite=True)
        assert path.is_dir() == (layout != "file")
        assert not path.is_symlink()
        assert_same_tree(ckptfmt.load(path), TREE)
    assert set(os.listdir(tmp_path)) <= {"x.ckpt", "linked"}
    assert (tmp_path / "linked").exists() == (kind in ("link", "link to a directory")), "a link's target is untouched"


# ---- reading through links and odd files


@each_layout
def test_the_checkpoint_itself_may_be_a_link(tmp_path: Path, layout: str) -> None:
    save(tmp_path / "x.ckpt", layout)
    (tmp_path / "link").symlink_to("x.ckpt")
    (tmp_path / "dir").symlink_to(".")
    for path in (tmp_path / "link", tmp_path / "dir" / "x.ckpt"):
        assert_same_tree(ckptfmt.load(path), TREE)
        assert ckptfmt.verify(path).ok


@pytest.mark.parametrize(
    "name", ["tensors", "tensors/deep", "tensors/x/c", "tensors/x/c/0", "manifest.msgpack", "COMMIT"]
)
def test_no_link_inside_a_directory_is_followed(tmp_path: Path, name: str) -> None:
    """[CHK-007] Not even one that stays inside."""
    path = tmp_path / "x.ckpt"
    save(path, "loose")
    outside = tmp_path / "outside"
    (path / name).rename(outside)
    (path / name).symlink_to(outside)
    with pytest.raises(ckptfmt.CkptError) as caught:
        ckptfmt.load(path)
    assert caught.value.code == "linked-object"
    outside.rename(path / "inside")
    (path / name).unlink()
    (path / name).symlink_to(os.path.relpath(path / "inside", (path / name).parent))
    with pytest.raises(ckptfmt.CkptError) as caught:
        ckptfmt.load(path)
    assert caught.value.code == "linked-object"


def make_object(path: Path, kind: str) -> None:
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "socket":
            with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(path.parent):  # whose paths are short
                listener.bind(path.name)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    make_object(tmp_path / "pipe", "pipe")
    make_object(tmp_path / "socket", "socket")
    (tmp_path / "folder").mkdir()
    for path in (
        tmp_path / "pipe",
        tmp_path / "socket",
        Path("/dev/zero"),
        Path("/dev/null"),
        tmp_path / "folder",
        tmp_path,
    ):
        with pytest.raises(ckptfmt.NotACheckpointError) as caught:
            ckptfmt.open(path)
        assert caught.value.code == "not-a-checkpoint"


@each_layout
def test_a_damaged_checkpoint_can_be_replaced(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "x.ckpt"
    save(path, layout)
    record = path if layout == "file" else path / "COMMIT"
    record.write_bytes(record.read_bytes()[:-2])
    with pytest.raises(ckptfmt.CkptError):
        ckptfmt.load(path)
    save(path, layout, overwrite=True)
    assert_same_tree(ckptfmt.load(path), TREE)


@pytest.mark.parametrize("kind", ["pipe", "directory", "socket"])
def test_objects_that_are_no_files(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.ckpt"
    save_varied(path, "loose")
    chunk = path / "tensors" / "raw" / "c" / "0" / "0"
    chunk.unlink()
    make_object(chunk, kind)
    with ckptfmt.open(path) as checkpoint:
        with pytest.raises(ckptfmt.CorruptError) as caught:
            checkpoint["raw"].read()
        assert caught.value.tensor == "raw"
        assert_same_tree(checkpoint["bfloat16"].read(), varied_tree()["bfloat16"])
        assert [damage.tensor for damage in checkpoint.verify().damage] == ["raw"]


# ---- permissions


@each_layout
@pytest.mark.parametrize(("umask", "file_mode", "folder_mode"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)])
def test_modes_follow_the_umask(tmp_path: Path, layout: str, umask: int, file_mode: int, folder_mode: int) -> None:
    before = os.umask(umask)
    try:
        save(tmp_path / "x.ckpt", layout)
    finally:
        os.umask(before)
    for file in tmp_path.rglob("*"):
        assert stat.S_IMODE(file.stat().st_mode) == (folder_mode if file.is_dir() else file_mode)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A directory that every user can reach."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def become_nobody() -> None:
    if os.getuid() == 0:
        os.setuid(65534)


def save_as_nobody(path: Path, layout: str, overwrite: bool) -> None:
    assert ckptfmt.save  # imported while its file can be read
    become_nobody()
    assert refused(path, layout, overwrite=overwrite).code == "permission"


def load_as_nobody(path: Path) -> None:
    import mmap  # noqa: F401  # as a load does, while its file can be read

    become_nobody()
    with pytest.raises(ckptfmt.StorageError) as caught:
        ckptfmt.load(path)
    assert caught.value.code == "permission"
    assert caught.value.errno == 13


@each_layout
def test_a_folder_that_may_not_be_written(open_folder: Path, layout: str) -> None:
    path = open_folder / "x.ckpt"
    open_folder.chmod(0o555)
    assert exit_code(save_as_nobody, path, layout, False) == 0
    open_folder.chmod(0o755)
    save(path, layout)
    open_folder.chmod(0o555)
    assert exit_code(save_as_nobody, path, layout, True) == 0
    assert_same_tree(ckptfmt.load(path), TREE)
    assert os.listdir(open_folder) == ["x.ckpt"]


@each_layout
def test_a_checkpoint_that_may_not_be_read(open_folder: Path, layout: str) -> None:
    path = open_folder / "x.ckpt"
    save(path, layout)
    path.chmod(0)
    assert exit_code(load_as_nobody, path) == 0
    if layout == "loose":
        path.chmod(0o755)
        (path / "tensors" / "x" / "c" / "0").chmod(0)
        assert exit_code(load_as_nobody, path) == 0


# ---- descriptors


def descriptors(folder: Path) -> list[str]:
    """What is open at or below a folder; what other tests left behind in this process comes and goes."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return sorted(name for name in found if name.startswith(str(folder)))


@each_layout
def test_no_descriptor_is_left_open(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "x.ckpt"
    tree = save_varied(path, layout)
    zone = next(zone for zone in zones(path) if zone.where == "block")
    (tmp_path / "text").write_text("no checkpoint")
    before = descriptors(tmp_path)
    for _ in range(3):
        save(path, layout, overwrite=True)
        refused(path, layout)
        with pytest.raises(ckptfmt.InputError):
            ckptfmt.save(tmp_path / "y", {"x": object()}, layout=layout)
        save_varied(path, layout, overwrite=True)
        assert_same_tree(ckptfmt.load(path), tree)
        ckptfmt.verify(path)
        ckptfmt.load(path, mmap=True)
        with pytest.raises(ckptfmt.SelectionError):
            ckptfmt.load(path, select="nothing")
        with pytest.raises(ckptfmt.NotACheckpointError):
            ckptfmt.open(tmp_path / "text")
        os.truncate(zone.file, zone.start)
        with pytest.raises(ckptfmt.CorruptError):
            ckptfmt.load(path)
        ckptfmt.verify(path)
    assert descriptors(tmp_path) == before


@each_layout
def test_a_checkpoint_that_nobody_closes(tmp_path: Path, layout: str) -> None:
    """Its descriptor lives as long as it, or a tensor of it, does."""
    save(tmp_path / "x.ckpt", layout)
    tensor = ckptfmt.open(tmp_path / "x.ckpt")["x"]
    gc.collect()
    assert_same_tree(tensor.read(), TREE["x"])
    mapped = ckptfmt.open(tmp_path / "x.ckpt").load(mmap=True)
    del tensor
    gc.collect()
    assert descriptors(tmp_path) == []
    assert_same_tree(mapped, TREE)


@each_layout
@pytest.mark.parametrize("use", ["nothing", "tree", "load", "slice", "mmap", "verify", "handles"])
def test_a_checkpoint_that_nobody_holds_is_closed_at_once(tmp_path: Path, layout: str, use: str) -> None:
    """Nothing in it holds what holds it, so it takes no collection of garbage."""
    save(tmp_path / "x.ckpt", layout)
    uses: dict[str, Callable[[ckptfmt.Checkpoint], Any]] = {
        "nothing": lambda checkpoint: None,
        "tree": lambda checkpoint: checkpoint.tree,
        "load": lambda checkpoint: checkpoint.load(),
        "slice": lambda checkpoint: checkpoint["x"][:1],
        "mmap": lambda checkpoint: checkpoint.load(mmap=True),
        "verify": lambda checkpoint: checkpoint.verify(),
        "handles": lambda checkpoint: checkpoint["x"].astype(np.dtype("f8")).read(),
    }
    gc.disable()
    try:
        uses[use](ckptfmt.open(tmp_path / "x.ckpt"))
        assert descriptors(tmp_path) == []
    finally:
        gc.enable()


def interrupted_after_closing(monkeypatch: pytest.MonkeyPatch, call: Callable[[], Any]) -> int:
    """Interrupt a call right after each time that it closes a descriptor, as a signal does; gives how often that was.
    What is closed twice raises in place of the interrupt, or closes what another thread has opened meanwhile."""
    close = os.close

    def closing_until(last: int) -> Callable[[int], None]:
        left = iter(range(last))

        def closed(number: int) -> None:
            close(number)
            if next(left, None) == last - 1:
                raise KeyboardInterrupt

        return closed

    for count in range(1, 1000):
        monkeypatch.setattr(os, "close", closing_until(count))
        try:
            call()
        except KeyboardInterrupt:
            continue
        finally:
            monkeypatch.setattr(os, "close", close)
        return count - 1
    raise AssertionError("the call does not end")


@each_layout
@pytest.mark.parametrize("linked", [False, True])
def test_an_interrupt_has_nothing_closed_twice(
    tmp_path: Path, layout: str, linked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "snapshots" / "0" / "x.ckpt"
    path.parent.mkdir(parents=True)
    save(path, layout)
    if linked and path.is_dir():
        for number, file in enumerate([file for file in path.rglob("*") if file.is_file()]):
            blob = tmp_path / "blobs" / "xx" / str(number)
            blob.parent.mkdir(parents=True, exist_ok=True)
            file.symlink_to(file.rename(blob))
    assert interrupted_after_closing(monkeypatch, lambda: ckptfmt.load(path, follow_links=linked)) > 0
    gc.collect()
    assert descriptors(tmp_path) == []


@each_layout
def test_a_checkpoint_that_is_closed(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "x.ckpt"
    save(path, layout)
    with ckptfmt.open(path) as checkpoint:
        pass
    checkpoint.close()  # again, harmless
    assert checkpoint.metadata is None
    for read in (checkpoint["x"].read, checkpoint.load, lambda: checkpoint.load(mmap=True), checkpoint.verify):
        with pytest.raises(ckptfmt.InputError, match="closed") as caught:
            read()
        assert (caught.value.code, caught.value.path) == ("bad-option", str(path))


def test_an_open_checkpoint_is_not_pickled(tmp_path: Path) -> None:
    save(tmp_path / "x.ckpt", "file")
    with ckptfmt.open(tmp_path / "x.ckpt") as checkpoint:
        for value in (checkpoint, checkpoint["x"], checkpoint.tree):
            with pytest.raises(TypeError, match="hand its path over"):
                pickle.dumps(value)


# ---- the storage itself


def test_storage(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    save(path, "loose")
    storage = LocalStorage(str(path))
    size = storage.size("COMMIT")
    assert storage.is_directory
    assert storage.read("COMMIT", 0, size) == (path / "COMMIT").read_bytes()
    assert storage.read("COMMIT", 8, 3) == b"1.0"
    assert storage.read("COMMIT", size, 0) == b""
    for name, offset, length, code in (("COMMIT", size - 1, 2, "short-object"), ("none", 0, 1, "missing-object")):
        with pytest.raises(ckptfmt.CorruptError) as caught:
            storage.read(name, offset, length)
        assert caught.value.code == code
    storage.close()


def test_an_attempt_that_is_dropped(tmp_path: Path) -> None:
    for directory in (False, True):
        attempt = LocalAttempt(str(tmp_path / "x"), directory=directory, overwrite=False, durable=True)
        file = attempt.create("a/b/c" if directory else "")
        file.reserve(1000)
        file.write(3, np.arange(5))
        (temporary,) = tmp_path.iterdir()
        assert temporary.name.startswith(".x.")
        attempt.abort()
        attempt.abort()  # again, harmless
        assert list(tmp_path.iterdir()) == []


def test_a_file_is_as_long_as_it_was_finished(tmp_path: Path) -> None:
    attempt = LocalAttempt(str(tmp_path / "x"), directory=False, overwrite=False, durable=True)
    file = attempt.create("")
    file.reserve(10_000)
    file.write(2, b"cd")
    file.write(0, memoryview(np.frombuffer(b"ab", np.uint16)))
    file.finish(4)
    attempt.publish()
    assert (tmp_path / "x").read_bytes() == b"abcd"


def test_names_that_the_file_system_cannot_tell_apart(tmp_path: Path) -> None:
    """[NAME-007], as a case-insensitive file system would have it"""
    attempt = LocalAttempt(str(tmp_path / "x"), directory=True, overwrite=False, durable=False)
    attempt.create("a/b").finish(0)
    for name in ("a/b", "a/b/c"):
        with pytest.raises(ckptfmt.InputError) as caught:
            attempt.create(name)
        assert caught.value.code == "name-collision"
    attempt.abort()
    assert list(tmp_path.iterdir()) == []
