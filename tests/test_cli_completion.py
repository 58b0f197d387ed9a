"""Completion in shells: commands, options, and the names of files, in a real bash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import get_completion_class
from programs import environment, real

from ckptfmt.cli.app import cli
from ckptfmt.cli.overview import COMMANDS

FILES = ["inspect", "verify", "get", "ls", "diff a", "diff", "repair a", "migrate a b --migrations", "get a w --output",
         "upgrade", "gc", "convert", "convert a", "verify a"]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with checkpoints' names in it, and a program `ckptfmt` beside it."""
    program = tmp_path / "bin" / "ckptfmt"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m ckptfmt "$@"\n')
    program.chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    (work / "model with space.ckpt").touch()
    (work / "model.ckpt").touch()
    (work / "models").mkdir()
    return work


def completed(folder: Path, line: str) -> list[str]:
    """What bash offers at the end of a line."""
    code = """
    eval "$(ckptfmt completion bash)"
    COMP_WORDS=($LINE)
    case "$LINE" in *" ") COMP_WORDS+=("");; esac
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    compopt() { echo compopt "$@"; }
    _ckptfmt_completion ckptfmt "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
    printf '%s\\n' "${COMPREPLY[@]}"
    """
    path = f"{folder.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(["bash", "-c", code], cwd=folder, env=environment(PATH=path, LINE=line), capture_output=True,
                          text=True, timeout=60)  # fmt: skip
    assert done.stderr == ""
    return done.stdout.split("\n")[:-1]


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash(folder: Path) -> None:
    assert completed(folder, "ckptfmt in") == ["inspect"]
    assert completed(folder, "ckptfmt ") == list(COMMANDS)
    assert "--recursive" in completed(folder, "ckptfmt verify --r")
    assert completed(folder, "ckptfmt inspect mod")[0] == "compopt -o default", "bash completes names of files itself"
    assert completed(folder, "ckptfmt convert --layout p") == ["packed"]


@pytest.mark.parametrize("line", FILES)
def test_paths_are_completed_as_files(line: str) -> None:
    kind = get_completion_class("bash")
    assert kind is not None
    found = kind(cli, {}, "ckptfmt", "_CKPTFMT_COMPLETE").get_completions(line.split(), "m")
    assert [item.type for item in found] == ["file"]


def test_every_argument_that_is_a_path_says_so() -> None:
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        arguments = {one.name: one.type for one in command.params if isinstance(one, click.Argument)}
        others = {name for name, kind in arguments.items() if not isinstance(kind, click.Path)}
        assert others <= {"tensor", "index", "shell", "action"}, name


@pytest.mark.parametrize(("shell", "words"), [("bash", "complete -o nosort -F"), ("zsh", "#compdef ckptfmt"),
                                              ("fish", "complete --no-files --command ckptfmt")])  # fmt: skip
def test_what_is_printed(shell: str, words: str) -> None:
    done = real("completion", shell)
    assert words in done.stdout
    assert "_CKPTFMT_COMPLETE" in done.stdout
    wrong = real("completion", "tcsh")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "bash" in wrong.stderr
