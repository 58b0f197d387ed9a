"""Parts of checkpoints as files of weights: `select` and `root`, metadata as strings, and losses that are allowed."""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from click.testing import CliRunner, Result
from peers import peer
from test_readme import README

import ckptfmt
from ckptfmt.cli.app import cli
from ckptfmt.testing import assert_same_tree

torch = peer("torch")

W, B = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(2)
TREE = {"model": {"w": W, "head": {"b": B}}, "optimizer": {"lr": 0.1, "betas": (0.9, 0.95)}, "step": 3}


def run(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def lossy(source: Path, target: Path, **options: Any) -> ckptfmt.CkptError:
    with pytest.raises(ckptfmt.InputError) as raised:
        ckptfmt.convert(source, target, **options)
    assert raised.value.code == "lossy"
    assert not target.exists()
    return raised.value


@pytest.fixture
def step(tmp_path: Path) -> Path:
    """A checkpoint as a training run leaves it."""
    with ckptfmt.CheckpointManager(tmp_path / "run") as manager:
        manager.save(1, TREE, metrics={"loss": 1.5})
    return tmp_path / "run" / "step-0000000001.ckpt"


# ---- parts


def test_the_weights_of_a_training_checkpoint(step: Path, tmp_path: Path) -> None:
    target = tmp_path / "w.safetensors"
    report = ckptfmt.convert(step, target, root="model")
    assert (report.losses, report.tensors, report.verified) == ((), 2, True)
    with safetensors.safe_open(target, "np") as file:
        assert set(file.keys()) == {"w", "head.b"}
        np.testing.assert_array_equal(file.get_tensor("w"), W)
        assert json.loads(file.metadata()["ckptfmt.run"]) == {"step": 1, "metrics": {"loss": 1.5}}
    ckptfmt.convert(target, tmp_path / "back.ckpt")
    with ckptfmt.open(tmp_path / "back.ckpt") as back, ckptfmt.open(step) as first:
        assert back.metadata == first.metadata


def test_select_keeps_the_paths(step: Path, tmp_path: Path) -> None:
    ckptfmt.convert(step, tmp_path / "w.npz", select=["model/w", "model/head/*"], allow_loss="metadata")
    with np.load(tmp_path / "w.npz") as file:
        assert set(file) == {"model/w", "model/head/b"}
    ckptfmt.convert(step, tmp_path / "head.safetensors", select="model/head/**", root="model")
    assert set(safetensors.numpy.load_file(tmp_path / "head.safetensors")) == {"head.b"}
    ckptfmt.convert(step, tmp_path / "w.safetensors", root="model/w", allow_loss="nesting")
    assert set(safetensors.numpy.load_file(tmp_path / "w.safetensors")) == {"tensor"}


def test_what_nothing_matches(step: Path, tmp_path: Path) -> None:
    for options, code in (
        ({"select": "modle/**"}, "no-match"),
        ({"root": "model", "select": "optimizer/**"}, "no-match"),
        ({"root": "modle"}, "no-such-path"),
        ({"root": "mod"}, "no-such-path"),
    ):
        with pytest.raises(ckptfmt.SelectionError) as raised:
            ckptfmt.convert(step, tmp_path / "x.ckpt", **options)
        assert raised.value.code == code
        assert raised.value.path == str(step)
        assert not (tmp_path / "x.ckpt").exists()


@pytest.mark.parametrize("target", ["x.ckpt", "x.pt"])
def test_items_that_are_left_out_keep_their_place(tmp_path: Path, target: str) -> None:
    ckptfmt.save(tmp_path / "a.ckpt", {"l": [W, B, (W, B)]})
    error = lossy(tmp_path / "a.ckpt", tmp_path / target, select=["l/1", "l/2/0"])
    assert "nesting of 'l/0', 'l/2/1': an item that is not selected becomes None" in error.message
    ckptfmt.convert(tmp_path / "a.ckpt", tmp_path / target, select=["l/1", "l/2/0"], allow_loss={"nesting"})
    ckptfmt.convert(tmp_path / target, tmp_path / "b.ckpt")
    assert_same_tree(ckptfmt.load(tmp_path / "b.ckpt"), {"l": [None, B, (W, None)]})


def test_tags_and_attributes_come_along_below_a_root(tmp_path: Path) -> None:
    """Versions of modules and Parameters of a state dict, from torch into a checkpoint, and back from a part of it."""
    module = torch.nn.Sequential(torch.nn.BatchNorm1d(3))
    torch.save({"net": module.state_dict(), "other": OrderedDict(x=torch.ones(1))}, tmp_path / "a.pt")
    ckptfmt.convert(tmp_path / "a.pt", tmp_path / "a.ckpt")
    ckptfmt.convert(tmp_path / "a.ckpt", tmp_path / "net.pt", root="net")
    state = torch.load(tmp_path / "net.pt", weights_only=True)
    assert state._metadata == module.state_dict()._metadata
    assert state.keys() == module.state_dict().keys()
    ckptfmt.convert(tmp_path / "a.ckpt", tmp_path / "other.ckpt", root="other")
    assert ckptfmt.open(tmp_path / "other.ckpt").metadata is None


def test_tags_of_what_is_left_out_go_with_it(tmp_path: Path) -> None:
    sizes = {"a": {"size": torch.Size([2, 3]), "w": torch.ones(2)}, "b": torch.Size([4])}
    torch.save(sizes, tmp_path / "a.pt")
    report = ckptfmt.convert(tmp_path / "a.pt", tmp_path / "a.ckpt", root="a")
    assert report.losses == ()
    loaded = ckptfmt.load(tmp_path / "a.ckpt", framework="torch")
    assert loaded["size"] == torch.Size([2, 3])
    ckptfmt.convert(tmp_path / "a.pt", tmp_path / "w.safetensors", select="a/w", root="a")


def test_a_schema_is_of_the_whole(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "a.ckpt", TREE, schema=ckptfmt.Schema("s", "1"))
    ckptfmt.convert(tmp_path / "a.ckpt", tmp_path / "b.ckpt", root="model")
    assert ckptfmt.open(tmp_path / "b.ckpt").schema is None
    ckptfmt.convert(tmp_path / "a.ckpt", tmp_path / "c.ckpt", root="model", schema=ckptfmt.Schema("m", "1"))
    assert ckptfmt.open(tmp_path / "c.ckpt").schema == ckptfmt.Schema("m", "1")


class Settings:
    """Of a program, and so nothing that a file can be believed about."""


@pytest.fixture
def lightning(tmp_path: Path) -> Path:
    """A .ckpt as Lightning writes it: flat names below a prefix, and what is no data."""
    state = {"model.a.w": torch.ones(2), "model.b": torch.ones(3), "loss.w": torch.ones(1)}
    document = {"state_dict": state, "hyper_parameters": Settings(), "size": torch.ones(2).to_sparse()}
    torch.save(document, tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


def test_a_root_can_be_what_flat_names_begin_with(lightning: Path, tmp_path: Path) -> None:
    report = ckptfmt.convert(lightning, tmp_path / "m.safetensors", root="state_dict/model")
    assert report.losses == ()  # what is left out on purpose is none
    assert set(safetensors.numpy.load_file(tmp_path / "m.safetensors")) == {"a.w", "b"}
    ckptfmt.convert(lightning, tmp_path / "m.ckpt", root="state_dict/model", nest=True, select="**/model.a*")
    assert set(ckptfmt.load(tmp_path / "m.ckpt")["a"]) == {"w"}


def test_a_part_of_every_kind_of_checkpoint(step: Path, tmp_path: Path) -> None:
    """Mapped ones and such as are decoded, also in directories."""
    for layout in ("packed", "loose", "file"):
        for compression in (None, "zstd"):
            source = tmp_path / f"{layout}-{compression}"
            ckptfmt.save(source, TREE, layout=layout, compression=compression)
            for suffix in (".ckpt", ".pt", ".safetensors", ".h5", ".msgpack"):
                target = tmp_path / f"{layout}-{compression}-part{suffix}"
                assert ckptfmt.convert(source, target, root="model").tensors == 2
                ckptfmt.convert(target, tmp_path / "back.ckpt", nest=suffix == ".safetensors", overwrite=True)
                found = ckptfmt.load(tmp_path / "back.ckpt")
                assert_same_tree({key: found[key] for key in ("w", "head")}, TREE["model"])


# ---- metadata

METADATA: dict[str, Any] = {"loss": 2.31, "note": "a", "tags": ["x", 1], "nested": {"a": None}, "big": 2**70, "s": "1"}


def test_metadata_are_strings_of_json_and_come_back(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "a.ckpt", {"w": W}, metadata=METADATA)
    report = ckptfmt.convert(tmp_path / "a.ckpt", tmp_path / "a.safetensors")
    assert report.losses == ()
    with safetensors.safe_open(tmp_path / "a.safetensors", "np") as file:
        found = file.metadata()
    assert {key: json.loads(found[key]) for key in ("loss", "tags", "nested", "big")} == {
        key: METADATA[key] for key in ("loss", "tags", "nested", "big")
    }
    assert (found["note"], found["s"]) == ("a", "1")
    assert found["format"] == "pt"  # without which transformers 4 refuses a file that has metadata
    ckptfmt.convert(tmp_path / "a.safetensors", tmp_path / "b.ckpt")
    assert ckptfmt.open(tmp_path / "b.ckpt").metadata == METADATA


def test_metadata_of_strings_stay_as_they_are(tmp_path: Path) -> None:
    for metadata in ({"format": "pt", "x": "[1]"}, {"x": "1"}, {}):
        safetensors.numpy.save_file({"w": W}, tmp_path / "a.safetensors", metadata)
        ckptfmt.convert(tmp_path / "a.safetensors", tmp_path / "a.ckpt", overwrite=True)
        assert (ckptfmt.open(tmp_path / "a.ckpt").metadata or {}) == metadata
        ckptfmt.convert(tmp_path / "a.ckpt", tmp_path / "b.safetensors", overwrite=True)
        with safetensors.safe_open(tmp_path / "b.safetensors", "np") as file:
            assert (file.metadata() or {}) == metadata


def test_metadata_that_json_cannot_hold(tmp_path: Path) -> None:
    metadata = {"t": (1, 2), "b": b"x", "ok": 1, 5: "five", "ckptfmt.json": 1}
    ckptfmt.save(tmp_path / "a.ckpt", {"w": W}, metadata=metadata)
    message = lossy(tmp_path / "a.ckpt", tmp_path / "a.safetensors").message
    for words in (
        "'t' is kept as JSON, which has fewer types",
        "'b' is left out: JSON cannot hold it",
        "5 is kept as JSON",
        "'ckptfmt.json' is left out",
    ):
        assert words in message
    ckptfmt.convert(tmp_path / "a.ckpt", tmp_path / "a.safetensors", allow_loss={"metadata"})
    ckptfmt.convert(tmp_path / "a.safetensors", tmp_path / "b.ckpt")
    assert ckptfmt.open(tmp_path / "b.ckpt").metadata == {"t": [1, 2], "ok": 1, "5": "five"}
    ckptfmt.save(tmp_path / "c.ckpt", {"w": W}, metadata=[1, 2])
    ckptfmt.convert(tmp_path / "c.ckpt", tmp_path / "c.safetensors", allow_loss={"metadata"})
    ckptfmt.convert(tmp_path / "c.safetensors", tmp_path / "d.ckpt")
    assert ckptfmt.open(tmp_path / "d.ckpt").metadata == {"metadata": [1, 2]}


@pytest.mark.parametrize(
    "told",
    [
        "no json",
        "[]",
        "{}",
        '{"keys": 5, "added": []}',
        '{"keys": ["x"], "added": [[]]}',
        '{"keys": ["y"], "added": []}',
        '{"keys": ["no"], "added": []}',
        '{"keys": ["x"]}',
    ],
)
def test_strings_that_say_wrongly_what_they_are_stay_strings(tmp_path: Path, told: str) -> None:
    strings = {"ckptfmt.json": told, "x": "1", "y": "no json"}
    safetensors.numpy.save_file({"w": W}, tmp_path / "a.safetensors", strings)
    ckptfmt.convert(tmp_path / "a.safetensors", tmp_path / "a.ckpt")
    assert ckptfmt.open(tmp_path / "a.ckpt").metadata == strings


def test_other_formats_name_each_key_that_they_leave_out(tmp_path: Path) -> None:
    torch.save(torch.nn.BatchNorm1d(3).state_dict(), tmp_path / "first.pt")
    ckptfmt.convert(tmp_path / "first.pt", tmp_path / "a.ckpt", metadata={"loss": 1, "note": "x"})
    assert (
        "'loss' is left out; metadata of '': 'note' is left out"
        in lossy(tmp_path / "a.ckpt", tmp_path / "a.pt").message
    )
    ckptfmt.convert(tmp_path / "a.ckpt", tmp_path / "a.pt", allow_loss="metadata")
    assert torch.load(tmp_path / "a.pt")._metadata[""]["version"] == 2


# ---- losses


def test_kinds_of_loss_are_allowed_by_name(lightning: Path, tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "a.ckpt", TREE)
    error = lossy(tmp_path / "a.ckpt", tmp_path / "a.safetensors")
    kinds = {loss.kind for loss in error.report}
    assert kinds == {"nesting", "value"}
    assert error.advice.startswith("Choose another target, take a part")
    assert error.advice.endswith("allow_loss={'nesting', 'value'}")
    lossy(tmp_path / "a.ckpt", tmp_path / "a.safetensors", allow_loss={"nesting", "dtype"})
    assert lossy(tmp_path / "a.ckpt", tmp_path / "a.safetensors", allow_loss="value").message.count("value of") == 0
    for number, allowed in enumerate((kinds, list(kinds), frozenset(ckptfmt.conversion.KINDS), True)):
        report = ckptfmt.convert(tmp_path / "a.ckpt", tmp_path / f"{number}.safetensors", allow_loss=allowed)
        assert {loss.kind for loss in report.losses} == kinds


def test_where_only_reading_loses_another_target_helps_nothing(lightning: Path, tmp_path: Path) -> None:
    error = lossy(lightning, tmp_path / "a.ckpt")
    assert "another target" not in str(error)
    assert error.advice == "Allow it: allow_loss={'value'}"
    assert "Settings is left out" in error.message
    assert "a sparse tensor becomes a dict of its parts" in error.message


def test_an_error_names_all_places_of_a_loss(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "a.ckpt", {f"n{i}": None for i in range(20)} | {"w": W, "x": 1, "y": 2.0})
    message = lossy(tmp_path / "a.ckpt", tmp_path / "a.npz").message
    assert "value of 'n0', 'n1', 'n2', 'n3', 'n4', 'n5', 'n6', 'n7' and 12 more: NoneType is left out" in message
    assert "'x': int becomes a tensor" in message
    assert "'y': float becomes a tensor" in message


def test_a_kind_that_there_is_not(lightning: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ckptfmt.InputError, match=r"'values', which is no kind .*alias, dtype, nesting, value"
    ) as raised:
        ckptfmt.convert(lightning, tmp_path / "a.ckpt", allow_loss={"values", "dtype"})
    assert raised.value.code == "bad-option"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("--allow-loss {} {}", 0),
        ("{} {} --allow-loss", 0),
        ("--allow-loss value {} {}", 0),
        ("--allow-loss=value,dtype {} {}", 0),
        ("{} --allow-loss dtype --allow-loss value {}", 0),
        ("--allow-loss dtype {} {}", 2),
        ("--allow-loss=values {} {}", 2),
        ("{} {}", 2),
    ],
)
def test_the_option_of_the_command(lightning: Path, tmp_path: Path, words: str, code: int) -> None:
    result = run("convert", *words.format(lightning, tmp_path / "a.ckpt").split())
    assert result.exit_code == code, result.output
    assert (tmp_path / "a.ckpt").exists() is (code == 0)


