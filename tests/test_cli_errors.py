"""What the command line says when something is wrong, read as a person would: options by its own names, near names, and
what lies in the folder that was given."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

import ckptfmt
from ckptfmt.cli.app import cli
from ckptfmt.cli.overview import COMMANDS
from ckptfmt.cli.spelling import ELSEWHERE, NAMES, speller
from ckptfmt.errors import CODES

PACKAGE = Path(ckptfmt.__file__).parent
_OPTION = re.compile(r"(?<![\w.(/='\"-])([a-z]+(?:_[a-z]+)*)=(?=[\s,.;:)'\"\w]|$)")


def run(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def said(*args: object) -> str:
    """The one line of an error."""
    result = run(*args)
    assert result.exit_code in (1, 2), result.output
    (line,) = result.stderr.splitlines()
    return line


def command(name: str) -> click.Command:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    ckptfmt.save(tmp_path / "whole.ckpt", {"model": {"wte": np.zeros(3), "wpe": 1}, "vars": {"0": 2}}, durable=False)
    return tmp_path / "whole.ckpt"


# ---- options


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("convert", "replace it: overwrite=True", "replace it: --overwrite"),
        ("convert", "allow it: allow_loss=True", "allow it: --allow-loss"),
        ("convert", "max_expansion=16 allows it", "--max-expansion 16 allows it"),
        ("convert", "layout='file' takes longer keys", "--layout file takes longer keys"),
        ("convert", "Name it with source_format= or target_format=;", "Name it with --from or --to;"),
        ("diff", "Name it with source_format= or target_format=;", "Name it with --from or --to;"),
        ("migrate", "Give the function with externs=", "Give the function with externs= in Python"),
        ("migrate", "migrations= requires schema=", "--migrations requires --schema"),
        ("verify", "resume= belongs to another folder", "--resume belongs to another folder"),
        ("gc", "grace=", "--grace"),
        ("get", "strict=False, cast=True, select=", "strict=False in Python"),
        ("get", "names: help() of the call says", "names: `ckptfmt get --help` says"),
        ("convert", "the key 'overwrite=True' of \"layout='file'\"", "the key 'overwrite=True' of \"layout='file'\""),
        ("convert", "the tensor lr=0.1, and x.layout=3", "the tensor lr=0.1, and x.layout=3"),
        (
            "convert",
            "the manifest's bytes do not match: overwrite=True",
            "the manifest's bytes do not match: --overwrite",
        ),
    ],
)
def test_options_have_the_names_of_the_command(name: str, text: str, expected: str) -> None:
    assert speller(command(name))(text) == expected


def texts_of_errors() -> list[str]:
    """Every text that is handed to `fault` anywhere, and all advice."""
    found = [code.advice for code in CODES.values()]
    for module in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            is_fault = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "fault"
            parts = ast.walk(node) if is_fault else ()
            found += [one.value for one in parts if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    return found


def test_every_option_that_an_error_names_is_in_the_table() -> None:
    names = {name for text in texts_of_errors() for name in _OPTION.findall(text)}
    assert {"overwrite", "allow_loss", "select", "externs", "layout"} <= names
    own = {option.name for name in COMMANDS for option in command(name).params} | {n for t in NAMES.values() for n in t}
    assert names <= own | ELSEWHERE | {"local_dir"}  # of huggingface_hub


def test_no_table_names_an_option_that_a_command_lacks() -> None:
    for name, table in NAMES.items():
        there = {opt for option in command(name).params for opt in option.opts}
        assert {word for words in table.values() for word in words.split() if word[:2] == "--"} <= there


def test_an_error_of_a_real_call(whole: Path, tmp_path: Path) -> None:
    line = said("convert", whole, whole.with_name("b.safetensors"))
    assert "take a part (--root, --select), or allow it: --allow-loss value [lossy]" in line
    assert "allow_loss" not in line
    line = said("upgrade", whole, whole.with_name("whole.ckpt"))
    assert "or replace it: --overwrite [exists]" in line
    found = json.loads(run("upgrade", whole, whole, "--json").stdout)["error"]
    assert found["advice"] == "Choose another path, or replace it: --overwrite"


# ---- near names


def test_near_names(whole: Path) -> None:
    assert "there is no 'model/wtf' in the tree; did you mean 'model/wte'? See" in said("get", whole, "model/wtf")
    assert "did you mean 'model/wte'?" in said("get", whole, "wte")
    assert "no path matches 'modle/*'; did you mean 'model/*'? See" in said("inspect", whole, "-s", "modle/*")
    assert "No such command 'verfy'; did you mean 'verify'?" in said("verfy", whole)
    found = json.loads(run("get", whole, "wte", "--json").stdout)["error"]
    assert found["message"] == "there is no 'wte' in the tree; did you mean 'model/wte'?"


def test_labels_are_taken(whole: Path) -> None:
    assert run("get", whole, "vars/'0'").stdout == "2\n"
    assert "'0'" in run("inspect", whole, "-s", "vars/'0'").stdout


# ---- folders


@pytest.mark.parametrize("args", [["get", "{}", "w"], ["repair", "{}", "x"], ["upgrade", "{}", "x"]])
def test_a_folder_where_one_checkpoint_is_wanted(whole: Path, tmp_path: Path, args: list[str]) -> None:
    line = said(*[arg.format(tmp_path) for arg in args])
    assert f"it is a folder with 1 checkpoint: `ckptfmt ls {tmp_path}` lists them" in line
    above = tmp_path / "above it"
    (above / "run").mkdir(parents=True)
    whole.rename(above / "run" / "a.ckpt")
    line = said(*[arg.format(above) for arg in args])
    assert f"1 checkpoint in the folders below it: `ckptfmt ls -r '{above}'` lists them" in line


def test_a_folder_of_folders_to_verify(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "above" / "run").mkdir(parents=True)
    whole.rename(tmp_path / "above" / "run" / "a.ckpt")
    line = said("verify", tmp_path / "above")
    assert "1 checkpoint in the folders below it: -r looks there" in line
    assert run("verify", "-r", tmp_path / "above").exit_code == 0


def test_a_folder_of_nothing(tmp_path: Path) -> None:
    line = said("get", tmp_path, "w")
    assert "this is a directory without a COMMIT file. Give the path of a ckptfmt checkpoint" in line


def test_a_hint_looks_at_few_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        (tmp_path / f"{number}.txt").touch()
    looked: list[Any] = []
    monkeypatch.setattr("ckptfmt.cli.folders.LOOKED_AT", 5)
    monkeypatch.setattr("ckptfmt.conversion.formats.own.looks_like", lambda probe: bool(looked.append(probe)))
    said("get", tmp_path, "w")
    assert len(looked) == 10, "five here, and five below"


# ---- what all commands have in common


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "completion"])
def test_the_help_says_what_a_program_needs(name: str) -> None:
    found = command(name)
    assert found.epilog is not None
    assert "Examples:\n" in found.epilog
    assert "Exit codes: 0 " in found.epilog
    assert "The object of --json" in found.epilog
    assert {"--json"} <= {word for option in found.params for word in option.opts}
    for word in ("-h", "--help"):
        result = CliRunner().invoke(cli, [name, word])
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout.startswith(f"Usage: cli {name} ")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_call_that_is_wrong_is_one_line_or_one_object(name: str) -> None:
    for words in ([name], [name, "--no-such"], [name, *["none"] * 9]):
        if name in ("inspect", "verify", "stats", "fold") and len(words) > 2:
            continue
        result = CliRunner().invoke(cli, words)
        assert (result.exit_code, result.stdout) == (2, "")
        (line,) = result.stderr.splitlines()
        assert "\\" not in line
        if name != "completion":
            result = CliRunner().invoke(cli, [*words, "--json"])
            assert (result.exit_code, json.loads(result.stdout)["error"]["code"]) == (2, "usage")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["get", "w", "x.ckpt"], "there is no 'w': the checkpoint comes first, then what to take out of it"),
        (
            ["convert", "--from", "tourch", "x.ckpt", "y.ckpt"],
            "'--from': there is no format 'tourch'; did you mean 'torch'",
        ),
        (["convert", "--to", "safetensrs", "x.ckpt", "y"], "'--to': there is no format 'safetensrs'; did you mean"),
        (["gc", "x.ckpt"], "this is a file, and no folder"),
        (
            ["ls", "x.ckpt"],
            "this is a file, and no folder: `ckptfmt inspect` shows what is in a checkpoint. Give the path",
        ),
        (["prune", "x.ckpt", "--keep-last", "1"], "Give the path of a folder [not-a-checkpoint]"),
        (["completion"], "Missing argument 'SHELL'. Choose from: bash, zsh, fish"),
    ],
)
def test_mistakes_of_a_first_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], told: str) -> None:
    monkeypatch.chdir(tmp_path)
    ckptfmt.save("x.ckpt", {"w": np.zeros(3)})
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 2
    assert told in result.stderr
