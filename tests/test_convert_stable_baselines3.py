"""Archives of Stable-Baselines3 (tests/data/make_stable_baselines3.py), beside what torch reads of their files."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conversions import imported
from hostile import refused
from mangling import only_errors

from ckptfmt.conversion import open_source
from ckptfmt.conversion.source import is_tensor, walk

torch = pytest.importorskip("torch")

MODEL = Path(__file__).parent / "data/stable_baselines3.zip"


def members() -> dict[str, bytes]:
    with zipfile.ZipFile(MODEL) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewritten(path: Path, **changed: bytes | None) -> Path:
    """The model with members of other bytes, or without them; "__" stands for the period of their names."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**members(), **{name.replace("__", "."): data for name, data in changed.items()}}.items():
            if data is not None:
                archive.writestr(name, data)
    return path


def same(found: Any, expected: Any) -> bool:
    if isinstance(expected, dict):
        return list(found) == list(expected) and all(same(found[key], expected[key]) for key in expected)
    if isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(expected, torch.Tensor):
        return is_tensor(found) and np.array_equal(found[()], expected.detach().numpy())
    return bool(found == expected)


def test_each_file_of_torch_is_a_part_of_the_tree(tmp_path: Path) -> None:
    with open_source(str(MODEL)) as source:
        assert (source.format, source.losses) == ("stable-baselines3", ())
        assert list(source.tree) == ["pytorch_variables", "policy", "policy.optimizer"]
        assert sum(1 for _, leaf in walk(source.tree) if is_tensor(leaf)) > 8
        for name, value in source.tree.items():
            assert same(value, torch.load(io.BytesIO(members()[f"{name}.pth"]), weights_only=True))


def test_what_it_says_of_the_run_is_kept_and_nothing_unpickled(tmp_path: Path) -> None:
    shutil.copy(MODEL, tmp_path / "a.zip")
    _, metadata = imported(tmp_path / "a.zip")
    assert metadata["stable_baselines3.version"] == "2.9.2"
    assert "PyTorch: 2.13.0" in metadata["stable_baselines3.system_info"]
    data = metadata["stable_baselines3.data"]
    assert data == json.loads(members()["data"])
    assert data["gamma"] == 0.99
    assert type(data["policy_class"][":serialized:"]) is str


def test_one_file_of_it_is_taken(tmp_path: Path) -> None:
    shutil.copy(MODEL, tmp_path / "a.zip")
    tree, _ = imported(tmp_path / "a.zip", root="policy")
    assert "action_net.weight" in tree


def test_archives_that_are_not_what_they_say(tmp_path: Path) -> None:
    pickled = b"\x80\x02cos\nsystem\n(X\4\0\0\0truetR."
    harm = io.BytesIO()
    with zipfile.ZipFile(harm, "w") as archive:
        archive.writestr("x/data.pkl", pickled)
    path = tmp_path / "a.zip"
    refused(rewritten(path, policy__pth=harm.getvalue()), "unsafe-source", "os.system")
    refused(rewritten(path, policy__pth=b"nothing"), "bad-source")
    refused(rewritten(path, data=b"[" * 100_000), "bad-source")
    refused(rewritten(path, data=b"\xff"), "bad-source")
    deep = b'{"a":' * 400 + b"1" + b"}" * 400
    refused(rewritten(path, data=deep), "too-deep")
    refused(rewritten(path, data=b'"' + b"x" * (1 << 20) + b'"'), "lossy", "too large for metadata")


def test_damage(tmp_path: Path) -> None:
    shutil.copy(MODEL, tmp_path / "a.zip")
    only_errors(tmp_path / "a.zip", "stable-baselines3")