def test_the_command_takes_a_part(step: Path, tmp_path: Path) -> None:
    target = tmp_path / "w.safetensors"
    assert run("convert", "--root", "model", "-s", "model/w", "--select", "model/nix", step, target).exit_code == 0
    assert set(safetensors.numpy.load_file(target)) == {"w"}
    assert run("convert", "--root", "nix", step, tmp_path / "x.ckpt").exit_code == 2


def test_the_line_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tree as a file of weights."""
    monkeypatch.chdir(tmp_path)
    lines = re.findall(r"\$ ckptfmt (convert .*?)\s*(?:\$|\n)", README)
    assert lines
    tree = {"model": {"wte": np.zeros((257, 8), np.float32)}, "optimizer": {"step": 1000, "betas": (0.9, 0.95)}}
    ckptfmt.save("model.ckpt", tree, metadata={"loss": 2.31})
    for line in lines:
        result = run(*line.partition("#")[0].split())
        assert result.exit_code == 0, (line, result.output)
    assert set(safetensors.numpy.load_file("model.safetensors")) == {"wte"}
    assert json.loads(run("diff", "--json", "model.ckpt", "model.safetensors").stdout)["renamed"] == [
        ["model/wte", "wte"]
    ]


def test_attributes_of_what_is_left_out_are_no_loss(tmp_path: Path) -> None:
    """Attributes of tensors go where these go, from and to files of torch."""
    kept, left = torch.ones(3), torch.zeros(2)
    kept.note, left.note = "kept", "left"
    torch.save({"kept": kept, "left": {"t": left}}, tmp_path / "a.pt")
    ckptfmt.convert(tmp_path / "a.pt", tmp_path / "a.ckpt")
    for source in ("a.pt", "a.ckpt"):
        assert ckptfmt.convert(tmp_path / source, tmp_path / "b.pt", select="kept", overwrite=True).losses == ()
        assert torch.load(tmp_path / "b.pt", weights_only=False)["kept"].note == "kept"
        ckptfmt.convert(tmp_path / source, tmp_path / "c.ckpt", root="left", overwrite=True)
        assert ckptfmt.open(tmp_path / "c.ckpt").metadata == {"torch.attributes": {"t": {"note": "left"}}}
