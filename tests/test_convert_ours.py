"""What only a checkpoint of this format holds: from one to another it comes along, elsewhere its loss is told."""

from __future__ import annotations

import json
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from inside import inside
from peers import peer

import ckptfmt
from ckptfmt.frameworks.adapter import Tagged

torch = peer("torch")

Pair = namedtuple("Pair", "one two")
W = np.arange(6, dtype=np.float32)


def source(folder: Path, **more: Any) -> Path:
    tree = {
        "size": torch.Size([1, 2]),
        "dtype": torch.bfloat16,
        "parameter": torch.nn.Parameter(torch.from_numpy(W.copy()), requires_grad=False),
        "pair": Pair(W, 2),
        "odd": Tagged("my.thing", "p", {"w": W}, lambda child: child),
        "plain": [1, (2, W)],
    }
    ckptfmt.save(
        folder / "source.ckpt", tree, schema=("net", "3"), metadata={"step": 1}, extra={"note": ["kept"]}, **more
    )
    return folder / "source.ckpt"


def tags(path: Path) -> Any:
    with ckptfmt.open(path) as checkpoint:
        return (
            inside(checkpoint).manifest.tree,
            checkpoint.schema,
            {key: one for key, one in inside(checkpoint).manifest.unknown.items() if key != "provenance"},
            checkpoint.metadata,
        )


@pytest.mark.parametrize("layout", ["file", "packed", "loose"])
@pytest.mark.parametrize("compression", [None, "gzip"])
def test_everything_comes_along(tmp_path: Path, layout: str, compression: str | None) -> None:
    path = source(tmp_path, compression=compression)
    report = ckptfmt.convert(path, tmp_path / "target", layout=layout)
    assert not report.losses
    assert tags(tmp_path / "target") == tags(path)
    assert ckptfmt.diff(path, tmp_path / "target").equal


def test_what_the_caller_says_is_added_and_counts(tmp_path: Path) -> None:
    more = {"schema": ("net", "4"), "metadata": {"loss": 0.5}, "extra": {"more": 1}}
    ckptfmt.convert(source(tmp_path), tmp_path / "target", **more)
    _, *found = tags(tmp_path / "target")
    assert found == [ckptfmt.Schema("net", "4"), {"more": 1, "note": ["kept"]}, {"step": 1, "loss": 0.5}]
    ckptfmt.convert(tmp_path / "target", tmp_path / "b", metadata={"step": 2}, extra={"note": None})
    _, *found = tags(tmp_path / "b")
    assert found == [ckptfmt.Schema("net", "4"), {"more": 1, "note": None}, {"step": 2, "loss": 0.5}]
    ckptfmt.convert(tmp_path / "b", tmp_path / "c", metadata=None, extra=None, schema=None)
    _, *found = tags(tmp_path / "c")
    assert found == [ckptfmt.Schema("net", "4"), {"more": 1, "note": None}, {"step": 2, "loss": 0.5}]


def test_metadata_of_other_formats_stay_beside_those_of_the_caller(tmp_path: Path) -> None:
    safetensors.numpy.save_file({"w": W}, tmp_path / "x.safetensors", {"format": "pt", "base": "llama"})
    ckptfmt.convert(tmp_path / "x.safetensors", tmp_path / "x", metadata={"step": 7, "base": "mistral"})
    assert ckptfmt.open(tmp_path / "x").metadata == {"format": "pt", "base": "mistral", "step": 7}


def test_metadata_that_cannot_be_added_to_each_other(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "a", {"w": W}, metadata={"step": 1})
    with pytest.raises(ckptfmt.InputError, match="those of the source are left out, as metadata=") as raised:
        ckptfmt.convert(tmp_path / "a", tmp_path / "b", metadata=[1, 2])
    assert [loss.kind for loss in raised.value.report] == ["metadata"]
    assert not (tmp_path / "b").exists()
    report = ckptfmt.convert(tmp_path / "a", tmp_path / "b", metadata=[1, 2], allow_loss="metadata")
    assert report.losses == tuple(raised.value.report)
    assert ckptfmt.open(tmp_path / "b").metadata == [1, 2]


