"""How a path can be written, the same in every call: text or `os.PathLike`, and `~` for the home directory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ckptfmt_jax
import numpy as np
import pytest
from click.testing import CliRunner
from migrations import document
from peers import peer

import ckptfmt
from ckptfmt.cli.app import cli
from ckptfmt.testing import assert_same_tree

ckptfmt_torch = peer("ckptfmt_torch")
peer("ckptfmt_torch.dcp")
ckptfmt_torch_lightning = peer("ckptfmt_torch.lightning")
torch = peer("torch")
peer("torch.distributed.checkpoint")

TREE = {"a": np.arange(3.0)}
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")  # as one process alone is meant


class Written:
    """What is a path without being a `Path`."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __fspath__(self) -> str:
        return self.text


def manager(path: Any, **options: Any) -> None:
    with ckptfmt.CheckpointManager(path, durable=False, **options) as run:
        run.save(1, TREE)
        run.wait_for_copies()


def meeting(path: Any) -> None:
    with ckptfmt.FileCoordinator(path, 0, 1) as coordinator:
        ckptfmt.save(f"{Path.home()}/by ranks", TREE, coordinator=coordinator, layout="packed")


def dcp(path: Any) -> None:
    writer = ckptfmt_torch.dcp.StorageWriter(path)
    torch.distributed.checkpoint.save({"a": torch.ones(2)}, storage_writer=writer, no_dist=True)
    target = {"a": torch.zeros(2)}
    reader = ckptfmt_torch.dcp.StorageReader(path)
    torch.distributed.checkpoint.load(target, storage_reader=reader, no_dist=True)
    assert target["a"].tolist() == [1, 1]


def lightning(path: Any) -> None:
    plugin = ckptfmt_torch_lightning.CkptfmtIO(layout="packed")
    plugin.save_checkpoint({"a": torch.ones(2)}, path)
    assert plugin.load_checkpoint(path)["a"].tolist() == [1, 1]
    plugin.remove_checkpoint(path)
    plugin.save_checkpoint({"a": torch.ones(2)}, path)


def migrations(path: Any) -> None:
    ckptfmt.load(Path.home() / "with schema", schema="2", migrations=path)


# a call with a path, and what is in the home directory then; `a` is a checkpoint there, and `m.json` migrations
WRITE: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "save": ("x", lambda path: ckptfmt.save(path, TREE)),
    "save packed": ("x", lambda path: ckptfmt.save(path, TREE, layout="packed")),
    "torch": ("x", lambda path: ckptfmt_torch.save(path, {"a": torch.ones(2)})),
    "jax": ("x", lambda path: ckptfmt_jax.save(path, {"a": np.ones(2)})),
    "dcp": ("x", dcp),
    "lightning": ("x", lightning),
    "convert to": ("x", lambda path: ckptfmt.convert(Path.home() / "a", path)),
    "convert to npz": ("x.npz", lambda path: ckptfmt.convert(Path.home() / "a", path)),
    "convert_each": ("x", lambda path: ckptfmt.convert_each(Path.home() / "folder", path)),
    "repair": ("x", lambda path: ckptfmt.repair(Path.home() / "a", path)),
    "upgrade": ("x", lambda path: ckptfmt.upgrade(Path.home() / "a", path)),
    "migrate": (
        "x",
        lambda path: ckptfmt.migrate(Path.home() / "with schema", path, Path.home() / "m.json", schema="2"),
    ),
    "manager": ("x", manager),
    "copies": ("x", lambda path: manager(Path.home() / "run", copy_to=path)),
}
READ: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "open": ("a", ckptfmt.open),
    "load": ("a", ckptfmt.load),
    "load_into": ("a", lambda path: ckptfmt_torch.load(path, into={"a": torch.zeros(3, dtype=torch.float64)})),
    "jax": ("a", lambda path: ckptfmt_jax.load(path, cast=True)),
    "verify": ("a", lambda path: ckptfmt.verify(path).damage == ()),
    "verify_folder": ("folder", ckptfmt.verify_folder),
    "resume": ("none", lambda path: ckptfmt.verify(Path.home() / "a", resume=path)),
    "convert": ("a", lambda path: ckptfmt.convert(path, Path.home() / "x.ckpt")),
    "diff": ("a", lambda path: ckptfmt.diff(path, path)),
    "repair": ("a", lambda path: ckptfmt.repair(path, Path.home() / "x.ckpt")),
    "gc": ("folder", ckptfmt.gc),
    "manager": ("folder", ckptfmt.CheckpointManager),
    "migrations": ("m.json", migrations),
    "ranks": ("folder", meeting),
}
CALLS = {f"write {name}": found for name, found in WRITE.items()} | {
    f"read {name}": found for name, found in READ.items()
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory with checkpoints, and another working directory, which stays empty."""
    (tmp_path / "home" / "folder").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    ckptfmt.save(tmp_path / "home" / "a", TREE, durable=False)
    ckptfmt.save(tmp_path / "home" / "folder" / "b.ckpt", TREE, durable=False)
    ckptfmt.save(tmp_path / "home" / "with schema", TREE, schema=("s", "1"), durable=False)
    (tmp_path / "home" / "m.json").write_text(json.dumps(document({"from": "a", "to": "z"})))
    return tmp_path / "home"


@pytest.mark.parametrize("kind", CALLS)
def test_a_tilde_is_the_home_directory_everywhere(home: Path, kind: str) -> None:
    name, call = CALLS[kind]
    call(f"~/{name}")
    assert os.listdir() == []
    assert name == "none" or (home / name).exists()


@pytest.mark.parametrize("kind", CALLS)
def test_any_kind_of_path(home: Path, kind: str) -> None:
    name, call = CALLS[kind]
    call(Written(f"{home}/{name}"))
    assert os.listdir() == []


@pytest.mark.parametrize("kind", sorted(CALLS.keys() - {"write dcp", "read migrations"}))
def test_bytes_are_no_path(home: Path, kind: str) -> None:
    said = (
        "not a bytes|nothing can be saved into this|layout 'file' alone" if kind.startswith("write") else "not a bytes"
    )
    with pytest.raises(ckptfmt.InputError, match=said) as raised:
        CALLS[kind][1](os.fsencode(home / CALLS[kind][0]))
    assert raised.value.code == "bad-option"


def test_the_error_says_where_it_looked(home: Path) -> None:
    with pytest.raises(ckptfmt.MissingError) as raised:
        ckptfmt.load("~/nothing")
    assert raised.value.path == str(home / "nothing")
    with ckptfmt.open("~/a") as checkpoint:
        assert checkpoint.path == str(home / "a")
    assert ckptfmt.verify("~/a").path == str(home / "a")


def test_a_tilde_elsewhere_is_a_character(home: Path) -> None:
    for path in ("./~", "x~", "~nobody-of-this-name"):
        ckptfmt.save(path, TREE)
        assert_same_tree(ckptfmt.load(path), TREE)
        assert path.removeprefix("./") in os.listdir()


def test_urls_are_as_they_are(home: Path) -> None:
    with pytest.raises(ckptfmt.MissingError):
        ckptfmt.load("file://~/a")
    ckptfmt.save("memory://~/a", TREE, overwrite=True)
    assert_same_tree(ckptfmt.load("memory://~/a"), TREE)


def test_the_command_line(home: Path) -> None:
    """Where no shell has done it: in `--resume=~/x`."""
    result = CliRunner().invoke(cli, ["verify", "--resume=~/state", "~/a"])
    assert result.exit_code == 0, result.output
    assert os.listdir() == []
