"""Patches as sources of every command and call that reads a checkpoint: with `base=`, `--base`, they are what they
make; without, the error says how to give it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import ckptfmt
from ckptfmt.cli.app import cli
from ckptfmt.conversion import convert_each
from ckptfmt.testing import assert_same_tree
from ckptfmt.viewing.places import places_at

RANDOM = np.random.default_rng(0)
WEIGHTS = RANDOM.standard_normal((60, 50), np.float32)
OLD = {"w": WEIGHTS, "kept": np.arange(500, dtype=np.int32), "step": np.array(1)}
NEW = {"w": np.where(WEIGHTS > 1, 0, WEIGHTS), "kept": OLD["kept"], "step": np.array(2)}
DOCUMENT = {"ckptfmt_migration": 1, "schema": "net", "from": "1", "to": "2", "rest": "keep"}
DOCUMENT["rules"] = [{"from": "w", "to": "v"}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a base, a patch, and what that makes."""
    ckptfmt.save(tmp_path / "base.ckpt", OLD, schema=("net", "1"))
    ckptfmt.save(tmp_path / "new.ckpt", NEW, schema=("net", "1"))
    ckptfmt.patch(tmp_path / "base.ckpt", tmp_path / "new.ckpt", tmp_path / "patch.ckpt")
    (tmp_path / "net.json").write_text(json.dumps(DOCUMENT))
    return tmp_path


@contextmanager
def apart(folder: Path) -> Iterator[None]:
    """While the base does not lie beside the patch."""
    (folder / "apart").mkdir()
    (folder / "base.ckpt").rename(folder / "apart" / "base.ckpt")
    try:
        yield
    finally:
        (folder / "apart" / "base.ckpt").rename(folder / "base.ckpt")
        (folder / "apart").rmdir()


def of(call: Callable[..., Any], *names: str) -> Callable[..., Any]:
    return lambda folder, **options: call(*(folder / name for name in names), **options)


def migrated(folder: Path, **options: Any) -> Any:
    return ckptfmt.migrate(folder / "patch.ckpt", folder / "x.ckpt", [DOCUMENT], schema="2", **options)