def test_losses_elsewhere(tmp_path: Path) -> None:
    path = source(tmp_path)
    with pytest.raises(ckptfmt.InputError) as raised:
        ckptfmt.convert(path, tmp_path / "x.npz")
    assert raised.value.code == "lossy"
    report = ckptfmt.convert(path, tmp_path / "x.npz", allow_loss=True)
    told = {(loss.kind, loss.path, loss.message) for loss in report.losses}
    assert ("metadata", "", "the schema net 3 is left out") in told
    assert ("metadata", "", "the key 'note' of the manifest is left out") in told
    assert not any("torch.Parameter" in message for _, _, message in told)
    for place, name in (
        ("size", "torch.Size"),
        ("dtype", "torch.dtype"),
        ("odd", "my.thing"),
    ):
        assert ("value", place, f"the tag {name} is left out") in told


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"note": "text"}, {"config": {"heads": 4}, "step": 7}])
def test_a_schema_goes_through_safetensors(tmp_path: Path, metadata: Any) -> None:
    ckptfmt.save(tmp_path / "a.ckpt", {"w": W}, schema=("llama", "2"), metadata=metadata)
    assert ckptfmt.convert(tmp_path / "a.ckpt", tmp_path / "a.safetensors").losses == ()
    with safetensors.safe_open(tmp_path / "a.safetensors", "np") as file:
        strings = file.metadata()
    assert json.loads(strings["ckptfmt.schema"]) == ["llama", "2"]
    assert strings["format"] == "pt"  # which transformers 4 asks for
    assert ckptfmt.convert(tmp_path / "a.safetensors", tmp_path / "b.ckpt").losses == ()
    assert tags(tmp_path / "b.ckpt")[1:] == (("llama", "2"), {}, metadata)
    assert ckptfmt.diff(tmp_path / "a.ckpt", tmp_path / "a.safetensors").equal
    assert ckptfmt.convert(tmp_path / "a.safetensors", tmp_path / "c.safetensors").losses == ()
    assert (tmp_path / "c.safetensors").read_bytes() == (tmp_path / "a.safetensors").read_bytes()
    with pytest.raises(ckptfmt.InputError, match="the schema llama 2 is left out"):
        ckptfmt.convert(tmp_path / "a.safetensors", tmp_path / "a.npz")
    ckptfmt.convert(tmp_path / "a.safetensors", tmp_path / "d.ckpt", schema=("llama", "3"))
    assert tags(tmp_path / "d.ckpt")[1] == ("llama", "3")
    ckptfmt.convert(tmp_path / "a.ckpt", tmp_path / "part.safetensors", select="w")
    assert b"ckptfmt.schema" not in (tmp_path / "part.safetensors").read_bytes()


@pytest.mark.parametrize("said", ["llama 2", '["llama"]', '["llama", ""]', '["llama", 2]', "[", '["llama", "2"]'])
def test_strings_of_others_are_no_schema(tmp_path: Path, said: str) -> None:
    safetensors.numpy.save_file({"w": W}, tmp_path / "a.safetensors", {"ckptfmt.schema": said})
    ckptfmt.convert(tmp_path / "a.safetensors", tmp_path / "a.ckpt")
    assert tags(tmp_path / "a.ckpt")[1:] == (None, {}, {"ckptfmt.schema": said})
    for name in ("ckptfmt.schema", "ckptfmt.json"):
        ckptfmt.save(tmp_path / "b.ckpt", {"w": W}, metadata={name: said, "note": "x"}, overwrite=True)
        with pytest.raises(ckptfmt.InputError, match=f"'{name}' is left out: its name is taken"):
            ckptfmt.convert(tmp_path / "b.ckpt", tmp_path / "b.safetensors")


def test_half_a_character_is_no_schema(tmp_path: Path) -> None:
    strings = {"ckptfmt.json": '{"keys": ["ckptfmt.schema"], "added": []}', "ckptfmt.schema": '["a\\ud800", "2"]'}
    safetensors.numpy.save_file({"w": W}, tmp_path / "a.safetensors", strings)
    with pytest.raises(ckptfmt.CkptError, match="is no text") as raised:
        ckptfmt.convert(tmp_path / "a.safetensors", tmp_path / "a.ckpt")
    assert raised.value.code == "bad-source"


def test_the_schema_of_files_with_an_index(tmp_path: Path) -> None:
    for name, version in (("a", "2"), ("b", "2"), ("c", "3")):
        ckptfmt.save(tmp_path / name, {name: W}, schema=("llama", version))
        ckptfmt.convert(tmp_path / name, tmp_path / f"{name}.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    for names, expected in (("ab", ("llama", "2")), ("abc", "differs")):
        index.write_text(json.dumps({"weight_map": {name: f"{name}.safetensors" for name in names}}))
        if expected == "differs":
            with pytest.raises(ckptfmt.InputError, match=r"'ckptfmt.schema' of c.safetensors differs"):
                ckptfmt.convert(index, tmp_path / "whole", overwrite=True)
        else:
            assert not ckptfmt.convert(index, tmp_path / "whole").losses
            assert tags(tmp_path / "whole")[1] == expected


def test_names_that_are_split_are_another_schema(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "flat.ckpt", {"a.b": W}, schema=("net", "3"))
    with pytest.raises(ckptfmt.InputError, match="schema net 3"):
        ckptfmt.convert(tmp_path / "flat.ckpt", tmp_path / "x.ckpt", nest=True)
    ckptfmt.convert(tmp_path / "flat.ckpt", tmp_path / "x.ckpt", nest=True, allow_loss=True)
    with ckptfmt.open(tmp_path / "x.ckpt") as checkpoint:
        assert checkpoint.schema is None
        assert [*checkpoint] == ["a/b"]


def test_differences_of_schema_and_tags(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "a", {"size": torch.Size([1, 2])}, schema=("net", "3"))
    ckptfmt.save(tmp_path / "b", {"size": (1, 2)}, schema=("net", "4"))
    report = ckptfmt.diff(tmp_path / "a", tmp_path / "b")
    assert [(one.path, one.kind, one.before, one.after) for one in report.changed] == [
        ("", "schema", "net 3", "net 4"),
        ("size", "tag", "torch.Size", "none"),
    ]
    assert report.same == 2
    assert not report.equal


def test_a_part_keeps_what_the_manifest_says_of_the_whole(tmp_path: Path) -> None:
    """But for the schema, which names the tensors of the whole."""
    for options in ({"select": "plain/**"}, {"root": "plain"}):
        report = ckptfmt.convert(source(tmp_path, overwrite=True), tmp_path / "part", overwrite=True, **options)
        assert tags(tmp_path / "part")[1:] == (None, {"note": ["kept"]}, {"step": 1})
        assert report.losses == ()
