"""`ckptfmt verify`: whole or damaged, and the exact place of every damage."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from damage import LAYOUTS, Zone, flipped, rewrite_manifest, save_varied, small_chunks, zones
from programs import on_terminal

import ckptfmt
from ckptfmt.cli.app import cli
from ckptfmt.format.names import path_label


def verify(*args: object) -> Result:
    return CliRunner().invoke(cli, ["verify", *map(str, args)])


def damage_of(path: Path) -> list[dict[str, Any]]:
    """What --json says, which must be what the library says."""
    result = verify(path, "--json")
    found: dict[str, Any] = json.loads(result.stdout)
    report = ckptfmt.verify(path)
    assert found == {
        "path": str(path),
        "ok": report.ok,
        "tensors": report.tensors,
        "blocks": report.blocks,
        "bytes": report.bytes,
        "damage": [
            {**dataclasses.asdict(damage), "path": None if damage.path is None else list(damage.path)}
            for damage in report.damage
        ],
    }
    assert result.exit_code == (0 if report.ok else 1)
    damage: list[dict[str, Any]] = found["damage"]
    return damage


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_whole_checkpoint(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "x.ckpt"
    save_varied(path, layout)
    report = ckptfmt.verify(path)
    result = verify(path)
    assert result.exit_code == 0
    assert (
        result.stdout == f"{path}: whole: {report.tensors} tensors, {report.blocks} blocks, {report.bytes} B checked\n"
    )
    assert result.stderr == ""
    assert damage_of(path) == []


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("where", ["block", "frame", "manifest", "commit"])
def test_one_flipped_bit_of_every_kind(tmp_path: Path, layout: str, where: str) -> None:
    path = tmp_path / "x.ckpt"
    save_varied(path, layout)
    for zone in [zone for zone in zones(path) if zone.where == where and zone.stop > zone.start]:
        with flipped(zone.file, (zone.start + zone.stop) // 2, 3):
            (damage,) = damage_of(path)
            shown = verify(path)
            assert shown.exit_code == 1
            assert shown.stdout.splitlines()[0].startswith(f"{path}: damaged")
            assert f"  {damage['code']}: " in shown.stdout
            assert f"{damage['code']} means: " in shown.stdout
            if where == "block":
                assert_place(zone, damage, shown.stdout)
            assert verify(path, "--quiet").stdout == ""
            assert verify(path, "--quiet").exit_code == 1
    assert verify(path).exit_code == 0


def assert_place(zone: Zone, damage: dict[str, Any], shown: str) -> None:
    assert zone.tensor is not None
    name = path_label(zone.tensor)
    assert (damage["code"], damage["tensor"], damage["object"]) == ("block-digest", name, zone.object)
    assert (damage["offset"], damage["length"]) == (zone.start, zone.stop - zone.start)
    place = f"bytes {zone.start:,} to {zone.stop - 1:,} of {zone.object or 'the file'}"
    assert damage["path"] == list(zone.tensor)
    assert f"block-digest: tensor {name or '(root)'}, chunk 0, block 0, {place}\n" in shown


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_one_of_many_damages_is_shown(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "x.ckpt"
    with small_chunks():
        ckptfmt.save(path, {"a": np.arange(40_000.0), "b": np.zeros(3)}, layout=layout, durable=False)
        blocks = ckptfmt.verify(path).blocks - 1
        for zone in zones(path):
            if zone.tensor == ("a",):
                data = bytearray(zone.file.read_bytes())
                for at in range(zone.start, zone.stop, 4096):
                    data[at] ^= 1
                zone.file.write_bytes(data)
        result = verify(path)
        assert len(damage_of(path)) == blocks > 70
    assert result.stdout.splitlines()[0].startswith(f"{path}: damaged in {blocks} places: 2 tensors, ")
    assert result.stdout.count("\n  block-digest: tensor a, chunk ") == blocks


def test_a_missing_and_a_short_object(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    ckptfmt.save(path, {"a": np.zeros(4), "b": np.zeros(4)}, layout="loose", durable=False)
    (path / "tensors/a/c/0").unlink()
    (path / "tensors/b/c/0").write_bytes(bytes(5))
    assert [damage["code"] for damage in damage_of(path)] == ["missing-object", "short-object"]
    shown = verify(path).stdout
    assert "  missing-object: tensor a, chunk 0, block 0, bytes 0 to 31 of tensors/a/c/0\n" in shown
    assert "  short-object: tensor b, chunk 0, block 0, bytes 0 to 31 of tensors/b/c/0\n" in shown


def test_keys_that_look_alike_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    ckptfmt.save(path, {0: np.zeros(4), "0": np.ones(4), "a/b": np.ones(3), "a": {"b": np.ones(2)}}, layout="loose")
    shutil.rmtree(path / "tensors")
    blocks = [damage for damage in damage_of(path) if damage["where"] == "block"]
    assert [damage["path"] for damage in blocks] == [[0], ["0"], ["a/b"], ["a", "b"]]
    assert [damage["tensor"] for damage in blocks] == ["0", "'0'", "'a/b'", "a/b"]
    lines = verify(path).stdout.splitlines()
    assert any(line.startswith("  missing-object: tensor 0, ") for line in lines)
    assert any(line.startswith("  missing-object: tensor '0', ") for line in lines)


def test_resuming(tmp_path: Path) -> None:
    path, state = tmp_path / "x.ckpt", tmp_path / "state"
    ckptfmt.save(path, {"a": np.zeros(4)}, durable=False)
    result = verify("--resume", state, path)
    assert (result.exit_code, state.exists()) == (0, False)
    state.write_text("other")
    result = verify("--resume", state, path)
    assert result.exit_code == 2
    assert result.stderr.endswith("[bad-option]\n")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_truncation_anywhere_is_no_traceback(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "x.ckpt"
    save_varied(path, layout)
    for zone in zones(path):
        for end in {zone.start, (zone.start + zone.stop) // 2, zone.stop - 1}:
            data = zone.file.read_bytes()
            zone.file.write_bytes(data[:end])
            result, as_json = verify(path), verify(path, "--json")
            zone.file.write_bytes(data)
            if zone.start == zone.stop:
                continue
            assert result.exit_code == as_json.exit_code == (1 if end or layout != "file" else 2)
            assert isinstance(result.exception, SystemExit)
            assert json.loads(as_json.stdout).keys() & {"damage", "error"}
    assert verify(path).exit_code == 0


def test_what_cannot_be_opened_says_so_instead_of_counting(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    ckptfmt.save(path, {"a": np.zeros(4)}, durable=False)
    rewrite_manifest(path, lambda document: document.update(block=1))
    assert verify(path).stdout.splitlines()[0] == f"{path}: damaged: it cannot be opened"


def test_a_file_without_its_zip_directory_is_reported_as_damage(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    ckptfmt.save(path, {"a": np.zeros(4)}, durable=False)
    rewrite_manifest(path, lambda document: None)  # puts the commit record right behind the manifest
    assert [damage["code"] for damage in damage_of(path)] == ["frame-digest"]


def test_quiet_is_quiet_but_for_errors(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    ckptfmt.save(path, {"a": np.zeros(4)}, durable=False)
    result = verify("-q", path)
    assert (result.exit_code, result.output) == (0, "")
    result = verify("-q", tmp_path / "absent")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.endswith("[not-found]\n")
    assert json.loads(verify("-q", "--json", path).stdout)["ok"] is True


def test_progress_is_shown_on_a_terminal_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    ckptfmt.save(path, {"a": np.zeros(1 << 20)}, durable=False)
    code, shown, out = on_terminal("verify", "--json", path, stream=2)
    assert (code, json.loads(out)["ok"]) == (0, True)
    assert "8.0/8.0 MiB" in shown or "8.4/8.4 MB" in shown
    code, shown, _ = on_terminal("verify", "--quiet", path, stream=2)
    assert (code, shown) == (0, "")
    code, shown, err = on_terminal("verify", path, stream=1)  # stderr is a pipe here
    assert (code, err) == (0, "")


@pytest.fixture
def several(tmp_path: Path) -> list[Path]:
    """A whole checkpoint, a damaged one, a folder of two, and what is none."""
    paths = [tmp_path / name for name in ("a.ckpt", "b.ckpt", "folder", "text", "none")]
    paths[2].mkdir()
    paths[3].write_text("hello")
    for path in (*paths[:2], paths[2] / "c.ckpt", paths[2] / "d.ckpt"):
        ckptfmt.save(path, {"a": np.arange(9)}, durable=False)
    raw = bytearray(paths[1].read_bytes())
    (zone,) = [zone for zone in zones(paths[1]) if zone.where == "block"]
    raw[zone.start] ^= 1
    paths[1].write_bytes(raw)
    return paths


def test_several_paths(several: list[Path]) -> None:
    whole, damaged, folder, text, none = several
    result = verify(whole, folder)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines()[-1] == "2 paths: 3 checkpoints, all whole"
    result = verify(whole, damaged, text, none)
    assert result.exit_code == 1, "damage counts more than what cannot be checked"
    assert f"{whole}: whole: " in result.stdout
    assert f"{damaged}: damaged in 1 place" in result.stdout
    assert result.stdout.splitlines()[-1] == "4 paths: 2 checkpoints, 1 damaged, 2 not checked"
    assert [line.rpartition("[")[2] for line in result.stderr.splitlines()] == ["not-a-checkpoint]", "not-found]"]
    assert verify(whole, text).exit_code == 2
    assert verify("-q", whole, folder).output == ""


def test_several_paths_as_json(several: list[Path]) -> None:
    whole, damaged, folder, text, _ = several
    found = json.loads(verify("--json", whole, damaged, folder, text).stdout)
    assert found["paths"] == [str(path) for path in several[:4]]
    assert "path" not in found
    assert found["ok"] is False
    assert [one["path"] for one in found["checkpoints"]] == [
        str(path) for path in (whole, damaged, folder / "c.ckpt", folder / "d.ckpt")
    ]
    assert [one["ok"] for one in found["checkpoints"]] == [True, False, True, True]
    assert [one["code"] for one in found["errors"]] == ["not-a-checkpoint"]
    assert found["checkpoints"][0] == json.loads(verify("--json", whole).stdout)


def test_a_copy_with_a_flipped_bit_in_a_compressed_chunk(tmp_path: Path) -> None:
    path, copy = tmp_path / "x.ckpt", tmp_path / "copy.ckpt"
    ckptfmt.save(path, {"a": np.arange(1000)}, compression="gzip", durable=False)
    shutil.copy(path, copy)
    (zone,) = [zone for zone in zones(copy) if zone.where == "block"]
    with flipped(copy, zone.start + 20, 0):
        assert [damage["tensor"] for damage in damage_of(copy)] == ["a"]
    assert verify(copy).exit_code == 0