CALLS = {
    "load": of(ckptfmt.load, "patch.ckpt"),
    "diff": of(ckptfmt.diff, "patch.ckpt", "new.ckpt"),
    "diff, the other": of(ckptfmt.diff, "new.ckpt", "patch.ckpt"),
    "convert": of(ckptfmt.convert, "patch.ckpt", "x.ckpt"),
    "convert to another format": of(ckptfmt.convert, "patch.ckpt", "x.safetensors"),
    "stats": of(ckptfmt.stats, "patch.ckpt"),
    "report of two": of(ckptfmt.report, "patch.ckpt", "new.ckpt"),
    "migrate": migrated,
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_reads_through_the_base(folder: Path, name: str) -> None:
    call = CALLS[name]
    options: Any = {"allow_loss": True} if name == "convert to another format" else {}
    with apart(folder), pytest.raises(ckptfmt.CkptError) as caught:
        call(folder, **options)
    assert caught.value.code == "missing-base"
    assert "base=PATH" in caught.value.advice
    assert not (folder / "x.ckpt").exists()
    for base in (folder / "base.ckpt", [folder / "new.ckpt", folder / "base.ckpt"], folder, iter([folder])):
        found = call(folder, base=base, **options)
        if name == "load":
            assert_same_tree(found, NEW)
        elif name.startswith("diff"):
            assert found.equal
        for made in (folder / "x.ckpt", folder / "x.safetensors"):
            made.unlink(missing_ok=True)
    with pytest.raises(ckptfmt.CkptError) as caught:
        call(folder, base=folder / "new.ckpt", **options)
    assert caught.value.code == "wrong-base"


def test_what_is_made_of_a_patch_is_what_it_makes(folder: Path) -> None:
    base = folder / "base.ckpt"
    for layout in ("file", "packed", "loose"):
        ckptfmt.convert(folder / "patch.ckpt", folder / f"{layout}.ckpt", layout=layout, base=base)
        assert_same_tree(ckptfmt.load(folder / f"{layout}.ckpt"), NEW)
    migrated(folder, base=base)
    assert_same_tree(ckptfmt.load(folder / "x.ckpt"), {"v": NEW["w"], "kept": NEW["kept"], "step": NEW["step"]})
    migrated(folder, base=base, layout="loose", overwrite=True)
    assert_same_tree(ckptfmt.load(folder / "x.ckpt")["v"], NEW["w"])
    found, expected = (ckptfmt.stats(folder / name, base=base) for name in ("patch.ckpt", "new.ckpt"))
    assert found.tensors == expected.tensors
    data = (folder / "patch.ckpt").read_bytes()
    assert ckptfmt.diff(data, folder / "new.ckpt", base=base).equal


def test_a_folder_with_patches_is_converted(folder: Path, tmp_path: Path) -> None:
    outcomes = convert_each(folder, tmp_path / "made", base=folder / "base.ckpt", source_format="ckptfmt")
    errors = {Path(one.source).name: one.error for one in outcomes}
    assert {errors[f"{name}.ckpt"] for name in ("base", "new", "patch")} == {None}
    assert_same_tree(ckptfmt.load(tmp_path / "made" / "patch.ckpt"), NEW)


def test_a_chain_and_a_store(folder: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    newer = {**NEW, "w": NEW["w"] * np.float32(1.5)}
    ckptfmt.save(folder / "newer.ckpt", newer)
    ckptfmt.patch(folder / "patch.ckpt", folder / "newer.ckpt", folder / "second.ckpt", bases=folder / "base.ckpt")
    bases = [folder / "patch.ckpt", folder / "base.ckpt"]
    ckptfmt.convert(folder / "second.ckpt", folder / "made.ckpt", base=bases)
    assert_same_tree(ckptfmt.load(folder / "made.ckpt"), newer)
    store = fsspec.filesystem("memory")
    store.store.clear()
    for name in ("base.ckpt", "patch.ckpt"):
        store.pipe_file(f"/bucket/{name}", (folder / name).read_bytes())
    url = "memory://bucket/patch.ckpt"
    assert ckptfmt.diff(url, folder / "new.ckpt", base="memory://bucket/base.ckpt").equal


def test_tensors_that_the_base_has_are_no_bomb(tmp_path: Path) -> None:
    """What is made of a small patch is measured by the bytes of both."""
    large = RANDOM.standard_normal(12 << 20, np.float32)
    ckptfmt.save(tmp_path / "base.ckpt", {"w": large}, durable=False)
    ckptfmt.save(tmp_path / "new.ckpt", {"w": large, "n": np.arange(3)}, durable=False)
    ckptfmt.patch(tmp_path / "base.ckpt", tmp_path / "new.ckpt", tmp_path / "patch.ckpt", durable=False)
    report = ckptfmt.diff(tmp_path / "patch.ckpt", tmp_path / "new.ckpt", base=tmp_path / "base.ckpt", max_expansion=1)
    assert report.equal


# ---- commands


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, list(map(str, arguments)))


COMMANDS: dict[str, tuple[str, ...]] = {
    "get": ("get", "{patch}", "w"),
    "stats": ("stats", "{patch}"),
    "diff": ("diff", "{patch}", "{new}"),
    "convert": ("convert", "--overwrite", "--allow-loss", "metadata", "{patch}", "{folder}/x.npz"),
    "migrate": (
        *("migrate", "--overwrite", "--migrations", "{folder}/net.json"),
        *("--schema", "2", "{patch}", "{folder}/x.ckpt"),
    ),
    "report": ("report", "{patch}", "{new}", "-o", "{folder}/x.html"),
}


def spelled(folder: Path, name: str) -> list[str]:
    places = {"folder": folder, "patch": folder / "patch.ckpt", "new": folder / "new.ckpt"}
    return [word.format(**places) for word in COMMANDS[name]]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_takes_the_base_or_says_how_to_give_it(folder: Path, name: str) -> None:
    words = spelled(folder, name)
    with apart(folder):
        failed = run(*words)
    assert failed.exit_code == 2
    assert "[missing-base]" in failed.stderr.replace("\n", " ")
    assert "--base PATH" in " ".join(failed.stderr.split())
    assert run(*words, "--base", folder / "base.ckpt").exit_code == 0
    assert run(*words, "--base", folder / "new.ckpt", "--base", folder).exit_code == 0
    assert "[wrong-base]" in run(*words, "--base", folder / "new.ckpt").stderr.replace("\n", " ")


def test_a_page_of_one_patch(folder: Path) -> None:
    """Without its base it shows the rest, and tells of each tensor that is made of that."""
    page = folder / "x.html"
    with apart(folder):
        assert run("report", folder / "patch.ckpt", "-o", page).exit_code == 0
    assert "missing-base" in page.read_text()
    for more in ((), ("--base", folder)):
        assert run("report", folder / "patch.ckpt", "-o", page, *more).exit_code == 0
        assert "missing-base" not in page.read_text()


def test_inspect_shows_a_patch_with_and_without_its_base(folder: Path) -> None:
    for more in ((), ("--base", folder)):
        found = run("inspect", folder / "patch.ckpt", *more)
        assert found.exit_code == 0
        assert "kept" in found.stdout
    assert "[wrong-base]" in run("inspect", folder / "patch.ckpt", "--base", folder / "new.ckpt").stderr


def test_what_cannot_be_done_with_a_patch_says_what_can(folder: Path) -> None:
    for words, advice in (
        (("repair", folder / "patch.ckpt", folder / "x.ckpt"), "ckptfmt.patch"),
        (("upgrade", folder / "patch.ckpt", folder / "x.ckpt"), "ckptfmt apply"),
    ):
        failed = run(*words)
        assert failed.exit_code == 2
        assert advice in " ".join(failed.stderr.split()), failed.stderr


def test_the_page_of_a_folder_has_its_patches(folder: Path) -> None:
    rows = {row["name"]: row for row in places_at(folder).index()["checkpoints"]}
    assert [rows[name]["at"] is not None for name in ("base.ckpt", "patch.ckpt")] == [True, True]
