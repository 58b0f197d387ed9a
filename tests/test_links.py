"""Checkpoints whose files are links, as a cache of Hugging Face has them: followed where that is asked for, and nowhere
else but into the checkpoint's folder and the blobs of the cache. [CHK-007] [CHK-010] [SEC-003]"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner
from migrations import document

import ckptfmt
from ckptfmt.cli.app import cli
from ckptfmt.storage import disk
from ckptfmt.storage.disk import Disk
from ckptfmt.testing import assert_same_tree, using_disk

TREE = {"a": np.arange(3.0), "b": [np.ones((2, 2), np.float32), "x"]}


def cached(repository: Path, name: str = "", *, layout: str = "packed", absolute: bool = False) -> Path:
    """A checkpoint as `huggingface_hub` keeps it: `blobs`, and a snapshot of links to them."""
    blobs, snapshot = repository / "blobs", repository / "snapshots" / "0123abcd" / name
    blobs.mkdir(parents=True)
    whole = repository / "whole"
    ckptfmt.save(whole, TREE, layout=layout, durable=False)
    for number, file in enumerate(sorted(path for path in whole.rglob("*") if path.is_file())):
        link = snapshot / file.relative_to(whole)
        link.parent.mkdir(parents=True, exist_ok=True)
        file.rename(blobs / str(number))
        link.symlink_to(blobs / str(number) if absolute else os.path.relpath(blobs / str(number), link.parent))
    shutil.rmtree(whole)
    return snapshot


ways = pytest.mark.parametrize("layout", ["packed", "loose"])


@ways
@pytest.mark.parametrize("name", ["", "sub/model.ckpt"], ids=["root", "below"])
@pytest.mark.parametrize("absolute", [False, True])
def test_a_cache_is_read_on_request(tmp_path: Path, layout: str, name: str, absolute: bool) -> None:
    path = cached(tmp_path / "models--a--b", name, layout=layout, absolute=absolute)
    assert_same_tree(ckptfmt.load(path, follow_links=True), TREE)
    assert_same_tree(ckptfmt.load(path, follow_links=True, mmap=True), TREE)
    with ckptfmt.open(path, follow_links=True) as checkpoint:
        assert_same_tree(checkpoint["b", 0][1:], TREE["b"][0][1:])
    assert ckptfmt.verify(path, follow_links=True).ok
    ckptfmt.convert(path, tmp_path / "c.ckpt", follow_links=True)
    assert_same_tree(ckptfmt.load(tmp_path / "c.ckpt"), TREE)
    assert ckptfmt.diff(path, tmp_path / "c.ckpt", follow_links=True).equal
    assert ckptfmt.verify_folder(path.parent, follow_links=True).ok
    assert len(ckptfmt.verify_folder(path.parent, follow_links=True).reports) == 1


@ways
def test_unasked_it_is_no_damage_and_the_advice_helps(tmp_path: Path, layout: str) -> None:
    path = cached(tmp_path / "models--a--b", layout=layout)
    calls: list[Callable[..., Any]] = [ckptfmt.open, ckptfmt.load, ckptfmt.verify]
    for call in (*calls, lambda path: ckptfmt.convert(path, tmp_path / "c.ckpt")):
        with pytest.raises(ckptfmt.LinkedError, match="COMMIT is a link") as raised:
            call(path)
        assert raised.value.code == "linked-object"
        assert isinstance(raised.value, ckptfmt.UnsupportedError)
        assert not isinstance(raised.value, ckptfmt.CorruptError)
        assert "follow_links=True;" in raised.value.advice
        assert "local_dir=" in raised.value.advice


def test_the_commands(tmp_path: Path) -> None:
    path = cached(tmp_path / "models--a--b")
    new = tmp_path / "new.ckpt"
    for words in (
        *(["inspect"], ["verify"], ["get", "a"], ["convert", tmp_path / "c.ckpt"], ["diff", path]),
        *(["repair", new], ["upgrade", "--overwrite", new]),
    ):
        name, *more = words
        asked = CliRunner().invoke(cli, [name, "--follow-links", str(path), *map(str, more)])
        assert asked.exit_code == 0, asked.output
        unasked = CliRunner().invoke(cli, [str(word) for word in (name, path, *more)])
        assert unasked.exit_code == 2
        assert "--follow-links" in unasked.stderr


def test_a_file_of_one_checkpoint_needs_no_request(tmp_path: Path) -> None:
    """The path itself may be a link, as ever."""
    ckptfmt.save(tmp_path / "blob", TREE)
    (tmp_path / "model.ckpt").symlink_to("blob")
    assert_same_tree(ckptfmt.load(tmp_path / "model.ckpt"), TREE)
    assert_same_tree(ckptfmt.load(tmp_path / "model.ckpt", follow_links=True), TREE)


def test_blobs_beside_the_checkpoint(tmp_path: Path) -> None:
    path = cached(tmp_path / "models--a--b")
    path.rename(tmp_path / "models--a--b" / "it")
    for link in (path := tmp_path / "models--a--b" / "it").rglob("*"):
        if link.is_symlink():
            blob = tmp_path / "models--a--b" / "blobs" / os.path.basename(os.readlink(link))
            link.unlink()
            link.symlink_to(blob)
    assert_same_tree(ckptfmt.load(path, follow_links=True), TREE)


def test_migrations_of_a_cache(tmp_path: Path) -> None:
    path = tmp_path / "models--a--b" / "snapshots" / "1"
    path.mkdir(parents=True)
    (path.parents[1] / "blobs").mkdir()
    whole = tmp_path / "whole"
    ckptfmt.save(whole, {"a": np.arange(3.0)}, layout="packed", schema=ckptfmt.Schema("s", "1"))
    for file in [file for file in whole.rglob("*") if file.is_file()]:
        blob = path.parents[1] / "blobs" / file.name
        link = path / file.relative_to(whole)
        link.parent.mkdir(exist_ok=True)
        shutil.copy(file, blob)
        link.symlink_to(os.path.relpath(blob, link.parent))
    migration = document({"from": "a", "to": "z"})
    found = ckptfmt.load(path, follow_links=True, schema="2", migrations=migration)
    assert_same_tree(found, {"z": np.arange(3.0)})
    ckptfmt.migrate(path, tmp_path / "new.ckpt", migration, schema="2", follow_links=True)
    assert_same_tree(ckptfmt.load(tmp_path / "new.ckpt"), {"z": np.arange(3.0)})
    with pytest.raises(ckptfmt.LinkedError):
        ckptfmt.migrate(path, tmp_path / "other.ckpt", migration, schema="2")
    (tmp_path / "m.json").write_text(json.dumps(migration))
    words = ["migrate", path, tmp_path / "newer.ckpt", "--migrations", tmp_path / "m.json", "--to", "2"]
    assert CliRunner().invoke(cli, [*map(str, words), "--follow-links"]).exit_code == 0
    assert "--follow-links" in CliRunner().invoke(cli, [*map(str, words), "--overwrite"]).stderr


@ways
def test_what_is_moved_from_a_cache_does_not_lead_there(tmp_path: Path, layout: str) -> None:
    """Neither by links, nor as what a change of the blobs would reach."""
    path = cached(tmp_path / "models--a--b", layout=layout)
    for name, write in {"repair": ckptfmt.repair, "upgrade": ckptfmt.upgrade}.items():
        write(path, tmp_path / name, follow_links=True)
        with pytest.raises(ckptfmt.LinkedError):
            write(path, tmp_path / "other")
        with ckptfmt.open(tmp_path / name) as checkpoint:
            assert checkpoint.layout == layout
        assert not any(file.is_symlink() for file in (tmp_path / name).rglob("*"))
    shutil.rmtree(tmp_path / "models--a--b")
    for name in ("repair", "upgrade"):
        assert_same_tree(ckptfmt.load(tmp_path / name), TREE)


def test_repair_takes_no_link_that_was_not_asked_for_as_a_loss(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    ckptfmt.save(path, TREE, layout="loose")
    chunk = next(file for file in (path / "tensors" / "a" / "c").rglob("*") if file.is_file())
    chunk.rename(path / "a")
    chunk.symlink_to(path / "a")
    with pytest.raises(ckptfmt.LinkedError) as raised:
        ckptfmt.repair(path, tmp_path / "new.ckpt")
    assert raised.value.tensor == "a"
    assert not (tmp_path / "new.ckpt").exists()
    assert ckptfmt.repair(path, tmp_path / "new.ckpt", follow_links=True).ok
    chunk.unlink()
    chunk.symlink_to(tmp_path / "elsewhere")  # which may not be followed
    shutil.copy(path / "a", tmp_path / "elsewhere")
    report = ckptfmt.repair(path, tmp_path / "newer.ckpt", follow_links=True)
    assert [lost.path for lost in report.lost] == [("a",)]
    assert [damage.code for damage in report.damage] == ["linked-object"]


def test_gc_follows_no_link(tmp_path: Path) -> None:
    """A cache is filled by others, and what saves leave has no links in it."""
    path = cached(tmp_path / "models--a--b")
    report = ckptfmt.gc(path.parent, delete=True, grace=0, recursive=True)
    assert not report.found
    assert not report.kept
    assert_same_tree(ckptfmt.load(path, follow_links=True), TREE)


# ---- what is not followed

COMMIT_OF = "the link in the place of COMMIT"


def outside(path: Path, target: str | Path, name: str = "COMMIT") -> ckptfmt.CkptError:
    """The error for a link to `target` in the place of an object, whose content would be right."""
    link = path / name
    link.unlink()
    link.symlink_to(target)
    with pytest.raises(ckptfmt.CkptError) as raised:
        ckptfmt.load(path, follow_links=True)
    return raised.value


@pytest.mark.parametrize(
    "place",
    [
        "elsewhere/COMMIT",
        "models--a--b/COMMIT",
        "models--a--b/refs/COMMIT",
        "models--a--c/blobs/0",
        "blobs-of-others/0",
    ],
)
def test_no_link_leads_out_of_the_cache(tmp_path: Path, place: str) -> None:
    path = cached(tmp_path / "models--a--b")
    copy = tmp_path / place
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path / "COMMIT", copy)
    for target in (copy, os.path.relpath(copy, path)):
        error = outside(path, target)
        assert error.code == "linked-object"
        assert isinstance(error, ckptfmt.LinkedError)
        assert "is no file in this folder or in the blobs of its cache" in error.message
        assert "Replace the link" in error.advice
        assert "follow_links" not in error.advice


def test_a_link_in_the_blobs_is_not_followed(tmp_path: Path) -> None:
    """Neither one that leads out, nor a folder of links."""
    path = cached(tmp_path / "models--a--b")
    blobs = tmp_path / "models--a--b" / "blobs"
    (tmp_path / "secret").mkdir()
    shutil.copy(path / "COMMIT", tmp_path / "secret" / "COMMIT")
    (blobs / "link").symlink_to(tmp_path / "secret" / "COMMIT")
    assert outside(path, "../../blobs/link").code == "linked-object"
    (blobs / "folder").symlink_to(tmp_path / "secret")
    assert outside(path, "../../blobs/folder/COMMIT").code == "linked-object"
    assert outside(path, "../../blobs/folder/../0").code == "linked-object"  # which the system takes as secret/../0


@pytest.mark.parametrize(
    "target", ["../../blobs", "../../blobs/", "../../blobs/..", "..", ".", "/", "/dev/zero", "x" * 300]
)
def test_odd_targets(tmp_path: Path, target: str) -> None:
    error = outside(cached(tmp_path / "models--a--b"), target)
    assert error.code in ("linked-object", "missing-object")


def test_a_link_that_leads_nowhere(tmp_path: Path) -> None:
    """As in a cache of which a part was removed."""
    error = outside(cached(tmp_path / "models--a--b"), "../../../blobs/9999", "packs/00000.zip")
    assert error.code == "missing-object"
    assert isinstance(error, ckptfmt.CorruptError)


@pytest.mark.parametrize("kind", ["pipe", "directory"])
def test_what_is_no_file(tmp_path: Path, kind: str) -> None:
    path = cached(tmp_path / "models--a--b")
    odd = tmp_path / "models--a--b" / "blobs" / "odd"
    os.mkfifo(odd) if kind == "pipe" else odd.mkdir()
    assert outside(path, "../../blobs/odd").code == "linked-object"


def test_a_link_in_the_place_of_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    ckptfmt.save(path, TREE, layout="packed")
    (path / "packs").rename(path / "elsewhere")
    (path / "packs").symlink_to("elsewhere")
    with pytest.raises(ckptfmt.LinkedError, match=r"'packs' in 'packs/00000.zip' is a link"):
        ckptfmt.load(path, follow_links=True)


def test_the_checkpoints_own_folder(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    ckptfmt.save(path, TREE, layout="packed")
    (path / "packs" / "00000.zip").rename(path / "elsewhere")
    (path / "packs" / "00000.zip").symlink_to("../elsewhere")
    assert_same_tree(ckptfmt.load(path, follow_links=True), TREE)
    with pytest.raises(ckptfmt.LinkedError):
        ckptfmt.load(path)


class Swaps(Disk):
    """A disk on which somebody puts a link in the place of `blobs` as soon as it is to be opened."""

    def __init__(self, blobs: Path, other: Path) -> None:
        self.blobs, self.other, self.swapped = blobs, other, False

    def open(self, path: str) -> int:
        if path == str(self.blobs) and not self.swapped:
            self.swapped = True
            self.blobs.rename(self.blobs.with_name("away"))
            self.blobs.symlink_to(self.other)
        return super().open(path)


def test_blobs_that_are_swapped_meanwhile(tmp_path: Path) -> None:
    path = cached(tmp_path / "models--a--b")
    blobs = tmp_path / "models--a--b" / "blobs"
    shutil.copytree(blobs, tmp_path / "other")
    swaps = Swaps(blobs.resolve(), tmp_path / "other")
    with using_disk(swaps), pytest.raises(ckptfmt.LinkedError):
        ckptfmt.load(path, follow_links=True)
    assert swaps.swapped
    assert disk.current() is not swaps


def test_links_that_were_not_asked_for_are_listed_by_verify(tmp_path: Path) -> None:
    """Of a checkpoint that can be opened all of them are named."""
    path = tmp_path / "x.ckpt"
    ckptfmt.save(path, TREE, layout="loose")
    for name in ("a", "b/0"):
        chunk = next(file for file in (path / "tensors" / name / "c").rglob("*") if file.is_file())
        chunk.rename(path / name.replace("/", "-"))
        chunk.symlink_to(path / name.replace("/", "-"))
    report = ckptfmt.verify(path)
    assert [damage.code for damage in report.damage] == ["linked-object"] * 2
    assert {damage.tensor for damage in report.damage} == {"a", "b/0"}
    assert ckptfmt.verify(path, follow_links=True).ok


def test_other_formats_in_a_cache_need_no_request(tmp_path: Path) -> None:
    """Also below a snapshot, as diffusers has its folders."""
    repository = tmp_path / "models--a--b"
    for name in ("", "unet"):
        folder = repository / "snapshots" / "0" / name
        folder.mkdir(parents=True, exist_ok=True)
        (repository / "blobs").mkdir(exist_ok=True)
        safetensors.numpy.save_file({"w": np.ones(3)}, repository / "blobs" / f"blob-{name}")
        link = folder / "diffusion_pytorch_model.safetensors"
        link.symlink_to(os.path.relpath(repository / "blobs" / f"blob-{name}", folder))
        assert ckptfmt.convert(folder, tmp_path / f"{name}.ckpt").tensors == 1
