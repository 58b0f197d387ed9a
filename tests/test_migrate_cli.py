"""`ckptfmt migrate` and `ckptfmt upgrade`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptfmt
from ckptfmt.cli import main

W = np.arange(6, dtype=np.float32).reshape(2, 3)
DOCUMENT = {
    "ckptfmt_migration": 1,
    "schema": "net",
    "from": "1",
    "to": "2",
    "rest": "keep",
    "description": "turned",
    "parameters": {"n": None},
    "rules": [
        {"from": "a", "to": "b"},
        {"from": "w", "with": [{"op": "rearrange", "pattern": "(n x) y -> y (n x)", "axes": {"n": "n"}}], "to": "w"},
    ],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    ckptfmt.save("src", {"a": W, "w": W, "c": W, "step": 3}, schema=("net", "1"))
    ckptfmt.save("bare", {"a": W, "w": W})
    Path("m.json").write_text(json.dumps(DOCUMENT))
    return tmp_path


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["migrate", *arguments, "--migrations", "m.json"])
    return code, *capsys.readouterr()


@pytest.mark.usefixtures("folder")
def test_plan(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "src", "dst", "--to", "2", "--set", "n=2", "--plan")
    assert code == 0
    assert out.splitlines() == [
        "net: 1 → 2 (exact)",
        "  b  float32 [2, 3]  from a",
        "  w  float32 [3, 2]  (computed)",
        "  c  float32 [2, 3]",
        "3 tensors, 48 B; exact. Nothing was written.",
    ]
    assert not Path("dst").exists()


@pytest.mark.usefixtures("folder")
def test_migrate_and_back(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "src", "dst", "--to", "2", "--set", "n=2", "--layout", "loose")
    assert code == 0
    assert out.splitlines()[0] == "net: 1 → 2 (exact)"
    assert out.splitlines()[1].startswith("dst: 2 tensors, ")
    assert Path("dst").is_dir()
    code, out, _ = call(capsys, "dst", "dst", "--to", "1", "--down", "--overwrite", "--set", "n=2", "--json")
    assert code == 0
    document: dict[str, Any] = json.loads(out)
    assert document["saved"]["layout"] == "loose"
    assert (document["from"], document["to"], document["class"]) == ("2", "1", "exact")
    assert document["chain"][0]["inverse"]
    assert document["chain"][0]["description"] == "turned"
    assert {"path": ["a"], "dtype": "float32", "shape": [2, 3], "source": ["b"]} in document["tensors"]
    tree = ckptfmt.load("dst")
    assert tree["w"].tolist() == W.tolist()
    assert {*tree} == {"a", "w", "c", "step"}


@pytest.mark.usefixtures("folder")
def test_names_change_before(capsys: pytest.CaptureFixture[str]) -> None:
    ckptfmt.save("wrapped", {"model": {"module.a": W, "module.w": W}, "step": 3}, schema=("net", "1"))
    names = ("--prefix", "model", "--strip-prefix", "module.")
    code, _, _ = call(capsys, "wrapped", "dst", "--to", "2", "--set", "n=2", *names)
    assert code == 0
    assert {*ckptfmt.load("dst")} == {"b", "w"}
    code, _, _ = call(capsys, "src", "net", "--to", "2", "--set", "n=2", "--add-prefix", "net/", "--plan")
    assert code == 2


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["src", "dst", "--to", "2"], "[migration-mismatch]"),
        (["src", "dst", "--to", "9"], "[no-migration]"),
        (["bare", "dst", "--to", "2"], "[no-migration]"),
        (["src", "dst", "--to", "2", "--down"], "leave out --down [no-migration]"),
        (["src", "src", "--to", "2", "--set", "n=1"], "[exists]"),
        (["src", "dst", "--to", "2", "--set", "n"], "NAME=NUMBER"),
        (["src", "dst", "--to", "2", "--source-schema", "net"], "ID@VERSION"),
        (["none", "dst", "--to", "2"], "[not-found]"),
    ],
)
def test_what_stands_in_the_way_is_said(capsys: pytest.CaptureFixture[str], arguments: list[str], text: str) -> None:
    code, out, err = call(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert text in err
    assert not Path("dst").exists()


@pytest.mark.usefixtures("folder")
def test_a_source_without_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "bare", "dst", "--to", "2", "--set", "n=1", "--source-schema", "net@1")[0] == 0
    with ckptfmt.open("dst") as checkpoint:
        assert checkpoint.schema == ckptfmt.Schema("net", "2")


def test_upgrade(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    source = Path(__file__).parent.parent / "conformance" / "golden" / "0.9.0" / "file.ckpt"
    assert main(["upgrade", str(source), str(tmp_path / "new")]) == 0
    out = capsys.readouterr().out
    assert ": format 0.9 → 1.0, 5 tensors, " in out
    assert main(["upgrade", "--overwrite", "--json", str(tmp_path / "new"), str(tmp_path / "new")]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["from"], document["to"], document["layout"]) == ([1, 0], [1, 0], "file")
    assert main(["upgrade", str(source), str(tmp_path / "new")]) == 2
    assert "[exists]" in capsys.readouterr().err
